"""What a document shows, in its order: the items of a complete update, integrated as Yjs would.

Owns the order of items that were put in the same place by several people, and which of them are gone. Leaves to
`content` what they amount to. Needs no pycrdt, hence nothing of what it changes and dies of.

All items are cut beforehand wherever one of the others, or a delete, makes Yjs cut them, which is in `update`'s
boundaries. So every origin is the last unit of an item, every right origin the first of one, and nothing has to be cut
later; a surrogate pair that is cut becomes two U+FFFD, as in Yjs.

Source: yjs 13.6 `Item.getMissing`, `Item.integrate`, `encoding.js` (`integrateStructs`), `ContentString.splice`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from .errors import ContentTooCostly, MalformedUpdate
from .javascript import Subdocument, parse_json, read_any
from .lib0 import read_var_bytes, read_var_string, read_var_uint
from .standins import items_of
from .structure import (
    ANY,
    BINARY,
    DELETED,
    DOC,
    EMBED,
    FORMAT,
    GC,
    JSON,
    NONE,
    STRING,
    TYPE,
    XML_ELEMENT,
    XML_HOOK,
    Struct,
)
from .update import CLOCK_MAX, Update, read_update

STEPS_MAX = 5_000_000
"""How many items may be passed by in search of a place: about 1 s. Thousands of people who write at one place at once
pass nobody by, since the highest client comes first. Only made-up updates get here, and Yjs takes long for them too."""


class Line:
    """What is lined up: the sequence of a type, or the successive values of one of its keys."""

    __slots__ = ("first",)

    def __init__(self) -> None:
        self.first: Item | None = None

    def __iter__(self) -> Iterator[Item]:
        item = self.first
        while item is not None:
            yield item
            item = item.next

    def visible(self) -> Iterator[Item]:
        """Those that aren't deleted."""
        return (item for item in self if not item.deleted)

    def last(self) -> Item | None:
        """The one that decides, if these are the values of a key; maybe it is deleted."""
        last = None
        for last in self:  # noqa: B007
            pass
        return last


class Type:
    """A shared type, root or not: its kind, and what is in it."""

    __slots__ = ("keys", "kind", "name", "sequence")

    def __init__(self, kind: int, name: str = "") -> None:
        self.kind = kind
        """Type reference; `NONE` for a root, whose kind nobody tells."""
        self.name = name
        """Of an XML element or hook."""
        self.sequence = Line()
        self.keys: dict[str, Line] = {}

    def line(self, key: str | None) -> Line:
        return self.sequence if key is None else self.keys.setdefault(key, Line())

    def entries(self) -> Iterator[tuple[str, Item]]:
        """Keys with their values: the last one of each, unless that is deleted."""
        for key, line in sorted(self.keys.items()):
            last = line.last()
            if last is not None and not last.deleted:
                yield key, last


class Item:
    """A piece of an item that nothing cuts."""

    __slots__ = ("client", "clock", "content", "deleted", "length", "line", "next", "origin", "ref", "right_origin")

    def __init__(self, client: int, clock: int, length: int, ref: int, content: Any, deleted: bool) -> None:
        self.client = client
        self.clock = clock
        self.length = length
        self.ref = ref
        """Which kind of content: see `structure`."""
        self.content = content
        """Its values as a list; of a string the string, of a format (key, JSON), of a type the `Type`."""
        self.deleted = deleted
        # From here on: once integrated. An item without a line is gone.
        self.line: Line | None = None
        self.origin: Item | None = None
        self.right_origin: Item | None = None
        self.next: Item | None = None


@dataclass(frozen=True, slots=True)
class Integrated:
    """A document's items, integrated."""

    roots: dict[str, Type]
    """The root types by name, those included that hold nothing any more."""
    ends: dict[int, int]
    """Client to the clock just after its last item: the state vector."""

    def has(self, client: int, clock: int) -> bool:
        """Whether it was ever told of this unit, deleted or not."""
        return clock < self.ends.get(client, 0)


def read_document(data: bytes) -> Integrated:
    """Integrate a complete document.

    Args:
        data: One update, which builds on nothing else.

    Raises:
        MalformedUpdate: Not well-formed, or not complete.
        ContentTooCostly: It takes more than `STEPS_MAX`.
    """
    update = read_update(data, bounded=False)
    if any(update.needs.values()):
        raise MalformedUpdate("an update that builds on others shows nothing by itself")
    return Integrated(_Integration(data, update).run(), update.ends)


def read_roots(data: bytes) -> dict[str, Type]:
    """The root types of a complete document; see `read_document`."""
    return read_document(data).roots


class _Client:
    """One client's pieces, by clock."""

    __slots__ = ("done", "items", "starts", "structs")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.items: list[Item] = []
        self.structs: list[Struct | None] = []
        """Of each piece; None for all but the first of an item."""
        self.done = 0

    def append(self, item: Item, struct: Struct | None) -> None:
        self.starts.append(item.clock)
        self.items.append(item)
        self.structs.append(struct)

    def at(self, clock: int) -> Item:
        return self.items[bisect_right(self.starts, clock) - 1]

    def has_integrated(self, clock: int) -> bool:
        return self.done == len(self.starts) or self.starts[self.done] > clock


class _Integration:
    def __init__(self, data: bytes, update: Update) -> None:
        self._roots: dict[str, Type] = {}
        self._clients = {client: _Client() for client in update.structs}
        self._steps = 0
        self._cut_into_pieces(data, update)

    def _cut_into_pieces(self, data: bytes, update: Update) -> None:
        cuts: dict[int, list[int]] = {client: [] for client in update.structs}
        for client, clock in update.boundaries():
            if client in cuts:
                cuts[client].append(clock)
        for clocks in cuts.values():
            clocks.sort()
        for client, items in groupby(items_of(data), itemgetter(0)):
            pieces, structs, index = self._clients[client], update.structs[client], 0
            ranges = update.deletes.get(client, [])
            for _, clock, start, content, _ in items:
                index = _take_collected(pieces, client, structs, index, clock)
                struct: Struct | None = structs[index]
                index += 1
                stop = structs[index][0] if index < len(structs) else update.ends[client]
                ref = data[start] & 31
                shown = ref != DELETED and (ref == TYPE or not _covers(ranges, clock, stop))
                value = _read_content(ref, data, content) if shown else None
                bounds = cuts[client][bisect_right(cuts[client], clock) : bisect_left(cuts[client], stop)]
                for bound in bounds:
                    if bound > clock:
                        piece, value = _cut(ref, value, bound - clock)
                        item = Item(client, clock, bound - clock, ref, piece, _is_deleted(ref, ranges, clock))
                        pieces.append(item, struct)
                        clock, struct = bound, None
                pieces.append(Item(client, clock, stop - clock, ref, value, _is_deleted(ref, ranges, clock)), struct)
            _take_collected(pieces, client, structs, index, update.ends[client])
        for client, structs in update.structs.items():
            if not self._clients[client].starts:  # nothing but garbage
                _take_collected(self._clients[client], client, structs, 0, update.ends.get(client, 0))

    def run(self) -> dict[str, Type]:
        # Depth first along what items refer to, highest client first. That this ends, `read_update` has seen to.
        todo = [(client, CLOCK_MAX) for client in sorted(self._clients)]
        while todo:
            client, upto = todo[-1]
            own = self._clients[client]
            while own.done < len(own.starts):
                struct = own.structs[own.done]
                # All pieces of an item at once: to Yjs they are one still.
                if own.starts[own.done] > upto and struct is not None:
                    todo.pop()
                    break
                missing = self._missing(client, struct)
                if missing is not None:
                    todo.append(missing)
                    break
                self._integrate(own)
                own.done += 1
            else:
                todo.pop()
        return self._roots

    def _missing(self, client: int, struct: Struct | None) -> tuple[int, int] | None:
        if struct is not None:
            _, _, left_client, left, right_client, right, _, _ = struct
            if left_client != client and left_client != NONE and not self._clients[left_client].has_integrated(left):
                return left_client, left
            if (
                right_client != client
                and right_client != NONE
                and not self._clients[right_client].has_integrated(right)
            ):
                return right_client, right
        return None

    def _integrate(self, own: _Client) -> None:
        item, struct = own.items[own.done], own.structs[own.done]
        if item.ref == GC:
            return
        if struct is None:
            # Goes on where the piece before ends.
            item.origin = own.items[own.done - 1]
            item.right_origin = item.origin.right_origin
            item.line = item.origin.line
        else:
            item.line = self._line_of(item, struct)
        if item.line is not None:
            self._put(item, item.line)

    def _line_of(self, item: Item, struct: Struct) -> Line | None:
        """Resolve what an item refers to. None if it is gone with that."""
        _, _, left_client, left, right_client, right, place, _ = struct
        if place is None:
            if left_client != NONE:
                item.origin = self._clients[left_client].at(left)
            if right_client != NONE:
                item.right_origin = self._clients[right_client].at(right)
                if item.right_origin.line is None:
                    return None
            beside = item.origin or item.right_origin
            return None if beside is None else beside.line
        root, key = place
        name = None if key is None else key.decode()
        if root is not None:
            return self._roots.setdefault(root.decode(), Type(NONE)).line(name)
        around = self._clients[left_client].at(left)
        if around.line is None or not isinstance(around.content, Type):
            return None
        return around.content.line(name)

    def _put(self, item: Item, line: Line) -> None:
        """Put an item where its origin and right origin, and those that were put there too, leave it."""
        left, right = item.origin, item.right_origin
        other = line.first if left is None else left.next
        if other is not right:
            passed: set[Item] = set()
            conflicting: set[Item] = set()
            while other is not None and other is not right:
                self._steps += 1
                passed.add(other)
                conflicting.add(other)
                if other.origin is item.origin:
                    if other.client < item.client:
                        left = other
                        conflicting.clear()
                    elif other.right_origin is item.right_origin:
                        break
                elif other.origin in passed:
                    if other.origin not in conflicting:
                        left = other
                        conflicting.clear()
                else:
                    break
                other = other.next
            if self._steps > STEPS_MAX:
                raise ContentTooCostly(f"more than {STEPS_MAX} items passed by")
        if left is None:
            item.next, line.first = line.first, item
        else:
            item.next, left.next = left.next, item


def _take_collected(pieces: _Client, client: int, structs: Sequence[Struct], index: int, clock: int) -> int:
    """Take over the garbage before `clock`; returns the index of the struct after it."""
    while index < len(structs) and structs[index][0] < clock:
        start = structs[index][0]
        index += 1
        stop = structs[index][0] if index < len(structs) else clock
        pieces.append(Item(client, start, stop - start, GC, None, True), None)
    return index


def _covers(ranges: Sequence[tuple[int, int]], start: int, stop: int) -> bool:
    index = bisect_right(ranges, start, key=itemgetter(0)) - 1
    return index >= 0 and stop <= ranges[index][1]


def _is_deleted(ref: int, ranges: Sequence[tuple[int, int]], clock: int) -> bool:
    return ref == DELETED or _covers(ranges, clock, clock + 1)


def _cut(ref: int, content: Any, length: int) -> tuple[Any, Any]:
    """Cut content in two, the first `length` long."""
    if content is None:
        return None, None
    if ref != STRING or content.isascii():
        return content[:length], content[length:]
    units = content.encode("utf-16-le")
    if len(units) == 2 * len(content):
        return content[:length], content[length:]
    # Halves of a pair become U+FFFD.
    return units[: 2 * length].decode("utf-16-le", "replace"), units[2 * length :].decode("utf-16-le", "replace")


def _read_content(ref: int, data: bytes, pos: int) -> Any:
    if ref == STRING:
        return read_var_string(data, pos)[0]
    if ref == FORMAT:
        key, pos = read_var_string(data, pos)
        return key, read_var_string(data, pos)[0]
    if ref == TYPE:
        kind = data[pos]
        return Type(kind, read_var_string(data, pos + 1)[0] if kind in (XML_ELEMENT, XML_HOOK) else "")
    if ref == EMBED:
        return [parse_json(read_var_string(data, pos)[0])]
    if ref == BINARY:
        return [read_var_bytes(data, pos)[0]]
    if ref == DOC:
        guid, pos = read_var_string(data, pos)
        return [Subdocument(guid, read_any(data, pos)[0])]
    count, pos = read_var_uint(data, pos)
    values = []
    for _ in range(count):
        if ref == ANY:
            value, pos = read_any(data, pos)
        else:
            assert ref == JSON, ref
            text, pos = read_var_string(data, pos)
            value = parse_json(text)
        values.append(value)
    return values
