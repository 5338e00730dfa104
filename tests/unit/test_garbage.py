"""What is walked over in full collections, and when."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from crdt_sync.garbage import LEAST, PATIENCE_MAX, ShortCollections


class Clients:
    def __init__(self) -> None:
        self.there = 0
        self.gone = 0

    def come_and_go(self, count: int) -> None:
        self.gone += count


class Cycle:
    def __init__(self) -> None:
        self.myself = self


@pytest.fixture
def clients() -> Iterator[Clients]:
    found = Clients()
    collections = ShortCollections(lambda: found.there, lambda: found.gone)
    thresholds = gc.get_threshold()
    gc.disable()
    gc.collect()
    collections.begin()
    yield found
    collections.end()
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    gc.enable()


def is_reached(cycle: "weakref.ref[Cycle]") -> bool:
    gc.collect()
    return cycle() is None


def cycle_set_aside() -> "weakref.ref[Cycle]":
    """One that nobody refers to since it has lived through a full collection."""
    cycle = Cycle()
    gc.collect()
    return weakref.ref(cycle)


def test_what_a_full_collection_leaves_is_not_walked_over_again(clients: Clients) -> None:
    kept = [[] for _ in range(1000)]  # type: ignore[var-annotated]

    gc.collect()

    assert not gc.get_objects(generation=2)
    assert len(kept) == 1000


def test_cycle_that_came_and_went_since_is_collected(clients: Clients) -> None:
    cycle = weakref.ref(Cycle())

    assert is_reached(cycle)


def test_cycle_that_was_set_aside_stays_until_many_clients_have_gone(clients: Clients) -> None:
    cycle = cycle_set_aside()

    clients.come_and_go(LEAST)
    before = is_reached(cycle)
    clients.come_and_go(1)

    assert (before, is_reached(cycle)) == (False, True)


def test_the_more_clients_there_are_the_more_have_to_go(clients: Clients) -> None:
    cycle = cycle_set_aside()
    clients.there = 10_000

    clients.come_and_go(10_000)
    before = is_reached(cycle)
    clients.come_and_go(1)

    assert (before, is_reached(cycle)) == (False, True)


def test_clients_that_leave_nothing_behind_are_cleaned_up_after_less_often(clients: Clients) -> None:
    def needed() -> int:
        cycle = cycle_set_aside()
        for rounds in range(1, 100):
            clients.come_and_go(LEAST + 1)
            if is_reached(cycle):
                return rounds
        raise AssertionError("never")

    assert [needed() for _ in range(6)] == [1, 2, 4, 8, PATIENCE_MAX, PATIENCE_MAX]


def test_clients_that_leave_cycles_behind_are_cleaned_up_after_each_time(clients: Clients) -> None:
    for _ in range(3):
        cycles = [Cycle() for _ in range(3 * LEAST)]
        gc.collect()
        last = weakref.ref(cycles[-1])
        del cycles
        clients.come_and_go(LEAST + 1)

        assert is_reached(last)


def test_at_the_end_collections_are_left_to_python() -> None:
    thresholds = gc.get_threshold()
    collections = ShortCollections(lambda: 0, lambda: 0)

    collections.begin()
    collections.end()

    assert (collections in gc.callbacks, gc.get_threshold()) == (False, thresholds)
    gc.unfreeze()
