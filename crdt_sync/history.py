"""What a document was: as of a seq, as of a moment, as of a version.

Owns how what is kept is put together again: the newest version that has exactly the updates up to its seq, or nothing
at all if the log is kept from its beginning, and the rows that follow. Where that is no longer kept, the nearest
version has to do, and says so.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from persistence import HistoryTrimmed, Row, Snapshot, Span, Store, Version, VersionArchive, VersionContent

from .archiving import read_version
from .pacing import Turns
from .replay import replaying


class NoSuchPast(Exception):
    """Nothing is kept of what was asked for. The text says what is."""


@dataclass(frozen=True, slots=True)
class Past:
    """What a document was."""

    seq: int
    """Of the last update in it; 0 before the first."""
    update: bytes
    """All that was shown, as one update."""
    exact: bool
    """Whether it is that, and not the nearest version before it."""
    version: Version | None = None
    """The version that it is, if it is one."""


class History:
    """The past of the documents of one store.

    Args:
        store: Open.
        turns: For putting documents together, shared with all long work of the process.
        archive: Where the content of old versions is, if there is one.
    """

    def __init__(self, store: Store, turns: Turns | None = None, archive: VersionArchive | None = None) -> None:
        self._store = store
        self._archive = archive
        self._turns = turns or Turns()

    async def at_version(self, document: str, id: int) -> Past:
        """Read a version.

        Raises:
            NoSuchPast: There is none of that id.
            StoreError: It can't be read.
        """
        found = await self._version(document, id)
        if found is None:
            raise NoSuchPast(f"{document!r} has no version {id}")
        return Past(found.version.seq, await self._update(found.snapshot, []), True, found.version)

    async def at_seq(self, document: str, seq: int) -> Past:
        """Read a document as of one of its updates.

        Args:
            document: Its name.
            seq: 0 for before the first.

        Raises:
            NoSuchPast: It has no such update, or nothing is kept from so long ago.
            StoreError: It can't be read.
        """
        head_seq = await self._head_seq(document)
        if seq > head_seq:
            raise NoSuchPast(f"{document!r} has no update {seq}: its last one is {head_seq}")
        return await self._read(document, seq, await self._store.timeline(document))

    async def at_time(self, document: str, moment: datetime) -> Past:
        """Read a document as of a moment: with all that was accepted until then.

        Raises:
            NoSuchPast: Nothing is kept from so long ago.
            StoreError: It can't be read.
        """
        head_seq = await self._head_seq(document)
        spans = await self._store.timeline(document)
        seq = await self._seq_at(document, moment, spans)
        if seq is not None:
            return await self._read(document, seq, spans)
        earlier = [one for one in await self._store.versions(document) if one.taken_at <= moment]
        past = await self._nearest(document, earlier, moment.isoformat(timespec="seconds"))
        # If the update after it is the first that is kept, that came after the moment.
        is_last = past.seq + 1 == (spans[0].first_seq if spans else head_seq + 1)
        return replace(past, exact=is_last and past.version is not None and past.version.whole)

    async def rows(self, document: str, *, after: int, upto: int) -> list[Row]:
        """The updates after a seq up to another, as far as they are kept: the last of them, without gaps.

        Raises:
            StoreError: They can't be read.
        """
        spans = await self._store.timeline(document)
        first = max(after + 1, spans[0].first_seq if spans else upto + 1)
        try:
            return await self._store.rows(document, first=first, last=upto) if first <= upto else []
        except HistoryTrimmed:  # just now
            return []

    async def _read(self, document: str, seq: int, spans: list[Span]) -> Past:
        kept_from = spans[0].first_seq if spans else None
        versions = [one for one in await self._store.versions(document) if one.seq <= seq]
        base = next((one for one in versions if one.whole), None)
        based_on = base.seq if base is not None else 0
        stored = await self._store.load(document)
        if stored.snapshot is not None and stored.snapshot.whole and based_on <= stored.snapshot.seq <= seq:
            snapshot: Snapshot | None = stored.snapshot
            based_on = stored.snapshot.seq
        elif base is not None:
            content = await self._version(document, base.id)
            if content is None:  # deleted just now
                return await self._read(document, seq, spans)
            snapshot = content.snapshot
        else:
            snapshot = None
        if based_on < seq and (kept_from is None or kept_from > based_on + 1):
            return await self._nearest(document, versions, f"seq {seq}")
        rows = await self._store.rows(document, first=based_on + 1, last=seq) if based_on < seq else []
        update = await self._update(snapshot, [row.update for row in rows], stored.quarantined)
        return Past(seq, update, True, base if base is not None and base.seq == seq else None)

    async def _nearest(self, document: str, versions: list[Version], wanted: str) -> Past:
        if not versions:
            raise NoSuchPast(f"nothing is kept of {document!r} from {wanted} or before")
        content = await self._version(document, versions[0].id)
        if content is None:
            return await self._nearest(document, versions[1:], wanted)
        return Past(content.version.seq, await self._update(content.snapshot, []), False, content.version)

    async def _seq_at(self, document: str, moment: datetime, spans: list[Span]) -> int | None:
        """Seq of the last update that was accepted until then; 0 if that is none; None if that isn't kept."""
        # Nodes' clocks differ, so times may go back a little. Later spans that begin later are out all the same.
        for span in reversed(spans):
            if span.until_at <= moment:
                return span.last_seq
            if span.from_at <= moment:
                rows = await self._store.rows(document, first=span.first_seq, last=span.last_seq)
                return max(row.seq for row in rows if row.accepted_at <= moment)
        return 0 if spans and spans[0].first_seq == 1 else None

    async def _version(self, document: str, id: int) -> VersionContent | None:
        return await read_version(self._store, self._archive, document, id)

    async def _head_seq(self, document: str) -> int:
        head_seq = (await self._store.heads([document])).get(document)
        if head_seq is None:
            raise NoSuchPast(f"there is no document {document!r}")
        return head_seq

    async def _update(
        self, snapshot: Snapshot | None, updates: list[bytes], harmful: frozenset[bytes] = frozenset()
    ) -> bytes:
        if snapshot is not None and not updates and not snapshot.waiting:
            return snapshot.state
        document = await self._turns.take_large(replaying(snapshot, updates, harmful))
        return await self._turns.take(document.diffing(b"\x00"))
