"""PostgreSQL hangs for a minute: its connections stay open, and nothing answers on them."""

import asyncio
import random
import statistics
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.database import stored_updates
from tests.support.editor import Editor
from tests.support.postgres import PostgresServer
from tests.support.server import ServerProcess
from tests.support.services import require
from tests.support.yjs import Yjs
from tests.trials.test_kill import all_confirmed, all_sent, what_yjs_reads

ROOM = "trip-1"
FREEZE_S = 60
EDITS_PER_S = 20
OVERWRITE_BYTES = 200_000
OVERWRITE_INTERVAL_S = 1
MIB = 1 << 20


@pytest.mark.waits
@pytest.mark.timeout(180)
async def test_clients_edit_on_while_postgresql_is_frozen_and_are_confirmed_afterwards(
    tmp_path: Path, yjs: Yjs
) -> None:
    with require(PostgresServer) as postgres:
        async with (
            ServerProcess(tmp_path, database_url=postgres.create_database()) as server,
            Editor(server.url, ROOM) as ann,
            Editor(server.url, ROOM) as bob,
        ):
            usual = p99_s(await edit_for(10, ann, bob), ann, bob)
            await until_all_confirmed(ann, bob)
            before = all_confirmed([ann, bob])
            rss_before = server.rss_bytes()

            postgres.freeze()
            frozen_at = time.perf_counter()
            became_unready = asyncio.create_task(until_ready_is(503, server))
            during = await edit_for(FREEZE_S, ann, bob)

            assert await became_unready - frozen_at < 2
            assert all_confirmed([ann, bob]) == before
            # On a machine where other tests take the CPU, editing is never faster than that.
            assert p99_s(during, ann, bob) < max(0.05, 3 * usual)
            # What waits is held once. Beside it: what one commit holds while it is tried (4 MiB and its copy on the
            # way to the socket), and what an allocator keeps.
            unstored = FREEZE_S / OVERWRITE_INTERVAL_S * OVERWRITE_BYTES
            assert server.rss_bytes() - rss_before < 1.5 * unstored + 12 * MIB
            postgres.thaw()

            await until_all_confirmed(ann, bob)
            recovered_at = time.perf_counter()
            assert await until_ready_is(200, server) - recovered_at < 2
            assert what_yjs_reads(yjs, stored_updates(server.database_url, ROOM)) == all_sent([ann, bob])
            # Once when it began, once when it was over.
            assert server.log.count("store_failing") == 1
            assert server.log.count("store_recovered") == 1


async def edit_for(seconds: float, *editors: Editor) -> list[str]:
    """Have the editors take turns, some twenty edits a second together, and the first now and then overwrite much."""
    loop = asyncio.get_running_loop()
    began = now = loop.time()
    overwrite_at = began
    made = []
    while now < began + seconds:
        for editor in editors:
            made.append(await editor.edit())
            await asyncio.sleep(random.uniform(0.5, 1.5) / EDITS_PER_S)
        now = loop.time()
        if now >= overwrite_at:
            overwrite_at += OVERWRITE_INTERVAL_S
            await editors[0].overwrite(OVERWRITE_BYTES)
    return made


def p99_s(edits: list[str], *editors: Editor) -> float:
    """The 99th percentile of the seconds that edits took from one editor to the others."""
    delays = [
        reader.seen[edit] - writer.sent[edit]
        for writer in editors
        for reader in editors
        for edit in edits
        if reader is not writer and edit in writer.sent
    ]
    return statistics.quantiles(delays, n=100)[98]


async def until_all_confirmed(*editors: Editor) -> None:
    async with asyncio.timeout(5):
        for editor in editors:
            await editor.until(lambda editor=editor: editor.sent.keys() == editor.confirmed.keys())


async def until_ready_is(status: int, server: ServerProcess) -> float:
    """Ask `GET /ready` until it answers with `status`; returns when (`time.perf_counter`) that was."""
    async with asyncio.timeout(20):
        while await asyncio.to_thread(ready_status, server) != status:
            await asyncio.sleep(0.1)
    return time.perf_counter()


def ready_status(server: ServerProcess) -> int:
    url = server.url.replace("ws:", "http:") + "/ready"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
