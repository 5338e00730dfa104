"""A node that has more to do than it may: it does less, step by step, says so, and recovers."""

import asyncio
import itertools
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from crdt_sync.lib0 import write_var_bytes, write_var_uint
from tests.support.raw import RawClient, Refused
from tests.support.server import ServerProcess

# So little is too much that one client is an overload, but several times what an idle server takes on a busy machine. The
# steps are 10 s apart.
SENSITIVE = {"CRDT_SYNC_LOAD_CPU_MAX": "0.03"}


@pytest.mark.waits
@pytest.mark.timeout(180)
async def test_an_overloaded_node_does_less_step_by_step_and_recovers(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, env=SENSITIVE) as server:
        writer = await RawClient.connect(server.url, "trip-1")
        reader = await RawClient.connect(server.url, "trip-1")
        moving = asyncio.create_task(move_cursor(writer))
        usual = await interval_of_awareness(reader)

        await until(lambda: "level='NO_JOINS'" in server.log, timeout_s=40)
        with pytest.raises(Refused) as refused:
            await RawClient.connect(server.url, "trip-1")
        assert (refused.value.status, refused.value.body) == (503, b"server busy\n")
        assert refused.value.headers["retry-after"] == "10"

        await until(lambda: "level='AWARENESS_THINNED'" in server.log, timeout_s=40)
        thinned = await interval_of_awareness(reader)
        assert usual < 0.2
        assert thinned > 0.4

        await until(lambda: "limit='writers_slowed'" in server.log, timeout_s=40)
        problems = await asyncio.to_thread(problems_of, server)
        assert problems["load"].endswith(
            "new joins are refused, awareness is thinned, the heaviest rooms' writers are slowed"
        )

        moving.cancel()
        await until(lambda: "level='CALM'" in server.log, timeout_s=70)
        async with await RawClient.connect(server.url, "trip-1"):
            assert await asyncio.to_thread(problems_of, server) == {}
        assert (writer.closed, reader.closed) == (None, None)
        writer.abort()
        reader.abort()
    assert server.errors() == []


async def move_cursor(client: RawClient) -> None:
    """Nearly as fast as a client may."""
    for clock in itertools.count(1):
        text = json.dumps({"cursor": clock}).encode()
        state = b"\x01" + write_var_uint(7) + write_var_uint(clock) + write_var_bytes(text)
        await client.send(b"\x01" + write_var_bytes(state))
        await asyncio.sleep(0.001)


async def interval_of_awareness(client: RawClient) -> float:
    """Read what waits, and then take the time between some messages."""
    count = 10
    try:
        while True:
            await client.receive(timeout_s=0.02)
    except TimeoutError:
        pass
    await client.receive()
    started = time.monotonic()
    for _ in range(count):
        assert await client.receive() is not None
    return (time.monotonic() - started) / count


async def until(condition: Callable[[], bool], *, timeout_s: float) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.1)


def problems_of(server: ServerProcess) -> dict[str, str]:
    try:
        answer = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/ready", timeout=5)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        found: dict[str, str] = json.load(answer)["problems"]
        return found
