"""What must not come back, in PostgreSQL: quarantined updates and revocations.

Owns what is said to these two tables. Few rows, seldom changed: so there are transactions of several statements here,
and locks that are waited for.
"""

from datetime import datetime
from typing import Final

from persistence.postgres_link import Connection, Link
from persistence.store import QUARANTINED_MAX, REVOCATION_GRACE, Quarantined, Revocation, RevocationKind

# A column of a query in which $1 is the document's name.
DIGESTS: Final = "ARRAY(SELECT digest FROM crdt_sync.quarantined_update WHERE document = $1)"

_QUARANTINE: Final = """
INSERT INTO crdt_sync.quarantined_update AS old (document, digest, quarantined_at) VALUES ($1, $2, $3)
ON CONFLICT (document, digest) DO UPDATE SET quarantined_at = greatest(old.quarantined_at, excluded.quarantined_at)
"""
_FORGET_OLDER: Final = """
DELETE FROM crdt_sync.quarantined_update WHERE document = $1 AND digest NOT IN (
    SELECT digest FROM crdt_sync.quarantined_update WHERE document = $1 ORDER BY quarantined_at DESC, digest DESC LIMIT $2
)
"""
_REVOKE: Final = """
INSERT INTO crdt_sync.revocation AS old (kind, value, revoked_at, until) VALUES ($1, $2, $3, $4)
ON CONFLICT (kind, value) DO UPDATE SET revoked_at = greatest(old.revoked_at, excluded.revoked_at),
    until = greatest(old.until, excluded.until)
"""
# What another node is just renewing is passed over: two that wait for each other would both fail.
_FORGET_EXPIRED: Final = """
DELETE FROM crdt_sync.revocation WHERE (kind, value) IN (
    SELECT kind, value FROM crdt_sync.revocation WHERE until <= $1 FOR UPDATE SKIP LOCKED
)
"""


async def quarantine(link: Link, one: Quarantined) -> None:
    """See `Store.quarantine`."""
    async with (
        link.connection("read", f"quarantine in {one.document!r}") as connection,
        link.transaction(connection),
    ):
        # One at a time, so that each sees what the others have added.
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('crdt_sync quarantine ' || $1, 0))", one.document
        )
        await connection.execute(_QUARANTINE, one.document, one.digest, one.at)
        await connection.execute(_FORGET_OLDER, one.document, QUARANTINED_MAX)


async def forget_quarantined(connection: Connection, document: str) -> None:
    """Release all updates of one document, in a transaction."""
    await connection.execute("DELETE FROM crdt_sync.quarantined_update WHERE document = $1", document)


async def read_quarantined(link: Link) -> list[Quarantined]:
    """See `Store.quarantined`."""
    async with link.connection("read", "list of quarantined updates") as connection, link.statement(connection):
        rows = await connection.fetch(
            "SELECT document, digest, quarantined_at FROM crdt_sync.quarantined_update "
            "ORDER BY document, quarantined_at, digest"
        )
    return [Quarantined(*row) for row in rows]


async def revoke(link: Link, one: Revocation) -> None:
    """See `Store.revoke`."""
    async with link.connection("read", "revocation") as connection, link.transaction(connection):
        await connection.execute(_REVOKE, one.kind, one.value, one.revoked_at, one.until)
        await connection.execute(_FORGET_EXPIRED, one.revoked_at - REVOCATION_GRACE)


async def unrevoke(link: Link, kind: RevocationKind, value: str) -> bool:
    """See `Store.unrevoke`."""
    async with link.connection("read", "end of a revocation") as connection, link.statement(connection):
        found = await connection.fetchval(
            "DELETE FROM crdt_sync.revocation WHERE kind = $1 AND value = $2 RETURNING true", kind, value
        )
    return found is not None


async def read_revocations(link: Link, now: datetime) -> list[Revocation]:
    """See `Store.revocations`."""
    async with link.connection("read", "reading revocations") as connection, link.statement(connection):
        rows = await connection.fetch(
            "SELECT kind, value, revoked_at, until FROM crdt_sync.revocation WHERE until > $1 ORDER BY kind, value", now
        )
    return [Revocation(*row) for row in rows]
