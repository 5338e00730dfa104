"""The contract that every store keeps: what goes in, what comes out, what can go wrong.

A store remembers, per document, an append-only log of updates and at most one snapshot that stands for the log's
beginning. Bytes are opaque here: whoever needs them merged or understood does it before.

Of a document's past it keeps what the snapshot took from the log, in chunks, and versions: copies of the snapshot.

It also remembers what must not come back: documents that were deleted, updates that are quarantined, and what was
revoked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

from persistence.versions import LABEL_BYTES_MAX, VERSION_KINDS, Chunk, Span, Version, VersionKind

NAME_BYTES_MAX: Final = 2048  # a B-tree entry of PostgreSQL holds 2,704
QUARANTINED_MAX: Final = 64
DIGEST_BYTES_MAX: Final = 64
# A revocation is removed this long after it has expired, as clocks differ.
REVOCATION_GRACE: Final = timedelta(days=1)


class StoreError(Exception):
    """Base of everything a store raises on purpose. Nothing was changed, unless the subclass says otherwise."""


class StoreUnavailable(StoreError):
    """It didn't work this time: locked, disk full, I/O error, closed. Try again later; the cause is kept.

    After a failed `append` the entries are not in the log, as far as can be known. A connection that is lost between
    the commit and its answer, or a flush to disk that fails right before the power does, leaves the whole group there
    all the same. Appending it again is harmless to a CRDT: the copies get seqs of their own and change nothing.
    """


class StoreCorrupt(StoreUnavailable):
    """What is stored is not what must be there. An operator should look; the caller keeps what it has in memory."""


class ArchiveUnavailable(StoreUnavailable):
    """It isn't the database that failed, but the archive that has the content of old versions."""


class StoreUnusable(StoreError):
    """Trying again won't help: somebody has to change something first. The message says what."""


class HistoryTrimmed(StoreError):
    """The updates asked for were in the log once, and aren't kept any more."""


class StoreInUse(StoreUnusable):
    """Another server has it for itself."""


class DocumentExists(StoreError):
    """A document of that name is stored already."""


class DocumentDeleted(StoreError):
    """The document was deleted, and nobody has allowed its name again."""

    def __init__(self, document: str, deleted_at: datetime) -> None:
        super().__init__(f"{document!r} was deleted at {deleted_at.isoformat(timespec='seconds')}")
        self.deleted_at = deleted_at


@dataclass(frozen=True, slots=True)
class Facts:
    """What a store says of itself, for whoever looks after it."""

    version: str
    """Of the database's software, such as "15.18"."""

    now: datetime
    """What its clock says."""

    settings: Mapping[str, str]
    """What matters of how it is set up, by the names that it has for it. See each store."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One document's share of a group commit: updates of one user, in order of acceptance.

    Raises:
        ValueError: No updates, `accepted_at` without time zone, or a name that not every store could keep.
    """

    document: str
    """Name: 1 to `NAME_BYTES_MAX` bytes, no NUL, no lone surrogates (PostgreSQL takes neither, SQLite no surrogates)."""

    updates: Sequence[bytes]
    """At least one; each becomes one row."""

    _: KW_ONLY

    accepted_at: datetime
    """Aware. Kept in UTC, to the microsecond."""

    user_id: str | None = None
    """Who wrote them, as far as anybody knows. Neither NUL nor lone surrogates."""

    def __post_init__(self) -> None:
        _check_name(self.document)
        if self.user_id is not None:
            _check_text("a user's id", self.user_id)
        if not len(self.updates):
            raise ValueError(f"an entry needs at least one update; that of {self.document!r} has none")
        check_aware("accepted_at", self.accepted_at)


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

    whole: bool = True
    """Whether it has the updates up to `seq` and no others. With several nodes it may have some of the later ones."""

    def __post_init__(self) -> None:
        if self.seq < 1:
            raise ValueError(f"a snapshot folds at least one update; {self.document!r} came with seq {self.seq}")


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored of one document, read at one moment. A document nobody wrote to has `head_seq` 0."""

    head_seq: int
    """Seq of the last update; 0 if there is none."""

    snapshot: Snapshot | None
    """Stands for the updates up to its seq; None if there is none, or it has nothing that wasn't asked for."""

    updates: tuple[bytes, ...]
    """The updates after the snapshot, or after what was asked for, up to `head_seq`, in seq order and without gaps."""

    quarantined: frozenset[bytes] = frozenset()
    """Digests of the updates that must not be loaded, wherever they come from."""


class Row(NamedTuple):
    """One update of a log, with what is known of it."""

    seq: int
    update: bytes
    user_id: str | None
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class VersionContent:
    """A version, and the snapshot that it is a copy of."""

    version: Version
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class ArchivedVersion:
    """A version whose content is kept somewhere else."""

    version: Version
    digest: bytes
    """What that is recognised by. How it is made is the caller's business."""


@dataclass(frozen=True, slots=True)
class Export:
    """One document as another store can take it, read at one moment."""

    document: str
    created_at: datetime
    head_seq: int
    snapshot: Snapshot | None
    rows: tuple[Row, ...]
    """What is kept of the log, in seq order; all that follows the snapshot."""
    deleted_at: datetime | None = None
    """When it was deleted; None if it wasn't."""
    chunks: tuple[Chunk, ...] = ()
    """The folded part of the log, in seq order, if it was asked for."""
    versions: tuple[VersionContent | ArchivedVersion, ...] = ()
    """Oldest first, if they were asked for."""


@dataclass(frozen=True, slots=True)
class DocumentStats:
    """What one document occupies."""

    document: str
    head_seq: int
    rows: int
    """Updates in the log."""
    log_bytes: int
    """Their bytes."""
    snapshot_seq: int
    """0 if there is no snapshot."""
    snapshot_bytes: int
    """As stored, so after compression."""
    oldest_unfolded_at: datetime | None
    """When the oldest update that no snapshot has was accepted; None if a snapshot has them all."""
    deleted_at: datetime | None = None
    """When it was deleted; None if it wasn't."""
    history_bytes: int = 0
    """What its chunks occupy: as stored, so after compression."""
    versions: int = 0
    version_bytes: int = 0
    """As stored, without those that are archived."""


class Schema(NamedTuple):
    """The versions of a store's schema."""

    found: int
    """That of what is stored; 0 if nothing is there yet."""
    known: int
    """The newest that this release knows."""


class DocumentHead(NamedTuple):
    """A document and the seq of its last update."""

    name: str
    head_seq: int
    deleted_at: datetime | None = None
    """None if it wasn't."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An update that must not be loaded into a document.

    Raises:
        ValueError: A name that can't be stored, no digest or one over `DIGEST_BYTES_MAX`, or `at` without time zone.
    """

    document: str
    digest: bytes
    """What it is recognised by. How it is made is the caller's business."""
    at: datetime
    """When it was quarantined, last."""

    def __post_init__(self) -> None:
        _check_name(self.document)
        check_digest(self.digest)
        check_aware("at", self.at)


RevocationKind = Literal["user", "token", "room"]
_REVOCATION_KINDS: Final = ("user", "token", "room")


@dataclass(frozen=True, slots=True)
class Revocation:
    """Tokens issued before a moment count no longer.

    Raises:
        ValueError: Another kind, a value that can't be stored, or a time without time zone.
    """

    kind: RevocationKind
    value: str
    """The user's id, the token's, or the room's name: 1 to `NAME_BYTES_MAX` bytes, neither NUL nor lone surrogates."""
    revoked_at: datetime
    until: datetime
    """When the last of the tokens concerned has expired. Nobody needs to know of it then."""

    def __post_init__(self) -> None:
        if self.kind not in _REVOCATION_KINDS:
            raise ValueError(f"a user, a token or a room can be revoked, not a {self.kind!r}")
        _check_text(f"a revoked {self.kind}", self.value)
        if not 1 <= len(self.value.encode()) <= NAME_BYTES_MAX:
            raise ValueError(f"a revoked {self.kind} has 1 to {NAME_BYTES_MAX} bytes, got {self.value!r}")
        check_aware("revoked_at", self.revoked_at)
        check_aware("until", self.until)


@runtime_checkable
class Store(Protocol):
    """Remembers documents as sequences of bytes.

    Promises, all of them tested in `tests/contracts/`:

    - Seqs start at 1 and have no gaps, per document, in order of acceptance.
    - What a call wrote is durable when it returns, all of it; if it raises, none of it is there.
    - A call sees everything that earlier calls, on any connection, had returned from.
    - Cancelling the awaiting task never leaves half a write: the call takes place as a whole, or not at all.

    Several nodes may write to one document at once where `shared` says so; the others' updates stand between.

    A deleted document keeps its content, so that it can come back as it was. Nothing but `undelete` brings it back, and
    only `purge` frees its name. `append` and `checkpoint` go on as if nothing had happened: a node that hasn't heard of
    it yet may hold accepted updates, which must not keep those of other documents from being stored.

    The past of a deleted document, that is `timeline`, `rows` and versions, can be read and changed as before. Who may
    see it is for the caller to decide.

    Every method raises `StoreUnavailable` for what may pass, `StoreCorrupt` for stored data that contradicts itself.
    """

    shared: bool
    """Whether several servers may use it at the same time."""

    async def open(self) -> None:
        """Get ready; create or migrate the schema, if that is wanted. Does nothing if open. After a failure, nothing
        is held.

        Raises:
            StoreUnusable: Somebody else's database, a newer schema, an older one that may not be migrated, in use by
                another server, a bad path or address.
        """

    async def schema(self) -> Schema:
        """Tell the schema's version, newer ones too, without opening, creating or changing anything.

        Raises:
            StoreUnusable: Somebody else's database, a bad path or address.
        """

    async def close(self) -> None:
        """Let running calls finish, then let go. Does nothing if closed. Later calls raise `StoreUnavailable`."""

    async def check(self) -> None:
        """Return if an append would work now; raise otherwise. Writes as an append does, and changes nothing."""

    async def facts(self) -> Facts:
        """Tell what it is and how it is set up."""

    async def load(self, document: str, *, after: int = 0) -> Stored:
        """Read one document as of one moment. Creates nothing.

        Args:
            document: Its name.
            after: The caller has everything up to this seq, and wants only the rest.

        Raises:
            DocumentDeleted: It was deleted.
        """

    async def heads(self, documents: Sequence[str]) -> dict[str, int | None]:
        """The seq of the last update of each of these documents, of those that there are; None if it was deleted."""

    async def append(self, entries: Sequence[Entry]) -> list[int]:
        """Store all entries in one transaction, creating documents as needed.

        Several entries may name one document; their updates follow each other in the order given.

        Returns:
            For each entry, the seq of its last update.
        """

    async def checkpoint(self, snapshots: Sequence[Snapshot], *, keep_history: bool = True) -> frozenset[str]:
        """Store snapshots, at most one of a document, and move the updates that they fold from the log into its
        history, in one transaction.

        Each snapshot is written, read back and compared before anything is deleted. One that is older than the
        stored one is passed over, so late and repeated calls do no harm; one at the same seq replaces it.

        Args:
            snapshots: What to store.
            keep_history: If not, the updates are dropped, and the history that there is goes with them: it has no gaps.

        Returns:
            The documents left as they are because another node is at them: about to store a snapshot, say.

        Raises:
            StoreCorrupt: A snapshot read back different, or is ahead of the log (which then lost its end).
        """

    async def timeline(self, document: str) -> list[Span]:
        """Tell what is kept of a document's log, in seq order: each chunk of its history, and then all rows that no
        snapshot has as one more. Without gaps, unless something got lost. Empty for an unknown document.
        """

    async def rows(self, document: str, *, first: int, last: int) -> list[Row]:
        """Read updates from history and log, in seq order and without gaps.

        Args:
            document: Its name.
            first: Seq of the first.
            last: Seq of the last. The end of the log will do, if it comes before.

        Raises:
            HistoryTrimmed: What is kept begins after `first`.
            StoreCorrupt: One in between is missing, or a chunk isn't what was written.
        """

    async def trim_history(self, document: str, *, upto: int) -> bool:
        """Forget the chunks that end at `upto` or before.

        Returns:
            False if nothing was done because another node is at this document.
        """

    async def versioned(self, *, start: str = "", limit: int | None = None) -> list[str]:
        """Names of documents, deleted ones too, that have a history or versions. In order, and paged, like
        `documents`; may lag behind like it.
        """

    async def take_version(
        self,
        document: str,
        *,
        at: datetime,
        kind: VersionKind,
        label: str | None = None,
        user_id: str | None = None,
        unless_since: datetime | None = None,
    ) -> Version | None:
        """Keep a copy of the stored snapshot, made where it is stored.

        If there is a version of this seq already, it gets the label if it has none yet; without a label, nothing is
        done. So two nodes that take one at the same time make one.

        Args:
            document: Its name.
            at: Now; aware.
            kind: What it is taken for.
            label: 1 to `LABEL_BYTES_MAX` bytes for people, neither NUL nor lone surrogates.
            user_id: Who asked for it.
            unless_since: Do nothing if a version was taken after this moment.

        Returns:
            The version that was made, or given the label; None if nothing was done, or there is no snapshot.
        """

    async def versions(self, document: str) -> list[Version]:
        """Its versions, newest first."""

    async def version(self, document: str, id: int) -> VersionContent | ArchivedVersion | None:
        """One version with its content, if that is here; None if there is none of that id.

        Raises:
            StoreCorrupt: It isn't what was written.
        """

    async def label_version(self, document: str, id: int, label: str | None) -> bool:
        """Put a label on a version in place of the one it has, or take it off; return whether there is such a version."""

    async def archive_version(self, document: str, version: Version, *, digest: bytes) -> bool:
        """Forget a version's content, which is kept somewhere else now.

        Args:
            document: Its name.
            version: Which, as it was read. One that has its id, but was taken of another document of that name, stays.
            digest: What that content is recognised by, 1 to `DIGEST_BYTES_MAX` bytes.

        Returns:
            Whether its content was here.
        """

    async def delete_versions(self, document: str, ids: Sequence[int]) -> int:
        """Forget these versions; return how many of them there were."""

    async def delete(self, document: str, *, at: datetime) -> bool:
        """Delete a document; return whether it was there, and not deleted yet.

        Args:
            document: Its name.
            at: Now; aware.
        """

    async def undelete(self, document: str) -> bool:
        """Have a deleted document be as it was before; return whether it was deleted."""

    async def purge(self, document: str) -> bool:
        """Forget a deleted document wholly, what is quarantined too, and return whether it was deleted.

        The name may be used anew then, with seqs from 1. What runs at the same time takes place before, and is
        forgotten too, or after: an append makes a new document then, and a snapshot is ahead of its log.

        Ask for it only once every node has had time to close the document. Later, the store can't tell updates and
        snapshots of the old document from those of a new one with its name.
        """

    async def documents(
        self, *, deleted: bool = False, start: str = "", limit: int | None = None
    ) -> list[DocumentHead]:
        """Documents, ordered by name (its code points). May lag behind, if there is a replica.

        Args:
            deleted: Whether to list those that were deleted, and no others.
            start: Only from this name on.
            limit: So many at most; None for all, which is for tools.
        """

    async def stats(self) -> list[DocumentStats]:
        """What every document occupies, deleted ones too, ordered by name. For tools; may lag behind like `documents`."""

    async def size_bytes(self) -> int:
        """What everything occupies on disk, indexes and free space included. May lag behind like `stats`."""

    async def export(self, document: str, *, deleted: bool = False, history: bool = False) -> Export | None:
        """Read all that is kept of one document; None if there is none. May lag behind, if there is a replica.

        Args:
            document: Its name.
            deleted: Whether one that was deleted will do.
            history: Whether its chunks and versions are wanted too, all of them at once.

        Raises:
            DocumentDeleted: It was deleted, and won't do.
        """

    async def put(self, export: Export, *, replace: bool = False) -> None:
        """Write a whole document, as `export` read it somewhere else, in one transaction.

        Args:
            export: What to write; seqs, users and times stay as they are. A deleted one is deleted afterwards.
            replace: Whether a document of that name gives way, with its history and versions. Not while a server has it
                open.

        Raises:
            DocumentDeleted: There is one that was deleted, and `export` isn't. It has to be undeleted or purged first.
            DocumentExists: There is one, and it may not be replaced.
        """

    async def quarantine(self, document: str, digest: bytes, *, at: datetime) -> None:
        """Remember an update that must not be loaded. Harmless if repeated; the later time counts.

        Args:
            document: The name of the document, which needn't exist. Of each the newest `QUARANTINED_MAX` are kept.
            digest: What the update is recognised by, 1 to `DIGEST_BYTES_MAX` bytes.
            at: Now; aware.
        """

    async def quarantined(self) -> list[Quarantined]:
        """All that is quarantined, ordered by document and time. For tools; may lag behind like `documents`."""

    async def revoke(self, revocation: Revocation) -> None:
        """Remember a revocation. If there is one of that kind and value, the later of both times count.

        Forgets revocations that expired more than `REVOCATION_GRACE` before this one was made.
        """

    async def unrevoke(self, kind: RevocationKind, value: str) -> bool:
        """Forget a revocation; return whether there was one."""

    async def revocations(self, *, now: datetime) -> list[Revocation]:
        """Those whose `until` is later than `now`, ordered by kind and value. Never lags behind."""

    def describe(self) -> str:
        """Name the store for people, e.g. "SQLite database /data/crdt-sync.db". Contains no secrets."""


def open_store(
    url: str,
    *,
    replica_url: str | None = None,
    migrate: bool = True,
    read_only: bool = False,
    timeout_s: float = 10.0,
    connections_max: int = 8,
) -> Store:
    """Make the store that a URL names. It touches nothing until `open()` is called.

    Args:
        url: `postgresql://user:password@host:port/database?sslmode=…`; `sqlite:///relative.db` or
            `sqlite:////absolute/path.db` (the path is taken as it stands: nothing is percent-decoded, there are no
            options); or `memory://`.
        replica_url: PostgreSQL: a standby for what may lag behind.
        migrate: Whether `open` may create and change the schema.
        read_only: Whether to keep from changing anything, and take no lock: beside a server that uses the store.
        timeout_s: PostgreSQL: what takes longer has failed.
        connections_max: PostgreSQL: connections at most, at least 3; a replica takes as many for itself.

    Raises:
        StoreUnusable: The URL names no store. The message repeats the scheme only: a URL may hold a password.
    """
    scheme, _, rest = url.partition("://")
    if scheme in ("postgresql", "postgres"):
        from persistence.postgres import PostgresStore

        return PostgresStore(
            url,
            replica_url=replica_url,
            migrate=migrate and not read_only,
            timeout_s=timeout_s,
            connections_max=connections_max,
        )
    if replica_url is not None:
        raise StoreUnusable("only PostgreSQL has replicas: leave the replica's URL out, or use postgresql://")
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

        return SqliteStore(path, migrate=migrate, read_only=read_only)
    raise StoreUnusable(
        f"no store for URLs that start with {scheme + '://' if _ else 'no scheme'!r}; "
        "use postgresql://, sqlite:///file.db, or memory:// to keep nothing"
    )


def _check_name(document: str) -> None:
    _check_text("a document's name", document)
    if not 1 <= len(document.encode()) <= NAME_BYTES_MAX:
        raise ValueError(f"a document's name has 1 to {NAME_BYTES_MAX} bytes, got {document!r}")


def check_aware(what: str, moment: datetime) -> None:
    """Raise `ValueError` for a moment without time zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{what} needs a time zone, got {moment!r}")


def check_version(*, at: datetime, kind: VersionKind, label: str | None, user_id: str | None) -> None:
    """Raise `ValueError` for what can't be a version's."""
    check_aware("at", at)
    if kind not in VERSION_KINDS:
        raise ValueError(f"a version is one of {', '.join(VERSION_KINDS)}, not {kind!r}")
    check_label(label)
    if user_id is not None:
        _check_text("a user's id", user_id)


def check_digest(digest: bytes) -> None:
    """Raise `ValueError` for what can't be a digest."""
    if not 1 <= len(digest) <= DIGEST_BYTES_MAX:
        raise ValueError(f"a digest has 1 to {DIGEST_BYTES_MAX} bytes, got {len(digest)}")


def check_label(label: str | None) -> None:
    """Raise `ValueError` for what can't be a label."""
    if label is not None:
        _check_text("a label", label)
        if not 1 <= len(label.encode()) <= LABEL_BYTES_MAX:
            raise ValueError(f"a label has 1 to {LABEL_BYTES_MAX} bytes, got {label!r}")


def _check_text(what: str, text: str) -> None:
    if "\0" in text:
        raise ValueError(f"{what} must not contain NUL, got {text!r}")
    text.encode()  # UnicodeEncodeError, a ValueError, for lone surrogates
