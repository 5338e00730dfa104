"""The way in from one Redis server: the subscriptions of all rooms that are followed there, on one connection."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from ..pacing import SLICE_S
from . import BusUnavailable, Listener
from .redis_link import Link, LinkLost, Refusal, pack
from .redis_state import Keys, Shared

log = logging.getLogger("crdt_sync.bus")

SUBSCRIPTIONS_MAX = 500


class Subscriber:
    """One connection that listens."""

    def __init__(self, shared: Shared, *, sharded: bool) -> None:
        """Prepare.

        Args:
            shared: The server.
            sharded: Whether to use sharded pub/sub.
        """
        self.is_lost = False
        self.is_ready = False
        """Whether everything that was followed when it connected is heard."""
        self._shared = shared
        self._listeners = shared.listeners
        self._words = (b"SSUBSCRIBE", b"SUNSUBSCRIBE") if sharded else (b"SUBSCRIBE", b"UNSUBSCRIBE")
        # Channels in one command. Of a cluster, they would have to be of one slot.
        self._together_max = 1 if sharded else SUBSCRIPTIONS_MAX
        self._asked: set[bytes] = set()
        self._acknowledged: set[bytes] = set()
        # How many answers are still to come, of each kind.
        self._entering: Counter[bytes] = Counter()
        self._leaving: Counter[bytes] = Counter()
        self._first: set[bytes] = set()
        self._displaced: set[bytes] = set()
        self._changed: dict[bytes, None] = {}
        self._wake = asyncio.Event()
        self._waiters: dict[bytes, set[asyncio.Future[None]]] = {}
        self._silent_since: float | None = None

    def follow(self, keys: Keys, listener: Listener) -> None:
        """See `Bus.follow`."""
        self._listeners[keys.channel] = (keys.room, listener)
        self._change(keys.channel)

    def unfollow(self, keys: Keys) -> None:
        """See `Bus.unfollow`."""
        if self._listeners.pop(keys.channel, None) is not None:
            self._change(keys.channel)
            self._displaced.discard(keys.channel)
            self._fail(self._waiters.pop(keys.channel, ()), f"{keys.room!r} isn't followed any more")
            self._hears(keys.channel)

    async def followed(self, keys: Keys) -> None:
        """See `Bus.followed`."""
        if keys.channel not in self._listeners:
            raise BusUnavailable(f"{keys.room!r} isn't followed")
        if keys.channel in self._acknowledged:
            return
        if self.is_lost:
            raise BusUnavailable(self._shared.health.problem or "away")
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(keys.channel, set()).add(waiter)
        try:
            async with asyncio.timeout(self._shared.limits.timeout_s):
                await waiter
        except TimeoutError:
            raise BusUnavailable(self._shared.health.problem or "no answer in time") from None
        finally:
            if waiters := self._waiters.get(keys.channel):
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[keys.channel]

    def expect(self) -> None:
        """A ping was sent: something has to arrive soon."""
        if self._silent_since is None:
            self._silent_since = asyncio.get_running_loop().time()

    async def greet(self, link: Link) -> None:
        """Subscribe to everything that is followed."""
        self._acknowledged.clear()
        self._entering.clear()
        self._leaving.clear()
        self._displaced.clear()
        self._changed.clear()
        self._first = {self._shared.keys.channel, *self._listeners}
        self._asked = set(self._first)
        self._silent_since = None
        await self._write(link, self._words[0], list(self._first))

    async def serve(self, link: Link) -> None:
        """Listen until the connection is lost."""
        tasks = [asyncio.create_task(one) for one in (self._read(link), self._follow_changes(link), self._watch(link))]
        # No TaskGroup: in Python 3.11 it forgets a cancellation that comes together with a failure.
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        ended.pop().result()

    def lose(self, reason: str) -> None:
        """The connection is gone, and what was said meanwhile with it."""
        self.is_lost, self.is_ready = True, False
        self._acknowledged.clear()
        self._first.clear()
        self._shared.health.down(self, reason)
        self.fail_waiters(reason)

    def fail_waiters(self, reason: str) -> None:
        """Tell all who wait that it may take long."""
        for waiters in self._waiters.values():
            self._fail(waiters, reason)
        self._waiters.clear()

    async def _read(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        turn_ends = loop.time() + SLICE_S
        while True:
            answer = await link.read()
            self._silent_since = None
            self._take(answer)
            if loop.time() >= turn_ends:
                await asyncio.sleep(0)  # reading doesn't wait while there is something to read
                turn_ends = loop.time() + SLICE_S

    def _take(self, answer: object) -> None:
        match answer:
            case [b"message" | b"smessage", bytes(channel), bytes(message)]:
                if entry := self._listeners.get(channel):
                    self._shared.counters.received += 1
                    try:
                        entry[1].receive(message)
                    except Exception:
                        log.exception("bus_listener_failed", extra={"room": entry[0]})
            case [b"subscribe" | b"ssubscribe", bytes(channel), _]:
                self._acknowledge(channel)
            case [b"unsubscribe" | b"sunsubscribe", bytes(channel), _]:
                self._part(channel)
            case Refusal() as refusal:
                raise LinkLost(f"subscribing was refused: {refusal}")

    def _acknowledge(self, channel: bytes) -> None:
        self._entering[channel] -= 1
        if self._entering[channel] > 0:
            return
        del self._entering[channel]
        if channel in self._asked:
            self._acknowledged.add(channel)
            for waiter in self._waiters.pop(channel, ()):
                if not waiter.done():
                    waiter.set_result(None)
        self._hears(channel)
        if channel in self._displaced:
            self._displaced.discard(channel)
            self._shared.owe([channel])
            self._shared.settle()

    def _part(self, channel: bytes) -> None:
        if self._leaving[channel] > 0:
            self._leaving[channel] -= 1
            if not self._leaving[channel]:
                del self._leaving[channel]
            return
        # Nobody asked for it: the room has moved to another server of the cluster.
        self._asked.discard(channel)
        self._acknowledged.discard(channel)
        self._displaced.add(channel)
        self._shared.look_again()

    def _hears(self, channel: bytes) -> None:
        if channel in self._first:
            self._first.discard(channel)
            if not self._first:
                self._become_ready()

    def _become_ready(self) -> None:
        was_lost, self.is_lost, self.is_ready = self.is_lost, False, True
        if was_lost:
            self._shared.owe(self._listeners)
        self._shared.health.up(self)
        self._shared.settle()

    async def _follow_changes(self, link: Link) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            changed, self._changed = self._changed, {}
            wanted = [one for one in changed if one in self._listeners and one not in self._asked]
            unwanted = [one for one in changed if one not in self._listeners and one in self._asked]
            self._asked.update(wanted)
            self._asked.difference_update(unwanted)
            self._acknowledged.difference_update(unwanted)
            await self._write(link, self._words[1], unwanted)
            await self._write(link, self._words[0], wanted)

    async def _write(self, link: Link, word: bytes, channels: Sequence[bytes]) -> None:
        if not channels:
            return
        # Counted first: the answer may be here before `send` returns.
        if word == self._words[0]:
            self._entering.update(channels)
            self.expect()
        else:
            self._leaving.update(channels)
        step = self._together_max
        chunks = [pack(word, *channels[first : first + step]) for first in range(0, len(channels), step)]
        self._shared.counters.commands += len(chunks)
        await link.send(chunks)

    async def _watch(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        timeout_s = self._shared.limits.ping_timeout_s
        while True:
            await asyncio.sleep(timeout_s / 6)
            if self._is_silent(loop.time(), timeout_s):
                # If it was our event loop that stood still, what came meanwhile is yet to be read.
                await asyncio.sleep(0.1)
                if self._is_silent(loop.time(), timeout_s):
                    raise LinkLost(f"{link.address}: nothing came back for {timeout_s} s")

    def _is_silent(self, now: float, timeout_s: float) -> bool:
        return self._silent_since is not None and now - self._silent_since > timeout_s

    def _change(self, channel: bytes) -> None:
        self._changed[channel] = None
        self._wake.set()

    @staticmethod
    def _fail(waiters: Iterable[asyncio.Future[None]], reason: str) -> None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(BusUnavailable(reason))
