"""The WebSocket of one client: the path to a room, frames to the room, the room's errors to closing codes."""

import asyncio
import contextlib
import hashlib
import logging
import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Protocol
from urllib.parse import unquote_to_bytes

from starlette.types import Message, Receive, Scope, Send

from auth import Credentials

from .. import tracing
from ..connection import Connection, Flush, Transport, TransportClosed, next_number
from ..errors import (
    DocumentGone,
    Draining,
    InvalidRoomName,
    MessageTooBig,
    Overloaded,
    SyncError,
    TooManyConnections,
    Unauthorized,
)
from ..load import Load
from ..logs import connection_id
from ..pacing import SLICE_S
from ..protocol import encode_denied, is_sync
from ..room import Room
from ..session import Session, ignore_token
from ..settings import Settings
from .access import accepted_subprotocol, read_credentials
from .client_address import client_address, counted_as
from .cooldown import Cooldown
from .parts import Parts

log = logging.getLogger("crdt_sync.sync")

ROOM_NAME_BYTES_MAX = 255
RESERVED = "api/"

# An ASGI extension of our own WebSocket protocol class (`transport`): {"transport": asyncio.Transport, "writer": FrameWriter}.
TRANSPORT_EXTENSION = "crdt_sync.transport"

# What a client sends when it means to go. After anything else but `FINAL_CODES` it comes back, and its user gets the longer
# grace.
GOODBYE_CODES = frozenset({1000, 1001, 1005})
# What a client is closed with that would meet the same again.
FINAL_CODES = frozenset({MessageTooBig.close_code, *range(4400, 4500)})


def room_name(scope: Scope) -> str:
    """The room that a WebSocket's path names: the percent-decoded raw path without its leading slash.

    Raises:
        InvalidRoomName: Not 1 to 255 bytes of UTF-8 without control characters, or reserved.
    """
    try:
        name = unquote_to_bytes(own_path(scope).removeprefix(b"/")).decode()
    except UnicodeDecodeError as error:
        raise InvalidRoomName(f"a room name is UTF-8: {error}") from error
    return check_room_name(name)


def check_room_name(name: str) -> str:
    """Return what is a room's name.

    Raises:
        InvalidRoomName: It isn't; see `room_name`.
    """
    size = len(name.encode())
    if not 1 <= size <= ROOM_NAME_BYTES_MAX:
        raise InvalidRoomName(f"a room name has 1 to {ROOM_NAME_BYTES_MAX} bytes, this one {size}")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise InvalidRoomName(f"a room name has no control characters: {name!r}")
    if name.startswith(RESERVED):
        raise InvalidRoomName(f"/{RESERVED} is reserved")
    return name


def own_path(scope: Scope) -> bytes:
    """The raw path without that of the application that this one is mounted in, however that is encoded."""
    path: bytes = scope["raw_path"]
    root = scope.get("root_path", "").encode()
    end = 0
    for _ in root:
        end += 3 if path[end : end + 1] == b"%" else 1
    return path[end:] if unquote_to_bytes(path[:end]) == root else path


class SyncEndpoint:
    """The ASGI application for WebSockets.

    Nothing is done for a client, and no room opened, before it is known what it may do there.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._proxies = settings.proxies
        self._cooldown = Cooldown()
        self._flush = Flush()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = connection_id.set(next_number())
        try:
            await self._answer(scope, receive, send)
        finally:
            connection_id.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts: Parts = scope["app"].state.parts
        await receive()  # websocket.connect
        accept = {"type": "websocket.accept", "subprotocol": accepted_subprotocol(scope)}
        client: Hashable = None
        try:
            name = room_name(scope)
            credentials = read_credentials(scope, name)
            address = self._address(scope)
            span = tracing.begin(
                parts.tracer,
                "connect",
                traceparent=credentials.headers.get("traceparent"),
                room=name,
                connection=connection_id.get(),
            )
            with tracing.within(span) as connected, parts.limits.place(counted_as(address)) as place:
                async with parts.rooms.while_open():
                    grant = await parts.access.admit(scope, credentials)
                    place.take(name, user=grant.user)
                    client = _client(address, credentials)
                    await self._cooldown.pause(client)
                async with parts.rooms.hold(name) as room:
                    await send(accept)
                    connected()
                    code = await self._serve(parts, room, credentials, Session(name, grant), scope, receive, send)
        except (TooManyConnections, Overloaded, Draining) as error:
            # There may be thousands a second; `limits` says so, and whoever goes away has said so.
            await _refuse(scope, send, error)
            return
        except DocumentGone as error:
            # A browser can't see why it is refused, and this it has to know: it may throw its copy away.
            code = error.close_code
            parts.metrics.note_refusal(error)
            log.info("connection_refused", extra={"code": code, "error": str(error)})
            await send(accept)
            await send({"type": "websocket.close", "code": code, "reason": error.reason})
        except SyncError as error:
            parts.metrics.note_refusal(error)
            log.info("connection_refused", extra={"status": error.status, "error": str(error)})
            await _refuse(scope, send, error)
            return
        if code in FINAL_CODES:
            self._cooldown.note(client, now=asyncio.get_running_loop().time())

    def _address(self, scope: Scope) -> str:
        peer = scope.get("client")
        return client_address(peer[0] if peer else None, scope["headers"], self._proxies)

    async def _serve(
        self,
        parts: Parts,
        room: Room,
        credentials: Credentials,
        session: Session,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> int:
        """Serve a client until it is gone; returns the code that its connection was closed with."""
        loop = asyncio.get_running_loop()
        joined_at = loop.time()
        connection = Connection(
            AsgiTransport(scope, send),
            outbox_bytes_max=self._settings.outbox_bytes_max,
            now=joined_at,
            session=session,
            metrics=parts.metrics,
            number=connection_id.get(),
            flush=self._flush,
        )
        renewal = Renewal(parts, connection, credentials)
        writer = asyncio.create_task(connection.run(room.catch_up))
        code = 1006
        try:
            room.join(connection)
            parts.sessions.enter(connection, room, address=self._address(scope))
            parts.metrics.connections_opened += 1
            log.info("connection_opened", extra={"room": room.name, "connection": connection.id, "user": session.user})
            code = await _read(
                room, connection, receive, parts.load, parts.tracer, credentials.headers.get("traceparent")
            )
        finally:
            parts.sessions.leave(connection)
            renewal.close()
            code = connection.closing[0] if connection.closing else code
            room.leave(connection, properly=code in GOODBYE_CODES or code in FINAL_CODES)
            if connection.closing is None:
                writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            parts.metrics.note_close(code)
            log.info(
                "connection_closed",
                extra={
                    "room": room.name,
                    "connection": connection.id,
                    "code": code,
                    "after_s": round(loop.time() - joined_at, 3),
                    "frames_in": connection.frames_in,
                    "bytes_in": connection.bytes_in,
                },
            )
        return code


class Renewal:
    """Judges the fresh tokens that a client shows on its connection, one at a time; a later one replaces one that waits."""

    def __init__(self, parts: Parts, connection: Connection, credentials: Credentials) -> None:
        self._parts = parts
        self._connection = connection
        self._credentials = credentials
        self._next: str | None = None
        self._task: asyncio.Task[None] | None = None
        connection.session.show_token = self.show

    def show(self, token: str) -> None:
        """A client shows a token. On a server that is open to all, that means nothing."""
        if not self._parts.access.is_open:
            self._next = token
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._run())

    def close(self) -> None:
        """The client is gone."""
        # Or each would keep the other until garbage is collected, which takes long after thousands have gone.
        self._connection.session.show_token = ignore_token
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while (token := self._next) is not None:
            self._next = None
            try:
                grant = await self._parts.access.judge(replace(self._credentials, token=token))
                self._parts.sessions.renew(self._connection, grant)
            except SyncError as error:
                # What it has goes on being good for as long as it is.
                log.info("token_refused", extra={"connection": self._connection.id, "error": str(error)})
                self._connection.notify(encode_denied(error.reason))


def _client(address: str, credentials: Credentials) -> Hashable:
    """What tells clients apart that come again and again."""
    shown = f"{credentials.token}\n{credentials.headers.get('cookie')}\n{credentials.headers.get('user-agent')}"
    return address, credentials.room, hashlib.sha256(shown.encode(errors="replace")).digest()


async def _read(
    room: Room, connection: Connection, receive: Receive, load: Load, tracer: tracing.Tracer | None, link: str | None
) -> int:
    """Give the room what the client says until it is gone or has to go; returns the code it closed with.

    Args:
        room: Joined.
        connection: The client's.
        receive: ASGI's.
        load: Of this node.
        tracer: Makes spans, if there are to be any.
        link: The traceparent that the client connected with.
    """
    loop = asyncio.get_running_loop()
    busy_s = 0.0
    while True:
        if busy_s >= SLICE_S:
            # What has arrived is received without pausing, and may be many frames.
            await asyncio.sleep(0)
            busy_s = 0.0
        message = await receive()
        received_at = connection.received_at = loop.time()
        if message["type"] == "websocket.disconnect":
            return int(message.get("code", 1005))
        frame = message.get("bytes")
        if frame is None or connection.closing:
            # Text frames come from clients that speak something beside y-websocket. They mean nothing here.
            continue
        connection.frames_in += 1
        connection.bytes_in += len(frame)
        try:
            span = tracer.sample("receive", link=link) if tracer is not None and is_sync(frame) else None
            if span is None:
                rest = room.receive(connection, frame)
                if rest is not None:
                    await rest
            else:
                await _receive_traced(span, room, connection, frame)
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
        busy_s += loop.time() - received_at
        if pause_s := load.pause_s(room.name, size=len(frame), receivers=len(room.connections)):
            await asyncio.sleep(pause_s)


async def _receive_traced(span: tracing.Span, room: Room, connection: Connection, frame: bytes) -> None:
    span.describe(room=room.name, connection=connection.id, frame_bytes=len(frame))
    with tracing.within(span):
        rest = room.receive(connection, frame)
        if rest is not None:
            await rest


async def _refuse(scope: Scope, send: Send, error: SyncError) -> None:
    """Answer an upgrade with an HTTP error: clients back off from that, but not from an accepted and closed one."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": error.close_code, "reason": error.reason})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if error.status == Unauthorized.status:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": f"{error.reason}\n".encode()})


class FrameWriter(Protocol):
    """Writes WebSocket frames without ASGI in between."""

    def ready(self) -> bool:
        """See `Transport.ready`."""

    def write_frames(self, frames: Sequence[bytes]) -> None:
        """See `Transport.write`."""


class AsgiTransport(Transport):
    """A client's way out through ASGI."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        extension = scope.get("extensions", {}).get(TRANSPORT_EXTENSION, {})
        self._transport: asyncio.Transport | None = extension.get("transport")
        self._writer: FrameWriter | None = extension.get("writer")

    async def send(self, frame: bytes) -> None:
        await self._put({"type": "websocket.send", "bytes": frame})

    async def close(self, code: int, reason: str) -> None:
        await self._put({"type": "websocket.close", "code": code, "reason": reason})

    def ready(self) -> bool:
        return self._writer is not None and self._writer.ready()

    def write(self, frames: Sequence[bytes]) -> None:
        assert self._writer is not None, "it is ready"
        self._writer.write_frames(frames)

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
