"""Content of a document written anew, by another client: byte for byte, and with nothing around it that is deleted.

Owns how the content of items is cut and joined, and the update that holds the copies. Leaves to `restoring` what is
copied and where it goes. Content is copied as it stands in the document's bytes, so whatever a value, format, embed or
subdocument is, its copy is the same. Pure, and not recursive along shared types.

Source: yjs 13.6 `Item.write`, `Content*.js`.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .lib0 import read_var_bytes, read_var_string, read_var_uint, write_var_bytes, write_var_uint
from .order import Item, Type
from .standins import items_of
from .structure import ANY, DELETED, JSON, NONE, STRING, TYPE, Id
from .update import read_update, write_deletes
from .values import JSON_VALUES_MAX, skip_any

TEXT_MAX = 100_000
"""How many characters are written as one item: below what `update` takes even if all are surrogate pairs."""

_IN_SEQUENCE, _IN_ROOT, _IN_TYPE = b"", b"\1", b"\0"
_KEYED, _RIGHT, _LEFT = 32, 64, 128


@dataclass(slots=True)
class Piece:
    """Some units of an item."""

    item: Item
    start: int
    """The first unit, counted from that of the item."""
    stop: int
    text: str
    """Of a string, the units as UTF-16 code units; halves of pairs stay halves, since their other half may follow."""

    def id_at(self, unit: int) -> Id:
        return self.item.client, self.item.clock + unit


def whole(item: Item) -> Piece:
    """All of an item."""
    return Piece(item, 0, item.length, item.content if item.ref == STRING else "")


def last_unit(item: Item) -> Piece:
    """What counts of the value of a key, should it be several."""
    return Units(item).piece(item.length - 1, item.length)


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces, those as one that follow upon each other."""
    runs: list[list[Piece]] = []
    for piece in pieces:
        if runs and runs[-1][-1].item is piece.item and runs[-1][-1].stop == piece.start:
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return [Piece(run[0].item, run[0].start, run[-1].stop, _with_pairs(run)) for run in runs]


def _with_pairs(run: Sequence[Piece]) -> str:
    """The text of pieces that follow upon each other, where halves of a pair are one character again."""
    text = "".join(piece.text for piece in run)
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


class Units:
    """An item, to be cut anywhere."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self._wide: bytes | None = None
        if item.ref == STRING and item.length != len(item.content):
            self._wide = item.content.encode("utf-16-le")

    def piece(self, start: int, stop: int) -> Piece:
        text = ""
        if self._wide is not None:
            text = self._wide[2 * start : 2 * stop].decode("utf-16-le", "surrogatepass")
        elif self.item.ref == STRING:
            text = self.item.content[start:stop]
        return Piece(self.item, start, stop, text)


class Contents:
    """What is in the items of a document, as bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._clocks: dict[int, list[int]] = {}
        self._bounds: dict[int, list[tuple[int, int]]] = {}
        self._values: dict[int, tuple[list[int], list[int]]] = {}
        for client, clock, start, content, stop in items_of(data):
            if data[start] & 31 not in (STRING, DELETED):
                self._clocks.setdefault(client, []).append(clock)
                self._bounds.setdefault(client, []).append((content, stop))

    def of(self, item: Item) -> bytes:
        """The content of an item that holds one thing."""
        start, stop = self._bounds[item.client][self._index(item.client, item.clock)]
        return self._data[start:stop]

    def values(self, piece: Piece) -> Iterator[tuple[bytes, int]]:
        """Each value of a piece that holds values, and how many it amounts to with those that are nested in it."""
        client, clock = piece.id_at(piece.start)
        index = self._index(client, clock)
        begins = self._bounds[client][index][0]
        if begins not in self._values:
            self._values[begins] = find_values(piece.item.ref, self._data, begins)
        bounds, nested = self._values[begins]
        first = clock - self._clocks[client][index]
        for each in range(first, first + piece.stop - piece.start):
            yield self._data[bounds[each] : bounds[each + 1]], 1 + nested[each]

    def _index(self, client: int, clock: int) -> int:
        return bisect_right(self._clocks[client], clock) - 1


def find_values(ref: int, data: bytes, start: int) -> tuple[list[int], list[int]]:
    """Where each value of a content begins, and the last one ends; and how many values are nested in each."""
    count, pos = read_var_uint(data, start)
    bounds, nested = [pos], []
    for _ in range(count):
        more = 0
        if ref == ANY:
            pos, _, more = skip_any(data, pos, 1)
        else:
            _, pos = read_var_bytes(data, pos)
        bounds.append(pos)
        nested.append(more)
    return bounds, nested


class Copies:
    """An update in the making: items of one new client.

    Args:
        client: Its id. Nobody else may have used it, and nobody else may use it later.
        contents: Of the document that is copied from.
    """

    def __init__(self, client: int, contents: Contents) -> None:
        self._client = client
        self._contents = contents
        self._clock = 0
        self._structs: list[bytes] = []
        self._unfilled: deque[tuple[bytes, Type]] = deque()

    def put(self, pieces: Sequence[Piece], left: Id | None, right: Id | None) -> None:
        """Copy pieces into a sequence, between two neighbours of which there is at least one."""
        self._put(pieces, left, right, _IN_SEQUENCE, None)

    def set(self, piece: Piece, replaced: Id) -> None:
        """Copy a piece as the new value of a key, whose last one so far is `replaced`."""
        self._put([piece], replaced, None, _IN_SEQUENCE, "")

    def add_root(self, name: str, type_: Type) -> None:
        """Copy what a root type shows into the one of that name, which has nothing in it so far."""
        self._fill(_IN_ROOT + write_var_bytes(name.encode()), type_)

    def write(self, deletes: Mapping[int, Sequence[tuple[int, int]]]) -> bytes | None:
        """Write all copies with everything inside of them, and ranges to delete; None if there is nothing at all."""
        while self._unfilled:
            self._fill(*self._unfilled.popleft())
        if not self._structs:
            return write_deletes(deletes) if deletes else None
        head = b"\1" + write_var_uint(len(self._structs)) + write_var_uint(self._client) + b"\0"
        return b"".join((head, *self._structs, write_deletes(deletes)[1:]))

    def _fill(self, place: bytes, type_: Type) -> None:
        self._put([whole(item) for item in type_.sequence.visible()], None, None, place, None)
        for key, item in type_.entries():
            self._put([last_unit(item)], None, None, place, key)

    def _put(self, pieces: Sequence[Piece], left: Id | None, right: Id | None, place: bytes, key: str | None) -> None:
        for ref, content, length, type_ in self._joined(pieces):
            info, beside = ref, b""
            if left is not None:
                info, beside = info | _LEFT, write_id(left)
            if right is not None:
                info, beside = info | _RIGHT, beside + write_id(right)
            if key is not None:
                info |= _KEYED
            if not beside:
                beside = place if key is None else place + write_var_bytes(key.encode())
            self._structs.append(bytes((info,)) + beside + content)
            if type_ is not None:
                self._unfilled.append((_IN_TYPE + write_id((self._client, self._clock)), type_))
            self._clock += length
            left = self._client, self._clock - 1

    def _joined(self, pieces: Sequence[Piece]) -> Iterator[tuple[int, bytes, int, Type | None]]:
        """The pieces as few items: of each the kind of content, the content, its length, and the type that it is."""
        texts: list[str] = []
        values: list[bytes] = []
        weight = 0
        for piece in pieces:
            ref = piece.item.ref
            if texts and ref != STRING:
                yield from _write_text(texts)
            if values and ref != ANY:
                yield _write_values(ANY, values)
            if ref == STRING:
                texts.append(piece.text)
            elif ref in (ANY, JSON):
                # Many values of which pycrdt can't hold each are too much for one item: `update` says so.
                for value, more in self._contents.values(piece):
                    if values and weight + more > JSON_VALUES_MAX:
                        yield _write_values(ref, values)
                    weight = more + (weight if values else 0)
                    values.append(value)
                if ref == JSON:
                    yield _write_values(JSON, values)
            else:
                yield ref, self._contents.of(piece.item), 1, piece.item.content if ref == TYPE else None
        if texts:
            yield from _write_text(texts)
        if values:
            yield _write_values(ANY, values)


def cut_struct(struct: bytes, client: int, clock: int, start: int) -> bytes:
    """The rest of an item from a later clock on, as Yjs writes it: it follows upon what comes before."""
    update = b"\1\1" + write_var_uint(client) + write_var_uint(clock) + struct + b"\0"
    ref, _, _, right_client, right = read_update(update, bounded=False).structs[client][0][1:6]
    _, _, _, content, stop = next(items_of(update))
    gone = start - clock
    info, beside = ref | _LEFT | struct[0] & _KEYED, write_id((client, start - 1))
    if right_client != NONE:
        info, beside = info | _RIGHT, beside + write_id((right_client, right))
    if ref == DELETED:
        rest = write_var_uint(read_var_uint(update, content)[0] - gone)
    elif ref == STRING:
        units = read_var_string(update, content)[0].encode("utf-16-le")
        rest = write_var_bytes(units[2 * gone :].decode("utf-16-le", "replace").encode())
    else:
        bounds, _ = find_values(ref, update, content)
        rest = write_var_uint(len(bounds) - 1 - gone) + update[bounds[gone] : stop]
    return bytes((info,)) + beside + rest


def write_id(unit: Id) -> bytes:
    """Write the id of one unit."""
    return write_var_uint(unit[0]) + write_var_uint(unit[1])


def _write_text(texts: list[str]) -> Iterator[tuple[int, bytes, int, None]]:
    text = "".join(texts)
    texts.clear()
    if not text.isascii():
        # Halves of a pair that are beside each other again are one character. Others can't be written, as in Yjs.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    for start in range(0, len(text), TEXT_MAX):
        part = text[start : start + TEXT_MAX]
        yield STRING, write_var_bytes(part.encode()), len(part.encode("utf-16-le")) >> 1, None


def _write_values(ref: int, values: list[bytes]) -> tuple[int, bytes, int, None]:
    content = b"".join((write_var_uint(len(values)), *values))
    length = len(values)
    values.clear()
    return ref, content, length, None
