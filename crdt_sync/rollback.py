"""What a document would be without somebody's edits, and the edit that makes it so.

Owns whose each edit was: that of whoever's update brought it first. Leaves the edit itself to `restoring`. Pure Python
that shares nothing: safe in a thread, as `content` is.

All updates are put together without applying any, so that nothing is lost that is deleted by now. What the user
inserted counts as deleted, what the user deleted first as not deleted. Of a key, the last value counts that isn't the
user's. What others did stays, but for what they put inside of a shared type that the user inserted: it goes with that.

Only the first to delete something counts, since an update says more than what its author did: after a client was
offline, it repeats all deletes that the client knows of.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain

from .copies import Contents, cut_struct
from .lib0 import read_var_string, write_var_uint
from .order import Item, Line, Type, read_document
from .ranges import Ranges
from .restoring import Restoration, go_back
from .standins import items_of
from .structure import GC, SKIP, STRING, TYPE, Id
from .update import Update, read_update, write_deletes

OTHERS_INSIDE = "Others have put something inside of what this user added. It goes with that."
UNKNOWN_EDITS = "The document has edits of which nobody knows whose they are."


def roll_back(current: bytes, *, before: bytes, edits: Iterable[tuple[bytes, bool]], client: int) -> Restoration:
    """Compute the edit that takes back what one user did since a moment.

    Args:
        current: The document as one update.
        before: The document at that moment, as one update.
        edits: All updates since then in the order of the log, each with whether it is the user's. An earlier edit that
            took back what this user did counts as the user's too, or what it brought back would be there twice.
        client: Who writes the edit: an id that nobody has used or will use.

    Raises:
        MalformedUpdate: One of them is no update, `current` or `before` builds on others, or `client` isn't new.
        ContentTooCostly: The document is made up so that it takes forever.
    """
    gathered = _Gathered(before, edits)
    data = gathered.write()
    now, then = read_document(current), read_document(data)
    if any(end > then.ends.get(each, 0) for each, end in now.ends.items()):
        return Restoration(None, (UNKNOWN_EDITS,))
    lost = _has_others_inside(now.roots.values(), gathered.inserted)
    _forget_values(then.roots.values(), gathered.inserted, gathered.deleted)
    _mend(then.roots.values(), _characters(data, gathered.cuts()))
    restoration = go_back(now, then, Contents(data), client=client)
    return Restoration(restoration.update, restoration.impossible + ((OTHERS_INSIDE,) if lost else ()))


class _Gathered:
    """A document and what was done since, as one: everything that was ever inserted, and deletes of others only."""

    def __init__(self, before: bytes, edits: Iterable[tuple[bytes, bool]]) -> None:
        self.inserted: dict[int, Ranges] = {}
        """What the user inserted, by client."""
        self.deleted: dict[int, Ranges] = {}
        """What others deleted."""
        self._taken_back: dict[int, Ranges] = {}
        self._structs: dict[int, list[bytes]] = {}
        self._ends: dict[int, int] = {}
        self._taken: list[tuple[Update, bool]] = []
        self._take(before, read_update(before, bounded=False), False)
        waiting = [(data, read_update(data, bounded=False), own) for data, own in edits]
        # As a document does: what builds on others waits for them.
        while waiting:
            late = []
            for data, update, own in waiting:
                if all(self._ends.get(client, 0) >= clock for client, clock in update.needs.items()):
                    self._take(data, update, own)
                else:
                    late.append((data, update, own))
            if len(late) == len(waiting):
                # What they delete, a document deletes as soon as it is there.
                for _, update, own in late:
                    self._take_deletes(update, own)
                break
            waiting = late

    def write(self) -> bytes:
        out = [write_var_uint(len(self._structs))]
        for client, structs in self._structs.items():
            out += [write_var_uint(len(structs)), write_var_uint(client), b"\0", *structs]
        deletes: dict[int, Ranges] = {}
        for client, ranges in chain(self.deleted.items(), self.inserted.items()):
            for start, end in ranges:
                deletes.setdefault(client, Ranges()).add(start, end)
        written = {client: list(ranges) for client, ranges in deletes.items()}
        return b"".join((*out, write_deletes(written)[1:]))

    def cuts(self) -> set[Id]:
        """The low halves of surrogate pairs that the user cut, and nobody else."""
        pairs: dict[int, set[int]] = {}
        for update, _ in self._taken:
            for client, lows in update.pairs.items():
                pairs.setdefault(client, set()).update(lows)

        def cut_by(user: bool) -> set[Id]:
            found = (update.boundaries() for update, own in self._taken if own is user)
            return {(client, clock) for client, clock in chain(*found) if clock in pairs.get(client, ())}

        return cut_by(True) - cut_by(False) if pairs else set()

    def _take(self, data: bytes, update: Update, own: bool) -> None:
        self._taken.append((update, own))
        for client in update.structs:
            known = self._ends.get(client, 0)
            for clock, end, struct in _structs_of(data, update, client):
                if end > known:
                    rest = struct if clock >= known else cut_struct(struct, client, clock, known)
                    self._structs.setdefault(client, []).append(rest)
                    if own:
                        self.inserted.setdefault(client, Ranges()).add(max(clock, known), end)
                    self._ends[client] = known = end
        self._take_deletes(update, own)

    def _take_deletes(self, update: Update, own: bool) -> None:
        mine, theirs = (self._taken_back, self.deleted) if own else (self.deleted, self._taken_back)
        for client, ranges in update.deletes.items():
            others, known = theirs.get(client, Ranges()), self._ends.get(client, 0)
            for start, end in ranges:
                for gap in others.gaps(start, min(end, known)):
                    mine.setdefault(client, Ranges()).add(*gap)


def _structs_of(data: bytes, update: Update, client: int) -> Iterator[tuple[int, int, bytes]]:
    """Each struct of a client that says something: its clock, the clock after it, its bytes."""
    own = update.structs[client]
    # Of a single keystroke nobody counts the bytes: all but the empty set of deletes.
    stop = update.stops.get(client, len(data) - 1)
    for index, (clock, ref, *_, start) in enumerate(own):
        is_last = index + 1 == len(own)
        end = update.ends.get(client, clock) if is_last else own[index + 1][0]
        if ref == GC:
            yield clock, end, b"\0" + write_var_uint(end - clock)
        elif ref != SKIP:
            yield clock, end, data[start : stop if is_last else own[index + 1][7]]


def _is_in(item: Item, ranges: Mapping[int, Ranges]) -> bool:
    own = ranges.get(item.client)
    return own is not None and own.covers(item.clock, item.clock + item.length)


def _forget_values(roots: Iterable[Type], inserted: Mapping[int, Ranges], deleted: Mapping[int, Ranges]) -> None:
    """Take out of all keys what the user put there, so that the value before it counts.

    Unless somebody else deleted it: then there is none.
    """
    types = list(roots)
    for type_ in types:
        for key, line in type_.keys.items():
            type_.keys[key] = rest = Line()
            items = list(line)
            if _is_in(items[-1], inserted) and _is_in(items[-1], deleted):
                continue
            others = [item for item in items if not _is_in(item, inserted)]
            for item, after in zip(others, [*others[1:], None], strict=False):
                item.next = after
            rest.first = others[0] if others else None
        types += [item.content for item in _shown(type_) if item.ref == TYPE]


def _characters(data: bytes, cuts: Collection[Id]) -> dict[Id, str]:
    """The characters whose low halves these are."""
    found = {}
    clients = {client for client, _ in cuts}
    for client, clock, start, content, _ in items_of(data) if cuts else ():
        if client in clients and data[start] & 31 == STRING:
            units = read_var_string(data, content)[0].encode("utf-16-le")
            for low in range(clock + 1, clock + len(units) // 2):
                if (client, low) in cuts:
                    at = 2 * (low - clock)
                    found[client, low] = units[at - 2 : at + 2].decode("utf-16-le", "surrogatepass")
    return found


def _mend(roots: Iterable[Type], characters: Mapping[Id, str]) -> None:
    """Join texts between the halves of a character, where nothing shows in between any more."""
    types = list(roots) if characters else []
    for type_ in types:
        before: Item | None = None
        for item in type_.sequence.visible():
            if item.ref == TYPE:
                types.append(item.content)
            follows = before is not None and (before.client, before.clock + before.length) == (item.client, item.clock)
            character = characters.get((item.client, item.clock)) if follows else None
            if before is None or character is None:
                before = item
                continue
            before.content = before.content[:-1] + character + item.content[1:]
            before.length += item.length
            item.deleted = True
        types += [item.content for _, item in type_.entries() if item.ref == TYPE]


def _has_others_inside(roots: Iterable[Type], inserted: Mapping[int, Ranges]) -> bool:
    """Whether what the user inserted shows anything that somebody else put into it."""
    types = [(type_, False) for type_ in roots]
    for type_, own in types:
        for item in _shown(type_):
            is_own = _is_in(item, inserted)
            if own and not is_own:
                return True
            if item.ref == TYPE:
                types.append((item.content, own or is_own))
    return False


def _shown(type_: Type) -> Iterator[Item]:
    yield from type_.sequence.visible()
    for _, item in type_.entries():
        yield item
