"""What every store promises to tools, and to servers that are no longer alone. Runs against each entry of `STORES`.

The second part is about stores that may not change everything: read-only ones, and those that may not migrate.
"""

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from persistence import (
    DocumentExists,
    DocumentHead,
    DocumentStats,
    Entry,
    Export,
    Revocation,
    Row,
    Schema,
    Snapshot,
    Store,
    Stored,
    StoreUnavailable,
    StoreUnusable,
    open_store,
)

from ..support.postgres import execute
from .conftest import Place

NOW = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
LATER = NOW + timedelta(days=300, microseconds=1)

EXPORTS = {
    "only a log": Export(
        "x",
        NOW,
        3,
        None,
        (Row(1, b"a", "ann", NOW), Row(2, b"", None, LATER), Row(3, b"\0\xff", "旅行 🧳", NOW)),
    ),
    "only a snapshot": Export("x", NOW, 7, Snapshot("x", seq=7, state=b"s", state_vector=b"v"), ()),
    "both, and waiting updates": Export(
        "trip-Zürich/🧳",
        NOW,
        9,
        Snapshot("trip-Zürich/🧳", seq=7, state=b"s" * 70_000, waiting=(b"w", b"", b"w2"), state_vector=b"v"),
        (Row(8, b"h", "ann", NOW), Row(9, b"i", None, LATER)),
    ),
    "a long log with large updates": Export(
        "x",
        NOW,
        5_000,
        None,
        tuple(
            Row(seq, b"u" * (70_000 if seq % 997 == 0 else seq % 40), None, NOW + timedelta(seconds=seq))
            for seq in range(1, 5_001)
        ),
    ),
}


def entry(document: str, *updates: bytes, at: datetime = NOW, user_id: str | None = None) -> Entry:
    return Entry(document, updates, accepted_at=at, user_id=user_id)


def snapshot(seq: int, *, state: bytes = b"s", waiting: tuple[bytes, ...] = ()) -> Snapshot:
    return Snapshot("x", seq=seq, state=state, waiting=waiting, state_vector=b"v")


@pytest.fixture
async def folded(store: Store) -> Store:
    """A store with a document of six updates, of which the first four are in a snapshot."""
    await store.append([entry("x", *(b"u%d" % seq for seq in range(1, 7)))])
    await store.checkpoint([snapshot(4)])
    return store


@pytest.mark.parametrize(
    ("after", "snapshot_seq", "updates"),
    [
        (0, 4, (b"u5", b"u6")),
        (3, 4, (b"u5", b"u6")),
        (4, None, (b"u5", b"u6")),
        (5, None, (b"u6",)),
        (6, None, ()),
        (7, None, ()),
    ],
)
async def test_load_after_a_seq_returns_what_the_caller_lacks(
    folded: Store, after: int, snapshot_seq: int | None, updates: tuple[bytes, ...]
) -> None:
    stored = await folded.load("x", after=after)

    assert stored == Stored(6, snapshot(snapshot_seq) if snapshot_seq else None, updates)


async def test_load_after_a_seq_without_any_snapshot(store: Store) -> None:
    await store.append([entry("x", b"u1", b"u2", b"u3")])

    assert await store.load("x", after=1) == Stored(3, None, (b"u2", b"u3"))
    assert await store.load("x", after=3) == Stored(3, None, ())


async def test_load_after_a_seq_of_an_unknown_document_is_empty(store: Store) -> None:
    assert await store.load("unknown", after=5) == Stored(0, None, ())
    assert await store.documents() == []


async def test_good_store_passes_its_check_and_is_not_changed_by_it(folded: Store) -> None:
    await folded.check()

    assert await folded.documents() == [DocumentHead("x", 6)]


async def test_closed_store_does_not_pass_its_check(store: Store) -> None:
    await store.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        await store.check()


async def test_schema_is_told_before_during_and_after(place: Place) -> None:
    store = place()

    before = await store.schema()
    await store.open()
    opened = await store.schema()
    await store.close()
    closed = await store.schema()

    known = before.known
    assert known >= 1
    assert opened == closed == Schema(known, known)
    # Memory has nothing to create.
    assert before.found == (known if store.describe().startswith("memory") else 0)


async def test_asking_for_the_schema_creates_nothing(place: Place, tmp_path: Path) -> None:
    store = place()

    first, second = await store.schema(), await store.schema()

    assert first == second
    assert list(tmp_path.iterdir()) == []


async def test_unknown_document_has_no_export(store: Store) -> None:
    assert await store.export("unknown") is None


async def test_export_has_everything_that_is_kept(store: Store) -> None:
    await store.append([entry("x", b"u1", user_id="ann"), entry("x", b"u2", b"u3", at=LATER, user_id="bob")])
    await store.append([entry("x", b"u4", at=LATER), entry("y", b"other")])
    await store.checkpoint([snapshot(2, waiting=(b"w", b""))])

    export = await store.export("x")

    assert export == Export(
        "x", NOW, 4, snapshot(2, waiting=(b"w", b"")), (Row(3, b"u3", "bob", LATER), Row(4, b"u4", None, LATER))
    )
    assert export is not None
    assert all(row.accepted_at.utcoffset() == timedelta() for row in export.rows)


@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
async def test_what_was_put_is_exported_and_loaded(store: Store, export: Export) -> None:
    await store.append([entry("another", b"mine")])

    await store.put(export)

    assert await store.export(export.document) == export
    assert await store.load(export.document) == Stored(
        export.head_seq, export.snapshot, tuple(row.update for row in export.rows)
    )
    assert (await store.load("another")).updates == (b"mine",)


@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
async def test_appends_go_on_where_what_was_put_ends(store: Store, export: Export) -> None:
    await store.put(export)

    seqs = await store.append([entry(export.document, b"new", b"newer")])

    assert seqs == [export.head_seq + 2]
    assert (await store.load(export.document, after=export.head_seq)).updates == (b"new", b"newer")


async def test_snapshots_go_on_where_what_was_put_ends(store: Store) -> None:
    await store.put(EXPORTS["only a log"])

    await store.checkpoint([snapshot(2)])

    assert await store.load("x") == Stored(3, snapshot(2), (b"\0\xff",))


async def test_put_refuses_a_document_that_is_there_and_changes_nothing(folded: Store) -> None:
    before = await folded.export("x")

    with pytest.raises(DocumentExists, match="'x'"):
        await folded.put(EXPORTS["only a log"])

    assert await folded.export("x") == before
    assert await folded.append([entry("x", b"u7")]) == [7]


@pytest.mark.parametrize("name", ["only a log", "only a snapshot"])
async def test_put_replaces_all_of_a_document_if_told_to(folded: Store, name: str) -> None:
    await folded.append([entry("y", b"other")])

    await folded.put(EXPORTS[name], replace=True)

    assert await folded.export("x") == EXPORTS[name]
    assert (await folded.load("y")).updates == (b"other",)


async def test_put_that_may_replace_needs_nothing_to_replace(store: Store) -> None:
    await store.put(EXPORTS["only a log"], replace=True)

    assert await store.export("x") == EXPORTS["only a log"]


@pytest.mark.parametrize("place", ["sqlite", "postgres"], indirect=True)
async def test_failed_put_leaves_what_was_there(folded: Store) -> None:
    before = await folded.export("x")
    one_seq_twice = Export("x", NOW, 2, None, (Row(1, b"a", None, NOW), Row(1, b"b", None, NOW)))

    with pytest.raises(StoreUnavailable, match="put of 'x' failed"):
        await folded.put(one_seq_twice, replace=True)

    assert await folded.export("x") == before


async def test_statistics_of_an_empty_store(store: Store) -> None:
    assert await store.stats() == []


async def test_statistics_count_what_is_kept(store: Store) -> None:
    await store.append([entry("x", b"123", b"45", at=LATER), entry("y", b"1")])
    await store.append([entry("x", b"6", at=NOW), entry("folded", b"1", b"2")])
    await store.checkpoint([Snapshot("folded", seq=2, state=b"state", waiting=(b"w",), state_vector=b"v")])

    folded, x, y = await store.stats()

    assert x == DocumentStats("x", 3, rows=3, log_bytes=6, snapshot_seq=0, snapshot_bytes=0, oldest_unfolded_at=NOW)
    assert y == DocumentStats("y", 1, rows=1, log_bytes=1, snapshot_seq=0, snapshot_bytes=0, oldest_unfolded_at=NOW)
    assert replace(folded, snapshot_bytes=0, history_bytes=0) == DocumentStats(
        "folded", 2, rows=0, log_bytes=0, snapshot_seq=2, snapshot_bytes=0, oldest_unfolded_at=None
    )
    # Its 7 bytes, and a few that say how they are stored.
    assert 7 <= folded.snapshot_bytes <= 7 + 16


async def test_statistics_follow_a_snapshot_and_what_comes_after(folded: Store) -> None:
    await folded.append([entry("x", b"u7", at=LATER)])
    await folded.checkpoint([snapshot(6)])

    (x,) = await folded.stats()

    assert (x.head_seq, x.rows, x.log_bytes, x.snapshot_seq) == (7, 1, 2, 6)
    assert x.oldest_unfolded_at == LATER


async def test_size_grows_with_what_is_stored(store: Store) -> None:
    before = await store.size_bytes()
    updates = [os.urandom(100_000) for _ in range(10)]

    await store.append([entry("x", *updates)])
    after = await store.size_bytes()

    assert 1_000_000 <= after - before <= 3_000_000


@pytest.fixture
def writer_and_reader(tmp_path: Path) -> tuple[Store, Store]:
    url = f"sqlite:///{tmp_path}/store.db"
    return open_store(url), open_store(url, read_only=True)


@pytest.fixture
async def writer(writer_and_reader: tuple[Store, Store]) -> AsyncIterator[Store]:
    writer = writer_and_reader[0]
    await writer.open()
    await writer.append([entry("x", b"u1", b"u2")])
    yield writer
    await writer.close()


@pytest.fixture
async def reader(writer: Store, writer_and_reader: tuple[Store, Store]) -> AsyncIterator[Store]:
    reader = writer_and_reader[1]
    await reader.open()
    yield reader
    await reader.close()


async def test_read_only_store_reads_beside_one_that_writes(writer: Store, reader: Store) -> None:
    await writer.append([entry("x", b"u3")])

    assert await reader.export("x") == await writer.export("x")
    assert await reader.stats() == await writer.stats()
    assert await reader.size_bytes() == await writer.size_bytes()
    assert await reader.schema() == await writer.schema()


async def test_writer_goes_on_and_closes_beside_a_reader(writer: Store, reader: Store) -> None:
    await reader.export("x")

    await writer.checkpoint([snapshot(2)])
    await writer.append([entry("x", b"u3")])
    await writer.close()

    assert await reader.load("x") == Stored(3, snapshot(2), (b"u3",))


async def test_server_can_start_beside_a_reader(writer: Store, writer_and_reader: tuple[Store, Store]) -> None:
    await writer.close()
    reader = writer_and_reader[1]
    await reader.open()
    await reader.export("x")

    await writer.open()
    await writer.append([entry("x", b"u3")])

    assert (await reader.load("x")).head_seq == 3
    await reader.close()
    assert await writer.append([entry("x", b"u4")]) == [4]


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.append([entry("x", b"lost")]),
        lambda store: store.checkpoint([snapshot(1)]),
        lambda store: store.put(EXPORTS["only a log"], replace=True),
        lambda store: store.check(),
        lambda store: store.delete("x", at=NOW),
        lambda store: store.take_version("x", at=NOW, kind="auto"),
        lambda store: store.trim_history("x", upto=1),
        lambda store: store.quarantine("x", b"digest", at=NOW),
        lambda store: store.revoke(Revocation("user", "ann", revoked_at=NOW, until=LATER)),
    ],
    ids=["append", "checkpoint", "put", "check", "delete", "take_version", "trim_history", "quarantine", "revoke"],
)
async def test_read_only_store_says_that_it_stores_nothing(
    writer: Store, reader: Store, change: Callable[[Store], object]
) -> None:
    before = await writer.export("x")

    with pytest.raises(StoreUnavailable, match="reading only"):
        await change(reader)  # type: ignore[misc]

    assert await writer.export("x") == before
    assert await reader.export("x") == before


@pytest.mark.parametrize(
    ("options", "advice"), [({"read_only": True}, "check the path"), ({"migrate": False}, "crdt-sync migrate")]
)
async def test_missing_file_is_refused_and_not_created(tmp_path: Path, options: dict[str, bool], advice: str) -> None:
    store = open_store(f"sqlite:///{tmp_path}/missing.db", **options)  # type: ignore[arg-type]

    with pytest.raises(StoreUnusable, match=advice):
        await store.open()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"read_only": True}, {"migrate": False}], ids=["read_only", "no migrate"])
async def test_empty_file_is_refused_and_stays_empty(tmp_path: Path, options: dict[str, bool]) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    store = open_store(f"sqlite:///{path}", **options)  # type: ignore[arg-type]

    with pytest.raises(StoreUnusable, match="crdt-sync migrate"):
        await store.open()

    assert path.read_bytes() == b""
    assert (await store.schema()).found == 0


@pytest.mark.parametrize("options", [{"read_only": True}, {"migrate": False}], ids=["read_only", "no migrate"])
async def test_empty_postgresql_is_refused_and_stays_empty(postgres_url: str, options: dict[str, bool]) -> None:
    store = open_store(postgres_url, **options)  # type: ignore[arg-type]

    with pytest.raises(StoreUnusable, match="crdt-sync migrate"):
        await store.open()

    assert (await store.schema()).found == 0
    assert execute(postgres_url, "SELECT FROM pg_namespace WHERE nspname = 'crdt_sync'") == []


@pytest.mark.parametrize("place", ["sqlite", "postgres"], indirect=True)
async def test_store_that_may_not_migrate_works_once_somebody_did(
    store: Store, place: Place, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    postgres = store.describe().startswith("PostgreSQL")
    url = request.getfixturevalue("postgres_url") if postgres else f"sqlite:///{tmp_path}/store.db"
    await store.close()
    careful = open_store(url, migrate=False)

    await careful.open()
    seqs = await careful.append([entry("x", b"a")])
    await careful.close()

    assert seqs == [1]
