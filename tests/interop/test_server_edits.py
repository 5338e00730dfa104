"""Edits by the code around the server, on several nodes with real PostgreSQL and Redis, seen by a stock client on another."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pycrdt
import pytest
import pytest_asyncio

from crdt_sync import Settings, StoredChange, SyncApp, create_app
from crdt_sync.errors import DocumentGone
from tests.support.clients import NodeClients
from tests.support.redis import RedisServer
from tests.support.server import ServerProcess

EDITS = 10
NODES = 2


class Nodes:
    """Two nodes in this process, what each was told, and one in a process of its own."""

    def __init__(self, apps: list[SyncApp], server: ServerProcess) -> None:
        self.apps = apps
        self.server = server
        self.told: list[list[StoredChange]] = [[] for _ in range(NODES)]


@pytest_asyncio.fixture
async def nodes(
    postgres_url: str, redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Nodes]:
    monkeypatch.setattr("crdt_sync.hooks.TELL_AFTER_S", 0.05)
    env = {"CRDT_SYNC_REDIS_URL": redis.url, "CRDT_SYNC_REDIS_PREFIX": tmp_path.name}
    server = ServerProcess(tmp_path, database_url=postgres_url, env=env)
    made = Nodes([], server)
    settings = Settings(database_url=postgres_url, redis_url=redis.url, redis_prefix=tmp_path.name)

    def make(number: int) -> SyncApp:
        async def on_stored(change: StoredChange) -> None:
            made.told[number].append(change)

        return create_app(settings, on_stored=on_stored)

    made.apps = [make(number) for number in range(NODES)]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server)
        for app in made.apps:
            await stack.enter_async_context(app.lifespan())
        yield made


async def write(app: SyncApp, words: list[str], user: str) -> None:
    for word in words:
        async with app.rooms.edit("trip-1", user=user) as doc:
            doc.get("text", type=pycrdt.Text).insert(0, f"{word} ")


async def test_edits_on_two_nodes_at_once_reach_a_client_on_a_third_and_are_told_where_they_were_stored(
    nodes: Nodes, clients: NodeClients
) -> None:
    client = await clients.create(nodes.server.url, "trip-1")
    await client.insert(0, "client ")
    words = [[f"{node}-{number}" for number in range(EDITS)] for node in range(NODES)]

    await asyncio.gather(*(write(app, words[node], f"bot-{node}") for node, app in enumerate(nodes.apps)))
    await client.wait(text_length=len("client ") + sum(len(word) + 1 for each in words for word in each))

    text = (await client.content("text"))["text"]
    assert sorted(text.split()) == sorted(["client", *words[0], *words[1]])
    for app in nodes.apps:
        async with asyncio.timeout(5):
            while str((await app.rooms.read("trip-1")).get("text", type=pycrdt.Text)) != text:
                await asyncio.sleep(0.05)
    rows = await nodes.apps[0].state.parts.store.rows("trip-1", first=1, last=1000)
    by = Counter(row.user_id for row in rows)
    # What a node isn't sure that another one stores, it stores itself, of an unknown user.
    assert (by["bot-0"], by["bot-1"]) == (EDITS, EDITS)
    for node, told in enumerate(nodes.told):
        own = {row.seq for row in rows if row.user_id == f"bot-{node}"}
        async with asyncio.timeout(10):
            while not own <= {seq for one in told for seq in range(one.first_seq, one.seq + 1)}:
                await asyncio.sleep(0.05)
        assert {user for one in told for user in one.users} <= {f"bot-{node}", None}


async def test_a_room_that_one_node_deletes_is_not_edited_by_another(nodes: Nodes) -> None:
    one, two = nodes.apps
    await write(one, ["x"], "bot")
    await write(two, ["y"], "bot")

    assert await one.state.parts.rooms.delete("trip-1")

    with pytest.raises(DocumentGone):  # noqa: PT012 - some may come before it hears of it
        for _ in range(200):
            await write(two, ["z"], "bot")
            await asyncio.sleep(0.02)
