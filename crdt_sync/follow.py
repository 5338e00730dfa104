"""One room's part in the cluster: what this node tells the others, and what it makes of what they tell.

Owns the making up for a bus that loses, repeats and reorders, and knowing which of the others' updates are stored.
Leaves carrying bytes to `bus`, documents to `room`, and which nodes live to `nodes`.

Each opening of a room on a node is a *source*, and counts the updates that it publishes. So others notice what they
miss: by the next update, by the count that follows a burst, or, when a bus says that it may have lost something, by
asking everyone. What is missing is looked for in the room's short-term log first. If it isn't there, the nodes compare
fingerprints and state vectors, and whoever has more sends the difference.

An update is *confirmed* by the node that its author is connected to. But a client may reconnect to another node, send it
again, and ask there. So a node remembers which of the others' updates it hasn't heard to be stored. If that takes too
long, or their node is gone, it stores them itself: storing twice is harmless.
"""

import asyncio
import logging
import random
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from . import tracing
from .awareness import read_states
from .bus import Bus, BusUnavailable, Kept
from .document import Outcome
from .envelope import NODE_BYTES, Envelope, Kind, decode, encode, read_parts, write_parts
from .errors import DocumentBroken, ProtocolError
from .lib0 import read_var_bytes, read_var_uint, write_var_bytes, write_var_uint
from .metrics import Metrics
from .room import Room

log = logging.getLogger("crdt_sync.follow")

# What only took another way is there by then.
REORDER_S = 0.05
# How long another node may take to store an update before this one does. Its journal takes a fraction of a second.
ADOPT_S = 3.0
# So many ticks after publishing it is said how far one has counted: soon, and again in case that is lost.
TAIL_TICKS = (1, 3, 8, 20, 60)
# Before that, a room isn't given up by a node that others may have missed something from.
TAIL_TICKS_MIN = 8
# When to ask a node again, if there was no answer. Everyone is asked twice, since nobody knows how many should answer.
ASK_AGAIN_S = (0.5, 1.0, 2.0, 4.0, 8.0)
ASK_EVERYONE_AGAIN_S = 1.0
# After the bus was away, all rooms of all nodes ask each other. Spread over this long.
RESYNC_SPREAD_S = 1.0
# So many openings of a room are remembered, most of them over.
SOURCES_MAX = 200
# What may arrive for a room while it is being loaded.
EARLY_BYTES_MAX = 4 << 20


@dataclass(slots=True)
class _Source:
    """What is known of one source."""

    next: int = 1
    """Everything that it has published before this number is in the document."""
    ahead: set[int] = field(default_factory=set)
    """Numbers after a gap that are too."""
    published: int = 0
    """How far it is known to have counted."""
    stored: int = 0
    """Its updates up to this number are stored."""
    unstored: deque[tuple[int, bytes, float]] = field(default_factory=deque)
    """Number, update and time of arrival of those that aren't, as far as is known."""

    @property
    def lacks(self) -> bool:
        """Whether something that it has published isn't here."""
        return self.published >= self.next

    def has(self, number: int) -> bool:
        """Whether that update is here."""
        return number < self.next or number in self.ahead

    def got(self, number: int) -> None:
        """That update is here."""
        self.ahead.add(number)
        self._close_up(number)

    def got_all_up_to(self, number: int) -> None:
        """That update is here, and all before it."""
        self.next = max(self.next, number + 1)
        self.ahead = {one for one in self.ahead if one >= self.next}
        self._close_up(number)

    def _close_up(self, number: int) -> None:
        self.published = max(self.published, number)
        while self.next in self.ahead:
            self.ahead.discard(self.next)
            self.next += 1


class Follower:
    """A room's end of the bus. Listens from the moment that it is made; acts once it is started.

    Args:
        name: The room's.
        bus: Open.
        metrics: Where it is counted what was made up for.
        tracer: Makes spans, if there are to be any.
    """

    def __init__(
        self, name: str, bus: Bus, metrics: Metrics | None = None, tracer: tracing.Tracer | None = None
    ) -> None:
        self._metrics = metrics or Metrics()
        self._tracer = tracer
        self.name = name
        self.ignored = 0
        """Messages that this version can't read, or whose content it doesn't take."""
        self._bus = bus
        self._node = bytes.fromhex(bus.node)
        self._source = self._node + secrets.token_bytes(4)
        self._room: Room | None = None
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._sources: dict[bytes, _Source] = {}
        self._peers: set[bytes] = set()
        self._position: str | None = None
        self._outgoing: list[bytes] = []
        # Of the first of them that is traced.
        self._outgoing_trace = ""
        self._published = 0
        self._quiet_ticks = 0
        self._stored = 0
        self._marked = False
        self._waiters: list[tuple[dict[bytes, int], Callable[[], None]]] = []
        self._asking: set[bytes] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # Large updates on their way into the room, and whether to store them.
        self._large: deque[tuple[bytes, bool]] = deque()
        bus.follow(name, self)

    # ------------------------------------------------------------------------------------------------- life

    async def catch_up(self) -> list[Kept]:
        """Read the short-term log: what was published lately, which the store may not have.

        Raises:
            BusUnavailable: The bus is away. The room may be opened without; `resync` follows.
        """
        return await self._bus.tail(self.name, None)

    async def listening(self) -> None:
        """Return once nothing that is published passes by unheard.

        Raises:
            BusUnavailable: As for `catch_up`.
        """
        await self._bus.followed(self.name)

    def start(self, room: Room, kept: Iterable[Kept]) -> None:
        """Take in what has come so far, and whatever comes from now on.

        Args:
            room: Loaded from the store after `listening`.
            kept: From `catch_up`, read after that.
        """
        self._room = room
        room.others = self
        for one in kept:
            self._take(one.message)
            self._position = one.position
        early, self._early = self._early, []
        for message in early:
            self._take(message)
        self._start("ask everyone", self._ask_everyone())

    def close(self) -> None:
        """Follow no more."""
        self._bus.unfollow(self.name)
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    @property
    def settled(self) -> bool:
        """Whether nothing waits here that somebody else may not have."""
        if self._room is not None and self._room.broken:
            # It hears nothing more, and says nothing. What others have accepted, they store; what they missed of this node's
            # they find when it opens the room anew and asks everyone, or in the store.
            return not self._outgoing
        told = not self._published or not self._peers or self._quiet_ticks >= TAIL_TICKS_MIN
        return (
            told
            and not self._outgoing
            and not self._large
            and not any(source.unstored for source in self._sources.values())
        )

    @property
    def published(self) -> bool:
        """Whether what was accepted here has gone out to the log and the other nodes, as far as is known."""
        return not self._outgoing and self._bus.problem is None

    # ------------------------------------------------------------------------------------------------- from the room

    def accepted(self, update: bytes) -> None:
        """See `room.Others`. All of a turn of the event loop becomes one message."""
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._send)
        self._outgoing.append(update)
        if self._tracer is not None and not self._outgoing_trace and (span := tracing.current.get()) is not None:
            self._outgoing_trace = span.traceparent
        if not self._marked:
            self._marked = True
            self._bus.mark(self.name)

    def stored(self, seq: int, count: int) -> None:
        """See `room.Others`."""
        self._stored += count
        if self._peers:
            body = write_var_uint(seq - count + 1) + write_var_uint(seq)
            self._publish(Kind.STORED, number=self._stored, body=body)
        if self._stored == self._published + len(self._outgoing):
            self._marked = False
            self._bus.unmark(self.name)

    def awareness(self, payload: bytes) -> None:
        """See `room.Others`."""
        if self._peers:
            self._publish(Kind.AWARENESS, body=payload)

    def announce(self) -> None:
        """See `room.Others`."""
        self._publish(Kind.ANNOUNCE)

    def when_stored(self, then: Callable[[], None]) -> None:
        """See `room.Others`."""
        wanted = {
            key: max(number for number, _, _ in source.unstored)
            for key, source in self._sources.items()
            if source.unstored
        }
        if wanted:
            self._waiters.append((wanted, then))
        else:
            then()

    def tick(self, *, now: float) -> None:
        """Say how far we are after a burst, and store what the others take too long for; call it once a second."""
        room = self._room
        if room is None or room.broken:
            return
        self._quiet_ticks += 1
        if self._published and self._peers and self._quiet_ticks in TAIL_TICKS:
            self._publish(Kind.TAIL, number=self._published)
        for key, source in self._sources.items():
            if source.unstored and now - source.unstored[0][2] >= ADOPT_S and room.may_adopt():
                self._adopt(key)
                # It may not know that anybody listens.
                self._ask(key[:NODE_BYTES])
        for key in list(self._sources)[:-SOURCES_MAX]:
            # Somebody who opened the room long ago. Should it speak again, it is asked what it has said so far.
            if not self._sources[key].unstored:
                del self._sources[key]

    # ------------------------------------------------------------------------------------------------- from the bus

    def receive(self, message: bytes) -> None:
        """See `bus.Listener`."""
        if self._room is not None:
            self._take(message)
            return
        self._early_bytes += len(message)
        # What doesn't fit will be missed, and asked for.
        if self._early_bytes <= EARLY_BYTES_MAX:
            self._early.append(message)

    def resync(self) -> None:
        """See `bus.Listener`."""
        if self._room is not None:
            self._start("resync", self._resync())

    def meet_node(self, node: bytes) -> None:
        """A node has been living without being heard of: it may have the room open, and miss something of it."""
        self._peers.add(node)
        self.resync()

    def lose_node(self, node: bytes) -> None:
        """A node is gone: what it may not have stored is stored here."""
        was_here = node in self._peers
        self._peers.discard(node)
        self._asking.discard(node)
        room = self._room
        if room is None or room.broken:
            return
        room.lose_node(node)
        for key in [key for key in self._sources if key.startswith(node)]:
            self._adopt(key)
            # It can't be asked any more. Others may have what it published last, and so may the log.
            del self._sources[key]
        if was_here:
            self._start("resync", self._resync())
        self._wake()

    def _take(self, message: bytes) -> None:
        room = self._room
        assert room is not None, "started"
        try:
            envelope = decode(message)
            if envelope.source == self._source or room.broken:
                return
            if envelope.node != self._node:
                self._peers.add(envelope.node)
            self._handle(room, envelope)
        except ProtocolError as error:
            self.ignored += 1
            log.warning("bus_message_ignored", extra={"room": self.name, "error": str(error)})
        except Exception as error:
            log.exception("bus_message_failed", extra={"room": self.name})
            room.fail(error)

    def _handle(self, room: Room, envelope: Envelope) -> None:
        match envelope.kind:
            case Kind.UPDATES:
                if self._tracer is not None and envelope.trace:
                    self._take_traced(room, envelope, self._tracer)
                else:
                    self._take_updates(room, envelope)
            case Kind.STORED:
                first, pos = read_var_uint(envelope.body, 0)
                last, _ = read_var_uint(envelope.body, pos)
                self._take_stored(room, envelope, first, last)
            case Kind.TAIL:
                self._note_published(self._source_of(envelope), envelope.number)
            case Kind.AWARENESS:
                room.hear_from_elsewhere(envelope.node, read_states(envelope.body))
            case Kind.ANNOUNCE:
                room.announce()
            case Kind.ASK:
                if envelope.to in (b"", self._node):
                    self._answer(room, envelope)
            case Kind.ANSWER:
                if envelope.to == self._node:
                    self._take_answer(room, envelope)
            case _:
                self.ignored += 1

    def _take_traced(self, room: Room, envelope: Envelope, tracer: tracing.Tracer) -> None:
        span = tracer.follow("follow", envelope.trace)
        if span is not None:
            span.describe(room=self.name, from_node=envelope.node.hex(), body_bytes=len(envelope.body))
        with tracing.within(span):
            self._take_updates(room, envelope)

    def _take_updates(self, room: Room, envelope: Envelope) -> None:
        source = self._source_of(envelope)
        now = asyncio.get_running_loop().time()
        for number, update in enumerate(read_parts(envelope.body), start=envelope.number):
            if source.has(number):
                continue
            try:
                outcome = self._accept(room, update, adopt=False)
            except ProtocolError as error:
                # Another version's, perhaps. Whoever accepted it stores it.
                self.ignored += 1
                log.error("update_from_elsewhere_refused", extra={"room": self.name, "error": str(error)})
                outcome = Outcome.REPEAT
            if outcome is not Outcome.REPEAT and number > source.stored:
                source.unstored.append((number, update, now))
            source.got(number)
        self._note_published(source, source.published)

    def _take_stored(self, room: Room, envelope: Envelope, first: int, last: int) -> None:
        source = self._source_of(envelope)
        source.stored = max(source.stored, envelope.number)
        source.unstored = deque(one for one in source.unstored if one[0] > source.stored)
        if all(source.has(number) for number in range(envelope.number - (last - first), envelope.number + 1)):
            room.note_stored(first, last)
        self._wake()
        self._note_published(source, envelope.number)

    def _source_of(self, envelope: Envelope) -> _Source:
        return self._sources.setdefault(envelope.source, _Source())

    def _note_published(self, source: _Source, number: int) -> None:
        source.published = max(source.published, number)
        if source.lacks:
            self._start("gap", self._fill_gaps())

    # ------------------------------------------------------------------------------------------------- making up

    async def _fill_gaps(self) -> None:
        await asyncio.sleep(REORDER_S)
        if not any(source.lacks for source in self._sources.values()):
            return
        lacking = [source for source in self._sources.values() if source.lacks]
        await self._read_log()
        self._metrics.bus_gaps_repaired += sum(not source.lacks for source in lacking)
        for node in dict.fromkeys(key[:NODE_BYTES] for key, source in self._sources.items() if source.lacks):
            self._ask(node)

    async def _read_log(self) -> None:
        try:
            kept = await self._bus.tail(self.name, self._position)
        except BusUnavailable:
            return
        for one in kept:
            self._take(one.message)
            self._position = one.position

    async def _resync(self) -> None:
        await asyncio.sleep(random.uniform(0, RESYNC_SPREAD_S))
        await self._read_log()
        if self._room is not None:
            # Who could tell may be gone.
            self._room.doubt()
            self._publish(Kind.AWARENESS, body=self._room.who_is_here())
        await self._ask_everyone()

    def _ask(self, node: bytes) -> None:
        """Ask a node for what is missing here, until there is an answer or no hope of one."""
        if node not in self._asking:
            self._asking.add(node)
            self._start(f"ask {node.hex()}", self._ask_until_answered(node), anew=True)

    async def _ask_everyone(self) -> None:
        self._publish_ask(b"")
        await asyncio.sleep(ASK_EVERYONE_AGAIN_S)
        self._publish_ask(b"")

    async def _ask_until_answered(self, node: bytes) -> None:
        for again_s in ASK_AGAIN_S:
            self._publish_ask(node)
            await asyncio.sleep(again_s)
            if node not in self._asking:
                return
        self._asking.discard(node)

    def _publish_ask(self, node: bytes, *, back: bool = False) -> None:
        room = self._room
        if room is not None and not room.broken:
            fingerprint, state_vector = room.fingerprint()
            body = write_var_bytes(fingerprint) + write_var_bytes(state_vector)
            self._publish(Kind.ASK, number=int(back), to=node, body=body)

    def _answer(self, room: Room, envelope: Envelope) -> None:
        fingerprint, pos = read_var_bytes(envelope.body, 0)
        state_vector, _ = read_var_bytes(envelope.body, pos)
        self._send()
        if fingerprint == room.fingerprint()[0]:
            self._publish_answer(room, envelope.node, self._published, [])
        else:
            self._start(f"answer {envelope.node.hex()}", self._make_up(room, envelope, self._published, state_vector))

    async def _make_up(self, room: Room, envelope: Envelope, published: int, state_vector: bytes) -> None:
        """Tell a node what it lacks of all that was `published`, and of what came since."""
        try:
            updates = await room.lacks(state_vector)
        except (DocumentBroken, ProtocolError) as error:
            self.ignored += 1
            log.error("answer_failed", extra={"room": self.name, "error": str(error)})
            return
        self._publish_answer(room, envelope.node, published, updates)
        if not envelope.number:
            self._publish_ask(envelope.node, back=True)

    def _publish_answer(self, room: Room, node: bytes, published: int, updates: list[bytes]) -> None:
        self._publish(Kind.ANSWER, number=published, to=node, body=write_parts([room.who_is_here(), *updates]))

    def _take_answer(self, room: Room, envelope: Envelope) -> None:
        who, *updates = read_parts(envelope.body)
        room.hear_from_elsewhere(envelope.node, read_states(who))
        for update in updates:
            # Nobody will say when these are stored.
            self._accept(room, update, adopt=True)
        # With that, everything up to the answer is here.
        source = self._source_of(envelope)
        self._metrics.bus_gaps_repaired += source.lacks
        source.got_all_up_to(envelope.number)
        self._asking.discard(envelope.node)

    # ------------------------------------------------------------------------------------------------- large

    def _accept(self, room: Room, update: bytes, *, adopt: bool) -> Outcome:
        """Have the room take an update: at once, or soon, if that would hold up other rooms."""
        if room.broken or room.is_light(update):
            return room.accept_from_elsewhere(update, adopt=adopt)
        self._large.append((update, adopt))
        self._start("large", self._accept_large(room))
        return Outcome.NEW

    async def _accept_large(self, room: Room) -> None:
        while self._large:
            update, adopt = self._large[0]
            try:
                await room.accept_from_elsewhere_in_turns(update, adopt=adopt)
            except ProtocolError as error:
                self.ignored += 1
                log.error("update_from_elsewhere_refused", extra={"room": self.name, "error": str(error)})
            self._large.popleft()

    # ------------------------------------------------------------------------------------------------- small

    def _adopt(self, key: bytes) -> None:
        room, source = self._room, self._sources[key]
        assert room is not None, "started"
        for _, update, _ in source.unstored:
            room.adopt(update)
        source.unstored.clear()
        self._wake()

    def _wake(self) -> None:
        """Call those whose wait is over."""
        waiting, self._waiters = self._waiters, []
        for wanted, then in waiting:
            left = {key: number for key, number in wanted.items() if self._is_unstored(key, number)}
            if left:
                self._waiters.append((left, then))
            else:
                then()

    def _is_unstored(self, key: bytes, upto: int) -> bool:
        source = self._sources.get(key)
        return source is not None and any(number <= upto for number, _, _ in source.unstored)

    def _send(self) -> None:
        updates, self._outgoing = self._outgoing, []
        trace, self._outgoing_trace = self._outgoing_trace, ""
        if updates:
            body = write_parts(updates)
            self._publish(Kind.UPDATES, number=self._published + 1, body=body, trace=trace, keep=True)
            self._published += len(updates)
            self._quiet_ticks = 0

    def _publish(
        self, kind: Kind, *, number: int = 0, to: bytes = b"", body: bytes = b"", trace: str = "", keep: bool = False
    ) -> None:
        self._bus.publish(self.name, encode(Envelope(kind, self._source, number, to, body, trace)), keep=keep)

    def _start(self, name: str, work: object, *, anew: bool = False) -> None:
        """Run `work` in the background, unless it is running already."""
        running = self._tasks.get(name)
        if running is not None and not running.done():
            if not anew:
                work.close()  # type: ignore[attr-defined]
                return
            running.cancel()
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        task.add_done_callback(_complain)
        self._tasks[name] = task


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("follower_failed", exc_info=task.exception())
