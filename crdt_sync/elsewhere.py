"""Long work that shares nothing, in a process of its own.

In a thread, Python's work would leave others their turns, but not its garbage: a collection of all that a large document is
made of takes hundreds of milliseconds, in which nothing else runs.
"""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from functools import partial

# Imported at first use otherwise, which holds up the event loop for as long as it takes to compile them.
from multiprocessing import popen_spawn_posix, resource_tracker, synchronize  # noqa: F401
from typing import TypeVar

T = TypeVar("T")

# Shared types are nested 200 deep at most, values inside of them about as deep; each level takes some calls to be copied.
RECURSION_MAX = 5000


class ProcessLost(Exception):
    """The process ended in the middle of the work: out of memory, or native code crashed."""


class Elsewhere:
    """One process, made when it is needed, and anew after a crash; `close` ends it. It ends with this one, even if that is killed."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    async def run(self, work: Callable[..., T], *args: object, **options: object) -> T:
        """Call a function of some module there, one after the other. Whatever goes in and comes out is copied.

        Raises:
            ProcessLost: It isn't known what comes out.
        """
        pool = self._pool
        if pool is None:
            context = multiprocessing.get_context("spawn")
            pool = self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_follow_parent)
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, partial(work, *args, **options))
        except BrokenExecutor as error:
            if self._pool is pool:
                self.close()
            raise ProcessLost(f"the process for it ended: {error}") from error

    def pids(self) -> list[int]:
        """The process, if there is one."""
        return list(self._pool._processes or ()) if self._pool is not None else []

    def close(self) -> None:
        """End the process, whatever it is doing."""
        pool, self._pool = self._pool, None
        if pool is not None:
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            # Or this process would wait for it at its end.
            for process in processes:
                process.kill()


def _follow_parent() -> None:
    """There: leave Ctrl-C to the server, and don't outlive it even if it is killed."""
    # What is deeply nested is told deeply nested.
    sys.setrecursionlimit(RECURSION_MAX)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        with contextlib.suppress(Exception):
            parent.join()  # type: ignore[union-attr]
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
