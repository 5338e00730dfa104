"""The command that writes a document into a file: export."""

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from persistence import Export, Store

from .commands import URLS, CommandFailed, Commands, add_command, is_text, tool_settings, write_file
from .document import Document, State, digest
from .errors import DocumentBroken, ProtocolError
from .stores import make_store
from .tables import counted

# As many updates may break a document when it is put together, and are left out then, as in a room.
HARMFUL_MAX: Final = 64


def add_parser(commands: Commands) -> None:
    """Add `export`."""
    command = add_command(
        commands,
        "export",
        export,
        help="write a document as one Yjs update",
        description="Write a document as one Yjs update (v1): what Y.applyUpdate(doc, bytes) takes. It reads what is "
        "stored, and a server may be running; edits of the last moment may not be stored yet.",
    )
    command.add_argument("room", metavar="ROOM", help="the document's name, as in the client's WebsocketProvider")
    command.add_argument("--output", type=Path, metavar="FILE", help="write to this file, not to standard output")
    command.add_argument("--database", dest="database_url", metavar="URL", help=URLS)


def export(*, room: str, database_url: str | None, output: Path | None) -> int:
    """Write a document as one Yjs update. A server may be running.

    Raises:
        CommandFailed: There is no such document, it can't be put together, or it can't be written.
        StoreError: The database can't be used.
    """
    if output is None and sys.stdout.isatty():
        raise CommandFailed("a Yjs update is binary, and this is a terminal: name a file with --output FILE")
    store = make_store(tool_settings(database_url), read_only=True)
    exported = asyncio.run(_read_export(store, room))
    if exported is None:
        raise CommandFailed(f"there is no document {room!r} in {store.describe()}; crdt-sync store stats lists them")
    # Outside of the event loop, so that Ctrl-C ends it.
    state = _put_together(exported)
    if output is None:
        sys.stdout.buffer.write(state.update)
    else:
        write_file(output, state.update)
        print(f"{output}: {len(state.update)} bytes, everything up to seq {exported.head_seq}", file=sys.stderr)
    if state.waiting:
        count = counted(len(state.waiting), "update")
        print(f"{count} can't be integrated yet and left out: what to build on is missing", file=sys.stderr)
    return 0


async def _read_export(store: Store, name: str) -> Export | None:
    async with _opened(store):
        return await store.export(name) if is_text(name) else None


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


@asynccontextmanager
async def _opened(store: Store) -> AsyncIterator[None]:
    await store.open()
    try:
        yield
    finally:
        await store.close()
