"""The admin's commands beside running servers, and by way of them."""

import asyncio
import json
import re
import shlex
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import pytest_asyncio

from persistence import Export, Row
from tests.support.api import GUARDED, token
from tests.support.clients import NodeClients
from tests.support.command import Result, content, fill, run_inside
from tests.support.fakes import Editor, typed
from tests.support.raw import Closed, RawClient
from tests.support.redis import RedisServer
from tests.support.server import ServerProcess

NOW = datetime(2026, 5, 4, tzinfo=UTC)
ROOT = token("root", {"*": "admin"}, ttl_s=3600)
NAMES = ("a/b", "..", "%2F", "旅行/Zürich 🧳 #?&", "-x")


async def run(*arguments: str | Path, stdin: bytes | None = None, **env: str) -> Result:
    """Run `crdt-sync` while servers run."""
    return await asyncio.to_thread(run_inside, *arguments, env=env, stdin=stdin)


def web(server: ServerProcess) -> str:
    return server.url.replace("ws://", "http://")


def log_of(name: str, *updates: bytes, deleted_at: datetime | None = None) -> Export:
    rows = tuple(Row(seq, update, "ann", NOW) for seq, update in enumerate(updates, 1))
    return Export(name, NOW, len(updates), None, rows, deleted_at)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """A server with keys on SQLite."""
    async with ServerProcess(tmp_path_factory.mktemp("guarded"), env=GUARDED) as server:
        yield server
    assert server.errors() == []


async def ask(server: ServerProcess, *arguments: str | Path, bearer: str = ROOT, stdin: bytes | None = None) -> Result:
    """Run a command by way of a server."""
    return await run(*arguments, "--url", web(server), CRDT_SYNC_TOKEN=bearer, stdin=stdin)


# ------------------------------------------------------------------------------------------------ both ways


async def test_both_ways_do_and_say_the_same(guarded: ServerProcess, room: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/trips.db"
    await asyncio.to_thread(fill, url)
    steps = [
        (("import", room, "-"), Editor(1).type("hello")),
        (("import", room, "-"), Editor(1).type("hello")),
        (("import", room, "-"), typed("xyz")[2]),
        (("export", room, "--format", "json"), None),
        (("export", room, "--format", "text"), None),
        (("rooms", "delete", room, "--yes"), None),
        (("rooms", "delete", room, "--yes", "--json"), None),
        (("rooms", "undelete", room), None),
        (("import", room, "-", "--json"), b"\x01\xff"),
        (("export", room, "--output", tmp_path / "trip.bin"), None),
    ]

    there = [await ask(guarded, *step, stdin=stdin) for step, stdin in steps]
    here = [await run(*step, "--database", url, stdin=stdin) for step, stdin in steps]

    assert [(one.code, one.out) for one in there] == [(one.code, one.out) for one in here]
    assert [one.code for one in there] == [0, 0, 0, 0, 0, 0, 1, 0, 1, 0]
    assert there[0].out == f"'{room}' is new: the update is in it, and stored\n"
    assert json.loads(there[3].out) == {"text": "hello"}


@pytest.mark.parametrize("name", NAMES)
async def test_names_reach_a_server_as_they_are(guarded: ServerProcess, name: str) -> None:
    made = await run(
        *("import", "--json", "--url", web(guarded), "--", name, "-"),  # options first: a name may look like one
        stdin=Editor(1).type("x"),
        CRDT_SYNC_TOKEN=ROOT,
    )
    listed = await ask(guarded, "rooms", "list", "--json")

    assert json.loads(made.out)["created"] is True, made.err
    assert name in [one["name"] for one in json.loads(listed.out)]


async def test_server_shows_who_is_connected_and_what_is_open(
    guarded: ServerProcess, room: str, clients: NodeClients
) -> None:
    ann = await clients.create(guarded.url, room, params={"token": token("ann")})
    await ann.insert(0, "hello")
    await ann.confirm()

    shown = json.loads((await ask(guarded, "rooms", "show", room, "--json")).out)
    listed = await ask(guarded, "rooms", "list", "--prefix", room)
    as_reader = json.loads(
        (await ask(guarded, "rooms", "show", room, "--json", bearer=token("bob", {"*": "read"}))).out
    )

    assert shown == {
        "name": room,
        "seq": 1,
        "open": True,
        "connections": 1,
        "connected_users": ["ann"],
        "deleted_at": None,
    }
    assert "connected_users" not in as_reader
    assert re.search(rf"^ {room} +1 +yes +1 *$", listed.out, re.MULTILINE)


async def test_import_and_delete_by_way_of_a_server_reach_its_clients(
    guarded: ServerProcess, room: str, clients: NodeClients
) -> None:
    ann = await clients.create(guarded.url, room, params={"token": token("ann")})
    raw = await RawClient.connect(guarded.url, room, headers={"Authorization": f"Bearer {ROOT}"})

    imported = await ask(guarded, "import", room, "-", stdin=Editor(1).type("hello"))
    await ann.wait(text="hello", timeout_s=1)
    deleted = await ask(guarded, "rooms", "delete", room, "--yes")

    assert (imported.code, deleted.code) == (0, 0)
    assert await raw.wait_closed(timeout_s=1) == Closed(4404, "document deleted")
    await raw.close()


async def test_deleted_documents_are_listed_shown_and_forgotten_by_way_of_a_server(tmp_path: Path) -> None:
    long_ago = [log_of(f"old-{number}", *typed("x"), deleted_at=NOW) for number in range(3)]
    lately = log_of("lately", *typed("x"), deleted_at=datetime.now(UTC) - timedelta(days=1))
    url = f"sqlite:///{tmp_path}/documents.db"
    await asyncio.to_thread(fill, url, *long_ago, lately)
    async with ServerProcess(tmp_path, env=GUARDED) as server:
        listed = await ask(server, "rooms", "list", "--deleted", "--json")
        shown = await ask(server, "rooms", "show", "old-1", "--json")
        rehearsed = await ask(server, "gc", "--dry-run")
        done = await ask(server, "gc", "--yes", "--json")

    assert [one["name"] for one in json.loads(listed.out)] == ["lately", "old-0", "old-1", "old-2"]
    assert json.loads(shown.out) == {"name": "old-1", "deleted_at": "2026-05-04T00:00:00+00:00"}
    assert "3 documents" in rehearsed.out
    assert [one["name"] for one in json.loads(done.out)["purged"]] == ["old-0", "old-1", "old-2"]
    assert await asyncio.to_thread(content, url) == [lately]


async def test_purge_that_comes_too_early_is_told_when_to_come_back(shared_server: ServerProcess, room: str) -> None:
    await run("import", room, "-", "--url", web(shared_server), stdin=Editor(1).type("x"))
    await run("rooms", "delete", room, "--yes", "--url", web(shared_server))

    result = await run("rooms", "purge", room, "--yes", "--url", web(shared_server))

    if result.code:  # SQLite's may be closed by now
        assert re.fullmatch(
            rf"crdt-sync: the server at {web(shared_server)} says: deleted just now: it may still be open somewhere; try again in \d+ s\n",
            result.err,
        )
    else:
        assert "sqlite" in shared_server.database_url


async def test_verify_by_way_of_a_server_finds_the_same(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/documents.db"
    damaged = log_of("damaged", *typed("ab"), b"\x01\xff")
    await asyncio.to_thread(
        fill, url, log_of("fine", *typed("ab")), damaged, log_of("gone", *typed("a"), deleted_at=NOW)
    )
    async with ServerProcess(tmp_path, env=GUARDED) as server:
        there = await ask(server, "verify", "--json")
        here = await run("verify", "--json", "--database", url)
        unknown = await ask(server, "verify", "nowhere")

    assert (there.code, here.code) == (1, 1)
    assert json.loads(there.out)["documents"] == json.loads(here.out)["documents"]
    assert [(one["name"], len(one["problems"])) for one in json.loads(here.out)["documents"]] == [
        ("damaged", 1),
        ("fine", 0),
        ("gone", 0),
    ]
    assert (unknown.code, unknown.out) == (1, "")
    assert unknown.err.endswith("says: no such document\n")


# ------------------------------------------------------------------------------------------------ beside a server


async def test_sqlite_of_a_running_server_is_read_and_writing_says_what_to_type(
    tmp_path: Path, room: str, clients: NodeClients
) -> None:
    async with ServerProcess(tmp_path) as server:
        ann = await clients.create(server.url, room)
        await ann.insert(0, "hello")
        await ann.confirm()
        (tmp_path / "x y.bin").write_bytes(Editor(1).type("X"))
        env = {"CRDT_SYNC_DATABASE_URL": server.database_url, "CRDT_SYNC_PORT": str(server.port)}

        read = [
            await run(*words, **env)
            for words in (("rooms", "list"), ("rooms", "show", room), ("verify",), ("gc", "--dry-run"))
        ]
        refused = [
            await run(*words, **env)
            for words in (
                ("import", room, tmp_path / "x y.bin"),
                ("rooms", "undelete", room),
                ("rooms", "purge", room, "--yes"),
                ("gc", "--yes"),
                ("rooms", "delete", room, "--yes"),
            )
        ]
        (instead,) = re.findall(r"clients see it: crdt-sync (.*), or stop it first\n$", refused[0].err)
        followed = await run(*shlex.split(instead), **env)
        assert [one.code for one in read] == [0] * 4, read
        assert [(one.code, one.out) for one in refused] == [(1, "")] * 5
        assert all("is in use by another server, which has to do this itself" in one.err for one in refused)
        assert instead == shlex.join(["import", room, f"{tmp_path}/x y.bin", "--url", web(server)])
        assert (followed.code, followed.err) == (0, "")
        async with asyncio.timeout(2):
            while sorted((await ann.content("text"))["text"]) != sorted("helloX"):
                await asyncio.sleep(0.05)


@pytest.mark.waits
async def test_running_server_on_postgresql_sees_within_20_s_what_is_changed_in_the_database(
    tmp_path: Path, postgres_url: str, room: str, clients: NodeClients
) -> None:
    env = {"CRDT_SYNC_DATABASE_URL": postgres_url}
    async with ServerProcess(tmp_path, database_url=postgres_url) as server:
        ann = await clients.create(server.url, room)
        raw = await RawClient.connect(server.url, room)
        await ann.insert(0, "hello")
        await ann.confirm()

        imported = await run("import", room, "-", stdin=Editor(1).type("X"), **env)
        started = time.monotonic()
        async with asyncio.timeout(25):
            while "X" not in (await ann.content("text"))["text"]:
                await asyncio.sleep(0.1)
        imported_s = time.monotonic() - started
        deleted = await run("rooms", "delete", room, "--yes", **env)
        closed = await raw.wait_closed(timeout_s=25)
        await raw.close()

    assert (imported.code, deleted.code) == (0, 0)
    assert re.fullmatch(r"Servers that run on PostgreSQL database \S+ at \S+ see it within 20 s\.\n", imported.err)
    assert imported_s < 21
    assert closed == Closed(4404, "document deleted")


async def test_with_redis_running_servers_see_at_once_what_is_changed_in_the_database(
    tmp_path: Path, postgres_url: str, redis: RedisServer, room: str, clients: NodeClients
) -> None:
    env = {"CRDT_SYNC_DATABASE_URL": postgres_url, "CRDT_SYNC_REDIS_URL": redis.url}
    async with ServerProcess(tmp_path, database_url=postgres_url, env={"CRDT_SYNC_REDIS_URL": redis.url}) as server:
        ann = await clients.create(server.url, room)
        raw = await RawClient.connect(server.url, room)
        await ann.insert(0, "hello")

        imported = await run("import", room, "-", stdin=Editor(1).type("X"), **env)
        async with asyncio.timeout(2):
            while "X" not in (await ann.content("text"))["text"]:
                await asyncio.sleep(0.05)
        deleted = await run("rooms", "delete", room, "--yes", **env)
        closed = await raw.wait_closed(timeout_s=2)
        await raw.close()

    assert [(one.code, one.err) for one in (imported, deleted)] == [(0, "")] * 2
    assert closed == Closed(4404, "document deleted")


# ------------------------------------------------------------------------------------------------ errors


async def test_what_a_token_does_not_allow_is_said_with_what_would(guarded: ServerProcess, room: str) -> None:
    await ask(guarded, "import", room, "-", stdin=Editor(1).type("x"))
    reader = token("bob", {"*": "read"})

    none = await run("rooms", "list", "--url", web(guarded))
    wrong = await run("rooms", "list", "--url", web(guarded), "--token", "abc")
    read = await ask(guarded, "rooms", "delete", room, "--yes", bearer=reader)
    deleted = await ask(guarded, "rooms", "list", "--deleted", bearer=reader)

    assert [(one.code, one.out, one.err.count("\n")) for one in (none, wrong, read, deleted)] == [(1, "", 1)] * 4
    assert "credential missing; give a token with --token or CRDT_SYNC_TOKEN" in none.err
    assert "give a token with --token or CRDT_SYNC_TOKEN" in wrong.err
    assert f"says: not allowed; that needs admin in '{room}'" in read.err
    assert "says: not allowed; that needs admin in '*'" in deleted.err


async def test_token_of_the_command_line_goes_first(guarded: ServerProcess) -> None:
    result = await run("rooms", "list", "--url", web(guarded), "--token", ROOT, CRDT_SYNC_TOKEN="abc")

    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:1", "no server answers at http://127.0.0.1:1: "),
        ("ws://127.0.0.1:1234", "--url is http://host:port or https://host, without a user, a password or a query"),
        ("127.0.0.1:1234", "--url is http://host:port"),
        ("http://ann:s3cret@127.0.0.1:1234", "--url is http://host:port"),
        ("http://127.0.0.1:port", "--url is no URL"),
        ("", "--url is http://host:port"),
    ],
)
async def test_server_that_can_not_be_asked_is_told_in_a_sentence(url: str, why: str) -> None:
    result = await run("rooms", "list", "--url", url)

    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert why in result.err
    assert "s3cret" not in result.err


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"<p>Hello"), (200, b'{"hello": 1}'), (200, b"[]"), (302, b""), (404, b"{}"), (500, b"")]
)
async def test_somebody_else_s_server_is_recognised_and_sent_nowhere(status: int, body: bytes) -> None:
    asked = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = Thread(target=other.serve_forever)
        thread.start()
        try:
            result = await run("rooms", "list", "--url", f"http://127.0.0.1:{other.server_port}/sync/")
        finally:
            other.shutdown()
            thread.join()

    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert "but not as expected: is that a crdt-sync server of this version, and the whole path?" in result.err
    assert asked == ["/sync/api/v1/rooms?after=&limit=1000&prefix="]
