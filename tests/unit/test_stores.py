"""Opening the configured store at the start, and telling whether it takes edits later."""

import asyncio
import logging

import pytest

from crdt_sync.gateway.ops import CHECK_INTERVAL_S, Readiness
from crdt_sync.journal import Journal
from crdt_sync.limits import Limits
from crdt_sync.load import Load, Sample
from crdt_sync.settings import Settings
from crdt_sync.stores import make_store, open_when_reachable
from persistence import StoreUnavailable, StoreUnusable
from persistence.memory import MemoryStore
from tests.support.fakes import MoodyStore, in_virtual_time


class Starting(MemoryStore):
    """Can't be reached the first so many times."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        super().__init__()
        self.failures = failures
        self.error = error or StoreUnavailable("starting up")
        self.tried = 0

    async def open(self) -> None:
        self.tried += 1
        if self.tried <= self.failures:
            raise self.error
        await super().open()


@in_virtual_time
async def test_a_database_that_comes_late_is_waited_for() -> None:
    store = Starting(5)

    await open_when_reachable(store, timeout_s=30)

    await store.check()


@in_virtual_time
async def test_waiting_ends_in_time_and_with_the_reason() -> None:
    store = Starting(10**6)
    loop = asyncio.get_running_loop()
    began = loop.time()

    with pytest.raises(StoreUnavailable, match="starting up"):
        await open_when_reachable(store, timeout_s=30)

    assert 25 <= loop.time() - began <= 30


@in_virtual_time
async def test_what_waiting_cannot_change_is_not_waited_for() -> None:
    store = Starting(10**6, StoreUnusable("wrong password"))

    with pytest.raises(StoreUnusable):
        await open_when_reachable(store, timeout_s=30)

    assert store.tried == 1


def test_waiting_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    @in_virtual_time
    async def run() -> None:
        await open_when_reachable(Starting(5), timeout_s=30)

    with caplog.at_level(logging.WARNING):
        run()

    assert [record.message for record in caplog.records] == ["store_awaited"]


def test_settings_name_the_store() -> None:
    settings = Settings(database_url="postgresql://user:s3cret@host/trips", database_replica_url="postgresql://other/x")

    assert "host" in make_store(settings).describe()
    assert "s3cret" not in repr(settings)


def test_a_replica_of_what_has_none_is_refused() -> None:
    with pytest.raises(StoreUnusable, match="only PostgreSQL"):
        make_store(Settings(database_replica_url="postgresql://other/x"))


class Checking:
    def __init__(self) -> None:
        self.store = MoodyStore(MemoryStore())
        self.journal = Journal(self.store, interval_s=0.2, bytes_max=1000)
        self.readiness = Readiness(self.store, self.journal)

    async def problems(self) -> dict[str, str]:
        await asyncio.sleep(CHECK_INTERVAL_S)
        return await self.readiness.problems()


@in_virtual_time
async def test_a_node_is_ready_while_its_store_takes_edits() -> None:
    made = Checking()
    await made.store.open()
    good = await made.problems()
    made.store.fail("check", error=StoreUnavailable("read-only"))
    bad = await made.problems()
    made.store.recover()

    assert (good, bad, await made.problems()) == ({}, {"store": "read-only"}, {})


@in_virtual_time
async def test_a_store_that_hangs_makes_a_node_unready_within_a_second() -> None:
    made = Checking()
    await made.store.open()
    made.store.hold("check")
    loop = asyncio.get_running_loop()
    began = loop.time()

    problems = await made.problems()

    assert problems == {"store": "no answer within 1 s"}
    assert loop.time() - began <= 2


@in_virtual_time
async def test_a_journal_that_fails_or_piles_up_makes_a_node_unready() -> None:
    made = Checking()
    await made.store.open()
    room = type("Room", (), {"name": "room", "stored": lambda self, seq, count: None})()
    made.store.fail("append")
    made.journal.add(room, b"x" * 600)
    piled_up = await made.problems()
    task = asyncio.create_task(made.journal.run())
    failing = await made.problems()
    made.store.recover()
    await asyncio.sleep(5)
    after = await made.problems()
    task.cancel()

    assert piled_up == {"journal": "700 bytes wait to be stored"}
    assert "nothing could be stored for" in failing["journal"]
    assert after == {}


@in_virtual_time
async def test_many_who_ask_at_once_cost_one_check() -> None:
    made = Checking()
    await made.store.open()

    await asyncio.gather(*(made.readiness.problems() for _ in range(100)))

    assert made.store.calls["check"] == 1


@in_virtual_time
async def test_a_node_that_can_take_nobody_more_is_not_ready() -> None:
    made = Checking()
    await made.store.open()
    settings = Settings(connections_max=1, load_memory_max=0.5, memory_bytes_max=1 << 20)
    limits = Limits(settings)
    load = Load(settings, limits)
    readiness = Readiness(made.store, made.journal, load=load)
    at_first = await readiness.problems()
    with limits.place("192.0.2.1"):
        full = await readiness.problems()
    again = await readiness.problems()
    load.look(Sample(0.0, 0.0, 1 << 20))
    busy = await readiness.problems()

    assert (at_first, again) == ({}, {})
    assert full == {"connections": "1 clients are connected, as many as there may be"}
    assert list(busy) == ["load"]
    assert "new joins are refused" in busy["load"]


@in_virtual_time
async def test_a_node_that_goes_away_is_not_ready() -> None:
    made = Checking()
    await made.store.open()

    made.readiness.draining = True

    assert await made.problems() == {"draining": "this node is going away"}


@in_virtual_time
async def test_a_commit_that_does_not_end_makes_a_node_unready() -> None:
    """The check may pass all the same: it takes another connection."""
    made = Checking()
    await made.store.open()
    made.store.hold("append")
    task = asyncio.create_task(made.journal.run())
    made.journal.add(Nobody(), b"x")
    await asyncio.sleep(4)
    soon = await made.problems()
    await asyncio.sleep(2)
    late = await made.problems()
    made.store.let_go("append")
    await asyncio.sleep(1)
    after = await made.problems()
    task.cancel()

    assert (soon, after) == ({}, {})
    assert late == {"journal": "an edit has been waiting for 7.0 s to be stored"}


@in_virtual_time
async def test_a_store_that_is_back_is_used_again_within_a_second() -> None:
    made = Checking()
    await made.store.open()
    made.store.fail("append")
    task = asyncio.create_task(made.journal.run())
    made.journal.add(Nobody(), b"x")
    await asyncio.sleep(30)
    before = made.store.calls["append"]
    await asyncio.sleep(10)
    tried = made.store.calls["append"] - before
    made.store.recover()
    await asyncio.sleep(1.5)

    assert await made.problems() == {}
    assert tried in (9, 10)
    task.cancel()


class Nobody:
    """Whose update it is doesn't matter."""

    name = "room"

    def stored(self, seq: int, count: int) -> None:
        """See `journal.Log`."""
