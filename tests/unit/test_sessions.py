"""When what clients may do ends: told before, renewed, revoked, over."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from auth import OPEN, Grant, Right
from crdt_sync import sessions as module
from crdt_sync.connection import Connection
from crdt_sync.errors import Forbidden
from crdt_sync.lib0 import read_var_uint
from crdt_sync.revocations import Revocations
from crdt_sync.room import Room
from crdt_sync.session import Session
from crdt_sync.sessions import AHEAD_S_MAX, NOTICE_S, Sessions
from persistence import Revocation
from persistence.memory import MemoryStore
from tests.support.fakes import FakeTransport, in_virtual_time

START = 1_800_000_000.0


@pytest.fixture(autouse=True)
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Wall-clock time that passes as the loop's does; call it to put the clock forward or back."""
    offset = START

    def now() -> float:
        return asyncio.get_running_loop().time() + offset

    def move(seconds: float) -> None:
        nonlocal offset
        offset += seconds

    monkeypatch.setattr(module.time, "time", now)
    return move


@dataclass
class FakeRoom:
    """A room as far as sessions know it."""

    name: str = "trip-1"
    asked: list[Connection] = field(default_factory=list)

    def ask(self, connection: Connection) -> None:
        self.asked.append(connection)


@dataclass
class Guest:
    """A client and what it was told."""

    connection: Connection
    room: FakeRoom

    def told(self) -> list[int]:
        """The seconds left of each notice that waits, which are taken."""
        notices = list(self.connection._notices)
        self.connection._notices.clear()
        assert all(notice[:2] == b"\x02\x02" for notice in notices)
        return [read_var_uint(notice, 2)[0] for notice in notices]

    @property
    def closed(self) -> tuple[int, str] | None:
        return self.connection.closing


class Node:
    """The sessions of one node."""

    def __init__(self) -> None:
        self.revocations = Revocations(MemoryStore())
        self.sessions = Sessions(self.revocations)

    def enter(self, grant: Grant, room: str = "trip-1") -> Guest:
        now = asyncio.get_running_loop().time()
        connection = Connection(FakeTransport(), outbox_bytes_max=1000, now=now, session=Session(room, grant))
        guest = Guest(connection, FakeRoom(room))
        self.sessions.enter(connection, cast(Room, guest.room))
        return guest


def grant(left_s: float | None = 600, right: Right = Right.WRITE, user: str = "ann", **more: Any) -> Grant:
    expires_at = None if left_s is None else time.time() + left_s
    return Grant(user=user, rooms={"trip-*": right}, expires_at=expires_at, issued_at=START - 60, **more)


# ---------------------------------------------------------------------------------------------------------------- ends


@in_virtual_time
async def test_a_client_is_told_a_minute_before_and_closed_at_the_end() -> None:
    ann = Node().enter(grant(600))

    await asyncio.sleep(600 - NOTICE_S - 0.1)
    assert ann.told() == []
    await asyncio.sleep(0.2)
    assert ann.told() == [60]
    await asyncio.sleep(NOTICE_S - 0.2)
    assert ann.closed is None
    await asyncio.sleep(0.2)
    assert ann.closed == (4401, "credential expired")
    assert ann.told() == []


@in_virtual_time
async def test_a_client_whose_grant_ends_soon_is_told_at_once() -> None:
    assert Node().enter(grant(5.5)).told() == [6]


@in_virtual_time
async def test_a_grant_that_ended_while_the_room_was_loaded_lets_nobody_in() -> None:
    ann = Node().enter(grant(-0.1))

    assert ann.closed == (4401, "credential expired")
    assert ann.told() == []


@in_virtual_time
async def test_a_grant_without_an_end_sets_no_timer() -> None:
    node = Node()

    node.enter(grant(None))
    node.enter(OPEN)

    assert [stay.timer for stay in node.sessions] == [None, None]


@in_virtual_time
async def test_a_grant_for_years_is_looked_at_every_day() -> None:
    node = Node()

    node.enter(grant(1000 * 86400))

    (stay,) = node.sessions
    assert stay.timer is not None
    assert stay.timer.when() - asyncio.get_running_loop().time() <= AHEAD_S_MAX


def test_a_clock_that_is_put_forward_ends_what_is_over(wall_clock: Callable[[float], None]) -> None:
    @in_virtual_time
    async def run() -> None:
        ann = Node().enter(grant(3 * AHEAD_S_MAX))

        wall_clock(4 * AHEAD_S_MAX)
        await asyncio.sleep(AHEAD_S_MAX + 1)

        assert ann.closed == (4401, "credential expired")

    run()


def test_a_clock_that_is_put_back_ends_nothing_too_early(wall_clock: Callable[[float], None]) -> None:
    @in_virtual_time
    async def run() -> None:
        ann = Node().enter(grant(100))
        wall_clock(-50)

        await asyncio.sleep(120)
        assert ann.closed is None

        await asyncio.sleep(31)
        assert ann.closed == (4401, "credential expired")

    run()


@in_virtual_time
async def test_whoever_leaves_leaves_nothing_behind() -> None:
    node = Node()
    guests = [node.enter(grant(600)) for _ in range(10)]

    for guest in guests:
        node.sessions.leave(guest.connection)
        node.sessions.leave(guest.connection)

    assert len(node.sessions) == 0
    assert all(timer.cancelled() for timer in asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]
    await asyncio.sleep(700)
    assert [guest.closed for guest in guests] == [None] * 10


# ------------------------------------------------------------------------------------------------------------- renewals


@in_virtual_time
async def test_a_fresh_grant_goes_on_from_where_the_old_one_would_have_ended() -> None:
    node = Node()
    ann = node.enter(grant(30))
    assert ann.told() == [30]

    node.sessions.renew(ann.connection, grant(600))

    assert ann.told() == [600]
    await asyncio.sleep(500)
    assert ann.closed is None
    await asyncio.sleep(41)
    assert ann.told() == [60]
    await asyncio.sleep(60)
    assert ann.closed == (4401, "credential expired")


@in_virtual_time
async def test_a_shorter_grant_is_one_too() -> None:
    node = Node()
    ann = node.enter(grant(600))

    node.sessions.renew(ann.connection, grant(5))

    assert set(ann.told()) == {5}
    await asyncio.sleep(5.1)
    assert ann.closed == (4401, "credential expired")


@in_virtual_time
async def test_a_grant_of_somebody_else_changes_nothing() -> None:
    node = Node()
    ann = node.enter(grant(600, Right.READ))

    with pytest.raises(Forbidden):
        node.sessions.renew(ann.connection, grant(6000, Right.ADMIN, user="eve"))

    assert ann.connection.session.user == "ann"
    assert not ann.connection.session.may_write
    assert ann.told() == []


@in_virtual_time
async def test_who_may_write_now_is_asked_for_what_was_not_taken() -> None:
    node = Node()
    ann = node.enter(grant(600, Right.READ))

    node.sessions.renew(ann.connection, grant(600, Right.WRITE))
    node.sessions.renew(ann.connection, grant(600, Right.ADMIN))
    node.sessions.renew(ann.connection, grant(600, Right.READ))

    assert ann.room.asked == [ann.connection]
    assert not ann.connection.session.may_write


@pytest.mark.parametrize("how", ["gone", "closing"])
@in_virtual_time
async def test_a_fresh_grant_that_comes_too_late_means_nothing(how: str) -> None:
    node = Node()
    ann = node.enter(grant(600, Right.READ))
    if how == "gone":
        node.sessions.leave(ann.connection)
    else:
        ann.connection.close(4403, "closed by an admin")

    node.sessions.renew(ann.connection, grant(math.floor(6000)))

    assert not ann.connection.session.may_write
    assert ann.told() == []
    assert ann.room.asked == []


@in_virtual_time
async def test_a_fresh_grant_that_was_revoked_while_it_was_judged_ends_the_connection() -> None:
    node = Node()
    ann = node.enter(grant(600, token_id="t1"))
    fresh = grant(6000, token_id="t2")
    await revoke(node, "token", "t2")

    node.sessions.renew(ann.connection, fresh)

    assert ann.closed == (4401, "credential revoked")


# ---------------------------------------------------------------------------------------------------------- revocations


async def revoke(node: Node, kind: Any, value: str) -> None:
    await node.revocations._store.open()
    now = datetime.fromtimestamp(time.time(), UTC)
    await node.revocations.revoke(Revocation(kind, value, revoked_at=now, until=now + timedelta(days=1)))


@pytest.mark.parametrize(
    ("kind", "value", "closed"),
    [
        ("user", "ann", [(4401, "credential revoked"), None, (4401, "credential revoked")]),
        ("token", "t-bob", [None, (4401, "credential revoked"), None]),
        ("room", "trip-1", [(4403, "not allowed"), (4403, "not allowed"), None]),
        ("user", "trip-1", [None, None, None]),
    ],
)
@in_virtual_time
async def test_a_revocation_closes_whom_it_concerns_at_once(
    kind: str, value: str, closed: list[tuple[int, str] | None]
) -> None:
    node = Node()
    guests = [
        node.enter(grant(token_id="t-ann")),
        node.enter(grant(user="bob", token_id="t-bob")),
        node.enter(grant(token_id="t-ann-2"), "trip-2"),
    ]

    await revoke(node, kind, value)

    assert [guest.closed for guest in guests] == closed


@in_virtual_time
async def test_who_was_revoked_while_the_room_was_loaded_is_not_let_in() -> None:
    node = Node()
    judged = grant()
    await revoke(node, "user", "ann")

    assert node.enter(judged).closed == (4401, "credential revoked")


@in_virtual_time
async def test_a_revocation_does_not_tell_anybody_twice_that_a_grant_ends() -> None:
    node = Node()
    bob = node.enter(grant(30, user="bob"))
    assert bob.told() == [30]

    await revoke(node, "user", "ann")

    assert bob.told() == []
    await asyncio.sleep(31)
    assert bob.closed == (4401, "credential expired")


@in_virtual_time
async def test_nobody_is_closed_on_an_open_server() -> None:
    node = Node()
    guest = node.enter(OPEN)

    await revoke(node, "user", "ann")

    assert guest.closed is None
