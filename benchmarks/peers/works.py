"""What the servers are given to do, and what is measured meanwhile.

The load is of one of two kinds. *Closed*: a client sends its next update as soon as the others have got an earlier one, so the server
does as much as it can. *Open*: clients send at a fixed rate, whatever the server does.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pycrdt

from .clients import Client, Clients
from .servers import Server
from .wire import CURSOR

DRAIN_S = 60
# What a server puts off counts too: our journal is written every 0.2 s.
AFTER_S = 0.5
SETTLE_S = 5


@dataclass(frozen=True)
class Timing:
    """How long each work is done."""

    warm_up_s: float
    seconds: float
    at_begin: Callable[[Server], object] = bool
    """Is called when measuring begins."""


Numbers = dict[str, float]


class Work:
    """Clients edit, and the others see it.

    Args:
        title: What it is, in a few words.
        rooms: How many.
        clients: How many in each.
        senders: How many of these edit.
        window: How many updates of a sender may be on their way; None: it sends at its rate.
        rate: Updates per second and sender, where there is no window.
        cursor_rate: How often in a second it moves its cursor, where there is no window.
    """

    def __init__(
        self,
        title: str,
        *,
        rooms: int,
        clients: int,
        senders: int,
        window: int | None = None,
        rate: float = 0,
        cursor_rate: float = 0,
    ) -> None:
        self.title = title
        self._rooms = rooms
        self._clients = clients
        self._senders = senders
        self._window = window
        self._rate = rate
        self._cursor_rate = cursor_rate

    def measure(self, server: Server, timing: Timing) -> Numbers:
        """Do it.

        Raises:
            Broken: Something didn't arrive, or documents differ.
        """
        with Clients(server.port, server.kind.wire) as clients:
            clients.connect(self._rooms, self._clients)
            clients.run(time.perf_counter() + 0.5, lambda client, data, now: client.greet())
            senders = [client for client in clients.all if client.number < self._senders * self._rooms]
            load = Load(clients.all, senders)
            gc.collect()
            gc.freeze()
            gc.disable()  # its pauses would be the server's
            try:
                numbers = self._edit(server, clients, load, timing)
            finally:
                gc.enable()
                gc.unfreeze()
            return numbers | load.check(numbers.pop("began"), numbers.pop("ended"), numbers["server_cpu_s"])

    def _edit(self, server: Server, clients: Clients, load: Load, timing: Timing) -> Numbers:
        if self._window is not None:
            on_data, tick = load.closed(self._window), None
        else:
            on_data, tick = _nothing, load.open(self._rate, self._cursor_rate)
        self._run(clients, on_data, tick, time.perf_counter() + timing.warm_up_s)
        timing.at_begin(server)
        began, cpu, own = time.perf_counter(), server.cpu_s(), time.process_time()
        self._run(clients, on_data, tick, began + timing.seconds)
        ended, busy, own_busy = time.perf_counter(), server.cpu_s(), time.process_time()
        load.over = True
        deadline = ended + DRAIN_S
        clients.run(deadline, load.closed(0), stop=load.all_there)
        drained = time.perf_counter()
        if drained < deadline:
            clients.run(drained + AFTER_S, _nothing)
        return {
            "began": began,
            "ended": ended,
            "server_cpu_s": server.cpu_s() - cpu,
            "server_core": (busy - cpu) / (ended - began),
            "generator_core": (own_busy - own) / (ended - began),
            "memory_mib": server.memory_bytes() / (1 << 20),
        }

    @staticmethod
    def _run(
        clients: Clients,
        on_data: Callable[[Client, bytes, float], None],
        tick: Callable[[], float] | None,
        until: float,
    ) -> None:
        if tick is None:
            clients.run(until, on_data)
            return
        while time.perf_counter() < until:
            clients.run(min(until, tick()), on_data)


class Broken(Exception):
    """A server lost something."""


class Load:
    """Updates that are sent, and who has got them. Numbers of one sender's updates follow upon each other."""

    def __init__(self, clients: list[Client], senders: list[Client]) -> None:
        self.over = False
        self._clients = clients
        self._senders = senders
        self._share = 10**8 // len(senders)
        self._sent: list[list[float]] = [[] for _ in senders]
        self._late: list[float] = []
        self._moved: list[list[float]] = [[] for _ in senders]
        self._members: dict[int, list[Client]] = {}
        for client in clients:
            self._members.setdefault(client.room, []).append(client)

    def send(self, sender: int) -> None:
        """Have a sender insert its next token."""
        sent = self._sent[sender]
        sent.append(time.perf_counter())
        self._senders[sender].send(sender * self._share + len(sent) - 1)

    def closed(self, window: int) -> Callable[[Client, bytes, float], None]:
        """Keep so many updates of every sender on their way, one sender a room; what takes what comes."""
        share = self._share
        by_room = {client.room: number for number, client in enumerate(self._senders)}
        got = [0] * len(self._clients)
        receivers = [len(self._members[client.room]) - 1 for client in self._senders]
        left: list[dict[int, int]] = [{} for _ in self._senders]

        def send(sender: int) -> None:
            left[sender][len(self._sent[sender])] = receivers[sender]
            self.send(sender)

        def on_data(client: Client, data: bytes, now: float) -> None:
            number = client.latest(data)
            if number is None or self.over:
                return
            sender = by_room[client.room]
            if self._senders[sender] is client:
                return
            count = number - sender * share + 1
            waiting = left[sender]
            for update in range(got[client.number], count):
                waiting[update] -= 1
                if not waiting[update]:
                    del waiting[update]
                    send(sender)
            got[client.number] = max(count, got[client.number])

        if window:
            for sender in range(len(self._senders)):
                for _ in range(window):
                    send(sender)
        return on_data

    def move(self, sender: int) -> None:
        """Have a sender move its cursor."""
        moved = self._moved[sender]
        moved.append(time.perf_counter())
        self._senders[sender].move(sender * self._share + len(moved) - 1)

    def open(self, rate: float, cursor_rate: float) -> Callable[[], float]:
        """Have every sender do these at a rate, one after the other; what does what is due, and says when to be called again."""
        count = len(self._senders)
        plans = [(self.send, 1 / rate / count)]
        if cursor_rate:
            plans.append((self.move, 1 / cursor_rate / count))
        began = time.perf_counter()
        done = [0] * len(plans)

        def tick() -> float:
            following = began + 1e9
            for plan, (do, interval) in enumerate(plans):
                while (due := began + done[plan] * interval) <= (now := time.perf_counter()):
                    self._late.append(now - due)
                    do(done[plan] % count)
                    done[plan] += 1
                following = min(following, due)
            return following

        return tick

    def all_there(self) -> bool:
        """Whether everybody has got everything."""
        return not any(self._missing(client) for client in self._clients)

    def check(self, began: float, ended: float, cpu_s: float) -> Numbers:
        """Read what everybody got.

        Args:
            began, ended: Between these, time counts.
            cpu_s: What the server took from then on.

        Raises:
            Broken: Something is missing, or documents differ.
        """
        delays: list[float] = []
        measured = in_time = 0
        for client in self._clients:
            seen: set[int] = set()
            for number, at in client.arrivals():
                sender, update = divmod(number, self._share)
                if number in seen or self._senders[sender] is client:
                    continue
                seen.add(number)
                if at >= began:
                    measured += 1
                    if at < ended:
                        in_time += 1
                    if (sent_at := self._sent[sender][update]) >= began:
                        delays.append((at - sent_at) * 1000)
            if (expected := self._expected(client)) - seen:
                raise Broken(f"client {client.number} lacks {len(expected - seen)} of {len(expected)} updates")
        self._compare()
        delays.sort()
        numbers = {
            "cpu_us": cpu_s / measured * 1e6,
            "deliveries_per_s": in_time / (ended - began),
            "p50_ms": statistics.median(delays),
            "p99_ms": delays[int(len(delays) * 0.99)],
            "max_ms": delays[-1],
        }
        if self._late:
            # Of what was sent while time counted, how much had arrived by its end.
            numbers["kept_up"] = min(1.0, in_time / max(1, len(delays)))
            numbers["late_p99_ms"] = sorted(self._late)[int(len(self._late) * 0.99)] * 1000
        if any(self._moved):
            numbers |= self._cursors(began, ended) | {"core_in_all": cpu_s / (ended - began)}
        return numbers

    def _cursors(self, began: float, ended: float) -> Numbers:
        # Not every position has to arrive: the latest one is what counts.
        delays = []
        for client in self._clients:
            for number, at in client.arrivals(CURSOR):
                sender, move = divmod(number, self._share)
                if self._senders[sender] is client or move >= len(self._moved[sender]):
                    continue
                if began <= (moved_at := self._moved[sender][move]) < ended:
                    delays.append((at - moved_at) * 1000)
        delays.sort()
        return {
            "cursors_per_s": len(delays) / (ended - began),
            "cursors_p50_ms": statistics.median(delays),
            "cursors_p99_ms": delays[int(len(delays) * 0.99)],
        }

    def _expected(self, client: Client) -> set[int]:
        return {
            sender * self._share + update
            for sender, other in enumerate(self._senders)
            if other.room == client.room and other is not client
            for update in range(len(self._sent[sender]))
        }

    def _missing(self, client: Client) -> bool:
        # Cheap, while the server is still busy: whether the last update of each sender is there. `check` looks at all.
        for sender, other in enumerate(self._senders):
            if other.room == client.room and other is not client and self._sent[sender]:
                last = sender * self._share + len(self._sent[sender]) - 1
                if client.received.rfind(b"~k%08d" % last) < 0:
                    return True
        return False

    def _compare(self) -> None:
        """Build what each client has, from its own updates and those that it got: in a room all have to be the same."""
        for room, members in self._members.items():
            own = {client.number: sender for sender, client in enumerate(self._senders) if client.room == room}
            texts: dict[bytes, str] = {}
            shown: set[str] = set()
            for client in members:
                client.parsed = client.received.find(b"\r\n\r\n") + 4
                messages = list(client.messages())
                if client.number in own:
                    first = own[client.number] * self._share
                    sent = range(len(self._sent[own[client.number]]))
                    messages += [client.wire.update(first + n, client.yjs_id, n * 10) for n in sent]
                updates = [found[1] for message in messages if (found := client.wire.read(message))]
                key = b"".join(updates)
                if key not in texts:
                    doc: pycrdt.Doc[Any] = pycrdt.Doc()
                    for update in updates:
                        doc.apply_update(update)
                    texts[key] = str(doc.get("t", type=pycrdt.Text))
                shown.add(texts[key])
            if len(shown) != 1:
                raise Broken(f"there are {len(shown)} versions of room {room}")


class Idle:
    """Connections that do nothing: what each occupies, and each room.

    Args:
        title: What it is, in a few words.
        rooms: How many.
        clients: How many in each.
    """

    def __init__(self, title: str, *, rooms: int, clients: int) -> None:
        self.title = title
        self._rooms = rooms
        self._clients = clients

    def measure(self, server: Server, timing: Timing) -> Numbers:
        """Connect, wait, and look at the memory."""
        empty = server.memory_bytes()
        with Clients(server.port, server.kind.wire) as clients:
            one = self._settled(server, clients, 1)
            began, cpu = time.perf_counter(), server.cpu_s()
            clients.connect(self._rooms, self._clients - 1)
            took = time.perf_counter() - began
            connecting = server.cpu_s() - cpu
            full = self._settled(server, clients, 0)
            added = self._rooms * (self._clients - 1)
            each = (full - one) / added
            return {
                "kib_per_connection_all": (full - empty) / (self._rooms * self._clients) / 1024,
                "kib_per_connection": each / 1024,
                "kib_per_room": ((one - empty) / self._rooms - each) / 1024,
                "memory_mib": full / (1 << 20),
                "empty_mib": empty / (1 << 20),
                "connects_per_s": added / took,
                "connect_cpu_us": connecting / added * 1e6,
            }

    def _settled(self, server: Server, clients: Clients, more: int) -> int:
        if more:
            clients.connect(self._rooms, more)
        clients.run(time.perf_counter() + SETTLE_S, lambda client, data, now: client.greet())
        return server.memory_bytes()


class Storm:
    """Everybody comes at once, and comes back after the server was killed.

    Args:
        title: What it is, in a few words.
        rooms: How many.
        clients: How many in each.
    """

    def __init__(self, title: str, *, rooms: int, clients: int) -> None:
        self.title = title
        self._rooms = rooms
        self._clients = clients

    def measure(self, server: Server, timing: Timing) -> Numbers:
        """Connect, kill the server, and connect again. In each room is an update, which only a server with a store still has then."""
        count = self._rooms * self._clients
        with Clients(server.port, server.kind.wire) as clients:
            timing.at_begin(server)
            began, cpu = time.perf_counter(), server.cpu_s()
            clients.connect(self._rooms, self._clients)
            took, connecting = time.perf_counter() - began, server.cpu_s() - cpu
            for number, client in enumerate(clients.all[: self._rooms]):
                client.send(number)
            clients.run(time.perf_counter() + 2 * AFTER_S, lambda client, data, now: client.greet())
        up = server.restart()
        with Clients(server.port, server.kind.wire) as clients:
            began = time.perf_counter()
            clients.connect(self._rooms, self._clients)
            back = time.perf_counter() - began
        return {
            "connect_cpu_us": connecting / count * 1e6,
            "connects_per_s": count / took,
            "up_s": up,
            "back_s": back,
            "back_per_s": count / back,
        }


WORKS: dict[str, Work | Idle | Storm] = {
    "A": Work("fan-out: 1 sender, 100 receivers, window 8", rooms=1, clients=101, senders=1, window=8),
    "B": Work("small rooms: 100 × 4, 1 sender each, window 1", rooms=100, clients=4, senders=1, window=1),
    "C": Work("busy rooms: 10 × 20, all send 10/s", rooms=10, clients=20, senders=20, rate=10),
    "D": Idle("idle: 1,000 rooms × 4", rooms=1000, clients=4),
    "E": Storm("connect storm: 1,000 rooms × 4, and again after kill -9", rooms=1000, clients=4),
    "H": Work(
        "100 editors of a document, 1 update/s each, cursors 20/s",
        rooms=1,
        clients=100,
        senders=100,
        rate=1,
        cursor_rate=20,
    ),
}


def _nothing(client: Client, data: bytes, now: float) -> None:
    """Leave it for later."""
