"""The commands that look after a database: migrate, store stats, store copy.

Each is a function from the command line's options to an exit code. They own what is opened, in which way, and what is
said when it can't be. Leaves tables and JSON to `store_reports`.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from persistence import DocumentStats, Store, StoreUnavailable, open_store

from .commands import URLS, CommandFailed, Commands, add_command, add_json, count, tool_settings
from .store_copy import Copied, copy_document, copy_refusals
from .store_reports import copy_json, copy_summary, print_stats, stats_json, stored_bytes
from .stores import make_store
from .tables import counted, printable, progress

NAMED_MAX: Final = 20


def add_parsers(commands: Commands) -> None:
    """Add `migrate` and `store`."""
    _add_migrate(commands)
    store = commands.add_parser("store", help="look at what is stored, or copy it to another database")
    of_store = store.add_subparsers(metavar="COMMAND", required=True)
    _add_stats(of_store)
    _add_copy(of_store)


def migrate(*, database_url: str | None, check: bool) -> int:
    """Bring the schema up to date, or tell whether it is.

    Raises:
        CommandFailed: It isn't, and was only to be checked.
        StoreError: The database can't be used.
    """
    # Not the replica: it gets the schema from its primary.
    settings = tool_settings(database_url, database_migrate=not check, database_replica_url=None)
    store = make_store(settings)
    print(f"{store.describe()}: {asyncio.run(_migrate(store, check=check))}")
    return 0


async def _migrate(store: Store, *, check: bool) -> str:
    schema = await store.schema()
    if schema.found == schema.known:
        return f"up to date (schema {schema.known})"
    if check and schema.found < schema.known:
        raise CommandFailed(
            f"{store.describe()} has schema {schema.found}, this version needs {schema.known}: run crdt-sync migrate"
        )
    async with _opened(store):  # refuses a newer one
        return f"schema {schema.found} -> {schema.known}"


def stats(*, database_url: str | None, document: str | None, limit: int, as_json: bool) -> int:
    """Print what every document occupies. A server may be running.

    Raises:
        CommandFailed: There is no such document.
        StoreError: The database can't be used.
    """
    store = make_store(tool_settings(database_url), read_only=True)
    every, disk_bytes = asyncio.run(_read_stats(store))
    shown = [one for one in every if document in (None, one.document)]
    if document is not None and not shown:
        raise CommandFailed(_unknown(document, store))
    if as_json:
        print(stats_json(shown, every, disk_bytes, store=store.describe()))
    elif not every:
        print(f"{store.describe()} has no documents yet")
    else:
        print_stats(shown, every, disk_bytes, limit=limit, now=datetime.now(UTC))
    return 0


async def _read_stats(store: Store) -> tuple[list[DocumentStats], int]:
    async with _opened(store):
        return await store.stats(), await store.size_bytes()


def copy(*, source_url: str, target_url: str, overwrite: bool, as_json: bool) -> int:
    """Copy all documents of one store to another, with what was deleted, quarantined and revoked.

    Returns:
        1 if documents were left alone because they differ, or couldn't be copied because they are damaged.

    Raises:
        CommandFailed: Both are one, or a store failed half-way.
        StoreError: One of them can't be used.
        KeyboardInterrupt: It was interrupted, with a text for whoever did.
    """
    source, target = _both_stores(source_url, target_url)
    done = Copied()
    started = time.monotonic()
    try:
        asyncio.run(_copy(source, target, overwrite=overwrite, done=done))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {_how_to_go_on(done)}") from None
    except StoreUnavailable as error:
        if not done.documents:
            raise
        raise CommandFailed(f"{error}\n{_how_to_go_on(done)}") from error
    elapsed_s = time.monotonic() - started
    if as_json:
        print(copy_json(done, elapsed_s, source=source.describe(), target=target.describe()))
    else:
        print(copy_summary(done, elapsed_s))
    for trouble in _troubles(done, target):
        print(trouble, file=sys.stderr)
    return 1 if done.conflicts or done.failed else 0


def _both_stores(source_url: str, target_url: str) -> tuple[Store, Store]:
    settings = tool_settings(None)

    def make(url: str, *, read_only: bool) -> Store:
        return open_store(
            url,
            read_only=read_only,
            timeout_s=settings.database_timeout_s,
            connections_max=settings.database_connections_max,
        )

    source, target = make(source_url, read_only=True), make(target_url, read_only=False)
    if _place(source_url) == _place(target_url):
        raise CommandFailed(f"both URLs name the same store, {source.describe()}: name another one to copy to")
    return source, target


def _place(url: str) -> str:
    """What two URLs of one database have in common, however they spell it and whoever connects."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        return os.path.realpath(rest.removeprefix("/"))
    parts = urlsplit(url)
    return parts._replace(scheme="", netloc=parts.netloc.rpartition("@")[2]).geturl()


async def _copy(source: Store, target: Store, *, overwrite: bool, done: Copied) -> None:
    # The source first: who mistypes its URL must not find the target created.
    async with _opened(source), _opened(target):
        # First: whoever uses a copy that was interrupted lets nothing back by that.
        await copy_refusals(source, target, now=datetime.now(UTC), done=done)
        documents = await source.stats()
        total_bytes = sum(map(stored_bytes, documents))
        with progress("documents", len(documents), total_bytes=total_bytes) as advance:
            for one in documents:
                await copy_document(source, target, one.document, overwrite=overwrite, done=done)
                advance(stored_bytes(one))


def _how_to_go_on(done: Copied) -> str:
    there = f", {done.already_there:,} were there already" if done.already_there else ""
    return f"{counted(done.documents, 'document')} copied{there}; run the same command again to go on where it stopped"


def _troubles(done: Copied, target: Store) -> Iterator[str]:
    if done.failed:
        yield f"crdt-sync: {counted(len(done.failed), 'document')} couldn't be copied:"
        yield from _some(list(done.failed.values()))
    if done.conflicts:
        yield (
            f"crdt-sync: {counted(len(done.conflicts), 'document')} in {target.describe()} already, with another "
            "content, left alone:"
        )
        yield from _some(done.conflicts)
        yield "Run it again with --overwrite to replace them. What was edited only in the target is lost then."


def _some(items: list[str]) -> Iterator[str]:
    yield from (f"  {printable(item)}" for item in items[:NAMED_MAX])
    if len(items) > NAMED_MAX:
        yield f"  … and {len(items) - NAMED_MAX} more"


@asynccontextmanager
async def _opened(store: Store) -> AsyncIterator[None]:
    await store.open()
    try:
        yield
    finally:
        await store.close()


def _unknown(document: str, store: Store) -> str:
    return f"there is no document {document!r} in {store.describe()}; crdt-sync store stats lists them"


def _add_migrate(commands: Commands) -> None:
    command = _add_tool(
        commands,
        "migrate",
        migrate,
        help="bring the database's schema up to date",
        description="Create the tables, or bring those of an older release up to date, and say what was done. A "
        "starting server does the same by itself, unless CRDT_SYNC_DATABASE_MIGRATE is false: then run this, as a "
        "user who may create tables, before you start the new release.",
    )
    command.add_argument(
        "--check",
        action="store_true",
        help="change nothing: exit 0 if the schema is up to date, 1 if it isn't or can't be used",
    )


def _add_stats(commands: Commands) -> None:
    command = _add_tool(
        commands,
        "stats",
        stats,
        help="show what every document occupies",
        description="Show what every document occupies, largest first, and the sums of the store. It only reads, and "
        "a server may be running. 'unfolded for' is the age of the oldest update that no snapshot has yet: "
        "with a server running and people editing it stays at seconds.",
    )
    command.add_argument("--document", metavar="NAME", help="show this document only; the sums are the store's")
    command.add_argument("--limit", type=count, default=20, metavar="N", help="show at most N documents (default 20)")
    add_json(command, "print everything as JSON: all documents, bytes, ISO times")


def _add_copy(commands: Commands) -> None:
    command = add_command(
        commands,
        "copy",
        copy,
        help="copy all documents to another database",
        description="Copy all documents from one database to another, with everything that is kept of them: SQLite to "
        "PostgreSQL, back, or to another of its kind. Each document is read back and compared. Stop the server first: "
        "what is edited after its document was copied is not in the copy. If it is interrupted, run it again: what is "
        "there already and equal is skipped.",
        epilog="A document that is there with another content is left alone, and the exit code is 1. "
        "docs/how-to/move-between-databases.md has the whole recipe.",
    )
    command.add_argument("source_url", metavar="FROM", help=f"the database to read: {URLS}")
    command.add_argument("target_url", metavar="TO", help="the database to write; its tables are made if need be")
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace documents that differ in TO; what was edited only there is lost",
    )
    add_json(command, "print what was done as JSON")


def _add_tool(
    commands: Commands, name: str, run: Callable[..., int], *, help: str, description: str
) -> argparse.ArgumentParser:
    """Add a command that works on the configured database."""
    epilog = "The database is CRDT_SYNC_DATABASE_URL, unless --database names another."
    command = add_command(commands, name, run, help=help, description=description, epilog=epilog)
    command.add_argument("--database", dest="database_url", metavar="URL", help=URLS)
    return command
