"""Checking documents in a process of its own: damaged bytes may be what native code crashes of."""

import multiprocessing
import signal
from collections.abc import Collection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from persistence import Export

from .verifying import Checked, Finding, check


class Apart:
    """Calls `check` elsewhere. The process is made when it is needed, and anew after a crash; `close` ends it."""

    def __init__(self) -> None:
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
            code = self._process.exitcode
            self.close()
            text = f"a process that loads the document ends with exit code {code}"
            return Checked(export.document, problems=(Finding("crashes", text),))
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

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        pipe, other = context.Pipe()
        process = context.Process(target=_serve, args=(other,), daemon=True)
        # Ctrl-C waits until there is a whole process, and is nothing that this one hears of.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
            self._process, self._pipe = process, pipe
            # Nobody else has it then, so that the end of one of both is seen by the other.
            other.close()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection) -> None:
    while True:
        try:
            export, harmful = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(check(export, harmful))
        except OSError:
            return
        except Exception as error:
            pipe.send(error)
