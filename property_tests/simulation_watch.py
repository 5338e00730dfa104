"""Watching nodes in the simulation: which rare things happened inside, and what was logged that shouldn't be.

Nothing here changes what a node does. A run that never had a rare event proves nothing about it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self
from unittest.mock import patch

from crdt_sync.envelope import Envelope
from crdt_sync.follow import ADOPT_S, Follower
from crdt_sync.room import Room
from persistence import Stored
from tests.support.fakes import document_of

from .simulation_world import OWNER

log = logging.getLogger("crdt_sync")

# What the simulation's faults make a node say, of all that is worth a warning or more.
EXPECTED = {
    *("store_failing", "store_recovered", "checkpoints_failing", "checkpoints_recovered"),
    *("room_load_failed", "room_stays_behind", "node_lost", "recovery_failed"),
}


class Watch(logging.Handler):
    """Counts rare events and collects complaints, inside a `with` block.

    Args:
        seen: Where to count.
        trace: Takes a line for each record that is logged.

    Attributes:
        complaints: Warnings and errors that nobody made on purpose.
    """

    def __init__(self, seen: Counter[str], trace: Callable[[str], None] | None = None) -> None:
        super().__init__()
        self.complaints: list[str] = []
        self._seen, self._trace = seen, trace
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.callback(log.setLevel, log.level)
        log.setLevel(logging.INFO)
        self._stack.enter_context(patch.object(log, "propagate", False))
        self._stack.enter_context(patch.object(log, "handlers", [self]))
        for owner, name, watcher in WATCHERS:
            original = getattr(owner, name)
            self._stack.enter_context(patch.object(owner, name, watcher(self._seen, original)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        self._seen[f"logged {record.msg}"] += 1
        unexpected = record.levelno >= logging.WARNING and record.msg not in EXPECTED
        # An error that carries a traceback is a bug, also where one without is expected.
        if unexpected or record.exc_info:
            self.complaints.append(self.format(record) + f" {getattr(record, 'error', '')}")
        if self._trace is not None:
            self._trace(f"    {OWNER.get()} {record.levelname} {record.msg} {getattr(record, 'room', '')}")


def _lacks(follower: Follower) -> bool:
    return any(source.lacks for source in follower._sources.values())


def _on_read_log(seen: Counter[str], original: Any) -> Any:
    async def read_log(self: Follower) -> None:
        lacked = _lacks(self)
        await original(self)
        seen["gap filled from the log"] += lacked and not _lacks(self)

    return read_log


def _on_take_answer(seen: Counter[str], original: Any) -> Any:
    def take_answer(self: Follower, room: Room, envelope: Envelope) -> None:
        lacked = _lacks(self)
        original(self, room, envelope)
        seen["gap filled by an answer"] += lacked and not _lacks(self)

    return take_answer


def _on_adopt(seen: Counter[str], original: Any) -> Any:
    def adopt(self: Follower, key: bytes) -> None:
        unstored = self._sources[key].unstored
        if unstored:
            waited_s = asyncio.get_running_loop().time() - unstored[0][2]
            seen["adopted after a timeout" if waited_s >= ADOPT_S else "adopted after a death"] += 1
        original(self, key)

    return adopt


def _on_start(seen: Counter[str], original: Any) -> Any:
    def start(self: Follower, room: Room, kept: Any) -> None:
        seen["early messages during a load"] += bool(self._early)
        original(self, room, kept)

    return start


def _on_resync(seen: Counter[str], original: Any) -> Any:
    def resync(self: Follower) -> None:
        seen["resync"] += 1
        original(self)

    return resync


def _on_when_stored(seen: Counter[str], original: Any) -> Any:
    def when_stored(self: Room, then: Callable[[], None]) -> None:
        waiters = getattr(self.others, "_waiters", [])
        before = len(waiters)
        original(self, then)
        if len(waiters) > before:
            is_snapshot = isinstance(getattr(then, "__self__", None), asyncio.Event)
            seen[f"a {'snapshot' if is_snapshot else 'confirmation'} had to wait for another node"] += 1

    return when_stored


def _on_captured(seen: Counter[str], original: Any) -> Any:
    def captured(self: Room, *, written: bool) -> None:
        seen["capture not whole"] += self._capture is not None and not self._capture.whole
        original(self, written=written)

    return captured


def _on_take_in(seen: Counter[str], original: Any) -> Any:
    async def take_in(self: Room, stored: Stored) -> None:
        why = "in doubt" if self._in_doubt else "behind"
        had = document_of(self).state_vector()
        await original(self, stored)
        seen[f"room read from the store because {why}"] += 1
        seen["room found something new in the store"] += document_of(self).state_vector() != had

    return take_in


WATCHERS: list[tuple[type, str, Callable[[Counter[str], Any], Any]]] = [
    (Follower, "_read_log", _on_read_log),
    (Follower, "_take_answer", _on_take_answer),
    (Follower, "_adopt", _on_adopt),
    (Follower, "start", _on_start),
    (Follower, "resync", _on_resync),
    (Room, "when_stored", _on_when_stored),
    (Room, "captured", _on_captured),
    (Room, "take_in", _on_take_in),
]
