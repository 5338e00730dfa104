"""A delivery costs no more than it did: counted, so that a busy machine doesn't matter."""

from benchmarks import costs
from benchmarks.costs import Cost
from tests.support.services import require


def test_a_delivery_costs_at_most_15_percent_more_than_it_did() -> None:
    before = costs.stored()

    now = require(costs.measure)
    if costs.grown(now, before):
        # Where the machine has little time for us, what goes by the clock falls into every step.
        now = costs.least(now, costs.measure())

    print(costs.table(now, before))
    assert costs.grown(now, before) == [], (
        "What is done for each update or for each receiver has grown. If that is worth it, say so in the commit and write the new "
        "costs with `python -m benchmarks.costs --renew`; `python -m benchmarks.peers A B C --profile` shows where time goes."
    )


def test_growth_within_the_allowed_share_is_no_growth() -> None:
    before = {"A": Cost(units=1.0, calls=2.0)}

    assert costs.grown({"A": Cost(units=1.14, calls=2.2)}, before) == []
    assert costs.grown({"A": Cost(units=0.5, calls=1.0)}, before) == []


def test_growth_beyond_it_is_told_for_instructions_and_for_system_calls() -> None:
    before = {"A": Cost(units=1.0, calls=2.0)}

    assert costs.grown({"A": Cost(units=1.2, calls=2.4)}, before) == [
        "A: 1.200 units a delivery, 20% more than 1.000",
        "A: 2.400 calls a delivery, 20% more than 2.000",
    ]
