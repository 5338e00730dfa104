"""The commands that go about in a document's past: activity, restore, rollback."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from .admin import Admin, Restored
from .admins import Place, add_place
from .commands import CommandFailed, Commands, add_command, add_json, confirm, seconds
from .moments import iso_of, show_moment
from .past_forms import bucket_to_json
from .past_options import add_point, point_of, read_moment, typed
from .past_reports import print_activity, print_changes, restored_to_json, say_then, then_to_json
from .tables import printable, to_json
from .time_machine import ACTIVITY_BUCKETS_MAX, Point

# Of these, the shortest with which the table isn't longer than so many stretches.
_BUCKETS_S: Final = (60, 300, 900, 3600, 6 * 3600, 86400, 7 * 86400)
_STRETCHES: Final = 48

Go = Callable[[Admin, str, bool], Restored]
"""Goes back: where, with changes in which form, and whether only to tell what would change."""


def activity(*, place: Place, room: str, since: str, bucket_s: int | None, as_json: bool) -> int:
    """Print who did how much when."""
    start = read_moment(since)
    span_s = (datetime.now(UTC) - start).total_seconds()
    if bucket_s is None:
        bucket_s = next((one for one in _BUCKETS_S if span_s / one <= _STRETCHES), _BUCKETS_S[-1])
    if span_s / bucket_s > ACTIVITY_BUCKETS_MAX:
        raise CommandFailed(f"these are more than {ACTIVITY_BUCKETS_MAX} stretches: give a longer --bucket")
    with place.admin("activity", room) as admin:
        buckets = admin.activity(room, start, bucket_s)
    if as_json:
        shown = [bucket_to_json(one) for one in buckets]
        print(to_json({"name": room, "since": iso_of(start), "bucket_s": bucket_s, "activity": shown}))
    elif buckets:
        print_activity(buckets, bucket_s=bucket_s)
    else:
        print(f"nothing that is kept was written to {printable(room)!r} since {show_moment(start)}")
    return 0


def restore(
    *,
    place: Place,
    room: str,
    version: int | None,
    moment: str | None,
    seq: int | None,
    roots: Sequence[str] | None,
    as_new: str | None,
    dry_run: bool,
    anyway: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Have a document show what it showed at some point, or make another one of that."""
    point = point_of(version=version, moment=moment, seq=seq)
    if as_new is not None:
        return _restore_as_new(place, room, point, as_new, dry_run=dry_run, as_json=as_json)
    words = ["restore", room, *typed(point), *(["--roots", ",".join(roots)] if roots else [])]

    def go(admin: Admin, form: str, dry_run: bool) -> Restored:
        return admin.restore(room, point, roots=roots, form=form, dry_run=dry_run, anyway=anyway)

    return _go_back(
        place,
        room,
        go,
        words=[*words, *(["--anyway"] if anyway else [])],
        question=f"Restore {printable(room)!r} to {point}",
        said=f"{printable(room)!r} shows again what it showed at {point}",
        dry_run=dry_run,
        anyway=anyway,
        yes=yes,
        as_json=as_json,
    )


def roll_back(
    *,
    place: Place,
    room: str,
    user: str,
    version: int | None,
    moment: str | None,
    seq: int | None,
    dry_run: bool,
    anyway: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Take back what one user did since some point."""
    point = point_of(version=version, moment=moment, seq=seq)
    when = ["--since" if one == "--at" else one for one in typed(point)]

    def go(admin: Admin, form: str, dry_run: bool) -> Restored:
        return admin.roll_back(room, user, point, form=form, dry_run=dry_run, anyway=anyway)

    return _go_back(
        place,
        room,
        go,
        words=["rollback", room, "--user", user, *when, *(["--anyway"] if anyway else [])],
        question=f"Take back what {printable(user)!r} did in {printable(room)!r} since {point}",
        said=f"what {printable(user)!r} did in {printable(room)!r} since {point} is taken back",
        dry_run=dry_run,
        anyway=anyway,
        yes=yes,
        as_json=as_json,
    )


def _go_back(
    place: Place,
    room: str,
    go: Go,
    *,
    words: Sequence[str],
    question: str,
    said: str,
    dry_run: bool,
    anyway: bool,
    yes: bool,
    as_json: bool,
) -> int:
    with place.admin(*words, writes=not dry_run) as admin:
        plan = go(admin, "json" if as_json and dry_run else "text", True)
        say_then(plan.then)
        for reason in plan.impossible:
            print(f"not exactly: {reason}", file=sys.stderr)
        if isinstance(plan.changes, str):
            print_changes(plan.changes, aside=as_json)
        else:
            print(to_json(restored_to_json(room, plan)))
        if plan.impossible and not (anyway and plan.changes):
            advice = ": --anyway does what is possible" if plan.changes and not anyway else ""
            raise CommandFailed(f"that isn't possible exactly{advice}. Nothing was done")
        if dry_run or not plan.changes:
            _say_nothing_was_done(room, plan, dry_run=dry_run, as_json=as_json)
            return 0
        confirm(f"{question} at {admin.describe()}? Who has it open sees it.", yes=yes)
        done = go(admin, "json" if as_json else "text", False)
        notice = admin.notice
    if as_json:
        print(to_json(restored_to_json(room, done)))
    else:
        print(said)
        if done.version_before is not None:
            undo = shlex.join(["crdt-sync", "restore", room, "--version", str(done.version_before.id)])
            print(f"to undo that: {undo}")
    if notice is not None:
        print(notice, file=sys.stderr)
    return 0


def _say_nothing_was_done(room: str, plan: Restored, *, dry_run: bool, as_json: bool) -> None:
    if not plan.changes and not as_json:
        print(f"{printable(room)!r} shows that already: there is nothing to do")
    elif not dry_run and as_json:
        print(to_json(restored_to_json(room, plan) | {"changes": []}))
    elif dry_run:
        print("a rehearsal: nothing was done", file=sys.stderr)


def _restore_as_new(place: Place, room: str, point: Point, new: str, *, dry_run: bool, as_json: bool) -> int:
    words = ["restore", room, *typed(point), "--as-new", new]
    with place.admin(*words, writes=not dry_run) as admin:
        then = admin.restore_as_new(room, point, new, dry_run=dry_run)
        notice = admin.notice
    say_then(then)
    if as_json:
        print(to_json({"name": new, "past": then_to_json(then), "done": not dry_run}))
    elif dry_run:
        print(f"{printable(new)!r} is free: it could be what {printable(room)!r} was at {point}")
    else:
        print(f"{printable(new)!r} is what {printable(room)!r} was at {point}; they have nothing to do with each other")
    if notice is not None and not dry_run:
        print(notice, file=sys.stderr)
    return 0


def add_parsers(commands: Commands) -> None:
    """Add `activity`, `restore` and `rollback`."""
    _add_activity(commands)
    _add_restore(commands)
    _add_rollback(commands)


def _add_activity(commands: Commands) -> None:
    command = add_command(
        commands,
        "activity",
        activity,
        help="show who changed how much when",
        description="Show who changed how much of a document when, as far as its history is kept: in each stretch of time, how many updates of each user, and how many characters "
        "and values they inserted (+) and deleted (-).",
        examples=[
            "crdt-sync activity trip-1 --since '2 hours ago' --bucket 5m",
            "crdt-sync activity trip-1 --since 'yesterday 14:00' --json --url http://127.0.0.1:1234",
        ],
    )
    _add_room(command)
    command.add_argument(
        "--since",
        default="7d",
        metavar="TIME",
        help="since when, or how long ago (default 7d); what was understood is printed",
    )
    command.add_argument(
        "--bucket",
        dest="bucket_s",
        type=seconds,
        metavar="TIME",
        help="how long a stretch is: 90s, 5m, 1h, 1d (default: by --since)",
    )
    add_json(command)
    add_place(command)


def _add_restore(commands: Commands) -> None:
    command = add_command(
        commands,
        "restore",
        restore,
        help="bring back what a document showed",
        description="Have a document show what it showed at some point, by an edit that its clients get like any other: nobody is disconnected, and what is edited meanwhile is "
        "merged. First shows what would change, and asks. If something can't be brought back exactly, says so and does nothing (exit code 1), unless --anyway. A version of before is "
        "kept, and the command that goes back to it printed.\n\n"
        "On PostgreSQL, clients of running servers see it at once if those use CRDT_SYNC_REDIS_URL and it is set here too; otherwise within 20 s. "
        "Through --url they see it at once. A SQLite database belongs to its running server: use --url.",
        examples=[
            "crdt-sync restore trip-1 --at '10 minutes ago' --dry-run",
            "crdt-sync restore trip-1 --version 12",
            "crdt-sync restore trip-1 --version 12 --roots itinerary,budget --url http://127.0.0.1:1234",
            "crdt-sync restore trip-1 --at 'yesterday 14:00' --as-new trip-1-yesterday",
        ],
    )
    _add_room(command)
    add_point(command, required=True)
    what = command.add_mutually_exclusive_group()
    what.add_argument(
        "--roots",
        type=_names,
        metavar="A,B",
        help="only these root types (doc.getMap('A')); the others stay as they are",
    )
    what.add_argument("--as-new", metavar="NAME", help="make another document of it; this one stays as it is")
    _add_how(command)


def _add_rollback(commands: Commands) -> None:
    command = add_command(
        commands,
        "rollback",
        roll_back,
        help="take back what one user did",
        description="Take back what one user did in a document since some point, and keep what others did: what the user wrote goes, what the user deleted or overwrote comes back, "
        "unless somebody else has changed it since. An edit like that of restore: it shows what would change and asks, and can be undone.",
        examples=[
            "crdt-sync rollback trip-1 --user eve --since '1 hour ago' --dry-run",
            "crdt-sync rollback trip-1 --user eve --version 12 --url http://127.0.0.1:1234",
        ],
    )
    _add_room(command)
    command.add_argument("--user", required=True, metavar="ID", help="whose edits, as crdt-sync activity has them")
    add_point(command, required=True, time="--since")
    _add_how(command)


def _add_room(command: argparse.ArgumentParser) -> None:
    command.add_argument("room", metavar="ROOM", help="the document's name, as in the client's WebsocketProvider")


def _add_how(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dry-run", action="store_true", help="only show what would change")
    command.add_argument("--anyway", action="store_true", help="do what is possible, if not all is possible exactly")
    command.add_argument("--yes", action="store_true", help="don't ask; needed where there is no terminal")
    add_json(command)
    add_place(command)


def _names(text: str) -> list[str]:
    return [one for one in text.split(",") if one]
