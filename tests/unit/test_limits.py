"""What one peer may take, and all together."""

import logging
from collections.abc import Callable

import pytest

from crdt_sync.errors import Flooding, Overloaded, TooManyConnections
from crdt_sync.limits import PAUSE_S_MIN, Capacity, Intake, Limits, TokenBucket
from crdt_sync.settings import Settings


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=10, burst=5, now=0)

    waits = [bucket.take(5, now=0), bucket.take(1, now=0), bucket.take(1, now=0.3), bucket.take(1, now=1)]

    assert waits == pytest.approx([0, 0.1, 0, 0])


def test_a_bucket_saves_no_more_than_its_burst() -> None:
    bucket = TokenBucket(rate=10, burst=5, now=0)

    waits = [bucket.take(5, now=3600), bucket.take(10, now=3600)]

    assert waits == pytest.approx([0, 1])


def intake(**settings: object) -> Intake:
    defaults: dict[str, object] = {
        "messages_per_s_max": 100,
        "messages_burst_max": 200,
        "received_bytes_per_s_max": 10_000,
        "received_bytes_burst_max": 20_000,
        "message_bytes_max": 20_000,
        "flooding_timeout_s": 10,
    }
    return Intake(Settings.read(**defaults | settings), now=0)


@pytest.mark.parametrize(
    ("what", "times"),
    [
        pytest.param({"frames": 1, "size": 40}, 60, id="typing, with a cursor at 20 Hz and frames of a busy drawing"),
        pytest.param({"frames": 100, "size": 10_000}, 1, id="exactly the rate of both"),
    ],
)
def test_who_stays_below_the_rate_never_waits(what: dict[str, int], times: int) -> None:
    line = intake()

    waits = {line.take(**what, now=second + n / times) for second in range(120) for n in range(times)}

    assert waits == {0}


def test_stock_clients_never_meet_the_defaults() -> None:
    """Full typing speed, a cursor at 20 Hz and 60 frames of a drag a second; a first sync and a paste in between."""
    defaults = Settings.read()
    line = Intake(defaults, now=0)
    waits = set()

    for second in range(600):
        for n in range(100):
            waits.add(line.take(frames=1, size=300, now=second + n / 100))
        if second % 100 == 0:
            waits.add(line.take(frames=1, size=defaults.message_bytes_max, now=second + 1))

    assert waits == {0}


def test_messages_and_bytes_are_bounded_each_by_itself() -> None:
    by_messages, by_bytes = intake(), intake()

    assert by_messages.take(frames=250, size=250, now=0) == pytest.approx(0.5)
    assert by_bytes.take(frames=1, size=25_000, now=0) == pytest.approx(0.5)


def test_who_is_over_waits_long_enough_to_be_worth_a_timer() -> None:
    assert intake().take(frames=201, size=1, now=0) == PAUSE_S_MIN


def flood(line: Intake, *, until: float, on_pause: Callable[[float], float] = lambda pause: pause) -> float:
    """Send all that is read; returns when it ended."""
    now = 0.0
    while now < until:
        now += on_pause(line.take(frames=20, size=100, now=now))
    return now


def test_who_goes_on_as_fast_as_it_is_let_is_told_to_stop() -> None:
    line = intake(flooding_timeout_s=10)

    with pytest.raises(Flooding):
        flood(line, until=60)


def test_who_goes_on_is_slowed_to_the_rate_until_then() -> None:
    line = intake(flooding_timeout_s=30)
    taken = 0

    def count(pause: float) -> float:
        nonlocal taken
        taken += 20
        return pause

    ended = flood(line, until=20, on_pause=count)

    assert taken == pytest.approx(200 + 100 * ended, abs=40)


def test_a_backlog_that_comes_to_its_end_is_forgiven() -> None:
    line = intake(flooding_timeout_s=10)

    for round_ in range(20):
        start = round_ * 15.0
        line.take(frames=500, size=0, now=start)
        line.take(frames=500, size=0, now=start + 9)
        # Over for nine seconds, then quiet until it has paid back and saved a second's worth.
        line.take(frames=1, size=0, now=start + 14.9)


def test_a_burst_that_is_smaller_than_the_rate_is_forgiven_too() -> None:
    line = intake(messages_per_s_max=1000, messages_burst_max=100, flooding_timeout_s=10)

    for round_ in range(20):
        line.take(frames=300, size=0, now=round_ * 15.0)
        line.take(frames=1, size=0, now=round_ * 15.0 + 14)


def test_a_process_with_few_descriptors_takes_fewer_clients() -> None:
    settings = Settings.read()

    capacities = [Capacity.within(settings, descriptors) for descriptors in (1 << 20, 20_000, 1024, 64)]

    assert capacities == [
        Capacity(20_000, 5000),
        Capacity(20_000 - 2500 - 256, 2500),
        Capacity(1024 - 128 - 256, 128),
        Capacity(64 - 8 - 16, 8),
    ]


def limits(**settings: object) -> Limits:
    return Limits(Settings.read(**settings))


def test_a_node_takes_so_many_and_one_more_when_one_has_left() -> None:
    node = limits(connections_max=2)
    first, _ = node.place("10.0.0.1"), node.place("10.0.0.2")

    with pytest.raises(TooManyConnections):
        node.place("10.0.0.3")
    first.leave()
    node.place("10.0.0.3")

    assert (node.connections, node.gone, node.refused) == (2, 1, {"connections": 1})


def test_addresses_are_counted_apart() -> None:
    node = limits(connections_per_address_max=1)
    node.place("10.0.0.1")

    with pytest.raises(TooManyConnections):
        node.place("10.0.0.1")
    node.place("10.0.0.2")

    assert node.refused == {"connections_per_address": 1}


def test_a_room_takes_so_many_of_anybody() -> None:
    node = limits(connections_per_room_max=1)
    node.place("a").take("trip-1", user=None)

    with pytest.raises(TooManyConnections), node.place("b") as place:
        place.take("trip-1", user="ann")
    node.place("b").take("trip-2", user="ann")

    assert (node.connections, node.refused) == (2, {"connections_per_room": 1})


def test_a_user_has_so_many_connections_wherever_they_come_from() -> None:
    node = limits(connections_per_user_max=1)
    first = node.place("a")
    first.take("trip-1", user="ann")

    with pytest.raises(TooManyConnections), node.place("b") as place:
        place.take("trip-2", user="ann")
    node.place("b").take("trip-2", user="bob")
    first.leave()
    node.place("b").take("trip-2", user="ann")

    assert node.refused == {"connections_per_user": 1}


def test_a_user_has_so_many_rooms_but_may_open_one_of_them_again() -> None:
    node = limits(rooms_per_user_max=2)
    first = node.place("a")
    first.take("trip-1", user="ann")
    node.place("a").take("trip-2", user="ann")
    node.place("a").take("trip-2", user="ann")

    with pytest.raises(TooManyConnections), node.place("a") as place:
        place.take("trip-3", user="ann")
    first.leave()
    node.place("a").take("trip-3", user="ann")

    assert node.refused == {"rooms_per_user": 1}


def test_nothing_is_remembered_of_who_has_left() -> None:
    """Names come from outside: a count that stays at zero would stay for ever."""
    node = limits()
    for n in range(100):
        with node.place(f"10.0.0.{n}") as place:
            place.take(f"trip-{n}", user=f"user-{n}")

    assert node.connections == 0
    assert [node._of_address, node._of_user, node._of_room, node._rooms_of_user] == [{}, {}, {}, {}]


def test_a_busy_node_takes_nobody_more() -> None:
    node = limits()
    node.joins_refused_because = "CPU 97 %"

    with pytest.raises(Overloaded):
        node.place("a")

    assert node.refused == {"joins_while_busy": 1}


def test_a_thousand_refusals_are_one_line_of_each_kind(caplog: pytest.LogCaptureFixture) -> None:
    node = limits(connections_max=1)
    node.place("a")
    for n in range(1000):
        with pytest.raises(TooManyConnections):
            node.place(f"10.0.0.{n}")
    node.note("slowed", "b")

    with caplog.at_level(logging.WARNING, "crdt_sync.limits"):
        node.report()
        node.report()

    told = [(vars(record)["limit"], vars(record)["count"], vars(record)["for_example"]) for record in caplog.records]
    assert told == [("connections", 1000, "10.0.0.999"), ("slowed", 1, "b")]
