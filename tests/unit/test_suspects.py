"""What takes processes down is found out in one where it harms nobody. The crashes are real; the words are the tests'."""

import asyncio
import ctypes
import logging
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from crdt_sync import suspects as module
from crdt_sync.blackbox import BlackBox
from crdt_sync.document import Document, digest
from crdt_sync.errors import RoomUnavailable
from crdt_sync.native import Native
from crdt_sync.suspects import DEATHS_MAX, Suspects
from persistence import Entry, Snapshot, Store
from persistence.memory import MemoryStore
from tests.support.fakes import MoodyStore, typed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
take_in = module._take_in


def take_in_or_die(sender: Connection, updates: Sequence[bytes], harmful: Collection[bytes]) -> None:
    """In a process of its own, where pycrdt crashes on some letters."""
    give, encode = Native.give, Native.encode

    def give_or_die(self: Native, data: bytes, *, simple: bool = False) -> None:
        if b"!" in data:
            ctypes.string_at(0)
        give(self, data, simple=simple)

    def encode_or_die(self: Native, state_vector: bytes) -> bytes:
        if b"?" in (state := encode(self, state_vector)):
            ctypes.string_at(0)
        return state

    Native.give = give_or_die  # type: ignore[method-assign]
    Native.encode = encode_or_die  # type: ignore[method-assign]
    take_in(sender, updates, harmful)


def be_killed(sender: Connection, updates: Sequence[bytes], harmful: Collection[bytes]) -> None:
    """In a process of its own, when memory is short."""
    sender.send_bytes(digest(updates[0]))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(autouse=True)
def _dying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_take_in", take_in_or_die)


@pytest_asyncio.fixture
async def store() -> AsyncIterator[MoodyStore]:
    made = MoodyStore(MemoryStore())
    await made.open()
    yield made
    await made.close()


async def test_an_update_that_kills_again_is_quarantined(store: MoodyStore, tmp_path: Path) -> None:
    poison = one("!")
    await stored(store, one("a", 2))
    let_die(tmp_path, poison)
    suspects = Suspects(store, BlackBox("store", folder=tmp_path))

    found = await suspects.judge("trip-1")

    assert found == {digest(poison)}
    assert (await store.load("trip-1")).quarantined == {digest(poison)}
    assert suspects.rooms() == set()


async def test_an_update_that_does_no_harm_is_cleared(
    store: MoodyStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "crdt_sync.suspects")
    let_die(tmp_path, one("a"))
    suspects = Suspects(store, BlackBox("store", folder=tmp_path))

    found = await suspects.judge("trip-1")

    assert found == set()
    assert (await store.load("trip-1")).quarantined == set()
    assert [record.message for record in caplog.records] == ["room_suspected", "room_cleared"]


async def test_everything_that_is_stored_and_kills_is_found_at_once(store: MoodyStore, tmp_path: Path) -> None:
    poisons = [one("!", 1), one("!!", 3)]
    await stored(store, poisons[0], one("a", 2), poisons[1])
    let_die(tmp_path, poisons[0])

    found = await Suspects(store, BlackBox("store", folder=tmp_path)).judge("trip-1")

    assert found == set(map(digest, poisons))


async def test_what_waited_is_found_and_not_what_it_waited_for(store: MoodyStore, tmp_path: Path) -> None:
    harmless, poison = typed("a!")
    await stored(store, poison)
    let_die(tmp_path, harmless)

    found = await Suspects(store, BlackBox("store", folder=tmp_path)).judge("trip-1")

    assert found == {digest(poison)}


async def test_a_stored_state_that_kills_is_found(store: MoodyStore, tmp_path: Path) -> None:
    document = Document()
    document.apply(one("!"))
    state = document.state()
    await stored(store, one("!"))
    await store.checkpoint([Snapshot("trip-1", seq=1, state=state.update, state_vector=state.state_vector)])
    let_die(tmp_path, state.update)

    found = await Suspects(store, BlackBox("store", folder=tmp_path)).judge("trip-1")

    assert found == {digest(state.update)}


async def test_a_crash_that_no_single_update_causes_is_said_and_nothing_is_quarantined(
    store: MoodyStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await stored(store, one("?"))
    let_die(tmp_path, b"")
    suspects = Suspects(store, BlackBox("store", folder=tmp_path))

    found = await suspects.judge("trip-1")

    assert found == set()
    assert (caplog.records[-1].message, caplog.records[-1].levelno) == ("room_crashes", logging.ERROR)


async def test_a_room_in_which_many_die_soon_after_each_other_is_refused(store: MoodyStore, tmp_path: Path) -> None:
    for _ in range(DEATHS_MAX):
        let_die(tmp_path, one("a"))
    let_die(tmp_path, one("a"), room="other")
    suspects = Suspects(store, BlackBox("store", folder=tmp_path))

    with pytest.raises(RoomUnavailable, match="3 processes have died"):
        await suspects.judge("trip-1")
    assert await suspects.judge("other") == set()


async def test_a_failing_store_keeps_the_room_closed_and_is_asked_again(store: MoodyStore, tmp_path: Path) -> None:
    let_die(tmp_path, one("!"))
    suspects = Suspects(store, BlackBox("store", folder=tmp_path))
    for method in ("load", "quarantine"):
        store.fail(method)
        with pytest.raises(RoomUnavailable):
            await suspects.judge("trip-1")
        store.recover()

    found = await suspects.judge("trip-1")

    assert found == {digest(one("!"))}


async def test_two_nodes_that_look_at_once_come_to_the_same_result(store: MoodyStore, tmp_path: Path) -> None:
    let_die(tmp_path, one("!"))
    nodes = [Suspects(store, BlackBox("store", folder=tmp_path)) for _ in range(2)]

    found = await asyncio.gather(*(node.judge("trip-1") for node in (*nodes, nodes[0])))

    assert found == [{digest(one("!"))}] * 3


async def test_what_was_decided_is_not_tried_again(
    store: MoodyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_die(tmp_path, one("a"))
    suspects = Suspects(store, BlackBox("store", folder=tmp_path))
    await suspects.judge("trip-1")
    monkeypatch.setattr(suspects, "_take_in_elsewhere", None)

    assert await suspects.judge("trip-1") == set()


async def test_closing_ends_what_is_being_tried(store: MoodyStore, tmp_path: Path) -> None:
    let_die(tmp_path, one("a"))
    suspects = Suspects(store, BlackBox("store", folder=tmp_path))
    judging = asyncio.create_task(suspects.judge("trip-1"))
    async with asyncio.timeout(10):
        while not suspects._running:
            await asyncio.sleep(0.01)

    await suspects.close()

    with pytest.raises(asyncio.CancelledError):
        await judging


async def test_a_trial_that_is_killed_proves_nothing(
    store: MoodyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_die(tmp_path, one("a"))
    suspects = Suspects(store, BlackBox("store", folder=tmp_path))
    monkeypatch.setattr(module, "_take_in", be_killed)
    with pytest.raises(RoomUnavailable, match="killed by signal 9"):
        await suspects.judge("trip-1")
    monkeypatch.setattr(module, "_take_in", take_in_or_die)

    assert await suspects.judge("trip-1") == set()


async def test_without_a_box_nobody_is_suspected(store: MoodyStore) -> None:
    suspects = Suspects(store, None)

    assert (suspects.rooms(), await suspects.judge("trip-1")) == (set(), frozenset())


def let_die(folder: Path, update: bytes, *, room: str = "trip-1") -> None:
    process = multiprocessing.get_context("fork").Process(target=_die, args=(folder, room, update))
    process.start()
    process.join()


def _die(folder: Path, room: str, update: bytes) -> None:
    BlackBox("store", folder=folder).recorder(room).note(update)
    os.kill(os.getpid(), signal.SIGKILL)


def one(text: str, client_id: int = 1) -> bytes:
    """An update that inserts text."""
    document: Any = Document()
    for update in typed(text, client_id=client_id):
        document.apply(update)
    return bytes(document.state().update)


async def stored(store: Store, *updates: bytes) -> None:
    await store.append([Entry("trip-1", updates, accepted_at=NOW)])
