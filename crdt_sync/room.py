"""One open document and everyone who has it open on this node.

Owns the order in which updates are accepted, stored and shown. Leaves bytes on their way to a client to
`connection`, bytes on their way to the store to `journal`, and who may be here at all to the gateway.

An update that arrives is applied, handed to the journal and put into everybody's outbox in one turn of the event
loop. The bytes that are stored and relayed are the bytes that came.
"""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from .awareness import KEEP_ALIVE, Awareness, read_states
from .connection import Connection
from .document import Document, Outcome, State
from .errors import DocumentBroken, Draining, MessageTooBig
from .journal import Journal
from .protocol import (
    AwarenessUpdate,
    Confirm,
    Message,
    QueryAwareness,
    SyncStep1,
    SyncUpdate,
    decode,
    encode_awareness,
    encode_step_1,
    encode_step_2,
    encode_update,
)
from .settings import Settings
from .update import read_state_vector

log = logging.getLogger("crdt_sync.room")


@dataclass(slots=True)
class Capture:
    """A document's state at one moment, on its way to becoming a snapshot."""

    state: State
    ticket: int
    """The journal's ticket of the last update in it."""
    count: int
    """How many updates this room had accepted then."""
    seq: int | None = None
    """The seq of the last update in it, once that is stored."""


class Room:
    """An open document.

    Args:
        name: The document's name.
        document: Loaded with all that is stored.
        seq: Of the last stored update; 0 if there is none.
        journal: Takes accepted updates.
        settings: Intervals and bounds.
    """

    def __init__(self, name: str, document: Document, *, seq: int, journal: Journal, settings: Settings) -> None:
        self.name = name
        self.connections: set[Connection] = set()
        self.dirty = False
        """Whether something was accepted since the last capture."""
        self.broken = False
        """Whether the document can't be trusted any more, and the room must be loaded anew."""
        self.compactable = True
        """False once a state of it turned out not to be sound: its log stays as it is."""
        self.culprit: bytes | None = None
        """The update on which the document broke, if that is known."""
        self._document = document
        self._journal = journal
        self._settings = settings
        self._awareness = Awareness(
            client_bytes_max=settings.awareness_client_bytes_max,
            room_bytes_max=settings.awareness_room_bytes_max,
        )
        self._awareness_sent_at = float("-inf")
        self._awareness_timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._ticket = 0
        self._accepted = 0
        self._stored = 0
        self._capture: Capture | None = None
        self._stored_seq = seq
        self._marked_at_accepted = -1

    @property
    def stored_seq(self) -> int:
        """Seq of the last update of this room that is known to be committed."""
        return self._stored_seq

    @property
    def settled(self) -> bool:
        """Whether everything is stored, and in a snapshot if it can be: the room can be unloaded without regret."""
        compacted = not self.dirty and self._capture is None
        return self.unstored == 0 and (compacted or not self.compactable or self.broken)

    @property
    def wants_checkpoint(self) -> bool:
        """Whether `capture` would give a state that isn't on its way into the store yet."""
        return self.dirty and self._capture is None and self.compactable and not self.broken

    @property
    def unstored(self) -> int:
        """How many accepted updates aren't committed yet."""
        return self._accepted - self._stored

    def join(self, connection: Connection) -> None:
        """Let a client in: it hears at once what the room has and who is here."""
        self.connections.add(connection)
        connection.relay(encode_step_1(self._document.state_vector()))
        connection.answer_who()

    def leave(self, connection: Connection, *, properly: bool) -> None:
        """A client is gone. Its user stays visible for a grace, a short one if it closed the connection itself."""
        self.connections.discard(connection)
        settings = self._settings
        now = asyncio.get_running_loop().time()
        grace_s = settings.awareness_leave_s if properly else settings.awareness_grace_s
        self._awareness.leave(connection, now=now, grace_s=grace_s)
        self._schedule_expiry()

    def receive(self, connection: Connection, frame: bytes) -> None:
        """Take in one frame of a client.

        Raises:
            SyncError: The client must be closed with it. What its earlier messages did stands.
        """
        if self.broken:
            raise DocumentBroken("the room is being given up")
        if len(frame) > self._settings.message_bytes_max:
            raise MessageTooBig(f"message of {len(frame)} bytes, at most {self._settings.message_bytes_max}")
        for message in decode(frame):
            self._receive(connection, message)

    def accept(self, update: bytes, *, sender: Connection | None) -> Outcome:
        """Apply, journal and relay one update.

        Raises:
            SyncError: It can't be taken. Nothing changed, unless it is `DocumentBroken`, after which `broken` is set.
        """
        self._journal.require_space(len(update))
        try:
            outcome = self._document.apply(update)
        except DocumentBroken as error:
            if sender is not None:
                # Before the others: if it is this client's fault, it must hear so and not come back with it.
                sender.close(error.close_code, error.reason)
            self.fail(error)
            raise
        if outcome is Outcome.REPEAT:
            return outcome
        self._ticket = self._journal.add(self, update)
        self._accepted += 1
        self.dirty = True
        # What waits is shown to nobody before it is released. Whether others could load it isn't known before, they
        # couldn't show it either, and both Yjs and pycrdt may leave it pending for good if it comes too early.
        if outcome is Outcome.NEW:
            self._relay(update, sender)
        for released in self._document.released:
            self._relay(released, None)
        return outcome

    def stored(self, seq: int, count: int) -> None:
        """The journal has committed this room's next `count` updates, the last of them as `seq`."""
        self._stored += count
        self._stored_seq = seq
        capture = self._capture
        if capture is not None and capture.seq is None and capture.count <= self._stored:
            # Within this commit the seqs of a room follow each other, whatever came before it.
            capture.seq = seq - (self._stored - capture.count)

    def capture(self) -> Capture | None:
        """Take the document's state for a snapshot, None if there is none to be had.

        Its `seq` follows when all of it is stored. There is one capture at a time, until `captured`.
        """
        seq = self._stored_seq if self.unstored == 0 else None
        try:
            state = self._document.state()
        except DocumentBroken as error:
            self.fail(error)
            return None
        # Cleared before the state is written, not after: what is accepted meanwhile must set it again.
        self.dirty = False
        self._capture = Capture(state, self._ticket, self._accepted, seq)
        return self._capture

    def captured(self, *, written: bool) -> None:
        """The capture has become a snapshot, or won't."""
        self._capture = None
        self.dirty = self.dirty or not written

    def tick(self, *, now: float) -> None:
        """Look after quiet and slow clients; call it about once a second."""
        settings = self._settings
        keep_alive = encode_awareness(KEEP_ALIVE)
        mark = None
        if self._accepted != self._marked_at_accepted:
            mark = self._document.state_vector()
            self._marked_at_accepted = self._accepted
        for connection in self.connections:
            if connection.idle:
                if mark is not None and connection.synced:
                    connection.had = mark
                if now - connection.sent_at >= settings.keep_alive_interval_s:
                    connection.relay(keep_alive)
            connection.check(now=now, stalled_max_s=settings.slow_reader_timeout_s)
        self._awareness.expire(now=now)
        self._schedule_awareness()

    def catch_up(self, connection: Connection) -> Iterator[bytes]:
        """The frames that answer a client, or bring one that is behind from what it `had` to now.

        Raises:
            DocumentBroken: The document can't be trusted any more.
        """
        if connection.asked or connection.behind:
            try:
                difference = self._document.diff(connection.had)
            except DocumentBroken as error:
                self.fail(error)
                raise
            if connection.behind:
                # The step 1 with which it was greeted may have been dropped.
                yield encode_step_1(self._document.state_vector())
            yield encode_step_2(difference) if connection.asked else encode_update(difference)
        # Who was behind hasn't heard who left.
        everyone = self._awareness.everyone(and_gone=connection.behind)
        if everyone is not None:
            yield encode_awareness(everyone)

    def fail(self, error: Exception) -> None:
        """Give the document up: what is stored, or on its way there, is right. Clients come back when it is loaded."""
        if self.broken:
            return
        log.error("document_broken", extra={"room": self.name, "error": str(error)})
        self.broken = True
        self.culprit = error.culprit if isinstance(error, DocumentBroken) else None
        self.close(DocumentBroken.close_code, DocumentBroken.reason)

    def close(self, code: int = Draining.close_code, reason: str = Draining.reason) -> None:
        """Close all clients."""
        for connection in self.connections:
            connection.close(code, reason)
        for timer in (self._awareness_timer, self._expiry_timer):
            if timer is not None:
                timer.cancel()

    def _relay(self, update: bytes, sender: Connection | None) -> None:
        frame = encode_update(update)
        for connection in self.connections:
            if connection is not sender:
                connection.relay(frame)

    def _receive(self, connection: Connection, message: Message) -> None:
        match message:
            case SyncUpdate(update):
                self.accept(update, sender=connection)
            case AwarenessUpdate(states):
                now = asyncio.get_running_loop().time()
                try:
                    self._awareness.receive(connection, read_states(states), now=now)
                finally:
                    self._schedule_awareness()
            case SyncStep1(state_vector):
                read_state_vector(state_vector)
                connection.answer_sync(state_vector)
            case QueryAwareness():
                connection.answer_who()
            case Confirm(token):
                # Up to the room's last update, not the client's: what the client sent may have been a repeat of
                # something that came from elsewhere and isn't stored yet.
                connection.expect_confirm()
                self._journal.when_stored(self._ticket, lambda: connection.confirm(token))

    def _schedule_awareness(self) -> None:
        """Tell everyone what changed in awareness: soon, and not more often than the interval allows."""
        if self._awareness_timer is None and self._awareness.changed:
            loop = asyncio.get_running_loop()
            due = self._awareness_sent_at + self._settings.awareness_interval_s
            self._awareness_timer = loop.call_at(due, self._send_awareness)

    def _send_awareness(self) -> None:
        self._awareness_timer = None
        changes = self._awareness.take_changes()
        if changes is None:
            return
        self._awareness_sent_at = asyncio.get_running_loop().time()
        frame = encode_awareness(changes)
        # To the sender too: y-websocket drops a connection on which it hears nothing for 30 s.
        for connection in self.connections:
            connection.relay(frame)

    def _schedule_expiry(self) -> None:
        due = self._awareness.next_expiry()
        if due is None:
            return
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
        self._expiry_timer = asyncio.get_running_loop().call_at(due, self._expire)

    def _expire(self) -> None:
        self._expiry_timer = None
        self._awareness.expire(now=asyncio.get_running_loop().time())
        self._schedule_awareness()
        self._schedule_expiry()
