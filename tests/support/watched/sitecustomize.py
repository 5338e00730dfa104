"""Imported by a Python that has this folder in its path: notes what holds up an event loop.

All by the thread's CPU time, since on a busy machine anything may take long by the clock. A line for each callback (a step of
a task is one) that took more than 50 ms. At the end, a line that says how long the turns of the loop were in which it
spent all but a twentieth of its time: what somebody else's message waits for.
"""

import asyncio
import atexit
import os
import time
from asyncio.base_events import BaseEventLoop
from asyncio.events import Handle
from collections import Counter

STALL_S = 0.05

_path = os.environ.get("WATCHED_STALLS", "")
_run = Handle._run
_turn = BaseEventLoop._run_once  # type: ignore[attr-defined]
_turns: Counter[int] = Counter()  # milliseconds to how many


def _watched_run(handle: Handle) -> None:
    started = time.thread_time()
    _run(handle)
    took = time.thread_time() - started
    if took > STALL_S:
        with open(_path, "a") as file:
            print(f"{took * 1000:.0f} ms: {handle!r}"[:300].replace("\n", " "), file=file)


def _watched_turn(loop: BaseEventLoop) -> None:
    started = time.thread_time()
    _turn(loop)
    _turns[round((time.thread_time() - started) * 1000)] += 1


def _report() -> None:
    left = sum(length * count for length, count in _turns.items()) / 20
    for length in sorted(_turns, reverse=True):
        left -= length * _turns[length]
        if left <= 0:
            with open(_path + ".turns", "w") as file:
                file.write(f"{length}")
            return


if _path:
    assert asyncio.Handle is Handle
    Handle._run = _watched_run  # type: ignore[method-assign, assignment]
    BaseEventLoop._run_once = _watched_turn  # type: ignore[attr-defined]
    atexit.register(_report)
