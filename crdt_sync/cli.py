"""The command line."""

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from auth import Right
from persistence import StoreError

from . import store_commands, token_command
from .serve import CannotServe, serve
from .settings import InvalidSettings, Settings
from .store_commands import CommandFailed

INTERRUPTED = 130  # 128 and SIGINT's number, as shells have it

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
_TOOL_EPILOG = "The database is CRDT_SYNC_DATABASE_URL, unless --database names another."
_URLS = "postgresql://user:password@host/database, sqlite:///relative.db or sqlite:////absolute/path.db"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `crdt-sync`. Exits 0 after success, 1 when something failed, 2 when it was called wrongly, 130 on Ctrl-C."""
    options = vars(parser().parse_args(arguments))
    sys.exit(_run(options.pop("run"), options))


def _run(command: Callable[..., int], options: dict[str, object]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of documents are in any script
    try:
        code = command(**options)
        sys.stdout.flush()
    except InvalidSettings as error:
        return _tell(f"the configuration can't work:\n{error}", 2)
    except (CannotServe, CommandFailed, StoreError) as error:
        return _tell(str(error), 1)
    except KeyboardInterrupt as error:
        return _tell(str(error) or "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has enough. Python flushes once more at its end, so there must be something to take it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _tell(what: str, code: int) -> int:
    print(f"crdt-sync: {what}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; `run` in what it parses is the function to call with the rest."""
    made = argparse.ArgumentParser(
        prog="crdt-sync",
        description="A y-websocket server for Yjs documents.",
        epilog="Each command explains itself with --help. Settings are CRDT_SYNC_<NAME> in the environment; "
        "docs/reference/settings.md lists them.",
    )
    made.add_argument("--version", action="version", version=f"crdt-sync {version('crdt-sync')}")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_migrate(commands)
    store = commands.add_parser("store", help="look at stored documents, or copy them to another database")
    of_store = store.add_subparsers(metavar="COMMAND", required=True)
    _add_stats(of_store)
    _add_copy(of_store)
    _add_export(commands)
    _add_token(commands)
    return made


def _serve(**options: object) -> int:
    return 0 if serve(Settings.read(**options)) else 1


def _add_serve(commands: _Commands) -> None:
    run = commands.add_parser(
        "serve",
        help="serve documents",
        description="Serve documents until Ctrl-C. Each option is also CRDT_SYNC_<NAME> in the environment; "
        "docs/reference/settings.md lists them all.",
    )
    run.set_defaults(run=_serve)
    run.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    run.add_argument("--port", help="port to listen on, 0 for a free one (default 1234)")
    run.add_argument(
        "--database",
        dest="database_url",
        metavar="URL",
        help="where documents are kept (default sqlite:///crdt-sync.db)",
    )
    run.add_argument(
        "--workers", help="how many processes serve the port (default 1); more than one need Redis and PostgreSQL"
    )
    run.add_argument(
        "--insecure-open",
        action="store_const",
        const=True,
        help="without keys, let everybody who reaches the server read and write every room",
    )
    run.add_argument("--log-level", help="DEBUG, INFO, WARNING or ERROR (default INFO)")


def _add_migrate(commands: _Commands) -> None:
    migrate = _add_tool(
        commands,
        "migrate",
        store_commands.migrate,
        help="bring the database's schema up to date",
        description="Create the tables, or bring those of an older release up to date, and say what was done. A "
        "starting server does the same by itself, unless CRDT_SYNC_DATABASE_MIGRATE is false: then run this, as a "
        "user who may create tables, before you start the new release.",
    )
    migrate.add_argument(
        "--check",
        action="store_true",
        help="change nothing: exit 0 if the schema is up to date, 1 if it isn't or can't be used",
    )


def _add_stats(commands: _Commands) -> None:
    stats = _add_tool(
        commands,
        "stats",
        store_commands.stats,
        help="show what every document occupies",
        description="Show what every document occupies, largest first, and the sums of the store. It only reads, and "
        "a server may be running. 'unfolded for' is the age of the oldest update that no snapshot has yet: "
        "with a server running and people editing it stays at seconds.",
    )
    stats.add_argument("--document", metavar="NAME", help="show this document only; the sums are the store's")
    stats.add_argument("--limit", type=_count, default=20, metavar="N", help="show at most N documents (default 20)")
    stats.add_argument(
        "--json", dest="as_json", action="store_true", help="print everything as JSON: all documents, bytes, ISO times"
    )


def _add_copy(commands: _Commands) -> None:
    copy = commands.add_parser(
        "copy",
        help="copy all documents to another database",
        description="Copy all documents from one database to another, with everything that is kept of them: SQLite to "
        "PostgreSQL, back, or to another of its kind. Each document is read back and compared. Stop the server first: "
        "what is edited after its document was copied is not in the copy. If it is interrupted, run it again: what is "
        "there already and equal is skipped.",
        epilog="A document that is there with another content is left alone, and the exit code is 1. "
        "docs/how-to/move-between-databases.md has the whole recipe.",
    )
    copy.set_defaults(run=store_commands.copy)
    copy.add_argument("source_url", metavar="FROM", help=f"the database to read: {_URLS}")
    copy.add_argument("target_url", metavar="TO", help="the database to write; its tables are made if need be")
    copy.add_argument(
        "--overwrite",
        action="store_true",
        help="replace documents that differ in TO; what was edited only there is lost",
    )
    copy.add_argument("--json", dest="as_json", action="store_true", help="print what was done as JSON")


def _add_export(commands: _Commands) -> None:
    export = _add_tool(
        commands,
        "export",
        store_commands.export,
        help="write a document as one Yjs update",
        description="Write a document as one Yjs update (v1): what Y.applyUpdate(doc, bytes) takes. It reads what is "
        "stored, and a server may be running; edits of the last moment may not be stored yet.",
    )
    export.add_argument("room", metavar="ROOM", help="the document's name, as in the client's WebsocketProvider")
    export.add_argument("--output", type=Path, metavar="FILE", help="write to this file, not to standard output")


def _add_token(commands: _Commands) -> None:
    token = commands.add_parser(
        "token",
        help="make a token, for development",
        description="Make a token for a user and print it. It is signed with CRDT_SYNC_JWT_SECRET, which the server has "
        "to have too, or with a private key whose public half the server has.",
        epilog="docs/how-to/authenticate.md says what is in a token and how an application makes one.",
    )
    token.set_defaults(run=token_command.token)
    token.add_argument("--user", required=True, metavar="ID", help="who it is for (sub)")
    token.add_argument(
        "--room",
        dest="rooms",
        action="append",
        required=True,
        type=_room,
        metavar="NAME=RIGHT",
        help="a room, or a prefix and *, and read, write or admin, as in 'trip-*=write'; may be given several times",
    )
    token.add_argument(
        "--ttl", dest="ttl_s", type=_duration, default="1h", metavar="TIME", help="90s, 15m, 1h (the default) or 7d"
    )
    token.add_argument("--name", help="what other people see")
    token.add_argument("--color", help="in what colour they see it: #rgb, #rrggbb or #rrggbbaa")
    token.add_argument("--id", dest="token_id", metavar="JTI", help="to revoke it by (default: a random one)")
    token.add_argument("--audience", metavar="AUD", help="(default: the first of CRDT_SYNC_JWT_AUDIENCE)")
    token.add_argument("--issuer", metavar="ISS", help="(default: the first of CRDT_SYNC_JWT_ISSUER)")
    token.add_argument(
        "--private-key", type=Path, metavar="FILE", help="sign with this key in PEM: RSA, EC on P-256 or Ed25519"
    )
    token.add_argument("--key-id", metavar="KID", help="what the private key is called in the server's JWKS")
    token.add_argument("--json", dest="as_json", action="store_true", help="print the claims too, as JSON")


def _add_tool(
    commands: _Commands, name: str, run: Callable[..., int], *, help: str, description: str
) -> argparse.ArgumentParser:
    """Add a command that works on the configured database."""
    tool = commands.add_parser(name, help=help, description=description, epilog=_TOOL_EPILOG)
    tool.set_defaults(run=run)
    tool.add_argument("--database", dest="database_url", metavar="URL", help=_URLS)
    return tool


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on is needed, not {text!r}")
    return int(text)


def _room(text: str) -> tuple[str, Right]:
    name, _, right = text.rpartition("=")  # names may have a '=' too
    if not name or right not in ("read", "write", "admin"):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=read, NAME=write or NAME=admin")
    return name, Right[right.upper()]


def _duration(text: str) -> int:
    match = re.fullmatch(r"(\d{1,9})([smhd])", text, re.ASCII)
    if match is None or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: 90s, 15m, 1h and 7d are")
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
