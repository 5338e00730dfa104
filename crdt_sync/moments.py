"""Moments and spans of time as people write them: '10 minutes ago', 'yesterday 14:00', '2026-11-25T10:00Z', '30d'.

Pure: what is now, and where, comes as an argument. Whoever acts on a moment that was understood here shows it (`show_moment`), so that a
misunderstanding is seen before it does harm.
"""

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

FORMS: Final = (
    "'now', '10 minutes ago', '14:05', 'yesterday 14:00', '2026-11-25', '2026-11-25 10:00', '2026-11-25T10:00Z'"
)
SPANS: Final = "90s, 15m, 1h, 7d and '2 weeks'"

_UNITS: Final = (
    (timedelta(seconds=1), "s", "sec", "secs", "second", "seconds"),
    (timedelta(minutes=1), "m", "min", "mins", "minute", "minutes"),
    (timedelta(hours=1), "h", "hour", "hours"),
    (timedelta(days=1), "d", "day", "days"),
    (timedelta(weeks=1), "w", "week", "weeks"),
)
_LENGTHS: Final = {name: length for length, *names in _UNITS for name in names}
_DAYS: Final = {"today": 0, "yesterday": 1}
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII)
_SPAN: Final = re.compile(r"(\d{1,9}|an?)\s*([a-z]+)", re.ASCII)


def parse_moment(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """Read a moment.

    Args:
        text: One of `FORMS`. A time of day alone is the last such time before now, a day alone its beginning.
        now: Aware.
        zone: The time zone of what names none; None for the machine's.

    Returns:
        It, in that time zone.

    Raises:
        ValueError: It can't be understood. The text says what can.
    """
    words = " ".join(text.lower().split())
    here = now.astimezone(zone)
    try:
        return _moment(words, here, zone)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no moment: write {FORMS}") from error


def parse_span(text: str) -> timedelta:
    """Read a length of time.

    Raises:
        ValueError: It can't be understood, or is zero. The text says what can.
    """
    try:
        span = _span(" ".join(text.lower().split()))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no time: {SPANS} are") from error
    if not span:
        raise ValueError(f"{text!r} is no time: {SPANS} are")
    return span


def parse_age(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """Read how long ago something was, or since when: a span before now, or a moment in the past.

    Raises:
        ValueError: It can't be understood, or is in the future. The text says what can.
    """
    try:
        moment = _before(now, parse_span(text), zone)
    except (ValueError, OverflowError):
        try:
            moment = parse_moment(text, now, zone)
        except ValueError as error:
            raise ValueError(f"{text!r} is neither a time nor a moment: write {SPANS}, or {FORMS}") from error
    if moment > now:
        raise ValueError(f"{text!r} is in the future: {show_moment(moment)}")
    return moment


def show_moment(moment: datetime) -> str:
    """Write a moment for people, with its offset from UTC."""
    return moment.isoformat(sep=" ", timespec="seconds")


def iso_of(moment: datetime | None) -> str | None:
    """Write a moment as JSON has it."""
    return moment.isoformat().replace("+00:00", "Z") if moment is not None else None


def _moment(words: str, here: datetime, zone: tzinfo | None) -> datetime:
    if words == "now":
        return here
    if words.endswith(" ago"):
        return _before(here, _span(words.removesuffix(" ago")), zone)
    first, _, rest = words.partition(" ")
    if first in _DAYS:
        return _at(here.date() - timedelta(days=_DAYS[first]), _clock(rest) if rest else time(), zone)
    if _CLOCK.fullmatch(words):
        moment = _at(here.date(), _clock(words), zone)
        return moment if moment <= here else _at(here.date() - timedelta(days=1), _clock(words), zone)
    if not re.match(r"\d{4}-\d{2}-\d{2}", words, re.ASCII):
        raise ValueError("no form that is known")
    written = datetime.fromisoformat(words.upper())
    return written.astimezone(zone) if written.tzinfo is not None else _localized(written, zone)


def _before(now: datetime, span: timedelta, zone: tzinfo | None) -> datetime:
    # In UTC: an hour ago is an hour ago, whatever clocks did in it.
    return (now.astimezone(UTC) - span).astimezone(zone)


def _span(words: str) -> timedelta:
    match = _SPAN.fullmatch(words)
    if match is None or match[2] not in _LENGTHS:
        raise ValueError("no span")
    return (int(match[1]) if match[1].isdecimal() else 1) * _LENGTHS[match[2]]


def _clock(words: str) -> time:
    match = _CLOCK.fullmatch(words)
    if match is None:
        raise ValueError("no time of day")
    return time(int(match[1]), int(match[2]), int(match[3] or 0))


def _at(day: date, clock: time, zone: tzinfo | None) -> datetime:
    return _localized(datetime.combine(day, clock), zone)


def _localized(written: datetime, zone: tzinfo | None) -> datetime:
    # Of a time that there is twice, when clocks are set back, this is the first.
    return written.astimezone() if zone is None else written.replace(tzinfo=zone)
