import asyncio
import uuid
from collections.abc import Iterator

import pytest

from tests.support.server import ServerProcess


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for all tests of this xdist worker that leave it alone; each has a room of its own."""
    process = ServerProcess(tmp_path_factory.mktemp("shared-server"))
    asyncio.run(process.start())
    yield process
    asyncio.run(process.stop())
    assert process.errors() == []


@pytest.fixture
def room() -> str:
    return f"trip-{uuid.uuid4().hex}"
