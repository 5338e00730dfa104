"""Several processes that serve one port: started together, ended together, and started again when one dies.

They share the listening socket, so a connection that nobody has accepted yet outlives the process that was about to.

Each has a pipe to the process that started it. By it a worker hears how urgently it should end, and that there is nobody
any more to say so; signals wouldn't do, since terminals and systemd send theirs to all processes at once, and who can't
tell whether that was one signal or two. By it a worker also says that all should end.
"""

import contextlib
import logging
import multiprocessing
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from .urgency import Urgency, urged

log = logging.getLogger("crdt_sync.workers")

# A worker that dies sooner than this after its start is started again ever later.
STEADY_S = 10.0
RESTART_S_MIN = 0.1
RESTART_S_MAX = 5.0
# A worker ends by itself in time. One that can't, since it is stopped, is killed so much later.
KILL_S = 4.0


class Orders:
    """A worker's end of the pipe."""

    def __init__(self, pipe: "Connection[bool, Urgency]") -> None:
        self._pipe = pipe

    def follow(self, obey: Callable[[Urgency], None]) -> None:
        """Call `obey`, in another thread, whenever it gets more urgent to end."""
        threading.Thread(target=self._listen, args=(obey,), name="orders", daemon=True).start()

    def end_all(self) -> None:
        """Have all workers end."""
        with contextlib.suppress(OSError):
            self._pipe.send(True)

    def _listen(self, obey: Callable[[Urgency], None]) -> None:
        while True:
            try:
                urgency = self._pipe.recv()
            except (EOFError, OSError):
                obey(Urgency.DRAIN)
                return
            obey(urgency)


class Workers:
    """Processes that do the same.

    Args:
        count: How many.
        work: Runs in each, until its `Orders`, the last of its arguments, say that it should end; returns whether it went
            well. Importable by name.
        arguments: For `work`; sockets may be among them.
        deadline_s: How long they take to end at most.
    """

    def __init__(self, count: int, work: Callable[..., bool], arguments: tuple[Any, ...], *, deadline_s: float) -> None:
        self._count = count
        self._work = work
        self._arguments = arguments
        self._deadline_s = deadline_s
        self._context = multiprocessing.get_context("spawn")
        self._urgency = Urgency.NONE
        self._kill_at: float | None = None

    def run(self) -> bool:
        """Run them until they should end; returns whether the last of each went well.

        SIGTERM and SIGINT say that they should, and a second and third one that it is urgent.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hear)
        slots = [_Slot() for _ in range(self._count)]
        while not self._urgency or any(slot.process for slot in slots):
            now = time.monotonic()
            if self._urgency and self._kill_at is None:
                self._kill_at = now + self._deadline_s + KILL_S
                self._let_go()
            for slot in slots:
                self._look_at(slot, now)
            living = [slot for slot in slots if slot.process is not None]
            ready = wait([*(slot.sentinel for slot in living), *(slot.pipe for slot in living)], RESTART_S_MIN)
            for slot in living:
                if slot.pipe in ready:
                    self._read(slot)
        return all(slot.well for slot in slots)

    def _look_at(self, slot: "_Slot", now: float) -> None:
        process = slot.process
        if process is not None and process.exitcode is not None:
            self._bury(slot, process, now)
        elif process is not None and self._urgency > slot.told:
            slot.told = self._urgency
            with contextlib.suppress(OSError):
                slot.pipe.send(self._urgency)
        elif process is not None and self._kill_at is not None and now >= self._kill_at:
            log.critical("worker_killed", extra={"pid": process.pid, "why": "it doesn't end"})
            process.kill()
        if slot.process is None and not self._urgency and now >= slot.due_at:
            slot.start(self._context, self._work, self._arguments, now)
            assert slot.process is not None
            log.info("worker_started", extra={"pid": slot.process.pid})

    def _bury(self, slot: "_Slot", process: BaseProcess, now: float) -> None:
        code = process.exitcode
        slot.process, slot.well = None, code == 0
        slot.pipe.close()
        if self._urgency:
            level = logging.INFO if slot.well else logging.ERROR
            log.log(level, "worker_ended", extra={"pid": process.pid, "exit_code": code})
            return
        steady = now - slot.started_at >= STEADY_S
        slot.delay_s = RESTART_S_MIN if steady else min(RESTART_S_MAX, max(RESTART_S_MIN, slot.delay_s * 2))
        slot.due_at = now + slot.delay_s
        log.error("worker_died", extra={"pid": process.pid, "exit_code": code})

    def _read(self, slot: "_Slot") -> None:
        """A worker says that all should end, or nothing any more."""
        try:
            slot.pipe.recv()
        except (EOFError, OSError):
            # Its end is seen by its sentinel; until then, this would be ready all the time.
            time.sleep(RESTART_S_MIN / 10)
            return
        self._urgency = max(self._urgency, Urgency.DRAIN)

    def _let_go(self) -> None:
        """Nobody is started any more: when the last of them has closed the port, it is closed."""
        for one in self._arguments:
            if isinstance(one, socket.socket):
                one.close()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._urgency = urged(self._urgency, number)


class _Slot:
    """One worker's place."""

    def __init__(self) -> None:
        self.process: BaseProcess | None = None
        self.pipe: Connection[Urgency, bool]
        self.well = True
        self.told = Urgency.NONE
        self.started_at = 0.0
        self.due_at = 0.0
        self.delay_s = 0.0

    @property
    def sentinel(self) -> int:
        assert self.process is not None, "it runs"
        return self.process.sentinel

    def start(
        self,
        context: multiprocessing.context.SpawnContext,
        work: Callable[..., bool],
        arguments: tuple[Any, ...],
        now: float,
    ) -> None:
        """Start a worker here."""
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_be_worker, args=(work, arguments, theirs))
        self.process.start()
        theirs.close()
        self.started_at, self.told = now, Urgency.NONE


def _be_worker(work: Callable[..., bool], arguments: tuple[Any, ...], pipe: "Connection[bool, Urgency]") -> None:
    # Whoever sends these to all processes sends them to the one that tells us, too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0 if work(*arguments, Orders(pipe)) else 1)
