"""Who is let in next."""

import asyncio
from typing import Any

from crdt_sync.accepting import Entrance, Turns
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

    def __init__(self, address: str, *, broken: bool = False, gone: bool = False) -> None:
        self.client = (address, 1)
        self.transport = self
        self.became = ""
        self._broken = broken
        self._gone = gone

    def is_closing(self) -> bool:
        return self._gone

    def become_websocket(self) -> None:
        if self._broken:
            raise RuntimeError
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
