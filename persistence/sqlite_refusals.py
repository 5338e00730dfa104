"""What must not come back, in a SQLite file: quarantined updates and revocations.

Owns what is said to these two tables. Leaves transactions and threads to `sqlite`.
"""

import sqlite3
from datetime import datetime
from typing import Final

from persistence.moments import micros, moment
from persistence.store import QUARANTINED_MAX, REVOCATION_GRACE, Quarantined, Revocation, RevocationKind

# A column of a query with the document's name as one parameter: one step, however many digests there are.
DIGESTS: Final = "(SELECT group_concat(hex(digest)) FROM quarantined_update WHERE document = ?)"


def read_digests(text: str | None) -> frozenset[bytes]:
    """Read what `DIGESTS` found."""
    return frozenset(map(bytes.fromhex, text.split(","))) if text else frozenset()


def quarantine(connection: sqlite3.Connection, one: Quarantined) -> None:
    """See `Store.quarantine`."""
    connection.execute(
        "INSERT INTO quarantined_update (document, digest, quarantined_at) VALUES (?, ?, ?) "
        "ON CONFLICT (document, digest) DO UPDATE SET quarantined_at = max(quarantined_at, excluded.quarantined_at)",
        (one.document, one.digest, micros(one.at)),
    )
    connection.execute(
        "DELETE FROM quarantined_update WHERE document = ?1 AND digest NOT IN (SELECT digest FROM quarantined_update "
        "WHERE document = ?1 ORDER BY quarantined_at DESC, digest DESC LIMIT ?2)",
        (one.document, QUARANTINED_MAX),
    )


def read_quarantined(connection: sqlite3.Connection) -> list[Quarantined]:
    """See `Store.quarantined`."""
    rows = connection.execute(
        "SELECT document, digest, quarantined_at FROM quarantined_update ORDER BY document, quarantined_at, digest"
    )
    return [Quarantined(document, digest, moment(at)) for document, digest, at in rows]


def revoke(connection: sqlite3.Connection, one: Revocation) -> None:
    """See `Store.revoke`."""
    connection.execute(
        "INSERT INTO revocation (kind, value, revoked_at, until) VALUES (?, ?, ?, ?) ON CONFLICT (kind, value) "
        "DO UPDATE SET revoked_at = max(revoked_at, excluded.revoked_at), until = max(until, excluded.until)",
        (one.kind, one.value, micros(one.revoked_at), micros(one.until)),
    )
    connection.execute("DELETE FROM revocation WHERE until <= ?", (micros(one.revoked_at - REVOCATION_GRACE),))


def unrevoke(connection: sqlite3.Connection, kind: RevocationKind, value: str) -> bool:
    """See `Store.unrevoke`."""
    return connection.execute("DELETE FROM revocation WHERE kind = ? AND value = ?", (kind, value)).rowcount > 0


def read_revocations(connection: sqlite3.Connection, now: datetime) -> list[Revocation]:
    """See `Store.revocations`."""
    rows = connection.execute(
        "SELECT kind, value, revoked_at, until FROM revocation WHERE until > ? ORDER BY kind, value", (micros(now),)
    )
    return [Revocation(kind, value, moment(revoked_at), moment(until)) for kind, value, revoked_at, until in rows]
