"""Which updates take processes down: found out where that harms nobody.

That a process died while it took an update in proves little: it may have been killed in that very moment. So all that
is stored of the room, and then what the process was taking in, is given to a process of its own. An update of which
two have died, one of them there, is quarantined: no node takes it in again.

Promises that a room isn't opened, and nobody let into an open one, while that is being found out.
"""

import asyncio
import logging
import multiprocessing
import signal
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from time import time

from persistence import DocumentDeleted, Store, StoreError

from .blackbox import BlackBox, Death
from .document import Document, digest, is_sound
from .errors import DocumentBroken, ProtocolError, RoomUnavailable, SyncError

log = logging.getLogger("crdt_sync.suspects")

# A room in which more processes have died than that, in that time, is refused: it could be something that isn't
# found out in this way.
DEATHS_MAX = 3
DEATHS_S = 60.0
# What takes longer in its own process is as bad as a crash. The alarm ends native code too.
TRIAL_S = 60
# What native code dies of. A process that was killed says nothing, least of all where memory is short.
CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGALRM}
)
# Of one room, found at once.
HARMFUL_MAX = 64


@dataclass(frozen=True, slots=True)
class _Trial:
    survived: bool
    culprit: bytes | None = None
    """Digest of the update that it died of, if it was one."""


class Suspects:
    """What processes of this machine have died of, as one node finds out.

    Args:
        store: Open.
        box: This node's; without it nothing is known.
    """

    def __init__(self, store: Store, box: BlackBox | None) -> None:
        self._store = store
        self._box = box
        self._judged: set[str] = set()
        self._told: set[str] = set()
        self._tasks: dict[str, asyncio.Task[frozenset[bytes]]] = {}
        self._running: set[BaseProcess] = set()

    def rooms(self) -> set[str]:
        """The rooms of which there is something to `judge`."""
        deaths = self._box.deaths() if self._box is not None else []
        boxes = {death.box for death in deaths}
        self._judged &= boxes
        self._told &= boxes
        return {death.room for death in deaths if death.box not in self._judged}

    def concerns(self, room: str) -> bool:
        """Whether there is something to wait for in `judge`, or to be refused by it. Asked for each client that comes."""
        return self._box is not None and any(death.room == room for death in self._box.deaths())

    async def judge(self, room: str) -> frozenset[bytes]:
        """Find out what processes died of while they were busy with a room. Returns at once if none did.

        Returns:
            Digests of updates that must not be taken in; in the store they are quarantined by now.

        Raises:
            RoomUnavailable: It can't be found out now, or too many have died.
        """
        if self._box is None:
            return frozenset()
        deaths = [death for death in self._box.deaths() if death.room == room]
        if not deaths:
            return frozenset()
        if len(deaths) >= DEATHS_MAX and time() - deaths[-DEATHS_MAX].at < DEATHS_S:
            if deaths[-1].box not in self._told:
                self._told.add(deaths[-1].box)
                log.error("room_refused", extra={"room": room, "deaths": len(deaths)})
            raise RoomUnavailable(f"{DEATHS_MAX} processes have died of {room!r} within {DEATHS_S:.0f} s")
        task = self._tasks.get(room)
        if task is None:
            unjudged = [death for death in deaths if death.box not in self._judged]
            if not unjudged:
                return frozenset()
            task = asyncio.create_task(self._try(room, unjudged))
            task.add_done_callback(lambda done: self._end(room, done))
            self._tasks[room] = task
        try:
            # Shielded: others may wait for the same.
            return await asyncio.shield(task)
        except StoreError as error:
            raise RoomUnavailable(f"it isn't known what processes died of in {room!r}: {error}") from error

    async def close(self) -> None:
        """End what is being tried."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        for process in list(self._running):
            process.kill()
        if tasks:
            await asyncio.wait(tasks)

    async def _try(self, room: str, deaths: Sequence[Death]) -> frozenset[bytes]:
        assert self._box is not None, "there are deaths"
        log.warning("room_suspected", extra={"room": room, "deaths": len(deaths)})
        try:
            stored = await self._store.load(room)
        except DocumentDeleted:
            return frozenset()
        updates = list(stored.updates)
        if stored.snapshot is not None:
            updates[:0] = [stored.snapshot.state, *stored.snapshot.waiting]
        noted = [update for death in deaths if (update := self._box.update(death)) is not None]
        updates += noted
        sizes = {digest(update): len(update) for update in updates}
        suspected = set(map(digest, noted))
        found: set[bytes] = set()
        for _ in range(2 * HARMFUL_MAX):
            trial = await asyncio.to_thread(self._take_in_elsewhere, updates, stored.quarantined | found)
            if trial.survived or trial.culprit is None:
                break
            culprit = trial.culprit
            if culprit in suspected:
                await self._store.quarantine(room, culprit, at=datetime.now(UTC))
                size = sizes.get(culprit)
                log.error("update_quarantined", extra={"room": room, "digest": culprit.hex(), "update_bytes": size})
                found.add(culprit)
            suspected.add(culprit)
        if not trial.survived:
            log.error("room_crashes", extra={"room": room})
        elif not found:
            log.info("room_cleared", extra={"room": room})
        self._judged.update(death.box for death in deaths)
        return frozenset(found)

    def _take_in_elsewhere(self, updates: Sequence[bytes], harmful: Collection[bytes]) -> _Trial:
        """In a thread: have a process take the updates in, and see how it fares.

        Raises:
            RoomUnavailable: It was killed.
        """
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_take_in, args=(sender, updates, harmful), daemon=True)
        process.start()
        sender.close()
        self._running.add(process)
        last = b""
        try:
            while True:
                last = receiver.recv_bytes()
        except (EOFError, OSError):
            process.join()
        finally:
            self._running.discard(process)
            receiver.close()
        assert process.exitcode is not None, "it has ended"
        if process.exitcode >= 0:
            # Also after an exception, which a room survives.
            return _Trial(True)
        if -process.exitcode not in CRASHES:
            raise RoomUnavailable(f"the process that tried it was killed by signal {-process.exitcode}")
        return _Trial(False, last or None)

    def _end(self, room: str, task: asyncio.Task[frozenset[bytes]]) -> None:
        del self._tasks[room]
        if not task.cancelled() and task.exception() is not None:
            log.warning("suspects_undecided", extra={"room": room, "error": str(task.exception())})


def _take_in(sender: Connection, updates: Sequence[bytes], harmful: Collection[bytes]) -> None:
    """In a process of its own: load a room, and say before each update whose turn it is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.alarm(TRIAL_S)
    known = {digest(update) for update in updates}
    avoided = set(harmful)

    def tell(update: bytes) -> None:
        # What a document makes of several updates is the fault of the one that is being taken in.
        if (one := digest(update)) in known:
            sender.send_bytes(one)

    for _ in range(HARMFUL_MAX):
        document = Document(waiting_bytes_max=sys.maxsize, harmful=avoided, trace=tell)
        try:
            for update in updates:
                tell(update)
                try:
                    document.restore(update)
                except ProtocolError:
                    continue
            sender.send_bytes(b"")
            is_sound(document.state())
            return
        except DocumentBroken as error:
            # As `rooms` does when it loads.
            if error.culprit is None:
                return
            avoided.add(digest(error.culprit))
        except SyncError:
            return
