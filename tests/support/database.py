"""What is in a database file, without the server."""

import sqlite3
from contextlib import closing
from pathlib import Path

from persistence.sqlite import decode_waiting


def stored_updates(path: Path, document: str) -> list[bytes]:
    """All updates that make up a stored document: its snapshot, what waits beside it, and the log after it."""
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
            after, state, waiting = snapshot
            updates += [state, *decode_waiting(waiting)]
        rows = database.execute(
            'SELECT "update" FROM document_update WHERE document_id = ? AND seq > ? ORDER BY seq', (*row, after)
        )
        return updates + [update for (update,) in rows]
