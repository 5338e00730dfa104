"""A real HTTP server on loopback that publishes keys, and misbehaves when it is told to."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from .services import HOST

Answer: TypeAlias = Callable[[asyncio.StreamWriter], Awaitable[None]]


class JwksServer:
    """Use as an async context manager. `port` stays the same when it is stopped and started again."""

    def __init__(self, *keys: dict[str, Any], tls: ssl.SSLContext | None = None) -> None:
        """Prepare to publish some keys, by https if there is a certificate."""
        self._tls = tls
        self.port = 0
        self.requests: list[bytes] = []
        """The head of every request so far."""
        self.asked = asyncio.Event()
        """Set when a request has come."""
        self._keys: tuple[dict[str, Any], ...] = keys
        self._answer: Answer | None = None
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> JwksServer:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Where the keys are."""
        return f"http{'s' if self._tls else ''}://{HOST}:{self.port}/jwks.json?key=s3cret"

    async def start(self) -> None:
        """Listen."""
        self._listener = await asyncio.start_server(self._serve, HOST, self.port, ssl=self._tls)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections, and end those that are open."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def publish(self, *keys: dict[str, Any]) -> None:
        """Publish these keys, and answer as one should."""
        self._keys, self._answer = keys, None

    def misbehave(self, answer: Answer) -> None:
        """Answer in this way from now on."""
        self._answer = answer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            self.asked.set()
            await (self._answer or self._publish)(writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has left, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _publish(self, writer: asyncio.StreamWriter) -> None:
        await answer(json.dumps({"keys": self._keys}).encode())(writer)


def answer(body: bytes, *, status: str = "200 OK", **headers: str) -> Answer:
    """Answer with this."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()

    return write


async def endless(writer: asyncio.StreamWriter) -> None:
    """Answer with bytes without end."""
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        writer.write(b" " * 65536)
        await writer.drain()


async def dripping(writer: asyncio.StreamWriter) -> None:
    """Answer with a byte now and then, so that no single read takes long."""
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def silent(writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()
