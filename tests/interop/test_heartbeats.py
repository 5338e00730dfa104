"""Connections that are dead without a word: noticed by pings, and freed. And those that are idle."""

import asyncio
import time
from pathlib import Path

import pytest

from crdt_sync.awareness import ClientState, write_states
from crdt_sync.protocol import encode_awareness, encode_step_1
from tests.support.api import request
from tests.support.clients import NodeClients
from tests.support.cluster import until
from tests.support.raw import RawClient
from tests.support.server import ServerProcess

ROOM = "trip-1"
PINGS = {"CRDT_SYNC_PING_INTERVAL_S": "0.5", "CRDT_SYNC_PING_TIMEOUT_S": "2", "CRDT_SYNC_AWARENESS_GRACE_S": "0.5"}


@pytest.mark.parametrize("buffers", ["empty", "full"])
async def test_a_client_that_answers_no_ping_is_gone_with_its_place_and_its_user(
    buffers: str, tmp_path: Path, clients: NodeClients
) -> None:
    """Frozen, or cut off: its kernel, or nobody, takes what is sent to it."""
    env = PINGS | {"CRDT_SYNC_CONNECTIONS_MAX": "2"}
    async with ServerProcess(tmp_path, env=env) as server:
        ann = await clients.create(server.url, ROOM)
        if buffers == "full":
            await ann.map_set("k", "x" * 8_000_000)
            await ann.confirm(timeout_s=20)
        frozen = await RawClient.connect(server.url, ROOM)
        await frozen.send(encode_awareness(write_states([ClientState(7, 1, b'{"name":"bob"}')])))
        if buffers == "full":
            await frozen.send(encode_step_1(b"\x00"))
        await ann.wait(present=[7])
        began_at = time.monotonic()

        await ann.wait(absent=[7], timeout_s=20)

        took_s = time.monotonic() - began_at
        assert 1 < took_s < 15
        listed = await request(server.url, "GET", "/api/v1/connections")
        assert [one["room"] for one in listed.json["connections"]] == [ROOM]
        async with await RawClient.connect(server.url, ROOM):
            pass
        assert (await ann.status())["closes"] == []
        assert server.errors() == []
        frozen.abort()


async def test_an_honest_client_that_is_quiet_outlives_many_pings(tmp_path: Path, clients: NodeClients) -> None:
    async with ServerProcess(tmp_path, env=PINGS) as server:
        ann = await clients.create(server.url, ROOM)

        await asyncio.sleep(3)

        assert (await ann.status())["closes"] == []


async def test_a_stock_client_that_was_idle_stays_away_until_its_page_connects_again(
    tmp_path: Path, clients: NodeClients
) -> None:
    async with ServerProcess(tmp_path, env={"CRDT_SYNC_IDLE_TIMEOUT_S": "1"}) as server:
        ann = await clients.create(server.url, ROOM, "3.1")
        await ann.wait(closes=1)
        await asyncio.sleep(1)

        status = await ann.status()
        assert (status["closes"], status["shouldConnect"]) == ([{"code": 4408, "reason": "idle"}], False)
        await ann.map_set("k", 1)
        await ann.connect()
        await ann.wait(synced=True)
        await ann.confirm()
        assert await until(lambda: server.log.count("code=4408") == 1, timeout_s=2)
