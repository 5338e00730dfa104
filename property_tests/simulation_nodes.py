"""The simulation's nodes: real ones but for the store in front of them, which misbehaves, and the one it leads to."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from crdt_sync.document import Document
from crdt_sync.ranges import Ranges
from crdt_sync.room import Room
from crdt_sync.update import read_update
from persistence import Entry, Snapshot, StoreUnavailable
from persistence.memory import MemoryStore
from tests.support.fakes import MoodyStore, Node, quick_settings

from .simulation_world import OWNER, Failed, SimulatedBus, node_id

if TYPE_CHECKING:
    from .simulation import Simulation

SETTINGS = quick_settings(
    checkpoint_interval_s=0.5,
    room_idle_s=3.0,
    version_interval_s=2.0,
    open_timeout_s=3.0,
    drain_deadline_s=3.0,
    outbox_bytes_max=1024,
    awareness_grace_s=2.0,
)


class Content:
    """What a whole document holds: how far each client has written, and what is deleted.

    Read from an encoded state, not from a `Document`'s accounts: of two people who set the same key, Yjs deletes one's
    value without anybody saying so.
    """

    def __init__(self, state: bytes) -> None:
        update = read_update(state)
        self.clocks = {client: end for client, end in update.ends.items() if end}
        self.deletes: dict[int, Ranges] = {}
        for client, ranges in update.deletes.items():
            kept = self.deletes[client] = Ranges()
            for start, end in sorted(ranges):
                kept.add(start, end)

    def covers(self, other: Content) -> bool:
        """Whether all of `other` is in it."""
        return all(self.clocks.get(client, 0) >= end for client, end in other.clocks.items()) and all(
            client in self.deletes and self.deletes[client].covers(start, end)
            for client, ranges in other.deletes.items()
            for start, end in ranges
        )

    def as_tuple(self) -> tuple[Any, ...]:
        """To compare and to read."""
        return sorted(self.clocks.items()), sorted((client, list(ranges)) for client, ranges in self.deletes.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Content) and self.as_tuple() == other.as_tuple()

    def __repr__(self) -> str:
        return f"Content{self.as_tuple()}"


class Database(MemoryStore):
    """What all nodes store in.

    Attributes:
        losses: What snapshots took away that was there before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[str] = []

    async def checkpoint(self, snapshots: Sequence[Snapshot], *, keep_history: bool = True) -> frozenset[str]:
        before = {one.document: self.raw(one.document) for one in snapshots}
        busy = await super().checkpoint(snapshots, keep_history=keep_history)
        for room, updates in before.items():
            after = self.raw(room)
            taken_away = set(updates).difference(after)
            if taken_away:
                snapshot = Content(after[0])
                # Not everything is in the snapshot's state: some may wait, and rows may repeat what others have.
                missed = [one for each in taken_away if not snapshot.covers(one := Content(each))]
                if missed and not all(self.held(room).covers(one) for one in missed):
                    self.losses.append(f"a snapshot took {missed} of {room} away, and left {self.held(room)}")
        return busy

    def raw(self, room: str) -> list[bytes]:
        """All updates that a cold start would read, after a look at whether they are in order."""
        log = self._logs.get(room)
        if log is None:
            return []
        seqs = [row.seq for row in log.rows]
        if seqs != list(range(log.first_seq, log.first_seq + len(seqs))):
            raise Failed(f"the log of {room} has gaps: {seqs}")
        before = [log.snapshot.state, *log.snapshot.waiting] if log.snapshot is not None else []
        return [*before, *(row.update for row in log.rows)]

    def held(self, room: str) -> Content:
        """What a cold start would have."""
        document = Document(waiting_bytes_max=1 << 30)
        for update in self.raw(room):
            document.restore(update)
        return Content(document.diff(b"\x00"))


class Front(MoodyStore):
    """One node's way to the database.

    Args:
        database: Where it leads.
        rng: Decides how long things take.
        seen: Counts what goes wrong.
        trace: Takes a line for each update that is stored; None if nobody reads them.

    Attributes:
        interruptions: Method name, and "before" or "after" its work, to what happens there in its next call.
        latency_s: What a call takes at most, twice.
    """

    def __init__(
        self, database: Database, rng: random.Random, seen: Counter[str], trace: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(database)
        self.interruptions: dict[tuple[str, str], Callable[[], Awaitable[None]]] = {}
        self.latency_s = 0.02
        self._rng, self._seen, self._trace = rng, seen, trace

    def heal(self) -> None:
        """Have everything go well from now on."""
        self.recover()
        self.interruptions.clear()
        self._lose_answer.clear()

    async def append(self, entries: Sequence[Entry]) -> list[int]:
        await self._interrupted("append", "before")
        seqs = await super().append(entries)
        if self._trace is not None:
            for entry, seq in zip(entries, seqs, strict=True):
                updates = [Content(update) for update in entry.updates]
                self._trace(f"    {OWNER.get()} appends {entry.document} {seq} {updates}")
        await self._interrupted("append", "after")
        return seqs

    async def checkpoint(self, snapshots: Sequence[Snapshot], *, keep_history: bool = True) -> frozenset[str]:
        await self._interrupted("checkpoint", "before")
        busy = await super().checkpoint(snapshots, keep_history=keep_history)
        if self._trace is not None:
            for one in snapshots:
                self._trace(f"    {OWNER.get()} checkpoint {one.document} {one.seq} {Content(one.state)} {set(busy)}")
        if busy & {snapshot.document for snapshot in snapshots}:
            self._seen["checkpoint passed over as busy"] += 1
        await self._interrupted("checkpoint", "after")
        return busy

    async def _pass(self, method: str) -> None:
        await self._linger()
        try:
            await super()._pass(method)
        except StoreUnavailable:
            self._seen[f"store down during {method}"] += 1
            raise

    def _answer(self, method: str) -> None:
        try:
            super()._answer(method)
        except StoreUnavailable:
            self._seen[f"answer lost after {method}"] += 1
            raise

    async def _interrupted(self, method: str, when: str) -> None:
        interrupt = self.interruptions.pop((method, when), None)
        if interrupt is not None:
            await interrupt()
        if when == "after":
            await self._linger()

    async def _linger(self) -> None:
        if self._rng.random() < 0.5:
            await asyncio.sleep(self._rng.random() * self.latency_s)


class Site:
    """Where one node runs, and after it its successors."""

    def __init__(self, world: Simulation, number: int) -> None:
        self.number = number
        self.owner = ""
        self.node: Node | None = None
        self.context = copy_context()
        self._world = world
        self._starts = 0
        self._ending = False

    @property
    def up(self) -> bool:
        """Whether a node runs here, and goes on to."""
        return self.node is not None and not self._ending

    @property
    def responds(self) -> bool:
        """Whether it isn't paused, either."""
        return self.up and not self._world.loop.pauses(self.owner)

    @property
    def front(self) -> Front:
        """The node's store."""
        assert self.node is not None, "up"
        assert isinstance(self.node.store, Front), "made here"
        return self.node.store

    @property
    def bus(self) -> SimulatedBus:
        """The node's end of the bus."""
        assert self.node is not None, "up"
        assert isinstance(self.node.bus, SimulatedBus), "made here"
        return self.node.bus

    def open_rooms(self) -> dict[str, Any]:
        """The loaded rooms' entries by name."""
        if not self.up or self.node is None or not hasattr(self.node, "rooms"):
            return {}
        return {name: entry for name, entry in self.node.rooms._entries.items() if entry.room is not None}

    def room(self, name: str) -> Room | None:
        """A room, if it is loaded here."""
        entry = self.open_rooms().get(name)
        return entry.room if entry is not None else None

    async def start(self) -> None:
        """Start a node here, if there is none."""
        if self.node is not None:
            return
        world = self._world
        self._starts += 1
        ident = node_id(self.number, self._starts)
        self.owner = f"{self.number}.{self._starts}"
        self._ending = False
        self.context = context = copy_context()
        context.run(OWNER.set, self.owner)
        trace = world.detail if world.verbose else None
        self.node = node = Node(
            make_bus=lambda: SimulatedBus(world.hub, node=ident, context=context, trace=trace),
            settings=SETTINGS,
        )
        node.store = Front(world.database, world.rng, world.seen, trace)
        await asyncio.get_running_loop().create_task(node.start(), context=context)
        world.trace(f"node {self.owner} started")

    async def kill(self) -> None:
        """End the node as `kill -9` would."""
        if not self.up:
            return
        self._ending = True
        node = self.node
        assert node is not None, "up"
        self._world.trace(f"node {self.owner} killed")
        killing = asyncio.get_running_loop().create_task(node.kill())
        self._cut_off()
        await asyncio.sleep(0)
        self._world.loop.resume(self.owner)
        await killing
        self.node = None

    async def stop(self) -> None:
        """End the node as the application does."""
        if not self.up:
            return
        self._ending = True
        node = self.node
        assert node is not None, "up"
        self._world.trace(f"node {self.owner} stops")
        unstored = await asyncio.get_running_loop().create_task(node.stop(), context=self.context)
        self._world.trace(f"node {self.owner} stopped {unstored}")
        self._world.see("stopped with something unstored" if unstored else "stopped gracefully")
        self._cut_off()
        self.node = None

    def _cut_off(self) -> None:
        for person in self._world.people:
            if person.session is not None and person.session.site is self:
                person.disconnect(properly=False)
