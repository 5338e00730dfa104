"""Many clients in one thread, as cheap as Python has them: raw sockets, one `epoll`, and nothing decoded while time counts.

A client keeps the bytes that it received and when each piece came. What they say is read afterwards.
"""

from __future__ import annotations

import os
import re
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator

from .servers import HOST
from .wire import TOKEN, YWebsocket, frames, is_message, is_ping, last_number, masked, pong

AT_ONCE = 50
CONNECT_S = 60
READ_BYTES = 1 << 15


class Client:
    """One connection. It is `ready` once the server has said what the document holds."""

    __slots__ = (
        "clock",
        "ends",
        "moves",
        "number",
        "parsed",
        "ready",
        "received",
        "room",
        "socket",
        "times",
        "wire",
        "yjs_id",
    )

    def __init__(self, port: int, wire: YWebsocket, room: int, number: int) -> None:
        self.wire = wire
        self.room = room
        self.number = number
        self.yjs_id = 1_000_000_000 + number
        self.clock = 0
        self.moves = 1
        self.ready = False
        self.received = bytearray()
        self.times = array("d")
        self.ends = array("Q")
        self.parsed = 0
        self.socket = socket.create_connection((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(
            f"GET {wire.path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def send(self, number: int) -> None:
        """Insert an update's token."""
        self.socket.send(masked(self.wire.update(number, self.yjs_id, self.clock)))
        self.clock += 10

    def move(self, number: int) -> None:
        """Say where the cursor is."""
        self.moves += 1
        self.socket.send(masked(self.wire.cursor(number, self.yjs_id, self.moves)))

    def greet(self) -> None:
        """Go on with the handshake, as far as it has come.

        Raises:
            ConnectionError: The server refuses.
        """
        if not self.parsed:
            head = self.received.find(b"\r\n\r\n")
            if head < 0:
                return
            if not self.received.startswith(b"HTTP/1.1 101"):
                raise ConnectionError(f"the server refuses: {bytes(self.received[:200])!r}")
            self.parsed = head + 4
            for message in self.wire.greeting(self.yjs_id):
                self.socket.sendall(masked(message))
        for payload in self.messages():
            if self.wire.asks(payload):
                self.socket.sendall(masked(self.wire.nothing_new()))
            elif self.wire.read(payload) is not None:
                self.ready = True

    def messages(self) -> Iterator[bytes]:
        """The messages since the last call. Pings are answered."""
        for first, start, end in frames(self.received, self.parsed):
            payload = bytes(self.received[start:end])
            self.parsed = end
            if is_ping(first):
                self.socket.sendall(pong(payload))
            elif is_message(first):
                yield payload
            else:
                raise ConnectionError(f"the server closes: {payload!r}")

    def latest(self, data: bytes) -> int | None:
        """Which update is the last one that is there now, `data` being what has just come; None if that brought none."""
        number = last_number(data)
        if number is None:
            before = self.parsed
            for _ in self.messages():
                pass
            found = TOKEN.findall(self.received, before, self.parsed)
            number = int(found[-1]) if found else None
        return number

    def arrivals(self, tokens: re.Pattern[bytes] = TOKEN) -> Iterator[tuple[int, float]]:
        """Every update (or whatever has such tokens) that has come, and when."""
        times, ends = self.times, self.ends
        piece = 0
        for found in tokens.finditer(self.received):
            end = found.end()
            while ends[piece] < end:
                piece += 1
            yield int(found[1]), times[piece]


class Clients:
    """All clients of one server."""

    def __init__(self, port: int, wire: Callable[[str], YWebsocket]) -> None:
        self.all: list[Client] = []
        self._port = port
        self._wire = wire
        self._by_fd: dict[int, Client] = {}
        self._poll = select.epoll()

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *error: object) -> None:
        for client in self.all:
            client.socket.close()
        self._poll.close()

    def connect(self, rooms: int, each: int) -> None:
        """Connect so many more to every room, some at a time.

        Raises:
            TimeoutError: One of them doesn't get its document.
        """
        # The first of each room by itself: pycrdt-websocket may never serve one of two that open a room at once.
        self._connect(deque(range(rooms)))
        self._connect(deque(room for _ in range(each - 1) for room in range(rooms)))

    def run(
        self,
        until: float,
        on_data: Callable[[Client, bytes, float], None],
        *,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Take what comes.

        Args:
            until: When to return.
            on_data: Is called with everything that comes: who got it, what, when.
            stop: Is asked after each round whether to return sooner.

        Raises:
            ConnectionError: The server has closed a connection.
        """
        poll, by_fd, read, clock = self._poll.poll, self._by_fd, os.read, time.perf_counter
        while (wait := until - clock()) > 0:
            for fd, _ in poll(wait):
                data = read(fd, READ_BYTES)
                now = clock()
                client = by_fd[fd]
                if not data:
                    raise ConnectionError(f"the server has closed the connection of client {client.number}")
                received = client.received
                received += data
                client.times.append(now)
                client.ends.append(len(received))
                on_data(client, data, now)
            if stop is not None and stop():
                return

    def _connect(self, left: deque[int]) -> None:
        waiting: set[Client] = set()

        def greet(client: Client, data: bytes, now: float) -> None:
            client.greet()
            if client.ready:
                waiting.discard(client)

        def more() -> bool:
            while left and len(waiting) < AT_ONCE:
                waiting.add(self._add(left.popleft()))
            return not waiting

        if not more():
            self.run(time.perf_counter() + CONNECT_S, greet, stop=more)
        if waiting:
            raise TimeoutError(f"{len(waiting) + len(left)} clients haven't got their documents after {CONNECT_S} s")

    def _add(self, room: int) -> Client:
        client = Client(self._port, self._wire(f"room-{room}"), room, len(self.all))
        self.all.append(client)
        self._by_fd[client.socket.fileno()] = client
        self._poll.register(client.socket.fileno(), select.EPOLLIN)
        return client
