"""Write-behind: what rooms accepted is stored a few times a second, all rooms in one transaction.

Promises that updates of a room are stored in the order in which they were added, that nothing is reported as
stored before the store has committed it, and that a failing store is retried for as long as it takes.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from persistence import Entry, Store, StoreError

from . import tracing
from .errors import StoreBehind
from .metrics import Metrics

log = logging.getLogger("crdt_sync.journal")

# What an update costs in memory while it waits, beside its bytes.
UPDATE_BYTES = 100
# A commit is started at once when this much waits, and takes little more: the longer a commit takes, the likelier is a
# timeout, and if everything that has piled up were one commit, a slow store could never get out of its backlog.
BATCH_BYTES = 4 << 20

RETRY_S_MIN = 0.1
# `/ready` says that the store is back within 2 s, and a recovery has to be complete within 3 s.
RETRY_S_MAX = 1.0


class Log(Protocol):
    """Whose updates they are: a room."""

    name: str

    def stored(self, seq: int, count: int) -> None:
        """The next `count` updates are committed, with seqs that follow each other, the last of them as `seq`."""


class _Run(NamedTuple):
    """Updates of one log that follow each other and are of one user."""

    log: Log
    user: str | None
    updates: list[bytes]


@dataclass(slots=True)
class _Batch:
    """What one commit stores."""

    runs: list["_Run"] = field(default_factory=list)
    last: dict[Log, "_Run"] = field(default_factory=dict)
    """Of each log, the last of its runs."""
    size: int = 0
    """Bytes, `UPDATE_BYTES` for each update included."""
    upto: int = 0
    """Ticket of the last update."""
    began_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    """When the first update came."""
    traced: dict[tracing.Span, tracing.Span] = field(default_factory=dict)
    """Spans of what brought some of these updates, and of their stay here."""


class Journal:
    """The updates of one node that aren't stored yet.

    Tickets number the updates of all logs in the order in which they were added, from 1.

    Args:
        store: Open while `run` runs.
        interval_s: At most one commit in this time.
        bytes_max: Bound on what may wait, `UPDATE_BYTES` for each update included.
        metrics: Where it is counted how long storing takes.
        traced: Whether there are spans to look for.
        committed: Called after each commit, for each of its logs and users: the log's name, first and last seq, the user.
    """

    def __init__(
        self,
        store: Store,
        *,
        interval_s: float,
        bytes_max: int,
        metrics: Metrics | None = None,
        traced: bool = False,
        committed: Callable[[str, int, int, str | None], None] | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._on_commit = committed
        self._store = store
        self._traced = traced
        self._interval_s = interval_s
        self.bytes_max = bytes_max
        self._batches: deque[_Batch] = deque()
        self._committing: _Batch | None = None
        self._unstored_bytes = 0
        self._failing_since: float | None = None
        self._added = 0
        self._committed = 0
        self._waiters: deque[tuple[int, Callable[[], None]]] = deque()
        self._work = asyncio.Event()
        self._hurry = asyncio.Event()

    @property
    def unstored_bytes(self) -> int:
        """What waits or is being stored."""
        return self._unstored_bytes

    def backlog_age_s(self, *, now: float) -> float:
        """For how long the oldest of that has been waiting; 0 if there is nothing."""
        oldest = self._committing or (self._batches[0] if self._batches else None)
        return now - oldest.began_at if oldest is not None else 0.0

    @property
    def failing_since(self) -> float | None:
        """Since when (the loop's time) the store fails to take what is due; None while it doesn't fail."""
        return self._failing_since

    def unstored(self) -> dict[str, tuple[int, int]]:
        """By the log's name, how many updates aren't stored yet, and how many bytes. Any thread may ask."""
        found: dict[str, tuple[int, int]] = {}
        committing = self._committing
        for batch in [*([committing] if committing is not None else ()), *list(self._batches)]:
            for run in list(batch.runs):
                count, size = found.get(run.log.name, (0, 0))
                found[run.log.name] = count + len(run.updates), size + sum(map(len, list(run.updates)))
        return found

    def require_space(self, size: int) -> None:
        """Check that an update of `size` bytes may be added.

        Raises:
            StoreBehind: It may not: the store has been failing, or is too slow, for long.
        """
        if self.unstored_bytes + size + UPDATE_BYTES > self.bytes_max:
            raise StoreBehind(f"{self.unstored_bytes} bytes wait to be stored, at most {self.bytes_max}")

    def add(self, log_: Log, update: bytes, *, user: str | None = None) -> int:
        """Take in one accepted update, of a user if that is known, and return its ticket. Never fails: ask `require_space` before."""
        if not self._batches or self._batches[-1].size >= BATCH_BYTES:
            self._batches.append(_Batch())
        batch = self._batches[-1]
        run = batch.last.get(log_)
        if run is None or run.user != user:
            run = batch.last[log_] = _Run(log_, user, [])
            batch.runs.append(run)
        run.updates.append(update)
        size = len(update) + UPDATE_BYTES
        batch.size += size
        self._unstored_bytes += size
        self._added += 1
        batch.upto = self._added
        if self._traced and (span := tracing.current.get()) is not None and span not in batch.traced:
            batch.traced[span] = span.child("journal")
        self._work.set()
        if batch.size >= BATCH_BYTES:
            self._hurry.set()
        return self._added

    def when_stored(self, ticket: int, then: Callable[[], None]) -> None:
        """Call `then` once everything up to `ticket` is stored: at once if it is."""
        if ticket <= self._committed:
            then()
            return
        index = len(self._waiters)
        while index and self._waiters[index - 1][0] > ticket:
            index -= 1
        self._waiters.insert(index, (ticket, then))

    async def flush(self) -> None:
        """Store everything added so far without waiting for the interval; returns when that is done."""
        done = asyncio.Event()
        self.when_stored(self._added, done.set)
        self._hurry.set()
        await done.wait()

    async def run(self) -> None:
        """Store until cancelled. A commit that is under way then is left to the store, unreported."""
        loop = asyncio.get_running_loop()
        earliest = loop.time()
        while True:
            await self._work.wait()
            await self._pause(earliest - loop.time())
            earliest = loop.time() + self._interval_s
            self._work.clear()
            self._hurry.clear()
            # What arrives meanwhile may still get into the last of these, or waits for the next interval.
            for _ in range(len(self._batches)):
                await self._commit(self._batches.popleft())

    async def _commit(self, batch: _Batch) -> None:
        accepted_at = datetime.now(UTC)
        entries = [
            Entry(document=run.log.name, updates=run.updates, accepted_at=accepted_at, user_id=run.user)
            for run in batch.runs
        ]
        spans = list(batch.traced.values())
        spans += [span.child("commit", rooms=len(batch.last), update_bytes=batch.size) for span in spans]
        self._committing = batch
        seqs = await self._append(entries)
        self._committing = None
        self._metrics.confirm_seconds.observe(asyncio.get_running_loop().time() - batch.began_at)
        for span in reversed(spans):
            span.end()
        self._committed = batch.upto
        self._unstored_bytes -= batch.size
        for run, seq in zip(batch.runs, seqs, strict=True):
            run.log.stored(seq, len(run.updates))
            if self._on_commit is not None:
                self._on_commit(run.log.name, seq - len(run.updates) + 1, seq, run.user)
        while self._waiters and self._waiters[0][0] <= batch.upto:
            self._waiters.popleft()[1]()

    async def _append(self, entries: list[Entry]) -> list[int]:
        """Append until it succeeds. Says so once when the store begins to fail and once when it is back."""
        loop = asyncio.get_running_loop()
        retry_s = RETRY_S_MIN
        while True:
            began = loop.time()
            try:
                seqs = await self._store.append(entries)
            except Exception as error:
                self._metrics.store_errors += 1
                if self._failing_since is None:
                    self._failing_since = loop.time()
                    # An error that isn't the store's own is a bug; its traceback is wanted, the updates are kept.
                    trace = None if isinstance(error, StoreError) else error
                    log.error("store_failing", extra={"error": str(error), "rooms": len(entries)}, exc_info=trace)
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, RETRY_S_MAX)
                continue
            self._metrics.commit_seconds.observe(loop.time() - began)
            if self._failing_since is not None:
                log.info("store_recovered", extra={"after_s": round(loop.time() - self._failing_since, 3)})
                self._failing_since = None
            return seqs

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass
