"""What tests of the running server need. Where Node is missing they fail, and say so: interop isn't optional.

Databases are the test run's own. Where one can't be had its tests are skipped, in CI they fail; see `require`.
"""

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from crdt_sync import cli, logs

from .support.browser import Browser
from .support.clients import NodeClients, NodeProcess
from .support.command import Result
from .support.pgbouncer import PgBouncer
from .support.postgres import PostgresServer
from .support.redis import RedisCluster, RedisServer
from .support.server import ServerProcess
from .support.services import require
from .support.yjs import Yjs


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """Levels as they were, afterwards: a command that runs in this process sets them."""
    ours = [logging.getLogger(name) for name in logs.OURS]
    before = [one.level for one in ours]
    yield
    for one, level in zip(ours, before, strict=True):
        one.setLevel(level)


@pytest.fixture(scope="session")
def node() -> Iterator[NodeProcess]:
    """One Node process for all npm clients of this xdist worker."""
    process = NodeProcess()
    yield process
    process.close()


@pytest.fixture(scope="session")
def yjs() -> Iterator[Yjs]:
    """Real Yjs, the referee."""
    with Yjs() as oracle:
        yield oracle


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """Where the `server` of a test keeps documents. Overridden where tests run on other databases too."""
    return f"sqlite:///{tmp_path / 'documents.db'}"


@pytest_asyncio.fixture
async def server(tmp_path: Path, database_url: str) -> AsyncIterator[ServerProcess]:
    """A running server with a database of its own. It has to stop gracefully, and to have logged no error."""
    async with ServerProcess(tmp_path, database_url=database_url) as process:
        yield process
    assert process.errors() == []


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The browser of this xdist worker. Each test opens pages of its own."""
    made = require(Browser)
    yield made
    made.close()


@pytest_asyncio.fixture
async def clients(node: NodeProcess) -> AsyncIterator[NodeClients]:
    """Makes clients, and destroys them after the test."""
    made = NodeClients(node)
    yield made
    await made.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The PostgreSQL of this xdist worker, shared by its tests. One that wants to stop or freeze a server makes its own."""
    with require(PostgresServer) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A fresh, empty database."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture(scope="session")
def pgbouncer(postgres: PostgresServer) -> Iterator[PgBouncer]:
    """A pooler in transaction mode in front of `postgres`, with three connections for each database."""
    with require(lambda: PgBouncer(postgres)) as pooler:
        yield pooler


@pytest.fixture
def pgbouncer_url(pgbouncer: PgBouncer, postgres_url: str) -> str:
    """A fresh, empty database, by way of the pooler."""
    return pgbouncer.url(postgres_url)


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """The Redis of this xdist worker, shared by its tests. One that wants to stop or freeze a server makes its own."""
    with require(RedisServer) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """The Redis Cluster of this xdist worker, shared by its tests. One that wants to break one makes its own."""
    with require(RedisCluster) as cluster:
        yield cluster


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `crdt-sync` in this process."""
    monkeypatch.setattr("crdt_sync.logs.configure", lambda *_: None)
    for name in [name for name in os.environ if name.startswith("CRDT_SYNC_") and "_TEST_" not in name]:
        monkeypatch.delenv(name)

    def run(*arguments: str | Path) -> Result:
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        code = ended.value.code
        assert isinstance(code, int)
        out, err = capfdbinary.readouterr()
        return Result(code, out.decode(), err.decode())

    return run
