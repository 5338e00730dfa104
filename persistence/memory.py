"""The store contract in dicts: for tests, and for trying things out. Nothing survives the process.

It keeps its content over close and open, so that a test can restart a server on it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from persistence.blobs import pack_snapshot
from persistence.chunks import pack_rows, refuse_trimmed, rows_between, span_of, without_blob
from persistence.store import (
    QUARANTINED_MAX,
    REVOCATION_GRACE,
    ArchivedVersion,
    DocumentDeleted,
    DocumentExists,
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
    StoreCorrupt,
    Stored,
    StoreUnavailable,
    VersionContent,
    check_aware,
    check_digest,
    check_label,
    check_version,
)
from persistence.versions import VERSION_USERS_MAX, Chunk, Span, Version, VersionKind


@dataclass(slots=True)
class _Log:
    created_at: datetime
    snapshot: Snapshot | None = None
    rows: list[Row] = field(default_factory=list)  # after the snapshot
    deleted_at: datetime | None = None
    chunks: list[Chunk] = field(default_factory=list)
    versions: list[VersionContent | ArchivedVersion] = field(default_factory=list)
    last_version: int = 0

    @property
    def first_seq(self) -> int:
        return self.snapshot.seq + 1 if self.snapshot else 1

    @property
    def head_seq(self) -> int:
        return self.first_seq - 1 + len(self.rows)


class MemoryStore:
    """A `Store` that forgets everything with the process."""

    shared = False

    def __init__(self) -> None:
        self._logs: dict[str, _Log] = {}
        self._quarantined: dict[str, dict[bytes, datetime]] = {}
        self._revocations: dict[tuple[str, str], Revocation] = {}
        self._is_open = False

    async def open(self) -> None:
        """See `Store.open`."""
        self._is_open = True

    async def close(self) -> None:
        """See `Store.close`. The content stays."""
        self._is_open = False

    async def schema(self) -> Schema:
        """See `Store.schema`."""
        return Schema(1, 1)

    async def check(self) -> None:
        """See `Store.check`."""
        await self._turn()

    async def load(self, document: str, *, after: int = 0) -> Stored:
        """See `Store.load`."""
        await self._turn()
        log = self._log(document)
        quarantined = frozenset(self._quarantined.get(document, ()))
        if log is None:
            return Stored(head_seq=0, snapshot=None, updates=(), quarantined=quarantined)
        snapshot = log.snapshot if log.snapshot and log.snapshot.seq > after else None
        return Stored(log.head_seq, snapshot, tuple(row.update for row in log.rows if row.seq > after), quarantined)

    async def heads(self, documents: Sequence[str]) -> dict[str, int | None]:
        """See `Store.heads`."""
        await self._turn()
        logs = {name: self._logs[name] for name in documents if name in self._logs}
        return {name: None if log.deleted_at else log.head_seq for name, log in logs.items()}

    async def append(self, entries: Sequence[Entry]) -> list[int]:
        """See `Store.append`."""
        await self._turn()
        # Read completely before anything changes: whatever fails, fails here.
        updates_of = [[bytes(update) for update in entry.updates] for entry in entries]
        last_seqs = []
        for entry, updates in zip(entries, updates_of, strict=True):
            log = self._logs.setdefault(entry.document, _Log(entry.accepted_at))
            for update in updates:
                log.rows.append(Row(log.head_seq + 1, update, entry.user_id, entry.accepted_at))
            last_seqs.append(log.head_seq)
        return last_seqs

    async def checkpoint(self, snapshots: Sequence[Snapshot], *, keep_history: bool = True) -> frozenset[str]:
        """See `Store.checkpoint`."""
        await self._turn()
        for snapshot in snapshots:
            log = self._logs.get(snapshot.document)
            head_seq = log.head_seq if log else 0
            if snapshot.seq > head_seq:
                raise StoreCorrupt(
                    f"snapshot of {snapshot.document!r} at seq {snapshot.seq} is ahead of its log, "
                    f"which ends at {head_seq}"
                )
        for snapshot in snapshots:
            log = self._logs[snapshot.document]
            if snapshot.seq >= log.first_seq - 1:
                folded = [row for row in log.rows if row.seq <= snapshot.seq]
                log.chunks = log.chunks + pack_rows(folded) if keep_history else []
                log.rows = log.rows[len(folded) :]
                log.snapshot = snapshot
        return frozenset()

    async def timeline(self, document: str) -> list[Span]:
        """See `Store.timeline`."""
        await self._turn()
        log = self._logs.get(document)
        if log is None:
            return []
        return [*map(without_blob, log.chunks), *([span_of(log.rows)] if log.rows else [])]

    async def rows(self, document: str, *, first: int, last: int) -> list[Row]:
        """See `Store.rows`."""
        await self._turn()
        log = self._logs.get(document)
        if log is None:
            return []
        last = min(last, log.head_seq)
        if first > last:
            return []
        refuse_trimmed(document, first, log.chunks[0].first_seq if log.chunks else log.first_seq)
        chunks = [chunk for chunk in log.chunks if chunk.first_seq <= last and chunk.last_seq >= first]
        return rows_between(document, chunks, log.rows, first=first, last=last)

    async def trim_history(self, document: str, *, upto: int) -> bool:
        """See `Store.trim_history`."""
        await self._turn()
        log = self._logs.get(document)
        if log is not None:
            log.chunks = [chunk for chunk in log.chunks if chunk.last_seq > upto]
        return True

    async def versioned(self, *, start: str = "", limit: int | None = None) -> list[str]:
        """See `Store.versioned`."""
        await self._turn()
        names = sorted(name for name, log in self._logs.items() if log.chunks or log.versions)
        return [name for name in names if name >= start][:limit]

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
        check_version(at=at, kind=kind, label=label, user_id=user_id)
        await self._turn()
        log = self._logs.get(document)
        if log is None or log.snapshot is None:
            return None
        if unless_since is not None and any(one.version.taken_at > unless_since for one in log.versions):
            return None
        snapshot = log.snapshot
        same = [one.version for one in log.versions if one.version.seq == snapshot.seq]
        unlabelled = [version for version in same if version.label is None]
        if same and label is None:
            return None
        if unlabelled:
            self._label(log, unlabelled[-1].id, label)
            return replace(unlabelled[-1], label=label)
        log.last_version += 1
        version = Version(
            log.last_version,
            snapshot.seq,
            at,
            kind,
            label,
            user_id,
            users=_users_before(log, snapshot.seq),
            size_bytes=sum(map(len, pack_snapshot(snapshot))),
            whole=snapshot.whole,
        )
        log.versions.append(VersionContent(version, snapshot))
        return version

    async def versions(self, document: str) -> list[Version]:
        """See `Store.versions`."""
        await self._turn()
        log = self._logs.get(document)
        return [one.version for one in reversed(log.versions)] if log else []

    async def version(self, document: str, id: int) -> VersionContent | ArchivedVersion | None:
        """See `Store.version`."""
        await self._turn()
        log = self._logs.get(document)
        return next((one for one in log.versions if one.version.id == id), None) if log else None

    async def label_version(self, document: str, id: int, label: str | None) -> bool:
        """See `Store.label_version`."""
        check_label(label)
        await self._turn()
        log = self._logs.get(document)
        return log is not None and self._label(log, id, label)

    async def archive_version(self, document: str, version: Version, *, digest: bytes) -> bool:
        """See `Store.archive_version`."""
        check_digest(digest)
        await self._turn()
        log = self._logs.get(document)
        for i, one in enumerate(log.versions if log is not None else ()):
            same = (one.version.id, one.version.seq, one.version.taken_at) == (
                version.id,
                version.seq,
                version.taken_at,
            )
            if log is not None and same and not one.version.archived:
                log.versions[i] = ArchivedVersion(replace(one.version, archived=True), bytes(digest))
                return True
        return False

    async def delete_versions(self, document: str, ids: Sequence[int]) -> int:
        """See `Store.delete_versions`."""
        await self._turn()
        log = self._logs.get(document)
        if log is None:
            return 0
        before = len(log.versions)
        log.versions = [one for one in log.versions if one.version.id not in ids]
        return before - len(log.versions)

    async def delete(self, document: str, *, at: datetime) -> bool:
        """See `Store.delete`."""
        check_aware("at", at)
        await self._turn()
        log = self._logs.get(document)
        if log is None or log.deleted_at:
            return False
        log.deleted_at = at
        return True

    async def undelete(self, document: str) -> bool:
        """See `Store.undelete`."""
        await self._turn()
        log = self._logs.get(document)
        if log is None or not log.deleted_at:
            return False
        log.deleted_at = None
        return True

    async def purge(self, document: str) -> bool:
        """See `Store.purge`."""
        await self._turn()
        log = self._logs.get(document)
        if log is None or not log.deleted_at:
            return False
        del self._logs[document]
        self._quarantined.pop(document, None)
        return True

    async def documents(
        self, *, deleted: bool = False, start: str = "", limit: int | None = None
    ) -> list[DocumentHead]:
        """See `Store.documents`."""
        await self._turn()
        heads = [DocumentHead(name, log.head_seq, log.deleted_at) for name, log in sorted(self._logs.items())]
        return [head for head in heads if head.name >= start and (head.deleted_at is not None) == deleted][:limit]

    async def stats(self) -> list[DocumentStats]:
        """See `Store.stats`."""
        await self._turn()
        return [_stats(name, log) for name, log in sorted(self._logs.items())]

    async def size_bytes(self) -> int:
        """See `Store.size_bytes`. Nothing is on disk; this is what the bytes occupy in memory."""
        stats = await self.stats()
        return sum(one.log_bytes + one.snapshot_bytes + one.history_bytes + one.version_bytes for one in stats)

    async def export(self, document: str, *, deleted: bool = False, history: bool = False) -> Export | None:
        """See `Store.export`."""
        await self._turn()
        log = self._log(document, deleted=deleted)
        if log is None:
            return None
        export = Export(document, log.created_at, log.head_seq, log.snapshot, tuple(log.rows), log.deleted_at)
        return replace(export, chunks=tuple(log.chunks), versions=tuple(log.versions)) if history else export

    async def put(self, export: Export, *, replace: bool = False) -> None:
        """See `Store.put`."""
        await self._turn()
        there = self._log(export.document, deleted=export.deleted_at is not None)
        if there is not None and not replace:
            raise DocumentExists(f"{export.document!r} is in {self.describe()} already")
        self._logs[export.document] = _Log(
            export.created_at,
            export.snapshot,
            list(export.rows),
            export.deleted_at,
            list(export.chunks),
            list(export.versions),
            max((one.version.id for one in export.versions), default=0),
        )

    async def quarantine(self, document: str, digest: bytes, *, at: datetime) -> None:
        """See `Store.quarantine`."""
        one = Quarantined(document, digest, at)
        await self._turn()
        known = self._quarantined.setdefault(document, {})
        known[one.digest] = max(at, known.get(digest, at))
        newest = sorted(known, key=lambda each: (known[each], each), reverse=True)
        for digest in newest[QUARANTINED_MAX:]:
            del known[digest]

    async def quarantined(self) -> list[Quarantined]:
        """See `Store.quarantined`."""
        await self._turn()
        every = [
            Quarantined(document, digest, at)
            for document, known in self._quarantined.items()
            for digest, at in known.items()
        ]
        return sorted(every, key=lambda one: (one.document, one.at, one.digest))

    async def revoke(self, revocation: Revocation) -> None:
        """See `Store.revoke`."""
        await self._turn()
        key = (revocation.kind, revocation.value)
        old = self._revocations.get(key, revocation)
        self._revocations[key] = replace(
            revocation,
            revoked_at=max(old.revoked_at, revocation.revoked_at),
            until=max(old.until, revocation.until),
        )
        forgotten_at = revocation.revoked_at - REVOCATION_GRACE
        self._revocations = {key: one for key, one in self._revocations.items() if one.until > forgotten_at}

    async def unrevoke(self, kind: RevocationKind, value: str) -> bool:
        """See `Store.unrevoke`."""
        await self._turn()
        return self._revocations.pop((kind, value), None) is not None

    async def revocations(self, *, now: datetime) -> list[Revocation]:
        """See `Store.revocations`."""
        check_aware("now", now)
        await self._turn()
        return [one for _, one in sorted(self._revocations.items()) if one.until > now]

    async def facts(self) -> Facts:
        """See `Store.facts`."""
        return Facts("", datetime.now(UTC), {})

    def describe(self) -> str:
        """See `Store.describe`."""
        return "memory (nothing is kept)"

    def _log(self, document: str, *, deleted: bool = False) -> _Log | None:
        log = self._logs.get(document)
        if log is not None and log.deleted_at is not None and not deleted:
            raise DocumentDeleted(document, log.deleted_at)
        return log

    def _label(self, log: _Log, id_: int, label: str | None) -> bool:
        for i, one in enumerate(log.versions):
            if one.version.id == id_:
                log.versions[i] = replace(one, version=replace(one.version, label=label))
                return True
        return False

    async def _turn(self) -> None:
        # A real store lets others run before it answers; code that can't stand that should fail its tests here.
        await asyncio.sleep(0)
        if not self._is_open:
            raise StoreUnavailable("the store is closed")


def _stats(name: str, log: _Log) -> DocumentStats:
    snapshot = log.snapshot
    parts = (snapshot.state, snapshot.state_vector, *snapshot.waiting) if snapshot else ()
    return DocumentStats(
        name,
        log.head_seq,
        rows=len(log.rows),
        log_bytes=sum(len(row.update) for row in log.rows),
        snapshot_seq=snapshot.seq if snapshot else 0,
        snapshot_bytes=sum(map(len, parts)),
        oldest_unfolded_at=min((row.accepted_at for row in log.rows), default=None),
        deleted_at=log.deleted_at,
        history_bytes=sum(len(chunk.blob) for chunk in log.chunks),
        versions=len(log.versions),
        version_bytes=sum(one.version.size_bytes for one in log.versions if not one.version.archived),
    )


def _users_before(log: _Log, seq: int) -> tuple[str, ...]:
    """Who wrote what a version at `seq` has and the one before hasn't."""
    before = max((one.version.seq for one in log.versions if one.version.seq < seq), default=0)
    users = {
        user for chunk in log.chunks if before < chunk.first_seq <= seq for user in chunk.users if user is not None
    }
    return tuple(sorted(users)[:VERSION_USERS_MAX])
