"""The commands that write a document into a file, and a file into a document: export, import."""

import sys
from pathlib import Path

from .admins import Place, add_place
from .commands import CommandFailed, Commands, add_command, add_json, write_file
from .formats import FORMATS
from .past_options import add_point, point_of
from .tables import counted, printable, to_json


def export(
    *,
    place: Place,
    room: str,
    form: str,
    output: Path | None,
    version: int | None,
    moment: str | None,
    seq: int | None,
    as_json: bool,
) -> int:
    """Write a document into a file, or to standard output."""
    if output is None and form == "update" and sys.stdout.isatty():
        raise CommandFailed("a Yjs update is binary, and this is a terminal: name a file with --output FILE")
    if output is None and as_json:
        raise CommandFailed("--json tells what was written, and where: it needs --output FILE")
    point = point_of(version=version, moment=moment, seq=seq)
    with place.admin("export", room) as admin:
        exported = admin.export(room, form, point)
    if not exported.exact:
        print(f"what it was then isn't kept any more; the nearest before it: seq {exported.seq}", file=sys.stderr)
    if output is None and sys.stdout.isatty():
        # Not as it is: what people wrote could steer a terminal.
        print("\n".join(printable(line) for line in exported.data.decode().rstrip("\n").split("\n")))
    elif output is None:
        sys.stdout.buffer.write(exported.data)
    else:
        write_file(output, exported.data)
        upto = f", everything up to seq {exported.seq}" if exported.seq is not None else ""
        print(f"{output}: {len(exported.data)} bytes{upto}", file=sys.stderr)
    if exported.waiting:
        count = counted(exported.waiting, "update")
        print(f"{count} can't be integrated yet and left out: what to build on is missing", file=sys.stderr)
    if as_json:
        facts = {"name": room, "format": form, "bytes": len(exported.data), "seq": exported.seq}
        print(to_json({**facts, "exact": exported.exact, "waiting": exported.waiting, "file": str(output)}))
    return 0


def import_(*, place: Place, room: str, file: Path, as_json: bool) -> int:
    """Take a Yjs update out of a file into a document."""
    update = _read(file)
    with place.admin("import", room, str(file), writes=True) as admin:
        imported = admin.apply(room, update)
        notice = admin.notice
    if as_json:
        print(to_json({"name": room, "bytes": len(update), "outcome": imported.outcome, "created": imported.created}))
    else:
        print(f"{printable(room)!r}{' is new' if imported.created else ''}: {_SAID[imported.outcome]}")
    if notice is not None and imported.outcome != "repeat":
        print(notice, file=sys.stderr)
    return 0


_SAID = {
    "new": "the update is in it, and stored",
    "repeat": "all of the update was in it already",
    "waiting": "the update is stored, but shown to nobody before what it builds on has come: it is a part of a document, not a whole one",
}


def _read(file: Path) -> bytes:
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise CommandFailed(f"{file} can't be read: {error.strerror}") from error
    if not data:
        raise CommandFailed(f"{file} is empty: no Yjs update is")
    return data


def add_parsers(commands: Commands) -> None:
    """Add `export` and `import`."""
    _add_export(commands)
    _add_import(commands)


def _add_export(commands: Commands) -> None:
    command = add_command(
        commands,
        "export",
        export,
        help="write a document into a file",
        description="Write a document as one Yjs update (v1), which is what Y.applyUpdate(doc, bytes) and crdt-sync import take; as JSON; or as text "
        "for people; as it is, or as it was at some point. From a database it has what is stored, and a server may be running; edits of the last moment may not be stored yet.",
        examples=[
            "crdt-sync export trip-1 --output trip-1.bin",
            "crdt-sync export trip-1 --format json | jq .title",
            "crdt-sync export trip-1 --format text --url http://127.0.0.1:1234",
            "crdt-sync export trip-1 --format text --at 'yesterday 14:00'",
        ],
    )
    command.add_argument("room", metavar="ROOM", help="the document's name, as in the client's WebsocketProvider")
    command.add_argument(
        "--format",
        dest="form",
        choices=FORMATS,
        default="update",
        help="update (the default); json; rich, which is JSON with types and formats; text, for people",
    )
    command.add_argument("--output", type=Path, metavar="FILE", help="write to this file, not to standard output")
    add_point(command, required=False)
    add_json(command, "print what was written, as JSON; needs --output")
    add_place(command)


def _add_import(commands: Commands) -> None:
    command = add_command(
        commands,
        "import",
        import_,
        help="take a file into a document",
        description="Take a Yjs update (v1) into a document, as if a client had sent it, with the same checks; without such a document, it is made. Content "
        "that is there already isn't doubled, nothing is replaced: it is merged. What the document deleted since stays deleted.\n\n"
        "On PostgreSQL, clients of running servers see it at once if those use CRDT_SYNC_REDIS_URL and it is set here too; otherwise within 20 s. "
        "Through --url they see it at once. A SQLite database belongs to its running server: use --url.",
        examples=[
            "crdt-sync import trip-1 trip-1.bin",
            "crdt-sync export trip-1 | crdt-sync import trip-1-copy - --url http://127.0.0.1:1234",
        ],
    )
    command.add_argument("room", metavar="ROOM", help="the document's name, as in the client's WebsocketProvider")
    command.add_argument("file", type=Path, metavar="FILE", help="as written by crdt-sync export; - is standard input")
    add_json(command)
    add_place(command)
