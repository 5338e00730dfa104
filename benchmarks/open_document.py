"""How long it takes to open a document, before and after a checkpoint.

    python -m benchmarks.open_document [--database sqlite postgres] [--document …] [--runs 5] [--profile]

Measured is the time from the first client's upgrade request until its sync step 2 has arrived, with a server that runs
but doesn't have the room open: once with the log alone, then with a checkpoint. Each run opens a copy of its own.
Also measured: how long after a last edit its checkpoint is stored, with the interval of 5 s that is the default.

Documents:

- `typed`: a text by 4 clients, 20,000 updates of 50 characters, 1 MB in all. Each client types on where it stopped, and
  every 20th time somewhere else.
- `scattered`: the same, but every update is somewhere else.
- `seph-blog1`: a recorded session, 137,154 updates, at whose end the text has 57,000 characters.

`--profile` loads the checkpoint in this process instead, and prints where the time goes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import random
import sqlite3
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pycrdt
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import connect

from benchmarks.databases import add_database_option, database, folder
from crdt_sync.document import Document
from crdt_sync.lib0 import write_var_bytes
from persistence import Entry, open_store
from tests.support.postgres import execute
from tests.support.server import ServerProcess
from tests.support.traces import read_trace

CLIENTS = 4
UPDATES = 20_000
CHUNK = 50
BATCH = 1000
# A client that has nothing.
STEP_1 = b"\x00\x00\x01\x00"
NEVER = {"CRDT_SYNC_CHECKPOINT_INTERVAL_S": "3600"}


def write_text(*, jump_every: int) -> list[bytes]:
    """Have a few clients type into one text in turns, each hearing everything at once; returns the updates."""
    rng = random.Random(1)
    docs = [pycrdt.Doc[Any](client_id=1_000_000_007 * (n + 1) % 2**32) for n in range(CLIENTS)]
    texts = [doc.get("text", type=pycrdt.Text) for doc in docs]
    cursors = [0] * CLIENTS
    updates: list[bytes] = []
    for count in range(UPDATES):
        writer = count % CLIENTS
        doc, text = docs[writer], texts[writer]
        length = count * CHUNK
        if count // CLIENTS % jump_every == 0:
            cursors[writer] = rng.randint(0, length)
        at = cursors[writer]
        known = doc.get_state()
        text.insert(at, "".join(rng.choices("abcdefghijklmnopqrstuvwxyz     ", k=CHUNK)))
        update = doc.get_update(known)
        updates.append(update)
        for other in range(CLIENTS):
            if other != writer:
                docs[other].apply_update(update)
            if cursors[other] >= at:
                cursors[other] += CHUNK
    return updates


def replay_trace() -> list[bytes]:
    """What one client sends that types the recorded session."""
    trace = read_trace("seph-blog1")
    doc = pycrdt.Doc[Any]()
    text = doc.get("text", type=pycrdt.Text)
    updates: list[bytes] = []
    doc.observe(lambda event: updates.append(event.update))
    for txn in trace.txns:
        with doc.transaction():
            for at, deleted, inserted in txn:
                if deleted:
                    del text[at : at + deleted]
                if inserted:
                    text.insert(at, inserted)
    return updates


DOCUMENTS: dict[str, Callable[[], list[bytes]]] = {
    "typed": lambda: write_text(jump_every=20),
    "scattered": lambda: write_text(jump_every=1),
    "seph-blog1": replay_trace,
}


async def fill(url: str, updates: list[bytes], names: list[str]) -> None:
    """Write the updates into the logs of new documents, without a server."""
    store = open_store(url)
    await store.open()
    try:
        for name in names:
            for first in range(0, len(updates), BATCH):
                await store.append([Entry(name, updates[first : first + BATCH], accepted_at=datetime.now(UTC))])
    finally:
        await store.close()


async def open_ms(url: str, room: str) -> float:
    """Milliseconds from the upgrade request of a room's first client until it has the document."""
    started = time.perf_counter()
    async with connect(f"{url}/{room}", compression=None, max_size=None, open_timeout=60) as socket:
        await socket.send(STEP_1)
        async for frame in socket:
            if frame[:2] == b"\x00\x01":
                return (time.perf_counter() - started) * 1000
    raise AssertionError("the server closed the connection")


async def checkpoint_s(server: ServerProcess, room: str) -> float:
    """Make an edit right after a checkpoint, the worst moment; returns the seconds until it is in the next."""
    async with connect(f"{server.url}/{room}", compression=None, max_size=None, open_timeout=60) as socket:
        head_seq = await until_compacted(server.database_url, room)
        doc = pycrdt.Doc[Any]()
        doc.get("map", type=pycrdt.Map)["edit"] = 1
        await socket.send(b"\x00\x02" + write_var_bytes(doc.get_update()))
        edited_at = time.perf_counter()
        await until_compacted(server.database_url, room, after=head_seq)
        return time.perf_counter() - edited_at


async def until_compacted(url: str, room: str, *, after: int = 0) -> int:
    """Wait until a room's log ends after a seq, and its snapshot has all of it; returns its last seq."""
    async with asyncio.timeout(60):
        while True:
            head_seq, snapshot_seq = seqs(url, room)
            if after < head_seq == snapshot_seq:
                return head_seq
            await asyncio.sleep(0.03)


def seqs(url: str, room: str) -> tuple[int, int]:
    """A stored document's last seq, and that of its snapshot."""
    query = (
        "SELECT head_seq, coalesce(s.seq, 0) FROM {0}document "
        "LEFT JOIN {0}document_snapshot AS s ON document_id = id WHERE name = {1}"
    )
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(f"file:{url.removeprefix('sqlite:///')}?mode=ro", uri=True)) as connection:
            row = connection.execute(query.format("", "?"), (room,)).fetchone()
    else:
        (row,) = execute(url, query.format("crdt_sync.", "$1"), room)
    return int(row[0]), int(row[1])


async def measure(
    url: str, path: Path, updates: list[bytes], runs: int
) -> tuple[list[float], list[float], list[float]]:
    """Fill a database and open what is in it.

    Returns:
        Milliseconds to open with the log alone, seconds until a checkpoint, milliseconds to open with one.
    """
    rooms = [f"room-{n}" for n in range(runs)]
    await fill(url, updates, rooms)

    async with ServerProcess(path, database_url=url, env=NEVER) as server:
        await open_ms(server.url, "another")
        before = [await open_ms(server.url, room) for room in rooms]
        server.kill()  # stopping would make checkpoints
    async with ServerProcess(path, database_url=url) as server:
        waited = [await checkpoint_s(server, room) for room in rooms]
    async with ServerProcess(path, database_url=url) as server:
        await open_ms(server.url, "another")
        after = [await open_ms(server.url, room) for room in rooms]
    return before, waited, after


async def profile(url: str, path: Path, updates: list[bytes]) -> None:
    """Print what loading a checkpoint takes, by its parts, and where the time goes inside of the largest."""
    await fill(url, updates, ["room"])
    async with ServerProcess(path, database_url=url) as server:
        await open_ms(server.url, "room")
        await until_compacted(url, "room")
    store = open_store(url)
    await store.open()
    await store.load("another")
    started = time.perf_counter()
    stored = await store.load("room")
    loaded = time.perf_counter()
    await store.close()
    assert stored.snapshot is not None
    state = stored.snapshot.state
    alone = pycrdt.Doc[Any]()
    began = time.perf_counter()
    alone.apply_update(state)
    applied = time.perf_counter()
    document = Document()
    restoring = time.perf_counter()
    document.restore(state)
    restored = time.perf_counter()
    document.diff(b"\x00")
    answered = time.perf_counter()
    print(
        f"state {len(state):,} bytes; ms: load {(loaded - started) * 1e3:.1f}, Document.restore "
        f"{(restored - restoring) * 1e3:.1f} (pycrdt alone {(applied - began) * 1e3:.1f}), "
        f"sync step 2 {(answered - restored) * 1e3:.1f}"
    )
    profiler = cProfile.Profile()
    another = Document()
    profiler.runcall(another.restore, state)
    profiler.runcall(another.diff, b"\x00")
    pstats.Stats(profiler).sort_stats("tottime").print_stats(12)


def spread(values: list[float], digits: int) -> str:
    """Minimum, median and maximum."""
    return " / ".join(f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.open_document", description="Time to open a document.")
    add_database_option(parser)
    parser.add_argument("--document", nargs="+", choices=DOCUMENTS, default=list(DOCUMENTS), help="which (default all)")
    parser.add_argument("--runs", type=int, default=5, help="copies to open (default 5)")
    parser.add_argument("--profile", action="store_true", help="say where the time goes instead")
    options = parser.parse_args()

    table = Table(title="opening a document: min / median / max")
    for heading in ("document", "database", "log rows", "log bytes", "state bytes"):
        table.add_column(heading, justify="left" if heading in ("document", "database") else "right")
    for heading in ("log only, ms", "after a checkpoint, ms", "edit to checkpoint, s"):
        table.add_column(heading, justify="right")
    for name in options.document:
        updates = DOCUMENTS[name]()
        for kind in options.database:
            with folder() as path, database(kind, path) as url:
                if options.profile:
                    print(f"{name}, {kind}:")
                    asyncio.run(profile(url, path, updates))
                    continue
                before, waited, after = asyncio.run(measure(url, path, updates, options.runs))
                table.add_row(
                    *(name, kind.partition(":")[0], f"{len(updates):,}", f"{sum(map(len, updates)):,}"),
                    *(f"{state_bytes(updates):,}", spread(before, 0), spread(after, 1), spread(waited, 1)),
                )
    if not options.profile:
        Console(width=140).print(table)


def state_bytes(updates: list[bytes]) -> int:
    """The size of the document as one update."""
    document = Document()
    for update in updates:
        document.apply(update)
    return len(document.state().update)


if __name__ == "__main__":
    main()
