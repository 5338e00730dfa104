"""A client in Python: pycrdt's stock `Provider`, over the channel that pycrdt-websocket makes of httpx-ws.

The provider synchronises documents only. Awareness and confirmations are added at the channel, around it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from httpx_ws import AsyncWebSocketSession, HTTPXWSException, aconnect_ws
from pycrdt import (
    Array,
    Awareness,
    Doc,
    Map,
    Provider,
    Subscription,
    Text,
    TransactionEvent,
    XmlElement,
    XmlFragment,
    XmlText,
    create_awareness_message,
    read_message,
)
from pycrdt.websocket.websocket import HttpxWebsocket

_AWARENESS = 1
_CONFIRM = 102


class PyClient:
    """One document and its connection. Has the methods of `NodeClient` that tests of both use.

    Positions are UTF-16 units here too. It doesn't reconnect by itself: call `connect`.
    """

    def __init__(self, url: str, room: str) -> None:
        """Prepare, connect to nothing.

        Args:
            url: `ws://host:port`.
            room: Goes into the URL as it is.
        """
        self.version = "pycrdt"
        self.doc: Doc[Any] = Doc()
        self._url = f"{url}/{room}"
        self._text = self.doc.get("text", type=Text)
        self._array: Array[Any] = self.doc.get("array", type=Array)
        self._map: Map[Any] = self.doc.get("map", type=Map)
        self._xml = self.doc.get("xml", type=XmlFragment)
        self._awareness = Awareness(self.doc)
        self._awareness.set_local_state(None)
        self._changed = asyncio.Event()
        self._leave = asyncio.Event()
        self._lost = False
        self._task: asyncio.Task[None] | None = None
        self._socket: AsyncWebSocketSession | None = None
        self._provider: Provider | None = None
        self._channel: _Channel | None = None
        self._confirmed: set[bytes] = set()
        self._opened = 0
        self._transactions = 0
        self._subscription: Subscription | None = self.doc.observe(self._on_transaction)
        self._awareness.observe(lambda _topic, _event: self._changed.set())

    @property
    def client_id(self) -> int:
        """The document's client id; up to 53 bits."""
        return int(self.doc.client_id)

    # -------------------------------------------------------------------------------------------- connection

    async def connect(self) -> None:
        """Connect, and return once the socket is open (`wait(synced=True)` waits for the document)."""
        assert self._task is None, "connected already"
        self._leave.clear()
        self._lost = False
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(ready))
        await asyncio.wait([ready, self._task], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await self._task

    async def disconnect(self) -> None:
        """Say goodbye to the other users, send what waits, and close properly; harmless when there is no connection."""
        if self._task is None:
            return
        if self._lost:
            # What the provider had left to send fails, and nobody is to blame.
            await asyncio.gather(self._task, return_exceptions=True)
        else:
            await self._say_goodbye()
            self._leave.set()
            await self._task
        self._task = None

    async def _say_goodbye(self) -> None:
        state = self._awareness.get_local_state()
        if state is not None:
            self._awareness.set_local_state(None)
            await self._announce()
            self._awareness.set_local_state(state)

    async def destroy(self) -> None:
        """Disconnect for good."""
        await self.disconnect()
        if self._subscription is not None:
            self.doc.unobserve(self._subscription)
            self._subscription = None

    async def _run(self, ready: asyncio.Future[None]) -> None:
        socket: AsyncWebSocketSession
        async with aconnect_ws(self._url) as socket:
            self._opened += 1
            self._socket = socket
            self._channel = channel = _Channel(socket, self._url, self._receive, self._on_lost)
            self._transactions = 0
            try:
                async with Provider(self.doc, channel) as provider:
                    self._provider = provider
                    if self._awareness.get_local_state() is not None:
                        await self._announce()
                    ready.set_result(None)
                    await self._leave.wait()
            finally:
                self._socket = self._provider = self._channel = None

    def _on_lost(self) -> None:
        self._lost = True
        self._leave.set()
        self._changed.set()

    def _on_transaction(self, _event: TransactionEvent) -> None:
        self._transactions += 1
        self._changed.set()

    def _receive(self, message: bytes) -> None:
        if message[0] == _AWARENESS:
            self._awareness.apply_awareness_update(read_message(message[1:]), "remote")
        elif message[0] == _CONFIRM:
            self._confirmed.add(read_message(message[1:]))
        self._changed.set()

    async def _announce(self) -> None:
        assert self._socket is not None
        update = self._awareness.encode_awareness_update([self.client_id])
        await self._socket.send_bytes(create_awareness_message(update))

    # -------------------------------------------------------------------------------------------- edits

    async def insert(self, index: int, text: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Insert text."""
        self._text.insert(self._byte(index), text, dict(attributes) if attributes else None)

    async def delete(self, index: int, length: int) -> None:
        """Delete text."""
        del self._text[self._byte(index) : self._byte(index + length)]

    async def format(self, index: int, length: int, attributes: Mapping[str, Any]) -> None:
        """Format text."""
        self._text.format(self._byte(index), self._byte(index + length), dict(attributes))

    def _byte(self, index: int) -> int:
        # pycrdt counts UTF-8 bytes, all other clients UTF-16 units.
        before = str(self._text).encode("utf-16-le")[: 2 * index]
        return len(before.decode("utf-16-le").encode())

    async def array_insert(self, index: int, values: Sequence[Any]) -> None:
        """Insert JSON values into the array."""
        with self.doc.transaction():
            for offset, value in enumerate(values):
                self._array.insert(index + offset, value)

    async def array_delete(self, index: int, length: int = 1) -> None:
        """Delete from the array."""
        del self._array[index : index + length]

    async def map_set(self, key: str, value: Any, *, path: Sequence[str] = ()) -> None:
        """Set a JSON value in the map, or in a map in it."""
        self._map_at(path)[key] = value

    async def map_delete(self, key: str) -> None:
        """Delete from the map."""
        del self._map[key]

    async def add_element(self, index: int, name: str, attributes: Mapping[str, str], text: str) -> None:
        """Insert `<name attributes>text</name>` into the XML fragment."""
        with self.doc.transaction():
            element = self._xml.children.insert(index, XmlElement(name))
            for key, value in attributes.items():
                element.attributes[key] = value
            element.children.append(XmlText(text))

    async def set_attribute(self, index: int, key: str, value: str) -> None:
        """Set an attribute of the XML element at `index`."""
        element = self._xml.children[index]
        assert isinstance(element, XmlElement)
        element.attributes[key] = value

    def _map_at(self, path: Sequence[str]) -> Map[Any]:
        found = self._map
        for key in path:
            found = found[key]
        return found

    # -------------------------------------------------------------------------------------------- looking

    async def content(self, *parts: str) -> dict[str, Any]:
        """Some of `text`, `delta`, `array`, `map` and `xml`."""
        return self._content(parts)

    def _content(self, parts: Iterable[str]) -> dict[str, Any]:
        read: dict[str, Callable[[], Any]] = {
            "text": lambda: str(self._text),
            "delta": self._delta,
            "array": self._array.to_py,
            "map": self._map.to_py,
            "xml": lambda: str(self._xml),
        }
        return {part: read[part]() for part in parts}

    def _delta(self) -> list[dict[str, Any]]:
        return [
            {"insert": insert, "attributes": attributes} if attributes else {"insert": insert}
            for insert, attributes in self._text.diff()
        ]

    async def states(self) -> dict[int, dict[str, Any]]:
        """The awareness states, by client id."""
        return dict(self._awareness.states)

    async def set_state(self, state: dict[str, Any] | None) -> None:
        """Set this client's awareness state, and announce it."""
        self._awareness.set_local_state(state)
        if self._socket is not None:
            await self._announce()

    async def status(self) -> dict[str, Any]:
        """`clientId`, `connected`, and how often it `opened` a connection."""
        return {"clientId": self.client_id, "connected": self._is_connected(), "opened": self._opened}

    def _is_connected(self) -> bool:
        return self._socket is not None and not self._lost

    async def confirm(self, *, timeout_s: float = 5) -> float:
        """Ask for the confirmation of everything sent so far, and wait for it; returns the seconds it took."""
        assert self._socket is not None, "asked for a confirmation while not connected"
        assert self._channel is not None
        channel = self._channel

        # The provider sends from a task of its own, one message for each transaction, its peers' too.
        await self._until(timeout_s, "edits sent", lambda: (channel.updates_sent >= self._transactions, None))
        token = f"{self.client_id}/{time.monotonic_ns()}".encode()
        await self._socket.send_bytes(bytes([_CONFIRM, len(token)]) + token)
        return await self._until(timeout_s, "confirmed", lambda: (token in self._confirmed, self._confirmed))

    async def wait(
        self,
        *,
        timeout_s: float = 5,
        synced: bool | None = None,
        present: Sequence[int] = (),
        absent: Sequence[int] = (),
        **content: Any,
    ) -> float:
        """Wait until everything given is so; returns the seconds it took. `content`: parts of the document."""

        def look() -> tuple[bool, Any]:
            is_synced = self._provider is not None and self._provider.synced.is_set()
            states = self._awareness.states
            seen = self._content(content)
            good = (
                synced in (None, is_synced)
                and all(each in states for each in present)
                and not any(each in states for each in absent)
                and seen == content
            )
            return good, {"synced": is_synced, "states": states, **seen}

        return await self._until(timeout_s, f"{synced=} {present=} {absent=} {content}", look)

    async def _until(self, timeout_s: float, what: str, look: Callable[[], tuple[bool, Any]]) -> float:
        started = time.monotonic()
        seen: Any = None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._changed.clear()
                    good, seen = look()
                    if good:
                        return time.monotonic() - started
                    with contextlib.suppress(TimeoutError):
                        # Not everything tells when it changes (`synced`, what was sent): look again now and then.
                        await asyncio.wait_for(self._changed.wait(), 0.02)
        except TimeoutError:
            raise AssertionError(f"waited {timeout_s} s for {what}; saw {seen}") from None


class _Channel(HttpxWebsocket):
    """Shows each message to `seen` before the provider gets it, and tells when there are no more."""

    def __init__(
        self, socket: AsyncWebSocketSession, path: str, seen: Callable[[bytes], None], lost: Callable[[], None]
    ) -> None:
        super().__init__(socket, path)
        self._seen = seen
        self._lost = lost
        self.updates_sent = 0

    async def send(self, message: bytes) -> None:
        await super().send(message)
        self.updates_sent += message[:2] == b"\x00\x02"

    async def recv(self) -> bytes:
        try:
            message: bytes = await super().recv()
        except HTTPXWSException:
            self._lost()
            raise
        self._seen(message)
        return message
