"""Going about in a document's past: what it was, what changed, by whom, and the edits that bring some of it back.

Owns how a moment is named, and what happens before anybody decides to go back: the edit is made, and its effect shown. Leaves
reading the past to `history`, comparing to `changes`, the edits to `restoring` and `rollback`, and who takes them in to the
caller.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from persistence import Store, VersionArchive

from .authors import Authors, Bucket, activity
from .changes import Change, diff
from .history import History, NoSuchPast, Past
from .pacing import Turns
from .replay import replaying
from .restoring import Restoration, as_new, restore
from .rollback import roll_back

ACTIVITY_BUCKETS_MAX = 5000
"""So many stretches of time may be asked for at once."""

CLIENT_BITS = 32
"""As Yjs chooses ids of clients."""

RunElsewhere = Callable[..., Awaitable[Any]]
"""Like `asyncio.to_thread`."""


@dataclass(frozen=True, slots=True)
class Point:
    """A moment in a document's past: one of a version, a seq, a time; now if none."""

    version: int | None = None
    seq: int | None = None
    time: datetime | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"version {self.version}"
        if self.seq is not None:
            return f"seq {self.seq}"
        return self.time.isoformat(timespec="seconds") if self.time is not None else "now"


NOW = Point()


def parse_time(text: str) -> datetime:
    """Read a time with its time zone.

    Raises:
        ValueError: It isn't one.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise ValueError(f"{text!r} is no version, seq:number, now, or time with its zone (2026-05-01T12:00:00Z)")
    return time


def parse_point(text: str, read_time: Callable[[str], datetime] = parse_time) -> Point:
    """Read a point from text: `12` is a version, `seq:345` a seq, `2026-05-01T12:00:00Z` a time, and `now`.

    Args:
        text: As above.
        read_time: What reads a time.

    Raises:
        ValueError: It is none of these. The text says so.
    """
    if text == "now":
        return NOW
    kind, _, number = text.rpartition(":")
    if kind in ("", "seq") and number.isdecimal() and number.isascii() and len(number) <= 18:
        return Point(seq=int(number)) if kind else Point(version=int(number))
    return Point(time=read_time(text))


@dataclass(frozen=True, slots=True)
class Plan:
    """An edit that brings something back, and what it would change."""

    past: Past
    """What it is made of."""
    restoration: Restoration
    changes: list[Change]


class TimeMachine:
    """The past of the documents of one store, for those who want to know or change something.

    Args:
        store: Open.
        turns: For putting documents together.
        elsewhere: Does long work, which shares nothing, wherever it holds up nobody.
        archive: Where the content of old versions is, if there is one.
    """

    def __init__(
        self,
        store: Store,
        turns: Turns | None = None,
        elsewhere: RunElsewhere = asyncio.to_thread,
        archive: VersionArchive | None = None,
    ) -> None:
        self._turns = turns or Turns()
        self._history = History(store, self._turns, archive)
        self._store = store
        self._elsewhere = elsewhere

    async def read(self, document: str, point: Point) -> Past:
        """Read what a document was.

        Args:
            document: Its name.
            point: When. Now is what is stored.

        Raises:
            NoSuchPast: Nothing is kept of that.
            StoreError: It can't be read.
        """
        if point.version is not None:
            return await self._history.at_version(document, point.version)
        if point.time is not None:
            return await self._history.at_time(document, point.time)
        return await self._history.at_seq(document, await self._head_seq(document) if point.seq is None else point.seq)

    async def diff(self, document: str, older: Point, newer: Point) -> list[Change]:
        """Tell what differs between two points, by whom, as far as that is kept."""
        before, after = await self.read(document, older), await self.read(document, newer)
        rows = await self._history.rows(document, after=min(before.seq, after.seq), upto=max(before.seq, after.seq))
        # Backwards, who made the difference isn't who would make it.
        forwards = before.seq <= after.seq
        changes: list[Change] = await self._elsewhere(_diff, before.update, after.update, rows if forwards else None)
        return changes

    async def activity(self, document: str, since: datetime, until: datetime, bucket_s: float) -> list[Bucket]:
        """Tell who did how much when, as far as that is kept."""
        rows = await self._history.rows(document, after=0, upto=await self._head_seq(document))
        before = None
        first = next((index for index, row in enumerate(rows) if row.accepted_at >= since), len(rows))
        rows = rows[first:]
        if rows and rows[0].seq > 1:
            past = await self._history.at_seq(document, rows[0].seq - 1)
            before = past.update if past.exact else None
        found: list[Bucket] = await self._elsewhere(activity, rows, bucket_s, before=before)
        return [one for one in found if one.from_at <= until]

    async def plan_restore(
        self, document: str, point: Point, current: bytes, *, roots: Collection[str] | None = None
    ) -> Plan:
        """Make the edit after which a document shows what it showed then.

        Args:
            document: Its name.
            point: When.
            current: What it is now.
            roots: Which root types; all by default.
        """
        past = await self.read(document, point)
        restoration = await self._elsewhere(restore, current, past.update, client=_new_client(), roots=roots)
        return Plan(past, restoration, await self._effect(current, restoration))

    async def plan_rollback(self, document: str, user: str, since: Point) -> Plan:
        """Make the edit that takes back what a user did since then, as far as it is stored.

        Of what isn't stored yet, nobody could tell whose it is; it is merged with the edit.

        Raises:
            NoSuchPast: Not all that was done since then is kept.
        """
        past = await self.read(document, since)
        head_seq = await self._head_seq(document)
        rows = await self._history.rows(document, after=past.seq, upto=head_seq)
        # Not what is shown by now: people may be writing.
        now = await self._history.at_seq(document, head_seq)
        if not past.exact or not now.exact or len(rows) != head_seq - past.seq:
            raise NoSuchPast(f"not every edit of {document!r} since {since} is kept: take a later moment")
        edits = [(row.update, row.user_id is not None and is_of(row.user_id, user)) for row in rows]
        restoration = await self._elsewhere(
            roll_back, now.update, before=past.update, edits=edits, client=_new_client()
        )
        return Plan(past, restoration, await self._effect(now.update, restoration))

    async def copy(self, document: str, point: Point) -> tuple[Past, bytes]:
        """Read what a document was, and write that as the first edit of another."""
        past = await self.read(document, point)
        return past, await self._elsewhere(as_new, past.update, client=_new_client())

    async def _effect(self, current: bytes, restoration: Restoration) -> list[Change]:
        if restoration.update is None:
            return []
        document = await self._turns.take_large(replaying(None, [current, restoration.update]))
        after = await self._turns.take(document.diffing(b"\x00"))
        changes: list[Change] = await self._elsewhere(_diff, current, after, None)
        return changes

    async def _head_seq(self, document: str) -> int:
        head_seq = (await self._store.heads([document])).get(document)
        if head_seq is None:
            raise NoSuchPast(f"there is no document {document!r}")
        return head_seq


def taking_back(user: str, by: str | None) -> str:
    """Under which name in the log somebody takes back what a user did: a later one must not bring that back twice."""
    return f"{by} taking back {user}" if by is not None else f"taking back {user}"


def is_of(author: str, user: str) -> bool:
    """Whether an author in the log is the user, or somebody who took back what the user did."""
    return author == user or author == f"taking back {user}" or author.endswith(f" taking back {user}")


def _diff(older: bytes, newer: bytes, rows: list[Any] | None) -> list[Change]:
    return diff(older, newer, authors=None if rows is None else Authors(rows))


def _new_client() -> int:
    return random.getrandbits(CLIENT_BITS)
