"""The ASGI application: routes, and what lives as long as it does."""

import asyncio
import inspect
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import State
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from auth import TokenVerifier
from persistence import Store

from .. import tracing
from ..archiving import Archiving, make_archive
from ..blackbox import BlackBox, NoBlackBox
from ..bus import open_bus
from ..draining import Drain
from ..errors import NotRunning
from ..going_back import GoingBack
from ..hooks import FINISH_S, Hook, OnStored
from ..journal import Journal
from ..keys import configured_verifier
from ..limits import Limits
from ..load import Load
from ..logs import hide_queries
from ..metrics import ErrorCounter, Metrics
from ..revocations import Revocations
from ..rooms import Rooms
from ..sessions import Sessions
from ..settings import InvalidSettings, Settings
from ..stores import make_store, open_when_reachable
from .access import Access, allowed_origins
from .admin_page import AdminPage
from .live_rooms import NOT_RUNNING, LiveRooms
from .ops import Readiness
from .parts import Parts
from .probes import Probes
from .routing import ApiEndpoint
from .sync import SyncEndpoint

log = logging.getLogger("crdt_sync.app")

# All, so that an unknown one is answered by a problem too.
API_METHODS = ["GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"]


class SyncApp(Starlette):
    """The sync server as an ASGI application, to be run by itself or mounted in another. Made by `create_app`."""

    rooms: LiveRooms
    """Its rooms, to be read and edited by the code around it, while the lifespan is under way."""

    _run: Callable[[Starlette], AbstractAsyncContextManager[None]]

    def lifespan(self, app: object = None) -> AbstractAsyncContextManager[None]:
        """What keeps documents: opens the store when it is entered, stores everything when it is left.

        Frameworks run the lifespan of the application that the server is given, and of no other. So give it to that one,
        `FastAPI(lifespan=sync.lifespan)`, or enter it in its own.

        Args:
            app: The one that this is mounted in. Not needed.

        Raises:
            RuntimeError: When it is entered: it runs already.
            StoreError: Likewise: the database can't be used.
        """
        return self._run(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and not self.rooms.is_open:
            raise NotRunning(NOT_RUNNING)
        await super().__call__(scope, receive, send)


def create_app(
    settings: Settings | None = None,
    *,
    token_verifier: TokenVerifier | None = None,
    on_stored: OnStored | None = None,
) -> SyncApp:
    """Return the sync server as an ASGI application.

    It keeps documents while its lifespan runs: opens the store at startup, stores everything at shutdown.
    `app.state.unstored` names the rooms of which something could not be stored; empty after a good shutdown.

    Args:
        settings: Read from the environment if not given.
        token_verifier: Turns credentials into grants, in the place of keys in the settings.
        on_stored: Called with what was stored, some time after it was; see `hooks`.

    Raises:
        InvalidSettings: The environment can't work, what it takes isn't installed, or there are keys beside a verifier.
        TypeError: A hook that isn't async.
    """
    if on_stored is not None and not _is_async(on_stored):
        raise TypeError(f"on_stored is an async function, not {on_stored!r:.100}")
    chosen = settings or Settings.read()
    verifier = configured_verifier(chosen)
    if verifier is not None and token_verifier is not None:
        raise InvalidSettings("there is a token_verifier, so no keys are wanted: unset CRDT_SYNC_JWT_*")
    limits = Limits(chosen)
    admin_page = AdminPage()
    tracer = _make_tracer(chosen)
    live_rooms = LiveRooms(chosen)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if live_rooms.is_open:
            raise RuntimeError("the lifespan of this application runs already: enter it in one place")
        hide_queries()
        store = make_store(chosen)
        archiving = Archiving(store, make_archive(chosen))
        await open_when_reachable(store, chosen.database_start_timeout_s)
        bus = open_bus(chosen.redis_url, prefix=chosen.redis_prefix) if chosen.redis_url is not None else None
        if bus is not None:
            await bus.open()
            log.info("node_started", extra={"node": bus.node})
        if tracer is not None:
            tracer.open(bus.node if bus is not None else None)
        metrics = Metrics()
        hook = Hook(on_stored) if on_stored is not None else None
        journal = Journal(
            store,
            interval_s=chosen.journal_interval_s,
            bytes_max=chosen.unstored_bytes_max,
            metrics=metrics,
            traced=tracer is not None,
            committed=hook.committed if hook is not None else None,
        )
        load = Load(chosen, limits, metrics)
        box = _make_box(chosen, store)
        rooms = Rooms(store, journal, chosen, bus, box, load, archiving, metrics, tracer)
        drain = Drain(chosen)
        revocations = Revocations(store, rooms.nodes, leeway_s=chosen.jwt_leeway_s)
        await revocations.open()
        if verifier is not None:
            await verifier.open()
        app.state.parts = parts = Parts(
            store=store,
            archiving=archiving,
            bus=bus,
            journal=journal,
            rooms=rooms,
            access=Access(token_verifier or verifier, chosen, revocations),
            sessions=Sessions(revocations),
            revocations=revocations,
            readiness=Readiness(store, journal, bus, load),
            drain=drain,
            limits=limits,
            load=load,
            metrics=metrics,
            going_back=GoingBack(rooms),
            tracer=tracer,
        )
        journaling = _start(journal.run(), "journal")
        counting = ErrorCounter(metrics)
        counting.attach()
        looking_after = [
            _start(rooms.run(), "rooms"),
            _start(revocations.run(), "revocations"),
            _start(load.run(), "load"),
            _start(drain.run(parts.sessions, rooms, parts.readiness), "drain"),
        ]
        live_rooms.open(rooms)
        try:
            yield
        finally:
            if hook is not None:
                # What it is told is stored by then, and it may still read and edit.
                with suppress(TimeoutError):
                    async with asyncio.timeout(FINISH_S):
                        await journal.flush()
                await hook.finish()
            await live_rooms.close()
            for task in looking_after:
                await _stop(task)
            if verifier is not None:
                await verifier.close()
            unsaved = await rooms.close(drain.left_s())
            app.state.unstored = [one.room for one in unsaved]
            # Before anything else that may take its time: whoever stops us may be about to lose patience.
            drain.report(unsaved)
            await _stop(journaling)
            parts.elsewhere.close()
            if bus is not None:
                await bus.close()
            await store.close()
            await archiving.close()
            counting.detach()
            if box is not None:
                box.close()
            if tracer is not None:
                await tracer.close()

    state = State()
    probes = Probes(chosen, state)
    app = SyncApp(
        routes=[
            Route("/", _welcome),
            *probes.routes_beside_rooms(),
            Route("/api/{path:path}", ApiEndpoint(chosen).answer, methods=API_METHODS, middleware=[_cors(chosen)]),
            Route("/admin", admin_page.answer),
            Route("/admin/{name:path}", admin_page.answer),
            Route("/{path:path}", _needs_websocket),
            WebSocketRoute("/{path:path}", SyncEndpoint(chosen)),
        ],
        lifespan=lifespan,
    )
    app.rooms = live_rooms
    app._run = lifespan
    app.state = state
    app.state.probes = probes
    app.state.unstored = []
    app.state.limits = limits
    return app


def _cors(settings: Settings) -> Middleware:
    """Lets pages of the allowed sites use the API, as they may connect by WebSocket."""
    origins = allowed_origins(settings)
    return Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST", "PATCH", "DELETE"],
        allow_headers=["Authorization", "Content-Type"],
        expose_headers=["Retry-After", "WWW-Authenticate"],
        # Cookies are for sites that somebody has named.
        allow_credentials="*" not in origins,
    )


async def _welcome(request: Request) -> PlainTextResponse:
    root = request.scope.get("root_path", "")
    url = f"{'wss' if request.url.scheme == 'https' else 'ws'}://{request.url.netloc}{root}"
    return PlainTextResponse(
        "This is crdt-sync, a y-websocket server for Yjs documents.\n\n"
        f'Connect with: new WebsocketProvider("{url}", "trip-1", doc)\n'
    )


async def _needs_websocket(request: Request) -> PlainTextResponse:
    return PlainTextResponse(
        "Rooms are reached by WebSocket: connect a y-websocket client.\n",
        status_code=426,
        headers={"upgrade": "websocket", "connection": "upgrade"},
    )


def _is_async(function: OnStored) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _make_tracer(settings: Settings) -> tracing.Tracer | None:
    if settings.trace_url is None:
        return None
    try:
        return tracing.open_tracer(settings.trace_url, sample=settings.trace_sample)
    except tracing.NoTracing as error:
        raise InvalidSettings(str(error)) from error


def _make_box(settings: Settings, store: Store) -> BlackBox | None:
    # A file's path may be relative to where the server runs.
    key = store.describe() if store.shared else f"{store.describe()} {Path.cwd()}"
    try:
        return BlackBox(key, folder=settings.black_box_folder)
    except NoBlackBox as error:
        log.warning("black_box_missing", extra={"error": str(error)})
        return None


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
