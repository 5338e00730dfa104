"""What the connections to one Redis server share: limits, names, listeners, and whether messages get through."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from . import Listener
from .redis_link import Link, argument

log = logging.getLogger("crdt_sync.bus")


@dataclass(frozen=True)
class Limits:
    """How much, and how long."""

    timeout_s: float = 2.0
    """Redis answers within this time, or it is taken to be away. A large pipeline may take longer, see `BYTES_PER_S`."""
    queue_bytes_max: int = 8 << 20
    """What may wait to be sent, for each server. As much may be on its way."""
    log_entries_max: int = 1000
    """Length of a room's short-term log, about."""
    log_bytes_max: int = 32 << 20
    """A message of a `k`th of this size leaves `k` entries in its room's log. Keeps a log below some 8 times this."""
    log_age_s: float = 60.0
    """How long a message is kept; it may be a few seconds more."""
    ping_interval_s: float = 2.0
    ping_timeout_s: float = 3.0
    """A ping that was sent comes back within this time, or all subscriptions are made anew."""


@dataclass
class Counters:
    """What was done so far, for measurements."""

    sent_messages: int = 0
    sent_bytes: int = 0
    pipelines: int = 0
    commands: int = 0
    dropped: int = 0
    received: int = 0


class Keys(NamedTuple):
    """What a room is called in Redis, packed for sending as far as that goes."""

    room: str
    slot: int
    log: bytes
    channel: bytes
    keep: bytes
    """`XADD` up to the message."""
    say: bytes
    """`PUBLISH` up to the message."""


def keep_head(log_key: bytes, entries_max: int) -> bytes:
    """`XADD` up to the message."""
    words = (b"XADD", log_key, b"MAXLEN", b"~", b"%d" % entries_max, b"*", b"m")
    return b"*%d\r\n" % (len(words) + 1) + b"".join(map(argument, words))


def say_head(channel: bytes, *, sharded: bool) -> bytes:
    """`PUBLISH` up to the message."""
    return b"*3\r\n" + argument(b"SPUBLISH" if sharded else b"PUBLISH") + argument(channel)


class Health:
    """Whether the bus gets through: one state, over all its connections, that is logged when it changes."""

    def __init__(self, where: str) -> None:
        """Nothing is expected yet.

        Args:
            where: The bus, for people.
        """
        self._where = where
        self._lanes: dict[object, str | None] = {}
        self._away_since: float | None = None

    @property
    def problem(self) -> str | None:
        """Why it doesn't; None if it does."""
        return next((reason for reason in self._lanes.values() if reason is not None), None)

    def expect(self, lane: object) -> None:
        """There is one more connection, which isn't up yet."""
        self._lanes[lane] = "not connected yet"

    def forget(self, lane: object) -> None:
        """There is no such connection any more."""
        self._lanes.pop(lane, None)

    def up(self, lane: object) -> None:
        """A connection gets through."""
        self._lanes[lane] = None
        if self._away_since is not None and self.problem is None:
            after_s = asyncio.get_running_loop().time() - self._away_since
            self._away_since = None
            log.info("bus_recovered", extra={"bus": self._where, "after_s": round(after_s, 3)})

    def down(self, lane: object, reason: str) -> None:
        """A connection doesn't."""
        self._lanes[lane] = reason
        if self._away_since is None:
            self._away_since = asyncio.get_running_loop().time()
            log.warning("bus_unavailable", extra={"bus": self._where, "reason": reason})


class Lane(Protocol):
    """One connection that is kept up."""

    is_lost: bool
    """Whether it is known not to get through."""

    @property
    def is_ready(self) -> bool:
        """Whether what is published now is likely to get through."""

    async def greet(self, link: Link) -> None:
        """Prepare a new connection for `serve`."""

    async def serve(self, link: Link) -> None:
        """Use it until it is lost."""

    def lose(self, reason: str) -> None:
        """It is lost."""


@dataclass
class Shared:
    """One server's part of the bus."""

    keys: Keys
    """A channel of this node's own, for pings."""
    limits: Limits
    counters: Counters
    health: Health
    look_again: Callable[[], None]
    """Called when the server is lost, or another one turns out to have a room."""
    listeners: dict[bytes, tuple[str, Listener]] = field(default_factory=dict)
    """Who hears each channel, with the room's name."""
    lanes: list[Lane] = field(default_factory=list)
    _owed: set[bytes] = field(default_factory=set)
    _owed_after: float = 0.0

    @property
    def is_away(self) -> bool:
        """Whether it is known to be."""
        return any(lane.is_lost for lane in self.lanes)

    def owe(self, channels: Iterable[bytes], *, pause_s: float = 0) -> None:
        """Messages in these channels may be lost: tell their listeners once messages get through again.

        Args:
            channels: Those without a listener are passed over.
            pause_s: How long not to tell anybody.
        """
        self._owed.update(channel for channel in channels if channel in self.listeners)
        if pause_s:
            self._owed_after = asyncio.get_running_loop().time() + pause_s

    def settle(self) -> None:
        """Tell those to whom it is owed, if messages get through now."""
        if not self._owed or not all(lane.is_ready for lane in self.lanes):
            return
        if asyncio.get_running_loop().time() < self._owed_after:
            return
        owed, self._owed = self._owed, set()
        for channel in owed:
            if entry := self.listeners.get(channel):
                try:
                    entry[1].resync()
                except Exception:
                    log.exception("bus_listener_failed", extra={"room": entry[0]})
