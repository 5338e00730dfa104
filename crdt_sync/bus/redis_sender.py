"""The way out to one Redis server: everything that is queued goes in one pipeline, and the next one after that.

A message is first kept and then said, so whoever listens, and then reads what is kept, misses nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from .redis_link import Link, LinkLost, Refusal, argument, is_moved, is_not_serving, pack
from .redis_notes import Notes
from .redis_state import Keys, Shared, keep_head

log = logging.getLogger("crdt_sync.bus")

# What a queued message costs beside its bytes: a tuple, its place in the list, the head of a bytes object.
MESSAGE_OVERHEAD_BYTES = 200
# So that packing them and reading the replies takes the event loop a few milliseconds at most.
PIPELINE_MESSAGES_MAX = 500
# Above this, a copy costs more than another chunk.
COPY_BYTES_MAX = 1 << 14
# Expiry and age of a log are seen to this often.
RENEW_S = 5.0
# After a refusal (out of memory, say), rooms are told no sooner, or their answers would be refused in turn.
REFUSED_PAUSE_S = 2.0
REFUSED_LOG_S = 60.0
# Every so many pings all marks are told again. A FLUSHALL would go unnoticed otherwise.
MARKS_RENEWED_PINGS = 16


class Sender:
    """One connection that sends, and the queue before it."""

    def __init__(self, shared: Shared, *, probe_role: bool, on_ping: Callable[[], None]) -> None:
        """Prepare.

        Args:
            shared: The server.
            probe_role: Whether to make sure that it is a master.
            on_ping: Called when a ping is through, which should now arrive in its channel.
        """
        self.is_lost = False
        self.notes: Notes | None = None
        """Marks to take along, if they are kept at this server."""
        self._shared = shared
        self._probe_role = probe_role
        self._on_ping = on_ping
        self._queue: list[tuple[Keys, bytes, bool]] = []
        self._queue_bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ping_due = False
        self._pings = 0
        self._clock_offset_s: float | None = None
        """What to add to the event loop's time to get the server's."""
        self._unremoved: set[bytes] = set()
        self._renewed: dict[bytes, float] = {}
        self._refusal_logged_at = float("-inf")
        limits = shared.limits
        self._renew_s = min(RENEW_S, limits.log_age_s / 4)
        self._expire_ms = b"%d" % int((limits.log_age_s + self._renew_s) * 1000)
        self._large_bytes = limits.log_bytes_max // limits.log_entries_max

    @property
    def is_ready(self) -> bool:
        """See `Lane.is_ready`."""
        return not self.is_lost and self._queue_bytes <= self._shared.limits.queue_bytes_max // 2

    def put(self, keys: Keys, message: bytes, *, keep: bool) -> None:
        """Queue a message, or drop it."""
        size = len(message) + MESSAGE_OVERHEAD_BYTES
        # One may be larger than the queue, or it could never be sent.
        if self.is_lost or (self._queue and self._queue_bytes + size > self._shared.limits.queue_bytes_max):
            self._drop([(keys, message, keep)])
            return
        self._queue.append((keys, message, keep))
        self._queue_bytes += size
        self.wake()

    def wake(self) -> None:
        """There are marks to send."""
        self._idle.clear()
        self._wake.set()

    async def drained(self) -> None:
        """Return once everything is sent, or lost."""
        await self._idle.wait()

    async def greet(self, link: Link) -> None:
        """Find out that the server answers: frozen ones take connections too."""
        self._ping_due = False
        await self._exchange(link, ping=True)
        self.is_lost = False
        if self.notes is not None:
            self.notes.renew()
        self._shared.health.up(self)
        self._shared.settle()

    async def serve(self, link: Link) -> None:
        """Send what comes, until the connection is lost."""
        interval_s = self._shared.limits.ping_interval_s
        timer = asyncio.get_running_loop().call_later(interval_s, self._remind)
        try:
            while True:
                while self._queue or self.notes or self._ping_due:
                    ping, self._ping_due = self._ping_due, False
                    if ping:
                        timer = asyncio.get_running_loop().call_later(interval_s, self._remind)
                    await self._exchange(link, ping=ping)
                    self._shared.settle()
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
        finally:
            timer.cancel()

    def lose(self, reason: str) -> None:
        """The connection is gone, and what waits for it too."""
        self.is_lost = True
        self._shared.health.down(self, reason)
        waiting, self._queue, self._queue_bytes = self._queue, [], 0
        self._drop(waiting)
        self._idle.set()

    def _remind(self) -> None:
        self._ping_due = True
        self._wake.set()

    async def _exchange(self, link: Link, *, ping: bool) -> None:
        """Send one pipeline, and see to the replies."""
        batch = self._queue[:PIPELINE_MESSAGES_MAX]
        del self._queue[:PIPELINE_MESSAGES_MAX]
        self._queue_bytes -= sum(len(message) + MESSAGE_OVERHEAD_BYTES for _, message, _ in batch)
        chunks: list[bytes] = []
        owners: list[Keys | None] = []
        removed: set[bytes] = set()
        if ping:
            self._add_ping(chunks, owners)
        if self.notes is not None and self._clock_offset_s is not None:
            commands, removed = self.notes.take(self._clock_offset_s)
            chunks += commands
            owners += [None] * len(commands)
        now = asyncio.get_running_loop().time()
        for keys, message, keep in batch:
            self._add_message(chunks, owners, keys, message, keep, now)
        counters = self._shared.counters
        counters.pipelines += 1
        counters.commands += len(owners)
        delivered = False
        try:
            answers = await link.exchange(chunks, len(owners))
            if ping:
                self._take_ping(link, answers)
            delivered = True
        finally:
            if not delivered:
                self._drop(batch)
                if self.notes is not None:
                    self.notes.give_back(removed)
        counters.sent_messages += len(batch)
        counters.sent_bytes += sum(len(message) for _, message, _ in batch)
        self._see_to_refusals(link, answers, owners, removed)

    def _add_ping(self, chunks: list[bytes], owners: list[Keys | None]) -> None:
        if self._probe_role:
            chunks.append(pack(b"ROLE"))
            owners.append(None)
        keys = self._shared.keys
        chunks += pack(b"TIME"), keys.say + argument(b"")
        owners += None, keys
        self._pings += 1
        if self.notes is not None and (self._unremoved or self._pings % MARKS_RENEWED_PINGS == 0):
            self.notes.give_back(self._unremoved)
            self._unremoved = set()

    def _take_ping(self, link: Link, answers: list[object]) -> None:
        first = 0
        if self._probe_role:
            first = 1
            role = answers[0]
            if isinstance(role, list) and role and role[0] != b"master":
                raise LinkLost(f"{link.address} is no master")
        moment = answers[first]
        if isinstance(moment, list) and len(moment) == 2:
            self._clock_offset_s = int(moment[0]) + int(moment[1]) / 1e6 - asyncio.get_running_loop().time()
        if not isinstance(answers[first + 1], Refusal):
            self._on_ping()

    def _add_message(
        self, chunks: list[bytes], owners: list[Keys | None], keys: Keys, message: bytes, keep: bool, now: float
    ) -> None:
        size = len(message)
        if keep:
            if size <= self._large_bytes:
                head = keys.keep
            else:
                head = keep_head(keys.log, max(1, self._shared.limits.log_bytes_max // size))
            _add_argument(chunks, head, message, size)
            owners.append(keys)
            if now - self._renewed.get(keys.log, float("-inf")) >= self._renew_s:
                self._add_renewal(chunks, keys, now)
                owners += keys, keys
        _add_argument(chunks, keys.say, message, size)
        owners.append(keys)

    def _add_renewal(self, chunks: list[bytes], keys: Keys, now: float) -> None:
        if len(self._renewed) > 10_000:
            self._renewed = {key: at for key, at in self._renewed.items() if now - at < self._renew_s}
        self._renewed[keys.log] = now
        oldest_ms = max(0, int((now + (self._clock_offset_s or 0.0) - self._shared.limits.log_age_s) * 1000))
        chunks.append(pack(b"PEXPIRE", keys.log, self._expire_ms))
        chunks.append(pack(b"XTRIM", keys.log, b"MINID", b"%d" % oldest_ms))

    def _see_to_refusals(
        self, link: Link, answers: list[object], owners: list[Keys | None], removed: set[bytes]
    ) -> None:
        refused = [(keys, answer) for keys, answer in zip(owners, answers, strict=True) if isinstance(answer, Refusal)]
        if not refused:
            return
        rooms = {keys.channel for keys, _ in refused if keys is not None}
        self._shared.counters.dropped += len(rooms)
        self._shared.owe(rooms, pause_s=REFUSED_PAUSE_S)
        answer = refused[0][1]
        if any(keys is None for keys, _ in refused):
            self._unremoved |= removed
        if any(is_moved(one) for _, one in refused):
            self._shared.look_again()
        if any(is_not_serving(one) for _, one in refused):
            raise LinkLost(f"{link.address}: {answer}")
        now = asyncio.get_running_loop().time()
        if now - self._refusal_logged_at >= REFUSED_LOG_S:
            self._refusal_logged_at = now
            log.warning("bus_refused", extra={"server": str(link.address), "reason": str(answer)})

    def _drop(self, batch: Iterable[tuple[Keys, bytes, bool]]) -> None:
        channels = [keys.channel for keys, _, _ in batch]
        self._shared.counters.dropped += len(channels)
        self._shared.owe(channels)


def _add_argument(chunks: list[bytes], head: bytes, message: bytes, size: int) -> None:
    if size <= COPY_BYTES_MAX:
        chunks.append(b"%b$%d\r\n%b\r\n" % (head, size, message))
    else:
        chunks += b"%b$%d\r\n" % (head, size), message, b"\r\n"
