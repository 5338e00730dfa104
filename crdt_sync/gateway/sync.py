"""The WebSocket of one client: the path to a room, frames to the room, the room's errors to closing codes."""

import asyncio
import functools
import hashlib
import logging
import unicodedata
from collections.abc import Hashable
from typing import Protocol
from urllib.parse import unquote_to_bytes

from starlette.types import Message, Receive, Scope, Send

from auth import Credentials

from .. import tracing
from ..connection import Flush, Transport, TransportClosed, next_number
from ..errors import (
    DocumentGone,
    Draining,
    InvalidRoomName,
    Overloaded,
    SyncError,
    TooManyConnections,
    Unauthorized,
)
from ..frames import ABNORMAL, NO_CODE
from ..logs import connection_id
from ..pacing import SLICE_S
from ..session import Session
from ..settings import Settings
from .access import accepted_subprotocol, read_credentials
from .client_address import client_address, counted_as
from .cooldown import Cooldown
from .parts import Parts
from .visit import FINAL_CODES, Visit

log = logging.getLogger("crdt_sync.sync")

ROOM_NAME_BYTES_MAX = 255
RESERVED = "api/"

# An ASGI extension of our own WebSocket protocol class (`transport`): a `ShortWay`.
TRANSPORT_EXTENSION = "crdt_sync.transport"


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
        try:
            name = room_name(scope)
            credentials = read_credentials(scope, name)
            span = tracing.begin(
                parts.tracer,
                "connect",
                traceparent=credentials.headers.get("traceparent"),
                room=name,
                connection=connection_id.get(),
            )
            with tracing.within(span) as connected:
                visit = await self._enter(parts, scope, name, credentials)
                try:
                    await send(accept)
                except BaseException:
                    visit.leave()
                    raise
                connected()
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
            self._finished(_client(self._address(scope), credentials), code)
            return
        except SyncError as error:
            parts.metrics.note_refusal(error)
            log.info("connection_refused", extra={"status": error.status, "error": str(error)})
            await _refuse(scope, send, error)
            return
        short: ShortWay | None = scope.get("extensions", {}).get(TRANSPORT_EXTENSION)
        visit.begin(AsgiTransport(send) if short is None else short, self._flush, credentials)
        if short is None:
            await _read(visit, receive)
        else:
            # This call returns, and with it goes all that the connection doesn't need any more.
            short.serve(visit)

    async def _enter(self, parts: Parts, scope: Scope, name: str, credentials: Credentials) -> Visit:
        """Find out what a client may do, and open its room for it."""
        address = self._address(scope)
        client = _client(address, credentials)
        place = parts.limits.place(counted_as(address))
        try:
            async with parts.rooms.while_open():
                grant = await parts.access.admit(scope, credentials)
                place.take(name, user=grant.user)
                await self._cooldown.pause(client)
            held = await parts.rooms.enter(name)
        except BaseException:
            place.leave()
            raise
        return Visit(
            parts,
            held,
            place,
            Session(name, grant),
            link=credentials.headers.get("traceparent"),
            address=address,
            finished=functools.partial(self._finished, client),
        )

    def _finished(self, client: Hashable, code: int) -> None:
        if code in FINAL_CODES:
            self._cooldown.note(client, now=asyncio.get_running_loop().time())

    def _address(self, scope: Scope) -> str:
        peer = scope.get("client")
        return client_address(peer[0] if peer else None, scope["headers"], self._proxies)


def _client(address: str, credentials: Credentials) -> Hashable:
    """What tells clients apart that come again and again."""
    shown = f"{credentials.token}\n{credentials.headers.get('cookie')}\n{credentials.headers.get('user-agent')}"
    return address, credentials.room, hashlib.sha256(shown.encode(errors="replace")).digest()


async def _read(visit: Visit, receive: Receive) -> None:
    """Give a visit what its client says, until that is gone or has to go."""
    loop = asyncio.get_running_loop()
    code, busy_s = ABNORMAL, 0.0
    try:
        while True:
            if busy_s >= SLICE_S:
                # What has arrived is received without pausing, and may be many frames.
                await asyncio.sleep(0)
                busy_s = 0.0
            message = await receive()
            received_at = loop.time()
            if message["type"] == "websocket.disconnect":
                code = int(message.get("code", NO_CODE))
                return
            frame = message.get("bytes")
            # Text frames come from clients that speak something beside y-websocket. They mean nothing here.
            rest = visit.receive(frame) if frame is not None else None
            if rest is not None:
                await rest
            busy_s += loop.time() - received_at
    finally:
        visit.gone(code)


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


class ShortWay(Transport, Protocol):
    """A client's way in and out without ASGI. The extension `TRANSPORT_EXTENSION` is one."""

    def serve(self, visit: Visit) -> None:
        """Give a visit what its client says, until that is gone, beyond the end of the ASGI call."""


class AsgiTransport:
    """A client's way out through ASGI: a `Transport`."""

    ready = False
    """See `Transport.ready`."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def send(self, frame: bytes) -> None:
        """See `Transport.send`."""
        await self._put({"type": "websocket.send", "bytes": frame})

    async def close(self, code: int, reason: str) -> None:
        """See `Transport.close`."""
        await self._put({"type": "websocket.close", "code": code, "reason": reason})

    def write_wire(self, wire: bytes) -> None:
        """See `Transport.write_wire`."""
        raise AssertionError("it is never ready for that")

    def abort(self) -> None:
        """There is no way to, but whoever cancels what waits in `send` needs none."""

    def is_closing(self) -> bool:
        """See `Transport.is_closing`."""
        return False

    def buffered_bytes(self) -> int:
        """See `Transport.buffered_bytes`."""
        return 0

    async def _put(self, message: Message) -> None:
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:
            # ASGI: an OSError when the client is gone; uvicorn: a RuntimeError after it closed by itself.
            raise TransportClosed from error
