"""Real editing sessions through real sockets: the final text is the trace's, everywhere.

That is on every client; in the database as real Yjs reads it, before and after the server compacts it; and with a
client that comes after the next start.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.clients import NodeClients
from tests.support.database import stored_updates
from tests.support.server import ServerProcess
from tests.support.traces import read_concurrent_trace, read_trace
from tests.support.yjs import Yjs

# The clients of the trials share one of two cores with the server's tests beside them.
PATIENCE_S = 120


@pytest.fixture
def yjs() -> Iterator[Yjs]:
    """Real Yjs, with the patience for a log of 137,154 updates."""
    with Yjs(timeout_s=PATIENCE_S) as oracle:
        yield oracle


@pytest_asyncio.fixture
async def server(tmp_path: Path, database_url: str) -> AsyncIterator[ServerProcess]:
    """A server that compacts only when it stops: until then, all is in the log. Months of typing come in seconds."""
    env = {
        "CRDT_SYNC_CHECKPOINT_INTERVAL_S": "3600",
        "CRDT_SYNC_MESSAGES_BURST_MAX": "1000000",
        "CRDT_SYNC_LOAD_CPU_MAX": "2",
    }
    async with ServerProcess(tmp_path, database_url=database_url, env=env) as process:
        yield process
    assert process.errors() == []


@pytest.mark.parametrize(
    ("database_url", "name"),
    [
        ("sqlite", "sveltecomponent"),
        pytest.param("sqlite", "seph-blog1", marks=pytest.mark.long),
        ("postgres", "sveltecomponent"),
        pytest.param("postgres", "seph-blog1", marks=pytest.mark.long),
    ],
    indirect=["database_url"],
)
async def test_a_trace_written_by_one_ends_as_it_should(
    server: ServerProcess, clients: NodeClients, room: str, yjs: Yjs, name: str
) -> None:
    trace = read_trace(name)
    writer = await clients.create(server.url, room, "3.1")
    reader = await clients.create(server.url, room, "1.5")

    await writer.replay(trace.txns)
    await writer.confirm(timeout_s=PATIENCE_S)
    await reader.wait(text=trace.end, timeout_s=PATIENCE_S)

    assert (await writer.content("text"))["text"] == trace.end
    assert (await reader.status())["heard"] > 1000, "the edits didn't travel one by one"
    await ends_with(trace.end, server, clients, room, yjs)


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.long)], indirect=True)
async def test_a_trace_written_by_two_at_once_ends_as_it_should(
    server: ServerProcess, clients: NodeClients, room: str, yjs: Yjs
) -> None:
    trace = read_concurrent_trace("friendsforever")
    recorded, _ = await clients.record(trace.txns, client_ids=range(1, trace.agents + 1))
    writers = [await clients.create(server.url, room, version) for version in ("3.1", "1.5")]
    reader = await clients.create(server.url, room, "3.0")

    # Each writer's edits were made on exactly what the trace says that it had seen; here they wait for that to arrive.
    await asyncio.gather(
        *(
            writer.play([each for each in recorded if each.agent == agent], timeout_s=PATIENCE_S)
            for agent, writer in enumerate(writers)
        )
    )
    for client in (*writers, reader):
        await client.wait(text=trace.end, timeout_s=PATIENCE_S)
    for writer in writers:
        await writer.confirm()

    await ends_with(trace.end, server, clients, room, yjs)


async def test_two_writers_who_never_wait_for_each_other_end_with_the_same_text(
    server: ServerProcess, clients: NodeClients, room: str, yjs: Yjs
) -> None:
    trace = read_concurrent_trace("friendsforever")
    writers = [await clients.create(server.url, room, version) for version in ("3.0", "4.0")]

    # Everybody types their own part as fast as they can into whatever is there.
    heard = await asyncio.gather(
        *(
            writer.replay([txn["patches"] for txn in trace.txns if txn["agent"] == agent], clamp=True, per_turn=4)
            for agent, writer in enumerate(writers)
        )
    )
    assert min(heard) > 1000, "the writers wrote one after the other"
    for writer in writers:
        await writer.confirm(timeout_s=PATIENCE_S)
    late = await clients.create(server.url, room, "3.1")
    text: str = (await late.content("text"))["text"]
    for writer in writers:
        await writer.wait(text=text, timeout_s=PATIENCE_S)

    await ends_with(text, server, clients, room, yjs)


async def ends_with(text: str, server: ServerProcess, clients: NodeClients, room: str, yjs: Yjs) -> None:
    """Check the database's log, its snapshot, and what a client gets after the next start; all others are gone."""
    await clients.close()
    assert stored_text(server, room, yjs) == text
    await server.stop()
    assert stored_text(server, room, yjs) == text
    await server.start()
    late = await clients.create(server.url, room, "4.0")
    await late.wait(text=text)


def stored_text(server: ServerProcess, room: str, yjs: Yjs) -> str:
    """The text in the database, as real Yjs decodes it."""
    stored = yjs.apply(stored_updates(server.database_url, room), {"text": "text"})
    assert (stored.error, stored.pending) == (None, False)
    text: str = stored.content["text"]["string"]
    return text
