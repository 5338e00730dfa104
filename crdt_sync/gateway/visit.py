"""One client in its room, from when it is let in until it is gone: frames to the room, the room's errors to closing codes.

Knows nothing of how frames come and go: by ASGI, or without (`transport`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from auth import Credentials

from .. import tracing
from ..connection import Connection, Flush, Transport
from ..errors import MessageTooBig, SyncError
from ..frames import ABNORMAL
from ..limits import Place
from ..logs import connection_id
from ..protocol import encode_denied, is_sync
from ..rooms import Held
from ..session import Session, ignore_token
from .parts import Parts

log = logging.getLogger("crdt_sync.sync")

# What a client sends when it means to go. After anything else but `FINAL_CODES` it comes back, and its user gets the longer
# grace.
GOODBYE_CODES = frozenset({1000, 1001, 1005})
# What a client is closed with that would meet the same again.
FINAL_CODES = frozenset({MessageTooBig.close_code, *range(4400, 4500)})


class Visit:
    """A client that was let in.

    Args:
        parts: The server's.
        held: Its room.
        place: Where it is counted.
        session: What it may do.
        link: The traceparent that it connected with.
        address: Where it comes from.
        finished: Called with the code, when it is gone.
    """

    __slots__ = (
        "_address",
        "_connection",
        "_finished",
        "_held",
        "_joined_at",
        "_link",
        "_loop",
        "_number",
        "_parts",
        "_place",
        "_renewal",
        "_room",
        "_session",
    )

    def __init__(
        self,
        parts: Parts,
        held: Held,
        place: Place,
        session: Session,
        *,
        link: str | None,
        address: str,
        finished: Callable[[int], None],
    ) -> None:
        self._parts = parts
        self._held = held
        self._room = held.room
        self._place = place
        self._session = session
        self._link = link
        self._address = address
        self._finished = finished
        self._number = connection_id.get()
        self._loop = asyncio.get_running_loop()
        self._joined_at = self._loop.time()
        self._renewal: Renewal | None = None
        self._connection: Connection

    def begin(self, transport: Transport, flush: Flush, credentials: Credentials) -> None:
        """It is connected: let it into the room.

        Args:
            transport: Where frames for it go.
            flush: The server's.
            credentials: What it has shown.
        """
        parts, room = self._parts, self._room
        connection = self._connection = Connection(
            transport,
            outbox_bytes_max=parts.limits.settings.outbox_bytes_max,
            now=self._joined_at,
            session=self._session,
            metrics=parts.metrics,
            number=self._number,
            flush=flush,
        )
        if not parts.access.is_open:
            self._renewal = Renewal(parts, connection, credentials)
        connection.start(room.catch_up)
        try:
            room.join(connection)
            parts.sessions.enter(connection, room, address=self._address)
        except BaseException:
            self.gone(ABNORMAL)
            raise
        parts.metrics.connections_opened += 1
        log.info(
            "connection_opened", extra={"room": room.name, "connection": connection.id, "user": self._session.user}
        )

    def receive(self, frame: bytes) -> Awaitable[None] | None:
        """Give the room what the client says. Await what is returned, if anything is, before the next."""
        connection, room, parts = self._connection, self._room, self._parts
        connection.received_at = self._loop.time()
        if connection.closing:
            return None
        connection.frames_in += 1
        connection.bytes_in += len(frame)
        token = connection_id.set(connection.id)
        rest: Awaitable[None] | None = None
        try:
            tracer = parts.tracer
            span = tracer.sample("receive", link=self._link) if tracer is not None and is_sync(frame) else None
            rest = room.receive(connection, frame) if span is None else self._receive_traced(span, frame)
        except Exception as error:
            self._fail(error)
        finally:
            connection_id.reset(token)
        pause_s = parts.load.pause_s(room.name, size=len(frame), receivers=len(room.connections))
        return None if rest is None and not pause_s else self._finish(rest, pause_s)

    def gone(self, code: int) -> None:
        """The client is gone; `code` says how."""
        parts, room, connection = self._parts, self._room, self._connection
        parts.sessions.leave(connection)
        if self._renewal is not None:
            self._renewal.close()
        code = connection.closing[0] if connection.closing else code
        room.leave(connection, properly=code in GOODBYE_CODES or code in FINAL_CODES)
        connection.stop()
        self.leave()
        parts.metrics.note_close(code)
        log.info(
            "connection_closed",
            extra={
                "room": room.name,
                "connection": connection.id,
                "code": code,
                "after_s": round(self._loop.time() - self._joined_at, 3),
                "frames_in": connection.frames_in,
                "bytes_in": connection.bytes_in,
            },
        )
        self._finished(code)

    def leave(self) -> None:
        """Give back what it took of the server's."""
        self._held.leave()
        self._place.leave()

    async def _receive_traced(self, span: tracing.Span, frame: bytes) -> None:
        span.describe(room=self._room.name, connection=self._connection.id, frame_bytes=len(frame))
        with tracing.within(span):
            rest = self._room.receive(self._connection, frame)
            if rest is not None:
                await rest

    async def _finish(self, rest: Awaitable[None] | None, pause_s: float) -> None:
        connection_id.set(self._number)
        try:
            if rest is not None:
                await rest
        except Exception as error:
            self._fail(error)
        if pause_s:
            await asyncio.sleep(pause_s)

    def _fail(self, error: Exception) -> None:
        """Close the client because of what it said, or because of a bug."""
        about = {"room": self._room.name, "connection": self._connection.id}
        if not isinstance(error, SyncError):
            log.error("message_failed", extra=about, exc_info=error)
            error = SyncError()
        else:
            log.warning("connection_refused_message", extra={**about, "code": error.close_code, "error": str(error)})
        self._connection.close(error.close_code, error.reason)


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
