"""The commands that look after stored documents: migrate, store stats, store copy, export.

Each is a function from the command line's options to an exit code. They own what is opened, in which way, and what is
said when it can't be. Leaves tables and JSON to `store_reports`.
"""

import asyncio
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from persistence import DocumentStats, Export, Store, StoreUnavailable, open_store

from . import logs
from .document import Document, State, digest
from .errors import DocumentBroken, ProtocolError
from .settings import Settings
from .store_copy import Copied, copy_document, copy_refusals
from .store_reports import copy_json, copy_progress, copy_summary, counted, print_stats, printable, stats_json
from .stores import make_store

# A tool reads and writes more at once than a server, and nobody edits while it does.
TIMEOUT_S: Final = 60.0
# As many updates may break a document when it is put together, and are left out then, as in a room.
HARMFUL_MAX: Final = 64
NAMED_MAX: Final = 20


class CommandFailed(Exception):
    """The command can't do what it was asked for. The text says why and what to do."""


def migrate(*, database_url: str | None, check: bool) -> int:
    """Bring the schema up to date, or tell whether it is.

    Raises:
        CommandFailed: It isn't, and was only to be checked.
        StoreError: The database can't be used.
    """
    # Not the replica: it gets the schema from its primary.
    settings = _settings(database_url, database_migrate=not check, database_replica_url=None)
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
    store = make_store(_settings(database_url), read_only=True)
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
    settings = _settings(None)

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
        with copy_progress(documents) as advance:
            for one in documents:
                await copy_document(source, target, one.document, overwrite=overwrite, done=done)
                advance(one)


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


def export(*, room: str, database_url: str | None, output: Path | None) -> int:
    """Write a document as one Yjs update. A server may be running.

    Raises:
        CommandFailed: There is no such document, it can't be put together, or it can't be written.
        StoreError: The database can't be used.
    """
    if output is None and sys.stdout.isatty():
        raise CommandFailed("a Yjs update is binary, and this is a terminal: name a file with --output FILE")
    store = make_store(_settings(database_url), read_only=True)
    exported = asyncio.run(_read_export(store, room))
    if exported is None:
        raise CommandFailed(_unknown(room, store))
    # Outside of the event loop, so that Ctrl-C ends it.
    state = _put_together(exported)
    if output is None:
        sys.stdout.buffer.write(state.update)
    else:
        _write(output, state.update)
        print(f"{output}: {len(state.update)} bytes, everything up to seq {exported.head_seq}", file=sys.stderr)
    if state.waiting:
        count = counted(len(state.waiting), "update")
        print(f"{count} can't be integrated yet and left out: what to build on is missing", file=sys.stderr)
    return 0


async def _read_export(store: Store, name: str) -> Export | None:
    async with _opened(store):
        return await store.export(name) if _is_text(name) else None


def _put_together(exported: Export) -> State:
    """Make a document of what is stored, as a room does, without what breaks it."""
    updates = [row.update for row in exported.rows]
    if exported.snapshot is not None:
        updates[:0] = [exported.snapshot.state, *exported.snapshot.waiting]
    harmful: set[bytes] = set()
    for attempt in itertools.count(1):
        document = Document(waiting_bytes_max=sys.maxsize, harmful=harmful)
        try:
            for update in updates:
                document.restore(update)
            return document.state()
        except (ProtocolError, DocumentBroken) as error:
            culprit = error.culprit if isinstance(error, DocumentBroken) else None
            if culprit is None or attempt > HARMFUL_MAX:
                raise CommandFailed(f"{exported.document!r} can't be loaded: {error}") from error
            harmful.add(digest(culprit))
    raise AssertionError("counted to infinity")


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise CommandFailed(f"{path} can't be written: {os.strerror(error.errno or 0)}") from error


@asynccontextmanager
async def _opened(store: Store) -> AsyncIterator[None]:
    await store.open()
    try:
        yield
    finally:
        await store.close()


def _settings(database_url: str | None, **changes: object) -> Settings:
    """Read the settings for a tool, which prints its results and logs only trouble."""
    settings = Settings.read(database_url=database_url)
    logs.configure("WARNING")
    if database_url is not None:
        # The configured replica is one of the configured database.
        changes["database_replica_url"] = None
    changes["database_timeout_s"] = max(settings.database_timeout_s, TIMEOUT_S)
    return settings.model_copy(update=changes)


def _unknown(document: str, store: Store) -> str:
    return f"there is no document {document!r} in {store.describe()}; crdt-sync store stats lists them"


def _is_text(name: str) -> bool:
    """Whether a name can be stored at all; a shell can pass bytes that are no UTF-8."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False
