"""Bringing a document back while people have it open: what is planned is done, on this node.

Owns the order of it: all is stored, the edit is planned on that, a version is kept, the edit is taken in like a client's.
Leaves the plan to `time_machine`, and who may go back, and how that is asked for, to the caller.

One after the other for each document. Two restorations that don't know of each other would both write what is
missing, and it would be there twice. Of what another node does at the same moment nothing is known here.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from persistence import Version

from .room import STORE_TIMEOUT_S
from .rooms import Rooms
from .time_machine import Plan

Planner = Callable[[bytes], Awaitable[Plan]]
"""Makes the plan, given the document as one update."""


class NotRestorable(Exception):
    """Something can't be brought back exactly, so nothing was done. The text says what."""


class NameTaken(Exception):
    """There is something in a document that was to be a new one. Nothing was done."""


@dataclass(frozen=True, slots=True)
class WentBack:
    """What was done, or if it was a rehearsal would be."""

    plan: Plan
    done: bool
    """Whether the document was changed; not if it shows that already."""
    version_before: Version | None = None
    """What it was before that."""


class GoingBack:
    """Brings documents back; one for each node.

    Args:
        rooms: Of the node.
        store_timeout_s: How long it is waited, each time, until what was accepted is stored.
    """

    def __init__(self, rooms: Rooms, *, store_timeout_s: float = STORE_TIMEOUT_S) -> None:
        self._rooms = rooms
        self._store_timeout_s = store_timeout_s
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def go(
        self,
        document: str,
        plan: Planner,
        *,
        dry_run: bool = False,
        anyway: bool = False,
        by: str | None = None,
        user: str | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> WentBack:
        """Bring a document back.

        Args:
            document: Its name.
            plan: Makes the plan.
            dry_run: Whether to do nothing.
            anyway: Whether to do what is possible, if not all is.
            by: Who asks for it.
            user: Who is taken for the edit's author.
            check: Raises, if it may not be done any more, just before it is.

        Raises:
            NotRestorable: Not all is possible.
            SyncError: It can't be done now, or, if it is `StoreBehind`, isn't known to be stored.
            StoreError: Likewise. Nothing was done.
        """
        async with self._alone(document), self._rooms.hold(document) as room:
            await room.until_stored(self._store_timeout_s)
            made = await plan(await room.difference())
            update, impossible = made.restoration.update, made.restoration.impossible
            if impossible and not dry_run and (update is None or not anyway):
                raise NotRestorable(" ".join(impossible))
            if update is None or dry_run:
                return WentBack(made, False)
            version = await self._rooms.keep_version(room, kind="restore", user=by)
            check()
            await room.accept_in_turns(update, sender=None, user=user)
            await room.until_stored(self._store_timeout_s)
            return WentBack(made, True, version)

    async def make(self, document: str, update: bytes, *, dry_run: bool = False, user: str | None = None) -> None:
        """Make a new document of an update.

        Args:
            document: Its name.
            update: Its first one.
            dry_run: Whether only to see if the name is free.
            user: Who is taken for its author.

        Raises:
            NameTaken: It isn't.
            SyncError: It can't be done now, or, if it is `StoreBehind`, isn't known to be stored.
        """
        async with self._alone(document), self._rooms.hold(document) as room:
            if room.stored_seq or room.unstored:
                raise NameTaken(f"{document!r} has content already: choose a name that is free")
            if not dry_run:
                await room.accept_in_turns(update, sender=None, user=user)
                await room.until_stored(self._store_timeout_s)

    def _alone(self, document: str) -> asyncio.Lock:
        """Held by whoever brings a document back."""
        lock = self._turns.get(document)
        if lock is None:
            lock = self._turns[document] = asyncio.Lock()
        return lock
