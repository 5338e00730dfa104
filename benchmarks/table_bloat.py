"""What the settings of `persistence/postgres_schema.py` do for tables that churn.

    python -m benchmarks.table_bloat [--seconds 60] [--rooms 300] [--rows 2000] [--quiet 10000]

Works a private PostgreSQL through the store itself, as a busy node would: five commits a second, each with `rows`
updates of 30 to 60 bytes (and one in a thousand of 20 kB) over all rooms, and every 5 s a checkpoint of every room with
a state of 10 to 50 kB that doesn't compress. Beside them lie `quiet` documents with a state that nobody touches: by
default, autovacuum waits until dead rows are a fifth of a table, quiet ones included. A commit that is late isn't made
up for: the column `updates` says what was done. Autovacuum looks once a second, not once a minute, so that a minute of
work shows what an hour would of a node with a sixtieth of the traffic.

Three runs, each on tables of its own: as they are; with autovacuum's settings removed; and with the room that is left
free on pages (`fillfactor`) removed too. Sizes are with free space maps. Dead rows are PostgreSQL's own estimates,
which lag behind by about a second.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table

from benchmarks.databases import private_postgres
from persistence import Entry, Snapshot, Store, open_store

COMMIT_INTERVAL_S = 0.2
CHECKPOINT_INTERVAL_S = 5
STATE_BYTES = (10_000, 50_000)
CHECKPOINT_ROOMS = 200  # in one transaction, as in crdt_sync/checkpoints.py
TABLES = ("document", "document_update", "document_snapshot")
RUNS = ("as they are", "autovacuum's settings removed", "fillfactor removed too")

OPTIONS = """
SELECT c.oid::regclass::text AS "table", array_agg(split_part(option, '=', 1)) AS names, toast
FROM (
    SELECT oid, reloptions, '' AS toast FROM pg_class WHERE relkind = 'r'
    UNION ALL SELECT p.oid, t.reloptions, 'toast.' FROM pg_class AS p JOIN pg_class AS t ON t.oid = p.reltoastrelid
) AS c, unnest(reloptions) AS option
WHERE c.oid::regclass::text LIKE 'crdt_sync.%' GROUP BY 1, 3
"""
SIZES = """
SELECT s.relname, s.n_live_tup AS live, s.n_dead_tup AS dead, coalesce(t.n_dead_tup, 0) AS toast_dead,
    pg_table_size(s.relid) - coalesce(pg_total_relation_size(nullif(reltoastrelid, 0)), 0) AS heap_bytes,
    coalesce(pg_total_relation_size(nullif(reltoastrelid, 0)), 0) AS toast_bytes,
    pg_indexes_size(s.relid) AS index_bytes, s.n_tup_upd AS updated, s.n_tup_hot_upd AS hot, s.autovacuum_count + coalesce(t.autovacuum_count, 0) AS vacuums
FROM pg_stat_user_tables AS s JOIN pg_class AS c ON c.oid = s.relid
LEFT JOIN pg_stat_all_tables AS t ON t.relid = c.reltoastrelid
WHERE s.schemaname = 'crdt_sync' AND s.relname = ANY($1::text[])
"""


@dataclass
class Work:
    """What was done so far."""

    updates: int = 0
    commits: int = 0
    slowest_s: float = 0
    """The longest commit since somebody last looked."""


async def write_quiet(store: Store, count: int) -> None:
    """Store documents with a state and nothing after it."""
    rng = random.Random(3)
    for first in range(0, count, CHECKPOINT_ROOMS):
        names = [f"quiet-{n}" for n in range(first, min(first + CHECKPOINT_ROOMS, count))]
        await store.append([Entry(name, [some_update(rng)], accepted_at=datetime.now(UTC)) for name in names])
        await store.checkpoint([some_snapshot(rng, name, 1, rng.randint(*STATE_BYTES)) for name in names])


async def append_forever(store: Store, rooms: list[str], rows: int, heads: dict[str, int], work: Work) -> None:
    """Commit updates, five times a second or as fast as it goes."""
    rng = random.Random(1)
    while True:
        started = time.perf_counter()
        now = datetime.now(UTC)
        each = max(1, rows // len(rooms))
        chosen = rooms if rows >= len(rooms) else rng.sample(rooms, rows)
        entries = [Entry(room, [some_update(rng) for _ in range(each)], accepted_at=now) for room in chosen]
        for entry, seq in zip(entries, await store.append(entries), strict=True):
            heads[entry.document] = seq
        took = time.perf_counter() - started
        work.updates += each * len(chosen)
        work.commits += 1
        work.slowest_s = max(work.slowest_s, took)
        await asyncio.sleep(max(0.0, COMMIT_INTERVAL_S - took))


async def checkpoint_forever(store: Store, rooms: list[str], heads: dict[str, int]) -> None:
    """Compact every room, every few seconds."""
    rng = random.Random(2)
    states = {room: rng.randint(*STATE_BYTES) for room in rooms}
    while True:
        started = time.perf_counter()
        for first in range(0, len(rooms), CHECKPOINT_ROOMS):
            snapshots = [
                some_snapshot(rng, room, heads[room], states[room])
                for room in rooms[first : first + CHECKPOINT_ROOMS]
                if room in heads
            ]
            await store.checkpoint(snapshots)
        await asyncio.sleep(max(0.0, CHECKPOINT_INTERVAL_S - (time.perf_counter() - started)))


def some_snapshot(rng: random.Random, room: str, seq: int, size: int) -> Snapshot:
    return Snapshot(room, seq=seq, state=rng.randbytes(size), state_vector=rng.randbytes(100))


def some_update(rng: random.Random) -> bytes:
    return rng.randbytes(20_000 if rng.random() < 0.001 else rng.randint(30, 60))


async def run(url: str, title: str, options: argparse.Namespace) -> Table:
    """Work on a database for a while; returns what was seen meanwhile."""
    store = open_store(url)
    await store.open()
    connection = await asyncpg.connect(url)
    for statement in statements(title, await connection.fetch(OPTIONS)):
        await connection.execute(statement)

    await write_quiet(store, options.quiet)
    rooms = [f"room-{n}" for n in range(options.rooms)]
    heads: dict[str, int] = {}
    work = Work()
    table = new_table(title)
    tasks = [
        asyncio.create_task(append_forever(store, rooms, options.rows, heads, work)),
        asyncio.create_task(checkpoint_forever(store, rooms, heads)),
    ]
    began = time.perf_counter()
    for second in range(options.every, options.seconds + 1, options.every):
        await asyncio.wait(tasks, timeout=began + second - time.perf_counter(), return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
        await add_rows(table, connection, second, work)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await connection.close()
    await store.close()
    return table


def statements(title: str, rows: list[Any]) -> Iterator[str]:
    """The SQL that removes what a run is to do without."""
    if title == RUNS[0]:
        return
    for row in rows:
        names = [name for name in row["names"] if name != "fillfactor" or title == RUNS[2]]
        if names:
            yield f"ALTER TABLE {row['table']} RESET ({', '.join(row['toast'] + name for name in names)})"


def new_table(title: str) -> Table:
    table = Table(title=title)
    for heading in ("s", "updates", "slowest commit ms", "table", "live rows", "dead", "toast dead", "rows MB"):
        table.add_column(heading, justify="left" if heading == "table" else "right")
    for heading in ("toast MB", "indexes MB", "vacuums", "HOT"):
        table.add_column(heading, justify="right")
    return table


async def add_rows(table: Table, connection: asyncpg.Connection, second: int, work: Work) -> None:
    rows = {row["relname"]: row for row in await connection.fetch(SIZES, TABLES)}
    for name in TABLES:
        row = rows[name]
        first = name == TABLES[0]
        table.add_row(
            *((f"{second}", f"{work.updates:,}", f"{work.slowest_s * 1000:.0f}") if first else ("", "", "")),
            name,
            *(f"{row[column]:,}" for column in ("live", "dead", "toast_dead")),
            *(f"{row[column] / 1e6:.1f}" for column in ("heap_bytes", "toast_bytes", "index_bytes")),
            str(row["vacuums"]),
            f"{row['hot'] / row['updated']:.1%}" if row["updated"] else "–",
            end_section=name == TABLES[-1],
        )
    work.slowest_s = 0


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.table_bloat", description="What a busy node leaves in its tables."
    )
    parser.add_argument("--seconds", type=int, default=60, help="length of each of three runs (default 60)")
    parser.add_argument("--every", type=int, default=10, help="seconds between looks (default 10)")
    parser.add_argument("--rooms", type=int, default=300, help="how many are busy (default 300)")
    parser.add_argument("--rows", type=int, default=2000, help="updates in one commit (default 2000)")
    parser.add_argument("--quiet", type=int, default=10_000, help="how many lie beside them (default 10,000)")
    options = parser.parse_args()

    console = Console(width=150)
    settings = {"autovacuum_naptime": "1s", "shared_buffers": "256MB", "max_wal_size": "4GB"}
    for title in RUNS:
        # A server for each: what one run leaves to be written must not slow down the next.
        with private_postgres(settings=settings) as postgres:
            console.print(asyncio.run(run(postgres.create_database(), title, options)))


if __name__ == "__main__":
    main()
