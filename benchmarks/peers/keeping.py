"""What a server keeps: how soon an update is on disk, and how soon a document is back from there."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import statistics
import time
from contextlib import closing

import pycrdt

from benchmarks.open_document import CHUNK, NEVER, fill, until_compacted, write_text

from .clients import Client, Clients
from .measured import Broken, Numbers, Timing
from .servers import CONFIRMS, KEEPS, OURS, Server, Setup
from .wire import TOKEN

DRAIN_S = 60
# Hocuspocus stores a document that is edited all the time every 10 s.
LEAST_S = 30
RUNS = 5
OPEN_S = 60


class Durable:
    """Clients edit, each alone in its room, and are told when that is on disk. Then the server is killed, and has to have all of it.

    Args:
        title: What it is, in a few words.
        rooms: How many.
        rate: Updates per second, in all.
    """

    def __init__(self, title: str, *, rooms: int, rate: float) -> None:
        self.title = title
        self.setup = Setup(needs=CONFIRMS)
        self._rooms = rooms
        self._rate = rate

    def measure(self, server: Server, timing: Timing) -> Numbers:
        """Measure at least half a minute.

        Raises:
            Broken: What was confirmed isn't there after the server was killed.
        """
        seconds = max(timing.seconds, LEAST_S)
        with Clients(server.ports, server.kind.wire) as clients:
            clients.connect(self._rooms, 1)
            clients.run(time.perf_counter() + 0.5, lambda client, data, now: client.greet())
            log = Confirmations(clients.all)
            began = time.perf_counter()
            self._edit(clients, log, began, began + timing.warm_up_s)
            timing.at_begin(server)
            measured, cpu, own = time.perf_counter(), server.cpu_s(), time.process_time()
            self._edit(clients, log, began, measured + seconds)
            ended, busy, own_busy = time.perf_counter(), server.cpu_s(), time.process_time()
            clients.run(ended + DRAIN_S, log.take, stop=log.all_stored)
            if not log.all_stored():
                raise Broken(f"not everything is stored {DRAIN_S} s later")
        server.kill()
        server.start()
        self._look(server, log)
        delays = sorted(log.delays_ms(measured, ended))
        return {
            "durable_p50_ms": statistics.median(delays),
            "durable_p95_ms": delays[int(len(delays) * 0.95)],
            "durable_p99_ms": delays[int(len(delays) * 0.99)],
            "durable_max_ms": delays[-1],
            "updates_per_s": len(delays) / (ended - measured),
            "server_core": (busy - cpu) / (ended - measured),
            "generator_core": (own_busy - own) / (ended - measured),
            "late_p99_ms": sorted(log.late)[int(len(log.late) * 0.99)] * 1000,
        }

    def _edit(self, clients: Clients, log: Confirmations, began: float, until: float) -> None:
        while (now := time.perf_counter()) < until:
            while (due := began + len(log.late) / self._rate) <= now:
                log.late.append(now - due)
                log.send(clients.all[len(log.late) % self._rooms])
                now = time.perf_counter()
            clients.run(min(due, until), log.take)

    def _look(self, server: Server, log: Confirmations) -> None:
        with Clients(server.ports, server.kind.wire) as clients:
            clients.connect(self._rooms, 1)
            for client in clients.all:
                found = {int(number) for number in TOKEN.findall(client.received)}
                if lost := log.numbers(client) - found:
                    raise Broken(f"{len(lost)} confirmed updates are gone")


class Confirmations:
    """What was sent, and when it was known to be stored.

    Args:
        clients: One in each room.
    """

    def __init__(self, clients: list[Client]) -> None:
        self.late: list[float] = []
        """Of every update, how many seconds after its time it was sent."""
        self._sent: list[list[float]] = [[] for _ in clients]
        self._stored: list[list[float]] = [[] for _ in clients]
        self._share = 10**8 // len(clients)

    def send(self, client: Client) -> None:
        """Have one edit, and ask for the confirmation if its server wants to be asked."""
        sent = self._sent[client.number]
        sent.append(time.perf_counter())
        client.send(client.number * self._share + len(sent) - 1)
        client.ask(len(sent))

    def take(self, client: Client, data: bytes, now: float) -> None:
        """Take what comes."""
        stored = self._stored[client.number]
        for payload in client.messages():
            count = client.wire.stored(payload)
            if count is not None:
                stored += [now] * (count - len(stored))

    def all_stored(self) -> bool:
        """Whether every update is."""
        return all(len(sent) == len(stored) for sent, stored in zip(self._sent, self._stored, strict=True))

    def delays_ms(self, began: float, ended: float) -> list[float]:
        """From sending to being told, of what was sent meanwhile."""
        return [
            (at - sent_at) * 1000
            for sent, stored in zip(self._sent, self._stored, strict=True)
            for sent_at, at in zip(sent, stored, strict=True)
            if began <= sent_at < ended
        ]

    def numbers(self, client: Client) -> set[int]:
        """Which updates the client of this number sent."""
        first = client.number * self._share
        return set(range(first, first + len(self._sent[client.number])))


class ColdOpen:
    """The first client of a document that is stored and that nobody has open: from its request to its sync step 2.

    Ours once has 20,000 rows of a log, once a checkpoint. Hocuspocus only stores states.

    Args:
        title: What it is, in a few words.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.setup = Setup(needs=KEEPS)

    def measure(self, server: Server, timing: Timing) -> Numbers:
        """Store copies of the document behind the server's back, and open each once.

        Raises:
            Broken: What comes isn't the document.
        """
        rooms = range(RUNS)
        server.kill()
        if server.kind.name != OURS:
            self._store_states(server)
            server.start()
            return self._open_all(server, "open")
        assert server.database_url is not None
        asyncio.run(fill(server.database_url, _updates(), [f"room-{room}" for room in rooms]))
        server.start(**NEVER)
        numbers = self._open_all(server, "open")
        server.kill()
        server.start()
        with Clients(server.ports, server.kind.wire) as clients:
            clients.connect(RUNS, 1)
            for room in rooms:
                asyncio.run(until_compacted(server.database_url, f"room-{room}"))
        server.kill()
        server.start()
        return numbers | self._open_all(server, "compacted")

    def _open_all(self, server: Server, name: str) -> Numbers:
        self._open(server, RUNS)  # what the first of all takes longer isn't the document's
        cpu = server.cpu_s()
        took = [self._open(server, room, len(_updates()) * CHUNK) * 1000 for room in range(RUNS)]
        return {
            f"{name}_ms": statistics.median(took),
            f"{name}_max_ms": max(took),
            f"{name}_cpu_ms": (server.cpu_s() - cpu) / RUNS * 1000,
        }

    @staticmethod
    def _open(server: Server, room: int, length: int = 0) -> float:
        with Clients(server.ports, server.kind.wire) as clients:
            client = clients.join(room)
            clients.run(
                time.perf_counter() + OPEN_S, lambda client, data, now: client.greet(), stop=lambda: client.ready
            )
            doc: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc()
            for update in client.updates():
                doc.apply_update(update)
            if (found := len(doc.get("text", type=pycrdt.Text))) != length:
                raise Broken(f"the text has {found} characters instead of {length}")
            return client.joined_s

    def _store_states(self, server: Server) -> None:
        state = _state()
        with closing(sqlite3.connect(server.folder / "hocuspocus.db")) as connection, connection:
            rows = [(f"room-{room}", state) for room in range(RUNS)]
            connection.executemany("INSERT INTO documents (name, data) VALUES (?, ?)", rows)


@functools.cache
def _updates() -> list[bytes]:
    return write_text(jump_every=20)


@functools.cache
def _state() -> bytes:
    doc: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc()
    for update in _updates():
        doc.apply_update(update)
    return doc.get_update()
