"""What the Redis bus does when things go wrong. What it does when they don't is in the contract."""

import asyncio
import contextlib
import gc
import logging
import random
import re
import secrets
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from crdt_sync.bus import Bus, BusUnavailable
from crdt_sync.bus.redis import RedisBus
from crdt_sync.bus.redis_state import Limits
from tests.contracts.buses import Ear
from tests.support.processes import wait_until
from tests.support.proxy import Proxy
from tests.support.redis import RedisCluster, RedisSentinel, RedisServer
from tests.support.services import require

QUICK = Limits(timeout_s=0.5, ping_interval_s=0.1, ping_timeout_s=0.5)

MakeBus = Callable[..., RedisBus]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, to break."""
    with require(RedisServer) as server:
        yield server


@pytest_asyncio.fixture
async def make(redis: RedisServer) -> AsyncIterator[MakeBus]:
    """Makes buses, not open yet, of one prefix; they are closed after the test, and may leave no task."""
    made: list[RedisBus] = []
    prefix = f"test-{secrets.token_hex(8)}"

    def make_bus(url: str, limits: Limits | None = None) -> RedisBus:
        made.append(RedisBus(url, prefix=prefix, limits=limits))
        return made[-1]

    yield make_bus
    for bus in made:
        await bus.close()
    await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if "crdt_sync" in repr(task.get_coro())] == []


async def opened(bus: RedisBus) -> RedisBus:
    """The bus, once it is connected."""
    await bus.open()
    await until(lambda: bus.problem is None)
    return bus


async def listen(bus: Bus, room: str) -> Ear:
    ear = Ear()
    bus.follow(room, ear)
    await bus.followed(room)
    return ear


async def until(condition: Callable[[], object], *, timeout_s: float = 15) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def talk(bus: RedisBus, room: str, ear: Ear) -> None:
    """Return once messages of the bus get through to the ear."""
    async with asyncio.timeout(15):
        number = 0
        while b"talk %d" % number not in ear.messages:
            number += 1
            bus.publish(room, b"talk %d" % number, keep=True)
            with contextlib.suppress(TimeoutError):
                await ear.until(lambda: b"talk %d" % number in ear.messages, timeout_s=0.1)  # noqa: B023


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "crdt_sync.bus"]


def calls(server: RedisServer) -> dict[str, int]:
    """How often each command was called so far."""
    stats = server.execute("INFO", "commandstats")
    return {name: int(count) for name, count in re.findall(r"cmdstat_([^:]+):calls=(\d+)", stats)}


# ------------------------------------------------------------------------------------------------- pipelines


async def test_what_is_published_in_one_turn_is_one_pipeline(server: RedisServer, make: MakeBus) -> None:
    bus = await opened(make(server.url))
    ear = await listen(bus, "trip-1")
    before = bus.counters.pipelines

    for n in range(200):
        bus.publish(f"trip-{n % 7}", b"%d" % n, keep=n % 2 == 0)
        bus.mark(f"trip-{n % 7}")
    await ear.until(lambda: ear.messages[-1:] == [b"197"])

    assert bus.counters.pipelines == before + 1
    assert bus.counters.sent_messages == 200


async def test_what_piles_up_during_a_round_trip_is_one_pipeline(server: RedisServer, make: MakeBus) -> None:
    async with Proxy(server.port) as proxy:
        bus = await opened(make(proxy.url(server.url)))
        ear = await listen(bus, "trip-1")
        before = bus.counters.pipelines
        proxy.hold_answers()
        for n in range(50):
            bus.publish("trip-1", b"%d" % n, keep=True)
            await asyncio.sleep(0)
        proxy.release_answers()

        await ear.heard(*(b"%d" % n for n in range(50)))
        assert bus.counters.pipelines == before + 2


async def test_mark_that_is_taken_back_in_the_same_turn_costs_nothing(server: RedisServer, make: MakeBus) -> None:
    bus = await opened(make(server.url))
    before = bus.counters.commands

    for _ in range(100):
        bus.mark("trip-1")
        bus.unmark("trip-1")
    await asyncio.sleep(0.05)

    assert bus.counters.commands == before


async def test_idle_bus_sends_nothing_but_pings(server: RedisServer, make: MakeBus) -> None:
    bus = await opened(make(server.url, Limits(ping_interval_s=0.5)))
    for n in range(50):
        await listen(bus, f"trip-{n}")
    before = calls(server)

    await asyncio.sleep(2.2)

    after = calls(server)
    assert {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name)} in (
        {"publish": 4, "time": 4, "info": 1},
        {"publish": 5, "time": 5, "info": 1},
    )


# ------------------------------------------------------------------------------------------------- what Redis holds


async def test_logs_expire(server: RedisServer, make: MakeBus) -> None:
    bus = await opened(make(server.url, Limits(log_age_s=0.4)))
    bus.publish("trip-1", b"x", keep=True)
    await until(lambda: server.execute("DBSIZE") == ":1\r\n")

    await until(lambda: server.execute("DBSIZE") == ":0\r\n")

    assert await bus.tail("trip-1", None) == []


async def test_log_in_constant_use_keeps_nothing_old(server: RedisServer, make: MakeBus) -> None:
    bus = await opened(make(server.url, Limits(log_age_s=0.4)))
    for n in range(150):
        bus.publish("trip-1", b"%d" % n, keep=True)
        await asyncio.sleep(0.01)

    kept = await bus.tail("trip-1", None)

    assert kept[-1].message == b"149"
    assert 30 <= len(kept) <= 60


async def test_expiry_is_renewed_now_and_then_only(server: RedisServer, make: MakeBus) -> None:
    bus = await opened(make(server.url))
    for _ in range(20):
        bus.publish("trip-1", b"x", keep=True)
        bus.publish("trip-1", b"x", keep=False)
        await asyncio.sleep(0.005)

    made = calls(server)

    assert (made["xadd"], made["pexpire"], made["xtrim"]) == (20, 1, 1)


async def test_logs_of_large_messages_are_short(server: RedisServer, make: MakeBus) -> None:
    bus = await opened(make(server.url, Limits(log_bytes_max=1 << 20)))
    ear = await listen(bus, "trip-1")
    for _ in range(20):
        bus.publish("trip-1", bytes(1 << 18), keep=True)
    await ear.until(lambda: len(ear.messages) == 20)

    kept = await bus.tail("trip-1", None)

    assert 4 <= len(kept) <= 6


async def test_databases_hear_nothing_of_each_other(server: RedisServer, make: MakeBus) -> None:
    zero, one = await opened(make(server.url)), await opened(make(server.url.removesuffix("0") + "1"))
    ear = await listen(one, "trip-1")

    zero.publish("trip-1", b"not for you", keep=True)
    await zero.marks()
    one.publish("trip-1", b"hi", keep=True)

    await ear.heard(b"hi")
    assert [kept.message for kept in await one.tail("trip-1", None)] == [b"hi"]


async def test_what_is_not_ours_is_passed_over(server: RedisServer, make: MakeBus) -> None:
    bus = await opened(make(server.url))
    ear = await listen(bus, "trip-1")
    bus.publish("trip-1", b"a", keep=True)
    await ear.heard(b"a")
    [log] = re.findall(r"test-\S+", server.execute("KEYS", "*log"))
    server.execute("XADD", log, "*", "other", "field")
    server.execute("XADD", log, "*", "m", "1", "n", "2")
    server.execute("ZADD", log.split("{")[0] + "{*}:marks", "1", "nonsense")
    bus.publish("trip-1", b"b", keep=True)
    bus.mark("trip-1")
    await ear.heard(b"a", b"b")

    assert [kept.message for kept in await bus.tail("trip-1", None)] == [b"a", b"b"]
    assert [mark.room for mark in await bus.marks()] == ["trip-1"]


async def test_bus_survives_that_everything_is_deleted(server: RedisServer, make: MakeBus) -> None:
    bus = await opened(make(server.url, QUICK))
    ear = await listen(bus, "trip-1")
    bus.mark("trip-1")
    bus.publish("trip-1", b"before", keep=True)
    await ear.heard(b"before")

    server.execute("FLUSHALL")
    assert await bus.tail("trip-1", "1-1") == []
    bus.publish("trip-1", b"after", keep=True)

    await ear.heard(b"before", b"after")
    assert [kept.message for kept in await bus.tail("trip-1", None)] == [b"after"]
    async with asyncio.timeout(5):
        while [mark.room for mark in await bus.marks()] != ["trip-1"]:
            await asyncio.sleep(0.01)


async def test_log_that_is_no_log_is_no_reason_to_stop(
    server: RedisServer, make: MakeBus, caplog: pytest.LogCaptureFixture
) -> None:
    bus = await opened(make(server.url, QUICK))
    ear, other = await listen(bus, "trip-1"), await listen(bus, "trip-2")
    bus.publish("trip-1", b"a", keep=True)
    await ear.heard(b"a")
    [log] = re.findall(r"test-\S+", server.execute("KEYS", "*log"))
    server.execute("DEL", log)
    server.execute("SET", log, "a string")

    for n in range(30):
        bus.publish("trip-1", b"%d" % n, keep=True)
        bus.publish("trip-2", b"%d" % n, keep=True)
        await asyncio.sleep(0.01)

    await other.heard(*(b"%d" % n for n in range(30)))
    assert len(ear.messages) == 31
    assert ear.resyncs == 0
    with pytest.raises(BusUnavailable, match="WRONGTYPE"):
        await bus.tail("trip-1", None)
    await ear.resynced(timeout_s=5)
    assert events(caplog) == ["bus_refused"]


async def test_redis_without_memory_still_carries_messages(server: RedisServer, make: MakeBus) -> None:
    bus = await opened(make(server.url, QUICK))
    ear = await listen(bus, "trip-1")
    server.execute("CONFIG", "SET", "maxmemory", "1")

    bus.publish("trip-1", b"a", keep=True)
    bus.mark("trip-1")

    await ear.heard(b"a")
    assert ear.resyncs == 0
    server.execute("CONFIG", "SET", "maxmemory", "0")
    await ear.resynced(timeout_s=5)
    async with asyncio.timeout(10):
        while [mark.room for mark in await bus.marks()] != ["trip-1"]:
            await asyncio.sleep(0.01)


# ------------------------------------------------------------------------------------------------- listeners


class BadEar(Ear):
    def receive(self, message: bytes) -> None:
        raise RuntimeError("receive")

    def resync(self) -> None:
        raise RuntimeError("resync")


async def test_listener_that_raises_disturbs_nobody_else(
    server: RedisServer, make: MakeBus, caplog: pytest.LogCaptureFixture
) -> None:
    bus = await opened(make(server.url))
    ears = []
    for n in range(10):
        bus.follow(f"bad-{n}", BadEar())
        ears.append(await listen(bus, f"good-{n}"))

    for n in range(10):
        bus.publish(f"bad-{n}", b"x", keep=False)
        bus.publish(f"good-{n}", b"x", keep=False)
    for ear in ears:
        await ear.heard(b"x")
    server.execute("CLIENT", "KILL", "TYPE", "pubsub")

    for ear in ears:
        await ear.resynced()
    assert events(caplog).count("bus_listener_failed") == 20


# ------------------------------------------------------------------------------------------------- lost connections


async def test_lost_subscriptions_are_made_anew_and_their_rooms_told(server: RedisServer, make: MakeBus) -> None:
    bus, other = await opened(make(server.url)), await opened(make(server.url))
    ears = [Ear() for _ in range(1200)]
    for n, ear in enumerate(ears):
        bus.follow(f"trip-{n}", ear)
    await bus.followed("trip-1199")

    server.execute("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: bus.problem)

    for ear in ears:
        await ear.resynced()
    for n in range(1200):
        other.publish(f"trip-{n}", b"%d" % n, keep=False)
    for n, ear in enumerate(ears):
        await ear.heard(b"%d" % n)
        assert ear.resyncs == 1


async def test_room_is_told_only_when_it_is_heard_again(server: RedisServer, make: MakeBus) -> None:
    bus, other = await opened(make(server.url)), await opened(make(server.url))

    class Answering(Ear):
        def resync(self) -> None:
            super().resync()
            other.publish("trip-1", b"%d" % self.resyncs, keep=False)

    ear = Answering()
    bus.follow("trip-1", ear)
    await bus.followed("trip-1")

    for n in range(5):
        [client] = re.findall(rf"id=(\d+) [^\n]*name=crdt-sync-{bus.node} [^\n]*sub=2", clients(server))
        server.execute("CLIENT", "KILL", "ID", client)
        await ear.heard(*(b"%d" % (one + 1) for one in range(n + 1)))


def clients(server: RedisServer) -> str:
    return server.execute("CLIENT", "LIST")


async def test_room_whose_message_may_be_lost_is_told(server: RedisServer, make: MakeBus) -> None:
    async with Proxy(server.port) as proxy:
        bus = await opened(make(proxy.url(server.url)))
        ear, other = await listen(bus, "trip-1"), await listen(bus, "trip-2")
        proxy.cut_at_answer_to(b"XADD")

        bus.publish("trip-1", b"did it arrive?", keep=True)

        await ear.resynced()
        assert proxy.answers_cut == 1
        assert other.resyncs == 0
        await talk(bus, "trip-1", ear)


async def test_everything_is_cut(server: RedisServer, make: MakeBus, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with Proxy(server.port) as proxy:
        bus, other = await opened(make(proxy.url(server.url))), await opened(make(server.url))
        ear = await listen(bus, "trip-1")
        for n in range(3):
            proxy.cut()
            await ear.resynced(n + 1)
            await until(lambda: bus.problem is None)
            await talk(other, "trip-1", ear)
            assert await bus.tail("trip-1", None)

    assert events(caplog)[:6] == ["bus_unavailable", "bus_recovered"] * 3


async def test_messages_while_redis_is_away_are_dropped_and_their_rooms_told(
    server: RedisServer, make: MakeBus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bus = await opened(make(server.url))
    ear, other = await listen(bus, "trip-1"), await listen(bus, "trip-2")
    bus.mark("trip-1")
    server.kill()
    await until(lambda: bus.problem)
    await asyncio.sleep(0.1)  # each of its connections has to notice

    started = time.monotonic()
    for n in range(1000):
        bus.publish("trip-1", b"%d" % n, keep=True)
        bus.publish(f"nobody follows {n}", b"%d" % n, keep=True)
    with pytest.raises(BusUnavailable):
        await bus.tail("trip-1", None)
    with pytest.raises(BusUnavailable):
        await bus.followed("trip-1")
    with pytest.raises(BusUnavailable):
        await bus.marks()
    assert time.monotonic() - started < 0.5
    assert bus.counters.dropped == 2000
    assert (ear.resyncs, other.resyncs) == (0, 0)
    await asyncio.sleep(1)
    server.start()

    await ear.resynced(timeout_s=3)
    await other.resynced(timeout_s=3)
    assert bus.problem is None
    assert (ear.resyncs, ear.messages) == (1, [])
    await talk(bus, "trip-1", ear)
    assert [mark.room for mark in await bus.marks()] == ["trip-1"]
    assert events(caplog) == ["bus_unavailable", "bus_recovered"]
    [recovered] = [record for record in caplog.records if record.message == "bus_recovered"]
    assert 1 <= recovered.after_s < 4  # type: ignore[attr-defined]


async def test_bus_opens_before_redis_does(make: MakeBus) -> None:
    server = require(RedisServer)
    bus = make(server.url)
    ear = Ear()

    await bus.open()
    assert bus.problem is not None
    bus.follow("trip-1", ear)
    with pytest.raises(BusUnavailable):
        await bus.followed("trip-1")
    with server:
        await until(lambda: bus.problem is None, timeout_s=5)
        await bus.followed("trip-1")
        await talk(bus, "trip-1", ear)


async def test_messages_before_the_first_connection_wait_for_it(server: RedisServer, make: MakeBus) -> None:
    bus = make(server.url)
    ear = Ear()
    bus.follow("trip-1", ear)
    bus.publish("trip-1", b"early", keep=True)

    await bus.open()

    await bus.followed("trip-1")
    async with asyncio.timeout(5):
        while [kept.message for kept in await bus.tail("trip-1", None)] != [b"early"]:
            await asyncio.sleep(0.005)
    assert ear.resyncs == 0


async def test_too_much_at_once_is_dropped_and_its_rooms_told(server: RedisServer, make: MakeBus) -> None:
    bus = await opened(make(server.url, Limits(queue_bytes_max=100_000)))
    ear, full = await listen(bus, "trip-1"), await listen(bus, "trip-2")

    bus.publish("trip-1", bytes(60_000), keep=True)
    for _ in range(100):
        bus.publish("trip-2", bytes(60_000), keep=True)

    await full.resynced()
    assert bus.counters.dropped == 100
    assert (ear.resyncs, full.resyncs, full.messages) == (0, 1, [])
    await talk(bus, "trip-2", full)


# ------------------------------------------------------------------------------------------------- frozen


async def test_frozen_redis_stops_nobody(server: RedisServer, make: MakeBus, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bus = await opened(make(server.url))
    ear, quiet = await listen(bus, "trip-1"), await listen(bus, "trip-2")
    message = bytes(1000)
    gc.collect()
    tracemalloc.start()
    server.freeze()
    thaws_at = time.monotonic() + 5

    slowest = 0.0
    while time.monotonic() < thaws_at:
        started = time.monotonic()
        for _ in range(200):
            bus.publish("trip-1", message, keep=True)
        slowest = max(slowest, time.monotonic() - started)
        await asyncio.sleep(0.01)
    assert bus.problem is not None
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    server.thaw()

    await ear.resynced(timeout_s=3)
    assert bus.problem is None
    await talk(bus, "trip-1", ear)
    assert slowest < 0.25
    assert peak_bytes < 60 << 20
    assert bus.counters.dropped > 10_000
    assert quiet.resyncs <= 1
    assert events(caplog) == ["bus_unavailable", "bus_recovered"]


async def test_questions_to_a_frozen_redis_end(server: RedisServer, make: MakeBus) -> None:
    bus = await opened(make(server.url))
    ear = await listen(bus, "trip-1")
    await bus.tail("trip-1", None)
    bus.follow("trip-2", Ear())
    server.freeze()
    started = time.monotonic()

    ends = await asyncio.gather(bus.tail("trip-1", None), bus.followed("trip-2"), bus.marks(), return_exceptions=True)

    assert [type(end) for end in ends] == [BusUnavailable] * 3
    assert time.monotonic() - started < 3
    server.thaw()
    await ear.resynced(timeout_s=3)
    assert bus.problem is None
    await bus.followed("trip-2")


async def test_cancelled_questions_dont_mix_up_answers(server: RedisServer, make: MakeBus) -> None:
    bus = await opened(make(server.url))
    rooms = [f"trip-{n}" for n in range(100)]
    for room in rooms:
        for _ in range(30):
            bus.publish(room, room.encode() * 20, keep=True)
    await until(lambda: bus.counters.sent_messages == 3000)
    wrong = []
    answered = 0

    async def ask(room: str, timeout_s: float) -> None:
        nonlocal answered
        try:
            async with asyncio.timeout(timeout_s):
                kept = await bus.tail(room, None)
        except (TimeoutError, BusUnavailable):
            return
        answered += 1
        if [one.message for one in kept] != [room.encode() * 20] * 30:
            wrong.append(room)

    for n in range(12):
        if n % 4 == 1:
            server.freeze()
        asking = [asyncio.create_task(ask(room, random.uniform(0, 0.15))) for room in rooms]
        await asyncio.sleep(0.05)
        for task in random.sample(asking, 20):
            task.cancel()
        server.thaw()
        await asyncio.gather(*asking, return_exceptions=True)
    await asyncio.gather(*(ask(room, 10) for room in rooms))

    assert wrong == []
    assert answered > 300


@pytest.mark.parametrize("state", ["well", "frozen", "away"])
async def test_closing_takes_about_a_second_at_most(server: RedisServer, make: MakeBus, state: str) -> None:
    bus = await opened(make(server.url))
    await listen(bus, "trip-1")
    await bus.tail("trip-1", None)
    if state == "frozen":
        server.freeze()
    elif state == "away":
        server.kill()
    for _ in range(100):
        bus.publish("trip-1", bytes(10_000), keep=True)
    asking = asyncio.create_task(bus.tail("trip-1", None))
    await asyncio.sleep(0.05)

    started = time.monotonic()
    await bus.close()

    assert time.monotonic() - started < 1.5
    if state != "well":
        with pytest.raises(BusUnavailable):
            await asking
    bus.publish("trip-1", b"ignored", keep=True)
    if state == "frozen":
        server.thaw()


async def test_answers_that_are_held_up_are_no_loss(server: RedisServer, make: MakeBus) -> None:
    async with Proxy(server.port) as proxy:
        bus, other = await opened(make(proxy.url(server.url), QUICK)), await opened(make(server.url))
        ear = await listen(bus, "trip-1")
        proxy.hold_answers()
        await until(lambda: bus.problem, timeout_s=3)
        other.publish("trip-1", b"late", keep=True)
        await asyncio.sleep(1)

        proxy.release_answers()

        await ear.heard(b"late", timeout_s=3)
        await until(lambda: bus.problem is None, timeout_s=3)
        await talk(bus, "trip-1", ear)


class DeafeningProxy(Proxy):
    """Takes subscriptions, and lets nothing through afterwards to those in `deaf`."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port)
        self.subscribers: set[object] = set()
        self.deaf: set[object] = set()

    async def _pass_answers(self, link: Any, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if b"\r\nsubscribe\r\n" in data:
                    self.subscribers.add(link)
                if link not in self.deaf:
                    link.client.write(data)
            link.client.close()


async def test_half_dead_connection_is_replaced(server: RedisServer, make: MakeBus) -> None:
    async with DeafeningProxy(server.port) as proxy:
        bus, other = await opened(make(proxy.url(server.url))), await opened(make(server.url))
        ear = await listen(bus, "trip-1")
        started = time.monotonic()
        proxy.deaf = set(proxy.subscribers)
        other.publish("trip-1", b"missed", keep=True)

        await ear.resynced(timeout_s=8)

        assert time.monotonic() - started < 7
        assert ear.messages == []
        assert [kept.message for kept in await bus.tail("trip-1", None)] == [b"missed"]
        await talk(other, "trip-1", ear)


async def test_refused_subscriptions_are_tried_until_they_are_not(server: RedisServer, make: MakeBus) -> None:
    bus, other = await opened(make(server.url, QUICK)), await opened(make(server.url))
    ear = await listen(bus, "trip-1")
    [channel] = re.findall(r"test-\S+trip-1\S+", server.execute("PUBSUB", "CHANNELS", "*trip-1*"))
    server.execute("ACL", "SETUSER", "default", "resetchannels")  # ends it, and lets nobody in

    await until(lambda: "subscribing was refused" in str(bus.problem), timeout_s=3)
    server.execute("ACL", "SETUSER", "default", "allchannels")

    await ear.resynced(timeout_s=5)
    await talk(other, "trip-1", ear)
    assert channel in server.execute("PUBSUB", "CHANNELS", "*trip-1*")


# ------------------------------------------------------------------------------------------------- other ways in


async def test_password_is_used_and_never_shown(make: MakeBus, caplog: pytest.LogCaptureFixture) -> None:
    with require(lambda: RedisServer("--unixsocket", "redis.sock")) as server:
        server.execute("CONFIG", "SET", "requirepass", "s3cret/@:")
        right = make(server.url.replace("://", "://:s3cret%2F%40%3A@"))
        wrong = make(server.url.replace("://", "://someone:s3cret@"))
        socket = make(f"unix://:s3cret%2F%40%3A@{server.folder / 'redis.sock'}")
        await opened(right)
        await opened(socket)
        ear = await listen(socket, "trip-1")
        right.publish("trip-1", b"hi", keep=True)
        await ear.heard(b"hi")

        await wrong.open()
        await until(lambda: events(caplog))

        assert "invalid username-password" in str(wrong.problem)
        assert "s3cret" not in caplog.text + str(wrong.problem) + wrong.describe()


async def test_redis_that_is_not_what_the_url_says(server: RedisServer, make: MakeBus) -> None:
    url = server.url.removesuffix("/0")
    cluster = make(url.replace("redis://", "redis+cluster://"))
    sentinel = make(url.replace("redis://", "redis+sentinel://") + "/mymaster")

    await cluster.open()
    await sentinel.open()
    await until(lambda: "not connected" not in f"{cluster.problem}{sentinel.problem}")

    assert "cluster support disabled" in str(cluster.problem) or "not part of a cluster" in str(cluster.problem)
    assert "no Sentinel helps" in str(sentinel.problem)


async def test_bus_follows_the_master_that_sentinels_choose(make: MakeBus) -> None:
    with contextlib.ExitStack() as servers:
        master = servers.enter_context(require(RedisServer))
        replica = servers.enter_context(require(lambda: RedisServer("--replicaof", "127.0.0.1", str(master.port))))
        wait_until(lambda: "master_link_status:up" in replica.execute("INFO", "replication"), timeout_s=20)
        sentinel = servers.enter_context(require(lambda: RedisSentinel(master, "mymaster")))
        wait_until(lambda: "slaves=1" in sentinel.execute("INFO", "sentinel"), timeout_s=20)
        bus, other = await opened(make(sentinel.url)), await opened(make(sentinel.url))
        ear = await listen(bus, "trip-1")
        await talk(other, "trip-1", ear)

        master.kill()

        await ear.resynced(timeout_s=20)
        await until(lambda: other.problem is None)
        await talk(other, "trip-1", ear)
        assert "role:master" in replica.execute("INFO", "replication")
        assert [kept.message for kept in await bus.tail("trip-1", None)][-1] == ear.messages[-1]


async def test_master_that_becomes_a_replica_is_left(make: MakeBus) -> None:
    with contextlib.ExitStack() as servers:
        master = servers.enter_context(require(RedisServer))
        replica = servers.enter_context(require(lambda: RedisServer("--replicaof", "127.0.0.1", str(master.port))))
        wait_until(lambda: "master_link_status:up" in replica.execute("INFO", "replication"), timeout_s=20)
        sentinel = servers.enter_context(require(lambda: RedisSentinel(master, "mymaster")))
        wait_until(lambda: "slaves=1" in sentinel.execute("INFO", "sentinel"), timeout_s=20)
        bus = await opened(make(sentinel.url))
        ear = await listen(bus, "trip-1")

        # It has to get to know the replica first.
        await until(lambda: sentinel.execute("SENTINEL", "FAILOVER", "mymaster") == "+OK\r\n")

        await ear.resynced(timeout_s=20)
        await talk(bus, "trip-1", ear)
        assert "role:master" in replica.execute("INFO", "replication")


# ------------------------------------------------------------------------------------------------- cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """A cluster to break a little: each test leaves it complete."""
    with require(RedisCluster) as cluster:
        yield cluster


async def test_room_that_moves_to_another_server_is_followed_there(cluster: RedisCluster, make: MakeBus) -> None:
    bus, other = await opened(make(cluster.url)), await opened(make(cluster.url))
    ears = {f"trip-{n}": await listen(bus, f"trip-{n}") for n in range(20)}
    slot = int(cluster.masters[0].execute("CLUSTER", "KEYSLOT", "{trip-1}").strip(":\r\n"))
    target = next(master for master in cluster.masters if master is not cluster.owner(slot))

    cluster.move(slot, target)

    try:
        await ears["trip-1"].resynced()
        for room, ear in ears.items():
            await talk(other, room, ear)
            await talk(bus, room, ear)
            assert [kept.message for kept in await bus.tail(room, None)][-1] == ear.messages[-1]
    finally:
        cluster.move(slot, cluster.owner(slot))


async def test_message_for_a_server_that_lost_the_room_is_owed(cluster: RedisCluster, make: MakeBus) -> None:
    bus = await opened(make(cluster.url))
    slot = int(cluster.masters[0].execute("CLUSTER", "KEYSLOT", "{trip-9}").strip(":\r\n"))
    target = next(master for master in cluster.masters if master is not cluster.owner(slot))
    cluster.move(slot, target)

    try:
        ear = Ear()
        bus.follow("trip-9", ear)
        bus.publish("trip-9", b"goes astray", keep=True)

        await ear.resynced()
        await bus.followed("trip-9")
        await talk(bus, "trip-9", ear)
    finally:
        cluster.move(slot, cluster.owner(slot))


async def test_replica_takes_over_from_a_master_that_died(make: MakeBus) -> None:
    with require(RedisCluster) as cluster:
        bus, other = await opened(make(cluster.url)), await opened(make(cluster.url))
        ears = {f"trip-{n}": await listen(bus, f"trip-{n}") for n in range(20)}
        bus.mark("trip-1")

        cluster.masters[0].kill()

        for room, ear in ears.items():
            if int(cluster.masters[1].execute("CLUSTER", "KEYSLOT", f"{{{room}}}").strip(":\r\n")) < 5461:
                await ear.resynced(timeout_s=20)
        await until(lambda: bus.problem is None and other.problem is None)
        for room, ear in ears.items():
            await talk(other, room, ear)
        async with asyncio.timeout(10):
            while [mark.room for mark in await other.marks()] != ["trip-1"]:
                await asyncio.sleep(0.01)
