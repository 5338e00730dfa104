"""Telling the application what was stored: soon, once for a while, again if it failed, and never in anybody's way."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from crdt_sync import hooks
from crdt_sync.hooks import CALL_TIMEOUT_S, CALLS_MAX, FINISH_S, RETRY_S_MAX, TELL_AFTER_S, Hook, StoredChange
from tests.support.fakes import in_virtual_time


class Told:
    """What an application was told, and when; it may take its time or fail."""

    def __init__(self, then: Callable[[StoredChange], Awaitable[object]] | None = None) -> None:
        self.calls: list[tuple[float, StoredChange]] = []
        self.at_once = self.most_at_once = 0
        self._then = then
        self._began = asyncio.get_running_loop().time()

    async def __call__(self, change: StoredChange) -> None:
        self.calls.append((round(asyncio.get_running_loop().time() - self._began, 3), change))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self._then is not None:
                await self._then(change)
        finally:
            self.at_once -= 1

    @property
    def changes(self) -> list[StoredChange]:
        return [change for _, change in self.calls]

    @property
    def moments(self) -> list[float]:
        return [moment for moment, _ in self.calls]


def change(first: int, last: int, *users: str | None, room: str = "room") -> StoredChange:
    return StoredChange(room, first, last, frozenset(users))


@in_virtual_time
async def test_what_is_stored_within_a_second_is_told_in_one_call() -> None:
    told = Told()
    hook = Hook(told)
    for seq in range(1, 6):
        hook.committed("room", seq, seq, "ann" if seq % 2 else None)
        await asyncio.sleep(0.1)
    await asyncio.sleep(60)

    assert told.calls == [(TELL_AFTER_S, change(1, 5, "ann", None))]


@in_virtual_time
async def test_a_room_that_is_edited_all_the_time_is_told_once_a_second() -> None:
    told = Told()
    hook = Hook(told)
    for seq in range(1, 101):
        hook.committed("room", seq, seq, "ann")
        await asyncio.sleep(0.1)
    await asyncio.sleep(5)

    assert 9 <= len(told.calls) <= 11
    firsts = [one.first_seq for one in told.changes]
    assert firsts == [1, *(one.seq + 1 for one in told.changes[:-1])], "none is left out, and none told twice"
    assert told.changes[-1].seq == 100


@in_virtual_time
async def test_rooms_are_told_of_one_by_one_and_not_too_many_at_once() -> None:
    told = Told(lambda _: asyncio.sleep(1))
    hook = Hook(told)
    for number in range(3 * CALLS_MAX):
        hook.committed(f"room-{number}", 1, 1, None)
    await asyncio.sleep(10)

    assert {one.room for one in told.changes} == {f"room-{number}" for number in range(3 * CALLS_MAX)}
    assert told.most_at_once == CALLS_MAX


@in_virtual_time
async def test_a_room_has_one_call_at_a_time_and_what_comes_meanwhile_is_told_after_it() -> None:
    told = Told(lambda _: asyncio.sleep(10))
    hook = Hook(told)
    hook.committed("room", 1, 1, "ann")
    await asyncio.sleep(5)
    hook.committed("room", 2, 2, "bob")
    await asyncio.sleep(30)

    assert told.most_at_once == 1
    assert told.changes == [change(1, 1, "ann"), change(2, 2, "bob")]
    assert told.moments[1] >= told.moments[0] + 10


@in_virtual_time
async def test_a_call_that_fails_is_made_again_later_and_later_with_what_has_come_since(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(_: StoredChange) -> None:
        if len(told.calls) < 4:
            raise ValueError("no such index")

    told = Told(fail)
    hook = Hook(told)
    hook.committed("room", 1, 2, "ann")
    await asyncio.sleep(1.5)
    hook.committed("room", 3, 3, "bob")
    await asyncio.sleep(120)

    assert told.moments == [1, 2, 4, 8]
    assert told.changes == [change(1, 2, "ann"), *[change(1, 3, "ann", "bob")] * 3]
    failures = [record for record in caplog.records if record.getMessage() == "on_stored_failed"]
    assert [(one.levelno, one.failures, one.room) for one in failures] == [  # type: ignore[attr-defined]
        (logging.ERROR, count, "room") for count in (1, 2, 3)
    ]
    assert [one.exc_info is not None for one in failures] == [True, False, False], "one traceback will do"


@in_virtual_time
async def test_a_room_whose_calls_fail_holds_up_no_other_and_is_tried_at_least_once_a_minute() -> None:
    async def fail(change: StoredChange) -> None:
        if change.room == "bad":
            raise ValueError

    told = Told(fail)
    hook = Hook(told)
    hook.committed("bad", 1, 1, None)
    await asyncio.sleep(3600)
    hook.committed("good", 1, 1, None)
    await asyncio.sleep(2)

    bad = [moment for moment, one in told.calls if one.room == "bad"]
    assert max(b - a for a, b in pairwise(bad)) == RETRY_S_MAX
    assert "good" in {one.room for one in told.changes[-2:]}


@in_virtual_time
async def test_a_call_that_hangs_is_given_up_and_made_again() -> None:
    async def hang(_: StoredChange) -> None:
        if len(told.calls) == 1:
            await asyncio.sleep(36000)

    told = Told(hang)
    hook = Hook(told)
    hook.committed("room", 1, 1, None)
    await asyncio.sleep(200)

    assert told.moments == [TELL_AFTER_S, TELL_AFTER_S + CALL_TIMEOUT_S + 1]


@in_virtual_time
async def test_an_application_that_changes_what_it_is_told_of_is_told_no_more_than_once_a_second() -> None:
    async def edit(change: StoredChange) -> None:
        hook.committed(change.room, change.seq + 1, change.seq + 1, "bot")

    told = Told(edit)
    hook = Hook(told)
    hook.committed("room", 1, 1, "ann")
    await asyncio.sleep(10.5)

    assert told.moments == [float(second) for second in range(1, 11)]
    assert told.changes[1:] == [change(seq, seq, "bot") for seq in range(2, 11)]
    await hook.finish()


@in_virtual_time
async def test_at_the_end_what_waits_is_told_at_once() -> None:
    told = Told()
    hook = Hook(told)
    hook.committed("one", 1, 1, None)
    hook.committed("two", 1, 1, None)

    await hook.finish()
    await asyncio.sleep(60)

    assert sorted(one.room for one in told.changes) == ["one", "two"]
    assert told.moments == [0, 0]


@in_virtual_time
async def test_at_the_end_a_call_that_is_under_way_may_come_to_its_end() -> None:
    done = []

    async def work(_: StoredChange) -> None:
        await asyncio.sleep(3)
        done.append(1)

    hook = Hook(Told(work))
    hook.committed("room", 1, 1, None)
    await asyncio.sleep(2)

    await hook.finish()

    assert done == [1]


@in_virtual_time
async def test_the_end_does_not_wait_for_ever_and_says_what_was_not_told(caplog: pytest.LogCaptureFixture) -> None:
    told = Told(lambda _: asyncio.sleep(3600))
    hook = Hook(told)
    for number in range(2 * CALLS_MAX):
        hook.committed(f"room-{number}", 1, 1, None)
    loop = asyncio.get_running_loop()
    began = loop.time()

    await hook.finish()

    assert loop.time() - began == pytest.approx(FINISH_S)
    (record,) = [record for record in caplog.records if record.getMessage() == "changes_not_told"]
    assert record.rooms == 2 * CALLS_MAX  # type: ignore[attr-defined]
    assert len(asyncio.all_tasks()) == 1
    count = len(told.calls)
    await asyncio.sleep(600)
    assert len(told.calls) == count, "nothing is told after the end"


@in_virtual_time
async def test_an_application_that_fails_or_edits_at_the_end_comes_to_an_end(caplog: pytest.LogCaptureFixture) -> None:
    async def edit_and_fail(change: StoredChange) -> None:
        hook.committed(change.room, change.seq + 1, change.seq + 1, "bot")
        if change.room == "bad":
            raise ValueError

    told = Told(edit_and_fail)
    hook = Hook(told)
    hook.committed("room", 1, 1, None)
    hook.committed("bad", 1, 1, None)

    await hook.finish()
    count = len(told.calls)
    await asyncio.sleep(600)

    assert count == 4
    assert len(told.calls) == count, "nothing is told after the end"
    assert [one.getMessage() for one in caplog.records].count("changes_not_told") == 1


@in_virtual_time
async def test_what_may_wait_is_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(hooks, "ROOMS_MAX", 10)
    monkeypatch.setattr(hooks, "USERS_MAX", 3)
    told = Told()
    hook = Hook(told)
    for number in range(30):
        hook.committed(f"room-{number}", 1, 1, None)
    for number in range(30):
        hook.committed("room-29", 1, number, f"user-{number}")
    await asyncio.sleep(5)

    assert {one.room for one in told.changes} == {f"room-{number}" for number in range(20, 30)}
    assert max(len(one.users) for one in told.changes) == 3
    assert [one.getMessage() for one in caplog.records].count("changes_dropped") == 1
