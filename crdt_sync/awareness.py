"""Who is here: the awareness states of one room.

Owns which state of which client is current, which connection may speak for it, and when it goes. Pure: `now` is
passed in (monotonic seconds), connections are opaque keys, and what has to be told is collected until somebody asks.

Clients of other nodes belong to their node, as those of a connection do to it. What it says about them has been
judged there, so it only has to be newer; what is told to other nodes is about this one's clients alone.

Three things differ from a plain y-protocols peer, all for the sake of people whose connection drops. A state outlives
its connection for a short grace, and whoever comes back within it takes it over unseen. Who comes back later is
announced under a higher clock than it sent, because peers ignore the clock under which they saw it leave. And to somebody
who is back everybody else has to be announced like that (`announce`), because y-websocket forgets the others when its
connection drops, but not their clocks. A client whose clock was raised goes on from there once it hears of it.

Source: y-protocols `awareness.js`; y-websocket sends every awareness change that it hears back to the server, other
clients' included, hence the care about who may speak for whom.
"""

import json
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from .errors import MessageTooBig, ProtocolError, RoomFull
from .lib0 import read_var_bytes, read_var_uint, write_var_bytes, write_var_uint

CLIENT_BYTES_MAX = 16 << 10
ROOM_BYTES_MAX = 1 << 20

# One connection speaks for one client, rarely for a few (a bridge). This many full states are enough for it.
CONNECTION_STATES_MAX = 8

# y-protocols `outdatedTimeout`: clients renew every 15 s, and drop who wasn't renewed for 30 s.
OUTDATED_S = 30.0
# A connection that let a renewal slip is taken for dead, and its client may speak from another one.
SILENT_S = 20.0
# How long the clock of someone who left is remembered, and for how many.
GONE_S = 60.0
GONE_MAX = 1000

# A page that is just loaded sets its state a few times before it connects. A client with a higher clock has been somewhere.
NEW_CLOCK_MAX = 2

# So that the clock after an accepted one can always be written. Clients count from 0.
CLOCK_MAX = 2**52
# More states than a room can hold; one message is read in some milliseconds.
MESSAGE_STATES_MAX = 4096

# No presence needs it, and Python reads little more: what one part could still read, a deeper call could not.
NESTING_MAX = 100

# What an entry costs in memory beside its state, rounded up from what tracemalloc says on CPython 3.11.
ENTRY_BYTES = 600

NULL = b"null"
"""The state of a client that has left."""
KEEP_ALIVE = b"\x00"
"""No states at all: something to say to a client that reconnects when it hears nothing."""


@dataclass(frozen=True, slots=True)
class ClientState:
    """One client's state as it stands in an awareness message."""

    client: int
    clock: int
    state: bytes
    """JSON text; `null` says that the client has left."""


def read_states(payload: bytes) -> list[ClientState]:
    """Read the payload of an awareness message.

    Raises:
        ProtocolError: Cut short, trailing bytes, more than `MESSAGE_STATES_MAX` states, or one that isn't what
            `JSON.parse` accepts, or is nested deeper than `NESTING_MAX`.
    """
    count, pos = read_var_uint(payload, 0)
    if count > MESSAGE_STATES_MAX:
        raise ProtocolError(f"{count} awareness states in one message, at most {MESSAGE_STATES_MAX}")
    states = []
    for _ in range(count):
        client, pos = read_var_uint(payload, pos)
        clock, pos = read_var_uint(payload, pos)
        state, pos = read_var_bytes(payload, pos)
        states.append(ClientState(client, clock, NULL if _read_json(state) is None else state))
    if pos != len(payload):
        raise ProtocolError(f"{len(payload) - pos} bytes after the last awareness state")
    return states


def write_states(states: Iterable[ClientState]) -> bytes:
    """The payload of an awareness message."""
    parts = [write_var_uint(one.client) + write_var_uint(one.clock) + write_var_bytes(one.state) for one in states]
    return write_var_uint(len(parts)) + b"".join(parts)


@dataclass(slots=True)
class _Entry:
    clock: int
    state: bytes
    owner: Hashable | None
    heard_at: float
    leaves_at: float | None = None
    elsewhere: bool = False
    """Whether it is, or was last, a client of another node."""
    left_from: Hashable | None = None
    """The node or connection from which it left."""
    ahead: int = 0
    """By how much `clock` is higher than what its client last sent."""

    @property
    def here(self) -> bool:
        return self.state != NULL


class Awareness:
    """The states of one room.

    Args:
        client_bytes_max: Bound on one client's state.
        room_bytes_max: Bound on all states of the room together, `ENTRY_BYTES` each included.
    """

    def __init__(self, *, client_bytes_max: int = CLIENT_BYTES_MAX, room_bytes_max: int = ROOM_BYTES_MAX) -> None:
        self._client_bytes_max = client_bytes_max
        self._room_bytes_max = room_bytes_max
        self._entries: dict[int, _Entry] = {}
        self._gone: dict[int, float] = {}
        self._bytes = 0
        self._owned: dict[Hashable, set[int]] = {}
        self._changed: set[int] = set()
        self._changed_here: set[int] = set()
        self.lively = False
        """Whether what `take_changes` has to tell is more than that somebody is still there."""
        self.returned = False
        """Whether somebody has come who may ignore the clocks of those who are here, until `announce`."""

    def __len__(self) -> int:
        """How many clients are here."""
        return len(self._entries) - len(self._gone)

    def receive(
        self,
        owner: Hashable,
        states: Iterable[ClientState],
        *,
        now: float,
        may_be: Callable[[bytes], bool] = lambda state: True,
    ) -> None:
        """Take in what the connection `owner` says.

        States that are old, or of clients that another connection speaks for, are ignored.

        Args:
            owner: The connection.
            states: What it says.
            now: Monotonic seconds.
            may_be: Whether it may take over a client with this state: from a connection that is gone, or seems to be.

        Raises:
            MessageTooBig: A state, or all that this connection speaks for, is over its limit.
            RoomFull: The room's states together would be over their limit.
                In both cases the states before the offending one are taken in.
        """
        states = list(states)
        first = owner not in self._owned
        # Clients begin with themselves alone.
        itself = first and len(states) == 1
        owned = self._owned.setdefault(owner, set())
        for one in states:
            entry = self._entries.get(one.client)
            if first and (entry is not None or one.clock > NEW_CLOCK_MAX):
                self.returned = True
            if entry is not None and entry.here and entry.owner != owner and not may_be(entry.state):
                continue
            clock = self._accepted_clock(owner, one, first=first, itself=itself, now=now)
            if clock is None:
                continue
            if one.state == NULL:
                self._remove(one.client, clock=clock, now=now)
                continue
            if len(one.state) > self._client_bytes_max:
                raise MessageTooBig(f"awareness state of {len(one.state)} bytes, at most {self._client_bytes_max}")
            if one.client not in owned and len(owned) >= CONNECTION_STATES_MAX:
                raise MessageTooBig(f"one connection speaks for more than {CONNECTION_STATES_MAX} clients")
            self._put(owner, one.client, clock, one.state, now, ahead=clock - one.clock)

    def announce(self) -> None:
        """Tell everybody about this node's clients again, under clocks that nobody has seen yet."""
        self.returned = False
        for client, entry in self._entries.items():
            # Not who is lost: when it comes back, it knows only the clock that it had.
            if entry.here and not entry.elsewhere and entry.owner is not None and entry.clock < CLOCK_MAX:
                entry.clock += 1
                entry.ahead += 1
                self._changed.add(client)
                self._changed_here.add(client)

    def hear(self, node: Hashable, states: Iterable[ClientState], *, now: float) -> None:
        """Take in what another node says of its clients. What is old, or would be too much, is ignored."""
        self._owned.setdefault(node, set())
        for one in states:
            entry = self._entries.get(one.client)
            clock = one.clock
            if clock >= CLOCK_MAX:
                continue
            if one.state == NULL:
                # Not from a node that the client has left for another one, or for this one.
                if entry is not None and entry.here and entry.owner in (node, None) and clock >= entry.clock:
                    self._remove(one.client, clock=clock, now=now)
                    entry.left_from = node
                continue
            if entry is not None and entry.owner != node:
                # It has been elsewhere before, and its connection there has dropped.
                self.returned = True
            if entry is not None and clock < entry.clock:
                continue
            if entry is not None and clock == entry.clock and not entry.here:
                # A word that was overtaken; or it has come to that node while its leaving another one was on its way.
                # Peers that have heard of that ignore the clock.
                if entry.left_from == node:
                    continue
                clock += 1
            try:
                self._put(node, one.client, clock, one.state, now, elsewhere=True)
            except RoomFull:
                continue

    def leave(self, owner: Hashable, *, now: float, grace_s: float) -> None:
        """The connection, or node, `owner` is gone; its states go when `grace_s` has passed and nobody took them over."""
        for client in self._owned.pop(owner, ()):
            entry = self._entries[client]
            entry.owner = None
            entry.leaves_at = now + grace_s

    def expire(self, *, now: float) -> None:
        """Remove whose grace is over or who hasn't been heard of for `OUTDATED_S`."""
        for client, entry in list(self._entries.items()):
            if not entry.here:
                continue
            if now - entry.heard_at >= OUTDATED_S or (entry.leaves_at is not None and now >= entry.leaves_at):
                # At the same clock: a higher one would hide the client's next announcement for longer.
                self._remove(client, clock=entry.clock, now=now)
        for client, gone_at in list(self._gone.items()):
            if now - gone_at < GONE_S:
                break
            if client not in self._changed:
                self._forget(client)

    def next_expiry(self) -> float | None:
        """When `expire` will next remove somebody whose connection is gone."""
        return min((e.leaves_at for e in self._entries.values() if e.leaves_at is not None), default=None)

    @property
    def changed(self) -> bool:
        """Whether `take_changes` has something to tell."""
        return bool(self._changed)

    def take_changes(self) -> bytes | None:
        """What changed since the last call, as a message payload with the latest state of each client."""
        if not self._changed:
            return None
        changed = sorted(self._changed)
        self._changed.clear()
        self._changed_here.clear()
        self.lively = False
        return write_states(ClientState(c, self._entries[c].clock, self._entries[c].state) for c in changed)

    def take_changes_here(self) -> bytes | None:
        """What of `take_changes` is about this node's own clients, for other nodes; call it before."""
        changed = sorted(self._changed_here)
        self._changed_here.clear()
        if not changed:
            return None
        return write_states(ClientState(c, self._entries[c].clock, self._entries[c].state) for c in changed)

    def everyone_here(self) -> bytes:
        """All clients of this node, as a message payload."""
        return write_states(
            ClientState(c, e.clock, e.state) for c, e in self._entries.items() if e.here and not e.elsewhere
        )

    def everyone(self, *, and_gone: bool = False) -> bytes | None:
        """All who are here, and perhaps who left lately, as a message payload; None if there is nobody."""
        states = [ClientState(c, e.clock, e.state) for c, e in self._entries.items() if e.here or and_gone]
        return write_states(states) if states else None

    def _accepted_clock(
        self, owner: Hashable, one: ClientState, *, first: bool, itself: bool, now: float
    ) -> int | None:
        """The clock under which a state becomes current; None if it doesn't."""
        entry = self._entries.get(one.client)
        leaving = one.state == NULL
        if one.clock >= CLOCK_MAX:
            return None
        if entry is None:
            # To peers, the clock of a client that they don't know is 0.
            return one.clock if one.clock > 0 and not leaving else None
        taken = entry.owner is not None and entry.owner != owner and now - entry.heard_at < SILENT_S
        # Who reconnects to another node may be here before the former has noticed.
        if taken and not (entry.elsewhere and first):
            return None
        if one.clock > entry.clock:
            return one.clock if entry.here or not leaving else None
        if one.clock < entry.clock - entry.ahead:
            # It was announced anew on the node that it comes from, or while it was lost, and hasn't heard.
            return entry.clock + 1 if itself and not leaving else None
        if leaving:
            return entry.clock if entry.here and entry.owner == owner else None
        if entry.owner == owner and entry.here:
            # Ahead of its owner since it was announced anew; the owner hasn't heard yet, or repeats what it heard.
            if one.clock < entry.clock or one.state != entry.state:
                return entry.clock + 1
            entry.heard_at = now
            return None
        # The clock that we know: a client that is back says so in its first message. Later ones only repeat what
        # the client heard about others.
        if not first:
            return None
        return entry.clock if entry.here and one.state == entry.state else entry.clock + 1

    def _put(
        self,
        owner: Hashable,
        client: int,
        clock: int,
        state: bytes,
        now: float,
        *,
        elsewhere: bool = False,
        ahead: int = 0,
    ) -> None:
        entry = self._entries.get(client)
        known = len(entry.state) + ENTRY_BYTES if entry is not None and entry.here else 0
        size = self._bytes - known + len(state) + ENTRY_BYTES
        if size > self._room_bytes_max:
            raise RoomFull(f"awareness states of {size} bytes, at most {self._room_bytes_max} in a room")
        self._bytes = size
        if entry is None:
            entry = self._entries[client] = _Entry(0, NULL, None, now)
        if entry.owner is not None and entry.owner != owner:
            self._owned[entry.owner].discard(client)
        self._gone.pop(client, None)
        self._owned[owner].add(client)
        if clock != entry.clock or state != entry.state:
            self._changed.add(client)
        self.lively = self.lively or state != entry.state
        if not elsewhere and (client in self._changed or entry.elsewhere):
            self._changed.add(client)
            self._changed_here.add(client)
        entry.clock, entry.state, entry.owner, entry.heard_at = clock, state, owner, now
        entry.leaves_at, entry.elsewhere, entry.ahead = None, elsewhere, max(0, ahead)

    def _remove(self, client: int, *, clock: int, now: float) -> None:
        entry = self._entries[client]
        self._bytes -= len(entry.state) + ENTRY_BYTES
        if entry.owner is not None:
            self._owned[entry.owner].discard(client)
        entry.clock, entry.state, entry.owner, entry.leaves_at = clock, NULL, None, None
        self._gone[client] = now
        self._changed.add(client)
        self.lively = True
        if not entry.elsewhere:
            self._changed_here.add(client)
        if len(self._gone) > GONE_MAX:
            self._forget(next(iter(self._gone)))

    def _forget(self, client: int) -> None:
        del self._gone[client], self._entries[client]
        self._changed.discard(client)
        self._changed_here.discard(client)


def _read_json(text: bytes) -> object:
    try:
        value: object = json.loads(text.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"awareness state isn't JSON: {error}") from error
    if text.count(b"[") + text.count(b"{") > NESTING_MAX and _nests_too_deeply(value):
        raise ProtocolError(f"awareness state is nested deeper than {NESTING_MAX}")
    return value


def _nests_too_deeply(value: object) -> bool:
    level = [value]
    for _ in range(NESTING_MAX):
        level = [inner for outer in level for inner in _inside(outer)]
    return any(isinstance(one, dict | list) for one in level)


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
