"""Old versions in an archive: their content moves there, is read from there, and goes with them.

Owns the order in which database and archive learn of something. What is in the archive alone was read back before the
database forgot it; what the archive has too much, after a crash, is a copy that nobody asks for.
"""

import asyncio
import logging
from collections.abc import Collection, Coroutine
from typing import Any

from persistence import (
    ArchivedVersion,
    ArchiveUnavailable,
    Store,
    StoreCorrupt,
    Version,
    VersionArchive,
    VersionContent,
    open_archive,
)

from .settings import Settings

log = logging.getLogger("crdt_sync.archiving")

# Of so many documents it is remembered at most what couldn't be deleted.
LEFT_MAX = 10_000
CLOSE_S = 2.0


def make_archive(settings: Settings) -> VersionArchive | None:
    """The archive that the settings name, if they name one.

    Raises:
        StoreUnusable: It can't be used.
    """
    return open_archive(settings.archive_url) if settings.archive_url is not None else None


async def read_version(store: Store, archive: VersionArchive | None, document: str, id: int) -> VersionContent | None:
    """Read a version, wherever its content is; None if there is none of that id.

    Raises:
        ArchiveUnavailable: It is in the archive, and that can't be reached, or there is none.
        StoreError: It can't be read.
    """
    found = await store.version(document, id)
    if not isinstance(found, ArchivedVersion):
        return found
    if archive is None:
        raise ArchiveUnavailable(
            f"version {id} of {document!r} is in an archive: set CRDT_SYNC_ARCHIVE_URL to where it is"
        )
    return await archive.read(document, found)


class Archiving:
    """What is done with the archive of one store's versions.

    Args:
        store: Open.
        archive: If there is one. If not, nothing is done.
    """

    def __init__(self, store: Store, archive: VersionArchive | None) -> None:
        self._store = store
        self.archive = archive
        # What couldn't be deleted, by document: ids, or None for all of it.
        self._left: dict[str, set[int] | None] = {}
        self._deleting: set[asyncio.Task[None]] = set()
        self._failing = False

    async def move(self, document: str, version: Version) -> bool:
        """Move a version's content into the archive; return whether that was done, by us.

        Raises:
            StoreError: Nothing was lost.
        """
        assert self.archive is not None, "there is an archive"
        content = await self._store.version(document, version.id)
        if not isinstance(content, VersionContent):
            return False
        digest = await self.archive.write(document, content)
        if await self._store.archive_version(document, content.version, digest=digest):
            return True
        # Another node was first; or it was deleted meanwhile, and what was written goes too.
        if await self._store.version(document, version.id) is None:
            self.forget(document, [version.id])
        return False

    def forget(self, document: str, ids: Collection[int]) -> None:
        """Delete the content of versions that are deleted, soon. Whoever deletes them doesn't wait for the archive."""
        if self.archive is not None and ids:
            self._start(self._delete(document, set(ids)))

    def forget_all(self, document: str) -> None:
        """Delete all that is archived of a document, soon."""
        if self.archive is not None:
            self._start(self._delete(document, None))

    async def retry(self) -> None:
        """Delete what couldn't be deleted before."""
        left, self._left = self._left, {}
        for document, ids in left.items():
            await self._delete(document, ids)

    async def move_all(self, document: str, versions: Collection[Version]) -> None:
        """Move versions, as far as the archive takes them. What stays is tried again by the next sweep.

        Raises:
            ArchiveUnavailable: It takes nothing now. Logged already.
            StoreError: The store failed.
        """
        moved = 0
        try:
            for version in versions:
                try:
                    moved += await self.move(document, version)
                    self._failing = False
                except StoreCorrupt as error:
                    log.error("version_not_archived", extra={"room": document, "error": str(error)})
        except ArchiveUnavailable as error:
            if not self._failing:
                self._failing = True
                log.error("archive_failing", extra={"error": str(error)})
            raise
        finally:
            if moved:
                log.info("versions_archived", extra={"room": document, "count": moved})

    async def close(self) -> None:
        """Let go of the archive, with a moment for what is being deleted."""
        if self._deleting:
            _, late = await asyncio.wait(self._deleting, timeout=CLOSE_S)
            for task in late:
                task.cancel()
        if self.archive is not None:
            self.archive.close()

    def _start(self, deletion: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(deletion)
        self._deleting.add(task)
        task.add_done_callback(self._deleting.discard)

    async def _delete(self, document: str, ids: set[int] | None) -> None:
        assert self.archive is not None, "there is an archive"
        try:
            if ids is None:
                await self.archive.delete_all(document)
            else:
                await self.archive.delete(document, sorted(ids))
        except asyncio.CancelledError:
            log.error("archived_versions_left", extra={"room": document, "error": "the server was stopped before"})
            raise
        except ArchiveUnavailable as error:
            log.error("archived_versions_left", extra={"room": document, "error": str(error)})
            if document in self._left or len(self._left) < LEFT_MAX:
                known = self._left.get(document, set())
                self._left[document] = None if ids is None or known is None else known | ids
