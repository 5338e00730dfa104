"""What reading updates costs, beside what pycrdt needs to apply the same bytes: `python -m benchmarks.update_reader`.

Prints microseconds, the best of several rounds, both columns measured in turns in this process.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import partial
from time import perf_counter

import pycrdt

from crdt_sync.blackbox import BlackBox, RoomRecorder
from crdt_sync.document import Document
from crdt_sync.lib0 import write_var_bytes, write_var_uint
from crdt_sync.standins import for_pycrdt, from_pycrdt
from crdt_sync.update import read_update

CLIENT = 3_735_928_559
ROUNDS = 7


def struct(clock: int, text: bytes, *, client: int = CLIENT) -> bytes:
    """Text after the item before it, or the first in its root."""
    if clock == 0:
        return b"\x04\1\1t" + write_var_bytes(text)
    return b"\x84" + write_var_uint(client) + write_var_uint(clock - 1) + write_var_bytes(text)


def update(clock: int, *structs: bytes, client: int = CLIENT) -> bytes:
    head = b"\1" + write_var_uint(len(structs)) + write_var_uint(client) + write_var_uint(clock)
    return head + b"".join(structs) + b"\0"


def scattered(count: int) -> bytes:
    """Items that were typed here and there, as in a document after hours of editing."""
    structs = [struct(0, b"x")]
    for clock in range(1, count):
        structs.append(b"\x84" + write_var_uint(CLIENT) + write_var_uint(7919 * clock % 10007 % clock) + b"\1x")
    return update(0, *structs)


BASE = update(0, struct(0, b"x" * 12_345))
CASES: dict[str, tuple[bytes, bytes | None]] = {
    "keystroke": (update(12_345, struct(12_345, b"x")), BASE),
    "keystroke, an emoji": (update(12_345, struct(12_345, "😀".encode())), BASE),
    "delete of one character": (b"\0\1" + write_var_uint(CLIENT) + b"\1" + write_var_uint(5_000) + b"\1", BASE),
    "text of 100 KB": (update(0, struct(0, b"x" * 100_000)), None),
    "text of 100 KB, not ASCII": (update(0, struct(0, "ü".encode() * 50_000)), None),
    "text of 100 KB, emojis": (update(0, struct(0, "😀".encode() * 25_000)), None),
    "10,000 structs": (scattered(10_000), None),
}


def clock_once(work: Callable[[], object], repeats: int) -> float:
    started = perf_counter()
    for _ in range(repeats):
        work()
    return (perf_counter() - started) / repeats * 1e6


def apply_once(data: bytes, base: bytes | None) -> float:
    doc: pycrdt.Doc = pycrdt.Doc()
    if base is not None:
        doc.apply_update(base)
    started = perf_counter()
    doc.apply_update(data)
    return (perf_counter() - started) * 1e6


def note(recorder: RoomRecorder, data: bytes) -> None:
    recorder.note(data)
    recorder.clear()


def main() -> None:
    print(f"{'µs':<28}{'bytes':>9}{'read':>11}{'pycrdt apply':>14}")
    for name, (data, base) in CASES.items():
        repeats = 3 if len(data) > 50_000 else 10_000
        read, apply = [], []
        for _ in range(ROUNDS):
            read.append(clock_once(partial(read_update, data), repeats))
            apply += [apply_once(data, base) for _ in range(3)]
        print(f"{name:<28}{len(data):>9}{min(read):>11.2f}{min(apply):>14.2f}")

    odd = update(0, b"\x08\1\1t\2\x7a" + bytes(8) + b"\x7d\1")
    plain = CASES["10,000 structs"][0]
    for name, work, repeats in (
        ("disguise of a bigint", partial(for_pycrdt, odd, {}), 3000),
        ("and back", partial(from_pycrdt, for_pycrdt(odd, {})), 3000),
        ("back, 10,000 plain structs", partial(from_pycrdt, plain), 300),
    ):
        print(f"{name:<37}{min(clock_once(work, repeats) for _ in range(ROUNDS)):>11.2f}")

    typed = [update(clock, struct(clock, b"x")) for clock in range(20_000)]
    ours, pycrdts = [], []
    for _ in range(3):
        for doc, took in ((Document(), ours), (pycrdt.Doc(), pycrdts)):
            started = perf_counter()
            for one in typed:
                doc.apply(one) if isinstance(doc, Document) else doc.apply_update(one)
            took.append((perf_counter() - started) / len(typed) * 1e6)
    print(f"\nµs a keystroke, typing 20,000: Document.apply {min(ours):.2f}, pycrdt alone {min(pycrdts):.2f}")

    box = BlackBox("benchmark")
    for size, repeats in ((30, 100_000), (10_000, 10_000), (1 << 20, 100)):
        work = partial(note, box.recorder("trip-1"), bytes(size))
        print(f"µs to note {size} bytes for after a crash: {min(clock_once(work, repeats) for _ in range(ROUNDS)):.2f}")
    box.close()

    tracemalloc.start()
    read_update(plain)
    _, peak = tracemalloc.get_traced_memory()
    print(f"memory to read 10,000 structs, in bytes per byte: {peak / len(plain):.0f}")


if __name__ == "__main__":
    main()
