"""The tables in PostgreSQL and how they come about.

They live in a schema of their own, `crdt_sync`, so that they can share a database with an application's tables.
Every statement names it: a search path is a session's setting, and behind a pooler there are no sessions.
"""

import logging
from typing import Final

from persistence.postgres_link import Connection, Link
from persistence.store import Schema, StoreUnusable

log = logging.getLogger("persistence.postgres")

# Entry n brings a database from version n to n + 1. Only ever add; released entries stay as they are.
#
# No foreign keys: only `postgres` writes here, and with one, appends took 1.4 to 2.5 times as long.
#
# document, document_snapshot: their rows change all the time. Free space on their pages lets PostgreSQL put a row's new
# version beside the old one and leave the index alone (HOT): 97 % of the changes of snapshots, 37 % without.
#
# document_snapshot: large values, overwritten every few seconds, so most of its out-of-line part would be dead by the time
# that autovacuum's default, a fifth of the table, is reached.
#
# document_update is a queue: rows come by the thousand and go with the next checkpoint. It is vacuumed by the number of
# dead rows, however many live ones there are, should checkpoints once have failed for long. Free pages aren't cut off its
# end: that locks out appends for a moment, for pages that the next of them would need again.
# Updates aren't compressed: most are too small, and those that aren't are often a client's history, sent once.
#
# Measured with benchmarks/table_bloat.py.
#
# document_snapshot.whole_at: when a whole snapshot was taken; if that isn't `taken_at`, the snapshot isn't whole. So it
# also says no where a server of schema 2, which doesn't know of it, wrote a snapshot over a whole one.
MIGRATIONS: Final = (
    """
    CREATE TABLE crdt_sync.document (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        name text COLLATE "C" NOT NULL UNIQUE,
        head_seq bigint NOT NULL,
        created_at timestamptz NOT NULL,
        deleted_at timestamptz
    ) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);

    CREATE TABLE crdt_sync.document_update (
        document_id bigint NOT NULL,
        seq bigint NOT NULL,
        user_id text,
        accepted_at timestamptz NOT NULL,
        "update" bytea NOT NULL,
        PRIMARY KEY (document_id, seq)
    ) WITH (
        autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, vacuum_truncate = off
    );

    CREATE TABLE crdt_sync.document_snapshot (
        document_id bigint PRIMARY KEY,
        seq bigint NOT NULL,
        taken_at timestamptz NOT NULL,
        state_vector bytea NOT NULL,
        waiting bytea NOT NULL, -- both: see `blobs.pack`
        state bytea NOT NULL
    ) WITH (
        fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05,
        toast.autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_threshold = 10000,
        toast.autovacuum_vacuum_cost_delay = 0
    );

    ALTER TABLE crdt_sync.document_update ALTER COLUMN "update" SET STORAGE EXTERNAL;
    ALTER TABLE crdt_sync.document_snapshot
        ALTER COLUMN state_vector SET STORAGE EXTERNAL,
        ALTER COLUMN waiting SET STORAGE EXTERNAL,
        ALTER COLUMN state SET STORAGE EXTERNAL;
    """,
    """
    CREATE TABLE crdt_sync.quarantined_update (
        document text COLLATE "C" NOT NULL, -- its name: there may be no such document
        digest bytea NOT NULL,
        quarantined_at timestamptz NOT NULL,
        PRIMARY KEY (document, digest)
    );

    CREATE TABLE crdt_sync.revocation (
        kind text COLLATE "C" NOT NULL,
        value text COLLATE "C" NOT NULL,
        revoked_at timestamptz NOT NULL,
        until timestamptz NOT NULL,
        PRIMARY KEY (kind, value)
    );
    """,
    """
    ALTER TABLE crdt_sync.document ADD COLUMN last_version int NOT NULL DEFAULT 0;
    ALTER TABLE crdt_sync.document_snapshot ADD COLUMN whole_at timestamptz;

    CREATE TABLE crdt_sync.document_history (
        document_id bigint NOT NULL,
        first_seq bigint NOT NULL,
        last_seq bigint NOT NULL,
        from_at timestamptz NOT NULL,
        until_at timestamptz NOT NULL,
        users jsonb NOT NULL,
        log_bytes bigint NOT NULL,
        blob bytea NOT NULL, -- see `chunks`
        PRIMARY KEY (document_id, first_seq)
    );

    CREATE TABLE crdt_sync.document_version (
        document_id bigint NOT NULL,
        id int NOT NULL,
        seq bigint NOT NULL,
        taken_at timestamptz NOT NULL,
        kind text COLLATE "C" NOT NULL,
        label text,
        user_id text,
        users jsonb NOT NULL,
        size_bytes bigint NOT NULL,
        whole boolean NOT NULL,
        digest bytea NOT NULL, -- see `blobs.digest_of`
        state_vector bytea NOT NULL,
        waiting bytea NOT NULL, -- both: see `blobs.pack`
        state bytea NOT NULL,
        PRIMARY KEY (document_id, id)
    );

    ALTER TABLE crdt_sync.document_history ALTER COLUMN blob SET STORAGE EXTERNAL;
    ALTER TABLE crdt_sync.document_version
        ALTER COLUMN state_vector SET STORAGE EXTERNAL,
        ALTER COLUMN waiting SET STORAGE EXTERNAL,
        ALTER COLUMN state SET STORAGE EXTERNAL;
    """,
)

# Any number will do that nobody else takes: "crdtsync" as eight bytes.
_MIGRATION_LOCK: Final = int.from_bytes(b"crdtsync", "big")


async def read_schema(connection: Connection) -> Schema:
    """Tell the schema's version; inside a transaction too, so it can't ask for what may not be there."""
    found = 0
    # A query of the catalogue, not to_regclass(): that answers from a cache, which may not know yet what another
    # server committed a moment ago.
    if await connection.fetchval(
        "SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace "
        "WHERE nspname = 'crdt_sync' AND relname = 'migration'"
    ):
        found = await connection.fetchval("SELECT coalesce(max(version), 0) FROM crdt_sync.migration")
    return Schema(found, len(MIGRATIONS))


async def bring_up_to_date(link: Link, *, migrate: bool) -> None:
    """Make the schema the one that this release knows. Any number of servers may do so at once.

    Args:
        link: Open.
        migrate: Whether it may be changed.

    Raises:
        StoreUnusable: It is newer; or older, and may not be changed.
    """
    async with link.connection("read", "reading the schema") as connection, link.transaction(connection):
        schema = await read_schema(connection)
    _refuse_newer(schema, link)
    if schema.found == schema.known:
        return
    if not migrate:
        raise StoreUnusable(
            f"{link.describe()} has schema {schema.found}, this version needs {schema.known}: run crdt-sync migrate"
        )
    async with link.connection("append", "migrating the schema") as connection, link.transaction(connection):
        # Held until commit. Who had to wait finds the work done.
        await connection.execute(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
        schema = await read_schema(connection)
        _refuse_newer(schema, link)
        if not schema.found:
            await _create_namespace(connection)
        for version, script in enumerate(MIGRATIONS[schema.found :], start=schema.found + 1):
            await connection.execute(script)
            await connection.execute(f"INSERT INTO crdt_sync.migration (version) VALUES ({version})")
            log.info("schema_migrated", extra={"database": link.describe(), "version": version})


def _refuse_newer(schema: Schema, link: Link) -> None:
    if schema.found > schema.known:
        raise StoreUnusable(
            f"{link.describe()} has schema {schema.found}, this version knows up to {schema.known}: "
            "run the newer crdt-sync again, or restore a backup from before the upgrade"
        )


async def _create_namespace(connection: Connection) -> None:
    # An administrator may have made the schema for a user who may not make any; IF NOT EXISTS would be refused.
    if not await connection.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'crdt_sync'"):
        await connection.execute("CREATE SCHEMA crdt_sync")
    await connection.execute(
        "CREATE TABLE crdt_sync.migration (version int PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
