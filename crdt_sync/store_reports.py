"""How the store commands show what they found: as tables for people, as JSON for scripts."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from persistence import DocumentStats

from .store_copy import Copied
from .tables import age, counted, print_facts, print_table, size, to_json


def print_stats(
    shown: Sequence[DocumentStats], every: Sequence[DocumentStats], disk_bytes: int, *, limit: int, now: datetime
) -> None:
    """Print a table of documents, largest first, and the store's totals.

    Args:
        shown: The documents that the table is about.
        every: All documents of the store, for the totals.
        disk_bytes: What the store occupies.
        limit: How many rows the table has at most.
        now: What ages are counted from.
    """
    _print_table(sorted(shown, key=_size_then_name)[:limit], now)
    if len(shown) > limit:
        print(f"  … and {len(shown) - limit:,} more: --limit {len(shown)} shows them all")
    print()
    print_facts(_totals_lines(totals_of(every, disk_bytes), now))


def stats_json(shown: Sequence[DocumentStats], every: Sequence[DocumentStats], disk_bytes: int, *, store: str) -> str:
    """Return what `print_stats` prints, and all of it, as JSON with sizes in bytes and times in ISO 8601."""
    return to_json(
        {"store": store, "documents": [asdict(one) for one in shown], "totals": totals_of(every, disk_bytes)}
    )


def totals_of(every: Sequence[DocumentStats], disk_bytes: int) -> dict[str, Any]:
    """Sum up a whole store."""
    moments = [one.oldest_unfolded_at for one in every if one.oldest_unfolded_at is not None]
    return {
        "documents": len(every),
        "deleted": sum(one.deleted_at is not None for one in every),
        "rows": sum(one.rows for one in every),
        "log_bytes": sum(one.log_bytes for one in every),
        "snapshot_bytes": sum(one.snapshot_bytes for one in every),
        "history_bytes": sum(one.history_bytes for one in every),
        "versions": sum(one.versions for one in every),
        "version_bytes": sum(one.version_bytes for one in every),
        "disk_bytes": disk_bytes,
        "oldest_unfolded_at": min(moments, default=None),
    }


def copy_summary(done: Copied, elapsed_s: float) -> str:
    """Return what a copy did, in a few lines."""
    lines = [
        f"copied         {counted(done.documents, 'document')}: {counted(done.rows, 'update')} and all snapshots, "
        f"{size(done.payload_bytes)}, read back and compared, in {elapsed_s:.1f} s",
    ]
    if done.deleted:
        lines.append(f"deleted        {done.deleted:,} of these, there as here")
    if done.versions:
        lines.append(f"versions       {done.versions:,}")
    lines.append(f"already there  {counted(done.already_there, 'document')}")
    if done.conflicts:
        lines.append(f"conflicts      {counted(len(done.conflicts), 'document')}, left alone")
    if done.failed:
        lines.append(f"failed         {counted(len(done.failed), 'document')}")
    if done.quarantined:
        lines.append(f"quarantined    {counted(done.quarantined, 'update')}")
    if done.revocations:
        lines.append(f"revocations    {done.revocations:,}")
    return "\n".join(lines)


def copy_json(done: Copied, elapsed_s: float, *, source: str, target: str) -> str:
    """Return what a copy did, as JSON."""
    return to_json(
        {
            "from": source,
            "to": target,
            "copied": done.documents,
            "deleted": done.deleted,
            "already_there": done.already_there,
            "conflicts": done.conflicts,
            "failed": done.failed,
            "rows": done.rows,
            "versions": done.versions,
            "bytes": done.payload_bytes,
            "quarantined": done.quarantined,
            "revocations": done.revocations,
            "seconds": round(elapsed_s, 3),
        }
    )


def _print_table(documents: Sequence[DocumentStats], now: datetime) -> None:
    headers = ["document", "seq", "rows", "log", "folded to", "snapshot", "unfolded for"]
    some_past = any(one.history_bytes or one.versions for one in documents)
    if some_past:
        headers += ["history", "versions"]
    some_deleted = any(one.deleted_at for one in documents)
    if some_deleted:
        headers.append("deleted for")
    print_table(
        headers,
        (
            [
                one.document,
                f"{one.head_seq:,}",
                f"{one.rows:,}",
                size(one.log_bytes),
                f"{one.snapshot_seq:,}" if one.snapshot_seq else "-",
                size(one.snapshot_bytes) if one.snapshot_seq else "-",
                age(one.oldest_unfolded_at, now) if one.oldest_unfolded_at else "-",
                *(_past(one) if some_past else ()),
                *([age(one.deleted_at, now) if one.deleted_at else "-"] if some_deleted else []),
            ]
            for one in documents
        ),
    )


def _past(one: DocumentStats) -> tuple[str, str]:
    return (
        size(one.history_bytes) if one.history_bytes else "-",
        f"{one.versions:,}: {size(one.version_bytes)}" if one.versions else "-",
    )


def _totals_lines(totals: dict[str, Any], now: datetime) -> Iterator[tuple[str, str]]:
    oldest = totals["oldest_unfolded_at"]
    yield "documents", f"{totals['documents']:,}"
    if totals["deleted"]:
        yield "deleted", f"{totals['deleted']:,} of these"
    yield "logs", f"{counted(totals['rows'], 'row')}, {size(totals['log_bytes'])}"
    yield "snapshots", size(totals["snapshot_bytes"])
    if totals["history_bytes"]:
        yield "history", size(totals["history_bytes"])
    if totals["versions"]:
        yield "versions", f"{totals['versions']:,}, {size(totals['version_bytes'])}"
    yield "on disk", size(totals["disk_bytes"])
    yield "oldest unfolded update", f"{age(oldest, now)} ago" if oldest else "none: snapshots have them all"


def _size_then_name(one: DocumentStats) -> tuple[int, str]:
    return -stored_bytes(one), one.document


def stored_bytes(one: DocumentStats) -> int:
    """What a document occupies."""
    return one.log_bytes + one.snapshot_bytes + one.history_bytes + one.version_bytes
