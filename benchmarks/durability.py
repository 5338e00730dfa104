"""How long an edit takes until it is confirmed, that is: on disk.

    python -m benchmarks.durability [--database sqlite postgres] [--rooms 10 100 1000] [--rate 200] [--seconds 30]

Starts the server as users run it, once for every database and number of rooms, with one WebSocket client in every
room. `rate` times a second one of them, in turns, sends a keystroke of 25 bytes, and in a message of its own a request
for confirmation. Measured is the time from sending the keystroke until the confirmation has arrived. The server commits
every 0.2 s by default, so half of that is waiting for the next commit.

Commits per second are `xact_commit` of PostgreSQL's `pg_stat_database`. Beside the commits of edits these are those of
checkpoints (one in 5 s for 200 rooms), of autovacuum, and two of the measuring. SQLite doesn't count; there, and as a
second opinion on PostgreSQL, the bursts in which confirmations arrive are counted, which are separated by at least a
quarter of the interval.

With `--rate` a multiple of five, edits and commits keep step; where a room gets several edits in an interval, see that
confirmations to one client aren't held back by TCP (Nagle): the median is half an interval, or something is wrong.

The clients live in this process. If it is late, or takes much of its core, the numbers are about the clients: then a
line says so.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.databases import add_database_option, database, flush_ms, folder
from benchmarks.update_reader import struct, update
from crdt_sync.lib0 import read_var_bytes, read_var_uint, write_var_bytes, write_var_uint
from crdt_sync.protocol import CONFIRM
from tests.support.postgres import execute
from tests.support.server import ServerProcess

# PostgreSQL's processes tell the statistics what they did after 10 s of silence at the latest; by then the loading of
# the rooms has been counted.
WARM_UP_S = 12
JOURNAL_INTERVAL_S = 0.2
# Beyond these, the clients are what is measured.
LATE_MS_MAX = 10
CLIENTS_CPU_MAX = 0.7


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    database: str
    rooms: int
    updates_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    commits_per_s: float | None
    """As PostgreSQL counts them."""
    bursts_per_s: float
    updates_per_burst: float
    server_cpu: float
    """Cores."""
    clients_cpu: float
    late_p99_ms: float
    """How much later than planned keystrokes were sent."""

    @property
    def doubts(self) -> list[str]:
        """Why the numbers may be about the clients, not the server."""
        found = []
        if self.late_p99_ms > LATE_MS_MAX:
            found.append(f"the clients sent late: p99 {self.late_p99_ms:.0f} ms")
        if self.clients_cpu > CLIENTS_CPU_MAX:
            found.append(f"the clients took {self.clients_cpu:.0%} of their core")
        return found


class Clients:
    """One client in each room."""

    def __init__(self, url: str, rooms: int) -> None:
        self.confirmed_at: dict[int, float] = {}
        """By number of the keystroke."""
        self._urls = [f"{url}/room-{n}" for n in range(rooms)]
        self._sockets: list[ClientConnection] = []
        self._readers: list[asyncio.Task[None]] = []
        self._clocks = [0] * rooms
        self._progress = asyncio.Event()

    async def open(self) -> None:
        """Connect all, some at a time."""
        for first in range(0, len(self._urls), 50):
            some = self._urls[first : first + 50]
            self._sockets += await asyncio.gather(*(connect(url, compression=None, open_timeout=30) for url in some))
        self._readers = [asyncio.create_task(self._read(socket)) for socket in self._sockets]

    async def type(self, number: int) -> float:
        """Send a keystroke, and ask for its confirmation; returns when it was sent."""
        index = number % len(self._sockets)
        clock = self._clocks[index]
        self._clocks[index] += 1
        keystroke = b"\x00\x02" + write_var_bytes(update(clock, struct(clock, b"x")))
        question = write_var_uint(CONFIRM) + write_var_bytes(write_var_uint(number))
        sent_at = time.perf_counter()
        await self._sockets[index].send(keystroke)
        await self._sockets[index].send(question)
        return sent_at

    async def until_confirmed(self, count: int) -> None:
        """Wait until so many keystrokes are confirmed."""
        async with asyncio.timeout(30):
            while len(self.confirmed_at) < count:
                self._progress.clear()
                await self._progress.wait()

    async def close(self) -> None:
        """Disconnect all."""
        for reader in self._readers:
            reader.cancel()
        for socket in self._sockets:
            socket.transport.abort()
        await asyncio.wait(self._readers)

    async def _read(self, socket: ClientConnection) -> None:
        async for frame in socket:
            assert isinstance(frame, bytes)
            kind, pos = read_var_uint(frame, 0)
            if kind == CONFIRM:
                self.confirmed_at[read_var_uint(read_var_bytes(frame, pos)[0], 0)[0]] = time.perf_counter()
                self._progress.set()


async def measure(kind: str, url: str, path: Path, *, rooms: int, rate: float, seconds: float) -> Result:
    """Run the server on a database, and the clients on the server.

    Args:
        kind: What to call the database.
        url: The database.
        path: Takes the server's log.
        rooms: How many.
        rate: Updates a second, over all rooms.
        seconds: How long, after a warm-up.
    """
    env = {"CRDT_SYNC_LOG_LEVEL": "WARNING", "CRDT_SYNC_JOURNAL_INTERVAL_S": str(JOURNAL_INTERVAL_S)}
    async with ServerProcess(path, database_url=url, env=env) as server:
        clients = Clients(server.url, rooms)
        await clients.open()
        warm_up, counted = int(rate * WARM_UP_S), int(rate * seconds)
        await type_at_rate(clients, range(warm_up), rate)

        commits, server_cpu_s, clients_cpu_s = count_commits(url), server.cpu_s(), time.process_time()
        began = time.perf_counter()
        sent_at, late = await type_at_rate(clients, range(warm_up, warm_up + counted), rate)
        took = time.perf_counter() - began
        server_cpu_s, clients_cpu_s = server.cpu_s() - server_cpu_s, time.process_time() - clients_cpu_s

        await clients.until_confirmed(warm_up + counted)
        # One that isn't silent does so once a second.
        await asyncio.sleep(1.5)
        commits_then = count_commits(url)
        await clients.close()

    confirmed_at = [clients.confirmed_at[number] for number in sorted(sent_at)]
    delays = [(confirmed_at[i] - at) * 1000 for i, (_, at) in enumerate(sorted(sent_at.items()))]
    bursts = count_bursts(confirmed_at)
    percentiles = statistics.quantiles(delays, n=100)
    return Result(
        database=kind,
        rooms=rooms,
        updates_per_s=counted / took,
        p50_ms=percentiles[49],
        p95_ms=percentiles[94],
        p99_ms=percentiles[98],
        max_ms=max(delays),
        commits_per_s=None if commits is None or commits_then is None else (commits_then - commits) / took,
        bursts_per_s=bursts / took,
        updates_per_burst=counted / bursts,
        server_cpu=server_cpu_s / took,
        clients_cpu=clients_cpu_s / took,
        late_p99_ms=statistics.quantiles(late, n=100)[98] * 1000,
    )


async def type_at_rate(clients: Clients, numbers: range, rate: float) -> tuple[dict[int, float], list[float]]:
    """Send one keystroke after the other, each at its time or, if that has passed, at once.

    Returns:
        When each was sent; and how late that was, in seconds.
    """
    sent_at: dict[int, float] = {}
    late = []
    began = time.perf_counter()
    for count, number in enumerate(numbers):
        due = began + count / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        sent_at[number] = await clients.type(number)
        late.append(sent_at[number] - due)
    return sent_at, late


def count_commits(url: str) -> int | None:
    """All commits in a PostgreSQL database so far; None for SQLite."""
    if url.startswith("sqlite:"):
        return None
    ((count,),) = execute(url, "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    return int(count)


def count_bursts(moments: list[float]) -> int:
    """How many groups of moments there are with a quarter of the commits' interval of silence between them."""
    ordered = sorted(moments)
    gap_s = JOURNAL_INTERVAL_S / 4
    return 1 + sum(later - earlier > gap_s for earlier, later in itertools.pairwise(ordered))


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.durability", description="From an edit to its confirmation.")
    add_database_option(parser)
    parser.add_argument("--rooms", type=int, nargs="+", default=[100], help="one run for each number (default 100)")
    parser.add_argument("--rate", type=float, default=200, help="updates a second over all rooms (default 200)")
    parser.add_argument("--seconds", type=float, default=30, help="length of a run (default 30)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()

    results = []
    for kind in options.database:
        for rooms in options.rooms:
            with folder() as path, database(kind, path) as url:
                flush = flush_ms(path)
                run = measure(kind, url, path, rooms=rooms, rate=options.rate, seconds=options.seconds)
                results.append(asyncio.run(run))
    if options.json:
        print(json.dumps({"flush_ms": flush, "runs": [asdict(result) for result in results]}, indent=2))
        return
    table = Table(title=f"from keystroke to confirmation, {options.rate:g} a second for {options.seconds:g} s")
    for heading in ("database", "rooms", "updates/s", "p50 ms", "p95", "p99", "max", "commits/s", "bursts/s"):
        table.add_column(heading, justify="left" if heading == "database" else "right")
    for heading in ("updates/burst", "server CPU", "clients CPU"):
        table.add_column(heading, justify="right")
    for each in results:
        milliseconds = (each.p50_ms, each.p95_ms, each.p99_ms, each.max_ms)
        table.add_row(
            each.database.partition(":")[0],
            f"{each.rooms:,}",
            f"{each.updates_per_s:.0f}",
            *(f"{value:.0f}" for value in milliseconds),
            "–" if each.commits_per_s is None else f"{each.commits_per_s:.1f}",
            f"{each.bursts_per_s:.1f}",
            f"{each.updates_per_burst:.0f}",
            f"{each.server_cpu:.0%}",
            f"{each.clients_cpu:.0%}",
        )
    console = Console(width=120)
    console.print(table)
    console.print(f"flushing 4 KiB to this disk takes {flush:.1f} ms")
    for each in results:
        for doubt in each.doubts:
            console.print(f"{each.database}, {each.rooms} rooms: {doubt}", style="yellow")


if __name__ == "__main__":
    main()
