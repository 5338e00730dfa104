"""Two nodes behind a real NGINX, under load: one is told to stop, or killed, and stock clients are back in a moment."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGTERM

import pytest

from tests.support.clients import NodeClient, NodeClients
from tests.support.cluster import Cluster, together
from tests.support.database import stored_updates
from tests.support.nginx import Nginx
from tests.support.postgres import PostgresServer
from tests.support.redis import RedisServer
from tests.support.server import ServerProcess
from tests.support.services import require
from tests.support.yjs import Yjs

VERSIONS = ("1.5", "3.0", "3.1")
BACK_S = 3.0
# What stock clients wait at most before they try again, and then some.
RETURN_S = 10.0
PEOPLE_PER_ROOM = 10
EDITS_PER_S = 100
SIZES = [40, pytest.param(200, marks=pytest.mark.long)]
# Open, since those who come by a proxy aren't on this machine.
ENV = {"CRDT_SYNC_INSECURE_OPEN": "true", "CRDT_SYNC_TRUSTED_PROXIES": "127.0.0.1"}


@dataclass
class Site:
    """Two nodes behind one address, and people who type there."""

    cluster: Cluster
    people: list[NodeClient] = field(default_factory=list)
    rooms: list[str] = field(default_factory=list)
    written: dict[str, dict[str, int]] = field(default_factory=dict)
    """What was written in each room."""

    @property
    def nodes(self) -> list[ServerProcess]:
        return self.cluster.nodes

    async def gaps_s(self) -> list[list[float]]:
        """Of each of the people, how long it was without a connection, each time that it lost one."""
        return [[gap / 1000 for gap in (await one.status())["gaps"]] for one in self.people]

    def in_room(self, room: str) -> list[NodeClient]:
        return [one for one, where in zip(self.people, self.rooms, strict=True) if where == room]

    async def check_nobody_vanished(self) -> None:
        """Whoever kept the connection saw everybody all the time."""
        for one, room in zip(self.people, self.rooms, strict=True):
            if (await one.status())["gaps"]:
                continue
            for other in self.in_room(room):
                assert "removed" not in await one.awareness_log(other.client_id)

    async def until_all_are_back(self, timeout_s: float) -> None:
        await asyncio.gather(*(one.wait(synced=True, timeout_s=timeout_s) for one in self.people))

    async def check_nothing_is_lost(self, yjs: Yjs) -> None:
        """Everybody has everything of its room, it is confirmed, and real Yjs reads it out of the database."""
        await asyncio.gather(
            *(one.wait(map=self.written[room], timeout_s=20) for one, room in zip(self.people, self.rooms, strict=True))
        )
        await asyncio.gather(*(one.confirm(timeout_s=20) for one in self.people))
        for room, written in self.written.items():
            # Rows of two nodes are in no causal order.
            stored = yjs.apply([yjs.merge(stored_updates(self.cluster.database_url, room))], {"map": "map"})
            assert (stored.content["map"]["v"], stored.pending) == (written, False)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("people", SIZES)
async def test_a_node_that_is_told_to_stop_loses_no_edit_and_its_clients_are_back_in_a_moment(
    people: int, redis: RedisServer, postgres_url: str, tmp_path: Path, clients: NodeClients, yjs: Yjs
) -> None:
    async with site(people, tmp_path, postgres_url, redis, clients) as here:
        async with typing(here):
            await asyncio.sleep(1)  # some load before
            began_at = time.monotonic()
            here.nodes[0].tell(SIGTERM)
            assert await here.nodes[0].ended() == 0
            took_s = time.monotonic() - began_at
            await here.until_all_are_back(BACK_S)
            await asyncio.sleep(1)
        moved = report(f"SIGTERM with {people} clients, exit 0 after {took_s:.1f} s", await here.gaps_s())
        assert len(moved) >= people / 4
        assert max(moved) < BACK_S
        codes = {close["code"] for one in here.people for close in (await one.status())["closes"]}
        assert codes == {1012}
        await here.check_nobody_vanished()
        await here.check_nothing_is_lost(yjs)
        assert here.nodes[0].errors() == here.nodes[1].errors() == []


@pytest.mark.timeout(240)
@pytest.mark.parametrize("people", SIZES)
async def test_nodes_that_are_told_to_stop_while_postgresql_is_frozen_say_what_is_unsaved_and_clients_bring_it_back(
    people: int, frozen_postgres: PostgresServer, tmp_path: Path, clients: NodeClients, yjs: Yjs
) -> None:
    deadline_s = 4 if people < 100 else 30
    env = {"CRDT_SYNC_DRAIN_DEADLINE_S": str(deadline_s), "CRDT_SYNC_DRAIN_SPREAD_S": "1"}
    with require(RedisServer) as redis:
        async with site(people, tmp_path, frozen_postgres.create_database(), redis, clients, env) as here:
            async with typing(here):
                await asyncio.sleep(1)
                frozen_postgres.freeze()
                await asyncio.sleep(1)
                began_at = time.monotonic()
                for node in here.nodes:
                    node.tell(SIGTERM)
                codes = [await node.ended(timeout_s=deadline_s + 10) for node in here.nodes]
                took_s = time.monotonic() - began_at
                # Nobody but the clients has what wasn't stored.
                redis.execute("FLUSHALL")
                frozen_postgres.thaw()
                await together(*(node.start for node in here.nodes))
                await here.until_all_are_back(RETURN_S)
            report(f"PostgreSQL frozen, {people} clients, exit 1 after {took_s:.1f} s", await here.gaps_s())
            assert codes == [1, 1]
            assert took_s < deadline_s + 2
            for node in here.nodes:
                assert "edits_not_stored" in node.log
            assert {room for room in here.written if f"room_not_stored room='{room}'" in here.cluster.log} == set(
                here.written
            )
            await here.check_nothing_is_lost(yjs)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("people", SIZES)
async def test_only_its_own_clients_notice_that_a_node_is_killed_and_they_are_back_in_a_moment(
    people: int, redis: RedisServer, postgres_url: str, tmp_path: Path, clients: NodeClients, yjs: Yjs
) -> None:
    async with site(people, tmp_path, postgres_url, redis, clients) as here:
        before = await connections(here.nodes[1])
        async with typing(here):
            await asyncio.sleep(1)
            here.nodes[0].kill()
            await asyncio.sleep(0.3)
            await here.until_all_are_back(BACK_S)
            await asyncio.sleep(1)
        moved = report(f"kill -9 with {people} clients", await here.gaps_s())
        assert len(moved) == people - before
        assert max(moved) < BACK_S
        await here.check_nobody_vanished()
        await here.check_nothing_is_lost(yjs)


@pytest.fixture
def frozen_postgres() -> Iterator[PostgresServer]:
    """One that may be frozen."""
    with require(PostgresServer) as server:
        yield server


@asynccontextmanager
async def site(
    people: int,
    folder: Path,
    database_url: str,
    redis: RedisServer,
    clients: NodeClients,
    env: dict[str, str] | None = None,
) -> AsyncIterator[Site]:
    env = {**ENV, "CRDT_SYNC_REDIS_PREFIX": folder.name, **(env or {})}
    async with Cluster(folder, database_url=database_url, redis=redis, nodes=2, env=env) as cluster:
        with require(lambda: Nginx([node.port for node in cluster.nodes], site="compose.conf")) as nginx:
            here = Site(cluster)
            for number in range(people):
                # NGINX takes turns, so half of each room's people are on one node.
                room = f"trip-{number // PEOPLE_PER_ROOM}"
                here.rooms.append(room)
                here.written.setdefault(room, {})
                version = VERSIONS[number % len(VERSIONS)]
                state = {"name": str(number)}  # one without any shows when it is renewed
                here.people.append(await clients.create(nginx.url, room, version, synced=False, state=state))
            await here.until_all_are_back(20)
            await asyncio.gather(
                *(
                    one.wait(present=[other.client_id for other in here.in_room(room)], timeout_s=20)
                    for one, room in zip(here.people, here.rooms, strict=True)
                )
            )
            yield here


@asynccontextmanager
async def typing(here: Site) -> AsyncIterator[None]:
    """Have all of them edit meanwhile, connected or not."""

    async def keep_editing(number: int) -> None:
        count = 0
        interval_s = len(here.people) / EDITS_PER_S
        await asyncio.sleep(interval_s * number / len(here.people))
        while True:
            count += 1
            # Noted first: when this is cancelled, the edit is under way.
            here.written[here.rooms[number]][f"{number}:{count}"] = count
            await here.people[number].map_set(f"{number}:{count}", count)
            await asyncio.sleep(interval_s)

    tasks = [asyncio.create_task(keep_editing(number)) for number in range(len(here.people))]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def connections(node: ServerProcess) -> int:
    """How many clients a node has."""
    return node.log.count("connection_opened") - node.log.count("connection_closed")


def report(what: str, gaps: Sequence[Sequence[float]]) -> list[float]:
    """Say how long those who lost their connections were without one; returns the longest of each."""
    moved = [max(one) for one in gaps if one]
    percentiles = statistics.quantiles(moved, n=100) if len(moved) > 1 else []
    if percentiles:
        p50, p99 = percentiles[49], percentiles[98]
        print(f"\n{what}: {len(moved)} lost their connection, back after p50 {p50:.2f} s, p99 {p99:.2f} s")
    return moved
