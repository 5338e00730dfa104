"""Telling the application what was stored, for search indexes and webhooks.

Owns when it is told, how often, and what becomes of a call that fails. Nothing that stores or serves waits for it.

Each stored update is told at least once, by the node that stored it, as long as that lives: a call that fails or hangs
is made again, with what has come since. What isn't told when the process dies is told by nobody.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

log = logging.getLogger("crdt_sync.hooks")

# After the first change it is told so soon, with all that came by then: a keystroke is no news, a sentence is.
TELL_AFTER_S = 1.0
# A call that takes longer is given up.
CALL_TIMEOUT_S = 60.0
# When it is tried again: soon, then twice as late each time.
RETRY_S_MIN = 1.0
RETRY_S_MAX = 60.0
# So many calls at once, each for another room.
CALLS_MAX = 8
# What may wait: some 100 MB.
ROOMS_MAX = 100_000
USERS_MAX = 100
# How long the last calls may take, and how often a room is told then: a call may edit, which is one more change.
FINISH_S = 5.0
FINISH_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class StoredChange:
    """What was stored of one room since the last call."""

    room: str
    first_seq: int
    """Of the first update that is new, on this node. With several nodes, others may have stored some in between."""
    seq: int
    """Of the last one."""
    users: frozenset[str | None]
    """Who wrote them; None for whoever isn't known. Of more than 100, some are missing."""


OnStored: TypeAlias = Callable[[StoredChange], Awaitable[object]]


@dataclass(slots=True)
class _Waiting:
    change: StoredChange
    failures: int = 0


class Hook:
    """Calls the application; made and used in one event loop.

    Args:
        on_stored: The application's.
    """

    def __init__(self, on_stored: OnStored) -> None:
        self._on_stored = on_stored
        self._waiting: dict[str, _Waiting] = {}
        # Of the rooms in `_waiting` that aren't due yet.
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(CALLS_MAX)
        self._over = False
        self._full = False

    def committed(self, room: str, first_seq: int, seq: int, user: str | None) -> None:
        """Take note of updates of one user that were stored; called by the journal."""
        self._add(StoredChange(room, first_seq, seq, frozenset({user})), TELL_AFTER_S)

    async def finish(self) -> None:
        """Make the last calls, now, as far as there is time."""
        try:
            async with asyncio.timeout(FINISH_S):
                for _ in range(FINISH_ROUNDS):
                    for room in list(self._timers):
                        self._timers.pop(room).cancel()
                        self._call(room)
                    while self._calls:
                        await asyncio.wait(list(self._calls.values()))
        except TimeoutError:
            pass
        finally:
            self._over = True
            for timer in self._timers.values():
                timer.cancel()
            calls = list(self._calls.values())
            for call in calls:
                call.cancel()
            if calls:
                await asyncio.wait(calls)
        if self._waiting:
            log.error("changes_not_told", extra={"rooms": len(self._waiting)})

    def _add(self, change: StoredChange, after_s: float, failures: int = 0) -> None:
        room = change.room
        waiting = self._waiting.get(room)
        if waiting is None:
            if len(self._waiting) >= ROOMS_MAX:
                self._drop()
            waiting = self._waiting[room] = _Waiting(change)
        else:
            waiting.change = _joined(waiting.change, change)
        waiting.failures = max(waiting.failures, failures)
        # One call at a time for each room; what comes meanwhile is told when it is over.
        if room not in self._timers and room not in self._calls and not self._over:
            self._timers[room] = asyncio.get_running_loop().call_later(after_s, self._due, room)

    def _drop(self) -> None:
        """Give up what has waited longest: for calls that have been failing for long, no doubt."""
        if not self._full:
            self._full = True
            log.error("changes_dropped", extra={"rooms": len(self._waiting)})
        room = next(iter(self._waiting))
        del self._waiting[room]
        timer = self._timers.pop(room, None)
        if timer is not None:
            timer.cancel()

    def _due(self, room: str) -> None:
        del self._timers[room]
        self._call(room)

    def _call(self, room: str) -> None:
        self._calls[room] = call = asyncio.create_task(self._tell(room), name=f"on_stored {room}")
        call.add_done_callback(lambda _: self._called(room))

    async def _tell(self, room: str) -> None:
        async with self._places:
            told = self._waiting.pop(room, None)
            if told is None:
                return
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    await self._on_stored(told.change)
                self._full = False
            except BaseException as error:
                failures = told.failures + 1
                # Before the task ends: what has come meanwhile is joined, and waits as long.
                self._add(told.change, 0.0, failures)
                if not isinstance(error, Exception):
                    raise
                fields = {"room": room, "seq": told.change.seq, "failures": failures, "error": repr(error)}
                log.error("on_stored_failed", extra=fields, exc_info=error if failures == 1 else None)

    def _called(self, room: str) -> None:
        del self._calls[room]
        waiting = self._waiting.get(room)
        if waiting is None or self._over:
            return
        after_s = TELL_AFTER_S
        if waiting.failures:
            after_s = min(RETRY_S_MIN * 2 ** min(waiting.failures - 1, 10), RETRY_S_MAX)
        self._timers[room] = asyncio.get_running_loop().call_later(after_s, self._due, room)


def _joined(one: StoredChange, other: StoredChange) -> StoredChange:
    users = one.users | other.users
    return replace(
        one,
        first_seq=min(one.first_seq, other.first_seq),
        seq=max(one.seq, other.seq),
        users=users if len(users) <= USERS_MAX else max(one.users, other.users, key=len),
    )
