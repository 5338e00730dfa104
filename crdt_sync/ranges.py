"""Sets of clocks kept as sorted, disjoint ranges: what is deleted, by client."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Ranges:
    """A set of integers, `0 <= n < 2**64`, that costs 16 bytes a range.

    Ranges are half open. Touching ranges are joined, so a client's deletes that grew one by one stay one range.
    """

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts = array("Q")
        self._ends = array("Q")

    def add(self, start: int, end: int) -> None:
        """Add `start <= n < end`; `start < end`."""
        starts, ends = self._starts, self._ends
        if not starts or start > ends[-1]:
            starts.append(start)
            ends.append(end)
            return
        # All ranges from `low` up to `high` touch or overlap the new one and become part of it.
        low = bisect_left(ends, start)
        high = bisect_right(starts, end)
        if low < high:
            start = min(start, starts[low])
            end = max(end, ends[high - 1])
        starts[low:high] = array("Q", (start,))
        ends[low:high] = array("Q", (end,))

    def covers(self, start: int, end: int) -> bool:
        """Whether every `n` with `start <= n < end` is in the set."""
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and self._ends[index] >= end

    def copy(self) -> "Ranges":
        """Return a set of its own with the same elements."""
        other = Ranges()
        other._starts, other._ends = self._starts[:], self._ends[:]
        return other

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        return len(self._starts)
