"""The store contract on PostgreSQL: for production, and for any number of server processes.

Owns what is said to the database about documents. Leaves connections and what their failures mean to `postgres_link`,
tables to `postgres_schema`, a document's past to `postgres_history`, what must not come back to `postgres_refusals`.

Seqs are handed out from the document's row, which stays locked until the commit. So they become visible in order: who
has read seq 6 has seen 5. With a database sequence a reader could see 6 before 5 is committed, and skip 5 for good.
Several nodes append to one document at once all the time; they take turns for the length of a commit. Documents are
locked in the order of their names, so that two nodes can't wait for each other.

An append is one statement, and a transaction by itself: no client that dies in the middle of it can leave a lock
behind. If its answer is lost it may have been committed; it is then repeated, and its copies change nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from persistence import postgres_history
from persistence.blobs import PACK_INLINE_BYTES_MAX, pack_snapshot, unpack_snapshot
from persistence.postgres_link import Connection, Link
from persistence.postgres_refusals import (
    DIGESTS,
    forget_quarantined,
    quarantine,
    read_quarantined,
    read_revocations,
    revoke,
    unrevoke,
)
from persistence.postgres_schema import bring_up_to_date, read_schema
from persistence.store import (
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
from persistence.versions import Span, Version, VersionKind

# Arrays, one element a document: names in binary order, counts, times. Then, one element an update: which document
# (from 1), how many updates of the document follow it in this group, user, time, bytes.
#
# The documents' ids and new heads come as two arrays in the order of the names, so that an update finds its own by
# index. A join would do too, planned for ten rows whatever comes; it was slower by a third with thousands.
_APPEND: Final = """
WITH advanced AS (
    INSERT INTO crdt_sync.document AS d (name, head_seq, created_at)
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::timestamptz[])
    ON CONFLICT (name) DO UPDATE SET head_seq = d.head_seq + excluded.head_seq
    RETURNING id, name, head_seq
), heads AS (
    SELECT array_agg(id ORDER BY name COLLATE "C") AS ids, array_agg(head_seq ORDER BY name COLLATE "C") AS seqs
    FROM advanced
), appended AS (
    INSERT INTO crdt_sync.document_update (document_id, seq, user_id, accepted_at, "update")
    SELECT ids[document], seqs[document] - followers, user_id, accepted_at, bytes
    FROM heads, unnest($4::int[], $5::bigint[], $6::text[], $7::timestamptz[], $8::bytea[])
        AS u (document, followers, user_id, accepted_at, bytes)
)
SELECT seqs FROM heads
"""

# One row, whether there is such a document or not. The content of a deleted one is read if $3 says so.
_LOAD_HEAD: Final = f"""
SELECT id, created_at, head_seq, deleted_at, s.seq, state, waiting, state_vector,
    coalesce(whole_at = taken_at, false) AS whole, {DIGESTS}
FROM (VALUES (1)) AS one LEFT JOIN crdt_sync.document ON name = $1
LEFT JOIN crdt_sync.document_snapshot AS s ON document_id = id AND s.seq > $2 AND (deleted_at IS NULL OR $3)
"""

_HEADS: Final = """
SELECT name, CASE WHEN deleted_at IS NULL THEN head_seq END FROM crdt_sync.document WHERE name = ANY($1::text[])
"""

_SET_DELETED_AT: Final = """
UPDATE crdt_sync.document SET deleted_at = $2
WHERE name = $1 AND (deleted_at IS NULL) = ($2::timestamptz IS NOT NULL) RETURNING true
"""

# Waited for, unlike by a checkpoint. It keeps the next checkpoints out until commit.
_LOCK_FOR_PURGE: Final = """
SELECT id, pg_advisory_xact_lock(hashtextextended('crdt_sync checkpoint', id))
FROM crdt_sync.document WHERE name = $1 AND deleted_at IS NOT NULL
"""

# Each document's lock goes with the transaction; it is only tried for, never waited for. MATERIALIZED: for no other
# rows than these.
_LOCK_FOR_CHECKPOINT: Final = """
WITH wanted AS MATERIALIZED (
    SELECT id, name, head_seq, coalesce(s.seq, 0) AS folded_seq
    FROM crdt_sync.document LEFT JOIN crdt_sync.document_snapshot AS s ON document_id = id WHERE name = ANY($1::text[])
)
SELECT id, name, head_seq, folded_seq, pg_try_advisory_xact_lock(hashtextextended('crdt_sync checkpoint', id)) AS mine FROM wanted
"""
# Looks again whether the documents are there: a purge may have ended between the lock and the look that came with it.
_WRITE_SNAPSHOTS: Final = """
INSERT INTO crdt_sync.document_snapshot AS old (document_id, seq, taken_at, whole_at, state_vector, waiting, state)
SELECT document_id, seq, now(), CASE WHEN whole THEN now() END, state_vector, waiting, state
FROM unnest($1::bigint[], $2::bigint[], $3::boolean[], $4::bytea[], $5::bytea[], $6::bytea[])
    AS new (document_id, seq, whole, state_vector, waiting, state)
WHERE EXISTS (SELECT FROM crdt_sync.document WHERE id = new.document_id)
ON CONFLICT (document_id) DO UPDATE SET seq = excluded.seq, taken_at = excluded.taken_at,
    whole_at = excluded.whole_at, state_vector = excluded.state_vector, waiting = excluded.waiting, state = excluded.state
WHERE old.seq <= excluded.seq
RETURNING document_id
"""
# Read from the table, by a statement that sees what the former wrote; hashed there, so that it needn't travel.
_READ_SNAPSHOTS_BACK: Final = """
SELECT document_id, seq, coalesce(whole_at = taken_at, false) AS whole, sha256(state_vector) AS state_vector, sha256(waiting) AS waiting, sha256(state) AS state
FROM crdt_sync.document_snapshot WHERE document_id = ANY($1::bigint[])
"""

# Fails if a table is missing or may not be read.
_SETTINGS: Final = ("max_connections", "synchronous_commit", "fsync", "full_page_writes")
_FACTS: Final = f"""
SELECT current_setting('server_version'), clock_timestamp(), (SELECT count(*) FROM pg_stat_activity),
    CASE WHEN pg_is_in_recovery() THEN 'on' ELSE 'off' END, {", ".join(f"current_setting('{name}')" for name in _SETTINGS)}
"""

_CHECK: Final = """
SELECT current_setting('transaction_read_only') FROM (VALUES (1)) AS one
LEFT JOIN (
    SELECT FROM crdt_sync.document, crdt_sync.document_update, crdt_sync.document_snapshot,
        crdt_sync.document_history, crdt_sync.document_version, crdt_sync.quarantined_update, crdt_sync.revocation
    LIMIT 0
) AS t ON true
"""

# Leaves nothing behind in tables, and yet fails if an append would. What outgrows `work_mem` goes to a file beside the
# tables, so a full disk is noticed that the log, whose files are there beforehand, would notice last. The message goes
# through the log, to the disk and to synchronous standbys, as any commit. Nobody reads it.
_WRITE_NOTHING: Final = """
BEGIN; SET LOCAL work_mem = '64kB';
SELECT count(*) FROM generate_series(1, 10000);
SELECT pg_logical_emit_message(true, 'crdt_sync', 'check'::text);
COMMIT
"""

_STATS: Final = """
SELECT name, head_seq, coalesce(rows, 0) AS rows, coalesce(log_bytes, 0)::bigint AS log_bytes,
    coalesce(s.seq, 0) AS snapshot_seq,
    coalesce(octet_length(state) + octet_length(waiting) + octet_length(state_vector), 0) AS snapshot_bytes, oldest_at,
    deleted_at, coalesce(history_bytes, 0)::bigint AS history_bytes, coalesce(versions, 0) AS versions,
    coalesce(version_bytes, 0)::bigint AS version_bytes
FROM crdt_sync.document AS d LEFT JOIN crdt_sync.document_snapshot AS s ON s.document_id = d.id
LEFT JOIN (
    SELECT document_id, count(*) AS rows, sum(octet_length("update")) AS log_bytes, min(accepted_at) AS oldest_at
    FROM crdt_sync.document_update GROUP BY document_id
) AS u ON u.document_id = d.id
LEFT JOIN (
    SELECT document_id, sum(octet_length(blob)) AS history_bytes FROM crdt_sync.document_history GROUP BY document_id
) AS h ON h.document_id = d.id
LEFT JOIN (
    SELECT document_id, count(*) AS versions,
        sum(size_bytes) FILTER (WHERE octet_length(state) + octet_length(waiting) > 0) AS version_bytes
    FROM crdt_sync.document_version GROUP BY document_id
) AS v ON v.document_id = d.id
ORDER BY name
"""


class PostgresStore:
    """A `Store` in one PostgreSQL database. See `open_store` for the arguments."""

    shared = True

    def __init__(
        self, url: str, *, replica_url: str | None, migrate: bool, timeout_s: float, connections_max: int
    ) -> None:
        # Loading many rooms must not keep the journal waiting, nor a checkpoint of megabytes. Small writes take turns
        # with the reads.
        pools = {"append": 1, "checkpoint": 1, "read": max(1, connections_max - 2)}
        self._primary = Link(url, pools=pools, timeout_s=timeout_s)
        self._replica: Link | None = None
        if replica_url is not None:
            self._replica = Link(
                replica_url, pools={"read": max(1, connections_max)}, timeout_s=timeout_s, standby_ok=True
            )
        self._migrate = migrate
        self._is_open = False

    async def open(self) -> None:
        """See `Store.open`."""
        if self._is_open:
            return
        try:
            await self._primary.open()
            await bring_up_to_date(self._primary, migrate=self._migrate)
            if self._replica is not None:
                await self._replica.open()
        except BaseException:
            await self.close()
            raise
        self._is_open = True

    async def close(self) -> None:
        """See `Store.close`."""
        self._is_open = False
        await self._primary.close()
        if self._replica is not None:
            await self._replica.close()

    async def schema(self) -> Schema:
        """See `Store.schema`."""
        if self._is_open:
            return await self._read_schema()
        try:
            await self._primary.open()
            return await self._read_schema()
        finally:
            await self._primary.close()

    async def check(self) -> None:
        """See `Store.check`."""
        link = self._primary
        async with link.connection("read", "check") as connection:
            async with link.statement(connection):
                read_only = await connection.fetchval(_CHECK)
            if read_only == "on":
                raise StoreUnavailable(f"{self.describe()} is read-only")
            await connection.execute(_WRITE_NOTHING)

    async def facts(self) -> Facts:
        """See `Store.facts`. Settings are PostgreSQL's own, with `connections` (how many it has), `pooled`, `standby`."""
        link = self._primary
        async with link.connection("read", "reading facts") as connection, link.statement(connection):
            version, now, *values = await connection.fetchrow(_FACTS)
        settings = dict(zip(("connections", "standby", *_SETTINGS), map(str, values), strict=True))
        return Facts(version, now, settings | {"pooled": "on" if link.pooled else "off"})

    async def load(self, document: str, *, after: int = 0) -> Stored:
        """See `Store.load`."""
        async with (
            self._primary.connection("read", f"load of {document!r}") as connection,
            self._primary.transaction(connection, "ISOLATION LEVEL REPEATABLE READ READ ONLY"),
        ):
            export, quarantined = await _read(connection, document, after)
        if export is None:
            return Stored(head_seq=0, snapshot=None, updates=(), quarantined=quarantined)
        _refuse_deleted(export)
        return Stored(export.head_seq, export.snapshot, tuple([row.update for row in export.rows]), quarantined)

    async def heads(self, documents: Sequence[str]) -> dict[str, int | None]:
        """See `Store.heads`."""
        link = self._primary
        async with link.connection("read", "reading heads") as connection, link.statement(connection):
            return dict(await connection.fetch(_HEADS, list(documents)))

    async def append(self, entries: Sequence[Entry]) -> list[int]:
        """See `Store.append`."""
        if not entries:
            return []
        names, arguments, followers = _append_arguments(entries)
        async with (
            self._primary.connection("append", f"append of {len(arguments[-1])} updates") as connection,
            self._primary.statement(connection),
        ):
            seqs = await connection.fetchval(_APPEND, *arguments)
        heads = dict(zip(names, seqs, strict=True))
        return [heads[entry.document] - left for entry, left in zip(entries, followers, strict=True)]

    async def checkpoint(self, snapshots: Sequence[Snapshot], *, keep_history: bool = True) -> frozenset[str]:
        """See `Store.checkpoint`."""
        if not snapshots:
            return frozenset()
        by_name = {snapshot.document: snapshot for snapshot in snapshots}
        blobs = await _pack_all(snapshots)
        async with (
            self._primary.connection("checkpoint", f"checkpoint of {len(by_name)} documents") as connection,
            self._primary.transaction(connection),
        ):
            found = {row["name"]: row for row in await connection.fetch(_LOCK_FOR_CHECKPOINT, list(by_name))}
            for name, snapshot in by_name.items():
                _check_not_ahead(snapshot, found[name]["head_seq"] if name in found else 0)
            mine = {row["id"]: by_name[name] for name, row in found.items() if row["mine"]}
            before = {row["id"]: row["folded_seq"] for row in found.values()}
            written = await _write_snapshots(
                connection, {id_: (one.seq, one.whole, *blobs[one.document]) for id_, one in mine.items()}
            )
            folded = [(id_, before[id_], mine[id_].seq) for id_ in written]
            if keep_history:
                await postgres_history.move_to_history(connection, folded)
            else:
                await postgres_history.drop_with_history(connection, folded)
        return frozenset(name for name, row in found.items() if not row["mine"])

    async def timeline(self, document: str) -> list[Span]:
        """See `Store.timeline`."""
        return await postgres_history.read_timeline(self._primary, document)

    async def rows(self, document: str, *, first: int, last: int) -> list[Row]:
        """See `Store.rows`."""
        return await postgres_history.read_rows(self._primary, document, first=first, last=last)

    async def trim_history(self, document: str, *, upto: int) -> bool:
        """See `Store.trim_history`."""
        return await postgres_history.trim_history(self._primary, document, upto=upto)

    async def versioned(self, *, start: str = "", limit: int | None = None) -> list[str]:
        """See `Store.versioned`."""
        return await postgres_history.names_with_past(self._replica or self._primary, start=start, limit=limit)

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
        return await postgres_history.take_version(
            self._primary, document, at=at, kind=kind, label=label, user_id=user_id, unless_since=unless_since
        )

    async def versions(self, document: str) -> list[Version]:
        """See `Store.versions`."""
        return await postgres_history.read_versions(self._primary, document)

    async def version(self, document: str, id: int) -> VersionContent | ArchivedVersion | None:
        """See `Store.version`."""
        return await postgres_history.read_version(self._primary, document, id)

    async def label_version(self, document: str, id: int, label: str | None) -> bool:
        """See `Store.label_version`."""
        check_label(label)
        return await postgres_history.label_version(self._primary, document, id, label)

    async def archive_version(self, document: str, version: Version, *, digest: bytes) -> bool:
        """See `Store.archive_version`."""
        check_digest(digest)
        return await postgres_history.archive_version(self._primary, document, version, digest)

    async def delete_versions(self, document: str, ids: Sequence[int]) -> int:
        """See `Store.delete_versions`."""
        return await postgres_history.delete_versions(self._primary, document, ids)

    async def delete(self, document: str, *, at: datetime) -> bool:
        """See `Store.delete`."""
        check_aware("at", at)
        return await self._set_deleted_at(document, at)

    async def undelete(self, document: str) -> bool:
        """See `Store.undelete`."""
        return await self._set_deleted_at(document, None)

    async def purge(self, document: str) -> bool:
        """See `Store.purge`.

        Several statements, so that each sees what was committed before it got its lock.
        """
        link = self._primary
        async with link.connection("read", f"purge of {document!r}") as connection, link.transaction(connection):
            id_ = await connection.fetchval(_LOCK_FOR_PURGE, document)
            # From here on, appends wait, and make a new document then.
            purged = await connection.fetchval(
                "DELETE FROM crdt_sync.document WHERE id = $1 AND deleted_at IS NOT NULL RETURNING true", id_
            )
            if purged:
                await _forget_content(connection, id_)
                await forget_quarantined(connection, document)
        return purged is not None

    async def documents(
        self, *, deleted: bool = False, start: str = "", limit: int | None = None
    ) -> list[DocumentHead]:
        """See `Store.documents`."""
        rows = await self._fetch_for_tools(
            "list of documents",
            "SELECT name, head_seq, deleted_at FROM crdt_sync.document "
            "WHERE (deleted_at IS NOT NULL) = $1 AND name >= $2 ORDER BY name LIMIT $3",
            deleted,
            start,
            limit,
        )
        return [DocumentHead(*row) for row in rows]

    async def stats(self) -> list[DocumentStats]:
        """See `Store.stats`."""
        return [DocumentStats(*row) for row in await self._fetch_for_tools("statistics", _STATS)]

    async def size_bytes(self) -> int:
        """See `Store.size_bytes`."""
        ((size,),) = await self._fetch_for_tools(
            "size",
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class AS c "
            "JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = 'crdt_sync' AND relkind = 'r'",
        )
        return int(size)

    async def export(self, document: str, *, deleted: bool = False, history: bool = False) -> Export | None:
        """See `Store.export`."""
        link = self._replica or self._primary
        async with (
            link.connection("read", f"export of {document!r}") as connection,
            link.transaction(connection, "ISOLATION LEVEL REPEATABLE READ READ ONLY"),
        ):
            export, _ = await _read(connection, document, 0, deleted=deleted, history=history)
        if export is not None and not deleted:
            _refuse_deleted(export)
        return export

    async def put(self, export: Export, *, replace: bool = False) -> None:
        """See `Store.put`."""
        name, snapshot = export.document, export.snapshot
        async with (
            self._primary.connection("checkpoint", f"put of {name!r}") as connection,
            self._primary.transaction(connection),
        ):
            old = await connection.fetchrow(
                "SELECT id, deleted_at FROM crdt_sync.document WHERE name = $1 FOR UPDATE", name
            )
            if old is not None and old["deleted_at"] is not None and export.deleted_at is None:
                raise DocumentDeleted(name, old["deleted_at"])
            if old is not None and not replace:
                raise DocumentExists(f"{name!r} is in {self.describe()} already")
            if old is not None:
                await _forget_content(connection, old["id"])
                await connection.execute("DELETE FROM crdt_sync.document WHERE id = $1", old["id"])
            id_ = await connection.fetchval(
                "INSERT INTO crdt_sync.document (name, head_seq, created_at, deleted_at) VALUES ($1, $2, $3, $4) "
                "RETURNING id",
                *(name, export.head_seq, export.created_at, export.deleted_at),
            )
            if snapshot is not None:
                blobs = (await _pack_all([snapshot]))[name]
                await _write_snapshots(connection, {id_: (snapshot.seq, snapshot.whole, *blobs)})
            await connection.copy_records_to_table(
                "document_update",
                schema_name="crdt_sync",
                columns=("document_id", "seq", "update", "user_id", "accepted_at"),
                records=[(id_, *row) for row in export.rows],
            )
            await postgres_history.write_chunks(connection, [(id_, chunk) for chunk in export.chunks])
            await postgres_history.write_versions(connection, id_, export.versions)

    async def quarantine(self, document: str, digest: bytes, *, at: datetime) -> None:
        """See `Store.quarantine`."""
        await quarantine(self._primary, Quarantined(document, digest, at))

    async def quarantined(self) -> list[Quarantined]:
        """See `Store.quarantined`."""
        return await read_quarantined(self._replica or self._primary)

    async def revoke(self, revocation: Revocation) -> None:
        """See `Store.revoke`."""
        await revoke(self._primary, revocation)

    async def unrevoke(self, kind: RevocationKind, value: str) -> bool:
        """See `Store.unrevoke`."""
        return await unrevoke(self._primary, kind, value)

    async def revocations(self, *, now: datetime) -> list[Revocation]:
        """See `Store.revocations`."""
        check_aware("now", now)
        return await read_revocations(self._primary, now)

    def describe(self) -> str:
        """See `Store.describe`."""
        return self._primary.describe()

    async def _set_deleted_at(self, document: str, at: datetime | None) -> bool:
        """Set or clear the mark; return whether that changed it."""
        link = self._primary
        what = f"{'undeletion' if at is None else 'deletion'} of {document!r}"
        async with link.connection("read", what) as connection, link.statement(connection):
            return await connection.fetchval(_SET_DELETED_AT, document, at) is not None

    async def _read_schema(self) -> Schema:
        link = self._primary
        async with link.connection("read", "reading the schema") as connection, link.transaction(connection):
            return await read_schema(connection)

    async def _fetch_for_tools(self, what: str, query: str, *arguments: object) -> list[Any]:
        link = self._replica or self._primary
        async with link.connection("read", what) as connection, link.statement(connection):
            return list(await connection.fetch(query, *arguments))


def _append_arguments(entries: Sequence[Entry]) -> tuple[list[str], tuple[list[Any], ...], list[int]]:
    """Turn entries into what `_APPEND` takes.

    Returns:
        The documents' names in binary order; the arguments; for each entry, how many updates of its document follow
        after its last one.
    """
    updates_of = [[bytes(update) for update in entry.updates] for entry in entries]
    counts: Counter[str] = Counter()
    created_at: dict[str, Any] = {}
    for entry, updates in zip(entries, updates_of, strict=True):
        counts[entry.document] += len(updates)
        created_at.setdefault(entry.document, entry.accepted_at)
    names = sorted(counts, key=str.encode)
    index = {name: i for i, name in enumerate(names, start=1)}

    left = dict(counts)
    followers = []
    documents: list[int] = []
    following: list[int] = []
    users: list[str | None] = []
    times: list[Any] = []
    for entry, updates in zip(entries, updates_of, strict=True):
        count, name = len(updates), entry.document
        documents += [index[name]] * count
        following += range(left[name] - 1, left[name] - 1 - count, -1)
        users += [entry.user_id] * count
        times += [entry.accepted_at] * count
        left[name] -= count
        followers.append(left[name])
    flat = [update for updates in updates_of for update in updates]
    heads = (names, [counts[name] for name in names], [created_at[name] for name in names])
    return names, (*heads, documents, following, users, times, flat), followers


def _refuse_deleted(export: Export) -> None:
    # Not while a connection is borrowed: it would be thrown away.
    if export.deleted_at is not None:
        raise DocumentDeleted(export.document, export.deleted_at)


async def _read(
    connection: Connection, document: str, after: int, *, deleted: bool = False, history: bool = False
) -> tuple[Export | None, frozenset[bytes]]:
    """Read a document, and what is quarantined of it, in a transaction that sees one moment.

    Of one that was deleted, the content is read only if wanted.
    """
    head = await connection.fetchrow(_LOAD_HEAD, document, after, deleted)
    id_, created_at, head_seq, deleted_at, snapshot_seq, state, waiting, state_vector, whole, digests = head
    quarantined = frozenset(digests)
    if id_ is None:
        return None, quarantined
    if deleted_at is not None and not deleted:
        return Export(document, created_at, head_seq, None, (), deleted_at), quarantined
    snapshot = None
    if snapshot_seq is not None:
        snapshot = unpack_snapshot(
            document, snapshot_seq, state_vector=state_vector, waiting=waiting, state=state, whole=whole
        )
    first = max(after, snapshot_seq or 0) + 1
    rows = await postgres_history.read_log(connection, id_, first=first, last=head_seq)
    if [row.seq for row in rows] != list(range(first, head_seq + 1)):
        raise StoreCorrupt(f"an update of {document!r} is missing: its log should have {first} to {head_seq}")
    export = Export(document, created_at, head_seq, snapshot, tuple(rows), deleted_at)
    if history:
        chunks = tuple(await postgres_history.read_chunks(connection, id_))
        export = replace(export, chunks=chunks, versions=await postgres_history.read_all_versions(connection, document))
    return export, quarantined


async def _forget_content(connection: Connection, id_: int) -> None:
    for table in ("document_update", "document_snapshot", "document_history", "document_version"):
        await connection.execute(f"DELETE FROM crdt_sync.{table} WHERE document_id = $1", id_)


async def _write_snapshots(connection: Connection, rows: dict[int, tuple[int, bool, bytes, bytes, bytes]]) -> list[int]:
    """Write snapshots and read them back.

    Args:
        connection: In a transaction.
        rows: By document id: seq, whether it is whole, state vector, waiting, state.

    Returns:
        The ids of those that were written. The others' stored snapshots are newer, or they were purged.

    Raises:
        StoreCorrupt: What reads back is something else.
    """
    columns = zip(*((id_, *row) for id_, row in rows.items()), strict=True) if rows else [()] * 6
    written = [row[0] for row in await connection.fetch(_WRITE_SNAPSHOTS, *(list(column) for column in columns))]
    read_back = {row[0]: tuple(row)[1:] for row in await connection.fetch(_READ_SNAPSHOTS_BACK, written)}
    for id_ in written:
        seq, whole, *blobs = rows[id_]
        if read_back.get(id_) != (seq, whole, *(sha256(blob).digest() for blob in blobs)):
            raise StoreCorrupt(f"the snapshot of document {id_} at seq {seq} read back different")
    return written


async def _pack_all(snapshots: Sequence[Snapshot]) -> dict[str, tuple[bytes, bytes, bytes]]:
    """By document: state vector, waiting and state, as they are stored."""

    def pack_them() -> dict[str, tuple[bytes, bytes, bytes]]:
        return {one.document: pack_snapshot(one) for one in snapshots}

    if sum(len(one.state) for one in snapshots) <= PACK_INLINE_BYTES_MAX:
        return pack_them()
    return await asyncio.to_thread(pack_them)


def _check_not_ahead(snapshot: Snapshot, head_seq: int) -> None:
    if snapshot.seq > head_seq:
        raise StoreCorrupt(
            f"snapshot of {snapshot.document!r} at seq {snapshot.seq} is ahead of its log, which ends at {head_seq}"
        )
