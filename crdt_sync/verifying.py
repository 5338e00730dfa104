"""Whether what is stored of a document is what it has to be: seqs without gaps, updates that fit, a snapshot that says what it has.

Pure: an `Export` in, problems out; nothing is repaired. As far as history is kept, the snapshot is also compared with what its updates amount to. What
can't be found: bytes that changed into others which mean something as well, such as a letter that became another one, where nothing else that is
stored contradicts them.
"""

import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from persistence import Export, Row, Snapshot, StoreCorrupt, VersionContent
from persistence.chunks import unpack_rows

from .content import read_content
from .document import Document, Outcome, digest, is_sound
from .errors import ContentTooCostly, DocumentBroken, MalformedUpdate, ProtocolError
from .pacing import at_once
from .replay import replaying
from .update import read_state_vector, read_update

# So many updates may break a document, and are left out when the rest is looked at.
BREAKING_MAX: Final = 64

_RESTORE: Final = (
    "The server refuses the document rather than show a part of it. Bring back what it was from a backup of the database: "
    "export it there, then delete, purge and import it here. Clients that still have it send what they know of it when they connect then"
)
ADVICE: Final = {
    "unreadable": f"Nothing may delete rows but the server itself; otherwise have the disk and the memory checked. {_RESTORE}",
    "missing": f"Nothing may delete rows but the server itself. {_RESTORE}",
    "beyond": "The document's row was changed by hand, or restored from another moment than the rest. Restore the whole database from one backup",
    "malformed": f"The stored bytes have changed since they were accepted: have the disk and the memory checked. {_RESTORE}",
    "misfit": "The update is kept, and shown to nobody. If the disk and the memory are in order, a client used its clocks twice: nothing to be "
    "done. Otherwise compare with a backup: export the document there and import that here, which adds what is missing",
    "snapshot": f"The snapshot isn't what was stored as one: have the disk and the memory checked. {_RESTORE}",
    "differs": "Either the snapshot or the history has changed since it was stored: have the disk and the memory checked. The document can be opened, "
    "and shows what the snapshot has. Compare with a backup",
    "history": "What the document was can't be read as of each moment, or not rightly; what it is isn't concerned. Have the disk and the memory checked. A "
    "backup may have that part",
    "version": "This version can't be restored, or not rightly; the document isn't concerned. Have the disk and the memory checked. Restore another version, "
    "or the same from a backup",
    "breaks": "Keep a copy (crdt-sync store copy) and report it. A server leaves the update out, and what builds on it",
    "unsound": "Keep a copy (crdt-sync store copy) and report it. The log is complete, and stays as it is: a server makes no snapshot of the document",
    "crashes": "Keep a copy (crdt-sync store copy) and report it. docs/how-to/when-a-document-crashes-the-server.md says what a server does about it",
}
"""By kind of problem, what to do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that isn't as it has to be."""

    kind: str
    """A key of `ADVICE`."""
    text: str
    """What, in a sentence."""
    seq: int | None = None
    """The update that it is about."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found out about one document."""

    name: str
    updates: int = 0
    """Those in the log."""
    payload_bytes: int = 0
    """What was read: log, snapshot, history and versions."""
    has_snapshot: bool = False
    versions: int = 0
    history_updates: int = 0
    """Those that the snapshot took from the log, as far as they are kept."""
    problems: tuple[Finding, ...] = ()
    waiting: int = 0
    """Updates that can't be integrated since what they build on never came. No problem: they are stored and wait for it. But that is also
    what is left when something got lost."""
    quarantined: int = 0
    """Updates that were left out because they are quarantined."""


def check(export: Export, harmful: Collection[bytes] = ()) -> Checked:
    """Look at all that is stored of a document.

    Args:
        export: It, with its history.
        harmful: Digests of the updates that are quarantined.
    """
    return _Check(export, harmful).checked()


class _Check:
    def __init__(self, export: Export, harmful: Collection[bytes]) -> None:
        self._export = export
        self._quarantined = frozenset(harmful)
        self._problems: list[Finding] = []
        self._waiting = 0
        self._past: list[Row] = []

    def checked(self) -> Checked:
        export, snapshot = self._export, self._export.snapshot
        self._check_seqs()
        held = () if snapshot is None else (snapshot.state, *snapshot.waiting)
        updates = [*held, *(row.update for row in export.rows)]
        loads = snapshot is None or self._snapshot_is_right(snapshot)
        rows = [row for row in export.rows if self._is_well_formed(row)]
        if loads:
            self._replay(held, rows)
        history_is_right = self._history_is_right()
        # What is in an archive is checked when it is read.
        versions = [one for one in export.versions if isinstance(one, VersionContent)]
        sound_versions = [
            one.snapshot
            for one in versions
            if self._is_right(one.snapshot, f"the snapshot of version {one.version.id}", "version")
        ]
        if snapshot is not None and loads and history_is_right:
            self._compare(snapshot, sound_versions)
        kept = [*updates, *(chunk.blob for chunk in export.chunks), *(one.snapshot.state for one in versions)]
        return Checked(
            export.document,
            updates=len(export.rows),
            payload_bytes=sum(map(len, kept)),
            has_snapshot=snapshot is not None,
            versions=len(export.versions),
            history_updates=len(self._past),
            problems=tuple(self._problems),
            waiting=self._waiting,
            quarantined=sum(digest(one) in self._quarantined for one in updates) if self._quarantined else 0,
        )

    def _find(self, kind: str, text: str, seq: int | None = None) -> None:
        self._problems.append(Finding(kind, text, seq))

    def _check_seqs(self) -> None:
        export = self._export
        folded = export.snapshot.seq if export.snapshot is not None else 0
        if folded > export.head_seq:
            self._find("beyond", f"the snapshot is of seq {folded}, but the log ends at {export.head_seq}")
        there = [row.seq for row in export.rows]
        missing = sorted({*range(folded + 1, export.head_seq + 1)}.difference(there))
        if missing:
            self._find("missing", f"{_seqs(missing)} missing: the log has to have {folded + 1} to {export.head_seq}")
        for seq in there:
            if seq > export.head_seq:
                self._find("beyond", f"there is an update {seq}, but the log ends at {export.head_seq}", seq)

    def _is_well_formed(self, row: Row) -> bool:
        try:
            read_update(row.update, bounded=False)
        except MalformedUpdate as error:
            self._find("malformed", f"the update with seq {row.seq} is malformed: {error}", row.seq)
            return False
        return True

    def _snapshot_is_right(self, snapshot: Snapshot) -> bool:
        if digest(snapshot.state) in self._quarantined:
            self._find("crashes", "the snapshot itself is quarantined, so the document can't be opened")
            return False
        return self._is_right(snapshot, "the snapshot", "snapshot")

    def _is_right(self, snapshot: Snapshot, which: str, kind: str) -> bool:
        """Load a document from the state alone, as clients do, and compare."""
        document = Document(waiting_bytes_max=sys.maxsize)
        found = len(self._problems)
        try:
            outcome = document.restore(snapshot.state)
            has = read_state_vector(document.state().state_vector)
            if outcome is Outcome.WAITING:
                self._find(kind, f"{which}'s state lacks what it builds on, or doesn't fit together")
        except (ProtocolError, DocumentBroken) as error:
            self._find(kind, f"{which}'s state can't be loaded: {error}")
            has = {}
        try:
            says = read_state_vector(snapshot.state_vector)
            if len(self._problems) == found and has != says:
                self._find(kind, f"{which}'s state vector isn't what its state has: {_differ(says, has)}")
        except ProtocolError as error:
            self._find(kind, f"{which}'s state vector is malformed: {error}")
        for number, update in enumerate(snapshot.waiting, 1):
            try:
                read_update(update, bounded=False)
            except MalformedUpdate as error:
                self._find(kind, f"update {number} of those that wait in {which} is malformed: {error}")
        return len(self._problems) == found

    def _history_is_right(self) -> bool:
        """Unpack what the snapshot took from the log. It may begin late, but has no gaps, and ends where the snapshot does."""
        found = len(self._problems)
        chunks = self._export.chunks
        for chunk in chunks:
            try:
                self._past += unpack_rows(self._export.document, chunk)
            except StoreCorrupt as error:
                self._find("history", str(error))
        ends = [*(chunk.first_seq - 1 for chunk in chunks[1:])]
        if chunks and self._export.snapshot is not None:
            ends.append(self._export.snapshot.seq)
        for chunk, end in zip(chunks, ends, strict=False):
            if chunk.last_seq != end:
                self._find("history", f"the history has a gap or an overlap after seq {chunk.last_seq}", chunk.last_seq)
        for row in self._past:
            try:
                read_update(row.update, bounded=False)
            except MalformedUpdate as error:
                self._find("history", f"the update with seq {row.seq} in the history is malformed: {error}", row.seq)
        return len(self._problems) == found

    def _compare(self, snapshot: Snapshot, versions: list[Snapshot]) -> None:
        """Put together what the snapshot stands for, from as long ago as anything is kept, and see whether it is the same."""
        if not self._past or not snapshot.whole or self._quarantined:
            return
        kept_from = self._past[0].seq
        base = next((one for one in versions if one.whole and kept_from - 1 <= one.seq < snapshot.seq), None)
        if kept_from > 1 and base is None:
            return
        if kept_from == 1:
            base = None
        rows = [row.update for row in self._past if base is None or row.seq > base.seq]
        try:
            replayed = at_once(replaying(base, rows))
            loaded = at_once(replaying(snapshot, ()))
            same = _content(replayed) == _content(loaded)
        except ContentTooCostly:
            return
        except (ProtocolError, DocumentBroken) as error:
            self._find("history", f"the history can't be put together: {error}")
            return
        if not same:
            since = "all updates" if base is None else f"the version of seq {base.seq} and the updates since"
            self._find("differs", f"the snapshot isn't what {since} amount to")

    def _replay(self, held: Collection[bytes], rows: list[Row]) -> None:
        """Put the document together as a room does, and see whether it is sound."""
        harmful = set(self._quarantined)
        seq_of = {digest(row.update): row.seq for row in reversed(rows)}
        for _ in range(BREAKING_MAX):
            document = Document(waiting_bytes_max=sys.maxsize, harmful=harmful)
            misfits: list[Finding] = []
            try:
                for update in held:
                    document.restore(update)
                for row in rows:
                    self._restore(document, row, harmful, misfits)
                state = document.state()
            except DocumentBroken as error:
                culprit = digest(error.culprit) if error.culprit is not None else None
                seq = seq_of.get(culprit) if culprit is not None else None
                which = f"the update with seq {seq}" if seq is not None else "an update"
                self._find("breaks", f"{which} breaks the document: {error}", seq)
                if culprit is None:
                    return
                harmful.add(culprit)
                continue
            self._problems += misfits
            self._waiting = len(state.waiting) - len(misfits)
            self._waiting -= sum(digest(one) in harmful for one in state.waiting)
            if not is_sound(state):
                self._find("unsound", "the document can't be loaded from the state that it is in")
            return
        self._find("breaks", f"more than {BREAKING_MAX} updates break the document")

    def _restore(self, document: Document, row: Row, harmful: Collection[bytes], misfits: list[Finding]) -> None:
        try:
            if document.restore(row.update) is not Outcome.WAITING or digest(row.update) in harmful:
                return
            clocks = read_state_vector(document.state_vector())
            needs = read_update(row.update, bounded=False).needs
            if all(clocks.get(client, 0) >= clock for client, clock in needs.items()):
                text = f"the update with seq {row.seq} doesn't fit to what the document holds"
                misfits.append(Finding("misfit", text, row.seq))
        except ProtocolError as error:
            text = f"the update with seq {row.seq} can't be taken in: {error}"
            self._find("malformed", text, row.seq)


def _content(document: Document) -> object:
    state = document.state()
    return read_state_vector(state.state_vector), read_content(state.update).to_json(rich=True)


def _seqs(missing: list[int]) -> str:
    if len(missing) == 1:
        return f"update {missing[0]} is"
    if missing[-1] - missing[0] == len(missing) - 1:
        return f"updates {missing[0]} to {missing[-1]} are"
    return f"{len(missing)} updates between {missing[0]} and {missing[-1]} are"


def _differ(says: dict[int, int], has: dict[int, int]) -> str:
    client = min(client for client in {*says, *has} if says.get(client) != has.get(client))
    return f"of client {client} it says {says.get(client, 0)}, the state has {has.get(client, 0)}"
