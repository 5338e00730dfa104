"""What the commands have in common: how they fail, how options are read, which settings count, and asking before it is too late."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from . import logs
from .moments import parse_span
from .settings import TOKEN_VARIABLE, Settings

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

URLS: Final = "postgresql://user:password@host/database, sqlite:///relative.db or sqlite:////absolute/path.db"
# A tool reads and writes more at once than a server, and nobody edits while it does.
TIMEOUT_S: Final = 60.0


class Teaching(argparse.HelpFormatter):
    """Folds paragraphs, and leaves lines that are indented as they stand: examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = []
        for paragraph in text.split("\n\n"):
            stands = paragraph.startswith(" ")
            paragraphs.append(paragraph if stands else super()._fill_text(paragraph, width, indent))
        return "\n\n".join(paragraphs)


class CommandFailed(Exception):
    """The command can't do what it was asked for. The text says why and what to do."""


class NoSuchDocument(CommandFailed):
    """There is no document of that name, or none that was deleted."""


def add_command(
    commands: Commands,
    name: str,
    run: Callable[..., int],
    *,
    help: str,
    description: str,
    epilog: str | None = None,
    examples: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """Add a command; `run` gets what is parsed, by name."""
    if examples:
        epilog = "\n\n".join([*([epilog] if epilog else []), "examples:", "\n".join(f"  {one}" for one in examples)])
    made = commands.add_parser(name, help=help, description=description, epilog=epilog, formatter_class=Teaching)
    made.set_defaults(run=run)
    return made


def add_json(command: argparse.ArgumentParser, help: str = "print the result as JSON, for scripts") -> None:
    """Add the option `--json`."""
    command.add_argument("--json", dest="as_json", action="store_true", help=help)


def server_token(given: str | None) -> str | None:
    """What a server is shown: what was given, else what the environment has."""
    return given or os.environ.get(TOKEN_VARIABLE) or None


def tool_settings(database_url: str | None, *, log_level: str = "WARNING", **changes: object) -> Settings:
    """Read the settings for a tool, which prints its results and logs only trouble.

    Raises:
        InvalidSettings: They can't work.
    """
    settings = Settings.read(database_url=database_url)
    logs.configure(log_level, "text")
    if database_url is not None:
        # The configured replica is one of the configured database.
        changes["database_replica_url"] = None
    changes["database_timeout_s"] = max(settings.database_timeout_s, TIMEOUT_S)
    return settings.model_copy(update=changes)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal, unless the answer was given with `--yes`.

    Raises:
        CommandFailed: The answer is no, or there is nobody to ask.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandFailed(f"{question} Nobody can be asked here: give --yes if so. Nothing was done")
    # Not by input(), which asks on standard output: that may be a file.
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandFailed("nothing was done")


def write_file(path: Path, data: bytes) -> None:
    """Write what a command was asked for.

    Raises:
        CommandFailed: It can't be written.
    """
    try:
        path.write_bytes(data)
    except OSError as error:
        raise CommandFailed(f"{path} can't be written: {os.strerror(error.errno or 0)}") from error


def is_text(name: str) -> bool:
    """Whether a name can be stored at all; a shell can pass bytes that are no UTF-8."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def count(text: str) -> int:
    """Read a whole number from 1 on; a type for `add_argument`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on is needed, not {text!r}")
    return int(text)


def seconds(text: str) -> int:
    """Read a length of time; a type for `add_argument`."""
    try:
        return int(parse_span(text).total_seconds())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
