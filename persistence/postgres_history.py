"""A document's past in PostgreSQL: the chunks of its folded log, and its versions.

Owns what is said to these two tables. Whoever changes which updates are kept where holds the document's lock, the one
that checkpoints take: so a version is of one snapshot, and chunks end where snapshots do.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

from persistence.blobs import ARCHIVED, PACK_INLINE_BYTES_MAX, pack_version, unpack_version
from persistence.chunks import (
    PACK_INLINE_ROWS_MAX,
    NumberedRow,
    pack_numbered,
    refuse_trimmed,
    rows_between,
    sorted_users,
)
from persistence.moments import micros
from persistence.postgres_link import Connection, Link
from persistence.store import ArchivedVersion, Row, VersionContent
from persistence.versions import VERSION_USERS_MAX, Chunk, Span, Version, VersionKind

# So many rows are taken in at once: with 10,000 the event loop had to wait up to twice as long.
_FOLD_ROWS: Final = 2000
_PAGE_ROWS: Final = 2000
_SEQ_MAX: Final = 2**63 - 1

# From the snapshot before: what is below it is gone already, but may still be in the way, dead.
_FOLD: Final = """
DELETE FROM crdt_sync.document_update AS u
USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS folded (document_id, before, seq)
WHERE u.document_id = folded.document_id AND u.seq > folded.before AND u.seq <= folded.seq
"""
_FOLD_RETURNING: Final = f"""
{_FOLD} RETURNING u.document_id, u.seq, "update", user_id, accepted_at
"""
_WRITE_CHUNKS: Final = """
INSERT INTO crdt_sync.document_history (document_id, first_seq, last_seq, from_at, until_at, users, log_bytes, blob)
SELECT * FROM unnest(
    $1::bigint[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::jsonb[], $7::bigint[], $8::bytea[]
)
"""
_READ_LOG: Final = """
SELECT seq, "update", user_id, accepted_at FROM crdt_sync.document_update
WHERE document_id = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq LIMIT $4
"""
_FIND: Final = """
SELECT id, head_seq, coalesce(s.seq, 0) AS folded_seq,
    (SELECT min(first_seq) FROM crdt_sync.document_history WHERE document_id = id) AS kept_from
FROM crdt_sync.document LEFT JOIN crdt_sync.document_snapshot AS s ON document_id = id WHERE name = $1
"""
_SPAN: Final = "first_seq, last_seq, from_at, until_at, users, log_bytes"
_READ_CHUNKS: Final = f"""
SELECT {_SPAN}, blob FROM crdt_sync.document_history
WHERE document_id = $1 AND first_seq <= $3 AND first_seq >= coalesce(
    (SELECT max(first_seq) FROM crdt_sync.document_history WHERE document_id = $1 AND first_seq <= $2), 0
)
ORDER BY first_seq
"""
_LIVE_SPAN: Final = """
SELECT min(seq), max(seq), min(accepted_at), max(accepted_at), array_agg(DISTINCT user_id),
    sum(octet_length("update"))::bigint
FROM crdt_sync.document_update WHERE document_id = $1 AND seq > $2
"""
_NAMES: Final = """
SELECT name FROM crdt_sync.document AS d WHERE name >= $1 AND (
    EXISTS (SELECT FROM crdt_sync.document_history WHERE document_id = d.id)
    OR EXISTS (SELECT FROM crdt_sync.document_version WHERE document_id = d.id)
)
ORDER BY name LIMIT $2
"""

# The lock that a checkpoint takes: tried for, or waited for.
_TRY_LOCK: Final = """
SELECT id, pg_try_advisory_xact_lock(hashtextextended('crdt_sync checkpoint', id)) AS mine
FROM crdt_sync.document WHERE name = $1
"""
_LOCK: Final = """
SELECT id, pg_advisory_xact_lock(hashtextextended('crdt_sync checkpoint', id))
FROM crdt_sync.document WHERE name = $1
"""

_COLUMNS: Final = "id, seq, taken_at, kind, label, user_id, users, size_bytes, whole"
_VERSION: Final = f"{_COLUMNS}, octet_length(state) + octet_length(waiting) = 0 AS archived"
_NONE_SINCE: Final = """
NOT EXISTS (SELECT FROM crdt_sync.document_version AS late WHERE late.document_id = $1 AND late.taken_at > $2)
"""
_LABEL_NEWEST: Final = f"""
UPDATE crdt_sync.document_version SET label = $3::text
WHERE document_id = $1 AND label IS NULL AND {_NONE_SINCE} AND id = (
    SELECT max(v.id) FROM crdt_sync.document_version AS v JOIN crdt_sync.document_snapshot AS s USING (document_id, seq)
    WHERE v.document_id = $1 AND v.label IS NULL
)
RETURNING {_VERSION}
"""
# The document's row is locked last, so that appends needn't wait while the content is copied.
_TAKE: Final = f"""
WITH taken AS (
    INSERT INTO crdt_sync.document_version (
        document_id, id, seq, label, taken_at, kind, user_id, users, size_bytes, whole, digest, state_vector, waiting,
        state
    )
    SELECT d.id, d.last_version + 1, s.seq, $3::text, $4::timestamptz, $5::text, $6::text, users,
        octet_length(state_vector) + octet_length(waiting) + octet_length(state), coalesce(whole_at = s.taken_at, false),
        sha256(state_vector || waiting || state), state_vector, waiting, state
    FROM crdt_sync.document AS d JOIN crdt_sync.document_snapshot AS s ON s.document_id = d.id, LATERAL (
        SELECT coalesce(jsonb_agg(user_id ORDER BY user_id COLLATE "C"), '[]') AS users FROM (
            SELECT DISTINCT user_id COLLATE "C" AS user_id
            FROM crdt_sync.document_history AS h, jsonb_array_elements_text(h.users) AS u (user_id)
            WHERE h.document_id = d.id AND user_id IS NOT NULL AND h.first_seq <= s.seq AND h.first_seq > (
                SELECT coalesce(max(v.seq), 0) FROM crdt_sync.document_version AS v
                WHERE v.document_id = d.id AND v.seq < s.seq
            )
            ORDER BY 1 LIMIT {VERSION_USERS_MAX}
        ) AS them
    ) AS since_last
    WHERE d.id = $1 AND {_NONE_SINCE} AND ($3::text IS NOT NULL OR NOT EXISTS (
        SELECT FROM crdt_sync.document_version AS v WHERE v.document_id = d.id AND v.seq = s.seq
    ))
    RETURNING document_id, {_VERSION}
), counted AS (
    UPDATE crdt_sync.document AS d SET last_version = taken.id FROM taken WHERE d.id = document_id
)
SELECT {_COLUMNS}, archived FROM taken
"""
_OF_NAME: Final = "document_id = (SELECT d.id FROM crdt_sync.document AS d WHERE name = $1)"


async def move_to_history(connection: Connection, folded: Sequence[tuple[int, int, int]]) -> None:
    """Move rows of logs into the documents' histories, in a transaction.

    Args:
        connection: In a transaction that holds the documents' locks.
        folded: Ids of documents; of each, the seqs before the first row and of the last.
    """
    for page in _pages(folded):
        records = await connection.fetch(_FOLD_RETURNING, *_columns(page, 3))
        size = sum(len(record["update"]) for record in records)
        if size <= PACK_INLINE_BYTES_MAX and len(records) <= PACK_INLINE_ROWS_MAX:
            chunks = _pack(records)
        else:
            chunks = await asyncio.to_thread(_pack, records)
        await write_chunks(connection, chunks)


async def drop_with_history(connection: Connection, folded: Sequence[tuple[int, int, int]]) -> None:
    """Drop what `move_to_history` moves, and the history that there is."""
    await connection.execute(_FOLD, *_columns(folded, 3))
    await connection.execute(
        "DELETE FROM crdt_sync.document_history WHERE document_id = ANY($1::bigint[])", [id_ for id_, _, _ in folded]
    )


async def write_chunks(connection: Connection, chunks: Sequence[tuple[int, Chunk]]) -> None:
    """Add chunks to the histories of documents, named by their ids."""
    rows = [
        (id_, one.first_seq, one.last_seq, one.from_at, one.until_at, json.dumps(one.users), one.log_bytes, one.blob)
        for id_, one in chunks
    ]
    await connection.execute(_WRITE_CHUNKS, *_columns(rows, 8))


async def read_log(connection: Connection, id_: int, *, first: int, last: int) -> list[Row]:
    """Read rows that are in the log, in seq order."""
    rows: list[Row] = []
    while first <= last:
        page = await connection.fetch(_READ_LOG, id_, first, last, _PAGE_ROWS)
        rows += [Row(*row) for row in page]
        first = last + 1 if len(page) < _PAGE_ROWS else rows[-1].seq + 1
    return rows


async def read_timeline(link: Link, document: str) -> list[Span]:
    """See `Store.timeline`."""
    async with (
        link.connection("read", f"timeline of {document!r}") as connection,
        link.transaction(connection, "ISOLATION LEVEL REPEATABLE READ READ ONLY"),
    ):
        found = await connection.fetchrow(_FIND, document)
        if found is None:
            chunks, live = [], None
        else:
            chunks = await connection.fetch(
                f"SELECT {_SPAN} FROM crdt_sync.document_history WHERE document_id = $1 ORDER BY first_seq", found["id"]
            )
            live = await connection.fetchrow(_LIVE_SPAN, found["id"], found["folded_seq"])
    # A week of a busy document has 20,000 chunks.
    spans = await asyncio.to_thread(lambda: [Span(*_span(record)) for record in chunks])
    if live is not None and live[0] is not None:
        first, last, from_at, until_at, users, log_bytes = live
        spans.append(Span(first, last, from_at, until_at, sorted_users(users), log_bytes))
    return spans


async def read_rows(link: Link, document: str, *, first: int, last: int) -> list[Row]:
    """See `Store.rows`."""
    chunks: list[Chunk] = []
    rows: list[Row] = []
    async with (
        link.connection("read", f"reading the history of {document!r}") as connection,
        link.transaction(connection, "ISOLATION LEVEL REPEATABLE READ READ ONLY"),
    ):
        found = await connection.fetchrow(_FIND, document)
        id_, head_seq, folded_seq, kept_from = found or (0, 0, 0, 1)
        kept_from = folded_seq + 1 if kept_from is None else kept_from
        last = min(last, head_seq)
        if kept_from <= first <= last:
            chunks = await read_chunks(connection, id_, first=first, last=min(last, folded_seq))
            rows = await read_log(connection, id_, first=max(first, folded_seq + 1), last=last)
    if first > last:
        return []
    refuse_trimmed(document, first, kept_from)
    return await asyncio.to_thread(rows_between, document, chunks, rows, first=first, last=last)


async def read_chunks(connection: Connection, id_: int, *, first: int = 1, last: int = _SEQ_MAX) -> list[Chunk]:
    """Read the chunks that have updates from `first` to `last`, in seq order."""
    return [Chunk(*_span(record), record["blob"]) for record in await connection.fetch(_READ_CHUNKS, id_, first, last)]


async def trim_history(link: Link, document: str, *, upto: int) -> bool:
    """See `Store.trim_history`."""
    async with (
        link.connection("read", f"trimming the history of {document!r}") as connection,
        link.transaction(connection),
    ):
        found = await connection.fetchrow(_TRY_LOCK, document)
        if found is None:
            return True
        if found["mine"]:
            await connection.execute(
                "DELETE FROM crdt_sync.document_history WHERE document_id = $1 AND first_seq <= $2 AND last_seq <= $2",
                *(found["id"], upto),
            )
        mine: bool = found["mine"]
        return mine


async def names_with_past(link: Link, *, start: str, limit: int | None) -> list[str]:
    """See `Store.versioned`."""
    async with link.connection("read", "list of documents with a past") as connection, link.statement(connection):
        return [record["name"] for record in await connection.fetch(_NAMES, start, limit)]


async def take_version(
    link: Link,
    document: str,
    *,
    at: datetime,
    kind: VersionKind,
    label: str | None,
    user_id: str | None,
    unless_since: datetime | None,
) -> Version | None:
    """See `Store.take_version`. Several statements, so that each sees what was committed before it got the lock."""
    record = None
    # Where this node's checkpoints take their turns, too: they would be in each other's way.
    async with (
        link.connection("checkpoint", f"taking a version of {document!r}") as connection,
        link.transaction(connection),
    ):
        id_ = await connection.fetchval(_LOCK, document)
        if label is not None:
            record = await connection.fetchrow(_LABEL_NEWEST, id_, unless_since, label)
        if record is None:
            record = await connection.fetchrow(_TAKE, id_, unless_since, label, at, kind, user_id)
    return None if record is None else _version(record)


async def write_versions(
    connection: Connection, id_: int, versions: Sequence[VersionContent | ArchivedVersion]
) -> None:
    """Write versions as they were read somewhere else."""
    for one in versions:
        version = one.version
        digest, blobs = await asyncio.to_thread(pack_version, one)
        await connection.execute(
            f"INSERT INTO crdt_sync.document_version (document_id, {_COLUMNS}, digest, state_vector, waiting, state) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            *(id_, version.id, version.seq, version.taken_at, version.kind, version.label, version.user_id),
            *(json.dumps(version.users), version.size_bytes, version.whole, digest, *blobs),
        )
    await connection.execute(
        "UPDATE crdt_sync.document SET last_version = "
        "(SELECT coalesce(max(v.id), 0) FROM crdt_sync.document_version AS v WHERE document_id = $1) WHERE id = $1",
        id_,
    )


async def read_versions(link: Link, document: str) -> list[Version]:
    """See `Store.versions`."""
    async with link.connection("read", f"list of versions of {document!r}") as connection, link.statement(connection):
        records = await connection.fetch(
            f"SELECT {_VERSION} FROM crdt_sync.document_version WHERE {_OF_NAME} ORDER BY id DESC", document
        )
    return [_version(record) for record in records]


async def read_version(link: Link, document: str, id_: int) -> VersionContent | ArchivedVersion | None:
    """See `Store.version`."""
    async with (
        link.connection("read", f"reading version {id_} of {document!r}") as connection,
        link.statement(connection),
    ):
        record = await connection.fetchrow(
            f"SELECT {_VERSION}, digest, state_vector, waiting, state FROM crdt_sync.document_version "
            f"WHERE {_OF_NAME} AND id = $2",
            document,
            id_,
        )
    return None if record is None else await asyncio.to_thread(_content, document, record)


async def read_all_versions(connection: Connection, document: str) -> tuple[VersionContent | ArchivedVersion, ...]:
    """Read a document's versions with their content, oldest first."""
    records = await connection.fetch(
        f"SELECT {_VERSION}, digest, state_vector, waiting, state FROM crdt_sync.document_version "
        f"WHERE {_OF_NAME} ORDER BY id",
        document,
    )
    return await asyncio.to_thread(lambda: tuple([_content(document, record) for record in records]))


async def label_version(link: Link, document: str, id_: int, label: str | None) -> bool:
    """See `Store.label_version`."""
    what = f"labelling version {id_} of {document!r}"
    async with link.connection("read", what) as connection, link.statement(connection):
        changed = await connection.fetchval(
            f"UPDATE crdt_sync.document_version SET label = $3 WHERE {_OF_NAME} AND id = $2 RETURNING true",
            document,
            id_,
            label,
        )
    return changed is not None


async def archive_version(link: Link, document: str, version: Version, digest: bytes) -> bool:
    """See `Store.archive_version`."""
    what = f"archiving version {version.id} of {document!r}"
    async with link.connection("read", what) as connection, link.statement(connection):
        changed = await connection.fetchval(
            "UPDATE crdt_sync.document_version SET digest = $5, state_vector = $6, waiting = $7, state = $8 "
            f"WHERE {_OF_NAME} AND id = $2 AND seq = $3 AND taken_at = $4 AND octet_length(state) + octet_length(waiting) > 0 RETURNING true",
            *(document, version.id, version.seq, version.taken_at, digest, *ARCHIVED),
        )
    return changed is not None


async def delete_versions(link: Link, document: str, ids: Sequence[int]) -> int:
    """See `Store.delete_versions`."""
    what = f"deletion of versions of {document!r}"
    async with link.connection("read", what) as connection, link.statement(connection):
        records = await connection.fetch(
            f"DELETE FROM crdt_sync.document_version WHERE {_OF_NAME} AND id = ANY($2::int[]) RETURNING true",
            document,
            list(ids),
        )
    return len(records)


def _pages(folded: Iterable[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    """Cut ranges of seqs into pages of so many rows at most."""
    page: list[tuple[int, int, int]] = []
    left = _FOLD_ROWS
    for id_, before, seq in folded:
        while before < seq:
            upto = min(seq, before + left)
            page.append((id_, before, upto))
            left -= upto - before
            before = upto
            if not left:
                yield page
                page, left = [], _FOLD_ROWS
    if page:
        yield page


def _pack(records: Sequence[Any]) -> list[tuple[int, Chunk]]:
    by_id: dict[int, list[NumberedRow]] = {}
    for id_, seq, update, user_id, at in records:
        by_id.setdefault(id_, []).append((seq, update, user_id, micros(at)))
    return [(id_, chunk) for id_, rows in by_id.items() for chunk in pack_numbered(sorted(rows, key=itemgetter(0)))]


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _span(record: Any) -> tuple[int, int, datetime, datetime, tuple[str | None, ...], int]:
    first_seq, last_seq, from_at, until_at, users, log_bytes = tuple(record)[:6]
    return first_seq, last_seq, from_at, until_at, _users(users), log_bytes


# The same few write most chunks of a document.
@lru_cache(maxsize=256)
def _users(text: str) -> tuple[str | None, ...]:
    return tuple(json.loads(text))


def _version(record: Any) -> Version:
    id_, seq, taken_at, kind, label, user_id, users, size_bytes, whole, archived = tuple(record)[:10]
    return Version(id_, seq, taken_at, kind, label, user_id, tuple(json.loads(users)), size_bytes, whole, archived)


def _content(document: str, record: Any) -> VersionContent | ArchivedVersion:
    return unpack_version(document, _version(record), *(record["digest"], tuple(record)[-3:]))
