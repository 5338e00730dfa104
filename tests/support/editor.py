"""A client for trials: edits as fast as it is told to, asks for confirmation, and keeps account of both.

It writes each edit into the map `edits` under a key of its own and into the text `text`, so that a document shows for
each edit whether it is there. What a document amounts to is for real Yjs to say (`yjs`), not for this client's pycrdt.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import pycrdt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from crdt_sync.lib0 import read_var_bytes, read_var_uint, write_var_bytes, write_var_uint
from crdt_sync.protocol import CONFIRM

_names = itertools.count(1)


class Editor:
    """One connection with one document. Use as an async context manager, or `open` and `close` it."""

    def __init__(self, url: str, room: str, *, name: str | None = None) -> None:
        self.name = name or f"editor-{next(_names)}"
        self.sent: dict[str, float] = {}
        """Edit to when it was sent (`time.perf_counter`)."""
        self.confirmed: dict[str, float] = {}
        """Edit to when it was confirmed."""
        self.seen: dict[str, float] = {}
        """Others' edits to when they arrived."""
        self.received: list[bytes] = []
        """Every update that came in, as it came."""
        self.synced = asyncio.Event()
        self.close_code: int | None = None
        self._url = f"{url}/{room}"
        self._count = itertools.count(1)
        self._changed = asyncio.Event()
        self._doc: pycrdt.Doc[Any] = pycrdt.Doc()
        self._edits = self._doc.get("edits", type=pycrdt.Map)
        self._text = self._doc.get("text", type=pycrdt.Text)
        self._edits.observe(self._note)
        self._out: list[bytes] = []
        self._doc.observe(lambda event: self._out.append(event.update))
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Editor:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect and ask for what there is."""
        self._socket = await connect(self._url, compression=None, max_size=None, open_timeout=10)
        self._reader = asyncio.create_task(self._read(self._socket))
        await self._socket.send(b"\x00\x00" + write_var_bytes(self._doc.get_state()))

    async def close(self) -> None:
        """Go, for good."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        if self._socket is not None:
            self._socket.transport.abort()

    async def edit(self, *, confirm: bool = True, size: int = 0) -> str:
        """Make one edit, padded by `size` characters, and ask for its confirmation. Returns its key."""
        assert self._socket is not None
        key = f"{self.name}:{next(self._count)}"
        self._out.clear()
        with self._doc.transaction():
            self._edits[key] = "x" * size
            self._text += f"{key} "
        frames = [b"\x00\x02" + write_var_bytes(update) for update in self._out]
        self.sent[key] = time.perf_counter()
        if confirm:
            frames.append(write_var_uint(CONFIRM) + write_var_bytes(key.encode()))
        for frame in frames:
            await self._socket.send(frame)
        return key

    async def overwrite(self, size: int) -> None:
        """Replace one value by `size` new characters: traffic that leaves the document as small as it was."""
        assert self._socket is not None
        self._out.clear()
        self._edits["overwritten"] = random.randbytes(size // 2).hex()
        for update in self._out:
            await self._socket.send(b"\x00\x02" + write_var_bytes(update))

    async def until(self, condition: Callable[[], object], timeout_s: float = 10) -> None:
        """Wait until `condition()` is true; it is asked after whatever arrives."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def edits(self) -> set[str]:
        """The edits in this client's document."""
        return set(self._edits.keys())

    async def _read(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for frame in socket:
                assert isinstance(frame, bytes)
                await self._receive(socket, frame)
                self._changed.set()
        self.close_code = socket.close_code
        self._changed.set()

    async def _receive(self, socket: ClientConnection, frame: bytes) -> None:
        kind, pos = read_var_uint(frame, 0)
        if kind == CONFIRM:
            token, _ = read_var_bytes(frame, pos)
            self.confirmed[token.decode()] = time.perf_counter()
        elif kind == 0:
            payload, _ = read_var_bytes(frame, 2)
            if frame[1] == 0:
                await socket.send(b"\x00\x01" + write_var_bytes(self._doc.get_update(payload)))
                return
            self.received.append(payload)
            # This client's pycrdt can't read everything that real Yjs reads; what it received is for Yjs to judge.
            with contextlib.suppress(ValueError):
                self._doc.apply_update(payload)
            if frame[1] == 1:
                self.synced.set()

    def _note(self, event: Any) -> None:
        now = time.perf_counter()
        for key in event.keys:
            if key not in self.sent:
                self.seen.setdefault(key, now)
