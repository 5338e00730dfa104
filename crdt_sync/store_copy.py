"""Copying documents from one store to another with all their past, and making sure of each; and with them what must not
come back.

Owns what counts as copied, as there already, and as a conflict. Leaves opening the stores, and telling anybody, to
whoever calls.
"""

from dataclasses import dataclass, field
from datetime import datetime

from persistence import Export, Store, StoreCorrupt, VersionContent


@dataclass(slots=True)
class Copied:
    """What was done so far."""

    documents: int = 0
    """Written, read back and found equal."""
    deleted: int = 0
    """Those of them that are deleted, there as here."""
    already_there: int = 0
    """Found equal, and left alone."""
    conflicts: list[str] = field(default_factory=list)
    """Names of those that are there with another content, and were left alone."""
    failed: dict[str, str] = field(default_factory=dict)
    """By name, what is wrong with those that are damaged in the source, or became different in the target."""
    rows: int = 0
    """Updates in the logs of what was written."""
    versions: int = 0
    """Versions of what was written."""
    payload_bytes: int = 0
    """Bytes of what was written: updates, snapshots and versions before the target compresses them, history after."""
    quarantined: int = 0
    """Quarantined updates of the source that the target knows now."""
    revocations: int = 0
    """Revocations of the source that the target knows now."""


async def copy_refusals(source: Store, target: Store, *, now: datetime, done: Copied) -> None:
    """Have the target know what must not come back: quarantined updates, and revocations that haven't expired.

    What it knows beside that stays, so this can be repeated.

    Raises:
        StoreUnavailable: One of the stores failed. Some may be there then.
    """
    for revocation in await source.revocations(now=now):
        await target.revoke(revocation)
        done.revocations += 1
    for one in await source.quarantined():
        await target.quarantine(one.document, one.digest, at=one.at)
        done.quarantined += 1


async def copy_document(source: Store, target: Store, name: str, *, overwrite: bool, done: Copied) -> None:
    """Copy one document, unless it is there already, and compare all that is kept of it. A deleted one stays deleted.

    Nothing else may write it meanwhile, in either store. One document's damage is not the others': it is counted.

    Args:
        source: Where it is.
        target: Where it shall be.
        name: Which.
        overwrite: Whether it replaces one of that name that differs.
        done: Counts what became of it.

    Raises:
        StoreUnavailable: One of the stores failed. In the target it is as a whole, or not at all.
    """
    try:
        await _copy_document(source, target, name, overwrite=overwrite, done=done)
    except StoreCorrupt as error:
        done.failed[name] = str(error)


async def _copy_document(source: Store, target: Store, name: str, *, overwrite: bool, done: Copied) -> None:
    export = await source.export(name, deleted=True, history=True)
    if export is None:
        return
    there = await target.export(name, deleted=True, history=True)
    if there == export:
        done.already_there += 1
        return
    if there is not None and not overwrite:
        done.conflicts.append(name)
        return
    if there is not None and there.deleted_at is not None and export.deleted_at is None:
        await target.undelete(name)
    await target.put(export, replace=there is not None)
    if await target.export(name, deleted=True, history=True) != export:
        raise StoreCorrupt(
            f"{name!r} reads back different from {target.describe()}: don't use it there. Stop what else uses that "
            "database, or have its disk and memory checked; --overwrite writes the document once more"
        )
    done.documents += 1
    done.deleted += export.deleted_at is not None
    done.rows += len(export.rows)
    done.versions += len(export.versions)
    done.payload_bytes += _payload_bytes(export)


def _payload_bytes(export: Export) -> int:
    snapshots = [content.snapshot for content in export.versions if isinstance(content, VersionContent)]
    if export.snapshot is not None:
        snapshots.append(export.snapshot)
    parts = [part for one in snapshots for part in (one.state, one.state_vector, *one.waiting)]
    logs = [*(row.update for row in export.rows), *(chunk.blob for chunk in export.chunks)]
    return sum(map(len, parts)) + sum(map(len, logs))
