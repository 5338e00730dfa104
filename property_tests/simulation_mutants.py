"""Plausible mistakes, planted to see whether the simulation notices.

Each is a node that mostly works: everybody gets everything as long as nothing goes wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from crdt_sync.follow import Follower, _Source
from crdt_sync.journal import Journal
from crdt_sync.room import Capture, Room
from crdt_sync.rooms import Rooms
from persistence import Snapshot
from persistence.memory import MemoryStore


def _confirm_before_commit(self: Journal, ticket: int, then: Callable[[], None]) -> None:
    then()


def _confirm_before_others_commit(self: Follower, then: Callable[[], None]) -> None:
    then()


def _no_gap_check(self: Follower, source: _Source, number: int) -> None:
    source.published = max(source.published, number)


def _no_adoption(self: Follower, key: bytes) -> None:
    self._sources[key].unstored.clear()
    self._wake()


_capture, _note_stored, _checkpoint = Room.capture, Room.note_stored, MemoryStore.checkpoint


def _fold_over_a_gap(self: Room, first: int, last: int) -> None:
    self._known_seq = max(self._known_seq, last)
    _note_stored(self, first, last)


async def _count_a_row_too_many(self: Room) -> Capture | None:
    capture = await _capture(self)
    # Only if there is such a row: the store refuses a snapshot that is ahead of its log.
    if capture is not None and capture.seq < self.stored_seq:
        capture.seq += 1
    return capture


async def _compare_with_nothing(self: Rooms) -> None:
    await asyncio.Event().wait()


async def _forget_a_row(
    self: MemoryStore, snapshots: Sequence[Snapshot], *, keep_history: bool = True
) -> frozenset[str]:
    one_more = [replace(one, seq=min(one.seq + 1, self._logs[one.document].head_seq)) for one in snapshots]
    return await _checkpoint(self, one_more, keep_history=keep_history)


async def _snapshot_without_waiting(self: Room) -> Capture | None:
    capture = await _capture(self)
    if capture is not None:
        capture.stored.set()
    return capture


MUTANTS: dict[str, tuple[type, str, Any]] = {
    "a confirmation doesn't wait for the commit": (Journal, "when_stored", _confirm_before_commit),
    "a confirmation doesn't wait for other nodes": (Follower, "when_stored", _confirm_before_others_commit),
    "nobody notices gaps": (Follower, "_note_published", _no_gap_check),
    "nobody stores what a lost node left": (Follower, "_adopt", _no_adoption),
    "a snapshot covers rows that it lacks": (Room, "note_stored", _fold_over_a_gap),
    "a snapshot counts a row too many": (Room, "capture", _count_a_row_too_many),
    "a checkpoint forgets a row": (MemoryStore, "checkpoint", _forget_a_row),
    "a snapshot doesn't wait for what is in it": (Room, "capture", _snapshot_without_waiting),
}
"""What is wrong, and where, and with what instead."""


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Make that mistake inside the `with` block."""
    owner, attribute, instead = MUTANTS[name]
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(owner, attribute, instead))
        if instead is _no_gap_check:
            # Which makes up for it, some seconds later.
            stack.enter_context(patch.object(Rooms, "_compare_with_store_forever", _compare_with_nothing))
        yield
