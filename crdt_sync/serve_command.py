"""The command that serves documents: serve."""

from .commands import Commands, add_command
from .serve import serve
from .settings import Settings


def _serve(**options: object) -> int:
    return 0 if serve(Settings.read(**options)) else 1


def add_parsers(commands: Commands) -> None:
    """Add `serve`."""
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
    command.add_argument("--ssl-certfile", metavar="PATH", help="speak TLS, with this certificate chain (PEM)")
    command.add_argument("--ssl-keyfile", metavar="PATH", help="the certificate's key (PEM), if it isn't in that file")
    command.add_argument(
        "--insecure-open",
        action="store_const",
        const=True,
        help="without keys, let everybody who reaches the server read and write every room",
    )
    command.add_argument("--log-level", help="DEBUG, INFO, WARNING or ERROR (default INFO)")
