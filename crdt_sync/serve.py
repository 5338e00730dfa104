"""Run one node under uvicorn."""

import asyncio
import contextlib
import functools
import gc
import ipaddress
import logging
import os
import resource
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import cast

import uvicorn

from persistence import Store, StoreError

from . import logs, tracing
from .accepting import BACKLOG, HEAD_BYTES_MAX, KEEP_ALIVE_S, Entrance, http_protocol
from .archiving import make_archive
from .bus import InvalidBusUrl, open_bus
from .commands import CommandFailed
from .gateway.app import create_app
from .gateway.probes import Probes
from .keys import configured_verifier
from .limits import Capacity, Limits
from .ops_port import ops_port
from .server import Server
from .settings import Settings
from .siblings import Siblings
from .stores import make_store, open_when_reachable
from .tls import Certificate, InvalidCertificate
from .transport import WebSocketProtocol
from .workers import Orders, Workers

log = logging.getLogger("crdt_sync.serve")


class CannotServe(CommandFailed):
    """The server can't start. The text says why and what to do."""


def serve(settings: Settings) -> bool:
    """Serve until a signal ends it.

    Returns:
        Whether everything that was accepted is stored.

    Raises:
        CannotServe: The port, the certificate or the store can't be used, or several processes can't share what is configured.
    """
    # A panic in native code would otherwise spend up to 100 ms on a backtrace that nobody reads.
    os.environ.setdefault("RUST_BACKTRACE", "0")
    _configure_logs(settings)
    guarded = _check_guarded(settings)
    _certificate(settings)
    stored = asyncio.run(_check_store(settings))
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(settings.host, settings.port))
        ops = None
        if settings.ops_port is not None:
            ops = stack.enter_context(_listen(settings.ops_host, settings.ops_port, "CRDT_SYNC_OPS_PORT"))
            log.info("ops_port", extra={"host": settings.ops_host, "port": ops.getsockname()[1]})
        welcome = Welcome(settings, listener.getsockname()[1], stored, guarded)
        if settings.workers == 1:
            return run_node(settings, listener, welcome, ops=ops)
        welcome.say()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crdt-sync-")))
        arguments = (settings, listener, ops, folder)
        return Workers(settings.workers, run_worker, arguments, deadline_s=settings.drain_deadline_s).run()


def run_worker(
    settings: Settings, listener: socket.socket, ops: socket.socket | None, folder: Path, orders: Orders
) -> bool:
    """Be one of several processes on a port.

    Args:
        settings: Theirs.
        listener: Listens.
        ops: Listens for who looks after the server, if that has a port of its own.
        folder: Where they meet.
        orders: Say when to end.
    """
    os.environ.setdefault("RUST_BACKTRACE", "0")
    _configure_logs(settings)
    return run_node(settings, listener, ops=ops, siblings=Siblings(folder, settings.workers), orders=orders)


def _configure_logs(settings: Settings) -> None:
    logs.configure(settings.log_level, settings.log_format, lines_per_s_max=settings.log_lines_per_s_max)


def run_node(
    settings: Settings,
    listener: socket.socket,
    welcome: "Welcome | None" = None,
    *,
    ops: socket.socket | None = None,
    siblings: Siblings | None = None,
    orders: Orders | None = None,
) -> bool:
    """Run one node on a socket that listens, until a signal or its orders end it; returns whether everything is stored."""
    app = create_app(settings)
    app.state.siblings = siblings
    limits: Limits = app.state.limits
    limits.capacity = _capacity(settings)
    # Every option that matters is spelled out, so that an upgrade of uvicorn can't change it.
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        # Where uvicorn wants a class it makes protocols, so what makes them will do.
        ws=cast(type[asyncio.Protocol], functools.partial(WebSocketProtocol, limits=limits)),
        ws_max_size=settings.message_bytes_max,
        ws_per_message_deflate=False,
        ws_ping_interval=settings.ping_interval_s,
        ws_ping_timeout=settings.ping_timeout_s,
        timeout_keep_alive=KEEP_ALIVE_S,
        # By then, all WebSockets are closed: this is for requests that are being answered.
        timeout_graceful_shutdown=1,
        loop="auto",
        http=http_protocol(Entrance(limits)),
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        # Who a client is, is decided by `client_address`. uvicorn would take the word of everyone on this machine.
        proxy_headers=False,
    )
    gc.collect()
    aside = _aside(app.state.probes, ops, siblings)
    server = Server(
        config,
        app.state,
        listener,
        limits,
        _certificate(settings),
        welcome.say if welcome is not None else None,
        orders,
        aside,
    )
    server.run(sockets=[])
    return server.report()


@contextlib.asynccontextmanager
async def _aside(probes: Probes, ops: socket.socket | None, siblings: Siblings | None) -> AsyncIterator[None]:
    """Answer who looks after the server, and siblings, inside the `with` block."""
    async with contextlib.AsyncExitStack() as stack:
        if siblings is not None:
            await stack.enter_async_context(siblings.listening(probes.tell))
        if ops is not None:
            await stack.enter_async_context(ops_port(probes, ops))
        yield


def _certificate(settings: Settings) -> Certificate | None:
    if settings.ssl_certfile is None:
        return None
    try:
        return Certificate(settings.ssl_certfile, settings.ssl_keyfile)
    except InvalidCertificate as error:
        raise CannotServe(f"CRDT_SYNC_SSL_CERTFILE: {error}") from error


def _check_guarded(settings: Settings) -> bool:
    """Whether tokens are asked for. A server that asks nobody is for this machine."""
    if configured_verifier(settings) is not None:
        return True
    if not settings.insecure_open and not _is_loopback(settings.host):
        raise CannotServe(
            f"Everybody who can reach {settings.host} could read and write every room, since no keys are configured. "
            "Set CRDT_SYNC_JWT_SECRET (docs/how-to/authenticate.md), or start with --insecure-open if that is what you want."
        )
    return False


def _capacity(settings: Settings) -> Capacity:
    """Allow this process as many open files as it may have, and see how many clients that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        # Some systems allow less than they say.
        hard = soft
    capacity = Capacity.within(settings, hard if hard != resource.RLIM_INFINITY else sys.maxsize)
    log.info(
        "capacity",
        extra={"connections": capacity.connections, "upgrades": capacity.upgrades, "open_files": hard, "were": soft},
    )
    return capacity


async def _check_store(settings: Settings) -> str:
    """Open and close the store, so that what is wrong with it is told in a sentence. Returns its description."""
    try:
        if settings.trace_url is not None:
            tracing.open_tracer(settings.trace_url, sample=settings.trace_sample)
        if settings.redis_url is not None:
            open_bus(settings.redis_url, prefix=settings.redis_prefix)
        archive = make_archive(settings)
        if archive is not None:
            archive.close()
        store = make_store(settings)
        if settings.workers > 1:
            _check_shared(settings, store)
        await open_when_reachable(store, settings.database_start_timeout_s)
        await store.close()
    except (StoreError, InvalidBusUrl, tracing.NoTracing) as error:
        raise CannotServe(str(error)) from error
    return store.describe()


def _check_shared(settings: Settings, store: Store) -> None:
    why = None
    if settings.redis_url is None:
        why = "they would not hear of each other's edits: set CRDT_SYNC_REDIS_URL"
    elif not store.shared:
        why = f"only one process can use the {store.describe()}: set CRDT_SYNC_DATABASE_URL to a postgresql:// URL"
    if why is not None:
        raise CannotServe(f"{settings.workers} workers can't serve one port, since {why}.")


def _listen(host: str, port: int, setting: str | None = None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # Every connection inherits it. asyncio sees to it only where a socket names its protocol, which this one doesn't;
        # with Nagle's algorithm, the second of two small frames waits for up to 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise CannotServe(
            f"Can't listen on {host} port {port}: {os.strerror(error.errno or 0)}. "
            + (
                f"Choose another with {setting}."
                if setting
                else "Choose another with --host and --port (--port 0 takes a free one)."
            )
        ) from error


class Welcome:
    """What is said when a server is up: what it serves, where, to whom.

    Args:
        settings: The server's.
        port: That it listens on.
        stored: Where it keeps documents.
        guarded: Whether tokens are asked for.
    """

    def __init__(self, settings: Settings, port: int, stored: str, guarded: bool) -> None:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self._settings = settings
        self._url = f"{'ws' if settings.ssl_certfile is None else 'wss'}://{host}:{port}"
        self._stored = stored
        self._guarded = guarded
        if guarded:
            self._who = "whoever shows a token, as far as it grants (crdt-sync token makes one)"
        else:
            who = "ANYONE WHO CAN REACH THIS ADDRESS" if settings.insecure_open else "anyone on this machine"
            self._who = f"{who}, to read and write every room, without a token"

    def say(self) -> None:
        """To people as a banner, to machines as one line of the log."""
        if logs.for_people(self._settings.log_format):
            print(self._banner(), file=sys.stderr, flush=True)
            return
        fields = {"url": self._url, "storing_in": self._stored, "open_to": self._who}
        about = {"version": version("crdt-sync"), "workers": self._settings.workers}
        log.info("serving", extra={**fields, **about})

    def _banner(self) -> str:
        workers = self._settings.workers
        shared = f"\n  processes      {workers}, which meet in Redis" if workers > 1 else ""
        options = ", { params: { token } }" if self._guarded else ""
        return f"""
  crdt-sync {version("crdt-sync")}

  listening on   {self._url}
  storing in     {self._stored}{shared}
  open to        {self._who}

  Try it:        new WebsocketProvider("{self._url}", "trip-1", doc{options})
  Stop it:       Ctrl-C, which stores everything first
"""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
