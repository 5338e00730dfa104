"""When versions are taken by themselves, and what is removed."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from crdt_sync.retention import Retention, base_of, thinned
from persistence import Version
from tests.support.fakes import Client, Editor, Node, in_virtual_time, running_node, settle, text_of, until

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
KEEP = Retention(timedelta(hours=24), timedelta(days=7), timedelta(days=90), timedelta(days=7))


def version(age: timedelta, *, id: int = 1, label: str | None = None, whole: bool = True) -> Version:
    return Version(id, id, NOW - age, "auto", label, None, (), 100, whole)


def kept_of(versions: list[Version]) -> list[timedelta]:
    gone = set(thinned(versions, KEEP, now=NOW))
    return [NOW - one.taken_at for one in versions if one.id not in gone]


def every(step: timedelta, span: timedelta) -> list[Version]:
    count = span // step
    return [version(step * index, id=count - index) for index in range(count)]


def test_all_are_kept_for_a_day_then_one_an_hour_then_one_a_day() -> None:
    kept = kept_of(every(timedelta(minutes=5), timedelta(days=120)))

    assert sum(age <= timedelta(hours=24) for age in kept) == 24 * 12 + 1
    assert sum(timedelta(hours=25) < age <= timedelta(days=7) for age in kept) == 6 * 24
    assert sum(timedelta(days=8) < age <= timedelta(days=90) for age in kept) == 82
    assert max(kept) < timedelta(days=91)


def test_the_newest_of_an_hour_is_kept() -> None:
    base = timedelta(days=2)
    hour = [version(base + timedelta(minutes=minutes), id=60 - minutes) for minutes in (1, 20, 40, 59)]

    assert kept_of([version(timedelta(), id=100), *hour]) == [timedelta(), base + timedelta(minutes=1)]


def test_thinning_again_removes_nothing_more() -> None:
    versions = every(timedelta(minutes=7), timedelta(days=30))
    gone = set(thinned(versions, KEEP, now=NOW))

    assert len(gone) > 1000
    assert thinned([one for one in versions if one.id not in gone], KEEP, now=NOW) == []


def test_what_has_a_label_and_the_newest_are_kept_for_ever() -> None:
    old = timedelta(days=1000)

    versions = [
        version(old, id=4),
        version(old + timedelta(days=1), id=3),
        version(old + timedelta(days=2), id=2, label="first draft"),
        version(old + timedelta(days=3), id=1),
    ]

    assert thinned(versions, Retention(*[timedelta()] * 3, timedelta(days=2000)), now=NOW) == [3, 1]


def test_what_the_oldest_kept_moment_is_read_from_is_kept() -> None:
    versions = [
        version(timedelta(days=6), id=4),
        version(timedelta(days=95), id=3, whole=False),
        version(timedelta(days=100), id=2),
        version(timedelta(days=101), id=1),
    ]

    assert base_of(versions, KEEP, now=NOW) is versions[2]
    assert thinned(versions, KEEP, now=NOW) == [3, 1]


def test_without_a_version_that_is_whole_and_old_enough_the_log_is_kept_from_its_beginning() -> None:
    assert base_of([version(timedelta(days=6))], KEEP, now=NOW) is None
    assert base_of([version(timedelta(days=8), whole=False)], KEEP, now=NOW) is None


# ------------------------------------------------------------------------------------------------------- open rooms


class Clock:
    """The time of day, which goes with the virtual time."""

    def __init__(self, node: Node) -> None:
        self._loop = asyncio.get_running_loop()
        node.rooms._versions._now = self

    def __call__(self) -> datetime:
        return NOW + timedelta(seconds=self._loop.time())


async def joined(node: Node) -> Client:
    client = await Client().connect(node)
    client.ask_for_sync()
    await settle(client)
    return client


@in_virtual_time
async def test_a_document_that_is_being_edited_gets_a_version_every_interval() -> None:
    async with running_node(version_interval_s=300) as node:
        Clock(node)
        alice, editor = await joined(node), Editor(1)

        for _ in range(100):
            alice.edit(editor.type("x"))
            await settle(alice)
            await asyncio.sleep(10)
        versions = await node.store.versions("room")

        assert len(versions) == 3
        assert [one.kind for one in versions] == ["auto"] * 3
        assert [one.whole for one in versions] == [True] * 3
        await alice.leave()


@in_virtual_time
async def test_a_document_gets_a_version_when_the_last_client_has_left() -> None:
    async with running_node() as node:
        Clock(node)
        alice, bob = await joined(node), await joined(node)
        alice.edit(Editor(1).type("x"))
        await settle(alice, bob)
        await asyncio.sleep(20)
        before = await node.store.versions("room")

        await alice.leave()
        await asyncio.sleep(3)
        between = await node.store.versions("room")
        await bob.leave()
        await until(lambda: "room" not in node.rooms, timeout_s=200)

        content = await node.store.version("room", 1)
        assert (before, between) == ([], [])
        assert content is not None
        assert (content.version.seq, text_of(content.snapshot.state)) == (1, "x")


@in_virtual_time
async def test_a_document_that_nobody_changes_gets_no_version() -> None:
    async with running_node(version_interval_s=10) as node:
        Clock(node)
        alice = await joined(node)
        alice.edit(Editor(1).type("x"))
        await settle(alice)
        await asyncio.sleep(100)

        await alice.leave()
        again = await joined(node)
        await asyncio.sleep(100)
        await again.leave()
        await until(lambda: "room" not in node.rooms, timeout_s=200)

        assert len(await node.store.versions("room")) == 1


@in_virtual_time
async def test_clients_that_come_and_go_do_not_make_a_version_each() -> None:
    async with running_node() as node:
        Clock(node)
        editor = Editor(1)

        for _ in range(60):
            alice = await joined(node)
            alice.edit(editor.type("x"))
            await settle(alice)
            await asyncio.sleep(8)
            await alice.leave()
            await asyncio.sleep(2)

        assert 8 <= len(await node.store.versions("room")) <= 11


@in_virtual_time
async def test_a_node_that_closes_leaves_a_version() -> None:
    node = await Node().start()
    Clock(node)
    alice = await joined(node)
    alice.edit(Editor(1).type("x"))
    await settle(alice)

    await node.stop()

    assert len(await node.store.versions("room")) == 1


@in_virtual_time
async def test_without_an_interval_nothing_is_taken() -> None:
    async with running_node(version_interval_s=0) as node:
        Clock(node)
        alice = await joined(node)
        alice.edit(Editor(1).type("x"))
        await settle(alice)
        await asyncio.sleep(1000)
        await alice.leave()
        await until(lambda: "room" not in node.rooms, timeout_s=200)

        assert await node.store.versions("room") == []


@in_virtual_time
async def test_a_store_that_takes_no_versions_keeps_no_room_open() -> None:
    async with running_node() as node:
        Clock(node)
        alice = await joined(node)
        alice.edit(Editor(1).type("x"))
        await settle(alice)
        await asyncio.sleep(10)
        node.store.fail("take_version")

        await alice.leave()
        await until(lambda: "room" not in node.rooms, timeout_s=200)

        assert await node.store.versions("room") == []


@in_virtual_time
async def test_a_sweep_removes_versions_and_updates_and_leaves_every_kept_moment_readable() -> None:
    keep = {"history_days": 1, "versions_all_hours": 4, "versions_hourly_days": 1}
    async with running_node(version_interval_s=3600, sweep_interval_s=1e9, **keep) as node:
        Clock(node)
        alice, editor = await joined(node), Editor(1)
        for _ in range(30):
            alice.edit(editor.type("x"))
            await settle(alice)
            await asyncio.sleep(3600)
        before = await node.store.versions("room")
        spans_before = await node.store.timeline("room")

        await node.rooms._versions.sweep()

        after = await node.store.versions("room")
        spans = await node.store.timeline("room")
        assert (len(before), spans_before[0].first_seq) == (pytest.approx(30, abs=3), 1)
        assert len(after) == pytest.approx(24 + 1, abs=3)
        assert spans[0].first_seq == pytest.approx(6, abs=3)
        await alice.leave()
