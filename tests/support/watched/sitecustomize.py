"""Imported by a Python that has this folder in its path: notes what holds up an event loop.

All by the thread's CPU time, since on a busy machine anything may take long by the clock. A line for each callback (a step of
a task is one) that took more than 50 ms once somebody is served (before, what was loaded is frozen), with how much of it was
the garbage collector's, and where it was when half of that had passed, or as soon afterwards as native code let go. A line, too,
for each time that the garbage collector took as long in another thread: nothing else runs meanwhile. At the end, one that
says how long the turns of the loop were in which it spent all but a twentieth of its time: what somebody else's message waits for.
"""

import asyncio
import atexit
import gc
import os
import sys
import threading
import time
from asyncio.base_events import BaseEventLoop
from asyncio.events import Handle
from collections import Counter

STALL_S = 0.05
SAMPLE_S = 0.005

_path = os.environ.get("WATCHED_STALLS", "")
_run = Handle._run
_turn = BaseEventLoop._run_once  # type: ignore[attr-defined]
_turns: Counter[int] = Counter()  # milliseconds to how many


_collecting_since = _collected = 0.0
# When the callback that runs began, by the clock; and where it was found when it took long.
_began: float | None = None
_places: list[str] = []
_serving = False
_gc_freeze = gc.freeze


def _watched_run(handle: Handle) -> None:
    global _began, _collected
    serving = _serving
    started = time.thread_time()
    _collected = 0.0
    _began = time.monotonic()
    _run(handle)
    _began = None
    took = time.thread_time() - started
    if took > STALL_S and serving:
        with open(_path, "a") as file:
            line = f"{took * 1000:.0f} ms, {_collected * 1000:.0f} of them collecting garbage: {handle!r}"
            print(f"{line[:300]} at {_places}".replace("\n", " "), file=file)
    _places.clear()


def _freeze() -> None:
    global _serving
    _gc_freeze()
    _serving = True


def _on_garbage(phase: str, info: dict[str, int]) -> None:
    global _collecting_since, _collected
    if phase == "start":
        _collecting_since = time.thread_time()
    else:
        took = time.thread_time() - _collecting_since
        _collected += took
        if took > STALL_S and _serving and threading.current_thread() is not threading.main_thread():
            with open(_path, "a") as file:
                print(f"{took * 1000:.0f} ms collecting garbage in another thread", file=file)


def _look() -> None:
    """Look now and then where a callback is that takes long."""
    loop_thread = threading.main_thread().ident
    while True:
        time.sleep(SAMPLE_S)
        began = _began
        if began is not None and time.monotonic() - began > STALL_S / 2 and len(_places) < 20:
            frame = sys._current_frames().get(loop_thread or 0)
            where: list[str] = []
            while frame is not None and len(where) < 6:
                where.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
                frame = frame.f_back
            _places.append(" < ".join(where))


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
    gc.freeze = _freeze
    gc.callbacks.append(_on_garbage)
    threading.Thread(target=_look, daemon=True).start()
    Handle._run = _watched_run  # type: ignore[method-assign, assignment]
    BaseEventLoop._run_once = _watched_turn  # type: ignore[attr-defined]
    atexit.register(_report)
