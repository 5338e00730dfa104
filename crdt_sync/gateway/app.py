"""The ASGI application: routes, and what lives as long as it does."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from ..bus import open_bus
from ..journal import Journal
from ..rooms import Rooms
from ..settings import Settings
from ..stores import make_store, open_when_reachable
from .ops import Readiness, ready
from .sync import SyncEndpoint

log = logging.getLogger("crdt_sync.app")


def create_app(settings: Settings | None = None) -> Starlette:
    """Return the sync server as an ASGI application.

    It keeps documents while its lifespan runs: opens the store at startup, stores everything at shutdown.
    `app.state.unstored` names the rooms of which something could not be stored; empty after a good shutdown.

    Args:
        settings: Read from the environment if not given.

    Raises:
        InvalidSettings: The environment can't work.
    """
    chosen = settings or Settings.read()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        store = make_store(chosen)
        await open_when_reachable(store, chosen.database_start_timeout_s)
        bus = open_bus(chosen.redis_url, prefix=chosen.redis_prefix) if chosen.redis_url is not None else None
        if bus is not None:
            await bus.open()
            log.info("node_started", extra={"node": bus.node})
        journal = Journal(store, interval_s=chosen.journal_interval_s, bytes_max=chosen.unstored_bytes_max)
        rooms = Rooms(store, journal, chosen, bus)
        app.state.rooms = rooms
        app.state.readiness = Readiness(store, journal, bus)
        journaling = _start(journal.run(), "journal")
        looking_after = _start(rooms.run(), "rooms")
        try:
            yield
        finally:
            await _stop(looking_after)
            app.state.unstored = await rooms.close()
            # Before anything else that may take its time: whoever stops us may be about to lose patience.
            if app.state.unstored:
                log.critical("edits_not_stored", extra={"rooms": app.state.unstored})
            await _stop(journaling)
            if bus is not None:
                await bus.close()
            await store.close()

    app = Starlette(
        routes=[
            Route("/", _welcome),
            Route("/ready", ready),
            Route("/{path:path}", _needs_websocket),
            WebSocketRoute("/{path:path}", SyncEndpoint(chosen)),
        ],
        lifespan=lifespan,
    )
    app.state.unstored = []
    return app


async def _welcome(request: Request) -> PlainTextResponse:
    url = f"{'wss' if request.url.scheme == 'https' else 'ws'}://{request.url.netloc}"
    return PlainTextResponse(
        "This is crdt-sync, a y-websocket server for Yjs documents.\n\n"
        f'Connect with: new WebsocketProvider("{url}", "trip-1", doc)\n'
    )


async def _needs_websocket(request: Request) -> PlainTextResponse:
    if request.url.path.startswith("/api/"):
        return PlainTextResponse("There is no such thing.\n", status_code=404)
    return PlainTextResponse(
        "Rooms are reached by WebSocket: connect a y-websocket client.\n",
        status_code=426,
        headers={"upgrade": "websocket", "connection": "upgrade"},
    )


def _start(work: object, name: str) -> asyncio.Task[None]:
    task: asyncio.Task[None] = asyncio.create_task(work, name=name)  # type: ignore[arg-type]
    task.add_done_callback(_end_with)
    return task


def _end_with(task: asyncio.Task[None]) -> None:
    """A server whose journal or rooms have stopped by a bug must not go on as if it kept anything."""
    if not task.cancelled() and task.exception() is not None:
        log.critical("task_failed", extra={"task": task.get_name()}, exc_info=task.exception())
        signal.raise_signal(signal.SIGTERM)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
