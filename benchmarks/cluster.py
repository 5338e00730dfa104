"""How long an edit takes from a client of one node to clients of the others, and what it costs in Redis.

    python -m benchmarks.cluster [--nodes 3] [--rooms 50] [--rate 1000] [--seconds 20] [--json]

Starts private PostgreSQL and Redis servers, and so many nodes as users run them. Every room has one WebSocket client at
each node. `rate` times a second one of all clients, in turns, sends a keystroke; measured is the time from sending until it
has arrived at each client of another node. Redis' own counters say what was asked of it meanwhile and how many bytes it
read and wrote; the idle seconds before tell what of that are heartbeats.

With `--idle ROOMS` it measures rooms where nothing happens instead: one client each at every node, and after half a minute
the commands that Redis gets, and the memory that the nodes have for them.

The clients live in this process. If it is late, or takes much of its core, the numbers are about the clients: then a line
says so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.databases import folder, private_postgres
from benchmarks.update_reader import struct, update
from crdt_sync.lib0 import write_var_bytes
from tests.support.redis import RedisServer
from tests.support.server import ServerProcess
from tests.support.services import Unavailable

# All clients are of one address, and a busy server is what is wanted.
ENV = {"CRDT_SYNC_CONNECTIONS_PER_ADDRESS_MAX": "100000", "CRDT_SYNC_LOAD_CPU_MAX": "2"}
LATE_MS_MAX = 5
CLIENTS_CPU_MAX = 0.8
IDLE_S = 10
SETTLE_S = 30


class Clients:
    """One client of every room at every node."""

    def __init__(self, urls: list[str], rooms: int) -> None:
        self.delays: list[float] = []
        self._urls = urls
        self._rooms = rooms
        self._sockets: list[list[ClientConnection]] = [[] for _ in range(rooms)]
        self._clocks: dict[int, int] = {}
        self._sent_at: dict[bytes, float] = {}
        self._readers: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect all, some at a time."""
        for first in range(0, self._rooms, 20):
            rooms = range(first, min(first + 20, self._rooms))
            for node, url in enumerate(self._urls):
                opening = [connect(f"{url}/room-{room}", compression=None, open_timeout=60) for room in rooms]
                for room, socket in zip(rooms, await asyncio.gather(*opening), strict=True):
                    self._sockets[room].append(socket)
                    self._readers.append(asyncio.create_task(self._read(socket, node)))

    async def type(self, number: int) -> None:
        """Have the client whose turn it is send a keystroke."""
        room, node = number % self._rooms, number // self._rooms % len(self._urls)
        client = 1000 + room * 10 + node
        clock = self._clocks.get(client, 0)
        self._clocks[client] = clock + 10
        # Ten characters that say which keystroke it is; each client's are independent of the others'.
        token = b"k%09d" % number
        self._sent_at[token] = time.perf_counter()
        frame = b"\x00\x02" + write_var_bytes(update(clock, struct(clock, token, client=client), client=client))
        await self._sockets[room][node].send(frame)

    async def close(self) -> None:
        """Go."""
        for reader in self._readers:
            reader.cancel()
        for sockets in self._sockets:
            for socket in sockets:
                socket.transport.abort()

    async def _read(self, socket: ClientConnection, node: int) -> None:
        async for frame in socket:
            assert isinstance(frame, bytes)
            now = time.perf_counter()
            if frame[:2] == b"\x00\x02":
                at = frame.find(b"k0")
                sent_at = self._sent_at.get(frame[at : at + 10])
                if sent_at is not None:
                    self.delays.append(now - sent_at)


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, and return what was measured."""
    with folder() as path, private_postgres() as postgres, private_redis() as redis:
        url = postgres.create_database()
        async with AsyncExitStack() as stack:
            nodes = []
            for n in range(options.nodes):
                (path / str(n)).mkdir()
                node = ServerProcess(path / str(n), database_url=url, env={**ENV, "CRDT_SYNC_REDIS_URL": redis.url})
                nodes.append(await stack.enter_async_context(node))
            if options.idle:
                return await measure_idle(nodes, redis, options.idle)
            return await measure_traffic(nodes, redis, options)


async def measure_traffic(
    nodes: list[ServerProcess], redis: RedisServer, options: argparse.Namespace
) -> dict[str, Any]:
    clients = Clients([node.url for node in nodes], options.rooms)
    await clients.open()
    await asyncio.sleep(5)
    idle = await difference(redis, IDLE_S)
    before, node_cpu, own_cpu = counters(redis), [node.cpu_s() for node in nodes], time.process_time()
    count = options.rate * options.seconds
    late = []
    began = time.perf_counter()
    for number in range(count):
        due = began + number / options.rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        late.append(max(0.0, time.perf_counter() - due))
        await clients.type(number)
    took = time.perf_counter() - began
    after = counters(redis)
    node_cpu = [node.cpu_s() - was for node, was in zip(nodes, node_cpu, strict=True)]
    own_cpu = time.process_time() - own_cpu
    await asyncio.sleep(2)
    await clients.close()
    delays = sorted(delay * 1000 for delay in clients.delays)
    expected = count * (len(nodes) - 1)
    cost = {name: after[name] - before[name] - idle[name] / IDLE_S * took for name in after}
    return {
        "nodes": len(nodes),
        "rooms": options.rooms,
        "updates_per_s": round(count / took),
        "arrived": f"{len(delays)} of {expected}",
        "p50_ms": round(statistics.median(delays), 2),
        "p99_ms": round(delays[int(len(delays) * 0.99)], 2),
        "max_ms": round(delays[-1], 2),
        "redis_commands_per_update": round(cost["commands"] / count, 2),
        "redis_bytes_in_per_update": round(cost["bytes_in"] / count),
        "redis_bytes_out_per_update": round(cost["bytes_out"] / count),
        "idle_redis_commands_per_s": round(idle["commands"] / IDLE_S, 1),
        "node_cpu": [round(used / took, 2) for used in node_cpu],
        "clients_cpu": round(own_cpu / took, 2),
        "sent_late_p99_ms": round(sorted(late)[int(len(late) * 0.99)] * 1000, 2),
    }


async def measure_idle(nodes: list[ServerProcess], redis: RedisServer, rooms: int) -> dict[str, Any]:
    empty = [node.rss_bytes() for node in nodes]
    clients = Clients([node.url for node in nodes], rooms)
    await clients.open()
    await asyncio.sleep(SETTLE_S)
    full = [node.rss_bytes() for node in nodes]
    node_cpu = [node.cpu_s() for node in nodes]
    idle = await difference(redis, SETTLE_S)
    used = [round((node.cpu_s() - was) / SETTLE_S, 3) for node, was in zip(nodes, node_cpu, strict=True)]
    await clients.close()
    return {
        "nodes": len(nodes),
        "rooms_on_each": rooms,
        "redis_commands_per_s": round(idle["commands"] / SETTLE_S, 1),
        "redis_bytes_per_s": round((idle["bytes_in"] + idle["bytes_out"]) / SETTLE_S),
        "kb_per_room_and_connection": [round((f - e) / rooms / 1024, 1) for f, e in zip(full, empty, strict=True)],
        "node_cpu": used,
    }


@contextmanager
def private_redis() -> Iterator[RedisServer]:
    """A Redis, or the end of the program with a sentence where there is none."""
    try:
        server = RedisServer()
    except Unavailable as reason:
        raise SystemExit(str(reason)) from reason
    with server:
        yield server


def counters(redis: RedisServer) -> dict[str, float]:
    """What Redis has counted so far. Asking is one command."""
    info = dict(line.split(":", 1) for line in redis.execute("INFO", "stats").splitlines() if ":" in line)
    return {
        "commands": float(info["total_commands_processed"]),
        "bytes_in": float(info["total_net_input_bytes"]),
        "bytes_out": float(info["total_net_output_bytes"]),
    }


async def difference(redis: RedisServer, seconds: float) -> dict[str, float]:
    """What Redis counts in some seconds."""
    before = counters(redis)
    await asyncio.sleep(seconds)
    return {name: value - before[name] for name, value in counters(redis).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--rooms", type=int, default=50)
    parser.add_argument("--rate", type=int, default=1000, help="updates a second, over all rooms")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--idle", type=int, default=0, metavar="ROOMS", help="measure rooms where nothing happens")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = asyncio.run(run(options))
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:28} {value}")
    if result.get("sent_late_p99_ms", 0) > LATE_MS_MAX or result.get("clients_cpu", 0) > CLIENTS_CPU_MAX:
        print("The clients were late or busy: this says more about them than about the server.", file=sys.stderr)


if __name__ == "__main__":
    main()
