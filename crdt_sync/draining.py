"""How a node goes away without losing anything: noticed, in turns, and in time.

Owns the order: say that no more traffic is wanted, wait for that to be noticed, let nobody in, send clients away in
waves, store everything. Leaves who asks for it to `serve` and the API, and the process and its end to `serve`.

Stock clients come back 100 ms after they were closed, all of them, without jitter. So it is the closing that is spread:
as it goes, so they arrive where they go to.
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from . import errors
from .rooms import Rooms, Unsaved
from .sessions import Sessions, Stay
from .settings import Settings
from .urgency import Urgency

log = logging.getLogger("crdt_sync.draining")

# Where they are fewer, clients are closed in less time than they may take.
CLOSES_PER_S = 100
# How long closed clients may take to go before what they wrote is stored without waiting for them.
GOING_S = 1.0
# What is left of the deadline for taking leave of the bus and the store: at most this, and a quarter of it.
LEAVE_S = 5.0
# So many rooms are told of one by one.
ROOMS_MAX = 1000


class HasDraining(Protocol):
    """What answers whether this node should get traffic."""

    draining: bool


class Drain:
    """One node's way out.

    Args:
        settings: How long it may take.
    """

    def __init__(self, settings: Settings) -> None:
        self.urgency = Urgency.NONE
        self.finished = asyncio.Event()
        """Set when all clients are gone, and all that could be stored is: the process may end."""
        self.began: Callable[[], None] = _nothing
        """Called when it begins."""
        self.tell_others: Callable[[], None] = _nothing
        """Called when a client of the API asks for it: there may be other processes that are meant too."""
        # How many were in each room when it began. They have what they wrote, and send it again to whichever node they come to.
        self._clients: Counter[str] = Counter()
        self._reported = False
        self._settings = settings
        self._ends_at: float | None = None
        self._asked = asyncio.Event()
        self._hastened = asyncio.Event()

    def ask(self, urgency: Urgency) -> None:
        """Begin, or hasten, as far as that hasn't been asked for already."""
        if urgency <= self.urgency:
            return
        if self.urgency is Urgency.NONE:
            self._ends_at = asyncio.get_running_loop().time() + self._settings.drain_deadline_s
            self.began()
        self.urgency = urgency
        self._asked.set()
        if urgency >= Urgency.HASTEN:
            self._hastened.set()

    def ends_in_s(self) -> float:
        """How long it is until the deadline."""
        if self._ends_at is None:
            return self._settings.drain_deadline_s
        return max(0.0, self._ends_at - asyncio.get_running_loop().time())

    def left_s(self) -> float:
        """How long storing may take, so that the leave is in time, too."""
        return max(0.0, self.ends_in_s() - min(LEAVE_S, self._settings.drain_deadline_s / 4))

    async def run(self, sessions: Sessions, rooms: Rooms, readiness: HasDraining) -> None:
        """Go away as soon as that is asked for.

        Args:
            sessions: Who is connected.
            rooms: Where what they write is.
            readiness: Is told at once.
        """
        await self._asked.wait()
        readiness.draining = True
        self._clients = Counter(stay.room.name for stay in sessions)
        log.info("draining", extra={"connections": len(sessions), "rooms": len(rooms), "urgency": self.urgency.name})
        try:
            async with asyncio.timeout(self.left_s()):
                await self._pause(self._settings.drain_notice_s)
                rooms.drain()
                await self._send_away(sessions)
                log.info("clients_gone", extra={"left": len(sessions)})
                stored = False
                while not stored:
                    # More may have come: a large update that was being taken in, or from a node that went away too.
                    stored = await rooms.flush()
        except TimeoutError:
            pass
        finally:
            rooms.drain()
            log.info("drained", extra={"rooms_not_stored": len(rooms.unsaved())})
            self.finished.set()

    def report(self, unsaved: Sequence[Unsaved]) -> None:
        """Say, once, what is lost unless somebody else has it, and who that is.

        Args:
            unsaved: What isn't stored.
        """
        if not unsaved or self._reported:
            return
        self._reported = True
        updates, size = sum(one.updates for one in unsaved), sum(one.size for one in unsaved)
        log.critical("edits_not_stored", extra={"rooms": len(unsaved), "updates": updates, "bytes": size})
        for one in unsaved[:ROOMS_MAX]:
            fields = {
                "room": one.room,
                "updates": one.updates,
                "bytes": one.size,
                "in_redis": one.published,
                "had_clients": self._clients[one.room],
            }
            log.critical("room_not_stored", extra=fields)

    async def _send_away(self, sessions: Sessions) -> None:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        stays = list(sessions)
        random.shuffle(stays)
        for stay, after_s in zip(stays, waves(len(stays), self._settings.drain_spread_s, random.random), strict=True):
            await self._pause(began_at + after_s - loop.time())
            _close(stay)
        gone_by = loop.time() + GOING_S
        while len(sessions) and loop.time() < gone_by:
            for stay in sessions:
                # Who was being let in.
                _close(stay)
            await asyncio.sleep(0.02)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless there is a hurry."""
        if seconds <= 0 or self._hastened.is_set():
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hastened.wait()


def waves(count: int, spread_s: float, chance: Callable[[], float]) -> list[float]:
    """When to close each of so many clients, in seconds from now, ascending: evenly, but for some chance.

    Args:
        count: How many.
        spread_s: How long it may take in all. Few clients take less.
        chance: Gives numbers from 0 to 1.
    """
    spread_s = min(spread_s, count / CLOSES_PER_S)
    return [(number + chance()) / count * spread_s for number in range(count)]


def _close(stay: Stay) -> None:
    stay.connection.close(errors.Draining.close_code, errors.Draining.reason)


def _nothing() -> None:
    """Nobody wants to know."""
