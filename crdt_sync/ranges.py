"""Sets of clocks kept as sorted, disjoint ranges: what is deleted, by client."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import overload


class Spans(Sequence[tuple[int, int]]):
    """Half-open ranges as they were appended, at 8 bytes each; `0 <= n < 2**32`."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts = array("I")
        self._ends = array("I")

    def append(self, span: tuple[int, int]) -> None:
        """Add one at the end."""
        self._starts.append(span[0])
        self._ends.append(span[1])

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        if isinstance(index, slice):
            return list(zip(self._starts[index], self._ends[index], strict=True))
        return self._starts[index], self._ends[index]


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

    def gaps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The ranges of `start <= n < end` that are not in the set."""
        index = bisect_right(self._ends, start)
        while start < end:
            if index == len(self._starts) or self._starts[index] >= end:
                yield start, end
                return
            if start < self._starts[index]:
                yield start, self._starts[index]
            start = self._ends[index]
            index += 1

    def packed(self) -> bytes:
        """The same bytes for equal sets."""
        return self._starts.tobytes() + self._ends.tobytes()

    def copy(self) -> "Ranges":
        """Return a set of its own with the same elements."""
        other = Ranges()
        other._starts, other._ends = self._starts[:], self._ends[:]
        return other

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        return len(self._starts)


def covers(spans: Sequence[tuple[int, int]], start: int, end: int) -> bool:
    """Whether one of these ranges, which are disjoint and ascending, holds every `n` with `start <= n < end`."""
    index = bisect_right(spans, start, key=itemgetter(0)) - 1
    return index >= 0 and spans[index][1] >= end
