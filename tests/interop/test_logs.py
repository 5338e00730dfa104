"""What a real server's log shows of what clients do, and of what hostile ones try."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crdt_sync.lib0 import write_var_bytes
from tests.support.api import GUARDED, request, token
from tests.support.raw import RawClient, Refused
from tests.support.server import ServerProcess

UPDATE = bytes.fromhex("0101010004010174017800")
FRESH_TOKEN = b"\x02\x01"


def lines(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.splitlines()]


async def until(condition: Callable[[], object], timeout_s: float = 15) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


async def test_the_log_tells_who_came_and_what_was_asked_and_no_secret(tmp_path: Path) -> None:
    bearer, root = token("ann"), token("root", {"*": "admin"})
    env = {"CRDT_SYNC_LOG_FORMAT": "json", "CRDT_SYNC_LOG_LEVEL": "DEBUG", **GUARDED}
    async with ServerProcess(tmp_path, env=env) as server:
        async with await RawClient.connect(server.url, f"trip-1?token={bearer}") as client:
            await client.send(b"\x00\x02" + write_var_bytes(UPDATE))
            await client.send(FRESH_TOKEN + write_var_bytes(b"no-token"))
            await until(lambda: "token_refused" in server.log)
            await client.send(b"\x00\x02\x03\xff\xff\xff")
            await client.wait_closed()
        with_query = f"/api/v1/rooms/trip-1/versions?token={bearer}"
        await request(server.url, "GET", with_query)
        await request(server.url, "DELETE", "/api/v1/rooms/trip-1", bearer=root)
        await request(server.url, "DELETE", "/api/v1/rooms/trip-1", bearer="bad")
        await until(lambda: server.log.count('"request"') == 3)

    told = lines(server)
    of_client = [line for line in told if line.get("connection") == 1]
    events = [line["event"] for line in of_client]
    assert [one for one in events if one.startswith(("room_", "token", "connection"))] == [
        "room_loaded",
        "connection_opened",
        "token_refused",
        "connection_refused_message",
        "connection_closed",
    ]
    closed = of_client[-1]
    assert (closed["room"], closed["code"], closed["frames_in"], closed["bytes_in"]) == ("trip-1", 4400, 3, 31)
    seen = [
        (line["level"], line["method"], line["path"], line["status"], line.get("user"))
        for line in told
        if line["event"] == "request"
    ]
    assert seen == [
        ("DEBUG", "GET", "/api/v1/rooms/trip-1/versions", 200, "ann"),
        ("INFO", "DELETE", "/api/v1/rooms/trip-1", 204, "root"),
        ("INFO", "DELETE", "/api/v1/rooms/trip-1", 401, None),
    ]
    assert [line["open_to"] for line in told if line["event"] == "serving"] == [
        "whoever shows a token, as far as it grants (crdt-sync token makes one)"
    ]
    for secret in (bearer, root, "no-token", GUARDED["CRDT_SYNC_JWT_SECRET"]):
        assert secret not in server.log


async def test_clients_neither_fill_the_log_nor_write_into_it_what_they_like(tmp_path: Path) -> None:
    env = {"CRDT_SYNC_LOG_LINES_PER_S_MAX": "1", "CRDT_SYNC_CONNECTIONS_PER_ADDRESS_MAX": "100", **GUARDED}
    # (A line feed isn't even routed.)
    forged = "x%0d2026-01-01%20ERROR%20forged%1b%5b2J"
    async with ServerProcess(tmp_path, env=env) as server:
        for _ in range(20):
            await asyncio.gather(*(refused(server, forged + "%e2%80%a8" * 20) for _ in range(20)))
        async with await RawClient.connect(server.url, f"trip-1?token={token('ann')}") as client:
            for number in range(300):
                await client.send(FRESH_TOKEN + write_var_bytes(b"%d\x1b[2J\n" % number))
                await asyncio.sleep(0)
            await until(lambda: "token_refused" in server.log)

    told = server.log.splitlines()
    assert all(line.isprintable() for line in told)
    assert not any(line.startswith("2026-01-01") for line in told)
    assert 20 <= sum("connection_refused" in line for line in told) < 60
    assert 1 <= sum("token_refused" in line for line in told) < 60
    assert max(len(line) for line in told) < 1500
    # By where the level stands: what looks for the word alone may be misled by a name, and reads JSON better.
    assert {line.split()[2] for line in told} == {"INFO"}


async def refused(server: ServerProcess, target: str) -> None:
    try:
        await RawClient.connect(server.url, target)
    except Refused:
        return
    raise AssertionError("it was let in")
