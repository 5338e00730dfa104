"""Which versions of a document are kept, and from when on its log is. Pure.

All versions for a while, then one an hour, then one a day, then none; those that somebody put a label on, and the newest,
for ever. The log is kept as long as any of its moments may be asked for, and to read it takes a version to begin with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from persistence import Version


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is kept."""

    all_for: timedelta
    """All versions."""
    hourly_for: timedelta
    """The newest of each hour, in UTC."""
    daily_for: timedelta
    """The newest of each day."""
    history_for: timedelta
    """Every update."""
    archived_after: timedelta = timedelta.max
    """From when on a version's content may be in the archive."""


def thinned(versions: Sequence[Version], retention: Retention, *, now: datetime) -> list[int]:
    """Ids of the versions that aren't kept any longer.

    Args:
        versions: All of a document, newest first.
        retention: How long what is kept.
        now: Aware.
    """
    base = base_of(versions, retention, now=now)
    seen: set[tuple[str, int]] = set()
    gone = []
    for index, one in enumerate(versions):
        kept = one.label is not None or index == 0 or one is base
        for slot in _slots(one, now - one.taken_at, retention):
            kept = kept or slot not in seen
            seen.add(slot)
        if not kept:
            gone.append(one.id)
    return gone


def base_of(versions: Sequence[Version], retention: Retention, *, now: datetime) -> Version | None:
    """The version with which reading the oldest moment that is kept begins: what the log has before it can go.

    Args:
        versions: All of a document, newest first.
        retention: How long what is kept.
        now: Aware.
    """
    since = now - retention.history_for
    return next((one for one in versions if one.whole and one.taken_at <= since), None)


def archivable(versions: Sequence[Version], retention: Retention, *, now: datetime) -> list[Version]:
    """The versions that belong into the archive and aren't there yet: old ones, from none of which the kept log is read on.

    Args:
        versions: All of a document, newest first.
        retention: How long what is kept.
        now: Aware.
    """
    base = base_of(versions, retention, now=now)

    def is_read_on_from(one: Version) -> bool:
        return one.whole and (base is None or one.seq >= base.seq)

    return [
        one
        for one in versions
        if not one.archived and now - one.taken_at >= retention.archived_after and not is_read_on_from(one)
    ]


def _slots(version: Version, age: timedelta, retention: Retention) -> Iterator[tuple[str, int]]:
    """Of each the newest version is kept."""
    taken = version.taken_at.astimezone(UTC).timestamp()
    if age <= retention.all_for:
        yield "all", version.id
    if age <= retention.hourly_for:
        yield "hour", int(taken // 3600)
    if age <= retention.daily_for:
        yield "day", int(taken // 86400)
