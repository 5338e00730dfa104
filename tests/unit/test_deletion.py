"""Documents that are deleted while something else goes on with them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import pytest

from crdt_sync.bus.memory import Hub, MemoryBus
from crdt_sync.bus.redis_sender import RENEW_S
from crdt_sync.bus.redis_state import Limits
from crdt_sync.envelope import Kind
from crdt_sync.errors import DocumentGone, Draining, RoomUnavailable
from crdt_sync.rooms import COMPARE_S, FORGET_AFTER_S
from persistence.memory import MemoryStore
from tests.support.fakes import (
    Client,
    Editor,
    Node,
    in_virtual_time,
    running_node,
    settle,
    stored_updates,
    text_of,
    turns,
    typed,
    until,
)

GONE = (DocumentGone.close_code, DocumentGone.reason)


async def joined(node: Node, name: str = "room") -> Client:
    client = await Client().connect(node, name)
    client.ask_for_sync()
    await settle(client)
    return client


async def stored(node: Node, *names: str) -> None:
    """Have documents that are stored and open nowhere."""
    for name in names:
        client = await joined(node, name)
        client.edit(typed("a", client_id=77)[0])
        await client.leave()
    await until(lambda: not any(name in node.rooms for name in names))


@asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[Node, Node]]:
    hub, store = Hub(), MemoryStore()
    async with AsyncExitStack() as stack:
        here, there = [
            await stack.enter_async_context(running_node(store, make_bus=lambda: MemoryBus(hub))) for _ in range(2)
        ]
        await asyncio.sleep(2)
        yield here, there


@in_virtual_time
async def test_whoever_waits_for_a_room_that_is_deleted_meanwhile_is_told() -> None:
    async with running_node() as node:
        await stored(node, "room")
        # Read before the deletion, answered after it.
        node.store.answers_after_s["load"] = 1
        waiting = [asyncio.create_task(Client().connect(node)) for _ in range(3)]
        await asyncio.sleep(0.5)

        assert await node.rooms.delete("room")

        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, DocumentGone)


@in_virtual_time
async def test_what_is_in_the_journal_is_kept_with_the_document() -> None:
    async with running_node() as node:
        ann = await joined(node)
        first, second = typed("ab")
        ann.edit(first)
        await settle(ann)
        node.store.hold("delete")
        deleting = asyncio.create_task(node.rooms.delete("room"))
        await until(lambda: node.store.calls["delete"])
        ann.edit(second)
        await settle(ann)
        node.store.let_go("delete")

        assert await deleting
        await turns()

        await ann.leave()
        await until(lambda: "room" not in node.rooms)
        assert ann.closed == GONE
        assert await node.store.undelete("room")
        assert await stored_updates(node.store.inner, "room") == [first, second]


@in_virtual_time
async def test_a_document_that_was_brought_back_at_once_opens_at_once() -> None:
    async with running_node() as node:
        ann = await joined(node)
        ann.edit(typed("a")[0])
        await settle(ann)

        for _ in range(3):
            await node.rooms.delete("room")
            await node.store.undelete("room")
            joining = asyncio.create_task(joined(node))
            await ann.leave()

            ann = await joining
            assert text_of(*ann.received) == "a"


@in_virtual_time
async def test_a_name_that_was_forgotten_at_once_is_an_empty_document() -> None:
    async with running_node() as node:
        ann = await joined(node)
        ann.edit(typed("a")[0])
        await settle(ann)
        await node.rooms.delete("room")
        await ann.leave()
        await until(lambda: "room" not in node.rooms)
        await node.store.purge("room")

        bob = await joined(node)

        assert bob.received == [b"\x00\x00"]


@in_virtual_time
async def test_a_deleted_room_that_can_not_be_stored_makes_its_clients_wait_not_despair() -> None:
    async with running_node(open_timeout_s=2) as node:
        ann = await joined(node)
        ann.edit(typed("a")[0])
        await until(lambda: ann.room is not None and not ann.room.unstored)
        node.store.fail("append")
        ann.edit(Editor(2).type("b"))
        await settle(ann)
        ann.room.bury()  # type: ignore[union-attr]
        await ann.leave()

        with pytest.raises(RoomUnavailable):
            await joined(node)

        node.store.recover()
        bob = await joined(node)
        assert sorted(text_of(*bob.received)) == ["a", "b"]


@in_virtual_time
async def test_nobody_waits_for_a_deleted_room_of_a_node_that_stops() -> None:
    async with running_node(open_timeout_s=60, drain_deadline_s=1) as node:
        ann = await joined(node)
        ann.edit(typed("a")[0])
        await until(lambda: ann.room is not None and not ann.room.unstored)
        node.store.fail("append")
        ann.edit(Editor(2).type("b"))
        await settle(ann)
        ann.room.bury()  # type: ignore[union-attr]
        waiting = asyncio.create_task(joined(node))
        await turns()
        began = asyncio.get_running_loop().time()

        await node.stop()

        with pytest.raises(Draining):
            await waiting
        assert asyncio.get_running_loop().time() - began < 5


@in_virtual_time
async def test_two_nodes_that_delete_at_once_have_deleted_once() -> None:
    async with two_nodes() as (here, there):
        ann, bob = await joined(here), await joined(there)
        ann.edit(typed("a")[0])
        await settle(ann, bob)
        await asyncio.sleep(1)

        done = await asyncio.gather(here.rooms.delete("room"), there.rooms.delete("room"))

        assert sorted(done) == [False, True]
        await turns()
        assert (ann.closed, bob.closed) == (GONE, GONE)


@in_virtual_time
async def test_a_deletion_whose_message_is_lost_keeps_no_other_room_behind() -> None:
    async with two_nodes() as (here, there):
        await stored(here, "doomed", "other")
        ann, bob = await joined(there, "doomed"), await joined(there, "other")
        there.bus.die()  # type: ignore[union-attr]
        there.store.fail("heads")
        await here.rooms.delete("doomed")
        eve = await joined(here, "other")
        eve.edit(Editor(5).type("b"))
        await settle(eve)
        await asyncio.sleep(1)
        for client in (ann, bob):
            client.room.doubt()  # type: ignore[union-attr]

        await asyncio.sleep(2)
        await settle(bob)

        assert ann.closed == GONE
        assert sorted(text_of(*bob.received)) == ["a", "b"]


@in_virtual_time
async def test_a_checkpoint_that_is_under_way_outlives_the_deletion() -> None:
    async with running_node(checkpoint_interval_s=1) as node:
        ann = await joined(node)
        for update in typed("abc"):
            ann.edit(update)
        await settle(ann)
        node.store.hold("checkpoint")
        await until(lambda: node.store.calls["checkpoint"])

        assert await node.rooms.delete("room")
        await ann.leave()
        await asyncio.sleep(3)
        assert "room" in node.rooms, "its snapshot might be written into a new document of that name"
        node.store.let_go("checkpoint")

        await until(lambda: "room" not in node.rooms)
        await node.store.undelete("room")
        bob = await joined(node)
        assert text_of(*bob.received) == "abc"


@in_virtual_time
async def test_a_word_of_a_deletion_that_comes_when_the_document_is_back_closes_nobody() -> None:
    async with two_nodes() as (here, there):
        await stored(here, "room")
        await here.store.delete("room", at=datetime.now(UTC))
        await here.store.undelete("room")
        ann = await joined(there)

        here.rooms.nodes.tell(Kind.DELETED, b"room")  # type: ignore[union-attr]
        await asyncio.sleep(1)

        assert ann.closed is None
        await here.store.delete("room", at=datetime.now(UTC))
        here.rooms.nodes.tell(Kind.DELETED, b"room")  # type: ignore[union-attr]
        await until(lambda: ann.closed is not None)
        assert ann.closed == GONE


def test_name_is_not_given_again_before_redis_has_forgotten_what_was_edited_last() -> None:
    """Or the first to open the new document would find the end of the old one in the short-term log."""
    assert COMPARE_S + Limits().log_age_s + RENEW_S < FORGET_AFTER_S


@in_virtual_time
async def test_a_room_that_another_node_deleted_right_after_an_edit_here_is_let_go() -> None:
    async with two_nodes() as (here, there):
        ann, bob = await joined(here), await joined(there)
        for number, client in enumerate((ann, bob)):
            client.edit(typed("a", client_id=number)[0])
        await settle(ann, bob)
        await asyncio.sleep(1)
        await here.rooms.delete("room")
        await asyncio.sleep(1)
        await ann.leave()
        await bob.leave()

        await until(lambda: "room" not in there.rooms and "room" not in here.rooms, timeout_s=30)

        for node in (here, there):
            with pytest.raises(DocumentGone):
                await Client().connect(node)
