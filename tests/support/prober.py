"""How long an edit takes from one client to another of its room, again and again, seen from a process of its own.

As a program: `python -m tests.support.prober URL ROOM` writes a line when it has begun, and when its input ends, one for each
edit: when it was sent (`time.monotonic`), and how many seconds later it arrived.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from crdt_sync.lib0 import write_var_bytes, write_var_uint
from tests.support.raw import RawClient

_ROOT = Path(__file__).resolve().parents[2]
INTERVAL_S = 0.005


class Prober:
    """A running prober. Use as a context manager."""

    def __init__(self, url: str, room: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.prober", url, room],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    async def begun(self) -> None:
        """Return once it edits."""
        assert self._process.stdout is not None
        line = await asyncio.to_thread(self._process.stdout.readline)
        assert line == "begun\n", "it ended"

    async def finish(self) -> list[tuple[float, float]]:
        """End it; returns when each edit was sent and how long it took, in seconds."""
        out, _ = await asyncio.to_thread(self._process.communicate, "")
        assert self._process.returncode == 0, out[-500:]
        return [(float(sent), float(took)) for sent, took in (line.split() for line in out.splitlines())]


def percentile(times: list[float], part: float) -> float:
    """The time that `part` (0 to 1) of all stay below."""
    ordered = sorted(times)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


def _keystroke(clock: int) -> bytes:
    head = b"\1\1\7" + write_var_uint(clock)
    origin = b"\x84\7" + write_var_uint(clock - 1) if clock else b"\4\1\1t"
    return b"\0\2" + write_var_bytes(head + origin + b"\1x\0")


async def _probe(url: str, room: str) -> None:
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    async with await RawClient.connect(url, room) as writer, await RawClient.connect(url, room) as reader:
        # Who answers no pings is closed after a minute.
        answering = asyncio.create_task(writer.wait_closed(timeout_s=1e9))
        clock = 0
        times = []
        while not ended.done():
            frame = _keystroke(clock)
            sent = time.monotonic()
            await writer.send(frame)
            async with asyncio.timeout(30):
                while await reader.receive(timeout_s=30) != frame:
                    assert not answering.done(), "closed"
                    assert reader.closed is None, "closed"
            times.append((sent, time.monotonic() - sent))
            if not clock:
                print("begun", flush=True)
            clock += 1
            await asyncio.sleep(INTERVAL_S)
        answering.cancel()
    for sent, took in times:
        print(f"{sent:.6f} {took:.6f}")


if __name__ == "__main__":
    asyncio.run(_probe(sys.argv[1], sys.argv[2]))
