"""Python's garbage collections, kept short.

A full collection walks over every object that could be part of a cycle: with 10,000 connections that takes 1.5 s, in which nothing else
happens, comes every ten seconds where much is edited, and finds nothing. So what one leaves is set aside, and the next walks over
what has come since. What is set aside is let go as usual when nobody refers to it any longer. Only cycles stay; so everything is walked over again once as
many clients have gone as are there.
"""

import gc
from collections.abc import Callable
from typing import Any

# What so many leave behind is some 20 MB at most, while walking over everything takes 50 ms even where nobody is.
LEAST = 10_000
PATIENCE_MAX = 16
# A collection of an older generation comes after so many of the one before. With Python's 10, one of what is new takes up to 150 ms, with these some 30.
AFTER = 2
_OLDEST = 2


class ShortCollections:
    """Sets aside what full collections leave, and says when everything is due.

    Args:
        there: How many clients there are.
        gone: How many have gone since the start.
    """

    def __init__(self, there: Callable[[], int], gone: Callable[[], int]) -> None:
        self._there = there
        self._gone = gone
        self._gone_then = gone()
        self._thresholds = gc.get_threshold()
        self._patience = 1
        self._all = False

    def begin(self) -> None:
        """Set aside what is there, and from now on what full collections leave."""
        gc.freeze()
        gc.set_threshold(self._thresholds[0], AFTER, AFTER)
        gc.callbacks.append(self)

    def end(self) -> None:
        """Leave collections to Python again. What is set aside stays so. Harmless if none was begun."""
        if self in gc.callbacks:
            gc.callbacks.remove(self)
            gc.set_threshold(*self._thresholds)

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        """Is called by Python, before and after each collection, in the thread that met it."""
        if info["generation"] != _OLDEST:
            return
        gone = self._gone() - self._gone_then
        if phase == "start":
            self._all = gone > max(LEAST, self._there()) * self._patience
            if self._all:
                gc.unfreeze()
            return
        if self._all:
            self._gone_then += gone
            # Who leaves nothing behind needn't be cleaned up after.
            self._patience = 1 if info["collected"] > gone else min(2 * self._patience, PATIENCE_MAX)
        gc.freeze()
