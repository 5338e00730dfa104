"""The edge, over real sockets: which paths name a room, and how the others are answered."""

import asyncio
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from crdt_sync.lib0 import write_var_bytes
from tests.support.database import stored_updates
from tests.support.editor import Editor
from tests.support.raw import RawClient, Refused
from tests.support.server import ServerProcess


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """What happens at the edge doesn't depend on the database."""
    return f"sqlite:///{tmp_path / 'documents.db'}"


@pytest.mark.parametrize(
    ("target", "room"),
    [
        ("trip-1?token=secret", "trip-1"),
        ("a/b", "a/b"),
        ("a%2Fb", "a/b"),
        ("%C3%BC%20x", "ü x"),
        ("api", "api"),
        ("x" * 255, "x" * 255),
    ],
)
async def test_the_decoded_path_is_the_room(target: str, room: str, server: ServerProcess) -> None:
    async with await RawClient.connect(server.url, target) as client:
        await client.send(b"\x00\x02" + write_var_bytes(bytes.fromhex("01010100040101740178" + "00")))
        await client.send(b"\x66\x01x")
        while await client.receive() != b"\x66\x01x":
            pass

    assert len(stored_updates(server.database_url, room)) == 1
    assert "secret" not in server.log


@pytest.mark.parametrize("target", ["", "api/", "api/v1/rooms", "x" * 256, "a%00b", "a%7Fb", "%FF"])
async def test_a_path_that_names_no_room_is_refused_at_the_upgrade(target: str, server: ServerProcess) -> None:
    with pytest.raises(Refused) as refused:
        await RawClient.connect(server.url, target)

    assert (refused.value.status, refused.value.body) == (400, b"invalid room name\n")


async def test_a_room_that_can_not_be_loaded_is_refused_with_a_retryable_answer(server: ServerProcess) -> None:
    async with Editor(server.url, "trip-1") as ann:
        key = await ann.edit()
        await ann.until(lambda: key in ann.confirmed)
    server.kill()
    with closing(sqlite3.connect(server.database_path)) as database, database:
        database.execute("UPDATE document_update SET \"update\" = x'ff'")

    await server.start()

    with pytest.raises(Refused) as refused:
        await RawClient.connect(server.url, "trip-1")
    assert (refused.value.status, refused.value.body) == (503, b"room unavailable\n")
    async with Editor(server.url, "trip-2") as bob:
        other = await bob.edit()
        await bob.until(lambda: other in bob.confirmed)
    assert any("room_load_failed" in line for line in server.errors())
    # The fixture wants a server without errors; these were the point.
    await server.stop()
    (server.database_path.parent / f"server-{server.port}.log").write_text("")


@pytest.mark.parametrize(
    ("path", "status", "says"), [("/", 200, "y-websocket"), ("/x", 426, "WebSocket"), ("/api/x", 404, "no such")]
)
async def test_a_browser_is_told_what_this_is(path: str, status: int, says: str, server: ServerProcess) -> None:
    def get() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(server.url.replace("ws:", "http:") + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    got, text = await asyncio.to_thread(get)

    assert got == status
    assert says in text


async def test_text_frames_are_ignored(server: ServerProcess) -> None:
    async with await RawClient.connect(server.url, "trip-1") as client:
        await client.send_frame(1, b"hello")
        await client.send(b"\x66\x01x")

        while (frame := await client.receive()) != b"\x66\x01x":
            assert frame is not None, "closed"
