"""Run one node under uvicorn."""

import asyncio
import contextlib
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import version

import uvicorn

from persistence import StoreError

from . import logs
from .gateway.app import create_app
from .settings import Settings
from .stores import make_store, open_when_reachable
from .transport import WebSocketProtocol


class CannotServe(Exception):
    """The server can't start. The text says why and what to do."""


def serve(settings: Settings) -> bool:
    """Serve until a signal ends it.

    Returns:
        Whether everything that was accepted is stored.

    Raises:
        CannotServe: The port or the store can't be used.
    """
    # A panic in native code would otherwise spend up to 100 ms on a backtrace that nobody reads.
    os.environ.setdefault("RUST_BACKTRACE", "0")
    logs.configure(settings.log_level)
    stored = asyncio.run(_check_store(settings))
    app = create_app(settings)
    # Every option that matters is spelled out, so that an upgrade of uvicorn can't change it.
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        ws=WebSocketProtocol,
        ws_max_size=settings.message_bytes_max,
        ws_per_message_deflate=False,
        ws_ping_interval=settings.ping_interval_s,
        ws_ping_timeout=settings.ping_timeout_s,
        timeout_graceful_shutdown=3,
        loop="auto",
        http="h11",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
    )
    with _listen(settings) as listener:
        port = listener.getsockname()[1]
        _Server(config, _banner(settings, port, stored)).run(sockets=[listener])
    return not app.state.unstored


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, banner: str) -> None:
        super().__init__(config)
        self._banner = banner

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            print(self._banner, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises the signal again when it is done; a server that was asked to stop and did has exit code 0.
        with contextlib.suppress(KeyboardInterrupt), super().capture_signals():
            yield
            self._captured_signals.clear()


async def _check_store(settings: Settings) -> str:
    """Open and close the store, so that what is wrong with it is told in a sentence. Returns its description."""
    try:
        store = make_store(settings)
        await open_when_reachable(store, settings.database_start_timeout_s)
        await store.close()
    except StoreError as error:
        raise CannotServe(str(error)) from error
    return store.describe()


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise CannotServe(
            f"Can't listen on {settings.host} port {settings.port}: {os.strerror(error.errno or 0)}. "
            "Choose another with --host and --port (--port 0 takes a free one)."
        ) from error


def _banner(settings: Settings, port: int, stored: str) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"ws://{host}:{port}"
    who = "anyone on this machine" if _is_loopback(settings.host) else "ANYONE WHO CAN REACH THIS ADDRESS"
    return f"""
  crdt-sync {version("crdt-sync")}

  listening on   {url}
  storing in     {stored}
  open to        {who}, to read and write every room, without a token

  Try it:        new WebsocketProvider("{url}", "trip-1", doc)
  Stop it:       Ctrl-C, which stores everything first
"""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
