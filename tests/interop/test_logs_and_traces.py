"""What a real server's log and its traces show of what clients do, and of what hostile ones try."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crdt_sync.lib0 import write_var_bytes
from tests.support.api import GUARDED, request, token
from tests.support.collector import Collector, Seen
from tests.support.editor import Editor
from tests.support.postgres import PostgresServer
from tests.support.raw import RawClient, Refused
from tests.support.redis import RedisServer
from tests.support.server import ServerProcess

UPDATE = bytes.fromhex("0101010004010174017800")
FRESH_TOKEN = b"\x02\x01"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


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
        await request(server.url, "GET", "/api/v1/rooms/trip-1", bearer="bad")
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
        ("INFO", "GET", "/api/v1/rooms/trip-1", 401, None),
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
    assert {line.split()[2] for line in told if " limit_met " not in line} == {"INFO"}


async def refused(server: ServerProcess, target: str) -> None:
    try:
        await RawClient.connect(server.url, target)
    except Refused:
        return
    raise AssertionError("it was let in")


async def test_one_trace_goes_from_a_frame_to_its_commit_and_to_the_other_nodes(
    tmp_path: Path, postgres: PostgresServer, redis: RedisServer
) -> None:
    common = {
        "CRDT_SYNC_REDIS_URL": redis.url,
        "CRDT_SYNC_REDIS_PREFIX": tmp_path.name,
        "CRDT_SYNC_LOG_FORMAT": "json",
    }
    url = postgres.create_database()
    with Collector() as collector:
        traced = {**common, "CRDT_SYNC_TRACE_URL": collector.url, "CRDT_SYNC_TRACE_SAMPLE": "1"}
        async with (
            ServerProcess(tmp_path, database_url=url, env=traced) as first,
            ServerProcess(tmp_path, database_url=url, env=traced) as second,
            ServerProcess(tmp_path, database_url=url, env=common) as untraced,
        ):
            nodes = (first, second, untraced)
            await until(lambda: all(node.log.count('"node_found"') == 2 for node in nodes))
            async with (
                Editor(first.url, "trip-1") as ann,
                Editor(second.url, "trip-1") as bob,
                Editor(untraced.url, "trip-1") as cem,
                await RawClient.connect(second.url, "trip-1", headers={"traceparent": TRACEPARENT}) as dan,
            ):
                edit = await ann.edit()
                await ann.until(lambda: edit in ann.confirmed)
                for reader in (bob, cem):
                    await reader.until(lambda reader=reader: edit in reader.seen)  # type: ignore[misc]
                # Whom nobody traces: it goes through all the same, and makes no spans.
                from_untraced = await cem.edit()
                await ann.until(lambda: from_untraced in ann.seen)
                another = await ann.edit()
                await bob.until(lambda: another in bob.seen)
                await dan.send(b"\x00\x00\x01\x00")
                await until(lambda: any(span.links for span in collector.named("receive")))
            await request(first.url, "GET", "/api/v1/rooms?prefix=x", headers={"traceparent": TRACEPARENT})
        log = lines(first)

    # Of the two frames (update, then confirmation) only that about content.
    follow, of_another = [span for span in collector.named("follow", room="trip-1") if "apply" in collector.below(span)]
    assert of_another.trace != follow.trace
    [receive] = [span for span in collector.named("receive") if span.id == follow.parent]
    node_of = {line["node"] for line in log if line["event"] == "node_started"}
    assert receive.trace == follow.trace
    assert receive.parent == ""
    assert {receive.resource["service.instance.id"]} == node_of == {follow.attributes["crdt_sync.from_node"]}
    assert follow.resource["service.instance.id"] not in node_of
    below = collector.below(receive)
    assert sorted(below) == ["apply", "follow", "journal", "relay"]
    [journal] = below["journal"]
    [commit] = collector.below(journal)["commit"]
    assert receive.start <= below["apply"][0].start <= below["relay"][0].end <= receive.end
    assert journal.start <= commit.start <= commit.end <= journal.end
    assert sorted(collector.below(follow)) == ["apply", "relay"]
    assert [one.attributes["crdt_sync.outcome"] for one in below["apply"]] == ["NEW"]

    # Clients that bring a trace of their own.
    in_theirs = [span for span in collector.spans if span.parent == TRACEPARENT[36:52]]
    assert sorted(span.name for span in in_theirs) == ["connect", "request"]
    [linked] = [span for span in collector.named("receive") if span.links]
    assert linked.links == ((TRACEPARENT[3:35], TRACEPARENT[36:52]),)
    connects = collector.named("connect", room="trip-1")
    assert len(connects) == 3
    assert names_below(collector, connects) == ["load", "load"]
    loaded = [line for line in log if line["event"] == "room_loaded"]
    assert [line["trace"] for line in loaded] == [span.trace for span in connects if span.trace == loaded[0]["trace"]]


def names_below(collector: Collector, spans: list[Seen]) -> list[str]:
    return [name for span in spans for name, found in collector.below(span).items() for _ in found]
