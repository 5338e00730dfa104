"""What tests of the running server need. Where Node is missing they fail, and say so: interop isn't optional."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from .support.clients import NodeClients, NodeProcess
from .support.server import ServerProcess
from .support.yjs import Yjs


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


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A running server with a database of its own. It has to stop gracefully, and to have logged no error."""
    async with ServerProcess(tmp_path) as process:
        yield process
    assert process.errors() == []


@pytest_asyncio.fixture
async def clients(node: NodeProcess) -> AsyncIterator[NodeClients]:
    """Makes clients, and destroys them after the test."""
    made = NodeClients(node)
    yield made
    await made.close()
