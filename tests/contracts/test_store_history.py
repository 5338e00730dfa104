"""What every store promises of a document's past: its history and its versions. Runs against each of `STORES`."""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from persistence import (
    ArchivedVersion,
    Entry,
    Export,
    HistoryTrimmed,
    Row,
    Snapshot,
    Span,
    Store,
    StoreCorrupt,
    Stored,
    StoreUnavailable,
    Version,
    VersionContent,
    open_store,
)
from persistence.chunks import CHUNK_ROWS_MAX, CHUNK_UPDATE_BYTES_MAX
from persistence.versions import LABEL_BYTES_MAX, VERSION_USERS_MAX

from ..support.postgres import execute
from .conftest import Place

NOW = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)


def at(hours: float) -> datetime:
    return NOW + hours * HOUR


def entry(document: str, *updates: bytes, user_id: str | None = None, when: datetime = NOW) -> Entry:
    return Entry(document, updates, accepted_at=when, user_id=user_id)


def snapshot(document: str, seq: int, state: bytes = b"state", *, whole: bool = True) -> Snapshot:
    return Snapshot(document, seq=seq, state=state, waiting=(b"w",), state_vector=b"v", whole=whole)


def row(seq: int, user_id: str | None = None, when: datetime = NOW) -> Row:
    return Row(seq, b"u%d" % seq, user_id, when)


ROWS = [
    row(1, "ann", at(0)),
    row(2, "ann", at(0)),
    # Another node's clock is behind.
    row(3, None, at(-1)),
    row(4, "bob", at(2)),
    row(5, "ann", at(3)),
    row(6, "zoë 🧳", at(4)),
    row(7, None, at(4)),
]


async def write(store: Store, rows: Sequence[Row], document: str = "x") -> None:
    await store.append([entry(document, one.update, user_id=one.user_id, when=one.accepted_at) for one in rows])


@pytest.fixture
async def past(store: Store) -> Store:
    """A store with `x`, whose `ROWS` are in two chunks, up to 3 and to 5, and the log; and another, `y`."""
    await write(store, ROWS)
    await store.append([entry("y", b"other")])
    for seq in (3, 5):
        await store.checkpoint([snapshot("x", seq), snapshot("y", 1)])
    return store


async def take(
    store: Store,
    document: str = "x",
    *,
    when: datetime = NOW,
    label: str | None = None,
    unless_since: datetime | None = None,
) -> Version | None:
    return await store.take_version(document, at=when, kind="auto", label=label, unless_since=unless_since)


# ------------------------------------------------------------------------------------------------------------ the history


async def test_timeline_has_each_chunk_and_then_the_log(past: Store) -> None:
    assert await past.timeline("x") == [
        Span(1, 3, at(-1), at(0), ("ann", None), 6),
        Span(4, 5, at(2), at(3), ("ann", "bob"), 4),
        Span(6, 7, at(4), at(4), ("zoë 🧳", None), 4),
    ]


async def test_timeline_of_what_has_no_history(store: Store) -> None:
    await write(store, ROWS[:2])

    assert await store.timeline("x") == [Span(1, 2, NOW, NOW, ("ann",), 4)]
    assert await store.timeline("unknown") == []


async def test_folding_leaves_the_log_as_short_as_ever(past: Store) -> None:
    assert await past.load("x") == Stored(7, snapshot("x", 5), (b"u6", b"u7"))
    export = await past.export("x")
    assert export == Export("x", NOW, 7, snapshot("x", 5), tuple(ROWS[5:]))


@pytest.mark.parametrize(
    ("first", "last"), [(1, 7), (1, 1), (3, 3), (2, 4), (4, 5), (5, 6), (6, 7), (7, 7), (1, 99), (7, 99)]
)
async def test_rows_are_read_from_history_and_log_alike(past: Store, first: int, last: int) -> None:
    assert await past.rows("x", first=first, last=last) == ROWS[first - 1 : last]


@pytest.mark.parametrize(("document", "first", "last"), [("x", 5, 4), ("x", 8, 9), ("unknown", 1, 9), ("x", 1, 0)])
async def test_rows_that_there_are_none_of(past: Store, document: str, first: int, last: int) -> None:
    assert await past.rows(document, first=first, last=last) == []


async def test_snapshots_that_fold_nothing_leave_the_history_alone(past: Store) -> None:
    before = await past.timeline("x")

    await past.checkpoint([snapshot("x", 5, b"again")])
    await past.checkpoint([snapshot("x", 2, b"late")])

    assert await past.timeline("x") == before
    assert await past.rows("x", first=1, last=7) == ROWS


async def test_updates_of_any_bytes_and_users_of_any_script_come_back(store: Store) -> None:
    users = ["ann", "旅行", "a,b:c'd\"e\\", "", None, "-", "[1]", "🧳", "a" * 3000]
    updates = [b"", b"\0", bytes(range(256)), os.urandom(5_000), os.urandom(70_000), b"u" * 9]
    times = [NOW, at(-1e5), at(1e5), datetime(1970, 1, 1, tzinfo=UTC), datetime(1955, 1, 1, 0, 0, 0, 7, tzinfo=UTC)]
    rows = [
        Row(seq, updates[seq % len(updates)], users[seq % len(users)], times[seq % len(times)]) for seq in range(1, 271)
    ]
    await write(store, rows)

    await store.checkpoint([snapshot("x", 270)])

    assert await store.rows("x", first=1, last=270) == rows
    (span,) = await store.timeline("x")
    assert span.users == (*sorted(user for user in users if user is not None), None)
    assert (span.from_at, span.until_at) == (min(times), max(times))
    assert span.log_bytes == sum(len(one.update) for one in rows)


@pytest.mark.parametrize("name", ["trip-Zürich", "旅行", "🧳/a b?%2F#", "a,b:c'd\"e", "a" * 1000, "e\u0301"])
async def test_past_belongs_to_the_name_as_it_is(store: Store, name: str) -> None:
    await store.append([entry(name, b"mine"), entry("é", b"other"), entry("A" * 1000, b"other")])
    await store.checkpoint([snapshot(name, 1), snapshot("é", 1, b"not mine")])
    await take(store, name)

    assert [one.update for one in await store.rows(name, first=1, last=1)] == [b"mine"]
    content = await store.version(name, 1)
    assert content is not None
    assert content.snapshot == snapshot(name, 1)
    assert await store.versions("é") == []


async def test_many_rows_become_chunks_that_can_be_read_each(store: Store) -> None:
    count = CHUNK_ROWS_MAX * 2 + 7
    updates = [b"%d" % seq for seq in range(1, count + 1)]
    await store.append([entry("x", *updates), entry("y", b"other")])

    await store.checkpoint([snapshot("x", count), snapshot("y", 1)])

    spans = await store.timeline("x")
    assert len(spans) >= 3
    assert max(span.last_seq - span.first_seq for span in spans) < CHUNK_ROWS_MAX
    rows = await store.rows("x", first=1, last=count)
    assert [one.update for one in rows] == updates
    assert [one.seq for one in rows] == list(range(1, count + 1))
    assert [one.update for one in await store.rows("y", first=1, last=1)] == [b"other"]


async def test_large_updates_become_chunks_that_can_be_read_each(store: Store) -> None:
    updates = [os.urandom(CHUNK_UPDATE_BYTES_MAX // 3), *(os.urandom(CHUNK_UPDATE_BYTES_MAX + n) for n in range(2))]
    updates += [b"small", *(os.urandom(CHUNK_UPDATE_BYTES_MAX // 3) for _ in range(4))]
    await store.append([entry("x", *updates)])

    await store.checkpoint([snapshot("x", len(updates))])

    spans = await store.timeline("x")
    assert all(span.log_bytes <= CHUNK_UPDATE_BYTES_MAX or span.first_seq == span.last_seq for span in spans)
    assert len(spans) < len(updates)
    assert [one.update for one in await store.rows("x", first=1, last=99)] == updates


async def test_checkpoint_of_many_documents_keeps_the_history_of_each(store: Store) -> None:
    names = [f"trip-{n}" for n in range(300)]
    await store.append(
        [entry(name, *(f"{name} {n}".encode() for n in range(n % 7 + 1))) for n, name in enumerate(names)]
    )

    await store.checkpoint([snapshot(name, n % 7 + 1) for n, name in enumerate(names)])

    for n, name in list(enumerate(names))[::13]:
        rows = await store.rows(name, first=1, last=99)
        assert [one.update for one in rows] == [f"{name} {n}".encode() for n in range(n % 7 + 1)]


async def test_history_is_there_after_reopening(place: Place) -> None:
    first = place()
    await first.open()
    await write(first, ROWS)
    await first.checkpoint([snapshot("x", 4)])
    taken = await take(first, label="kept")
    timeline = await first.timeline("x")
    await first.close()
    second = place()
    await second.open()

    try:
        assert await second.timeline("x") == timeline
        assert await second.rows("x", first=1, last=7) == ROWS
        assert await second.versions("x") == [taken]
    finally:
        await second.close()


async def test_without_history_rows_are_dropped_with_what_was_kept_before_them(past: Store) -> None:
    await past.checkpoint([snapshot("x", 6)], keep_history=False)

    assert await past.load("x") == Stored(7, snapshot("x", 6), (b"u7",))
    assert [(span.first_seq, span.last_seq) for span in await past.timeline("x")] == [(7, 7)]
    assert await past.rows("x", first=7, last=7) == ROWS[6:]
    with pytest.raises(HistoryTrimmed, match="'x' begins at seq 7"):
        await past.rows("x", first=6, last=7)
    assert len(await past.rows("y", first=1, last=1)) == 1

    await past.checkpoint([snapshot("x", 7)])
    assert [(span.first_seq, span.last_seq) for span in await past.timeline("x")] == [(7, 7)]


async def test_late_snapshot_without_history_leaves_the_history_alone(past: Store) -> None:
    await past.checkpoint([snapshot("x", 2)], keep_history=False)

    assert await past.rows("x", first=1, last=7) == ROWS


@pytest.mark.parametrize(("upto", "kept_from"), [(0, 1), (2, 1), (3, 4), (4, 4), (5, 6), (99, 6)])
async def test_trimming_forgets_chunks_that_end_in_time(past: Store, upto: int, kept_from: int) -> None:
    assert await past.trim_history("x", upto=upto)

    assert (await past.timeline("x"))[0].first_seq == kept_from
    assert await past.rows("x", first=kept_from, last=7) == ROWS[kept_from - 1 :]
    assert len(await past.rows("y", first=1, last=1)) == 1
    if kept_from > 1:
        with pytest.raises(HistoryTrimmed, match=f"'x' begins at seq {kept_from}, after {kept_from - 1}"):
            await past.rows("x", first=kept_from - 1, last=7)


async def test_trimming_what_is_not_there_is_done(store: Store) -> None:
    assert await store.trim_history("unknown", upto=9)
    await store.append([entry("x", b"1")])
    assert await store.trim_history("x", upto=9)

    assert len(await store.rows("x", first=1, last=1)) == 1


async def test_two_nodes_that_trim_at_once_do_no_harm(past: Store, place: Place) -> None:
    other = place() if past.shared else past
    await other.open()

    done = await asyncio.gather(*(one.trim_history("x", upto=3) for one in (past, other, past, other)))

    assert any(done)
    assert await past.rows("x", first=4, last=7) == ROWS[3:]
    assert (await past.timeline("x"))[0].first_seq == 4
    if other is not past:
        await other.close()


async def test_a_log_that_grows_and_is_folded_never_shows_a_gap(store: Store, place: Place) -> None:
    other = place() if store.shared else store
    await other.open()
    end = 400
    done = asyncio.Event()

    async def append() -> None:
        for seq in range(1, end + 1, 4):
            await store.append([entry("x", *(b"u%d" % n for n in range(seq, seq + 4)))])
            await asyncio.sleep(0)
        done.set()

    async def fold(store: Store) -> None:
        while not done.is_set():
            head = (await store.heads(["x"])).get("x")
            if head:
                await store.checkpoint([snapshot("x", head, b"%d" % head)])

    async def take_versions(store: Store) -> None:
        while not done.is_set():
            version = await store.take_version("x", at=NOW, kind="auto", label="kept")
            if version is not None:
                content = await store.version("x", version.id)
                assert content is not None
                assert content.snapshot.state == b"%d" % version.seq == b"%d" % content.snapshot.seq

    async def watch(store: Store) -> None:
        while not done.is_set():
            head = (await store.heads(["x"])).get("x") or 0
            rows = await store.rows("x", first=1, last=head)
            assert [one.update for one in rows] == [b"u%d" % seq for seq in range(1, head + 1)]
            spans = await store.timeline("x")
            firsts, lasts = [span.first_seq for span in spans], [span.last_seq for span in spans]
            assert firsts == [1, *(last + 1 for last in lasts)][: len(firsts)]
            assert not head or lasts[-1] >= head

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(append())
        for job in (fold, take_versions, watch):
            for whose in (store, other):
                tasks.create_task(job(whose))

    assert [one.seq for one in await store.rows("x", first=1, last=end)] == list(range(1, end + 1))
    ids = [version.id for version in await store.versions("x")]
    assert ids == list(range(len(ids), 0, -1))
    if other is not store:
        await other.close()


# ------------------------------------------------------------------------------------------------------------ the versions


async def test_version_is_a_copy_of_the_snapshot(past: Store) -> None:
    taken = await past.take_version("x", at=at(5), kind="manual", label="Before Zürich 🧳", user_id="ann")
    # What comes later doesn't touch it.
    await past.checkpoint([snapshot("x", 7, b"later")])

    assert taken is not None
    assert taken == Version(
        1,
        5,
        at(5),
        "manual",
        "Before Zürich 🧳",
        "ann",
        users=("ann", "bob"),
        size_bytes=taken.size_bytes,
        whole=True,
    )
    assert await past.versions("x") == [taken]
    assert await past.version("x", 1) == VersionContent(taken, snapshot("x", 5))
    stats = {one.document: one for one in await past.stats()}
    assert (stats["x"].versions, stats["x"].version_bytes) == (1, taken.size_bytes)
    # Its 7 bytes, and a few that say how they are stored.
    assert 7 <= taken.size_bytes <= 7 + 16


async def test_large_version_is_stored_compressed(store: Store) -> None:
    state = b"".join(b"place %d is nice; " % i for i in range(20_000))
    await store.append([entry("x", b"1")])
    await store.checkpoint([snapshot("x", 1, state)])

    taken = await take(store)
    content = await store.version("x", 1)

    assert taken is not None
    assert taken.size_bytes < len(state) / 4
    assert content == VersionContent(taken, snapshot("x", 1, state))


async def test_unknown_versions_are_none(past: Store) -> None:
    await take(past)

    assert await past.version("x", 2) is None
    assert await past.version("unknown", 1) is None
    assert await past.versions("unknown") == []
    assert await past.versions("y") == []


async def test_what_has_no_snapshot_has_no_version(store: Store) -> None:
    await store.append([entry("x", b"1")])

    assert await take(store) is None
    assert await take(store, "unknown", label="kept") is None
    assert await store.versions("x") == []


@pytest.mark.parametrize("whole", [True, False])
async def test_snapshot_and_version_say_whether_they_are_whole(store: Store, whole: bool) -> None:
    await store.append([entry("x", b"1", b"2")])
    await store.checkpoint([snapshot("x", 1, whole=not whole)])
    await store.checkpoint([snapshot("x", 2, whole=whole)])

    taken = await take(store)

    assert (await store.load("x")).snapshot == snapshot("x", 2, whole=whole)
    assert taken is not None
    assert taken.whole == whole
    assert await store.version("x", 1) == VersionContent(taken, snapshot("x", 2, whole=whole))


async def test_second_version_of_a_seq_needs_a_label(past: Store) -> None:
    first = await take(past)

    again = await take(past, when=at(1))
    labelled = await take(past, when=at(2), label="mine")
    another = await take(past, when=at(3), label="another")
    last = await take(past, when=at(4))

    assert first is not None
    assert another is not None
    assert again is None
    # The one that was there has the label now.
    assert labelled == replace(first, label="mine")
    assert (another.id, another.label, another.taken_at) == (2, "another", at(3))
    assert last is None
    assert await past.versions("x") == [another, labelled]


async def test_label_goes_to_the_newest_version_of_its_seq_that_has_none(past: Store) -> None:
    await take(past, label="a")
    await take(past, label="b")
    await take(past, label="c")
    for id_ in (1, 2):
        await past.label_version("x", id_, None)

    labelled = await take(past, label="new")

    assert labelled is not None
    assert (labelled.id, labelled.label) == (2, "new")
    assert [(version.id, version.label) for version in await past.versions("x")] == [(3, "c"), (2, "new"), (1, None)]


async def test_label_of_another_seq_is_none_of_this_one(past: Store) -> None:
    await take(past)
    await past.checkpoint([snapshot("x", 7)])

    second = await take(past, label="mine")

    assert second is not None
    assert (second.id, second.seq) == (2, 7)
    assert [version.label for version in await past.versions("x")] == ["mine", None]


async def test_version_is_not_taken_again_too_soon(past: Store) -> None:
    await take(past, when=at(1))
    await past.checkpoint([snapshot("x", 7)])

    too_soon = [await take(past, when=at(2), unless_since=at(0), label=label) for label in (None, "mine")]
    in_time = await take(past, when=at(3), unless_since=at(1))

    assert too_soon == [None, None]
    assert in_time is not None
    assert [(version.id, version.taken_at) for version in await past.versions("x")] == [(2, at(3)), (1, at(1))]


async def test_two_nodes_that_take_a_version_at_once_make_one(past: Store, place: Place) -> None:
    other = place() if past.shared else past
    await other.open()

    taken = await asyncio.gather(*(take(one) for one in (past, other) * 5))

    assert len([version for version in taken if version is not None]) == 1
    assert len(await past.versions("x")) == 1
    if other is not past:
        await other.close()


async def test_version_names_the_users_since_the_one_before(store: Store) -> None:
    async def write_and_take(*users: str | None) -> tuple[str, ...]:
        await store.append([entry("x", b"u", user_id=user) for user in users])
        head = (await store.heads(["x"]))["x"]
        assert head is not None
        await store.checkpoint([snapshot("x", head)])
        taken = await take(store)
        assert taken is not None
        return taken.users

    assert await write_and_take("zoë", "ann", None, "ann") == ("ann", "zoë")
    assert await write_and_take("bob") == ("bob",)
    assert await write_and_take(None) == ()
    await store.append([entry("x", b"u", user_id="carl")])
    await store.checkpoint([snapshot("x", 7)])
    # Two chunks; and code points decide, as everywhere.
    assert await write_and_take("B", "a", "é", "🧳", "\uffff") == ("B", "a", "carl", "é", "\uffff", "🧳")
    await store.delete_versions("x", [4])
    assert await write_and_take("dora") == ("B", "a", "carl", "dora", "é", "\uffff", "🧳")


async def test_version_names_so_many_users_and_no_more(store: Store) -> None:
    users = [f"user-{n:04}" for n in range(VERSION_USERS_MAX + 20)]
    await store.append([entry("x", b"u", user_id=user) for user in reversed(users)])
    await store.checkpoint([snapshot("x", len(users))])

    taken = await take(store)

    assert taken is not None
    assert taken.users == tuple(users[:VERSION_USERS_MAX])


async def test_label_is_put_on_and_taken_off(past: Store) -> None:
    taken = await take(past)
    assert taken is not None

    put = await past.label_version("x", 1, "mine")
    labelled = await past.versions("x")
    taken_off = await past.label_version("x", 1, None)

    assert (put, taken_off) == (True, True)
    assert labelled == [replace(taken, label="mine")]
    assert await past.versions("x") == [taken]
    assert not await past.label_version("x", 2, "mine")
    assert not await past.label_version("unknown", 1, "mine")


async def test_deleted_versions_are_gone_and_their_ids_are_not_given_again(past: Store) -> None:
    for label in "abc":
        await take(past, label=label)
    await take(past, "y")

    deleted = [
        await past.delete_versions("x", [1, 3, 3, 99]),
        await past.delete_versions("x", [1]),
        await past.delete_versions("x", []),
        await past.delete_versions("unknown", [1]),
    ]

    assert deleted == [2, 0, 0, 0]
    assert [version.id for version in await past.versions("x")] == [2]
    assert await past.version("x", 3) is None
    new = await take(past, label="d")
    assert new is not None
    assert new.id == 4
    assert len(await past.versions("y")) == 1


@pytest.mark.parametrize("label", ["", "a\0b", "\ud800", "a" * (LABEL_BYTES_MAX + 1)])
async def test_label_that_some_store_could_not_keep_is_refused(past: Store, label: str) -> None:
    await take(past)

    with pytest.raises(ValueError, match=r"label|surrogates"):
        await take(past, label=label)
    with pytest.raises(ValueError, match=r"label|surrogates"):
        await past.label_version("x", 1, label)

    assert [version.label for version in await past.versions("x")] == [None]


async def test_version_needs_a_time_zone_and_a_kind_that_there_is(past: Store) -> None:
    with pytest.raises(ValueError, match="time zone"):
        await take(past, when=NOW.replace(tzinfo=None))
    with pytest.raises(ValueError, match="auto, manual, restore"):
        await past.take_version("x", at=NOW, kind="daily")  # type: ignore[arg-type]

    assert await past.versions("x") == []


async def test_moments_of_versions_are_kept_in_utc(past: Store) -> None:
    await take(past, when=at(1).astimezone())

    assert [version.taken_at for version in await past.versions("x")] == [at(1)]
    assert (await past.versions("x"))[0].taken_at.utcoffset() == timedelta()


# -------------------------------------------------------------------------------------------- deletion, copies, statistics


async def test_deleted_document_keeps_its_past(past: Store) -> None:
    taken = await take(past, label="kept")
    timeline = await past.timeline("x")
    assert taken is not None

    await past.delete("x", at=at(1))

    assert await past.timeline("x") == timeline
    assert await past.rows("x", first=1, last=7) == ROWS
    assert await past.versions("x") == [taken]
    assert await past.version("x", 1) == VersionContent(taken, snapshot("x", 5))
    assert await past.versioned() == ["x", "y"]
    await past.checkpoint([snapshot("x", 6)])
    assert await take(past) is not None
    await past.undelete("x")
    assert await past.rows("x", first=1, last=7) == ROWS
    assert [version.id for version in await past.versions("x")] == [2, 1]


async def test_purged_document_leaves_no_past(past: Store) -> None:
    await take(past)
    await take(past, "y")
    await past.delete("x", at=at(1))
    await past.purge("x")

    await past.append([entry("x", b"new")])

    assert await past.timeline("x") == [Span(1, 1, NOW, NOW, (None,), 3)]
    assert await past.rows("x", first=1, last=9) == [Row(1, b"new", None, NOW)]
    assert await past.versions("x") == []
    assert await past.versioned() == ["y"]
    await past.checkpoint([snapshot("x", 1, b"new")])
    taken = await take(past)
    assert taken is not None
    assert taken.id == 1
    assert len(await past.versions("y")) == 1


async def test_documents_with_a_past_are_listed_page_by_page(store: Store) -> None:
    names = ["Z", "a", "a/b", "aa", "b", "ä", "\U0001f600"]
    await store.append([entry(name, b"1") for name in (*reversed(names), "without")])
    await store.checkpoint([snapshot(name, 1) for name in names if name != "b"])
    await store.checkpoint([snapshot("b", 1), snapshot("without", 1)], keep_history=False)
    await take(store, "b")
    await take(store, "a")
    await store.delete("aa", at=NOW)

    listed = [
        await store.versioned(start=start, limit=limit)
        for start, limit in (("", 2), ("a/b", 2), ("a/b\x01", 2), ("aa", 100), ("\U0001f600\x01", 2), ("", 0))
    ]

    assert await store.versioned() == names
    assert listed == [names[:2], ["a/b", "aa"], ["aa", "b"], names[3:], [], []]


async def test_statistics_and_size_count_the_past(store: Store) -> None:
    updates = [os.urandom(1000) for _ in range(300)]
    await store.append([entry("x", *updates), entry("y", b"1")])
    await store.checkpoint([snapshot("x", 300, os.urandom(100_000))])
    before = await store.size_bytes()
    await take(store, label="a")
    await take(store, label="b")

    x, y = await store.stats()

    assert 300_000 <= x.history_bytes <= 310_000
    assert x.versions == 2
    assert 200_000 <= x.version_bytes <= 200_100
    assert (y.history_bytes, y.versions, y.version_bytes) == (0, 0, 0)
    assert await store.size_bytes() >= before + 200_000


@pytest.fixture
async def whole_past(past: Store) -> Export:
    """The `x` of `past` with all its past, and versions of all sorts."""
    await past.take_version("x", at=at(5), kind="manual", label="ä 🧳", user_id="ann")
    await past.checkpoint([snapshot("x", 6, b"6" * 70_000, whole=False)])
    await past.take_version("x", at=at(6), kind="restore")
    await take(past, label="deleted")
    await past.delete_versions("x", [2])
    await take(past, label="last")
    export = await past.export("x", history=True)
    assert export is not None
    return export


async def test_export_has_the_past_only_if_asked_for(past: Store, whole_past: Export) -> None:
    without = await past.export("x")

    assert without == replace(whole_past, chunks=(), versions=())
    assert [(chunk.first_seq, chunk.last_seq, chunk.users) for chunk in whole_past.chunks] == [
        (1, 3, ("ann", None)),
        (4, 5, ("ann", "bob")),
        (6, 6, ("zoë 🧳",)),
    ]
    assert [content.version.id for content in whole_past.versions] == [1, 3]
    assert [content.snapshot.state for content in whole_past.versions] == [b"state", b"6" * 70_000]


async def test_past_that_was_put_is_what_was_exported(past: Store, whole_past: Export) -> None:
    for deleted_at in (None, at(9)):
        await past.delete("x", at=NOW)
        await past.purge("x")

        await past.put(replace(whole_past, deleted_at=deleted_at))

        assert await past.export("x", history=True, deleted=True) == replace(whole_past, deleted_at=deleted_at)
        assert await past.rows("x", first=1, last=7) == ROWS
        assert await past.version("x", 3) == whole_past.versions[1]
        new = await take(past, label="new")
        assert new is not None
        assert new.id == 4


async def test_past_is_the_same_in_another_store(past: Store, whole_past: Export) -> None:
    there = open_store("memory://")
    await there.open()
    await there.put(whole_past)
    await past.delete("x", at=NOW)
    await past.purge("x")

    back = await there.export("x", history=True)
    assert back is not None
    await past.put(back)

    assert back == whole_past
    assert await past.export("x", history=True) == whole_past


async def test_document_that_gives_way_takes_its_past_along(past: Store, whole_past: Export) -> None:
    other = Export("x", NOW, 2, snapshot("x", 2), ())

    await past.put(other, replace=True)

    assert await past.export("x", history=True) == other
    assert await past.timeline("x") == []
    assert await past.versions("x") == []
    assert len(await past.rows("y", first=1, last=1)) == 1


# ----------------------------------------------------------------------------------------------------------- what is damaged


Run = Callable[..., list[tuple[object, ...]]]


@pytest.fixture
def run(place: Place, request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Runs a statement on the tables of a store in a database, behind its back."""
    if place().describe().startswith("PostgreSQL"):
        url = request.getfixturevalue("postgres_url")
        return lambda sql, *args: [
            tuple(one) for one in execute(url, sql.replace("document_", "crdt_sync.document_"), *args)
        ]

    def run_in_file(sql: str, *args: object) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(tmp_path / "store.db")) as connection, connection:
            return connection.execute(sql.replace("$", "?"), args).fetchall()

    return run_in_file


in_databases = pytest.mark.parametrize("place", ["sqlite", "postgres"], indirect=True)


def flips(blob: bytes) -> list[bytes]:
    """The blob with one bit flipped, here and there."""
    positions = sorted({*range(0, len(blob), 1 + len(blob) // 20), len(blob) - 1})
    return [blob[:at] + bytes([blob[at] ^ (1 << at % 8)]) + blob[at + 1 :] for at in positions]


@in_databases
@pytest.mark.parametrize("update", [b"u", b"".join(b"place %d " % n for n in range(500))], ids=["small", "compressed"])
async def test_a_flipped_bit_in_a_chunk_is_noticed(store: Store, run: Run, update: bytes) -> None:
    rows = [Row(seq, update, "ann", NOW) for seq in (1, 2)]
    await write(store, rows)
    await store.checkpoint([snapshot("x", 2)])
    ((blob,),) = run("SELECT blob FROM document_history")
    assert isinstance(blob, bytes)
    noticed = 0

    for flipped in flips(blob):
        run("UPDATE document_history SET blob = $1", flipped)
        try:
            assert await store.rows("x", first=1, last=2) == rows, "a bit that says nothing"
        except StoreCorrupt as error:
            noticed += "history of 'x'" in str(error)

    assert noticed >= len(flips(blob)) - 2
    run("UPDATE document_history SET blob = $1", blob[:3])
    with pytest.raises(StoreCorrupt, match="'x'"):
        await store.rows("x", first=1, last=2)
    # What isn't asked for is in nobody's way.
    assert len((await store.load("x")).updates) == 0
    assert len(await store.timeline("x")) == 1


@in_databases
@pytest.mark.parametrize("state", [b"s", b"".join(b"place %d " % n for n in range(500))], ids=["small", "compressed"])
@pytest.mark.parametrize("column", ["state", "waiting", "state_vector"])
async def test_a_flipped_bit_in_a_version_is_noticed(store: Store, run: Run, state: bytes, column: str) -> None:
    await store.append([entry("x", b"1")])
    await store.checkpoint([snapshot("x", 1, state)])
    await take(store)
    ((blob,),) = run(f"SELECT {column} FROM document_version")
    assert isinstance(blob, bytes)

    for flipped in (*flips(blob), blob + b"\0", b""):
        run(f"UPDATE document_version SET {column} = $1", flipped)
        with pytest.raises(StoreCorrupt, match="version 1 of 'x'"):
            await store.version("x", 1)
        with pytest.raises(StoreCorrupt, match="version 1 of 'x'"):
            await store.export("x", history=True)

    run(f"UPDATE document_version SET {column} = $1", blob)
    assert await store.version("x", 1) is not None
    assert (await store.load("x")).snapshot == snapshot("x", 1, state)


@in_databases
async def test_a_lost_chunk_and_a_lost_row_are_noticed(past: Store, run: Run) -> None:
    run("DELETE FROM document_history WHERE first_seq = 4")

    with pytest.raises(StoreCorrupt, match="update 4 of 'x' is missing, of those from 2 to 7"):
        await past.rows("x", first=2, last=7)
    assert await past.rows("x", first=1, last=3) == ROWS[:3]
    assert await past.rows("x", first=6, last=7) == ROWS[5:]

    run("DELETE FROM document_update WHERE seq = 6")
    with pytest.raises(StoreCorrupt, match="update 6 of 'x' is missing, of those from 6 to 7"):
        await past.rows("x", first=6, last=7)


@in_databases
async def test_a_chunk_in_the_place_of_another_is_noticed(past: Store, run: Run) -> None:
    run("UPDATE document_history SET blob = (SELECT blob FROM document_history WHERE first_seq = 4) WHERE last_seq = 3")

    with pytest.raises(StoreCorrupt, match="history of 'x' has other updates where 1 to 3 should be"):
        await past.rows("x", first=1, last=1)


@in_databases
async def test_rows_around_a_hole_in_the_log_are_kept_as_they_are(store: Store, run: Run) -> None:
    await write(store, ROWS)
    run("DELETE FROM document_update WHERE seq = 3")

    await store.checkpoint([snapshot("x", 5)])

    assert [(span.first_seq, span.last_seq) for span in await store.timeline("x")] == [(1, 2), (4, 5), (6, 7)]
    assert await store.rows("x", first=4, last=7) == ROWS[3:]
    with pytest.raises(StoreCorrupt, match="update 3 of 'x' is missing"):
        await store.rows("x", first=1, last=7)


@in_databases
async def test_checkpoint_whose_history_fails_changes_nothing(past: Store, run: Run) -> None:
    before = await past.export("x", history=True)
    run("ALTER TABLE document_history RENAME COLUMN log_bytes TO gone")

    with pytest.raises(StoreUnavailable, match="checkpoint of 1 documents failed"):
        await past.checkpoint([snapshot("x", 7)])

    run("ALTER TABLE document_history RENAME COLUMN gone TO log_bytes")
    assert await past.export("x", history=True) == before
    await past.checkpoint([snapshot("x", 7)])
    assert await past.rows("x", first=1, last=7) == ROWS


@in_databases
async def test_version_that_fails_changes_nothing(past: Store, run: Run) -> None:
    await take(past)
    run("ALTER TABLE document_version RENAME COLUMN digest TO gone")

    await past.label_version("x", 1, "mine")
    with pytest.raises(StoreUnavailable, match="taking a version of 'x' failed"):
        await take(past, label="another")

    run("ALTER TABLE document_version RENAME COLUMN gone TO digest")
    another = await take(past, label="another")
    assert another is not None
    assert another.id == 2


# ------------------------------------------------------------------------------------------------------- archived versions


async def test_archived_version_says_where_its_content_is_recognised_by(past: Store) -> None:
    taken = await take(past, label="old")
    assert taken is not None

    archived = await past.archive_version("x", taken, digest=b"digest")

    assert archived
    assert await past.version("x", 1) == ArchivedVersion(replace(taken, archived=True), b"digest")
    assert await past.versions("x") == [replace(taken, archived=True)]
    stats = {one.document: one for one in await past.stats()}
    assert (stats["x"].versions, stats["x"].version_bytes) == (1, 0)


async def test_version_is_archived_once_and_only_if_it_is_the_one_that_was_read(past: Store) -> None:
    taken = await take(past)
    assert taken is not None
    others = [replace(taken, id=2), replace(taken, seq=4), replace(taken, taken_at=at(1))]

    refused = [await past.archive_version("x", other, digest=b"other") for other in others]
    refused.append(await past.archive_version("y", taken, digest=b"other"))
    untouched = await past.version("x", 1)
    twice = [await past.archive_version("x", taken, digest=digest) for digest in (b"first", b"second")]

    assert refused == [False] * 4
    assert untouched == VersionContent(taken, snapshot("x", 5))
    assert twice == [True, False]
    assert await past.version("x", 1) == ArchivedVersion(replace(taken, archived=True), b"first")


async def test_archived_version_is_labelled_deleted_and_followed_like_any_other(past: Store) -> None:
    taken = await take(past)
    assert taken is not None
    await past.archive_version("x", taken, digest=b"digest")

    assert await past.label_version("x", 1, "mine")
    assert [(one.label, one.archived) for one in await past.versions("x")] == [("mine", True)]
    new = await take(past, label="new")
    assert new is not None
    assert (new.id, new.archived) == (2, False)
    assert await past.delete_versions("x", [1]) == 1
    assert await past.version("x", 1) is None


async def test_archived_version_goes_along_to_another_store(past: Store, whole_past: Export) -> None:
    await past.archive_version("x", whole_past.versions[0].version, digest=b"digest")
    export = await past.export("x", history=True)
    assert export is not None
    there = open_store("memory://")
    await there.open()
    await there.put(export)
    await past.put(export, replace=True)

    assert isinstance(export.versions[0], ArchivedVersion)
    assert await past.export("x", history=True) == await there.export("x", history=True) == export


@pytest.mark.parametrize("digest", [b"", b"x" * 65])
async def test_archived_version_needs_a_digest_of_a_sensible_size(past: Store, digest: bytes) -> None:
    taken = await take(past)
    assert taken is not None

    with pytest.raises(ValueError, match="a digest has 1 to 64 bytes"):
        await past.archive_version("x", taken, digest=digest)

    assert await past.version("x", 1) == VersionContent(taken, snapshot("x", 5))
