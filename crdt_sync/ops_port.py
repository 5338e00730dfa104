"""A port for those who look after the server: `/health`, `/ready` and `/metrics`, and nothing else.

It is there before the store can be reached, and until the process ends. Nothing is asked of whoever connects, so it
listens on loopback unless configured otherwise.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from .accepting import HEAD_BYTES_MAX, KEEP_ALIVE_S
from .gateway.probes import Probes


@contextlib.asynccontextmanager
async def ops_port(probes: Probes, listener: socket.socket) -> AsyncIterator[None]:
    """Answer on a socket that listens, inside the `with` block."""
    config = uvicorn.Config(
        probes.application(),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
    )
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: H11Protocol(config=config, server_state=state, app_state={}), sock=listener
    )
    try:
        yield
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
