"""Sets of clocks, against Python's own sets."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.ranges import Ranges


def filled(*ranges: tuple[int, int]) -> Ranges:
    made = Ranges()
    for start, end in ranges:
        made.add(start, end)
    return made


@pytest.mark.parametrize(
    ("added", "kept"),
    [
        ([(0, 1), (5, 9)], [(0, 1), (5, 9)]),
        ([(5, 9), (0, 1)], [(0, 1), (5, 9)]),
        ([(0, 5), (5, 9)], [(0, 9)]),
        ([(5, 9), (0, 5)], [(0, 9)]),
        ([(0, 9), (2, 3)], [(0, 9)]),
        ([(2, 3), (0, 9)], [(0, 9)]),
        ([(0, 2), (4, 6), (8, 10), (1, 9)], [(0, 10)]),
        ([(0, 2), (4, 6), (8, 10), (2, 4)], [(0, 6), (8, 10)]),
        ([(0, 2), (4, 6), (8, 10), (7, 7 + 1)], [(0, 2), (4, 6), (7, 10)]),
        ([(2**63, 2**63 + 5)], [(2**63, 2**63 + 5)]),
    ],
)
def test_touching_ranges_are_joined(added: list[tuple[int, int]], kept: list[tuple[int, int]]) -> None:
    assert list(filled(*added)) == kept
    assert len(filled(*added)) == len(kept)


def test_nothing_is_covered_by_an_empty_set() -> None:
    assert not Ranges().covers(0, 1)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=30), st.integers(0, 70), st.integers(1, 9))
def test_it_covers_what_a_set_of_its_numbers_holds(added: list[tuple[int, int]], start: int, length: int) -> None:
    ranges = filled(*((first, first + count) for first, count in added))
    numbers = {n for first, count in added for n in range(first, first + count)}

    assert ranges.covers(start, start + length) == (numbers >= set(range(start, start + length)))
    assert {n for first, end in ranges for n in range(first, end)} == numbers
    assert [n for gap in ranges.gaps(start, start + length) for n in range(*gap)] == [
        n for n in range(start, start + length) if n not in numbers
    ]
    gaps = [(end, following) for (_, end), (following, _) in zip(list(ranges), list(ranges)[1:], strict=False)]
    assert all(end < following for end, following in gaps), "ascending, not touching"


def test_deletes_that_grow_one_by_one_stay_one_range() -> None:
    order = list(range(2000))
    random.Random(1).shuffle(order)

    assert list(filled(*((n, n + 1) for n in order))) == [(0, 2000)]
