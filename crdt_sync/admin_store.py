"""An admin's work on the database itself: beside running servers that share it, or where none runs.

What only reads can be done beside any server. What writes is done by a node of its own, as a server would do it: the same checks, and if Redis is
configured the other nodes hear of it at once. Without, they look at the database every 20 s.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from persistence import DocumentStats, Export, StoreCorrupt, Version

from .admin import Exported, Imported, Restored, RoomFacts, Then
from .apart import Apart
from .archiving import Archiving, make_archive
from .authors import Bucket
from .bus import open_bus
from .commands import CommandFailed, NoSuchDocument, is_text
from .document import State
from .errors import DocumentBroken, MessageTooBig, ProtocolError, StoreBehind, SyncError
from .formats import show
from .gateway.sync import check_room_name
from .going_back import GoingBack, NameTaken, NotRestorable, WentBack
from .history import NoSuchPast, Past
from .journal import Journal
from .pacing import at_once
from .past_forms import changes_to
from .replay import replaying
from .rooms import COMPARE_S, FORGET_AFTER_S, Rooms
from .settings import Settings
from .stores import make_store
from .time_machine import NOW, Plan, Point, TimeMachine, taking_back
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

        async def purge() -> None:
            async with self._archiving() as archiving:
                await self._store.purge(name)
                archiving.forget_all(name)

        self._run(purge())

    def export(self, name: str, form: str, point: Point = NOW) -> Exported:
        """See `Admin`."""
        if point != NOW:
            past = self._in_past(name, lambda machine: machine.read(name, point))
            return Exported(_shown(name, past.update, form), past.seq, exact=past.exact)
        export = self._export(name)
        # Outside of the event loop, so that Ctrl-C ends it.
        state = _put_together(export)
        return Exported(_shown(name, state.update, form), export.head_seq, len(state.waiting))

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

    def versions(self, name: str) -> list[Version]:
        """See `Admin`."""
        return self._of_document(name, lambda: self._store.versions(name))

    def take_version(self, name: str, label: str | None) -> Version:
        """See `Admin`."""

        async def take() -> Version | None:
            async with self._node() as rooms, rooms.hold(name) as room:
                await room.until_stored(self._settings.database_timeout_s)
                return await rooms.keep_version(room, kind="manual", label=label)

        version = self._of_document(name, lambda: _with_label(take()))
        if version is None:
            raise CommandFailed(f"nothing was ever written to {name!r}")
        return version

    def label_version(self, name: str, id: int, label: str | None) -> None:
        """See `Admin`."""
        if not self._of_document(name, lambda: _with_label(self._store.label_version(name, id, label))):
            raise CommandFailed(f"{name!r} has no version {id}")

    def delete_versions(self, name: str, ids: Sequence[int]) -> None:
        """See `Admin`."""

        async def delete() -> None:
            async with self._archiving() as archiving:
                await self._store.delete_versions(name, ids)
                archiving.forget(name, ids)

        self._of_document(name, delete)

    def diff(self, name: str, older: Point, newer: Point, form: str) -> list[dict[str, Any]] | str:
        """See `Admin`."""
        return changes_to(form, self._in_past(name, lambda machine: machine.diff(name, older, newer)))

    def activity(self, name: str, since: datetime, bucket_s: int) -> list[Bucket]:
        """See `Admin`."""
        until = datetime.now(UTC)
        return self._in_past(name, lambda machine: machine.activity(name, since, until, bucket_s))

    def restore(
        self, name: str, point: Point, *, roots: Sequence[str] | None, form: str, dry_run: bool, anyway: bool
    ) -> Restored:
        """See `Admin`."""

        def plan(machine: TimeMachine, current: bytes) -> Awaitable[Plan]:
            return machine.plan_restore(name, point, current, roots=roots)

        return self._go_back(name, plan, form=form, dry_run=dry_run, anyway=anyway)

    def restore_as_new(self, name: str, point: Point, new: str, *, dry_run: bool) -> Then:
        """See `Admin`."""

        async def make(machine: TimeMachine) -> Past:
            check_room_name(new)
            past, update = await machine.copy(name, point)
            if dry_run:
                if new in await self._store.heads([new]):
                    raise NameTaken(f"{new!r} is there already: choose a name that is free")
            else:
                async with self._going_back() as going_back:
                    await going_back.make(new, update)
            return past

        return _then(self._in_past(name, make))

    def roll_back(self, name: str, user: str, since: Point, *, form: str, dry_run: bool, anyway: bool) -> Restored:
        """See `Admin`."""

        def plan(machine: TimeMachine, current: bytes) -> Awaitable[Plan]:
            return machine.plan_rollback(name, user, since)

        by = taking_back(user, None)
        return self._go_back(name, plan, form=form, dry_run=dry_run, anyway=anyway, user=by)

    def _go_back(
        self,
        name: str,
        plan: Callable[[TimeMachine, bytes], Awaitable[Plan]],
        *,
        form: str,
        dry_run: bool,
        anyway: bool,
        user: str | None = None,
    ) -> Restored:
        async def go(machine: TimeMachine) -> WentBack:
            if dry_run:  # that can be done beside a server that has the database for itself
                return WentBack(await plan(machine, (await machine.read(name, NOW)).update), False)
            async with self._going_back() as going_back:
                return await going_back.go(name, lambda current: plan(machine, current), anyway=anyway, user=user)

        went = self._in_past(name, go)
        changes = changes_to(form, went.plan.changes)
        restoration = went.plan.restoration
        return Restored(_then(went.plan.past), restoration.impossible, changes, went.done, went.version_before)

    def _in_past(self, name: str, work: Callable[[TimeMachine], Awaitable[T]]) -> T:
        """Do something in the past of a document."""

        async def do() -> T:
            async with self._archiving() as archiving:
                return await work(TimeMachine(self._store, archive=archiving.archive))

        return self._of_document(name, do)

    def _of_document(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do something with a document that is there, and not deleted."""

        async def do() -> T:
            head_seq = (await self._store.heads([name])).get(name, 0)
            if head_seq == 0:
                raise self._unknown(name)
            if head_seq is None:
                raise CommandFailed(f"{name!r} was deleted: crdt-sync rooms undelete {name!r} brings it back")
            return await work()

        if not is_text(name):
            raise self._unknown(name)
        try:
            return self._run(do())
        except (NoSuchPast, NotRestorable, NameTaken) as error:
            raise CommandFailed(str(error)) from error
        except SyncError as error:
            raise CommandFailed(f"{name!r}: {error.reason}: {error}") from error

    @asynccontextmanager
    async def _archiving(self) -> AsyncIterator[Archiving]:
        archiving = Archiving(self._store, make_archive(self._settings))
        try:
            yield archiving
        finally:
            await archiving.close()

    @asynccontextmanager
    async def _going_back(self) -> AsyncIterator[GoingBack]:
        async with self._node() as rooms:
            yield GoingBack(rooms, store_timeout_s=self._settings.database_timeout_s)

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


async def _with_label(work: Awaitable[T]) -> T:
    try:
        return await work
    except ValueError as error:
        raise CommandFailed(f"that can't be a label: {error}") from error


def _shown(name: str, update: bytes, form: str) -> bytes:
    try:
        return show(update, form)
    except SyncError as error:
        raise CommandFailed(f"{name!r} can't be shown: {error}") from error


def _then(past: Past) -> Then:
    return Then(past.seq, past.exact, None if past.version is None else past.version.id)


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
