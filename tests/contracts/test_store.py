"""What every store promises. Runs against each entry of `STORES` in conftest."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest

from persistence import (
    DocumentHead,
    Entry,
    Snapshot,
    Store,
    StoreCorrupt,
    Stored,
    StoreUnavailable,
    StoreUnusable,
    open_store,
)

from .conftest import Place

NOW = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)


def entry(document: str, *updates: bytes, user_id: str | None = None) -> Entry:
    return Entry(document, updates, accepted_at=NOW, user_id=user_id)


def numbered(n: int, start: int = 1) -> list[bytes]:
    return [b"u%d" % i for i in range(start, start + n)]


class Exploding(Sequence[bytes]):
    """Two updates, of which only the first can be read."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        raise RuntimeError("boom")

    def __iter__(self) -> Iterator[bytes]:
        yield b"first"
        raise RuntimeError("boom")


async def test_unknown_document_is_empty_and_stays_unknown(store: Store) -> None:
    stored = await store.load("trip-1")

    assert stored == Stored(head_seq=0, snapshot=None, updates=())
    assert await store.documents() == []


async def test_updates_come_back_in_order_of_acceptance(store: Store) -> None:
    await store.append([entry("trip-1", b"a", b"b")])
    await store.append([entry("trip-1", b"c")])

    assert await store.load("trip-1") == Stored(head_seq=3, snapshot=None, updates=(b"a", b"b", b"c"))


async def test_seqs_start_at_1_and_have_no_gaps_per_document(store: Store) -> None:
    seqs = [
        await store.append([entry("x", b"1"), entry("y", b"1", b"2")]),
        await store.append([entry("y", b"3"), entry("x", b"2", b"3", b"4"), entry("y", b"4")]),
    ]

    assert seqs == [[1, 2], [3, 4, 4]]
    assert await store.documents() == [DocumentHead("x", 4), DocumentHead("y", 4)]


async def test_heads_of_many_documents_are_read_at_once(store: Store) -> None:
    names = [f"trip-{i}" for i in range(600)]
    await store.append([entry(name, *numbered(i % 3 + 1)) for i, name in enumerate(names)])

    heads = await store.heads([*names, "unknown"])

    assert heads == {name: i % 3 + 1 for i, name in enumerate(names)}
    assert await store.heads([]) == {}


async def test_entries_of_two_users_in_one_document_follow_each_other(store: Store) -> None:
    seqs = await store.append([entry("x", b"ann", user_id="ann"), entry("x", b"bob", b"bob2", user_id="bob")])

    assert seqs == [1, 3]
    assert (await store.load("x")).updates == (b"ann", b"bob", b"bob2")


async def test_empty_group_is_no_work(store: Store) -> None:
    assert await store.append([]) == []
    await store.checkpoint([])

    assert await store.documents() == []


async def test_empty_update_is_kept(store: Store) -> None:
    await store.append([entry("x", b"", b"a", b"")])

    assert (await store.load("x")).updates == (b"", b"a", b"")


async def test_failing_entry_leaves_nothing_of_its_group(store: Store) -> None:
    await store.append([entry("x", b"before")])

    with pytest.raises(RuntimeError, match="boom"):
        await store.append([entry("x", b"lost"), entry("new", b"lost"), Entry("y", Exploding(), accepted_at=NOW)])

    assert await store.documents() == [DocumentHead("x", 1)]
    assert await store.append([entry("x", b"after")]) == [2]
    assert (await store.load("x")).updates == (b"before", b"after")


async def test_everything_is_there_after_reopening(place: Place) -> None:
    first = place()
    await first.open()
    await first.append([entry("x", *numbered(5))])
    snapshot = Snapshot("x", seq=2, state=b"s", waiting=(b"w",), state_vector=b"v")
    await first.checkpoint([snapshot])
    await first.close()
    second = place()
    await second.open()

    stored = await second.load("x")
    seqs = await second.append([entry("x", b"u6")])
    await second.close()

    assert stored == Stored(head_seq=5, snapshot=snapshot, updates=(b"u3", b"u4", b"u5"))
    assert seqs == [6]


async def test_closed_store_is_unavailable_and_closes_again(store: Store) -> None:
    await store.close()
    await store.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        await store.load("x")
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.append([entry("x", b"a")])


async def test_open_store_opens_again_without_harm(store: Store) -> None:
    await store.append([entry("x", b"a")])

    await store.open()

    assert (await store.load("x")).updates == (b"a",)


async def test_checkpoint_folds_exactly_what_it_says(store: Store) -> None:
    await store.append([entry("x", *numbered(6)), entry("y", *numbered(3))])
    snapshot = Snapshot("x", seq=4, state=b"1-4", state_vector=b"v")

    await store.checkpoint([snapshot])

    assert await store.load("x") == Stored(head_seq=6, snapshot=snapshot, updates=(b"u5", b"u6"))
    assert (await store.load("y")).updates == (b"u1", b"u2", b"u3")


async def test_second_checkpoint_replaces_the_first(store: Store) -> None:
    await store.append([entry("x", *numbered(6))])
    await store.checkpoint([Snapshot("x", seq=2, state=b"1-2", state_vector=b"v")])
    snapshot = Snapshot("x", seq=6, state=b"1-6", state_vector=b"w")

    await store.checkpoint([snapshot])

    assert await store.load("x") == Stored(head_seq=6, snapshot=snapshot, updates=())
    assert await store.append([entry("x", b"u7")]) == [7]


async def test_late_snapshot_never_replaces_a_newer_one(store: Store) -> None:
    await store.append([entry("x", *numbered(6))])
    newer = Snapshot("x", seq=5, state=b"1-5", state_vector=b"v")
    await store.checkpoint([newer])

    await store.checkpoint([Snapshot("x", seq=3, state=b"1-3", state_vector=b"old")])

    assert await store.load("x") == Stored(head_seq=6, snapshot=newer, updates=(b"u6",))


async def test_snapshot_at_the_same_seq_replaces(store: Store) -> None:
    await store.append([entry("x", *numbered(3))])
    await store.checkpoint([Snapshot("x", seq=2, state=b"loose", state_vector=b"v")])
    tighter = Snapshot("x", seq=2, state=b"tight", state_vector=b"v")

    await store.checkpoint([tighter])

    assert await store.load("x") == Stored(head_seq=3, snapshot=tighter, updates=(b"u3",))


@pytest.mark.parametrize("document", ["x", "unknown"])
async def test_snapshot_ahead_of_its_log_is_refused_with_its_whole_group(store: Store, document: str) -> None:
    await store.append([entry("x", *numbered(3)), entry("y", b"a")])

    with pytest.raises(StoreCorrupt, match="ahead"):
        await store.checkpoint(
            [
                Snapshot("y", seq=1, state=b"s", state_vector=b"v"),
                Snapshot(document, seq=4, state=b"s", state_vector=b"v"),
            ]
        )

    assert await store.load("x") == Stored(head_seq=3, snapshot=None, updates=(b"u1", b"u2", b"u3"))
    assert await store.load("y") == Stored(head_seq=1, snapshot=None, updates=(b"a",))
    assert await store.documents() == [DocumentHead("x", 3), DocumentHead("y", 1)]


@pytest.mark.parametrize("waiting", [(), (b"",), (b"a", b"", b"bc"), (bytes(range(256)), b"\0" * 70_000)])
async def test_waiting_updates_survive_in_the_snapshot(store: Store, waiting: tuple[bytes, ...]) -> None:
    await store.append([entry("x", b"a")])
    snapshot = Snapshot("x", seq=1, state=b"s", waiting=waiting, state_vector=b"v")

    await store.checkpoint([snapshot])

    assert (await store.load("x")).snapshot == snapshot


async def test_many_documents_in_one_group(store: Store) -> None:
    names = [f"trip-{i}" for i in range(700)]

    for round_ in range(2):
        seqs = await store.append([entry(name, name.encode(), b"%d" % round_) for name in names])
        assert seqs == [2 + 2 * round_] * len(names)

    assert await store.documents() == sorted(DocumentHead(name, 4) for name in names)
    for name in names[::50]:
        assert (await store.load(name)).updates == (name.encode(), b"0", name.encode(), b"1")


async def test_long_log_with_updates_of_all_sizes_keeps_its_order(store: Store) -> None:
    updates = [os.urandom(70_000 if i % 997 == 0 else 5_000 if i % 101 == 0 else i % 40) for i in range(9_000)]
    await store.append([entry("x", *updates)])

    stored = await store.load("x")

    assert stored == Stored(head_seq=9_000, snapshot=None, updates=tuple(updates))


@pytest.mark.parametrize("name", ["trip-Zürich", "旅行", "🧳/a b?%2F#", "a,b:c'd\"e", "A", "a" * 1000, "é", "e\u0301"])
async def test_name_is_kept_as_it_is(store: Store, name: str) -> None:
    await store.append([entry(name, b"mine"), entry("a", b"other"), entry("é" if name != "é" else "e\u0301", b"o")])

    assert (await store.load(name)).updates[0] == b"mine"
    assert DocumentHead(name, (await store.load(name)).head_seq) in await store.documents()


async def test_blobs_of_16_mib_survive(store: Store) -> None:
    large, state = os.urandom(16 << 20), os.urandom(16 << 20)
    await store.append([entry("x", b"a", large, b"b")])
    before = await store.load("x")

    await store.checkpoint([Snapshot("x", seq=2, state=state, waiting=(large,), state_vector=b"v")])
    after = await store.load("x")

    assert before.updates == (b"a", large, b"b")
    assert after.snapshot is not None
    assert (after.snapshot.state, after.snapshot.waiting, after.updates) == (state, (large,), (b"b",))


async def test_loads_beside_appends_and_checkpoints_see_whole_logs(store: Store) -> None:
    def content(stored: Stored) -> list[bytes]:
        folded = stored.snapshot.state.split(b",") if stored.snapshot else []
        return folded + list(stored.updates)

    async def write(name: str) -> None:
        for i in range(1, 60, 3):
            await store.append([entry(name, *numbered(3, start=i)), entry(f"{name}-beside", b"b")])

    async def fold(name: str) -> None:
        while (stored := await store.load(name)).head_seq < 60:
            if stored.head_seq:
                state = b",".join(content(stored))
                await store.checkpoint([Snapshot(name, seq=stored.head_seq, state=state, state_vector=b"v")])

    async def watch(name: str) -> None:
        seen = 0
        while seen < 60:
            stored = await store.load(name)
            assert content(stored) == numbered(stored.head_seq)
            assert stored.head_seq >= seen
            seen = stored.head_seq

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for name in ("x", "y", "z"):
            for job in (write, fold, watch):
                tasks.create_task(job(name))

    assert [one.head_seq for one in await store.documents()] == [60, 20] * 3


async def test_concurrent_appends_to_one_document_share_its_seqs(store: Store) -> None:
    results = await asyncio.gather(*(store.append([entry("x", b"%d" % i)]) for i in range(50)))

    stored = await store.load("x")
    assert sorted(seq for (seq,) in results) == list(range(1, 51))
    assert all(stored.updates[seq - 1] == b"%d" % i for i, (seq,) in enumerate(results))


async def test_cancelled_append_takes_place_as_a_whole_or_not_at_all(store: Store) -> None:
    tasks = [asyncio.create_task(store.append([entry("x", b"%d" % i, b"%d" % i)])) for i in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    seqs = await store.append([entry("x", b"end")])
    stored = await store.load("x")

    assert seqs == [stored.head_seq]
    assert stored.updates[:-1:2] == stored.updates[1:-1:2]
    assert {b"%d" % i for i, result in enumerate(results) if isinstance(result, list)} <= set(stored.updates)


async def test_time_zones_other_than_utc_are_taken(store: Store) -> None:
    east = NOW.astimezone(timezone(timedelta(hours=5, minutes=45)))

    assert await store.append([Entry("x", [b"a"], accepted_at=east)]) == [1]


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800"])
def test_name_that_some_store_could_not_keep_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"name|surrogates"):
        entry(name, b"a")


def test_entry_needs_updates_and_a_time_zone() -> None:
    with pytest.raises(ValueError, match="at least one update"):
        Entry("x", [], accepted_at=NOW)
    with pytest.raises(ValueError, match="time zone"):
        Entry("x", [b"a"], accepted_at=NOW.replace(tzinfo=None))


def test_snapshot_needs_something_to_fold() -> None:
    with pytest.raises(ValueError, match="at least one update"):
        Snapshot("x", seq=0, state=b"", state_vector=b"")


async def test_store_is_described_for_people(store: Store) -> None:
    assert isinstance(store, Store)
    assert store.describe().split()[0] in ("memory", "SQLite", "PostgreSQL")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "store.db",
        "memory://x",
        "sqlite://store.db",
        "sqlite:///",
        "sqlite:////",
        "sqlite:///:memory:",
        "sqlite:///a.db?mode=ro",
        "mongodb://user:s3cret@host/db",
    ],
)
def test_url_that_names_no_store_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StoreUnusable) as refused:
        open_store(url)

    assert "s3cret" not in str(refused.value)
