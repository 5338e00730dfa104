"""A client that never reads, beside ten that do."""

import asyncio
import json
import statistics
import urllib.request
from pathlib import Path

import pytest

from tests.support.editor import Editor
from tests.support.raw import RawClient
from tests.support.server import ServerProcess
from tests.support.yjs import Yjs

ROOM = "trip-1"
READERS = 10
# More than the kernel takes for a connection on loopback (some 10 MB), or nothing would ever wait in the server.
OVERWRITE_BYTES = 40_000
OVERWRITES = 600
MIB = 1 << 20


@pytest.mark.waits
@pytest.mark.timeout(120)
async def test_a_reader_that_does_not_read_costs_the_others_nothing_and_converges_when_it_does(
    tmp_path: Path, yjs: Yjs
) -> None:
    async with ServerProcess(tmp_path) as server, asyncio.TaskGroup() as group:
        readers = [Editor(server.url, ROOM) for _ in range(READERS)]
        for reader in readers:
            group.create_task(reader.open())
        async with Editor(server.url, ROOM) as author:
            usual = await traffic(author, readers)
            rss_before = server.rss_bytes()
            async with await RawClient.connect(server.url, ROOM) as sleeper:
                await sleeper.send(b"\x00\x00\x01\x00")

                beside_sleeper = await traffic(author, readers)

                assert await asyncio.to_thread(largest_outbox, server) <= MIB
                # That, one frame on its way, and what an allocator keeps; on a busy machine, other readers are late too.
                assert server.rss_bytes() - rss_before < 30 * MIB
                # A fan-out that waits for the sleeper would cost seconds; noise on a busy test machine costs this much.
                assert beside_sleeper < 3 * usual + 0.05
                received = await updates_until_quiet(sleeper)
                assert sleeper.closed is None
            await asyncio.gather(*(reader.until(lambda r=reader: author.edits() <= r.edits()) for reader in readers))
            roots = {"edits": "map", "text": "text"}
            sleepers, readers_ = yjs.apply(received, roots), yjs.apply(readers[0].received, roots)
            assert sleepers.error is None
            assert not sleepers.pending
            assert sleepers.content == readers_.content
            # It didn't get everything: most of it was dropped, and one difference made up for it.
            assert sum(map(len, received)) < OVERWRITES * OVERWRITE_BYTES * 0.9
        for reader in readers:
            await reader.close()


@pytest.mark.timeout(120)
async def test_a_reader_that_never_reads_is_closed(tmp_path: Path) -> None:
    async with (
        ServerProcess(tmp_path, env={"CRDT_SYNC_SLOW_READER_TIMEOUT_S": "2"}) as server,
        Editor(server.url, ROOM) as author,
        await RawClient.connect(server.url, ROOM) as sleeper,
    ):
        await sleeper.send(b"\x00\x00\x01\x00")
        for _ in range(OVERWRITES):
            await author.overwrite(OVERWRITE_BYTES)

        async with asyncio.timeout(20):
            while "code=1013" not in server.log:
                await asyncio.sleep(0.1)

        key = await author.edit()
        await author.until(lambda: key in author.confirmed)


def largest_outbox(server: ServerProcess) -> int:
    """What waits in the server for the client that is furthest behind, in bytes."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/api/v1/connections?order=outbox", timeout=5) as answer:
        return max(one["outbox_bytes"] for one in json.load(answer)["connections"])


async def traffic(author: Editor, readers: list[Editor]) -> float:
    """Have the author write, much and often; returns the p99 in seconds of its small edits, over all readers."""
    keys = []
    for n in range(OVERWRITES):
        await author.overwrite(OVERWRITE_BYTES)
        if n % 3 == 0:
            keys.append(await author.edit(confirm=False))
        await asyncio.sleep(0.015)
    delays = []
    for reader in readers:
        await reader.until(lambda r=reader: keys[-1] in r.seen)
        delays += [reader.seen[key] - author.sent[key] for key in keys]
    return statistics.quantiles(delays, n=100)[98]


async def updates_until_quiet(client: RawClient) -> list[bytes]:
    """Read what waits for a client, until nothing has come for a second; returns the updates."""
    updates = []
    try:
        while (frame := await client.receive(timeout_s=1)) is not None:
            if frame[0] == 0 and frame[1] in (1, 2):
                # 00 02, varUint length, update
                start = 2 + next(n for n, byte in enumerate(frame[2:], 1) if byte < 128)
                updates.append(frame[start:])
    except TimeoutError:
        pass
    return updates
