"""The commands about a document's versions: versions list, show, create, diff, label, delete."""

import argparse
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from .admin import Admin
from .admins import Place, add_place
from .commands import CommandFailed, Commands, add_command, add_json, confirm, count
from .past_forms import version_to_json
from .past_options import POINTS, number, read_point
from .past_reports import print_changes, print_version, print_versions
from .tables import counted, printable, to_json


def list_versions(*, place: Place, room: str, limit: int, as_json: bool) -> int:
    """Print which versions there are of a document."""
    with place.admin("versions", "list", room) as admin:
        versions = admin.versions(room)
    if as_json:
        print(to_json([version_to_json(one) for one in versions]))
    elif versions:
        print_versions(versions, limit=limit)
    else:
        print(f"{printable(room)!r} has no versions yet: crdt-sync versions create {room!r} takes one")
    return 0


def show(*, place: Place, room: str, id: int, as_json: bool) -> int:
    """Print all that is known of a version."""
    with place.admin("versions", "show", room, str(id)) as admin:
        _require(admin, room, [id])
        version = next(one for one in admin.versions(room) if one.id == id)
    if as_json:
        print(to_json(version_to_json(version)))
    else:
        print_version(version, now=datetime.now(UTC))
    return 0


def create(*, place: Place, room: str, label: str | None, as_json: bool) -> int:
    """Keep a version of a document as it is."""
    words = [] if label is None else ["--label", label]
    with place.admin("versions", "create", room, *words, writes=True) as admin:
        version = admin.take_version(room, label)
    if as_json:
        print(to_json(version_to_json(version)))
    else:
        kept = f", for ever, as {printable(version.label)!r}" if version.label is not None else ""
        print(f"{printable(room)!r} as of seq {version.seq} is kept as version {version.id}{kept}")
    return 0


def diff(*, place: Place, room: str, older: str, newer: str, as_json: bool) -> int:
    """Print what differs between two points."""
    before, after = read_point(older), read_point(newer)
    with place.admin("versions", "diff", room) as admin:
        changes = admin.diff(room, before, after, "json" if as_json else "text")
    if not isinstance(changes, str):
        print(to_json({"name": room, "from": str(before), "to": str(after), "changes": changes}))
    elif changes:
        print_changes(changes)
    else:
        print("nothing differs")
    return 0


def label(*, place: Place, room: str, id: int, text: str | None, remove: bool, as_json: bool) -> int:
    """Put a label on a version, or take it off."""
    words = ["--remove"] if text is None else [text]
    with place.admin("versions", "label", room, str(id), *words, writes=True) as admin:
        admin.label_version(room, id, text)
    if as_json:
        print(to_json({"name": room, "id": id, "label": text}))
    elif text is not None:
        print(f"version {id} of {printable(room)!r} is {printable(text)!r} now, and kept for ever")
    else:
        print(f"version {id} of {printable(room)!r} has no label any more, and goes when its time has come")
    return 0


def delete(*, place: Place, room: str, ids: Sequence[int], yes: bool, as_json: bool) -> int:
    """Forget versions for good."""
    ids = list(dict.fromkeys(ids))
    with place.admin("versions", "delete", room, *map(str, ids), writes=True) as admin:
        _require(admin, room, ids)
        which = f"version{'' if len(ids) == 1 else 's'} {', '.join(map(str, ids))}"
        confirm(f"Forget {which} of {printable(room)!r} at {admin.describe()}, for good?", yes=yes)
        admin.delete_versions(room, ids)
    if as_json:
        print(to_json({"name": room, "deleted": ids}))
    else:
        print(f"{counted(len(ids), 'version')} of {printable(room)!r} forgotten")
    return 0


def _require(admin: Admin, room: str, ids: Sequence[int]) -> None:
    known = {one.id for one in admin.versions(room)}
    for id in ids:
        if id not in known:
            raise CommandFailed(f"{room!r} has no version {id}: crdt-sync versions list {room!r} lists them")


def add_parsers(commands: Commands) -> None:
    """Add `versions`."""
    versions = commands.add_parser(
        "versions", help="list, show, take, compare, label and delete versions of a document"
    )
    of_versions = versions.add_subparsers(metavar="COMMAND", required=True)
    _add_list(of_versions)
    command = _add(
        of_versions,
        "show",
        show,
        help="show all that is known of a version",
        description="Show all that is known of a version. What was in it: crdt-sync export ROOM --version ID.",
        examples=["crdt-sync versions show trip-1 12", "crdt-sync export trip-1 --version 12 --format text"],
    )
    _add_id(command)
    command = _add(
        of_versions,
        "create",
        create,
        help="keep a document as it is now",
        description="Keep a version of a document as it is now. With a label it is kept for ever, without one as long as those that the server takes itself.",
        examples=["crdt-sync versions create trip-1 --label 'before the import'"],
    )
    command.add_argument("--label", metavar="TEXT", help="what to call it")
    _add_diff(of_versions)
    _add_label(of_versions)
    _add_delete(of_versions)


def _add_list(commands: Commands) -> None:
    command = _add(
        commands,
        "list",
        list_versions,
        help="list the versions of a document",
        description="List the versions of a document, newest first: when each was taken and for what, up to which update, and who wrote what the one before hasn't.",
        examples=["crdt-sync versions list trip-1", "crdt-sync versions list trip-1 --json | jq '.[0].id'"],
    )
    command.add_argument("--limit", type=count, default=40, metavar="N", help="show at most N (default 40)")


def _add_diff(commands: Commands) -> None:
    command = _add(
        commands,
        "diff",
        diff,
        help="show what differs between two points",
        description="Show what differs between two points of a document's past, and who made the difference, as far as that is kept: paths, and below each what was "
        "removed (-), added (+), formatted (~). On a terminal in colours.",
        epilog=f"A point is {POINTS}; or now. What was understood of a moment is printed.",
        examples=[
            "crdt-sync versions diff trip-1 --from 12",
            "crdt-sync versions diff trip-1 --from '2 hours ago' --to '1 hour ago'",
            "crdt-sync versions diff trip-1 --from seq:340 --to seq:352 --json --url http://127.0.0.1:1234",
        ],
    )
    command.add_argument("--from", dest="older", required=True, metavar="POINT", help="since when")
    command.add_argument("--to", dest="newer", default="now", metavar="POINT", help="until when (default: now)")


def _add_label(commands: Commands) -> None:
    command = _add(
        commands,
        "label",
        label,
        help="put a label on a version, or take it off",
        description="Put a label on a version in place of the one it has: it is kept for ever then. Without a label it goes when its time has come.",
        examples=["crdt-sync versions label trip-1 12 'as agreed'", "crdt-sync versions label trip-1 12 --remove"],
    )
    _add_id(command)
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("text", metavar="TEXT", nargs="?", help="the label")
    what.add_argument("--remove", action="store_true", help="take it off")


def _add_delete(commands: Commands) -> None:
    command = _add(
        commands,
        "delete",
        delete,
        help="forget versions for good",
        description="Forget versions for good, before their time has come. The document is as it was, and what is kept of its history too.",
        examples=["crdt-sync versions delete trip-1 12 13 14"],
    )
    command.add_argument("ids", metavar="ID", type=number, nargs="+", help="as crdt-sync versions list has them")
    command.add_argument("--yes", action="store_true", help="don't ask; needed where there is no terminal")


def _add(
    commands: Commands,
    name: str,
    run: Callable[..., int],
    *,
    help: str,
    description: str,
    examples: Sequence[str],
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    command = add_command(commands, name, run, help=help, description=description, epilog=epilog, examples=examples)
    command.add_argument("room", metavar="ROOM", help="the document's name, as in the client's WebsocketProvider")
    add_json(command)
    add_place(command)
    return command


def _add_id(command: argparse.ArgumentParser) -> None:
    command.add_argument("id", metavar="ID", type=number, help="as crdt-sync versions list has it")
