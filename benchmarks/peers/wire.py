"""What goes over the wire: WebSocket frames, the two formats of messages, and updates that can be told apart. Pure.

Every update inserts a token of ten characters that says which one it is. A server may merge updates into fewer messages: what
arrived is known by its tokens, not by counting messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from benchmarks.update_reader import struct, update
from crdt_sync.lib0 import read_var_bytes, read_var_uint, write_var_bytes, write_var_uint
from crdt_sync.protocol import CONFIRM

TOKEN = re.compile(rb"~k(\d{8})")
CURSOR = re.compile(rb"~c(\d{8})")
TOKEN_SIZE = 10

_MASK = b"\x9a\x3c\x51\xe7"
_BINARY, _CLOSE, _PING, _PONG = 0x82, 0x88, 0x89, 0x8A

_SYNC, _AUTH, _SYNC_REPLY, _STATELESS = 0, 2, 4, 5
_STEP_2 = 1


def token(number: int) -> bytes:
    """The content of an update, `0 <= number < 10**8`."""
    return b"~k%08d" % number


def last_number(data: bytes) -> int | None:
    """Which update is the last one in received bytes, if they end with it; else None: look closer."""
    # What follows the token is one byte: no deletes.
    if data[-11:-9] == b"~k" and (digits := data[-9:-1]).isdigit():
        return int(digits)
    return None


def masked(payload: bytes, opcode: int = _BINARY) -> bytes:
    """One frame as a client sends it."""
    size = len(payload)
    if size < 126:
        head = bytes((opcode, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    key = int.from_bytes((_MASK * (size // 4 + 1))[:size], "big")  # one large number: cheaper than a loop over bytes
    return head + _MASK + (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


def pong(payload: bytes) -> bytes:
    """The answer to a ping."""
    return masked(payload, _PONG)


def close() -> bytes:
    """What a tab says that is closed."""
    return masked((1001).to_bytes(2, "big"), _CLOSE)


def frames(data: bytes | bytearray, pos: int = 0) -> Iterator[tuple[int, int, int]]:
    """The complete frames of what a server sent, from `pos` on.

    Yields:
        The first byte of each (0x82: a binary message, 0x89: a ping), and where its payload begins and ends.

    Raises:
        ValueError: It is no frame that a server may send, or a part of a larger message: none of these servers sends such.
    """
    end = len(data)
    while pos + 2 <= end:
        first, size = data[pos], data[pos + 1]
        if first not in (_BINARY, _CLOSE, _PING, _PONG) or size > 127:
            raise ValueError(f"expected a frame at {pos}, got {data[pos : pos + 20]!r}")
        start = pos + 2
        if size > 125:
            start += 2 if size == 126 else 8
            if start > end:
                return
            size = int.from_bytes(data[pos + 2 : start], "big")
        if start + size > end:
            return
        yield first, start, start + size
        pos = start + size


def is_ping(first: int) -> bool:
    """Whether a frame wants a pong."""
    return first == _PING


def is_message(first: int) -> bool:
    """Whether a frame has a message."""
    return first == _BINARY


class YWebsocket:
    """The format of y-websocket: the room is in the URL."""

    def __init__(self, room: str) -> None:
        self.path = f"/{room}"
        self._head = b""

    def greeting(self, client: int) -> list[bytes]:
        """The messages with which a client of an empty document begins."""
        return [self._head + b"\0\0\1\0", self.cursor(0, client, 1)]

    def cursor(self, number: int, client: int, clock: int) -> bytes:
        """A message: where the client's cursor is by now, with a number to know it by."""
        state = b'{"user":{"name":"somebody","color":"#30bced"},"cursor":"~c%08d"}' % number
        states = b"\1" + write_var_uint(client) + write_var_uint(clock) + write_var_bytes(state)
        return self._head + b"\1" + write_var_bytes(states)

    def nothing_new(self) -> bytes:
        """The answer to the server's sync step 1: nothing that it doesn't have."""
        return self._head + b"\0\1\2\0\0"

    def update(self, number: int, client: int, clock: int) -> bytes:
        """A message: the client, which has inserted `clock` characters so far, appends the token to its own."""
        return (
            self._head
            + b"\0\2"
            + write_var_bytes(update(clock, struct(clock, token(number), client=client), client=client))
        )

    def read(self, payload: bytes) -> tuple[bool, bytes] | None:
        """The update in a message, and whether it is a sync step 2; None if there is none in it."""
        start = len(self._head)
        if payload[:start] != self._head or payload[start] not in (_SYNC, _SYNC_REPLY) or payload[start + 1] == 0:
            return None
        size, start = read_var_uint(payload, start + 2)
        return payload[len(self._head) + 1] == _STEP_2, payload[start : start + size]

    def asks(self, payload: bytes) -> bool:
        """Whether a message is a sync step 1."""
        start = len(self._head)
        return payload[:start] == self._head and payload[start] in (_SYNC, _SYNC_REPLY) and payload[start + 1] == 0

    def question(self, count: int) -> bytes | None:
        """A message: please say when the client's first `count` updates are stored. None: the server says so unasked.

        That is ours alone.
        """
        return write_var_uint(CONFIRM) + write_var_bytes(write_var_uint(count))

    def stored(self, payload: bytes) -> int | None:
        """How many of the updates of the only client that sends any in a room are stored, if a message says that."""
        kind, start = read_var_uint(payload, 0)
        if kind != CONFIRM:
            return None
        return read_var_uint(read_var_bytes(payload, start)[0], 0)[0]


class Hocuspocus(YWebsocket):
    """Hocuspocus' format: before each message stands the document's name, and the first message has a token.

    Source: `OutgoingMessage.ts`, `MessageReceiver.ts` and `ClientConnection.ts` of @hocuspocus/server 4.7.
    """

    def __init__(self, room: str) -> None:
        super().__init__(room)
        self.path = "/"
        self._head = write_var_bytes(room.encode())

    def greeting(self, client: int) -> list[bytes]:
        """Also what opens the document: without a hook, any token does."""
        auth = self._head + bytes((_AUTH, 0)) + write_var_bytes(b"token") + write_var_bytes(b"4.7.0")
        return [auth, *super().greeting(client)]

    def question(self, count: int) -> bytes | None:
        """What `hocuspocus.mjs` adds says it unasked."""
        return None

    def stored(self, payload: bytes) -> int | None:
        """It says how long the text is."""
        start = len(self._head)
        if payload[:start] != self._head or payload[start] != _STATELESS:
            return None
        _, _, length = read_var_bytes(payload, start + 1)[0].partition(b"stored ")
        return int(length) // TOKEN_SIZE
