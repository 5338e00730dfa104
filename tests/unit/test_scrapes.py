"""What is read from a server's metrics."""

import pytest

from crdt_sync.scrapes import Scrape


def scrape(at: float, *lines: str) -> Scrape:
    return Scrape.read(
        "\n".join(("# TYPE crdt_sync_messages counter", *(f"crdt_sync_{line}" for line in lines), "")), at=at
    )


BEFORE = scrape(
    10,
    'messages_total{worker="0",direction="in",kind="update"} 100',
    'messages_total{worker="0",direction="out",kind="update"} 900',
    'messages_total{worker="1",direction="in",kind="update"} 7',
    'connections{worker="0"} 3',
    'connections{worker="1"} 4',
)
NOW = scrape(
    12,
    'messages_total{worker="0",direction="in",kind="update"} 120',
    'messages_total{worker="0",direction="out",kind="update"} 1900',
    'messages_total{worker="1",direction="in",kind="update"} 17',
    'connections{worker="0"} 5',
    'connections{worker="1"} 4',
)


def test_a_total_is_of_all_processes() -> None:
    assert NOW.total("connections") == 9
    assert NOW.worst("connections") == 5
    assert NOW.total("messages_total", direction="in") == 137
    assert NOW.total("rooms") is None
    assert NOW.worst("rooms") is None


def test_a_rate_is_by_the_second() -> None:
    assert NOW.rate(BEFORE, "messages_total", direction="in") == 15
    assert NOW.rate(BEFORE, "messages_total", direction="out", worker="0") == 500
    assert NOW.rate(BEFORE, "closes_total") is None
    # A process that was started anew counts from 0; that no time has passed can't be either.
    assert BEFORE.rate(NOW, "messages_total") is None
    assert NOW.rate(NOW, "messages_total") is None


def buckets(*counts: tuple[str, int]) -> list[str]:
    return [f'commit_seconds_bucket{{worker="{worker}",le="{le}"}} {n}' for worker in "01" for le, n in counts]


@pytest.mark.parametrize(
    ("part", "expected"),
    [(0.5, 0.01), (0.8, 0.01), (0.81, 0.1), (0.95, 0.1), (0.96, None)],
)
def test_a_quantile_is_of_what_was_observed_in_between(part: float, expected: float | None) -> None:
    # In between, each of two processes: 80 up to 10 ms, 15 up to 100 ms, 5 above.
    before = scrape(1, *buckets(("0.01", 1000), ("0.1", 1000), ("+Inf", 1000)))
    now = scrape(2, *buckets(("0.01", 1080), ("0.1", 1095), ("+Inf", 1100)))

    assert now.quantile(before, "commit_seconds", part) == expected


def test_nothing_has_no_quantile() -> None:
    same = scrape(1, *buckets(("0.01", 7), ("+Inf", 7)))

    assert same.quantile(same, "commit_seconds", 0.99) is None
    assert same.quantile(same, "apply_seconds", 0.99) is None


@pytest.mark.parametrize("text", ["<html>", "", "other_metric 1\n", "crdt_sync_x{ 1"])
def test_what_is_no_metrics_of_ours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no metrics of crdt-sync"):
        Scrape.read(text, at=0)
