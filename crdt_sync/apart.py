"""Checking documents in a process of its own: damaged bytes may be what native code crashes of."""

import multiprocessing
import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from persistence import Export

from .verifying import Checked, Finding, check


class Apart:
    """Calls `check` elsewhere. The process is made when it is needed, and anew after a crash; `close` ends it.

    Args:
        limit_s: What takes longer is as bad as a crash.
    """

    def __init__(self, *, limit_s: int) -> None:
        self._limit_s = limit_s
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def check(self, export: Export, harmful: Collection[bytes]) -> Checked:
        """See `verifying.check`. A crash is a problem of the document."""
        if self._pipe is None:
            self._start()
        assert self._process is not None
        assert self._pipe is not None
        try:
            self._pipe.send((export, harmful))
            found = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            why = self._end_of(self._process.exitcode or 0)
            self.close()
            return Checked(export.document, problems=(Finding("crashes", f"a process that loads the document {why}"),))
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, Checked)
        return found

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._pipe is not None and self._process is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
        self._pipe = self._process = None

    def _end_of(self, code: int) -> str:
        if code == -signal.SIGALRM:
            return f"takes longer than {self._limit_s} s"
        return f"ends with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        pipe, other = context.Pipe()
        process = context.Process(target=_serve, args=(other, self._limit_s), daemon=True)
        with _uninterrupted():
            process.start()
            self._process, self._pipe = process, pipe
            # Nobody else has it then, so that the end of one of both is seen by the other.
            other.close()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Have Ctrl-C wait, and processes that are started never hear of it.

    A signal that this thread blocks may go to another one, and still interrupts the main thread: hence the handler.
    """
    came: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number)) if is_main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if is_main:
            signal.signal(signal.SIGINT, handler)
    if came:
        raise KeyboardInterrupt


def _serve(pipe: Connection, limit_s: int) -> None:
    while True:
        try:
            export, harmful = pipe.recv()
        except EOFError:
            return
        # Ends native code too.
        signal.alarm(limit_s)
        try:
            checked = check(export, harmful)
            signal.alarm(0)
            pipe.send(checked)
        except OSError:
            return
        except Exception as error:
            pipe.send(error)
