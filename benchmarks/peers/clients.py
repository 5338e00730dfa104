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
# A local port is taken for a minute after its connection, and there are 28,000 for each address.
PER_ADDRESS = 5000
_BIND_ADDRESS_NO_PORT = 24  # linux/in.h


class Client:
    """One connection. It is `ready` once the server has said what the document holds, and `lost` once it is gone."""

    __slots__ = (
        "clock",
        "ends",
        "joined_s",
        "lost",
        "moves",
        "number",
        "parsed",
        "ready",
        "received",
        "room",
        "socket",
        "started",
        "times",
        "wire",
        "yjs_id",
    )

    def __init__(self, port: int, wire: YWebsocket, room: int, number: int) -> None:
        self.started = time.perf_counter()
        self.joined_s = 0.0
        self.lost = False
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
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        self.socket.bind((f"127.0.0.{1 + number // PER_ADDRESS % 100}", 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect((HOST, port))
        self.socket.sendall(
            f"GET {wire.path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def send(self, number: int) -> None:
        """Insert an update's token."""
        self.write(masked(self.wire.update(number, self.yjs_id, self.clock)))
        self.clock += 10

    def move(self, number: int) -> None:
        """Say where the cursor is."""
        self.moves += 1
        self.write(masked(self.wire.cursor(number, self.yjs_id, self.moves)))

    def ask(self, count: int) -> None:
        """Ask when its first `count` updates are stored, if its server wants to be asked."""
        if (question := self.wire.question(count)) is not None:
            self.write(masked(question))

    def write(self, data: bytes) -> None:
        """Send bytes, unless the connection is gone."""
        if self.lost:
            return
        try:
            self.socket.send(data)
        except ConnectionError:  # whoever reads hears of it
            return

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
            elif not self.ready and (found := self.wire.read(payload)) is not None and found[0]:
                self.ready = True
                self.joined_s = time.perf_counter() - self.started

    def messages(self, *, answering: bool = True) -> Iterator[bytes]:
        """The messages since the last call. Pings are answered, unless that has been done already."""
        for first, start, end in frames(self.received, self.parsed):
            payload = bytes(self.received[start:end])
            self.parsed = end
            if is_ping(first):
                if answering:
                    self.write(pong(payload))
            elif is_message(first):
                yield payload
            else:
                raise ConnectionError(f"the server closes: {payload!r}")

    def updates(self) -> list[bytes]:
        """All updates that have come, from the first on."""
        self.parsed = self.received.find(b"\r\n\r\n") + 4
        messages = self.messages(answering=False)
        return [found[1] for message in messages if (found := self.wire.read(message)) is not None]

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
    """All clients of one server.

    Args:
        ports: Those of its nodes: in each room, clients are at one after the other.
        wire: What it speaks.
        tolerant: Whether it may close connections of clients that are ready. They are `lost` then.
    """

    def __init__(self, ports: list[int], wire: Callable[[str], YWebsocket], *, tolerant: bool = False) -> None:
        self.all: list[Client] = []
        self._ports = ports
        self._wire = wire
        self._tolerant = tolerant
        self._count = 0
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
        self._connect(deque((room, 0) for room in range(rooms)))
        self._connect(deque((room, place) for place in range(1, each) for room in range(rooms)))

    def join(self, room: int, place: int = 0) -> Client:
        """Begin to connect one more.

        Args:
            room: Which.
            place: The how many-th of its room it is, from 0 on: that decides on its node.

        Raises:
            ConnectionError: The server refuses.
        """
        port = self._ports[place % len(self._ports)]
        client = Client(port, self._wire(f"room-{room}"), room, self._count)
        self._count += 1
        self.all.append(client)
        self._by_fd[client.socket.fileno()] = client
        self._poll.register(client.socket.fileno(), select.EPOLLIN)
        return client

    def leave(self, client: Client) -> None:
        """Have one go, and forget it."""
        self._close(client)
        self.all.remove(client)

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
            ConnectionError: The server has closed a connection, and may not.
        """
        poll, by_fd, read, clock = self._poll.poll, self._by_fd, os.read, time.perf_counter
        while (wait := until - clock()) > 0:
            for fd, _ in poll(wait):
                client = by_fd[fd]
                try:
                    data = read(fd, READ_BYTES)
                except ConnectionError:
                    data = b""
                now = clock()
                if not data:
                    self._lose(client)
                    continue
                received = client.received
                received += data
                client.times.append(now)
                client.ends.append(len(received))
                try:
                    on_data(client, data, now)
                except ConnectionError:
                    if not self._tolerant:
                        raise
                    self._lose(client)
            if stop is not None and stop():
                return

    def _lose(self, client: Client) -> None:
        if not (self._tolerant and client.ready):
            raise ConnectionError(f"the server has closed the connection of client {client.number}")
        self._close(client)

    def _close(self, client: Client) -> None:
        if not client.lost:
            client.lost = True
            del self._by_fd[client.socket.fileno()]
            client.socket.close()

    def _connect(self, left: deque[tuple[int, int]]) -> None:
        waiting: set[Client] = set()

        def greet(client: Client, data: bytes, now: float) -> None:
            client.greet()
            if client.ready:
                waiting.discard(client)

        def more() -> bool:
            while left and len(waiting) < AT_ONCE:
                waiting.add(self.join(*left.popleft()))
            return not waiting

        if not more():
            self.run(time.perf_counter() + CONNECT_S, greet, stop=more)
        if waiting:
            raise TimeoutError(f"{len(waiting) + len(left)} clients haven't got their documents after {CONNECT_S} s")
