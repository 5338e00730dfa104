"""One Yjs document: takes updates in, says what a peer lacks, hands out a state to store.

The received bytes are the truth and the pycrdt document is a cache of them, so this module decides what pycrdt
may see: only updates that `update` has read and found well-formed, only when everything that they build on is
there, and only in a form that pycrdt keeps faithfully (`standins`). It is the only home of pycrdt's documents.

Surrogate pairs need the most care. When an edit cuts between the two halves of an emoji, Yjs turns both halves
into U+FFFD; pycrdt keeps a string whose length no longer fits, and re-encodes bytes that break Yjs. So the document
knows where whole pairs are, sees a cut coming, and from then on collects the updates instead of applying them. When
a state is asked for, it does to the bytes what Yjs does to the strings and loads them anew.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from time import thread_time
from typing import Any, Protocol

import pycrdt

from .errors import (
    DocumentBroken,
    MalformedUpdate,
    MisplacedUpdate,
    ProtocolError,
    RoomFull,
    SyncError,
    UpdateBreaksDocument,
    UpdateTooHeavy,
)
from .pacing import Steps, at_once
from .pieces import Pieces
from .ranges import Ranges
from .standins import for_pycrdt, from_pycrdt
from .tree import Gone, Tree
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

# All others are applied in pieces, each with as much as took between these times.
PIECE_S = (0.0005, 0.0015)
PIECE_MIN, PIECE_STRUCTS_MAX, PIECE_RANGES_MAX = 4, 32, 512

# Updates collected after a cut are folded in at this size even if nobody asks, so that they don't pile up. Large
# enough that the fold, which costs a pass over the whole document, is rare.
DEFERRED_BYTES_MAX = 256 << 10


class Outcome(Enum):
    """What became of an update."""

    NEW = "new"
    """Integrated: it changed the document."""
    WAITING = "waiting"
    """Kept, but something that it builds on is missing."""
    REPEAT = "repeat"
    """Everything in it was known. Neither to be stored nor relayed."""


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


class Recorder(Protocol):
    """Is told what a document is about to do, for the case that native code ends the process."""

    def note(self, update: bytes) -> None:
        """Take this update in; if it is empty, anything else."""

    def clear(self) -> None:
        """Nothing any more."""


class NoRecorder:
    """Whoever has the document would not mind."""

    def note(self, update: bytes) -> None:
        """See `Recorder.note`."""

    def clear(self) -> None:
        """See `Recorder.clear`."""


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
        self._trace = trace
        self._doc: pycrdt.Doc[Any] = pycrdt.Doc()
        self.released: list[bytes] = []
        """What the last `apply` integrated beside its own update: updates that no longer wait, in that order, or the
        deletes of one that has to."""
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
        # Since the last fold: pairs that were cut, and every update from the first cut on.
        self._cuts: dict[int, set[int]] = {}
        self._deferred: list[tuple[bytes, Gone]] = []
        self._deferred_bytes = 0

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
        if not self._is_cheap(len(data)):
            return at_once(self.applying(data))
        self._recorder.note(data)
        try:
            update = read_update(data)
            outcome = self._begin(data, update)
        finally:
            self._recorder.clear()
        if outcome is Outcome.NEW and self._waiting:
            at_once(self._releasing(list(update.ends), self.released, data))
        return outcome

    def is_light(self, data: bytes) -> bool:
        """Whether `apply` would take no more than some milliseconds."""
        return self._is_cheap(len(data)) and self._waiting.size <= LIGHT_BYTES

    def applying(self, data: bytes) -> Steps[Outcome]:
        """Like `apply`, in steps of some milliseconds.

        In between the document holds a part of the update, of which nobody has heard, and other updates may be applied. If
        the steps aren't all done, the document is of no more use.
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

    def restoring(self, data: bytes) -> Steps[Outcome]:
        """Like `restore`, in steps of some milliseconds; see `applying`."""
        if self._harmful and digest(data) in self._harmful:
            self._waiting.keep(data)
            return Outcome.WAITING
        try:
            return (yield from self._applying(data, bounded=False))
        except MisplacedUpdate:
            self._waiting.keep(data)
            return Outcome.WAITING

    @property
    def waiting(self) -> tuple[bytes, ...]:
        """The updates held back, as received, oldest first. To be stored, but shown to nobody before `released`."""
        return tuple(self._waiting)

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

    def bound_waiting(self, bytes_max: int) -> None:
        """Change the bound on the updates held back. Those that are kept stay."""
        self._waiting.bytes_max = bytes_max

    def state_vector(self) -> bytes:
        """What is integrated, encoded as a state vector."""
        if self._deferred:
            return write_state_vector(self._clocks)
        return self._pycrdt_state_vector()

    def fingerprint(self) -> bytes:
        """32 bytes that are the same for documents that hold, delete and await the same."""
        parts = [f"{client}:{clock};".encode() for client, clock in sorted(self._clocks.items())]
        for client, ranges in sorted(self._deleted.items()):
            parts += [f"{client}-{len(ranges)}:".encode(), ranges.packed()]
        return digest(b"".join([*parts, *sorted(map(digest, self._waiting))]))

    def diff(self, state_vector: bytes) -> bytes:
        """Return one update with everything integrated that a peer at `state_vector` lacks, all deletes included.

        Raises:
            ProtocolError: Not a state vector.
            DocumentBroken: As for `apply`.
        """
        theirs = read_state_vector(state_vector)
        mine = self._clocks
        known = {client: min(clock, mine[client]) for client, clock in theirs.items() if client in mine}
        self._recorder.note(b"")
        try:
            self._fold()
            for client, clock in known.items() if self._pairs else ():
                # A peer that claims half a pair gets the whole of it again: pycrdt can't encode the other half.
                if self._index_of_pair(client, clock) is not None:
                    known[client] = clock - 1
            return self._encode(state_vector if known == theirs else write_state_vector(known))
        finally:
            self._recorder.clear()

    def state(self) -> State:
        """Return the whole document.

        Raises:
            DocumentBroken: As for `apply`; also if pycrdt's state isn't what was given to it.
        """
        self._recorder.note(b"")
        try:
            self._fold()
            state_vector = self._pycrdt_state_vector()
            if read_state_vector(state_vector) != self._clocks:
                raise DocumentBroken("pycrdt's state vector isn't that of the updates it was given")
            deleted = {client: ranges.copy() for client, ranges in self._deleted.items()}
            return State(self._encode(b"\x00"), self.waiting, state_vector, deleted)
        finally:
            self._recorder.clear()

    def _is_cheap(self, size: int) -> bool:
        """Whether integrating an update of so many bytes takes no more than some milliseconds, whatever is in it."""
        if size <= KEYSTROKE_BYTES:
            return True
        return size <= LIGHT_BYTES and size * self._longest <= CUTS_MAX and size * self._tree.count <= SEARCHES_MAX

    def _applying(self, data: bytes, *, bounded: bool) -> Steps[Outcome]:
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
            outcome = yield from self._integrating(data, update, bounded=bounded)
            released = []
        if outcome is Outcome.NEW and self._waiting:
            yield from self._releasing(list(update.ends), released, data)
        self.released = released
        return outcome

    def _integrating(
        self, data: bytes, update: Update, *, bounded: bool, arrived: bytes | None = None
    ) -> Steps[Outcome]:
        """Integrate an update that is ready in pieces, when all of it is known to fit."""
        yield from self._tree.growing(update, self._clocks, self._deleted, bounded=bounded)
        outcome = Outcome.REPEAT
        arrived = arrived or data
        if self._trace is not None:
            self._trace(data)
        pieces = Pieces(data, update, structs_max=PIECE_MIN, ranges_max=PIECE_MIN)
        for piece in pieces:
            started = thread_time()
            part = yield from reading(piece, bounded=False)
            yield
            try:
                if not self._is_ready(part):
                    raise UpdateBreaksDocument("a piece of an update that was ready isn't")
                if not self._knows(part):
                    # Noted anew for each piece, since others are applied in between.
                    with self._noted(arrived):
                        self._integrate(piece, part, bounded=False, part_of=data)
                    outcome = Outcome.NEW
            except MalformedUpdate as error:
                if outcome is Outcome.REPEAT:
                    raise
                raise UpdateBreaksDocument(f"a piece of it doesn't fit: {error}", culprit=data) from error
            except UpdateBreaksDocument as error:
                error.culprit = data
                raise
            _adapt(pieces, thread_time() - started)
            yield
        if len(update.ends) > 1 and not self._deferred:
            with self._noted(b""):
                had = read_state_vector(self._pycrdt_state_vector())
            if any(had.get(client, 0) < self._clocks[client] for client in update.ends):
                raise UpdateBreaksDocument("pycrdt didn't integrate an update that was ready", culprit=data)
        return outcome

    def _begin(self, data: bytes, update: Update, *, bounded: bool = True) -> Outcome:
        """Apply an update in one go, but for what it releases."""
        self.released = []
        if self._knows(update) or data in self._waiting:
            return Outcome.REPEAT
        if self._harmful and digest(data) in self._harmful:
            raise MalformedUpdate("it broke this document before")
        if not self._is_ready(update):
            _check_readable(data, update)
            self._waiting.add(data, update, self._clocks, bounded=bounded)
            try:
                self.released = self._delete_early(update.deletes)
            except UpdateBreaksDocument as error:
                error.culprit = data
                raise
            return Outcome.WAITING
        self._refuse_crowds(update, bounded)
        try:
            self._integrate(data, update, bounded=bounded)
        except UpdateBreaksDocument as error:
            error.culprit = data
            raise
        return Outcome.NEW

    def _refuse_crowds(self, update: Update, bounded: bool) -> None:
        """Refuse more clients than a state vector may list."""
        if bounded and len(self._clocks) + len(update.ends) > CLIENTS_MAX:
            new = sum(client not in self._clocks for client in update.ends)
            if new and len(self._clocks) + new > CLIENTS_MAX:
                raise UpdateTooHeavy(f"a document has at most {CLIENTS_MAX} clients")

    @contextmanager
    def _noted(self, data: bytes) -> Iterator[None]:
        self._recorder.note(data if len(data) <= NOTED_BYTES_MAX else b"")
        try:
            yield
        finally:
            self._recorder.clear()

    def _is_ready(self, update: Update) -> bool:
        clocks = self._clocks
        return all(clocks.get(client, 0) >= clock for client, clock in update.needs.items())

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
        cuts = self._find_cuts(update) if update.pairs or self._pairs else ()
        if cuts or self._deferred:
            _check_readable(data, update)
            self._deferred.append((data, grown.gone))
            self._deferred_bytes += len(data)
        else:
            if self._trace is not None and part_of is None:
                self._trace(data)
            form = for_pycrdt(data, {}, grown.gone) if update.standins or grown.gone else data
            self._give_to_pycrdt(form, simple=part_of is not None or len(update.ends) < 2)
        # Nothing of this before pycrdt has taken the update: what it refuses leaves no trace.
        for client, lows in update.pairs.items():
            known = self._clocks.get(client, 0)
            self._pairs.setdefault(client, array("I")).extend(lows[bisect_left(lows, known) :])
        self._tree.add(grown)
        for client, low in cuts:
            index = self._index_of_pair(client, low)
            if index is not None:
                del self._pairs[client][index]
            self._cuts.setdefault(client, set()).add(low)
        for client, end in update.ends.items():
            if self._clocks.get(client, 0) < end:
                self._clocks[client] = end
                if self._longest < end:
                    self._longest = end
        for client, ranges in update.deletes.items():
            deleted = self._deleted.get(client)
            if deleted is None:
                deleted = self._deleted[client] = Ranges()
            for start, end in ranges:
                deleted.add(start, end)
        if self._deferred_bytes > DEFERRED_BYTES_MAX:
            self._fold()

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

    def _fold(self) -> None:
        """Bring pycrdt's document up to date after a cut."""
        if not self._deferred:
            return
        try:
            self._fold_in()
        except (ProtocolError, UpdateBreaksDocument) as error:
            raise DocumentBroken(f"what was accepted can't be folded in: {error}") from error
        self._deferred.clear()
        self._deferred_bytes = 0
        self._cuts.clear()

    def _fold_in(self) -> None:
        had = read_state_vector(self._pycrdt_state_vector())
        if any(low < had.get(client, 0) for client, lows in self._cuts.items() for low in lows):
            state = self._encode(b"\x00")
            self._doc = pycrdt.Doc()
            self._give_to_pycrdt(for_pycrdt(state, self._cuts))
        for data, gone in self._deferred:
            if self._trace is not None:
                self._trace(data)
            try:
                self._give_to_pycrdt(for_pycrdt(data, self._cuts, gone))
            except (ProtocolError, UpdateBreaksDocument) as error:
                raise DocumentBroken(f"what was accepted can't be folded in: {error}", culprit=data) from error

    def _give_to_pycrdt(self, data: bytes, *, simple: bool = False) -> None:
        try:
            self._doc.apply_update(data)
        except ValueError as error:
            raise MalformedUpdate(f"pycrdt can't read it: {error}") from error
        except RuntimeError as error:
            raise UpdateBreaksDocument(f"pycrdt gave up half-way: {error}") from error
        except BaseException as error:
            if _is_panic(error):
                raise UpdateBreaksDocument(f"pycrdt panicked: {error}") from error
            raise
        # The structs of one client are integrated if they are ready. With several clients, make sure: what pycrdt
        # keeps as pending it may lose later.
        if not simple and _lacks(self._pycrdt_state_vector(), data):
            raise UpdateBreaksDocument("pycrdt didn't integrate an update that was ready")

    def _encode(self, state_vector: bytes) -> bytes:
        try:
            update = self._doc.get_update(state_vector)
        except BaseException as error:
            if _is_panic(error):
                raise DocumentBroken(f"pycrdt panicked: {error}") from error
            raise
        try:
            return from_pycrdt(bytes(update))
        except ProtocolError as error:
            raise DocumentBroken(f"pycrdt encoded what can't be read: {error}") from error

    def _pycrdt_state_vector(self) -> bytes:
        try:
            return bytes(self._doc.get_state())
        except BaseException as error:
            if _is_panic(error):
                raise DocumentBroken(f"pycrdt panicked: {error}") from error
            raise


def _adapt(pieces: Pieces, took_s: float) -> None:
    """Make the next piece larger or smaller, after what the last one took."""
    factor = 2 if took_s < PIECE_S[0] else 0.5 if took_s > PIECE_S[1] else 1
    pieces.structs_max = int(min(max(pieces.structs_max * factor, 1), PIECE_STRUCTS_MAX))
    pieces.ranges_max = int(min(max(pieces.ranges_max * factor, 1), PIECE_RANGES_MAX))


def is_sound(state: State, recorder: Recorder | None = None) -> bool:
    """Whether a document loaded from nothing but `state.update` has everything that `state` says, and no less deleted.

    Loads it for real, so it costs as much as opening the document; native code that crashes on it crashes here.
    """
    document = Document(recorder=recorder)
    try:
        # In one go: whoever can't wait proves it in steps, or elsewhere.
        with document._noted(state.update):
            document._begin(state.update, read_update(state.update, bounded=False), bounded=False)
    except SyncError:
        return False
    return _amounts_to(document, state)


def proving(state: State, recorder: Recorder | None = None) -> Steps[bool]:
    """Like `is_sound`, in steps of some milliseconds."""
    document = Document(recorder=recorder)
    try:
        yield from document.restoring(state.update)
    except SyncError:
        return False
    return _amounts_to(document, state)


def _amounts_to(document: Document, state: State) -> bool:
    try:
        loaded = document.state()
    except SyncError:
        return False
    return (
        not loaded.waiting
        and read_state_vector(loaded.state_vector) == read_state_vector(state.state_vector)
        and all(
            client in loaded.deleted and loaded.deleted[client].covers(start, end)
            for client, ranges in state.deleted.items()
            for start, end in ranges
        )
    )


def _lacks(state_vector: bytes, data: bytes) -> bool:
    """Whether an update has structs that aren't in a document with this state vector."""
    try:
        return pycrdt.get_update(data, state_vector)[0] != 0
    except BaseException as error:
        if _is_panic(error):
            raise UpdateBreaksDocument(f"pycrdt panicked: {error}") from error
        raise


def _check_readable(data: bytes, update: Update) -> None:
    """Have pycrdt read, but not apply, an update that it will be given later, when nobody can be blamed any more.

    Raises:
        MalformedUpdate: pycrdt can't.
    """
    try:
        pycrdt.get_update(for_pycrdt(data, {}) if update.standins else data, b"\x00")
    except ValueError as error:
        raise MalformedUpdate(f"pycrdt can't read it: {error}") from error
    except BaseException as error:
        if _is_panic(error):
            raise MalformedUpdate(f"pycrdt panicked reading it: {error}") from error
        raise


def _index_of(client: int, low: int, pairs: Mapping[int, Sequence[int]]) -> int | None:
    lows = pairs.get(client)
    if not lows:
        return None
    index = bisect_left(lows, low)
    return index if index < len(lows) and lows[index] == low else None


def digest(data: bytes) -> bytes:
    """What an update is remembered by."""
    return sha256(data).digest()


def _is_panic(error: BaseException) -> bool:
    """Rust panics are `pyo3_runtime.PanicException`: no `Exception`, and not to be imported from anywhere."""
    return type(error).__name__ == "PanicException"
