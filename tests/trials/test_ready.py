"""`/ready` says within two seconds that the store has failed, and that it is back: with and without edits on the way."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.api import request
from tests.support.cluster import readiness
from tests.support.editor import Editor
from tests.support.postgres import PostgresServer
from tests.support.server import ServerProcess
from tests.support.services import require

WITHIN_S = 2.0
ROOM = "trip-1"


async def until_ready_is(status: int, server: ServerProcess) -> tuple[float, dict[str, str]]:
    """Ask like a load balancer, five times a second; returns how long it took, and the problems at the end."""
    began = time.monotonic()
    while True:
        found, answer = await readiness(server)
        if found == status:
            return time.monotonic() - began, answer["problems"]
        assert time.monotonic() - began < 15, answer
        await asyncio.sleep(0.2)


@asynccontextmanager
async def typing(server: ServerProcess) -> AsyncIterator[Editor]:
    """Somebody edits meanwhile, so that the journal has something to store."""
    async with Editor(server.url, ROOM) as editor:

        async def type_on() -> None:
            while True:
                await editor.edit(confirm=False)
                await asyncio.sleep(0.05)

        task = asyncio.create_task(type_on())
        try:
            yield editor
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.mark.timeout(120)
async def test_postgresql_is_missed_and_welcomed_back_within_two_seconds(tmp_path: Path) -> None:
    with require(PostgresServer) as postgres:
        async with ServerProcess(tmp_path, database_url=postgres.create_database()) as server:

            async def one(fail: Callable[[], None], recover: Callable[[], None], outage_s: float) -> None:
                assert (await readiness(server))[0] == 200
                fail()
                gone_s, problems = await until_ready_is(503, server)
                began = time.monotonic()
                assert (await request(server.url, "GET", "/health")).status == 200
                assert time.monotonic() - began < 0.5
                await asyncio.sleep(outage_s)
                recover()
                back_s, _ = await until_ready_is(200, server)
                print(f"{fail.__name__}: not ready after {gone_s:.2f} s ({problems}), ready after {back_s:.2f} s")
                assert "store" in problems or "journal" in problems
                assert max(gone_s, back_s) < WITHIN_S

            await one(postgres.freeze, postgres.thaw, 0.5)
            async with typing(server):
                await one(postgres.freeze, postgres.thaw, 0.5)
                # Long enough for connections to be given up, and for retries to be as far apart as they get.
                await one(postgres.kill, postgres.start, 2.5)


async def test_a_full_disk_below_sqlite_is_told_of_before_anybody_edits(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        async with Editor(server.url, ROOM) as editor:
            await editor.edit()
            await editor.until(lambda: not editor.sent.keys() - editor.confirmed.keys())
        assert (await readiness(server))[0] == 200

        set_file_size_max(server, server.database_path.with_name(server.database_path.name + "-wal").stat().st_size)
        gone_s, problems = await until_ready_is(503, server)
        set_file_size_max(server, resource.RLIM_INFINITY)
        back_s, _ = await until_ready_is(200, server)

        assert list(problems) == ["store"]
        assert max(gone_s, back_s) < WITHIN_S


def set_file_size_max(server: ServerProcess, size: int) -> None:
    """Have the disk be full, as the server sees it, where a file would grow beyond `size` bytes."""
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, hard))
