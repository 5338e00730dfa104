"""Redis is away, is emptied, or was never there: nodes serve on, and come together when it is back."""

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.cluster import Cluster, Wanderer, differences, readiness, together, until
from tests.support.database import stored_updates
from tests.support.editor import Editor
from tests.support.redis import RedisServer
from tests.support.services import require
from tests.support.yjs import Yjs
from tests.trials.test_kill import all_confirmed, all_sent, what_yjs_reads

ROOM = "trip-1"
EDITORS_EACH = 2
EDIT_INTERVAL_S = 0.1
LOAD_S = 10
# How long a confirmation may take on a machine where other tests take the CPU.
CONFIRM_S = 2
IDLE_ROOMS = 50
# What a node sends while nothing happens: that it lives, a ping through its own channel, and a look for marks.
HEARTBEATS = {"publish", "time", "zrange"}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """One of the test's own, that isn't up yet."""
    server = require(RedisServer)
    yield server
    server.close()


@pytest.mark.parametrize("away_s", [10, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(300)])])
async def test_while_redis_is_away_edits_are_confirmed_and_soon_after_its_return_all_have_them(
    away_s: int, redis: RedisServer, postgres_url: str, tmp_path: Path, yjs: Yjs
) -> None:
    redis.start()
    async with Cluster(tmp_path, database_url=postgres_url, redis=redis) as cluster, editors_of(cluster) as editors:
        async with typing(editors):
            await until_confirmed(editors, count=5)

            redis.kill()
            loop = asyncio.get_running_loop()
            gone_at = loop.time()
            before = {editor: len(editor.confirmed) for editor in editors}
            await until_warned(cluster, warned=True, timeout_s=5)
            while loop.time() < gone_at + away_s:
                found = await all_readiness(cluster)
                assert [status for status, _ in found] == [200, 200, 200], found
                await asyncio.sleep(0.5)
            for editor in editors:
                # All that is older than that.
                confirmed = await until(lambda sent=set(editor.sent), e=editor: sent <= set(e.confirmed), timeout_s=2)
                assert confirmed, f"{editor.name} waits for {len(editor.unconfirmed)} of {len(editor.sent)} edits"
                assert len(editor.confirmed) - before[editor] > away_s / EDIT_INTERVAL_S / 4

            redis.start()
            sent = all_sent(editors)
            back_at = loop.time()
            await until_all_have(sent, editors, timeout_s=5)
            healed_s = loop.time() - back_at
            await until_warned(cluster, warned=False, timeout_s=5)

        await until_all_have(all_sent(editors), editors, timeout_s=5)
        await until_confirmed(editors)
        assert what_yjs_reads(yjs, stored_updates(postgres_url, ROOM)) == all_sent(editors)
        print(f"away {away_s} s: {len(sent)} edits, everywhere {healed_s:.2f} s after the return")
        assert [error for node in cluster.nodes for error in node.errors()] == []


async def test_a_redis_that_is_emptied_every_second_causes_neither_divergence_nor_much_traffic(
    redis: RedisServer, postgres_url: str, tmp_path: Path, yjs: Yjs
) -> None:
    redis.start()
    bytes_per_edit = {}
    async with Cluster(tmp_path, database_url=postgres_url, redis=redis) as cluster:
        for flushed in (False, True):
            room = f"flushed-{flushed}"
            async with editors_of(cluster, room) as editors:
                await asyncio.sleep(2)  # what nodes say when a room is opened isn't what is measured
                before = output_bytes(redis)
                async with typing(editors):
                    for _ in range(LOAD_S):
                        await asyncio.sleep(1)
                        if flushed:
                            assert redis.execute("FLUSHALL") == "+OK\r\n"
                edits = all_sent(editors)
                await until_all_have(edits, editors, timeout_s=5)
                await until_confirmed(editors)
                bytes_per_edit[flushed] = (output_bytes(redis) - before) / len(edits)

                assert what_yjs_reads(yjs, stored_updates(postgres_url, room)) == edits
        assert [error for node in cluster.nodes for error in node.errors()] == []

    print(f"bytes out of Redis per edit: {bytes_per_edit[False]:.0f}, flushed {bytes_per_edit[True]:.0f}")
    assert bytes_per_edit[True] < 3 * bytes_per_edit[False]


@pytest.mark.waits
async def test_rooms_where_nothing_happens_ask_nothing_of_redis(
    redis: RedisServer, postgres_url: str, tmp_path: Path
) -> None:
    redis.start()
    async with Cluster(tmp_path, database_url=postgres_url, redis=redis) as cluster, AsyncExitStack() as stack:
        await cluster.until_all_are_found()
        without_rooms = await commands_in(redis, LOAD_S)
        for room in range(IDLE_ROOMS):
            idle = [Editor(url, f"idle-{room}") for url in cluster.urls]
            await together(*(editor.open for editor in idle))
            for editor in idle:
                stack.push_async_callback(editor.close)
        await asyncio.sleep(3)  # the nodes ask each other what they have, twice

        with_rooms = await commands_in(redis, LOAD_S)

    print(f"commands in {LOAD_S} s: {without_rooms.total()} without rooms, {with_rooms.total()} with {IDLE_ROOMS}")
    assert with_rooms.keys() <= HEARTBEATS
    # Heartbeats don't begin and end with the measurement.
    assert with_rooms.total() <= without_rooms.total() + 3 * len(cluster.nodes)


async def test_nodes_come_up_without_redis_and_find_each_other_when_it_does(
    redis: RedisServer, postgres_url: str, tmp_path: Path, yjs: Yjs
) -> None:
    async with Cluster(tmp_path, database_url=postgres_url, redis=redis) as cluster, editors_of(cluster) as editors:
        await until_warned(cluster, warned=True, timeout_s=5)
        first = {await editor.edit() for editor in editors}
        await until_confirmed(editors)
        assert "node_found" not in cluster.log
        assert what_yjs_reads(yjs, stored_updates(postgres_url, ROOM)) == first

        redis.start()

        await until_all_have(first, editors, timeout_s=6)
        await cluster.until_all_are_found()
        await until_warned(cluster, warned=False, timeout_s=5)
        second = {await editor.edit() for editor in editors}
        await until_all_have(first | second, editors, timeout_s=1)
        await until_confirmed(editors)
        assert what_yjs_reads(yjs, stored_updates(postgres_url, ROOM)) == first | second
        assert [error for node in cluster.nodes for error in node.errors()] == []


@asynccontextmanager
async def editors_of(cluster: Cluster, room: str = ROOM) -> AsyncIterator[list[Wanderer]]:
    """Some editors of one room at each node."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Wanderer(url, room)) for url in cluster.urls for _ in range(EDITORS_EACH)
        ]


@asynccontextmanager
async def typing(editors: Sequence[Editor]) -> AsyncIterator[None]:
    """Have all of them edit meanwhile."""
    tasks = [asyncio.create_task(keep_editing(editor)) for editor in editors]
    try:
        yield
        assert not any(task.done() for task in tasks), "somebody's connection was closed"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def keep_editing(editor: Editor) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await editor.edit()
            await asyncio.sleep(random.uniform(0.5, 1.5) * EDIT_INTERVAL_S)


async def until_confirmed(editors: Sequence[Wanderer], *, count: int | None = None) -> None:
    """Wait until each has so many confirmations, or all that it waits for."""
    for editor in editors:
        await editor.until(
            lambda editor=editor: not editor.unconfirmed if count is None else len(editor.confirmed) >= count,
            CONFIRM_S,
        )
    assert count is not None or all_confirmed(editors) == all_sent(editors)


async def until_all_have(edits: set[str], editors: Sequence[Wanderer], *, timeout_s: float) -> None:
    have = await until(lambda: all(edits <= editor.edits() for editor in editors), timeout_s=timeout_s)
    assert have, differences({f"{one.name} at {one.url}": one.edits() & edits for one in editors})


async def until_warned(cluster: Cluster, *, warned: bool, timeout_s: float) -> None:
    """Wait until `GET /ready` warns of the bus at all nodes, or at none; it says 200 all the time."""
    async with asyncio.timeout(timeout_s):
        while True:
            answers = await all_readiness(cluster)
            assert [status for status, _ in answers] == [200] * len(answers), answers
            if all(("bus" in body["warnings"]) is warned for _, body in answers):
                return
            await asyncio.sleep(0.1)


async def all_readiness(cluster: Cluster) -> list[tuple[int, dict[str, dict[str, str]]]]:
    return await asyncio.gather(*(readiness(node) for node in cluster.nodes))


def output_bytes(redis: RedisServer) -> int:
    """What it has sent so far, to whomever."""
    found = re.search(r"total_net_output_bytes:(\d+)", redis.execute("INFO", "stats"))
    assert found is not None
    return int(found[1])


async def commands_in(redis: RedisServer, seconds: float) -> Counter[str]:
    """Which commands it gets in that time, and how often."""
    before = commands(redis)
    await asyncio.sleep(seconds)
    return +(commands(redis) - before - Counter({"info": 1}))


def commands(redis: RedisServer) -> Counter[str]:
    lines = re.findall(r"cmdstat_([a-z|_-]+):calls=(\d+)", redis.execute("INFO", "commandstats"))
    return Counter({name: int(calls) for name, calls in lines})
