"""Servers and their database start in any order, and many at once."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from persistence.postgres_schema import MIGRATIONS
from tests.support.database import stored_updates
from tests.support.editor import Editor
from tests.support.postgres import PostgresServer, execute
from tests.support.server import ServerProcess, free_port
from tests.support.services import require
from tests.support.yjs import Yjs
from tests.trials.test_kill import all_confirmed, all_sent, what_yjs_reads

ROOM = "trip-1"
SERVERS = 10
TABLES = [
    "document",
    "document_history",
    "document_snapshot",
    "document_update",
    "document_version",
    "migration",
    "quarantined_update",
    "revocation",
]
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.fixture
def stopped_postgres() -> Iterator[PostgresServer]:
    """One that isn't up yet."""
    server = require(PostgresServer)
    yield server
    server.close()


@pytest.mark.timeout(120)
async def test_ten_servers_that_find_an_empty_database_make_one_schema_and_two_of_them_share_a_room(
    postgres_url: str, tmp_path: Path, yjs: Yjs
) -> None:
    env = {"CRDT_SYNC_CHECKPOINT_INTERVAL_S": "0.3", "CRDT_SYNC_DATABASE_TIMEOUT_S": "60"}
    servers = [ServerProcess(tmp_path, database_url=postgres_url, env=env) for _ in range(SERVERS)]
    async with AsyncExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)  # harmless after it has stopped
        # Until all servers have found nothing and want to make it.
        async with asyncio.TaskGroup() as starting, migration_held_back(postgres_url) as waiting:
            for server in servers:
                starting.create_task(server.start(timeout_s=60))
            async with asyncio.timeout(60):
                while await waiting() < SERVERS:
                    await asyncio.sleep(0.05)

        versions = execute(postgres_url, "SELECT version FROM crdt_sync.migration ORDER BY version")
        assert [row["version"] for row in versions] == list(range(1, len(MIGRATIONS) + 1))
        tables = execute(postgres_url, "SELECT relname FROM pg_stat_user_tables ORDER BY relname")
        assert [row["relname"] for row in tables] == TABLES
        assert sum(server.log.count("schema_migrated") for server in servers) == len(MIGRATIONS)

        ann = await stack.enter_async_context(Editor(servers[0].url, ROOM))
        bob = await stack.enter_async_context(Editor(servers[-1].url, ROOM))
        for _ in range(5):
            await asyncio.gather(ann.edit(), bob.edit())
            await asyncio.sleep(0.1)
        await until_confirmed(ann, bob)
        first = all_sent([ann, bob])
        # A node notices what others stored when it stores something after it.
        await asyncio.gather(ann.edit(), bob.edit())

        for editor in (ann, bob):
            await editor.until(lambda editor=editor: first <= editor.edits(), 5)
        await until_confirmed(ann, bob)
        # Rows of two nodes are in no causal order, and Yjs may leave some pending if it gets them one by one.
        assert what_yjs_reads(yjs, [yjs.merge(stored_updates(postgres_url, ROOM))]) == all_sent([ann, bob])
        ((head_seq,),) = execute(postgres_url, "SELECT head_seq FROM crdt_sync.document")
        assert head_seq == len(all_sent([ann, bob]))
        for server in servers:
            await server.stop()
            assert server.errors() == []
        # Nor do the stopping servers' snapshots leave anything out.
        assert what_yjs_reads(yjs, [yjs.merge(stored_updates(postgres_url, ROOM))]) == all_sent([ann, bob])


async def test_a_server_waits_for_its_database_and_then_comes_up(
    stopped_postgres: PostgresServer, tmp_path: Path
) -> None:
    server = ServerProcess(tmp_path, database_url=stopped_postgres.url)
    starting = asyncio.create_task(server.start(timeout_s=60))
    await asyncio.sleep(0)  # its log exists as soon as it was started
    async with asyncio.timeout(20):
        while "store_awaited" not in server.log:
            await asyncio.sleep(0.05)

    stopped_postgres.start()
    await starting

    async with Editor(server.url, ROOM) as editor:
        edit = await editor.edit()
        await editor.until(lambda: edit in editor.confirmed)
    await server.stop()


async def test_a_server_whose_database_never_comes_says_so_in_a_sentence_without_the_password(tmp_path: Path) -> None:
    server = ServerProcess(
        tmp_path,
        database_url=f"postgresql://ann:s3cret@127.0.0.1:{free_port()}/trips",
        env={"CRDT_SYNC_DATABASE_START_TIMEOUT_S": "1"},
    )

    with pytest.raises(AssertionError, match="exit code 1"):
        await server.start()

    last = server.log.splitlines()[-1]
    assert re.match(r"crdt-sync: connecting failed: .*\(PostgreSQL database trips at 127\.0\.0\.1:\d+\)", last)
    assert "s3cret" not in server.log
    assert "Traceback" not in server.log


@asynccontextmanager
async def migration_held_back(url: str) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Let nobody make the schema; gives how many wait for it."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", int.from_bytes(b"crdtsync", "big"))
            yield lambda: connection.fetchval(WAITING)
    finally:
        await connection.close()


async def until_confirmed(*editors: Editor) -> None:
    for editor in editors:
        await editor.until(lambda editor=editor: all_confirmed([editor]) == all_sent([editor]))
