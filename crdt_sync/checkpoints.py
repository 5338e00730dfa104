"""Compaction: rooms' states, proved sound, on their way into the store.

The stored log is only trimmed once a state that contains it is stored, was read back, and has shown that a document
can be loaded from it alone. The proof costs as much as opening the document and never lets go of the interpreter, so
large states are proved in a process of their own, where a crash in native code harms nobody either.
"""

import asyncio
import logging
from collections.abc import Sequence

from persistence import Snapshot, Store, StoreCorrupt, StoreError

from .blackbox import BlackBox
from .document import State, is_sound, proving
from .elsewhere import Elsewhere, ProcessLost
from .metrics import Metrics
from .pacing import Turns
from .room import Capture, Room

log = logging.getLogger("crdt_sync.checkpoints")

# Loading a state of this size takes a few milliseconds at most, whatever is in it (see benchmarks/update_reader.py).
PROVE_INLINE_BYTES_MAX = 16 << 10
# What one transaction carries at most, beside the state that exceeds it.
BATCH_BYTES = 8 << 20
BATCH_ROOMS = 200


class Checkpoints:
    """Stores compacted states of rooms.

    Args:
        store: Where they go.
        box: Where it is noted of which room a state is being proved.
        turns: For proving small ones, shared with all other long work of the node.
        keep_history: Whether the store keeps the updates that a snapshot has.
        metrics: Where it is counted how long they take.
    """

    def __init__(
        self,
        store: Store,
        box: BlackBox | None = None,
        turns: Turns | None = None,
        *,
        keep_history: bool = True,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._store = store
        self._box = box
        self._turns = turns or Turns()
        self._elsewhere = Elsewhere()
        self._keep_history = keep_history
        self._failing = False

    async def write(self, rooms: Sequence[Room]) -> None:
        """Bring the stored snapshots of `rooms` up to date. A room for which that fails wants it again afterwards."""
        batch: list[tuple[Room, Capture]] = []
        try:
            size = 0
            for room in rooms:
                capture = await _capture(room)
                if capture is None:
                    continue
                batch.append((room, capture))
                size += len(capture.state.update)
                if size >= BATCH_BYTES or len(batch) >= BATCH_ROOMS:
                    await self._write_batch(batch)
                    size = 0
                # Several small ones take milliseconds; others' messages go first.
                await asyncio.sleep(0)
            await self._write_batch(batch)
        finally:
            _finish(batch, written=False)

    def close(self) -> None:
        """End the proving process, if there is one."""
        self._elsewhere.close()

    async def _write_batch(self, batch: list[tuple[Room, Capture]]) -> None:
        """Store the batch and empty it, if the store takes it."""
        if not batch:
            return
        began = asyncio.get_running_loop().time()
        sound = [(room, capture) for room, capture in batch if await self._prove(room, capture.state)]
        try:
            for _, capture in sound:
                await capture.stored.wait()
            # With seq 0, nothing in it has come before other nodes' updates that it lacks.
            stored = [(room, capture) for room, capture in sound if capture.seq]
            left = await self._store_all(stored) if stored else frozenset()
        except StoreError as error:
            self._metrics.store_errors += 1
            if not self._failing:
                self._failing = True
                log.error("checkpoints_failing", extra={"error": str(error), "rooms": len(batch)})
            _finish(batch, written=False)
            return
        self._metrics.checkpoint_seconds.observe(asyncio.get_running_loop().time() - began)
        if self._failing:
            self._failing = False
            log.info("checkpoints_recovered")
        for room, capture in batch:
            room.captured(written=(room, capture) in stored and room.name not in left)
        batch.clear()

    async def _store_all(self, captures: list[tuple[Room, Capture]]) -> frozenset[str]:
        """Store snapshots; return the rooms for which another node is doing it."""
        try:
            snapshots = [_snapshot(room, capture) for room, capture in captures]
            return await self._store.checkpoint(snapshots, keep_history=self._keep_history)
        except StoreCorrupt as error:
            # One document's trouble. The others' snapshots are stored without it.
            if len(captures) > 1:
                return frozenset().union(*[await self._store_all([one]) for one in captures])
            room = captures[0][0]
            room.compactable = False
            log.error("snapshot_refused", extra={"room": room.name, "error": str(error)})
            return frozenset({room.name})

    async def _prove(self, room: Room, state: State) -> bool:
        """Whether the state may replace the log. If not, the log stays as it is and nothing is lost but space."""
        if len(state.update) <= PROVE_INLINE_BYTES_MAX:
            recorder = self._box.recorder(room.name) if self._box is not None else None
            sound = await self._turns.take(proving(state, recorder))
        else:
            sound = await self._prove_elsewhere(state)
        if not sound:
            room.compactable = False
            log.error("state_unsound", extra={"room": room.name, "state_bytes": len(state.update)})
        return sound

    async def _prove_elsewhere(self, state: State) -> bool:
        try:
            return await self._elsewhere.run(is_sound, state)
        except ProcessLost:
            return False


async def _capture(room: Room) -> Capture | None:
    try:
        return await room.capture()
    except Exception:
        # A bug, and one room's trouble: the others' states are stored all the same.
        log.exception("capture_failed", extra={"room": room.name})
        room.compactable = False
        return None


def _finish(batch: list[tuple[Room, Capture]], *, written: bool) -> None:
    for room, _ in batch:
        room.captured(written=written)
    batch.clear()


def _snapshot(room: Room, capture: Capture) -> Snapshot:
    state = capture.state
    return Snapshot(
        document=room.name,
        seq=capture.seq,
        state=state.update,
        waiting=state.waiting,
        state_vector=state.state_vector,
        whole=capture.whole,
    )
