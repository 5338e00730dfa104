"""Clients that edit, and others that see it.

The load is of one of two kinds. *Closed*: a client sends its next update as soon as the others have got an earlier one, so the server
does as much as it can. *Open*: clients send at a fixed rate, whatever the server does.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from .clients import Client, Clients
from .load import Load
from .measured import Numbers, Timing
from .servers import CLUSTER, Server, Setup

DRAIN_S = 60
# What a server puts off counts too: our journal is written every 0.2 s.
AFTER_S = 0.5


class Editing:
    """Clients edit, and the others see it.

    Args:
        title: What it is, in a few words.
        rooms: How many.
        clients: How many in each.
        senders: How many of these edit.
        every: Instead: each such client edits, counted room by room.
        window: How many updates of a sender may be on their way; None: it sends at its rate.
        rate: Updates per second and sender, where there is no window.
        cursor_rate: How often in a second it moves its cursor, where there is no window.
        renewal_s: How often every client says that it is still there, where there is no window; 0: never.
        nodes: Processes that share the rooms. A room's clients are at one after the other.
        tolerant: Whether connections that the server closes are counted, instead of failing.
    """

    def __init__(
        self,
        title: str,
        *,
        rooms: int,
        clients: int,
        senders: int = 0,
        every: int = 0,
        window: int | None = None,
        rate: float = 0,
        cursor_rate: float = 0,
        renewal_s: float = 0,
        nodes: int = 1,
        tolerant: bool = False,
    ) -> None:
        self.title = title
        self.setup = Setup(nodes=nodes, needs=CLUSTER if nodes > 1 else None, files=rooms * clients)
        self._rooms = rooms
        self._clients = clients
        self._senders = senders
        self._every = every
        self._window = window
        self._rate = rate
        self._cursor_rate = cursor_rate
        self._renewal_s = renewal_s
        self._tolerant = tolerant

    def measure(self, server: Server, timing: Timing) -> Numbers:
        """Do it.

        Raises:
            Broken: Something didn't arrive, or documents differ.
        """
        with Clients(server.ports, server.kind.wire, tolerant=self._tolerant) as clients:
            connecting = time.perf_counter()
            clients.connect(self._rooms, self._clients)
            connected = time.perf_counter()
            clients.run(connected + 0.5, _answer)
            joins = sorted(client.joined_s for client in clients.all)
            load = Load(clients.all, self._editors(clients.all))
            gc.collect()
            gc.freeze()
            gc.disable()  # its pauses would be the server's
            try:
                numbers = self._edit(server, clients, load, timing)
            finally:
                gc.enable()
                gc.unfreeze()
            numbers |= load.check(numbers.pop("began"), numbers.pop("ended"), numbers["server_cpu_s"])
            return numbers | {
                "connects_per_s": len(joins) / (connected - connecting),
                "join_p99_ms": joins[int(len(joins) * 0.99)] * 1000,
                "disconnects": sum(client.lost for client in clients.all),
            }

    def _editors(self, clients: list[Client]) -> list[Client]:
        if not self._every:
            return clients[: self._senders * self._rooms]
        # The first of each room connects first, then the second of each.
        order = [clients[place * self._rooms + room] for room in range(self._rooms) for place in range(self._clients)]
        return order[:: self._every]

    def _edit(self, server: Server, clients: Clients, load: Load, timing: Timing) -> Numbers:
        if self._window is not None:
            on_data, tick = load.closed(self._window), None
        else:
            # Who says regularly that it is there is there for long: it has to answer pings.
            on_data = _answer if self._renewal_s else _nothing
            tick = load.open(self._rate, self._cursor_rate, self._renewal_s)
        self._run(clients, on_data, tick, time.perf_counter() + timing.warm_up_s)
        timing.at_begin(server)
        began, cpu, own = time.perf_counter(), server.cpu_s(), time.process_time()
        each = [node.cpu_s() for node in server.nodes]
        self._run(clients, on_data, tick, began + timing.seconds)
        ended, busy, own_busy = time.perf_counter(), server.cpu_s(), time.process_time()
        each = [node.cpu_s() - was for node, was in zip(server.nodes, each, strict=True)]
        load.over = True
        deadline = ended + DRAIN_S
        clients.run(deadline, load.closed(0), stop=load.all_there)
        drained = time.perf_counter()
        if drained < deadline:
            clients.run(drained + AFTER_S, _nothing)
        by_node = {f"node_{n}_core": took / (ended - began) for n, took in enumerate(each, 1)}
        return by_node | {
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


def _nothing(client: Client, data: bytes, now: float) -> None:
    """Leave it for later."""


def _answer(client: Client, data: bytes, now: float) -> None:
    """Go on with the handshake; answer pings."""
    client.greet()
