"""The store contract in dicts: for tests, and for trying things out. Nothing survives the process.

It keeps its content over close and open, so that a test can restart a server on it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from persistence.store import (
    DocumentHead,
    Entry,
    Snapshot,
    StoreCorrupt,
    Stored,
    StoreUnavailable,
)


@dataclass(slots=True)
class _Log:
    snapshot: Snapshot | None = None
    updates: list[bytes] = field(default_factory=list)  # after the snapshot

    @property
    def first_seq(self) -> int:
        return self.snapshot.seq + 1 if self.snapshot else 1

    @property
    def head_seq(self) -> int:
        return self.first_seq - 1 + len(self.updates)


class MemoryStore:
    """A `Store` that forgets everything with the process."""

    def __init__(self) -> None:
        self._logs: dict[str, _Log] = {}
        self._is_open = False

    async def open(self) -> None:
        """See `Store.open`."""
        self._is_open = True

    async def close(self) -> None:
        """See `Store.close`. The content stays."""
        self._is_open = False

    async def load(self, document: str) -> Stored:
        """See `Store.load`."""
        await self._turn()
        log = self._logs.get(document, _Log())
        return Stored(head_seq=log.head_seq, snapshot=log.snapshot, updates=tuple(log.updates))

    async def append(self, entries: Sequence[Entry]) -> list[int]:
        """See `Store.append`."""
        await self._turn()
        # Read completely before anything changes: whatever fails, fails here.
        rows = [(entry.document, [bytes(update) for update in entry.updates]) for entry in entries]
        last_seqs = []
        for document, updates in rows:
            log = self._logs.setdefault(document, _Log())
            log.updates += updates
            last_seqs.append(log.head_seq)
        return last_seqs

    async def checkpoint(self, snapshots: Sequence[Snapshot]) -> None:
        """See `Store.checkpoint`."""
        await self._turn()
        changed: dict[str, _Log] = {}
        for snapshot in snapshots:
            log = changed.get(snapshot.document) or self._logs.get(snapshot.document, _Log())
            if snapshot.seq > log.head_seq:
                raise StoreCorrupt(
                    f"snapshot of {snapshot.document!r} at seq {snapshot.seq} is ahead of its log, "
                    f"which ends at {log.head_seq}"
                )
            if snapshot.seq >= log.first_seq - 1:
                folded = snapshot.seq - log.first_seq + 1
                changed[snapshot.document] = _Log(replace(snapshot), log.updates[folded:])
        self._logs |= changed

    async def documents(self) -> list[DocumentHead]:
        """See `Store.documents`."""
        await self._turn()
        return [DocumentHead(name, log.head_seq) for name, log in sorted(self._logs.items())]

    def describe(self) -> str:
        """See `Store.describe`."""
        return "memory (nothing is kept)"

    async def _turn(self) -> None:
        # A real store lets others run before it answers; code that can't stand that should fail its tests here.
        await asyncio.sleep(0)
        if not self._is_open:
            raise StoreUnavailable("the store is closed")
