"""One Yjs document: takes updates in, says what a peer lacks, hands out a state to store.

The received bytes are the truth and the pycrdt document is a cache of them, so this module decides what pycrdt
may see: only updates that `update` has read and found well-formed, and only when everything that they build on is
there. It knows where whole surrogate pairs are, and sees it coming when one is cut. How pycrdt is told of all that is
left to `native`.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from itertools import chain

from .errors import (
    DocumentBroken,
    MalformedUpdate,
    MisplacedUpdate,
    RoomFull,
    SyncError,
    UpdateBreaksDocument,
    UpdateTooHeavy,
)
from .native import Doc, Native, NoRecorder, Recorder, noted
from .pacing import Steps, at_once
from .pieces import Pieces
from .ranges import Ranges
from .structure import STEP
from .tree import Growth, Tree
from .update import CLIENTS_MAX, Update, read_state_vector, read_update, reading, write_deletes, write_state_vector
from .waiting import Waiting

WAITING_BYTES_MAX = 1 << 20

KEYSTROKE_BYTES = 64
"""An update up to this size is applied in one go. Whatever is in it, it takes some milliseconds. Most are 30 bytes."""
LIGHT_BYTES = 8 << 10
"""Larger ones never are, nor do they wait for others."""
# In between it depends on what an update may hit upon. Each two bytes of it may cut a text, which copies the rest of
# that; each six bytes may be an item whose place is looked for among all others of its list. Some 10 ms each.
CUTS_MAX = 600_000_000
SEARCHES_MAX = 300_000

# Of a larger update that is applied in pieces, the recorder hears only that it is being taken in: for each of its pieces, it
# would write all of it.
NOTED_BYTES_MAX = 1 << 20


class Outcome(Enum):
    """What became of an update."""

    NEW = "new"
    """Integrated: it changed the document."""
    WAITING = "waiting"
    """Kept, but something that it builds on is missing."""
    REPEAT = "repeat"
    """Everything in it was known. Neither to be stored nor relayed."""


# Looked up once: on Python 3.11 that takes half a microsecond, several times for each keystroke.
NEW, WAITING, REPEAT = Outcome


@dataclass(frozen=True, slots=True)
class State:
    """A document as bytes that every Yjs client can load."""

    update: bytes
    """Everything that could be integrated, as one update."""
    waiting: tuple[bytes, ...]
    """The updates that couldn't be yet, as received."""
    state_vector: bytes
    """The state vector of `update`."""
    deleted: dict[int, Ranges]
    """What was deleted, by client: for `is_sound`."""


class Document:
    """A Yjs document that starts out empty.

    Args:
        waiting_bytes_max: Bound on the updates held back; see `waiting`.
        harmful: Digests (`digest`) of updates that broke a document like this one before.
        recorder: Told before and after everything in which native code has a part.
        trace: Told of each accepted update when it is its turn to be given to native code. That may be long after it came.
    """

    def __init__(
        self,
        *,
        waiting_bytes_max: int = WAITING_BYTES_MAX,
        harmful: Collection[bytes] = (),
        recorder: Recorder | None = None,
        trace: Callable[[bytes], None] | None = None,
    ) -> None:
        self._harmful = frozenset(harmful)
        self._recorder = recorder or NoRecorder()
        self._trace = trace or _no_trace
        self._native = Native(self._recorder, self._trace)
        self.released: list[bytes] = []
        """What the last `apply` integrated beside its own update: updates that no longer wait, in that order, or the
        deletes of one that has to."""
        self.revision = 0
        """Grows with everything that is integrated: while it is the same, so is every difference."""
        self._clocks: dict[int, int] = {}
        self._deleted: dict[int, Ranges] = {}
        self._waiting = Waiting(waiting_bytes_max)
        # Client -> what waiting updates delete of it that isn't there yet.
        self._to_delete: dict[int, Ranges] = {}
        # Client -> ascending clocks of the low halves of surrogate pairs that no item boundary cuts.
        self._pairs: dict[int, array[int]] = {}
        self._tree = Tree()
        # No item can be longer than this.
        self._longest = 0

    def apply(self, data: bytes) -> Outcome:
        """Take one update in.

        Args:
            data: A Yjs update, v1, from anyone.

        Raises:
            MalformedUpdate: Not an update that every Yjs client could load. Nothing changed.
            UpdateTooHeavy: Taking it in would hold up others. Nothing changed.
            RoomFull: It would have to wait, and it is large or too many wait already. Nothing changed.
            DocumentBroken: pycrdt failed inside; this object is of no more use. Load another.
        """
        if not self._is_cheap(len(data)) or self._native.is_far_behind:
            return at_once(self.applying(data))
        self._recorder.note(data)
        try:
            update = read_update(data)
            outcome = self._begin(data, update)
        finally:
            self._recorder.clear()
        if outcome is NEW and self._waiting:
            at_once(self._releasing(list(update.ends), self.released, data))
        return outcome

    def is_light(self, data: bytes) -> bool:
        """Whether `apply` would take no more than some milliseconds, and needn't wait for others' steps."""
        native = self._native
        if native.folding or native.is_far_behind:
            return False
        return self._is_cheap(len(data)) and self._waiting.size <= LIGHT_BYTES

    def applying(self, data: bytes) -> Steps[Outcome]:
        """Like `apply`, in steps of some milliseconds.

        In between the document holds a part of the update, of which nobody has heard, and other updates may be applied if
        they are light. If the steps aren't all done, the document is of no more use.
        """
        return self._applying(data, bounded=True)

    def knows(self, data: bytes) -> bool:
        """Whether an update would change nothing.

        Raises:
            MalformedUpdate: As for `apply`.
        """
        return self._knows(read_update(data)) or data in self._waiting

    def knowing(self, data: bytes) -> Steps[bool]:
        """Like `knows`, in steps of some milliseconds."""
        return self._knows((yield from reading(data))) or data in self._waiting

    def restore(self, data: bytes) -> Outcome:
        """Take in an update that was accepted once. Like `apply`, but it isn't refused for what it does.

        One that is harmful or misplaced stays among those that are `waiting`, for ever: real Yjs may be able to load it.
        """
        return at_once(self.restoring(data))

    def restoring(self, data: bytes, *, alone: bool = False) -> Steps[Outcome]:
        """Like `restore`, in steps of some milliseconds; see `applying`.

        Args:
            data: The update.
            alone: Whether it is stored, and nothing is applied or asked for in between: that takes half of the time.
        """
        if self._harmful and digest(data) in self._harmful:
            self._waiting.keep(data)
            return WAITING
        try:
            return (yield from self._applying(data, bounded=False, alone=alone))
        except MisplacedUpdate:
            self._waiting.keep(data)
            return WAITING

    @property
    def waiting(self) -> tuple[bytes, ...]:
        """The updates held back, as received, oldest first. To be stored, but shown to nobody before `released`."""
        return tuple(self._waiting)

    @property
    def waiting_count(self) -> int:
        """How many are held back."""
        return len(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        """What those take in memory."""
        return self._waiting.size

    def refuse(self, harmful: Collection[bytes]) -> None:
        """Take in none of these updates any more, given by their digests."""
        self._harmful |= frozenset(harmful)

    def adds(self, data: bytes) -> bool:
        """Whether an update would bring content: not if it only deletes, nor if all of it is here.

        Raises:
            MalformedUpdate: Not an update.
        """
        return at_once(self.adding(data))

    def adding(self, data: bytes) -> Steps[bool]:
        """Like `adds`, in steps of some milliseconds."""
        update = yield from reading(data)
        return bool(update.ends) and not self._knows(update) and data not in self._waiting

    @property
    def clients(self) -> int:
        """How many clients have written what is integrated."""
        return len(self._clocks)

    def has_client(self, client: int) -> bool:
        """Whether something is integrated that this client has written."""
        return client in self._clocks

    def bound_waiting(self, bytes_max: int) -> None:
        """Change the bound on the updates held back. Those that are kept stay."""
        self._waiting.bytes_max = bytes_max

    def state_vector(self) -> bytes:
        """What is integrated, encoded as a state vector."""
        if self._native.is_behind:
            return write_state_vector(self._clocks)
        return self._native.state_vector()

    def fingerprint(self) -> bytes:
        """32 bytes that are the same for documents that hold, delete and await the same."""
        parts = [f"{client}:{clock};".encode() for client, clock in sorted(self._clocks.items())]
        for client, ranges in sorted(self._deleted.items()):
            parts += [f"{client}-{len(ranges)}:".encode(), ranges.packed()]
        return digest(b"".join([*parts, *sorted(map(digest, self._waiting))]))

    @property
    def is_behind(self) -> bool:
        """Whether there is something to do for `folding` before a `diff` or a `state`."""
        return self._native.is_behind

    def folding(self) -> Steps[None]:
        """Do what an edit that cut a surrogate pair has left to do, in steps of some milliseconds.

        In between nothing else may be applied. The steps needn't all be done.

        Raises:
            DocumentBroken: As for `apply`.
        """
        return self._native.folding_in()

    def diff(self, state_vector: bytes) -> bytes:
        """Return one update with everything integrated that a peer at `state_vector` lacks, all deletes included.

        Raises:
            ProtocolError: Not a state vector.
            DocumentBroken: As for `apply`.
        """
        return at_once(self.diffing(state_vector))

    def diffing(self, state_vector: bytes) -> Steps[bytes]:
        """Like `diff`, in steps of some milliseconds, but for pycrdt's own part: 40 ns an item, 130 ns a deleted range.

        It is the difference as of the first step, before which a document that `is_behind` is folded at once.
        """
        theirs = read_state_vector(state_vector)
        mine = self._clocks
        known = {client: min(clock, mine[client]) for client, clock in theirs.items() if client in mine}
        for client, clock in known.items() if self._pairs else ():
            # A peer that claims half a pair gets the whole of it again: pycrdt can't encode the other half.
            if self._index_of_pair(client, clock) is not None:
                known[client] = clock - 1
        return (yield from self._encoding(state_vector if known == theirs else write_state_vector(known)))

    def copying(self, client_id: int) -> Steps[Doc]:
        """Make a copy of what is integrated, for somebody to edit as this client, in steps; see `diffing`."""
        at_once(self.folding())
        return (yield from self._native.copying(client_id))

    def state(self) -> State:
        """Return the whole document.

        Raises:
            DocumentBroken: As for `apply`; also if pycrdt's state isn't what was given to it.
        """
        return at_once(self.taking_state())

    def taking_state(self) -> Steps[State]:
        """Like `state`, in steps; see `diffing`."""
        at_once(self.folding())
        with noted(self._recorder, b""):
            state_vector = self._native.state_vector()
        if read_state_vector(state_vector) != self._clocks:
            raise DocumentBroken("pycrdt's state vector isn't that of the updates it was given")
        deleted = {client: ranges.copy() for client, ranges in self._deleted.items()}
        waiting = self.waiting
        return State((yield from self._encoding(b"\x00")), waiting, state_vector, deleted)

    def _encoding(self, state_vector: bytes) -> Steps[bytes]:
        at_once(self.folding())
        with noted(self._recorder, b""):
            encoded = self._native.encode(state_vector)
        yield
        return (yield from self._native.revealed(encoded))

    def _is_cheap(self, size: int) -> bool:
        """Whether integrating an update of so many bytes takes no more than some milliseconds, whatever is in it."""
        if size <= KEYSTROKE_BYTES:
            return True
        return size <= LIGHT_BYTES and size * self._longest <= CUTS_MAX and size * self._tree.count <= SEARCHES_MAX

    def _applying(self, data: bytes, *, bounded: bool, alone: bool = False) -> Steps[Outcome]:
        if self._native.is_far_behind:
            yield from self.folding()
        update = yield from reading(data, bounded=bounded)
        if bounded and len(data) > LIGHT_BYTES and not self._is_ready(update):
            raise RoomFull(f"an update of {len(data)} bytes would have to wait for others")
        if self._is_cheap(len(data)) or not self._is_ready(update):
            with self._noted(data):
                outcome = self._begin(data, update, bounded=bounded)
            released = self.released
        else:
            if self._harmful and digest(data) in self._harmful:
                raise MalformedUpdate("it broke this document before")
            self._refuse_crowds(update, bounded)
            if alone and (grown := (yield from self._growing_alone(update))) is not None:
                outcome = yield from self._integrating_alone(data, update, grown)
            else:
                outcome = yield from self._integrating(data, update, bounded=bounded)
            released = []
        if outcome is NEW and self._waiting:
            yield from self._releasing(list(update.ends), released, data)
        self.released = released
        return outcome

    def _integrating(
        self, data: bytes, update: Update, *, bounded: bool, arrived: bytes | None = None
    ) -> Steps[Outcome]:
        """Integrate an update that is ready in pieces, when all of it is known to fit."""
        yield from self._tree.growing(update, self._clocks, self._deleted, bounded=bounded)
        outcome = REPEAT
        arrived = arrived or data
        self._trace(data)
        pieces = Pieces(data, update)
        for piece in pieces:
            part = yield from reading(piece, bounded=False)
            yield
            if self._native.is_far_behind:
                yield from self.folding()
            try:
                if not self._is_ready(part):
                    raise UpdateBreaksDocument("a piece of an update that was ready isn't")
                if not self._knows(part):
                    # Noted anew for each piece, since others are applied in between.
                    with self._noted(arrived), pieces.timed():
                        self._integrate(piece, part, bounded=False, part_of=data)
                    outcome = NEW
            except MalformedUpdate as error:
                if outcome is REPEAT:
                    raise
                raise UpdateBreaksDocument(f"a piece of it doesn't fit: {error}", culprit=data) from error
            except UpdateBreaksDocument as error:
                error.culprit = data
                raise
            yield
        if len(update.ends) > 1 and not self._native.is_behind:
            with noted(self._recorder, b""):
                had = read_state_vector(self._native.state_vector())
            if any(had.get(client, 0) < self._clocks[client] for client in update.ends):
                raise UpdateBreaksDocument("pycrdt didn't integrate an update that was ready", culprit=data)
        return outcome

    def _growing_alone(self, update: Update) -> Steps[Growth | None]:
        """What it adds to the tree, if pycrdt may be given its pieces as they are; otherwise each is looked at by itself."""
        if update.standins or self._native.is_behind or self._knows(update):
            return None
        if update.pairs or self._pairs:
            boundaries = chain(update.boundaries(), ((each, self._clocks.get(each, 0)) for each in update.pairs))
            for count, at in enumerate(boundaries):
                if count % STEP == 0:
                    yield
                if _index_of(*at, self._pairs) is not None or _index_of(*at, update.pairs) is not None:
                    return None
        grown = yield from self._tree.growing(update, self._clocks, self._deleted, bounded=False)
        return None if grown.gone else grown

    def _integrating_alone(self, data: bytes, update: Update, grown: Growth) -> Steps[Outcome]:
        """Integrate an update in pieces, of which nothing needs to be known before all are in."""
        self.revision += 1
        self._trace(data)
        pieces = Pieces(data, update)
        for piece in pieces:
            try:
                # Not the bytes, which would be written for each piece: what is stored is found to be harmful without.
                with noted(self._recorder, b""), pieces.timed():
                    self._native.apply(piece, {}, odd=False, simple=True)
            except (MalformedUpdate, UpdateBreaksDocument) as error:
                raise UpdateBreaksDocument(f"a piece of it doesn't fit: {error}", culprit=data) from error
            yield
        yield from self._tree.adding(grown)
        self._note(update)
        for client, ranges in update.deletes.items():
            for first in range(0, len(ranges), STEP):
                self._note_deleted(client, ranges[first : first + STEP])
                yield
        with noted(self._recorder, b""):
            had = read_state_vector(self._native.state_vector())
        if any(had.get(client, 0) < self._clocks[client] for client in update.ends):
            raise UpdateBreaksDocument("pycrdt didn't integrate an update that was ready", culprit=data)
        return NEW

    def _begin(self, data: bytes, update: Update, *, bounded: bool = True) -> Outcome:
        """Apply an update in one go, but for what it releases."""
        self.released = []
        if self._knows(update) or data in self._waiting:
            return REPEAT
        if self._harmful and digest(data) in self._harmful:
            raise MalformedUpdate("it broke this document before")
        if not self._is_ready(update):
            self._native.check_readable(data, update)
            self._waiting.add(data, update, self._clocks, bounded=bounded)
            try:
                self.released = self._delete_early(update.deletes)
            except UpdateBreaksDocument as error:
                error.culprit = data
                raise
            return WAITING
        self._refuse_crowds(update, bounded)
        try:
            self._integrate(data, update, bounded=bounded)
        except UpdateBreaksDocument as error:
            error.culprit = data
            raise
        return NEW

    def _refuse_crowds(self, update: Update, bounded: bool) -> None:
        """Refuse more clients than a state vector may list."""
        if bounded and len(self._clocks) + len(update.ends) > CLIENTS_MAX:
            new = sum(client not in self._clocks for client in update.ends)
            if new and len(self._clocks) + new > CLIENTS_MAX:
                raise UpdateTooHeavy(f"a document has at most {CLIENTS_MAX} clients")

    def _noted(self, data: bytes) -> AbstractContextManager[None]:
        return noted(self._recorder, data if len(data) <= NOTED_BYTES_MAX else b"")

    def _is_ready(self, update: Update) -> bool:
        clocks = self._clocks
        for client, clock in update.needs.items():  # noqa: SIM110 (a third of what `all` takes)
            if clocks.get(client, 0) < clock:
                return False
        return True

    def _delete_early(self, deletes: Mapping[int, Sequence[tuple[int, int]]]) -> list[bytes]:
        """Delete what is there already, and the rest when it comes, as Yjs does while an update's items wait.

        Returns:
            What it did, as updates.
        """
        there: dict[int, Ranges] = {}
        for client, ranges in deletes.items():
            clock = self._clocks.get(client, 0)
            for start, end in ranges:
                if start < clock:
                    there.setdefault(client, Ranges()).add(start, min(end, clock))
                if end > clock:
                    self._to_delete.setdefault(client, Ranges()).add(max(start, clock), end)
        if there:
            data = write_deletes({client: list(ranges) for client, ranges in there.items()})
            update = read_update(data)
            if not self._knows(update):
                self._integrate(data, update)
                return [data]
        return []

    def _knows(self, update: Update) -> bool:
        clocks = self._clocks
        for client, end in update.ends.items():
            if clocks.get(client, 0) < end:
                return False
        for client, ranges in update.deletes.items():
            deleted = self._deleted.get(client)
            if deleted is None:
                return False
            for start, end in ranges:
                if not deleted.covers(start, end):
                    return False
        return True

    def _integrate(self, data: bytes, update: Update, *, bounded: bool = True, part_of: bytes | None = None) -> None:
        """Take in an update that is ready: into pycrdt, or onto the pile if a pair was cut.

        Raises:
            MalformedUpdate: It doesn't fit to what is there, or pycrdt can't read it. Nothing changed.
            UpdateTooHeavy: Too many items in one spot. Nothing changed.
            UpdateBreaksDocument: pycrdt failed in the middle of it.
        """
        grown = self._tree.grow(update, self._clocks, self._deleted, bounded=bounded)
        self.revision += 1
        cuts = self._find_cuts(update) if update.pairs or self._pairs else ()
        native = self._native
        assert not native.folding, "the pieces of a fold have the document for themselves"
        if cuts or native.is_behind:
            native.defer(data, update, grown.gone)
        else:
            if part_of is None:
                self._trace(data)
            native.apply(data, grown.gone, odd=update.standins, simple=part_of is not None or len(update.ends) < 2)
        # Nothing of this before pycrdt has taken the update: what it refuses leaves no trace.
        self._tree.add(grown)
        self._note(update)
        for client, ranges in update.deletes.items():
            self._note_deleted(client, ranges)
        for client, low in cuts:
            index = self._index_of_pair(client, low)
            if index is not None:
                del self._pairs[client][index]
            native.cut(client, low)

    def _note(self, update: Update) -> None:
        """Take over which items an update that was integrated has."""
        for client, lows in update.pairs.items():
            known = self._clocks.get(client, 0)
            self._pairs.setdefault(client, array("I")).extend(lows[bisect_left(lows, known) :])
        for client, end in update.ends.items():
            if self._clocks.get(client, 0) < end:
                self._clocks[client] = end
                if self._longest < end:
                    self._longest = end

    def _note_deleted(self, client: int, ranges: Sequence[tuple[int, int]]) -> None:
        deleted = self._deleted.get(client)
        if deleted is None:
            deleted = self._deleted[client] = Ranges()
        for start, end in ranges:
            deleted.add(start, end)

    def _releasing(self, advanced: list[int], released: list[bytes], arrived: bytes) -> Steps[None]:
        """Integrate what waited for the clients in `advanced`, and what waited for that; add it to `released`.

        What has arrived is noted, and not what is released by it: that doesn't show what it does without the other.
        """
        while advanced:
            client = advanced.pop()
            if client in self._to_delete:
                released += self._delete_early({client: list(self._to_delete.pop(client))})
            for data in self._waiting.release(client, self._clocks):
                yield
                update = read_update(data, bounded=False)
                if self._knows(update):
                    continue
                try:
                    if self._is_cheap(len(data)):
                        with self._noted(arrived):
                            self._integrate(data, update)
                    else:
                        yield from self._integrating(data, update, bounded=True, arrived=arrived)
                except (MalformedUpdate, UpdateTooHeavy):
                    # What it builds on turned out not to be what it has to be. It has been accepted, so it stays.
                    self._waiting.keep(data)
                    continue
                except UpdateBreaksDocument as error:
                    # Not the fault of the update that is being applied, which is in the document by now.
                    raise DocumentBroken(f"what waited can't be integrated: {error}", culprit=data) from error
                released.append(data)
                advanced.extend(update.ends)

    def _find_cuts(self, update: Update) -> list[tuple[int, int]]:
        """The pairs, known or arriving, that the update cuts: client and clock of the low half."""
        boundaries = set(update.boundaries())
        # What is known already stays as it is, and Yjs cuts the arriving string where the known part ends.
        boundaries.update((client, self._clocks.get(client, 0)) for client in update.pairs)
        return [
            at
            for at in boundaries
            if _index_of(*at, self._pairs) is not None or _index_of(*at, update.pairs) is not None
        ]

    def _index_of_pair(self, client: int, low: int) -> int | None:
        return _index_of(client, low, self._pairs)


def is_sound(state: State, recorder: Recorder | None = None) -> bool:
    """Whether a document loaded from nothing but `state.update` has everything that `state` says, and no less deleted.

    Loads it for real, so it costs as much as opening the document; native code that crashes on it crashes here.
    """
    document = Document(recorder=recorder)
    try:
        # In one go: whoever can't wait proves it in steps, or elsewhere.
        with document._noted(state.update):
            document._begin(state.update, read_update(state.update, bounded=False), bounded=False)
        loaded = document.state()
    except SyncError:
        return False
    return _amounts_to(loaded, state)


def proving(state: State, recorder: Recorder | None = None) -> Steps[bool]:
    """Like `is_sound`, in steps of some milliseconds."""
    document = Document(recorder=recorder)
    try:
        yield from document.restoring(state.update)
        loaded = yield from document.taking_state()
    except SyncError:
        return False
    return _amounts_to(loaded, state)


def _amounts_to(loaded: State, state: State) -> bool:
    return (
        not loaded.waiting
        and read_state_vector(loaded.state_vector) == read_state_vector(state.state_vector)
        and all(
            client in loaded.deleted and loaded.deleted[client].covers(start, end)
            for client, ranges in state.deleted.items()
            for start, end in ranges
        )
    )


def _index_of(client: int, low: int, pairs: Mapping[int, Sequence[int]]) -> int | None:
    lows = pairs.get(client)
    if not lows:
        return None
    index = bisect_left(lows, low)
    return index if index < len(lows) and lows[index] == low else None


def digest(data: bytes) -> bytes:
    """What an update is remembered by."""
    return sha256(data).digest()


def _no_trace(update: bytes) -> None:
    """Nobody wants to know."""
