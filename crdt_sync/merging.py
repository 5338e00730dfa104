"""The rows of a log as fewer updates that amount to the same.

What people type arrives a few characters at a time, and is stored like that; each row by itself costs as much to read, to find
the place of and to apply as a page of text. What one client typed on without anybody in between is one item again here, as
Yjs makes it one when it has integrated both: the same origin, since the second half of a split item has the last unit of the
first one for its origin, and the same right origin. Deletes of single ranges come at the end of what they are merged with.

Knows only these two kinds of rows; any other stands for itself, in its place. Judges nothing: whether an update may be applied
is seen when somebody tries. Pure.
"""

import re
from collections.abc import Iterable, Iterator

from .lib0 import write_var_bytes, write_var_uint
from .ranges import Ranges

# An update is written when its rows have this size: that takes some two milliseconds, after which others get their turn.
MERGED_BYTES_MAX = 64 << 10

# As short as may be: only then are the same numbers the same bytes.
_NUMBER = rb"(?:[\x80-\xff]{1,7}[\x01-\x7f]|[\x00-\x7f])"
_ID = _NUMBER + _NUMBER
# One client with one string that has an origin, a right origin, or both. No deletes.
_TYPED = re.compile(
    rb"\x01\x01(" + _NUMBER + rb")(" + _NUMBER + rb")(?:(\x84)|(\xc4)|\x44)(" + _ID + rb")(?(4)(" + _ID + rb"))"
    rb"(" + _NUMBER + rb")"
)
_DELETED = re.compile(rb"\x00\x01(" + _NUMBER + rb")\x01(" + _NUMBER + rb")(" + _NUMBER + rb")")


def merging(rows: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Merge updates of a log.

    Args:
        rows: In seq order.

    Yields:
        Updates to be applied in this order, and whether each stands for several rows. If one of these can't be integrated at
        once, or at all, only the rows themselves tell why.
    """
    run = _Run()
    for row in rows:
        if run.take(row):
            if run.size >= MERGED_BYTES_MAX:
                yield run.write()
                run = _Run()
            continue
        if run.rows:
            yield run.write()
            run = _Run()
            if run.take(row):
                continue
        yield row, False
    if run.rows:
        yield run.write()


class _Client:
    """What one client has typed: structs one after the other, the last of which may go on."""

    __slots__ = ("_begin", "_origin", "client", "count", "end", "expected", "first", "head", "parts", "right", "texts")

    def __init__(self, client: bytes, clock: int) -> None:
        self.client = client
        self._begin = b"\1\1" + client
        self._origin = b""
        # How a row begins that goes on with the last struct.
        self.expected = b""
        self.first = self.end = clock
        self.count = 0
        self.parts: list[bytes] = []
        self.head = self.right = b""
        self.texts: list[bytes] = []

    def open(self, head: bytes, right: bytes) -> None:
        """Begin a struct, and say what its head is, up to its text, and which right origin is in it."""
        self.close()
        self.head, self.right = head, right
        self._origin = (b"\xc4" if right else b"\x84") + self.client

    def go_on(self, text: bytes, units: int) -> None:
        """Add text to the last struct."""
        self.texts.append(text)
        self.end = end = self.end + units
        self.expected = self._begin + write_var_uint(end) + self._origin + write_var_uint(end - 1) + self.right

    def close(self) -> None:
        if self.texts:
            self.parts += (self.head, write_var_bytes(b"".join(self.texts)))
            self.count += 1
            self.texts = []


class _Run:
    """Rows that are merged."""

    def __init__(self) -> None:
        self.rows = 0
        self.size = 0
        self._last = b""
        self._clients: dict[bytes, _Client] = {}
        self._deletes: dict[bytes, Ranges] = {}

    def take(self, row: bytes) -> bool:
        """Take one more row, unless it can't be merged with the others."""
        if not (self._take_typed(row) or self._take_deleted(row)):
            return False
        self.rows += 1
        self.size += len(row)
        self._last = row
        return True

    def write(self) -> tuple[bytes, bool]:
        if self.rows == 1:
            return self._last, False
        parts = [write_var_uint(len(self._clients))]
        for client, own in self._clients.items():
            own.close()
            parts += (write_var_uint(own.count), client, write_var_uint(own.first), *own.parts)
        parts.append(write_var_uint(len(self._deletes)))
        for client, ranges in self._deletes.items():
            parts += (client, write_var_uint(len(ranges)))
            parts += [write_var_uint(start) + write_var_uint(end - start) for start, end in ranges]
        return b"".join(parts), True

    def _take_typed(self, row: bytes) -> bool:
        # Most clients' ids have five bytes.
        own = self._clients.get(row[2:7])
        if own is not None and row.startswith(own.expected):
            begins = len(own.expected) + 1
            text = row[begins:-1]
            if text.isascii() and 0 < row[begins - 1] == len(text) < 128 and not row[-1]:
                own.go_on(text, len(text))
                return True
        match = _TYPED.match(row)
        if match is None:
            return False
        client, clock_raw, left_only, both, one, other, length = match.groups()
        begins = match.end()
        text = row[begins:-1]
        if not text or row[-1] or len(text) != _number(length):
            return False
        units = len(text)
        if not text.isascii():
            try:
                units = len(text.decode().encode("utf-16-le")) >> 1
            except UnicodeDecodeError:
                return False
        clock = _number(clock_raw)
        own = self._clients.get(client)
        if own is None:
            own = self._clients[client] = _Client(client, clock)
        elif clock != own.end:
            # Nodes may store an update twice. What else doesn't go on where this client stopped, isn't for here.
            return own.first <= clock and clock + units <= own.end
        right = other if both else b"" if left_only else one
        after_last = clock > 0 and (left_only or both) and one == client + write_var_uint(clock - 1)
        if not (own.texts and after_last and right == own.right):
            own.open(row[match.end(2) : match.start(7)], right)
        own.go_on(text, units)
        return True

    def _take_deleted(self, row: bytes) -> bool:
        match = _DELETED.fullmatch(row)
        if match is None:
            return False
        client, start_raw, length_raw = match.groups()
        start, length = _number(start_raw), _number(length_raw)
        if length == 0:
            return False
        ranges = self._deletes.get(client)
        if ranges is None:
            ranges = self._deletes[client] = Ranges()
        ranges.add(start, start + length)
        return True


def _number(raw: bytes) -> int:
    if len(raw) == 1:
        return raw[0]
    value = shift = 0
    for byte in raw:
        value |= (byte & 127) << shift
        shift += 7
    return value
