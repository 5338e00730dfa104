"""How long valid but heavy updates hold up the event loop: `python -m benchmarks.heavy_updates`.

For each: its size, how long taking it in takes altogether, the longest step of that, after which others get their turn, the
same for showing the whole document to a client that joins, what pycrdt alone would take in one go to take it in, and the memory
needed meanwhile, in bytes per byte. Times are CPU times, the best of some rounds. `refused` says which bound an update meets.
"""

from __future__ import annotations

import random
import sys
import tracemalloc
from contextlib import suppress
from time import thread_time
from typing import TypeVar

import pycrdt

from benchmarks.update_reader import scattered, struct, update
from crdt_sync.document import Document, Outcome
from crdt_sync.errors import SyncError
from crdt_sync.lib0 import write_var_bytes, write_var_uint
from crdt_sync.pacing import Steps, at_once
from crdt_sync.update import reading

ROUNDS = 2

T = TypeVar("T")


def value(raw: bytes) -> bytes:
    return update(0, b"\x08\1\1t" + raw, client=5)


def embed(text: bytes) -> bytes:
    return update(0, b"\x05\1\1t" + write_var_bytes(text), client=5)


def by_clients(count: int, struct_of: bytes) -> bytes:
    """One struct each of so many clients, which have never heard of each other."""
    blocks = [b"\1" + write_var_uint(client) + b"\0" + struct_of for client in range(count, 0, -1)]
    return write_var_uint(count) + b"".join(blocks) + b"\0"


def deletes(count: int, *, step: int = 3) -> bytes:
    ranges = [write_var_uint(step * index) + b"\1" for index in range(count)]
    return b"\0\1\5" + write_var_uint(count) + b"".join(ranges)


def prepended(count: int) -> bytes:
    """Two clients that have each put so many items between the same two."""
    first = [b"\x04\1\1t\1x"] + [b"\x84\5\0\1x"] * count
    second = [b"\x84\5\0\1x"] * count
    blocks = [
        write_var_uint(len(second)) + b"\6\0" + b"".join(second),
        write_var_uint(len(first)) + b"\5\0" + b"".join(first),
    ]
    return b"\2" + b"".join(blocks) + b"\0"


def chain(count: int) -> bytes:
    """One client's items in random places of one list."""
    rng = random.Random(1)
    structs = [b"\x04\1\1t\1x"]
    structs += [b"\x84\5" + write_var_uint(rng.randrange(clock)) + b"\1x" for clock in range(1, count)]
    return update(0, *structs, client=5)


def nested_maps(count: int) -> bytes:
    structs = [b"\x27\1\1m\1k\1"] + [b"\x27\0\5" + write_var_uint(clock) + b"\1k\1" for clock in range(count - 1)]
    return update(0, *structs, client=5)


def odd_values(count: int) -> bytes:
    """So many items with a bigint each, which pycrdt can't hold, and an emoji."""
    bigint = b"\x7a" + bytes(7) + b"\1"
    structs = [b"\x08\1\1t\1" + bigint]
    structs += [b"\x88\5" + write_var_uint(clock) + b"\1" + bigint for clock in range(count - 2)]
    return update(0, *structs, struct(0, "😀".encode()), client=5)


TEXT = update(0, struct(0, b"x" * 1_000_000), client=5)

CASES: dict[str, tuple[bytes, bytes | None]] = {
    "text of 6 MB": (update(0, struct(0, b"x" * 6_000_000)), None),
    "text of 6 MB, not ASCII": (update(0, struct(0, "ü".encode() * 3_000_000)), None),
    "text of 16 MB": (update(0, struct(0, b"x" * 16_000_000)), None),
    "text of 16 MB, not ASCII": (update(0, struct(0, "ü".encode() * 8_000_000)), None),
    "1 MB of emojis": (update(0, struct(0, "😀".encode() * 250_000)), None),
    "history of 100,000 items": (chain(100_000), None),
    "history of 500,000 items": (chain(500_000), None),
    "100,000 scattered items": (scattered(100_000), None),
    "100,000 deletes in 1 MB of text": (deletes(100_000), TEXT),
    "290,000 deletes in 1 MB of text": (deletes(290_000), TEXT),
    "4 MB of nested nulls": (value(b"\1\x75" + write_var_uint(4_000_000) + b"\x7e" * 4_000_000), None),
    "95,000 nested nulls": (value(b"\1\x75" + write_var_uint(95_000) + b"\x7e" * 95_000), None),
    "1,000,000 values in a row": (value(write_var_uint(1_000_000) + b"\x7e" * 1_000_000), None),
    "JSON with 4 MB of base64": (embed(b'{"image":"' + b"aB3/" * 1_000_000 + b'"}'), None),
    "JSON of 95,000 numbers": (embed(b"[" + b"1," * 95_000 + b"1]"), None),
    "2,000 clients, one key": (by_clients(2_000, b"\x28\1\1m\1k\1\x7e"), None),
    "a cut in 100,000 odd values": (
        update(0, b"\x84\5" + write_var_uint(99_999) + b"\1x", client=6),
        odd_values(100_000),
    ),
    "20,000 clients, one key": (by_clients(20_000, b"\x28\1\1m\1k\1\x7e"), None),
    "2,000 clients, one place": (by_clients(2_000, b"\x04\1\1m\1k"), None),
    "20,000 clients, a root each": (
        write_var_uint(20_000)
        + b"".join(
            b"\1" + write_var_uint(client) + b"\0\x04\1" + write_var_bytes(b"%d" % client) + b"\1x"
            for client in range(20_000, 0, -1)
        )
        + b"\0",
        None,
    ),
    "2 x 1,000 in one place": (prepended(1_000), None),
    "2 x 50,000 in one place": (prepended(50_000), None),
    "maps nested 40,000 deep": (nested_maps(40_000), None),
}

GREEDY = ("a cut in 100,000 odd values",)
"""Given 20,000 values of one client in one go, each an item, pycrdt 0.14 takes 9 GB and half a minute to join them."""


def walk(steps: Steps[T]) -> tuple[float, float, T]:
    """Do the steps; how long they take altogether, the longest one, and what they amount to."""
    longest = total = 0.0
    while True:
        started = thread_time()
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return total + thread_time() - started, max(longest, thread_time() - started), result
        longest = max(longest, thread_time() - started)
        total += thread_time() - started


def refused(steps: Steps[Outcome]) -> Steps[str]:
    try:
        return (yield from steps).value
    except SyncError as error:
        return f"refused: {error}"


def take(data: bytes, base: bytes | None) -> tuple[tuple[float, float, str], tuple[float, float, bytes]]:
    """What it takes to take it in, and to show all of the document to somebody."""
    document = Document()
    if base is not None:
        document.apply(base)
    return walk(refused(document.applying(data))), walk(showing(document))


def showing(document: Document) -> Steps[bytes]:
    yield from document.folding()
    return (yield from document.diffing(b"\0"))


def alone(data: bytes, base: bytes | None) -> float:
    doc: pycrdt.Doc = pycrdt.Doc()
    if base is not None:
        doc.apply_update(base)
    started = thread_time()
    doc.apply_update(data)
    return thread_time() - started


def main() -> None:
    chosen = sys.argv[1:]
    heads = ("in all", "longest", "to show", "longest", "pycrdt")
    print(f"{'ms':<34}{'bytes':>10}{''.join(f'{head:>9}' for head in heads)}{'memory':>8}")
    for name, (data, base) in CASES.items():
        if chosen and not any(word in name for word in chosen):
            continue
        rounds = [take(data, base) for _ in range(1 if len(data) > 3_000_000 else ROUNDS)]
        times = [min(one[part][which] for one in rounds) * 1e3 for part in (0, 1) for which in (0, 1)]
        outcome = rounds[0][0][2]
        # What is refused may take pycrdt for ever, or down.
        pycrdts = f"{alone(data, base) * 1e3:9.1f}" if outcome == "new" and name not in GREEDY else f"{'':9}"
        tracemalloc.start()
        with suppress(SyncError):
            # The rest doesn't need more, and takes ten times as long while it is traced.
            at_once(reading(data))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        said = "" if outcome == "new" else f"  {outcome}"
        print(
            f"{name:<34}{len(data):>10}{''.join(f'{one:9.1f}' for one in times)}{pycrdts}{peak / len(data):>8.0f}{said}",
            flush=True,
        )


if __name__ == "__main__":
    main()
