"""The command line."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from .serve import CannotServe, serve
from .settings import InvalidSettings, Settings


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `crdt-sync`. Exits 0 after success, 1 when something failed, 2 when it was called wrongly."""
    options = vars(_parser().parse_args(arguments))
    options.pop("command")
    try:
        sys.exit(0 if serve(Settings.read(**options)) else 1)
    except InvalidSettings as error:
        print(f"crdt-sync: the configuration can't work:\n{error}", file=sys.stderr)
        sys.exit(2)
    except CannotServe as error:
        print(f"crdt-sync: {error}", file=sys.stderr)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="crdt-sync", description="A y-websocket server for Yjs documents.")
    parser.add_argument("--version", action="version", version=f"crdt-sync {version('crdt-sync')}")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "serve",
        help="serve documents",
        description="Serve documents until Ctrl-C. Each option is also CRDT_SYNC_<NAME> in the environment; "
        "docs/reference/settings.md lists them all.",
    )
    run.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    run.add_argument("--port", help="port to listen on, 0 for a free one (default 1234)")
    run.add_argument(
        "--database",
        dest="database_url",
        metavar="URL",
        help="where documents are kept (default sqlite:///crdt-sync.db)",
    )
    run.add_argument("--log-level", help="DEBUG, INFO, WARNING or ERROR (default INFO)")
    return parser
