"""What an admin can do with documents, wherever it is done: the `Admin` protocol.

There are two: `admin_store` works on the database itself, `admin_api` asks a running server. Commands know only what is here, so a new verb is
a method here and in both, and a command that calls it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from .verifying import Checked


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomFacts:
    """What is known of a document. None: it isn't told here."""

    name: str
    seq: int | None = None
    """That of the last update."""
    size_bytes: int | None = None
    """What it occupies in the database."""
    updates: int | None = None
    """How many are in the log."""
    snapshot_seq: int | None = None
    """What the snapshot has; 0 if there is none."""
    history_bytes: int | None = None
    """What is kept of the updates that the snapshot has, as stored."""
    versions: int | None = None
    created_at: datetime | None = None
    edited_at: datetime | None = None
    """When the last update that is kept, in log or history, was accepted."""
    users: tuple[str, ...] | None = None
    """Whose updates are kept."""
    open: bool | None = None
    """Whether the server that was asked has it open."""
    connections: int | None = None
    """How many clients that server has in it."""
    connected_users: tuple[str, ...] | None = None
    """Theirs."""
    deleted_at: datetime | None = None
    """None if it wasn't."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A document that was read."""

    data: bytes
    """In the form that was asked for."""
    seq: int | None = None
    """It has everything up to this one."""
    waiting: int = 0
    """How many updates are left out since they can't be integrated yet."""


@dataclass(frozen=True, slots=True)
class Imported:
    """An update that was taken in, and is stored."""

    outcome: str
    """`new`; `repeat` if all of it was there; `waiting` if something that it builds on is missing."""
    created: bool
    """Whether there was no such document before."""


class Admin(Protocol):
    """What can be done with documents.

    Every verb raises `CommandFailed` if it can't be done, `NoSuchDocument` if that is why; nothing has changed then.
    """

    notice: str | None
    """When running servers, and their clients, see what is changed here, if that isn't at once; for people."""

    def describe(self) -> str:
        """Where this works, for people. Contains no secrets."""

    def close(self) -> None:
        """Let go."""

    def rooms(self, *, deleted: bool = False, prefix: str = "") -> list[RoomFacts]:
        """List documents by name: those that are there, or those that were deleted."""

    def room(self, name: str) -> RoomFacts:
        """Tell all that is known of one, deleted or not."""

    def delete(self, name: str) -> None:
        """Delete it: its clients are closed, content and name are kept."""

    def undelete(self, name: str) -> None:
        """Bring a deleted one back as it was."""

    def purge(self, name: str) -> None:
        """Forget a deleted one for good."""

    def export(self, name: str, form: str) -> Exported:
        """Read it in one of `formats.FORMATS`."""

    def apply(self, name: str, update: bytes) -> Imported:
        """Take in a Yjs update (v1), checked as if a client had sent it. Makes the document if there is none."""

    def verify(self, name: str) -> Checked:
        """Find out whether what is stored of it is what it has to be. Changes nothing."""


def total_bytes(rooms: Sequence[RoomFacts]) -> int | None:
    """What documents occupy together; None if it isn't told."""
    sizes = [one.size_bytes for one in rooms if one.size_bytes is not None]
    return sum(sizes) if len(sizes) == len(rooms) else None
