"""How the store commands show what they found: tables and a progress bar for people, JSON for scripts.

The only home of rich. Names of documents come from anybody, so what could steer a terminal is spelled out.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from persistence import DocumentStats

from .store_copy import Copied

_NAME_COLUMNS_MAX: Final = 60
# What isn't read on a terminal must not be folded for one of 80 columns.
_WIDTH_ELSEWHERE: Final = 200
_UNITS_S: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


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
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_ELSEWHERE)
    console.print(_table(sorted(shown, key=_size_then_name)[:limit], now))
    if len(shown) > limit:
        console.print(f"  … and {len(shown) - limit:,} more: --limit {len(shown)} shows them all")
    console.print()
    totals = Table.grid(padding=(0, 1))
    for label, value in _totals_lines(totals_of(every, disk_bytes), now):
        totals.add_row("", label, value)
    console.print(totals)


def stats_json(shown: Sequence[DocumentStats], every: Sequence[DocumentStats], disk_bytes: int, *, store: str) -> str:
    """Return what `print_stats` prints, and all of it, as JSON with sizes in bytes and times in ISO 8601."""
    return _dump({"store": store, "documents": [asdict(one) for one in shown], "totals": totals_of(every, disk_bytes)})


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


@contextmanager
def copy_progress(documents: Sequence[DocumentStats]) -> Iterator[Callable[[DocumentStats], None]]:
    """Show how far a copy of `documents` is, on standard error if that is a terminal.

    Yields:
        To be called with each document that is done.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.fields[documents]} of {task.fields[total_documents]} documents"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    count = 0
    with bar:
        task = bar.add_task(
            "", total=sum(_bytes_of(one) for one in documents), documents=0, total_documents=len(documents)
        )

        def advance(one: DocumentStats) -> None:
            nonlocal count
            count += 1
            bar.update(task, advance=_bytes_of(one), documents=count)

        yield advance


def copy_summary(done: Copied, elapsed_s: float) -> str:
    """Return what a copy did, in a few lines."""
    lines = [
        f"copied         {counted(done.documents, 'document')}: {counted(done.rows, 'update')} and all snapshots, "
        f"{decimal(done.payload_bytes)}, read back and compared, in {elapsed_s:.1f} s",
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
    return _dump(
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


def age(since: datetime, now: datetime) -> str:
    """Tell how long ago something was, in the largest unit of which there is a whole one."""
    seconds = max(0, int((now - since).total_seconds()))
    size, unit = next(((size, unit) for size, unit in _UNITS_S if seconds >= size), _UNITS_S[-1])
    return f"{seconds // size} {unit}"


def counted(number: int, noun: str) -> str:
    """Return "1 document", "2 documents"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(name: str) -> str:
    """Return a name as it is, but for characters that a terminal would obey, not show."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in name)


def _table(documents: Sequence[DocumentStats], now: datetime) -> Table:
    table = Table(box=None, padding=(0, 1), show_edge=False)
    table.add_column("document", overflow="fold", max_width=_NAME_COLUMNS_MAX)
    for header in ("seq", "rows", "log", "folded to", "snapshot", "unfolded for"):
        table.add_column(header, justify="right", no_wrap=True)
    some_past = any(one.history_bytes or one.versions for one in documents)
    some_deleted = any(one.deleted_at for one in documents)
    if some_past:
        table.add_column("history", justify="right", no_wrap=True)
        table.add_column("versions", justify="right", no_wrap=True)
    if some_deleted:
        table.add_column("deleted for", justify="right", no_wrap=True)
    for one in documents:
        table.add_row(
            Text(printable(one.document)),
            f"{one.head_seq:,}",
            f"{one.rows:,}",
            decimal(one.log_bytes),
            f"{one.snapshot_seq:,}" if one.snapshot_seq else "-",
            decimal(one.snapshot_bytes) if one.snapshot_seq else "-",
            age(one.oldest_unfolded_at, now) if one.oldest_unfolded_at else "-",
            *(_past(one) if some_past else ()),
            *([age(one.deleted_at, now) if one.deleted_at else "-"] if some_deleted else []),
        )
    return table


def _past(one: DocumentStats) -> tuple[str, str]:
    return (
        decimal(one.history_bytes) if one.history_bytes else "-",
        f"{one.versions:,}: {decimal(one.version_bytes)}" if one.versions else "-",
    )


def _totals_lines(totals: dict[str, Any], now: datetime) -> Iterator[tuple[str, str]]:
    oldest = totals["oldest_unfolded_at"]
    yield "documents", f"{totals['documents']:,}"
    if totals["deleted"]:
        yield "deleted", f"{totals['deleted']:,} of these"
    yield "logs", f"{counted(totals['rows'], 'row')}, {decimal(totals['log_bytes'])}"
    yield "snapshots", decimal(totals["snapshot_bytes"])
    if totals["history_bytes"]:
        yield "history", decimal(totals["history_bytes"])
    if totals["versions"]:
        yield "versions", f"{totals['versions']:,}, {decimal(totals['version_bytes'])}"
    yield "on disk", decimal(totals["disk_bytes"])
    yield "oldest unfolded update", f"{age(oldest, now)} ago" if oldest else "none: snapshots have them all"


def _size_then_name(one: DocumentStats) -> tuple[int, str]:
    return -_bytes_of(one), one.document


def _bytes_of(one: DocumentStats) -> int:
    return one.log_bytes + one.snapshot_bytes + one.history_bytes + one.version_bytes


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, default=datetime.isoformat)
