"""Where an admin's commands work: on a database, or by way of a running server. Options for that, and opening it."""

import argparse
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from persistence import StoreInUse

from .admin import Admin
from .admin_api import ApiAdmin
from .admin_store import StoreAdmin
from .commands import URLS, CommandFailed, server_token, tool_settings
from .settings import TOKEN_VARIABLE, Settings

_NOWHERE: Final = ("0.0.0.0", "::", "")


@dataclass(frozen=True, slots=True)
class Place:
    """What was said of where to work."""

    database_url: str | None
    url: str | None
    token: str | None

    @contextmanager
    def admin(self, *typed: str, writes: bool = False, primary: bool = False) -> Iterator[Admin]:
        """Open it.

        Args:
            typed: The command, as it would be typed without this place: to be told how else it would work.
            writes: Whether anything is to be changed.
            primary: Whether it may not be a replica of the database.

        Raises:
            CommandFailed: It can't be reached, or the command doesn't work there.
            InvalidSettings: The settings can't work.
            StoreError: The database can't be used.
        """
        admin = self._open(typed, writes=writes, primary=primary)
        try:
            yield admin
        finally:
            admin.close()

    def _open(self, typed: tuple[str, ...], *, writes: bool, primary: bool) -> Admin:
        if self.url is not None:
            return ApiAdmin(self.url, server_token(self.token))
        # Whoever mistypes a URL must not find that database made.
        changes: dict[str, object] = {"database_migrate": False}
        if writes or primary:
            changes["database_replica_url"] = None
        if self.database_url is not None:
            # The configured Redis is that of the servers on the configured database, and so is the archive its.
            changes["redis_url"] = changes["archive_url"] = None
        # What goes wrong is told by the command itself.
        settings = tool_settings(self.database_url, log_level="CRITICAL", **changes)
        try:
            return StoreAdmin(settings, writes=writes)
        except StoreInUse as error:
            through = shlex.join(["crdt-sync", *typed, "--url", _url(settings)])
            raise CommandFailed(
                f"{str(error).partition(':')[0]}, which has to do this itself, so that its clients see it: "
                f"{through}, or stop it first"
            ) from error


def add_place(command: argparse.ArgumentParser) -> None:
    """Add the options for where to work, and have what the command runs get a `place` for them."""
    place = command.add_argument_group(
        "where",
        "On the database, which is CRDT_SYNC_DATABASE_URL unless --database names another; or by way of a running server.",
    )
    one = place.add_mutually_exclusive_group()
    one.add_argument("--database", dest="database_url", metavar="URL", help=URLS)
    one.add_argument("--url", metavar="URL", help="a running server: http://127.0.0.1:1234")
    place.add_argument(
        "--token", metavar="TOKEN", help=f"what the server is shown, if it asks for tokens (default: {TOKEN_VARIABLE})"
    )
    command.set_defaults(run=_at_place(command.get_default("run")))


def _at_place(run: Callable[..., int]) -> Callable[..., int]:
    def at_place(*, database_url: str | None, url: str | None, token: str | None, **options: object) -> int:
        return run(place=Place(database_url, url, token), **options)

    return at_place


def _url(settings: Settings) -> str:
    """Where a server with these settings listens."""
    host = "127.0.0.1" if settings.host in _NOWHERE else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
