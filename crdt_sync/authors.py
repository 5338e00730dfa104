"""Who wrote what, and when, as far as the log tells: made from its rows.

A row says which units (client and clock) it brings and which it deletes. The first row that does so did it; later ones
repeat it, as a reconnecting client's do with everything that was ever deleted.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from persistence import Row

from .errors import ProtocolError
from .structure import DELETED, FORMAT, GC, SKIP
from .update import Update, read_update


class Authors:
    """Who inserted each unit, and who deleted it.

    Args:
        rows: In seq order. To tell who made the difference between two states, those after the earlier one up to the later.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.unreadable: list[int] = []
        """Seqs of rows that are no update."""
        self._inserted: dict[int, _Spans] = {}
        self._deleted: dict[int, _Spans] = {}
        for row in rows:
            try:
                update = read_update(row.update, bounded=False)
            except ProtocolError:
                self.unreadable.append(row.seq)
                continue
            for client, start, stop, _ in _structs(update):
                self._inserted.setdefault(client, _Spans()).add(start, stop, row.user_id)
            for client, ranges in update.deletes.items():
                for start, stop in ranges:
                    self._deleted.setdefault(client, _Spans()).add(start, stop, row.user_id)

    def inserted(self, client: int, start: int, stop: int) -> Iterator[tuple[int, int, str | None]]:
        """Who inserted these units: ranges that cover them, each with a user, or None where nobody knows."""
        return self._inserted.get(client, _NOBODY).between(start, stop)

    def deleted(self, client: int, start: int, stop: int) -> Iterator[tuple[int, int, str | None]]:
        """Who deleted these units, likewise."""
        return self._deleted.get(client, _NOBODY).between(start, stop)


@dataclass(frozen=True, slots=True)
class Bucket:
    """What one user did in some stretch of time."""

    from_at: datetime
    """When it begins."""
    user_id: str | None
    updates: int
    """Rows of the log."""
    inserted: int
    """Units of text and values: UTF-16 units, elements, values of keys, embeds, shared types."""
    deleted: int
    """Units, formats too, and what was overwritten if the update said so."""
    update_bytes: int


def activity(rows: Iterable[Row], bucket_s: float, *, before: bytes | None = None) -> list[Bucket]:
    """Tell who did how much when.

    Args:
        rows: In seq order.
        bucket_s: How long a stretch is; they begin at multiples of it since 1970.
        before: The document before the first of the rows, as an update. Without it, what a client repeats of what was deleted
            before counts as deleted by it.

    Returns:
        By time and then by user, without those who did nothing.
    """
    inserted: dict[int, _Spans] = {}
    deleted: dict[int, _Spans] = {}
    if before is not None:
        for client, ranges in read_update(before, bounded=False).deletes.items():
            for start, stop in ranges:
                deleted.setdefault(client, _Spans()).add(start, stop, None)
    counts: dict[tuple[float, str | None], list[int]] = {}
    for row in rows:
        begin = row.accepted_at.timestamp() // bucket_s * bucket_s
        count = counts.setdefault((begin, row.user_id), [0, 0, 0, 0])
        count[0] += 1
        count[3] += len(row.update)
        try:
            update = read_update(row.update, bounded=False)
        except ProtocolError:
            continue
        for client, start, stop, ref in _structs(update):
            added = inserted.setdefault(client, _Spans()).add(start, stop, None)
            count[1] += added if ref not in (GC, DELETED, FORMAT) else 0
        for client, ranges in update.deletes.items():
            spans = deleted.setdefault(client, _Spans())
            count[2] += sum(spans.add(start, stop, None) for start, stop in ranges)
    in_order = sorted(counts.items(), key=lambda each: (each[0][0], each[0][1] or ""))
    return [Bucket(datetime.fromtimestamp(begin, UTC), user, *count) for (begin, user), count in in_order]


def _structs(update: Update) -> Iterator[tuple[int, int, int, int]]:
    """Client, first clock, end and content reference of each struct."""
    for client, structs in update.structs.items():
        clock = ref = -1
        for struct in structs:
            if clock >= 0 and ref != SKIP:
                yield client, clock, struct[0], ref
            clock, ref = struct[0], struct[1]
        if clock >= 0 and ref != SKIP:
            yield client, clock, update.ends[client], ref


class _Spans:
    """Disjoint ranges of clocks, each with who it belongs to."""

    __slots__ = ("_ends", "_starts", "_users")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._users: list[str | None] = []

    def add(self, start: int, stop: int, user: str | None) -> int:
        """Give what nobody has to a user; says how much that was."""
        if not self._starts or start >= self._ends[-1]:
            self._put(len(self._starts), start, stop, user)
            return stop - start
        added = 0
        index = bisect_right(self._ends, start)
        while start < stop:
            bound = self._starts[index] if index < len(self._starts) else stop
            if start < bound:
                end = min(stop, bound)
                added += end - start
                index += self._put(index, start, end, user)
            if index == len(self._starts):
                break
            start = self._ends[index]
            index += 1
        return added

    def _put(self, index: int, start: int, stop: int, user: str | None) -> int:
        """Put a range before the one at `index`, or make the one before it longer; says how many there are more."""
        if index and self._ends[index - 1] == start and self._users[index - 1] == user:
            self._ends[index - 1] = stop
            return 0
        self._starts.insert(index, start)
        self._ends.insert(index, stop)
        self._users.insert(index, user)
        return 1

    def between(self, start: int, stop: int) -> Iterator[tuple[int, int, str | None]]:
        index = bisect_right(self._ends, start)
        while start < stop:
            if index == len(self._starts) or self._starts[index] >= stop:
                yield start, stop, None
                return
            if start < self._starts[index]:
                yield start, self._starts[index], None
                start = self._starts[index]
            end = min(stop, self._ends[index])
            yield start, end, self._users[index]
            start, index = end, index + 1


_NOBODY = _Spans()
