"""The WebSocket of one client: the path to a room, frames to the room, the room's errors to closing codes."""

import asyncio
import contextlib
import logging
import unicodedata
from urllib.parse import quote, unquote_to_bytes

from starlette.types import Message, Receive, Scope, Send

from ..connection import Connection, Transport, TransportClosed
from ..errors import InvalidRoomName, SyncError
from ..room import Room
from ..rooms import Rooms
from ..settings import Settings

log = logging.getLogger("crdt_sync.sync")

ROOM_NAME_BYTES_MAX = 255
RESERVED = "api/"

# An ASGI extension of our own WebSocket protocol class (`transport`): {"transport": asyncio.Transport}.
TRANSPORT_EXTENSION = "crdt_sync.transport"

# What a client sends when it means to go. Anything else is a lost connection, and its user gets the longer grace.
GOODBYE_CODES = frozenset({1000, 1001, 1005})


def room_name(scope: Scope) -> str:
    """The room that a WebSocket's path names: the percent-decoded raw path without its leading slash.

    Raises:
        InvalidRoomName: Not 1 to 255 bytes of UTF-8 without control characters, or reserved.
    """
    path: bytes = scope["raw_path"]
    root = quote(scope.get("root_path", "")).encode()
    encoded = path.removeprefix(root).removeprefix(b"/")
    raw = unquote_to_bytes(encoded)
    if not 1 <= len(raw) <= ROOM_NAME_BYTES_MAX:
        raise InvalidRoomName(f"a room name has 1 to {ROOM_NAME_BYTES_MAX} bytes, this one {len(raw)}")
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidRoomName(f"a room name is UTF-8: {error}") from error
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise InvalidRoomName(f"a room name has no control characters: {name!r}")
    if name.startswith(RESERVED):
        raise InvalidRoomName(f"/{RESERVED} is reserved")
    return name


class SyncEndpoint:
    """The ASGI application for WebSockets. Finds the rooms in `app.state`, where the lifespan puts them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rooms: Rooms = scope["app"].state.rooms
        await receive()  # websocket.connect
        try:
            name = room_name(scope)
            async with rooms.hold(name) as room:
                await send({"type": "websocket.accept"})
                await self._serve(room, scope, receive, send)
        except SyncError as error:
            log.info("connection_refused", extra={"status": error.status, "error": str(error)})
            await _refuse(scope, send, error)

    async def _serve(self, room: Room, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        joined_at = loop.time()
        connection = Connection(
            AsgiTransport(scope, send), outbox_bytes_max=self._settings.outbox_bytes_max, now=joined_at
        )
        writer = asyncio.create_task(connection.run(room.catch_up))
        code = 1006
        room.join(connection)
        log.info("connection_opened", extra={"room": room.name, "connection": connection.id})
        try:
            code = await _read(room, connection, receive)
        finally:
            room.leave(connection, properly=code in GOODBYE_CODES or connection.closing is not None)
            if connection.closing is None:
                writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            log.info(
                "connection_closed",
                extra={
                    "room": room.name,
                    "connection": connection.id,
                    "code": connection.closing[0] if connection.closing else code,
                    "after_s": round(loop.time() - joined_at, 3),
                },
            )


async def _read(room: Room, connection: Connection, receive: Receive) -> int:
    """Give the room what the client says until it is gone or has to go; returns the code it closed with."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return int(message.get("code", 1005))
        frame = message.get("bytes")
        if frame is None or connection.closing:
            # Text frames come from clients that speak something beside y-websocket. They mean nothing here.
            continue
        try:
            room.receive(connection, frame)
        except SyncError as error:
            log.warning(
                "connection_refused_message",
                extra={
                    "room": room.name,
                    "connection": connection.id,
                    "code": error.close_code,
                    "error": str(error),
                },
            )
            connection.close(error.close_code, error.reason)
        except Exception:
            log.exception("message_failed", extra={"room": room.name, "connection": connection.id})
            connection.close(SyncError.close_code, SyncError.reason)


async def _refuse(scope: Scope, send: Send, error: SyncError) -> None:
    """Answer an upgrade with an HTTP error: clients back off from that, but not from an accepted and closed one."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": error.close_code, "reason": error.reason})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": f"{error.reason}\n".encode()})


class AsgiTransport(Transport):
    """A client's way out through ASGI."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        extension = scope.get("extensions", {}).get(TRANSPORT_EXTENSION, {})
        self._transport: asyncio.Transport | None = extension.get("transport")

    async def send(self, frame: bytes) -> None:
        await self._put({"type": "websocket.send", "bytes": frame})

    async def close(self, code: int, reason: str) -> None:
        await self._put({"type": "websocket.close", "code": code, "reason": reason})

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def buffered_bytes(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    async def _put(self, message: Message) -> None:
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:
            # ASGI: an OSError when the client is gone; uvicorn: a RuntimeError after it closed by itself.
            raise TransportClosed from error
