"""Whether a server grows, or becomes slow, while people come and go for an hour.

Documents of rooms that are edited for ever do grow. So rooms are left after two minutes, and others opened: what stays then is the server's.
"""

from __future__ import annotations

import statistics
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .clients import Client, Clients
from .load import Load
from .measured import Broken, Numbers, Timing
from .servers import Server, Setup
from .trend import percentile, slope
from .wire import close

PARTIES = 40
MEMBERS = 4
LIFE_S = 120
UPDATES_PER_S = 1
CURSORS_PER_S = 2
VISIT_S = 10
PATIENCE_S = 30
NEVER = float("inf")
SAMPLES = 60
# The first third is warm-up: memory is found full of holes, and caches full, after some minutes only.
WARM_UP = 1 / 3


class Growth:
    """Rooms whose members edit and move their cursors, and others come to look; sampled sixty times.

    Args:
        title: What it is, in a few words.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.setup = Setup()

    def measure(self, server: Server, timing: Timing) -> Numbers:
        """Watch it for so long.

        Raises:
            Broken: Something didn't arrive, or documents differ.
        """
        seen = Seen()
        with Clients(server.ports, server.kind.wire) as clients:
            began = time.perf_counter()
            life_s = min(LIFE_S, timing.growth_s / 6)
            # Each begins at another time, so that some end all the time.
            rooms = iter(range(10**9))
            parties = [
                Party(clients, seen, rooms, began + number / PARTIES * life_s, life_s) for number in range(PARTIES)
            ]
            timing.at_begin(server)
            for sample in range(1, SAMPLES + 1):
                until = began + timing.growth_s * sample / SAMPLES
                cpu, own, since = server.cpu_s(), time.process_time(), time.perf_counter()
                while time.perf_counter() < until:
                    due = min(party.step() for party in parties)
                    clients.run(min(due, until), seen.take)
                took = time.perf_counter() - since
                seen.sample(
                    Sample(
                        at_s=time.perf_counter() - began,
                        memory_mib=server.own_bytes() / (1 << 20),
                        server_core=(server.cpu_s() - cpu) / took,
                        generator_core=(time.process_time() - own) / took,
                    )
                )
            for party in parties:
                party.end()
            while min(party.step() for party in parties) < NEVER:
                clients.run(time.perf_counter() + 0.005, seen.take)
        return seen.numbers(began)


class Party:
    """One room after the other: some people come, edit for a while, and leave; meanwhile others come to look.

    Args:
        clients: Everybody.
        seen: Takes what was measured.
        rooms: Yields rooms that nobody has been in.
        start_at: When the first room opens.
        life_s: How long people stay in a room.
    """

    def __init__(self, clients: Clients, seen: Seen, rooms: Iterator[int], start_at: float, life_s: float) -> None:
        self._clients = clients
        self._seen = seen
        self._rooms = rooms
        self._life_s = life_s
        self._over = False
        self._steps = self._live(start_at)
        self._due = 0.0

    def step(self) -> float:
        """Do what is due; returns when something is again."""
        if time.perf_counter() >= self._due:
            self._due = next(self._steps, NEVER)
        return self._due

    def end(self) -> None:
        """Open no other room, and leave this one as soon as everybody has got everything."""
        self._over = True
        self._due = min(self._due, 0.0)

    def _live(self, start_at: float) -> Iterator[float]:
        """What it does, one step after the other; yields when to go on."""
        yield start_at
        while not self._over:
            room = next(self._rooms)
            first = self._clients.join(room)
            yield from self._all_ready([first])
            others = [self._clients.join(room) for _ in range(MEMBERS - 1)]
            yield from self._all_ready(others)
            members = [first, *others]
            load = Load(members, members)
            yield from self._edit(load, room)
            yield from self._wait(load.all_there, "not everybody has got everything")
            self._seen.edited(load)
            for member in members:
                self._leave(member)
            yield 0.0

    def _edit(self, load: Load, room: int) -> Iterator[float]:
        tick = load.open(UPDATES_PER_S, CURSORS_PER_S)
        ends = time.perf_counter() + self._life_s
        while (now := time.perf_counter()) < ends and not self._over:
            visitor = self._clients.join(room)
            leaves = now + VISIT_S
            while (now := time.perf_counter()) < min(leaves, ends) and not self._over:
                yield min(tick(), leaves)
            yield from self._all_ready([visitor])
            self._leave(visitor)
        load.over = True

    def _all_ready(self, members: list[Client]) -> Iterator[float]:
        yield from self._wait(lambda: all(member.ready for member in members), "somebody doesn't get a document")
        for member in members:
            self._seen.joined(member)

    @staticmethod
    def _wait(condition: Callable[[], bool], complaint: str) -> Iterator[float]:
        deadline = time.perf_counter() + PATIENCE_S
        while not condition():
            if time.perf_counter() > deadline:
                raise Broken(f"{complaint} within {PATIENCE_S} s")
            yield time.perf_counter() + 0.005

    def _leave(self, client: Client) -> None:
        # Every other one goes as a closed tab does, the others as a lost network.
        if client.number % 2:
            client.write(close())
        self._clients.leave(client)


@dataclass(frozen=True)
class Sample:
    """What was found after a while."""

    at_s: float
    memory_mib: float
    server_core: float
    generator_core: float


class Seen:
    """What was measured, and what it amounts to."""

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._sent = array("d")
        self._delays_ms = array("d")
        self._joined = array("d")
        self._joins_ms = array("d")

    @staticmethod
    def take(client: Client, data: bytes, now: float) -> None:
        """Take what comes: who is new gets its document, pings are answered."""
        client.greet()

    def joined(self, client: Client) -> None:
        """Note how long somebody waited for the document."""
        self._joined.append(client.started)
        self._joins_ms.append(client.joined_s * 1000)

    def edited(self, load: Load) -> None:
        """Note how long the updates of a room took.

        Raises:
            Broken: Something is missing, or documents differ.
        """
        for sent_at, at in load.deliveries():
            self._sent.append(sent_at)
            self._delays_ms.append((at - sent_at) * 1000)
        load.compare()

    def sample(self, sample: Sample) -> None:
        """Note what was found by now, and say so."""
        self._samples.append(sample)
        print(
            f"  {sample.at_s:5.0f} s  {sample.memory_mib:6.1f} MiB  server's core {sample.server_core:.0%}  "
            f"clients' core {sample.generator_core:.0%}",
            file=sys.stderr,
        )

    def numbers(self, began: float) -> Numbers:
        """What it amounts to.

        Args:
            began: When the first ones came.
        """
        length = self._samples[-1].at_s
        warm = length * WARM_UP
        quarter = (length - warm) / 4
        steady = [sample for sample in self._samples if sample.at_s > warm]
        rise, error = slope([sample.at_s / 3600 for sample in steady], [sample.memory_mib for sample in steady])
        first, last = (began + warm, began + warm + quarter), (began + length - quarter, began + length)
        numbers = {
            "growth_mib_per_h": rise,
            "growth_error_mib_per_h": error,
            "memory_first_mib": steady[0].memory_mib,
            "memory_mib": steady[-1].memory_mib,
            "joins": len(self._joins_ms),
            "watched_s": length,
            "server_core": statistics.fmean(sample.server_core for sample in steady),
            "generator_core": statistics.fmean(sample.generator_core for sample in steady),
        }
        for name, (since, until) in (("first", first), ("last", last)):
            delays, joins = self._delays(since, until), self._joins(since, until)
            numbers |= {
                f"p50_{name}_ms": percentile(delays, 0.5),
                f"p99_{name}_ms": percentile(delays, 0.99),
                f"join_p99_{name}_ms": percentile(joins, 0.99),
            }
        since = 0.0
        for number, sample in enumerate(self._samples, 1):
            numbers[f"at_s.{number}"] = sample.at_s
            numbers[f"memory_mib.{number}"] = sample.memory_mib
            if delays := self._delays(began + since, began + sample.at_s):
                numbers[f"p99_ms.{number}"] = percentile(delays, 0.99)
            since = sample.at_s
        return numbers

    def _delays(self, since: float, until: float) -> list[float]:
        return sorted(delay for at, delay in zip(self._sent, self._delays_ms, strict=True) if since <= at < until)

    def _joins(self, since: float, until: float) -> list[float]:
        return sorted(took for at, took in zip(self._joined, self._joins_ms, strict=True) if since <= at < until)
