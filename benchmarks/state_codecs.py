"""How small documents become, and how fast: `python -m benchmarks.state_codecs`.

Compresses states as checkpoints store them: of recorded sessions, and of a made-up trip with 60 days, their stops and
notes. Prints the compressed size in percent, and MB of the uncompressed state a second there and back, each the best of
several rounds in this process. Last come the methods that PostgreSQL would use by itself, as `pg_column_size` shows it;
they take place inside of the database, so there is no speed to compare.
"""

from __future__ import annotations

import importlib
import random
import zlib
from collections.abc import Callable
from time import perf_counter
from typing import Any

import asyncpg
import pycrdt
import zstandard
from rich.console import Console
from rich.table import Table

from tests.support.postgres import PostgresServer, execute
from tests.support.services import Unavailable
from tests.support.traces import read_trace

ROUNDS = 5
ROUND_S = 0.05

Codec = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]


def trace_state(name: str) -> bytes:
    """What a document holds after a recorded session."""
    doc = pycrdt.Doc[Any]()
    text = doc.get("text", type=pycrdt.Text)
    for txn in read_trace(name).txns:
        with doc.transaction():
            for at, deleted, inserted in txn:
                if deleted:
                    del text[at : at + deleted]
                if inserted:
                    text.insert(at, inserted)
    return doc.get_update()


def trip_state() -> bytes:
    """A trip as an application might keep it: days with stops, each a map of some fields, and moved afterwards."""
    rng = random.Random(1)
    words = read_trace("seph-blog1").end.split()
    doc = pycrdt.Doc[Any]()
    days = doc.get("days", type=pycrdt.Array)
    for _ in range(60):
        stops: pycrdt.Array[Any] = pycrdt.Array()
        days.append(pycrdt.Map({"id": rng.randbytes(8).hex(), "title": " ".join(rng.sample(words, 3)), "stops": stops}))
        for _ in range(8):
            stops.append(
                pycrdt.Map(
                    {
                        "id": rng.randbytes(8).hex(),
                        "name": " ".join(rng.sample(words, 2)),
                        "lat": round(rng.uniform(40, 60), 6),
                        "lng": round(rng.uniform(-5, 20), 6),
                        "arrives": f"2026-07-{rng.randint(1, 28):02}T{rng.randint(0, 23):02}:00:00Z",
                        "kind": rng.choice(("hotel", "museum", "restaurant", "hike", "train")),
                        "notes": pycrdt.Text(" ".join(rng.choices(words, k=rng.randint(0, 60)))),
                    }
                )
            )
    for _ in range(1000):
        stop = rng.choice(list(rng.choice(list(days))["stops"]))
        stop[rng.choice(("lat", "lng"))] = round(rng.uniform(-5, 60), 6)
    return doc.get_update()


def zstd(level: int) -> Codec:
    return (
        lambda data: zstandard.ZstdCompressor(level=level, write_checksum=True).compress(data),
        lambda data: zstandard.ZstdDecompressor().decompress(data),
    )


def codecs() -> dict[str, Codec | None]:
    """Name to the ways there and back; None for what isn't installed."""
    found: dict[str, Codec | None] = {
        "none": (lambda data: b"\0" + data, lambda data: data[1:]),
        "zlib 1": (lambda data: zlib.compress(data, 1), zlib.decompress),
        "zlib 6": (lambda data: zlib.compress(data, 6), zlib.decompress),
        **{f"zstd {level}": zstd(level) for level in (1, 3, 9)},
        "lz4": None,
    }
    try:
        lz4 = importlib.import_module("lz4.frame")
    except ImportError:
        return found
    return {**found, "lz4": (lz4.compress, lz4.decompress)}


def mb_per_s(work: Callable[[bytes], bytes], data: bytes, size: int) -> float:
    """The best of some rounds, counted in bytes of the uncompressed state."""
    best = 0.0
    for _ in range(ROUNDS):
        count, began = 0, perf_counter()
        while (took := perf_counter() - began) < ROUND_S:
            work(data)
            count += 1
        best = max(best, count * size / took / 1e6)
    return best


def postgres_percent(server: PostgresServer, method: str, data: bytes) -> str:
    """What PostgreSQL makes of the state by itself."""
    table = f"t_{method}"
    execute(server.url, f"DROP TABLE IF EXISTS {table}")
    try:
        execute(server.url, f"CREATE TABLE {table} (state bytea COMPRESSION {method})")
    except asyncpg.FeatureNotSupportedError:
        return "not built in"
    execute(server.url, f"INSERT INTO {table} VALUES ($1)", data)
    ((size,),) = execute(server.url, f"SELECT pg_column_size(state) FROM {table}")
    return f"{size / len(data):.1%}"


def main() -> None:
    states = {
        "seph-blog1": trace_state("seph-blog1"),
        "sveltecomponent": trace_state("sveltecomponent"),
        "a trip": trip_state(),
    }
    table = Table(title="size; MB/s to compress / to decompress")
    table.add_column("")
    for name, state in states.items():
        table.add_column(f"{name}\n{len(state):,} bytes", justify="right")
    for name, codec in codecs().items():
        cells = []
        for state in states.values():
            if codec is None:
                cells.append("not installed")
                continue
            packed = codec[0](state)
            assert codec[1](packed) == state
            speeds = mb_per_s(codec[0], state, len(state)), mb_per_s(codec[1], packed, len(state))
            cells.append(f"{len(packed) / len(state):.1%}; {speeds[0]:,.0f} / {speeds[1]:,.0f}")
        table.add_row(name, *cells)
    try:
        with PostgresServer() as server:
            for method in ("pglz", "lz4"):
                cells = [postgres_percent(server, method, state) for state in states.values()]
                table.add_row(f"PostgreSQL's {method}", *cells)
    except Unavailable as reason:
        table.caption = f"PostgreSQL's own: {reason}"
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
