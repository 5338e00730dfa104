"""Clients that connect: what that costs, and what they occupy when they do nothing."""

from __future__ import annotations

import time

from .clients import Clients
from .measured import Numbers, Timing
from .servers import Server, Setup

SETTLE_S = 5
STORE_S = 1


class Idle:
    """Connections that do nothing: what each occupies, and each room.

    Args:
        title: What it is, in a few words.
        rooms: How many.
        clients: How many in each.
    """

    def __init__(self, title: str, *, rooms: int, clients: int) -> None:
        self.title = title
        self.setup = Setup(files=rooms * clients)
        self._rooms = rooms
        self._clients = clients

    def measure(self, server: Server, timing: Timing) -> Numbers:
        """Connect, wait, and look at the memory."""
        empty = server.memory_bytes()
        with Clients(server.ports, server.kind.wire) as clients:
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
        self.setup = Setup(files=rooms * clients)
        self._rooms = rooms
        self._clients = clients

    def measure(self, server: Server, timing: Timing) -> Numbers:
        """Connect, kill the server, and connect again. In each room is an update, which only a server with a store still has then."""
        count = self._rooms * self._clients
        with Clients(server.ports, server.kind.wire) as clients:
            timing.at_begin(server)
            began, cpu = time.perf_counter(), server.cpu_s()
            clients.connect(self._rooms, self._clients)
            took, connecting = time.perf_counter() - began, server.cpu_s() - cpu
            for number, client in enumerate(clients.all[: self._rooms]):
                client.send(number)
            clients.run(time.perf_counter() + STORE_S, lambda client, data, now: client.greet())
        server.kill()
        up = server.start()
        with Clients(server.ports, server.kind.wire) as clients:
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
