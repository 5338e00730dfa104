"""Which rooms are open: one per name, opened once, refused rather than shown empty, unloaded when nothing is lost by it."""

import asyncio
import gc
import logging
import weakref
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crdt_sync import rooms
from crdt_sync.document import Document, State, digest
from crdt_sync.errors import DocumentBroken, Draining, ProtocolError, RoomUnavailable, UpdateBreaksDocument
from crdt_sync.pacing import Steps
from crdt_sync.protocol import encode_update
from crdt_sync.room import Room
from crdt_sync.rooms import COMPARE_S
from persistence import Entry, Snapshot, StoreCorrupt, open_store
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
    typed,
    until,
)


async def connected(node: Node, name: str = "room") -> Client:
    """A client that has joined and synced."""
    client = await Client().connect(node, name)
    client.ask_for_sync()
    await settle(client)
    return client


async def filled(node: Node, text: str, name: str = "room") -> None:
    """A room that has a text, is stored and unloaded."""
    client = await connected(node, name)
    for update in typed(text, client_id=77):
        client.edit(update)
    await client.leave()
    await until(lambda: name not in node.rooms)


# ------------------------------------------------------------------------------------------------------- opening


@in_virtual_time
async def test_many_who_come_at_once_get_the_same_room_and_it_is_loaded_once() -> None:
    async with running_node() as node:
        node.store.hold("load")
        joining = [asyncio.create_task(connected(node)) for _ in range(50)]
        await turns()
        node.store.let_go("load")

        clients = await asyncio.gather(*joining)

        assert len({id(client.room) for client in clients}) == 1
        assert node.store.calls["load"] == 1
        clients[0].edit(typed("a")[0])
        await settle(*clients)
        assert all(text_of(*client.received) == "a" for client in clients)


@in_virtual_time
async def test_rooms_do_not_hear_of_each_other() -> None:
    async with running_node() as node:
        one, other = await connected(node, "one"), await connected(node, "other")

        one.edit(typed("a")[0])
        await settle(one, other)

        assert other.received == [b"\x00\x00"]


@in_virtual_time
async def test_what_was_stored_is_there_when_the_room_is_opened_again() -> None:
    async with running_node() as node:
        await filled(node, "hello")

        client = await connected(node)

        assert text_of(*client.received) == "hello"


@pytest.mark.parametrize("error", [StoreCorrupt("torn page"), RuntimeError("a bug")])
def test_a_room_that_can_not_be_loaded_is_refused_and_never_shown_empty(error: Exception) -> None:
    @in_virtual_time
    async def run() -> None:
        async with running_node() as node:
            await filled(node, "precious")
            node.store.fail("load", error=error)

            for _ in range(3):
                with pytest.raises((RoomUnavailable, RuntimeError)):
                    await connected(node)
                assert "room" not in node.rooms
            node.store.recover()
            client = await connected(node)

            assert text_of(*client.received) == "precious"

    run()


@pytest.mark.parametrize("rubbish", [b"\x01", b"\x01\x01\x01\x00\x00\x00\x00", b""])
def test_a_room_with_something_unreadable_in_its_log_is_refused(rubbish: bytes) -> None:
    @in_virtual_time
    async def run() -> None:
        from datetime import UTC, datetime

        from persistence import Entry

        async with running_node() as node:
            await node.store.append([Entry("room", [*typed("a"), rubbish], accepted_at=datetime.now(UTC))])

            with pytest.raises(RoomUnavailable):
                await connected(node)
            assert (await node.store.load("room")).head_seq == 2

    run()


@in_virtual_time
async def test_a_room_is_loaded_although_an_update_that_was_dropped_once_stands_in_its_log_twice() -> None:
    """A commit whose answer was lost is stored again. The second time, the update doesn't wait: it is refused."""
    abc = bytes((1, 1, 1, 0, 4, 1, 4)) + b"text\x03abc\x00"
    into_no_type = bytes((1, 1, 2, 0, 4, 0, 1, 3, 1)) + b"x\x00"
    d = bytes((1, 1, 1, 3, 132, 1, 2, 1)) + b"d\x00"
    async with running_node(room_idle_s=1) as node:
        client = await connected(node)
        node.store.hold("append")
        node.store.lose_answer("append")
        for update in (abc, into_no_type, d):
            client.say(encode_update(update))
        node.store.let_go("append")
        await asyncio.sleep(1)
        await client.leave()
        await node.kill()
        again = await Node(node.store.inner).start()

        reader = await connected(again)

        assert text_of(*reader.received) == "abcd"
        await again.kill()


async def with_log(store: MemoryStore, rows: list[bytes]) -> MemoryStore:
    await store.open()
    await store.append([Entry("room", rows, accepted_at=datetime.now(UTC))])
    return store


@in_virtual_time
async def test_the_rows_of_a_long_log_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    restored: list[bytes] = []
    restore = Document.restore
    monkeypatch.setattr(Document, "restore", lambda self, data: restored.append(data) or restore(self, data))  # type: ignore[func-returns-value]
    async with running_node(await with_log(MemoryStore(), typed("a long text, as people write it"))) as node:
        await node.rooms.hold("room").__aenter__()

        assert len(restored) == 2
        assert (await node.room()).known_seq == 31


@in_virtual_time
async def test_what_waits_in_a_long_log_keeps_only_what_builds_on_it_from_being_shown() -> None:
    rows = typed("a long text, as people write it")
    missing = rows.pop(20)
    async with running_node(await with_log(MemoryStore(), rows)) as node:
        ann = await connected(node)
        assert text_of(*ann.received) == "a long text, as peop"
        assert document_of(ann.room).waiting == tuple(rows[20:])

        ann.edit(missing)
        await settle(ann)

        assert text_of(*ann.received) == "a long text, as people write it"


@in_virtual_time
async def test_a_log_whose_rows_fit_only_one_by_one_is_loaded_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "merging", lambda rows: iter([(b"\1\1\1\0\x84\1\0\1x\0", True)]))
    async with running_node(await with_log(MemoryStore(), typed("a long text, as people write it"))) as node:
        ann = await connected(node)

        assert text_of(*ann.received) == "a long text, as people write it"


@in_virtual_time
async def test_of_what_was_quarantined_nothing_is_merged() -> None:
    rows = typed("a long text, as people write it")
    store = await with_log(MemoryStore(), rows)
    await store.quarantine("room", digest(rows[-1]), at=datetime.now(UTC))
    async with running_node(store) as node:
        ann = await connected(node)

        assert text_of(*ann.received) == "a long text, as people write i"


@in_virtual_time
async def test_all_who_wait_for_a_load_that_fails_are_refused_and_the_next_one_is_served() -> None:
    async with running_node() as node:
        node.store.hold("load")
        node.store.fail("load", times=1)
        joining = [asyncio.create_task(connected(node)) for _ in range(5)]
        await turns()
        node.store.let_go("load")

        outcomes = await asyncio.gather(*joining, return_exceptions=True)

        assert [type(outcome) for outcome in outcomes] == [RoomUnavailable] * 5
        assert (await connected(node)).synced


@in_virtual_time
async def test_who_waits_too_long_for_a_room_is_told_to_come_back_and_then_served() -> None:
    async with running_node(open_timeout_s=10, room_idle_s=60) as node:
        loop = asyncio.get_running_loop()
        began = loop.time()
        node.store.hold("load")

        with pytest.raises(RoomUnavailable):
            await connected(node)
        waited = loop.time() - began
        node.store.let_go("load")
        client = await connected(node)

        assert waited == pytest.approx(10)
        assert client.synced
        assert node.store.calls["load"] == 1, "the load went on meanwhile"


@in_virtual_time
async def test_somebody_who_gives_up_waiting_does_not_end_the_load_for_others() -> None:
    async with running_node() as node:
        node.store.hold("load")
        impatient, patient = asyncio.create_task(connected(node)), asyncio.create_task(connected(node))
        await turns()

        impatient.cancel()
        await turns()
        node.store.let_go("load")

        assert (await patient).synced


@in_virtual_time
async def test_what_waited_when_the_room_was_stored_waits_again_even_beyond_the_bound() -> None:
    async with running_node() as node:
        client = await connected(node)
        updates = typed("abcdef")
        for update in updates[1:]:
            client.say(encode_update(update))
        await asyncio.sleep(1)
        await client.leave()
        await node.kill()
        small = await Node(node.store.inner, waiting_bytes_max=1024).start()

        again = await connected(small)

        assert document_of(again.room).waiting == tuple(updates[1:])
        again.edit(updates[0])
        await settle(again)
        assert text_of(*again.received) == "abcdef"
        await small.kill()


# ------------------------------------------------------------------------------------------------------- unloading


@in_virtual_time
async def test_an_idle_room_is_unloaded_after_a_while_and_compacted() -> None:
    async with running_node(room_idle_s=30) as node:
        client = await connected(node)
        for update in typed("hello"):
            client.edit(update)
        await client.leave()

        await asyncio.sleep(25)
        still = "room" in node.rooms
        await asyncio.sleep(10)

        stored = await node.store.load("room")
        assert (still, "room" in node.rooms, len(node.rooms)) == (True, False, 0)
        assert stored.snapshot is not None
        assert (stored.snapshot.seq, stored.updates) == (5, ())
        assert text_of(stored.snapshot.state) == "hello"


@in_virtual_time
async def test_a_room_in_which_somebody_is_stays_open() -> None:
    async with running_node(room_idle_s=0) as node:
        client = await connected(node)

        await asyncio.sleep(600)

        assert client.room is await node.room()


@in_virtual_time
async def test_a_room_with_anything_unstored_is_never_unloaded() -> None:
    async with running_node(room_idle_s=0) as node:
        client = await connected(node)
        node.store.fail("append")
        client.edit(typed("a")[0])
        room = client.room
        await client.leave()

        await asyncio.sleep(3600)
        kept = await node.room()
        node.store.recover()
        await until(lambda: "room" not in node.rooms)

        assert kept is room
        assert text_of(*await stored_updates(node.store, "room")) == "a"


@in_virtual_time
async def test_a_room_is_not_unloaded_before_its_snapshot_is_written() -> None:
    async with running_node(room_idle_s=0) as node:
        client = await connected(node)
        client.edit(typed("a")[0])
        await asyncio.sleep(0.5)
        node.store.hold("checkpoint")
        node.store.fail("checkpoint", times=3)
        await client.leave()

        await asyncio.sleep(60)
        during = "room" in node.rooms
        node.store.let_go("checkpoint")
        await until(lambda: "room" not in node.rooms)

        stored = await node.store.load("room")
        assert during
        assert stored.snapshot is not None
        assert stored.updates == ()


@in_virtual_time
async def test_somebody_who_comes_while_a_room_is_being_given_up_finds_everything() -> None:
    """Comes back at every possible moment around the unloading."""
    async with running_node(room_idle_s=1, checkpoint_interval_s=1, version_interval_s=1) as node:
        expected = ""
        client, editor = await connected(node), Editor(1)

        for step in range(60):
            client.edit(editor.type("x"))
            expected += "x"
            await client.leave()
            await asyncio.sleep(step * 0.083)
            client = await connected(node)
            assert text_of(*client.received) == expected
            assert len(node.rooms) == 1
        await asyncio.sleep(1)

        assert node.store.calls["load"] > 10, "it was unloaded in between"
        assert text_of(*await stored_updates(node.store, "room")) == expected


@in_virtual_time
async def test_a_user_who_was_somewhere_when_the_room_was_unloaded_is_forgotten_with_it() -> None:
    async with running_node(room_idle_s=1) as node:
        client = await connected(node)
        await client.leave(properly=False)
        await until(lambda: "room" not in node.rooms)

        await asyncio.sleep(60)

        assert len(node.rooms) == 0


# ------------------------------------------------------------------------------------------------------- checkpoints


@in_virtual_time
async def test_a_room_that_changes_gets_a_snapshot_every_interval() -> None:
    async with running_node(checkpoint_interval_s=5) as node:
        client, editor = await connected(node), Editor(1)

        for _ in range(600):
            client.edit(editor.type("x"))
            await asyncio.sleep(0.1)

        assert 8 <= node.store.calls["checkpoint"] <= 13
        stored = await node.store.load("room")
        assert stored.snapshot is not None
        assert len(stored.updates) < 80


@in_virtual_time
async def test_a_room_that_does_not_change_gets_no_snapshot() -> None:
    async with running_node() as node:
        await filled(node, "a")
        client = await connected(node)
        node.store.calls.clear()

        await asyncio.sleep(600)

        assert client.synced
        assert node.store.calls["checkpoint"] == 0


@in_virtual_time
async def test_an_edit_that_lands_while_the_snapshot_is_written_gets_one_too() -> None:
    async with running_node(checkpoint_interval_s=1) as node:
        client = await connected(node)
        one, two = typed("ab")
        client.edit(one)
        node.store.hold("checkpoint")
        await asyncio.sleep(3)

        client.edit(two)
        node.store.let_go("checkpoint")
        await asyncio.sleep(3)

        stored = await node.store.load("room")
        assert stored.snapshot is not None
        assert (stored.snapshot.seq, stored.updates) == (2, ())


@in_virtual_time
async def test_a_snapshot_that_fails_is_tried_again() -> None:
    async with running_node(checkpoint_interval_s=1) as node:
        client = await connected(node)
        node.store.fail("checkpoint", times=5)

        client.edit(typed("a")[0])
        await asyncio.sleep(20)

        stored = await node.store.load("room")
        assert stored.snapshot is not None
        assert stored.updates == ()
        assert client.closed is None


@in_virtual_time
async def test_a_room_whose_state_is_nonsense_does_not_keep_others_from_compaction() -> None:
    async with running_node() as node:
        clients = [await connected(node, name) for name in ("before", "bad", "after")]
        for client in clients:
            client.edit(typed("a")[0])
        assert clients[1].room is not None

        def fail() -> Steps[State]:
            yield
            raise ProtocolError("nonsense")

        document_of(clients[1].room).taking_state = fail  # type: ignore[method-assign]
        await asyncio.sleep(30)

        assert {one.document for snapshots in node.store.checkpointed for one in snapshots} == {"before", "after"}
        assert text_of(*await stored_updates(node.store, "bad")) == "a"


@in_virtual_time
async def test_the_document_of_an_unloaded_room_is_not_left_to_the_garbage_collector() -> None:
    async with running_node() as node:
        client = await connected(node)
        client.edit(typed("a")[0])
        await settle(client)
        gone = weakref.ref(document_of(client.room))
        gc.disable()
        try:
            await client.leave()
            del client
            await until(lambda: "room" not in node.rooms, timeout_s=200)
            # Whoever goes through all rooms now and then has the last one in hand until the next time.
            await connected(node, "other")
            await asyncio.sleep(COMPARE_S)

            assert gone() is None
        finally:
            gc.enable()


# ------------------------------------------------------------------------------------------------------- broken rooms


class _Broken:
    """A document in which nothing works any more."""

    waiting = ()

    def __init__(self, error: Exception) -> None:
        self._error = error

    def is_light(self, data: bytes) -> bool:
        return True

    def __getattr__(self, name: str) -> object:
        def fail(*_: object) -> None:
            raise self._error

        return fail


@pytest.mark.parametrize("store_fails", [False, True])
def test_a_broken_room_is_loaded_anew_with_everything_that_was_accepted(store_fails: bool) -> None:
    @in_virtual_time
    async def run() -> None:
        async with running_node() as node:
            alice, bob = await connected(node), await connected(node)
            for update in typed("accepted"):
                alice.edit(update)
            await settle(alice, bob)
            if store_fails:
                node.store.fail("append")
            alice.edit(Editor(5).type("!"))
            room = alice.room
            assert room is not None
            room._document = _Broken(DocumentBroken("a panic"))  # type: ignore[assignment]

            bob.edit(typed("b", client_id=9)[0])
            await settle(alice, bob)
            assert (alice.closed, bob.closed) == ((1011, "room reloading"), (1011, "room reloading"))
            with pytest.raises(RoomUnavailable):
                await connected(node)
            await alice.leave()
            await bob.leave()
            await asyncio.sleep(5)
            if store_fails:
                with pytest.raises(RoomUnavailable):
                    await connected(node)
                node.store.recover()
                await asyncio.sleep(5)
            await bob.connect(node)
            bob.ask_for_sync()
            await settle(bob)
            carol = await connected(node)

            assert carol.room is not room
            text = text_of(*carol.received)
            assert sorted(text) == sorted("accepted!b"), "bob had it still"

    run()


@in_virtual_time
async def test_the_sweeper_survives_a_room_in_which_everything_fails() -> None:
    async with running_node(room_idle_s=1) as node:
        bad, good = await connected(node, "bad"), await connected(node, "good")
        assert bad.room is not None
        for client in (bad, good):
            client.edit(typed("a")[0])
        bad.room._document = _Broken(ZeroDivisionError("a bug"))  # type: ignore[assignment]

        await asyncio.sleep(30)
        await bad.leave()
        await good.leave()
        await asyncio.sleep(30)

        assert bad.closed == (1011, "room reloading")
        assert len(node.rooms) == 0
        assert text_of(*(await connected(node, "bad")).received) == "a"


@in_virtual_time
async def test_a_client_that_breaks_the_room_again_and_again_loses_nobody_anything() -> None:
    async with running_node() as node:
        real = Document.apply
        poison = typed("p", client_id=66)[0]

        def apply(document: Document, data: bytes) -> object:
            if data == poison:
                raise UpdateBreaksDocument("a panic")
            return real(document, data)

        Document.apply = apply  # type: ignore[method-assign, assignment]
        try:
            editor, alice = Editor(1), Client()
            for _ in range(5):
                await alice.connect(node)
                alice.ask_for_sync()
                await settle(alice)
                mallory = await connected(node)
                alice.edit(editor.type("x"))
                mallory.say(encode_update(poison))
                await settle(alice, mallory)
                assert mallory.closed == (4400, "malformed update")
                assert alice.closed == (1011, "room reloading")
                await alice.leave()
                await mallory.leave()
                await asyncio.sleep(3)
            assert text_of(*(await connected(node)).received) == "xxxxx"
        finally:
            Document.apply = real  # type: ignore[method-assign]


# ------------------------------------------------------------------------------------------------------- draining


@in_virtual_time
async def test_closing_stores_everything_and_tells_everyone_to_come_back() -> None:
    node = await Node().start()
    clients = [await connected(node, f"room-{n}") for n in range(20)]
    node.store.hold("append")
    for client in clients:
        client.edit(typed("ab")[0])
    await turns()
    for client in clients:
        client.edit(typed("ab")[1])
    node.store.let_go("append")

    unstored = await node.stop()
    await turns()

    assert unstored == []
    assert [client.closed for client in clients] == [(1012, "server restarting")] * 20
    await node.store.open()
    for n in range(20):
        stored = await node.store.load(f"room-{n}")
        assert stored.snapshot is not None
        assert (text_of(stored.snapshot.state), stored.updates) == ("ab", ())
    for client in clients:
        await client.leave()


@in_virtual_time
async def test_closing_stores_at_once_what_no_snapshot_waits_for() -> None:
    node = await Node(journal_interval_s=8).start()
    client = await connected(node)
    for update in typed("ab"):
        client.edit(update)
        await turns()
    assert client.room is not None
    client.room.compactable = False
    loop = asyncio.get_running_loop()
    began = loop.time()

    unstored = await node.stop()

    assert (unstored, loop.time() - began) == ([], 0)
    assert text_of(*await stored_updates(node.store, "room")) == "ab"
    await client.leave()


@in_virtual_time
async def test_closing_with_a_failing_store_ends_in_time_and_names_what_is_lost() -> None:
    node = await Node(drain_deadline_s=10).start()
    loop = asyncio.get_running_loop()
    safe, lost, lost_too = [await connected(node, name) for name in ("safe", "z-lost", "lost")]
    safe.edit(typed("a")[0])
    await asyncio.sleep(1)
    node.store.fail("append")
    for client in (lost, lost_too):
        client.edit(typed("a")[0])
    began = loop.time()

    unstored = await node.stop()

    assert unstored == ["lost", "z-lost"]
    assert loop.time() - began <= 10.1
    for client in (safe, lost, lost_too):
        await client.leave()


@in_virtual_time
async def test_closing_with_a_hanging_store_ends_in_time() -> None:
    node = await Node(drain_deadline_s=3).start()
    client = await connected(node)
    node.store.hold("append")
    node.store.hold("checkpoint")
    client.edit(typed("a")[0])

    unstored = await node.stop()

    assert unstored == ["room"]
    await client.leave()


@in_virtual_time
async def test_closing_with_a_store_that_takes_no_snapshots_loses_nothing() -> None:
    node = await Node().start()
    client = await connected(node)
    client.edit(typed("a")[0])
    node.store.fail("checkpoint")

    unstored = await node.stop()

    assert unstored == []
    assert text_of(*await stored_updates(node.store, "room")) == "a"
    await client.leave()


@in_virtual_time
async def test_a_node_that_closes_takes_nobody_any_more() -> None:
    node = await Node().start()
    node.store.hold("load")
    waiting = asyncio.create_task(connected(node, "slow"))
    await turns()

    await node.stop()
    node.store.let_go("load")

    with pytest.raises(Draining):
        await waiting
    with pytest.raises(Draining):
        await connected(node, "new")


# ------------------------------------------------------------------------------------------------------- for real


async def test_a_killed_node_loses_nothing_that_it_confirmed_and_leaves_its_author_out_of_it(tmp_path: Path) -> None:
    """SQLite, real time, and an author who never comes back."""
    url = f"sqlite:///{tmp_path}/documents.db"
    node = await Node(open_store(url), journal_interval_s=0.01, checkpoint_interval_s=0.05).start()
    author, editor = await connected(node), Editor(1)
    confirmed = 0

    for n in range(200):
        author.edit(editor.type("x"))
        author.ask_for_confirm(b"%d" % n)
        await asyncio.sleep(0.002)
        author.read()
        confirmed = len(author.confirmed)
    await node.kill()
    await author.leave()
    await node.store.close()

    assert confirmed > 20
    after = await Node(open_store(url)).start()
    reader = await connected(after)
    assert len(text_of(*reader.received)) >= confirmed
    await reader.leave()
    await after.kill()
    await after.store.close()


def test_a_load_that_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    @in_virtual_time
    async def run() -> None:
        async with running_node() as node:
            node.store.fail("load", times=1)
            with pytest.raises(RoomUnavailable):
                await connected(node)

    with caplog.at_level(logging.INFO, logger="crdt_sync"):
        run()

    assert [record.message for record in caplog.records] == ["room_load_failed"]


def test_only_rooms_that_are_loaded_are_held() -> None:
    @in_virtual_time
    async def run() -> None:
        async with running_node() as node, node.rooms.hold("room") as room:
            assert isinstance(room, Room)
            assert "room" in node.rooms

    run()


@in_virtual_time
async def test_a_quarantined_update_is_kept_and_not_taken_in() -> None:
    store = MemoryStore()
    harmless, poison = Editor(1).type("a"), Editor(2).type("!")
    async with running_node(store) as node:
        await store.append([Entry("room", [poison, harmless], accepted_at=datetime.now(UTC))])
        await store.quarantine("room", digest(poison), at=datetime.now(UTC))

        ann = await connected(node)

        assert text_of(*ann.received) == "a"
        assert document_of(ann.room).waiting == (poison,)


@in_virtual_time
async def test_a_room_whose_stored_state_is_quarantined_is_refused_rather_than_shown_empty() -> None:
    store = MemoryStore()
    async with running_node(store) as node:
        update = Editor(1).type("!")
        await store.append([Entry("room", [update], accepted_at=datetime.now(UTC))])
        await store.checkpoint([Snapshot("room", seq=1, state=update, state_vector=b"\x01\x01\x01")])
        await store.quarantine("room", digest(update), at=datetime.now(UTC))

        with pytest.raises(RoomUnavailable, match="quarantined"):
            await connected(node)
