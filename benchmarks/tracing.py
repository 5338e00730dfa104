"""What tracing costs on the way of a keystroke: off, on for one message in a hundred, on for all.

    python benchmarks/tracing.py [--frames N] [--rounds N]

One client's frames go by `gateway.sync._read` into a room with other clients and into a journal that stores them, all in this
process; spans go to a collector that answers at once, in a process of its own. CPU time of this process per frame, the threads that export
included, the median of some rounds in turn.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection as Pipe
from typing import Any

import pycrdt

from crdt_sync import Settings, logs
from crdt_sync.connection import Connection
from crdt_sync.document import Document
from crdt_sync.gateway.sync import _read
from crdt_sync.journal import Journal
from crdt_sync.lib0 import write_var_bytes
from crdt_sync.limits import Limits
from crdt_sync.load import Load
from crdt_sync.room import Room
from crdt_sync.tracing import Tracer, open_tracer
from persistence.memory import MemoryStore

RECEIVERS = 20


class Answering(BaseHTTPRequestHandler):
    """Takes anything."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take it."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def collect(told: Pipe) -> None:
    """Be a collector."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    told.send(server.server_address[1])
    server.serve_forever()


class Nowhere:
    """Takes every frame."""

    ready = True

    async def send(self, frame: bytes) -> None:
        """Take it."""

    async def close(self, code: int, reason: str) -> None:
        """Nothing to close."""

    def abort(self) -> None:
        """Nothing to abort."""

    def write_wire(self, wire: bytes) -> None:
        """Take them."""

    def is_closing(self) -> bool:
        """It is there."""
        return False

    def buffered_bytes(self) -> int:
        """Nothing waits."""
        return 0


def keystrokes(count: int) -> list[bytes]:
    """Frames of one client that types."""
    doc: pycrdt.Doc[Any] = pycrdt.Doc()
    text = doc.get("text", type=pycrdt.Text)
    frames: list[bytes] = []
    doc.observe(lambda event: frames.append(b"\x00\x02" + write_var_bytes(event.update)))
    for _ in range(count):
        text += "x"
    return frames


async def trial(frames: list[bytes], tracer: Tracer | None) -> float:
    """Microseconds of CPU time per frame."""
    settings = Settings.read()
    store = MemoryStore()
    await store.open()
    journal = Journal(store, interval_s=0.2, bytes_max=1 << 30, traced=tracer is not None)
    journaling = asyncio.create_task(journal.run())
    room = Room("trip-1", Document(waiting_bytes_max=1 << 20), seq=0, journal=journal, settings=settings)
    room.traced = tracer is not None
    load = Load(settings, Limits(settings))
    connections = [Connection(Nowhere(), outbox_bytes_max=1 << 20, now=0.0) for _ in range(RECEIVERS + 1)]
    writers = [asyncio.create_task(one.run(room.catch_up)) for one in connections]
    for one in connections:
        room.join(one)
    await asyncio.sleep(0.1)
    coming = iter(frames)

    async def receive() -> dict[str, Any]:
        frame = next(coming, None)
        if frame is None:
            return {"type": "websocket.disconnect", "code": 1000}
        return {"type": "websocket.receive", "bytes": frame}

    began_at = time.process_time()
    await _read(room, connections[0], receive, load, tracer, None)
    await journal.flush()
    spent_s = time.process_time() - began_at
    for one in connections:
        one.close(1000, "")
    await asyncio.gather(*writers)
    journaling.cancel()
    return spent_s / len(frames) * 1e6


async def main(count: int, rounds: int) -> None:
    """Print a line for each."""
    logs.configure("WARNING", "text")
    ours, theirs = multiprocessing.Pipe()
    collector = multiprocessing.get_context("spawn").Process(target=collect, args=(theirs,), daemon=True)
    collector.start()
    url = f"http://127.0.0.1:{ours.recv()}"
    tracers: dict[str, Tracer | None] = {"off": None}
    for name, share in (("1 %", 0.01), ("all", 1.0)):
        tracers[name] = tracer = open_tracer(url, sample=share)
        tracer.open(None)
    frames = keystrokes(count)
    took: dict[str, list[float]] = {name: [] for name in tracers}
    for round_ in range(rounds + 1):
        for name, tracer_ in tracers.items():
            spent = await trial(frames, tracer_)
            if round_:
                took[name].append(spent)
    for name, found in took.items():
        print(f"{name:4} {statistics.median(found):6.2f} µs a frame ({min(found):.2f} to {max(found):.2f})")
    for tracer_ in tracers.values():
        if tracer_ is not None:
            await tracer_.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    asyncio.run(main(options.frames, options.rounds))
