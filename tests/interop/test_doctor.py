"""`crdt-sync doctor` on real servers, good ones and such as have something wrong with them."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import Result, content
from tests.support.editor import Editor
from tests.support.jwks_server import JwksServer
from tests.support.redis import RedisServer
from tests.support.server import ServerProcess, free_port
from tests.support.tokens import SECRET, hs256

Run = Callable[..., Result]


def found(result: Result) -> dict[str, list[str]]:
    """What it found, by verdict."""
    findings = json.loads(result.out)["findings"]
    return {
        verdict: [f"{one['about']}: {one['found']}" for one in findings if one["verdict"] == verdict]
        for verdict in ("good", "doubtful", "bad")
    }


def http_url(server: ServerProcess) -> str:
    return server.url.replace("ws://", "http://")


def begins(lines: list[str], *starts: str) -> bool:
    return all(any(line.startswith(start) for line in lines) for start in starts)


async def test_a_server_with_postgresql_redis_and_keys_is_in_order(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, postgres_url: str, redis: RedisServer
) -> None:
    env = {"CRDT_SYNC_REDIS_URL": redis.url, "CRDT_SYNC_JWT_SECRET": SECRET, "CRDT_SYNC_CONNECTIONS_MAX": "100"}
    async with ServerProcess(tmp_path, database_url=postgres_url, env=env) as server:
        for name, value in (env | {"CRDT_SYNC_DATABASE_URL": postgres_url}).items():
            monkeypatch.setenv(name, value)
        token = minted(**{"crdt-sync-doctor-*": "admin"})
        result = await asyncio.to_thread(
            run, "doctor", "--url", http_url(server), "--token", token, "--patience", "1s", "--json"
        )
        errors = server.errors()

    told = found(result)
    assert begins(
        told["good"],
        "settings: tokens are asked for (CRDT_SYNC_JWT_SECRET)",
        "store: its tables have version",
        "store: PostgreSQL ",
        "store: its clock agrees",
        "redis: Valkey ",
        "redis: its clock agrees",
        "limits: ",
        "http: the server is ready",
        "websocket: a y-websocket handshake works",
        "websocket: a connection on which nothing is said stays for 1 s",
        "proxy: the server knows where its clients come from (it sees 127.0.0.1)",
    )
    # The tests' own doesn't wait for its disk.
    assert [one.partition(" is off")[0] for one in told["bad"]] == ["store: fsync", "store: full_page_writes"]
    assert (result.code, errors) == (1, [])
    # It leaves nothing behind.
    assert await asyncio.to_thread(content, postgres_url) == []


async def test_what_is_broken_is_bad_and_says_what_to_do(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with JwksServer() as jwks:
        for name, value in {
            "DATABASE_URL": f"postgresql://nobody@127.0.0.1:{free_port()}/none",
            "REDIS_URL": f"redis://127.0.0.1:{free_port()}",
            "JWT_JWKS": jwks.url,
            "ARCHIVE_URL": f"file://{tmp_path / 'archive'}",
        }.items():
            monkeypatch.setenv(f"CRDT_SYNC_{name}", value)
        (tmp_path / "archive").write_text("a file is no folder")

        result = await asyncio.to_thread(run, "doctor", "--url", f"http://127.0.0.1:{free_port()}", "--json")

    findings = json.loads(result.out)["findings"]
    bad = {one["about"] for one in findings if one["verdict"] == "bad"}
    assert bad == {"keys", "store", "archive", "redis", "http", "websocket"}
    assert all(one["advice"] for one in findings if one["verdict"] == "bad")
    assert result.code == 1


def test_settings_that_cannot_work_are_findings_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDT_SYNC_PORT", "many")
    monkeypatch.setenv("CRDT_SYNC_PROT", "1234")

    result = run("doctor")

    assert [line.split()[:2] for line in result.out.splitlines() if line.startswith("bad")] == [["bad", "settings"]] * 2
    assert "did you mean CRDT_SYNC_PORT?" in result.out
    assert result.out.endswith("2 findings: 0 good, 0 doubtful, 2 bad\n")
    assert result.code == 1


async def test_a_sqlite_database_of_a_running_server_is_left_alone(tmp_path: Path, run: Run) -> None:
    # Who has its document has the database, too: a server listens a moment before.
    async with ServerProcess(tmp_path) as server, Editor(server.url, "trip-1") as editor:
        await asyncio.wait_for(editor.synced.wait(), 10)
        result = await asyncio.to_thread(run, "doctor", "--database", server.database_url)

    assert "is in use by a server, which looks after it: --url asks that one" in result.out
    assert result.code == 0


@pytest.mark.parametrize(
    ("answer", "about", "found"),
    [
        ("404 Not Found", "websocket", "the upgrade to a WebSocket is answered by 404"),
        ("502 Bad Gateway", "websocket", "the upgrade to a WebSocket is answered by 502"),
        ("200 OK", "http", "/ready is answered by somebody else (200)"),
    ],
)
async def test_what_stands_in_front_and_does_not_pass_on_is_found(
    run: Run, tmp_path: Path, answer: str, about: str, found: str
) -> None:
    async def somebody_else(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {answer}\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello".encode())
        writer.close()

    async with await asyncio.start_server(somebody_else, "127.0.0.1") as listener:
        port = listener.sockets[0].getsockname()[1]
        where = ("--database", f"sqlite:///{tmp_path / 'none.db'}", "--url", f"http://127.0.0.1:{port}", "--json")
        result = await asyncio.to_thread(run, "doctor", *where)

    bad = [one for one in json.loads(result.out)["findings"] if one["verdict"] == "bad"]
    assert any(one["about"] == about and one["found"].endswith(found) for one in bad), bad
    assert all(one["advice"] for one in bad)


async def test_who_lacks_a_token_is_told(run: Run, tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, env={"CRDT_SYNC_JWT_SECRET": SECRET}) as server:
        where = ("--database", f"sqlite:///{tmp_path / 'none.db'}", "--url", http_url(server))
        without = await asyncio.to_thread(run, "doctor", *where)
        other = await asyncio.to_thread(run, "doctor", *where, "--token", minted(other="write"))

    assert "the upgrade to a WebSocket is answered by 401" in without.out
    assert "the upgrade to a WebSocket is answered by 403" in other.out
    assert (without.code, other.code) == (1, 1)


@pytest.mark.parametrize(
    ("trusted", "verdict", "seen"),
    [
        ("10.0.0.0/8", "good", "the server knows where its clients come from (it sees 127.0.0.1)"),
        ("127.0.0.1", "doubtful", "the server believes what this machine says in X-Forwarded-For"),
    ],
)
async def test_whom_the_server_believes_is_found(
    run: Run, tmp_path: Path, trusted: str, verdict: str, seen: str
) -> None:
    env = {"CRDT_SYNC_TRUSTED_PROXIES": trusted, "CRDT_SYNC_JWT_SECRET": SECRET}
    token = minted(**{"crdt-sync-doctor-*": "admin"})
    async with ServerProcess(tmp_path, env=env) as server:
        where = ("--database", f"sqlite:///{tmp_path / 'none.db'}", "--url", http_url(server), "--token", token)
        result = await asyncio.to_thread(run, "doctor", *where, "--json")

    findings = json.loads(result.out)["findings"]
    assert [(one["verdict"], one["found"]) for one in findings if one["about"] == "proxy"] == [(verdict, seen)]


def minted(**rooms: str) -> str:
    """A token that is good for a while."""
    now = int(time.time())
    return hs256({"sub": "doctor", "iat": now, "exp": now + 3600, "rooms": rooms})
