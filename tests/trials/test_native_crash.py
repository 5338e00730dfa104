"""Native code takes the process down, for real: what did it is found, and can't do it again.

The servers here run with a hook of these tests: `pycrdt` "crashes" on updates that contain a certain word.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pycrdt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from crdt_sync.document import digest
from crdt_sync.lib0 import write_var_bytes, write_var_uint
from crdt_sync.protocol import CONFIRM
from persistence import open_store
from tests.support.clients import NodeClients
from tests.support.cluster import until
from tests.support.database import stored_updates
from tests.support.editor import Editor
from tests.support.processes import descendants, is_alive, wait_until
from tests.support.redis import RedisServer
from tests.support.server import ServerProcess
from tests.support.yjs import Yjs
from tests.trials.test_kill import what_yjs_reads

# Each word does what it says as long as there is a file of that name; the first of them removes its file.
SCRIPT = """
import ctypes, os, signal
from pathlib import Path

from crdt_sync.native import Native
from crdt_sync.serve import serve
from crdt_sync.settings import Settings

FOLDER = Path(__file__).parent
give = Native.give

def give_or_die(self, data, *, simple=False):
    if b"KILLED" in data and (FOLDER / "KILLED").exists():
        (FOLDER / "KILLED").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if b"CRASH" in data and (FOLDER / "CRASH").exists():
        ctypes.string_at(0)
    give(self, data, simple=simple)

Native.give = give_or_die

if __name__ == "__main__":
    serve(Settings.read())
"""
WORKERS = 2
# A second or two, unless other tests need the processors.
BACK_S = 20
REFUSED = 4400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "boxes").mkdir()
    return tmp_path


@pytest.fixture
def workers(folder: Path, postgres_url: str, redis: RedisServer) -> ServerProcess:
    """Two processes on one port, not started yet."""
    return server_of(
        folder,
        postgres_url,
        {
            "CRDT_SYNC_REDIS_URL": redis.url,
            "CRDT_SYNC_REDIS_PREFIX": folder.name,
            "CRDT_SYNC_WORKERS": str(WORKERS),
        },
    )


@pytest.fixture
def single(folder: Path) -> ServerProcess:
    """One process on SQLite, not started yet."""
    return server_of(folder, f"sqlite:///{folder / 'documents.db'}", {})


@pytest.mark.timeout(120)
async def test_an_update_that_crashes_a_worker_is_refused_when_it_comes_again(
    workers: ServerProcess, folder: Path, yjs: Yjs
) -> None:
    (folder / "CRASH").touch()
    poison = update_with("CRASH")
    async with running(workers), Editor(workers.url, "other") as other:
        confirmed = await edit_confirmed(other)
        await say(workers, "trip-1", update_with("before"))

        assert await say(workers, "trip-1", poison) == 1006
        assert await until(lambda: workers.log.count("node_started") == WORKERS + 1, timeout_s=BACK_S), workers.log
        for _ in range(2 * WORKERS):  # whichever worker takes it
            assert await say(workers, "trip-1", poison) == REFUSED

        assert workers.log.count("worker_died") == 1
        assert await quarantined(workers) == [("trip-1", digest(poison))]
        assert texts(yjs, workers, "trip-1") == {"before"}
        async with Editor(workers.url, "other") as newcomer:
            confirmed |= await edit_confirmed(newcomer)
        assert confirmed == what_yjs_reads(yjs, stored_updates(workers.database_url, "other"))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("version", ["1.5", "3.1"])
async def test_a_stock_client_that_merges_what_crashes_into_its_next_sync_is_refused_after_one_more_death(
    version: str, workers: ServerProcess, folder: Path, clients: NodeClients
) -> None:
    (folder / "CRASH").touch()
    async with running(workers):
        author = await clients.create(workers.url, "trip-1", version)
        await author.map_set("before", 1)
        await author.confirm()
        reader = await clients.create(workers.url, "trip-1", version)

        await author.map_set("poison", "CRASH")
        assert await until(lambda: "code=4400" in workers.log, timeout_s=20), workers.log
        await reader.map_set("after", 2)
        await reader.confirm()

        assert 1 <= workers.log.count("worker_died") <= 2
        assert len(await quarantined(workers)) == workers.log.count("worker_died")
        newcomer = await clients.create(workers.url, "trip-1", version)
        await newcomer.wait(map={"before": 1, "after": 2})


@pytest.mark.timeout(120)
@pytest.mark.parametrize("which", ["single", "workers"])
async def test_a_room_whose_log_crashes_opens_without_the_update_that_does_it(
    which: str, folder: Path, yjs: Yjs, request: pytest.FixtureRequest
) -> None:
    server: ServerProcess = request.getfixturevalue(which)
    poison = update_with("CRASH")
    await start(server)
    for update in (update_with("before"), poison, update_with("after")):
        await say(server, "trip-1", update)
    kill_all(server)
    (folder / "CRASH").touch()  # as a new version of pycrdt may

    async with running(server):
        await open_until_it_works(server, "trip-1")
        await say(server, "trip-1", update_with("new"))

        assert await quarantined(server) == [("trip-1", digest(poison))]
        assert texts(yjs, server, "trip-1") == {"before", "CRASH", "after", "new"}, "nothing is lost"
        async with Editor(server.url, "trip-1") as newcomer:
            await asyncio.wait_for(newcomer.synced.wait(), 5)
        assert words(yjs, newcomer.received) == {"before", "after", "new"}
        assert server.log.count("worker_died") == (1 if which == "workers" else 0)


@pytest.mark.timeout(60)
async def test_a_room_whose_stored_state_crashes_is_refused_and_never_shown_empty(
    single: ServerProcess, folder: Path, yjs: Yjs
) -> None:
    await single.start()
    for update in (update_with("before"), update_with("CRASH")):
        await say(single, "trip-1", update)
    await single.stop()  # compacts
    (folder / "CRASH").touch()

    async with running(single):
        assert await say(single, "trip-1") in (None, 1006)
        await until(lambda: has_ended(single), timeout_s=5)
        await restart(single)

        for _ in range(3):
            assert await say(single, "trip-1") == 503
        await say(single, "other", update_with("x"))

        assert texts(yjs, single, "trip-1") == {"before", "CRASH"}


@pytest.mark.timeout(60)
async def test_a_single_server_that_is_started_again_refuses_what_crashed_it(
    single: ServerProcess, folder: Path, yjs: Yjs
) -> None:
    (folder / "CRASH").touch()
    poison = update_with("CRASH")
    async with running(single):
        await say(single, "trip-1", update_with("before"))
        assert await say(single, "trip-1", poison) == 1006
        await restart(single)

        assert await say(single, "trip-1", poison) == REFUSED
        assert await quarantined(single) == [("trip-1", digest(poison))]
        await single.restart()
        assert await say(single, "trip-1", poison) == REFUSED, "the store remembers it"
        assert texts(yjs, single, "trip-1") == {"before"}


@pytest.mark.timeout(60)
async def test_an_innocent_update_that_was_being_taken_in_during_a_kill_is_not_quarantined(
    single: ServerProcess, folder: Path, yjs: Yjs
) -> None:
    (folder / "KILLED").touch()
    innocent = update_with("KILLED")
    async with running(single):
        assert await say(single, "trip-1", innocent) == 1006
        await restart(single)

        assert await say(single, "trip-1", innocent) is None

        assert "room_cleared" in single.log
        assert await quarantined(single) == []
        assert texts(yjs, single, "trip-1") == {"KILLED"}


@pytest.mark.timeout(60)
async def test_an_update_that_crashes_when_what_it_waited_for_arrives_is_found_and_the_other_taken_in(
    single: ServerProcess, folder: Path, yjs: Yjs
) -> None:
    (folder / "CRASH").touch()
    victims, poison = in_sequence("harmless", "CRASH")
    async with running(single):
        await say(single, "trip-1", poison)
        assert await say(single, "trip-1", victims) == 1006
        await restart(single)

        assert await say(single, "trip-1", victims) is None

        assert await quarantined(single) == [("trip-1", digest(poison))]
        async with Editor(single.url, "trip-1") as newcomer:
            await asyncio.wait_for(newcomer.synced.wait(), 5)
        assert words(yjs, newcomer.received) == {"harmless"}


@pytest.mark.timeout(60)
async def test_notes_are_for_this_user_only_and_a_graceful_end_leaves_none(single: ServerProcess, folder: Path) -> None:
    boxes = folder / "boxes" / f"crdt-sync-{os.geteuid()}"
    await single.start()
    await until(lambda: boxes.exists() and list(boxes.iterdir()), timeout_s=5)

    modes = [path.stat().st_mode & 0o777 for path in (boxes, *boxes.iterdir())]
    await single.stop()

    assert modes == [0o700, 0o600]
    assert list(boxes.iterdir()) == []


def server_of(folder: Path, database_url: str, env: Mapping[str, str]) -> ServerProcess:
    return ServerProcess(
        folder,
        database_url=database_url,
        script=folder / "script.py",
        env={
            "CRDT_SYNC_BLACK_BOX_FOLDER": str(folder / "boxes"),
            "CRDT_SYNC_CHECKPOINT_INTERVAL_S": "3600",
            "CRDT_SYNC_OPEN_TIMEOUT_S": "60",  # whatever else the machine has to do
            **env,
        },
    )


@asynccontextmanager
async def running(server: ServerProcess) -> AsyncIterator[None]:
    """Started, and with all of its workers."""
    try:
        await start(server)
        yield
    finally:
        server.kill()


async def start(server: ServerProcess) -> None:
    """Return when all workers serve."""
    workers = WORKERS if server.database_url.startswith("postgresql:") else 0
    before = 0
    with contextlib.suppress(FileNotFoundError):  # in its first life
        before = server.log.count("node_started")
    await server.start()
    assert await until(lambda: server.log.count("node_started") == before + workers, timeout_s=30), server.log


async def restart(server: ServerProcess) -> None:
    """Start a server again that has died."""
    assert await until(lambda: has_ended(server), timeout_s=5)
    server.kill()  # of which only its memory is left
    await server.start()


def kill_all(server: ServerProcess) -> None:
    """The workers too, which would make a snapshot if they were left to end by themselves."""
    workers = descendants(server.pid)
    server.kill()
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, workers)), timeout_s=20)


def has_ended(server: ServerProcess) -> bool:
    try:
        return server.pid < 0
    except AssertionError:
        return True


async def say(server: ServerProcess, room: str, update: bytes | None = None) -> int | None:
    """Send an update on a connection of its own, and wait for its confirmation.

    Returns:
        With which code the server closed it; which HTTP status it answered; None if it was confirmed.
    """
    try:
        async with asyncio.timeout(60), connect(f"{server.url}/{room}", compression=None, open_timeout=60) as socket:
            if update is not None:
                await socket.send(b"\x00\x02" + write_var_bytes(update))
            try:
                await confirmed(socket)
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd is not None else 1006
            return None
    except InvalidStatus as refused:
        return refused.response.status_code
    except (OSError, EOFError, InvalidMessage):
        return 1006


async def confirmed(socket: ClientConnection) -> None:
    await socket.send(write_var_uint(CONFIRM) + write_var_bytes(b"?"))
    while (await socket.recv())[:1] != write_var_uint(CONFIRM)[:1]:
        pass


async def open_until_it_works(server: ServerProcess, room: str) -> None:
    """As a client does that reconnects, and somebody who starts the server again."""
    for _ in range(20):
        if await say(server, room) is None:
            return
        if has_ended(server):
            await restart(server)
        await asyncio.sleep(0.1)  # a client's backoff
    raise AssertionError(server.log)


async def edit_confirmed(editor: Editor) -> set[str]:
    edits = {await editor.edit() for _ in range(5)}
    with contextlib.suppress(ConnectionClosed):
        await editor.until(lambda: edits <= editor.confirmed.keys() or editor.close_code is not None)
    assert edits <= editor.confirmed.keys(), editor.close_code
    return edits


def update_with(word: str) -> bytes:
    doc: pycrdt.Doc = pycrdt.Doc()
    doc["words"] = words_ = pycrdt.Map()
    words_[word] = word
    return doc.get_update()


def in_sequence(*words_: str) -> list[bytes]:
    """Updates of one client, each of which builds on the one before."""
    doc: pycrdt.Doc = pycrdt.Doc()
    map_ = doc.get("words", type=pycrdt.Map)
    updates: list[bytes] = []
    doc.observe(lambda event: updates.append(event.update))
    for word in words_:
        map_[word] = word
    return updates


async def quarantined(server: ServerProcess) -> list[tuple[str, bytes]]:
    store = open_store(server.database_url, read_only=True)
    await store.open()
    try:
        return [(one.document, one.digest) for one in await store.quarantined()]
    finally:
        await store.close()


def texts(yjs: Yjs, server: ServerProcess, room: str) -> set[str]:
    """The words that are stored, whatever the server makes of them."""
    return words(yjs, stored_updates(server.database_url, room))


def words(yjs: Yjs, updates: list[bytes]) -> set[str]:
    loaded = yjs.apply(updates, {"words": "map"})
    assert loaded.error is None
    content = loaded.content["words"]
    return set(content.get("v", content))
