"""What is revoked, and which nodes know of it: on the memory bus, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from auth import Grant, Right
from crdt_sync.bus.memory import Hub, MemoryBus
from crdt_sync.envelope import Envelope, Kind, encode
from crdt_sync.errors import Forbidden, Unauthorized
from crdt_sync.nodes import BEAT_S, Nodes
from crdt_sync.revocations import LOOK_S, SOON_S, Revocations
from persistence import Revocation, RevocationKind, StoreError
from persistence.memory import MemoryStore
from tests.support.fakes import MoodyStore, in_virtual_time, turns


def revoked(value: str = "ann", kind: RevocationKind = "user", *, ago_s: float = 0, for_s: float = 3600) -> Revocation:
    now = datetime.now(UTC)
    return Revocation(kind, value, revoked_at=now - timedelta(seconds=ago_s), until=now + timedelta(seconds=for_s))


def grant(user: str = "ann", *, token_id: str | None = None, issued_ago_s: float = 60) -> Grant:
    issued_at = datetime.now(UTC).timestamp() - issued_ago_s
    return Grant(user=user, rooms={"*": Right.READ}, issued_at=issued_at, token_id=token_id)


async def opened() -> MemoryStore:
    store = MemoryStore()
    await store.open()
    return store


def counts(revocations: Revocations, user: str = "ann") -> bool:
    """Whether an old grant of a user is still good."""
    try:
        revocations.check(grant(user), "trip-1")
    except Unauthorized:
        return False
    return True


@dataclass
class Member:
    """One node, as far as revocations go."""

    store: MoodyStore
    bus: MemoryBus
    revocations: Revocations


@asynccontextmanager
async def members(count: int) -> AsyncIterator[list[Member]]:
    """Nodes with one store that have found each other."""
    hub, inner = Hub(), await opened()
    made, tasks = [], []
    for _ in range(count):
        bus, store = MemoryBus(hub), MoodyStore(inner)
        await bus.open()
        nodes = Nodes(bus, lost=lambda node: None, missed=lambda node: None)
        revocations = Revocations(store, nodes)
        await revocations.open()
        made.append(Member(store, bus, revocations))
        tasks += [asyncio.create_task(nodes.run()), asyncio.create_task(revocations.run())]
    await asyncio.sleep(2 * BEAT_S)
    yield made
    for task in tasks:
        assert not task.done(), task
        task.cancel()


# --------------------------------------------------------------------------------------------------- what it concerns


@in_virtual_time
async def test_a_revocation_concerns_what_was_issued_before_it_and_within_the_leeway() -> None:
    revocations = Revocations(await opened(), leeway_s=10)

    await revocations.revoke(revoked(ago_s=60))

    for issued_ago_s, good in ((3600, False), (61, False), (55, False), (49, True), (0, True)):
        if good:
            revocations.check(grant(issued_ago_s=issued_ago_s), None)
        else:
            with pytest.raises(Unauthorized):
                revocations.check(grant(issued_ago_s=issued_ago_s), None)


@in_virtual_time
async def test_a_revoked_token_stays_so_whenever_it_says_it_was_issued() -> None:
    revocations = Revocations(await opened())

    await revocations.revoke(revoked("t1", "token", ago_s=60))

    with pytest.raises(Unauthorized):
        revocations.check(grant(token_id="t1", issued_ago_s=0), None)
    revocations.check(grant(token_id="t2"), None)
    revocations.check(grant(), None)


@in_virtual_time
async def test_a_revoked_room_concerns_that_room() -> None:
    revocations = Revocations(await opened())

    await revocations.revoke(revoked("trip-1", "room"))

    with pytest.raises(Forbidden):
        revocations.check(grant(), "trip-1")
    revocations.check(grant(), "trip-2")
    revocations.check(grant(), None)


@in_virtual_time
async def test_a_user_a_token_and_a_room_of_one_name_are_three_things() -> None:
    revocations = Revocations(await opened())

    await revocations.revoke(revoked("ann", "token"))

    revocations.check(grant("ann"), "ann")


@in_virtual_time
async def test_revoking_again_shortens_nothing() -> None:
    revocations = Revocations(await opened())
    first, second = revoked(ago_s=10, for_s=3600), revoked(for_s=5)

    await revocations.revoke(first)
    await revocations.revoke(second)

    (known,) = revocations
    assert (known.revoked_at, known.until) == (second.revoked_at, first.until)


# --------------------------------------------------------------------------------------------------------- the store


@in_virtual_time
async def test_what_the_store_does_not_take_holds_all_the_same() -> None:
    async with members(2) as (here, there):
        here.store.fail("revoke")

        with pytest.raises(StoreError):
            await here.revocations.revoke(revoked())

        await asyncio.sleep(3 * LOOK_S)
        assert not counts(here.revocations)
        assert not counts(there.revocations)


@in_virtual_time
async def test_nobody_is_let_in_before_the_store_was_read() -> None:
    store = MoodyStore(await opened())
    store.fail("revocations")

    with pytest.raises(StoreError):
        await Revocations(store).open()


@in_virtual_time
async def test_a_store_that_fails_for_a_while_is_read_later() -> None:
    async with members(2) as (here, there):
        there.bus.die()
        there.store.fail("revocations")
        await here.revocations.revoke(revoked())
        await asyncio.sleep(2 * LOOK_S)
        assert counts(there.revocations)

        there.store.recover()
        await asyncio.sleep(LOOK_S)

        assert not counts(there.revocations)


@in_virtual_time
async def test_what_has_expired_is_forgotten() -> None:
    async with members(1) as (here,):
        await here.revocations.revoke(revoked(for_s=-1))

        await asyncio.sleep(LOOK_S)

        assert list(here.revocations) == []


# --------------------------------------------------------------------------------------------------------- other nodes


@in_virtual_time
async def test_other_nodes_know_at_once_and_are_told_whom_it_concerns() -> None:
    async with members(2) as (here, there):
        concerned = []
        there.revocations.concerned = lambda: concerned.append(counts(there.revocations))

        await here.revocations.revoke(revoked())
        await turns()

        assert concerned == [False]


@in_virtual_time
async def test_a_revocation_whose_message_is_lost_is_found_in_the_store() -> None:
    async with members(2) as (here, there):
        there.bus.die()

        await here.revocations.revoke(revoked())
        await turns()
        assert counts(there.revocations)

        await asyncio.sleep(LOOK_S + 1)
        assert not counts(there.revocations)


@in_virtual_time
async def test_a_node_looks_as_soon_as_the_bus_is_back() -> None:
    async with members(2) as (here, there):
        there.bus.away = True
        await here.revocations.revoke(revoked())
        await turns()
        assert counts(there.revocations)

        there.bus.away = False
        await asyncio.sleep(2 * SOON_S)

        assert not counts(there.revocations)


@in_virtual_time
async def test_what_was_revoked_while_a_node_started_is_found_soon() -> None:
    store = await opened()
    starting = Revocations(store)
    await starting.open()
    await Revocations(store).revoke(revoked())
    task = asyncio.create_task(starting.run())

    await asyncio.sleep(2 * SOON_S)

    assert not counts(starting)
    task.cancel()


@in_virtual_time
async def test_what_is_taken_back_counts_again_on_all_nodes() -> None:
    async with members(2) as (here, there):
        await here.revocations.revoke(revoked())
        await turns()

        assert await there.revocations.unrevoke("user", "ann")
        await turns()

        assert counts(here.revocations)
        assert counts(there.revocations)
        await asyncio.sleep(3 * LOOK_S)
        assert counts(here.revocations)
        assert not await here.revocations.unrevoke("user", "ann")


@in_virtual_time
async def test_what_was_taken_back_while_the_bus_was_away_counts_again_when_a_node_looks() -> None:
    async with members(2) as (here, there):
        await here.revocations.revoke(revoked())
        await asyncio.sleep(LOOK_S + 1)
        there.bus.die()

        await here.revocations.unrevoke("user", "ann")
        await turns()
        assert not counts(there.revocations)

        await asyncio.sleep(LOOK_S + 1)
        assert counts(there.revocations)


@in_virtual_time
async def test_what_can_not_be_taken_back_holds_still() -> None:
    async with members(1) as (here,):
        await here.revocations.revoke(revoked())
        here.store.fail("unrevoke")

        with pytest.raises(StoreError):
            await here.revocations.unrevoke("user", "ann")

        assert not counts(here.revocations)


@in_virtual_time
async def test_a_look_that_began_before_a_revocation_does_not_undo_it() -> None:
    async with members(1) as (here,):
        here.store.hold("revoke")
        revoking = asyncio.create_task(here.revocations.revoke(revoked()))
        await asyncio.sleep(2 * LOOK_S)
        assert not counts(here.revocations)

        here.store.let_go("revoke")
        await revoking

        await asyncio.sleep(2 * LOOK_S)
        assert not counts(here.revocations)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"kind": "user", "value": "ann"}',
        b'{"kind": "user", "value": "ann", "revoked_at": "2030-01-01", "until": "2030-01-01"}',
        b'{"kind": "team", "value": "x", "revoked_at": "2030-01-01T00:00:00Z", "until": "2030-01-01T00:00:00Z"}',
    ],
)
@in_virtual_time
async def test_a_message_that_makes_no_sense_is_passed_over(body: bytes) -> None:
    async with members(1) as (here,):
        source = bytes(12)

        here.bus.deliver(next(iter(here.bus._listeners)), encode(Envelope(Kind.REVOKED, source, body=body)))

        assert list(here.revocations) == []
