"""The private servers do what the tests that use them rely on, and leave nothing behind."""

import asyncio
import concurrent.futures
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import PostgresServer, execute, free_shared_memory
from tests.support.processes import descendants, is_alive, private_folder, unprivileged_account, wait_until
from tests.support.proxy import Proxy
from tests.support.redis import RedisServer
from tests.support.services import Service, Unavailable, require

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """One to kill and freeze. Each test leaves it running."""
    with require(PostgresServer) as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with require(RedisServer) as server:
        yield server


@pytest.fixture
def table(postgres_url: str) -> str:
    """The URL of a database with an empty table `t (a int)`."""
    execute(postgres_url, "CREATE TABLE t (a int)")
    return postgres_url


def rows(url: str) -> list[int]:
    return [row["a"] for row in execute(url, "SELECT a FROM t ORDER BY a")]


def unavailable() -> Service:
    raise Unavailable("there is none")


def test_every_database_is_fresh_and_its_own(postgres: PostgresServer, table: str) -> None:
    execute(table, "INSERT INTO t VALUES ($1)", 1)

    other = postgres.create_database()

    assert execute(other, "SELECT to_regclass('t') AS found")[0]["found"] is None
    postgres.drop_database(other)


async def test_a_database_with_a_client_can_be_dropped(postgres: PostgresServer) -> None:
    url = postgres.create_database()
    client = await asyncpg.connect(url)

    postgres.drop_database(url)

    with pytest.raises(asyncpg.InvalidCatalogNameError):
        execute(url, "SELECT 1")
    client.terminate()


def test_killed_postgres_comes_back_at_its_address_with_its_data(own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database()
    execute(url, "CREATE TABLE t AS SELECT 1 AS a")
    pids = [own_postgres.pid, *descendants(own_postgres.pid)]

    own_postgres.kill()

    assert not any(map(is_alive, pids))
    own_postgres.start()
    assert rows(url) == [1]


def test_frozen_postgres_answers_after_the_thaw(own_postgres: PostgresServer) -> None:
    own_postgres.freeze()

    with concurrent.futures.ThreadPoolExecutor() as thread:
        answer = thread.submit(execute, own_postgres.url, "SELECT 1 AS a")
        assert not concurrent.futures.wait([answer], timeout=0.2).done
        own_postgres.thaw()

        assert answer.result()[0]["a"] == 1


def test_changed_settings_count_after_a_restart(own_postgres: PostgresServer) -> None:
    own_postgres.settings["max_connections"] = "7"

    own_postgres.restart()

    assert execute(own_postgres.url, "SHOW max_connections")[0][0] == "7"


def test_postgres_that_cannot_start_says_why() -> None:
    server = require(lambda: PostgresServer(settings={"max_connections": "none"}))

    with pytest.raises(AssertionError, match='invalid value for parameter "max_connections"'):
        server.start()
    server.close()


def test_a_standby_follows_and_can_be_promoted(own_postgres: PostgresServer) -> None:
    execute(own_postgres.url, "CREATE TABLE t (a int)")

    with own_postgres.standby() as standby:
        execute(own_postgres.url, "INSERT INTO t VALUES (1)")
        wait_until(lambda: rows(standby.url) == [1], timeout_s=10)
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            execute(standby.url, "INSERT INTO t VALUES (2)")

        standby.promote()
        execute(standby.url, "INSERT INTO t VALUES (2)")

        assert rows(standby.url) == [1, 2]


def test_a_killed_test_run_leaves_no_server_behind() -> None:
    program = """if True:
        import sys
        from tests.support.postgres import PostgresServer
        from tests.support.processes import descendants
        running, frozen = PostgresServer(), PostgresServer()
        for server in (running, frozen):
            server.start()
        frozen.freeze()
        print(*(pid for server in (running, frozen) for pid in [server.pid, *descendants(server.pid)]), flush=True)
        sys.stdin.read()
    """
    require(PostgresServer).close()
    folder = private_folder("killed-run", account=unprivileged_account())
    run = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    pids = [int(pid) for pid in run.stdout.readline().split()]
    assert len(pids) >= 8

    run.kill()
    run.communicate()

    wait_until(lambda: not any(map(is_alive, pids)), timeout_s=10)
    for data in folder.glob("*/data"):
        free_shared_memory(data)
    shutil.rmtree(folder)


def test_a_closed_server_leaves_no_folder_and_no_process() -> None:
    with require(RedisServer) as server:
        folder, pid = server.folder, server.pid

    assert not folder.exists()
    assert not is_alive(pid)


def test_restarted_redis_is_empty(own_redis: RedisServer) -> None:
    assert own_redis.execute("SET", "key", "value") == "+OK\r\n"

    own_redis.restart()

    assert own_redis.execute("GET", "key") == "$-1\r\n"


def test_frozen_redis_answers_after_the_thaw(own_redis: RedisServer) -> None:
    own_redis.freeze()
    with pytest.raises(TimeoutError):
        own_redis.execute("PING", timeout_s=0.2)

    own_redis.thaw()

    assert own_redis.execute("PING") == "+PONG\r\n"


def test_killed_redis_can_start_again(own_redis: RedisServer) -> None:
    own_redis.kill()
    with pytest.raises(ConnectionRefusedError):
        own_redis.execute("PING")

    own_redis.start()

    assert own_redis.execute("PING") == "+PONG\r\n"


async def test_pgbouncer_runs_the_transactions_of_a_client_in_different_connections(
    pgbouncer: PgBouncer, postgres_url: str
) -> None:
    one, other = [await asyncpg.connect(pgbouncer.url(postgres_url), statement_cache_size=0) for _ in range(2)]
    async with other.transaction():
        async with one.transaction():
            first = await one.fetchval("SELECT pg_backend_pid()")
        others = await other.fetchval("SELECT pg_backend_pid()")

    # The pooler gives out the connection that became free last.
    async with one.transaction():
        second = await one.fetchval("SELECT pg_backend_pid()")

    assert first != others
    assert second == others
    await one.close()
    await other.close()


async def test_a_commit_whose_answer_is_cut_has_happened(postgres: PostgresServer, table: str) -> None:
    async with Proxy(postgres.port) as proxy:
        client = await asyncpg.connect(proxy.url(table))
        proxy.cut_at_answer_to(b"COMMIT")

        with pytest.raises((ConnectionError, asyncpg.PostgresConnectionError)):
            async with client.transaction():
                await client.execute("INSERT INTO t VALUES (1)")

        assert proxy.answers_cut == 1
        assert rows(table) == [1]


async def test_only_as_many_answers_are_cut_as_were_ordered(postgres: PostgresServer, table: str) -> None:
    async with Proxy(postgres.port) as proxy:
        proxy.cut_at_answer_to(b"INSERT", times=2)
        outcomes = []

        for number in range(3):
            client = await asyncpg.connect(proxy.url(table))
            outcomes += await asyncio.gather(client.execute(f"INSERT INTO t VALUES ({number})"), return_exceptions=True)
            client.terminate()

        assert [isinstance(outcome, Exception) for outcome in outcomes] == [True, True, False]
        assert rows(table) == [0, 1, 2]


async def test_what_is_asked_while_answers_are_held_happens_at_once(postgres: PostgresServer, table: str) -> None:
    async with Proxy(postgres.port) as proxy:
        client = await asyncpg.connect(proxy.url(table))
        proxy.hold_answers()

        insert = asyncio.create_task(client.execute("INSERT INTO t VALUES (1)"))
        async with asyncio.timeout(10):
            while await asyncio.to_thread(rows, table) != [1]:
                pass
        assert not insert.done()
        proxy.release_answers()

        assert await insert == "INSERT 0 1"
        await client.close()


async def test_a_cut_connection_is_reset_and_a_refused_one_never_opens(redis: RedisServer) -> None:
    async with Proxy(redis.port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"PING\r\n")
        assert await reader.readline() == b"+PONG\r\n"

        proxy.refuse()
        proxy.cut()

        with pytest.raises(ConnectionResetError):
            await reader.readline()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        await proxy.accept()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"PING\r\n")
        assert await reader.readline() == b"+PONG\r\n"


def test_a_missing_service_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="there is none"):
        require(unavailable)

    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="there is none"):
        require(unavailable)
