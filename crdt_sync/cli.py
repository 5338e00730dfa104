"""The command line."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Final

from persistence import StoreError

from .commands import CommandFailed, Teaching
from .settings import InvalidSettings

# Where each command is. A server needn't load what makes tables, nor a tool what serves.
_MODULES: Final = {
    "serve": "serve_command",
    "rooms": "room_commands",
    "gc": "room_commands",
    "versions": "version_commands",
    "activity": "past_commands",
    "restore": "past_commands",
    "rollback": "past_commands",
    "export": "content_commands",
    "import": "content_commands",
    "import-from": "import_from_command",
    "verify": "verify_command",
    "doctor": "doctor_command",
    "conformance": "conformance_command",
    "top": "top_command",
    "migrate": "store_commands",
    "store": "store_commands",
    "token": "token_command",
    "completion": "completion_command",
}
INTERRUPTED = 130  # 128 and SIGINT's number, as shells have it


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `crdt-sync`. Exits 0 after success, 1 when something failed, 2 when it was called wrongly, 130 on Ctrl-C."""
    given = sys.argv[1:] if arguments is None else arguments
    options = vars(parser(given[0] if given else None).parse_args(given))
    sys.exit(_run(options.pop("run"), options))


def _run(command: Callable[..., int], options: dict[str, object]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of documents are in any script
    try:
        code = command(**options)
        sys.stdout.flush()
    except InvalidSettings as error:
        return _tell(f"the configuration can't work:\n{error}", 2)
    except (CommandFailed, StoreError) as error:
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


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of one command, or of all if it isn't one; `run` in what it parses is the function to call with the rest."""
    made = argparse.ArgumentParser(
        prog="crdt-sync",
        description="A y-websocket server for Yjs documents.",
        epilog="Each command explains itself with --help. Settings are CRDT_SYNC_<NAME> in the environment; "
        "docs/reference/settings.md lists them.",
        formatter_class=Teaching,
    )
    made.add_argument("--version", action="version", version=f"crdt-sync {version('crdt-sync')}")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    for name in [_MODULES[command]] if command in _MODULES else dict.fromkeys(_MODULES.values()):
        module = import_module(f".{name}", __package__)
        if name == "completion_command":
            module.add_parsers(commands, parser)
        else:
            module.add_parsers(commands)
    return made
