"""A WebSocket client without manners: it sends any bytes, and reads only when told to.

For what the stock clients never do. Speaks just enough of RFC 6455 to say exactly what went over the wire.
"""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from dataclasses import dataclass
from types import TracebackType

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Refused(AssertionError):
    """The server answered the upgrade with something else than 101."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        super().__init__(f"the upgrade was answered with {status}: {body[:500]!r}")
        self.status = status
        self.body = body
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Closed:
    """How a connection ended."""

    code: int
    """The close frame's code; 1005 for a close frame without one, 1006 when there was no close frame."""
    reason: str = ""


class RawClient:
    """One connection. Use `await RawClient.connect(...)` as an async context manager."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.closed: Closed | None = None
        """Set once the end of the connection was read."""
        self.headers: dict[str, str] = {}
        """Of the last HTTP response, names in lower case."""

    @classmethod
    async def open_socket(cls, port: int, *, host: str = "127.0.0.1") -> RawClient:
        """Connect without a handshake: the next bytes are yours (`send_bytes`)."""
        # A small limit: what isn't received stays with the kernel, and the server notices a reader that doesn't read.
        return cls(*await asyncio.open_connection(host, port, limit=1 << 14))

    @classmethod
    async def connect(
        cls, url: str, target: str, *, headers: dict[str, str] | None = None, timeout_s: float = 10
    ) -> RawClient:
        """Connect and upgrade.

        Args:
            url: `ws://host:port`.
            target: What stands in the request line after the first `/`, verbatim: room and query.
            headers: More request headers, such as `{"Origin": ...}`.
            timeout_s: For the handshake.

        Raises:
            Refused: The answer's status isn't 101.
        """
        host, _, port = url.removeprefix("ws://").rpartition(":")
        client = await cls.open_socket(int(port), host=host)
        lines = [f"GET /{target} HTTP/1.1", f"Host: {host}:{port}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}", "Sec-WebSocket-Version: 13"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        await client.send_bytes(("\r\n".join(lines) + "\r\n\r\n").encode())
        async with asyncio.timeout(timeout_s):
            status, body = await client.read_response()
        if status != 101:
            await client.close()
            raise Refused(status, body, client.headers)
        return client

    async def __aenter__(self) -> RawClient:
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, message: bytes) -> None:
        """Send one message, in one binary frame."""
        await self.send_frame(BINARY, message)

    async def send_frame(self, opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True) -> None:
        """Send one frame, legal or not."""
        await self.send_bytes(frame(opcode, payload, fin=fin, masked=masked))

    async def send_bytes(self, data: bytes) -> None:
        """Send anything; what a server does that has ended the connection is seen by receiving."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            pass

    async def receive(self, *, timeout_s: float = 5) -> bytes | None:
        """The next message; `None` once the connection has ended (then `closed` says how).

        Answers pings. Fragments are put together.

        Raises:
            TimeoutError: Nothing came within `timeout_s`.
        """
        message = b""
        async with asyncio.timeout(timeout_s):
            while self.closed is None:
                try:
                    fin, opcode, payload = await self._read_frame()
                except (asyncio.IncompleteReadError, ConnectionError):
                    self.closed = Closed(1006)
                    break
                if opcode == CLOSE:
                    code = struct.unpack("!H", payload[:2])[0] if payload else 1005
                    self.closed = Closed(code, payload[2:].decode())
                elif opcode == PING:
                    await self.send_frame(PONG, payload)
                elif opcode != PONG:
                    message += payload
                    if fin:
                        return message
        return None

    async def wait_closed(self, *, timeout_s: float = 10) -> Closed:
        """Read to the end of the connection and say how it ended."""
        async with asyncio.timeout(timeout_s):
            while await self.receive(timeout_s=timeout_s) is not None:
                pass
        assert self.closed is not None
        return self.closed

    async def read_response(self) -> tuple[int, bytes]:
        """Read one HTTP response: its status and its body."""
        first, *lines = (await self.read_head()).strip().split("\r\n")
        status = int(first.split(" ", 2)[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = b"" if status == 101 else await self._reader.read(1 << 16)
        return status, body

    async def read_head(self) -> str:
        """Read the head of one HTTP response, the empty line included."""
        return (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")

    def abort(self) -> None:
        """Drop the connection without a close frame."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close the socket; the server sees the end of the stream, no close frame."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except (ConnectionError, TimeoutError):
            pass

    async def _read_frame(self) -> tuple[bool, int, bytes]:
        first, second = await self._reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await self._reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
        return bool(first & 0x80), first & 0x0F, await self._reader.readexactly(length)


def frame(opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True) -> bytes:
    """One client frame."""
    length = len(payload)
    bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | opcode])
    if length < 126:
        head += bytes([bit | length])
    elif length < 1 << 16:
        head += bytes([bit | 126]) + struct.pack("!H", length)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", length)
    # A mask of zeros is a legal mask, and leaves the payload readable in a packet dump.
    return head + (b"\0\0\0\0" if masked else b"") + payload
