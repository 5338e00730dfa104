"""Which other nodes live, and what to do for those that don't.

A node says every few seconds that it runs. One that wasn't heard of for a while is gone: its users are, and what it had
not stored has to be found. While the bus is away nobody is heard, and that says nothing about them.
"""

import asyncio
import logging
from collections.abc import Callable

from .bus import EVERYONE, Bus
from .envelope import NODE_BYTES, SOURCE_BYTES, Envelope, Kind, decode, encode
from .errors import ProtocolError
from .metrics import Metrics

log = logging.getLogger("crdt_sync.nodes")

BEAT_S = 1.0
# A node whose event loop stalls for seconds is better taken for dead too early than too late: nothing is lost by it.
LEASE_S = 4.0


class Nodes:
    """The nodes that this one hears of.

    Args:
        bus: Open while `run` runs.
        lost: Called with the id of a node that is gone.
        missed: Called with the id of one that has been living without being heard of, so that neither side knows what it
            missed.
        metrics: Told how long this node's own messages take to come back.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        lost: Callable[[bytes], None],
        missed: Callable[[bytes], None],
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._bus = bus
        self._lost = lost
        self._missed = missed
        self._handlers: dict[int, Callable[[bytes], None]] = {}
        self._when_back: list[Callable[[], None]] = []
        self.ignored = 0
        """Messages that this version doesn't understand."""
        self._beats = 0
        self._beat_at = 0.0
        self._source = bytes.fromhex(bus.node) + bytes(SOURCE_BYTES - NODE_BYTES)
        self._heard_at: dict[bytes, float] = {}
        self._listening_since: float | None = None

    @property
    def node(self) -> bytes:
        """This node's id."""
        return self._source[:NODE_BYTES]

    def hear(self, kind: Kind, handler: Callable[[bytes], None]) -> None:
        """Have a handler get the bodies of messages of this kind from other nodes. It may not raise."""
        self._handlers[kind] = handler

    def when_back(self, then: Callable[[], None]) -> None:
        """Call `then` whenever the bus is back, and something may have been missed."""
        self._when_back.append(then)

    def tell(self, kind: Kind, body: bytes) -> None:
        """Send a message to all nodes. Like any message, it may be lost."""
        self._say(kind, body=body)

    def living(self) -> set[bytes]:
        """All nodes that live, as far as is known, this one included."""
        return {self.node, *self._heard_at}

    def knows_who_lives(self, *, now: float) -> bool:
        """Whether it has listened for long enough to have heard of everyone."""
        return self._listening_since is not None and now - self._listening_since >= LEASE_S

    async def run(self) -> None:
        """Say that this node lives, and listen, until cancelled."""
        loop = asyncio.get_running_loop()
        self._bus.follow(EVERYONE, self)
        while True:
            self._beats += 1
            self._beat_at = loop.time()
            self._say(Kind.ALIVE, self._beats)
            self._look(loop.time())
            await asyncio.sleep(BEAT_S)

    def leave(self) -> None:
        """Say that this node has ended: it has nothing any more that others lack."""
        self._say(Kind.GONE)
        self._bus.unfollow(EVERYONE)

    def receive(self, message: bytes) -> None:
        """See `bus.Listener`."""
        try:
            envelope = decode(message)
        except ProtocolError as error:
            self.ignored += 1
            log.warning("bus_message_ignored", extra={"error": str(error)})
            return
        if envelope.node == self.node:
            if envelope.kind == Kind.ALIVE and envelope.number == self._beats:
                self._metrics.bus_lag_seconds.observe(asyncio.get_running_loop().time() - self._beat_at)
            return
        if envelope.kind == Kind.ALIVE:
            known = envelope.node in self._heard_at
            self._heard_at[envelope.node] = asyncio.get_running_loop().time()
            if not known:
                log.info("node_found", extra={"node": envelope.node.hex()})
                if envelope.number > 1:
                    self._missed(envelope.node)
        elif envelope.kind == Kind.GONE and envelope.node in self._heard_at:
            self._lose(envelope.node)
        elif envelope.kind in self._handlers:
            self._handlers[envelope.kind](envelope.body)
        elif envelope.kind not in (Kind.ALIVE, Kind.GONE):
            self.ignored += 1

    def resync(self) -> None:
        """See `bus.Listener`. What wasn't heard meanwhile says nothing."""
        self._listening_since = None
        for then in self._when_back:
            then()

    def _look(self, now: float) -> None:
        if self._bus.problem is not None:
            self._listening_since = None
            return
        if self._listening_since is None:
            self._listening_since = now
        if self.knows_who_lives(now=now):
            for node, heard_at in list(self._heard_at.items()):
                if now - heard_at >= LEASE_S:
                    self._lose(node)

    def _lose(self, node: bytes) -> None:
        del self._heard_at[node]
        log.warning("node_lost", extra={"node": node.hex()})
        self._lost(node)

    def _say(self, kind: Kind, number: int = 0, body: bytes = b"") -> None:
        self._bus.publish(EVERYONE, encode(Envelope(kind, self._source, number, body=body)), keep=False)
