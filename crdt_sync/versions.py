"""Versions of open documents, taken by themselves; what isn't kept any longer, removed; what is old, archived.

Owns when a version is due. Leaves the copy to the store, which makes it of the stored snapshot, and which of them are kept
to `retention`.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from persistence import ArchiveUnavailable, Store, StoreError

from .archiving import Archiving
from .retention import Retention, archivable, base_of, thinned
from .settings import Settings

log = logging.getLogger("crdt_sync.versions")

# Between two versions that are taken since everybody has left.
LEFT_S = 60.0
# Documents are swept one after the other, with pauses in which the store does other things.
PAGE = 200
PAUSE_S = 0.005


@dataclass(slots=True)
class Versioned:
    """How far the versions of an open document are."""

    seq: int
    """Of the last one, or of what was stored when the room was opened."""
    at: float
    """When that was; monotonic seconds."""
    left: bool = False
    """Whether everybody has left since."""


class Versions:
    """Takes versions, and removes old ones.

    Args:
        store: Open.
        settings: How often, and how long they are kept.
        archiving: Where old ones go.
        now: The time of day; aware.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        archiving: Archiving | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._archiving = archiving or Archiving(store, None)
        self._settings = settings
        self._now = now
        self._failing = False

    def opened(self, seq: int, *, now: float) -> Versioned:
        """A document is open now, and is stored up to `seq`."""
        return Versioned(seq, now - LEFT_S)

    def is_wanted(self, versioned: Versioned, seq: int) -> bool:
        """Whether a document that everybody has left, and whose snapshot has `seq`, should have a version, soon."""
        return bool(self._settings.version_interval_s) and versioned.left and seq > versioned.seq

    def is_due(self, versioned: Versioned, seq: int, *, whole: bool, now: float) -> bool:
        """Whether a document whose snapshot has `seq` should have a version by now.

        With several nodes it takes a quiet moment for a whole one, and only such a one can the log be read on from.
        """
        if seq <= versioned.seq or not self._settings.version_interval_s:
            return False
        return now - versioned.at >= self._gap_s(versioned) * (1 if whole else 2)

    async def take(self, document: str, versioned: Versioned, seq: int, *, now: float) -> None:
        """Take a version of a document, unless another node has done so just now."""
        at = self._now()
        try:
            # Half of it: nodes that take them in turn would otherwise wait for each other.
            since = at - timedelta(seconds=self._gap_s(versioned) / 2)
            taken = await self._store.take_version(document, at=at, kind="auto", unless_since=since)
        except StoreError as error:
            versioned.at, versioned.left = now, False
            if not self._failing:
                self._failing = True
                log.error("versions_failing", extra={"room": document, "error": str(error)})
            return
        self._failing = False
        versioned.at, versioned.left = now, False
        if taken is not None:
            versioned.seq = max(seq, taken.seq)

    def _gap_s(self, versioned: Versioned) -> float:
        interval_s = self._settings.version_interval_s
        return min(LEFT_S, interval_s) if versioned.left else interval_s

    async def sweep_forever(self) -> None:
        """Remove what isn't kept any longer, every `sweep_interval_s`, until cancelled."""
        while True:
            # All nodes do it. Whoever comes second finds little to do.
            await asyncio.sleep(random.uniform(0.5, 1) * self._settings.sweep_interval_s)
            try:
                await self.sweep()
            except StoreError as error:
                log.warning("sweep_stopped", extra={"error": str(error)})
            except Exception:
                log.exception("sweep_failed")

    async def sweep(self) -> None:
        """Remove what isn't kept any longer.

        Raises:
            StoreError: Of what comes after that, nothing was removed.
        """
        retention = self._retention()
        await self._archiving.retry()
        archives = self._archiving.archive is not None
        start = ""
        while page := await self._store.versioned(start=start, limit=PAGE):
            for document in page:
                await self._sweep(document, retention)
                try:
                    if archives:
                        await self._archive(document, retention)
                except ArchiveUnavailable:
                    # Until the next sweep. What else a sweep does goes on.
                    archives = False
                await asyncio.sleep(PAUSE_S)
            start = page[-1] + "\x01"

    async def _sweep(self, document: str, retention: Retention) -> None:
        now = self._now()
        versions = await self._store.versions(document)
        if gone := thinned(versions, retention, now=now):
            removed = await self._store.delete_versions(document, gone)
            self._archiving.forget(document, [one.id for one in versions if one.archived and one.id in set(gone)])
            log.info("versions_removed", extra={"room": document, "count": removed})
        base = base_of(versions, retention, now=now)
        if base is not None:
            await self._store.trim_history(document, upto=base.seq)

    async def _archive(self, document: str, retention: Retention) -> None:
        # Read anew: some are gone.
        versions = await self._store.versions(document)
        await self._archiving.move_all(document, archivable(versions, retention, now=self._now()))

    def _retention(self) -> Retention:
        settings = self._settings
        return Retention(
            all_for=timedelta(hours=settings.versions_all_hours),
            hourly_for=timedelta(days=settings.versions_hourly_days),
            daily_for=timedelta(days=settings.versions_daily_days),
            history_for=timedelta(days=settings.history_days),
            archived_after=timedelta(days=settings.archive_after_days),
        )
