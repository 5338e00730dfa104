"""Going back by going forward: one update after which a document shows what it showed before.

Owns which units of the current document stay, which are deleted, and which of the older one are written anew, by a
client of their own. Leaves reading to `order`, the bytes of what is written to `copies`, and what it would have been
without somebody's edits to `rollback`. Pure Python that shares nothing: safe in a thread, as `content` is.

Both are states of one document, so whatever the older one shows is known to the current one, and stands in the same
order there. What both show stays, with its identity. What only the current one shows is deleted. What only the older
one shows is deleted for good: it is copied, to just in front of where it was, so that what somebody adds meanwhile to
its end still comes after it; or with the shared type around it, if that is gone too. What shows the same already
stays, even if it isn't the same: to restore something twice changes nothing.

Copies are new to everybody: what points at the original (a cursor, a comment's place) points behind the copy now. Two
who restore at the same time, not knowing of each other, both copy: restore one after the other. Where made-up items
claim to be left of what they are right of, the outcome may differ: Yjs itself shows them elsewhere after each load.

It takes 4 s of CPU for a text of 100,000 items that somebody emptied, most of it for reading both states; the edit that
brings it back is as large as the text itself.

Source: yjs 13.6 `Item.integrate`, `Item.delete`.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from .copies import Contents, Copies, Piece, Units, joined, last_unit
from .errors import MalformedUpdate, UpdateTooHeavy
from .javascript import utf16_units
from .likeness import tokens
from .order import Integrated, Item, Line, Type, read_document
from .structure import NONE, STRING, TYPE, Id
from .update import read_update

NOT_A_PAST = "This is no earlier state of the document: it shows what the document never had, or not in this order."
"""Of a true past that is said only if somebody made up items that no client writes: Yjs puts such items elsewhere when
others come along."""


@dataclass(frozen=True, slots=True)
class Restoration:
    """What it takes to go back."""

    update: bytes | None
    """The edit, for `Document.apply`. None if there is nothing to do, or nothing that can be done."""
    impossible: tuple[str, ...] = ()
    """What will not be as it was, in sentences for people. Without any, everything will."""


def restore(current: bytes, target: bytes, *, client: int, roots: Collection[str] | None = None) -> Restoration:
    """Compute the edit after which a document shows what it showed before.

    Args:
        current: The document as one update.
        target: An earlier state of it, as one update.
        client: Who writes the edit: an id that nobody has used or will use.
        roots: Which root types; all by default.

    Raises:
        MalformedUpdate: Either is no update, or one that builds on others, or `client` isn't new.
        ContentTooCostly: Either is made up so that it takes forever.
    """
    return go_back(read_document(current), read_document(target), Contents(target), client=client, roots=roots)


def as_new(target: bytes, *, client: int) -> bytes:
    """Write what a document shows as a document of its own, without what is deleted, and who wrote what.

    Args:
        target: The document as one update.
        client: Whose edit all of it becomes.

    Raises:
        MalformedUpdate: Not an update, or one that builds on others.
        ContentTooCostly: Made up so that it takes forever.
    """
    copies = Copies(client, Contents(target))
    for name, type_ in sorted(read_document(target).roots.items()):
        copies.add_root(name, type_)
    return copies.write({}) or b"\0\0"


def go_back(
    now: Integrated, then: Integrated, contents: Contents, *, client: int, roots: Collection[str] | None = None
) -> Restoration:
    """See `restore`; `contents` are of what is to be shown again."""
    if client in now.ends:
        raise MalformedUpdate(f"client {client} has edited the document before")
    if any(end > now.ends.get(each, 0) for each, end in then.ends.items()):
        return Restoration(None, (NOT_A_PAST,))
    names = now.roots.keys() | then.roots.keys()
    comparison = _Comparison(Copies(client, contents))
    nothing = Type(NONE)
    try:
        for name in sorted(names if roots is None else names & set(roots)):
            comparison.run(now.roots.get(name, nothing), then.roots.get(name, nothing))
    except _NotAPastError:
        return Restoration(None, (NOT_A_PAST,))
    impossible = [f"There never was anything in “{name}”." for name in sorted(set(roots or ()) - names)]
    update = comparison.write()
    if update is not None:
        try:
            read_update(update)
        except (MalformedUpdate, UpdateTooHeavy) as error:
            update = None
            impossible.append(f"It is more than one edit may hold: {error}.")
    return Restoration(update, tuple(impossible))


class _NotAPastError(Exception):
    """The older state shows something that the current one doesn't know."""


class _Dropped(NamedTuple):
    """Units that only the current state shows."""

    item: Item
    start: int
    stop: int
    before: Id | None
    """The unit before them, whatever that is."""


class _Shown(NamedTuple):
    """One thing that is shown, by some units of a piece."""

    token: str
    where: int
    """The index of the piece."""
    start: int
    stop: int


class _Gap:
    """What differs between two neighbours that stay."""

    __slots__ = ("brought", "dropped", "left", "right")

    def __init__(self) -> None:
        self.dropped: list[_Dropped] = []
        self.brought: list[Piece] = []
        # Between which units what is brought back goes.
        self.left: Id | None = None
        self.right: Id | None = None


class _Comparison:
    """Goes through two states of a document side by side, and collects what makes one into the other."""

    def __init__(self, copies: Copies) -> None:
        self._copies = copies
        self._deletes: dict[int, list[tuple[int, int]]] = {}
        self._gap = _Gap()

    def run(self, now: Type, then: Type) -> None:
        """Compare two states of a type, with everything inside that stays."""
        todo = [(now, then)]
        while todo:
            own, other = todo.pop()
            todo += self._compare_sequences(own.sequence, other.sequence)
            todo += self._compare_keys(own, other)

    def write(self) -> bytes | None:
        return self._copies.write({client: _joined(ranges) for client, ranges in self._deletes.items()})

    def _delete(self, item: Item, start: int, stop: int) -> None:
        self._deletes.setdefault(item.client, []).append((item.clock + start, item.clock + stop))

    def _compare_keys(self, now: Type, then: Type) -> Iterator[tuple[Type, Type]]:
        """Compare what keys have; of types that stay, yields both states."""
        wanted = dict(then.entries())
        for key in sorted(now.keys.keys() | wanted.keys()):
            last = now.keys[key].last() if key in now.keys else None
            target = wanted.get(key)
            if target is not None:
                if last is None:
                    raise _NotAPastError
                if not last.deleted and _id(last, last.length) == _id(target, target.length):
                    if last.ref == TYPE == target.ref:
                        yield last.content, target.content
                    continue
                piece = last_unit(target)
                if not last.deleted and list(tokens(last_unit(last))) == list(tokens(piece)):
                    continue
                self._copies.set(piece, _id(last, last.length))
            if last is not None and not last.deleted:
                self._delete(last, 0, last.length)

    def _compare_sequences(self, now: Line, then: Line) -> list[tuple[Type, Type]]:
        """Compare what is in the sequence; of types that stay, returns both states."""
        stay = []
        wanted = _Wanted(then)
        before: Id | None = None
        for item in now:
            units: Units | None = None
            done = 0
            while (span := wanted.within(item, done)) is not None:
                start, stop = span
                self._drop(item, done, start, before)
                left = before if start == 0 else _id(item, start)
                target, piece = wanted.take(stop - start)
                if item.deleted:
                    self._bring(piece, left, (item.client, item.clock + start))
                elif item.ref == STRING == target.ref:
                    units = units or Units(item)
                    self._compare_texts(units.piece(start, stop), piece, left)
                else:
                    self._end_gap()
                    if item.ref == TYPE == target.ref:
                        stay.append((item.content, target.content))
                done = stop
            self._drop(item, done, item.length, before)
            before = _id(item, item.length)
        if wanted.is_left:
            raise _NotAPastError
        self._end_gap()
        return stay

    def _compare_texts(self, now: Piece, then: Piece, before: Id | None) -> None:
        """Keep what both show: all, unless a surrogate pair was cut since, whose halves show as U+FFFD now."""
        if now.text == then.text:
            self._end_gap()
            return
        own, other = utf16_units(now.text), utf16_units(then.text)
        at = 0
        for differ, run in groupby(zip(own, other, strict=True), lambda pair: pair[0] != pair[1]):
            units = "".join(unit for _, unit in run)
            start, stop = now.start + at, now.start + at + len(units)
            left = before if at == 0 else _id(now.item, start)
            if differ:
                self._drop(now.item, start, stop, left if start == 0 else None)
                piece = Piece(then.item, then.start + at, then.start + at + len(units), units)
                self._bring(piece, left, (now.item.client, now.item.clock + start))
            else:
                self._end_gap()
            at += len(units)

    def _drop(self, item: Item, start: int, stop: int, before: Id | None) -> None:
        if start < stop and not item.deleted:
            self._gap.dropped.append(_Dropped(item, start, stop, before if start == 0 else _id(item, start)))

    def _bring(self, piece: Piece, left: Id | None, right: Id) -> None:
        if not self._gap.brought:
            self._gap.left, self._gap.right = left, right
        self._gap.brought.append(piece)

    def _end_gap(self) -> None:
        gap = self._gap
        if not gap.dropped and not gap.brought:
            return
        self._gap = _Gap()
        if gap.dropped and gap.brought:
            self._replace(gap)
            return
        for item, start, stop, _ in gap.dropped:
            self._delete(item, start, stop)
        self._copies.put(gap.brought, gap.left, gap.right)

    def _replace(self, gap: _Gap) -> None:
        """Delete and bring back, but for what shows the same at either end."""
        pieces = [Units(item).piece(start, stop) for item, start, stop, _ in gap.dropped]
        brought = joined(gap.brought)
        old, new = _shown(pieces), _shown(brought)
        shorter = min(len(old), len(new))
        first = 0
        while first < shorter and old[first].token == new[first].token:
            first += 1
        last = 0
        while last < shorter - first and old[-1 - last].token == new[-1 - last].token:
            last += 1
        left, right = gap.left, gap.right
        if first:
            item, stop = gap.dropped[old[first - 1].where].item, old[first - 1].stop
            left, right = _id(item, stop), _unit_at(item, stop)
        elif last:
            item, begins, _, before = gap.dropped[old[-last].where]
            start = old[-last].start
            left, right = before if start == begins else _id(item, start), (item.client, item.clock + start)
        for piece in _cut_out(old[first : len(old) - last], pieces):
            self._delete(piece.item, piece.start, piece.stop)
        self._copies.put(_cut_out(new[first : len(new) - last], brought), left, right)


class _Wanted:
    """The units that a sequence showed, to be taken in order."""

    def __init__(self, line: Line) -> None:
        self._items = line.visible()
        self._next()

    def _next(self) -> None:
        self._item = next(self._items, None)
        self._done = 0
        if self._item is not None:
            self._units = Units(self._item)

    @property
    def is_left(self) -> bool:
        """Whether there are more."""
        return self._item is not None

    def within(self, item: Item, after: int) -> tuple[int, int] | None:
        """Which units of an item, not before that one, are the next."""
        if self._item is None or self._item.client != item.client:
            return None
        start = self._item.clock + self._done - item.clock
        if not after <= start < item.length:
            return None
        return start, min(item.length, start + self._item.length - self._done)

    def take(self, count: int) -> tuple[Item, Piece]:
        """Take units of one item."""
        assert self._item is not None
        item, piece = self._item, self._units.piece(self._done, self._done + count)
        self._done += count
        if self._done == item.length:
            self._next()
        return item, piece


def _id(item: Item, length: int) -> Id:
    """The last of so many units."""
    return item.client, item.clock + length - 1


def _unit_at(item: Item, at: int) -> Id | None:
    """A unit of an item, or the first of the next one."""
    if at < item.length:
        return item.client, item.clock + at
    return None if item.next is None else (item.next.client, item.next.clock)


def _shown(pieces: Sequence[Piece]) -> list[_Shown]:
    shown = []
    for index, piece in enumerate(pieces):
        start = piece.start
        for token, length in tokens(piece):
            shown.append(_Shown(token, index, start, start + length))
            start += length
    return shown


def _cut_out(shown: Sequence[_Shown], pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces again, with nothing but what is left of them."""
    left = []
    for index, each in groupby(shown, attrgetter("where")):
        some = list(each)
        item = pieces[index].item
        text = "".join(one.token for one in some) if item.ref == STRING else ""
        left.append(Piece(item, some[0].start, some[-1].stop, text))
    return left


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """In order, those that touch as one."""
    ranges.sort()
    joined = ranges[:1]
    for start, stop in ranges[1:]:
        if start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, stop))
    return joined
