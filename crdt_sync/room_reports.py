"""What the admin's commands say of documents."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import datetime

from .admin import RoomFacts, total_bytes
from .tables import age, counted, print_facts, print_table, printable, size
from .verifying import ADVICE, Checked

_REMAINS = (
    "Not reached by this: backups and replicas that are kept elsewhere, copies on people's devices, and what the database hasn't overwritten yet "
    "of the space that it freed. docs/how-to/administer.md says what to do about each"
)


def print_rooms(rooms: Sequence[RoomFacts], *, limit: int, now: datetime) -> None:
    """Print a table of documents, with the columns of which anything is known."""
    headers, cells = ["document"], [[one.name] for one in rooms]
    columns = {
        "seq": [None if one.seq is None else f"{one.seq:,}" for one in rooms],
        "size": [None if one.size_bytes is None else size(one.size_bytes) for one in rooms],
        "unfolded": [
            None if one.seq is None or one.snapshot_seq is None else f"{one.seq - one.snapshot_seq:,}" for one in rooms
        ],
        "open": [None if one.open is None else "yes" if one.open else "-" for one in rooms],
        "clients": [None if one.connections is None else f"{one.connections:,}" for one in rooms],
        "deleted": [None if one.deleted_at is None else f"{age(one.deleted_at, now)} ago" for one in rooms],
    }
    for header, column in columns.items():
        if any(column):
            headers.append(header)
            for row, cell in zip(cells, column, strict=True):
                row.append(cell or "-")
    print_table(headers, cells[:limit])
    if len(rooms) > limit:
        print(f"  … and {len(rooms) - limit:,} more: --limit {len(rooms)} shows them all")
    together = total_bytes(rooms)
    print(f"\n{counted(len(rooms), 'document')}" + (f", {size(together)}" if together is not None else ""))


def print_room(room: RoomFacts, *, now: datetime) -> None:
    """Print all that is known of a document."""
    print_facts(_lines(room, now))


def print_purged(purged: Sequence[RoomFacts], *, now: datetime) -> None:
    """Print what was forgotten, and what wasn't reached."""
    print("forgotten:")
    print_rooms(purged, limit=len(purged), now=now)
    print(f"\n{_REMAINS}.")


def print_verified(found: Sequence[Checked], elapsed_s: float) -> None:
    """Print what is wrong, what to do, and how much was read."""
    wrong = [one for one in found if one.problems]
    for one in wrong:
        print(f"{printable(one.name)!r}:")
        for problem in one.problems:
            print(f"  {problem.text}")
    kinds = {problem.kind: None for one in wrong for problem in one.problems}
    for kind in kinds:
        print(f"\nwhat to do ({kind}): {ADVICE[kind]}.")
    if wrong:
        print()
    for one in found:
        if one.waiting:
            print(
                f"{printable(one.name)!r}: {counted(one.waiting, 'update')} can't be integrated: what to build on is missing"
            )
        if one.quarantined:
            print(f"{printable(one.name)!r}: {counted(one.quarantined, 'update')} left out, being quarantined")
    print(
        f"checked {counted(len(found), 'document')}: {counted(sum(one.updates for one in found), 'update')}, "
        f"{counted(sum(one.has_snapshot for one in found), 'snapshot')}, "
        f"{counted(sum(one.history_updates for one in found), 'update')} of history, "
        f"{counted(sum(one.versions for one in found), 'version')}, "
        f"{size(sum(one.payload_bytes for one in found))}, in {elapsed_s:.1f} s: "
        + (f"{len(wrong):,} with problems" if wrong else "all in order")
    )


def known(room: RoomFacts) -> dict[str, object]:
    """What is known of a document, for JSON."""
    values = {one.name: getattr(room, one.name) for one in fields(room)}
    return {name: value for name, value in values.items() if value is not None or name in ("name", "deleted_at")}


def _lines(room: RoomFacts, now: datetime) -> Iterator[tuple[str, str]]:
    def when(moment: datetime) -> str:
        return f"{moment.astimezone():%Y-%m-%d %H:%M:%S%z}, {age(moment, now)} ago"

    yield "document", room.name
    if room.deleted_at is not None:
        yield "deleted", when(room.deleted_at)
    if room.created_at is not None:
        yield "created", when(room.created_at)
    if room.edited_at is not None:
        yield "last edit", when(room.edited_at)
    if room.seq is not None:
        yield "last update", f"seq {room.seq:,}"
    if room.updates is not None:
        yield "log", counted(room.updates, "update")
    if room.snapshot_seq is not None:
        yield "snapshot", f"of seq {room.snapshot_seq:,}" if room.snapshot_seq else "none yet"
    if room.history_bytes is not None:
        yield "history", size(room.history_bytes) if room.history_bytes else "none"
    if room.versions is not None:
        yield "versions", f"{room.versions:,}"
    if room.size_bytes is not None:
        yield "size", size(room.size_bytes)
    if room.users is not None:
        yield "written by", ", ".join(room.users) or "nobody who is known"
    if room.open is not None:
        yield "open", "yes" if room.open else "no"
    if room.connections is not None:
        yield (
            "clients",
            f"{room.connections:,}" + (f": {', '.join(room.connected_users)}" if room.connected_users else ""),
        )
