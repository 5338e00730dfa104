"""uvicorn's WebSocket protocol, with what the gateway needs to know beyond ASGI, and bounds on what a client may send.

Owns how much is read of one socket, and when. A client can make the server work by many small frames, or hold memory by
large ones that never end, long before the application sees a message. So everything that comes is counted here:

- It is read in small pieces, since a piece is parsed in one turn of the event loop, and other clients wait that long.
- Who is over its rate (`limits.Intake`) isn't read for a while; who goes on, is closed with 4429.
- A message has a bound on its fragments, and what all clients hold of unfinished messages has one together.
- A pong isn't sent to who doesn't read.
- When the application is done with a connection, it is gone a few seconds later, whatever the client does.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.protocol import State

from .connection import Relayed
from .errors import Flooding, MessageTooBig, Overloaded, SyncError
from .gateway.sync import TRANSPORT_EXTENSION
from .limits import FRAGMENTS_MAX, Intake, Limits

# A piece of this size that consists of nothing but empty frames takes some 4 ms to parse.
READ_BYTES = 2048
# Shared by all connections: what was read is copied out of it before anything else is.
_buffer = bytearray(READ_BYTES)
# Who has this much of ours waiting gets no pongs.
PONG_BUFFER_BYTES_MAX = 64 << 10
# How long a client that was closed for what it sent may take to read why.
LINGER_S = 3.0
# How long any client may take to read what was on its way to it, once the application is done with it.
GONE_S = 5.0


class WebSocketProtocol(WebSocketsSansIOProtocol, asyncio.BufferedProtocol):
    """One WebSocket. Also tells a lost connection (1006) from one closed without a code (1005).

    Args:
        config: uvicorn's.
        server_state: uvicorn's.
        app_state: uvicorn's.
        limits: This node's.
    """

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], *, limits: Limits) -> None:
        super().__init__(config, server_state, app_state)
        self._limits = limits
        self._intake = Intake(limits.settings, now=self.loop.time())
        self._resume: asyncio.TimerHandle | None = None
        self._ended = False
        self._partial_bytes = 0
        self._gone: asyncio.TimerHandle | None = None

    async def run_asgi(self) -> None:
        self.scope["extensions"][TRANSPORT_EXTENSION] = {"transport": self.transport, "writer": self}
        try:
            await super().run_asgi()
        finally:
            if not self.disconnected:
                # A transport that is closed waits for its client to take what was written, without end.
                self._gone = self.loop.call_later(GONE_S, self.transport.abort)

    async def send(self, message: ASGISendEvent) -> None:
        if not self.handshake_complete and self.conn.eof_sent:
            # A server that shuts down has answered the upgrade itself, while we were about to.
            raise ClientDisconnected
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            # uvicorn 0.54 forgets to, and then logs every refused upgrade as an error.
            self.handshake_complete = True

    async def receive(self) -> ASGIReceiveEvent:
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            if self._resume is None and not self._ended:
                self.transport.resume_reading()
        return message

    def ready(self) -> bool:
        """Whether frames may be written past ASGI: the WebSocket is open, and its client reads."""
        return (
            self.writable.is_set()
            and self.handshake_complete
            and not self.close_sent
            and self.conn.state is State.OPEN
            and not self.transport.is_closing()
        )

    def write_frames(self, frames: Sequence[bytes]) -> None:
        """Write binary frames in one go."""
        self.transport.write(b"".join([_on_the_wire(frame) for frame in frames]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.handshake_complete and self.conn.close_rcvd is None:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006, "reason": ""})
        self._hold(0)
        for timer in (self._resume, self._gone):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport puts what it reads."""
        # Of TLS, it reads into slices: those of a bytearray would be copies.
        return memoryview(_buffer)

    def buffer_updated(self, nbytes: int) -> None:
        """The transport has read something."""
        self.data_received(bytes(memoryview(_buffer)[:nbytes]))

    def data_received(self, data: bytes) -> None:
        self.conn.receive_data(data)
        frames = len(self.conn.events)
        if self.conn.handshake_exc is not None:
            # A head that h11 takes and websockets doesn't: a line of more than 8 KiB, more than 128 headers.
            self._limits.note("malformed_request", self.client)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
            return
        if self.conn.parser_exc is not None:
            self.handle_parser_exception()
            return
        self.handle_events()
        # What is collected: fragments here, the beginning of a frame there.
        self._hold(len(self.conn.reader.buffer) + (self.conn.current_size or 0))
        try:
            self._bound()
            wait_s = self._intake.take(frames=frames, size=len(data), now=self.loop.time())
        except Flooding as error:
            self._limits.note("flooding", self.client)
            self._fail(error)
            return
        except SyncError as error:
            self._fail(error)
            return
        if wait_s:
            self._slow(wait_s)

    def handle_ping(self) -> None:
        if self.transport.get_write_buffer_size() <= PONG_BUFFER_BYTES_MAX:
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        # What was written is waited for, and whoever answers no ping may read nothing either.
        self.loop.call_later(LINGER_S, self.transport.abort)

    def handle_parser_exception(self) -> None:
        closed = self.conn.close_sent
        if closed is None:
            # It hasn't been let in yet, and has sent what is no frame.
            self.transport.abort()
        else:
            self._end(closed.code, closed.reason)

    def _slow(self, wait_s: float) -> None:
        self._limits.note("slowed", self.client)
        self.transport.pause_reading()
        if self._resume is not None:
            self._resume.cancel()
        self._resume = self.loop.call_later(wait_s, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        # Unless the application has yet to take what came.
        if not self.read_paused and not self._ended:
            self.transport.resume_reading()

    def _bound(self) -> None:
        if len(self.frames) > FRAGMENTS_MAX:
            self._limits.note("fragments", self.client)
            raise MessageTooBig(f"more than {FRAGMENTS_MAX} fragments")
        if self._limits.partial_bytes > self._limits.settings.partial_bytes_max:
            self._limits.note("partial_bytes", self.client)
            largest = max(self.connections, key=lambda each: getattr(each, "_partial_bytes", 0))
            assert isinstance(largest, WebSocketProtocol), "it holds something"
            if largest is self:
                raise Overloaded("too many unfinished messages")
            largest._fail(Overloaded("too many unfinished messages"))

    def _hold(self, size: int) -> None:
        """Say how many bytes this connection holds of an unfinished message."""
        self._limits.partial_bytes += size - self._partial_bytes
        self._partial_bytes = size

    def _fail(self, error: SyncError) -> None:
        """Close because of what the client sent."""
        if not self.handshake_complete:
            self.transport.abort()
            return
        if not self.close_sent:
            self.conn.send_close(error.close_code, error.reason)
        self._end(error.close_code, error.reason)

    def _end(self, code: int, reason: str) -> None:
        """Send the close frame that is ready, and read nothing more: a client that floods doesn't stop for it."""
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.stop_keepalive()
        self._hold(0)
        self.frames = []
        self.conn.reader.buffer.clear()
        self._ended = True
        self.transport.pause_reading()
        # Not at once: a socket that is closed with bytes unread is reset, and the client may lose the close frame.
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.abort)


def _on_the_wire(frame: bytes) -> bytes:
    """A binary message as a server sends it (RFC 6455, 5.2): in one frame, unmasked. Of what goes to many, made once."""
    if type(frame) is not Relayed:
        return _header(len(frame)) + frame
    if frame.wire is None:
        frame.wire = _header(len(frame)) + frame
    return frame.wire


def _header(size: int) -> bytes:
    if size < 126:
        return bytes((0x82, size))
    return b"\x82\x7e" + size.to_bytes(2) if size < 1 << 16 else b"\x82\x7f" + size.to_bytes(8)
