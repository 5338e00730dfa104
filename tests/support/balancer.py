"""One address for several nodes, as a load balancer gives it to clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from .proxy import Proxy
from .services import HOST


class Balancer(Proxy):
    """Passes each new connection on to the first node that takes connections. Use as an async context manager."""

    def __init__(self, ports: Sequence[int]) -> None:
        """Prepare, start nothing.

        Args:
            ports: Where the nodes listen, the preferred one first. May be changed later.
        """
        super().__init__(ports[0])
        self.ports = list(ports)

    @property
    def address(self) -> str:
        """Where WebSocket clients find it."""
        return f"ws://{HOST}:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server_port = next((port for port in self.ports if _accepts(port)), self.ports[0])
        await super()._serve(reader, writer)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
