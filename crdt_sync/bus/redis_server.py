"""One Redis server of the bus, and the rooms that are at home there.

Every task here reads and writes a connection of its own, and throws it away when anything goes wrong, its own
cancellation included. Callers wait for futures, never for Redis: one that gives up leaves nothing half-read behind.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable

from .redis_asker import Asker
from .redis_link import Link, LinkLost
from .redis_sender import Sender
from .redis_state import Lane, Shared
from .redis_subscriber import Subscriber

log = logging.getLogger("crdt_sync.bus")

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 2.0


class Server:
    """Three connections: for sending, for listening, and for questions."""

    def __init__(
        self, shared: Shared, connect: Callable[[], Awaitable[Link]], *, sharded: bool, probe_role: bool
    ) -> None:
        """Prepare, start nothing.

        Args:
            shared: What they share.
            connect: Opens one.
            sharded: Whether to use sharded pub/sub.
            probe_role: Whether to make sure that the server is a master.
        """
        self.shared = shared
        self.subscriber = Subscriber(shared, sharded=sharded)
        self.sender = Sender(shared, probe_role=probe_role, on_ping=self.subscriber.expect)
        self.asker = Asker(shared, connect)
        shared.lanes[:] = self.sender, self.subscriber
        self._connect = connect
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Start connecting."""
        for lane in self.shared.lanes:
            self.shared.health.expect(lane)
            self._tasks.append(asyncio.create_task(self._keep_up(lane)))
        self._tasks.append(asyncio.create_task(self.asker.run()))

    async def close(self, *, drain_s: float = 0) -> None:
        """Send what waits, for a moment, and end all connections."""
        if drain_s and self._tasks:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_s):
                    await self.sender.drained()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self.subscriber.fail_waiters("the connection is closed")
        for lane in self.shared.lanes:
            self.shared.health.forget(lane)

    async def _keep_up(self, lane: Lane) -> None:
        """Keep one connection up, for good."""
        delay_s = BACKOFF_FIRST_S
        while True:
            link: Link | None = None
            try:
                link = await self._connect()
                await lane.greet(link)
                delay_s = BACKOFF_FIRST_S
                await lane.serve(link)
            except LinkLost as error:
                lane.lose(str(error))
            except Exception as error:
                # Whatever it is, a new connection is the only remedy that there is.
                log.exception("bus_failed")
                lane.lose(repr(error))
            finally:
                if link is not None:
                    await link.close()
            self.shared.look_again()
            # Jitter: the clients of a server that restarts shouldn't come back all at once.
            await asyncio.sleep(delay_s * random.uniform(0.5, 1))
            delay_s = min(2 * delay_s, BACKOFF_MAX_S)
