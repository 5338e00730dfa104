"""An admin's work on the database itself: beside running servers that share it, or where none runs.

What only reads can be done beside any server. What writes is done by a node of its own, as a server would do it: the same checks, and if Redis is
configured the other nodes hear of it at once. Without, they look at the database every 20 s.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from persistence import DocumentStats, Export, StoreCorrupt

from .admin import Exported, Imported, RoomFacts
from .apart import Apart
from .bus import open_bus
from .commands import CommandFailed, NoSuchDocument, is_text
from .document import State
from .errors import DocumentBroken, MessageTooBig, ProtocolError, StoreBehind, SyncError
from .formats import show
from .gateway.sync import check_room_name
from .journal import Journal
from .pacing import at_once
from .replay import replaying
from .rooms import COMPARE_S, FORGET_AFTER_S, Rooms
from .settings import Settings
from .stores import make_store
from .verifying import Checked, Finding

T = TypeVar("T")

VERIFY_S_MAX: Final = 600


class StoreAdmin:
    """An `Admin` on a database.

    Args:
        settings: Which, and which Redis its servers meet in, if any.
        writes: Whether anything is to be changed. SQLite takes one writer at a time, so no server may be running then.

    Raises:
        StoreError: It can't be opened.
    """

    def __init__(self, settings: Settings, *, writes: bool = False) -> None:
        self._settings = settings
        self._store = make_store(settings, read_only=not writes)
        self._apart = Apart(limit_s=VERIFY_S_MAX)
        self._harmful: dict[str, set[bytes]] | None = None
        self._runner = asyncio.Runner()
        self.notice: str | None = None
        if self._store.shared and settings.redis_url is None:
            self.notice = f"Servers that run on {self._store.describe()} see it within {COMPARE_S:.0f} s."
        try:
            self._run(self._store.open())
        except BaseException:
            self._runner.close()
            raise

    def describe(self) -> str:
        """See `Admin`."""
        return self._store.describe()

    def close(self) -> None:
        """See `Admin`."""
        self._apart.close()
        self._run(self._store.close())
        self._runner.close()

    def rooms(self, *, deleted: bool = False, prefix: str = "") -> list[RoomFacts]:
        """See `Admin`."""
        every = self._run(self._store.stats())
        return [_facts(one) for one in every if bool(one.deleted_at) == deleted and one.document.startswith(prefix)]

    def room(self, name: str) -> RoomFacts:
        """See `Admin`. Reads the whole document; of a damaged one less is told."""
        stats = next((one for one in self._run(self._store.stats()) if one.document == name), None)
        if stats is None:
            raise self._unknown(name)
        try:
            export = self._export(name, deleted=True)
            spans = self._run(self._store.timeline(name))
        except StoreCorrupt:
            return _facts(stats)
        return replace(
            _facts(stats),
            created_at=export.created_at,
            edited_at=max((span.until_at for span in spans), default=None),
            users=tuple(sorted({user for span in spans for user in span.users if user is not None})),
        )

    def delete(self, name: str) -> None:
        """See `Admin`."""

        async def delete() -> bool:
            async with self._node() as rooms:
                return await rooms.delete(name)

        if not is_text(name) or not self._run(delete()):
            self._export(name)  # says that it was deleted before
            raise self._unknown(name)

    def undelete(self, name: str) -> None:
        """See `Admin`."""
        if not is_text(name) or not self._run(self._store.undelete(name)):
            raise NoSuchDocument(self._not_deleted(name))

    def purge(self, name: str) -> None:
        """See `Admin`."""
        found = self._run(self._store.documents(deleted=True, start=name, limit=1)) if is_text(name) else []
        if not found or found[0].name != name or found[0].deleted_at is None:
            raise NoSuchDocument(self._not_deleted(name))
        # Whoever has it open still could write old updates into a new document.
        wait_s = FORGET_AFTER_S - (datetime.now(UTC) - found[0].deleted_at).total_seconds() if self._store.shared else 0
        if wait_s > 0:
            raise CommandFailed(f"{name!r} was deleted just now, and a server may have it open: wait {wait_s:.0f} s")
        self._run(self._store.purge(name))

    def export(self, name: str, form: str) -> Exported:
        """See `Admin`."""
        export = self._export(name)
        # Outside of the event loop, so that Ctrl-C ends it.
        state = _put_together(export)
        try:
            return Exported(show(state.update, form), export.head_seq, len(state.waiting))
        except SyncError as error:
            raise CommandFailed(f"{name!r} can't be shown: {error}") from error

    def apply(self, name: str, update: bytes) -> Imported:
        """See `Admin`."""
        try:
            check_room_name(name)
            if len(update) > self._settings.message_bytes_max:
                raise MessageTooBig(f"{len(update)} bytes, at most {self._settings.message_bytes_max}")
            return self._run(self._apply(name, update))
        except UnicodeEncodeError as error:
            raise CommandFailed(f"{name!r} is no name: names are UTF-8") from error
        except SyncError as error:
            raise CommandFailed(f"nothing was imported: {error.reason}: {error}") from error

    def verify(self, name: str) -> Checked:
        """See `Admin`."""
        try:
            export = self._export(name, deleted=True, history=True)
        except StoreCorrupt as error:
            return Checked(name, problems=(Finding("unreadable", str(error)),))
        if self._harmful is None:
            self._harmful = {}
            for one in self._run(self._store.quarantined()):
                self._harmful.setdefault(one.document, set()).add(one.digest)
        return self._apart.check(export, self._harmful.get(name, ()))

    async def _apply(self, name: str, update: bytes) -> Imported:
        async with self._node() as rooms, rooms.hold(name) as room:
            created = room.stored_seq == 0
            outcome = await room.accept_in_turns(update, sender=None)
            try:
                await room.until_stored(self._settings.database_timeout_s)
            except StoreBehind as error:
                raise CommandFailed(f"{self._store.describe()} doesn't take it: see its log") from error
            return Imported(outcome.name.lower(), created and room.stored_seq > 0)

    @asynccontextmanager
    async def _node(self) -> AsyncIterator[Rooms]:
        """What a server has of rooms, and the way to other nodes; without anybody who could connect."""
        settings = self._settings
        bus = open_bus(settings.redis_url, prefix=settings.redis_prefix) if settings.redis_url is not None else None
        if bus is not None:
            await bus.open()
        journal = Journal(self._store, interval_s=settings.journal_interval_s, bytes_max=settings.unstored_bytes_max)
        rooms = Rooms(self._store, journal, settings, bus)
        tasks = [asyncio.create_task(journal.run()), asyncio.create_task(rooms.run())]
        try:
            yield rooms
        finally:
            await _stop(tasks.pop())
            await rooms.close()
            await _stop(tasks.pop())
            if bus is not None:
                await bus.close()

    def _export(self, name: str, *, deleted: bool = False, history: bool = False) -> Export:
        export = self._run(self._store.export(name, deleted=deleted, history=history)) if is_text(name) else None
        if export is None:
            raise self._unknown(name)
        return export

    def _unknown(self, name: str) -> CommandFailed:
        return NoSuchDocument(
            f"there is no document {name!r} in {self._store.describe()}; crdt-sync rooms list lists them"
        )

    def _not_deleted(self, name: str) -> str:
        return f"there is no deleted document {name!r} in {self._store.describe()}; crdt-sync rooms list --deleted lists them"

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _facts(one: DocumentStats) -> RoomFacts:
    return RoomFacts(
        name=one.document,
        seq=one.head_seq,
        size_bytes=one.log_bytes + one.snapshot_bytes + one.history_bytes + one.version_bytes,
        updates=one.rows,
        snapshot_seq=one.snapshot_seq,
        history_bytes=one.history_bytes,
        versions=one.versions,
        deleted_at=one.deleted_at,
    )


def _put_together(export: Export) -> State:
    """Make a document of what is stored, as a room does, without what breaks it."""
    try:
        return at_once(replaying(export.snapshot, [row.update for row in export.rows])).state()
    except (ProtocolError, DocumentBroken) as error:
        raise CommandFailed(f"{export.document!r} can't be loaded: {error}") from error
