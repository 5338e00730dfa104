"""The real clients at different nodes: they see each other's edits, and each other, as if there were one server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.interop.test_clients import across_versions, every_npm_version
from tests.support.balancer import Balancer
from tests.support.clients import NODE_VERSIONS, VERSIONS, ClientFailed, NodeClients
from tests.support.cluster import Cluster
from tests.support.postgres import PostgresServer
from tests.support.redis import RedisServer
from tests.support.server import ServerProcess

NODES = 3
GRACE_S = 1
# A node that isn't heard of for 4 s is gone; that is looked for once a second.
LEASE_S = 5


@pytest.fixture(scope="module")
def nodes(
    postgres: PostgresServer, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[ServerProcess]]:
    """Three nodes for all tests that leave them alone; each has a room of its own."""
    folder = tmp_path_factory.mktemp("nodes")
    env = {"CRDT_SYNC_REDIS_URL": redis.url, "CRDT_SYNC_REDIS_PREFIX": "shared-nodes"}
    url = postgres.create_database()
    made = [ServerProcess(folder, database_url=url, env=env) for _ in range(NODES)]
    asyncio.run(_together([node.start for node in made]))
    yield made
    asyncio.run(_together([node.stop for node in made]))
    assert [error for node in made for error in node.errors()] == []


@pytest_asyncio.fixture
async def cluster(redis: RedisServer, postgres_url: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Three nodes of the test's own, that don't wait long for users to come back."""
    env = {"CRDT_SYNC_AWARENESS_GRACE_S": str(GRACE_S), "CRDT_SYNC_REDIS_PREFIX": tmp_path.name}
    async with Cluster(tmp_path, database_url=postgres_url, redis=redis, nodes=NODES, env=env) as made:
        await made.until_all_are_found()
        yield made


# -------------------------------------------------------------------------------------------------- documents


@across_versions
async def test_edits_cross_from_node_to_node_both_ways(
    nodes: list[ServerProcess], clients: NodeClients, room: str, first: str, second: str
) -> None:
    a = await clients.create_any(nodes[0].url, room, first)
    b = await clients.create_any(nodes[1].url, room, second)

    await a.insert(0, "hello wörld")
    await a.format(0, 5, {"bold": True})
    await b.wait(delta=[{"insert": "hello", "attributes": {"bold": True}}, {"insert": " wörld"}], timeout_s=2)
    await b.insert(11, "!", {"italic": True})
    await b.delete(5, 1)
    await b.map_set("title", "Lisboa")

    edited = [
        {"insert": "hello", "attributes": {"bold": True}},
        {"insert": "wörld"},
        {"insert": "!", "attributes": {"italic": True}},
    ]
    await a.wait(delta=edited, map={"title": "Lisboa"}, timeout_s=2)
    await b.wait(delta=edited)


async def test_all_versions_on_all_nodes_agree_on_concurrent_edits(
    nodes: list[ServerProcess], clients: NodeClients, room: str
) -> None:
    everyone = [
        await clients.create_any(nodes[number % NODES].url, room, version)
        for number, version in enumerate(VERSIONS * 2)
    ]

    await asyncio.gather(*(client.insert(0, f"{number} ") for number, client in enumerate(everyone)))
    for client in everyone:
        await client.confirm()

    for node in nodes:
        last = await clients.create(node.url, room)
        text = (await last.content("text"))["text"]
        assert sorted(text.split()) == sorted(str(number) for number in range(len(everyone)))
        for client in everyone:
            await client.wait(text=text)


# -------------------------------------------------------------------------------------------------- awareness


@across_versions
async def test_a_joiner_sees_within_a_second_who_is_at_which_node_ever(
    nodes: list[ServerProcess], clients: NodeClients, room: str, first: str, second: str
) -> None:
    a = await clients.create_any(nodes[0].url, room, first, state={"user": "Ana"})
    b = await clients.create_any(nodes[1].url, room, first, state={"user": "Ben"})
    c = await clients.create_any(nodes[2].url, room, second, state={"user": "Cleo"})

    await c.wait(present=[a.client_id, b.client_id], timeout_s=1)
    await a.wait(present=[b.client_id, c.client_id], timeout_s=1)
    await b.wait(present=[a.client_id, c.client_id], timeout_s=1)

    for client in (a, b, c):
        states = await client.states()
        assert [states[one.client_id]["user"] for one in (a, b, c)] == ["Ana", "Ben", "Cleo"]


@every_npm_version
async def test_a_joiner_sees_everyone_at_once_where_the_room_is_open_already(
    nodes: list[ServerProcess], clients: NodeClients, room: str, version: str
) -> None:
    a = await clients.create(nodes[0].url, room, version, state={"user": "Ana"})
    b = await clients.create(nodes[1].url, room, version, state={"user": "Ben"})
    await b.wait(present=[a.client_id])

    c = await clients.create(nodes[1].url, room, version)

    # With the first frames, so no later than it is synced, but for the way through Node.
    await c.wait(present=[a.client_id, b.client_id], timeout_s=0.1)


@every_npm_version
async def test_a_change_of_state_reaches_other_nodes_at_once(
    nodes: list[ServerProcess], clients: NodeClients, room: str, version: str
) -> None:
    a = await clients.create(nodes[0].url, room, version, state={"cursor": 1})
    b = await clients.create(nodes[1].url, room, "3.1")
    await b.wait(states={a.client_id: {"cursor": 1}}, timeout_s=1)

    await a.set_state({"cursor": 2, "name": "Zoë 🙂"})

    await b.wait(states={a.client_id: {"cursor": 2, "name": "Zoë 🙂"}}, timeout_s=1)


@every_npm_version
async def test_a_user_who_closes_the_tab_is_gone_from_other_nodes_within_a_second(
    nodes: list[ServerProcess], clients: NodeClients, room: str, version: str
) -> None:
    a = await clients.create(nodes[0].url, room, version, state={"user": "Ana"})
    b = await clients.create(nodes[1].url, room, "3.1")
    await b.wait(present=[a.client_id])

    await a.close_tab()

    await b.wait(absent=[a.client_id], timeout_s=1)


async def test_users_of_a_killed_node_are_gone_within_seconds_and_the_others_stay(
    cluster: Cluster, clients: NodeClients, room: str
) -> None:
    # Without a state they would be seen by nobody before their first renewal.
    gone = [
        await clients.create(cluster.nodes[0].url, room, version, state={"user": version}) for version in NODE_VERSIONS
    ]
    left = [await clients.create(node.url, room, state={"user": node.url}) for node in cluster.nodes[1:]]
    for client in left:
        await client.wait(present=[one.client_id for one in (*gone, *left)])

    cluster.nodes[0].kill()

    for client in left:
        await client.wait(absent=[one.client_id for one in gone], timeout_s=LEASE_S + GRACE_S + 1)
        assert [one for other in left for one in await client.awareness_log(other.client_id)].count("removed") == 0


@every_npm_version
async def test_a_user_who_hops_to_another_node_within_the_grace_is_there_all_the_time(
    cluster: Cluster, clients: NodeClients, room: str, version: str
) -> None:
    here, there, elsewhere = cluster.nodes
    async with Balancer([here.port]) as balancer:
        a = await clients.create(balancer.address, room, version, state={"user": "Ana"})
        watchers = [await clients.create(node.url, room) for node in (here, there, elsewhere)]
        for watcher in watchers:
            await watcher.wait(present=[a.client_id])

        balancer.ports = [there.port]
        await a.abort()
        await a.wait(opened=2, synced=True)

        waits = [watcher.wait(absent=[a.client_id], timeout_s=GRACE_S + 1) for watcher in watchers]
        results = await asyncio.gather(*waits, return_exceptions=True)
        assert all(isinstance(result, ClientFailed) for result in results)
        for watcher in watchers:
            assert "removed" not in await watcher.awareness_log(a.client_id)
        await a.set_state({"user": "Ana", "cursor": 1})
        for watcher in watchers:
            await watcher.wait(states={a.client_id: {"user": "Ana", "cursor": 1}}, timeout_s=1)


@every_npm_version
async def test_who_reconnects_to_another_node_sees_everybody_at_once(
    cluster: Cluster, clients: NodeClients, room: str, version: str
) -> None:
    here, there, elsewhere = cluster.nodes
    async with Balancer([here.port]) as balancer:
        a = await clients.create(balancer.address, room, version, state={"user": "Ana"})
        others = [await clients.create(node.url, room, version, state={"user": node.url}) for node in (here, elsewhere)]
        await a.wait(present=[one.client_id for one in others])

        balancer.ports = [there.port]
        await a.abort()
        await a.wait(opened=2, synced=True)

        await a.wait(present=[one.client_id for one in others], timeout_s=2)
        for one in others:
            await one.set_state({"cursor": 1})
        await a.wait(states={one.client_id: {"cursor": 1} for one in others}, timeout_s=1)


async def _together(works: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work())
