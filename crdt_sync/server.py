"""A node under uvicorn: connections are accepted in our own way, and it ends in our own way.

Owns what signals and orders mean to the process of a node. Leaves the way out to `draining`, and that it comes to an end
to `ending`.
"""

import asyncio
import contextlib
import functools
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, cast

import uvicorn

from .accepting import accept_forever
from .document import Document
from .draining import Drain
from .ending import Ending
from .garbage import ShortCollections
from .gateway.parts import Parts
from .limits import Limits
from .settings import Settings
from .tls import Certificate
from .urgency import Urgency, urged
from .workers import Orders

log = logging.getLogger("crdt_sync.server")


def _warm_up() -> None:
    """Do now what would hold up the event loop later."""
    Document()  # in a running loop, the first one imports what it needs there


class Server(uvicorn.Server):
    """uvicorn, but for accepting connections, and for its end: a node goes away in its own way, and answers meanwhile.

    Args:
        config: uvicorn's; says how connections are served.
        state: The application's, where its lifespan puts its parts.
        listener: Listens.
        limits: This node's.
        certificate: What is shown, if TLS is spoken.
        welcome: Says that it serves; a worker's is said by who started it.
        orders: By which it hears that it should end, if signals aren't for it.
        aside: Entered before the store can be reached, and left when everything else has ended.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        state: Any,
        listener: socket.socket,
        limits: Limits,
        certificate: Certificate | None,
        welcome: "Callable[[], None] | None",
        orders: Orders | None,
        aside: contextlib.AbstractAsyncContextManager[None],
    ) -> None:
        super().__init__(config)
        self._state = state
        self._listener = listener
        self._limits = limits
        self._certificate = certificate
        self._welcome = welcome
        self._orders = orders
        self._aside = aside
        self._accepting: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._collections = ShortCollections(lambda: limits.connections, lambda: limits.gone)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._urgency = Urgency.NONE
        settings: Settings = limits.settings
        self._ending = Ending(settings.drain_deadline_s, self.report)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        async with self._aside:
            await super().serve(sockets=sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._orders is not None:
            self._orders.follow(self._hurry)
        await super().startup(sockets=sockets)
        if self.started:
            _warm_up()
            self._collections.begin()
            self._loop = asyncio.get_running_loop()
            self._drain.began = self._ending.arm
            if self._orders is not None:
                self._drain.tell_others = self._orders.end_all
            make = functools.partial(
                cast(Callable[..., Any], self.config.http_protocol_class),
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )
            self._accepting = asyncio.create_task(accept_forever(self._listener, make, self._limits, self._certificate))
            self._accepting.add_done_callback(self._end_with)
            if self._certificate is not None:
                self._renewing = asyncio.create_task(self._certificate.keep_fresh())
            if self._welcome is not None:
                self._welcome()
            else:
                log.info("worker_serving")

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._drain.finished.is_set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ending.arm()
        # Or a connection that has come in this turn of the loop is accepted for a task that is cancelled, and lost with an error.
        asyncio.get_running_loop().remove_reader(self._listener)
        for task in (self._accepting, self._renewing):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        self._listener.close()
        self._collections.end()
        await super().shutdown(sockets=sockets)

    @property
    def _drain(self) -> Drain:
        parts: Parts = self._state.parts
        return parts.drain

    def _end_with(self, accepting: asyncio.Task[None]) -> None:
        """A server that has stopped accepting by a bug must not go on as if it were there."""
        if not accepting.cancelled() and accepting.exception() is not None:
            log.critical("accepting_failed", exc_info=accepting.exception())
            self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn gives them back and raises them again when it is done. A server that was asked to stop and did has exit code
        # 0, and until the process is gone, one more signal means the same as before.
        for number in (signal.SIGTERM,) if self._orders is not None else (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # A worker hears by its orders how often somebody has asked.
        self._hurry(urged(self._urgency, sig) if self._orders is None else Urgency.DRAIN)

    def _hurry(self, urgency: Urgency) -> None:
        """Go away. Called from signal handlers, and from other threads."""
        self._urgency = max(self._urgency, urgency)
        self._ending.arm()
        if urgency is Urgency.END:
            self._ending.now("asked for")
        if self._loop is None:
            self.should_exit = True
            return
        with contextlib.suppress(RuntimeError):  # it is closed: the process is about to end
            self._loop.call_soon_threadsafe(self._drain.ask, urgency)

    def report(self) -> bool:
        """Say what isn't stored, from any thread; returns whether everything is."""
        parts: Parts | None = getattr(self._state, "parts", None)
        if parts is None:
            return True
        unsaved = parts.rooms.unsaved()
        parts.drain.report(unsaved)
        return not unsaved
