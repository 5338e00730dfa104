"""What every bus promises. Runs against each entry of `BUSES`."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from crdt_sync.bus import EVERYONE, Bus, BusUnavailable

from .buses import BUSES, Ear, MakeBus

NAMES = ["trip-1", "größer {1} 🎒", "{}", "}{", "*", "@", "a:b/c d%20", "'\"\\\n\r", "é" * 127 + "x", "{" * 255]


@pytest.fixture(params=BUSES)
def make_bus(request: pytest.FixtureRequest) -> MakeBus:
    """Makes a bus, not open yet, each time a new node on the same medium."""
    return BUSES[request.param](request)


@pytest.fixture
async def here(make_bus: MakeBus) -> AsyncIterator[Bus]:
    bus = make_bus()
    await bus.open()
    yield bus
    await bus.close()


@pytest.fixture
async def there(make_bus: MakeBus) -> AsyncIterator[Bus]:
    bus = make_bus()
    await bus.open()
    yield bus
    await bus.close()


async def listen(bus: Bus, room: str) -> Ear:
    ear = Ear()
    bus.follow(room, ear)
    await bus.followed(room)
    return ear


async def tail(bus: Bus, room: str, *, least: int, after: str | None = None) -> list[bytes]:
    """The messages in a log, once there are so many."""
    async with asyncio.timeout(10):
        while len(kept := await bus.tail(room, after)) < least:
            await asyncio.sleep(0.005)
    return [one.message for one in kept]


async def marked(bus: Bus, *expected: tuple[str, str]) -> None:
    """Return once these are the rooms and nodes that are marked."""
    async with asyncio.timeout(10):
        while sorted((mark.room, mark.node) for mark in await bus.marks()) != sorted(expected):
            await asyncio.sleep(0.005)


def test_nodes_have_ids_of_their_own(make_bus: MakeBus) -> None:
    nodes = {make_bus().node, make_bus().node}

    assert len(nodes) == 2
    assert all(len(bytes.fromhex(node)) == 8 for node in nodes)


async def test_message_arrives_where_its_room_is_followed_and_nowhere_else(here: Bus, there: Bus) -> None:
    ear, other = await listen(there, "trip-1"), await listen(there, "trip-2")

    here.publish("trip-1", b"for 1", keep=False)
    here.publish("trip-2", b"for 2", keep=False)
    here.publish("trip-3", b"for 3", keep=False)

    await ear.heard(b"for 1")
    await other.heard(b"for 2")


async def test_own_messages_arrive_too(here: Bus) -> None:
    ear = await listen(here, "trip-1")

    here.publish("trip-1", b"mine", keep=True)

    await ear.heard(b"mine")


async def test_messages_of_one_node_arrive_in_order(here: Bus, there: Bus) -> None:
    ear = await listen(there, "trip-1")
    messages = [b"%d" % n for n in range(3000)]

    for n, message in enumerate(messages):
        here.publish("trip-1", message, keep=n % 3 == 0)
        if n % 100 == 0:
            await asyncio.sleep(0)

    await ear.heard(*messages)


async def test_messages_arrive_in_a_later_turn(here: Bus) -> None:
    ear = await listen(here, "trip-1")

    here.publish("trip-1", b"mine", keep=False)

    assert ear.messages == []
    await ear.heard(b"mine")


async def test_everyone_hears_what_is_for_everyone(here: Bus, there: Bus) -> None:
    ears = await listen(here, EVERYONE), await listen(there, EVERYONE)
    room = await listen(there, "trip-1")

    here.publish(EVERYONE, b"hello", keep=False)
    here.publish("trip-1", b"not you", keep=False)

    await ears[0].heard(b"hello")
    await ears[1].heard(b"hello")
    await room.heard(b"not you")


async def test_who_follows_later_hears_what_is_said_later(here: Bus, there: Bus) -> None:
    first = await listen(here, "trip-1")
    here.publish("trip-1", b"before", keep=False)
    await first.heard(b"before")
    ear = await listen(there, "trip-1")

    here.publish("trip-1", b"after", keep=False)

    await ear.heard(b"after")


async def test_what_is_kept_or_heard_has_no_gap_for_who_follows_and_then_reads(here: Bus, there: Bus) -> None:
    sent = []

    async def talk() -> None:
        for n in range(500):
            sent.append(b"%d" % n)
            here.publish("trip-1", sent[-1], keep=True)
            await asyncio.sleep(0)

    talking = asyncio.create_task(talk())
    await tail(there, "trip-1", least=10)
    ear = await listen(there, "trip-1")
    kept = [one.message for one in await there.tail("trip-1", None)]
    await talking
    await ear.until(lambda: b"499" in kept + ear.messages)

    assert [*kept, *(one for one in ear.messages if one not in kept)] == sent


async def test_nothing_arrives_after_unfollow(here: Bus, there: Bus) -> None:
    ear, other = await listen(there, "trip-1"), await listen(there, "trip-2")

    there.unfollow("trip-1")
    there.unfollow("never followed")
    here.publish("trip-1", b"too late", keep=False)
    here.publish("trip-2", b"behind it", keep=False)

    await other.heard(b"behind it")
    assert ear.messages == []


async def test_room_can_be_followed_again(here: Bus, there: Bus) -> None:
    old = await listen(there, "trip-1")
    for _ in range(5):
        there.unfollow("trip-1")
        there.follow("trip-1", Ear())
        await asyncio.sleep(0)
    there.unfollow("trip-1")
    ear = await listen(there, "trip-1")

    here.publish("trip-1", b"again", keep=False)

    await ear.heard(b"again")
    assert old.messages == []


async def test_waiting_for_a_room_that_nobody_follows_ends(here: Bus) -> None:
    try:
        async with asyncio.timeout(10):
            await here.followed("trip-1")
    except BusUnavailable:
        pass


async def test_many_rooms_are_followed_at_once(here: Bus, there: Bus) -> None:
    ears = [Ear() for _ in range(1500)]
    for n, ear in enumerate(ears):
        there.follow(f"trip-{n}", ear)
    await asyncio.gather(*(there.followed(f"trip-{n}") for n in range(1500)))

    for n in range(1500):
        here.publish(f"trip-{n}", b"%d" % n, keep=False)

    for n, ear in enumerate(ears):
        await ear.heard(b"%d" % n)


async def test_log_holds_what_was_kept_in_order(here: Bus, there: Bus) -> None:
    here.publish("trip-1", b"a", keep=True)
    here.publish("trip-1", b"not this", keep=False)
    here.publish("trip-1", b"b", keep=True)

    assert await tail(there, "trip-1", least=2) == [b"a", b"b"]
    assert await there.tail("trip-2", None) == []


async def test_log_is_read_from_a_position_on(here: Bus, there: Bus) -> None:
    for n in range(700):
        here.publish("trip-1", b"%d" % n, keep=True)
    await tail(there, "trip-1", least=700)
    kept = await there.tail("trip-1", None)

    assert [one.message for one in kept] == [b"%d" % n for n in range(700)]
    assert await there.tail("trip-1", kept[299].position) == kept[300:]
    assert await there.tail("trip-1", kept[-1].position) == []


async def test_log_is_bounded(here: Bus, there: Bus) -> None:
    for n in range(5000):
        here.publish("trip-1", b"%d" % n, keep=True)
        if n % 500 == 0:
            await asyncio.sleep(0)
    ear = await listen(there, "trip-1")
    here.publish("trip-1", b"last", keep=True)
    await ear.until(lambda: ear.messages[-1:] == [b"last"])

    messages = [one.message for one in await there.tail("trip-1", None)]

    assert 500 <= len(messages) <= 2000
    assert messages[-500:] == [*(b"%d" % n for n in range(4501, 5000)), b"last"]


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_will_do(here: Bus, there: Bus, name: str) -> None:
    ear, other = await listen(there, name), await listen(there, name[::-1] + "!")

    here.publish(name, b"hi", keep=True)
    here.mark(name)

    await ear.heard(b"hi")
    assert await tail(there, name, least=1) == [b"hi"]
    await marked(there, (name, here.node))
    assert other.messages == []
    assert await there.tail(name[::-1] + "!", None) == []


async def test_message_is_any_bytes(here: Bus, there: Bus) -> None:
    ear = await listen(there, "trip-1")
    messages = [b"", b"\0", bytes(range(256)), b"\r\n$3\r\nfoo\r\n", b"x" * 70_000]

    for message in messages:
        here.publish("trip-1", message, keep=True)

    await ear.heard(*messages)
    assert await tail(there, "trip-1", least=5) == messages


async def test_large_message_arrives(here: Bus, there: Bus) -> None:
    ear = await listen(there, "trip-1")
    large = bytes(16 << 20)

    here.publish("trip-1", b"before", keep=True)
    await ear.heard(b"before")
    here.publish("trip-1", large, keep=True)

    await ear.heard(b"before", large, timeout_s=30)
    assert (await tail(there, "trip-1", least=1))[-1] == large


async def test_publishing_takes_no_time(here: Bus, there: Bus) -> None:
    ear = await listen(there, "trip-1")
    message = bytes(100)

    started = time.process_time()
    for _ in range(2000):
        here.publish("trip-1", message, keep=True)
    took = time.process_time() - started

    assert took < 0.5
    await ear.until(lambda: len(ear.messages) == 2000)


async def test_mark_is_seen_by_all_until_it_is_taken_back(here: Bus, there: Bus) -> None:
    here.mark("trip-1")
    here.mark("trip-1")
    here.mark("trip-2")
    there.mark("trip-1")
    await marked(there, ("trip-1", here.node), ("trip-1", there.node), ("trip-2", here.node))

    here.unmark("trip-1")
    here.unmark("never marked")

    await marked(here, ("trip-1", there.node), ("trip-2", here.node))


async def test_mark_says_since_when(here: Bus, there: Bus) -> None:
    here.mark("trip-1")
    await marked(there, ("trip-1", here.node))
    first = (await there.marks())[0].age_s
    await asyncio.sleep(0.2)
    here.mark("trip-1")
    there.mark("trip-2")
    await marked(there, ("trip-1", here.node), ("trip-2", there.node))

    ages = {mark.room: mark.age_s for mark in await there.marks()}

    assert 0 <= first < 5
    assert 0.15 + first <= ages["trip-1"] <= first + 5
    assert ages["trip-2"] < ages["trip-1"]


async def test_mark_outlives_its_node_and_another_takes_it_back(make_bus: MakeBus, there: Bus) -> None:
    gone = make_bus()
    await gone.open()
    gone.mark("trip-1")
    await marked(there, ("trip-1", gone.node))
    await gone.close()
    await marked(there, ("trip-1", gone.node))

    there.unmark("trip-1", node=gone.node)

    await marked(there)


async def test_mark_can_be_set_again(here: Bus, there: Bus) -> None:
    for _ in range(3):
        here.mark("trip-1")
        await marked(there, ("trip-1", here.node))
        here.unmark("trip-1")
        await marked(there)


async def test_mark_that_is_taken_back_and_set_again_at_once_is_set(here: Bus, there: Bus) -> None:
    here.mark("trip-1")
    await marked(there, ("trip-1", here.node))

    here.unmark("trip-1")
    here.mark("trip-1")
    here.mark("trip-2")

    await marked(there, ("trip-1", here.node), ("trip-2", here.node))


async def test_works_without_a_problem(here: Bus) -> None:
    await listen(here, "trip-1")
    await here.tail("trip-1", None)
    here.publish("trip-1", b"x", keep=True)
    await tail(here, "trip-1", least=1)

    assert here.problem is None


async def test_what_waits_is_sent_before_it_closes(make_bus: MakeBus, there: Bus) -> None:
    ear = await listen(there, "trip-1")
    bus = make_bus()
    await bus.open()
    await bus.marks()

    bus.publish("trip-1", b"last words", keep=True)
    await bus.close()
    await bus.close()

    await ear.heard(b"last words")


async def test_closing_a_bus_that_was_never_opened_succeeds(make_bus: MakeBus) -> None:
    await make_bus().close()
