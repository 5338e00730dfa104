"""What every store promises of deleted documents. Runs against each entry of `STORES` in conftest."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from persistence import (
    DocumentDeleted,
    DocumentExists,
    DocumentHead,
    Entry,
    Export,
    Row,
    Snapshot,
    Store,
    StoreCorrupt,
    Stored,
)

from .conftest import Place

NOW = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
LATER = NOW + timedelta(days=3, microseconds=1)


def entry(document: str, *updates: bytes) -> Entry:
    return Entry(document, updates, accepted_at=NOW)


def snapshot(document: str, seq: int, state: bytes = b"s") -> Snapshot:
    return Snapshot(document, seq=seq, state=state, waiting=(b"w",), state_vector=b"v")


@pytest.fixture
async def filled(store: Store) -> Store:
    """A store with `x`, of four updates and a snapshot of the first two, and `y`."""
    await store.append([entry("x", b"1", b"2", b"3", b"4"), entry("y", b"1")])
    await store.checkpoint([snapshot("x", 2)])
    return store


@pytest.fixture
async def without_x(filled: Store) -> Store:
    """The same, with `x` deleted."""
    await filled.delete("x", at=LATER)
    return filled


async def test_deletion_happens_once(filled: Store) -> None:
    deleted = [await filled.delete(name, at=LATER) for name in ("x", "x", "unknown")]

    assert deleted == [True, False, False]
    assert await filled.documents(deleted=True) == [DocumentHead("x", 4, LATER)]


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.load("x"),
        lambda store: store.load("x", after=3),
        lambda store: store.load("x", after=4),
        lambda store: store.export("x"),
        lambda store: store.put(Export("x", NOW, 1, None, (Row(1, b"new", None, NOW),))),
        lambda store: store.put(Export("x", NOW, 1, None, (Row(1, b"new", None, NOW),)), replace=True),
    ],
    ids=["load", "load after 3", "load after 4", "export", "put", "put and replace"],
)
async def test_deleted_document_is_refused_to_whoever_asks_for_it(
    without_x: Store, read: Callable[[Store], Awaitable[object]]
) -> None:
    for _ in range(2):
        with pytest.raises(DocumentDeleted, match=r"'x' was deleted at 2026-05-07T03:02:01\+00:00") as refused:
            await read(without_x)
        assert refused.value.deleted_at == LATER

    assert (await without_x.load("y")).updates == (b"1",)


async def test_deletion_moment_is_kept_in_utc_and_needs_a_time_zone(filled: Store) -> None:
    with pytest.raises(ValueError, match="time zone"):
        await filled.delete("x", at=NOW.replace(tzinfo=None))
    await filled.delete("x", at=LATER.astimezone())

    assert [head.deleted_at for head in await filled.documents(deleted=True)] == [LATER]


async def test_deleted_documents_are_listed_only_if_asked_for(without_x: Store) -> None:
    assert await without_x.documents() == [DocumentHead("y", 1)]
    assert await without_x.documents(deleted=True) == [DocumentHead("x", 4, LATER)]


async def test_statistics_say_which_documents_are_deleted(without_x: Store) -> None:
    assert [(one.document, one.rows, one.deleted_at) for one in await without_x.stats()] == [
        ("x", 2, LATER),
        ("y", 1, None),
    ]


async def test_heads_say_which_documents_are_deleted(without_x: Store) -> None:
    assert await without_x.heads(["x", "y", "unknown"]) == {"x": None, "y": 1}


async def test_undeleted_document_is_as_it_was(filled: Store) -> None:
    before = await filled.export("x")
    await filled.delete("x", at=LATER)

    undeleted = [await filled.undelete(name) for name in ("x", "x", "y", "unknown")]

    assert undeleted == [True, False, False, False]
    assert await filled.export("x") == before
    assert await filled.load("x") == Stored(4, snapshot("x", 2), (b"3", b"4"))
    assert await filled.documents() == [DocumentHead("x", 4), DocumentHead("y", 1)]
    assert await filled.delete("x", at=NOW)


async def test_late_updates_of_a_deleted_document_are_kept_and_do_not_bring_it_back(without_x: Store) -> None:
    seqs = await without_x.append([entry("y", b"2"), entry("x", b"5", b"6"), entry("new", b"1")])

    assert seqs == [2, 6, 1]
    assert await without_x.heads(["x"]) == {"x": None}
    with pytest.raises(DocumentDeleted):
        await without_x.load("x")
    await without_x.undelete("x")
    assert (await without_x.load("x")).updates == (b"3", b"4", b"5", b"6")


async def test_late_snapshot_of_a_deleted_document_is_kept_and_does_not_bring_it_back(without_x: Store) -> None:
    passed_over = await without_x.checkpoint([snapshot("x", 4, b"all"), snapshot("y", 1)])

    assert passed_over == frozenset()
    assert await without_x.heads(["x"]) == {"x": None}
    await without_x.undelete("x")
    assert await without_x.load("x") == Stored(4, snapshot("x", 4, b"all"), ())


async def test_deleted_document_is_still_there_after_reopening(place: Place) -> None:
    first = place()
    await first.open()
    await first.append([entry("x", b"1")])
    await first.delete("x", at=LATER)
    await first.close()
    second = place()
    await second.open()

    try:
        assert await second.documents(deleted=True) == [DocumentHead("x", 1, LATER)]
    finally:
        await second.close()


async def test_purged_name_is_used_anew(without_x: Store) -> None:
    await without_x.quarantine("x", b"digest", at=NOW)
    await without_x.quarantine("y", b"digest", at=NOW)

    assert await without_x.purge("x")

    assert await without_x.load("x") == Stored(0, None, ())
    assert await without_x.heads(["x", "y"]) == {"y": 1}
    assert await without_x.documents(deleted=True) == []
    assert await without_x.export("x", deleted=True) is None
    assert await without_x.append([entry("x", b"new")]) == [1]
    assert await without_x.load("x") == Stored(1, None, (b"new",))
    assert await without_x.load("y") == Stored(1, None, (b"1",), frozenset([b"digest"]))


async def test_only_what_is_deleted_is_purged(filled: Store) -> None:
    before = await filled.export("x")

    purged = [await filled.purge(name) for name in ("x", "unknown")]

    assert purged == [False, False]
    assert await filled.export("x") == before
    await filled.delete("x", at=NOW)
    assert [await filled.purge("x"), await filled.purge("x"), await filled.undelete("x")] == [True, False, False]


async def test_late_snapshot_of_a_purged_document_leaves_nothing_behind(without_x: Store) -> None:
    await without_x.purge("x")

    with pytest.raises(StoreCorrupt, match="ahead"):
        await without_x.checkpoint([snapshot("x", 4)])

    assert await without_x.load("x") == Stored(0, None, ())
    assert [one.document for one in await without_x.stats()] == ["y"]


async def test_deleted_document_is_exported_if_that_will_do_and_put_as_deleted(without_x: Store) -> None:
    export = await without_x.export("x", deleted=True)
    assert export is not None
    await without_x.purge("x")

    await without_x.put(export)

    assert export == Export(
        "x", NOW, 4, snapshot("x", 2), (Row(3, b"3", None, NOW), Row(4, b"4", None, NOW)), deleted_at=LATER
    )
    assert await without_x.export("x", deleted=True) == export
    assert await without_x.documents() == [DocumentHead("y", 1)]


async def test_deleted_document_gives_way_to_a_deleted_one_if_told_to(without_x: Store) -> None:
    other = Export("x", NOW, 1, None, (Row(1, b"other", None, NOW),), deleted_at=NOW)

    with pytest.raises(DocumentExists):
        await without_x.put(other)
    await without_x.put(other, replace=True)

    assert await without_x.export("x", deleted=True) == other


async def test_deletions_and_purges_beside_appends_and_checkpoints_leave_whole_documents(
    store: Store, place: Place
) -> None:
    """Every document that can be read is one piece of the log, from its first update on."""
    other = place()
    if store.shared:
        await other.open()
    else:
        other = store
    done = asyncio.Event()

    async def write(store: Store) -> None:
        for _ in range(150):
            seqs = await store.append([entry("beside", b"b"), entry("x", b"a", b"b")])
            assert seqs[1] >= 2
        done.set()

    async def fold(store: Store) -> None:
        while not done.is_set():
            head = (await store.heads(["x"])).get("x")
            if head:
                with contextlib.suppress(StoreCorrupt):  # ahead of its log, if it was purged meanwhile
                    await store.checkpoint([snapshot("x", head)])

    async def remove(store: Store) -> None:
        for turn in range(10**6):
            if done.is_set():
                return
            await store.delete("x", at=NOW)
            if turn % 3 == 0:
                await store.undelete("x")
            await store.purge("x")

    async def read(store: Store) -> None:
        while not done.is_set():
            try:
                stored = await store.load("x")
            except DocumentDeleted:
                continue
            folded = stored.snapshot.seq if stored.snapshot else 0
            assert len(stored.updates) == stored.head_seq - folded

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for job, whose in (
            (write, store),
            (write, other),
            (fold, store),
            (fold, other),
            (remove, other),
            (read, store),
        ):
            tasks.create_task(job(whose))

    assert len((await store.load("beside")).updates) == 300
    await store.delete("x", at=NOW)
    await store.purge("x")
    assert await store.load("x") == Stored(0, None, ())
    if other is not store:
        await other.close()


async def test_documents_are_listed_page_by_page(store: Store) -> None:
    names = ["Z", "a", "a/b", "aa", "b", "ä", "\U0001f600"]
    await store.append([entry(name, b"1") for name in reversed(names)])
    await store.delete("aa", at=LATER)
    there = [name for name in names if name != "aa"]

    listed = [
        [head.name for head in await store.documents(start=start, limit=limit)]
        for start, limit in (("", 2), ("a/b", 2), ("a/b\x01", 2), ("aa", 100), ("\U0001f600\x01", 2), ("", 0))
    ]

    assert listed == [there[:2], ["a/b", "b"], ["b", "ä"], there[3:], [], []]
    assert [head.name for head in await store.documents(deleted=True, start="aa", limit=1)] == ["aa"]
    assert await store.documents(deleted=True, start="aa\x01", limit=1) == []
