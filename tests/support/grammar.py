"""Hostile updates: a fuzzer that knows the grammar of update v1.

Flipped bits of valid updates find nothing, because nearly all of them end in a wrong length. This one writes
structures, most of them right, with something wrong here and there: lengths, counts, references, content.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from random import Random

CLIENTS = (1, 2, 3, 4, 200, 2**32 - 1, 2**53 - 1)
"""`FOUNDATION` holds something of the first two."""

MAGIC = b"crdt-sync:stand-in:"

_STRINGS = (
    b"a", b"hello", b"", "ü漢".encode(), "😀".encode(), "a😀b🙂".encode(), b"crdt-sync:stand-in:", b"\xff",
    b"\xed\xa0\xbd", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbfx", b"\0", b"__proto__", b"undefined", b"x" * 130,
)  # fmt: skip
_PLAIN_STRINGS = (b"a", b"b", b"hello", "ü".encode(), "😀x".encode())
_JSON = (
    b"true", b"null", b"false", b"1", b'"x"', b"{}", b'{"a":1}', b"[1,[2,{}]]", b"-0", b"1e400", b"0.10793126209409987",
    b'"\\ud83d"', b'"\\ud83d\\ude00"', b"123456789012345678901", b'{"a":{"a":{"a":[]}}}', b'"crdt-sync:stand-in:"',
    b'"crdt\\u002dsync:stand-in:x"', b'{"__proto__":1}', b" 1 ", b'{"a":1,"a":2}', b"[" * 120 + b"]" * 120,
)  # fmt: skip
_BAD_JSON = (
    b"", b"NaN", b"Infinity", b"-Infinity", b"undefined", b"{", b"[1,]", b"01", b"'x'", b'"\t"', b'"\xff"',
    b"\xef\xbb\xbf1", b"+1", b".5", b"1.", b'"\\x"', b"1 2", b'{"a"}',
    b"[" * 5000, b"[" * 300 + b"]" * 300, b"\xc2\xa01",
)  # fmt: skip


def var_uint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def var_bytes(value: bytes) -> bytes:
    return var_uint(len(value)) + value


def item(info: int, *parts: bytes) -> bytes:
    """A struct: its info byte and whatever follows."""
    return bytes((info,)) + b"".join(parts)


def block(client: int, clock: int, *structs: bytes) -> bytes:
    """The structs of one client."""
    return var_uint(len(structs)) + var_uint(client) + var_uint(clock) + b"".join(structs)


def update(*blocks: bytes, deletes: bytes = b"\0") -> bytes:
    """A whole update."""
    return var_uint(len(blocks)) + b"".join(blocks) + deletes


def deletes(*clients: tuple[int, list[tuple[int, int]]]) -> bytes:
    """A delete set of `(client, [(clock, length), …])`."""
    out = [var_uint(len(clients))]
    for client, ranges in clients:
        out += [var_uint(client), var_uint(len(ranges))]
        out += [var_uint(clock) + var_uint(length) for clock, length in ranges]
    return b"".join(out)


def _root(name: bytes) -> bytes:
    return b"\1" + var_bytes(name)


def _id(client: int, clock: int) -> bytes:
    return var_uint(client) + var_uint(clock)


FOUNDATION = update(
    block(
        2,
        0,
        item(4, _root(b"t"), var_bytes(b"0123456789")),  # 0-9: text
        item(7, _root(b"a"), b"\0"),  # 10: an array
        item(8, b"\0", _id(2, 10), b"\3\x7d\1\x7d\2\x7d\3"),  # 11-13: values in it
        item(39, _root(b"m"), var_bytes(b"k"), b"\1"),  # 14: a map in a map
        item(40, b"\0", _id(2, 14), var_bytes(b"v"), b"\1\x78"),  # 15: a value in that
        item(132, _id(2, 9), var_bytes("😀😀".encode())),  # 16-19: more text
        item(134, _id(2, 19), var_bytes(b"bold"), var_bytes(b"true")),  # 20: a format
        item(133, _id(2, 20), var_bytes(b'{"image":1}')),  # 21: an embed
    ),
    block(
        1,
        0,
        item(7, _root(b"x"), b"\3" + var_bytes(b"p")),  # 0: an XML element
        item(7, b"\0", _id(1, 0), b"\6"),  # 1: XML text in it
        item(4, b"\0", _id(1, 1), var_bytes(b"xml")),  # 2-4: its text
        item(40, b"\0", _id(1, 0), var_bytes(b"class"), b"\1\x77\1c"),  # 5: an attribute
        item(0, var_uint(3)),  # 6-8: garbage collected
        item(1, _root(b"a"), var_uint(3)),  # 9-11: deleted
    ),
)
"""A valid update that others can refer to: clocks 0-21 of client 2 and 0-11 of client 1."""


FOUNDATION_CLOCKS: Mapping[int, int] = {1: 12, 2: 22}


class _Writer:
    """Writes one update. `wild` is the chance that any one thing is wrong."""

    def __init__(self, rng: Random, known: Mapping[int, int]) -> None:
        self._rng = rng
        self._known = known
        self._wild = rng.choice((0, 0, 0.003, 0.01, 0.03, 0.1))
        self._clocks: dict[int, int] = {}

    def update(self) -> bytes:
        rng = self._rng
        count = rng.choice((0, 1, 1, 1, 1, 2, 2, 3, 4))
        clients = rng.sample(CLIENTS, count)
        if clients and self._is_wild():
            clients.append(rng.choice(clients))
        starts = {client: self._known.get(client, 0) for client in clients}
        for client in clients:
            if rng.random() < 0.2:
                starts[client] = rng.choice((0, 1, 5, 12, 22, 30, 127, 128, 300))
            elif self._is_wild():
                starts[client] = rng.choice((2**31 - 3, 2**31 - 1, 2**31, 2**32 - 2, 2**53 - 1))
        # What may be referred to: what came before, in the order in which Yjs integrates.
        self._clocks = dict(self._known)
        blocks = []
        for client in clients:
            clock = self._clocks[client] = starts[client]
            structs = []
            for _ in range(rng.choice((1, 1, 2, 3, 5, 8))):
                raw, length = self._struct(client)
                structs.append(raw)
                self._clocks[client] += length
            blocks.append(self._count(len(structs)) + var_uint(client) + var_uint(clock) + b"".join(structs))
        rng.shuffle(blocks)
        tail = bytes(rng.choices(range(256), k=rng.randint(1, 3))) if self._is_wild() else b""
        return self._count(len(blocks)) + b"".join(blocks) + self._deletes() + tail

    def _is_wild(self) -> bool:
        return self._rng.random() < self._wild

    def _count(self, value: int) -> bytes:
        if self._is_wild():
            rng = self._rng
            value = rng.choice((0, value + 1, max(0, value - 1), 2**14, 2**27, 2**31, 2**32, 2**53 - 1, 2**60))
        elif self._is_wild():
            return var_uint(value | 128)[:-1] + bytes((value >> 7 | 128, 0))  # padded
        return var_uint(value)

    def _string(self) -> bytes:
        value = self._rng.choice(_STRINGS if self._is_wild() else _PLAIN_STRINGS)
        return self._count(len(value)) + value

    def _id(self, client: int) -> bytes:
        rng = self._rng
        known = [other for other, clock in self._clocks.items() if clock]
        if self._is_wild() or not known:
            own = self._clocks[client]
            return _id(rng.choice((*CLIENTS, client)), rng.choice((own, own + 1, 0, 5, 31, 2**31, 2**32 + 1)))
        other = client if rng.random() < 0.4 and self._clocks[client] else rng.choice(known)
        return _id(other, rng.randrange(self._clocks[other]))

    def _parent(self, client: int) -> bytes:
        rng = self._rng
        roll = rng.random()
        if self._is_wild():
            return bytes((rng.choice((2, 3, 128, 255)),)) + self._string()
        if roll < 0.5:
            return _root(rng.choice((b"t", b"a", b"m", b"x"))) if not self._is_wild() else b"\1" + self._string()
        if roll < 0.9:
            return b"\0" + rng.choice((_id(2, 10), _id(2, 14), _id(1, 0), _id(1, 1), _id(1, 7), _id(1, 10)))
        return b"\0" + self._id(client)

    def _struct(self, client: int) -> tuple[bytes, int]:
        rng = self._rng
        roll = rng.random()
        if self._is_wild():
            return bytes((rng.choice((11, 12, 15, 16, 31, 32, 42, 64, 128, 138, 160, 255)),)) + self._string(), 1
        if roll < 0.06:
            length = 0 if self._is_wild() else rng.choice((1, 2, 5, 300))
            return b"\0" + var_uint(length), length
        if roll < 0.1:
            length = 0 if self._is_wild() else rng.choice((1, 2, 5, 300))
            return b"\x0a" + var_uint(length), length
        ref = rng.randint(1, 9)
        flags = rng.choice((0, 0, 32, 64, 128, 192, 128, 192, 224))
        head = bytes((ref | flags,))
        if flags & 128:
            head += self._id(client)
        if flags & 64:
            head += self._id(client)
        if not flags & 192:
            head += self._parent(client)
            if flags & 32:
                head += self._string()
        content, length = self._content(ref)
        return head + content, length

    def _content(self, ref: int) -> tuple[bytes, int]:
        rng = self._rng
        if ref == 1:
            length = rng.choice((0, 2**31, 2**32)) if self._is_wild() else rng.randint(1, 4)
            return var_uint(length), length
        if ref == 2:
            values = [self._json() for _ in range(0 if self._is_wild() else rng.randint(1, 3))]
            return self._count(len(values)) + b"".join(values), len(values)
        if ref == 3:
            return self._string(), 1
        if ref == 4:
            text = rng.choice(_STRINGS if self._is_wild() else _PLAIN_STRINGS)
            try:
                length = len(text.decode().encode("utf-16-le")) // 2
            except UnicodeDecodeError:
                length = len(text)
            return self._count(len(text)) + text, length
        if ref == 5:
            return self._json(), 1
        if ref == 6:
            return self._string() + self._json(), 1
        if ref == 7:
            kind = rng.choice((7, 8, 9, 15, 127, 255)) if self._is_wild() else rng.randint(0, 6)
            return bytes((kind,)) + (self._string() if kind in (3, 5) else b""), 1
        if ref == 8:
            count = 0 if self._is_wild() else rng.randint(1, 4)
            return self._count(count) + b"".join(self._any(0) for _ in range(count)), count
        if self._is_wild():
            return self._string() + self._any(0), 1
        options = rng.choice((b"\x76\0", b"\x76\1\4meta\x76\1\1a\x7d\1", b"\x76\2\x08autoLoad\x78\2gc\x79"))
        return self._string() + options, 1

    def _json(self) -> bytes:
        rng = self._rng
        return var_bytes(rng.choice(_BAD_JSON if self._is_wild() else _JSON))

    def _any(self, depth: int) -> bytes:
        rng = self._rng
        if self._is_wild():
            kind = rng.choice((0, 1, 115, 128, 255, *range(116, 128)))
            return bytes((kind,)) + rng.randbytes(rng.randint(0, 9))
        if depth == 0 and self._is_wild():
            deep = rng.choice((100, 199, 200, 201, 300, 5000))
            return b"\x75\1" * deep + b"\x7e"
        kind = rng.randint(116 if depth < 4 else 119, 127)
        head = bytes((kind,))
        if kind == 116:
            value = rng.choice((b"", b"\1\2", MAGIC, MAGIC + b"\x7a12345678"))
            return head + self._count(len(value)) + value
        if kind in (117, 118):
            count = rng.randint(0, 3)
            keys = kind == 118
            return (
                head
                + self._count(count)
                + b"".join((self._string() if keys else b"") + self._any(depth + 1) for _ in range(count))
            )
        if kind == 119:
            return head + self._string()
        if kind == 122:
            return head + rng.randbytes(8)
        if kind == 123:
            return head + rng.choice((rng.randbytes(8), struct.pack(">d", -0.0), struct.pack(">d", rng.random())))
        if kind == 124:
            return head + rng.choice((rng.randbytes(4), struct.pack(">f", -0.0)))
        if kind == 125:
            return head + rng.choice((b"\0", b"\x40", b"\1", b"\x41", b"\xbf\x7f", b"\xff\xff\xff\xff\x0f", b"\xc0\0"))
        return head

    def _deletes(self) -> bytes:
        rng = self._rng
        clients = rng.sample(CLIENTS, rng.choice((0, 0, 1, 1, 2)))
        if clients and self._is_wild():
            clients.append(clients[0])
        out = [self._count(len(clients))]
        for client in clients:
            known = self._clocks.get(client, 0)
            ranges = []
            clock = 0
            for _ in range(rng.choice((1, 1, 2, 3))):
                clock += rng.randint(0, 5)
                length = rng.randint(1, 4)
                if clock + length > known and rng.random() < 0.8:
                    break
                ranges.append((clock, length))
                clock += length
            if self._is_wild():
                ranges.append(rng.choice(((0, 1), (3, 0), (2**31 - 1, 1), (2**32, 5), (2**40, 2**40))))
            out += [var_uint(client), self._count(len(ranges))]
            out += [var_uint(start) + var_uint(length) for start, length in ranges]
        return b"".join(out)


def hostile_update(rng: Random, known: Mapping[int, int] = FOUNDATION_CLOCKS) -> bytes:
    """One update, more or less plausible. The same state of `rng` gives the same bytes.

    Args:
        rng: Where chance comes from.
        known: Client to clock, of a document that holds `FOUNDATION`: what most updates follow upon and refer to.
    """
    data = _Writer(rng, known).update()
    roll = rng.random()
    if roll < 0.03:
        return data[: rng.randrange(len(data) + 1)]
    if roll < 0.08 and data:
        changed = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed))] = rng.choice((0, 1, 2, 127, 128, 255, rng.randrange(256)))
        return bytes(changed)
    if roll < 0.09:
        return _nested_types(rng)
    return data


def _nested_types(rng: Random) -> bytes:
    """Shared types inside one another, directly or through an origin, around the depth that is allowed."""
    deep = rng.choice((50, 199, 200, 201, 250))
    structs = [item(7, _root(b"a"), b"\0")]
    clock = 1
    inside = 0
    while len(structs) < deep:
        structs.append(item(7, b"\0", _id(200, inside), b"\0"))
        clock += 1
        if rng.random() < 0.3:
            structs.append(item(135, _id(200, clock - 1), b"\0"))
            clock += 1
        inside = clock - 1
    return update(block(200, 0, *structs))


# ---------------------------------------------------------------------------------------------------------------------
# Heavy updates: valid, or nearly so, and much work for their size.


def heavy_update(rng: Random, client: int) -> bytes:
    """Some tens of kilobytes by a client that nobody knows yet."""
    kinds = (_scattered, _crowd, _values, _json, _cuts, _nested_types_of, _clients, _formats)
    return rng.choice(kinds)(rng, client, rng.choice((100, 1000, 3000)))


def _scattered(rng: Random, client: int, count: int) -> bytes:
    structs = [item(4, _root(b"t"), var_bytes(b"x"))]
    structs += [item(132, _id(client, rng.randrange(clock)), var_bytes(b"x")) for clock in range(1, count)]
    return update(block(client, 0, *structs))


def _crowd(rng: Random, client: int, count: int) -> bytes:
    struct = rng.choice(
        (
            item(40, _root(b"m"), var_bytes(b"k"), b"\1\x7e"),
            item(4, _root(b"t"), var_bytes(b"x")),
            item(132, _id(2, 3), var_bytes(b"x")),
            item(196, _id(2, 3), _id(2, 4), var_bytes(b"x")),
        )
    )
    return update(*(block(client + n, 0, struct) for n in range(count, 0, -1)))


def _values(rng: Random, client: int, count: int) -> bytes:
    value = rng.choice((b"\x7e", b"\x7d\1", b"\x77\1x", b"\x75\0", b"\x7a12345678"))
    nested = rng.choice((b"\1\x75", b"\1\x76", b""))
    keys = var_bytes(b"k") if nested.endswith(b"\x76") else b""
    return update(block(client, 0, item(8, _root(b"a"), nested + var_uint(10 * count), (keys + value) * (10 * count))))


def _json(rng: Random, client: int, count: int) -> bytes:
    text = rng.choice((b"1,", b'"\\ud83d",', b"[[],{}],", b"1e5,")) * count
    return update(block(client, 0, item(5, _root(b"t"), var_bytes(b"[" + text + b"0]"))))


def _cuts(rng: Random, client: int, count: int) -> bytes:
    text = rng.choice(("x", "😀", "ü")) * (3 * count)
    length = len(text.encode("utf-16-le")) // 2
    ranges = [(clock, 1) for clock in range(0, length, 3)]
    return update(block(client, 0, item(4, _root(b"t"), var_bytes(text.encode()))), deletes=deletes((client, ranges)))


def _nested_types_of(rng: Random, client: int, count: int) -> bytes:
    structs = [item(7, _root(b"a"), b"\0")]
    structs += [item(7, b"\0", _id(client, max(0, clock - rng.choice((1, 1, 100)))), b"\0") for clock in range(count)]
    return update(block(client, 0, *structs))


def _clients(rng: Random, client: int, count: int) -> bytes:
    blocks = [
        block(client + n, 0, item(132, _id(client + max(0, n - 1), 0), var_bytes(b"x"))) for n in range(count, 0, -1)
    ]
    return update(*blocks, block(client, 0, item(4, _root(b"t"), var_bytes(b"x"))))


def _formats(rng: Random, client: int, count: int) -> bytes:
    structs = [item(4, _root(b"t"), var_bytes(b"x"))]
    for clock in range(count):
        at = _id(client, rng.randrange(clock + 1))
        structs.append(item(134, at, var_bytes(b"bold"), var_bytes(rng.choice((b"true", b"null", b'{"a":1}')))))
    return update(block(client, 0, *structs))


# ---------------------------------------------------------------------------------------------------------------------
# Awareness, state vectors and frames.

_STATES = (
    b"null", b"{}", b'{"user":{"name":"x","color":"#fff"}}', b'{"cursor":{"anchor":1,"head":2}}', b" null ", b'{"a":1,"a":2}',
    b'"\\ud83d"', b"1e999", b"-0", b"1" * 400, b'{"__proto__":{"x":1}}', b"[" * 90 + b"]" * 90, '"ü🙂\u2028"'.encode(),
)  # fmt: skip
_BAD_STATES = (*_BAD_JSON, b"[" * 990 + b"]" * 990, b"[" * 7000 + b"]" * 7000, b'{"a":' * 2000 + b"1" + b"}" * 2000)


def hostile_awareness(rng: Random) -> bytes:
    """The payload of an awareness message."""
    wild = rng.choice((0, 0, 0.05, 0.3))
    states = []
    for _ in range(rng.choice((0, 1, 1, 1, 2, 9, 30))):
        client = rng.choice(CLIENTS) if rng.random() > wild else rng.choice((2**53, 2**60, 0))
        clock = rng.randint(1, 9) if rng.random() > wild else rng.choice((0, 2**32, 2**52, 2**53 - 1, 2**60))
        state = rng.choice(_STATES if rng.random() > wild else _BAD_STATES)
        if rng.random() < wild / 5:
            state = b'"' + b"x" * rng.choice((16_000, 17_000, 200_000)) + b'"'
        states.append(var_uint(client) + var_uint(clock) + var_bytes(state))
    count = len(states) if rng.random() > wild else rng.choice((0, len(states) + 1, 5000, 2**31))
    return var_uint(count) + b"".join(states)


def hostile_state_vector(rng: Random, known: Mapping[int, int] = FOUNDATION_CLOCKS) -> bytes:
    """A state vector that claims more, less or other things than a document at `known` has."""
    wild = rng.choice((0, 0.1, 0.3))
    clocks = {client: rng.choice((clock, rng.randint(0, clock), clock + 1)) for client, clock in known.items()}
    if rng.random() < wild:
        clocks[rng.choice(CLIENTS)] = rng.choice((0, 2**31 - 1, 2**31, 2**53 - 1))
    if rng.random() < wild:
        clocks |= {rng.randrange(2**32): 1 for _ in range(3000)}
    pairs = [_id(client, clock) for client, clock in clocks.items()]
    if pairs and rng.random() < wild / 2:
        pairs.append(pairs[0])
    count = len(pairs) if rng.random() > wild else rng.choice((0, len(pairs) + 1, 2**27, 2**53 - 1))
    return var_uint(count) + b"".join(pairs)


def hostile_frame(rng: Random, known: Mapping[int, int] = FOUNDATION_CLOCKS) -> tuple[bytes, list[bytes]]:
    """One WebSocket frame with one message or several.

    Returns:
        The frame, and the updates in it.
    """
    messages, updates = [], []
    for _ in range(rng.choice((1, 1, 1, 1, 2, 3, 8))):
        roll = rng.random()
        if roll < 0.6:
            data = hostile_update(rng, known)
            updates.append(data)
            messages.append(b"\0" + rng.choice((b"\1", b"\2", b"\2")) + var_bytes(data))
        elif roll < 0.605:
            data = heavy_update(rng, rng.randrange(2**20, 2**32))
            updates.append(data)
            messages.append(b"\0\2" + var_bytes(data))
        elif roll < 0.75:
            messages.append(b"\1" + var_bytes(hostile_awareness(rng)))
        elif roll < 0.87:
            messages.append(b"\0\0" + var_bytes(hostile_state_vector(rng, known)))
        elif roll < 0.93:
            messages.append(rng.choice((b"\3", b"\3" * 50, b"\x66" + var_bytes(b"t" * rng.choice((0, 9, 64, 65))))))
        elif roll < 0.96:
            messages.append(
                rng.choice((b"\2\0\6denied", b"\0\3\0", b"\4\0", b"\x80\x80\x04x", b"\0", b"\0\2\xff\xff\x7f", b""))
            )
        else:
            messages.append(rng.randbytes(rng.randint(1, 20)))
    frame = b"".join(messages)
    if rng.random() < 0.03:
        frame = frame[: rng.randrange(len(frame) + 1)]
    return frame, updates
