"""What PostgreSQL adds to the contract: other nodes, other servers, and everything that can go wrong on the way there."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import pytest

from persistence import (
    DocumentDeleted,
    DocumentHead,
    Entry,
    HistoryTrimmed,
    Revocation,
    Schema,
    Snapshot,
    Store,
    StoreCorrupt,
    Stored,
    StoreUnavailable,
    StoreUnusable,
    open_store,
    postgres_history,
    postgres_schema,
)
from persistence.postgres import _write_snapshots
from persistence.postgres_schema import MIGRATIONS
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import PostgresServer, execute
from tests.support.proxy import Proxy
from tests.support.server import free_port
from tests.support.services import require

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def entry(document: str, *updates: bytes) -> Entry:
    return Entry(document, updates, accepted_at=NOW)


@asynccontextmanager
async def opened(url: str, **options: object) -> AsyncIterator[Store]:
    store = open_store(url, **{"timeout_s": 5.0, **options})  # type: ignore[arg-type]
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server that the test may do anything to."""
    with require(PostgresServer) as server:
        yield server


@asynccontextmanager
async def session(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Somebody else's connection."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def until_it_works(store: Store, *entries: Entry, timeout_s: float = 10) -> list[int]:
    """Append as the journal does: again and again."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                return await store.append(entries)
            except StoreUnavailable:
                await asyncio.sleep(0.05)


async def until_it_fails(store: Store, saying: str, one: Entry | None = None) -> None:
    """Append until that fails in a certain way; a connection that is lost fails in another way first."""
    for _ in range(100):
        try:
            await store.append([one or entry("x", b"again")])
        except StoreUnavailable as error:
            if saying in str(error):
                return
    raise AssertionError(f"nothing failed with {saying!r}")


# --------------------------------------------------------------------------------------------------------- several nodes


async def test_nodes_append_to_one_document_at_once_and_nobody_sees_a_gap(postgres_url: str) -> None:
    async def write(store: Store, node: int) -> None:
        for i in range(60):
            # In an order that would deadlock, were it the order of locking.
            names = ("x", "y", "z") if node % 2 else ("z", "y", "x")
            await store.append([entry(name, b"%d-%d" % (node, i)) for name in names])

    async def watch(store: Store) -> None:
        seen: tuple[bytes, ...] = ()
        while len(seen) < 240:
            updates = (await store.load("x")).updates
            assert updates[: len(seen)] == seen, "what was read once stays where it was"
            seen = updates

    async with (
        opened(postgres_url) as a,
        opened(postgres_url) as b,
        opened(postgres_url) as c,
        opened(postgres_url) as d,
    ):
        async with asyncio.TaskGroup() as tasks:
            for node, store in enumerate((a, b, c, d)):
                tasks.create_task(write(store, node))
            tasks.create_task(watch(a))

        assert await a.documents() == [DocumentHead(name, 240) for name in "xyz"]


async def test_a_document_that_another_node_is_checkpointing_is_passed_over(postgres_url: str) -> None:
    async with opened(postgres_url) as store, session(postgres_url) as other:
        await store.append([entry("x", b"1"), entry("y", b"1")])
        snapshots = [Snapshot(name, seq=1, state=b"s", state_vector=b"v") for name in "xy"]
        transaction = other.transaction()
        await transaction.start()
        await other.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('crdt_sync checkpoint', id)) FROM crdt_sync.document "
            "WHERE name = 'x'"
        )

        during = await store.checkpoint(snapshots)
        passed_over = await store.load("x")
        await transaction.rollback()
        after = await store.checkpoint(snapshots)

        assert (during, after) == ({"x"}, frozenset())
        assert (passed_over.snapshot, passed_over.updates) == (None, (b"1",))
        assert (await store.load("x")).snapshot is not None


async def test_a_checkpoint_does_not_wait_for_an_append_nor_an_append_for_a_checkpoint(postgres_url: str) -> None:
    async with opened(postgres_url) as store, session(postgres_url) as other:
        await store.append([entry("x", b"1")])
        transaction = other.transaction()
        await transaction.start()
        await other.execute("UPDATE crdt_sync.document SET head_seq = 2")

        assert await store.checkpoint([Snapshot("x", seq=1, state=b"s", state_vector=b"v")]) == frozenset()

        await transaction.rollback()
        transaction = other.transaction()
        await transaction.start()
        await other.execute("UPDATE crdt_sync.document_snapshot SET state = state")
        assert await store.append([entry("x", b"2")]) == [2]
        await transaction.rollback()


LOST: Final = """
SELECT (SELECT count(*) FROM crdt_sync.document_update WHERE document_id NOT IN (SELECT id FROM crdt_sync.document)),
    (SELECT count(*) FROM (
        SELECT document_id FROM crdt_sync.document_snapshot UNION ALL SELECT document_id FROM crdt_sync.document_history
        UNION ALL SELECT document_id FROM crdt_sync.document_version
    ) AS them WHERE document_id NOT IN (SELECT id FROM crdt_sync.document))
"""


async def until_somebody_waits(other: asyncpg.Connection) -> None:
    """Return once another connection to this database waits for a lock."""
    async with asyncio.timeout(5):
        while not await other.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ):
            await asyncio.sleep(0.01)


async def test_a_purge_waits_for_the_append_that_is_under_way_and_forgets_its_updates_too(postgres_url: str) -> None:
    async with opened(postgres_url) as store, session(postgres_url) as other:
        await store.append([entry("x", b"1")])
        await store.delete("x", at=NOW)
        transaction = other.transaction()
        await transaction.start()
        await other.execute("UPDATE crdt_sync.document SET head_seq = 2")
        await other.execute(
            "INSERT INTO crdt_sync.document_update SELECT id, 2, NULL, now(), 'late' FROM crdt_sync.document"
        )

        purge = asyncio.create_task(store.purge("x"))
        await until_somebody_waits(other)
        await transaction.commit()

        assert await purge
        assert await store.load("x") == Stored(0, None, ())
        assert execute(postgres_url, LOST) == [(0, 0)]


async def test_a_document_that_is_undeleted_while_its_purge_waits_is_not_purged(postgres_url: str) -> None:
    async with opened(postgres_url) as store, session(postgres_url) as other:
        await store.append([entry("x", b"1")])
        await store.delete("x", at=NOW)
        transaction = other.transaction()
        await transaction.start()
        await other.execute("UPDATE crdt_sync.document SET deleted_at = NULL")

        purge = asyncio.create_task(store.purge("x"))
        await until_somebody_waits(other)
        await transaction.commit()

        assert not await purge
        assert (await store.load("x")).updates == (b"1",)


async def test_a_version_waits_for_the_checkpoint_that_is_under_way(postgres_url: str) -> None:
    async with opened(postgres_url) as store, session(postgres_url) as checkpoint:
        await store.append([entry("x", b"1", b"2")])
        await store.checkpoint([Snapshot("x", seq=1, state=b"1", state_vector=b"v")])
        checkpointing = checkpoint.transaction()
        await checkpointing.start()
        await checkpoint.execute("SELECT pg_advisory_xact_lock(hashtextextended('crdt_sync checkpoint', 1))")
        await checkpoint.execute("UPDATE crdt_sync.document_snapshot SET seq = 2")

        taking = asyncio.create_task(store.take_version("x", at=NOW, kind="auto"))
        await until_somebody_waits(checkpoint)
        await checkpointing.commit()

        version = await taking
        assert version is not None
        assert version.seq == 2


async def test_a_history_that_another_node_is_at_is_not_trimmed(postgres_url: str) -> None:
    async with opened(postgres_url) as store, session(postgres_url) as other:
        await store.append([entry("x", b"1")])
        await store.checkpoint([Snapshot("x", seq=1, state=b"s", state_vector=b"v")])
        transaction = other.transaction()
        await transaction.start()
        await other.execute("SELECT pg_advisory_xact_lock(hashtextextended('crdt_sync checkpoint', 1))")

        during = await store.trim_history("x", upto=1)
        left = len(await store.rows("x", first=1, last=1))
        await transaction.rollback()

        assert (during, left) == (False, 1)
        assert await store.trim_history("x", upto=1)
        assert await store.timeline("x") == []


async def test_a_version_is_copied_while_appends_go_on(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        await store.append([entry("x", b"1")])
        await store.checkpoint([Snapshot("x", seq=1, state=b"s", state_vector=b"v")])
        async with session(postgres_url) as other:
            await other.execute(
                "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NEW; END $$;"
                "CREATE TRIGGER slow BEFORE INSERT ON crdt_sync.document_version FOR EACH ROW EXECUTE FUNCTION slow()"
            )
            await other.execute("SELECT pg_advisory_lock(42)")
            taking = asyncio.create_task(store.take_version("x", at=NOW, kind="auto"))
            await until_somebody_waits(other)

            assert await store.append([entry("x", b"2")]) == [2]

            assert not taking.done()
            await other.execute("SELECT pg_advisory_unlock(42)")
        version = await taking
        assert version is not None
        assert version.id == 1


async def test_a_checkpoint_of_many_rows_folds_them_page_by_page(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_history, "_FOLD_ROWS", 7)
    names = [f"trip-{n}" for n in range(5)]
    async with opened(postgres_url) as store:
        await store.append([entry(name, *(b"%d" % n for n in range(10))) for name in names])

        await store.checkpoint([Snapshot(name, seq=9, state=b"s", state_vector=b"v") for name in names])

        for name in names:
            assert [row.update for row in await store.rows(name, first=1, last=10)] == [b"%d" % n for n in range(10)]
            assert (await store.load(name)).updates == (b"9",)


async def test_an_append_that_waits_for_a_purge_makes_a_new_document(postgres_url: str) -> None:
    async with opened(postgres_url) as store, session(postgres_url) as other:
        await store.append([entry("x", b"1", b"2"), entry("y", b"1")])
        transaction = other.transaction()
        await transaction.start()
        await other.execute("DELETE FROM crdt_sync.document_update WHERE document_id = 1")
        await other.execute("DELETE FROM crdt_sync.document WHERE id = 1")

        append = asyncio.create_task(store.append([entry("x", b"new"), entry("y", b"2")]))
        await until_somebody_waits(other)
        await transaction.commit()

        assert await append == [1, 2]
        assert (await store.load("x")).updates == (b"new",)
        assert execute(postgres_url, LOST) == [(0, 0)]


async def test_a_purge_waits_for_the_checkpoint_that_is_under_way_and_keeps_others_out(postgres_url: str) -> None:
    async with opened(postgres_url) as store, session(postgres_url) as checkpoint, session(postgres_url) as append:
        await store.append([entry("x", b"1")])
        await store.delete("x", at=NOW)
        checkpointing, appending = checkpoint.transaction(), append.transaction()
        await checkpointing.start()
        await checkpoint.execute("SELECT pg_advisory_xact_lock(hashtextextended('crdt_sync checkpoint', 1))")
        await checkpoint.execute("INSERT INTO crdt_sync.document_snapshot VALUES (1, 1, now(), 'v', 'w', 's')")
        await appending.start()
        await append.execute("UPDATE crdt_sync.document SET head_seq = head_seq")

        purge = asyncio.create_task(store.purge("x"))
        await until_somebody_waits(checkpoint)
        await checkpointing.commit()
        await until_somebody_waits(checkpoint)
        passed_over = await store.checkpoint([Snapshot("x", seq=1, state=b"s", state_vector=b"v")])
        await appending.commit()

        assert await purge
        assert passed_over == {"x"}
        assert execute(postgres_url, LOST) == [(0, 0)]


async def test_no_row_outlives_its_document_however_purges_and_checkpoints_meet(postgres_url: str) -> None:
    async def fold(store: Store, names: list[str]) -> None:
        for _ in range(12):
            with contextlib.suppress(StoreCorrupt):  # ahead of the log, once it was purged
                await store.checkpoint([Snapshot(name, seq=1, state=b"s", state_vector=b"v") for name in names])
            for name in names[::7]:
                await store.take_version(name, at=NOW, kind="auto", label="kept")

    async def remove(store: Store, names: list[str]) -> None:
        for name in names:
            await store.delete(name, at=NOW)
            await store.purge(name)

    async with opened(postgres_url) as a, opened(postgres_url) as b:
        names = [f"trip-{n}" for n in range(60)]
        for _ in range(4):
            await a.append([entry(name, b"1") for name in names])
            await asyncio.gather(
                fold(a, names[::2]), fold(b, names[1::2]), remove(a, names[:30]), remove(b, names[30:])
            )

        assert await a.stats() == []
        assert execute(postgres_url, LOST) == [(0, 0)]


async def test_a_snapshot_of_a_document_that_is_gone_is_not_written(postgres_url: str) -> None:
    async with opened(postgres_url), session(postgres_url) as connection:
        assert await _write_snapshots(connection, {7: (1, True, b"v", b"w", b"s")}) == []

    assert execute(postgres_url, LOST) == [(0, 0)]


async def test_asking_for_a_deleted_document_costs_no_connection(postgres_url: str) -> None:
    async with opened(postgres_url) as store, session(postgres_url) as other:
        await store.append([entry("x", b"1")])
        await store.delete("x", at=NOW)
        servers = "SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = current_database()"
        before = await other.fetchval(servers)

        for _ in range(5):
            with pytest.raises(DocumentDeleted):
                await store.load("x")
            with pytest.raises(DocumentDeleted):
                await store.export("x")

        assert await other.fetchval(servers) == before


async def test_ten_stores_open_at_once_on_an_empty_database_and_make_one_schema(postgres_url: str) -> None:
    stores = [open_store(postgres_url) for _ in range(10)]

    await asyncio.gather(*(store.open() for store in stores))

    assert [await store.append([entry("x", b"u")]) for store in stores] == [[n] for n in range(1, 11)]
    await asyncio.gather(*(store.close() for store in stores))
    versions = execute(postgres_url, "SELECT version FROM crdt_sync.migration ORDER BY version")
    assert [row[0] for row in versions] == list(range(1, len(MIGRATIONS) + 1))


# ----------------------------------------------------------------------------------------------------------- the schema


async def test_a_newer_schema_is_refused_and_left_alone(postgres_url: str) -> None:
    async with opened(postgres_url):
        pass
    execute(postgres_url, "INSERT INTO crdt_sync.migration (version) VALUES (1000)")

    with pytest.raises(StoreUnusable, match=r"schema 1000, this version knows up to \d+: run the newer crdt-sync"):
        await open_store(postgres_url).open()


async def filled_by_release(url: str, schema: int) -> None:
    """Make what a release with that schema left: `x`, of four updates and a snapshot of the first two."""
    async with session(url) as old:
        await old.execute(
            "CREATE SCHEMA crdt_sync; CREATE TABLE crdt_sync.migration (version int, applied_at timestamptz)"
        )
        for version, script in enumerate(MIGRATIONS[:schema], start=1):
            await old.execute(script)
            await old.execute("INSERT INTO crdt_sync.migration VALUES ($1, now())", version)
        await old.execute("INSERT INTO crdt_sync.document VALUES (DEFAULT, 'x', 4, now())")
        await old.execute(WRITE_SNAPSHOT_OF_SCHEMA_2, 2)
        await old.execute(
            "INSERT INTO crdt_sync.document_update VALUES (1, 3, 'ann', now(), 'c'), (1, 4, NULL, now(), 'd')"
        )


# What releases with schema 2 say, but for the arrays.
WRITE_SNAPSHOT_OF_SCHEMA_2: Final = """
INSERT INTO crdt_sync.document_snapshot AS old (document_id, seq, taken_at, state_vector, waiting, state)
VALUES (1, $1, now(), 'v', '\\xa5', '\\xa573')
ON CONFLICT (document_id) DO UPDATE SET seq = excluded.seq, taken_at = excluded.taken_at,
    state_vector = excluded.state_vector, waiting = excluded.waiting, state = excluded.state
WHERE old.seq <= excluded.seq
"""


@pytest.mark.parametrize("found", [1, 2])
async def test_a_database_of_an_older_release_is_brought_up_to_date(postgres_url: str, found: int) -> None:
    await filled_by_release(postgres_url, found)
    before = await open_store(postgres_url).schema()
    with pytest.raises(StoreUnusable, match=f"has schema {found}, this version needs 3: run crdt-sync migrate"):
        await open_store(postgres_url, migrate=False).open()

    async with opened(postgres_url) as a, opened(postgres_url) as b:
        assert (before, await a.schema()) == (Schema(found, 3), Schema(3, 3))
        folded = Snapshot("x", seq=2, state=b"s", state_vector=b"v", whole=False)
        assert await b.load("x") == Stored(4, folded, (b"c", b"d"))
        await a.quarantine("x", b"digest", at=NOW)
        assert [(span.first_seq, span.last_seq) for span in await b.timeline("x")] == [(3, 4)]
        taken = await a.take_version("x", at=NOW, kind="auto")
        assert taken is not None
        assert (taken.id, taken.seq, taken.whole) == (1, 2, False)
        await b.checkpoint([Snapshot("x", seq=4, state=b"s", state_vector=b"v")])
        assert [row.update for row in await a.rows("x", first=3, last=4)] == [b"c", b"d"]
        with pytest.raises(HistoryTrimmed, match="begins at seq 3"):
            await a.rows("x", first=2, last=4)
        assert await b.delete("x", at=NOW)
        assert await a.heads(["x"]) == {"x": None}


async def test_a_snapshot_of_an_older_release_is_never_taken_for_a_whole_one(postgres_url: str) -> None:
    async with opened(postgres_url) as store, session(postgres_url) as old:
        await store.append([entry("x", b"1", b"2", b"3")])
        await store.checkpoint([Snapshot("x", seq=2, state=b"s", state_vector=b"v")])
        before = (await store.load("x")).snapshot

        # A rolling upgrade: a node of the older release stores one over that of a newer.
        await old.execute(WRITE_SNAPSHOT_OF_SCHEMA_2, 2)

        after = (await store.load("x")).snapshot
        assert before is not None
        assert after is not None
        assert (before.whole, after.whole) == (True, False)
        taken = await store.take_version("x", at=NOW, kind="auto")
        assert taken is not None
        assert not taken.whole


async def test_a_server_of_the_first_release_goes_on_beside_a_newer_schema(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as first_release:
        first_release.setattr(postgres_schema, "MIGRATIONS", MIGRATIONS[:1])
        old = open_store(postgres_url)
        await old.open()
    async with opened(postgres_url) as new:
        await old.append([entry("x", b"1")])
        await new.delete("x", at=NOW)

        assert await old.append([entry("x", b"2")]) == [2]
        assert await new.heads(["x"]) == {"x": None}
    await old.close()


async def test_who_may_not_migrate_is_told_what_to_run(postgres_url: str) -> None:
    store = open_store(postgres_url, migrate=False)

    with pytest.raises(StoreUnusable, match="crdt-sync migrate"):
        await store.open()

    assert await store.schema() == Schema(0, len(MIGRATIONS))
    assert execute(postgres_url, "SELECT count(*) FROM pg_namespace WHERE nspname = 'crdt_sync'")[0][0] == 0


async def test_a_user_without_rights_on_the_database_can_use_a_schema_made_for_it(postgres_url: str) -> None:
    execute(postgres_url, "DROP ROLE IF EXISTS modest")
    execute(postgres_url, "CREATE ROLE modest LOGIN")
    execute(postgres_url, "CREATE SCHEMA crdt_sync AUTHORIZATION modest")
    url = urlsplit(postgres_url)

    async with opened(url._replace(netloc=f"modest@{url.hostname}:{url.port}").geturl()) as store:
        assert await store.append([entry("x", b"u")]) == [1]


async def test_a_user_who_may_only_change_rows_can_serve(postgres_url: str) -> None:
    async with opened(postgres_url):
        pass
    execute(postgres_url, "DROP ROLE IF EXISTS server")
    execute(postgres_url, "CREATE ROLE server LOGIN")
    execute(postgres_url, "GRANT USAGE ON SCHEMA crdt_sync TO server")
    execute(postgres_url, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA crdt_sync TO server")
    url = urlsplit(postgres_url)
    modest = url._replace(netloc=f"server@{url.hostname}:{url.port}").geturl()

    async with opened(modest, migrate=False) as store:
        await store.append([entry("x", b"1", b"2")])
        await store.checkpoint([Snapshot("x", seq=1, state=b"s", state_vector=b"v")])
        export = await store.export("x")
        assert export is not None
        await store.put(export, replace=True)
        assert (await store.load("x")).updates == (b"2",)
        assert await store.take_version("x", at=NOW, kind="auto") is not None
        assert await store.label_version("x", 1, "mine")
        assert await store.delete_versions("x", [1]) == 1
        assert await store.trim_history("x", upto=1)
        await store.quarantine("x", b"digest", at=NOW)
        await store.revoke(Revocation("user", "ann", revoked_at=NOW, until=NOW))
        await store.delete("x", at=NOW)
        assert await store.purge("x")
        await store.check()


async def test_a_user_without_rights_on_new_tables_is_told_so_before_a_document_is_opened(postgres_url: str) -> None:
    async with opened(postgres_url):
        pass
    execute(postgres_url, "DROP ROLE IF EXISTS late")
    execute(postgres_url, "CREATE ROLE late LOGIN")
    execute(postgres_url, "GRANT USAGE ON SCHEMA crdt_sync TO late")
    execute(postgres_url, "GRANT ALL ON crdt_sync.document, crdt_sync.document_update TO late")
    execute(postgres_url, "GRANT ALL ON crdt_sync.document_snapshot, crdt_sync.migration TO late")
    url = urlsplit(postgres_url)

    async with opened(url._replace(netloc=f"late@{url.hostname}:{url.port}").geturl(), migrate=False) as store:
        with pytest.raises(StoreUnavailable, match="all rights on its tables"):
            await store.check()


async def test_an_applications_tables_in_the_same_database_are_not_in_the_way(postgres_url: str) -> None:
    execute(postgres_url, "CREATE TABLE document (id int)")

    async with opened(postgres_url) as store:
        await store.append([entry("x", b"u")])

    assert execute(postgres_url, "SELECT count(*) FROM document")[0][0] == 0


# ------------------------------------------------------------------------------------------------------------- snapshots


async def test_large_states_are_stored_compressed(postgres_url: str) -> None:
    state = b"".join(b"place %d is nice; " % i for i in range(20_000))
    async with opened(postgres_url) as store:
        await store.append([entry("x", b"u")])
        await store.checkpoint([Snapshot("x", seq=1, state=state, state_vector=b"v")])

        loaded = (await store.load("x")).snapshot

    assert loaded is not None
    assert loaded.state == state
    assert execute(postgres_url, "SELECT octet_length(state) FROM crdt_sync.document_snapshot")[0][0] < len(state) / 4


@pytest.mark.parametrize(("column", "position"), [("state", 40), ("state", 0), ("waiting", 0)])
async def test_a_byte_that_was_changed_on_disk_is_noticed(postgres_url: str, column: str, position: int) -> None:
    async with opened(postgres_url) as store:
        await store.append([entry("x", b"u")])
        snapshot = Snapshot(
            "x", seq=1, state=b"".join(b"place %d " % i for i in range(500)), waiting=(b"w" * 999,), state_vector=b"v"
        )
        await store.checkpoint([snapshot])
        execute(
            postgres_url,
            f"UPDATE crdt_sync.document_snapshot SET {column} = set_byte({column}, {position}, "
            f"get_byte({column}, {position}) # 64)",
        )

        with pytest.raises(StoreCorrupt):
            await store.load("x")


async def test_a_missing_row_is_noticed(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        await store.append([entry("x", b"1", b"2", b"3")])
        execute(postgres_url, "DELETE FROM crdt_sync.document_update WHERE seq = 2")

        with pytest.raises(StoreCorrupt, match="missing"):
            await store.load("x")
        assert (await store.load("x", after=2)).updates == (b"3",)


# -------------------------------------------------------------------------------------------------------------- failures


async def test_a_commit_whose_answer_is_lost_is_repeated_without_harm(own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database()
    async with Proxy(own_postgres.port) as proxy, opened(proxy.url(url)) as store:
        await store.append([entry("x", b"before")])
        proxy.cut_at_answer_to(b"the lost one")

        with pytest.raises(StoreUnavailable, match=r"append of 1 updates failed: .+ \(PostgreSQL database"):
            await store.append([entry("x", b"the lost one")])
        repeated = await store.append([entry("x", b"the lost one")])

        assert proxy.answers_cut == 1
        assert repeated == [3]
        assert (await store.load("x")).updates == (b"before", b"the lost one", b"the lost one")


async def test_lost_connections_are_made_anew(own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database()
    async with Proxy(own_postgres.port) as proxy, opened(proxy.url(url)) as store:
        await store.append([entry("x", b"1")])
        await store.load("x")
        proxy.cut()
        await asyncio.sleep(0)

        assert await until_it_works(store, entry("x", b"2")) == [2]
        proxy.refuse()
        proxy.cut()
        with pytest.raises(StoreUnavailable):
            await store.append([entry("x", b"3")])
        await proxy.accept()
        assert await store.append([entry("x", b"3")]) == [3]


async def test_a_server_that_was_killed_has_everything_that_it_confirmed(own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database()
    async with opened(url) as store:
        await store.append([entry("x", b"1")])
        own_postgres.kill()
        with pytest.raises(StoreUnavailable):
            await store.append([entry("x", b"2")])
        with pytest.raises(StoreUnavailable):
            await store.check()
        own_postgres.start()

        assert await until_it_works(store, entry("x", b"2")) == [2]
        await store.check()


async def test_a_server_that_hangs_is_given_up_in_time(own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database()
    async with opened(url, timeout_s=0.5) as store:
        await store.append([entry("x", b"1")])
        own_postgres.freeze()
        loop = asyncio.get_running_loop()
        started_at = loop.time()

        for _ in range(3):
            with pytest.raises(StoreUnavailable, match=r"no answer within 0\.5 s"):
                await store.append([entry("x", b"2")])
        took_s = loop.time() - started_at
        own_postgres.thaw()

        assert took_s < 3
        await until_it_works(store, entry("x", b"3"))
        updates = (await store.load("x")).updates
        assert updates[0] == b"1"
        assert updates[-1] == b"3"
        assert set(updates) <= {b"1", b"2", b"3"}, "an attempt that was given up may have been carried out later"


async def test_a_store_closes_although_its_server_hangs(own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database()
    async with opened(url) as store:
        await store.append([entry("x", b"1")])
        own_postgres.freeze()

        async with asyncio.timeout(5):
            await store.close()
        own_postgres.thaw()


async def test_a_lock_on_the_table_costs_time_only_and_leaves_nobody_waiting(postgres_url: str) -> None:
    async with opened(postgres_url, timeout_s=0.5) as store:
        await store.append([entry("x", b"1")])
        async with session(postgres_url) as other:
            transaction = other.transaction()
            await transaction.start()
            await other.execute("LOCK TABLE crdt_sync.document IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(StoreUnavailable):
                await store.append([entry("x", b"2")])
            async with asyncio.timeout(5):
                while await other.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
                ):
                    await asyncio.sleep(0.05)
            await transaction.rollback()

        assert await store.append([entry("x", b"2")]) == [2]


async def test_statements_get_our_time_whatever_the_databases_default_is(postgres_url: str) -> None:
    name = urlsplit(postgres_url).path[1:]
    execute(postgres_url, f'ALTER DATABASE "{name}" SET statement_timeout = 100')

    async with opened(postgres_url) as store:
        await on_insert(postgres_url, "PERFORM pg_sleep(0.3)")

        assert await store.append([entry("x", b"u")]) == [1]


async def on_insert(url: str, statement: str) -> None:
    """Have every append do something more, in its transaction."""
    async with session(url) as other:
        await other.execute(
            f"CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {statement}; RETURN NEW; END $$;"
            "CREATE TRIGGER more BEFORE INSERT ON crdt_sync.document_update FOR EACH ROW EXECUTE FUNCTION more()"
        )


async def test_a_server_that_is_full_of_others_is_tried_again() -> None:
    with (
        require(
            lambda: PostgresServer(settings={"max_connections": "8", "superuser_reserved_connections": "0"})
        ) as server,
    ):
        url = server.create_database()
        async with opened(url) as store:
            await store.append([entry("x", b"1")])
            async with asyncio.timeout(10):
                execute(
                    server.url,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name <> 'psql' "
                    "AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
                )
                hogs = []
                while True:
                    try:
                        hogs.append(await asyncpg.connect(server.url))
                    except asyncpg.TooManyConnectionsError:
                        break
                await until_it_fails(store, "CRDT_SYNC_DATABASE_CONNECTIONS_MAX")
                for hog in hogs:
                    await hog.close()

            assert (await until_it_works(store, entry("x", b"2")))[0] >= 2


async def test_a_server_made_read_only_is_unavailable_and_says_so(postgres_url: str) -> None:
    name = urlsplit(postgres_url).path[1:]
    async with opened(postgres_url) as store:
        await store.append([entry("x", b"1")])
        execute(postgres_url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        execute(
            postgres_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()",
        )

        await until_it_fails(store, "read-only")
        with pytest.raises(StoreUnavailable, match="read-only"):
            await store.check()
        assert (await store.load("x")).updates == (b"1",)

        execute(postgres_url, "SET default_transaction_read_only = off")
        async with session(postgres_url) as other:
            await other.execute("SET default_transaction_read_only = off")
            await other.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        assert await until_it_works(store, entry("x", b"2")) == [2]


async def test_a_disk_that_is_full_costs_time_only() -> None:
    with require(lambda: PostgresServer(wal_segment_mb=1)) as server:
        url = server.create_database()
        async with opened(url) as store:
            await store.append([entry("x", b"1")])
            # A WAL file may grow to its size, a table no further than that.
            server.limit_files(1 << 20)
            await until_it_fails(store, "File too large", entry("big", os.urandom(100_000)))
            await until_it_fails(store, "File too large", entry("big", os.urandom(100_000)))
            server.limit_files(None)
            await until_it_works(store, entry("x", b"2"))

            assert (await store.load("x")).updates[0] == b"1"
            assert (await store.load("big")).head_seq > 2, "it wasn't full from the start"


async def test_the_check_notices_a_full_disk_before_an_edit_comes(own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database()
    async with opened(url) as store:
        await store.check()
        backends = execute(
            url, "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        own_postgres.limit_files(65536, pids=[pid for (pid,) in backends])

        with pytest.raises(StoreUnavailable, match="check failed: could not write to file"):
            await store.check()

        await store.check()  # by a connection for which the disk isn't full
        assert await store.append([entry("x", b"1")]) == [1]


async def test_the_check_goes_through_the_log_as_an_append_does(own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database()
    next_transaction = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
    async with opened(url) as store:
        ((before,),) = execute(url, next_transaction)
        await store.check()
        ((after,),) = execute(url, next_transaction)

    assert after > before, "only what is written has a transaction's number"


async def test_a_table_that_was_dropped_is_not_replaced_by_an_empty_one(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        await store.append([entry("x", b"1")])
        execute(postgres_url, "ALTER TABLE crdt_sync.document_update RENAME TO gone")

        with pytest.raises(StoreUnavailable, match="a table is missing: bring it back from a backup"):
            await store.append([entry("x", b"2")])
        with pytest.raises(StoreUnavailable, match="a table is missing"):
            await store.check()

        execute(postgres_url, "ALTER TABLE crdt_sync.gone RENAME TO document_update")
        assert await store.append([entry("x", b"2")]) == [2]


# -------------------------------------------------------------------------------------------------------- other servers


async def test_a_standby_takes_over_when_the_url_names_both(own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database()
    with own_postgres.standby() as standby:
        both = (
            urlsplit(url)._replace(netloc=f"postgres@127.0.0.1:{standby.port},127.0.0.1:{own_postgres.port}").geturl()
        )
        async with opened(both, timeout_s=3) as store:
            await store.append([entry("x", b"1")])
            wait_for_replay(own_postgres, standby)
            own_postgres.freeze()  # worse than dead: it takes connections and says nothing
            with pytest.raises(StoreUnavailable):
                await store.append([entry("x", b"2")])

            standby.promote()

            assert await until_it_works(store, entry("x", b"2"), timeout_s=20) == [2]
            assert (await store.load("x")).updates == (b"1", b"2")
            own_postgres.thaw()


def wait_for_replay(primary: PostgresServer, standby: PostgresServer) -> None:
    (lsn,) = execute(primary.url, "SELECT pg_current_wal_lsn()::text")[0]
    while not execute(standby.url, "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", lsn)[0][0]:
        pass


async def test_a_replica_lists_and_exports_and_never_loads(own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database()
    async with opened(url) as writer:
        await writer.append([entry("old", b"1")])
        with own_postgres.standby() as standby:
            replica = urlsplit(url)._replace(netloc=f"postgres@127.0.0.1:{standby.port}").geturl()
            async with opened(url, replica_url=replica) as store:
                wait_for_replay(own_postgres, standby)
                execute(standby.url, "SELECT pg_wal_replay_pause()")
                await store.append([entry("new", b"1"), entry("old", b"2")])

                assert await store.documents() == [DocumentHead("old", 1)]
                assert [one.document for one in await store.stats()] == ["old"]
                assert await store.export("new") is None
                await store.delete("old", at=NOW)
                assert [one.deleted_at for one in await store.documents()] == [None]
                assert await store.heads(["old"]) == {"old": None}
                await store.undelete("old")
                assert (await store.load("new")).updates == (b"1",)
                assert (await store.load("old")).updates == (b"1", b"2")

                standby.stop()
                await store.check()
                with pytest.raises(StoreUnavailable, match=str(standby.port)):
                    await store.documents()


async def test_a_standby_alone_can_be_read_but_not_written(own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database()
    async with opened(url) as writer:
        await writer.append([entry("x", b"1")])
    with own_postgres.standby() as standby:
        wait_for_replay(own_postgres, standby)
        replica = urlsplit(url)._replace(netloc=f"postgres@127.0.0.1:{standby.port}").geturl()
        async with opened(replica, read_only=True) as store:
            export = await store.export("x")

            assert export is not None
            assert [row.update for row in export.rows] == [b"1"]
            with pytest.raises(StoreUnavailable, match="read-only"):
                await store.append([entry("x", b"2")])
            with pytest.raises(StoreUnavailable, match="read-only"):
                await store.check()


# ------------------------------------------------------------------------------------------------------------- PgBouncer


async def test_many_nodes_share_three_connections_behind_a_pooler(pgbouncer_url: str) -> None:
    stores = [open_store(pgbouncer_url) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))

    async def work(store: Store, node: int) -> None:
        for i in range(25):
            await store.append([entry("x", b"%d-%d" % (node, i)), entry(f"trip-{node}", b"u")])
            stored = await store.load("x")
            await store.checkpoint([Snapshot("x", seq=stored.head_seq, state=b"s", state_vector=b"v")])
            await store.load(f"trip-{node}")

    await asyncio.gather(*(work(store, node) for node, store in enumerate(stores)))

    assert (await stores[0].load("x")).head_seq == 150
    assert len(await stores[0].documents()) == 7
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_pooler_in_session_mode_works_too(postgres: PostgresServer, postgres_url: str) -> None:
    with require(lambda: PgBouncer(postgres, settings={"pool_mode": "session"})) as pooler:
        async with opened(pooler.url(postgres_url)) as store:
            await store.append([entry("x", b"1", b"2")])
            await store.checkpoint([Snapshot("x", seq=1, state=b"s", state_vector=b"v")])

            assert (await store.load("x")).updates == (b"2",)


async def test_no_lock_and_no_setting_stays_behind_in_a_pooler(pgbouncer_url: str, postgres_url: str) -> None:
    async with opened(pgbouncer_url) as store:
        await store.append([entry("x", b"1")])
        await store.checkpoint([Snapshot("x", seq=1, state=b"s", state_vector=b"v")])

        locks = execute(postgres_url, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        async with session(pgbouncer_url) as other:
            timeout = await other.fetchval("SHOW statement_timeout")

    assert locks[0][0] == 0
    assert timeout == "0"


async def test_a_commit_whose_answer_is_lost_behind_a_pooler_is_repeated_without_harm(
    pgbouncer: PgBouncer, pgbouncer_url: str
) -> None:
    async with Proxy(pgbouncer.port) as proxy, opened(proxy.url(pgbouncer_url)) as store:
        await store.append([entry("x", b"before")])
        proxy.cut_at_answer_to(b"COMMIT")

        with pytest.raises(StoreUnavailable):
            await store.append([entry("x", b"lost")])
        await store.append([entry("x", b"lost")])

        assert (await store.load("x")).updates == (b"before", b"lost", b"lost")


# ---------------------------------------------------------------------------------------------------- what can't be used


@pytest.mark.parametrize(
    ("netloc", "path", "says"),
    [
        ("nobody-here:s3cret@{host}", "{path}", "nobody-here"),
        ("postgres:s3cret@{host}", "/no-such-database", "no-such-database"),
    ],
)
async def test_what_waiting_will_not_change_is_said_at_once(
    postgres_url: str, netloc: str, path: str, says: str
) -> None:
    url = urlsplit(postgres_url)
    wrong = url._replace(
        netloc=netloc.format(host=f"{url.hostname}:{url.port}"), path=path.format(path=url.path)
    ).geturl()

    with pytest.raises(StoreUnusable, match=says) as refused:
        await open_store(wrong).open()

    assert "s3cret" not in str(refused.value)


async def test_a_database_that_is_not_utf8_is_refused(postgres: PostgresServer) -> None:
    execute(postgres.url, "DROP DATABASE IF EXISTS latin")
    execute(postgres.url, "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")

    with pytest.raises(StoreUnusable, match="LATIN1: make one with ENCODING 'UTF8'"):
        await open_store(urlsplit(postgres.url)._replace(path="/latin").geturl()).open()


async def test_nobody_at_the_address_is_unavailable_and_keeps_the_password(postgres_url: str) -> None:
    store = open_store(f"postgresql://user:s3cret@127.0.0.1:{free_port()}/trips", timeout_s=1)

    with pytest.raises(StoreUnavailable) as refused:
        await store.open()

    assert "s3cret" not in str(refused.value)
    assert "s3cret" not in store.describe()
    assert "trips" in store.describe()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:s3cret@host:port/db",
        "postgresql://user:s3cret@host:99999/db",
        "postgresql://[::1/db?password=s3cret",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StoreUnusable) as refused:
        open_store(url)

    assert "s3cret" not in str(refused.value)


async def test_durability_is_asked_for_even_where_the_default_is_none(postgres_url: str) -> None:
    name = urlsplit(postgres_url).path[1:]
    execute(postgres_url, f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    async with opened(postgres_url) as store, session(postgres_url) as other:
        await other.execute("CREATE TABLE seen (value text)")
        await on_insert(postgres_url, "INSERT INTO public.seen VALUES (current_setting('synchronous_commit'))")

        await store.append([entry("x", b"1")])

        assert await other.fetchval("SELECT value FROM seen") == "on"
