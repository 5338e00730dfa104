"""The commands about documents as a whole: rooms list, show, delete, undelete, purge; gc.

They know only the `Admin` protocol: wherever they work, they do and say the same.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from .admin import Admin, RoomFacts
from .admins import Place, add_place
from .commands import CommandFailed, Commands, add_command, add_json, confirm, count
from .moments import parse_age, show_moment
from .room_reports import known, print_purged, print_room, print_rooms
from .tables import counted, printable, to_json


def list_rooms(*, place: Place, deleted: bool, prefix: str, sort: str, limit: int, as_json: bool) -> int:
    """Print which documents there are."""
    with place.admin("rooms", "list") as admin:
        rooms = admin.rooms(deleted=deleted, prefix=prefix)
        where = admin.describe()
    if sort == "size" and any(one.size_bytes is None for one in rooms):
        raise CommandFailed("a server doesn't tell sizes: leave --sort out, or use --database")
    rooms.sort(key=lambda one: (-(one.size_bytes or 0) if sort == "size" else 0, one.name))
    if as_json:
        print(to_json([known(one) for one in rooms]))
    elif rooms:
        print_rooms(rooms, limit=limit, now=datetime.now(UTC))
    else:
        what = "deleted documents" if deleted else "documents"
        print(f"{where} has no {what}" + (f" that begin with {prefix!r}" if prefix else ""))
    return 0


def show(*, place: Place, room: str, as_json: bool) -> int:
    """Print all that is known of a document."""
    with place.admin("rooms", "show", room) as admin:
        facts = admin.room(room)
    if as_json:
        print(to_json(known(facts)))
    else:
        print_room(facts, now=datetime.now(UTC))
    return 0


def delete(*, place: Place, room: str, yes: bool, as_json: bool) -> int:
    """Delete a document, such that it can be brought back."""
    with place.admin("rooms", "delete", room, writes=True) as admin:
        confirm(f"Delete {printable(room)!r} at {admin.describe()}? Its clients are closed.", yes=yes)
        admin.delete(room)
        _say(admin, room, "deleted", as_json, f"crdt-sync rooms undelete {room!r} brings it back")
    return 0


def undelete(*, place: Place, room: str, as_json: bool) -> int:
    """Bring a deleted document back."""
    with place.admin("rooms", "undelete", room, writes=True) as admin:
        admin.undelete(room)
        _say(admin, room, "undeleted", as_json, "it is as it was; clients that were closed need a reload")
    return 0


def purge(*, place: Place, room: str, yes: bool, as_json: bool) -> int:
    """Forget one deleted document for good."""
    with place.admin("rooms", "purge", room, writes=True) as admin:
        facts = admin.room(room)
        if facts.deleted_at is None:
            raise CommandFailed(f"{room!r} isn't deleted: crdt-sync rooms delete {room!r} comes first")
        confirm(f"Forget {printable(room)!r} at {admin.describe()}, for good? Nothing brings it back.", yes=yes)
        admin.purge(room)
    _report([facts], {}, as_json=as_json)
    return 0


def collect(*, place: Place, older_than: str, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Forget all documents for good that were deleted long enough ago."""
    try:
        before = parse_age(older_than, datetime.now(UTC))
    except ValueError as error:
        raise CommandFailed(f"--older-than: {error}") from error
    typed = ["gc", "--older-than", older_than]
    with place.admin(*typed, writes=not dry_run) as admin:
        due = [one for one in admin.rooms(deleted=True) if one.deleted_at is not None and one.deleted_at < before]
        print(f"deleted before {show_moment(before)}: {counted(len(due), 'document')}", file=sys.stderr)
        if dry_run:
            if as_json:
                print(to_json({"due": [known(one) for one in due]}))
            elif due:
                print_rooms(due, limit=len(due), now=datetime.now(UTC))
            return 0
        if due:
            confirm(f"Forget {counted(len(due), 'document')} at {admin.describe()}, for good?", yes=yes)
        purged: list[RoomFacts] = []
        failed: dict[str, str] = {}
        for one in due:
            try:
                admin.purge(one.name)
                purged.append(one)
            except CommandFailed as error:
                failed[one.name] = str(error)
    _report(purged, failed, as_json=as_json)
    return 1 if failed else 0


def _report(purged: Sequence[RoomFacts], failed: dict[str, str], *, as_json: bool) -> None:
    now = datetime.now(UTC)
    if as_json:
        print(to_json({"purged_at": now, "purged": [known(one) for one in purged], "failed": failed}))
    elif purged:
        print_purged(purged, now=now)
    for reason in failed.values():
        print(f"crdt-sync: {reason}", file=sys.stderr)


def _say(admin: Admin, room: str, done: str, as_json: bool, text: str) -> None:
    if as_json:
        print(to_json({"name": room, "done": done}))
    else:
        print(f"{printable(room)!r} is {done}: {text}")
    if admin.notice is not None:
        print(admin.notice, file=sys.stderr)


def add_parsers(commands: Commands) -> None:
    """Add `rooms` and `gc`."""
    rooms = commands.add_parser("rooms", help="list, show, delete, bring back and really delete documents")
    of_rooms = rooms.add_subparsers(metavar="COMMAND", required=True)
    _add_list(of_rooms)
    _add_room(
        of_rooms,
        "show",
        show,
        help="show all that is known of a document",
        description="Show all that is known of a document, deleted or not. Of a database: when it was made, what it occupies, who wrote what is in the "
        "log. Of a server: whether it is open there, and who is connected.",
        examples=["crdt-sync rooms show trip-1", "crdt-sync rooms show trip-1 --url http://127.0.0.1:1234"],
    )
    _add_delete(of_rooms)
    _add_room(
        of_rooms,
        "undelete",
        undelete,
        help="bring a deleted document back",
        description="Bring a deleted document back as it was. Pages whose connection was closed when it was deleted have to be reloaded.",
        examples=["crdt-sync rooms undelete trip-1"],
    )
    _add_purge(of_rooms)
    _add_gc(commands)


def _add_list(commands: Commands) -> None:
    command = add_command(
        commands,
        "list",
        list_rooms,
        help="list documents",
        description="List documents by name, or the largest first. Of a database: sizes, and how many updates no snapshot has yet. Of a "
        "server: which are open there, and how many clients are in each.",
        examples=[
            "crdt-sync rooms list --sort size --limit 10",
            "crdt-sync rooms list --prefix trip- --url http://127.0.0.1:1234",
            "crdt-sync rooms list --deleted --json",
        ],
    )
    command.add_argument("--deleted", action="store_true", help="list those that were deleted, and no others")
    command.add_argument("--prefix", default="", metavar="TEXT", help="only those whose name begins with it")
    command.add_argument(
        "--sort",
        choices=("name", "size"),
        default="name",
        help="in which order (default name); a server knows no sizes",
    )
    command.add_argument("--limit", type=count, default=100, metavar="N", help="show at most N (default 100)")
    add_json(command, "print everything as a list of objects: all documents, bytes, ISO times")
    add_place(command)


def _add_delete(commands: Commands) -> None:
    command = _add_room(
        commands,
        "delete",
        delete,
        help="delete a document, such that it can be brought back",
        description="Delete a document. Its clients are closed (4404), its content and its name are kept; undelete brings it back, purge forgets it.\n\n"
        "On PostgreSQL, running servers that use CRDT_SYNC_REDIS_URL are told at once if it is set here too; others look at the database every 20 s, "
        "and take edits until then, which are kept with it. Through --url it is at once. A SQLite database belongs to its running server: use --url.",
        examples=["crdt-sync rooms delete trip-1", "crdt-sync rooms delete trip-1 --yes --url http://127.0.0.1:1234"],
    )
    _add_yes(command)


def _add_purge(commands: Commands) -> None:
    command = _add_room(
        commands,
        "purge",
        purge,
        help="forget a deleted document for good",
        description="Forget a deleted document for good: updates, who wrote them, snapshot, history, versions, name. Prints what was forgotten, for your records. The "
        "name may be used anew then, also by an old copy on somebody's device, which comes back with its owner.\n\n"
        "On PostgreSQL, and through --url, this is refused for 90 s after the deletion, in which a server may have the document open, or Redis its last edits.",
        examples=["crdt-sync rooms delete trip-1 && sleep 90 && crdt-sync rooms purge trip-1"],
    )
    _add_yes(command)


def _add_gc(commands: Commands) -> None:
    command = add_command(
        commands,
        "gc",
        collect,
        help="forget for good what was deleted long ago",
        description="Forget all documents for good that were deleted longer ago than --older-than, as crdt-sync rooms purge does with one, and print "
        "what was forgotten. Exits 1 if some couldn't be.",
        examples=[
            "crdt-sync gc --dry-run",
            "crdt-sync gc --older-than 30d --yes --json > forgotten.json",
            "crdt-sync gc --older-than 2026-10-01 --url http://127.0.0.1:1234",
        ],
    )
    command.add_argument(
        "--older-than",
        default="30d",
        metavar="TIME",
        help="90s, 15m, 1h, 30d (the default), '2 weeks'; or since when: 2026-10-01, 'yesterday 14:00'",
    )
    command.add_argument("--dry-run", action="store_true", help="only list what would be forgotten")
    _add_yes(command)
    add_json(command)
    add_place(command)


def _add_room(
    commands: Commands, name: str, run: Callable[..., int], *, help: str, description: str, examples: Sequence[str]
) -> argparse.ArgumentParser:
    """Add a command about one document."""
    command = add_command(commands, name, run, help=help, description=description, examples=examples)
    command.add_argument("room", metavar="ROOM", help="the document's name, as in the client's WebsocketProvider")
    add_json(command)
    add_place(command)
    return command


def _add_yes(command: argparse.ArgumentParser) -> None:
    command.add_argument("--yes", action="store_true", help="don't ask; needed where there is no terminal")
