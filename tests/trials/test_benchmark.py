"""Works of the benchmark that the server has to itself: they can be done, and what they look for is there."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_what_is_confirmed_outlives_the_server_and_people_come_and_go(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.peers", "F", "K", "--servers", "crdt-sync", "--rounds", "1"]
    process = await asyncio.create_subprocess_exec(
        *(*command, "--minutes", "1", "--json", str(tmp_path / "numbers")), cwd=ROOT
    )

    assert await process.wait() == 0
    found = {work: servers["crdt-sync"] for work, servers in json.loads((tmp_path / "numbers").read_text()).items()}
    assert found["F"]["durable_p95_ms"] < 1000
    assert found["K"]["joins"] > 300
    assert len([key for key in found["K"] if key.startswith("memory_mib.")]) == 60
