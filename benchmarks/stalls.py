"""How long others wait while large documents are worked on: `python -m benchmarks.stalls`.

    python -m benchmarks.stalls [--document …] [--database sqlite] [--joining 100] [--watch]

A real server. In a small room, one client sends a keystroke every 5 ms, whatever happens, and another receives it: how long each
took, from when it should have been sent, is the lag. Both are in a process of their own. Meanwhile another room's document is
opened from its log, checkpointed, asked for by clients, shown in all forms, compared, restored, and opened from its checkpoint.

For each of these: how long it took, the CPU time of the server's process, and the lag of the small room meanwhile. `nothing` is what
the lag is with nothing else to do: other work on the machine shows there too. `--watch` tells by CPU time what held up the server's
loop, which other work doesn't change, and slows all of it down.

Documents:

- `fragments`: 100,000 items of one character, 1 MB, in 1,000 log rows.
- `typed`: 1 MB of text by 4 clients, in 20,000 log rows; see `benchmarks.open_document`.
- `text`: 1 MB, one item.
- `fragments-10`, `text-10`: ten times that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import select
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import connect

from benchmarks.databases import add_database_option, database, folder
from benchmarks.open_document import STEP_1, fill, open_ms, until_compacted, write_text
from benchmarks.update_reader import struct, update
from crdt_sync.lib0 import write_var_bytes, write_var_uint
from crdt_sync.update import read_update, write_state_vector
from tests.support.raw import BINARY, PING, PONG
from tests.support.server import ServerProcess

EVERY_S = 0.005
ENV = {
    "CRDT_SYNC_CHECKPOINT_INTERVAL_S": "1",
    "CRDT_SYNC_CONNECTIONS_PER_ADDRESS_MAX": "100000",
    "CRDT_SYNC_MESSAGES_PER_S_MAX": "100000",
    "CRDT_SYNC_LOAD_CPU_MAX": "2",
    "CRDT_SYNC_OPEN_TIMEOUT_S": "300",
    "CRDT_SYNC_ROOM_IDLE_S": "3600",
}
WRITER = 77


def fragments(times: int, items_each: int = 100_000) -> list[bytes]:
    """Items of one character, each put behind any one of the same client's: so many clients with so many each."""
    rows = []
    for client in range(1_000_000_001, 1_000_000_001 + times):
        own = write_var_uint(client)
        items = [struct(0, b"x", client=client)]
        items += [
            b"\x84" + own + write_var_uint(7919 * clock % 10007 % clock) + b"\1x" for clock in range(1, items_each)
        ]
        rows += [update(first, *items[first : first + 100], client=client) for first in range(0, len(items), 100)]
    return rows


def texts(times: int) -> list[bytes]:
    """So many clients with a text of 1 MB each."""
    return [
        update(0, struct(0, b"lorem ipsum " * 83_333, client=client), client=client) for client in range(1, times + 1)
    ]


DOCUMENTS: dict[str, Callable[[], list[bytes]]] = {
    "fragments": lambda: fragments(1),
    "typed": lambda: write_text(jump_every=20),
    "text": lambda: texts(1),
    "fragments-10": lambda: fragments(10),
    "text-10": lambda: texts(10),
}


# ------------------------------------------------------------------------------------------------------------- probe


def probe(port: int, pipe: Connection) -> None:
    """In a process of its own: send and receive keystrokes until told to end, then say when each was due and its lag."""
    sender, receiver = _open(port), _open(port)
    receiver.sendall(_masked(STEP_1))
    client = os.getpid()
    due: list[float] = []
    lags: dict[int, float] = {}
    buffered = {sender: bytearray(), receiver: bytearray()}
    pipe.send("ready")
    began = time.monotonic()
    # Once told to end: when what is under way has arrived too.
    ends: float | None = None
    while ends is None or time.monotonic() < ends:
        next_at = began + len(due) * EVERY_S
        if ends is None and time.monotonic() >= next_at:
            count = len(due)
            text = struct(8 * count, b"%08d" % count, client=client)
            due.append(next_at)
            sender.sendall(_masked(b"\0\2" + write_var_bytes(update(8 * count, text, client=client))))
            continue
        readable, _, _ = select.select([sender, receiver, pipe], [], [], max(next_at - time.monotonic(), 0.001))
        now = time.monotonic()
        for each in (sender, receiver):
            if each not in readable:
                continue
            buffered[each] += each.recv(1 << 20)
            for opcode, frame in _frames(buffered[each]):
                if opcode == PING:
                    each.sendall(_masked(frame, opcode=PONG))
                elif each is receiver and frame.startswith(b"\0\2") and (number := frame[-9:-1]).isdigit():
                    lags.setdefault(int(number), now - due[int(number)])
        if ends is None and pipe in readable:
            pipe.recv()
            ends = now + 0.5
    pipe.send([(at, lags.get(number, time.monotonic() - at)) for number, at in enumerate(due)])


def _open(port: int) -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", port))
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.sendall(
        b"GET /small HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += opened.recv(1)
    assert b" 101 " in head, head
    return opened


def _masked(payload: bytes, *, opcode: int = BINARY) -> bytes:
    assert len(payload) < 126
    return bytes((0x80 | opcode, 0x80 | len(payload))) + bytes(4) + payload


def _frames(buffered: bytearray) -> list[tuple[int, bytes]]:
    """Take complete frames out: opcode and payload of each."""
    found = []
    while len(buffered) >= 2:
        size, at = buffered[1] & 127, 2
        if size == 126:
            size, at = int.from_bytes(buffered[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(buffered[2:10], "big"), 10
        if len(buffered) < at + size:
            break
        found.append((buffered[0] & 15, bytes(buffered[at : at + size])))
        del buffered[: at + size]
    return found


# ------------------------------------------------------------------------------------------------------------ phases


@dataclass(slots=True)
class Phase:
    """One kind of work."""

    name: str
    began: float = 0.0
    ended: float = 0.0
    cpu_s: float = 0.0
    lags: list[float] = field(default_factory=list)


class Probed:
    """A server with a small room that is measured; `phase` is around what is done meanwhile."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.phases: list[Phase] = []

    @asynccontextmanager
    async def phase(self, name: str) -> AsyncIterator[None]:
        one = Phase(name, time.monotonic())
        cpu_s = self._server.cpu_s()
        yield
        one.ended = time.monotonic()
        one.cpu_s = self._server.cpu_s() - cpu_s
        self.phases.append(one)
        # Between two, what the last one left behind comes to an end.
        await asyncio.sleep(0.3)


@asynccontextmanager
async def probing(server: ServerProcess) -> AsyncIterator[Probed]:
    """Have the lag of a small room measured."""
    probed = Probed(server)
    pipe, other = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=probe, args=(server.port, other), daemon=True)
    process.start()
    other.close()
    await asyncio.to_thread(pipe.recv)
    await asyncio.sleep(0.5)
    yield probed
    pipe.send("end")
    samples = await asyncio.to_thread(pipe.recv)
    process.join()
    for phase in probed.phases:
        phase.lags = [lag for at, lag in samples if phase.began - EVERY_S <= at <= phase.ended]


async def measure(url: str, path: Path, rows: list[bytes], joining: int, watch: bool) -> list[Phase]:
    """Do all to one document."""
    await fill(url, rows, ["room"])
    everything = read_update(rows[0], bounded=False).ends
    half = write_state_vector({client: end // 2 for client, end in everything.items()})

    async with ServerProcess(path, database_url=url, env=ENV, watch_stalls=watch) as server:
        await open_ms(server.url, "small")
        async with probing(server) as probed:
            async with probed.phase("nothing"):
                await asyncio.sleep(2)
            async with probed.phase("open from the log"):
                await open_ms(server.url, "room")
            async with probed.phase("checkpoint"):
                await until_compacted(url, "room")
            await work(server, probed, half)
        phases = probed.phases
        print(*server.stalls(), sep="\n", end="")
        server.kill()
    async with ServerProcess(path, database_url=url, env=ENV, watch_stalls=watch) as server:
        await open_ms(server.url, "small")
        async with probing(server) as probed:
            async with probed.phase("open from a checkpoint"):
                await open_ms(server.url, "room")
            async with probed.phase(f"{joining} join at once"):
                await asyncio.gather(*(open_ms(server.url, "room") for _ in range(joining)))
        phases += probed.phases
        print(*server.stalls(), sep="\n", end="")
    return phases


async def work(server: ServerProcess, probed: Probed, half: bytes) -> None:
    """What can be done with a document that is open, and stored in a snapshot."""
    async with probed.phase("catch up from half"):
        await ask(server, b"\0\0" + write_var_bytes(half))
    for form in ("update", "json", "text"):
        async with probed.phase(f"GET ?format={form}"):
            await http(server, f"document?format={form}")
    async with probed.phase("take a version"):
        version = json.loads(await http(server, "versions", {}))["id"]
    # An edit in the middle, and something of it deleted.
    edit = update(0, b"\4\1\1t" + write_var_bytes(b"edited"), client=WRITER)
    await send(server, edit)
    await send(server, b"\0\1" + write_var_uint(WRITER) + b"\1\2\2")
    async with probed.phase("diff with the version"):
        await http(server, f"diff?from={version}")
    async with probed.phase("restore the version"):
        await http(server, "restore", {"version": version})


async def ask(server: ServerProcess, step_1: bytes) -> None:
    """Join with a sync step 1, and leave when it is answered."""
    async with connect(f"{server.url}/room", compression=None, max_size=None, open_timeout=60) as client:
        await client.send(step_1)
        async for frame in client:
            if frame[:2] == b"\0\1":
                return


async def send(server: ServerProcess, edit: bytes) -> None:
    """Make an edit, and leave when it is stored."""
    async with connect(f"{server.url}/room", compression=None, max_size=None, open_timeout=60) as client:
        await client.send(b"\0\2" + write_var_bytes(edit))
        await client.send(b"\x66\x04done")
        async for frame in client:
            if frame == b"\x66\x04done":
                return


async def http(server: ServerProcess, path: str, body: dict[str, Any] | None = None) -> bytes:
    """Ask for something of the document, or have something done to it; returns the answer's body."""

    def ask() -> bytes:
        request = Request(
            f"http{server.url.removeprefix('ws')}/api/v1/rooms/room/{path}",
            data=None if body is None else json.dumps(body).encode(),
        )
        with contextlib.closing(urlopen(request, timeout=300)) as answer:
            return bytes(answer.read())

    return await asyncio.to_thread(ask)


def percentile(values: list[float], part: float) -> float:
    """The smallest value that so large a part of all doesn't exceed."""
    ordered = sorted(values)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.stalls", description="Lag of others beside long work.")
    add_database_option(parser)
    parser.set_defaults(database=["sqlite"])
    parser.add_argument("--document", nargs="+", choices=DOCUMENTS, default=list(DOCUMENTS), help="which (default all)")
    parser.add_argument("--joining", type=int, default=100, help="how many clients join at once (default 100)")
    parser.add_argument("--rounds", type=int, default=1, help="how often; all lags of a phase count (default 1)")
    parser.add_argument("--watch", action="store_true", help="say what takes more than 50 ms of CPU time in one go")
    options = parser.parse_args()
    for name in options.document:
        rows = DOCUMENTS[name]()
        for kind in options.database:
            rounds = []
            for _ in range(options.rounds):
                with folder() as path, database(kind, path) as url:
                    rounds.append(asyncio.run(measure(url, path, rows, options.joining, options.watch)))
            size = sum(map(len, rows))
            table = Table(
                title=f"{name}, {kind.partition(':')[0]}: {len(rows):,} rows, {size:,} bytes; lag of others, ms"
            )
            for heading in ("work", "took ms", "CPU ms", "p50", "p99", "max"):
                table.add_column(heading, justify="left" if heading == "work" else "right")
            for same in zip(*rounds, strict=True):
                lags = [lag for one in same for lag in one.lags]
                table.add_row(
                    same[0].name,
                    f"{statistics.median(one.ended - one.began for one in same) * 1e3:,.0f}",
                    f"{statistics.median(one.cpu_s for one in same) * 1e3:,.0f}",
                    *(f"{percentile(lags, part) * 1e3:.1f}" for part in (0.5, 0.99, 1)),
                )
            Console(width=110).print(table)


if __name__ == "__main__":
    main()
