"""One open document and everyone who has it open. Real rooms, store and journal; time and sockets are played."""

import asyncio
from collections import Counter

import pytest

from crdt_sync import pacing
from crdt_sync.awareness import ClientState
from crdt_sync.connection import Relayed, Wants
from crdt_sync.document import Document, Outcome
from crdt_sync.errors import (
    DocumentBroken,
    MalformedUpdate,
    ProtocolError,
    RoomFull,
    UpdateBreaksDocument,
    UpdateTooHeavy,
)
from crdt_sync.lib0 import write_var_bytes, write_var_uint
from crdt_sync.pacing import Steps
from crdt_sync.protocol import encode_step_1, encode_update
from crdt_sync.room import SHARED_MAX, SHARED_S
from crdt_sync.update import STRANGERS_MAX, write_state_vector
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

ALICE, BOB = 11, 22


def state(client: int, clock: int, text: bytes = b'{"name":"x"}') -> ClientState:
    return ClientState(client, clock, text)


async def joined(node: Node, count: int) -> list[Client]:
    """Clients that have joined and synced."""
    clients = [await Client().connect(node) for _ in range(count)]
    for client in clients:
        client.ask_for_sync()
    await settle(*clients)
    return clients


# ------------------------------------------------------------------------------------------------------- joining


@in_virtual_time
async def test_a_newcomer_hears_at_once_what_the_room_has_and_who_is_here() -> None:
    async with running_node() as node:
        (alice,) = await joined(node, 1)
        alice.edit(typed("a")[0])
        alice.announce(state(ALICE, 1))
        bob = await Client().connect(node)

        await turns()

        assert encode_step_1(b"\x01\x01\x01") in bob.transport.frames
        bob.read()
        assert bob.visible == {ALICE: b'{"name":"x"}'}
        assert not bob.synced


async def encoding(node: Node) -> list[bytes]:
    """Will have the state vectors for which the room's document is encoded from now on."""
    native = document_of(await node.room())._native
    encode = native.encode
    asked: list[bytes] = []

    def counted(state_vector: bytes) -> bytes:
        asked.append(state_vector)
        return encode(state_vector)

    native.encode = counted  # type: ignore[method-assign]
    return asked


def edits(count: int) -> list[bytes]:
    editor = Editor(1)
    return [editor.type(f"{n} ") for n in range(count)]


@in_virtual_time
async def test_for_a_hundred_who_join_at_once_the_document_is_encoded_once() -> None:
    async with running_node() as node:
        (alice,) = await joined(node, 1)
        alice.edit(edits(1)[0])
        await settle(alice)
        encoded = await encoding(node)

        newcomers = await joined(node, 100)

        assert encoded == [b"\0"]
        assert all(text_of(*one.received) == "0 " for one in newcomers)


@in_virtual_time
async def test_who_joins_with_the_same_shares_the_bytes_of_one_frame() -> None:
    async with running_node() as node:
        (alice,) = await joined(node, 1)
        alice.edit(edits(1)[0])
        room = await node.room()
        newcomer = Wants(b"\0", step_2=True, who=False, behind=False)

        answers = await asyncio.gather(room.catch_up(newcomer), room.catch_up(newcomer))

        assert answers[0][0] is answers[1][0]
        assert type(answers[0][0]) is Relayed


@in_virtual_time
async def test_those_who_come_back_with_the_same_are_told_the_same() -> None:
    async with running_node() as node:
        (alice,) = await joined(node, 1)
        first, second = edits(2)
        alice.edit(first)
        others = await joined(node, 10)
        for one in others:
            await one.leave()
        alice.edit(second)
        await settle(alice)
        encoded = await encoding(node)

        for one in others:
            await one.connect(node)
            one.ask_for_sync()
        await settle(alice, *others)

        assert encoded == [b"\1\1\2"]
        assert {text_of(*one.received) for one in others} == {"0 1 "}


@in_virtual_time
async def test_who_joins_after_a_change_is_told_of_it() -> None:
    async with running_node() as node:
        first, second = edits(2)
        (alice,) = await joined(node, 1)
        alice.edit(first)
        await joined(node, 1)

        alice.edit(second)
        (after,) = await joined(node, 1)

        assert text_of(*after.received) == "0 1 "


@in_virtual_time
@pytest.mark.parametrize("later", range(4))
async def test_what_changes_while_an_answer_is_made_is_in_the_next_one(
    monkeypatch: pytest.MonkeyPatch, later: int
) -> None:
    monkeypatch.setattr(pacing, "SLICE_S", 0)
    async with running_node() as node:
        first, second = edits(2)
        (alice,) = await joined(node, 1)
        alice.edit(first)
        await settle(alice)
        bob = await Client().connect(node)
        bob.ask_for_sync()
        await turns(later)
        alice.edit(second)

        (carol,) = await joined(node, 1)

        await settle(bob)
        assert text_of(*bob.received) == text_of(*carol.received) == "0 1 "


@in_virtual_time
async def test_an_answer_is_kept_for_a_few_seconds_only() -> None:
    async with running_node() as node:
        await joined(node, 1)
        encoded = await encoding(node)

        await asyncio.sleep(SHARED_S + 2)
        await joined(node, 1)

        assert encoded == [b"\0"]


@in_virtual_time
async def test_answers_are_kept_for_a_few_state_vectors_only() -> None:
    async with running_node() as node:
        (alice,) = await joined(node, 1)
        alice.edit(edits(1)[0])
        await settle(alice)
        client = alice.replica.state_vector()[1:-1]
        asked = [b"\1" + client + bytes([clock]) for clock in range(2)] + [
            b"\1" + write_var_uint(stranger) + b"\1" for stranger in range(900, 904)
        ]
        encoded = await encoding(node)

        for state_vector in 2 * asked:
            alice.say(encode_step_1(state_vector))
            await settle(alice)

        assert len(encoded) == 2 * len(asked) - SHARED_MAX


@in_virtual_time
async def test_what_waits_is_shown_to_nobody_before_it_is_released() -> None:
    async with running_node() as node:
        one, two, three, four = typed("abcd")
        (alice, cy) = await joined(node, 2)
        for update in (one, two, four):
            alice.say(encode_update(update))

        (bob,) = await joined(node, 1)

        await settle(cy)
        assert cy.received[-2:] == [one, two]
        assert bob.synced
        assert text_of(*bob.received) == "ab"
        assert bob.replica.waiting == ()
        alice.say(encode_update(three))
        await settle(bob, cy)
        assert bob.received[-2:] == cy.received[-2:] == [three, four]
        assert text_of(*bob.received) == "abcd"


@in_virtual_time
async def test_edits_made_offline_arrive_when_the_client_is_back() -> None:
    async with running_node() as node:
        (alice, bob) = await joined(node, 2)
        await bob.leave()
        for update in typed("offline"):
            bob.author(update)

        await bob.connect(node)
        bob.ask_for_sync()
        await settle(alice, bob)

        assert text_of(*alice.received) == "offline"


@in_virtual_time
async def test_edits_made_offline_arrive_although_the_client_is_behind_from_its_first_frame_on() -> None:
    async with running_node(outbox_bytes_max=1024) as node:
        (alice,) = await joined(node, 1)
        bob = Client()
        bob.author(Editor(5).type("offline"))
        await bob.connect(node, window=0)
        editor = Editor(9)
        for _ in range(3):
            alice.edit(editor.type("x" * 600))
        await turns(1)
        assert bob.connection.behind

        bob.ask_for_sync()
        bob.transport.resume()
        await settle(alice, bob)

        assert "offline" in text_of(*alice.received)


# ------------------------------------------------------------------------------------------------------- relaying


@in_virtual_time
async def test_an_update_reaches_the_others_at_the_end_of_the_turn_and_as_received() -> None:
    async with running_node() as node:
        alice, bob, carol = await joined(node, 3)
        update = typed("a")[0]

        alice.edit(update)
        await turns(2)

        frame = encode_update(update)
        assert (alice.transport.frames, bob.transport.frames, carol.transport.frames) == ([], [frame], [frame])


@in_virtual_time
async def test_a_repeat_is_neither_relayed_nor_stored() -> None:
    async with running_node() as node:
        alice, bob = await joined(node, 2)
        editor = Editor(1)
        alice.edit(editor.type("hello"))
        alice.edit(editor.delete(1, 2))
        await settle(alice, bob)
        await asyncio.sleep(1)
        stored = (await node.store.load("room")).head_seq

        bob.say(encode_update(alice.received[0]))
        bob.say(b"\x00\x01" + encode_update(alice.replica.diff(b"\x00"))[2:])
        await turns()
        await asyncio.sleep(1)

        assert alice.transport.frames == []
        assert (await node.store.load("room")).head_seq == stored == 2


@in_virtual_time
async def test_a_client_that_does_not_read_holds_up_nobody_and_is_complete_once_it_reads() -> None:
    async with running_node(outbox_bytes_max=4096) as node:
        slow, alice, bob = await joined(node, 3)
        slow.transport.block()
        editor, most = Editor(1), 0

        for _ in range(300):
            alice.edit(editor.type("x" * 100))
            most = max(most, slow.connection.outbox_bytes)
            await settle(alice, bob, rounds=1)
        assert len(text_of(*bob.received)) == 30_000
        assert most <= 4096
        assert slow.connection.behind

        slow.transport.resume()
        await settle(slow)

        assert text_of(*slow.received) == text_of(*bob.received)
        assert sum(map(len, slow.transport.take())) == 0


@in_virtual_time
async def test_what_waited_in_the_outbox_when_it_overflowed_is_in_the_difference() -> None:
    """However much time passes: what is only on its way doesn't count as what the client has."""
    async with running_node(outbox_bytes_max=1024) as node:
        slow, alice = await joined(node, 2)
        slow.transport.block()
        editor = Editor(1)
        for _ in range(3):
            alice.edit(editor.type("waits "))
            await asyncio.sleep(2)

        alice.edit(editor.type("x" * 2000))
        slow.transport.resume()
        await settle(slow, alice)

        assert text_of(*slow.received) == "waits " * 3 + "x" * 2000


@in_virtual_time
async def test_a_client_that_never_asked_gets_everything_when_it_has_to_catch_up() -> None:
    async with running_node(outbox_bytes_max=1024) as node:
        (alice,) = await joined(node, 1)
        editor = Editor(1)
        alice.edit(editor.type("before "))
        silent = await Client().connect(node)
        await settle(alice)
        await asyncio.sleep(5)

        alice.edit(editor.type("x" * 2000))
        await turns()
        silent.read()

        assert text_of(*silent.received) == "before " + "x" * 2000


@in_virtual_time
async def test_a_client_that_was_behind_gets_the_difference_and_not_everything() -> None:
    async with running_node(outbox_bytes_max=4096) as node:
        slow, alice = await joined(node, 2)
        editor = Editor(1)
        alice.edit(editor.type("known " * 5000))
        await settle(slow, alice)
        await asyncio.sleep(2)
        alice.edit(editor.type("."))
        await settle(slow, alice)
        slow.received.clear()
        slow.transport.block()
        for _ in range(10):
            alice.edit(editor.type("new " * 200))
            await turns(2)

        slow.transport.resume()
        await settle(slow)

        assert sum(map(len, slow.received)) < 15_000
        assert slow.replica.state_vector() == alice.replica.state_vector()


@in_virtual_time
async def test_a_client_that_reads_nothing_for_long_is_told_to_come_back_later() -> None:
    async with running_node(slow_reader_timeout_s=10) as node:
        slow, alice = await joined(node, 2)
        slow.transport.block()
        alice.edit(typed("a")[0])

        await asyncio.sleep(9)
        early = slow.connection.closing
        await asyncio.sleep(3)

        assert early is None
        assert slow.connection.closing == (1013, "too slow a reader")
        await slow.leave()
        await alice.leave()


@in_virtual_time
async def test_a_quiet_client_is_sent_something_before_it_thinks_that_the_line_is_dead() -> None:
    async with running_node() as node:
        (alice,) = await joined(node, 1)
        loop = asyncio.get_running_loop()
        heard_at, longest = loop.time(), 0.0

        for _ in range(600):
            await asyncio.sleep(0.5)
            if alice.transport.take():
                longest, heard_at = max(longest, loop.time() - heard_at), loop.time()

        assert 20 <= longest < 22


# ------------------------------------------------------------------------------------------------------- refusing


@in_virtual_time
async def test_a_malformed_update_is_seen_by_nobody() -> None:
    async with running_node() as node:
        alice, bob = await joined(node, 2)

        alice.say(encode_update(b"\x01\x01\x01\x00\x00\x00\x00"))
        await turns()

        assert isinstance(alice.error, MalformedUpdate)
        assert alice.closed == (4400, "malformed update")
        assert (bob.transport.frames, bob.closed) == ([], None)
        await asyncio.sleep(1)
        assert (await node.store.load("room")).head_seq == 0
        await alice.leave()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x00\x02\x01", 4400),
        (b"\x00\x00\x02\x01\x01", 4400),
        (b"\x01\x02\x01\x01", 4400),
        (b"\x01\x07\x01\x01\x01\x03NaN", 4400),
        (b"\x03" * 2000, 4400),
        (b"\x00" * 2000, 1009),
    ],
)
def test_what_is_not_in_the_protocol_closes_the_connection(frame: bytes, code: int) -> None:
    @in_virtual_time
    async def run() -> None:
        async with running_node(message_bytes_max=1024 if code == 1009 else 4096) as node:
            alice, bob = await joined(node, 2)

            alice.say(frame)
            await turns()

            assert alice.closed is not None
            assert alice.closed[0] == code
            assert bob.closed is None
            await alice.leave()

    run()


@in_virtual_time
async def test_what_a_frame_said_before_its_error_stands() -> None:
    async with running_node() as node:
        alice, bob = await joined(node, 2)
        update = typed("a")[0]

        alice.say(encode_update(update) + encode_update(b"\x01"))
        await settle(bob)

        assert isinstance(alice.error, ProtocolError)
        assert text_of(*bob.received) == "a"
        await alice.leave()


@in_virtual_time
async def test_too_much_that_waits_is_refused_and_a_complete_sync_helps() -> None:
    async with running_node(waiting_bytes_max=3000) as node:
        alice, bob = await joined(node, 2)
        updates = typed("abcdef")
        for update in updates:
            alice.author(update)

        for update in updates[1:]:
            alice.say(encode_update(update))
        assert isinstance(alice.error, RoomFull)
        await settle(alice)
        assert alice.closed == (1013, "room full")
        await alice.leave()
        await alice.connect(node)
        await settle(alice, bob)

        assert text_of(*bob.received) == "abcdef"


@in_virtual_time
async def test_a_store_that_is_behind_refuses_edits_and_keeps_what_it_took() -> None:
    async with running_node(unstored_bytes_max=2048, message_bytes_max=1024) as node:
        alice, bob = await joined(node, 2)
        node.store.fail("append")
        editor = Editor(1)

        for _ in range(30):
            alice.edit(editor.type("x" * 50))
        await settle(alice, bob)
        assert alice.closed == (1013, "store behind")
        accepted = len(bob.received)
        node.store.recover()
        await asyncio.sleep(5)

        stored = await stored_updates(node.store, "room")
        assert stored == bob.received[-len(stored) :]
        assert 0 < len(stored) <= accepted
        await alice.leave()


# ------------------------------------------------------------------------------------------------------- confirming


@in_virtual_time
async def test_nothing_is_confirmed_before_the_store_committed_it() -> None:
    async with running_node() as node:
        (alice,) = await joined(node, 1)
        node.store.hold("append")

        alice.edit(typed("a")[0])
        alice.ask_for_confirm(b"t")
        await asyncio.sleep(60)
        alice.read()
        early = list(alice.confirmed)
        node.store.let_go("append")
        await asyncio.sleep(1)
        alice.read()

        assert (early, alice.confirmed) == ([], [b"t"])


@in_virtual_time
async def test_everything_is_confirmed_once_the_store_has_recovered() -> None:
    async with running_node() as node:
        alice, bob = await joined(node, 2)
        node.store.fail("append")
        editors = {alice: Editor(1), bob: Editor(2)}

        for n in range(50):
            for client, editor in editors.items():
                client.edit(editor.type("x"))
                client.ask_for_confirm(b"%d" % n)
            await asyncio.sleep(0.1)
        await settle(alice, bob)
        early = alice.confirmed + bob.confirmed
        node.store.recover()
        await asyncio.sleep(5)
        await settle(alice, bob)

        assert early == []
        assert alice.confirmed == bob.confirmed == [b"%d" % n for n in range(50)]
        assert len(text_of(*await stored_updates(node.store, "room"))) == 100


@in_virtual_time
async def test_a_repeat_of_something_unstored_is_not_confirmed_early() -> None:
    async with running_node() as node:
        alice, bob = await joined(node, 2)
        node.store.hold("append")
        update = typed("a")[0]
        alice.edit(update)

        bob.say(encode_update(update))
        bob.ask_for_confirm(b"t")
        await asyncio.sleep(5)
        bob.read()
        early = list(bob.confirmed)
        node.store.let_go("append")
        await asyncio.sleep(1)
        bob.read()

        assert (early, bob.confirmed) == ([], [b"t"])


@in_virtual_time
async def test_an_update_that_waits_is_confirmed_when_it_is_stored() -> None:
    async with running_node() as node:
        (alice,) = await joined(node, 1)
        _, two = typed("ab")

        alice.say(encode_update(two))
        alice.ask_for_confirm(b"t")
        await asyncio.sleep(1)
        alice.read()

        assert alice.confirmed == [b"t"]
        assert await stored_updates(node.store, "room") == [two]


@in_virtual_time
async def test_a_client_that_wrote_nothing_is_confirmed_at_once() -> None:
    async with running_node() as node:
        (alice,) = await joined(node, 1)

        alice.ask_for_confirm(b"t")
        await settle(alice)

        assert alice.confirmed == [b"t"]


@in_virtual_time
async def test_a_client_that_does_not_read_gets_its_confirmations_later() -> None:
    async with running_node(outbox_bytes_max=1024) as node:
        slow, alice = await joined(node, 2)
        slow.transport.block()
        slow.edit(typed("s", client_id=2)[0])
        slow.ask_for_confirm(b"t")
        alice.edit(Editor(1).type("x" * 5000))
        await asyncio.sleep(5)

        slow.transport.resume()
        await settle(slow)

        assert slow.confirmed == [b"t"]
        assert slow.replica.state_vector() == document_of(await node.room()).state_vector()


# ------------------------------------------------------------------------------------------------------- awareness


@in_virtual_time
async def test_awareness_is_told_to_everyone_also_to_the_sender_and_at_most_every_interval() -> None:
    async with running_node(awareness_interval_s=0.05) as node:
        alice, bob = await joined(node, 2)

        for clock in range(1, 101):
            alice.announce(state(ALICE, clock))
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)
        await settle(alice, bob)

        assert alice.visible == bob.visible == {ALICE: b'{"name":"x"}'}
        assert 8 <= len(bob.told) <= 13
        assert bob.told[-1] == [state(ALICE, 100)]


@in_virtual_time
async def test_a_user_whose_connection_is_lost_stays_visible_for_the_grace() -> None:
    async with running_node(awareness_grace_s=5, awareness_leave_s=0.5) as node:
        alice, bob = await joined(node, 2)
        alice.announce(state(ALICE, 1))
        await asyncio.sleep(0.1)
        await alice.leave(properly=False)

        seen = []
        for _ in range(2):
            await asyncio.sleep(4)
            bob.read()
            seen.append(bob.visible)

        assert seen == [{ALICE: b'{"name":"x"}'}, {}]


@in_virtual_time
async def test_a_user_who_closes_the_connection_is_gone_soon() -> None:
    async with running_node(awareness_leave_s=0.5) as node:
        alice, bob = await joined(node, 2)
        alice.announce(state(ALICE, 1))
        await asyncio.sleep(0.1)
        bob.read()

        await alice.leave(properly=True)
        await asyncio.sleep(0.6)
        bob.read()

        assert bob.visible == {}


@in_virtual_time
async def test_a_user_who_is_back_within_the_grace_was_never_gone() -> None:
    async with running_node() as node:
        alice, bob = await joined(node, 2)
        alice.announce(state(ALICE, 3))
        await asyncio.sleep(0.1)
        bob.read()
        bob.told.clear()

        await alice.leave(properly=False)
        await asyncio.sleep(2)
        await alice.connect(node)
        alice.announce(state(ALICE, 3))
        await asyncio.sleep(10)
        bob.read()

        assert bob.visible == {ALICE: b'{"name":"x"}'}
        assert all(one.state != b"null" for states in bob.told for one in states)


@in_virtual_time
async def test_a_user_who_is_back_under_the_same_clock_after_the_removal_is_visible() -> None:
    async with running_node() as node:
        alice, bob = await joined(node, 2)
        alice.announce(state(ALICE, 3))
        await asyncio.sleep(0.1)
        await alice.leave(properly=True)
        await asyncio.sleep(3)
        bob.read()
        gone = bob.visible

        await alice.connect(node)
        alice.announce(state(ALICE, 3))
        await asyncio.sleep(0.2)
        bob.read()

        assert (gone, bob.visible) == ({}, {ALICE: b'{"name":"x"}'})


@in_virtual_time
async def test_too_much_awareness_closes_its_sender_only() -> None:
    async with running_node() as node:
        alice, bob = await joined(node, 2)

        alice.announce(state(ALICE, 1, b'"' + b"x" * (17 << 10) + b'"'))
        await settle(alice, bob)

        assert alice.closed == (1009, "message too big")
        assert bob.closed is None
        await alice.leave()


# ------------------------------------------------------------------------------------------------------- broken


class _Failing:
    """Stands for a document in which pycrdt fails."""

    def __init__(self, document: Document, error: Exception) -> None:
        self._document, self._error = document, error
        self.waiting, self.clients = document.waiting, document.clients
        self.is_behind = False
        self.revision = document.revision + 1

    def state_vector(self) -> bytes:
        return self._document.state_vector()

    def is_light(self, data: bytes) -> bool:
        return True

    def apply(self, data: bytes) -> Outcome:
        raise self._error

    def diffing(self, state_vector: bytes) -> Steps[bytes]:
        yield
        raise self._error


@in_virtual_time
async def test_an_update_that_breaks_the_document_stops_its_sender_and_tells_the_others_to_retry() -> None:
    async with running_node() as node:
        alice, bob = await joined(node, 2)
        room = await node.room()
        room._document = _Failing(document_of(room), UpdateBreaksDocument("a panic"))  # type: ignore[assignment]

        alice.edit(typed("a")[0])
        await settle(alice, bob)

        assert room.broken
        assert (alice.closed, bob.closed) == ((4400, "malformed update"), (1011, "room reloading"))
        await alice.leave()
        await bob.leave()


@in_virtual_time
async def test_a_document_that_breaks_without_anybodys_fault_tells_everyone_to_retry() -> None:
    async with running_node() as node:
        alice, bob = await joined(node, 2)
        room = await node.room()
        room._document = _Failing(document_of(room), DocumentBroken("a panic"))  # type: ignore[assignment]

        alice.ask_for_sync()
        await settle(alice, bob)

        assert (alice.closed, bob.closed) == ((1011, "room reloading"), (1011, "room reloading"))
        await alice.leave()
        await bob.leave()


@in_virtual_time
async def test_an_update_that_waits_for_a_parent_that_is_no_type_does_not_harm_who_brings_it() -> None:
    """Sixteen bytes once made a room unusable for good: pycrdt fails half-way when the parent arrives."""
    abc = bytes((1, 1, 1, 0, 4, 1, 4)) + b"text\x03abc\x00"
    d = bytes((1, 1, 1, 3, 132, 1, 2, 1)) + b"d\x00"
    hostile = bytes((1, 1, 2, 0, 4, 0, 1, 3, 1)) + b"x\x00"
    async with running_node() as node:
        victim, attacker = await joined(node, 2)
        victim.edit(abc)
        attacker.say(encode_update(hostile))
        await settle(victim)

        # Twice: what has to be loaded anew may be, if it helps.
        for _ in range(2):
            if victim.connection.closing:
                await victim.leave()
                await attacker.leave()
                await asyncio.sleep(5)
                await victim.connect(node)
            victim.say(encode_update(d))
            await settle(victim)
        await asyncio.sleep(1)

        assert victim.closed is None
        assert d in await stored_updates(node.store, "room")


@in_virtual_time
async def test_a_room_that_is_closed_closes_its_clients_and_keeps_quiet() -> None:
    async with running_node() as node:
        alice, bob = await joined(node, 2)
        alice.announce(state(ALICE, 1))

        (await node.room()).close()
        await asyncio.sleep(1)

        assert (alice.closed, bob.closed) == ((1012, "server restarting"), (1012, "server restarting"))
        await alice.leave()
        await bob.leave()


@in_virtual_time
async def test_a_client_is_asked_what_it_has_before_it_hears_that_it_is_synced() -> None:
    """Who then asks for a confirmation has sent what is to be confirmed, however early its own step 1 came."""
    async with running_node() as node:
        client = await Client().connect(node)
        client.ask_for_sync()
        await turns()

        steps = [frame[1] for frame in client.transport.frames if frame[0] == 0]

        assert steps == [0, 1]


# ------------------------------------------------------------------------------------------------ large updates


def _large() -> bytes:
    """3,000 items in a text, each before the one before it."""
    head = b"\x01" + write_var_uint(3000) + b"\x07\x00\x04\x01\x04text\x01x"
    return head + b"".join(b"\x44\x07" + write_var_uint(clock) + b"\x01y" for clock in range(2999)) + b"\x00"


@pytest.fixture
def _one_step_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "SLICE_S", 0)


@pytest.mark.usefixtures("_one_step_a_turn")
@in_virtual_time
async def test_while_a_large_update_is_taken_in_the_room_goes_on_and_its_sender_waits() -> None:
    async with running_node() as node:
        alice, bob = await joined(node, 2)
        alice.say(encode_update(_large()))
        alice.edit(typed("later", client_id=2)[0])
        await turns(50)
        bob.edit(typed("b", client_id=3)[0])
        await turns(50)
        alice.read()

        in_the_middle = (len(alice.link), text_of(*alice.received[-1:]))
        await alice.delivered()
        await settle(alice, bob)

        assert in_the_middle == (1, "b")
        assert Counter(text_of(*bob.received)) == Counter("x" + "y" * 2999 + "l" + "b")


@pytest.mark.usefixtures("_one_step_a_turn")
@in_virtual_time
async def test_what_is_asked_for_while_a_large_update_is_taken_in_is_confirmed_when_that_is_stored() -> None:
    async with running_node() as node:
        alice, bob = await joined(node, 2)
        room = await node.room()
        alice.say(encode_update(_large()))
        await turns(50)
        bob.edit(typed("b", client_id=3)[0])
        bob.ask_for_confirm(b"?")
        await turns(50)
        bob.read()

        early = (list(bob.confirmed), room.wants_checkpoint, room.settled)
        await alice.delivered()
        await asyncio.sleep(1)
        await settle(alice, bob)

        assert early == ([], False, False)
        assert bob.confirmed == [b"?"]
        assert set(await stored_updates(node.store, "room")) >= {_large()}


@pytest.mark.usefixtures("_one_step_a_turn")
@in_virtual_time
async def test_who_joins_or_asks_in_the_middle_of_a_large_update_gets_all_of_it() -> None:
    async with running_node() as node:
        (alice,) = await joined(node, 1)
        alice.say(encode_update(_large()))
        await turns(100)
        (bob,) = await joined(node, 1)
        await asyncio.sleep(0)
        await alice.delivered()
        await settle(alice, bob)

        assert len(text_of(*bob.received)) == 3000


@in_virtual_time
async def test_a_large_update_that_is_refused_closes_its_sender_and_changes_nothing() -> None:
    async with running_node() as node:
        alice, bob = await joined(node, 2)
        alice.say(encode_update(_large()[:-1] + b"\x01"))
        await alice.delivered()
        await settle(alice, bob)

        assert (alice.closed, bob.closed) == ((4400, "malformed update"), None)
        assert text_of(*bob.received) == ""
        assert await stored_updates(node.store, "room") == []
        await alice.leave()


@in_virtual_time
async def test_a_state_vector_may_list_as_many_clients_as_the_document_has_and_some() -> None:
    async with running_node() as node:
        ann = await Client().connect(node)
        ann.say(b"\0\0" + write_var_bytes(write_state_vector(dict.fromkeys(range(STRANGERS_MAX), 1))))
        await settle(ann)
        before = ann.closed
        ann.say(b"\0\0" + write_var_bytes(write_state_vector(dict.fromkeys(range(STRANGERS_MAX + 1), 1))))

        await until(lambda: ann.closed is not None)

    assert before is None
    assert ann.closed == (UpdateTooHeavy.close_code, UpdateTooHeavy.reason)


@pytest.mark.usefixtures("_one_step_a_turn")
@in_virtual_time
async def test_what_a_client_said_behind_a_large_update_is_not_taken_once_it_is_closed() -> None:
    async with running_node() as node:
        alice, bob = await joined(node, 2)
        alice.say(encode_update(_large()) + encode_update(typed("more", client_id=2)[0]))
        await turns(50)
        alice.connection.close(4401, "credential expired")
        await alice.delivered()
        await settle(alice, bob)

        assert Counter(text_of(*bob.received)) == Counter("x" + "y" * 2999)
        assert await stored_updates(node.store, "room") == [_large()]
        await alice.leave()
