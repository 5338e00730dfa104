"""What one peer may take, and all together: counts of connections, rates of messages and bytes, and what was refused.

Owns counting and deciding; `now` is passed in. Leaves who somebody is to the gateway, and slowing down, closing and
answering to `transport`, `accepting` and the gateway.

Two answers to too much. Who wants in is refused with 503 before a WebSocket exists, since stock clients back off from
that. Who is in and sends too fast is *slowed*: its socket isn't read for a while, so that its own TCP holds it up. That
costs an honest client with a large backlog nothing but time, while closing it would have it send everything once more.
Only who keeps sending as fast as it is let, for `flooding_timeout_s`, is closed with 4429.
"""

import logging
from collections import Counter
from dataclasses import dataclass
from types import TracebackType

from .errors import Flooding, Overloaded, TooManyConnections
from .settings import Settings

log = logging.getLogger("crdt_sync.limits")

# Who is slowed is left alone for this long at least: a timer for every few bytes would cost more than it saves.
PAUSE_S_MIN = 0.1
# Who has saved up as much as it may send in this time, or half of its burst, isn't over its limit any more.
RECOVERED_S = 1.0
# A message in more pieces than this is no message. Proxies that cut most finely make pieces of a kilobyte.
FRAGMENTS_MAX = 1 << 14
# Descriptors that are no clients: the database's connections and files, Redis, the log.
DESCRIPTORS_RESERVED = 256


class TokenBucket:
    """So much a second, and a burst after a quiet time. Can go into debt.

    Args:
        rate: Tokens a second.
        burst: How many it holds at most, and at first.
        now: Monotonic seconds.
    """

    def __init__(self, rate: float, burst: float, *, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, amount: float, *, now: float) -> float:
        """Take tokens, whether there are as many or not; returns the seconds until the debt is paid, 0 without one."""
        tokens = self._tokens + (now - self._at) * self._rate
        if tokens > self._burst:
            tokens = self._burst
        self._tokens = tokens = tokens - amount
        self._at = now
        return 0.0 if tokens >= 0 else -tokens / self._rate

    @property
    def recovered(self) -> bool:
        """Whether there has been a quiet time: who is only slowed never saves up so much."""
        return self._tokens >= min(RECOVERED_S * self._rate, self._burst / 2)


class Intake:
    """How fast one connection may send.

    Args:
        settings: Rates and bursts.
        now: Monotonic seconds.
    """

    def __init__(self, settings: Settings, *, now: float) -> None:
        self._messages = TokenBucket(settings.messages_per_s_max, settings.messages_burst_max, now=now)
        self._bytes = TokenBucket(settings.received_bytes_per_s_max, settings.received_bytes_burst_max, now=now)
        self._patience_s = settings.flooding_timeout_s
        self._over_since: float | None = None

    @property
    def over(self) -> bool:
        """Whether it is, or was a moment ago, over its limit."""
        return self._over_since is not None

    def take(self, *, frames: int, size: int, now: float) -> float:
        """Count what came.

        Args:
            frames: Of any kind: an empty fragment and a ping cost as much work as a message.
            size: Bytes on the wire.
            now: Monotonic seconds.

        Returns:
            For how many seconds nothing more should be read; 0 as a rule.

        Raises:
            Flooding: It was over its limit for too long.
        """
        for_messages, for_bytes = self._messages.take(frames, now=now), self._bytes.take(size, now=now)
        if not for_messages and not for_bytes:
            if self._over_since is not None and self._messages.recovered and self._bytes.recovered:
                self._over_since = None
            return 0.0
        if self._over_since is None:
            self._over_since = now
        elif now - self._over_since >= self._patience_s:
            raise Flooding(f"over the rate of messages or bytes for {now - self._over_since:.0f} s")
        return max(PAUSE_S_MIN, for_messages, for_bytes)


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many sockets one process can hold."""

    connections: int
    """Admitted clients."""
    upgrades: int
    """Sockets from which no complete request has come yet."""

    @classmethod
    def within(cls, settings: Settings, descriptors: int) -> "Capacity":
        """What is configured, or as much of it as `descriptors` open files allow."""
        # Of few descriptors, an eighth for those who have said nothing yet, and a quarter at most for everything else.
        upgrades = min(settings.upgrades_max, descriptors // 8)
        left = descriptors - upgrades - min(DESCRIPTORS_RESERVED, descriptors // 4)
        return cls(min(settings.connections_max, left), upgrades)


class Limits:
    """What one node lets in, and how often it didn't.

    Args:
        settings: The bounds.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.capacity = Capacity(settings.connections_max, settings.upgrades_max)
        """How many sockets this process can hold."""
        self.refused: Counter[str] = Counter()
        """By kind, how often something was refused, slowed or closed because of a limit."""
        self.connections = 0
        """Clients that hold a place."""
        self.gone = 0
        """Clients that had one, and have left it."""
        self.joins_refused_because: str | None = None
        """Set while the node has too much to do to take anybody more; see `load`."""
        self.partial_bytes = 0
        """What all connections hold of messages that haven't come to their end."""
        self._of_address: Counter[str] = Counter()
        self._of_user: Counter[str] = Counter()
        self._of_room: Counter[str] = Counter()
        self._rooms_of_user: dict[str, Counter[str]] = {}
        self._reported: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    @property
    def full(self) -> str | None:
        """Why nobody more has a place; None as long as somebody has."""
        if self.connections < self.capacity.connections:
            return None
        return f"{self.connections} clients are connected, as many as there may be"

    def place(self, address: str) -> "Place":
        """A place for a client from this address. Leave it when the client is gone: use it with `with`.

        Raises:
            TooManyConnections: There is none.
            Overloaded: The node takes nobody at the moment.
        """
        if self.joins_refused_because is not None:
            self.note("joins_while_busy", address)
            raise Overloaded(self.joins_refused_because)
        if self.connections >= self.capacity.connections:
            raise self._full("connections", address)
        if self._of_address[address] >= self.settings.connections_per_address_max:
            raise self._full("connections_per_address", address)
        return Place(self, address)

    def note(self, kind: str, example: object = "") -> None:
        """Count one of a kind; `report` will say so."""
        self.refused[kind] += 1
        self._examples[kind] = str(example)

    def report(self) -> None:
        """Log, once for each kind, how often it occurred since the last report. Call it once a second."""
        if self.refused.total() == self._reported.total():
            return
        for kind, count in (self.refused - self._reported).items():
            fields = {"limit": kind, "count": count, "for_example": self._examples[kind]}
            log.warning("limit_met", extra={name: value for name, value in fields.items() if value != ""})
        self._reported = self.refused.copy()
        self._examples.clear()

    def _full(self, kind: str, who: str) -> TooManyConnections:
        self.note(kind, who)
        return TooManyConnections(f"{kind}: there are as many as there may be, for example for {who!r}")


class Place:
    """One client among those that are counted. Made by `Limits.place`."""

    def __init__(self, limits: Limits, address: str) -> None:
        self._limits = limits
        self._address = address
        self._user: str | None = None
        self._room: str | None = None
        limits.connections += 1
        limits._of_address[address] += 1

    def take(self, room: str, *, user: str | None) -> None:
        """Count it for its room and its user, once that is known.

        Args:
            room: The room that it wants to open.
            user: Who it is, by its credential; None if anybody.

        Raises:
            TooManyConnections: The room or the user has as many as it may, or the user has too many rooms open.
        """
        limits, settings = self._limits, self._limits.settings
        if limits._of_room[room] >= settings.connections_per_room_max:
            raise limits._full("connections_per_room", room)
        if user is not None:
            if limits._of_user[user] >= settings.connections_per_user_max:
                raise limits._full("connections_per_user", user)
            rooms = limits._rooms_of_user.get(user)
            if rooms is not None and room not in rooms and len(rooms) >= settings.rooms_per_user_max:
                raise limits._full("rooms_per_user", user)
            limits._of_user[user] += 1
            limits._rooms_of_user.setdefault(user, Counter())[room] += 1
        limits._of_room[room] += 1
        self._room, self._user = room, user

    def leave(self) -> None:
        """The client is gone."""
        limits = self._limits
        limits.connections -= 1
        limits.gone += 1
        _less(limits._of_address, self._address)
        if self._room is not None:
            _less(limits._of_room, self._room)
            if self._user is not None:
                _less(limits._of_user, self._user)
                _less(limits._rooms_of_user[self._user], self._room)
                if not limits._rooms_of_user[self._user]:
                    del limits._rooms_of_user[self._user]

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()


def _less(counts: Counter[str], key: str) -> None:
    """Count one less, and keep no zeros: names come from outside."""
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]
