"""Which rooms are open here: opened once, kept while anyone needs them, closed when idle.

Promises one `Room` per name at any time, whatever the order of joins, leaves and unloading, because a room is only
taken out of the table in a turn of the event loop in which nobody holds it, nothing of it is unstored, and its
snapshot is written. A room that can't be loaded is refused, never shown empty.
"""

import asyncio
import itertools
import logging
import random
import sys
from collections import deque
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Any, TypeVar

from persistence import DocumentDeleted, Store, StoreError, Version, VersionKind

from . import tracing
from .archiving import Archiving
from .awareness import ClientState
from .blackbox import BlackBox
from .bus import Bus, BusUnavailable, Mark
from .checkpoints import Checkpoints
from .document import Document, Outcome, digest
from .envelope import Kind
from .errors import (
    DocumentBroken,
    DocumentGone,
    Draining,
    MalformedUpdate,
    ProtocolError,
    RoomUnavailable,
    SyncError,
    UpdateTooHeavy,
)
from .follow import Follower
from .journal import Journal
from .load import Load
from .merging import merging
from .metrics import Metrics
from .nodes import LEASE_S, Nodes
from .pacing import Turns, unhurried
from .room import Room
from .settings import Settings
from .suspects import Suspects
from .versions import Versioned, Versions

log = logging.getLogger("crdt_sync.rooms")

T = TypeVar("T")

TICK_S = 1.0
# How often it is compared, in one query for all rooms, whether the store has something that this node lacks.
COMPARE_S = 20.0
# So long after its deletion, no node has a document open any more, whatever messages were lost; that takes 20 s. And what was
# edited until then is no longer in the log in Redis, which keeps it for 65 s: it would come back with the name.
FORGET_AFTER_S = 90.0
# How long opening a room waits for the bus.
BUS_TIMEOUT_S = 1.0
# How often it is looked for what nodes that are gone have left, and how many rooms are brought home at once.
SWEEP_S = 5.0
SWEEP_ROOMS = 50
RECOVER_TIMEOUT_S = 60.0
# How often it is looked whether a process of this machine died of a room that is open here.
SUSPECTS_S = 1.0
# After so many rooms, the event loop gets its turn.
TICK_SLICE = 100
# How many updates that broke its document are remembered of a room.
HARMFUL_MAX = 64
HARMFUL_ROOMS_MAX = 1000
# From so many rows on it is worth while to merge those of a log.
MERGED_FROM = 16


@dataclass(slots=True, eq=False)
class _Entry:
    task: asyncio.Task[Room]
    holders: int
    idle_since: float
    checkpointed_at: float
    follower: Follower | None = None
    versioned: Versioned | None = None
    """Once it is loaded."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def room(self) -> Room | None:
        """The room, once it is loaded."""
        done = self.task.done() and not self.task.cancelled() and self.task.exception() is None
        return self.task.result() if done else None

    @property
    def buried(self) -> bool:
        """Whether its document was deleted while it was open."""
        return self.room is not None and self.room.buried

    @property
    def settled_elsewhere(self) -> bool:
        """Whether all that came from other nodes is stored, or in this one's journal."""
        return self.follower is None or self.follower.settled

    @property
    def settled(self) -> bool:
        """Whether the room can be unloaded without regret."""
        return self.room is not None and self.room.settled and self.settled_elsewhere

    def leave(self, *, now: float) -> None:
        """Somebody needs it no longer."""
        self.holders -= 1
        self.idle_since = now
        if self.versioned is not None and not self.holders:
            self.versioned.left = True

    def close(self) -> None:
        """Take leave of the clients and the other nodes."""
        if self.room is not None:
            self.room.close()
        if self.follower is not None:
            self.follower.close()
        self.closed.set()


@dataclass(frozen=True, slots=True)
class Unsaved:
    """What of one room isn't stored."""

    room: str
    updates: int
    size: int
    """Bytes."""
    published: bool
    """Whether it has gone out to Redis: its log has it for a minute, in which a node that runs stores it."""


class Held:
    """A room that somebody keeps open. Made by `Rooms.enter`."""

    __slots__ = ("_entry", "room")

    def __init__(self, room: Room, entry: _Entry) -> None:
        self.room = room
        self._entry = entry

    def leave(self) -> None:
        """It may be unloaded, once nobody else keeps it open."""
        self._entry.leave(now=asyncio.get_running_loop().time())


class Rooms:
    """The open rooms of one node.

    Args:
        store: Loaded from; open while `run` runs.
        journal: Stores what the rooms accept.
        settings: Intervals and bounds.
        bus: The way to the other nodes, if there are any; open while `run` runs.
        box: Where it is noted what is being done, if anywhere.
        load: How busy this node is, if anybody looks.
        archiving: Where old versions go, if anywhere.
        metrics: Where everything is counted.
        tracer: Makes spans, if there are to be any.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        settings: Settings,
        bus: Bus | None = None,
        box: BlackBox | None = None,
        load: Load | None = None,
        archiving: Archiving | None = None,
        metrics: Metrics | None = None,
        tracer: tracing.Tracer | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._store = store
        self._journal = journal
        self._settings = settings
        self.turns = Turns()
        """Shared by all long work of this node."""
        self._checkpoints = Checkpoints(
            store, box, self.turns, keep_history=settings.history_days > 0, metrics=self._metrics
        )
        self._versions = Versions(store, settings, archiving)
        self._box = box
        self._suspects = Suspects(store, box)
        self._bus = bus
        self.nodes = (
            Nodes(bus, lost=self._lose_node, missed=self._meet_node, metrics=self._metrics) if bus is not None else None
        )
        """The other nodes, if there may be any."""
        if self.nodes is not None:
            self.nodes.hear(Kind.DELETED, lambda name: self._hear_deleted(name.decode(errors="replace")))
            self.nodes.hear(
                Kind.QUARANTINED, lambda body: self._refuse(body[32:].decode(errors="replace"), {body[:32]})
            )
        # What other nodes say was deleted. Whether it still is, the store knows.
        self._told_deleted: set[str] = set()
        self._told = asyncio.Event()
        self._load_of_node = load
        self._tracer = tracer
        self._entries: dict[str, _Entry] = {}
        self._draining = False
        self._entering: set[asyncio.Timeout] = set()
        # Digests of updates that broke a document, by its name. Those that are stored are found again after a restart.
        self._harmful: dict[str, deque[bytes]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Room]:
        """Those that are loaded."""
        return iter([entry.room for entry in self._entries.values() if entry.room is not None])

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Room]:
        """Open a room, or use the open one, and keep it open inside the `with` block.

        Raises:
            SyncError: As for `enter`.
        """
        held = await self.enter(name)
        try:
            yield held.room
        finally:
            held.leave()

    async def enter(self, name: str) -> "Held":
        """Open a room, or use the open one, and keep it open until `Held.leave`.

        Raises:
            RoomUnavailable: It can't be loaded now.
            DocumentGone: It was deleted.
            Draining: This node takes nobody any more.
        """
        if not self._draining:
            await self._judge_suspects(name)
        await self._buried_unloaded(name)
        if self._draining:
            raise Draining(f"{name!r} was asked for while shutting down")
        loop = asyncio.get_running_loop()
        entry = self._entries.get(name)
        if entry is None:
            now = loop.time()
            follower = Follower(name, self._bus, self._metrics, self._tracer) if self._bus is not None else None
            entry = _Entry(loop.create_task(self._load(name, follower)), 0, now, now, follower)
            entry.task.add_done_callback(_retrieve)
            self._entries[name] = entry
        entry.holders += 1
        try:
            room = await self._opened(name, entry)
            if entry.versioned is None:
                entry.versioned = self._versions.opened(room.known_seq, now=loop.time())
            return Held(room, entry)
        except BaseException:
            entry.leave(now=loop.time())
            raise

    async def delete(self, name: str) -> bool:
        """Delete a document: its clients are closed, on all nodes, and its name stays taken.

        Returns:
            Whether there was one.

        Raises:
            StoreError: It could not be deleted; it is as before.
        """
        entry = self._entries.get(name)
        if entry is not None and entry.room is not None and entry.room.unstored:
            # Or the store may not know of it yet.
            async with asyncio.timeout(self._settings.open_timeout_s):
                await self._journal.flush()
        deleted = await self._store.delete(name, at=datetime.now(UTC))
        if deleted:
            log.info("document_deleted", extra={"room": name})
            self._bury(name)
            if self.nodes is not None:
                self.nodes.tell(Kind.DELETED, name.encode())
        return deleted

    def presence(self, name: str) -> list[ClientState]:
        """Who is in a room, on any node; empty if it isn't open here."""
        entry = self._entries.get(name)
        return entry.room.who_is_there() if entry is not None and entry.room is not None else []

    def content_bytes(self, name: str) -> int | None:
        """About how large a document is, as one update; None if it isn't open here."""
        entry = self._entries.get(name)
        return entry.room.content_bytes if entry is not None and entry.room is not None else None

    async def run(self) -> None:
        """Look after the rooms until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick_forever())
            group.create_task(self._checkpoint_forever())
            group.create_task(self._judge_suspects_forever())
            group.create_task(self._versions.sweep_forever())
            if self._store.shared:
                group.create_task(self._compare_with_store_forever())
            if self.nodes is not None:
                group.create_task(self.nodes.run())
                group.create_task(self._bury_forever())
                group.create_task(self._sweep_forever(self.nodes))

    def drain(self) -> None:
        """Let nobody in any more."""
        if not self._draining:
            self._draining = True
            for entering in self._entering:
                entering.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def while_open(self) -> AsyncIterator[None]:
        """For what somebody has to wait for before being let in.

        Raises:
            Draining: Nobody is let in, or any more.
        """
        if self._draining:
            raise Draining("this node is going away")
        try:
            async with asyncio.timeout(None) as entering:
                self._entering.add(entering)
                try:
                    yield
                finally:
                    self._entering.discard(entering)
        except TimeoutError as error:
            if not entering.expired():
                raise
            raise Draining("this node is going away") from error

    async def flush(self) -> bool:
        """Store everything that there is now, with a snapshot and a version of each room that wants one.

        Returns:
            Whether that is all: nothing has come meanwhile.
        """
        await self._journal.flush()
        await self._checkpoints.write([room for room in list(self) if room.wants_checkpoint])
        await self._take_versions(leaving=True)
        return not self._journal.unstored_bytes

    def unsaved(self) -> list[Unsaved]:
        """What isn't stored, by name. Any thread may ask."""
        found = []
        for name, (updates, size) in sorted(self._journal.unstored().items()):
            entry = self._entries.get(name)
            published = entry is not None and entry.follower is not None and entry.follower.published
            found.append(Unsaved(name, updates, size, published))
        return found

    async def close(self, timeout_s: float | None = None) -> list[Unsaved]:
        """Close all clients, store everything, and take leave of the other nodes.

        Args:
            timeout_s: How long storing may take; `drain_deadline_s`, if not given.

        Returns:
            What could not be stored.
        """
        self.drain()
        for room in list(self):
            room.close()
        await self._suspects.close()
        try:
            async with asyncio.timeout(self._settings.drain_deadline_s if timeout_s is None else timeout_s):
                await self.flush()
        except TimeoutError:
            pass
        finally:
            self._checkpoints.close()
            for entry in self._entries.values():
                entry.close()
            if self.nodes is not None:
                self.nodes.leave()
        return self.unsaved()

    async def _judge_suspects(self, name: str) -> None:
        """Find out what processes of this machine died of in this room, before that is tried here."""
        if not self._suspects.concerns(name):
            return
        try:
            async with asyncio.timeout(self._settings.open_timeout_s):
                harmful = await self._suspects.judge(name)
        except TimeoutError as error:
            raise RoomUnavailable(f"it isn't known yet what processes died of in {name!r}") from error
        self._refuse(name, harmful)
        if self.nodes is not None:
            for one in harmful:
                self.nodes.tell(Kind.QUARANTINED, one + name.encode())

    def _refuse(self, name: str, harmful: Collection[bytes]) -> None:
        """Have a room that is open, or being loaded, take in none of these updates, given by their digests."""
        entry = self._entries.get(name)
        if harmful and entry is not None:
            for one in harmful:
                self._remember_harmful(name, one)
            if entry.room is not None:
                entry.room.refuse(harmful)

    async def _judge_suspects_forever(self) -> None:
        while True:
            for name in self._suspects.rooms() & self._entries.keys():
                with suppress(SyncError):
                    await self._judge_suspects(name)
            await asyncio.sleep(SUSPECTS_S)

    async def _buried_unloaded(self, name: str) -> None:
        """Wait until a room that was deleted is out of the way: whether it still is deleted, the store knows."""
        if (entry := self._entries.get(name)) is None or not entry.buried:
            return
        try:
            async with asyncio.timeout(self._settings.open_timeout_s):
                while not self._draining and (entry := self._entries.get(name)) is not None and entry.buried:
                    await entry.closed.wait()
        except TimeoutError as error:
            raise RoomUnavailable(f"{name!r} was deleted, and isn't stored yet") from error

    async def _opened(self, name: str, entry: _Entry) -> Room:
        room = entry.room
        if room is None:
            try:
                async with asyncio.timeout(self._settings.open_timeout_s):
                    # Shielded: others may wait for the same load, and the next to come profits from it.
                    room = await asyncio.shield(entry.task)
            except TimeoutError as error:
                raise RoomUnavailable(f"{name!r} isn't loaded after {self._settings.open_timeout_s} s") from error
        if self._draining:
            raise Draining(f"{name!r} was loaded while shutting down")
        if room.buried:
            raise DocumentGone(f"{name!r} was deleted")
        if room.broken:
            raise RoomUnavailable(f"{name!r} is being loaded anew")
        return room

    async def _load(self, name: str, follower: Follower | None) -> Room:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        with tracing.within(tracing.begin(self._tracer, "load", room=name)):
            room = await self._loaded(name, follower)
        took_s = loop.time() - began_at
        self._metrics.load_seconds.observe(took_s)
        fields = {"seq": room.known_seq, "content_bytes": room.content_bytes, "after_s": round(took_s, 3)}
        log.info("room_loaded", extra={"room": name, **fields})
        return room

    async def _loaded(self, name: str, follower: Follower | None) -> Room:
        try:
            # In this order there is no gap: what isn't in the store yet is in the log, or arrives.
            if follower is not None:
                await _reached(follower.listening())
            stored = await self._store.load(name)
            snapshot = stored.snapshot
            if snapshot is not None and stored.quarantined and digest(snapshot.state) in stored.quarantined:
                # Without it, the room would be shown empty.
                raise DocumentBroken("the stored state is quarantined")
            kept = await _reached(follower.catch_up()) if follower is not None else None
            before = [snapshot.state, *snapshot.waiting] if snapshot is not None else []
            updates = [*before, *stored.updates]
            document = await self._merged(name, before, stored.updates, stored.quarantined)
            if document is None:
                document = await self._restore(name, updates, stored.quarantined)
        except DocumentDeleted as error:
            self._forget(name, follower)
            raise DocumentGone(f"{name!r} was deleted") from error
        except (StoreError, ProtocolError, DocumentBroken) as error:
            self._forget(name, follower)
            self._metrics.store_errors += isinstance(error, StoreError)
            log.error("room_load_failed", extra={"room": name, "error": str(error)})
            raise RoomUnavailable(f"{name!r} can't be loaded: {error}") from error
        except BaseException:
            self._forget(name, follower)
            raise
        # Of what has been found out meanwhile.
        document.refuse(self._harmful.get(name, ()))
        room = Room(
            name,
            document,
            seq=stored.head_seq,
            journal=self._journal,
            settings=self._settings,
            turns=self.turns,
            metrics=self._metrics,
        )
        room.load = self._load_of_node
        room.traced = self._tracer is not None
        room.content_bytes = sum(map(len, updates))
        # The stored log is long or its snapshot missing: don't wait for an edit to compact it.
        room.dirty = bool(stored.updates)
        if follower is not None:
            follower.start(room, kept or ())
        return room

    def _hear_deleted(self, name: str) -> None:
        if name in self._entries:
            self._told_deleted.add(name)
            self._told.set()

    async def _bury_forever(self) -> None:
        """See off what other nodes say was deleted. Such a word may be late, and the document back by now."""
        while True:
            await self._told.wait()
            self._told.clear()
            names = list(self._told_deleted)
            self._told_deleted.clear()
            try:
                heads = await self._store.heads(names)
            except StoreError:
                continue  # the comparison will show it
            for name in names:
                if heads.get(name, 0) is None:
                    self._bury(name)

    def _bury(self, name: str) -> None:
        """See a deleted document off, if it is open here."""
        entry = self._entries.get(name)
        if entry is None:
            return
        if entry.room is not None:
            entry.room.bury()
        elif not entry.task.done():
            # It may have been read just before it was deleted.
            entry.task.add_done_callback(lambda task: self._bury(name))

    def _forget(self, name: str, follower: Follower | None) -> None:
        del self._entries[name]
        if follower is not None:
            follower.close()

    async def _merged(
        self, name: str, before: list[bytes], rows: Sequence[bytes], quarantined: Collection[bytes]
    ) -> Document | None:
        """Make a document of what is stored, of rows that are merged: soon, and only where nothing is wrong with any of them."""
        if len(rows) < MERGED_FROM or quarantined or name in self._harmful:
            return None
        if self._box is not None and any(death.room == name for death in self._box.deaths()):
            return None
        document = self._new_document(name, ())
        try:
            async for update, of_several in unhurried(chain(((one, False) for one in before), merging(rows))):
                outcome = await self._restore_one(document, update)
                if of_several and outcome is Outcome.WAITING:
                    raise MalformedUpdate("not all that was merged can be integrated")
        except (ProtocolError, UpdateTooHeavy, DocumentBroken) as error:
            # By itself, each row shows what it does, and is blamed for it.
            log.info("rows_not_merged", extra={"room": name, "error": str(error)})
            return None
        document.bound_waiting(self._settings.waiting_bytes_max)
        return document

    async def _restore(self, name: str, updates: list[bytes], quarantined: Collection[bytes]) -> Document:
        """Make a document of what is stored, without what broke it before or breaks it now."""
        for attempt in itertools.count(1):
            try:
                document = await self._apply(name, updates, {*quarantined, *self._harmful.get(name, ())})
            except DocumentBroken as error:
                if error.culprit is None or attempt > HARMFUL_MAX:
                    raise
                log.error("update_set_aside", extra={"room": name, "error": str(error)})
                self._remember_harmful(name, digest(error.culprit))
            else:
                document.bound_waiting(self._settings.waiting_bytes_max)
                return document
        raise AssertionError("counted to infinity")

    async def _apply(self, name: str, updates: list[bytes], harmful: Collection[bytes]) -> Document:
        """Apply `updates` to a new document."""
        document = self._new_document(name, harmful)
        async for update in unhurried(updates):
            await self._restore_one(document, update)
        return document

    def _new_document(self, name: str, harmful: Collection[bytes]) -> Document:
        # The bound is for what arrives. What was accepted once is taken, in whatever order it is released this time.
        recorder = self._box.recorder(name) if self._box is not None else None
        return Document(waiting_bytes_max=sys.maxsize, harmful=harmful, recorder=recorder)

    async def _restore_one(self, document: Document, update: bytes) -> Outcome:
        if document.is_light(update):
            return document.restore(update)
        return await self.turns.take_large(document.restoring(update, alone=True))

    def _remember_harmful(self, name: str, update: bytes) -> None:
        """Remember an update by its digest."""
        known = self._harmful.setdefault(name, deque(maxlen=HARMFUL_MAX))
        if update not in known:
            known.append(update)
        if len(self._harmful) > HARMFUL_ROOMS_MAX:
            del self._harmful[next(iter(self._harmful))]

    async def _tick_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_S)
            for count, (name, entry) in enumerate(list(self._entries.items()), 1):
                room = entry.room
                if room is not None:
                    try:
                        self._tick(name, entry, room, loop.time())
                    except Exception as error:
                        # One room's trouble is not the others'.
                        log.exception("room_failed", extra={"room": name})
                        room.fail(error)
                if count % TICK_SLICE == 0:
                    await asyncio.sleep(0)

    def _tick(self, name: str, entry: _Entry, room: Room, now: float) -> None:
        if not room.broken:
            room.tick(now=now)
            if entry.follower is not None:
                entry.follower.tick(now=now)
        idle = room.broken or now - entry.idle_since >= self._settings.room_idle_s
        if idle and not entry.holders and entry.settled and not self._wants_version(entry, room):
            del self._entries[name]
            entry.close()
            if room.culprit is not None:
                self._remember_harmful(name, digest(room.culprit))
            log.info("room_unloaded", extra={"room": name, "seq": room.stored_seq})

    async def _checkpoint_forever(self) -> None:
        loop = asyncio.get_running_loop()
        interval_s = self._settings.checkpoint_interval_s
        while True:
            await asyncio.sleep(min(TICK_S, interval_s))
            await self._read_what_others_stored()
            now = loop.time()
            due = []
            for entry in self._entries.values():
                room = entry.room
                if room is not None and room.wants_checkpoint and now - entry.checkpointed_at >= interval_s:
                    entry.checkpointed_at = now
                    due.append(room)
            try:
                await self._checkpoints.write(due)
                await self._take_versions()
            except Exception:
                log.exception("checkpoints_failed", extra={"rooms": len(due)})

    async def keep_version(
        self, room: Room, *, kind: VersionKind, label: str | None = None, user: str | None = None
    ) -> Version | None:
        """Take a version of what is stored of an open room.

        Returns:
            The version; one that was there already if it has the same. None if nothing is stored.

        Raises:
            RoomUnavailable: What is stored can't be brought into a snapshot now.
            StoreError: It can't be kept.
        """
        wanted = room.stored_seq
        try:
            async with asyncio.timeout(self._settings.open_timeout_s):
                # By whoever gets to it: the interval's checkpoint may be under way.
                while room.dirty and room.snapshot_seq < wanted:
                    if room.broken or not room.compactable:
                        raise RoomUnavailable(f"no sound snapshot of {room.name!r} can be made")
                    if room.wants_checkpoint:
                        await self._checkpoints.write([room])
                    else:
                        await asyncio.sleep(TICK_S / 20)
        except TimeoutError as error:
            raise RoomUnavailable(f"no snapshot of {room.name!r} could be stored in time") from error
        at = datetime.now(UTC)
        version = await self._store.take_version(room.name, at=at, kind=kind, label=label, user_id=user)
        if version is None:
            version = next(iter(await self._store.versions(room.name)), None)
        return version

    def _wants_version(self, entry: _Entry, room: Room) -> bool:
        """Whether a room that everybody has left should have a version before it is unloaded."""
        versioned = entry.versioned
        return versioned is not None and not room.broken and self._versions.is_wanted(versioned, room.snapshot_seq)

    async def _take_versions(self, *, leaving: bool = False) -> None:
        """Take the versions that are due, or if this node takes its leave all that are new."""
        async for name, entry in unhurried(list(self._entries.items())):
            room, versioned = entry.room, entry.versioned
            if room is None or versioned is None or room.broken:
                continue
            now = asyncio.get_running_loop().time()
            versioned.left = versioned.left or leaving
            seq = room.snapshot_seq
            due = self._versions.is_due(versioned, seq, whole=room.snapshot_whole, now=now)
            if due or (leaving and self._versions.is_wanted(versioned, seq)):
                await self._versions.take(name, versioned, seq, now=now)

    async def _compare_with_store_forever(self) -> None:
        """Notice what was stored elsewhere without anything of it having reached this node, by whatever mishap."""
        while True:
            await asyncio.sleep(random.uniform(0.5, 1) * COMPARE_S)
            rooms = {name: entry.room for name, entry in self._entries.items() if entry.room is not None}
            try:
                heads = await self._store.heads(list(rooms))
            except StoreError:
                self._metrics.store_errors += 1
                continue
            for name, head_seq in heads.items():
                if head_seq is None:
                    self._bury(name)
                elif head_seq > rooms[name].known_seq:
                    rooms[name].doubt()

    async def _read_what_others_stored(self) -> None:
        """Bring rooms up to date of which a commit showed that other nodes had stored something before it."""
        for room in [entry.room for entry in self._entries.values()]:
            if room is None or room.broken or not room.is_behind(now=asyncio.get_running_loop().time()):
                continue
            try:
                await room.take_in(await self._store.load(room.name, after=room.known_seq))
            except DocumentDeleted:
                self._bury(room.name)
            except StoreError as error:
                self._metrics.store_errors += 1
                log.warning("room_stays_behind", extra={"room": room.name, "error": str(error)})
                return
            except Exception as error:
                log.exception("room_failed", extra={"room": room.name})
                room.fail(error)

    def _lose_node(self, node: bytes) -> None:
        for entry in list(self._entries.values()):
            if entry.follower is not None:
                entry.follower.lose_node(node)

    def _meet_node(self, node: bytes) -> None:
        for entry in self._entries.values():
            if entry.follower is not None:
                entry.follower.meet_node(node)

    async def _sweep_forever(self, nodes: Nodes) -> None:
        """Store what nodes that are gone have left in the logs of rooms that nobody opens."""
        while True:
            await asyncio.sleep(SWEEP_S)
            # One node does it. If two take themselves for that one, some updates are stored twice.
            now = asyncio.get_running_loop().time()
            if not self._draining and nodes.knows_who_lives(now=now) and nodes.node == min(nodes.living()):
                try:
                    await self._sweep(nodes)
                except BusUnavailable:
                    pass
                except Exception:
                    log.exception("sweep_failed")

    async def _sweep(self, nodes: Nodes) -> None:
        assert self._bus is not None, "there are nodes"
        living = {node.hex() for node in nodes.living()}
        left = [mark for mark in await self._bus.marks() if mark.node not in living and mark.age_s >= LEASE_S]
        for start in range(0, len(left), SWEEP_ROOMS):
            await asyncio.gather(*(self._recover(mark) for mark in left[start : start + SWEEP_ROOMS]))

    async def _recover(self, mark: Mark) -> None:
        """Open a room, and keep it until everything is stored that its log has."""
        assert self._bus is not None, "there are nodes"
        try:
            async with asyncio.timeout(RECOVER_TIMEOUT_S), self.hold(mark.room) as room:
                entry = self._entries[mark.room]
                if entry.follower is not None:
                    entry.follower.lose_node(bytes.fromhex(mark.node))
                while room.unstored or not entry.settled_elsewhere:  # noqa: ASYNC110 - rare, and it has many causes
                    await asyncio.sleep(TICK_S / 4)
        except (TimeoutError, SyncError) as error:
            log.warning("recovery_failed", extra={"room": mark.room, "error": str(error)})
            return
        log.info("room_recovered", extra={"room": mark.room, "node": mark.node})
        self._bus.unmark(mark.room, node=mark.node)


async def _reached(wait: Coroutine[Any, Any, T]) -> T | None:
    """What the bus has to say, unless it can't be reached soon: then a room is opened without."""
    try:
        async with asyncio.timeout(BUS_TIMEOUT_S):
            return await wait
    except (BusUnavailable, TimeoutError):
        return None


def _retrieve(task: asyncio.Task[Room]) -> None:
    """A failed load is logged where it fails; nobody may be left to hear of it here."""
    if not task.cancelled():
        task.exception()
