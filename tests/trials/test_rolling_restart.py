"""Nodes, or processes of one node, end under load: stock clients are back in a moment, and nothing is lost."""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.balancer import Balancer
from tests.support.clients import NodeClient, NodeClients
from tests.support.cluster import Cluster, until
from tests.support.database import stored_updates
from tests.support.editor import Editor
from tests.support.redis import RedisServer
from tests.support.server import ServerProcess
from tests.support.yjs import Yjs
from tests.trials.test_kill import all_confirmed, what_yjs_reads

ROOM = "trip-1"
VERSIONS = ("1.5", "3.0", "3.1")
BACK_S = 3
# How often stock clients say that they are still there.
RENEWAL_S = 15
EDIT_INTERVAL_S = 0.1
WORKERS = 3


@pytest.mark.timeout(120)
@pytest.mark.parametrize("end", ["stop", pytest.param("kill", marks=pytest.mark.long)])
async def test_stock_clients_outlive_the_restart_of_all_nodes_one_after_the_other(
    end: str, redis: RedisServer, postgres_url: str, tmp_path: Path, clients: NodeClients, yjs: Yjs
) -> None:
    env = {"CRDT_SYNC_REDIS_PREFIX": tmp_path.name}  # of the test's own, as its database is
    async with Cluster(tmp_path, database_url=postgres_url, redis=redis, env=env) as cluster, AsyncExitStack() as stack:
        ports = [node.port for node in cluster.nodes]
        # Each group prefers a node of its own.
        groups = [await stack.enter_async_context(Balancer([*ports[n:], *ports[:n]])) for n in range(len(ports))]
        people = [
            await clients.create(group.address, ROOM, version, state={"user": f"{group.port} {version}"})
            for group in groups
            for version in VERSIONS
        ]
        await until_all_see_all(people, timeout_s=2)

        async with typing(people) as written:
            for node in cluster.nodes:
                await asyncio.sleep(1)  # some load before each
                before = [(await one.status())["opened"] for one in people]
                removals = await count_removals(people)
                leaving = len(connections_of(node.pid, node.port))
                if end == "stop":
                    await node.stop()
                else:
                    node.kill()
                moved = await until_back(people, before, count=lambda leaving=leaving: leaving)
                stayed = [n for n in range(len(people)) if n not in moved]
                await until_seen_by_a_newcomer(
                    people, clients, next(one for one in cluster.nodes if one is not node).url
                )
                await node.start()

                assert len(VERSIONS) <= len(moved) < len(people)
                after = await count_removals(people)
                assert [after[n] for n in stayed] == [removals[n] for n in stayed]

        # Whoever lost the connection has forgotten all others by itself, and waits for their next renewal.
        await until_all_see_all(people, timeout_s=RENEWAL_S + 1)
        for one in people:
            await one.wait(map=written)
            await one.confirm()
        stored = yjs.apply(stored_updates(postgres_url, ROOM), {"map": "map"})
        assert (stored.content["map"]["v"], stored.pending) == (written, False)
        assert [error for node in cluster.nodes for error in node.errors()] == []


@pytest.mark.timeout(120)
async def test_clients_of_a_killed_worker_are_back_in_a_moment_and_nothing_confirmed_is_lost(
    redis: RedisServer, postgres_url: str, tmp_path: Path, clients: NodeClients, yjs: Yjs
) -> None:
    env = {
        "CRDT_SYNC_REDIS_URL": redis.url,
        "CRDT_SYNC_REDIS_PREFIX": tmp_path.name,
        "CRDT_SYNC_WORKERS": str(WORKERS),
    }
    server = ServerProcess(tmp_path, database_url=postgres_url, env=env)
    async with AsyncExitStack() as stack:
        stack.callback(server.kill)  # harmless after it has stopped
        await server.start()
        assert await until(lambda: server.log.count("node_started") == WORKERS, timeout_s=20), server.log
        people = [await clients.create(server.url, ROOM, version) for version in VERSIONS * 3]
        authors = [await stack.enter_async_context(Editor(server.url, "trip-2")) for _ in range(9)]
        edits = [asyncio.create_task(edit_for_confirmation(author)) for author in authors]
        async with typing(people) as written:
            await asyncio.sleep(1)  # some load before
            before = [(await one.status())["opened"] for one in people]
            connections = {pid: connections_of(pid, server.port) for pid in worker_pids(server)}
            worker = max(connections, key=lambda pid: len(connections[pid]))

            os.kill(worker, signal.SIGKILL)

            def cut_off() -> int:
                return sum(author.close_code is not None for author in authors)

            await until_back(people, before, count=lambda: len(connections[worker]) - cut_off())
            assert 0 < len(connections[worker]) < len(people) + len(authors)
        await asyncio.wait(edits)
        for one in people:
            await one.wait(map=written)
            await one.confirm()
        # Those that were cut off don't come back with what they wrote.
        stored = what_yjs_reads(yjs, stored_updates(postgres_url, "trip-2"))
        assert all_confirmed(authors) <= stored
        assert all(all_confirmed([author]) for author in authors)
        kept = yjs.apply(stored_updates(postgres_url, ROOM), {"map": "map"})
        assert (kept.content["map"]["v"], kept.pending) == (written, False)
        assert await until(lambda: server.log.count("node_started") == WORKERS + 1, timeout_s=20), server.log
        assert [error for error in server.errors() if "worker_died" not in error] == []

        os.kill(server.pid, signal.SIGTERM)

        assert await until(lambda: "exit code 0" in how_it_ended(server), timeout_s=20), how_it_ended(server)
        assert what_yjs_reads(yjs, stored_updates(postgres_url, "trip-2")) == stored


@asynccontextmanager
async def typing(people: Sequence[NodeClient]) -> AsyncIterator[dict[str, int]]:
    """Have all of them edit meanwhile, connected or not; gives what they have written so far."""
    written: dict[str, int] = {}

    async def keep_editing(number: int) -> None:
        count = 0
        while True:
            count += 1
            # Noted first: when this is cancelled, the edit is under way.
            written[f"{number}:{count}"] = count
            await people[number].map_set(f"{number}:{count}", count)
            await asyncio.sleep(EDIT_INTERVAL_S)

    tasks = [asyncio.create_task(keep_editing(number)) for number in range(len(people))]
    try:
        yield written
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def edit_for_confirmation(author: Editor) -> None:
    """Edit once confirmed, until the connection is gone or some edits are made."""
    with contextlib.suppress(ConnectionClosed):
        for _ in range(30):
            edit = await author.edit()
            await author.until(lambda edit=edit: edit in author.confirmed or author.close_code is not None)


async def until_back(
    people: Sequence[NodeClient], opened_before: Sequence[int], *, count: Callable[[], int]
) -> list[int]:
    """Wait until so many have had to connect anew, and all are synced; returns who had to."""
    async with asyncio.timeout(BACK_S):
        while True:
            states = [await one.status() for one in people]
            moved = [n for n, state in enumerate(states) if state["opened"] > opened_before[n]]
            if len(moved) >= count() and all(state["synced"] for state in states):
                return moved
            await asyncio.sleep(0.02)


async def until_all_see_all(people: Sequence[NodeClient], *, timeout_s: float) -> None:
    everybody = [one.client_id for one in people]
    await asyncio.gather(*(one.wait(present=everybody, timeout_s=timeout_s) for one in people))


async def until_seen_by_a_newcomer(people: Sequence[NodeClient], clients: NodeClients, url: str) -> None:
    newcomer = await clients.create(url, ROOM)
    await newcomer.wait(present=[one.client_id for one in people], timeout_s=1)
    await newcomer.destroy()


async def count_removals(people: Sequence[NodeClient]) -> list[int]:
    """How often each has seen others vanish so far."""
    return [
        sum([(await one.awareness_log(other.client_id)).count("removed") for other in people if other is not one])
        for one in people
    ]


def worker_pids(server: ServerProcess) -> list[int]:
    return [int(pid) for pid in re.findall(r"worker_started pid=(\d+)", server.log)]


def connections_of(pid: int, port: int) -> set[str]:
    """The connections to a port that a process has accepted, as inodes."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    accepted = {f[9] for f in lines if f[1].endswith(f":{port:04X}") and f[3] == "01"}
    links = [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()]
    return accepted & {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}


def how_it_ended(server: ServerProcess) -> str:
    try:
        return f"process {server.pid} runs"
    except AssertionError as ended:
        return str(ended)
