"""Several processes that serve one port: started together, ended together, and started again when one dies.

They share the listening socket, so a connection that nobody has accepted yet outlives the process that was about to.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

log = logging.getLogger("crdt_sync.workers")

# A worker that dies sooner than this after its start is started again ever later.
STEADY_S = 10.0
RESTART_S_MIN = 0.1
RESTART_S_MAX = 5.0


class Workers:
    """Processes that do the same.

    Args:
        count: How many.
        work: Runs in each, until SIGTERM; returns whether it went well. Importable by name.
        arguments: For `work`; sockets may be among them.
    """

    def __init__(self, count: int, work: Callable[..., bool], arguments: tuple[Any, ...]) -> None:
        self._count = count
        self._work = work
        self._arguments = arguments
        self._context = multiprocessing.get_context("spawn")
        self._ending = False

    def run(self) -> bool:
        """Run them until SIGINT or SIGTERM; returns whether the last of each went well."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._end)
        slots = [_Slot() for _ in range(self._count)]
        while not self._ending or any(slot.process for slot in slots):
            now = time.monotonic()
            for slot in slots:
                self._look_at(slot, now)
            sentinels = [slot.process.sentinel for slot in slots if slot.process]
            wait(sentinels, timeout=RESTART_S_MIN)
        return all(slot.well for slot in slots)

    def _look_at(self, slot: "_Slot", now: float) -> None:
        process = slot.process
        if process is not None and process.exitcode is not None:
            slot.process, slot.well = None, process.exitcode == 0
            if not self._ending:
                slot.delay_s = (
                    RESTART_S_MIN
                    if now - slot.started_at >= STEADY_S
                    else min(RESTART_S_MAX, max(RESTART_S_MIN, slot.delay_s * 2))
                )
                slot.due_at = now + slot.delay_s
                log.error("worker_died", extra={"pid": process.pid, "exit_code": process.exitcode})
        if process is not None and self._ending and not slot.told:
            slot.told = True
            process.terminate()
        if slot.process is None and not self._ending and now >= slot.due_at:
            slot.process = self._context.Process(target=_be_worker, args=(self._work, self._arguments))
            slot.process.start()
            slot.started_at, slot.told = now, False
            log.info("worker_started", extra={"pid": slot.process.pid})

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ending = True


class _Slot:
    """One worker's place."""

    def __init__(self) -> None:
        self.process: BaseProcess | None = None
        self.well = True
        self.told = False
        self.started_at = 0.0
        self.due_at = 0.0
        self.delay_s = 0.0


def _be_worker(work: Callable[..., bool], arguments: tuple[Any, ...]) -> None:
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.exit(0 if work(*arguments) else 1)
