"""The command line."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from persistence import StoreError

from . import (
    completion_command,
    content_commands,
    doctor_command,
    past_commands,
    room_commands,
    store_commands,
    token_command,
    verify_command,
    version_commands,
)
from .commands import CommandFailed, Commands, Teaching, add_command
from .serve import CannotServe, serve
from .settings import InvalidSettings, Settings

INTERRUPTED = 130  # 128 and SIGINT's number, as shells have it


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
        formatter_class=Teaching,
    )
    made.add_argument("--version", action="version", version=f"crdt-sync {version('crdt-sync')}")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    _add_serve(commands)
    room_commands.add_parsers(commands)
    version_commands.add_parsers(commands)
    past_commands.add_parsers(commands)
    content_commands.add_parsers(commands)
    verify_command.add_parser(commands)
    doctor_command.add_parser(commands)
    store_commands.add_parsers(commands)
    token_command.add_parser(commands)
    completion_command.add_parser(commands, parser)
    return made


def _serve(**options: object) -> int:
    return 0 if serve(Settings.read(**options)) else 1


def _add_serve(commands: Commands) -> None:
    command = add_command(
        commands,
        "serve",
        _serve,
        help="serve documents",
        description="Serve documents until Ctrl-C. Each option is also CRDT_SYNC_<NAME> in the environment; "
        "docs/reference/settings.md lists them all.",
    )
    command.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    command.add_argument("--port", help="port to listen on, 0 for a free one (default 1234)")
    command.add_argument(
        "--database",
        dest="database_url",
        metavar="URL",
        help="where documents are kept (default sqlite:///crdt-sync.db)",
    )
    command.add_argument(
        "--workers", help="how many processes serve the port (default 1); more than one need Redis and PostgreSQL"
    )
    command.add_argument(
        "--insecure-open",
        action="store_const",
        const=True,
        help="without keys, let everybody who reaches the server read and write every room",
    )
    command.add_argument("--log-level", help="DEBUG, INFO, WARNING or ERROR (default INFO)")
