"""How many items were put into the very same spot: between the same two neighbours, or first into the same list.

Whoever knows an item that is there names it as a neighbour, so spots fill up only with what people do who don't know
of each other. To place one more item, yrs and Yjs walk over all that are there.
"""

from array import array

CROWD_MAX = 2048
"""How many items one spot may take. To place one more takes pycrdt 0.4 ms then, and loading all of them 0.05 s, ten times as
many 15 s. Histories written by real people, and by the generator of the property tests, have a few."""

_FIRST_BUCKETS = 64
# How many items share a bucket on average: far below the bound, so that a spot is never taken for another one.
_SHARE = 256


class Crowd:
    """Counts by spot, each a little too high at most. Two bytes for each 256 items.

    A sketch: spots are hashed into buckets, four times as many whenever the last ones are used up.
    """

    __slots__ = ("_levels", "_room", "total")

    def __init__(self) -> None:
        self._levels: list[array[int]] = []
        self._room = 0
        self.total = 0

    def add(self, spot: int) -> None:
        """Count an item; `spot` is a hash."""
        if not self._room:
            buckets = 4 * len(self._levels[-1]) if self._levels else _FIRST_BUCKETS
            self._levels.append(array("H", bytes(2 * buckets)))
            self._room = buckets * _SHARE
        self._room -= 1
        self.total += 1
        last = self._levels[-1]
        bucket = spot & len(last) - 1
        if last[bucket] < 0xFFFF:
            last[bucket] += 1

    def count(self, spot: int) -> int:
        """How many items are there, roughly: never too few."""
        total = 0
        for level in self._levels:
            total += level[spot & len(level) - 1]
        return total
