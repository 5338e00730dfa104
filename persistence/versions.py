"""What a store keeps of a document's past: its folded log in chunks, and copies of its snapshot.

Types only. What they promise is in `store`, how a chunk's rows are encoded in `blobs`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

VERSION_USERS_MAX: Final = 100
LABEL_BYTES_MAX: Final = 1000

VersionKind = Literal["auto", "manual", "restore"]
VERSION_KINDS: Final = ("auto", "manual", "restore")


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive updates of a log: who wrote them, and when."""

    first_seq: int
    last_seq: int
    from_at: datetime
    """When the earliest of them was accepted. With several nodes, that needn't be the first."""
    until_at: datetime
    """When the latest was."""
    users: tuple[str | None, ...]
    """Each once, in order of their code points; None, for unknown, at the end."""
    log_bytes: int
    """The updates' bytes."""


@dataclass(frozen=True, slots=True)
class Chunk(Span):
    """Consecutive updates that a snapshot has, packed."""

    blob: bytes
    """See `blobs.pack_rows`."""


@dataclass(frozen=True, slots=True)
class Version:
    """A copy of a document's snapshot, kept beyond the next one."""

    id: int
    """1, 2, 3 … per document. That of a deleted version isn't given again."""
    seq: int
    """That of the snapshot."""
    taken_at: datetime
    kind: VersionKind
    label: str | None
    user_id: str | None
    """Who asked for it, if anybody did."""
    users: tuple[str, ...]
    """Who wrote what it has and the version before hasn't, as far as the history tells: the first `VERSION_USERS_MAX`
    in order of their code points."""
    size_bytes: int
    """As stored, so after compression."""
    whole: bool
    """See `Snapshot.whole`."""
    archived: bool = False
    """Whether its content isn't in the database any more."""
