"""A server is told to end, once and more often, by signals and by its API, and whatever hangs: it does, and says the truth."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.support.api import request
from tests.support.cluster import readiness, until
from tests.support.database import stored_updates
from tests.support.editor import Editor
from tests.support.processes import is_alive
from tests.support.raw import RawClient, Refused
from tests.support.redis import RedisServer
from tests.support.server import ServerProcess
from tests.trials.test_rolling_restart import worker_pids

ROOM = "trip-1"
LONG = {"CRDT_SYNC_DRAIN_NOTICE_S": "60", "CRDT_SYNC_DRAIN_DEADLINE_S": "90"}

# A server whose store's thread, or interpreter, gets stuck in the first append after the file `stuck` has appeared.
STUCK = """
import ctypes, sys, threading, time
from pathlib import Path
from crdt_sync.cli import main
from persistence import sqlite

def hang():
    if sys.argv[1] == "thread":
        time.sleep(3600)
    else:
        ctypes.PyDLL(None).sleep(3600)  # keeps the interpreter's lock

append = sqlite._append

def stuck(*args):
    if Path("{folder}/stuck").exists():
        hang()
    return append(*args)

sqlite._append = stuck
main(["serve"])
"""


async def test_a_server_that_drains_says_so_serves_and_then_sends_clients_away(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, env=LONG) as server, Editor(server.url, ROOM) as ann:
        answer = await request(server.url, "POST", "/api/v1/drain")

        assert (answer.status, answer.json["draining"], answer.json["connections"]) == (202, True, 1)
        status, body = await readiness(server)
        assert (status, list(body["problems"])) == (503, ["draining"])
        async with Editor(server.url, ROOM) as bob:
            edit = await bob.edit()
            await bob.until(lambda: edit in bob.confirmed)
            again = await request(server.url, "POST", "/api/v1/drain")
            assert 60 < again.json["ends_within_s"] < answer.json["ends_within_s"] <= 90
            server.tell(signal.SIGINT)
            # In either order.
            await ann.until(lambda: ann.close_code is not None)
            await bob.until(lambda: bob.close_code is not None)
        assert (ann.close_code, bob.close_code) == (1012, 1012)
        assert await server.ended() == 0
        assert server.errors() == []


async def test_a_draining_server_refuses_clients_before_they_are_let_in(tmp_path: Path) -> None:
    env = {"CRDT_SYNC_DRAIN_SPREAD_S": "10"}
    async with AsyncExitStack() as stack, ServerProcess(tmp_path, env=env) as server:
        for _ in range(300):
            await stack.enter_async_context(await RawClient.connect(server.url, ROOM))
        server.tell(signal.SIGTERM)
        assert await until(lambda: "draining" in server.log, timeout_s=5)
        await asyncio.sleep(0.2)

        with pytest.raises(Refused) as refused:
            await RawClient.connect(server.url, "other")

        assert (refused.value.status, refused.value.headers["retry-after"]) == (503, "1")
        refused_call = await request(server.url, "GET", f"/api/v1/rooms/{ROOM}/document")
        assert refused_call.status == 503
        assert (await request(server.url, "GET", "/api/v1/connections")).status == 200
        server.tell(signal.SIGTERM)
        assert await server.ended(timeout_s=5) == 0


async def test_more_signals_hasten_it_and_the_third_ends_it(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, env=LONG) as server, Editor(server.url, ROOM) as ann:
        edit = await ann.edit()
        await ann.until(lambda: edit in ann.confirmed)
        server.tell(signal.SIGTERM)
        assert await until(lambda: "draining" in server.log, timeout_s=5)
        server.tell(signal.SIGTERM)

        assert await server.ended(timeout_s=5) == 0
    assert ann.close_code == 1012
    assert "ended_early" not in server.log


async def test_a_third_signal_ends_a_server_that_cannot_store_and_it_says_what_is_lost(tmp_path: Path) -> None:
    async with server_that_sticks("thread", tmp_path, {}) as (server, ann):
        (tmp_path / "stuck").touch()
        await ann.edit()
        for count in range(3):
            await asyncio.sleep(0.3)
            assert await until(lambda count=count: server.log.count("draining") >= min(count, 1), timeout_s=5)
            server.tell(signal.SIGTERM)

        assert await server.ended(timeout_s=3) == 1
    assert f"room_not_stored room='{ROOM}' updates=1" in server.log


@pytest.mark.parametrize("stuck", ["thread", "interpreter"])
async def test_nothing_that_hangs_keeps_a_server_beyond_its_deadline(stuck: str, tmp_path: Path) -> None:
    env = {
        "CRDT_SYNC_DRAIN_NOTICE_S": "1",
        "CRDT_SYNC_DRAIN_SPREAD_S": "0",
        "CRDT_SYNC_DRAIN_DEADLINE_S": "3",
    }
    async with server_that_sticks(stuck, tmp_path, env) as (server, ann):
        began_at = time.monotonic()
        server.tell(signal.SIGTERM)
        assert await until(lambda: "draining" in server.log, timeout_s=5)
        (tmp_path / "stuck").touch()
        await ann.edit()

        assert await server.ended(timeout_s=10) == 1

        # Where the interpreter's lock is kept, it takes two seconds more.
        assert time.monotonic() - began_at < (4 if stuck == "thread" else 6)
    if stuck == "thread":
        assert server.log.count(f"room_not_stored room='{ROOM}' updates=1") == 1
    else:
        assert "Timeout" in server.log


@pytest.mark.parametrize("how", ["api", "signals"])
async def test_all_workers_drain_together(how: str, redis: RedisServer, postgres_url: str, tmp_path: Path) -> None:
    env = {
        "CRDT_SYNC_REDIS_URL": redis.url,
        "CRDT_SYNC_REDIS_PREFIX": f"{tmp_path.name}-{how}",
        "CRDT_SYNC_WORKERS": "2",
    }
    server = ServerProcess(tmp_path, database_url=postgres_url, env=env | LONG)
    async with AsyncExitStack() as stack:
        stack.callback(server.kill)
        await server.start()
        assert await until(lambda: server.log.count("worker_serving") == 2, timeout_s=20), server.log
        people = [await stack.enter_async_context(Editor(server.url, ROOM)) for _ in range(8)]
        pids = worker_pids(server)

        if how == "api":
            assert (await request(server.url, "POST", "/api/v1/drain")).status == 202
        else:
            server.tell(signal.SIGTERM)
            assert await until(lambda: server.log.count("urgency='DRAIN'") == 2, timeout_s=5), server.log
            # Whoever signals everybody, as systemd does unless told otherwise, has signalled once, not twice.
            for pid in pids:
                os.kill(pid, signal.SIGTERM)

        edits = [await one.edit() for one in people]
        for one, edit in zip(people, edits, strict=True):
            await one.until(lambda one=one, edit=edit: edit in one.confirmed)
        server.tell(signal.SIGINT)
        assert await server.ended() == 0
        assert {one.close_code for one in people} == {1012}
        assert len(stored_updates(postgres_url, ROOM)) >= 1
        assert not any(map(is_alive, pids))
        assert server.log.count("urgency='DRAIN'") == 2
        assert server.log.count("worker_ended") == 2
        assert server.errors() == []


async def test_a_worker_that_dies_while_draining_is_reported(
    redis: RedisServer, postgres_url: str, tmp_path: Path
) -> None:
    env = {"CRDT_SYNC_REDIS_URL": redis.url, "CRDT_SYNC_REDIS_PREFIX": tmp_path.name, "CRDT_SYNC_WORKERS": "2"}
    server = ServerProcess(tmp_path, database_url=postgres_url, env=env | LONG)
    async with AsyncExitStack() as stack:
        stack.callback(server.kill)
        await server.start()
        assert await until(lambda: server.log.count("worker_serving") == 2, timeout_s=20), server.log
        server.tell(signal.SIGTERM)
        assert await until(lambda: server.log.count("urgency='DRAIN'") == 2, timeout_s=5), server.log

        os.kill(worker_pids(server)[0], signal.SIGKILL)
        assert await until(lambda: "worker_ended" in server.log, timeout_s=5), server.log
        server.tell(signal.SIGTERM)

        assert await server.ended() == 1
        assert "exit_code=-9" in server.log
        assert server.log.count("worker_started") == 2, "nobody is started any more"


@asynccontextmanager
async def server_that_sticks(
    kind: str, folder: Path, env: dict[str, str]
) -> AsyncIterator[tuple[ServerProcess, Editor]]:
    """A server whose store is going to stick, and a client with something stored."""
    script = folder / "stuck.py"
    script.write_text(STUCK.replace("{folder}", str(folder)).replace("sys.argv[1]", repr(kind)))
    server = ServerProcess(folder, env=env, script=script)
    async with AsyncExitStack() as stack:
        stack.callback(server.kill)
        await server.start()
        ann = await stack.enter_async_context(Editor(server.url, ROOM))
        before = await ann.edit()
        await ann.until(lambda: before in ann.confirmed)
        yield server, ann


async def test_who_knocks_while_a_server_stops_is_no_error(tmp_path: Path) -> None:
    """uvicorn answers upgrades itself then, also those that are about to be refused."""
    async with ServerProcess(tmp_path) as server:
        stopped, let_in = asyncio.Event(), asyncio.Event()

        async def knock() -> None:
            while not stopped.is_set():
                try:
                    (await RawClient.connect(server.url, "trip-1")).abort()
                    let_in.set()
                except (Refused, OSError, EOFError):
                    await asyncio.sleep(0.001)

        async def until_let_in() -> None:
            let_in.clear()
            async with asyncio.timeout(20):
                await let_in.wait()

        knocking = [asyncio.create_task(knock()) for _ in range(30)]
        for _ in range(3):
            await until_let_in()
            await server.restart()
        await until_let_in()
        stopped.set()
        await asyncio.gather(*knocking)
    assert server.errors() == []
