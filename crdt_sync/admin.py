"""What an admin can do with documents, wherever it is done: the `Admin` protocol.

There are two: `admin_store` works on the database itself, `admin_api` asks a running server. Commands know only what is here, so a new verb is
a method here and in both, and a command that calls it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from persistence import Version

from .authors import Bucket
from .time_machine import NOW, Point
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
    exact: bool = True
    """False if what was asked for isn't kept any more, and this is the nearest version before it."""


@dataclass(frozen=True, slots=True)
class Imported:
    """An update that was taken in, and is stored."""

    outcome: str
    """`new`; `repeat` if all of it was there; `waiting` if something that it builds on is missing."""
    created: bool
    """Whether there was no such document before."""


@dataclass(frozen=True, slots=True)
class Then:
    """What was found of a document's past."""

    seq: int
    """Of the last update in it."""
    exact: bool
    """False if what was asked for isn't kept any more, and this is the nearest version before it."""
    version: int | None
    """The id of the version that it is, if it is one."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A document that was brought back, or would be."""

    then: Then
    impossible: tuple[str, ...]
    """What can't be brought back exactly, for people."""
    changes: list[dict[str, Any]] | str
    """What is different by that, in the form that was asked for."""
    done: bool
    """Whether it was changed."""
    version_before: Version | None = None
    """What it was before."""


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

    def export(self, name: str, form: str, point: Point = NOW) -> Exported:
        """Read it in one of `formats.FORMATS`, as it is or as it was."""

    def apply(self, name: str, update: bytes) -> Imported:
        """Take in a Yjs update (v1), checked as if a client had sent it. Makes the document if there is none."""

    def verify(self, name: str) -> Checked:
        """Find out whether what is stored of it is what it has to be. Changes nothing."""

    def versions(self, name: str) -> list[Version]:
        """List its versions, newest first."""

    def take_version(self, name: str, label: str | None) -> Version:
        """Keep a version of it as it is. One that has the same, and no label, gets the label."""

    def label_version(self, name: str, id: int, label: str | None) -> None:
        """Put a label on a version in place of the one it has, or take it off."""

    def delete_versions(self, name: str, ids: Sequence[int]) -> None:
        """Forget these versions."""

    def diff(self, name: str, older: Point, newer: Point, form: str) -> list[dict[str, Any]] | str:
        """Tell what differs between two points, by whom, in one of `past_forms.CHANGES_FORMS`."""

    def activity(self, name: str, since: datetime, bucket_s: int) -> list[Bucket]:
        """Tell who did how much when, as far as that is kept."""

    def restore(
        self, name: str, point: Point, *, roots: Sequence[str] | None, form: str, dry_run: bool, anyway: bool
    ) -> Restored:
        """Have it show what it showed then, by an edit.

        Args:
            name: The document.
            point: When.
            roots: Which root types; None for all.
            form: That of the changes, one of `past_forms.CHANGES_FORMS`.
            dry_run: Whether only to tell what would change.
            anyway: Whether to do what is possible, if not all is. Without, that is an error, unless it is a dry run.
        """

    def restore_as_new(self, name: str, point: Point, new: str, *, dry_run: bool) -> Then:
        """Make another document of what it was then."""

    def roll_back(self, name: str, user: str, since: Point, *, form: str, dry_run: bool, anyway: bool) -> Restored:
        """Take back what a user did since then, by an edit; else like `restore`."""


def total_bytes(rooms: Sequence[RoomFacts]) -> int | None:
    """What documents occupy together; None if it isn't told."""
    sizes = [one.size_bytes for one in rooms if one.size_bytes is not None]
    return sum(sizes) if len(sizes) == len(rooms) else None
