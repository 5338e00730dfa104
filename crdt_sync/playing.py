"""Playing conformance scenarios against a server, through real WebSockets."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from auth import Right, mint, minting_key

from .errors import ProtocolError, SyncError
from .heard import IN_PASSING, Heard, Message, Mismatch, described, read_frame
from .lib0 import write_var_bytes
from .protocol import AUTH, AUTH_TOKEN
from .scenarios import LIFETIME_S, Connect, Expect, Forget, Leave, Quiet, Scenario, Send, Step, TokenFor

ROOMS: Final = "crdt-sync-conformance-"
"""What the names of all rooms begin with in which scenarios are played."""

_AT_ONCE: Final = 8
_CONNECT_S: Final = 10.0
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


class Unreachable(Exception):
    """Nobody who speaks WebSocket is there. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a scenario."""

    name: str
    title: str
    common: bool
    verdict: str
    """`passed`, `failed` or `skipped`."""
    found: str
    """What went wrong, or why it was skipped."""
    step: int | None
    """The number of the step at which it failed."""
    room: str
    took_s: float


class Badge:
    """What clients show to a server.

    Args:
        secret: What the server judges tokens with: one is made for each client.
        claims: What all of these have beside their own, such as `aud`; those that are None are left out.
        lifetime_max_s: For how long the server lets tokens be valid.
        token: One for all clients, if there is no secret.

    Raises:
        ValueError: The secret can't be one. The text says why.
    """

    def __init__(
        self,
        *,
        secret: str | None = None,
        claims: Mapping[str, str | None] | None = None,
        lifetime_max_s: float = 86400.0,
        token: str | None = None,
    ) -> None:
        self._key = None if secret is None else minting_key(secret=secret)
        self._claims = claims
        self._lifetime_max_s = lifetime_max_s
        self._token = token

    @property
    def can_mint(self) -> bool:
        """Whether tokens can be made."""
        return self._key is not None

    def show(self, token: TokenFor | str | None, client: str, room: str) -> str | None:
        """The token that a client shows."""
        if isinstance(token, str):
            return token or None
        if self._key is None:
            return self._token
        wanted = token or TokenFor(client, "write", LIFETIME_S)
        now, lifetime_s = int(time.time()), min(wanted.lifetime_s, int(self._lifetime_max_s))
        if lifetime_s < 0:  # it expired so long ago
            now, lifetime_s = now + lifetime_s - 1, 1
        about, right = (room, wanted.right) if wanted.right is not None else (f"{room}-another", "read")
        return mint(
            self._key,
            user=wanted.user,
            # What follows the name is for scenarios about names.
            rooms={f"{about}*": Right[right.upper()]},
            lifetime_s=lifetime_s,
            now=now,
            lifetime_max_s=self._lifetime_max_s,
            optional=self._claims,
        ).token


async def play(
    url: str, scenarios: Iterable[Scenario], badge: Badge, *, patience_s: float, tell: Callable[[Played], None]
) -> None:
    """Play scenarios, some at a time, each in a room of its own that nobody has used before.

    Args:
        url: `ws://host:port`, or `http://…`, with the path that the server is mounted at, if it is.
        scenarios: Which.
        badge: What clients show.
        patience_s: How long an answer may take.
        tell: Called with each that is done.

    Raises:
        Unreachable: Nobody answers.
    """
    base = f"ws{url.removeprefix('http')}" if url.startswith("http") else url
    base = base.rstrip("/")
    if urlsplit(base).scheme not in ("ws", "wss") or not urlsplit(base).hostname:
        raise Unreachable(f"{url} is no URL of a server; ws://127.0.0.1:1234 would be one, or https://sync.example.com")
    server = _Server(base, badge)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(scenario: Scenario) -> None:
        async with turns:
            tell(await _play_one(server, scenario, patience_s))

    try:
        async with asyncio.TaskGroup() as group:
            for scenario in scenarios:
                group.create_task(one(scenario))
    except* Unreachable as several:
        raise several.exceptions[0] from None


async def _play_one(server: "_Server", scenario: Scenario, patience_s: float) -> Played:
    room = ROOMS + secrets.token_hex(8)
    began = time.monotonic()
    failed_at: int | None = None
    verdict, found = "passed", ""
    if scenario.keys and not server.badge.can_mint:
        verdict, found = "skipped", "it makes tokens, and needs the secret of a server with keys: --secret"
    else:
        async with _Stage(server, room, patience_s) as stage:
            try:
                for number, step in enumerate(scenario.steps, 1):
                    failed_at = number
                    await stage.carry_out(step)
                failed_at = None
            except Mismatch as mismatch:
                verdict, found = "failed", str(mismatch)
    return Played(
        scenario.name,
        scenario.title,
        scenario.common,
        verdict,
        found,
        failed_at,
        room,
        round(time.monotonic() - began, 3),
    )


class _Server:
    """What scenarios are played against."""

    def __init__(self, base: str, badge: Badge) -> None:
        self.badge = badge
        self._base = base
        self._has_answered = False

    async def connect(self, path: str, token: str | None) -> ClientConnection:
        """Open a WebSocket.

        Raises:
            InvalidStatus: The server refuses it.
            Mismatch: It answers no more.
            Unreachable: It has never answered.
        """
        url = f"{self._base}/{path}"
        try:
            socket = await connect(
                url,
                additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
                open_timeout=_CONNECT_S,
                compression=None,
                max_size=None,
                ping_interval=None,
                proxy=None if urlsplit(url).hostname in _LOCAL else True,
            )
        except InvalidStatus:
            self._has_answered = True
            raise
        except (OSError, InvalidHandshake, InvalidURI) as error:
            why = str(error) or type(error).__name__
            if self._has_answered:
                raise Mismatch(f"the server answers no more: {why}") from None
            raise Unreachable(
                f"no WebSocket server answers at {self._base}: {why}. Is it running, and is the URL right?"
            ) from error
        self._has_answered = True
        return socket


class _Client:
    """One connection, and what came by it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.heard = Heard()
        self.socket = socket
        self.closed: tuple[int, str] | None = None
        self._changed = asyncio.Event()
        self._came: asyncio.Queue[Message | Mismatch | None] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def next(self, until: float) -> Message | None:
        """The next message; None if the connection has ended.

        Raises:
            TimeoutError: It doesn't come before `until`, by the loop's clock.
            Mismatch: What came can't be read.
        """
        async with asyncio.timeout_at(until):
            message = await self._came.get()
        if message is None:
            self._came.put_nowait(None)
        if isinstance(message, Mismatch):
            raise message
        return message

    async def wait(self, until: float) -> None:
        """Wait until something has come, and leave it for `next`.

        Raises:
            TimeoutError: Nothing comes before `until`, or ever.
        """
        self._changed.clear()
        if self.closed is not None:
            raise TimeoutError
        async with asyncio.timeout_at(until):
            await self._changed.wait()

    async def end(self, *, properly: bool) -> None:
        """Go."""
        if properly:
            await self.socket.close()
        else:
            self.socket.transport.abort()
        self._reader.cancel()
        await asyncio.wait([self._reader])

    async def _read(self) -> None:
        try:
            async for frame in self.socket:
                self._take(frame)
                self._changed.set()
        except ConnectionClosed:
            pass
        finally:
            self.closed = self.socket.close_code or 1006, self.socket.close_reason or ""
            self._came.put_nowait(None)
            self._changed.set()

    def _take(self, frame: str | bytes) -> None:
        if isinstance(frame, str):
            self._came.put_nowait(Mismatch(f"a text message came: {frame[:100]!r}"))
            return
        try:
            for message in read_frame(frame):
                self.heard.hear(message)
                self._came.put_nowait(message)
        except Mismatch as mismatch:
            self._came.put_nowait(mismatch)
        except ProtocolError as error:
            self._came.put_nowait(Mismatch(f"a message that can't be read came: {frame[:100].hex(' ')}: {error}"))


class _Stage:
    """One scenario that is being played."""

    def __init__(self, server: _Server, room: str, patience_s: float) -> None:
        self._server = server
        self._room = room
        self._patience_s = patience_s
        self._clients: dict[str, _Client] = {}

    async def __aenter__(self) -> "_Stage":
        return self

    async def __aexit__(self, *error: object) -> None:
        for client in self._clients.values():
            await client.end(properly=False)

    async def carry_out(self, step: Step) -> None:
        """Do what a step says.

        Raises:
            Mismatch: What comes of it isn't what was expected.
            Unreachable: Nobody answers.
        """
        match step:
            case Connect():
                await self._connect(step)
            case Send(client, what):
                await self._send(client, what)
            case Expect(client):
                await self._expect(self._clients[client], step)
            case Quiet(client, for_ms):
                await self._be_quiet(self._clients[client], client, for_ms)
            case Leave(client, properly):
                await self._clients.pop(client).end(properly=properly)
            case Forget(client):
                self._clients[client].heard.forget()

    async def _connect(self, step: Connect) -> None:
        token = self._server.badge.show(step.token, step.client, self._room)
        try:
            socket = await self._server.connect(step.path.replace("{room}", self._room), token)
        except InvalidStatus as error:
            status = error.response.status_code
            if status == step.refused:
                return
            advice = " (it wants a token: --secret, or --token)" if status == 401 and step.refused is None else ""
            raise Mismatch(f"the upgrade of {step.client!r} was answered with {status}{advice}") from None
        self._clients[step.client] = _Client(socket)
        if step.refused is not None:
            raise Mismatch(f"{step.client!r} was let in, not refused with {step.refused}")

    async def _send(self, name: str, what: bytes | str | TokenFor) -> None:
        client = self._clients[name]
        if isinstance(what, TokenFor):
            token = self._server.badge.show(what, name, self._room) or ""
            what = bytes([AUTH, AUTH_TOKEN]) + write_var_bytes(token.encode())
        if isinstance(what, bytes):
            client.heard.send(what)
        with contextlib.suppress(ConnectionClosed):  # whoever expects an answer will see
            await client.socket.send(what)

    async def _expect(self, client: _Client, step: Expect) -> None:
        until = asyncio.get_running_loop().time() + (
            self._patience_s if step.within_ms is None else step.within_ms / 1000
        )
        wanted = f"{step.client!r} expected {step.kind.replace('_', ' ')}"
        if step.kind == "closed":
            wanted += f" with {step.what}"
        try:
            while not client.heard.satisfied(step):
                if step.kind == "awareness":
                    await client.wait(until)
                    continue
                message = await client.next(until)
                if message is None:
                    _require_closed(client, step)
                    return
                if not client.heard.is_in_passing(message, step) and client.heard.matches(message, step):
                    return
        except TimeoutError:
            told = client.heard.told(step)
            raise Mismatch(f"{wanted}, and it didn't come{': ' if told else ''}{told}") from None
        except (Mismatch, SyncError) as error:
            raise Mismatch(f"{wanted}; {error}") from None

    async def _be_quiet(self, client: _Client, name: str, for_ms: int) -> None:
        until = asyncio.get_running_loop().time() + for_ms / 1000
        with contextlib.suppress(TimeoutError):
            while (message := await client.next(until)) is not None:
                if message.kind not in IN_PASSING:
                    raise Mismatch(f"{name!r} was to be sent nothing; {described(message)} came")
            raise Mismatch(f"{name!r} was to be sent nothing; {_how_closed(client)}")


def _require_closed(client: _Client, step: Expect) -> None:
    if step.kind != "closed" or client.closed is None or client.closed[0] != step.what:
        raise Mismatch(_how_closed(client))


def _how_closed(client: _Client) -> str:
    code, reason = client.closed or (1006, "")
    return f"the connection was closed with {code}{f' ({reason})' if reason else ''}"
