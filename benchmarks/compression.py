"""What permessage-deflate (RFC 7692) would save, and what it would cost the server: `python -m benchmarks.compression`.

Compresses what goes to clients: keystrokes of a recorded session, pasted text, cursors, and what who opens a document is sent. Two ways:

- *taken over*: each connection has a compressor, which knows what the connection had before. A message for 100 clients is compressed 100 times.
- *by itself*: every message is compressed for itself (`server_no_context_takeover`), once for all who get it, and nobody keeps anything.

Prints sizes in percent and microseconds a message, the best of several rounds in this process; what it costs to read what clients send, since a browser
that may compress does so with every message; and the memory of each connection, measured in a process of its own for each form.
"""

from __future__ import annotations

import multiprocessing
import os
import zlib
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pycrdt
from rich.console import Console
from rich.table import Table

from benchmarks.state_codecs import trace_state, trip_state
from benchmarks.update_reader import struct, update
from crdt_sync.lib0 import write_var_bytes
from tests.support.traces import read_trace

ROUNDS = 5
KEYSTROKES = 2000
CONNECTIONS = 300
TAIL = b"\0\0\xff\xff"  # of each message, left out (RFC 7692, 7.2.1)

FORMS = [(level, bits, memory) for level in (1, 6) for bits, memory in ((9, 1), (12, 5), (15, 8))]
"""zlib's level, windowBits and memLevel. 12 and 5 are websockets' defaults, 15 and 8 zlib's."""


def keystrokes() -> list[bytes]:
    """The messages of somebody who writes."""
    doc = pycrdt.Doc[Any]()
    text = doc.get("text", type=pycrdt.Text)
    messages: list[bytes] = []
    doc.observe(lambda event: messages.append(b"\0\2" + write_var_bytes(event.update)))
    for txn in read_trace("seph-blog1").txns[:KEYSTROKES]:
        with doc.transaction():
            for at, deleted, inserted in txn:
                if deleted:
                    del text[at : at + deleted]
                if inserted:
                    text.insert(at, inserted)
    return messages


def cursors() -> list[bytes]:
    """The messages of somebody who moves a cursor, as y-protocols' awareness sends them."""
    state = b'{"user":{"name":"Ada Lovelace","color":"#30bced"},"cursor":{"anchor":{"item":{"client":3735928559,"clock":%d}}}}'
    return [
        b"\1" + write_var_bytes(b"\1\xef\xfd\xb6\xf5\r" + bytes((1 + n % 100,)) + write_var_bytes(state % n))
        for n in range(500)
    ]


def pastes(size: int, count: int = 40) -> list[bytes]:
    """The messages of somebody who pastes so many bytes of prose at a time."""
    prose = read_trace("seph-blog1").end.encode("ascii", "ignore")
    texts = [prose[start : start + size] for start in range(0, len(prose) - size, size)][:count]
    return [b"\0\2" + write_var_bytes(update(n * size, struct(n * size, text))) for n, text in enumerate(texts)]


def first_syncs() -> dict[str, list[bytes]]:
    """What who opens a document is sent."""
    states = {name: trace_state(name) for name in ("sveltecomponent", "seph-blog1")} | {"trip": trip_state()}
    found = {f"first sync, {name}": [b"\0\1" + write_var_bytes(state)] for name, state in states.items()}
    # As large as this: what it saves hardly depends on the size beyond the window.
    many = b"".join([state for _ in range(4) for state in states.values()])
    return found | {"1 MB of these": [b"\0\1" + write_var_bytes(many[: 1 << 20])]}


def compressor(form: tuple[int, int, int]) -> Any:
    level, bits, memory = form
    return zlib.compressobj(level, zlib.DEFLATED, -bits, memory)


def compressed(message: bytes, form: tuple[int, int, int]) -> bytes:
    """A message by itself."""
    made = compressor(form)
    return (made.compress(message) + made.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def taken_over(messages: list[bytes], form: tuple[int, int, int]) -> list[bytes]:
    """Messages to one client."""
    made = compressor(form)
    return [(made.compress(message) + made.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL) for message in messages]


def best_us(work: Callable[[], object], count: int) -> float:
    """Microseconds for each of `count` things that are done at once."""
    took = []
    for _ in range(ROUNDS):
        began = perf_counter()
        work()
        took.append(perf_counter() - began)
    return min(took) / count * 1e6


def sizes_and_times(kinds: dict[str, list[bytes]]) -> Table:
    """Both ways, in every form."""
    table = Table("messages", "bytes", "level, bits, mem", "alone %", "µs", "taken over %", "µs")
    for kind, messages in kinds.items():
        total = sum(map(len, messages))
        for form in FORMS:
            alone = sum([len(compressed(message, form)) for message in messages])
            alone_us = best_us(lambda: [compressed(message, form) for message in messages], len(messages))  # noqa: B023
            cells = [f"{alone / total:.0%}", f"{alone_us:,.1f}", "", ""]
            if len(messages) > 1:
                over = sum(map(len, taken_over(messages, form)))
                over_us = best_us(lambda: taken_over(messages, form), len(messages))  # noqa: B023
                cells[2:] = [f"{over / total:.0%}", f"{over_us:,.1f}"]
            table.add_row(kind, f"{total // len(messages):,}", ", ".join(map(str, form)), *cells)
    return table


def reading(kinds: dict[str, list[bytes]]) -> Table:
    """What clients compress: with an inflater for each message, and with one that each connection keeps."""
    table = Table("messages", "a new inflater, µs", "a kept one, µs")
    for kind, messages in kinds.items():
        form = (6, 15, 8)
        alone = [compressed(message, form) + TAIL for message in messages]
        over = [data + TAIL for data in taken_over(messages, form)]

        def kept(over: list[bytes] = over) -> list[bytes]:
            inflater = zlib.decompressobj(-15)
            return [inflater.decompress(data, 16 << 20) for data in over]

        assert kept() == messages
        new_us = best_us(lambda: [zlib.decompressobj(-15).decompress(data, 16 << 20) for data in alone], len(alone))  # noqa: B023
        table.add_row(kind, f"{new_us:.1f}", f"{best_us(kept, len(over)):.1f}")
    return table


def resident_bytes() -> int:
    """The memory that this process occupies."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory_kib(form: tuple[int, int, int], message: bytes) -> float:
    """What a connection occupies that keeps a compressor and an inflater, once each has had a message."""
    data = compressed(message, form) + TAIL
    before = resident_bytes()
    kept = []
    for _ in range(CONNECTIONS):
        deflater, inflater = compressor(form), zlib.decompressobj(-form[1])
        deflater.compress(message)
        deflater.flush(zlib.Z_SYNC_FLUSH)
        inflater.decompress(data)
        kept.append((deflater, inflater))
    return (resident_bytes() - before) / CONNECTIONS / 1024


def memory(small: bytes, large: bytes) -> Table:
    """In a process of its own for each form."""
    table = Table("level, bits, mem", "KiB/connection, after a keystroke", "after a first sync")
    for form in FORMS:
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            found = [pool.apply(memory_kib, (form, message)) for message in (small, large)]
        table.add_row(", ".join(map(str, form)), *(f"{kib:.0f}" for kib in found))
    return table


def main() -> None:
    """Print everything."""
    console = Console(width=110)
    typed = keystrokes()
    lines = {"keystroke": typed, "cursor": cursors(), "paste of 300 B": pastes(300), "paste of 1 KiB": pastes(1 << 10)}
    small = lines | {"paste of 10 KiB": pastes(10 << 10)}
    large = first_syncs()
    console.print(sizes_and_times(small | large))
    console.print(reading(lines))
    console.print(memory(typed[-1], next(iter(large.values()))[0]))


if __name__ == "__main__":
    main()
