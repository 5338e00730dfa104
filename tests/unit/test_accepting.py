"""Who is let in next."""

import asyncio
import time
from typing import Any

from crdt_sync.accepting import SLICE_MAX, TURN_S, UPGRADES_PER_S_MIN, Entrance, Slices, Turns
from crdt_sync.limits import Limits
from crdt_sync.settings import Settings
from tests.support.fakes import in_virtual_time


def test_keys_take_turns_and_each_keeps_its_order() -> None:
    turns: Turns[str] = Turns()
    for key, item in [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("b", "b2")]:
        turns.add(key, item)

    taken = [turns.take() for _ in range(len(turns))]

    assert taken == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert len(turns) == 0


def test_who_comes_while_others_wait_has_its_turn_after_one_of_each() -> None:
    turns: Turns[str] = Turns()
    for n in range(1000):
        turns.add("crowd", f"crowd-{n}")
    turns.take()
    turns.add("one", "one")

    assert [turns.take(), turns.take()] == ["crowd-1", "one"]


def test_nothing_is_kept_of_a_key_that_has_nothing_left() -> None:
    turns: Turns[int] = Turns()
    for n in range(100):
        turns.add(str(n), n)
        turns.take()

    assert turns._of_key == {}


def test_of_too_many_the_last_of_the_longest_queue_gives_up() -> None:
    turns: Turns[str] = Turns()
    for key, item in [("crowd", "c1"), ("crowd", "c2"), ("one", "o1"), ("crowd", "c3"), ("other", "p1")]:
        turns.add(key, item)

    assert [turns.give_up(), turns.give_up()] == ["c3", "c2"]
    assert [turns.take() for _ in range(len(turns))] == ["c1", "o1", "p1"]


class Waiter:
    """Stands for an `HttpProtocol`, and for its transport."""

    def __init__(self, address: str, *, broken: bool = False, gone: bool = False, takes_s: float = 0) -> None:
        self.client = (address, 1)
        self.transport = self
        self.became = ""
        self._broken = broken
        self._gone = gone
        self._takes_s = takes_s

    def is_closing(self) -> bool:
        return self._gone

    def become_websocket(self) -> None:
        if self._broken:
            raise RuntimeError
        if self._takes_s:
            time.sleep(self._takes_s)
        self.became = f"{asyncio.get_running_loop().time():.1f}"

    def abort(self) -> None:
        self.became = "aborted"

    def refuse(self) -> None:
        self.became = "refused"


def wait(entrance: Entrance, *waiters: Any) -> None:
    for waiter in waiters:
        entrance.upgrade(waiter, [])


@in_virtual_time
async def test_upgrades_go_at_the_rate_and_who_has_gone_costs_no_turn() -> None:
    entrance = Entrance(Limits(Settings(upgrades_per_s_max=1)))
    first, second, gone, third = Waiter("a"), Waiter("b"), Waiter("c", gone=True), Waiter("d")
    start = asyncio.get_running_loop().time()

    wait(entrance, first, second, gone, third)
    await asyncio.sleep(5)

    assert [float(each.became) - start for each in (first, second, third)] == [0, 0, 1]
    assert gone.became == ""


@in_virtual_time
async def test_one_that_fails_holds_up_nobody() -> None:
    entrance = Entrance(Limits(Settings(upgrades_per_s_max=1)))
    broken, others = Waiter("a", broken=True), [Waiter("b"), Waiter("c"), Waiter("d")]

    wait(entrance, broken, *others)
    await asyncio.sleep(5)

    assert broken.became == "aborted"
    assert all(float(each.became) >= 0 for each in others)


def test_as_long_as_turns_are_short_more_are_let_in_in_each() -> None:
    slices = Slices()

    sizes = [slices.next(TURN_S / 2) for _ in range(2 * SLICE_MAX)]

    assert sizes == sorted(sizes)
    assert (sizes[1] - sizes[0], sizes[-1]) == (1, SLICE_MAX)


def test_after_long_turns_few_are_let_in_but_never_none() -> None:
    slices = Slices()
    most = max(slices.next(0) for _ in range(SLICE_MAX))

    assert [slices.next(1.1 * TURN_S) for _ in range(7)] == [most // 2, most // 4, most // 8, most // 16, 1, 1, 1]


def test_who_wants_in_has_a_share_however_long_turns_are() -> None:
    slices = Slices()
    for _ in range(SLICE_MAX):
        slices.next(1)

    assert slices.next(0.5) == UPGRADES_PER_S_MIN / 2


async def test_while_many_are_let_in_others_have_their_turns() -> None:
    entrance = Entrance(Limits(Settings()))
    waiters = [Waiter(str(n), takes_s=TURN_S / 5) for n in range(50)]
    in_turns = []

    wait(entrance, *waiters)
    while not all(each.became for each in waiters):
        in_turns.append(sum(bool(each.became) for each in waiters) - sum(in_turns))
        await asyncio.sleep(0)

    assert 1 < max(in_turns) < 8


@in_virtual_time
async def test_those_that_come_in_one_turn_go_in_it_and_the_rest_in_later_ones() -> None:
    entrance = Entrance(Limits(Settings()))
    wait(entrance, Waiter("before"))
    await asyncio.sleep(1)
    waiters = [Waiter(str(n)) for n in range(2 * SLICE_MAX)]

    wait(entrance, *waiters)
    at_once = sum(bool(each.became) for each in waiters)
    await asyncio.sleep(1)

    assert 1 < at_once < SLICE_MAX
    assert all(each.became for each in waiters)
