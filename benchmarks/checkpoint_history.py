"""What a checkpoint costs with and without keeping the updates that it folds, and what the history occupies.

    python -m benchmarks.checkpoint_history [--database sqlite postgres] [--rounds 15]

In every round each document gets keystrokes of four users, and one checkpoint folds them all; with and without history in turns, so
that both meet the same weather. `lag` is how late a timer of 1 ms was on the event loop meanwhile, at worst: what else a server would have had to wait.
`append` is how long an append of one keystroke took that was asked for at the same time as the checkpoint.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from time import perf_counter

from pycrdt import Doc, Text
from rich.console import Console
from rich.table import Table

from benchmarks.databases import add_database_option, database, folder
from persistence import Entry, Snapshot, Store, open_store

# Documents, and updates of each that a checkpoint folds.
SHAPES = ((1, 50), (1, 2_000), (1, 20_000), (200, 10), (200, 100))
STATE = random.Random(1).randbytes(20_000)
START = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def keystrokes(count: int) -> list[bytes]:
    """Updates of somebody who types."""
    document: Doc = Doc()
    document["text"] = text = Text()
    updates: list[bytes] = []
    document.observe(lambda event: updates.append(event.update))
    for n in range(count):
        text.insert(n, "trip to Zurich "[n % 15])
    return updates


async def lag(worst: list[float]) -> None:
    """Note how late a timer is, at worst."""
    while True:
        started = perf_counter()
        await asyncio.sleep(0.001)
        worst[0] = max(worst[0], perf_counter() - started - 0.001)


async def fold(store: Store, names: Sequence[str], typed: Sequence[bytes], seq: int, *, keep: bool) -> list[float]:
    """Append, and checkpoint; return what took how long, in ms: checkpoint, lag, append."""
    at, rng = START + timedelta(seconds=seq), random.Random(seq)
    entries = [
        Entry(name, [update], accepted_at=at + timedelta(seconds=n * rng.random()), user_id=f"user-{rng.randint(1, 4)}")
        for name in names
        for n, update in enumerate(typed)
    ]
    for start in range(0, len(entries), 2_000):
        await store.append(entries[start : start + 2_000])
    snapshots = [Snapshot(name, seq=seq + len(typed), state=STATE, state_vector=b"v") for name in names]
    worst = [0.0]
    watching = asyncio.create_task(lag(worst))
    await asyncio.sleep(0.02)
    worst[0] = 0.0

    async def append() -> float:
        started = perf_counter()
        await store.append([Entry("another", typed[:1], accepted_at=at)])
        return perf_counter() - started

    started = perf_counter()
    checkpoint = asyncio.create_task(store.checkpoint(snapshots, keep_history=keep))
    await asyncio.sleep(0)
    appended = await append()
    await checkpoint
    took = perf_counter() - started
    watching.cancel()
    return [took * 1000, worst[0] * 1000, appended * 1000]


async def measure(url: str, rounds: int, table: Table, kind: str) -> None:
    """Add the rows of one database to the table."""
    store = open_store(url, timeout_s=60)
    await store.open()
    for shape in SHAPES:
        names = [f"{shape}-{n}" for n in range(shape[0])]
        typed = keystrokes(shape[1])
        seq = 0
        found: dict[bool, list[list[float]]] = {True: [], False: []}
        for turn in range(2 * rounds):
            keep = turn % 2 == 1
            found[keep].append(await fold(store, names, typed, seq, keep=keep))
            if keep:
                stats = {one.document: one for one in await store.stats()}
                stored = sum(stats[name].history_bytes for name in names) / (len(names) * len(typed))
            seq += len(typed)
        without, with_ = (
            [statistics.median(column) for column in zip(*found[keep], strict=True)] for keep in (False, True)
        )
        table.add_row(
            kind,
            f"{shape[0]:,}",
            f"{shape[1]:,}",
            *(f"{before:.1f} → {after:.1f}" for before, after in zip(without, with_, strict=True)),
            f"{sum(map(len, typed)) / len(typed):.0f} → {stored:.0f}",
        )
    await store.close()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_database_option(parser)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    table = Table(title="without → with history, medians in ms; bytes of an update as written → as kept", box=None)
    for header in ("database", "documents", "updates each", "checkpoint", "lag", "append", "bytes"):
        table.add_column(header, justify="right", no_wrap=True)
    for kind in options.database:
        with folder() as path, database(kind, path) as url:
            asyncio.run(measure(url, options.rounds, table, kind.partition(":")[0]))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
