"""The rooms of a running application, for the code around it: reading them, and editing them like a client.

Owns the client ids of such edits, and that an edit is taken in whole or not at all. Leaves what somebody does to a copy
to `drafts`, and everything from the finished update on to the room.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from auth import Grant

from ..drafts import Draft
from ..errors import DocumentBroken, DocumentGone, Draining, MessageTooBig, NotRunning, RoomUnavailable
from ..native import Doc
from ..room import Room
from ..rooms import Rooms
from ..settings import Settings
from .sync import check_room_name


class LiveRooms:
    """Reads and edits rooms from within the process that serves them. Made by `create_app`, in `app.rooms`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rooms: Rooms | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # Each client that ever wrote is a part of each state vector. So those of edits that are over are used again: whoever
        # copies the document now has all that they wrote.
        self._client_ids: WeakKeyDictionary[Room, list[int]] = WeakKeyDictionary()
        self._taking: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        """Whether there are rooms."""
        return self._rooms is not None

    def open(self, rooms: Rooms) -> None:
        """The application runs, with these rooms."""
        self._rooms = rooms
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Take in what edits under way have left to be taken in, and let nobody begin or finish another."""
        self._rooms = None
        if self._taking:
            await asyncio.wait(self._taking)
        self._client_ids = WeakKeyDictionary()

    @asynccontextmanager
    async def edit(self, room: str, *, user: str | None = None, stored: bool = True) -> AsyncIterator[Doc]:
        """Edit a room. What is done to the document inside the `async with` block is one edit, made at its end.

        It goes the way of a client's edit: to everybody who has the room open, on all nodes, into the log and the history
        under the name of `user`, and within the same limits. What others edit meanwhile is merged, as ever. An exception
        inside the block makes it no edit at all. Someone who cancels the wait at the end may find it made.

        Args:
            room: Its name. It needn't be open, nor exist.
            user: Who is taken for the edit's author, 1 to 255 printable characters.
            stored: Whether to wait at the end until the edit is committed.

        Yields:
            A `pycrdt.Doc`, the room's document as of now, for this block alone.

        Raises:
            ValueError: The user can't be one.
            NotRunning: The application's lifespan isn't under way in this event loop.
            SyncError: It can't be edited; nothing changed. But with `NotYetStored` it has been, and isn't committed yet.
        """
        # The same rules as for a grant's: it is stored with the edit.
        Grant(user=user, rooms={})
        rooms = self._running()
        async with rooms.hold(check_room_name(room)) as held:
            ids = self._client_ids.setdefault(held, [])
            client_id = ids.pop() if ids else held.new_client_id()
            draft = Draft(await held.copy(client_id))
            try:
                yield draft.doc
            except BaseException:
                # Of one that was abandoned, somebody may have kept something.
                if draft.is_untouched:
                    ids.append(client_id)
                raise
            finally:
                draft.close()
            update = await rooms.turns.take(draft.amounting())
            if update is not None:
                await self._take_whole(rooms, held, update, user)
            ids.append(client_id)
            if stored and update is not None:
                await held.until_stored()

    async def read(self, room: str) -> Doc:
        """Return a copy of a room's document as of now; an empty one, if there is no such room.

        Raises:
            NotRunning: The application's lifespan isn't under way in this event loop.
            SyncError: It can't be read now, or was deleted.
        """
        async with self._running().hold(check_room_name(room)) as held:
            return await held.copy(held.new_client_id())

    def _running(self) -> Rooms:
        if self._rooms is None:
            raise NotRunning(NOT_RUNNING)
        if asyncio.get_running_loop() is not self._loop:
            raise NotRunning(OTHER_LOOP)
        return self._rooms

    async def _take_whole(self, rooms: Rooms, room: Room, update: bytes, user: str | None) -> None:
        """Have the room take an update in, also if somebody gives up waiting: half of one would break the document."""
        size, most = len(update), self._settings.message_bytes_max
        if size > most:
            raise MessageTooBig(f"an edit of {size} bytes, at most {most}")
        if self._rooms is not rooms:
            raise Draining(f"{room.name!r} was edited while shutting down")
        taking = asyncio.create_task(_take(room, update, user))
        self._taking.add(taking)
        taking.add_done_callback(self._taken)
        try:
            await asyncio.shield(taking)
        except asyncio.CancelledError:
            # The room is held until then.
            await asyncio.wait([taking])
            raise

    def _taken(self, taking: asyncio.Task[None]) -> None:
        self._taking.discard(taking)
        if not taking.cancelled():
            # Nobody may be left to hear of it.
            taking.exception()


NOT_RUNNING = (
    "crdt-sync isn't running: the lifespan of its application was not entered, or is over. Frameworks don't run the lifespan of "
    "what is mounted in them. With FastAPI or Starlette, say FastAPI(lifespan=sync.lifespan), or enter it in your own: "
    "`async with sync.lifespan(): yield`. In tests, use `with TestClient(app) as client:`. See docs/how-to/embed.md"
)
OTHER_LOOP = (
    "rooms are edited and read in the event loop in which crdt-sync runs, and this is another one. From a thread of a framework's, "
    "hand the work to its loop: anyio.from_thread.run in FastAPI and Starlette, asgiref's async_to_sync in Django. See docs/how-to/embed.md"
)


async def _take(room: Room, update: bytes, user: str | None) -> None:
    try:
        if room.broken:
            raise DocumentBroken("the room was given up meanwhile")
        await room.accept_in_turns(update, sender=None, user=user)
    except DocumentBroken as error:
        if room.buried:
            raise DocumentGone(f"{room.name!r} was deleted") from error
        if error.close_code == DocumentBroken.close_code:
            raise RoomUnavailable(f"{room.name!r} is being loaded anew; try again") from error
        raise
