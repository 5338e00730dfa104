"""What goes to everybody in a room: collected for a moment, and written to each client in one go.

Owns when that is. What is relayed in a quiet time goes out in the same turn of the event loop. In a room with many
clients, what follows within `SPACING_S` waits for its end: writing to a socket costs far more than what is written, so
a hundred clients who type cost little more than one.

All who get the same get the same bytes, which stand on the wire as they are; see `connection.Relayed`. Those of whom some
of it is get the rest. Who can't be written to gets frame by frame what it should have.
"""

import asyncio
import logging
from collections.abc import Collection

from .connection import FLUSH_BYTES, Connection, Relayed, on_the_wire
from .errors import SyncError
from .metrics import Metrics
from .protocol import UPDATE_KIND, kind_of

# The time between two writes to the clients of a large room, in seconds: their screens show a new picture no more often.
SPACING_S = 0.016
# With so many frames in it, a write costs each of them so little that waiting for more gains nothing.
ENOUGH = 8
# The least time between two writes.
SPACING_MIN_S = 0.005
# A room is large from so many clients on. Below, a turn of the event loop is all that is waited for.
LARGE = 8
# More than this isn't kept waiting.
BATCH_BYTES = FLUSH_BYTES // 2

log = logging.getLogger("crdt_sync.fanout")


class Fanout:
    """Everybody in one room.

    Args:
        connections: Who that is, at any time.
        metrics: Where it is counted what goes out, and to how many.
        outbox_bytes_max: Of each of them. Who can't have as much waiting isn't written as much at once.
    """

    __slots__ = (
        "_connections",
        "_frames",
        "_loop",
        "_metrics",
        "_senders",
        "_size",
        "_timer",
        "_wire_bytes_max",
        "_written_at",
    )

    def __init__(self, connections: Collection[Connection], metrics: Metrics, *, outbox_bytes_max: int) -> None:
        self._connections = connections
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._wire_bytes_max = min(outbox_bytes_max, FLUSH_BYTES)
        self._frames: list[Relayed] = []
        # Of each frame, who has it already.
        self._senders: list[Connection | None] = []
        self._size = 0
        self._timer: asyncio.Handle | None = None
        self._written_at = float("-inf")

    def relay(self, frame: Relayed, sender: Connection | None = None) -> None:
        """Send a frame to everybody but its sender, soon."""
        self._frames.append(frame)
        self._senders.append(sender)
        self._size += len(frame)
        if self._size >= BATCH_BYTES:
            self.flush()
        elif len(self._frames) in (1, ENOUGH):
            self._schedule()

    def flush(self) -> None:
        """Write what is collected. To be called before somebody comes who mustn't get it."""
        if not self._frames:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        frames, self._frames = self._frames, []
        senders, self._senders = self._senders, []
        self._size = 0
        now = self._written_at = self._loop.time()
        wire = on_the_wire(frames[0]) if len(frames) == 1 else b"".join([on_the_wire(frame) for frame in frames])
        large = len(wire) > self._wire_bytes_max
        authors = set(senders) if len(senders) > 1 else senders
        whole = 0
        # Of each frame: who was written to beside those, and who gets it later.
        written = [0] * len(frames)
        waiting = [0] * len(frames)
        for connection in self._connections:
            try:
                if not large and connection not in authors and connection.relay_wire(wire, now):
                    whole += 1
                    continue
                due = [index for index, sender in enumerate(senders) if sender is not connection]
                if not due:
                    continue
                mine = b"".join([on_the_wire(frames[index]) for index in due])
                if not large and connection.relay_wire(mine, now):
                    for index in due:
                        written[index] += 1
                else:
                    for index in due:
                        waiting[index] += connection.relay(frames[index])
            except Exception:
                # One client's trouble is not that of those behind it.
                log.exception("flush_failed", extra={"connection": connection.id})
                connection.close(SyncError.close_code, SyncError.reason)
        for frame, at_once, later in zip(frames, written, waiting, strict=True):
            self._count(frame, whole + at_once + later)
            if frame.received_at is not None:
                # Of those who get it later, the connection says so.
                for _ in range(whole + at_once):
                    self._metrics.delivery_seconds.observe(now - frame.received_at)

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = self._loop
        if len(self._connections) >= LARGE:
            due = self._written_at + (SPACING_S if len(self._frames) < ENOUGH else SPACING_MIN_S)
            if due > loop.time():
                self._timer = loop.call_at(due, self.flush)
                return
        self._timer = loop.call_soon(self.flush)

    def _count(self, frame: Relayed, receivers: int) -> None:
        kind = kind_of(frame)
        self._metrics.sent.count(kind, len(frame), receivers)
        if kind == UPDATE_KIND:
            self._metrics.fan_out.observe(receivers)
