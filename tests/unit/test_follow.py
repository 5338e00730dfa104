"""Nodes that share a bus: what reaches whom, what is made up for, and who stores what."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from crdt_sync import follow, pacing
from crdt_sync.awareness import ClientState
from crdt_sync.bus.memory import Hub, MemoryBus
from crdt_sync.document import digest
from crdt_sync.envelope import Kind, decode
from crdt_sync.follow import ADOPT_S
from crdt_sync.lib0 import write_var_uint
from crdt_sync.nodes import LEASE_S
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
    until,
)


class Cluster:
    """Some nodes on one store and one hub."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.hub = Hub()
        self.nodes: list[Node] = []
        self.lost: list[Kind] = []
        """Kinds of messages that don't arrive."""
        self.published: list[tuple[str, bytes]] = []

    def bus(self) -> MemoryBus:
        cluster = self

        class Bus(MemoryBus):
            def publish(self, room: str, message: bytes, *, keep: bool) -> None:
                cluster.published.append((room, message))
                super().publish(room, message, keep=keep)

            def send(self, bus: MemoryBus, room: str, message: bytes) -> None:
                if decode(message).kind not in cluster.lost:
                    super().send(bus, room, message)

        return Bus(self.hub, node=f"{len(self.hub.buses) + 1:016x}")

    async def join(self, n: int, name: str = "room") -> Client:
        client = await Client().connect(self.nodes[n], name)
        client.ask_for_sync()
        await settle(client)
        return client


@asynccontextmanager
async def cluster(count: int = 2, **options: Any) -> AsyncIterator[Cluster]:
    made = Cluster()
    async with AsyncExitStack() as stack:
        for _ in range(count):
            made.nodes.append(await stack.enter_async_context(running_node(made.store, make_bus=made.bus, **options)))
        yield made


def text_at(client: Client) -> str:
    return text_of(*client.received)


@in_virtual_time
async def test_an_edit_reaches_the_clients_of_another_node_at_once() -> None:
    async with cluster() as made:
        ann, bob = await made.join(0), await made.join(1)
        began = asyncio.get_running_loop().time()

        ann.edit(Editor(1).type("hello"))
        await settle(bob)

        assert text_at(bob) == "hello"
        assert asyncio.get_running_loop().time() == began


@in_virtual_time
async def test_an_update_is_stored_once_although_several_nodes_have_it() -> None:
    async with cluster(3) as made:
        clients = [await made.join(n) for n in range(3)]
        for n, client in enumerate(clients):
            client.edit(Editor(n + 1).type("x"))
            await asyncio.sleep(1)
        await asyncio.sleep(ADOPT_S * 2)

        assert (await made.store.load("room")).head_seq == 3


@in_virtual_time
async def test_no_node_has_to_read_from_the_store_what_it_heard() -> None:
    async with cluster(checkpoint_interval_s=1) as made:
        ann, bob = await made.join(0), await made.join(1)
        ann_types, bob_types = Editor(1), Editor(2)
        loads = [node.store.calls["load"] for node in made.nodes]
        for _ in range(30):
            ann.edit(ann_types.type("a"))
            bob.edit(bob_types.type("b"))
            await asyncio.sleep(0.33)
        await asyncio.sleep(3)

        assert [node.store.calls["load"] for node in made.nodes] == loads
        assert sorted(text_of(*await stored_updates(made.store, "room"))) == ["a"] * 30 + ["b"] * 30
        assert (await made.store.load("room")).updates == ()


@in_virtual_time
async def test_a_message_that_is_lost_is_found_in_the_log_when_the_next_one_comes() -> None:
    async with cluster() as made:
        ann, bob = await made.join(0), await made.join(1)
        types = Editor(1)
        made.lost = [Kind.UPDATES, Kind.STORED]
        ann.edit(types.type("lost "))
        await settle(bob)
        assert text_at(bob) == ""
        made.lost = []

        ann.edit(types.type("found"))
        await asyncio.sleep(0.2)
        await settle(bob)

        assert text_at(bob) == "lost found"
        assert [node.metrics.bus_gaps_repaired for node in made.nodes] == [0, 1]


@in_virtual_time
async def test_the_last_message_of_a_burst_is_missed_soon_although_none_follows() -> None:
    async with cluster() as made:
        ann, bob = await made.join(0), await made.join(1)
        made.lost = [Kind.UPDATES, Kind.STORED]
        ann.edit(Editor(1).type("last"))
        await asyncio.sleep(0.1)

        made.lost = [Kind.STORED]
        await asyncio.sleep(2.5)
        await settle(bob)

        assert text_at(bob) == "last"


@in_virtual_time
async def test_what_is_in_no_log_any_more_is_asked_for() -> None:
    async with cluster() as made:
        ann, bob = await made.join(0), await made.join(1)
        made.lost = [Kind.UPDATES, Kind.STORED]
        types = Editor(1)
        ann.edit(types.type("lost "))
        await asyncio.sleep(0)
        made.hub.flush()
        made.lost = []
        ann.edit(types.type("found"))
        await asyncio.sleep(1)
        await settle(bob)

        assert text_at(bob) == "lost found"
        assert [node.metrics.bus_gaps_repaired for node in made.nodes] == [0, 1]


@in_virtual_time
async def test_nodes_that_were_apart_agree_after_the_bus_is_back() -> None:
    async with cluster(3) as made:
        clients = [await made.join(n) for n in range(3)]
        for node in made.nodes:
            assert node.bus is not None
            node.bus.away = True
        editors = [Editor(n + 1) for n in range(3)]
        for n in range(3):
            for _ in range(10):
                clients[n].edit(editors[n].type(str(n)))
                await asyncio.sleep(0.1)
            clients[n].ask_for_confirm(b"%d" % n)
        await asyncio.sleep(1)
        await settle(*clients)
        assert [client.confirmed for client in clients] == [[b"0"], [b"1"], [b"2"]]

        for node in made.nodes:
            assert node.bus is not None
            node.bus.away = False
        await asyncio.sleep(4)
        await settle(*clients)

        assert {"".join(sorted(text_at(client))) for client in clients} == {"0" * 10 + "1" * 10 + "2" * 10}


@in_virtual_time
async def test_a_delete_that_was_missed_is_made_up_for() -> None:
    async with cluster() as made:
        ann, bob = await made.join(0), await made.join(1)
        types = Editor(1)
        ann.edit(types.type("hello"))
        await settle(bob)
        for node in made.nodes:
            assert node.bus is not None
            node.bus.away = True
        ann.edit(types.delete(0, 4))
        await asyncio.sleep(1)
        made.hub.flush()
        for node in made.nodes:
            assert node.bus is not None
            node.bus.away = False
        await asyncio.sleep(4)
        await settle(bob)

        assert text_at(bob) == "o"


# ---------------------------------------------------------------------------------------------------- storing for others


@in_virtual_time
async def test_what_a_killed_node_had_not_stored_is_stored_by_another_that_has_it() -> None:
    async with cluster() as made:
        ann, bob = await made.join(0), await made.join(1)
        made.nodes[0].store.hold("append")
        ann.edit(Editor(1).type("precious"))
        await settle(bob)
        await made.nodes[0].kill()

        await asyncio.sleep(LEASE_S + 2)

        assert text_of(*await stored_updates(made.store, "room")) == "precious"
        assert (await made.store.load("room")).head_seq == 1


@in_virtual_time
async def test_what_a_killed_node_had_not_stored_is_found_by_whoever_opens_the_room() -> None:
    async with cluster() as made:
        ann = await made.join(0)
        made.nodes[0].store.hold("append")
        ann.edit(Editor(1).type("precious"))
        await asyncio.sleep(0)
        await made.nodes[0].kill()

        bob = await made.join(1)
        await asyncio.sleep(ADOPT_S + 2)

        assert text_at(bob) == "precious"
        assert text_of(*await stored_updates(made.store, "room")) == "precious"


@in_virtual_time
async def test_what_a_killed_node_had_not_stored_is_brought_home_although_nobody_opens_the_room() -> None:
    async with cluster() as made:
        ann = await made.join(0)
        made.nodes[0].store.hold("append")
        ann.edit(Editor(1).type("precious"))
        await asyncio.sleep(0)
        await made.nodes[0].kill()

        await asyncio.sleep(20)

        assert text_of(*await stored_updates(made.store, "room")) == "precious"
        assert made.hub.marked_at == {}
        await until(lambda: len(made.nodes[1].rooms) == 0)


@in_virtual_time
async def test_a_confirmation_waits_for_what_another_node_has_not_stored_yet() -> None:
    """The author reconnects to another node, repeats its edit there, and asks."""
    async with cluster() as made:
        ann, bob = await made.join(0), await made.join(1)
        made.nodes[0].store.hold("append")
        update = Editor(1).type("precious")
        ann.edit(update)
        await settle(bob)

        bob.edit(update)
        bob.ask_for_confirm(b"?")
        await asyncio.sleep(1)
        await settle(bob)
        early = list(bob.confirmed)
        await made.nodes[0].kill()
        await asyncio.sleep(LEASE_S + 1)
        await settle(bob)

        assert early == []
        assert bob.confirmed == [b"?"]
        assert text_of(*await stored_updates(made.store, "room")) == "precious"


@in_virtual_time
async def test_marks_go_when_everything_is_stored() -> None:
    async with cluster() as made:
        ann = await made.join(0)
        made.nodes[0].store.hold("append")
        ann.edit(Editor(1).type("x"))
        await asyncio.sleep(0.1)
        during = set(made.hub.marked_at)
        made.nodes[0].store.let_go("append")
        await asyncio.sleep(1)

        assert during == {("room", f"{1:016x}")}
        assert made.hub.marked_at == {}


# ------------------------------------------------------------------------------------------- found by the simulation


def set_away(made: Cluster, away: bool, *only: int) -> None:
    for n, node in enumerate(made.nodes):
        if node.bus is not None and (not only or n in only):
            node.bus.away = away


@in_virtual_time
async def test_what_a_node_stored_while_the_bus_was_away_is_seen_elsewhere_although_the_node_is_gone() -> None:
    async with cluster() as made:
        ann, bob = await made.join(0), await made.join(1)
        set_away(made, True)
        ann.edit(Editor(1).type("confirmed"))
        await asyncio.sleep(1)
        await made.nodes[0].kill()
        set_away(made, False, 1)

        await asyncio.sleep(5)
        await settle(bob)

        assert text_at(bob) == "confirmed"


@in_virtual_time
async def test_the_same_when_the_room_was_unloaded_there() -> None:
    async with cluster(room_idle_s=1) as made:
        ann, bob = await made.join(0), await made.join(1)
        set_away(made, True)
        ann.edit(Editor(1).type("confirmed"))
        await asyncio.sleep(1)
        await ann.leave()
        await until(lambda: "room" not in made.nodes[0].rooms)
        set_away(made, False)

        await asyncio.sleep(5)
        await settle(bob)

        assert text_at(bob) == "confirmed"


@in_virtual_time
async def test_a_room_is_not_given_up_before_others_could_notice_that_they_missed_something() -> None:
    async with cluster(room_idle_s=1) as made:
        ann, bob = await made.join(0), await made.join(1)
        made.lost = list(Kind)
        ann.edit(Editor(1).type("missed"))
        await ann.leave()
        await asyncio.sleep(5)
        made.lost = []

        await asyncio.sleep(8)
        await settle(bob)

        assert text_at(bob) == "missed"


@in_virtual_time
async def test_a_node_that_was_taken_for_gone_and_comes_back_is_asked() -> None:
    async with cluster() as made:
        ann, bob = await made.join(0), await made.join(1)
        made.lost = list(Kind)
        ann.edit(Editor(1).type("missed"))
        await asyncio.sleep(70)
        made.hub.flush()
        made.lost = []

        await asyncio.sleep(5)
        await settle(bob)

        assert text_at(bob) == "missed"


@in_virtual_time
async def test_a_snapshot_holds_nothing_that_no_row_has() -> None:
    """Whoever loaded it would take that for stored; and it may be replaced by a snapshot that lacks it."""
    async with cluster(checkpoint_interval_s=0.5) as made:
        ann, bob = await made.join(0), await made.join(1)
        made.nodes[0].store.hold("append")
        ann.edit(Editor(1).type("unstored "))
        await settle(bob)
        bob.edit(Editor(2).type("stored "))

        while not made.nodes[1].store.checkpointed:
            await asyncio.sleep(0.1)

        rows = [update for entries in made.nodes[1].store.appended for one in entries for update in one.updates]
        assert sorted(text_of(*rows).split()) == ["stored", "unstored"], "it was adopted before"


@in_virtual_time
async def test_reading_ones_own_commit_before_its_answer_comes_is_no_loss_of_the_store(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    async with running_node(store) as one, running_node(store) as two:
        ann, bob = await Client().connect(one), await Client().connect(two)
        two.store.answers_after_s["append"] = 2
        types = Editor(2)
        ann.edit(Editor(1).type("ann "))
        await one.journal.flush()
        for _ in range(3):
            bob.edit(types.type("bob "))
            await asyncio.sleep(2.5)
        await asyncio.sleep(5)

        assert [record.message for record in caplog.records] == []


def cut(made: Cluster) -> set[tuple[int, int]]:
    """From which node to which nothing gets through: a set to change."""
    pairs: set[tuple[int, int]] = set()
    buses = [node.bus for node in made.nodes if node.bus is not None]

    def meddle(one: int, send: Callable[[MemoryBus, str, bytes], None]) -> Callable[[MemoryBus, str, bytes], None]:
        def meddled(to: MemoryBus, room: str, message: bytes) -> None:
            if (one, buses.index(to)) not in pairs:
                send(to, room, message)

        return meddled

    for one, bus in enumerate(buses):
        bus.send = meddle(one, bus.send)  # type: ignore[method-assign]
    return pairs


async def lose_and_find(made: Cluster) -> None:
    """The first node doesn't hear the second for a while; then all that it asks is lost."""
    pairs = cut(made)
    pairs.add((1, 0))
    await asyncio.sleep(LEASE_S + 2)
    made.lost = [Kind.ASK]
    pairs.clear()
    await asyncio.sleep(4)
    made.lost = []
    await asyncio.sleep(20)


@in_virtual_time
async def test_a_node_that_was_found_again_is_told_who_comes_even_if_it_was_not_heard_of_in_the_room() -> None:
    async with cluster() as made:
        ann, bob = await made.join(0), await made.join(1)
        await lose_and_find(made)
        ann.announce(ClientState(1, 1, b'{"user":"Ann"}'))
        await asyncio.sleep(1)
        await settle(ann, bob)

        assert set(bob.visible) == {1}


@in_virtual_time
async def test_a_node_that_was_found_again_is_told_how_far_others_have_counted() -> None:
    async with cluster() as made:
        ann, bob = await made.join(0), await made.join(1)
        await lose_and_find(made)
        made.lost = [Kind.UPDATES]
        ann.edit(Editor(1).type("last"))
        await asyncio.sleep(0.5)
        made.lost = []
        await asyncio.sleep(5)
        await settle(bob)

        assert text_at(bob) == "last"


@in_virtual_time
async def test_a_node_that_is_heard_late_for_the_first_time_is_asked_what_it_has_said_before() -> None:
    async with cluster() as made:
        pairs = cut(made)
        pairs.add((0, 1))
        nodes = made.nodes[1].rooms.nodes
        assert nodes is not None
        nodes._heard_at.clear()  # as if it had been deaf from its start
        bob = await made.join(1)
        await asyncio.sleep(2)
        ann = await made.join(0)
        ann.edit(Editor(1).type("missed"))
        await asyncio.sleep(5)
        pairs.clear()
        await asyncio.sleep(5)
        await settle(bob)

        assert text_at(bob) == "missed"


# ------------------------------------------------------------------------------------------------------------- presence


@in_virtual_time
async def test_a_joiner_sees_at_once_who_is_on_other_nodes() -> None:
    async with cluster() as made:
        ann = await made.join(0)
        ann.announce(ClientState(1, 1, b'{"user":"Ann"}'))
        bob = await made.join(1)
        bob.announce(ClientState(2, 1, b'{"user":"Bob"}'))
        await asyncio.sleep(0.2)
        await settle(ann, bob)

        both = {1: b'{"user":"Ann"}', 2: b'{"user":"Bob"}'}
        assert (ann.visible, bob.visible) == (both, both)


@in_virtual_time
async def test_users_of_a_killed_node_are_gone_within_seconds() -> None:
    async with cluster(awareness_grace_s=2) as made:
        ann, bob = await made.join(0), await made.join(1)
        ann.announce(ClientState(1, 1, b'{"user":"Ann"}'))
        await asyncio.sleep(0.2)
        await settle(bob)
        assert set(bob.visible) == {1}

        await made.nodes[0].kill()
        await asyncio.sleep(LEASE_S + 2 + 2)
        await settle(bob)

        assert bob.visible == {}


@in_virtual_time
async def test_a_user_who_hops_to_another_node_within_the_grace_does_not_flicker() -> None:
    async with cluster(3, awareness_grace_s=5) as made:
        ann, watchers = await made.join(0), [await made.join(n) for n in range(3)]
        state = ClientState(1, 7, b'{"user":"Ann"}')
        ann.announce(state)
        await asyncio.sleep(0.2)
        await settle(*watchers)

        await ann.leave(properly=False)
        await asyncio.sleep(1)
        back = await made.join(1)
        back.announce(state)
        for _ in range(20):
            await asyncio.sleep(0.5)
            await settle(*watchers)
            assert [set(watcher.visible) for watcher in watchers] == [{1}] * 3
        await back.leave(properly=True)
        await asyncio.sleep(2)
        await settle(*watchers)

        assert [watcher.visible for watcher in watchers] == [{}] * 3


@in_virtual_time
async def test_a_user_who_stays_stays_visible_on_other_nodes() -> None:
    async with cluster() as made:
        ann, bob = await made.join(0), await made.join(1)
        for clock in range(1, 8):
            ann.announce(ClientState(1, clock, b'{"user":"Ann"}'))
            await asyncio.sleep(15)
            await settle(bob)
            assert set(bob.visible) == {1}
        assert bob.people[1].clock == 7, "renewals are passed on"


# ---------------------------------------------------------------------------------------------------------------- traffic


@in_virtual_time
async def test_rooms_where_nothing_happens_say_nothing() -> None:
    async with cluster() as made:
        await made.join(0)
        await made.join(1)
        await asyncio.sleep(30)
        made.published.clear()
        await asyncio.sleep(60)

        assert {decode(message).kind for _, message in made.published} == {Kind.ALIVE}


@in_virtual_time
async def test_an_edit_costs_a_bounded_number_of_messages_and_never_a_whole_document() -> None:
    async with cluster() as made:
        ann, bob = await made.join(0), await made.join(1)
        types = Editor(1)
        ann.edit(types.type("x" * 100_000))
        await asyncio.sleep(30)
        await settle(bob)
        kept_before = len(made.hub.logs["room"])
        made.published.clear()
        ann.edit(types.type("y"))
        await asyncio.sleep(30)
        await settle(bob)

        sizes = [len(message) for room, message in made.published if room]
        assert text_at(bob).endswith("y")
        assert len(made.hub.logs["room"]) == kept_before + 1
        assert len(sizes) <= 7
        assert max(sizes) < 200


@in_virtual_time
async def test_openings_of_a_room_elsewhere_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "SOURCES_MAX", 10)
    async with cluster(room_idle_s=0) as made:
        ann = await made.join(0)
        for n in range(3, 3 + 30):
            bob = await made.join(1)
            bob.edit(Editor(n).type("b"))
            await bob.leave()
            await until(lambda: "room" not in made.nodes[1].rooms)
        await asyncio.sleep(2)
        await settle(ann)

        follower = made.nodes[0].rooms._entries["room"].follower
        assert follower is not None
        assert len(follower._sources) <= 10
        assert text_at(ann) == "b" * 30


@in_virtual_time
async def test_what_took_a_process_down_is_refused_at_once_where_the_room_is_open() -> None:
    async with cluster() as made:
        ann, bob = await made.join(0), await made.join(1)
        poison = Editor(1).type("!")
        nodes = made.nodes[0].rooms.nodes
        assert nodes is not None

        nodes.tell(Kind.QUARANTINED, digest(poison) + b"room")
        await asyncio.sleep(1)
        bob.edit(poison)
        await settle(ann, bob)

        assert bob.closed == (4400, "malformed update")
        assert text_at(ann) == ""


@in_virtual_time
async def test_a_large_update_of_another_node_is_taken_in_in_steps_and_confirmed_when_it_is_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with cluster() as made:
        ann, bob = await made.join(0), await made.join(1)
        head = b"\x01" + write_var_uint(3000) + b"\x07\x00\x04\x01\x04text\x01x"
        large = head + b"".join(b"\x44\x07" + write_var_uint(n) + b"\x01y" for n in range(2999)) + b"\x00"
        ann.edit(large)
        await ann.delivered()
        monkeypatch.setattr(pacing, "SLICE_S", 0)
        assert bob.room is not None
        room = bob.room
        # By turns of the loop: no time passes while there is something to do.
        while room.settled:
            await turns(1)
        bob.edit(Editor(9).type("b"))
        bob.ask_for_confirm(b"?")
        await turns(20)
        in_the_middle = (list(bob.confirmed), room.settled)
        await asyncio.sleep(30)
        await settle(ann, bob)

        assert in_the_middle == ([], False)
        assert len(text_at(ann)) == len(text_at(bob)) == 3001
        assert bob.confirmed == [b"?"]


@in_virtual_time
async def test_who_is_back_after_long_hears_of_users_of_other_nodes_under_new_clocks() -> None:
    async with cluster() as made:
        ann = await made.join(0)
        ann.announce(ClientState(1, 4, b'{"user":"Ann"}'))
        await asyncio.sleep(2)
        # Nobody remembers it. It remembers the clock of Ann, as y-websocket does, and takes no other state.
        bob = await made.join(1)
        await asyncio.sleep(2)
        await settle(bob)
        known = bob.people[1].clock

        bob.announce(ClientState(2, 9, b'{"user":"Bob"}'))
        await asyncio.sleep(2)
        await settle(bob)

        assert bob.people[1] == ClientState(1, known + 1, b'{"user":"Ann"}')
