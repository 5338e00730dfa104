"""One open document and everyone who has it open on this node.

Owns the order in which updates are accepted, stored and shown. Leaves bytes on their way to a client to
`connection`, bytes on their way to the store to `journal`, other nodes to `follow`, and who may be here at all to the
gateway.

An update that arrives is applied, handed to the journal and put into everybody's outbox in one turn of the event
loop. The bytes that are stored and relayed are the bytes that came.
"""

import asyncio
import logging
import secrets
import sys
import weakref
from bisect import insort
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Hashable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import NoReturn, Protocol

from persistence import Stored

from . import tracing
from .awareness import KEEP_ALIVE, Awareness, ClientState, read_states
from .connection import Connection, Relayed, Wants
from .document import LIGHT_BYTES, NEW, REPEAT, Document, Outcome, State
from .errors import (
    DocumentBroken,
    DocumentFull,
    DocumentGone,
    Draining,
    Idle,
    MessageTooBig,
    NotYetStored,
    ProtocolError,
    ReadOnly,
)
from .fanout import Fanout
from .journal import Journal
from .load import Load
from .metrics import Metrics
from .native import Doc
from .pacing import Turns, unhurried
from .protocol import (
    AWARENESS_KIND,
    AwarenessUpdate,
    Confirm,
    FreshToken,
    Message,
    QueryAwareness,
    SyncStep1,
    SyncUpdate,
    decode,
    encode_awareness,
    encode_denied,
    encode_step_1,
    encode_step_2,
    encode_update,
    kind_of,
    read_sole_update,
)
from .settings import Settings
from .update import STRANGERS_MAX, read_state_vector

log = logging.getLogger("crdt_sync.room")

# How long after somebody's return everybody is announced anew, and how often at most: many may return at once.
ANNOUNCE_S = 0.1
ANNOUNCE_INTERVAL_S = 1.0

# A node says that it has stored something in the turn in which it hears so itself.
BEHIND_S = 0.5

# So many answers to clients that join are kept for those that have the same and join soon after: until something changes, or for
# so long.
SHARED_MAX = 4
SHARED_S = 2.0

# How long somebody who wants to hear that something is stored waits for that.
STORE_TIMEOUT_S = 10.0


@dataclass(slots=True, eq=False)
class Capture:
    """A document's state at one moment, on its way to becoming a snapshot."""

    stored: asyncio.Event
    """Set when every update in it is stored, whichever node accepted it. A snapshot with more than that would be the only
    place where it is, and may be replaced by one without."""
    count: int
    """How many updates this room had accepted then."""
    seq: int
    """Every stored update up to this seq is in it. Grows while what is in it is being stored."""
    whole: bool = True
    """Whether that is everything in it; not if another node's updates came in between."""
    state: State = field(init=False)


class Others(Protocol):
    """The other nodes that may have the room open."""

    def accepted(self, update: bytes) -> None:
        """A client's update was accepted here, and is on its way into the store."""

    def stored(self, seq: int, count: int) -> None:
        """The next `count` of these are stored, the last of them as `seq`."""

    def awareness(self, payload: bytes) -> None:
        """Clients of this node have changed their states."""

    def announce(self) -> None:
        """Have them announce their clients anew."""

    def when_stored(self, then: Callable[[], None]) -> None:
        """Call `then` once all that came from other nodes so far is stored, or was handed to this node's journal."""


class NoOthers:
    """There is only this node."""

    def accepted(self, update: bytes) -> None:
        """See `Others.accepted`."""

    def stored(self, seq: int, count: int) -> None:
        """See `Others.stored`."""

    def awareness(self, payload: bytes) -> None:
        """See `Others.awareness`."""

    def announce(self) -> None:
        """See `Others.announce`."""

    def when_stored(self, then: Callable[[], None]) -> None:
        """See `Others.when_stored`."""
        then()


class _Adopted:
    """In the journal: what this node stores for others, beside what its own clients wrote."""

    def __init__(self, room: "Room") -> None:
        self.name = room.name
        self.unstored = 0
        # Weak, or each would keep the other, and the document, until garbage is collected. No room is unloaded before all of
        # this is stored.
        self._room = weakref.ref(room)

    def stored(self, seq: int, count: int) -> None:
        """See `journal.Log`."""
        self.unstored -= count
        room = self._room()
        if room is not None:
            room.note_stored(seq - count + 1, seq)


class Room:
    """An open document.

    Args:
        name: The document's name.
        document: Loaded with all that is stored.
        seq: Of the last stored update; 0 if there is none.
        journal: Takes accepted updates.
        settings: Intervals and bounds.
        turns: For large updates, shared by all rooms of the node.
        metrics: Where it is counted what goes in and out.
    """

    def __init__(
        self,
        name: str,
        document: Document,
        *,
        seq: int,
        journal: Journal,
        settings: Settings,
        turns: Turns | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.name = name
        self.connections: set[Connection] = set()
        self.dirty = False
        """Whether something was accepted since the last capture."""
        self.broken = False
        """Whether the document can't be trusted any more, and the room must be loaded anew."""
        self.buried = False
        """Whether it is `broken` because the document was deleted."""
        self.compactable = True
        """False once a state of it turned out not to be sound: its log stays as it is."""
        self.culprit: bytes | None = None
        """The update on which the document broke, if that is known."""
        self.others: Others = NoOthers()
        self.snapshot_seq = 0
        """What was last written as a snapshot has everything up to this seq; 0 if nothing was yet."""
        self.snapshot_whole = False
        """Whether it has nothing later."""
        self.content_bytes = 0
        """What the document occupies, about: its last state, and all that came since."""
        self.active_at = float("-inf")
        """When an update, or more of awareness than signs of life, last went to everybody here."""
        self.load: Load | None = None
        """How busy the node is: then awareness is passed on less often."""
        self._metrics = metrics or Metrics()
        self.traced = False
        """Whether there may be spans of what is done."""
        self._fanout = Fanout(self.connections, self._metrics, outbox_bytes_max=settings.outbox_bytes_max)
        # Asking for it each time is a system call each time.
        self._loop = asyncio.get_running_loop()
        self._document = document
        self._journal = journal
        self._adopted = _Adopted(self)
        self._settings = settings
        self._awareness = Awareness(
            client_bytes_max=settings.awareness_client_bytes_max,
            room_bytes_max=settings.awareness_room_bytes_max,
        )
        self._awareness_sent_at = float("-inf")
        self._awareness_timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._announced_at = float("-inf")
        self._announce_timer: asyncio.TimerHandle | None = None
        self._ticket = 0
        self._accepted = 0
        self._stored = 0
        self._capture: Capture | None = None
        # Everything up to `_known_seq` is in the document. What is too, but stands after something that isn't, is in
        # `_beyond`: first and last seq of each commit, ascending.
        self._known_seq = seq
        self._beyond: list[tuple[int, int]] = []
        self._behind_since: float | None = None
        self._in_doubt = False
        self._stored_seq = seq
        self._marked_at_accepted = -1
        # While an update is applied in pieces, the document holds something that nobody has accepted yet.
        self._turns = turns or Turns()
        self._in_pieces = asyncio.Lock()
        # Differences are made one after the other: what must be done before is done once.
        self._making = asyncio.Lock()
        # What was said to clients that joined with the same state vector, and when; all as of one revision of the document.
        self._shared: dict[bytes, tuple[Relayed, float]] = {}
        self._shared_revision = 0
        self._after_pieces: list[Callable[[], None]] = []

    @property
    def stored_seq(self) -> int:
        """Seq of the last update of this room that is known to be committed."""
        return self._stored_seq

    @property
    def known_seq(self) -> int:
        """The document has every stored update up to this seq."""
        return self._known_seq

    def is_behind(self, *, now: float) -> bool:
        """Whether other nodes have, or may have, stored updates that this one hasn't read: `take_in` what follows
        `known_seq`.

        What they stored just now doesn't count: they are about to say so.
        """
        return self._in_doubt or (self._behind_since is not None and now - self._behind_since >= BEHIND_S)

    def doubt(self) -> None:
        """Something may have been stored of which this node will hear nothing more: it has to look."""
        self._in_doubt = True

    @property
    def settled(self) -> bool:
        """Whether everything is stored, and in a snapshot if it can be: the room can be unloaded without regret."""
        compacted = not self.dirty and not self._beyond and not self._in_doubt
        # A snapshot that is under way might be written when the document is forgotten, and its name used anew.
        busy = self._capture is not None or self._in_pieces.locked()
        return self.unstored == 0 and not busy and (compacted or not self.compactable or self.broken)

    @property
    def wants_checkpoint(self) -> bool:
        """Whether `capture` would give a state that isn't on its way into the store yet."""
        busy = self._capture is not None or self._in_pieces.locked()
        return self.dirty and not busy and self.compactable and not self.broken

    @property
    def waiting(self) -> tuple[int, int]:
        """How many updates wait for others, and what they take, in bytes."""
        return self._document.waiting_count, self._document.waiting_bytes

    @property
    def unstored(self) -> int:
        """How many accepted updates aren't committed yet."""
        return self._accepted - self._stored + self._adopted.unstored

    def join(self, connection: Connection) -> None:
        """Let a client in: it hears at once what the room has and who is here."""
        self._fanout.flush()
        self.connections.add(connection)
        # Before any step 2: whoever has heard that, and calls itself synced, has then been asked for what is missing here,
        # and what it asks to have confirmed is on its way.
        self.ask(connection)
        connection.answer_who()

    def ask(self, connection: Connection) -> None:
        """Have a client send what the room lacks."""
        connection.notify(encode_step_1(self._document.state_vector()))

    def leave(self, connection: Connection, *, properly: bool) -> None:
        """A client is gone. Its user stays visible for a grace, a short one if it closed the connection itself."""
        self.connections.discard(connection)
        settings = self._settings
        now = self._loop.time()
        grace_s = settings.awareness_leave_s if properly else settings.awareness_grace_s
        self._awareness.leave(connection, now=now, grace_s=grace_s)
        self._schedule_expiry()

    def receive(self, connection: Connection, frame: bytes) -> Awaitable[None] | None:
        """Take in one frame of a client.

        Returns:
            None if that is done. Otherwise await what is returned, which takes its time so that other rooms needn't wait,
            before anything else of this client is received.

        Raises:
            SyncError: The client must be closed with it. What its earlier messages did stands.
        """
        self._metrics.received.count(kind_of(frame), len(frame))
        if self.broken:
            raise DocumentBroken("the room is being given up")
        if len(frame) > self._settings.message_bytes_max:
            raise MessageTooBig(f"message of {len(frame)} bytes, at most {self._settings.message_bytes_max}")
        update = read_sole_update(frame)
        if update is not None and connection.session.may_write and self._document.is_light(update):
            connection.active_at = self._loop.time()
            self.accept(update, sender=connection, user=connection.session.user)
            return None
        messages = decode(frame)
        for index, message in enumerate(messages):
            if index and len(frame) > LIGHT_BYTES:
                return self._receive_slowly(connection, messages[index:])
            if isinstance(message, SyncUpdate) and not self._document.is_light(message.update):
                return self._receive_slowly(connection, messages[index:])
            self._receive(connection, message)
        return None

    async def _receive_slowly(self, connection: Connection, messages: list[Message]) -> None:
        async for message in unhurried(messages):
            if connection.closing:
                # Its grant may have ended meanwhile.
                return
            if not isinstance(message, SyncUpdate) or self._document.is_light(message.update):
                self._receive(connection, message)
            elif connection.session.may_write:
                await self.accept_in_turns(message.update, sender=connection, user=connection.session.user)
            elif not await self._turns.take_large(self._document.knowing(message.update)):
                self._refuse_news(connection)

    async def accept_in_turns(self, update: bytes, *, sender: Connection | None, user: str | None = None) -> Outcome:
        """Like `accept`, without holding up other rooms, however large the update is.

        Edits of others are accepted in between, and need nothing of it, since nobody has heard of it.
        """
        async with self._in_pieces_alone():
            try:
                self._journal.require_space(len(update))
                if self._is_too_full_for(update) and await self._turns.take_large(self._document.adding(update)):
                    self._refuse_for_room(update)
                work = self._document.applying(update)
                large = len(update) > LIGHT_BYTES
                outcome = await (self._turns.take_large(work) if large else self._turns.take(work))
                if self.broken:
                    raise DocumentBroken("the room was given up meanwhile")
            except asyncio.CancelledError:
                self.fail(DocumentBroken("only a part of an update was taken in"))
                raise
            except DocumentBroken as error:
                self._fail_by(sender, error)
                raise
            self._accepted_new(update, outcome, sender, user)
            return outcome

    @asynccontextmanager
    async def _in_pieces_alone(self) -> AsyncIterator[None]:
        try:
            async with self._in_pieces:
                yield
        finally:
            waiting, self._after_pieces = self._after_pieces, []
            for then in waiting:
                self.when_stored(then)

    def accept(self, update: bytes, *, sender: Connection | None, user: str | None = None) -> Outcome:
        """Apply, journal and relay one update. One that may be large goes through `accept_in_turns`.

        Args:
            update: What came.
            sender: Whose connection it came by; that isn't sent it back.
            user: Who wrote it, as far as anybody knows.

        Raises:
            SyncError: It can't be taken. Nothing changed, unless it is `DocumentBroken`, after which `broken` is set.
        """
        self._journal.require_space(len(update))
        self._require_room_for(update)
        metrics = self._metrics
        began = perf_counter() if metrics.sample_apply else None
        try:
            outcome = self._document.apply(update)
        except DocumentBroken as error:
            self._fail_by(sender, error)
            raise
        if began is not None:
            metrics.sample_apply = False
            metrics.apply_seconds.observe(perf_counter() - began)
        self._accepted_new(update, outcome, sender, user)
        return outcome

    def _accepted_new(self, update: bytes, outcome: Outcome, sender: Connection | None, user: str | None) -> None:
        span = tracing.current.get() if self.traced else None
        if span is not None:
            span.step("apply", outcome=outcome.name, update_bytes=len(update))
        if outcome is REPEAT:
            return
        self.content_bytes += len(update)
        self._ticket = self._journal.add(self, update, user=user)
        self._accepted += 1
        self.dirty = True
        self.others.accepted(update)
        # What waits is shown to nobody before it is released. Whether others could load it isn't known before, they
        # couldn't show it either, and both Yjs and pycrdt may leave it pending for good if it comes too early.
        if outcome is NEW:
            self._relay(update, sender)
        for released in self._document.released:
            self._relay(released, None)
        if span is not None:
            span.step("relay", receivers=len(self.connections))

    def accept_from_elsewhere(self, update: bytes, *, adopt: bool) -> Outcome:
        """Take in what another node accepted: show it to the clients here, and store it if nobody else does.

        Args:
            update: What it sent.
            adopt: Whether to store it.

        Raises:
            ProtocolError: Not an update that this version takes. Nothing changed.
        """
        if self.broken:
            return REPEAT
        return self._take_over(update, self._apply_accepted(update), adopt)

    async def accept_from_elsewhere_in_turns(self, update: bytes, *, adopt: bool) -> Outcome:
        """Like `accept_from_elsewhere`, without holding up other rooms, however large the update is."""
        async with self._in_pieces_alone():
            if self.broken:
                return REPEAT
            try:
                outcome = await self._turns.take_large(self._document.restoring(update))
            except DocumentBroken as error:
                self.fail(error)
                return REPEAT
            return self._take_over(update, outcome, adopt)

    def is_light(self, update: bytes) -> bool:
        """Whether taking it in at once holds up nobody."""
        return self._document.is_light(update)

    def _take_over(self, update: bytes, outcome: Outcome, adopt: bool) -> Outcome:
        span = tracing.current.get() if self.traced else None
        if span is not None:
            span.step("apply", outcome=outcome.name, update_bytes=len(update))
        if outcome is not REPEAT:
            self.content_bytes += len(update)
        if outcome is NEW:
            self._relay(update, None)
        for released in self._document.released:
            self._relay(released, None)
        if span is not None:
            span.step("relay", receivers=len(self.connections))
        if outcome is not REPEAT and adopt:
            self.adopt(update)
        return outcome

    def refuse(self, harmful: Collection[bytes]) -> None:
        """Take in none of these updates any more, given by their digests."""
        self._document.refuse(harmful)

    def may_adopt(self) -> bool:
        """Whether `adopt` would help: the journal gets things stored."""
        return self._journal.failing_since is None

    def adopt(self, update: bytes) -> None:
        """Store an update that is in the document already, since it isn't sure that another node does."""
        self._ticket = self._journal.add(self._adopted, update)
        self._adopted.unstored += 1
        self.dirty = True

    def hear_from_elsewhere(self, node: Hashable, states: Iterable[ClientState]) -> None:
        """Take in what another node says of its clients."""
        self._awareness.hear(node, states, now=self._loop.time())
        self._schedule_awareness()
        self._schedule_announcement()

    def announce(self) -> None:
        """Announce this node's clients anew, for somebody who is back, here or on another node."""
        self._announced_at = self._loop.time()
        self._awareness.announce()
        self._schedule_awareness()

    def lose_node(self, node: Hashable) -> None:
        """Another node is gone. Its users stay visible for a moment, in which they may come back elsewhere."""
        now = self._loop.time()
        self._awareness.leave(node, now=now, grace_s=self._settings.awareness_grace_s)
        self._schedule_expiry()

    def who_is_here(self) -> bytes:
        """The states of this node's clients, as an awareness payload."""
        return self._awareness.everyone_here()

    def who_is_there(self) -> list[ClientState]:
        """The states of all clients, on whichever node."""
        everyone = self._awareness.everyone()
        return read_states(everyone) if everyone is not None else []

    def fingerprint(self) -> tuple[bytes, bytes]:
        """What tells apart documents with different content, and the state vector."""
        return self._document.fingerprint(), self._document.state_vector()

    async def difference(self, state_vector: bytes = b"\x00") -> bytes:
        """All that is shown and that somebody with this state vector lacks, as one update.

        It may take its time, so that other rooms needn't wait. What was accepted before the call is in it.

        Raises:
            ProtocolError: Not a state vector.
            DocumentBroken: The document can't be trusted any more.
        """
        try:
            async with self._making:
                return await self._make_difference(state_vector)
        except DocumentBroken as error:
            self.fail(error)
            raise

    async def copy(self, client_id: int) -> Doc:
        """Make a copy of the document as it is shown now, for somebody to edit as this client; it may take its time.

        Raises:
            DocumentBroken: The document can't be trusted any more.
        """
        try:
            await self._fold()
            # Not in the middle of an update, of which the other part may yet be refused.
            async with self._in_pieces_alone():
                copying = self._document.copying(client_id)
                next(copying)  # it is the document as of now
            return await self._turns.take_large(copying)
        except DocumentBroken as error:
            self.fail(error)
            raise

    def new_client_id(self) -> int:
        """A client id that nobody has written with here. Of 32 bits, as Yjs' own: they are repeated in every update."""
        while True:
            client_id = secrets.randbits(32)
            if not self._document.has_client(client_id):
                return client_id

    async def _make_difference(self, state_vector: bytes) -> bytes:
        await self._fold()
        return await self._turns.take(self._document.diffing(state_vector))

    async def _step_2(self, state_vector: bytes) -> Relayed:
        """The answer to a sync step 1, made once for all who say the same while nothing changes; see `difference`."""
        try:
            async with self._making:
                # Of before it is made: what is accepted meanwhile may not be in it.
                revision = self._document.revision
                if self._shared_revision != revision:
                    self._shared.clear()
                    self._shared_revision = revision
                if state_vector in self._shared:
                    return self._shared[state_vector][0]
                frame = Relayed(encode_step_2(await self._make_difference(state_vector)))
        except DocumentBroken as error:
            self.fail(error)
            raise
        if len(self._shared) < SHARED_MAX and self._shared_revision == revision:
            self._shared[state_vector] = frame, self._loop.time()
        return frame

    def _forget_shared(self, *, now: float) -> None:
        if self._shared_revision != self._document.revision:
            self._shared.clear()
        for state_vector in [one for one, (_, made_at) in self._shared.items() if now - made_at >= SHARED_S]:
            del self._shared[state_vector]

    async def lacks(self, state_vector: bytes) -> list[bytes]:
        """What a node with this state vector lacks, as updates; those that wait are always among them.

        Raises:
            ProtocolError: Not a state vector.
            DocumentBroken: The document can't be trusted any more.
        """
        return [await self.difference(state_vector), *self._document.waiting]

    def stored(self, seq: int, count: int) -> None:
        """The journal has committed this room's next `count` updates, with seqs up to `seq`."""
        first = seq - count + 1
        # Not compared with what was read or heard: that may be this commit, whose answer took longer.
        went_back = first <= self._stored_seq
        if went_back:
            self._known_seq, self._beyond = 0, []
        self._stored += count
        self._stored_seq = seq
        self.note_stored(first, seq)
        capture = self._capture
        if capture is not None:
            # Of these updates, the first so many are in the capture.
            captured = min(count, capture.count - (self._stored - count))
            if captured > 0:
                if capture.whole and first == capture.seq + 1:
                    capture.seq += captured
                else:
                    capture.whole = False
        if went_back:
            self._store_again(first)
        self.others.stored(seq, count)

    def note_stored(self, first: int, last: int) -> None:
        """What is stored with these seqs is in the document."""
        insort(self._beyond, (first, last))
        self._close_up()

    async def take_in(self, stored: Stored) -> None:
        """Bring the document, and the clients, up to what is stored.

        Args:
            stored: What was read after `known_seq`.
        """
        updates = list(stored.updates)
        if stored.snapshot is not None:
            updates[:0] = [stored.snapshot.state, *stored.snapshot.waiting]
        self.refuse(stored.quarantined)
        had = self._document.state_vector()
        changed = False
        try:
            async for update in unhurried(updates):
                changed |= not self.broken and await self._apply_stored(update) is not REPEAT
            if self.broken:
                return
            if changed:
                self._relay(await self.difference(had), None)
        except (DocumentBroken, ProtocolError) as error:
            self.fail(error)
            return
        self._known_seq = max(self._known_seq, stored.head_seq)
        self._close_up()
        self._in_doubt = False
        self.dirty = self.dirty or bool(updates)

    async def capture(self) -> Capture | None:
        """Take the document's state for a snapshot, None if there is none to be had.

        It may become one when all of it is stored. There is one capture at a time, until `captured`.
        """
        try:
            await self._fold()
            taking = self._document.taking_state()
            next(taking)  # it is the state as of now
            capture = self._capture = Capture(asyncio.Event(), self._accepted, self._known_seq)
            self.when_stored(capture.stored.set)
            # Cleared before the state is written, not after: what is accepted meanwhile must set it again.
            self.dirty = False
            state = capture.state = await self._turns.take(taking)
        except BaseException as error:
            self.captured(written=False)
            if not isinstance(error, DocumentBroken):
                raise
            self.fail(error)
            return None
        self.content_bytes = len(state.update) + sum(map(len, state.waiting))
        return capture

    def when_stored(self, then: Callable[[], None]) -> None:
        """Call `then` once all that is in the document now is stored: at once if it is."""
        if self._in_pieces.locked():
            self._after_pieces.append(then)
            return
        self.others.when_stored(lambda: self._journal.when_stored(self._ticket, then))

    async def until_stored(self, timeout_s: float = STORE_TIMEOUT_S) -> None:
        """Wait until all that is in the document now is stored.

        Raises:
            NotYetStored: That takes too long.
        """
        done = asyncio.Event()
        self.when_stored(done.set)
        try:
            async with asyncio.timeout(timeout_s):
                await done.wait()
        except TimeoutError as error:
            raise NotYetStored(f"not stored after {timeout_s:g} s; it was accepted, and will be") from error

    def captured(self, *, written: bool) -> None:
        """The capture has become a snapshot, or won't; one that isn't whole is soon followed by another."""
        capture, self._capture = self._capture, None
        self.dirty = self.dirty or not written or capture is None or not capture.whole
        if written and capture is not None:
            self.snapshot_seq, self.snapshot_whole = capture.seq, capture.whole

    def tick(self, *, now: float) -> None:
        """Look after quiet and slow clients; call it about once a second."""
        settings = self._settings
        self._fanout.flush()
        keep_alive = encode_awareness(KEEP_ALIVE)
        mark = None
        kept_alive = 0
        if self._accepted != self._marked_at_accepted and not self._in_pieces.locked():
            mark = self._document.state_vector()
            self._marked_at_accepted = self._accepted
        for connection in self.connections:
            if connection.idle:
                if mark is not None and connection.synced:
                    connection.had = mark
                if now - connection.sent_at >= settings.keep_alive_interval_s:
                    kept_alive += connection.relay(keep_alive)
            connection.check(now=now, stalled_max_s=settings.slow_reader_timeout_s)
            if 0 < settings.idle_timeout_s <= now - max(self.active_at, connection.active_at):
                connection.close(Idle.close_code, Idle.reason)
        self._metrics.sent.count(AWARENESS_KIND, len(keep_alive), kept_alive)
        if self._shared:
            self._forget_shared(now=now)
        self._awareness.expire(now=now)
        self._schedule_awareness()

    async def catch_up(self, wants: Wants) -> list[bytes]:
        """The frames that answer a client, or bring one that is behind from what it `had` to now.

        Raises:
            DocumentBroken: The document can't be trusted any more.
        """
        frames = []
        if wants.step_2 or wants.behind:
            if wants.step_2:
                frame: bytes = await self._step_2(wants.had)
            else:
                frame = encode_update(await self.difference(wants.had))
            if wants.behind:
                # The step 1 with which it was greeted may have been dropped.
                frames.append(encode_step_1(self._document.state_vector()))
            frames.append(frame)
        # Who was behind hasn't heard who left.
        everyone = self._awareness.everyone(and_gone=wants.behind)
        if everyone is not None:
            frames.append(encode_awareness(everyone))
        return frames

    async def _fold(self) -> None:
        """Have the document ready to be encoded. Edits wait meanwhile; there is something to do only after made-up ones."""
        while self._document.is_behind:
            async with self._in_pieces_alone():
                await self._turns.take_large(self._document.folding())

    def fail(self, error: Exception) -> None:
        """Give the document up: what is stored, or on its way there, is right. Clients come back when it is loaded."""
        if self.broken:
            return
        log.error("document_broken", extra={"room": self.name, "error": str(error)})
        self.broken = True
        self.culprit = error.culprit if isinstance(error, DocumentBroken) else None
        self.close(DocumentBroken.close_code, DocumentBroken.reason)

    def _fail_by(self, sender: Connection | None, error: DocumentBroken) -> None:
        if sender is not None:
            # Before the others: if it is this client's fault, it must hear so and not come back with it.
            sender.close(error.close_code, error.reason)
        self.fail(error)

    def bury(self) -> None:
        """Give the document up since it was deleted. What was accepted is stored all the same: it may be wanted back."""
        self.broken = self.buried = True
        self.close(DocumentGone.close_code, DocumentGone.reason)

    def close(self, code: int = Draining.close_code, reason: str = Draining.reason) -> None:
        """Close all clients."""
        self._fanout.flush()
        for connection in self.connections:
            connection.close(code, reason)
        for timer in (self._awareness_timer, self._expiry_timer, self._announce_timer):
            if timer is not None:
                timer.cancel()

    def _require_room_for(self, update: bytes) -> None:
        """Refuse what a client adds to a document that is as large as it may be. Other nodes' updates are never refused."""
        if self._is_too_full_for(update) and self._document.adds(update):
            self._refuse_for_room(update)

    def _is_too_full_for(self, update: bytes) -> bool:
        return self.content_bytes + len(update) > self._settings.document_bytes_max

    def _refuse_for_room(self, update: bytes) -> NoReturn:
        if self.load is not None:
            self.load.limits.note("document_bytes", self.name)
        bytes_max = self._settings.document_bytes_max
        raise DocumentFull(f"{self.content_bytes} bytes and {len(update)} more are over {bytes_max}")

    async def _apply_stored(self, update: bytes) -> Outcome:
        if self._document.is_light(update):
            return self._apply_accepted(update)
        async with self._in_pieces_alone():
            return await self._turns.take_large(self._document.restoring(update))

    def _apply_accepted(self, update: bytes) -> Outcome:
        """Apply what some node has accepted. The bound on what waits is for what clients send."""
        self._document.bound_waiting(sys.maxsize)
        try:
            return self._document.restore(update)
        except DocumentBroken as error:
            self.fail(error)
            return REPEAT
        finally:
            self._document.bound_waiting(self._settings.waiting_bytes_max)

    def _close_up(self) -> None:
        """Count as known what is stored and in the document, as far as nothing is missing before it."""
        while self._beyond and self._beyond[0][0] <= self._known_seq + 1:
            self._known_seq = max(self._known_seq, self._beyond.pop(0)[1])
        if not self._beyond:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = self._loop.time()

    def _store_again(self, seq: int) -> None:
        """The store handed out a seq that had been taken: it has lost its end, as a standby that took over may have.

        What the document has is all that was accepted or read here; so that goes into the store once more.
        """
        log.error("store_lost_updates", extra={"room": self.name, "seq": seq})
        self.compactable = True
        try:
            state = self._document.state()
        except DocumentBroken as error:
            self.fail(error)
            return
        for update in (state.update, *state.waiting):
            self.adopt(update)

    def _relay(self, update: bytes, sender: Connection | None) -> None:
        frame = Relayed(encode_update(update))
        if sender is not None and self._metrics.sample_delivery:
            self._metrics.sample_delivery = False
            frame.received_at = sender.received_at
        self.active_at = self._loop.time()
        self._fanout.relay(frame, sender)

    def _receive(self, connection: Connection, message: Message) -> None:
        if not isinstance(message, AwarenessUpdate):
            connection.active_at = self._loop.time()
        match message:
            case SyncUpdate(update):
                if connection.session.may_write:
                    self.accept(update, sender=connection, user=connection.session.user)
                else:
                    self._refuse_update(connection, update)
            case AwarenessUpdate(payload):
                if len(payload) > self._settings.awareness_room_bytes_max:
                    raise MessageTooBig(f"awareness of {len(payload)} bytes in one message")
                now = self._loop.time()
                session = connection.session
                try:
                    states = session.stamp(read_states(payload))
                    self._awareness.receive(connection, states, now=now, may_be=session.may_be)
                finally:
                    self._schedule_awareness()
                    self._schedule_announcement()
            case SyncStep1(state_vector):
                read_state_vector(state_vector, clients_max=self._document.clients + STRANGERS_MAX)
                connection.answer_sync(state_vector)
            case QueryAwareness():
                connection.answer_who()
            case Confirm(token):
                if connection.session.refused_updates:
                    # Not all that it has sent is stored, nor ever will be.
                    return
                # Up to the room's last update, not the client's: what the client sent may have been a repeat of
                # something that came from elsewhere and isn't stored yet.
                connection.expect_confirm()
                self.when_stored(lambda: connection.confirm(token))
            case FreshToken(credential):
                connection.session.show_token(credential)

    def _refuse_update(self, connection: Connection, update: bytes) -> None:
        """Don't take an update of a client that may only read. One without news is no attempt to write.

        Raises:
            ReadOnly: It has to go for it.
            MalformedUpdate: It isn't an update.
        """
        if not self._document.knows(update):
            self._refuse_news(connection)

    def _refuse_news(self, connection: Connection) -> None:
        connection.session.refused_updates += 1
        if self._settings.read_only_updates == "close":
            raise ReadOnly("an update from a client that may only read")
        if connection.session.refused_updates == 1:
            connection.notify(encode_denied(ReadOnly.reason))
            log.warning("updates_dropped", extra={"room": self.name, "connection": connection.id})

    def _schedule_awareness(self) -> None:
        """Tell everyone what changed in awareness: soon, and not more often than the interval allows."""
        if self._awareness_timer is None and self._awareness.changed:
            loop = self._loop
            stretch = self.load.awareness_stretch if self.load is not None else 1
            due = self._awareness_sent_at + stretch * self._settings.awareness_interval_s
            self._awareness_timer = loop.call_at(due, self._send_awareness)

    def _send_awareness(self) -> None:
        self._awareness_timer = None
        told = self._awareness.take_changes_here()
        if told is not None:
            self.others.awareness(told)
        lively = self._awareness.lively
        changes = self._awareness.take_changes()
        if changes is None:
            return
        self._awareness_sent_at = self._loop.time()
        if lively:
            self.active_at = self._awareness_sent_at
        # To the sender too: y-websocket drops a connection on which it hears nothing for 30 s.
        self._fanout.relay(Relayed(encode_awareness(changes)))

    def _schedule_announcement(self) -> None:
        """Announce everybody anew, on all nodes, if somebody is back: soon, and not more often than once a second."""
        if self._announce_timer is None and self._awareness.returned:
            loop = self._loop
            due = max(loop.time() + ANNOUNCE_S, self._announced_at + ANNOUNCE_INTERVAL_S)
            self._announce_timer = loop.call_at(due, self._announce_everybody)

    def _announce_everybody(self) -> None:
        self._announce_timer = None
        # Another node may have seen to it meanwhile.
        if self._awareness.returned:
            self.others.announce()
            self.announce()

    def _schedule_expiry(self) -> None:
        due = self._awareness.next_expiry()
        if due is None:
            return
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
        self._expiry_timer = self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        self._expiry_timer = None
        self._awareness.expire(now=self._loop.time())
        self._schedule_awareness()
        self._schedule_expiry()
