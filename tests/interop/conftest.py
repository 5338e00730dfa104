import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import ServerProcess

DATABASES = ("sqlite", "postgres")


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'documents.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[dict[str, ServerProcess]]:
    """By kind of database, the servers of this xdist worker that were needed so far."""
    servers: dict[str, ServerProcess] = {}
    yield servers
    for server in servers.values():
        asyncio.run(server.stop())
    for server in servers.values():
        assert server.errors() == []


@pytest.fixture(params=DATABASES)
def shared_server(
    request: pytest.FixtureRequest,
    shared_servers: dict[str, ServerProcess],
    tmp_path_factory: pytest.TempPathFactory,
) -> ServerProcess:
    """A server for all tests of this xdist worker that leave it alone; each has a room of its own."""
    if request.param not in shared_servers:
        url = request.getfixturevalue("postgres").create_database() if request.param == "postgres" else None
        process = ServerProcess(tmp_path_factory.mktemp("shared-server"), database_url=url)
        asyncio.run(process.start())
        shared_servers[request.param] = process
    return shared_servers[request.param]


@pytest.fixture
def room() -> str:
    return f"trip-{uuid.uuid4().hex}"
