"""A client that knows what is saved: keeps a `pycrdt.Doc` in step with a room of a server, and says when its edits are stored.

    async with crdt_sync.client.connect("ws://127.0.0.1:1234", "trip-1", doc) as room:
        doc.get("title", type=Text).insert(0, "Rome")
        await room.saved()

Stands beside the server and shares nothing with it but the protocol. It doesn't use pycrdt's `Provider`, which sends what
others have written back to the server, and can't say what it has sent already: here everything goes through one queue, so
that a question what is stored can't overtake an edit.

It is edited in the thread of its event loop, as every `pycrdt.Doc` is.
"""

import asyncio
import contextlib
import inspect
import random
import secrets
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import quote, urlsplit

import pycrdt
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from .lib0 import read_var_bytes, read_var_uint
from .protocol import (
    AUTH,
    AUTH_DENIED,
    AUTH_EXPIRES,
    CONFIRM,
    SYNC,
    SYNC_STEP_1,
    SYNC_STEP_2,
    encode_confirm,
    encode_step_1,
    encode_step_2,
    encode_token,
    encode_update,
)

__all__ = ["ClientError", "Closed", "NotSaved", "Room", "connect"]

Token = Callable[[], str | Awaitable[str]]

# The first attempt to come back is after 0.1 to 1 s; the second number doubles with each, up to the third. Clients that
# waited for equally long would all be back at once.
_BACKOFF_S: Final = (0.1, 1.0, 10.0)
# The server says so long before a grant ends that it will.
_RENEW_S: Final = 60
# A server that can store answers within a second.
_ANSWER_S: Final = 10.0
# Whoever leaves has been told what is stored; the server notices either way.
_CLOSE_S: Final = 1.0
_MESSAGE_TOO_BIG: Final = 1009
_EXPIRED: Final = 4401
_EMPTY: Final = b"\0\0"


class ClientError(Exception):
    """Base of what a `Room` raises."""


class Closed(ClientError):
    """The server doesn't want this connection, and wouldn't another one: something has to change first."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed by the server with {code}: {reason or 'no reason given'}")
        self.code = code
        """The closing code, or the HTTP status that the upgrade was refused with. docs/reference/closing-codes.md says what to do."""
        self.reason = reason


class NotSaved(ClientError):
    """The block was left, and not everything was confirmed as stored in time. What was sent may be stored all the same."""

    def __init__(self, unsaved: int, timeout_s: float) -> None:
        super().__init__(
            f"{unsaved} edits were not confirmed within {timeout_s:g} s: is it a server that confirms, and can it store?"
        )
        self.unsaved = unsaved


class _NoToken(ClientError):
    """There is none to be had just now."""


def connect(
    url: str,
    room: str,
    doc: "pycrdt.Doc[Any]",
    *,
    token: str | Token | None = None,
    on_change: "Callable[[Room], None] | None" = None,
    timeout_s: float = 30,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> "Room":
    """Keep a document in step with a room, for as long as the block lasts.

    Entering waits until the document has what the server has. Leaving waits until the server has stored what the document
    has; not after an exception.

    Args:
        url: `ws://host:port` or `wss://host`, with the path that the server is mounted at, if it is.
        room: The room's name, not encoded.
        doc: May hold something already, which is sent.
        token: Shown to the server; or a function that gives a fresh one, asked for each connection, and before a grant ends.
        on_change: Called when `state`, `unsaved`, `last_saved_at` or `closed` has changed.
        timeout_s: How long entering, and leaving, may take.
        headers: More headers of the upgrade.
        tls: For `wss:`, whom to trust, if not the authorities that Python trusts.

    Raises:
        ValueError: It is no such URL, or no name.
        Closed: On entering or leaving: the server refuses.
        TimeoutError: On entering: it can't be reached, or doesn't answer.
        NotSaved: On leaving.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a server: ws://127.0.0.1:1234 would be one")
    if not room:
        raise ValueError("a room has a name")
    return Room(f"{url.rstrip('/')}/{quote(room)}", doc, token, on_change, timeout_s, dict(headers or {}), tls)


@dataclass(slots=True)
class _Asked:
    """A question what is stored, that is under way."""

    token: bytes
    changes: int
    edits: int
    timer: asyncio.TimerHandle


class Room:
    """What `connect` gives: a document's connection to its room, which comes back by itself when it is lost."""

    def __init__(
        self,
        address: str,
        doc: "pycrdt.Doc[Any]",
        token: str | Token | None,
        on_change: "Callable[[Room], None] | None",
        timeout_s: float,
        headers: dict[str, str],
        tls: ssl.SSLContext | None,
    ) -> None:
        self.last_saved_at: datetime | None = None
        """When the server last confirmed something."""
        self.supported: bool | None = None
        """Whether the server confirms; None until it has, False if it hasn't within 10 s: then nothing is ever called saved."""
        self.closed: Exception | None = None
        """Why it doesn't come back any more."""
        self.denied: str | None = None
        """Why the last fresh token wasn't taken, or that edits are not."""
        self._address = address
        self._doc = doc
        self._token = token
        self._on_change = on_change
        self._timeout_s = timeout_s
        self._headers = headers
        self._tls = tls
        # Counted up with all that has to be stored; what is stored is what it was when the server was asked.
        self._changes = 1  # what the document holds already
        self._changes_stored = 0
        self._edits = 0  # those that were made here
        self._edits_stored = 0
        self._receiving = False
        # Of the connection that there is.
        self._connected = False
        self._complete = False  # The server has said what it has, and what it lacks is before everything else.
        self._outbox: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._asked: _Asked | None = None
        self._renewal: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._renewed = False
        self._synced = asyncio.Event()
        self._turn = asyncio.Event()
        self._telling = False
        self._task: asyncio.Task[None] | None = None
        self._subscription: pycrdt.Subscription | None = None

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("enter it once: connect() makes another one")
        self._subscription = self._doc.observe(self._note)
        self._task = asyncio.create_task(self._stay(), name=f"room {self._address}")
        self._task.add_done_callback(lambda _: self._turn.set())
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._until(self._synced.is_set)
        except TimeoutError as error:
            await self._leave()
            why = f": {self.denied}" if self.denied else ""
            raise TimeoutError(f"{self._address} did not answer within {self._timeout_s:g} s{why}") from error
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self.saved(timeout_s=self._timeout_s)
        except TimeoutError:
            raise NotSaved(self.unsaved, self._timeout_s) from None
        finally:
            await self._leave()

    @property
    def unsaved(self) -> int:
        """How many edits (transactions) were made here and aren't known to be stored."""
        return self._edits - self._edits_stored

    @property
    def state(self) -> Literal["saved", "saving", "offline"]:
        """`saved`: all that the document holds is stored. `saving`: something isn't yet, or nobody knows. `offline`: not connected."""
        if not self._connected:
            return "offline"
        return "saved" if self._complete and self._changes_stored == self._changes else "saving"

    async def saved(self, *, timeout_s: float | None = None) -> None:
        """Wait until everything that the document holds now is stored.

        Raises:
            Closed: It never will be, since the server has closed the connection for good.
            TimeoutError: That takes longer than `timeout_s`; by default it may take for ever.
        """
        changes = self._changes
        async with asyncio.timeout(timeout_s):
            await self._until(lambda: self._changes_stored >= changes)

    # --------------------------------------------------------------------------------------------- connections

    async def _stay(self) -> None:
        """Connect, and come back, until the server says for good that it won't have it."""
        failed = 0
        try:
            while True:
                try:
                    async with open_websocket(
                        self._address,
                        additional_headers=await self._credential(),
                        compression=None,
                        max_size=None,
                        close_timeout=_CLOSE_S,
                        ssl=self._tls,
                    ) as socket:
                        try:
                            await self._converse(socket)
                        finally:
                            failed = 0 if self._complete else failed + 1
                            self._lost()
                except InvalidStatus as error:
                    failed += 1
                    response = error.response
                    if response.status_code < 500 and response.status_code not in (408, 425, 429):
                        raise Closed(
                            response.status_code, (response.body or b"").decode(errors="replace").strip()
                        ) from error
                except ConnectionClosed as error:
                    self._judge(error)
                except (OSError, TimeoutError, InvalidHandshake, _NoToken):
                    failed += 1
                least_s, most_s, longest_s = _BACKOFF_S
                await asyncio.sleep(random.uniform(least_s, min(most_s * 2 ** min(failed, 10), longest_s)))
        except Exception as error:
            self.closed = error
            self._tell()

    def _judge(self, error: ConnectionClosed) -> None:
        """Whether to come back after this.

        Raises:
            Closed: No.
        """
        if error.rcvd is None:
            return
        code = error.rcvd.code
        if code == _EXPIRED and callable(self._token):
            return
        if code == _MESSAGE_TOO_BIG or 4400 <= code < 4500:
            raise Closed(code, error.rcvd.reason) from error

    async def _converse(self, socket: ClientConnection) -> None:
        """Have one connection, until it is lost."""
        self._outbox = deque([encode_step_1(self._doc.get_state())])
        self._connected = True
        # The server may have been set back since it last confirmed. What it lacks is sent again, and has to be stored.
        self._changes += 1
        self._tell()
        sender = asyncio.create_task(self._send(socket))
        try:
            while True:
                frame = await socket.recv()
                if isinstance(frame, bytes):
                    self._receive(frame)
        finally:
            sender.cancel()
            await asyncio.wait([sender])

    def _lost(self) -> None:
        self._connected = self._complete = self._renewed = False
        self._outbox.clear()
        if self._asked is not None:
            self._asked.timer.cancel()
            self._asked = None
        if self._renewal is not None:
            self._renewal.cancel()
        if self._renewing is not None:
            self._renewing.cancel()
        self._tell()

    async def _send(self, socket: ClientConnection) -> None:
        self._wake.set()
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._outbox:
                    await socket.send(self._outbox.popleft())
                if self._complete and self._asked is None and self._changes_stored < self._changes:
                    token = secrets.token_bytes(8)
                    timer = asyncio.get_running_loop().call_later(_ANSWER_S, self._unanswered)
                    self._asked = _Asked(token, self._changes, self._edits, timer)
                    await socket.send(encode_confirm(token))

    async def _leave(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._subscription is not None:
            self._doc.unobserve(self._subscription)
            self._subscription = None

    # --------------------------------------------------------------------------------------------- what happens

    def _note(self, event: pycrdt.TransactionEvent) -> None:
        """The document has changed."""
        if self._receiving or event.update == _EMPTY:
            return
        self._changes += 1
        self._edits += 1
        if self._connected:
            self._outbox.append(encode_update(event.update))
            self._wake.set()
        self._tell()

    def _receive(self, frame: bytes) -> None:
        kind, pos = read_var_uint(frame, 0)
        if kind == SYNC:
            step, pos = read_var_uint(frame, pos)
            payload, _ = read_var_bytes(frame, pos)
            if step == SYNC_STEP_1:
                self._outbox.append(encode_step_2(self._doc.get_update(payload)))
                self._complete = True
                self._wake.set()
                return
            self._apply(payload)
            if step == SYNC_STEP_2:
                self._synced.set()
                self._tell()
        elif kind == CONFIRM:
            token, _ = read_var_bytes(frame, pos)
            self._confirmed(token)
        elif kind == AUTH:
            step, pos = read_var_uint(frame, pos)
            if step == AUTH_DENIED:
                self._renewed = False
                self.denied = read_var_bytes(frame, pos)[0].decode(errors="replace")
                self._tell()
            elif step == AUTH_EXPIRES:
                self._expires(read_var_uint(frame, pos)[0])

    def _apply(self, update: bytes) -> None:
        if update == _EMPTY:
            return
        self._receiving = True
        try:
            self._doc.apply_update(update)
        finally:
            self._receiving = False

    def _confirmed(self, token: bytes) -> None:
        asked = self._asked
        if asked is None or asked.token != token:
            return
        asked.timer.cancel()
        self._asked = None
        self.supported = True
        self.last_saved_at = datetime.now(UTC)
        self._changes_stored, self._edits_stored = asked.changes, asked.edits
        self._wake.set()
        self._tell()

    def _unanswered(self) -> None:
        # It may have trouble storing, and will answer then. But if it never did, it may be one that can't.
        if self.supported is None:
            self.supported = False
            self._tell()

    def _tell(self) -> None:
        self._turn.set()
        if self._on_change is not None and not self._telling:
            # Not now: the document may be in the middle of a transaction. And once, however many edits there are.
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell_now, self._on_change)

    def _tell_now(self, on_change: "Callable[[Room], None]") -> None:
        self._telling = False
        on_change(self)

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            if self.closed is not None:
                raise self.closed
            if self._task is None:
                raise ClientError("it was never entered: use `async with`")
            if self._task.done():
                # Native code may have panicked, which is no `Exception`.
                error = None if self._task.cancelled() else self._task.exception()
                raise ClientError(f"it has failed: {error}" if error else "it was left") from error
            # Whoever waits shares the event, and looks again before waiting anew.
            self._turn.clear()
            await self._turn.wait()

    # --------------------------------------------------------------------------------------------- tokens

    async def _credential(self) -> dict[str, str]:
        token = await self._fresh_token()
        return self._headers if token is None else self._headers | {"Authorization": f"Bearer {token}"}

    async def _fresh_token(self) -> str | None:
        if not callable(self._token):
            return self._token
        try:
            token = self._token()
            return await token if inspect.isawaitable(token) else token
        except Exception as error:
            # What gives tokens may be back later, as a server may.
            self.denied = f"no fresh token: {error or type(error).__name__}"
            self._tell()
            raise _NoToken from error

    def _expires(self, seconds: int) -> None:
        """The grant ends in so many seconds; said shortly before, and in answer to each fresh token."""
        answered, self._renewed = self._renewed, False
        if seconds > _RENEW_S or not callable(self._token):
            return
        # A token that isn't good for long is followed by the next when half of that is over.
        wait_s = max(1.0, seconds / 2) if answered else 0.0
        self._renewal = asyncio.get_running_loop().call_later(wait_s, self._start_renewal)

    def _start_renewal(self) -> None:
        self._renewing = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        with contextlib.suppress(_NoToken):
            token = await self._fresh_token()
            if token is not None and self._connected:
                self._renewed = True
                self._outbox.append(encode_token(token))
                self._wake.set()
