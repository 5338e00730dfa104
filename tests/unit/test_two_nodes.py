"""Two nodes, one store and no bus: what each stores stands between the other's updates, and nothing is lost by it."""

import asyncio
import logging
from copy import deepcopy

import pytest

from crdt_sync.bus.memory import Hub, MemoryBus
from crdt_sync.rooms import COMPARE_S
from persistence.memory import MemoryStore
from tests.support.fakes import (
    Client,
    Editor,
    Node,
    document_of,
    in_virtual_time,
    running_node,
    settle,
    stored_updates,
    text_of,
    until,
)


async def joined(node: Node) -> Client:
    client = await Client().connect(node)
    client.ask_for_sync()
    await settle(client)
    return client


async def store_all(*nodes: Node) -> None:
    for node in nodes:
        await node.journal.flush()


def text_at(client: Client) -> str:
    return text_of(*client.received)


@in_virtual_time
async def test_a_node_that_finds_others_updates_before_its_own_reads_and_shows_them() -> None:
    store = MemoryStore()
    async with running_node(store) as one, running_node(store) as two:
        ann, bob = await joined(one), await joined(two)
        ann.edit(Editor(1).type("ann "))
        await store_all(one)
        bob.edit(Editor(2).type("bob "))
        await store_all(two)

        await asyncio.sleep(2)
        await settle(ann, bob)

        assert sorted(text_at(bob).split()) == ["ann", "bob"]


@in_virtual_time
async def test_a_snapshot_folds_nothing_that_its_node_has_not_read() -> None:
    store = MemoryStore()
    async with running_node(store, checkpoint_interval_s=1) as one, running_node(store, checkpoint_interval_s=1) as two:
        ann, bob = await joined(one), await joined(two)
        ann_types, bob_types = Editor(1), Editor(2)
        for i in range(40):
            ann.edit(ann_types.type(f"a{i} "))
            bob.edit(bob_types.type(f"b{i} "))
            await asyncio.sleep(0.13)
            stored = await store.load("room")
            assert stored.head_seq >= i, "both are stored all the time"
        await asyncio.sleep(5)

        words = set(text_of(*await stored_updates(store, "room")).split())

        assert words == {f"{who}{i}" for who in "ab" for i in range(40)}
        assert (await store.load("room")).updates == (), "everything is folded in the end"
        assert one.store.checkpointed
        assert two.store.checkpointed


@in_virtual_time
async def test_a_state_captured_before_another_nodes_update_came_in_between_does_not_fold_it() -> None:
    store = MemoryStore()
    async with (
        running_node(store, checkpoint_interval_s=3600) as one,
        running_node(store, checkpoint_interval_s=0.5) as two,
    ):
        ann, bob = await joined(one), await joined(two)
        two.store.hold("append")
        two.store.fail("load")
        bob.edit(Editor(2).type("bob "))
        await asyncio.sleep(2)
        assert not (await two.room()).wants_checkpoint, "the state is captured, and waits for the journal"
        ann.edit(Editor(1).type("ann "))
        await store_all(one)

        two.store.let_go("append")
        await asyncio.sleep(5)

        assert sorted(text_of(*await stored_updates(store, "room")).split()) == ["ann", "bob"]


@in_virtual_time
async def test_what_was_folded_before_it_could_be_read_is_read_from_the_snapshot() -> None:
    store = MemoryStore()
    async with running_node(store) as two, running_node(store, checkpoint_interval_s=0.2) as one:
        bob = await joined(two)
        ann = await joined(one)
        ann.edit(Editor(1).type("ann "))
        await until(lambda: one.store.checkpointed)
        bob.edit(Editor(2).type("bob "))
        await store_all(two)

        await asyncio.sleep(2)
        await settle(bob)

        assert sorted(text_at(bob).split()) == ["ann", "bob"]


@in_virtual_time
async def test_a_document_that_another_node_is_checkpointing_is_left_and_done_later() -> None:
    async with running_node(checkpoint_interval_s=1) as node:
        client = await joined(node)
        node.store.busy_elsewhere.add("room")
        client.edit(Editor(1).type("x"))
        await asyncio.sleep(5)
        during = await node.store.load("room")
        node.store.busy_elsewhere.clear()
        await asyncio.sleep(2)
        after = await node.store.load("room")

        assert (during.snapshot, len(during.updates)) == (None, 1)
        assert after.snapshot is not None
        assert after.updates == ()


@in_virtual_time
async def test_a_room_that_is_behind_is_not_unloaded_as_if_it_had_seen_all() -> None:
    store = MemoryStore()
    async with running_node(store, room_idle_s=0, checkpoint_interval_s=3600) as two, running_node(store) as one:
        bob = await joined(two)
        ann = await joined(one)
        ann.edit(Editor(1).type("ann "))
        await store_all(one)
        bob.edit(Editor(2).type("bob "))
        two.store.fail("load")
        await bob.leave()

        await asyncio.sleep(30)
        kept = "room" in two.rooms

        assert kept
        assert sorted(text_of(*await stored_updates(store, "room")).split()) == ["ann", "bob"]


@in_virtual_time
async def test_a_store_that_lost_its_end_gets_everything_once_more(caplog: pytest.LogCaptureFixture) -> None:
    """As after a failover to a standby that had not received the last commits."""
    store = MemoryStore()
    async with running_node(store, checkpoint_interval_s=2) as node:
        ann, types = await joined(node), Editor(1)
        ann.edit(types.type("one "))
        await store_all(node)
        standby = deepcopy(store._logs)
        for word in ("two ", "three "):
            ann.edit(types.type(word))
            await store_all(node)
        ann.ask_for_confirm(b"3")
        await settle(ann)
        assert ann.confirmed == [b"3"]

        store._logs = standby
        with caplog.at_level(logging.ERROR):
            ann.edit(types.type("four "))
            await store_all(node)
        await store_all(node)

        assert text_of(*await stored_updates(store, "room")) == "one two three four "
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["store_lost_updates"]
        await asyncio.sleep(5)
        assert text_of(*await stored_updates(store, "room")) == "one two three four "
        assert (await store.load("room")).updates == (), "and snapshots are taken again"


@in_virtual_time
async def test_a_store_that_was_emptied_gets_everything_once_more() -> None:
    store = MemoryStore()
    async with running_node(store) as node:
        ann, types = await joined(node), Editor(1)
        for word in ("one ", "two "):
            ann.edit(types.type(word))
            await store_all(node)
        store._logs = {}

        ann.edit(types.type("three "))
        await store_all(node)
        await store_all(node)

        assert text_of(*await stored_updates(store, "room")) == "one two three "


@in_virtual_time
async def test_updates_committed_while_the_gap_is_being_read_are_not_taken_for_read() -> None:
    store = MemoryStore()
    async with running_node(store) as one, running_node(store, checkpoint_interval_s=0.5) as two:
        ann, bob = await joined(one), await joined(two)
        two.store.answers_after_s["load"] = 1  # whatever is committed meanwhile isn't in the answer
        ann_types, bob_types = Editor(1), Editor(2)
        for i in range(30):
            ann.edit(ann_types.type(f"a{i} "))
            await store_all(one)
            bob.edit(bob_types.type(f"b{i} "))
            await store_all(two)
            await asyncio.sleep(0.17)
        await asyncio.sleep(10)

        words = set(text_of(*await stored_updates(store, "room")).split())

        assert words == {f"{who}{i}" for who in "ab" for i in range(30)}


@in_virtual_time
async def test_who_only_reads_sees_what_others_stored_even_if_nothing_else_tells(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    async with running_node(store) as one, running_node(store) as two:
        ann, bob = await joined(one), await joined(two)
        ann.edit(Editor(1).type("ann "))

        await asyncio.sleep(COMPARE_S + 2)
        await settle(bob)

        assert text_at(bob) == "ann "
        loads = two.store.calls["load"]
        await asyncio.sleep(5 * COMPARE_S)
        assert two.store.calls["load"] == loads, "there is nothing new"


@in_virtual_time
async def test_a_gap_that_cannot_be_read_now_is_read_later() -> None:
    store = MemoryStore()
    async with running_node(store) as one, running_node(store) as two:
        ann, bob = await joined(one), await joined(two)
        ann.edit(Editor(1).type("ann "))
        await store_all(one)
        two.store.fail("load", times=3)
        bob.edit(Editor(2).type("bob "))
        await store_all(two)

        await asyncio.sleep(10)
        await settle(bob)

        assert sorted(text_at(bob).split()) == ["ann", "bob"]
        assert document_of(await two.room()).waiting == ()


@in_virtual_time
async def test_a_room_that_breaks_right_after_an_edit_is_loaded_anew_though_others_have_it_open() -> None:
    hub, store = Hub(), MemoryStore()
    async with (
        running_node(store, make_bus=lambda: MemoryBus(hub)) as one,
        running_node(store, make_bus=lambda: MemoryBus(hub)) as two,
    ):
        await asyncio.sleep(2)
        ann, bob = await joined(one), await joined(two)
        bob.edit(Editor(2).type("bob "))
        ann.edit(Editor(1).type("ann "))
        await settle(ann, bob)
        (await one.room()).fail(RuntimeError("by a bug"))
        await ann.leave()

        await until(lambda: "room" not in one.rooms, timeout_s=5)

        await ann.connect(one)
        ann.ask_for_sync()
        await settle(ann, bob)
        assert sorted(text_at(ann).split()) == sorted(text_at(bob).split()) == ["ann", "bob"]
