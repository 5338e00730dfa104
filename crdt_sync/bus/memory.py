"""A bus within one process: for tests. Nodes that share a `Hub` hear each other."""

import asyncio
import itertools
import secrets
from collections import defaultdict
from collections.abc import Iterable

from . import BusUnavailable, Kept, Listener, Mark

KEPT_MAX = 1000


class Hub:
    """What in-process buses have in common: the logs, the marks, and who follows what."""

    def __init__(self) -> None:
        self.buses: list[MemoryBus] = []
        self.logs: defaultdict[str, list[Kept]] = defaultdict(list)
        self.marked_at: dict[tuple[str, str], float] = {}
        self._positions = itertools.count(1)

    def keep(self, room: str, message: bytes) -> None:
        """Append to a room's log."""
        log = self.logs[room]
        log.append(Kept(f"{next(self._positions):012}", message))
        del log[:-KEPT_MAX]

    def flush(self) -> None:
        """Forget logs and marks, as `FLUSHALL` does."""
        self.logs.clear()
        self.marked_at.clear()


class MemoryBus:
    """One node's end of a hub. Messages arrive in a later turn of the event loop.

    Attributes:
        away: While True, nothing gets through.
    """

    def __init__(self, hub: Hub, *, node: str | None = None) -> None:
        self.node = node or secrets.token_hex(8)
        self._hub = hub
        self._away = False
        self._listeners: dict[str, Listener] = {}

    @property
    def problem(self) -> str | None:
        """See `Bus.problem`."""
        return "away" if self._away else None

    @property
    def away(self) -> bool:
        """Whether it can't be reached."""
        return self._away

    @away.setter
    def away(self, away: bool) -> None:
        was, self._away = self._away, away
        if was and not away:
            for listener in list(self._listeners.values()):
                listener.resync()

    async def open(self) -> None:
        """See `Bus.open`."""
        self._hub.buses.append(self)

    async def close(self) -> None:
        """See `Bus.close`."""
        if self in self._hub.buses:
            self._hub.buses.remove(self)

    def die(self) -> None:
        """Say and hear nothing any more, as if the process had been killed."""
        self._listeners.clear()
        self._away = True
        if self in self._hub.buses:
            self._hub.buses.remove(self)

    def publish(self, room: str, message: bytes, *, keep: bool) -> None:
        """See `Bus.publish`."""
        if self._away:
            return
        if keep:
            self._hub.keep(room, message)
        for bus in self._hub.buses:
            self.send(bus, room, message)

    def send(self, bus: "MemoryBus", room: str, message: bytes) -> None:
        """Have a message arrive at a node; for tests to meddle with."""
        asyncio.get_running_loop().call_soon(bus.deliver, room, message)

    def deliver(self, room: str, message: bytes) -> None:
        """A message has arrived."""
        listener = self._listeners.get(room)
        if listener is not None and not self._away and self in self._hub.buses:
            listener.receive(message)

    def follow(self, room: str, listener: Listener) -> None:
        """See `Bus.follow`."""
        self._listeners[room] = listener

    def unfollow(self, room: str) -> None:
        """See `Bus.unfollow`."""
        self._listeners.pop(room, None)

    async def followed(self, room: str) -> None:
        """See `Bus.followed`."""
        await self._turn()

    async def tail(self, room: str, after: str | None) -> list[Kept]:
        """See `Bus.tail`."""
        await self._turn()
        kept: Iterable[Kept] = self._hub.logs.get(room, ())
        return [one for one in kept if after is None or one.position > after]

    def mark(self, room: str) -> None:
        """See `Bus.mark`."""
        if not self._away:
            self._hub.marked_at.setdefault((room, self.node), asyncio.get_running_loop().time())

    def unmark(self, room: str, *, node: str | None = None) -> None:
        """See `Bus.unmark`."""
        if not self._away:
            self._hub.marked_at.pop((room, node or self.node), None)

    async def marks(self) -> list[Mark]:
        """See `Bus.marks`."""
        await self._turn()
        now = asyncio.get_running_loop().time()
        return [Mark(room, node, now - at) for (room, node), at in self._hub.marked_at.items()]

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        if self._away:
            raise BusUnavailable("away")
