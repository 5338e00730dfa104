"""pycrdt's document: what is given to it, and what it is asked for.

The only home of pycrdt, which sees nothing but what `document` found to fit, and that only in a form that it keeps
faithfully (`standins`). After a failure inside it the document is of no more use.

Surrogate pairs need the most care. When an edit cuts between the two halves of an emoji, Yjs turns both halves into
U+FFFD; pycrdt keeps a string whose length no longer fits, and re-encodes bytes that break Yjs. So from a cut on the
updates are put off instead of applied. When somebody asks, the cut is done to the bytes of what pycrdt has, as Yjs does
it to its strings; they are loaded anew, and what was put off after them.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

import pycrdt

from .errors import DocumentBroken, MalformedUpdate, ProtocolError, UpdateBreaksDocument
from .pacing import Steps
from .pieces import Pieces
from .standins import cutting, for_pycrdt, revealing
from .tree import Gone
from .update import Update, read_state_vector, reading

# What is put off is folded in at this size even if nobody asks, so that it doesn't pile up. Large enough that the fold,
# which costs a pass over the whole document, is rare.
DEFERRED_BYTES_MAX = 256 << 10

# At the end of a transaction, pycrdt joins what was added to the text before it, and measures all of that anew: 5 µs for
# each kilobyte that was typed in one go. So small updates share a transaction, as many as this.
TOGETHER_MAX = 50
TOGETHER_BYTES_MAX = 1 << 10

Doc: TypeAlias = "pycrdt.Doc[Any]"


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


class Native:
    """A pycrdt document that starts out empty.

    Args:
        recorder: Told before and after what is done here in steps. What is done at once, the caller notes.
        trace: Told of each update when it is its turn to be given to pycrdt.
        client_id: As whom somebody will edit it.
    """

    def __init__(self, recorder: Recorder, trace: Callable[[bytes], None], *, client_id: int | None = None) -> None:
        self._recorder = recorder
        self._trace = trace
        self._doc: Doc = pycrdt.Doc(client_id=client_id)
        # The one that is open, and how many updates it has.
        self._transaction: pycrdt.Transaction | None = None
        self._together = 0
        # Client to the low halves of pairs that were cut since the last fold.
        self._cuts: dict[int, set[int]] = {}
        self._deferred: deque[tuple[bytes, Gone]] = deque()
        self._deferred_bytes = 0
        # The fold that is under way.
        self._fold: object = None

    @property
    def folding(self) -> bool:
        """Whether a fold is under way: nothing may be applied or put off until its end."""
        return self._fold is not None

    @property
    def is_behind(self) -> bool:
        """Whether something was put off."""
        return bool(self._deferred)

    @property
    def is_far_behind(self) -> bool:
        """Whether so much was put off that it should be folded in."""
        return self._deferred_bytes > DEFERRED_BYTES_MAX

    def apply(self, data: bytes, gone: Gone, *, odd: bool, simple: bool) -> None:
        """Apply an update.

        Args:
            data: Found to fit.
            gone: The items of it that Yjs would collect at once.
            odd: Whether something in it needs a stand-in.
            simple: Whether it is ready if one of its structs is.

        Raises:
            MalformedUpdate: pycrdt can't read it. Nothing changed.
            UpdateBreaksDocument: It failed in the middle of it.
        """
        self.give(for_pycrdt(data, {}, gone) if odd or gone else data, simple=simple)

    def defer(self, data: bytes, update: Update, gone: Gone) -> None:
        """Put an update off until the next fold.

        Raises:
            MalformedUpdate: pycrdt can't read it. Nothing changed.
        """
        # Looked at now: later nobody can be blamed for it any more.
        self.check_readable(data, update)
        self._deferred.append((data, gone))
        self._deferred_bytes += len(data)

    def cut(self, client: int, low: int) -> None:
        """Have a surrogate pair, given by its low half, cut by the next fold."""
        self._cuts.setdefault(client, set()).add(low)

    def check_readable(self, data: bytes, update: Update) -> None:
        """Have pycrdt read, but not apply, an update.

        Raises:
            MalformedUpdate: It can't.
        """
        try:
            pycrdt.get_update(for_pycrdt(data, {}) if update.standins else data, b"\x00")
        except ValueError as error:
            raise MalformedUpdate(f"pycrdt can't read it: {error}") from error
        except BaseException as error:
            if _is_panic(error):
                raise MalformedUpdate(f"pycrdt panicked reading it: {error}") from error
            raise

    def folding_in(self) -> Steps[None]:
        """Apply what was put off, in steps of some milliseconds.

        If they aren't all done, the rest is still put off. If somebody begins anew in between, there is nothing left to do.

        Raises:
            DocumentBroken: It can't be applied.
        """
        if not self._deferred:
            return
        self._fold = fold = object()
        try:
            yield from self._cutting(fold)
            while self._fold is fold and self._deferred:
                data, gone = self._deferred[0]
                self._trace(data)
                with noted(self._recorder, b""):
                    self._give_deferred(data, gone)
                self._deferred.popleft()
                self._deferred_bytes -= len(data)
                yield
            if self._fold is fold:
                self._cuts.clear()
        except (ProtocolError, UpdateBreaksDocument) as error:
            raise DocumentBroken(f"what was accepted can't be folded in: {error}") from error
        finally:
            if self._fold is fold:
                self._fold = None

    def encode(self, state_vector: bytes) -> bytes:
        """What a peer with this state vector lacks, as one update with stand-ins; `revealed` puts back what they stand for.

        Raises:
            DocumentBroken: pycrdt can't.
        """
        assert not self._deferred, "fold first"
        with _broken_by_panic():
            self._end_transaction()
            return bytes(self._doc.get_update(state_vector))

    def revealed(self, encoded: bytes) -> Steps[bytes]:
        """Put back what stand-ins in an encoded update stand for, in steps of some milliseconds.

        Raises:
            DocumentBroken: pycrdt wrote what can't be read.
        """
        try:
            return (yield from revealing(encoded))
        except ProtocolError as error:
            raise DocumentBroken(f"pycrdt encoded what can't be read: {error}") from error

    def copying(self, client_id: int) -> Steps[Doc]:
        """Make a copy for somebody to edit, stand-ins and all, in steps of some milliseconds: of the first one's moment.

        Raises:
            DocumentBroken: pycrdt can't.
        """
        state = self.encode(b"\x00")
        yield
        copy = Native(self._recorder, self._trace, client_id=client_id)
        try:
            yield from copy._loading(state)
        except (ProtocolError, UpdateBreaksDocument) as error:
            raise DocumentBroken(f"pycrdt can't load what it encoded: {error}") from error
        copy._end_transaction()
        return copy._doc

    def state_vector(self) -> bytes:
        """What was applied, and not put off.

        Raises:
            DocumentBroken: pycrdt can't say.
        """
        with _broken_by_panic():
            return bytes(self._doc.get_state())

    def give(self, data: bytes, *, simple: bool = False) -> None:
        """Hand bytes to pycrdt."""
        try:
            small = len(data) <= TOGETHER_BYTES_MAX
            if not small or self._together >= TOGETHER_MAX:
                self._end_transaction()
            if small and self._transaction is None:
                self._transaction = self._doc.transaction().__enter__()
            self._together += small
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
        if not simple and _lacks(self.state_vector(), data):
            raise UpdateBreaksDocument("pycrdt didn't integrate an update that was ready")

    def _loading(self, state: bytes) -> Steps[None]:
        """Load what another one encoded."""
        update = yield from reading(state, bounded=False)
        pieces = Pieces(state, update)
        for piece in pieces:
            with noted(self._recorder, b""), pieces.timed():
                self.give(piece, simple=True)
            yield

    def _end_transaction(self) -> None:
        transaction, self._transaction = self._transaction, None
        self._together = 0
        if transaction is not None:
            transaction.__exit__(None, None, None)

    def _give_deferred(self, data: bytes, gone: Gone) -> None:
        try:
            self.give(for_pycrdt(data, self._cuts, gone))
        except (ProtocolError, UpdateBreaksDocument) as error:
            raise DocumentBroken(f"what was accepted can't be folded in: {error}", culprit=data) from error

    def _cutting(self, fold: object) -> Steps[None]:
        """Cut the pairs that pycrdt has: in its bytes, which are then loaded anew."""
        with noted(self._recorder, b""):
            had = read_state_vector(self.state_vector())
        if not any(low < had.get(client, 0) for client, lows in self._cuts.items() for low in lows):
            return
        with noted(self._recorder, b""), _broken_by_panic():
            self._end_transaction()
            state = bytes(self._doc.get_update())
        yield
        state = yield from cutting(state, self._cuts)
        cut = Native(self._recorder, self._trace)
        for _ in cut._loading(state):
            yield
            if self._fold is not fold:
                return
        with noted(self._recorder, b""), _broken_by_panic():
            if read_state_vector(cut.state_vector()) != had:
                raise UpdateBreaksDocument("pycrdt didn't load all of its own state")
            cut._end_transaction()
        self._doc = cut._doc


@contextmanager
def noted(recorder: Recorder, data: bytes) -> Iterator[None]:
    """Have it recorded that `data`, or if empty anything else, is being given to native code."""
    recorder.note(data)
    try:
        yield
    finally:
        recorder.clear()


def _lacks(state_vector: bytes, data: bytes) -> bool:
    """Whether an update has structs that aren't in a document with this state vector."""
    try:
        return pycrdt.get_update(data, state_vector)[0] != 0
    except BaseException as error:
        if _is_panic(error):
            raise UpdateBreaksDocument(f"pycrdt panicked: {error}") from error
        raise


@contextmanager
def _broken_by_panic() -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if _is_panic(error):
            raise DocumentBroken(f"pycrdt panicked: {error}") from error
        raise


def _is_panic(error: BaseException) -> bool:
    """Rust panics are `pyo3_runtime.PanicException`: no `Exception`, and not to be imported from anywhere."""
    return type(error).__name__ == "PanicException"
