"""`crdt_sync.client`: what it calls saved is stored, whatever happens in between."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pycrdt import Doc, Text, UndoManager

from crdt_sync.client import Closed, NotSaved, Room, connect
from tests.support.api import GUARDED, token
from tests.support.clients import NodeClients
from tests.support.database import stored_updates
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess
from tests.support.yjs import Yjs


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """For the tests that leave it alone; each has a room of its own."""
    yield from running(ServerProcess(tmp_path_factory.mktemp("server")))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Wants tokens."""
    yield from running(ServerProcess(tmp_path_factory.mktemp("guarded"), env=GUARDED | {"CRDT_SYNC_JWT_LEEWAY_S": "0"}))


def running(server: ServerProcess) -> Iterator[ServerProcess]:
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())
    assert server.errors() == []


@contextlib.contextmanager
def locked(server: ServerProcess) -> Iterator[None]:
    """The server can't store anything meanwhile."""
    with contextlib.closing(sqlite3.connect(server.database_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def new_doc() -> tuple[Doc[Any], Text]:
    doc: Doc[Any] = Doc()
    return doc, doc.get("text", type=Text)


async def until(room: Room, state: str) -> None:
    async with asyncio.timeout(10):
        while room.state != state:
            await asyncio.sleep(0.01)


async def test_saved_is_said_only_after_the_commit_and_outlives_a_kill(tmp_path: Path, yjs: Yjs) -> None:
    async with ServerProcess(tmp_path) as server:
        doc, text = new_doc()
        async with connect(server.url, "trip-1", doc) as room:
            await room.saved()
            with locked(server):
                text.insert(0, "sent ")
                with pytest.raises(TimeoutError):
                    await room.saved(timeout_s=0.5)
                during = room.state, room.unsaved
                server.kill()
            await until(room, "offline")
            text.insert(5, "offline")
            offline = room.unsaved

            await server.start()
            await room.saved()
            after = room.state, room.unsaved
            server.kill()

            assert (during, offline, after) == (("saving", 1), 2, ("saved", 0))
            assert room.last_saved_at is not None
            stored = yjs.apply(stored_updates(server.database_url, "trip-1"), {"text": "text"})
            assert stored.content["text"]["string"] == "sent offline"


async def test_leaving_waits_until_all_is_stored(shared: ServerProcess, room: str, yjs: Yjs) -> None:
    doc, text = new_doc()
    text.insert(0, "before ")
    async with connect(shared.url, room, doc):
        text.insert(7, "within")

    stored = yjs.apply(stored_updates(shared.database_url, room), {"text": "text"})
    assert stored.content["text"]["string"] == "before within"


async def test_leaving_in_vain_is_an_error_and_quick_after_another(tmp_path: Path) -> None:
    async def edit_in_vain(*, timeout_s: float, error: Exception | None = None) -> None:
        doc, text = new_doc()
        async with connect(server.url, "trip-1", doc, timeout_s=timeout_s) as room:
            await room.saved()
            server.freeze()
            text.insert(0, "a")
            if error is not None:
                raise error

    async with ServerProcess(tmp_path) as server:
        with pytest.raises(NotSaved, match="1 edits"):
            await edit_in_vain(timeout_s=1)
        server.thaw()
        with pytest.raises(ZeroDivisionError):
            await edit_in_vain(timeout_s=60, error=ZeroDivisionError())
        server.thaw()


async def test_edits_go_both_ways_and_those_of_others_are_not_sent_back(
    clients: NodeClients, shared: ServerProcess, room: str
) -> None:
    ann = await clients.create(shared.url, room)
    await ann.insert(0, "hello")
    doc, text = new_doc()
    counts: list[int] = []
    async with connect(shared.url, room, doc, on_change=lambda room: counts.append(room.unsaved)) as joined:
        assert str(text) == "hello"
        await ann.insert(5, " you")
        text.insert(0, "oh, ")
        await ann.wait(text="oh, hello you")
        await joined.saved()
        async with asyncio.timeout(5):
            while str(text) != "oh, hello you":
                await asyncio.sleep(0.01)

        assert max(counts) == 1
        assert joined.unsaved == 0


async def test_a_reconnect_in_the_middle_of_a_confirmation_confirms_nothing(shared: ServerProcess, room: str) -> None:
    doc, text = new_doc()
    async with Proxy(shared.port) as proxy, connect(proxy.url(shared.url), room, doc) as joined:
        await joined.saved()
        proxy.hold_answers()
        text.insert(0, "a")
        await asyncio.sleep(0.3)
        held = joined.state, joined.unsaved
        proxy.cut()
        await until(joined, "offline")
        offline = joined.unsaved
        proxy.release_answers()
        await joined.saved()

        assert (held, offline) == (("saving", 1), 1)
        assert (joined.state, joined.unsaved) == ("saved", 0)


async def test_a_thousand_edits_in_one_turn_are_told_of_once(shared: ServerProcess, room: str) -> None:
    doc, text = new_doc()
    told: list[int] = []
    async with connect(shared.url, room, doc, on_change=lambda room: told.append(room.unsaved)) as joined:
        await joined.saved()
        told.clear()
        for _ in range(1000):
            text.insert(0, "a")
        await joined.saved()
        await asyncio.sleep(0)

        # Once for all of them, once when they were stored.
        assert told == [1000, 0]


async def test_one_document_may_be_in_several_rooms_and_be_edited_by_who_is_told(
    shared: ServerProcess, room: str
) -> None:
    doc, text = new_doc()
    told = 0

    def edit(_: Room) -> None:
        nonlocal told
        told += 1
        if told <= 3:
            text.insert(0, "told ")

    async with (
        connect(shared.url, room, doc, on_change=edit) as first,
        connect(shared.url, room, doc) as again,
        connect(shared.url, f"{room}-copy", doc) as copy,
    ):
        text.insert(0, "a ")
        await asyncio.gather(*(each.saved() for each in (first, again, copy) for _ in range(10)))
        for each in (first, again, copy):
            await until(each, "saved")

    other, seen = new_doc()
    async with connect(shared.url, f"{room}-copy", other):
        assert str(seen) == str(text)
        assert sorted(str(seen).split()) == ["a", "told", "told", "told"]


async def test_undo_is_an_edit_and_a_large_paste_too(shared: ServerProcess, room: str, yjs: Yjs) -> None:
    doc, text = new_doc()
    undo = UndoManager(scopes=[text], capture_timeout_millis=0)
    async with connect(shared.url, room, doc) as joined:
        text.insert(0, "x" * 2_000_000)
        text.insert(0, "y")
        undo.undo()
        assert joined.unsaved == 3
        await joined.saved()

    stored = yjs.apply(stored_updates(shared.database_url, room), {"text": "text"})
    assert stored.content["text"]["string"] == "x" * 2_000_000


async def test_who_may_only_read_is_told_and_nothing_is_called_saved(guarded: ServerProcess, room: str) -> None:
    doc, text = new_doc()
    joined = connect(guarded.url, room, doc, token=token("bob", {"*": "read"}))

    async def edit() -> None:
        async with joined:
            await joined.saved()
            text.insert(0, "a")

    with pytest.raises(Closed, match="4403: read only") as raised:
        await edit()
    assert (joined.state, joined.unsaved, joined.closed) == ("offline", 1, raised.value)


async def test_who_has_no_right_is_refused_at_once(guarded: ServerProcess, room: str) -> None:
    doc, _ = new_doc()
    for shown, code in ((None, 401), ("nonsense", 401), (token(rooms={"other": "write"}), 403)):
        with pytest.raises(Closed) as raised:
            async with connect(guarded.url, room, doc, token=shown):
                pass
        assert raised.value.code == code


async def test_a_fresh_token_is_shown_on_the_same_connection(guarded: ServerProcess, room: str) -> None:
    doc, text = new_doc()
    states: list[str] = []
    lifetimes_s = iter([2, 3600])

    async def fresh() -> str:
        return token(ttl_s=next(lifetimes_s))

    async with connect(guarded.url, room, doc, token=fresh, on_change=lambda room: states.append(room.state)) as joined:
        await joined.saved()
        states.clear()
        await asyncio.sleep(2.5)
        text.insert(0, "later")
        await joined.saved()
        assert "offline" not in states


async def test_a_token_that_is_not_taken_is_told_and_the_next_connection_has_another(
    guarded: ServerProcess, room: str
) -> None:
    doc, text = new_doc()
    shown = iter([token(ttl_s=1), token("eve"), RuntimeError("signed out"), token()])
    denied: set[str | None] = set()

    def fresh() -> str:
        each = next(shown)
        if isinstance(each, str):
            return each
        raise each

    async with connect(guarded.url, room, doc, token=fresh, on_change=lambda room: denied.add(room.denied)) as joined:
        await until(joined, "offline")
        text.insert(0, "later")
        await joined.saved()

    assert denied == {None, "not allowed", "no fresh token: signed out"}


async def test_a_server_that_is_not_there_is_waited_for_and_then_an_error() -> None:
    doc, _ = new_doc()
    with pytest.raises(TimeoutError, match="did not answer within"):
        async with connect("ws://127.0.0.1:1", "trip-1", doc, timeout_s=0.5):
            pass
    with pytest.raises(ValueError, match="no address"):
        connect("http://127.0.0.1:1234", "trip-1", doc)


def test_nothing_of_the_server_is_loaded() -> None:
    program = (
        "import sys, crdt_sync.client; print(sorted(name for name in sys.modules if name.startswith('crdt_sync')))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert loaded.strip() == str(
        ["crdt_sync", "crdt_sync.client", "crdt_sync.errors", "crdt_sync.lib0", "crdt_sync.protocol"]
    )
