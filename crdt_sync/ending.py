"""The end of a process that runs a node: it comes in time, whatever hangs, and says what isn't stored.

A store whose thread is stuck would keep the interpreter waiting for that thread, native code that doesn't return would
keep the event loop; so a thread watches that nothing does, and a timer of the interpreter's that needs no lock watches
the thread.
"""

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable

log = logging.getLogger("crdt_sync.ending")

# After the deadline, so long for a thread that may have to wait for the interpreter's lock.
LAST_RESORT_S = 2.0


class Ending:
    """Sees to it that this process ends.

    Args:
        deadline_s: How long after `arm`.
        report: Says what isn't stored, and returns whether everything is. Called from another thread.
    """

    def __init__(self, deadline_s: float, report: Callable[[], bool]) -> None:
        self._deadline_s = deadline_s
        self._report = report
        self._armed = False

    def arm(self) -> None:
        """Have the process end by the deadline. The first call counts."""
        if not self._armed:
            self._armed = True
            faulthandler.dump_traceback_later(self._deadline_s + LAST_RESORT_S, exit=True)
            threading.Thread(target=self._watch, name="deadline", daemon=True).start()

    def now(self, why: str) -> None:
        """End it at once: with exit code 0 if everything is stored, else with 1."""
        stored = False
        try:
            stored = self._report()
            log.warning("ended_early", extra={"why": why, "stored": stored})
        finally:
            os._exit(0 if stored else 1)

    def _watch(self) -> None:
        time.sleep(self._deadline_s)
        self.now("deadline")
