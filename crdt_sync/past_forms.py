"""What is told of a document's past, as JSON, and read back from it: the form of the HTTP API and of commands. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from persistence import Version

from .authors import Bucket
from .changes import Change
from .changes_forms import to_json, to_text
from .history import Past
from .moments import iso_of

CHANGES_FORMS: Final = ("json", "rich", "text")


def version_to_json(version: Version) -> dict[str, Any]:
    """Write a version."""
    return {
        "id": version.id,
        "seq": version.seq,
        "taken_at": iso_of(version.taken_at),
        "kind": version.kind,
        "label": version.label,
        "taken_by": version.user_id,
        "users": list(version.users),
        "size_bytes": version.size_bytes,
        "whole": version.whole,
        "archived": version.archived,
    }


def version_of_json(form: dict[str, Any]) -> Version:
    """Read a version.

    Raises:
        KeyError, TypeError, ValueError: It is none.
    """
    return Version(
        id=form["id"],
        seq=form["seq"],
        taken_at=datetime.fromisoformat(form["taken_at"]),
        kind=form["kind"],
        label=form["label"],
        user_id=form["taken_by"],
        users=tuple(form["users"]),
        size_bytes=form["size_bytes"],
        whole=form["whole"],
    )


def bucket_to_json(bucket: Bucket) -> dict[str, Any]:
    """Write what one user did in some stretch of time."""
    return {
        "from": iso_of(bucket.from_at),
        "user": bucket.user_id,
        "updates": bucket.updates,
        "inserted": bucket.inserted,
        "deleted": bucket.deleted,
        "bytes": bucket.update_bytes,
    }


def bucket_of_json(form: dict[str, Any]) -> Bucket:
    """Read what one user did in some stretch of time.

    Raises:
        KeyError, TypeError, ValueError: It is no such thing.
    """
    return Bucket(
        from_at=datetime.fromisoformat(form["from"]),
        user_id=form["user"],
        updates=form["updates"],
        inserted=form["inserted"],
        deleted=form["deleted"],
        update_bytes=form["bytes"],
    )


def past_to_json(past: Past) -> dict[str, Any]:
    """Write what was found of a document's past, without its content."""
    return {"seq": past.seq, "exact": past.exact, "version": None if past.version is None else past.version.id}


def changes_to(form: str, changes: Sequence[Change]) -> list[dict[str, Any]] | str:
    """Write changes in one of `CHANGES_FORMS`."""
    return to_text(changes) if form == "text" else to_json(changes, rich=form == "rich")
