"""Edits by the code around the server: they go the way of a client's, or don't happen."""

import asyncio
import gc
import random
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pycrdt
import pytest

from crdt_sync import pacing
from crdt_sync.errors import (
    DocumentFull,
    DocumentGone,
    Draining,
    InvalidRoomName,
    MessageTooBig,
    NotRunning,
    NotYetStored,
    RoomUnavailable,
    StoreBehind,
)
from crdt_sync.gateway.live_rooms import LiveRooms
from crdt_sync.native import Doc
from crdt_sync.pacing import at_once
from crdt_sync.trip_edits import TripEditor
from crdt_sync.values import MAGIC
from persistence import Store
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
    turns,
    until,
)
from tests.support.grammar import block, item, update, var_bytes, var_uint
from tests.support.yjs import Yjs


@asynccontextmanager
async def living(store: Store | None = None, **options: Any) -> AsyncIterator[tuple[Node, LiveRooms]]:
    """A node, and its rooms for the code around it."""
    async with running_node(store, **options) as node:
        live = LiveRooms(node.settings)
        live.open(node.rooms)
        yield node, live
        await live.close()


async def joined(node: Node) -> Client:
    client = await Client().connect(node)
    client.ask_for_sync()
    await settle(client)
    return client


def text_in(doc: Doc) -> pycrdt.Text:
    return doc.get("text", type=pycrdt.Text)


async def users(node: Node) -> list[str | None]:
    return [row.user_id for row in await node.store.rows("room", first=1, last=1 << 40)]


# ---------------------------------------------------------------------------------------------------- like a client's


@in_virtual_time
async def test_an_edit_reaches_who_is_there_as_one_update_and_is_stored_under_its_users_name() -> None:
    async with living() as (node, live):
        ann = await joined(node)
        ann.edit(Editor(1).type("hello"))
        await settle(ann)
        before = len(ann.received)

        async with live.edit("room", user="bot") as doc:
            text = text_in(doc)
            text += " world"
            text.insert(0, ">")
            doc.get("map", type=pycrdt.Map)["seen"] = True
            await asyncio.sleep(1)
            assert len(ann.received) == before, "nothing of it is shown before the end"
        assert (await users(node)) == [None, "bot"], "it is stored when the block is over"
        await settle(ann)

        assert len(ann.received) == before + 1
        assert text_of(*ann.received) == text_of(*await stored_updates(node.store, "room")) == ">hello world"


@in_virtual_time
async def test_a_room_that_nobody_has_open_is_opened_and_let_go() -> None:
    async with living(room_idle_s=5) as (node, live):
        async with live.edit("room") as doc:
            text_in(doc).insert(0, "x")
        assert "room" in node.rooms

        await until(lambda: "room" not in node.rooms)

        assert str(text_in(await live.read("room"))) == "x"


@in_virtual_time
async def test_edits_at_the_same_time_are_merged() -> None:
    async with living() as (node, live):
        ann = await joined(node)

        async with live.edit("room", user="one") as one, live.edit("room", user="two") as two:
            text_in(one).insert(0, "one ")
            text_in(two).insert(0, "two ")
            ann.edit(Editor(1).type("ann "))
        await settle(ann)

        assert sorted(text_of(*ann.received).split()) == ["ann", "one", "two"]


@in_virtual_time
async def test_an_edit_without_an_edit_is_none() -> None:
    async with living() as (node, live):
        async with live.edit("room", user="bot") as doc:
            text_in(doc)

        assert node.store.calls["append"] == 0


@in_virtual_time
async def test_what_was_deleted_before_is_not_said_again() -> None:
    async with living() as (node, live):
        async with live.edit("room") as doc:
            text = text_in(doc)
            text += "abcdefgh" * 50
            for at in range(150):
                del text[at : at + 1]
        assert text_of(*await stored_updates(node.store, "room")) == str(text), "as often as it was edited"
        async with live.edit("room") as doc:
            text_in(doc).insert(0, "x")

        _, second = await stored_updates(node.store, "room")
        assert len(second) < 40


@in_virtual_time
async def test_a_trip_is_edited_like_that() -> None:
    async with living() as (_, live):
        async with live.edit("trip-1", user="bot") as doc:
            TripEditor(doc).new_trip(owner_id="ann", title="Rome")
        async with live.edit("trip-1", user="bot") as doc:
            TripEditor(doc).add_item(day=1, type="transport", title="to Rome")

        doc = await live.read("trip-1")
        assert len(doc.get("itinerary", type=pycrdt.Array)) == 1


@in_virtual_time
async def test_edits_one_after_the_other_are_one_clients() -> None:
    async with living() as (node, live):
        for _ in range(20):
            async with live.edit("room") as doc:
                text_in(doc).insert(0, "x")

        assert document_of(await node.room()).clients == 1


@in_virtual_time
async def test_edits_side_by_side_are_different_clients_and_an_abandoned_ones_is_not_used_again() -> None:
    async with living() as (node, live):
        async with live.edit("room") as one, live.edit("room") as two:
            assert one.client_id != two.client_id
            text_in(one).insert(0, "x")
        with pytest.raises(KeyError):  # noqa: PT012
            async with live.edit("room") as three:
                text_in(three).insert(0, "kept elsewhere")
                raise KeyError
        for _ in range(3):
            async with live.edit("room") as four:
                assert four.client_id != three.client_id
        assert document_of(await node.room()).clients == 1


@in_virtual_time
async def test_who_gives_up_before_the_first_edit_uses_up_no_client() -> None:
    async with living() as (_, live):
        with pytest.raises(KeyError):
            async with live.edit("room") as one:
                raise KeyError
        async with live.edit("room") as two:
            assert two.client_id == one.client_id


# -------------------------------------------------------------------------------------------------- it doesn't happen


@in_virtual_time
async def test_an_exception_in_the_block_makes_it_no_edit() -> None:
    async with living() as (node, live):
        ann = await joined(node)
        before = len(ann.received)

        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with live.edit("room") as doc:
                text_in(doc).insert(0, "x")
                raise ZeroDivisionError
        await settle(ann)

        assert len(ann.received) == before
        assert node.store.calls["append"] == 0
        assert str(text_in(await live.read("room"))) == ""


@in_virtual_time
async def test_a_copy_that_is_read_is_nobodys() -> None:
    async with living() as (node, live):
        async with live.edit("room") as doc:
            text_in(doc).insert(0, "x")
        text_in(doc).insert(0, "later ")
        text_in(await live.read("room")).insert(0, "y")
        await asyncio.sleep(1)

        assert text_of(*await stored_updates(node.store, "room")) == "x"


@in_virtual_time
async def test_who_is_cancelled_in_the_block_has_edited_nothing() -> None:
    async with living() as (node, live):

        async def edit() -> None:
            async with live.edit("room") as doc:
                text_in(doc).insert(0, "x")
                await asyncio.sleep(3600)

        task = asyncio.create_task(edit())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(1)

        assert task.cancelled()
        assert node.store.calls["append"] == 0


@pytest.mark.parametrize(("count", "turns_each"), [(1, 4), (1500, 60)])
def test_who_is_cancelled_at_the_end_leaves_the_room_whole(
    count: int, turns_each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each step in a turn of its own.
    monkeypatch.setattr(pacing, "SLICE_S", 0.0)
    shown = set()

    @in_virtual_time
    async def trial() -> None:
        for after in range(0, 4 * turns_each, turns_each):
            async with living() as (node, live):
                ann = await joined(node)
                begun = asyncio.Event()

                async def edit(live: LiveRooms = live, begun: asyncio.Event = begun) -> None:
                    async with live.edit("room") as doc:
                        with doc.transaction():
                            for _ in range(count):
                                text_in(doc).insert(0, "x ")
                        begun.set()

                task = asyncio.create_task(edit())
                await begun.wait()
                await turns(after)
                task.cancel()
                await asyncio.wait([task])
                await asyncio.sleep(1)
                await settle(ann)

                assert ann.closed is None
                text = text_of(*ann.received)
                assert text == text_of(*await stored_updates(node.store, "room"))
                shown.add(text)
                await ann.leave()

    trial()
    assert shown == {"x " * count}, "it goes through once it has begun"


@pytest.mark.parametrize("user", ["", "x" * 256, "a\0b", "\ud800", 7])
def test_who_can_not_be_a_user_edits_nothing(user: Any) -> None:
    @in_virtual_time
    async def trial() -> None:
        async with living() as (node, live):
            with pytest.raises(ValueError, match="user"):
                async with live.edit("room", user=user):
                    raise AssertionError("it began")
            assert len(node.rooms) == 0

    trial()


@pytest.mark.parametrize("name", ["", "x" * 256, "api/x", "a\nb"])
def test_what_names_no_room_is_refused(name: str) -> None:
    @in_virtual_time
    async def trial() -> None:
        async with living() as (_, live):
            with pytest.raises(InvalidRoomName):
                await live.read(name)

    trial()


@in_virtual_time
async def test_a_deleted_room_is_not_edited() -> None:
    async with living() as (node, live):
        async with live.edit("room") as doc:
            text_in(doc).insert(0, "x")
        await node.rooms.delete("room")

        with pytest.raises(DocumentGone):
            async with live.edit("room"):
                raise AssertionError("it began")
        with pytest.raises(DocumentGone):
            await live.read("room")


@in_virtual_time
async def test_a_room_that_is_deleted_meanwhile_is_not_edited() -> None:
    async with living() as (node, live):
        async with live.edit("room") as doc:
            text_in(doc).insert(0, "x")

        with pytest.raises(DocumentGone):  # noqa: PT012
            async with live.edit("room") as doc:
                text_in(doc).insert(0, "y")
                await node.rooms.delete("room")

        assert node.store.calls["append"] == 1


@in_virtual_time
async def test_a_room_that_breaks_meanwhile_is_not_edited_and_can_be_soon() -> None:
    async with living() as (node, live):
        with pytest.raises(RoomUnavailable):  # noqa: PT012
            async with live.edit("room") as doc:
                text_in(doc).insert(0, "x")
                room = await node.room()
                room.fail(RuntimeError("by a bug"))
                room._document = None  # type: ignore[assignment]  # nothing is asked of it any more
        assert node.store.calls["append"] == 0

        await until(lambda: "room" not in node.rooms)
        async with live.edit("room") as doc:
            text_in(doc).insert(0, "x")
        assert node.store.calls["append"] == 1


@in_virtual_time
async def test_the_size_of_documents_is_bounded_and_deletes_are_taken() -> None:
    async with living(document_bytes_max=100_000) as (node, live):
        async with live.edit("room") as doc:
            text_in(doc).insert(0, "x" * 99_000)

        with pytest.raises(DocumentFull):
            async with live.edit("room") as doc:
                text_in(doc).insert(0, "y" * 2000)
        async with live.edit("room") as doc:
            del text_in(doc)[0:50_000]

        assert text_of(*await stored_updates(node.store, "room")) == "x" * 49_000


@in_virtual_time
async def test_the_size_of_an_edit_is_bounded_as_a_clients_messages_are() -> None:
    async with living(message_bytes_max=65_536) as (_, live):
        with pytest.raises(MessageTooBig):
            async with live.edit("room") as doc:
                text_in(doc).insert(0, "x" * 65_536)

        assert str(text_in(await live.read("room"))) == ""


# ---------------------------------------------------------------------------------------------------------- the store


@in_virtual_time
async def test_an_edit_that_the_store_does_not_take_is_told_and_stored_later() -> None:
    async with living() as (node, live):
        ann = await joined(node)
        node.store.fail("append")

        with pytest.raises(NotYetStored):
            async with live.edit("room", user="bot") as doc:
                text_in(doc).insert(0, "x")
        await settle(ann)
        assert text_of(*ann.received) == "x", "others have it all the same"
        node.store.recover()
        await asyncio.sleep(2)

        assert text_of(*await stored_updates(node.store, "room")) == "x"


@in_virtual_time
async def test_who_does_not_want_to_wait_does_not() -> None:
    async with living() as (node, live):
        node.store.fail("append")

        async with asyncio.timeout(0.05):
            async with live.edit("room", stored=False) as doc:
                text_in(doc).insert(0, "x")

        node.store.recover()
        await asyncio.sleep(2)
        assert text_of(*await stored_updates(node.store, "room")) == "x"


@in_virtual_time
async def test_an_edit_for_which_there_is_no_space_is_refused_and_not_taken_for_stored_late() -> None:
    async with living(unstored_bytes_max=1 << 20, message_bytes_max=1 << 19) as (node, live):
        node.store.fail("append")
        for _ in range(2):
            async with live.edit("room", stored=False) as doc:
                text_in(doc).insert(0, "x" * 500_000)

        with pytest.raises(StoreBehind) as refused:
            async with live.edit("room") as doc:
                text_in(doc).insert(0, "y" * 100_000)

        assert not isinstance(refused.value, NotYetStored)
        assert "y" not in str(text_in(await live.read("room")))
        node.store.recover()
        await asyncio.sleep(2)


@in_virtual_time
async def test_a_room_that_can_not_be_loaded_is_not_edited() -> None:
    async with living() as (node, live):
        node.store.fail("load")

        with pytest.raises(RoomUnavailable):
            async with live.edit("room"):
                raise AssertionError("it began")


# ----------------------------------------------------------------------------------------------------------- the ends


@in_virtual_time
async def test_there_is_nothing_to_edit_before_and_after() -> None:
    async with running_node() as node:
        live = LiveRooms(node.settings)
        with pytest.raises(NotRunning, match="lifespan=sync"):
            await live.read("room")
        live.open(node.rooms)
        await live.read("room")
        await live.close()
        with pytest.raises(NotRunning):
            async with live.edit("room"):
                raise AssertionError("it began")


@in_virtual_time
async def test_an_edit_that_is_not_over_when_the_server_ends_is_none() -> None:
    async with living() as (node, live):
        with pytest.raises(Draining):  # noqa: PT012
            async with live.edit("room") as doc:
                text_in(doc).insert(0, "x")
                await live.close()

        assert node.store.calls["append"] == 0


@in_virtual_time
async def test_nothing_of_an_edit_stays_in_memory() -> None:
    async with living() as (_, live):
        left = []
        for error in (None, KeyError()):
            with suppress(KeyError):
                async with live.edit("room") as doc:
                    text_in(doc).insert(0, "x")
                    if error is not None:
                        raise error
            left.append(weakref.ref(doc))

        del doc, error
        gc.collect()

        assert [one() for one in left] == [None, None]
        assert not live._taking


# -------------------------------------------------------------------------------------------- what pycrdt can't hold


@in_virtual_time
async def test_the_rooms_document_is_as_good_as_before_whatever_is_done_to_the_copy() -> None:
    async with living() as (node, live):
        ann = await joined(node)
        ann.edit(Editor(1).type("hello"))
        await settle(ann)

        async with live.edit("room") as doc:
            text_in(doc).insert(0, "x")
            # An update with a predecessor that isn't there.
            doc.apply_update(Editor(7).type("a") and Editor(8).type("b"))
            with pytest.raises(ValueError):  # noqa: PT011
                doc.apply_update(b"\xff\xff")
        await settle(ann)

        assert text_of(*ann.received) == text_of(*await stored_updates(node.store, "room"))
        assert not (await node.room()).broken


@in_virtual_time
async def test_what_pycrdt_can_not_hold_stays_what_it_is_also_where_it_is_copied() -> None:
    root = b"\1" + var_bytes(b"text")
    odd = item(6, root, var_bytes(b"size") + var_bytes(b"-0"))
    word = item(4 | 128, b"\x09\0", var_bytes(b"a"))
    async with living() as (node, live):
        ann = await joined(node)
        ann.edit(update(block(9, 0, odd, word)))
        await settle(ann)

        async with live.edit("room") as doc:
            text = text_in(doc)
            ((_, attributes),) = text.diff()
            assert attributes["size"].startswith(MAGIC.decode())
            text.insert(0, "b", {"other": attributes["size"]})

        first, second = await stored_updates(node.store, "room")
        assert b"size\2-0" in first
        assert b"other\2-0" in second


@pytest.mark.parametrize("seed", range(3))
def test_emojis_that_clients_have_cut_are_shown_as_yjs_shows_them(seed: int, yjs: Yjs) -> None:
    history = yjs.generate(seed, clients=2, steps=40, kinds=["text"], emoji=True, exchange=0.3)

    @in_virtual_time
    async def trial() -> None:
        async with living() as (node, live):
            ann = await joined(node)
            for one in history.updates:
                ann.edit(one)
            await settle(ann)
            for name in ("one", "two"):
                async with live.edit("room", user=name) as doc:
                    text_in(doc).insert(0, "x🙂")
            await settle(ann)

            stored = await stored_updates(node.store, "room")
            assert yjs.apply(stored) == yjs.apply(ann.received)

    trial()


@in_virtual_time
async def test_a_document_is_copied_as_it_is_though_an_emoji_was_cut_just_now() -> None:
    async with living() as (node, live):
        async with live.edit("room") as doc:
            text_in(doc).insert(0, "a🙂b")
        room = await node.room()
        between = item(4 | 192, var_uint(doc.client_id) + b"\1", var_uint(doc.client_id) + b"\2", var_bytes(b"x"))
        room.accept(update(block(9, 0, between)), sender=None)
        assert document_of(room).is_behind

        copy = at_once(document_of(room).copying(5))

        assert str(text_in(copy)) == "a\ufffdx\ufffdb"


def test_a_copy_has_all_of_a_large_update_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "SLICE_S", 0.0)
    editor = Editor(7)
    for number in range(600):
        editor.text.insert(0, f"number {number} ")
    large = bytes(editor.doc.get_update())
    shown = []

    @in_virtual_time
    async def trial() -> None:
        for after in (*range(10), 20):
            async with living() as (node, live):
                room = await node.room()
                read = [asyncio.create_task(live.read("room"))]
                await turns(after)
                taking = asyncio.create_task(room.accept_in_turns(large, sender=None))
                while not taking.done():
                    await turns(15)
                    read.append(asyncio.create_task(live.read("room")))
                shown.extend([str(text_in(await one)) for one in read])

    trial()
    assert set(shown) == {"", str(editor.text)}


@pytest.mark.parametrize("seed", range(4))
def test_many_edits_and_clients_come_to_the_same(seed: int) -> None:
    @in_virtual_time
    async def trial() -> None:
        chance = random.Random(seed)
        store = MemoryStore()
        async with living(store, checkpoint_interval_s=0.5, room_idle_s=1) as (node, live):
            ann = await joined(node)
            editor = Editor(1)
            written: set[str] = set()
            failures = 0

            async def bot(name: str) -> None:
                nonlocal failures
                for number in range(8):
                    word = f"{name}{number}"
                    try:
                        async with live.edit("room", user=name, stored=chance.random() < 0.5) as doc:
                            text = text_in(doc)
                            if chance.random() < 0.5:
                                await asyncio.sleep(chance.random())
                            text.insert(chance.choice([0, len(text)]), f" {word} ")
                            if chance.random() < 0.2:
                                raise LookupError
                        written.add(word)
                    except LookupError:
                        failures += 1
                    await asyncio.sleep(chance.random())

            bots = [asyncio.create_task(bot(name)) for name in "xyz"]
            for number in range(20):
                ann.edit(editor.type(f" a{number} "))
                written.add(f"a{number}")
                await asyncio.sleep(0.3)
                await settle(ann)
            await asyncio.gather(*bots)
            await asyncio.sleep(2)
            await settle(ann)

            shown = text_of(*ann.received)
            assert shown == text_of(*await stored_updates(store, "room"))
            assert set(shown.split()) == written
            assert document_of(await node.room()).clients <= 1 + len("xyz") + failures

    trial()
