"""A private PgBouncer."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from .debian import find_program, reachable
from .postgres import PostgresServer
from .processes import unprivileged_account
from .services import HOST, Service, through


class PgBouncer(Service):
    """A pooler in transaction mode: each transaction of a client may run in another connection to the server."""

    # The only one of its three signals that means the same in all versions: let transactions end, then go.
    _stop_signal = signal.SIGINT

    def __init__(
        self, postgres: PostgresServer, *, pool_size: int = 3, settings: Mapping[str, str] | None = None
    ) -> None:
        """Prepare, start nothing.

        Args:
            postgres: The server behind it.
            pool_size: How many connections to the server all clients of one database share.
            settings: More lines for its section `[pgbouncer]`.

        Raises:
            Unavailable: There is no such program.
        """
        account = unprivileged_account()  # it refuses root
        self._program = reachable(find_program("pgbouncer", path="usr/sbin/pgbouncer"), account)
        super().__init__("pgbouncer", account=account)
        self._postgres = postgres
        self._settings = {
            "listen_addr": HOST,
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": str(pool_size),
            **(settings or {}),
        }

    def url(self, database_url: str) -> str:
        """The URL of a database of the server behind, by way of the pooler."""
        return through(database_url, self.port)

    def _prepare(self) -> Sequence[str | Path]:
        config = self.folder / "pgbouncer.ini"
        server = f"host={HOST} port={self._postgres.port} user=postgres"
        lines = ["[databases]", f"* = {server}", "[pgbouncer]", *(f"{k} = {v}" for k, v in self._settings.items())]
        config.write_text("\n".join(lines) + "\n")
        return [self._program.path, config]

    def _env(self) -> dict[str, str]:
        return self._program.env
