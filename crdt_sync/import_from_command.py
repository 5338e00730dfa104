"""The command that brings the documents of another server along: import-from."""

import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .admin import Admin
from .admins import Place, add_place
from .commands import CommandFailed, Commands, add_command, add_json, is_text
from .errors import SyncError
from .foreign import KINDS, Found, Reading, Unreadable, amount_to, knows, opened
from .gateway.sync import check_room_name
from .tables import counted, printable, progress, size, to_json

NAMED_MAX: Final = 20
_SAID: Final = {
    "new": "imported",
    "merged": "merged",
    "there": "already there",
    "left alone": "left alone",
    "empty": "empty",
    "failed": "failed",
}
"""By outcome, how it is told; in the order in which it is."""


@dataclass(slots=True)
class Brought:
    """What became of one document."""

    name: str
    source: str
    """What it is called there."""
    outcome: str = "failed"
    updates: int = 0
    bytes: int = 0
    """Of the one update that they amount to."""
    problems: list[str] = field(default_factory=list)


def import_from(
    *, place: Place, kind: str, path: Path, names: str | None, merge: bool, anyway: bool, dry_run: bool, as_json: bool
) -> int:
    """Bring all documents of another server along.

    Returns:
        1 if some weren't: damaged, refused, or left alone because there is another one of that name.
    """
    started = time.monotonic()
    try:
        wanted = re.compile(names or "(.*)", re.DOTALL)
        with opened(kind, path) as documents, place.admin("import-from", kind, str(path), writes=not dry_run) as admin:
            brought = list(
                _bring(_named(documents, wanted), documents, admin, merge=merge, anyway=anyway, dry_run=dry_run)
            )
            where, notice = admin.describe(), admin.notice
    except re.error as error:
        raise CommandFailed(f"--names: {error}") from error
    except Unreadable as error:
        raise CommandFailed(str(error)) from error
    if as_json:
        counts = {outcome: sum(one.outcome == outcome for one in brought) for outcome in _SAID}
        facts = {"kind": kind, "path": str(path), "to": where, "dry_run": dry_run, "counts": counts}
        print(to_json({**facts, "documents": brought, "seconds": round(time.monotonic() - started, 3)}))
    else:
        print("\n".join(_summary(brought, dry_run=dry_run)) or f"there are no documents in {path}")
    for line in _troubles(brought):
        print(line, file=sys.stderr)
    if notice is not None and any(one.outcome in ("new", "merged") for one in brought):
        print(notice, file=sys.stderr)
    return 1 if any(one.outcome in ("failed", "left alone") for one in brought) else 0


def _named(documents: Reading, wanted: re.Pattern[str]) -> dict[str, str]:
    """By what documents are called there, what they are to be called here; those that aren't wanted are left out."""
    found = {}
    for source in documents:
        if fits := wanted.fullmatch(source):
            found[source] = (fits[1] if wanted.groups else fits[0]) or ""
    if len(set(found.values())) < len(found):
        raise CommandFailed("--names gives two documents one name: have its group take in what tells them apart")
    return found


def _bring(
    names: dict[str, str], documents: Reading, admin: Admin, *, merge: bool, anyway: bool, dry_run: bool
) -> Iterator[Brought]:
    there = {one.name for one in admin.rooms()}
    with progress("documents", len(names), total_bytes=None) as advance:
        for source, name in names.items():
            one = Brought(name, source)
            found = documents[source]()
            one.updates, one.problems = len(found.updates), found.problems
            if anyway or not found.problems:
                try:
                    _bring_one(one, found, admin, exists=name in there, merge=merge, dry_run=dry_run)
                except (CommandFailed, SyncError) as error:
                    one.problems.append(str(error))
            yield one
            advance(0)


def _bring_one(one: Brought, found: Found, admin: Admin, *, exists: bool, merge: bool, dry_run: bool) -> None:
    if not is_text(one.name):
        raise CommandFailed("its name is no UTF-8")
    check_room_name(one.name)
    state = amount_to(found.updates)
    one.bytes = len(state.update)
    parts = [part for part in (state.update, *state.waiting) if part != _NOTHING]
    if not parts:
        one.outcome = "empty"
    elif exists and knows(admin.export(one.name, "update").data, state):
        one.outcome = "there"
    elif exists and not merge:
        one.outcome = "left alone"
    else:
        if not dry_run:
            for part in parts:
                admin.apply(one.name, part)
        one.outcome = "merged" if exists else "new"


_NOTHING: Final = b"\0\0"


def _summary(brought: Sequence[Brought], *, dry_run: bool) -> Iterator[str]:
    for outcome, said in _SAID.items():
        some = [one for one in brought if one.outcome == outcome]
        if some:
            updates, total = sum(one.updates for one in some), sum(one.bytes for one in some)
            would = "would be " if dry_run and outcome in ("new", "merged") else ""
            amount = f": {counted(updates, 'update')}, {size(total)} together" if outcome in ("new", "merged") else ""
            yield f"{would + said:<15} {counted(len(some), 'document')}{amount}"


def _troubles(brought: Sequence[Brought]) -> Iterator[str]:
    wrong = [one for one in brought if one.problems]
    for one in wrong[:NAMED_MAX]:
        yield from (f"crdt-sync: {printable(one.source)!r}: {problem}" for problem in one.problems)
    if len(wrong) > NAMED_MAX:
        yield f"crdt-sync: … and {len(wrong) - NAMED_MAX} more with problems: --json lists them all"
    if any(one.outcome == "failed" and one.updates for one in wrong):
        yield "--anyway imports what can be read of those; look at them afterwards"
    alone = [one.name for one in brought if one.outcome == "left alone"]
    if alone:
        yield f"crdt-sync: {counted(len(alone), 'document')} of these names are here already, with another content:"
        yield from (f"  {printable(name)}" for name in alone[:NAMED_MAX])
        if len(alone) > NAMED_MAX:
            yield f"  … and {len(alone) - NAMED_MAX} more"
        yield "--merge puts theirs into ours, as if two people had edited offline; --names can give them others"


def add_parsers(commands: Commands) -> None:
    """Add `import-from`."""
    command = add_command(
        commands,
        "import-from",
        import_from,
        help="bring the documents of another Yjs server along",
        description="Bring all documents of another Yjs server along, from the files that it keeps them in. Those are only read; stop that server first, or work on a copy. "
        "Each document is put together, checked as if a client had sent it, and stored. A document that is here already is left alone, unless it has all that is to be "
        "imported, so an interrupted run is continued by running it again.\n\n"
        "hocuspocus-sqlite: the file of @hocuspocus/extension-sqlite. ystore-sqlite: the file of pycrdt's SQLiteYStore. ystore-file: a folder of its FileYStore. "
        "updates: a folder in which each NAME.bin is one Yjs update (v1), with the name percent-encoded; what to make of any other store. docs/how-to/migrate.md has the recipes.",
        examples=[
            "crdt-sync import-from hocuspocus-sqlite db.sqlite --dry-run",
            "crdt-sync import-from ystore-sqlite ystore.db --names '/(.*)'",
            "crdt-sync import-from updates dumped --url http://127.0.0.1:1234",
        ],
    )
    command.add_argument("kind", metavar="KIND", choices=tuple(KINDS), help=", ".join(KINDS))
    command.add_argument("path", type=Path, metavar="PATH", help="the file or folder")
    command.add_argument(
        "--names",
        metavar="REGEX",
        help="only documents whose whole name matches; what the first group matches is the name here",
    )
    command.add_argument("--merge", action="store_true", help="put them into documents that are here already, too")
    command.add_argument("--anyway", action="store_true", help="of documents with damaged updates, import the others")
    command.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    add_json(command)
    add_place(command)
