"""Moments and spans as people write them."""

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from crdt_sync.moments import parse_age, parse_moment, parse_span, show_moment

ZURICH = ZoneInfo("Europe/Zurich")
NOW = datetime(2026, 11, 26, 9, 30, 15, tzinfo=UTC)  # 10:30:15 in Zurich


def zurich(*when: int) -> datetime:
    return datetime(*when, tzinfo=ZURICH)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", NOW),
        ("  NOW ", NOW),
        ("10 minutes ago", NOW - timedelta(minutes=10)),
        ("10m ago", NOW - timedelta(minutes=10)),
        ("an hour ago", NOW - timedelta(hours=1)),
        ("a  week   ago", NOW - timedelta(weeks=1)),
        ("90s ago", NOW - timedelta(seconds=90)),
        ("2 days ago", NOW - timedelta(days=2)),
        ("10:30", zurich(2026, 11, 26, 10, 30)),
        ("10:31", zurich(2026, 11, 25, 10, 31)),
        ("9:05:07", zurich(2026, 11, 26, 9, 5, 7)),
        ("today", zurich(2026, 11, 26)),
        ("today 8:00", zurich(2026, 11, 26, 8)),
        ("Yesterday 14:00", zurich(2026, 11, 25, 14)),
        ("yesterday", zurich(2026, 11, 25)),
        ("2026-11-25", zurich(2026, 11, 25)),
        ("2026-11-25 10:00", zurich(2026, 11, 25, 10)),
        ("2026-11-25T10:00:01.5", zurich(2026, 11, 25, 10, 0, 1, 500_000)),
        ("2026-11-25T10:00Z", datetime(2026, 11, 25, 10, tzinfo=UTC)),
        ("2026-11-25t10:00z", datetime(2026, 11, 25, 10, tzinfo=UTC)),
        ("2026-11-25 10:00-05:00", datetime(2026, 11, 25, 15, tzinfo=UTC)),
        ("2030-01-01", zurich(2030, 1, 1)),
    ],
)
def test_moment_is_read_as_people_mean_it(text: str, moment: datetime) -> None:
    found = parse_moment(text, NOW, ZURICH)

    assert found == moment
    assert found.utcoffset() == moment.astimezone(ZURICH).utcoffset()


NO_MOMENTS = """
soon/ago/10 ago/10 parsecs ago/25:00/14:60/14/yesterday noon/today 14/20261125/2026-13-01/2026-11-25 99:00
/11.25.2026/999999999 weeks ago/-5 minutes ago/١٠ minutes ago/30d
"""


@pytest.mark.parametrize("text", ["", *NO_MOMENTS.replace("\n", "").split("/")])
def test_what_is_no_moment_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no moment: write 'now', '10 minutes ago'") as refused:
        parse_moment(text, NOW, ZURICH)

    assert str(refused.value).startswith(repr(text))


def test_time_without_zone_is_the_machine_s_whatever_is_in_force_that_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Zurich")
    time.tzset()
    try:
        winter = parse_moment("2026-11-25 10:00", NOW)
        summer = parse_moment("2026-07-01 10:00", NOW)
        clock = parse_moment("10:30", NOW)
    finally:
        monkeypatch.undo()
        time.tzset()

    assert (show_moment(winter), show_moment(summer)) == ("2026-11-25 10:00:00+01:00", "2026-07-01 10:00:00+02:00")
    assert clock == zurich(2026, 11, 26, 10, 30)


def test_time_that_there_is_twice_is_the_first_and_hours_ago_are_hours() -> None:
    after = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)  # clocks went back at 01:00 UTC

    assert parse_moment("2026-10-25 02:30", after, ZURICH).astimezone(UTC).hour == 0
    assert parse_moment("1 hour ago", after, ZURICH).astimezone(UTC) == after - timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90s", timedelta(seconds=90)),
        ("15 min", timedelta(minutes=15)),
        ("1h", timedelta(hours=1)),
        ("30d", timedelta(days=30)),
        ("2 Weeks", timedelta(weeks=2)),
        ("a day", timedelta(days=1)),
    ],
)
def test_span_is_read(text: str, span: timedelta) -> None:
    assert parse_span(text) == span


@pytest.mark.parametrize("text", ["", "0s", "30", "d", "30 d ago", "1.5h", "-1d", "9999999999s", "999999999w"])
def test_what_is_no_span_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(ValueError, match="is no time: 90s, 15m"):
        parse_span(text)


def test_age_is_a_span_or_a_moment_in_the_past() -> None:
    assert parse_age("30d", NOW, ZURICH) == NOW - timedelta(days=30)
    assert parse_age("2026-10-01", NOW, ZURICH) == zurich(2026, 10, 1)
    with pytest.raises(ValueError, match=r"'2030-01-01' is in the future: 2030-01-01 00:00:00\+01:00"):
        parse_age("2030-01-01", NOW, ZURICH)
    for text in ("soon", "999999999w"):
        with pytest.raises(ValueError, match="is neither a time nor a moment"):
            parse_age(text, NOW, ZURICH)
