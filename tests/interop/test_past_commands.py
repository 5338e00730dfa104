"""The admin's commands about a document's past, beside running servers and by way of them."""

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.api import GUARDED, request, token
from tests.support.clients import NodeClients
from tests.support.command import Result, fill, run_inside
from tests.support.past import FULL, emptied_trip
from tests.support.redis import RedisServer
from tests.support.server import ServerProcess

# So that no version is taken by itself, which depends on how long all takes.
QUIET = {"CRDT_SYNC_VERSION_INTERVAL_S": "0"}
# As the clients call them.
ROOTS = ("map", "text")
ROOT = token("root", {"*": "admin"}, ttl_s=3600)


async def run(*arguments: str | Path, **env: str) -> Result:
    """Run `crdt-sync` while servers run."""
    return await asyncio.to_thread(run_inside, *arguments, env=env)


def web(server: ServerProcess) -> str:
    return server.url.replace("ws://", "http://")


async def ask(server: ServerProcess, *arguments: str | Path, bearer: str = ROOT) -> Result:
    """Run a command by way of a server."""
    return await run(*arguments, "--url", web(server), CRDT_SYNC_TOKEN=bearer)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """A server with keys on SQLite, with some emptied trips."""
    folder = tmp_path_factory.mktemp("guarded")
    url = f"sqlite:///{folder}/documents.db"
    await asyncio.to_thread(fill, url, *(emptied_trip(name).export() for name in ("trip-1", "trip-2")))
    async with ServerProcess(folder, env=GUARDED | QUIET, database_url=url) as server:
        yield server
    assert server.errors() == []


def told(result: Result) -> tuple[int, str]:
    """What a command said, but for times, sizes, and who asked."""
    out = re.sub(r"20\d\d-\d\d-\d\d[T ][\d:.]+(Z|[+-]\d\d:?\d\d)?", "TIME", result.out)
    out = re.sub(r'"users": \[\s+"root"\s+\]', '"users": []', out)
    return result.code, re.sub(
        r"\d+ bytes|\d+ s ago|\"size_bytes\": \d+|nobody who is known|\"root\"|root|null", "…", out
    )


async def test_both_ways_do_and_say_the_same(guarded: ServerProcess, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/trips.db"
    await asyncio.to_thread(fill, url, emptied_trip("trip-1").export())
    steps: list[tuple[str, ...]] = [
        ("versions", "list", "trip-1"),
        ("versions", "create", "trip-1", "--label", "emptied"),
        ("versions", "label", "trip-1", "1", "empty"),
        ("versions", "list", "trip-1", "--json"),
        ("versions", "show", "trip-1", "1", "--json"),
        ("versions", "diff", "trip-1", "--from", "seq:1", "--to", "1"),
        ("activity", "trip-1", "--since", "4h", "--bucket", "5m"),
        ("export", "trip-1", "--at", "1 hour ago", "--format", "json"),
        ("export", "trip-1", "--version", "1", "--format", "rich"),
        ("export", "trip-1", "--version", "9", "--format", "rich"),
        ("restore", "trip-1", "--at", "1 hour ago", "--dry-run"),
        ("restore", "trip-1", "--seq", "2", "--roots", "t,nowhere", "--yes"),
        ("restore", "trip-1", "--seq", "2", "--roots", "t", "--yes"),
        ("restore", "trip-1", "--seq", "2", "--yes", "--json"),
        ("restore", "trip-1", "--seq", "2", "--yes"),
        ("export", "trip-1", "--format", "json"),
        ("restore", "trip-1", "--version", "2", "--as-new", "copy"),
        ("restore", "trip-1", "--version", "2", "--as-new", "copy", "--json"),
        ("restore", "trip-1", "--seq", "99", "--yes"),
        ("restore", "trip-1", "--version", "1", "--yes"),
        ("rollback", "trip-1", "--user", "eve", "--seq", "2", "--dry-run"),
        ("rollback", "trip-1", "--user", "eve", "--since", "1 hour ago", "--yes"),
        ("versions", "delete", "trip-1", "1", "9", "--yes"),
        ("versions", "delete", "trip-1", "1", "2", "--yes"),
        ("rooms", "delete", "trip-1", "--yes"),
        ("versions", "create", "trip-1"),
        ("versions", "list", "nowhere"),
    ]

    async def by_server() -> list[Result]:
        return [await ask(guarded, *step) for step in steps]

    async def on_database() -> list[Result]:
        return [await run(*step, "--database", url, **QUIET) for step in steps]

    there, here = await asyncio.gather(by_server(), on_database())

    for step, one, other in zip(steps, there, here, strict=True):
        assert told(one) == told(other), (step, one.err, other.err)
    said = dict(zip(steps, there, strict=True))
    assert json.loads(said["export", "trip-1", "--format", "json"].out) == FULL
    assert [step for step, one in said.items() if one.code] == [
        ("export", "trip-1", "--version", "9", "--format", "rich"),
        ("restore", "trip-1", "--seq", "2", "--roots", "t,nowhere", "--yes"),
        ("restore", "trip-1", "--version", "2", "--as-new", "copy", "--json"),
        ("restore", "trip-1", "--seq", "99", "--yes"),
        ("versions", "delete", "trip-1", "1", "9", "--yes"),
        ("versions", "create", "trip-1"),
        ("versions", "list", "nowhere"),
    ]
    assert said["restore", "trip-1", "--seq", "99", "--yes"].err.endswith("has no update 99: its last one is 5\n")
    assert "document deleted; crdt-sync rooms undelete brings it back" in said["versions", "create", "trip-1"].err


async def test_what_a_token_does_not_allow_is_said_with_what_would(guarded: ServerProcess) -> None:
    reader, writer = token("ann", {"*": "read"}), token("ann", {"trip-2": "write"})
    await ask(guarded, "versions", "create", "trip-2")

    refused = [
        await ask(guarded, "versions", "list", "trip-2", bearer=reader),
        await ask(guarded, "restore", "trip-2", "--seq", "2", "--yes", bearer=reader),
        await ask(guarded, "export", "trip-2", "--seq", "2", "--format", "json", bearer=reader),
        await ask(guarded, "restore", "trip-2", "--seq", "2", "--as-new", "elsewhere", bearer=writer),
        await ask(guarded, "versions", "delete", "trip-2", "1", "--yes", bearer=writer),
    ]

    assert [(one.code, one.out) for one in refused] == [(1, "")] * 5
    assert [one.err.rpartition("says: ")[2] for one in refused] == [
        "not allowed; that needs write in 'trip-2'\n",
        "not allowed; that needs write in 'trip-2'\n",
        "not allowed; that needs write in 'trip-2'\n",
        "not allowed; that needs write in 'trip-2' and 'elsewhere'\n",
        "not allowed; that needs admin in 'trip-2'\n",
    ]


async def test_restoring_beside_the_server_of_a_sqlite_database_says_what_to_type(
    tmp_path: Path, clients: NodeClients
) -> None:
    url = f"sqlite:///{tmp_path}/documents.db"
    await asyncio.to_thread(fill, url, emptied_trip("my trip", ROOTS).export())
    async with ServerProcess(tmp_path, database_url=url) as server:
        ann = await clients.create(server.url, "my trip")
        await ann.wait(synced=True)
        env = {"CRDT_SYNC_DATABASE_URL": url, "CRDT_SYNC_PORT": str(server.port)}

        rehearsed = await run("restore", "my trip", "--seq", "2", "--dry-run", **env)
        looked = await run("versions", "list", "my trip", **env)
        refused = [
            await run(*words, **env)
            for words in (
                ("restore", "my trip", "--at", "1 hour ago", "--roots", "text,map", "--anyway", "--yes"),
                ("rollback", "my trip", "--user", "eve", "--since", "1 hour ago"),
                ("restore", "my trip", "--seq", "2", "--as-new", "new trip"),
                ("versions", "create", "my trip", "--label", "a b"),
                ("versions", "label", "my trip", "1", "--remove"),
                ("versions", "delete", "my trip", "1", "2", "--yes"),
            )
        ]
        instead = [re.findall(r"clients see it: crdt-sync (.*), or stop it first\n$", one.err)[0] for one in refused]
        followed = await run(*shlex.split(instead[0]), "--yes", **env)
        await ann.wait(text=FULL["t"], timeout_s=1)

    assert (rehearsed.code, looked.code) == (0, 0)
    assert [(one.code, one.out) for one in refused] == [(1, "")] * 6
    (at,) = re.findall(r"--at (\S+)", instead[0])
    (since,) = re.findall(r"--since (\S+)", instead[1])
    there = f"--url {web(server)}"
    assert instead == [
        f"restore 'my trip' --at {at} --roots text,map --anyway {there}",
        f"rollback 'my trip' --user eve --since {since} {there}",
        f"restore 'my trip' --seq 2 --as-new 'new trip' {there}",
        f"versions create 'my trip' --label 'a b' {there}",
        f"versions label 'my trip' 1 --remove {there}",
        f"versions delete 'my trip' 1 2 {there}",
    ]
    assert followed.code == 0, followed.err


async def test_with_redis_clients_of_running_servers_get_at_once_what_is_restored_in_the_database(
    tmp_path: Path, postgres_url: str, redis: RedisServer, clients: NodeClients
) -> None:
    env = {"CRDT_SYNC_DATABASE_URL": postgres_url, "CRDT_SYNC_REDIS_URL": redis.url}
    await asyncio.to_thread(fill, postgres_url, emptied_trip("trip-1", ROOTS).export())
    async with ServerProcess(tmp_path, database_url=postgres_url, env={"CRDT_SYNC_REDIS_URL": redis.url}) as server:
        ann = await clients.create(server.url, "trip-1")
        await ann.wait(synced=True)
        # In the room just now, not stored for long.
        await ann.insert(0, "Now ")

        restored = await run("restore", "trip-1", "--seq", "2", "--roots", "map", "--yes", **env)
        await ann.wait(map=FULL["m"], timeout_s=2)
        taken_back = await run("rollback", "trip-1", "--user", "eve", "--seq", "2", "--yes", **env)
        await ann.wait(text=FULL["t"] + "Now ", timeout_s=2)
        shown = await request(server.url, "GET", "/api/v1/rooms/trip-1/document?format=json")

    assert [(one.code, one.err.splitlines()) for one in (restored, taken_back)] == [(0, ["found: seq 2"])] * 2
    assert shown.json == {"map": FULL["m"], "text": FULL["t"] + "Now "}


async def test_without_redis_it_is_said_when_running_servers_see_it(tmp_path: Path, postgres_url: str) -> None:
    await asyncio.to_thread(fill, postgres_url, emptied_trip("trip-1").export())

    done = await run("restore", "trip-1", "--seq", "2", "--yes", "--database", postgres_url)
    rehearsed = await run("restore", "trip-1", "--seq", "2", "--dry-run", "--database", postgres_url)

    assert (done.code, rehearsed.code) == (0, 0)
    assert re.search(r"\nServers that run on PostgreSQL database \S+ at \S+ see it within 20 s\.\n$", done.err)
    assert "see it within" not in rehearsed.err
