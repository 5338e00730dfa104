"""The store contract on one SQLite file: the embedded default, for one server process.

Owns what is said about documents and the two threads that talk to the file. Leaves the file itself, its schema and the
lock that keeps other servers out to `sqlite_file`, what must not come back to `sqlite_refusals`, and a document's past
to `sqlite_history`. A confirmed
append survives power loss: in WAL mode with `synchronous=FULL` SQLite flushes the WAL at every commit (seen with
strace: one `fdatasync` of the -wal file per COMMIT, none with NORMAL).

One thread writes, one reads, so that loading a document doesn't queue behind a commit. Only one connection commits and
checkpoints, and it should stay so: up to 3.51.2, SQLite's "WAL-reset" bug can damage a database in which one connection
commits while another checkpoints.

The GIL shapes the SQL. `sqlite3` gives it up at every step of a statement, and gets it back from a busy event loop
only after the switch interval (5 ms): `executemany` of 1,000 rows took 2 ms beside an idle thread and 1.3 to 2.1 s
beside a busy one, fetching 2,000 rows 0.6 ms and 0.3 to 1.6 s. So append and load take few steps, however many rows
there are.
"""

import asyncio
import os
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from persistence import sqlite_history
from persistence.blobs import decode_waiting, encode_waiting
from persistence.moments import micros, moment
from persistence.sqlite_file import Connection, File, filesystem
from persistence.sqlite_refusals import (
    DIGESTS,
    quarantine,
    read_digests,
    read_quarantined,
    read_revocations,
    revoke,
    unrevoke,
)
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

T = TypeVar("T")

_BATCH_ROWS: Final = 256  # times 5 columns = 1,280 parameters; SQLite takes 32,766 since 3.32
_BATCH_UPDATE_BYTES_MAX: Final = 64 * 1024  # binding copies, so a batch holds 16 MiB twice at most
_PAGE_ROWS: Final = 4096
_READS_TOGETHER: Final = 16
_PAGE_UPDATE_BYTES_MAX: Final = 4096  # as hex, so a page has 32 MiB at most; larger updates are read one by one

_STATS: Final = """
SELECT name, head_seq, coalesce(rows, 0), coalesce(log_bytes, 0), coalesce(s.seq, 0),
    coalesce(length(state) + length(waiting) + length(state_vector), 0), oldest_at, deleted_at,
    coalesce((SELECT sum(length(blob)) FROM document_history AS h WHERE h.document_id = document.id), 0),
    (SELECT count(*) FROM document_version AS v WHERE v.document_id = document.id),
    coalesce((
        SELECT sum(size_bytes) FROM document_version AS v WHERE v.document_id = document.id AND length(state) + length(waiting) > 0
    ), 0)
FROM document LEFT JOIN document_snapshot AS s ON s.document_id = document.id
LEFT JOIN (
    SELECT document_id, count(*) AS rows, sum(length("update")) AS log_bytes, min(accepted_at) AS oldest_at
    FROM document_update GROUP BY document_id
) AS u ON u.document_id = document.id
ORDER BY name
"""


class SqliteStore:
    """A `Store` in one SQLite file, which only this object may use while it is open, unless it only reads."""

    shared = False

    def __init__(self, path: str | os.PathLike[str], *, migrate: bool = True, read_only: bool = False) -> None:
        self._file = File(Path(os.path.abspath(path)), migrate=migrate, read_only=read_only)
        self._writer = Connection(self._file, writes=True)
        self._reader = Connection(self._file, writes=False)
        self._threads: tuple[ThreadPoolExecutor, ThreadPoolExecutor] | None = None
        # What the reading thread has yet to do, and whether it does something.
        self._reads: list[tuple[Callable[[], object], asyncio.Future[Any]]] = []
        self._reading = False

    async def open(self) -> None:
        """See `Store.open`. Creates the file, not its folder."""
        if self._threads is not None:
            return
        self._threads = (
            ThreadPoolExecutor(1, thread_name_prefix="sqlite-write"),
            ThreadPoolExecutor(1, thread_name_prefix="sqlite-read"),
        )
        try:
            await self._run(0, self._file.open)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See `Store.close`."""
        if self._threads is None:
            return
        (write_thread, read_thread), self._threads = self._threads, None

        def close_all() -> None:
            read_thread.submit(self._reader.close).result()
            self._writer.close()
            self._file.close()

        try:
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(write_thread, close_all))
        finally:
            read_thread.shutdown(wait=False)
            write_thread.shutdown(wait=False)

    async def schema(self) -> Schema:
        """See `Store.schema`."""
        return await asyncio.to_thread(self._file.schema)

    async def check(self) -> None:
        """See `Store.check`."""

        def write_nothing() -> None:
            with self._writer.transaction("check", "BEGIN IMMEDIATE") as connection:
                # Is written even if it is the same: a page of the log, flushed to the disk like that of an append.
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                connection.execute(f"PRAGMA user_version = {version}")

        await self._run(0, write_nothing)

    async def facts(self) -> Facts:
        """See `Store.facts`. Settings are SQLite's own, with `free_bytes` and `filesystem` of where the file is."""

        def read() -> dict[str, str]:
            with self._reader.transaction("facts", "BEGIN") as connection:
                pragmas = ("journal_mode", "synchronous")
                settings = {name: str(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in pragmas}
            folder = self._file.path.parent
            return settings | {"free_bytes": str(shutil.disk_usage(folder).free), "filesystem": filesystem(folder)}

        return Facts(sqlite3.sqlite_version, datetime.now(UTC), await self._run(1, read))

    async def load(self, document: str, *, after: int = 0) -> Stored:
        """See `Store.load`."""

        def read() -> tuple[Stored, datetime | None]:
            with self._reader.transaction(f"load of {document!r}", "BEGIN") as connection:
                return _load(connection, document, after)

        stored, deleted_at = await self._run(1, read)
        if deleted_at is not None:
            raise DocumentDeleted(document, deleted_at)
        return stored

    async def heads(self, documents: Sequence[str]) -> dict[str, int | None]:
        """See `Store.heads`."""

        def read() -> dict[str, int | None]:
            with self._reader.transaction("reading heads", "BEGIN") as connection:
                found: dict[str, int | None] = {}
                for batch in _batches(list(documents)):
                    marks = ",".join("?" * len(batch))
                    found.update(
                        connection.execute(
                            "SELECT name, CASE WHEN deleted_at IS NULL THEN head_seq END FROM document "
                            f"WHERE name IN ({marks})",
                            batch,
                        )
                    )
                return found

        return await self._run(1, read)

    async def append(self, entries: Sequence[Entry]) -> list[int]:
        """See `Store.append`."""

        def write() -> list[int]:
            rows = sum(len(entry.updates) for entry in entries)
            with self._writer.transaction(f"append of {rows} updates", "BEGIN IMMEDIATE") as connection:
                return _append(connection, entries)

        return await self._run(0, write)

    async def checkpoint(self, snapshots: Sequence[Snapshot], *, keep_history: bool = True) -> frozenset[str]:
        """See `Store.checkpoint`. Reading back happens before the commit, so it shows what SQLite will write."""

        def write() -> None:
            what = f"checkpoint of {len(snapshots)} documents"
            with self._writer.transaction(what, "BEGIN IMMEDIATE") as connection:
                for snapshot in snapshots:
                    _fold(connection, snapshot, keep_history=keep_history)

        await self._run(0, write)
        return frozenset()

    async def timeline(self, document: str) -> list[Span]:
        """See `Store.timeline`."""
        return await self._read(
            f"timeline of {document!r}", lambda connection: sqlite_history.read_timeline(connection, document)
        )

    async def rows(self, document: str, *, first: int, last: int) -> list[Row]:
        """See `Store.rows`."""
        what = f"reading the history of {document!r}"
        return await self._read(
            what, lambda connection: sqlite_history.read_rows(connection, document, first=first, last=last)
        )

    async def trim_history(self, document: str, *, upto: int) -> bool:
        """See `Store.trim_history`."""

        def trim(connection: sqlite3.Connection) -> None:
            found = connection.execute("SELECT id FROM document WHERE name = ?", (document,)).fetchone()
            if found is not None:
                sqlite_history.forget_history(connection, found[0], upto=upto)

        await self._write(f"trimming the history of {document!r}", trim)
        return True

    async def versioned(self, *, start: str = "", limit: int | None = None) -> list[str]:
        """See `Store.versioned`."""
        what = "list of documents with a past"
        return await self._read(
            what, lambda connection: sqlite_history.names_with_past(connection, start=start, limit=limit)
        )

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

        def take(connection: sqlite3.Connection) -> Version | None:
            return sqlite_history.take_version(
                connection, document, at=at, kind=kind, label=label, user_id=user_id, unless_since=unless_since
            )

        return await self._write(f"taking a version of {document!r}", take)

    async def versions(self, document: str) -> list[Version]:
        """See `Store.versions`."""
        return await self._read(
            f"list of versions of {document!r}", lambda connection: sqlite_history.read_versions(connection, document)
        )

    async def version(self, document: str, id: int) -> VersionContent | ArchivedVersion | None:
        """See `Store.version`."""
        what = f"reading version {id} of {document!r}"
        return await self._read(what, lambda connection: sqlite_history.read_version(connection, document, id))

    async def label_version(self, document: str, id: int, label: str | None) -> bool:
        """See `Store.label_version`."""
        check_label(label)
        what = f"labelling version {id} of {document!r}"
        return await self._write(what, lambda connection: sqlite_history.label_version(connection, document, id, label))

    async def archive_version(self, document: str, version: Version, *, digest: bytes) -> bool:
        """See `Store.archive_version`."""
        check_digest(digest)
        return await self._write(
            f"archiving version {version.id} of {document!r}",
            lambda connection: sqlite_history.archive_version(connection, document, version, digest),
        )

    async def delete_versions(self, document: str, ids: Sequence[int]) -> int:
        """See `Store.delete_versions`."""
        what = f"deletion of versions of {document!r}"
        return await self._write(what, lambda connection: sqlite_history.delete_versions(connection, document, ids))

    async def delete(self, document: str, *, at: datetime) -> bool:
        """See `Store.delete`."""
        check_aware("at", at)
        return await self._set_deleted_at(document, at)

    async def undelete(self, document: str) -> bool:
        """See `Store.undelete`."""
        return await self._set_deleted_at(document, None)

    async def purge(self, document: str) -> bool:
        """See `Store.purge`."""

        def write() -> bool:
            with self._writer.transaction(f"purge of {document!r}", "BEGIN IMMEDIATE") as connection:
                row = connection.execute(
                    "SELECT id FROM document WHERE name = ? AND deleted_at IS NOT NULL", (document,)
                ).fetchone()
                if row is None:
                    return False
                _forget(connection, row[0])
                connection.execute("DELETE FROM quarantined_update WHERE document = ?", (document,))
                return True

        return await self._run(0, write)

    async def documents(
        self, *, deleted: bool = False, start: str = "", limit: int | None = None
    ) -> list[DocumentHead]:
        """See `Store.documents`."""

        def read() -> list[DocumentHead]:
            with self._reader.transaction("list of documents", "BEGIN") as connection:
                rows = connection.execute(
                    "SELECT name, head_seq, deleted_at FROM document "
                    "WHERE (deleted_at IS NOT NULL) = ? AND name >= ? ORDER BY name LIMIT ?",
                    (deleted, start, -1 if limit is None else limit),
                )
                return [DocumentHead(name, head_seq, moment(at)) for name, head_seq, at in rows]

        return await self._run(1, read)

    async def stats(self) -> list[DocumentStats]:
        """See `Store.stats`."""

        def read() -> list[DocumentStats]:
            with self._reader.transaction("statistics", "BEGIN") as connection:
                rows = connection.execute(_STATS)
                return [DocumentStats(*one[:6], moment(one[6]), moment(one[7]), *one[8:]) for one in rows]  # type: ignore[call-arg]

        return await self._run(1, read)

    async def size_bytes(self) -> int:
        """See `Store.size_bytes`. The write-ahead log is part of it."""
        paths = (self._file.path, Path(f"{self._file.path}-wal"))
        return sum(path.stat().st_size for path in paths if path.exists())

    async def export(self, document: str, *, deleted: bool = False, history: bool = False) -> Export | None:
        """See `Store.export`."""

        def read() -> Export | None:
            with self._reader.transaction(f"export of {document!r}", "BEGIN") as connection:
                return _export(connection, document, deleted=deleted, history=history)

        export = await self._run(1, read)
        if export is not None and export.deleted_at is not None and not deleted:
            raise DocumentDeleted(document, export.deleted_at)
        return export

    async def put(self, export: Export, *, replace: bool = False) -> None:
        """See `Store.put`."""

        def write() -> None:
            with self._writer.transaction(f"put of {export.document!r}", "BEGIN IMMEDIATE") as connection:
                _put(connection, export, replace=replace)

        await self._run(0, write)

    async def quarantine(self, document: str, digest: bytes, *, at: datetime) -> None:
        """See `Store.quarantine`."""
        one = Quarantined(document, digest, at)

        def write() -> None:
            with self._writer.transaction(f"quarantine in {document!r}", "BEGIN IMMEDIATE") as connection:
                quarantine(connection, one)

        await self._run(0, write)

    async def quarantined(self) -> list[Quarantined]:
        """See `Store.quarantined`."""

        def read() -> list[Quarantined]:
            with self._reader.transaction("list of quarantined updates", "BEGIN") as connection:
                return read_quarantined(connection)

        return await self._run(1, read)

    async def revoke(self, revocation: Revocation) -> None:
        """See `Store.revoke`."""

        def write() -> None:
            with self._writer.transaction("revocation", "BEGIN IMMEDIATE") as connection:
                revoke(connection, revocation)

        await self._run(0, write)

    async def unrevoke(self, kind: RevocationKind, value: str) -> bool:
        """See `Store.unrevoke`."""

        def write() -> bool:
            with self._writer.transaction("end of a revocation", "BEGIN IMMEDIATE") as connection:
                return unrevoke(connection, kind, value)

        return await self._run(0, write)

    async def revocations(self, *, now: datetime) -> list[Revocation]:
        """See `Store.revocations`."""
        check_aware("now", now)

        def read() -> list[Revocation]:
            with self._reader.transaction("reading revocations", "BEGIN") as connection:
                return read_revocations(connection, now)

        return await self._run(1, read)

    def describe(self) -> str:
        """See `Store.describe`."""
        return f"SQLite database {self._file.path}"

    async def _set_deleted_at(self, document: str, at: datetime | None) -> bool:
        """Set or clear the mark; return whether that changed it."""

        def write() -> bool:
            what = f"{'undeletion' if at is None else 'deletion'} of {document!r}"
            with self._writer.transaction(what, "BEGIN IMMEDIATE") as connection:
                changed = connection.execute(
                    "UPDATE document SET deleted_at = ?2 WHERE name = ?1 AND (deleted_at IS NULL) = (?2 IS NOT NULL)",
                    (document, None if at is None else micros(at)),
                )
                return changed.rowcount > 0

        return await self._run(0, write)

    async def _read(self, what: str, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a job in the reading thread, as of one moment."""

        def read() -> T:
            with self._reader.transaction(what, "BEGIN") as connection:
                return job(connection)

        return await self._run(1, read)

    async def _write(self, what: str, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a job in the writing thread, as one transaction."""

        def write() -> T:
            with self._writer.transaction(what, "BEGIN IMMEDIATE") as connection:
                return job(connection)

        return await self._run(0, write)

    async def _run(self, thread: int, job: Callable[[], T]) -> T:
        """Run a job in the writing (0) or reading (1) thread. Cancelled, it still runs to its end."""
        if self._threads is None:
            raise StoreUnavailable(f"{self.describe()} is closed")
        loop = asyncio.get_running_loop()
        if thread == 0:
            return await asyncio.shield(loop.run_in_executor(self._threads[0], job))
        done = loop.create_future()
        self._reads.append((job, done))
        if len(self._reads) == 1 and not self._reading:
            loop.call_soon(self._read_some)
        return cast(T, await done)

    def _read_some(self) -> None:
        """Have the reading thread do what waits for it, several at a time: handing it over costs more than most of that."""
        count = _READS_TOGETHER if self._threads is not None else len(self._reads)
        some, self._reads = self._reads[:count], self._reads[count:]
        if self._threads is None:
            for _, done in some:
                if not done.done():
                    done.set_exception(StoreUnavailable(f"{self.describe()} is closed"))
            return
        self._reading = True
        doing = asyncio.get_running_loop().run_in_executor(self._threads[1], _do_all, [job for job, _ in some])

        def tell(_: object) -> None:
            self._reading = False
            for (_, done), (result, error) in zip(some, doing.result(), strict=True):
                if done.done():
                    continue
                if error is not None:
                    done.set_exception(error)
                else:
                    done.set_result(result)
            if self._reads:
                self._read_some()

        doing.add_done_callback(tell)


def _do_all(jobs: Sequence[Callable[[], object]]) -> list[tuple[object, BaseException | None]]:
    done: list[tuple[object, BaseException | None]] = []
    for job in jobs:
        try:
            done.append((job(), None))
        except BaseException as error:
            done.append((None, error))
    return done


def _append(connection: sqlite3.Connection, entries: Sequence[Entry]) -> list[int]:
    updates_of = [list(entry.updates) for entry in entries]
    accepted_at = [micros(entry.accepted_at) for entry in entries]
    counts: Counter[str] = Counter()
    created_at: dict[str, int] = {}
    for entry, updates, at in zip(entries, updates_of, accepted_at, strict=True):
        counts[entry.document] += len(updates)
        created_at.setdefault(entry.document, at)

    # The write lock is held until commit, so seqs become visible in order.
    heads = _advance(connection, [(name, n, created_at[name]) for name, n in counts.items()])
    last_seq = {name: head_seq - counts[name] for name, (_, head_seq) in heads.items()}
    rows: list[tuple[Any, ...]] = []
    last_seqs = []
    for entry, updates, at in zip(entries, updates_of, accepted_at, strict=True):
        document_id, seq = heads[entry.document][0], last_seq[entry.document]
        rows += [(document_id, seq + i, entry.user_id, at, update) for i, update in enumerate(updates, start=1)]
        last_seq[entry.document] = seq + len(updates)
        last_seqs.append(last_seq[entry.document])

    insert = 'INSERT INTO document_update (document_id, seq, user_id, accepted_at, "update") VALUES '
    for batch in _batches([row for row in rows if len(row[4]) <= _BATCH_UPDATE_BYTES_MAX]):
        connection.execute(insert + _placeholders(batch), _flat(batch))
    for row in rows:
        if len(row[4]) > _BATCH_UPDATE_BYTES_MAX:
            connection.execute(insert + _placeholders([row]), row)
    return last_seqs


def _advance(connection: sqlite3.Connection, documents: list[tuple[str, int, int]]) -> dict[str, tuple[int, int]]:
    """Move documents' heads on, creating what is missing.

    Args:
        documents: Name, number of updates to come, and time of the first; each name once.

    Returns:
        By name, the document's id and its new `head_seq`.
    """
    heads = {}
    for batch in _batches(documents):
        connection.execute(
            f"INSERT INTO document (name, head_seq, created_at) VALUES {_placeholders(batch)} "
            "ON CONFLICT (name) DO UPDATE SET head_seq = head_seq + excluded.head_seq",
            _flat(batch),
        )
        (text,) = connection.execute(
            "SELECT group_concat(hex(name) || ':' || id || ':' || head_seq) FROM document "
            f"WHERE name IN ({','.join('?' * len(batch))})",
            [name for name, _, _ in batch],
        ).fetchone()
        for row in text.split(","):
            name, document_id, head_seq = row.split(":")
            heads[bytes.fromhex(name).decode()] = (int(document_id), int(head_seq))
    return heads


def _load(
    connection: sqlite3.Connection, document: str, after: int, *, deleted: bool = False
) -> tuple[Stored, datetime | None]:
    """Return what is stored, and when it was deleted. Of a document that was, the content is read only if wanted."""
    document_id, head_seq, deleted_at, snapshot_seq, state, waiting, state_vector, whole, digests = connection.execute(
        f"SELECT id, head_seq, deleted_at, s.seq, state, waiting, state_vector, whole, {DIGESTS} "
        "FROM (SELECT 1) LEFT JOIN document ON name = ? "
        "LEFT JOIN document_snapshot AS s ON s.document_id = id AND s.seq > ? AND (deleted_at IS NULL OR ?)",
        (document, document, after, deleted),
    ).fetchone()
    quarantined = read_digests(digests)
    if document_id is None:
        return Stored(head_seq=0, snapshot=None, updates=(), quarantined=quarantined), None
    if deleted_at is not None and not deleted:
        return Stored(head_seq, None, (), quarantined), moment(deleted_at)
    snapshot = None
    if snapshot_seq is not None:
        snapshot = Snapshot(
            document,
            seq=snapshot_seq,
            state=state,
            waiting=decode_waiting(waiting),
            state_vector=state_vector,
            whole=bool(whole),
        )
    first_seq = max(after, snapshot_seq or 0) + 1
    found: dict[int, bytes] = {}
    for start in range(first_seq, head_seq + 1, _PAGE_ROWS):
        page = (document_id, start, min(start + _PAGE_ROWS - 1, head_seq), _PAGE_UPDATE_BYTES_MAX)
        where = 'FROM document_update WHERE document_id = ? AND seq BETWEEN ? AND ? AND length("update")'
        (text,) = connection.execute(
            f"SELECT group_concat(seq || ':' || hex(\"update\")) {where} <= ?", page
        ).fetchone()
        for pair in text.split(",") if text else ():
            seq, _, update = pair.partition(":")
            found[int(seq)] = bytes.fromhex(update)
        found.update(connection.execute(f'SELECT seq, "update" {where} > ?', page))
    try:
        updates = tuple([found[seq] for seq in range(first_seq, head_seq + 1)])
    except KeyError as error:
        raise StoreCorrupt(
            f"update {error} of {document!r} is missing: its log should have {first_seq} to {head_seq}"
        ) from error
    return Stored(head_seq, snapshot, updates, quarantined), moment(deleted_at)


def _fold(connection: sqlite3.Connection, snapshot: Snapshot, *, keep_history: bool) -> None:
    document_id, head_seq, stored_seq = connection.execute(
        "SELECT id, head_seq, coalesce(s.seq, 0) FROM document "
        "LEFT JOIN document_snapshot AS s ON s.document_id = id WHERE name = ?",
        (snapshot.document,),
    ).fetchone() or (None, 0, 0)
    if snapshot.seq > head_seq:
        raise StoreCorrupt(
            f"snapshot of {snapshot.document!r} at seq {snapshot.seq} is ahead of its log, which ends at {head_seq}"
        )
    if snapshot.seq < stored_seq:
        return
    assert document_id is not None, "what isn't there has no updates"
    _write_snapshot(connection, document_id, snapshot)
    if keep_history:
        sqlite_history.fold_rows(connection, document_id, first=stored_seq + 1, last=snapshot.seq)
    else:
        sqlite_history.forget_history(connection, document_id)
    connection.execute(
        "DELETE FROM document_update WHERE document_id = ? AND seq > ? AND seq <= ?",
        (document_id, stored_seq, snapshot.seq),
    )


def _write_snapshot(connection: sqlite3.Connection, document_id: int, snapshot: Snapshot) -> None:
    waiting = encode_waiting(snapshot.waiting)
    written = (snapshot.seq, snapshot.state_vector, waiting, snapshot.state, int(snapshot.whole))
    connection.execute(
        "INSERT INTO document_snapshot (document_id, taken_at, seq, state_vector, waiting, state, whole) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (document_id) DO UPDATE SET taken_at = excluded.taken_at, "
        "seq = excluded.seq, state_vector = excluded.state_vector, waiting = excluded.waiting, state = excluded.state, "
        "whole = excluded.whole",
        (document_id, time.time_ns() // 1000, *written),
    )
    read_back = connection.execute(
        "SELECT seq, state_vector, waiting, state, whole FROM document_snapshot WHERE document_id = ?", (document_id,)
    ).fetchone()
    if read_back != written:
        raise StoreCorrupt(f"snapshot of {snapshot.document!r} at seq {snapshot.seq} read back different")


def _export(connection: sqlite3.Connection, document: str, *, deleted: bool, history: bool) -> Export | None:
    head = connection.execute("SELECT id, created_at FROM document WHERE name = ?", (document,)).fetchone()
    if head is None:
        return None
    document_id, created_at = head
    stored, deleted_at = _load(connection, document, 0, deleted=deleted)
    if deleted_at is not None and not deleted:
        return Export(document, moment(created_at), stored.head_seq, None, (), deleted_at)
    rows = connection.execute(
        'SELECT seq, "update", user_id, accepted_at FROM document_update WHERE document_id = ? ORDER BY seq',
        (document_id,),
    )
    log = tuple([Row(seq, update, user_id, moment(at)) for seq, update, user_id, at in rows])
    export = Export(document, moment(created_at), stored.head_seq, stored.snapshot, log, deleted_at)
    if not history:
        return export
    chunks = tuple(sqlite_history.read_chunks(connection, document_id))
    return replace(export, chunks=chunks, versions=sqlite_history.read_all_versions(connection, document))


def _put(connection: sqlite3.Connection, export: Export, *, replace: bool) -> None:
    name = export.document
    old = connection.execute("SELECT id, deleted_at FROM document WHERE name = ?", (name,)).fetchone()
    if old is not None and old[1] is not None and export.deleted_at is None:
        raise DocumentDeleted(name, moment(old[1]))
    if old is not None and not replace:
        raise DocumentExists(f"{name!r} is in this SQLite database already")
    if old is not None:
        _forget(connection, old[0])
    deleted_at = None if export.deleted_at is None else micros(export.deleted_at)
    document_id = connection.execute(
        "INSERT INTO document (name, head_seq, created_at, deleted_at) VALUES (?, ?, ?, ?)",
        (name, export.head_seq, micros(export.created_at), deleted_at),
    ).lastrowid
    assert document_id is not None, "something was inserted"
    if export.snapshot is not None:
        _write_snapshot(connection, document_id, export.snapshot)
    connection.executemany(
        'INSERT INTO document_update (document_id, seq, "update", user_id, accepted_at) VALUES (?, ?, ?, ?, ?)',
        [(document_id, row.seq, row.update, row.user_id, micros(row.accepted_at)) for row in export.rows],
    )
    for chunk in export.chunks:
        sqlite_history.write_chunk(connection, document_id, chunk)
    sqlite_history.write_versions(connection, document_id, export.versions)


def _forget(connection: sqlite3.Connection, document_id: int) -> None:
    for table in ("document_update", "document_snapshot", "document_history", "document_version"):
        connection.execute(f"DELETE FROM {table} WHERE document_id = ?", (document_id,))
    connection.execute("DELETE FROM document WHERE id = ?", (document_id,))


def _batches(rows: list[T]) -> Iterator[list[T]]:
    # Sizes are powers of two, so that there are nine statement texts to prepare and they stay in the cache.
    start = 0
    while start < len(rows):
        size = min(_BATCH_ROWS, 1 << ((len(rows) - start).bit_length() - 1))
        yield rows[start : start + size]
        start += size


def _placeholders(rows: Sequence[tuple[Any, ...]]) -> str:
    one = f"({','.join('?' * len(rows[0]))})"
    return ",".join([one] * len(rows))


def _flat(rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    return [value for row in rows for value in row]
