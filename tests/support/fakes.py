"""What stands in for the outside of a room: a socket, a store with moods, a client, and time.

`VirtualLoop` makes time an actor: when nothing is left to do but wait, the clock jumps to the next timer, so tests of
intervals and timeouts take no time, and a test that waits for something that can't happen fails at once.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any, ParamSpec, TypeVar

import pycrdt

from crdt_sync.awareness import ClientState, read_states, write_states
from crdt_sync.bus.memory import MemoryBus
from crdt_sync.connection import Connection, Flush, TransportClosed
from crdt_sync.document import Document
from crdt_sync.errors import SyncError
from crdt_sync.journal import Journal
from crdt_sync.lib0 import read_var_bytes, read_var_uint, write_var_bytes, write_var_uint
from crdt_sync.metrics import Metrics
from crdt_sync.protocol import (
    AWARENESS,
    CONFIRM,
    SYNC,
    SYNC_STEP_1,
    encode_awareness,
    encode_step_1,
    encode_step_2,
    encode_update,
)
from crdt_sync.room import Room
from crdt_sync.rooms import Rooms
from crdt_sync.settings import Settings
from persistence import (
    ArchivedVersion,
    DocumentHead,
    DocumentStats,
    Entry,
    Export,
    Facts,
    Quarantined,
    Revocation,
    RevocationKind,
    Row,
    Schema,
    Snapshot,
    Span,
    Store,
    Stored,
    StoreUnavailable,
    Version,
    VersionContent,
    VersionKind,
    open_store,
)
from persistence.memory import MemoryStore

P = ParamSpec("P")
T = TypeVar("T")

# ---------------------------------------------------------------------------------------------------------- time


class NothingLeftToWaitFor(AssertionError):
    """Every task waits and no timer is set: the test would hang."""


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise NothingLeftToWaitFor
        self.now += max(timeout, 0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps. For code without threads, sockets and processes."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in virtual time. Like `asyncio.run`, it ends what is left over; an unhandled error fails it."""
    unhandled: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(lambda _, context: unhandled.append(context))
        result = runner.run(main)
    for context in unhandled:
        raise AssertionError(f"unhandled in the loop: {context}") from context.get("exception")
    return result


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make an async test run in virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_virtually(test(*args, **kwargs))

    return run


async def turns(count: int = 20) -> None:
    """Let everything that is ready run, without time passing."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait for a condition that other tasks bring about; in virtual time this costs nothing."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not condition():
        assert loop.time() < deadline, f"not within {timeout_s} s"
        await asyncio.sleep(0.01)


# ---------------------------------------------------------------------------------------------------------- socket


def frames_of(wire: bytes) -> Iterator[bytes]:
    """The binary frames that a server wrote."""
    while wire:
        assert wire[0] == 0x82, wire[:2]
        size, start = wire[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(wire[2:start])
        yield wire[start : start + size]
        wire = wire[start + size :]


class FakeTransport:
    """A socket that keeps what it is sent, and blocks, resumes or breaks when told.

    Args:
        window: How many frames it takes before it blocks; None for any number.
        short: Whether it has the short way, as sockets under our own server have, and no others; None for `usual`.

    Attributes:
        on_frame: Called after each frame.
    """

    usual = True
    """Whether those that aren't told have the short way."""

    def __init__(self, *, window: int | None = None, short: bool | None = None) -> None:
        self._short = self.usual if short is None else short
        self.frames: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.aborted = False
        self.buffered = 0
        self.broken = False
        self.window = window
        self.on_frame: Callable[[], object] = lambda: None
        self._moved = asyncio.Event()
        self._lost = False

    def block(self) -> None:
        """Take no more frames. The next `send` waits."""
        self.window = 0

    def resume(self, window: int | None = None) -> None:
        """Take `window` more frames, or any number."""
        self.window = window
        self._moved.set()

    def lose(self) -> None:
        """The other side is gone: what waits in `send` fails."""
        self._lost = True
        self._moved.set()

    def take(self) -> list[bytes]:
        """Return and forget the frames that were sent."""
        frames, self.frames = self.frames, []
        return frames

    async def send(self, frame: bytes) -> None:
        """See `Transport.send`."""
        await self._get_through()
        assert self.closed is None, "sent after close"
        self.frames.append(frame)
        self.on_frame()

    @property
    def ready(self) -> bool:
        """See `Transport.ready`."""
        return self._short and not self._lost and self.window != 0 and self.closed is None

    def write_wire(self, wire: bytes) -> None:
        """See `Transport.write_wire`. It may be more than the window, of which nothing is left then."""
        assert self.ready, "that was asked before"
        frames = list(frames_of(wire))
        if self.window is not None:
            self.window = max(0, self.window - len(frames))
        for frame in frames:
            self.frames.append(frame)
            self.on_frame()

    async def close(self, code: int, reason: str) -> None:
        """See `Transport.close`."""
        await self._get_through()
        assert self.closed is None, "closed twice"
        self.closed = (code, reason)

    def abort(self) -> None:
        """See `Transport.abort`."""
        self.aborted = True
        self.lose()

    def is_closing(self) -> bool:
        """See `Transport.is_closing`."""
        return self.broken

    def buffered_bytes(self) -> int:
        """See `Transport.buffered_bytes`."""
        return self.buffered

    async def _get_through(self) -> None:
        while True:
            if self._lost:
                raise TransportClosed
            if self.window is None:
                return
            if self.window:
                self.window -= 1
                return
            self._moved.clear()
            await self._moved.wait()


# ---------------------------------------------------------------------------------------------------------- store


class MoodyStore:
    """A store in front of a real one that fails, hangs or forgets to answer when told.

    Attributes:
        failing: Method name to the error that every call of it raises, before anything happens.
        calls: How often each method was called, failures included.
        appended: The entries of every append that the real store committed.
        answers_after_s: Method name to how long it takes to answer once it has done its work.
        busy_elsewhere: Documents that another node is about to store a snapshot of.
    """

    shared = True

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.failing: dict[str, Exception] = {}
        self.calls: Counter[str] = Counter()
        self.appended: list[list[Entry]] = []
        self.checkpointed: list[list[Snapshot]] = []
        self.answers_after_s: dict[str, float] = {}
        self.busy_elsewhere: set[str] = set()
        self._fail_once: dict[str, deque[Exception]] = {}
        self._lose_answer: Counter[str] = Counter()
        self._held: dict[str, asyncio.Event] = {}

    def fail(self, method: str, *, times: int | None = None, error: Exception | None = None) -> None:
        """Have a method fail: the next `times` calls, or until `recover`."""
        error = error or StoreUnavailable(f"{method} fails on purpose")
        if times is None:
            self.failing[method] = error
        else:
            self._fail_once.setdefault(method, deque()).extend([error] * times)

    def lose_answer(self, method: str) -> None:
        """Have the next call of a method do its work, and then fail."""
        self._lose_answer[method] += 1

    def recover(self) -> None:
        """Have nothing fail any more."""
        self.failing.clear()
        self._fail_once.clear()

    def hold(self, method: str) -> None:
        """Have calls of a method hang, before anything happens, until `let_go`."""
        self._held.setdefault(method, asyncio.Event()).clear()

    def let_go(self, method: str) -> None:
        """End the hanging."""
        self._held[method].set()

    async def _pass(self, method: str) -> None:
        self.calls[method] += 1
        if method in self._held:
            await self._held[method].wait()
        if method in self.failing:
            raise self.failing[method]
        if self._fail_once.get(method):
            raise self._fail_once[method].popleft()

    def _answer(self, method: str) -> None:
        if self._lose_answer[method]:
            self._lose_answer[method] -= 1
            raise StoreUnavailable(f"{method} did its work but says that it failed")

    async def open(self) -> None:
        """See `Store.open`."""
        await self.inner.open()

    async def close(self) -> None:
        """See `Store.close`."""
        await self.inner.close()

    async def schema(self) -> Schema:
        """See `Store.schema`."""
        return await self.inner.schema()

    async def facts(self) -> Facts:
        """See `Store.facts`."""
        return await self.inner.facts()

    async def check(self) -> None:
        """See `Store.check`."""
        await self._pass("check")
        await self.inner.check()

    async def load(self, document: str, *, after: int = 0) -> Stored:
        """See `Store.load`."""
        await self._pass("load")
        stored = await self.inner.load(document, after=after)
        await asyncio.sleep(self.answers_after_s.get("load", 0))
        return stored

    async def heads(self, documents: Sequence[str]) -> dict[str, int | None]:
        """See `Store.heads`."""
        await self._pass("heads")
        return await self.inner.heads(documents)

    async def append(self, entries: Sequence[Entry]) -> list[int]:
        """See `Store.append`."""
        await self._pass("append")
        seqs = await self.inner.append(entries)
        await asyncio.sleep(self.answers_after_s.get("append", 0))
        self.appended.append(list(entries))
        self._answer("append")
        return seqs

    async def checkpoint(self, snapshots: Sequence[Snapshot], *, keep_history: bool = True) -> frozenset[str]:
        """See `Store.checkpoint`."""
        await self._pass("checkpoint")
        busy = frozenset(self.busy_elsewhere)
        mine = [snapshot for snapshot in snapshots if snapshot.document not in busy]
        busy |= await self.inner.checkpoint(mine, keep_history=keep_history)
        self.checkpointed.append(mine)
        self._answer("checkpoint")
        return busy

    async def timeline(self, document: str) -> list[Span]:
        """See `Store.timeline`."""
        await self._pass("timeline")
        return await self.inner.timeline(document)

    async def rows(self, document: str, *, first: int, last: int) -> list[Row]:
        """See `Store.rows`."""
        await self._pass("rows")
        return await self.inner.rows(document, first=first, last=last)

    async def trim_history(self, document: str, *, upto: int) -> bool:
        """See `Store.trim_history`."""
        await self._pass("trim_history")
        return await self.inner.trim_history(document, upto=upto)

    async def versioned(self, *, start: str = "", limit: int | None = None) -> list[str]:
        """See `Store.versioned`."""
        await self._pass("versioned")
        return await self.inner.versioned(start=start, limit=limit)

    async def take_version(
        self,
        document: str,
        *,
        at: datetime,
        kind: VersionKind,
        label: str | None = None,
        user_id: str | None = None,
        unless_since: datetime | None = None,
    ) -> Version | None:
        """See `Store.take_version`."""
        await self._pass("take_version")
        version = await self.inner.take_version(
            document, at=at, kind=kind, label=label, user_id=user_id, unless_since=unless_since
        )
        self._answer("take_version")
        return version

    async def versions(self, document: str) -> list[Version]:
        """See `Store.versions`."""
        await self._pass("versions")
        return await self.inner.versions(document)

    async def version(self, document: str, id: int) -> VersionContent | ArchivedVersion | None:
        """See `Store.version`."""
        await self._pass("version")
        return await self.inner.version(document, id)

    async def label_version(self, document: str, id: int, label: str | None) -> bool:
        """See `Store.label_version`."""
        await self._pass("label_version")
        return await self.inner.label_version(document, id, label)

    async def archive_version(self, document: str, version: Version, *, digest: bytes) -> bool:
        """See `Store.archive_version`."""
        await self._pass("archive_version")
        archived = await self.inner.archive_version(document, version, digest=digest)
        self._answer("archive_version")
        return archived

    async def delete_versions(self, document: str, ids: Sequence[int]) -> int:
        """See `Store.delete_versions`."""
        await self._pass("delete_versions")
        return await self.inner.delete_versions(document, ids)

    async def delete(self, document: str, *, at: datetime) -> bool:
        """See `Store.delete`."""
        await self._pass("delete")
        deleted = await self.inner.delete(document, at=at)
        self._answer("delete")
        return deleted

    async def undelete(self, document: str) -> bool:
        """See `Store.undelete`."""
        await self._pass("undelete")
        return await self.inner.undelete(document)

    async def purge(self, document: str) -> bool:
        """See `Store.purge`."""
        await self._pass("purge")
        return await self.inner.purge(document)

    async def documents(
        self, *, deleted: bool = False, start: str = "", limit: int | None = None
    ) -> list[DocumentHead]:
        """See `Store.documents`."""
        return await self.inner.documents(deleted=deleted, start=start, limit=limit)

    async def stats(self) -> list[DocumentStats]:
        """See `Store.stats`."""
        return await self.inner.stats()

    async def size_bytes(self) -> int:
        """See `Store.size_bytes`."""
        return await self.inner.size_bytes()

    async def export(self, document: str, *, deleted: bool = False, history: bool = False) -> Export | None:
        """See `Store.export`."""
        return await self.inner.export(document, deleted=deleted, history=history)

    async def put(self, export: Export, *, replace: bool = False) -> None:
        """See `Store.put`."""
        await self.inner.put(export, replace=replace)

    async def quarantine(self, document: str, digest: bytes, *, at: datetime) -> None:
        """See `Store.quarantine`."""
        await self._pass("quarantine")
        await self.inner.quarantine(document, digest, at=at)

    async def quarantined(self) -> list[Quarantined]:
        """See `Store.quarantined`."""
        return await self.inner.quarantined()

    async def revoke(self, revocation: Revocation) -> None:
        """See `Store.revoke`."""
        await self._pass("revoke")
        await self.inner.revoke(revocation)
        self._answer("revoke")

    async def unrevoke(self, kind: RevocationKind, value: str) -> bool:
        """See `Store.unrevoke`."""
        await self._pass("unrevoke")
        return await self.inner.unrevoke(kind, value)

    async def revocations(self, *, now: datetime) -> list[Revocation]:
        """See `Store.revocations`."""
        await self._pass("revocations")
        return await self.inner.revocations(now=now)

    def describe(self) -> str:
        """See `Store.describe`."""
        return f"moody {self.inner.describe()}"


async def stored_updates(store: Store, name: str) -> list[bytes]:
    """Everything of a document that a cold start would apply, in that order."""
    stored = await store.load(name)
    before = [stored.snapshot.state, *stored.snapshot.waiting] if stored.snapshot else []
    return [*before, *stored.updates]


# ---------------------------------------------------------------------------------------------------------- node


def quick_settings(**options: Any) -> Settings:
    """Defaults, whatever the environment says."""
    return Settings(**{"database_url": "memory://", "drain_spread_s": 0, **options})


class Node:
    """One server without its sockets: store, journal and rooms, running.

    Args:
        store: Kept over `kill` and `start`, like a database; a memory store by default.
        make_bus: Makes the way to the other nodes, anew at each start.
        settings: Instead of `options`, for those who make many nodes: reading settings takes a millisecond.
        options: Of the settings.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        make_bus: Callable[[], MemoryBus] | None = None,
        settings: Settings | None = None,
        **options: Any,
    ) -> None:
        self.settings = settings or quick_settings(**options)
        self.bus: MemoryBus | None = None
        self.metrics = Metrics()
        """Counted over all its lives."""
        self._make_bus = make_bus
        self.store = MoodyStore(store or MemoryStore())
        self.journal: Journal
        self.rooms: Rooms
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> Node:
        """Open the store and run."""
        await self.store.open()
        settings = self.settings
        self.journal = Journal(
            self.store,
            interval_s=settings.journal_interval_s,
            bytes_max=settings.unstored_bytes_max,
            metrics=self.metrics,
        )
        if self._make_bus is not None:
            self.bus = self._make_bus()
            await self.bus.open()
        self.rooms = Rooms(self.store, self.journal, settings, self.bus, metrics=self.metrics)
        self._tasks = [asyncio.create_task(self.journal.run()), asyncio.create_task(self.rooms.run())]
        return self

    async def kill(self) -> None:
        """End it as `kill -9` would: what isn't in the store is gone."""
        if self.bus is not None:
            self.bus.die()
            for entry in self.rooms._entries.values():
                entry.close()
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert isinstance(outcome, asyncio.CancelledError), f"a task had ended by itself: {outcome!r}"
        self._tasks = []

    async def stop(self) -> list[str]:
        """End it as the application does; returns the rooms of which something isn't stored."""
        journaling, looking_after = self._tasks
        looking_after.cancel()
        await asyncio.wait([looking_after])
        unstored = await self.rooms.close()
        if self.bus is not None:
            await self.bus.close()
        self._tasks = [journaling]
        await self.kill()
        return [one.room for one in unstored]

    def check(self) -> None:
        """Fail if the journal or the sweeper ended by itself."""
        for task in self._tasks:
            assert not task.done(), task

    async def room(self, name: str = "room") -> Room:
        """The room, opened if need be, and held by nobody."""
        async with self.rooms.hold(name) as room:
            return room


@asynccontextmanager
async def running_node(
    store: Store | None = None, *, make_bus: Callable[[], MemoryBus] | None = None, **options: Any
) -> AsyncIterator[Node]:
    """A node that is killed at the end, if it still runs."""
    node = await Node(store, make_bus=make_bus, **options).start()
    try:
        yield node
        node.check()
    finally:
        await node.kill()


def document_of(room: Room) -> Document:
    """The document of a room, for tests that look inside or break it."""
    return room._document


# ---------------------------------------------------------------------------------------------------------- client


class Client:
    """Speaks y-websocket to a room as the gateway would let it, and keeps what it hears in a replica.

    The replica is a `Document`, since pycrdt loses updates that arrive too early; `received` is there for real Yjs
    to judge. What the client sends goes through `link` (sent, not yet received by the room), so that a test can lose
    or delay it; `deliver` moves it on.

    Args:
        replica: Taken over from an earlier connection, as a client that reconnects does.
    """

    def __init__(self, replica: Document | None = None, received: list[bytes] | None = None) -> None:
        self.replica = replica or Document(waiting_bytes_max=1 << 40)
        self.received: list[bytes] = received if received is not None else []
        self.confirmed: list[bytes] = []
        self.people: dict[int, ClientState] = {}
        self.told: list[list[ClientState]] = []
        self.synced = False
        self.error: SyncError | None = None
        self.link: deque[bytes] = deque()
        self.transport = FakeTransport()
        self.connection: Connection
        self.room: Room | None = None
        self._stack = AsyncExitStack()
        self._writer: asyncio.Task[None]
        self._rest: asyncio.Task[None] | None = None

    async def connect(self, node: Node, name: str = "room", *, window: int | None = None) -> Client:
        """Open the room and join it.

        Raises:
            SyncError: The room refuses.
        """
        assert self.room is None
        stack = AsyncExitStack()
        room = await stack.enter_async_context(node.rooms.hold(name))
        self._stack = stack
        self.enter(room, node.settings, window=window)
        return self

    def enter(self, room: Room, settings: Settings, *, window: int | None = None) -> Client:
        """Join a room that somebody else keeps open."""
        self.transport = FakeTransport(window=window)
        self.connection = Connection(
            self.transport,
            outbox_bytes_max=settings.outbox_bytes_max,
            now=asyncio.get_running_loop().time(),
            flush=Flush(),
        )
        self.room = room
        self.link.clear()
        self.synced = False
        self._writer = asyncio.create_task(self.connection.run(room.catch_up))
        room.join(self.connection)
        return self

    @property
    def closed(self) -> tuple[int, str] | None:
        """Code and reason of the server's close frame, if it came."""
        return self.transport.closed

    async def leave(self, *, properly: bool = True) -> None:
        """Be gone. What is on the link is lost."""
        room, self.room = self.room, None
        if room is None:
            return
        if self._rest is not None:
            await asyncio.wait([self._rest])
        room.leave(self.connection, properly=properly or self.connection.closing is not None)
        self.transport.lose()
        if self.connection.closing is None:
            self._writer.cancel()
        await asyncio.wait([self._writer])
        assert self._writer.cancelled() or self._writer.exception() is None, self._writer
        self.link.clear()
        await self._stack.aclose()

    def say(self, *frames: bytes) -> None:
        """Put frames on the link and have the room receive everything on it."""
        self.link.extend(frames)
        self.deliver()

    def ask_for_sync(self) -> None:
        """Say sync step 1."""
        self.say(encode_step_1(self.replica.state_vector()))

    def edit(self, update: bytes) -> None:
        """Have an edit of one's own, and say it."""
        self.author(update)
        self.say(encode_update(update))

    def author(self, update: bytes) -> None:
        """Have an edit of one's own, and keep it to oneself for now."""
        self.replica.apply(update)
        self.received.append(update)

    def ask_for_confirm(self, token: bytes) -> None:
        """Ask to hear when everything so far is stored."""
        self.say(write_var_uint(CONFIRM) + write_var_bytes(token))

    def announce(self, *states: ClientState) -> None:
        """Say awareness states."""
        self.say(encode_awareness(write_states(states)))

    def deliver(self, count: int | None = None) -> None:
        """Have the room receive what is on the link, or the first `count` frames of it; one that takes its time holds up
        those behind it."""
        for _ in range(len(self.link) if count is None else min(count, len(self.link))):
            if self._rest is not None and not self._rest.done():
                return
            frame = self.link.popleft()
            if self.room is None or self.connection.closing:
                continue
            try:
                rest = self.room.receive(self.connection, frame)
            except SyncError as error:
                self._refused(error)
            else:
                if rest is not None:
                    self._rest = asyncio.create_task(self._finish(rest))

    async def delivered(self) -> None:
        """Wait until the room has received everything on the link."""
        while self.link or (self._rest is not None and not self._rest.done()):
            self.deliver()
            await asyncio.sleep(0)

    async def _finish(self, rest: Awaitable[None]) -> None:
        try:
            await rest
        except SyncError as error:
            self._refused(error)

    def _refused(self, error: SyncError) -> None:
        self.error = error
        self.connection.close(error.close_code, error.reason)

    def read(self) -> None:
        """Take in what has been sent, as a y-websocket client would; answers go onto the link."""
        for frame in self.transport.take():
            kind, pos = read_var_uint(frame, 0)
            if kind == SYNC:
                step, pos = read_var_uint(frame, pos)
                payload, pos = read_var_bytes(frame, pos)
                if step == SYNC_STEP_1:
                    self._answer_sync(payload)
                else:
                    self.synced = self.synced or step == 1
                    self.received.append(payload)
                    # What the server hands out was accepted, and real Yjs takes it, misplaced or not.
                    self.replica.restore(payload)
            elif kind == AWARENESS:
                payload, pos = read_var_bytes(frame, pos)
                states = read_states(payload)
                self.told.append(states)
                for one in states:
                    self._hear_of(one)
            else:
                assert kind == CONFIRM, frame
                token, pos = read_var_bytes(frame, pos)
                self.confirmed.append(token)
            assert pos == len(frame), "one message per frame"

    def _answer_sync(self, state_vector: bytes) -> None:
        self.link.append(encode_step_2(self.replica.diff(state_vector)))
        self.link.extend(encode_update(update) for update in self.replica.waiting)

    def _hear_of(self, one: ClientState) -> None:
        """y-protocols `applyAwarenessUpdate`, for the clients that aren't this one."""
        known = self.people.get(one.client)
        clock = known.clock if known else 0
        here = known is not None and known.state != b"null"
        if one.clock > clock or (one.clock == clock and one.state == b"null" and here):
            self.people[one.client] = one

    @property
    def visible(self) -> dict[int, bytes]:
        """Whom a y-protocols client would show now: client id to state."""
        return {client: one.state for client, one in self.people.items() if one.state != b"null"}


async def settle(*clients: Client, rounds: int = 6) -> None:
    """Let clients and room talk until nothing is left to say, without time passing."""
    for _ in range(rounds):
        await turns()
        for client in clients:
            client.read()
            client.deliver()
    await turns()


# ---------------------------------------------------------------------------------------------------------- edits


class Editor:
    """Writes updates: a pycrdt document with one text, `text`, and one map, `map`."""

    def __init__(self, client_id: int) -> None:
        self.doc: pycrdt.Doc[Any] = pycrdt.Doc(client_id=client_id)
        self.text = self.doc.get("text", type=pycrdt.Text)
        self.map = self.doc.get("map", type=pycrdt.Map)

    def type(self, text: str, at: int | None = None) -> bytes:
        """Insert text, at the end by default; returns the update."""
        before = self.doc.get_state()
        self.text.insert(len(self.text) if at is None else at, text)
        return bytes(self.doc.get_update(before))

    def delete(self, start: int, stop: int) -> bytes:
        """Delete text; returns an update with nothing but the delete."""
        update = None

        def keep(event: pycrdt.TransactionEvent) -> None:
            nonlocal update
            update = bytes(event.update)

        subscription = self.doc.observe(keep)
        del self.text[start:stop]
        self.doc.unobserve(subscription)
        assert update is not None
        return update

    def put(self, key: str, value: object) -> bytes:
        """Set a key of the map; returns the update."""
        before = self.doc.get_state()
        self.map[key] = value
        return bytes(self.doc.get_update(before))

    def hear(self, update: bytes) -> None:
        """Apply somebody else's update."""
        self.doc.apply_update(update)


def typed(text: str, *, client_id: int = 1) -> list[bytes]:
    """One update for each character of a text typed by one client."""
    editor = Editor(client_id)
    return [editor.type(character) for character in text]


def text_of(*updates: bytes) -> str:
    """What is in the text of a document that has these updates."""
    document = Document(waiting_bytes_max=1 << 40)
    for update in updates:
        document.restore(update)
    doc: pycrdt.Doc[Any] = pycrdt.Doc()
    doc.apply_update(document.state().update)
    return str(doc.get("text", type=pycrdt.Text))


__all__ = [
    "Client",
    "ClientState",
    "Editor",
    "FakeTransport",
    "MoodyStore",
    "Node",
    "NothingLeftToWaitFor",
    "VirtualLoop",
    "document_of",
    "in_virtual_time",
    "open_store",
    "quick_settings",
    "run_virtually",
    "running_node",
    "settle",
    "stored_updates",
    "text_of",
    "turns",
    "typed",
    "until",
]
