"""Long work on one document holds up nobody in the other rooms.

By the CPU time that callbacks of the server's event loop take, since on a busy machine anything takes long by the clock. How long
others wait is measured by `benchmarks.stalls`.
"""

import asyncio
import json
from pathlib import Path

import pytest

from benchmarks.open_document import STEP_1, fill, until_compacted
from benchmarks.stalls import WRITER, ask, fragments, http, send
from crdt_sync.lib0 import write_var_bytes, write_var_uint
from tests.support.server import ServerProcess

ENV = {"CRDT_SYNC_CHECKPOINT_INTERVAL_S": "1", "CRDT_SYNC_CONNECTIONS_PER_ADDRESS_MAX": "1000"}


@pytest.mark.timeout(280)
@pytest.mark.parametrize("items", [20_000, pytest.param(100_000, marks=pytest.mark.long)])
async def test_long_work_on_a_document_holds_up_nobody(tmp_path: Path, items: int) -> None:
    await fill(f"sqlite:///{tmp_path / 'documents.db'}", fragments(1, items), ["room"])
    async with ServerProcess(tmp_path, env=ENV, watch_stalls=True) as server:
        # From the log, and for ten clients at once.
        await asyncio.gather(*(ask(server, STEP_1) for _ in range(10)))
        await until_compacted(server.database_url, "room")
        for form in ("update", "json"):
            assert await http(server, f"document?format={form}")
        version = json.loads(await http(server, "versions", {}))["id"]
        # More than the garbage collector overlooks: half of it goes.
        await send(server, b"\0\1" + write_var_uint(1_000_000_001) + b"\1\0" + write_var_uint(items // 2))
        await send(server, b"\1\1" + write_var_uint(WRITER) + b"\0\4\1\1t" + write_var_bytes(b"edited") + b"\0")
        assert await http(server, f"diff?from={version}")
        restored = json.loads(await http(server, "restore", {"version": version}))
        assert restored["done"]
        await server.restart()
        # From the checkpoint.
        await ask(server, STEP_1)

        assert server.stalls() == []
        assert server.errors() == []
