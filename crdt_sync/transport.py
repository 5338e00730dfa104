"""A WebSocket under uvicorn, without what ASGI costs for each message and each client.

Owns one socket from its upgrade to its end: the answer to the upgrade, which frames mean what, keep-alives, the closing
handshake, and how much is read of it, and when. The upgrade itself is an ASGI call, so that whoever answers it needs to
know nothing of this; but once it has accepted, it can leave a `Visitor` here. Then the call returns, and each message is
handed to the visitor in the turn of the event loop in which it arrives, without a task or a queue in between.

A client can make the server work by many small frames, or hold memory by large ones that never end. So everything that
comes is counted here:

- It is read in small pieces, since a piece is parsed in one turn of the event loop, and other clients wait that long.
- Who is over its rate (`limits.Intake`) isn't read for a while; who goes on, is closed with 4429.
- A message has a bound on its fragments, and what all clients hold of unfinished messages has one together.
- A pong isn't sent to who doesn't read.
- When a connection has come to its end, it is gone a few seconds later, whatever the client does.
"""

import asyncio
import base64
import binascii
import email.utils
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, Protocol, cast
from urllib.parse import unquote

from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from .connection import TransportClosed, on_the_wire
from .errors import Flooding, MessageTooBig, Overloaded, SyncError
from .frames import ABNORMAL, BINARY, CLOSE, PING, PONG, InvalidFrame, Reader, read_close, write_close, write_control
from .gateway.sync import TRANSPORT_EXTENSION
from .limits import FRAGMENTS_MAX, Intake, Limits
from .pacing import SLICE_S

# A piece of this size that consists of nothing but empty frames takes some 4 ms to parse.
READ_BYTES = 2048
# Shared by all connections: what was read is copied out of it before anything else is.
_buffer = bytearray(READ_BYTES)
_view = memoryview(_buffer)
# Who has this much of ours waiting gets no pongs.
PONG_BUFFER_BYTES_MAX = 64 << 10
# How long a client that was closed for what it sent may take to read why.
LINGER_S = 3.0
# How long any client may take to read what was on its way to it, and to close, once it is told to go.
GONE_S = 5.0
# As much as most servers and proxies let through.
TARGET_BYTES_MAX = 8190
HEADER_BYTES_MAX = 8190
HEADERS_MAX = 128

_KEY_BYTES = 16
_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

log = logging.getLogger("crdt_sync.transport")


class Visitor(Protocol):
    """Whom a client's messages are for."""

    def receive(self, message: bytes) -> Awaitable[None] | None:
        """Take in a binary message. What is returned, if anything, is awaited before anything else is read."""

    def gone(self, code: int) -> None:
        """There will be no more messages. Called once; `code` as in `connection_closed`."""


# Plain numbers: to look a member of an enum up takes Python 3.11 longer than the rest of what is done with it, for each message.
_ANSWERING = 0
_OPEN = 1
# One side has said that it goes, or one should have.
_ENDING = 2

# Why a socket isn't read, as bits. What it sent takes time:
_BUSY = 1
# It sends too fast:
_SLOWED = 2
# For good:
_OVER = 4
# What it sent before it was let in comes first:
_EARLY = 8


class WebSocketProtocol(asyncio.BufferedProtocol):
    """One WebSocket: a `connection.Transport`.

    Args:
        config: uvicorn's.
        server_state: uvicorn's.
        app_state: uvicorn's.
        limits: This node's.
    """

    __slots__ = (
        "_answer",
        "_app_state",
        "_backlog",
        "_code",
        "_config",
        "_early",
        "_end_timer",
        "_intake",
        "_key",
        "_limits",
        "_loop",
        "_over",
        "_partial_bytes",
        "_pauses",
        "_peers",
        "_ping",
        "_ping_timer",
        "_reader",
        "_rest",
        "_resume",
        "_state",
        "_tasks",
        "_visitor",
        "_writable",
        "client",
        "ready",
        "transport",
        "write_wire",
    )

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], *, limits: Limits) -> None:
        self.ready = False
        """Whether `write_wire` may be called: the WebSocket is open, and its client reads."""
        self.client: tuple[str, int] | None = None
        """Where it comes from."""
        self.transport: asyncio.Transport
        """The socket's."""
        self.write_wire: Callable[[bytes], None]
        """See `connection.Transport`."""
        self._config = config
        self._app_state = app_state
        self._peers = cast(set[object], server_state.connections)
        self._tasks = server_state.tasks
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._intake = Intake(limits.settings, now=self._loop.time())
        self._reader = Reader(config.ws_max_size)
        self._state = _ANSWERING
        self._key = b""
        # Status and headers of an answer to the upgrade that isn't complete.
        self._answer: tuple[int, list[tuple[bytes, bytes]]] | None = None
        # What came before the answer.
        self._early = b""
        self._visitor: Visitor | None = None
        self._rest: asyncio.Task[None] | None = None
        self._backlog: list[bytes] = []
        self._pauses = 0
        self._resume: asyncio.TimerHandle | None = None
        self._writable: asyncio.Future[None] | None = None
        self._partial_bytes = 0
        self._ping: bytes | None = None
        self._ping_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        # How it ended.
        self._code: int | None = None
        self._over: asyncio.Future[int] | None = None

    # ------------------------------------------------------------------------------------------------ the upgrade

    def upgrade(
        self,
        transport: asyncio.Transport,
        method: bytes,
        target: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        early: bytes,
    ) -> None:
        """Take over a connection that has sent a complete request for an upgrade.

        Args:
            transport: The connection's.
            method: The request's.
            target: The request's.
            headers: The request's, names in lower case.
            early: What came behind it.
        """
        self.transport = transport
        self.write_wire = transport.write
        self.client = get_remote_addr(transport)
        self._peers.add(self)
        transport.set_protocol(self)
        refusal = _refusal(method, target, headers)
        if refusal is not None:
            self._limits.note("malformed_request", self.client)
            status, why = refusal
            self._refuse(status, why, [(b"Sec-WebSocket-Version", b"13")] if status == 426 else ())
            return
        self._key = dict(headers)[b"sec-websocket-key"]
        if early:
            self._take_early(early)
        task = self._loop.create_task(self._run(self._scope(target, headers)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def serve(self, visitor: Visitor) -> None:
        """From now on, hand messages to this visitor. The ASGI call may return, and the connection goes on."""
        self._visitor = visitor
        if self._code is not None:
            self._loop.call_soon(self._say_gone)

    def _scope(self, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> dict[str, Any]:
        path, _, query = target.partition(b"?")
        root = self._config.root_path
        offered = b",".join([value for name, value in headers if name == b"sec-websocket-protocol"])
        return {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self.transport) else "ws",
            "server": get_local_addr(self.transport),
            "client": self.client,
            "root_path": root,
            "path": root + unquote(path.decode("ascii")),
            "raw_path": root.encode("ascii") + path,
            "query_string": query,
            "headers": list(headers),
            "subprotocols": [one.strip() for one in offered.decode("latin-1").split(",") if one.strip()],
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}, TRANSPORT_EXTENSION: self},
        }

    async def _run(self, scope: dict[str, Any]) -> None:
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "websocket.connect"}
            if self._over is None:
                self._over = self._loop.create_future()
                if self._code is not None:
                    self._over.set_result(self._code)
            return {"type": "websocket.disconnect", "code": await self._over, "reason": ""}

        try:
            await self._config.loaded_app(scope, receive, self._send)
        except TransportClosed:
            pass
        except Exception:
            log.exception("upgrade_failed")
            if self._state == _ANSWERING:
                self._refuse(500, "")
            elif self._visitor is None:
                self._fail(SyncError.close_code, SyncError.reason)
        finally:
            if self._visitor is None and self._state != _ENDING:
                self._close()
                self._end(ABNORMAL)

    async def _send(self, message: dict[str, Any]) -> None:
        """ASGI's `send`: answers to the upgrade, and closing. Messages go by `write_wire`.

        Raises:
            TransportClosed: The client is gone.
        """
        if self._code is not None:
            raise TransportClosed
        kind = message["type"]
        if kind == "websocket.close" and self._state == _OPEN:
            await self.close(message.get("code", 1000), message.get("reason") or "")
        elif self._state != _ANSWERING:
            raise RuntimeError(f"unexpected ASGI message {kind!r}")
        elif kind == "websocket.accept":
            self._accept(message.get("subprotocol"), message.get("headers", ()))
        elif kind == "websocket.close":
            self._refuse(403, "")
        elif kind == "websocket.http.response.start":
            self._answer = message["status"], list(message.get("headers", ()))
        elif kind == "websocket.http.response.body" and self._answer is not None:
            status, headers = self._answer
            self._refuse(status, message.get("body", b"").decode(), headers)
        else:
            raise RuntimeError(f"unexpected ASGI message {kind!r}")

    def _accept(self, subprotocol: str | None, headers: Sequence[tuple[bytes, bytes]]) -> None:
        accept = base64.b64encode(hashlib.sha1(self._key + _ACCEPT_GUID, usedforsecurity=False).digest())
        answer = [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"]
        answer.append(b"Sec-WebSocket-Accept: " + accept + b"\r\n")
        if subprotocol:
            answer.append(b"Sec-WebSocket-Protocol: " + subprotocol.encode("latin-1") + b"\r\n")
        answer += [name + b": " + value + b"\r\n" for name, value in headers]
        self.transport.write(b"".join([*answer, b"\r\n"]))
        self._state = _OPEN
        self.ready = True
        self._schedule_ping()
        if self._early:
            # When there is a visitor, and before anything else is read.
            self._loop.call_soon(self._read_early)

    def _refuse(self, status: int, body: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Answer the upgrade with an HTTP status, and be done."""
        known = {name.lower() for name, _ in headers}
        content = body.encode()
        answer = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()]
        answer += [name + b": " + value + b"\r\n" for name, value in headers]
        answer.append(f"Date: {email.utils.formatdate(usegmt=True)}\r\nConnection: close\r\n".encode())
        answer.append(f"Content-Length: {len(content)}\r\n".encode())
        if b"content-type" not in known:
            answer.append(b"Content-Type: text/plain; charset=utf-8\r\n")
        self.transport.write(b"".join([*answer, b"\r\n", content]))
        self._close()
        self._end(ABNORMAL)

    # ------------------------------------------------------------------------------------------------ the way out

    async def send(self, frame: bytes) -> None:
        """See `connection.Transport`."""
        while not self.ready:
            if self._state != _OPEN:
                raise TransportClosed
            self._writable = self._loop.create_future()
            try:
                await self._writable
            finally:
                self._writable = None
        self.transport.write(on_the_wire(frame))

    async def close(self, code: int, reason: str) -> None:
        """See `connection.Transport`. Whoever doesn't answer in time is dropped."""
        if self._state == _OPEN:
            self.transport.write(write_close(code, reason))
            self._end(code)

    def abort(self) -> None:
        """See `connection.Transport`."""
        self.transport.abort()

    def is_closing(self) -> bool:
        """See `connection.Transport`."""
        return self.transport.is_closing()

    def buffered_bytes(self) -> int:
        """See `connection.Transport`."""
        return self.transport.get_write_buffer_size()

    def pause_writing(self) -> None:
        """The client doesn't read."""
        self.ready = False

    def resume_writing(self) -> None:
        """It does again."""
        self.ready = self._state == _OPEN
        self._wake()

    def _wake(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # ------------------------------------------------------------------------------------------------ the way in

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport puts what it reads."""
        # Of TLS, it reads into slices: those of a bytearray would be copies.
        return _view

    def buffer_updated(self, nbytes: int) -> None:
        """The transport has read something."""
        data = bytes(_view[:nbytes])
        if self._state == _ANSWERING:
            self._take_early(data)
        else:
            self._read(data)

    def _take_early(self, data: bytes) -> None:
        """Who says something before it is let in isn't read any further until it is."""
        self._early += data
        self._pause(_EARLY)

    def _read_early(self) -> None:
        """Read it a piece in each turn: HTTP is read in large ones."""
        piece, self._early = self._early[:READ_BYTES], self._early[READ_BYTES:]
        self._read(piece)
        if self._early:
            self._loop.call_soon(self._read_early)
        else:
            self._go_on(_EARLY)

    def _read(self, data: bytes) -> None:
        if self._pauses & _OVER:
            return
        reader = self._reader
        frames = reader.frames
        messages = reader.read(data)
        if reader.held != self._partial_bytes:
            self._hold(reader.held)
        turn_ends = self._loop.time() + SLICE_S if len(messages) > 1 else None
        for kind, payload in messages:
            if kind == BINARY:
                self._deliver(payload)
                if turn_ends is not None and self._rest is None and self._loop.time() >= turn_ends:
                    self._wait_for(asyncio.sleep(0))
            elif kind & 8:
                self._control(kind, payload)
        if reader.error is not None:
            too_big = reader.error.code == MessageTooBig.close_code
            self._fail(reader.error.code, MessageTooBig.reason if too_big else str(reader.error))
            return
        try:
            if self._partial_bytes or reader.fragments:
                self._bound()
            wait_s = self._intake.take(frames=reader.frames - frames, size=len(data), now=self._loop.time())
        except SyncError as error:
            if isinstance(error, Flooding):
                self._limits.note("flooding", self.client)
            self._fail(error.close_code, error.reason)
            return
        if wait_s:
            self._slow(wait_s)

    def _deliver(self, message: bytes) -> None:
        if self._state != _OPEN:
            return
        if self._pauses & _BUSY:
            self._backlog.append(message)
        elif self._visitor is not None:
            rest = self._visitor.receive(message)
            if rest is not None:
                self._wait_for(rest)

    def _wait_for(self, rest: Awaitable[None]) -> None:
        self._pause(_BUSY)
        self._rest = self._loop.create_task(self._finish(rest))

    async def _finish(self, rest: Awaitable[None]) -> None:
        """Wait for what a message takes, and then for what came behind it, also if its client has gone since."""
        try:
            await rest
            while self._backlog and self._visitor is not None:
                turn_ends = self._loop.time() + SLICE_S
                while self._backlog and self._loop.time() < turn_ends:
                    more = self._visitor.receive(self._backlog.pop(0))
                    if more is not None:
                        await more
                await asyncio.sleep(0)
        except Exception:
            log.exception("message_failed")
            self._fail(SyncError.close_code, SyncError.reason)
        finally:
            self._backlog.clear()
            self._rest = None
            self._go_on(_BUSY)
            if self._code is not None:
                self._say_gone()

    def _control(self, kind: int, payload: bytes) -> None:
        if kind == CLOSE:
            self._take_close(payload)
        elif self._state != _OPEN:
            return
        elif kind == PING:
            if not self.is_closing() and self.transport.get_write_buffer_size() <= PONG_BUFFER_BYTES_MAX:
                self.transport.write(write_control(PONG, payload))
        elif payload == self._ping:
            self._schedule_ping()

    def _take_close(self, payload: bytes) -> None:
        if self._state == _OPEN:
            try:
                code = read_close(payload)
            except InvalidFrame as error:
                self._fail(error.code, str(error))
                return
            self.transport.write(write_close(code, ""))
            self._end(code)
        # Now both have said it.
        self._close()

    def _pause(self, why: int) -> None:
        if not self._pauses:
            self.transport.pause_reading()
        self._pauses |= why

    def _go_on(self, why: int) -> None:
        if self._pauses & why:
            self._pauses &= ~why
            if not self._pauses and not self.transport.is_closing():
                self.transport.resume_reading()

    def _slow(self, wait_s: float) -> None:
        self._limits.note("slowed", self.client)
        self._pause(_SLOWED)
        if self._resume is not None:
            self._resume.cancel()
        self._resume = self._loop.call_later(wait_s, self._go_on, _SLOWED)

    def _bound(self) -> None:
        if len(self._reader.fragments) > FRAGMENTS_MAX:
            self._limits.note("fragments", self.client)
            raise MessageTooBig(f"more than {FRAGMENTS_MAX} fragments")
        if self._limits.partial_bytes > self._limits.settings.partial_bytes_max:
            self._limits.note("partial_bytes", self.client)
            error = Overloaded("too many unfinished messages")
            largest = max(self._peers, key=lambda each: getattr(each, "_partial_bytes", 0))
            assert isinstance(largest, WebSocketProtocol), "it holds something"
            largest._fail(error.close_code, error.reason)

    def _hold(self, size: int) -> None:
        """Say how many bytes this connection holds of an unfinished message."""
        self._limits.partial_bytes += size - self._partial_bytes
        self._partial_bytes = size

    # ------------------------------------------------------------------------------------------------ keep-alives

    def _schedule_ping(self) -> None:
        self._ping = None
        self._stop_pinging()
        if self._config.ws_ping_interval:
            self._ping_timer = self._loop.call_later(self._config.ws_ping_interval, self._send_ping)

    def _send_ping(self) -> None:
        self._ping = random.randbytes(4)
        self.transport.write(write_control(PING, self._ping))
        if self._config.ws_ping_timeout:
            self._ping_timer = self._loop.call_later(self._config.ws_ping_timeout, self._miss_pong)

    def _miss_pong(self) -> None:
        if self._pauses and self._config.ws_ping_timeout:
            # Perhaps it has come, and wasn't read.
            self._ping_timer = self._loop.call_later(self._config.ws_ping_timeout, self._miss_pong)
            return
        self.transport.write(write_close(1011, "keepalive ping timeout"))
        self._close()
        self._end(ABNORMAL, within_s=LINGER_S)

    def _stop_pinging(self) -> None:
        if self._ping_timer is not None:
            self._ping_timer.cancel()
            self._ping_timer = None

    # ------------------------------------------------------------------------------------------------ the end

    def _fail(self, code: int, reason: str) -> None:
        """Close because of what the client sent, and read nothing more: one that floods doesn't stop for it."""
        if self._state == _OPEN:
            self.transport.write(write_close(code, reason))
        self._reader.forget()
        self._hold(0)
        self._pause(_OVER)
        # Not at once: a socket that is closed with bytes unread is reset, and the client may lose the close frame.
        self._end(code, within_s=LINGER_S)

    def _end(self, code: int, *, within_s: float = GONE_S) -> None:
        """It has come to its end: tell whom it concerns, and see to it that the socket follows."""
        self._state = _ENDING
        self.ready = False
        self._stop_pinging()
        if self._end_timer is None or within_s < GONE_S:
            if self._end_timer is not None:
                self._end_timer.cancel()
            # A transport that is closed waits for its client to take what was written, without end.
            self._end_timer = self._loop.call_later(within_s, self.transport.abort)
        if self._code is None:
            self._code = code
            self._wake()
            if self._over is not None and not self._over.done():
                self._over.set_result(code)
            if self._visitor is not None and self._rest is None:
                # Not now: whoever made it end may be in the middle of something.
                self._loop.call_soon(self._say_gone)

    def _close(self) -> None:
        # Once: under TLS, who closes twice gets a transport that can't do anything any more, not even be aborted.
        if not self.transport.is_closing():
            self.transport.close()

    def _say_gone(self) -> None:
        if self._rest is not None:
            # When that is done.
            return
        visitor, self._visitor = self._visitor, None
        if visitor is not None and self._code is not None:
            visitor.gone(self._code)

    def eof_received(self) -> None:
        """The client sends nothing more. Then the transport closes, as soon as it has taken what was written."""
        self._end(ABNORMAL)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._hold(0)
        self._peers.discard(self)
        self._end(ABNORMAL)
        for timer in (self._resume, self._end_timer):
            if timer is not None:
                timer.cancel()
        # Under TLS, asyncio's keeps methods of this one, and 256 KiB: each would keep the other until garbage is collected.
        self.transport = _nowhere
        self.write_wire = _nowhere.write
        # What it sent before it was let in may not have been read to its end.
        self._early = b""
        self._pause(_OVER)

    def shutdown(self) -> None:
        """The server ends."""
        if self._state == _OPEN:
            self.transport.write(write_close(1012, ""))
            self._end(1012)
        elif self._state == _ANSWERING:
            self._refuse(500, "")
        self._close()


class _Nowhere(asyncio.Transport):
    """Stands for the transport of a connection that is lost."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """There is nobody."""

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """It has closed."""
        return True

    def pause_reading(self) -> None:
        """Nothing comes."""

    def close(self) -> None:
        """It has."""

    def abort(self) -> None:
        """Nothing is left to be dropped."""


_nowhere = _Nowhere()


def _refusal(method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> tuple[int, str] | None:
    """Status and reason, if this is no request for a WebSocket that could be answered."""
    if method != b"GET":
        return 405, "a WebSocket begins with GET\n"
    if len(target) > TARGET_BYTES_MAX:
        return 414, "a target of so many bytes is refused\n"
    if len(headers) > HEADERS_MAX or any(len(name) + len(value) > HEADER_BYTES_MAX for name, value in headers):
        return 431, "so many or so large headers are refused\n"
    found = dict(headers)
    if found.get(b"sec-websocket-version") != b"13":
        return 426, "version 13 of the WebSocket protocol is spoken here\n"
    try:
        key = base64.b64decode(found.get(b"sec-websocket-key", b""), validate=True)
    except binascii.Error:
        key = b""
    return (400, "Sec-WebSocket-Key is missing, or isn't one\n") if len(key) != _KEY_BYTES else None
