"""A network between a client and a server, that fails when it is told to."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass

from .server import free_port
from .services import HOST, through

_LINGER_NOT = struct.pack("ii", 1, 0)
_CHUNK_BYTES = 65536


class Proxy:
    """Passes TCP connections on to a loopback port.

    Use as an async context manager; leaving it cuts everything. It lives in the running loop: what blocks the loop
    waits for the proxy in vain.
    """

    def __init__(self, server_port: int) -> None:
        """Prepare, start nothing.

        Args:
            server_port: Where the server listens.
        """
        self.port = free_port()
        self.answers_cut = 0
        """How often `cut_at_answer_to` has withheld an answer so far."""
        self._server_port = server_port
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers_pass = asyncio.Event()
        self._answers_pass.set()
        self._needle = b""
        self._cuts_left = 0

    async def __aenter__(self) -> Proxy:
        await self.accept()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.refuse()
        self.release_answers()
        self.cut()
        await asyncio.gather(*self._tasks)

    def url(self, url: str) -> str:
        """The server's URL by way of the proxy."""
        return through(url, self.port)

    async def accept(self) -> None:
        """Take new connections, as it does from the start."""
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, HOST, self.port)

    def refuse(self) -> None:
        """Refuse new connections. Those that are open go on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def cut(self) -> None:
        """Reset all connections, on both sides. What is on its way is lost."""
        for link in self._links:
            link.reset()

    def hold_answers(self) -> None:
        """Keep back what the server says; what the clients say still passes."""
        self._answers_pass.clear()

    def release_answers(self) -> None:
        """Let pass what was kept back, and all that follows."""
        self._answers_pass.set()

    def cut_at_answer_to(self, needle: bytes, *, times: int = 1) -> None:
        """Ask "did it happen?": the client's connection breaks after the server has done what it was asked to.

        What the client sends passes. When that contained `needle`, the next bytes from the server are taken for its
        answer: they aren't delivered, and the connection is reset.

        Args:
            needle: Bytes as they go over the wire, such as `b"COMMIT"`. The SQL of a prepared statement passes only
                while it is prepared; later calls carry its arguments alone.
            times: How many answers to withhold. New connections are taken meanwhile.
        """
        self._needle, self._cuts_left = needle, times

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            server_reader, server_writer = await asyncio.open_connection(HOST, self._server_port)
        except OSError:
            _reset(writer)
            return
        link = _Link(writer, server_writer)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pass_questions(link, reader))
                pumps.create_task(self._pass_answers(link, server_reader))
        finally:
            self._links.discard(link)
            link.close()

    async def _pass_questions(self, link: _Link, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(_CHUNK_BYTES):
                link.server.write(data)
                if link.has_asked(self._needle, data) and self._cuts_left:
                    self._cuts_left -= 1
                    link.answer_is_withheld = True
                await link.server.drain()
            link.server.write_eof()
        except OSError:
            link.reset()

    async def _pass_answers(self, link: _Link, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(_CHUNK_BYTES):
                if link.answer_is_withheld:
                    self.answers_cut += 1
                    link.reset()
                    return
                await self._answers_pass.wait()
                link.client.write(data)
                await link.client.drain()
            link.client.write_eof()
        except OSError:
            link.reset()


@dataclass(eq=False)
class _Link:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    answer_is_withheld: bool = False
    _tail: bytes = b""
    """The end of what the client has said, where a needle may have begun."""

    def has_asked(self, needle: bytes, data: bytes) -> bool:
        said = self._tail + data
        self._tail = said[-(len(needle) - 1) :] if len(needle) > 1 else b""
        return needle in said

    def reset(self) -> None:
        _reset(self.client)
        _reset(self.server)

    def close(self) -> None:
        self.client.close()
        self.server.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()
