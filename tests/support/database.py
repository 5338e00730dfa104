"""What is in a database file, without the server."""

import sqlite3
from contextlib import closing
from pathlib import Path

from persistence.sqlite import decode_waiting


def stored_updates(path: Path, document: str, *, waiting: bool = True) -> list[bytes]:
    """All updates that make up a stored document: its snapshot, what waits beside it, and the log after it.

    Args:
        path: The SQLite file.
        document: Its name.
        waiting: Whether to return what waits beside the snapshot too.
    """
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        row = database.execute("SELECT id FROM document WHERE name = ?", (document,)).fetchone()
        if row is None:
            return []
        updates: list[bytes] = []
        snapshot = database.execute(
            "SELECT seq, state, waiting FROM document_snapshot WHERE document_id = ?", row
        ).fetchone()
        after = 0
        if snapshot is not None:
            after, state, blob = snapshot
            updates += [state, *(decode_waiting(blob) if waiting else ())]
        rows = database.execute(
            'SELECT "update" FROM document_update WHERE document_id = ? AND seq > ? ORDER BY seq', (*row, after)
        )
        return updates + [update for (update,) in rows]
