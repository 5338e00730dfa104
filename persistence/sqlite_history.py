"""A document's past in a SQLite file: the chunks of its folded log, and its versions.

Owns what is said to these two tables. Leaves transactions and threads to `sqlite`. Many rows come as one text, in one
step, for the reason that `sqlite` gives.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Final, cast

from persistence.blobs import ARCHIVED, digest_of, pack, pack_version, unpack_version
from persistence.chunks import NumberedRow, pack_numbered, refuse_trimmed, rows_between, sorted_users
from persistence.moments import micros, moment
from persistence.store import ArchivedVersion, Row, VersionContent
from persistence.versions import VERSION_USERS_MAX, Chunk, Span, Version, VersionKind

_PAGE_ROWS: Final = 4096
_PAGE_UPDATE_BYTES_MAX: Final = 4096  # as hex, so a page has 32 MiB at most; larger updates are read one by one
_PAGE_CHUNKS: Final = 256
_PAGE_BLOB_BYTES_MAX: Final = 64 * 1024  # likewise

_SEQ_MAX: Final = 2**63 - 1
_SPAN: Final = (
    "first_seq || ':' || last_seq || ':' || from_at || ':' || until_at || ':' || hex(users) || ':' || log_bytes"
)
# A column as text without separators; NULL, which hex() makes the same as an empty text, as "-".
_HEX: Final = "CASE WHEN {0} IS NULL THEN '-' ELSE hex({0}) END"
_VERSION: Final = " || ':' || ".join(
    (
        "id",
        "seq",
        "taken_at",
        "kind",
        _HEX.format("label"),
        _HEX.format("user_id"),
        "hex(users)",
        "size_bytes",
        "whole",
        "(length(state) + length(waiting) = 0)",
    )
)


def fold_rows(connection: sqlite3.Connection, document_id: int, *, first: int, last: int) -> None:
    """Move rows of the log into the history."""
    for chunk in pack_numbered(_read_log(connection, document_id, first=first, last=last)):
        write_chunk(connection, document_id, chunk)


def write_chunk(connection: sqlite3.Connection, document_id: int, chunk: Chunk) -> None:
    """Add a chunk to a history."""
    connection.execute(
        "INSERT INTO document_history (document_id, first_seq, last_seq, from_at, until_at, users, log_bytes, blob) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(document_id, chunk.first_seq, chunk.last_seq, micros(chunk.from_at), micros(chunk.until_at)),
            *(json.dumps(chunk.users), chunk.log_bytes, chunk.blob),
        ),
    )


def forget_history(connection: sqlite3.Connection, document_id: int, *, upto: int = _SEQ_MAX) -> None:
    """Forget the chunks that end at `upto` or before."""
    connection.execute("DELETE FROM document_history WHERE document_id = ? AND last_seq <= ?", (document_id, upto))


def read_timeline(connection: sqlite3.Connection, document: str) -> list[Span]:
    """See `Store.timeline`."""
    found = _find(connection, document)
    if found is None:
        return []
    document_id, _, folded_seq = found
    (text,) = connection.execute(
        f"SELECT group_concat({_SPAN}) FROM document_history WHERE document_id = ?", (document_id,)
    ).fetchone()
    spans = sorted((_span(part) for part in _split(text)), key=lambda span: span.first_seq)
    first, last, from_at, until_at, users, log_bytes = connection.execute(
        "SELECT min(seq), max(seq), min(accepted_at), max(accepted_at), "
        f'group_concat(DISTINCT {_HEX.format("user_id")}), sum(length("update")) '
        "FROM document_update WHERE document_id = ? AND seq > ?",
        (document_id, folded_seq),
    ).fetchone()
    if first is not None:
        authors = sorted_users(map(_text_of, users.split(",")))
        spans.append(Span(first, last, moment(from_at), moment(until_at), authors, log_bytes))
    return spans


def read_rows(connection: sqlite3.Connection, document: str, *, first: int, last: int) -> list[Row]:
    """See `Store.rows`."""
    found = _find(connection, document)
    if found is None or first > min(last, found[1]):
        return []
    document_id, head_seq, folded_seq = found
    last = min(last, head_seq)
    (kept_from,) = connection.execute(
        "SELECT min(first_seq) FROM document_history WHERE document_id = ?", (document_id,)
    ).fetchone()
    refuse_trimmed(document, first, folded_seq + 1 if kept_from is None else kept_from)
    chunks = read_chunks(connection, document_id, first=first, last=min(last, folded_seq))
    live = _read_log(connection, document_id, first=max(first, folded_seq + 1), last=last)
    rows = [Row(seq, update, user_id, moment(at)) for seq, update, user_id, at in live]
    return rows_between(document, chunks, rows, first=first, last=last)


def read_chunks(
    connection: sqlite3.Connection, document_id: int, *, first: int = 1, last: int = _SEQ_MAX
) -> list[Chunk]:
    """Read the chunks that have updates from `first` to `last`, in seq order."""
    (start,) = connection.execute(
        "SELECT coalesce(max(first_seq), 0) FROM document_history WHERE document_id = ? AND first_seq <= ?",
        (document_id, first),
    ).fetchone()
    chunks: list[Chunk] = []
    while True:
        (text,) = connection.execute(
            f"SELECT group_concat({_SPAN} || ':' || CASE WHEN length(blob) <= ? THEN hex(blob) ELSE '-' END) FROM ("
            "SELECT * FROM document_history WHERE document_id = ? AND first_seq BETWEEN ? AND ? "
            "ORDER BY first_seq LIMIT ?)",
            (_PAGE_BLOB_BYTES_MAX, document_id, start, last, _PAGE_CHUNKS),
        ).fetchone()
        page = [_chunk(connection, document_id, part) for part in _split(text)]
        chunks += sorted(page, key=lambda chunk: chunk.first_seq)
        if len(page) < _PAGE_CHUNKS:
            return chunks
        start = chunks[-1].first_seq + 1


def names_with_past(connection: sqlite3.Connection, *, start: str, limit: int | None) -> list[str]:
    """See `Store.versioned`."""
    rows = connection.execute(
        "SELECT name FROM document WHERE name >= ? AND (EXISTS (SELECT 1 FROM document_history WHERE document_id = id) "
        "OR EXISTS (SELECT 1 FROM document_version AS v WHERE v.document_id = document.id)) ORDER BY name LIMIT ?",
        (start, -1 if limit is None else limit),
    )
    return [name for (name,) in rows]


def take_version(
    connection: sqlite3.Connection,
    document: str,
    *,
    at: datetime,
    kind: VersionKind,
    label: str | None,
    user_id: str | None,
    unless_since: datetime | None,
) -> Version | None:
    """See `Store.take_version`."""
    head = connection.execute(
        "SELECT id, last_version + 1, s.seq, s.whole, state_vector, waiting, state "
        "FROM document JOIN document_snapshot AS s ON document_id = id WHERE name = ?",
        (document,),
    ).fetchone()
    if head is None:
        return None
    document_id, id_, seq, whole, state_vector, waiting, state = head
    if unless_since is not None and _has_version(connection, document_id, "taken_at > ?", micros(unless_since)):
        return None
    if _has_version(connection, document_id, "seq = ?", seq):
        if label is None:
            return None
        labelled = connection.execute(
            "UPDATE document_version SET label = ?3 WHERE document_id = ?1 AND id = ("
            "SELECT max(id) FROM document_version WHERE document_id = ?1 AND seq = ?2 AND label IS NULL)",
            (document_id, seq, label),
        )
        if labelled.rowcount:
            return next(one for one in _read_versions(connection, document_id) if (one.seq, one.label) == (seq, label))
    blobs = (state_vector, pack(waiting), pack(state))
    version = Version(
        *(id_, seq, at, kind, label, user_id),
        users=_users_since_last(connection, document_id, seq),
        size_bytes=sum(map(len, blobs)),
        whole=bool(whole),
    )
    _write_version(connection, document_id, version, digest_of(blobs), blobs)
    connection.execute("UPDATE document SET last_version = ? WHERE id = ?", (id_, document_id))
    return version


def write_versions(
    connection: sqlite3.Connection, document_id: int, versions: Iterable[VersionContent | ArchivedVersion]
) -> None:
    """Write versions as they were read somewhere else."""
    for one in versions:
        _write_version(connection, document_id, one.version, *pack_version(one))
        connection.execute(
            "UPDATE document SET last_version = max(last_version, ?) WHERE id = ?", (one.version.id, document_id)
        )


def read_versions(connection: sqlite3.Connection, document: str) -> list[Version]:
    """See `Store.versions`."""
    found = _find(connection, document)
    return [] if found is None else _read_versions(connection, found[0])


def read_version(connection: sqlite3.Connection, document: str, id_: int) -> VersionContent | ArchivedVersion | None:
    """See `Store.version`."""
    return next(iter(_read_contents(connection, document, "AND v.id = ?", id_)), None)


def read_all_versions(connection: sqlite3.Connection, document: str) -> tuple[VersionContent | ArchivedVersion, ...]:
    """Read a document's versions with their content, oldest first."""
    return tuple(_read_contents(connection, document))


def label_version(connection: sqlite3.Connection, document: str, id_: int, label: str | None) -> bool:
    """See `Store.label_version`."""
    changed = connection.execute(
        "UPDATE document_version SET label = ? WHERE id = ? AND document_id = (SELECT id FROM document WHERE name = ?)",
        (label, id_, document),
    )
    return changed.rowcount > 0


def archive_version(connection: sqlite3.Connection, document: str, version: Version, digest: bytes) -> bool:
    """See `Store.archive_version`."""
    changed = connection.execute(
        "UPDATE document_version SET digest = ?, state_vector = ?, waiting = ?, state = ? "
        "WHERE document_id = (SELECT id FROM document WHERE name = ?) AND id = ? AND seq = ? AND taken_at = ? "
        "AND length(state) + length(waiting) > 0",
        (digest, *ARCHIVED, document, version.id, version.seq, micros(version.taken_at)),
    )
    return changed.rowcount > 0


def delete_versions(connection: sqlite3.Connection, document: str, ids: Sequence[int]) -> int:
    """See `Store.delete_versions`."""
    deleted = connection.execute(
        "DELETE FROM document_version WHERE document_id = (SELECT id FROM document WHERE name = ?) "
        "AND instr(?, ',' || id || ',')",
        (document, f",{','.join(map(str, ids))},"),
    )
    return deleted.rowcount


def _find(connection: sqlite3.Connection, document: str) -> tuple[int, int, int] | None:
    """A document's id, and the seqs of its last update and of the last one that is folded."""
    found: tuple[int, int, int] | None = connection.execute(
        "SELECT id, head_seq, coalesce(s.seq, 0) FROM document LEFT JOIN document_snapshot AS s ON s.document_id = id "
        "WHERE name = ?",
        (document,),
    ).fetchone()
    return found


def _read_log(connection: sqlite3.Connection, document_id: int, *, first: int, last: int) -> list[NumberedRow]:
    rows: list[NumberedRow] = []
    for start in range(first, last + 1, _PAGE_ROWS):
        page = (document_id, start, min(start + _PAGE_ROWS - 1, last), _PAGE_UPDATE_BYTES_MAX)
        where = 'FROM document_update WHERE document_id = ? AND seq BETWEEN ? AND ? AND length("update")'
        # A text for each column: taking rows apart would take several times as long.
        seqs, updates, users, times = map(
            _split,
            connection.execute(
                f'SELECT group_concat(seq), group_concat(hex("update")), group_concat({_HEX.format("user_id")}), '
                f"group_concat(accepted_at) {where} <= ?",
                page,
            ).fetchone(),
        )
        names = {user: _text_of(user) for user in set(users)}
        authors = map(names.__getitem__, users)
        found = list(zip(map(int, seqs), map(bytes.fromhex, updates), authors, map(int, times), strict=True))
        found += connection.execute(f'SELECT seq, "update", user_id, accepted_at {where} > ?', page)
        rows += sorted(found, key=itemgetter(0))
    return rows


def _has_version(connection: sqlite3.Connection, document_id: int, condition: str, value: int) -> bool:
    (found,) = connection.execute(
        f"SELECT EXISTS (SELECT 1 FROM document_version WHERE document_id = ? AND {condition})", (document_id, value)
    ).fetchone()
    return bool(found)


def _users_since_last(connection: sqlite3.Connection, document_id: int, seq: int) -> tuple[str, ...]:
    """Who wrote what a version at `seq` has and the one before hasn't. Versions begin and end where chunks do."""
    (text,) = connection.execute(
        "SELECT group_concat(DISTINCT hex(users)) FROM document_history WHERE document_id = ?1 AND first_seq <= ?2 AND "
        "first_seq > (SELECT coalesce(max(seq), 0) FROM document_version WHERE document_id = ?1 AND seq < ?2)",
        (document_id, seq),
    ).fetchone()
    users = {user for part in _split(text) for user in _users(part)}
    return tuple(sorted(user for user in users if user is not None)[:VERSION_USERS_MAX])


def _write_version(
    connection: sqlite3.Connection, document_id: int, version: Version, digest: bytes, blobs: tuple[bytes, bytes, bytes]
) -> None:
    connection.execute(
        "INSERT INTO document_version (document_id, id, seq, taken_at, kind, label, user_id, users, size_bytes, whole, "
        "digest, state_vector, waiting, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(document_id, version.id, version.seq, micros(version.taken_at), version.kind, version.label),
            *(version.user_id, json.dumps(version.users), version.size_bytes, version.whole, digest, *blobs),
        ),
    )


def _read_versions(connection: sqlite3.Connection, document_id: int) -> list[Version]:
    """Newest first."""
    (text,) = connection.execute(
        f"SELECT group_concat({_VERSION}) FROM document_version WHERE document_id = ?", (document_id,)
    ).fetchone()
    return sorted(map(_version, _split(text)), key=lambda version: -version.id)


def _read_contents(
    connection: sqlite3.Connection, document: str, condition: str = "", *values: int
) -> Iterator[VersionContent | ArchivedVersion]:
    rows = connection.execute(
        f"SELECT {_VERSION}, digest, state_vector, waiting, state FROM document_version AS v WHERE document_id = "
        f"(SELECT id FROM document WHERE name = ?) {condition} ORDER BY v.id",
        (document, *values),
    )
    for text, digest, *blobs in rows:
        yield unpack_version(document, _version(text), digest, blobs)


def _version(text: str) -> Version:
    id_, seq, taken_at, kind, label, user_id, users, size_bytes, whole, archived = _fields(text)
    return Version(
        *(int(id_), int(seq), moment(int(taken_at)), cast("VersionKind", kind), _text_of(label), _text_of(user_id)),
        users=tuple(json.loads(bytes.fromhex(users))),
        size_bytes=int(size_bytes),
        whole=whole == "1",
        archived=archived == "1",
    )


def _chunk(connection: sqlite3.Connection, document_id: int, text: str) -> Chunk:
    span, _, blob_text = text.rpartition(":")
    first_seq, last_seq, from_at, until_at, users, log_bytes = _span_fields(span)
    if blob_text == "-":
        (blob,) = connection.execute(
            "SELECT blob FROM document_history WHERE document_id = ? AND first_seq = ?", (document_id, first_seq)
        ).fetchone()
    else:
        blob = bytes.fromhex(blob_text)
    return Chunk(first_seq, last_seq, from_at, until_at, users, log_bytes, blob)


def _span(text: str) -> Span:
    return Span(*_span_fields(text))


def _span_fields(text: str) -> tuple[int, int, datetime, datetime, tuple[str | None, ...], int]:
    first_seq, last_seq, from_at, until_at, users, log_bytes = _fields(text)
    return int(first_seq), int(last_seq), moment(int(from_at)), moment(int(until_at)), _users(users), int(log_bytes)


# The same few write most chunks of a document.
@lru_cache(maxsize=256)
def _users(text: str) -> tuple[str | None, ...]:
    return tuple(json.loads(bytes.fromhex(text)))


def _text_of(text: str) -> str | None:
    """Undo `_HEX`."""
    return None if text == "-" else bytes.fromhex(text).decode()


def _fields(text: str) -> list[str]:
    return text.split(":")


def _split(text: str | None) -> list[str]:
    """What `group_concat` joined, which is None if there was nothing."""
    return [] if text is None else text.split(",")
