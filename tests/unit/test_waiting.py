"""Updates held back: released as soon as what they need is there, in any order, and never too many."""

import itertools

import pytest

from crdt_sync.errors import RoomFull
from crdt_sync.update import Update
from crdt_sync.waiting import ENTRY_BYTES, Waiting


def needing(**clocks: int) -> Update:
    """An update that needs client `c1` at some clock, and so on."""
    needs = {int(client[1:]): clock for client, clock in clocks.items()}
    return Update(ends={}, needs=needs, deletes={}, pairs={}, standins=False)


def released(waiting: Waiting, client: int, clocks: dict[int, int]) -> list[bytes]:
    return list(waiting.release(client, clocks))


def test_an_update_is_released_when_the_clock_it_needs_is_reached() -> None:
    waiting = Waiting(1 << 20)
    waiting.add(b"u", needing(c1=5), {})

    early = released(waiting, 1, {1: 4})
    on_time = released(waiting, 1, {1: 5})

    assert (early, on_time) == ([], [b"u"])
    assert len(waiting) == 0
    assert released(waiting, 1, {1: 5}) == []


def test_an_update_that_needs_several_clients_waits_for_all_of_them_in_any_order() -> None:
    for order in itertools.permutations([1, 2, 3]):
        waiting = Waiting(1 << 20)
        waiting.add(b"u", needing(c1=1, c2=2, c3=3), {})
        clocks: dict[int, int] = {}
        seen = []

        for client in order:
            clocks[client] = client
            seen.append(released(waiting, client, clocks))

        assert seen == [[], [], [b"u"]], order


def test_what_needs_less_is_released_first() -> None:
    waiting = Waiting(1 << 20)
    for clock in (3, 1, 2, 9):
        waiting.add(b"%d" % clock, needing(c1=clock), {})

    assert released(waiting, 1, {1: 5}) == [b"1", b"2", b"3"]
    assert list(waiting) == [b"9"]


def test_clients_that_were_reached_before_are_not_waited_for() -> None:
    waiting = Waiting(1 << 20)
    waiting.add(b"u", needing(c1=1, c2=1), {1: 7})

    assert released(waiting, 2, {1: 7, 2: 1}) == [b"u"]


def test_the_oldest_comes_first() -> None:
    waiting = Waiting(1 << 20)
    for name in (b"x", b"a", b"m"):
        waiting.add(name, needing(c1=9), {})

    assert list(waiting) == [b"x", b"a", b"m"]
    assert b"a" in waiting
    assert b"b" not in waiting


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    waiting = Waiting(2 * ENTRY_BYTES + 10)
    waiting.add(b"a", needing(c1=1), {})

    with pytest.raises(RoomFull):
        waiting.add(b"b" * 11, needing(c1=1), {})

    assert list(waiting) == [b"a"]
    assert released(waiting, 1, {1: 1}) == [b"a"]


def test_what_was_released_makes_room() -> None:
    waiting = Waiting(2 * ENTRY_BYTES)

    for n in range(100):
        waiting.add(b"%d" % n, needing(c1=n + 1), {1: n})
        assert released(waiting, 1, {1: n + 1}) == [b"%d" % n]

    assert len(waiting) == 0


def test_nothing_is_remembered_of_what_was_released() -> None:
    waiting = Waiting(1 << 20)
    waiting.add(b"u", needing(c1=1, c2=1), {})

    released(waiting, 1, {1: 1})
    released(waiting, 2, {1: 1, 2: 1})

    assert not waiting._lacking
