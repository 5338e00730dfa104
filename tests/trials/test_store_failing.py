"""The store fails for real: another process holds the database's write lock, the disk is full, PostgreSQL is gone."""

import asyncio
import resource
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.database import stored_updates
from tests.support.editor import Editor
from tests.support.postgres import PostgresServer
from tests.support.server import ServerProcess
from tests.support.services import require
from tests.support.yjs import Yjs
from tests.trials.test_kill import what_yjs_reads

ROOM = "trip-1"
QUICK = {"CRDT_SYNC_DRAIN_DEADLINE_S": "2", "CRDT_SYNC_DRAIN_SPREAD_S": "0"}


@pytest.mark.timeout(120)
async def test_clients_edit_on_while_the_database_is_locked_and_are_confirmed_afterwards(
    tmp_path: Path, yjs: Yjs
) -> None:
    async with (
        ServerProcess(tmp_path) as server,
        Editor(server.url, ROOM) as ann,
        Editor(server.url, ROOM) as bob,
    ):
        before = await ann.edit()
        await ann.until(lambda: before in ann.confirmed)

        with closing(sqlite3.connect(server.database_path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            during = await edit_for(30, ann, bob)
            assert set(ann.confirmed) | set(bob.confirmed) == {before}
            other.execute("ROLLBACK")

        await ann.until(lambda: set(ann.sent) == set(ann.confirmed), 5)
        await bob.until(lambda: set(bob.sent) == set(bob.confirmed), 5)
        assert what_yjs_reads(yjs, stored_updates(server.database_url, ROOM)) == {before, *during}
        # Once when it began, once when it was over.
        assert server.log.count("store_failing") == 1
        assert server.log.count("store_recovered") == 1


@pytest.mark.timeout(120)
async def test_clients_edit_on_while_the_disk_is_full_and_are_confirmed_afterwards(tmp_path: Path, yjs: Yjs) -> None:
    async with (
        ServerProcess(tmp_path) as server,
        Editor(server.url, ROOM) as ann,
        Editor(server.url, ROOM) as bob,
    ):
        before = await ann.edit()
        await ann.until(lambda: before in ann.confirmed)

        # No file of this process may grow any more: to SQLite the same as a disk without room.
        unlimited = resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        during = await edit_for(5, ann, bob)
        assert set(ann.confirmed) | set(bob.confirmed) == {before}
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, unlimited)

        await ann.until(lambda: set(ann.sent) == set(ann.confirmed), 5)
        await bob.until(lambda: set(bob.sent) == set(bob.confirmed), 5)
        assert what_yjs_reads(yjs, stored_updates(server.database_url, ROOM)) == {before, *during}


@pytest.mark.timeout(120)
async def test_a_server_that_cannot_store_still_stops_and_says_what_is_lost(tmp_path: Path) -> None:
    async with (
        ServerProcess(tmp_path, env=QUICK) as server,
        Editor(server.url, ROOM) as ann,
    ):
        with closing(sqlite3.connect(server.database_path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await ann.edit()
            async with asyncio.timeout(20):
                while "store_failing" not in server.log:
                    await asyncio.sleep(0.05)
            with pytest.raises(AssertionError, match="exit code 1"):
                await server.stop()

        assert "edits_not_stored" in server.log
        assert ROOM in server.log


@pytest.mark.timeout(120)
@pytest.mark.parametrize("failure", ["kill", "freeze"])
async def test_a_server_whose_postgresql_is_gone_still_stops_and_says_what_is_lost(
    failure: str, tmp_path: Path
) -> None:
    with require(PostgresServer) as postgres:
        async with (
            ServerProcess(tmp_path, database_url=postgres.create_database(), env=QUICK) as server,
            Editor(server.url, ROOM) as ann,
        ):
            before = await ann.edit()
            await ann.until(lambda: before in ann.confirmed)

            getattr(postgres, failure)()
            await ann.edit()
            began_at = time.monotonic()
            with pytest.raises(AssertionError, match="exit code 1"):
                await server.stop()

            # On a busy machine, some seconds more.
            assert time.monotonic() - began_at < 5
            assert "edits_not_stored rooms=1 updates=1" in server.log
            assert f"room_not_stored room='{ROOM}' updates=1" in server.log
            assert "had_clients=1" in server.log


async def edit_for(seconds: float, *editors: Editor) -> set[str]:
    """Have the editors take turns, each waiting until the others have seen its edit."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    made = set()
    while loop.time() < until:
        for editor in editors:
            key = await editor.edit()
            made.add(key)
            for other in editors:
                if other is not editor:
                    await other.until(lambda other=other, key=key: key in other.seen)
        await asyncio.sleep(0.05)
    return made
