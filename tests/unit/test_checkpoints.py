"""Compaction: a room's state on its way into the store, proved before anything is trimmed."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from crdt_sync.checkpoints import PROVE_INLINE_BYTES_MAX, Checkpoints
from crdt_sync.document import State
from crdt_sync.pacing import Steps
from crdt_sync.protocol import encode_update
from crdt_sync.room import Room
from persistence import Entry, Snapshot, StoreCorrupt
from persistence.memory import MemoryStore
from tests.support.fakes import (
    Client,
    Editor,
    MoodyStore,
    Node,
    document_of,
    in_virtual_time,
    stored_updates,
    text_of,
    turns,
    typed,
)


class Bench:
    """Rooms, a journal that runs, and checkpoints that are written when the test says so."""

    def __init__(self, node: Node, journaling: "asyncio.Task[None]") -> None:
        self.node, self.journaling = node, journaling
        self.checkpoints = Checkpoints(node.store)

    @property
    def store(self) -> MoodyStore:
        return self.node.store

    async def room(self, *updates: bytes, name: str = "room") -> tuple[Client, Room]:
        client = await Client().connect(self.node, name)
        for update in updates:
            client.say(encode_update(update))
        await client.delivered()
        assert client.room is not None
        return client, client.room


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    # The sweeper doesn't run: nothing writes checkpoints but the test.
    node = await Node().start()
    journaling, looking_after = node._tasks
    looking_after.cancel()
    await asyncio.wait([looking_after])
    made = Bench(node, journaling)
    yield made
    made.checkpoints.close()
    journaling.cancel()
    await asyncio.wait([journaling])


@in_virtual_time
async def test_a_snapshot_holds_everything_and_the_log_before_it_goes() -> None:
    async with bench() as made:
        _, room = await made.room(*typed("hello"))

        await made.checkpoints.write([room])

        stored = await made.store.load("room")
        assert stored.snapshot is not None
        assert (stored.snapshot.seq, stored.updates) == (5, ())
        assert text_of(stored.snapshot.state) == "hello"
        assert stored.snapshot.state_vector == document_of(room).state_vector()
        assert not room.dirty
        assert room.settled


@in_virtual_time
async def test_a_snapshot_holds_what_waits() -> None:
    async with bench() as made:
        one, two, three, four = typed("abcd")
        client, room = await made.room(one, four, three)

        await made.checkpoints.write([room])
        client.say(encode_update(two))
        await asyncio.sleep(1)

        stored = await made.store.load("room")
        assert stored.snapshot is not None
        assert set(stored.snapshot.waiting) == {four, three}
        assert text_of(*await stored_updates(made.store, "room")) == "abcd"


@in_virtual_time
async def test_a_snapshot_is_not_written_before_its_updates_are_stored() -> None:
    async with bench() as made:
        made.store.hold("append")
        client, room = await made.room(*typed("ab"))

        writing = asyncio.create_task(made.checkpoints.write([room]))
        await asyncio.sleep(60)
        early = made.store.calls["checkpoint"]
        client.say(encode_update(Editor(2).type("later")))
        made.store.let_go("append")
        await writing
        await asyncio.sleep(1)

        stored = await made.store.load("room")
        assert early == 0
        assert stored.snapshot is not None
        assert (stored.snapshot.seq, len(stored.updates)) == (2, 1), "what came later is not in it"
        assert room.dirty


@in_virtual_time
async def test_the_seq_is_right_when_one_commit_holds_more_than_the_snapshot() -> None:
    async with bench() as made:
        client, room = await made.room(typed("x", client_id=5)[0])
        await turns()  # the first commit; the next one comes an interval later
        editor = Editor(1)
        client.say(encode_update(editor.type("a")))
        client.say(encode_update(editor.type("b")))

        writing = asyncio.create_task(made.checkpoints.write([room]))
        await turns(2)
        for _ in range(3):
            client.say(encode_update(editor.type("c")))
        await writing
        await asyncio.sleep(1)

        stored = await made.store.load("room")
        assert stored.snapshot is not None
        assert (stored.snapshot.seq, len(stored.updates), stored.head_seq) == (3, 3, 6)
        assert text_of(stored.snapshot.state) in ("xab", "abx")


@in_virtual_time
async def test_a_snapshot_that_could_not_be_written_is_wanted_again() -> None:
    async with bench() as made:
        _, room = await made.room(*typed("ab"))
        made.store.fail("checkpoint", times=1)

        await made.checkpoints.write([room])
        after_failure = (room.dirty, room.wants_checkpoint, room.settled)
        await made.checkpoints.write([room])

        assert after_failure == (True, True, False)
        assert room.settled


@in_virtual_time
async def test_rooms_whose_round_is_cancelled_want_it_again() -> None:
    async with bench() as made:
        rooms = [(await made.room(*typed("a"), name=f"room-{n}"))[1] for n in range(3)]
        for turn in range(6):
            writing = asyncio.create_task(made.checkpoints.write(rooms))
            made.store.hold("checkpoint")
            await turns(turn)

            writing.cancel()
            await asyncio.wait([writing])

            assert [room.wants_checkpoint for room in rooms] == [True] * 3, turn


@in_virtual_time
async def test_rooms_are_written_together() -> None:
    async with bench() as made:
        rooms = [(await made.room(*typed("a"), name=f"room-{n}"))[1] for n in range(450)]

        await made.checkpoints.write(rooms)

        assert made.store.calls["checkpoint"] <= 4
        assert sum(map(len, made.store.checkpointed)) == 450


@in_virtual_time
async def test_nothing_is_written_for_no_rooms() -> None:
    async with bench() as made:
        await made.checkpoints.write([])

        assert made.store.calls["checkpoint"] == 0


def test_failing_checkpoints_are_said_once_and_their_recovery_too(caplog: pytest.LogCaptureFixture) -> None:
    @in_virtual_time
    async def run() -> None:
        async with bench() as made:
            _, room = await made.room(*typed("a"))
            made.store.fail("checkpoint", times=5)
            for _ in range(6):
                await made.checkpoints.write([room])

    with caplog.at_level(logging.INFO, logger="crdt_sync.checkpoints"):
        run()

    assert [record.message for record in caplog.records] == ["checkpoints_failing", "checkpoints_recovered"]


@in_virtual_time
async def test_an_unsound_state_never_replaces_the_log_and_does_not_harm_its_neighbours() -> None:
    async with bench() as made:
        _, bad = await made.room(*typed("precious"), name="bad")
        _, good = await made.room(*typed("good"), name="good")
        document = document_of(bad)
        real = document.taking_state

        def lossy() -> Steps[State]:
            return replace((yield from real()), update=typed("p")[0])

        document.taking_state = lossy  # type: ignore[method-assign]
        await made.checkpoints.write([bad, good])
        await asyncio.sleep(1)

        stored = await made.store.load("bad")
        assert (stored.snapshot, text_of(*stored.updates)) == (None, "precious")
        assert (bad.compactable, bad.wants_checkpoint, bad.settled) == (False, False, True)
        assert (await made.store.load("good")).snapshot is not None


@in_virtual_time
async def test_a_snapshot_that_the_store_finds_wrong_does_not_take_the_others_along(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with bench() as made:
        rooms = [(await made.room(*typed(name), name=name))[1] for name in ("one", "bad", "two")]
        refuse = made.store.inner.checkpoint

        async def checkpoint(snapshots: Sequence[Snapshot], *, keep_history: bool = True) -> frozenset[str]:
            if any(snapshot.document == "bad" for snapshot in snapshots):
                raise StoreCorrupt("read back different")
            return await refuse(snapshots, keep_history=keep_history)

        made.store.inner.checkpoint = checkpoint  # type: ignore[method-assign]
        with caplog.at_level(logging.ERROR, logger="crdt_sync.checkpoints"):
            await made.checkpoints.write(rooms)
            await made.checkpoints.write([room for room in rooms if room.wants_checkpoint])

        folded = {name for name in ("one", "bad", "two") if (await made.store.load(name)).snapshot is not None}
        assert folded == {"one", "two"}
        assert [record.message for record in caplog.records] == ["snapshot_refused"]
        assert text_of(*await stored_updates(made.store, "bad")) == "bad"


# ------------------------------------------------------------------------------------------------------- elsewhere


async def large_room(made: Bench, name: str = "room") -> Room:
    _, room = await made.room(Editor(1).type("x" * (PROVE_INLINE_BYTES_MAX + 1000)), name=name)
    return room


async def test_a_large_state_is_proved_in_another_process() -> None:
    async with bench() as made:
        room = await large_room(made)

        await made.checkpoints.write([room])

        stored = await made.store.load("room")
        assert stored.snapshot is not None
        assert len(text_of(stored.snapshot.state)) == PROVE_INLINE_BYTES_MAX + 1000
        assert made.checkpoints._elsewhere.pids()


async def test_a_prover_that_is_killed_costs_nothing_but_a_snapshot() -> None:
    async with bench() as made:
        room, other = await large_room(made), await large_room(made, "other")
        await made.checkpoints.write([other])
        (pid,) = made.checkpoints._elsewhere.pids()

        os.kill(pid, signal.SIGSTOP)
        writing = asyncio.create_task(made.checkpoints.write([room]))
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(writing, 30)

        stored = await made.store.load("room")
        assert len(text_of(*await stored_updates(made.store, "room"))) == PROVE_INLINE_BYTES_MAX + 1000
        assert stored.head_seq == 1
        other.dirty = True
        await made.checkpoints.write([other])
        assert other.compactable, "there is a new prover"


async def test_closing_while_a_state_is_proved_does_not_wait_for_it() -> None:
    async with bench() as made:
        room = await large_room(made)
        await made.checkpoints.write([room])
        (pid,) = made.checkpoints._elsewhere.pids()
        os.kill(pid, signal.SIGSTOP)
        room.dirty = True
        writing = asyncio.create_task(made.checkpoints.write([room]))
        await asyncio.sleep(0.05)

        writing.cancel()
        await asyncio.wait([writing], timeout=5)
        made.checkpoints.close()

        assert writing.done()
        assert room.wants_checkpoint
        os.kill(pid, signal.SIGCONT)


async def test_a_store_with_a_long_log_gets_compacted_when_it_is_opened() -> None:
    store = MemoryStore()
    await store.open()
    await store.append([Entry("room", typed("a long log"), accepted_at=datetime.now(UTC))])
    node = await Node(store, checkpoint_interval_s=0.05).start()

    client = await Client().connect(node)
    async with asyncio.timeout(10):
        while (await store.load("room")).snapshot is None:
            await asyncio.sleep(0.01)

    await client.leave()
    await node.kill()
    assert text_of(*await stored_updates(store, "room")) == "a long log"
