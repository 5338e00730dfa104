"""How a node goes away: when clients are closed, what is stored, what is told of the rest."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from crdt_sync.draining import CLOSES_PER_S, Drain, waves
from crdt_sync.errors import Draining
from crdt_sync.revocations import Revocations
from crdt_sync.sessions import Sessions
from crdt_sync.urgency import Urgency, urged
from persistence.memory import MemoryStore
from tests.support.fakes import Client, Node, in_virtual_time, typed

RESTARTING = (1012, "server restarting")


@dataclass
class Readiness:
    draining: bool = False


class Site:
    """A node with clients who are connected through its sessions, and its way out."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.readiness = Readiness()
        self.sessions = Sessions(Revocations(MemoryStore(), None, leeway_s=0))
        self.drain = Drain(node.settings)
        self.clients: list[Client] = []
        self.closed_at: list[float] = []

    async def client(self, room: str = "room") -> Client:
        client = await Client().connect(self.node, room)
        assert client.room is not None
        self.sessions.enter(client.connection, client.room)
        self.clients.append(client)
        return client

    async def run(self) -> None:
        """Go away; clients go when they are closed, as stock ones do."""
        loop = asyncio.get_running_loop()
        draining = asyncio.create_task(self.drain.run(self.sessions, self.node.rooms, self.readiness))
        while not draining.done():
            for client in [one for one in self.clients if one.room is not None and one.closed is not None]:
                self.closed_at.append(loop.time())
                self.sessions.leave(client.connection)
                await client.leave()
            await asyncio.sleep(0.01)
        await draining


@asynccontextmanager
async def site(**options: Any) -> AsyncIterator[Site]:
    node = await Node(**options).start()
    made = Site(node)
    try:
        yield made
    finally:
        for client in made.clients:
            await client.leave()
        await node.stop()


@pytest.mark.parametrize("spread_s", [0, 5])
def test_waves_are_even_but_for_chance_and_end_in_time(spread_s: float) -> None:
    times = waves(1000, spread_s, random.Random(1).random)

    assert times == sorted(times)
    assert all(0 <= at <= spread_s for at in times)
    for second in range(int(spread_s)):
        assert 195 <= sum(second <= at < second + 1 for at in times) <= 205


def test_few_clients_are_closed_sooner() -> None:
    assert max(waves(20, 60, lambda: 1.0)) == pytest.approx(20 / CLOSES_PER_S)
    assert waves(0, 60, lambda: 1.0) == []


@pytest.mark.parametrize(
    ("signals", "urgency"),
    [
        ([signal.SIGTERM], Urgency.DRAIN),
        ([signal.SIGINT], Urgency.HASTEN),
        ([signal.SIGTERM, signal.SIGTERM], Urgency.HASTEN),
        ([signal.SIGTERM, signal.SIGINT], Urgency.HASTEN),
        ([signal.SIGINT, signal.SIGINT], Urgency.END),
        ([signal.SIGTERM] * 3, Urgency.END),
        ([signal.SIGTERM] * 9, Urgency.END),
    ],
)
def test_each_signal_makes_it_more_urgent(signals: list[int], urgency: Urgency) -> None:
    found = Urgency.NONE
    for number in signals:
        found = urged(found, number)

    assert found is urgency


@in_virtual_time
async def test_a_node_is_unready_first_serves_during_the_notice_and_then_spreads_the_closing() -> None:
    async with site(drain_notice_s=10, drain_spread_s=2) as here:
        loop = asyncio.get_running_loop()
        for _ in range(200):
            await here.client()
        began_at = loop.time()
        here.drain.ask(Urgency.DRAIN)
        going = asyncio.create_task(here.run())
        await asyncio.sleep(9)

        assert here.readiness.draining
        late = await here.client("other")
        late.edit(typed("a")[0])
        assert here.closed_at == []

        await asyncio.sleep(1.1)
        with pytest.raises(Draining):
            await Client().connect(here.node)
        await going
        assert {client.closed for client in here.clients} == {RESTARTING}
        after_s = [at - began_at - 10 for at in here.closed_at]
        assert len(after_s) == 201
        assert min(after_s) > -0.02
        assert 1.9 < max(after_s) < 2.1
        assert 80 <= sum(one < 1 for one in after_s) <= 120
        assert here.drain.finished.is_set()
        assert here.node.rooms.unsaved() == []


@in_virtual_time
@pytest.mark.parametrize("hastened_after_s", [0, 3, 11])
async def test_a_hastened_node_neither_waits_nor_spreads(hastened_after_s: float) -> None:
    async with site(drain_notice_s=10, drain_spread_s=3) as here:
        loop = asyncio.get_running_loop()
        for _ in range(300):
            await here.client()
        here.drain.ask(Urgency.DRAIN)
        going = asyncio.create_task(here.run())
        await asyncio.sleep(hastened_after_s)
        hastened_at = loop.time()

        here.drain.ask(Urgency.HASTEN)

        await going
        assert loop.time() - hastened_at < 0.2
        assert max(here.closed_at) - hastened_at < 0.1


@in_virtual_time
async def test_clients_that_do_not_go_hold_up_nothing() -> None:
    async with site() as here:
        await here.client()
        here.drain.ask(Urgency.DRAIN)
        loop = asyncio.get_running_loop()
        began_at = loop.time()

        await here.drain.run(here.sessions, here.node.rooms, here.readiness)

        assert loop.time() - began_at < 2


@in_virtual_time
@pytest.mark.parametrize("trouble", ["fail", "hold"])
async def test_a_node_whose_store_does_not_work_is_done_before_the_deadline_and_says_what_is_where(
    trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(drain_deadline_s=20) as here:
        ann, eve, _ = [await here.client(room) for room in ("a", "b", "b")]
        getattr(here.node.store, trouble)("append")
        updates = [*typed("xy"), *typed("z")]
        ann.edit(updates[0])
        ann.edit(updates[1])
        eve.edit(updates[2])
        here.drain.ask(Urgency.DRAIN)
        loop = asyncio.get_running_loop()
        began_at = loop.time()

        await here.run()

        assert 14.9 < loop.time() - began_at < 15.1
        unsaved = here.node.rooms.unsaved()
        assert [(one.room, one.updates, one.size) for one in unsaved] == [
            ("a", 2, len(updates[0]) + len(updates[1])),
            ("b", 1, len(updates[2])),
        ]
        here.drain.report(unsaved)
        here.drain.report(unsaved)
        told = [vars(record) for record in caplog.records if record.message in ("edits_not_stored", "room_not_stored")]
        assert [(one["updates"], one["bytes"]) for one in told[:1]] == [(3, sum(map(len, updates)))]
        assert [(one["room"], one["updates"], one["in_redis"], one["had_clients"]) for one in told[1:]] == [
            ("a", 2, False, 1),
            ("b", 1, False, 2),
        ]
        here.node.store.recover()


@in_virtual_time
async def test_a_node_whose_store_is_back_in_time_stores_everything() -> None:
    async with site() as here:
        ann = await here.client()
        here.node.store.fail("append")
        ann.edit(typed("a")[0])
        here.drain.ask(Urgency.DRAIN)
        going = asyncio.create_task(here.run())
        await asyncio.sleep(10)
        assert not here.drain.finished.is_set()

        here.node.store.recover()

        await going
        assert here.node.rooms.unsaved() == []
