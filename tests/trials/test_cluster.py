"""Three nodes, their Redis and their PostgreSQL, and somebody who breaks them at random while six clients edit.

Each history has rooms and authors of its own, two to four kinds of trouble, and then some seconds to heal. After that all
replicas are equal, equal to the store, and equal to what real Yjs makes of it, and nothing that was confirmed is missing.
A history follows from its seed, as far as processes and networks let it: `CLUSTER_SEED=17` begins there.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed

from tests.support.cluster import Cluster, Wanderer, differences, together, until
from tests.support.database import stored_updates
from tests.support.postgres import PostgresServer
from tests.support.redis import RedisServer
from tests.support.redis_proxy import Disturbance
from tests.support.server import ServerProcess
from tests.support.services import require
from tests.support.yjs import Yjs
from tests.trials.test_kill import all_confirmed, all_sent

NODES = 3
ROOMS = 2
AUTHORS = 6
ENV = {"CRDT_SYNC_CHECKPOINT_INTERVAL_S": "0.5"}
TROUBLE_WITHIN_S = 1.0
HEAL_S = 8
# An author moves to another node, loses the connection, or leaves for good, before one edit in so many.
HOPS, LOSSES, EXITS = 60, 60, 200
# How likely it is that somebody whose connection broke comes back: in most histories, and in the others.
COMES_BACK = (0.85, 0.85, 0.2)
# What a node has to complain about when its database doesn't answer.
EXPECTED_ERRORS = ("store_failing", "checkpoints_failing")
TRACEBACK = "Traceback (most recent call last):"
# The process that checks large snapshots says this when its node is killed before it has heard what to do.
ORPHAN = f'{TRACEBACK}\n  File "<string>", line 1, in <module>\n'
FIRST_SEED = int(os.environ.get("CLUSTER_SEED", "0"))


@pytest_asyncio.fixture
async def cluster(
    redis_to_break: RedisServer, postgres_to_break: PostgresServer, tmp_path: Path
) -> AsyncIterator[Cluster]:
    """Three running nodes."""
    url = postgres_to_break.create_database()
    async with Cluster(tmp_path, database_url=url, redis=redis_to_break, nodes=NODES, env=ENV) as made:
        yield made


@pytest.fixture
def redis_to_break() -> Iterator[RedisServer]:
    """One of the test's own."""
    with require(RedisServer) as server:
        yield server


@pytest.fixture
def postgres_to_break() -> Iterator[PostgresServer]:
    """One of the test's own."""
    with require(PostgresServer) as server:
        yield server


@pytest.mark.parametrize("histories", [8, pytest.param(500, marks=[pytest.mark.long, pytest.mark.timeout(6 * 3600)])])
async def test_all_replicas_agree_and_nothing_confirmed_is_lost_whatever_breaks(
    histories: int, cluster: Cluster, redis_to_break: RedisServer, postgres_to_break: PostgresServer, yjs: Yjs
) -> None:
    nemesis = Nemesis(cluster, redis_to_break, postgres_to_break)
    came: Counter[str] = Counter()
    try:
        for seed in range(FIRST_SEED, FIRST_SEED + histories):
            history = History(seed, cluster, nemesis, yjs)
            came += await history.run()
            print(f"history {seed}: {history.summary()}", flush=True)
    finally:
        nemesis.heal()

    print(came, nemesis.came, sum((link.messages for link in cluster.links), Counter()))
    # A trial in which some trouble never came would have shown nothing about it.
    assert set(nemesis.came) == {action.__name__ for action in nemesis.actions}
    messages = sum((link.messages for link in cluster.links), Counter())
    assert min(messages[fate] for fate in ("passed", "lost", "repeated", "late")) > histories
    assert min(came[what] for what in ("unconfirmed", "hops", "losses", "exits")) > 0
    assert came["confirmed"] > histories * AUTHORS


class Nemesis:
    """Whoever breaks things, and puts each right again after a while. What is broken already is left for later."""

    def __init__(self, cluster: Cluster, redis: RedisServer, postgres: PostgresServer) -> None:
        self.came: Counter[str] = Counter()
        """How often each action came."""
        self.look: Callable[[], None] = lambda: None
        """Called when no node runs, and the store does."""
        self._cluster = cluster
        self._redis = redis
        self._postgres = postgres
        self._busy: dict[object, asyncio.Lock] = {}
        self.actions: list[Callable[[random.Random], Awaitable[None]]] = [
            self.kill_all_nodes,
            self.kill_node,
            self.freeze_node,
            self.kill_redis,
            self.restart_redis,
            self.freeze_redis,
            self.flush_redis,
            self.freeze_postgres,
            self.cut_link,
            self.cut_answers,
            self.hold_answers,
            self.disturb_link,
            self.disturb_all_links,
        ]

    def choose(self, rng: random.Random, seed: int) -> list[Callable[[random.Random], Awaitable[None]]]:
        """Two to four actions; over the seeds, each comes. The first takes long, so it comes no more often than that."""
        return [self.actions[seed % len(self.actions)], *rng.choices(self.actions[1:], k=rng.randint(1, 3))]

    async def act(self, action: Callable[[random.Random], Awaitable[None]], rng: random.Random) -> None:
        """Do something, after a while."""
        await asyncio.sleep(rng.uniform(0, TROUBLE_WITHIN_S))  # the moment is the point
        await action(rng)
        self.came[action.__name__] += 1

    def heal(self) -> None:
        """Whatever is still broken because an action was interrupted."""
        for thaw in (self._redis.thaw, self._postgres.thaw):
            thaw()

    async def kill_node(self, rng: random.Random) -> None:
        node = rng.choice(self._cluster.nodes)
        async with self._alone(node):
            node.kill()
            await asyncio.sleep(rng.choice((0, rng.uniform(0, 1))))
            await node.start()

    async def kill_all_nodes(self, rng: random.Random) -> None:
        """What they had in memory is gone, and sometimes what Redis had, too."""
        async with AsyncExitStack() as stack:
            for target in (self._redis, self._postgres, *self._cluster.nodes):
                await stack.enter_async_context(self._alone(target))
            if rng.random() < 0.5:
                # So that they have much that isn't stored, and authors carry it from one to another.
                self._postgres.freeze()
                await asyncio.sleep(rng.uniform(0.2, 0.8))
            for node in rng.sample(self._cluster.nodes, NODES):
                node.kill()
            self._postgres.thaw()
            if rng.random() < 0.5:
                self._redis.execute("FLUSHALL")
            self.look()
            await together(*(node.start for node in self._cluster.nodes))

    async def freeze_node(self, rng: random.Random) -> None:
        node = rng.choice(self._cluster.nodes)
        async with self._alone(node):
            node.freeze()
            try:
                # Sometimes for so long that the others take it for dead.
                await asyncio.sleep(usually_short(rng, or_else_s=4.5))
            finally:
                node.thaw()

    async def kill_redis(self, rng: random.Random) -> None:
        async with self._alone(self._redis):
            self._redis.kill()
            await asyncio.sleep(usually_short(rng, or_else_s=3))
            self._redis.start()

    async def restart_redis(self, rng: random.Random) -> None:
        """It comes back at once, and empty."""
        async with self._alone(self._redis):
            self._redis.restart()

    async def freeze_redis(self, rng: random.Random) -> None:
        async with self._alone(self._redis):
            self._redis.freeze()
            try:
                # Sometimes for longer than nodes wait for an answer.
                await asyncio.sleep(usually_short(rng, or_else_s=2.5))
            finally:
                self._redis.thaw()

    async def flush_redis(self, rng: random.Random) -> None:
        for _ in range(rng.randint(1, 4)):
            async with self._alone(self._redis):
                self._redis.execute("FLUSHALL")
            await asyncio.sleep(rng.uniform(0.05, 0.4))

    async def freeze_postgres(self, rng: random.Random) -> None:
        async with self._alone(self._postgres):
            self._postgres.freeze()
            try:
                await asyncio.sleep(usually_short(rng, or_else_s=2))
            finally:
                self._postgres.thaw()

    async def cut_link(self, rng: random.Random) -> None:
        """A node loses its connections to Redis, and may not come back for a while."""
        link = rng.choice(self._cluster.links)
        async with self._alone(link):
            link.refuse()
            link.cut()
            await asyncio.sleep(rng.choice((0, rng.uniform(0, 1.5))))
            await link.accept()

    async def cut_answers(self, rng: random.Random) -> None:
        """A node loses its connection just after Redis has done what it was asked to."""
        link = rng.choice(self._cluster.links)
        async with self._alone(link):
            link.cut_at_answer_to(rng.choice((b"XADD", b"PUBLISH", b"ZADD", b"SUBSCRIBE")), times=rng.randint(1, 3))
            await asyncio.sleep(rng.uniform(0.2, 1))
            link.cut_at_answer_to(b"", times=0)

    async def hold_answers(self, rng: random.Random) -> None:
        """A node hears nothing from Redis, which hears everything from the node."""
        link = rng.choice(self._cluster.links)
        async with self._alone(link):
            link.hold_answers()
            try:
                # Sometimes for so long that it makes new connections.
                await asyncio.sleep(usually_short(rng, or_else_s=3.5))
            finally:
                link.release_answers()

    async def disturb_link(self, rng: random.Random) -> None:
        """A node misses messages, or hears them twice or late."""
        link = rng.choice(self._cluster.links)
        async with self._alone(link):
            link.disturb(Disturbance(), rng=rng)
            await asyncio.sleep(rng.uniform(0.5, 1.5))
            link.behave()

    async def disturb_all_links(self, rng: random.Random) -> None:
        """Hardly anybody hears anything."""
        async with AsyncExitStack() as stack:
            for link in self._cluster.links:
                await stack.enter_async_context(self._alone(link))
                link.disturb(Disturbance(lost=0.6, repeated=0.1, late=0.2), rng=rng)
            await asyncio.sleep(rng.uniform(0.5, 1.5))
            for link in self._cluster.links:
                link.behave()

    def _alone(self, target: object) -> asyncio.Lock:
        return self._busy.setdefault(target, asyncio.Lock())


class History:
    """Some seconds of editing and trouble, and the comparison after them."""

    def __init__(self, seed: int, cluster: Cluster, nemesis: Nemesis, yjs: Yjs) -> None:
        self._seed = seed
        self._rng = random.Random(seed)
        self._cluster = cluster
        self._nemesis = nemesis
        self._yjs = yjs
        self._came: Counter[str] = Counter()
        self._comes_back = self._rng.choice(COMES_BACK)
        self._rooms = [f"history-{seed}-{letter}" for letter in "ab"[:ROOMS]]
        self._authors = [
            Wanderer(
                self._rng.choice(cluster.urls),
                self._rooms[number % ROOMS],
                name=f"{seed}.{number}",
                confirms=number < AUTHORS * 2 / 3,
            )
            for number in range(AUTHORS)
        ]
        self._connected: list[Wanderer] = []
        self._healed = asyncio.Event()
        self._actions: list[str] = []
        self._times: dict[str, float] = {}

    def summary(self) -> str:
        """What happened, for people."""
        times = " ".join(f"{name} {seconds:.1f}" for name, seconds in self._times.items())
        return f"{' '.join(self._actions)}; {times}; {dict(self._came)}"

    async def run(self) -> Counter[str]:
        """Have it happen, and compare.

        Returns:
            How often what happened.
        """
        began = loop_time()
        complained = [len(complaints_of(node)) for node in self._cluster.nodes]
        async with AsyncExitStack() as stack:
            for author in self._authors:
                stack.push_async_callback(author.close)
            async with asyncio.timeout(60):
                await self._edit_in_trouble()
            self._times["trouble"] = loop_time() - began
            await self._see_that_replicas_agree()
            self._times["agreed"] = loop_time() - began
            for room in self._rooms:
                await self._see_that_everything_is_equal(room)
        self._times["compared"] = loop_time() - began
        self._came["confirmed"] = len(all_confirmed(self._authors))
        self._came["unconfirmed"] = len(all_sent(self._authors)) - self._came["confirmed"]
        for node, before in zip(self._cluster.nodes, complained, strict=True):
            assert complaints_of(node)[before:] == [], self._complain("a node complained")
        return self._came

    async def _edit_in_trouble(self) -> None:
        for author in self._authors:
            while not await author.go_to(author.url):
                author.url = self._rng.choice(self._cluster.urls)
        self._connected = list(self._authors)
        actions = self._nemesis.choose(self._rng, self._seed)
        self._actions = [action.__name__ for action in actions]
        self._nemesis.look = self._see_that_everything_confirmed_is_stored
        async with asyncio.TaskGroup() as group:
            for author in self._authors:
                group.create_task(self._keep_editing(author, random.Random(self._rng.random())))
            trouble = [self._nemesis.act(action, random.Random(self._rng.random())) for action in actions]
            await asyncio.gather(*trouble)
            self._healed.set()

    async def _keep_editing(self, author: Wanderer, rng: random.Random) -> None:
        """Edit until all is well again, from one node or another; perhaps not until then."""
        while not self._healed.is_set():
            if rng.random() < 1 / EXITS:
                self._came["exits"] += 1
                await self._leave_for_good(author)
                return
            if rng.random() < 1 / HOPS:
                self._came["hops"] += 1
                await self._reconnect(author, rng)
            if rng.random() < 1 / LOSSES:
                self._came["losses"] += 1
                author.lose_connection()
            try:
                await author.edit(confirm=author.confirms, size=rng.choice((0, 10, 1000)))
                await asyncio.sleep(rng.uniform(0, 0.05))
            except ConnectionClosed:
                if rng.random() > self._comes_back:
                    self._came["exits"] += 1
                    await self._leave_for_good(author)
                    return
                await self._reconnect(author, rng)
        if author.close_code is not None:
            await self._reconnect(author, rng)

    async def _reconnect(self, author: Wanderer, rng: random.Random) -> None:
        while not await author.go_to(rng.choice(self._cluster.urls), timeout_s=1):
            await asyncio.sleep(rng.uniform(0, 0.1))

    async def _leave_for_good(self, author: Wanderer) -> None:
        await author.close()
        self._connected.remove(author)

    async def _see_that_replicas_agree(self) -> None:
        """Without anybody else who comes: a newcomer could bring nodes together that wouldn't find each other."""
        agreed = await until(self._replicas_agree, timeout_s=HEAL_S)
        assert agreed, self._complain(
            *(differences({name_of(one): one.edits() for one in self._in(room)}) for room in self._rooms),
            *(f"{name_of(one)}: {self._judge(one)}" for one in self._connected),
            *(f"{name_of(one)} waits for {sorted(one.unconfirmed)}" for one in self._connected if one.unconfirmed),
            *(f"{name_of(one)} was closed: {one.close_code}" for one in self._connected if one.close_code is not None),
        )

    def _judge(self, author: Wanderer) -> str:
        """Whether it has been told less than the others, or understood less than real Yjs would."""
        read = read_in_yjs(self._yjs, [*author.own, *author.received])
        return f"shows {len(author.edits())} edits, real Yjs would show {len(read.edits)}, pending: {read.pending}"

    def _replicas_agree(self) -> bool:
        if any(one.unconfirmed or one.close_code is not None for one in self._connected):
            return False
        return all(len({one.text for one in self._in(room)}) <= 1 for room in self._rooms) and all(
            len({frozenset(one.edits()) for one in self._in(room)}) <= 1 for room in self._rooms
        )

    async def _see_that_everything_is_equal(self, room: str) -> None:
        confirmed = all_confirmed(one for one in self._authors if one.room == room)
        mine = all_sent(one for one in self._authors if one.room == room)
        async with AsyncExitStack() as stack:
            newcomers = []
            for url in self._cluster.urls:
                newcomer = await stack.enter_async_context(Wanderer(url, room, name="newcomer", confirms=False))
                await asyncio.wait_for(newcomer.synced.wait(), 10)
                newcomers.append(newcomer)
            replicas = [*self._in(room), *newcomers]
            deadline = loop_time() + HEAL_S
            while not self._is_equal(read := self._read_store(room), replicas):
                if loop_time() >= deadline:
                    assert self._is_power_cut(read, replicas), self._complain(
                        f"pending in the store: {read.pending}",
                        differences({"the store": read.edits, **{name_of(one): one.edits() for one in replicas}}),
                    )
                    self._came["power cuts"] += 1
                    break
                await asyncio.sleep(0.05)
            shown = replicas[0].edits()
            assert confirmed <= shown, self._complain(f"confirmed, and not shown: {sorted(confirmed - shown)}")
            stored = read.edits
            for newcomer in newcomers:
                reads = read_in_yjs(self._yjs, newcomer.received)
                expected = Read(shown, replicas[0].text, pending=False)
                assert reads == expected, self._complain("real Yjs reads something else")
        assert confirmed <= stored, self._complain(f"confirmed, and lost: {sorted(confirmed - stored)}")
        assert stored <= mine, self._complain(f"from another room: {sorted(stored - mine)}")

    def _read_store(self, room: str) -> "Read":
        # Several nodes' rows are in no causal order, and Yjs may leave some pending for good if it gets them one by one.
        return read_in_yjs(self._yjs, [self._yjs.merge(stored_updates(self._cluster.database_url, room))])

    @staticmethod
    def _is_equal(read: "Read", replicas: list[Wanderer]) -> bool:
        return not read.pending and all((one.edits(), one.text) == (read.edits, read.text) for one in replicas)

    def _is_power_cut(self, read: "Read", replicas: list[Wanderer]) -> bool:
        """Whether all had to be lost that an unconfirmed edit in the store builds upon: then it waits there for good."""
        kills = sum(action in ("kill_node", "kill_all_nodes") for action in self._actions)
        first, *others = replicas
        alike = all((one.edits(), one.text) == (first.edits(), first.text) for one in others)
        return (
            read.pending and alike and first.edits() <= read.edits and (kills > 1 or "kill_all_nodes" in self._actions)
        )

    def _see_that_everything_confirmed_is_stored(self) -> None:
        for room in self._rooms:
            confirmed = all_confirmed(one for one in self._authors if one.room == room)
            lost = confirmed - self._read_store(room).edits
            assert not lost, self._complain(f"no node runs; confirmed, and not stored: {sorted(lost)}")

    def _in(self, room: str) -> list[Wanderer]:
        return [one for one in self._connected if one.room == room]

    def _complain(self, *complaints: str) -> str:
        logs = [f"{node.url}:\n" + "\n".join(node.log.splitlines()[-60:]) for node in self._cluster.nodes]
        return "\n".join([f"CLUSTER_SEED={self._seed}: {self.summary()}", *complaints, *logs])


def complaints_of(node: ServerProcess) -> list[str]:
    """Errors in a node's log that this trial doesn't explain."""
    complaints = [line for line in node.errors() if not any(one in line for one in EXPECTED_ERRORS)]
    for _ in range(node.log.count(ORPHAN)):
        complaints.remove(TRACEBACK)
    return complaints


def usually_short(rng: random.Random, *, or_else_s: float) -> float:
    """How long some trouble lasts."""
    return or_else_s if rng.random() < 0.2 else rng.uniform(0.3, 1.2)


def name_of(author: Wanderer) -> str:
    """Who it is, and where."""
    return f"{author.name} at {author.url}"


class Read(NamedTuple):
    """What real Yjs makes of some updates."""

    edits: set[str]
    text: str
    pending: bool
    """Whether some wait for others: while it is being stored, an edit may be there before one that it builds upon."""


def read_in_yjs(yjs: Yjs, updates: list[bytes]) -> Read:
    """Have real Yjs read a document; each edit is in the map and in the text."""
    loaded = yjs.apply(updates, {"edits": "map", "text": "text"})
    assert loaded.error is None
    read = Read(set(loaded.content["edits"]["v"]), loaded.content["text"]["string"], loaded.pending)
    assert read.pending or read.edits == set(read.text.split())
    return read


def loop_time() -> float:
    return asyncio.get_running_loop().time()
