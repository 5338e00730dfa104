"""The contract that every store keeps: what goes in, what comes out, what can go wrong.

A store remembers, per document, an append-only log of updates and at most one snapshot that stands for the log's
beginning. Bytes are opaque here: whoever needs them merged or understood does it before.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from typing import NamedTuple, Protocol, runtime_checkable


class StoreError(Exception):
    """Base of everything a store raises on purpose. Nothing was changed, unless the subclass says otherwise."""


class StoreUnavailable(StoreError):
    """It didn't work this time: locked, disk full, I/O error, closed. Try again later; the cause is kept.

    After a failed `append` the entries are not in the log. One exception, at the edge of what can be known: if the
    failure was the flush to disk itself and power is lost right after, recovery may still find the whole group.
    Appending it again is harmless to a CRDT.
    """


class StoreCorrupt(StoreUnavailable):
    """What is stored is not what must be there. An operator should look; the caller keeps what it has in memory."""


class StoreUnusable(StoreError):
    """Trying again won't help: somebody has to change something first. The message says what."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One document's share of a group commit: updates of one user, in order of acceptance.

    Raises:
        ValueError: No updates, `accepted_at` without time zone, or a name that not every store could keep.
    """

    document: str
    """Name: not empty, no NUL and no lone surrogates (PostgreSQL takes neither, SQLite no surrogates)."""

    updates: Sequence[bytes]
    """At least one; each becomes one row."""

    _: KW_ONLY

    accepted_at: datetime
    """Aware. Kept in UTC, to the microsecond."""

    user_id: str | None = None
    """Who wrote them, as far as anybody knows."""

    def __post_init__(self) -> None:
        _check_name(self.document)
        if not len(self.updates):
            raise ValueError(f"an entry needs at least one update; that of {self.document!r} has none")
        if self.accepted_at.tzinfo is None:
            raise ValueError(f"accepted_at needs a time zone, got {self.accepted_at!r}")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a document's log said up to and including `seq`, folded.

    Raises:
        ValueError: `seq` below 1: there is nothing to fold.
    """

    document: str

    _: KW_ONLY

    seq: int
    """The last update that is folded in."""

    state: bytes
    """All updates up to `seq` that could be integrated, as one update."""

    waiting: tuple[bytes, ...] = ()
    """The updates up to `seq` that couldn't be integrated yet, in order of acceptance."""

    state_vector: bytes
    """What `state` contains."""

    def __post_init__(self) -> None:
        if self.seq < 1:
            raise ValueError(f"a snapshot folds at least one update; {self.document!r} came with seq {self.seq}")


@dataclass(frozen=True, slots=True)
class Stored:
    """All that is stored of one document, read at one moment. A document nobody wrote to has `head_seq` 0."""

    head_seq: int
    """Seq of the last update; 0 if there is none."""

    snapshot: Snapshot | None
    """Stands for the updates up to its seq."""

    updates: tuple[bytes, ...]
    """The updates after the snapshot, up to `head_seq`, in seq order and without gaps."""


class DocumentHead(NamedTuple):
    """A document and the seq of its last update."""

    name: str
    head_seq: int


@runtime_checkable
class Store(Protocol):
    """Remembers documents as sequences of bytes.

    Promises, all of them tested in `tests/contracts/test_store.py`:

    - Seqs start at 1 and have no gaps, per document, in order of acceptance.
    - What a call wrote is durable when it returns, all of it; if it raises, none of it is there.
    - A call sees everything that earlier calls, on any connection, had returned from.
    - Cancelling the awaiting task never leaves half a write: the call takes place as a whole, or not at all.

    Every method raises `StoreUnavailable` for what may pass, `StoreCorrupt` for stored data that contradicts itself.
    """

    async def open(self) -> None:
        """Get ready; create or migrate the schema. Does nothing if open. After a failure, nothing is held.

        Raises:
            StoreUnusable: Somebody else's database, a newer schema, in use by another server, a bad path or address.
        """

    async def close(self) -> None:
        """Let running calls finish, then let go. Does nothing if closed. Later calls raise `StoreUnavailable`."""

    async def load(self, document: str) -> Stored:
        """Read one document as of one moment. Creates nothing."""

    async def append(self, entries: Sequence[Entry]) -> list[int]:
        """Store all entries in one transaction, creating documents as needed.

        Several entries may name one document; their updates follow each other in the order given.

        Returns:
            For each entry, the seq of its last update.
        """

    async def checkpoint(self, snapshots: Sequence[Snapshot]) -> None:
        """Store snapshots and drop the updates that they fold, in one transaction.

        Each snapshot is written, read back and compared before anything is deleted. One that is older than the
        stored one is passed over, so late and repeated calls do no harm; one at the same seq replaces it.

        Raises:
            StoreCorrupt: A snapshot read back different, or is ahead of the log (which then lost its end).
        """

    async def documents(self) -> list[DocumentHead]:
        """Every document, ordered by name. For tools: it reads them all."""

    def describe(self) -> str:
        """Name the store for people, e.g. "SQLite database /data/crdt-sync.db". Contains no secrets."""


def open_store(url: str) -> Store:
    """Make the store that a URL names. It touches nothing until `open()` is called.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute/path.db` (the path is taken as it stands: nothing is
            percent-decoded, there are no options) or `memory://`.

    Raises:
        StoreUnusable: The URL names no store. The message repeats the scheme only: a URL may hold a password.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "memory" and not rest:
        from persistence.memory import MemoryStore

        return MemoryStore()
    if scheme == "sqlite":
        path = rest.removeprefix("/")
        if path == rest or path in ("", "/", ":memory:") or "?" in path or "\0" in path:
            raise StoreUnusable(
                "a SQLite URL is sqlite:///relative.db or sqlite:////absolute/path.db, without options; "
                "for a store without a file use memory://"
            )
        from persistence.sqlite import SqliteStore

        return SqliteStore(path)
    raise StoreUnusable(
        f"no store for URLs that start with {scheme + '://' if _ else 'no scheme'!r}; "
        "use sqlite:///file.db, or memory:// to keep nothing"
    )


def _check_name(document: str) -> None:
    if not document or "\0" in document:
        raise ValueError(f"a document's name must not be empty or contain NUL, got {document!r}")
    document.encode()  # UnicodeEncodeError, a ValueError, for lone surrogates
