"""Write-behind: what was accepted is stored soon, in order, together, and for as long as it takes."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from crdt_sync.errors import StoreBehind
from crdt_sync.journal import BATCH_BYTES, RETRY_S_MAX, UPDATE_BYTES, Journal
from persistence.memory import MemoryStore
from tests.support.fakes import MoodyStore, in_virtual_time, turns

INTERVAL_S = 0.2


class Log:
    """A room, as far as the journal knows it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.told: list[tuple[int, int]] = []

    def stored(self, seq: int, count: int) -> None:
        self.told.append((seq, count))


class Journaling:
    def __init__(self, journal: Journal, store: MoodyStore, task: "asyncio.Task[None]") -> None:
        self.journal, self.store, self.task = journal, store, task

    def appended(self) -> list[dict[str, list[bytes]]]:
        """One dict for each commit."""
        return [{entry.document: list(entry.updates) for entry in entries} for entries in self.store.appended]

    async def settle(self) -> None:
        """Past the first commit, which comes at once."""
        self.journal.add(Log("first"), b"first")
        await turns()
        self.store.appended.clear()
        self.store.calls.clear()


@asynccontextmanager
async def journaling(bytes_max: int = 64 << 20) -> AsyncIterator[Journaling]:
    store = MoodyStore(MemoryStore())
    await store.open()
    journal = Journal(store, interval_s=INTERVAL_S, bytes_max=bytes_max)
    task = asyncio.create_task(journal.run())
    yield Journaling(journal, store, task)
    assert not task.done(), task
    task.cancel()
    await asyncio.wait([task])


@in_virtual_time
async def test_the_first_update_after_a_quiet_time_is_stored_at_once() -> None:
    async with journaling() as running:
        room = Log("room")

        running.journal.add(room, b"1")
        await turns()

        assert running.appended() == [{"room": [b"1"]}]
        assert room.told == [(1, 1)]


@in_virtual_time
async def test_all_rooms_updates_of_an_interval_are_one_commit() -> None:
    async with journaling() as running:
        await running.settle()
        rooms = [Log(f"room-{n}") for n in range(100)]

        for round_ in range(3):
            for room in rooms:
                running.journal.add(room, b"%d" % round_)
            await asyncio.sleep(INTERVAL_S / 4)
        await asyncio.sleep(INTERVAL_S)

        assert running.appended() == [{room.name: [b"0", b"1", b"2"] for room in rooms}]
        assert all(room.told == [(3, 3)] for room in rooms)


@in_virtual_time
async def test_there_is_at_most_one_commit_in_an_interval() -> None:
    async with journaling() as running:
        loop = asyncio.get_running_loop()
        began = loop.time()

        while loop.time() < began + 10:
            running.journal.add(Log("room"), b"1")
            await asyncio.sleep(0.01)

        assert 45 <= running.store.calls["append"] <= 51


@in_virtual_time
async def test_many_bytes_are_stored_sooner() -> None:
    async with journaling(bytes_max=1 << 30) as running:
        await running.settle()

        running.journal.add(Log("room"), b"x" * BATCH_BYTES)
        await turns()

        assert running.store.calls["append"] == 1


@in_virtual_time
async def test_updates_of_a_room_are_stored_in_the_order_in_which_they_were_added() -> None:
    async with journaling() as running:
        room, updates = Log("room"), [b"%d" % n for n in range(200)]
        running.store.fail("append", times=3)

        for update in updates:
            running.journal.add(room, update)
            await asyncio.sleep(0.013)
        await asyncio.sleep(10)

        assert list((await running.store.load("room")).updates) == updates
        assert sum(count for _, count in room.told) == 200
        assert [seq for seq, _ in room.told] == sorted(seq for seq, _ in room.told)


@in_virtual_time
async def test_nothing_is_reported_before_it_is_committed() -> None:
    async with journaling() as running:
        room, heard = Log("room"), []
        running.store.hold("append")

        ticket = running.journal.add(room, b"1")
        running.journal.when_stored(ticket, lambda: heard.append("stored"))
        await asyncio.sleep(100)
        before = (list(heard), list(room.told))
        running.store.let_go("append")
        await turns()

        assert before == ([], [])
        assert (heard, room.told) == (["stored"], [(1, 1)])


@in_virtual_time
async def test_what_is_added_during_a_commit_waits_for_the_next_one() -> None:
    async with journaling() as running:
        room, heard = Log("room"), []
        running.store.hold("append")
        running.journal.add(room, b"1")
        await turns()

        ticket = running.journal.add(room, b"2")
        running.journal.when_stored(ticket, lambda: heard.append("stored"))
        running.store.let_go("append")
        await turns()
        after_first = (list(heard), list(room.told))
        await asyncio.sleep(2 * INTERVAL_S)

        assert after_first == ([], [(1, 1)])
        assert (heard, room.told) == (["stored"], [(1, 1), (2, 1)])


@in_virtual_time
async def test_waiters_are_called_in_the_order_of_their_tickets_and_after_the_rooms() -> None:
    async with journaling() as running:
        await running.settle()
        room = Log("room")
        heard: list[tuple[int, list[tuple[int, int]]]] = []
        tickets = [running.journal.add(room, b"%d" % n) for n in range(6)]

        def hear(ticket: int) -> None:
            heard.append((ticket, list(room.told)))

        for ticket in [tickets[index] for index in (3, 0, 5, 2, 0, 4, 1)]:
            running.journal.when_stored(ticket, partial(hear, ticket))
        await asyncio.sleep(2 * INTERVAL_S)

        assert [ticket for ticket, _ in heard] == sorted([*tickets, tickets[0]])
        assert all(told == [(6, 6)] for _, told in heard)


@in_virtual_time
async def test_what_is_stored_already_is_reported_at_once() -> None:
    async with journaling() as running:
        heard = []
        ticket = running.journal.add(Log("room"), b"1")
        await turns()

        running.journal.when_stored(ticket, lambda: heard.append(1))
        running.journal.when_stored(0, lambda: heard.append(0))

        assert heard == [1, 0]


@in_virtual_time
async def test_a_failing_store_is_retried_until_it_recovers_ever_less_often() -> None:
    async with journaling() as running:
        loop = asyncio.get_running_loop()
        room, began = Log("room"), loop.time()
        running.store.fail("append")

        running.journal.add(room, b"1")
        await asyncio.sleep(3600)
        failed = running.store.calls["append"]
        running.store.recover()
        running.journal.add(room, b"2")
        recovered = loop.time()
        while len(room.told) < 1:
            await asyncio.sleep(0.01)

        assert 3600 / RETRY_S_MAX <= failed <= 3600 / RETRY_S_MAX + 10
        assert loop.time() - recovered <= RETRY_S_MAX + 0.1
        assert began + 3600 <= loop.time()
        await asyncio.sleep(INTERVAL_S)
        assert list((await running.store.load("room")).updates) == [b"1", b"2"]


@in_virtual_time
async def test_an_error_that_is_not_the_stores_own_is_retried_too() -> None:
    async with journaling() as running:
        room = Log("room")
        running.store.fail("append", times=2, error=ZeroDivisionError("a bug"))

        running.journal.add(room, b"1")
        await asyncio.sleep(5)

        assert room.told == [(1, 1)]


@in_virtual_time
async def test_an_append_that_did_its_work_but_failed_to_say_so_is_reported_once() -> None:
    async with journaling() as running:
        room, heard = Log("room"), []
        running.store.lose_answer("append")

        ticket = running.journal.add(room, b"1")
        running.journal.when_stored(ticket, lambda: heard.append(1))
        await asyncio.sleep(5)

        assert (heard, room.told) == ([1], [(2, 1)])
        assert set((await running.store.load("room")).updates) == {b"1"}


def test_a_failing_store_is_said_once_and_its_recovery_too(caplog: pytest.LogCaptureFixture) -> None:
    @in_virtual_time
    async def run() -> None:
        async with journaling() as running:
            for _ in range(2):
                running.store.fail("append", times=20)
                running.journal.add(Log("room"), b"1")
                await asyncio.sleep(100)

    with caplog.at_level(logging.INFO, logger="crdt_sync.journal"):
        run()

    assert [record.message for record in caplog.records] == ["store_failing", "store_recovered"] * 2


@in_virtual_time
async def test_what_may_wait_is_bounded_and_counts_what_is_being_stored() -> None:
    async with journaling(bytes_max=3 * (100 + UPDATE_BYTES)) as running:
        journal, room = running.journal, Log("room")
        running.store.hold("append")

        journal.require_space(100)
        journal.add(room, b"x" * 100)
        await turns()
        for _ in range(2):
            journal.require_space(100)
            journal.add(room, b"x" * 100)
        with pytest.raises(StoreBehind):
            journal.require_space(100)
        assert journal.unstored_bytes == 3 * (100 + UPDATE_BYTES)

        running.store.let_go("append")
        await asyncio.sleep(1)
        journal.require_space(100)
        assert journal.unstored_bytes == 0


@in_virtual_time
async def test_flushing_does_not_wait_for_the_interval() -> None:
    async with journaling() as running:
        await running.settle()
        loop = asyncio.get_running_loop()
        room, began = Log("room"), loop.time()
        running.journal.add(room, b"1")

        await running.journal.flush()

        assert (room.told, loop.time()) == ([(1, 1)], began)


@in_virtual_time
async def test_flushing_nothing_returns() -> None:
    async with journaling() as running:
        await running.journal.flush()
        await running.settle()
        await running.journal.flush()

        assert running.store.calls["append"] == 0


@in_virtual_time
async def test_flushing_includes_what_is_being_stored_and_what_was_added_meanwhile() -> None:
    async with journaling() as running:
        room = Log("room")
        running.store.hold("append")
        running.journal.add(room, b"1")
        await turns()
        running.journal.add(room, b"2")

        flushing = asyncio.create_task(running.journal.flush())
        await turns()
        early = flushing.done()
        running.store.let_go("append")
        await flushing

        assert not early
        assert list((await running.store.load("room")).updates) == [b"1", b"2"]


@in_virtual_time
async def test_a_journal_that_is_cancelled_during_a_commit_reports_nothing() -> None:
    store = MoodyStore(MemoryStore())
    await store.open()
    journal = Journal(store, interval_s=INTERVAL_S, bytes_max=1 << 20)
    task, room, heard = asyncio.create_task(journal.run()), Log("room"), []
    store.hold("append")
    journal.when_stored(journal.add(room, b"1"), lambda: heard.append(1))
    await turns()

    task.cancel()
    await asyncio.wait([task])
    store.let_go("append")
    await turns()

    assert task.cancelled()
    assert (room.told, heard) == ([], [])
    assert journal.unstored_bytes > 0


@in_virtual_time
async def test_a_backlog_is_stored_in_commits_of_bounded_size_and_in_order() -> None:
    async with journaling() as running:
        await running.settle()
        rooms = [Log("a"), Log("b")]
        running.store.hold("append")
        running.journal.add(rooms[0], b"first")
        await asyncio.sleep(1)  # this one is being stored
        heard: list[int] = []
        updates = [b"%03d" % i + b"x" * (BATCH_BYTES // 10) for i in range(35)]
        for i, update in enumerate(updates):
            ticket = running.journal.add(rooms[i % 2], update)
            running.journal.when_stored(ticket, partial(heard.append, i))

        running.store.let_go("append")
        await running.journal.flush()

        commits = running.appended()[1:]
        sizes = [sum(len(update) for room in commit.values() for update in room) for commit in commits]
        assert len(commits) == 4
        assert max(sizes) <= BATCH_BYTES + len(updates[0])
        assert heard == list(range(35))
        for n, room in enumerate(rooms):
            assert [update for commit in commits for update in commit.get(room.name, [])] == updates[n::2]
        assert running.journal.unstored_bytes == 0


@in_virtual_time
async def test_it_says_since_when_the_store_fails() -> None:
    async with journaling() as running:
        await running.settle()
        loop = asyncio.get_running_loop()
        before = running.journal.failing_since
        running.store.fail("append")
        began = loop.time()
        running.journal.add(Log("room"), b"1")
        await asyncio.sleep(5)
        during = running.journal.failing_since
        running.store.recover()
        await asyncio.sleep(RETRY_S_MAX + 1)

        assert (before, running.journal.failing_since) == (None, None)
        assert during is not None
        assert began <= during < began + 1


@in_virtual_time
async def test_updates_of_several_users_stay_in_order_within_one_commit() -> None:
    async with journaling() as running:
        await running.settle()
        room, other = Log("room"), Log("other")

        for log_, update, user in (
            (room, b"1", "ann"),
            (room, b"2", "ann"),
            (other, b"x", "ann"),
            (room, b"3", "bob"),
            (room, b"4", None),
            (other, b"y", "ann"),
            (room, b"5", "ann"),
        ):
            running.journal.add(log_, update, user=user)
        await asyncio.sleep(2 * INTERVAL_S)

        (commit,) = running.store.appended
        assert [(one.document, one.user_id, list(one.updates)) for one in commit] == [
            ("room", "ann", [b"1", b"2"]),
            ("other", "ann", [b"x", b"y"]),
            ("room", "bob", [b"3"]),
            ("room", None, [b"4"]),
            ("room", "ann", [b"5"]),
        ]
        assert room.told == [(2, 2), (3, 1), (4, 1), (5, 1)]
        assert (await running.store.load("room")).updates == (b"1", b"2", b"3", b"4", b"5")


@in_virtual_time
async def test_after_a_commit_and_not_before_it_is_told_what_was_stored_by_whom() -> None:
    told: list[tuple[str, int, int, str | None]] = []
    store = MoodyStore(MemoryStore())
    await store.open()
    journal = Journal(store, interval_s=INTERVAL_S, bytes_max=1 << 20, committed=lambda *one: told.append(one))
    task = asyncio.create_task(journal.run())
    store.fail("append")
    room = Log("room")
    for user in ("ann", "ann", "bob", None):
        journal.add(room, b"x", user=user)
    await asyncio.sleep(5)
    assert told == []

    store.recover()
    await asyncio.sleep(5)

    assert told == [("room", 1, 2, "ann"), ("room", 3, 3, "bob"), ("room", 4, 4, None)]
    task.cancel()
    await asyncio.wait([task])
