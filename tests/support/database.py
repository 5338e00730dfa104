"""What is in a database, without the server and its store."""

import sqlite3
from contextlib import closing
from pathlib import Path

from persistence.blobs import decode_waiting, unpack

from .postgres import execute


def stored_updates(url: str, document: str, *, waiting: bool = True) -> list[bytes]:
    """All updates that make up a stored document: its snapshot, what waits beside it, and the log after it.

    Args:
        url: The database's, as the server is given it.
        document: Its name.
        waiting: Whether to return what waits beside the snapshot too.
    """
    read = _from_sqlite if url.startswith("sqlite:") else _from_postgres
    found = read(url, document)
    if found is None:
        return []
    state, waits, log = found
    return [*([state] if state is not None else []), *(waits if waiting else ()), *log]


Content = tuple[bytes | None, tuple[bytes, ...], list[bytes]]


def _from_sqlite(url: str, document: str) -> Content | None:
    path = Path(url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as database:
        database.execute("BEGIN")
        row = database.execute("SELECT id FROM document WHERE name = ?", (document,)).fetchone()
        if row is None:
            return None
        snapshot = database.execute(
            "SELECT seq, state, waiting FROM document_snapshot WHERE document_id = ?", row
        ).fetchone()
        after, state, waiting = snapshot or (0, None, b"")
        rows = database.execute(
            'SELECT "update" FROM document_update WHERE document_id = ? AND seq > ? ORDER BY seq', (*row, after)
        )
        return state, decode_waiting(waiting), [update for (update,) in rows]


def _from_postgres(url: str, document: str) -> Content | None:
    # One statement, so that it sees one moment.
    rows = execute(
        url,
        'SELECT state, waiting, ARRAY(SELECT "update" FROM crdt_sync.document_update AS u WHERE u.document_id = d.id '
        "AND u.seq > coalesce(s.seq, 0) ORDER BY seq) FROM crdt_sync.document AS d "
        "LEFT JOIN crdt_sync.document_snapshot AS s ON s.document_id = d.id WHERE name = $1",
        document,
    )
    if not rows:
        return None
    state, waiting, log = rows[0]
    if state is None:
        return None, (), log
    return unpack(state), decode_waiting(unpack(waiting)), log
