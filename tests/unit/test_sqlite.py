"""What only the SQLite store promises: its file, its lock, and its failures."""

import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from persistence import (
    Entry,
    HistoryTrimmed,
    Schema,
    Snapshot,
    StoreCorrupt,
    Stored,
    StoreUnavailable,
    StoreUnusable,
    open_store,
    sqlite_file,
)
from persistence.sqlite import SqliteStore, _append
from persistence.sqlite_file import MIGRATIONS

NOW = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)


def entry(document: str, *updates: bytes, user_id: str | None = None) -> Entry:
    return Entry(document, updates, accepted_at=NOW, user_id=user_id)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    await store.open()
    yield store
    await store.close()


def execute(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql).fetchall()


def script(code: str, path: Path) -> "subprocess.Popen[str]":
    prelude = (
        "import asyncio, os, resource, sys\nfrom datetime import UTC, datetime\nfrom persistence import *\n"
        "def entry(*updates): return Entry('x', updates, accepted_at=datetime.now(UTC))\n"
        "store = open_store('sqlite:///' + sys.argv[1])\n"
    )
    command = [sys.executable, "-c", prelude + code, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


async def test_relative_path_is_relative_to_where_the_store_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///a b%20#.db")
    monkeypatch.chdir("/")

    await store.open()
    await store.close()

    assert store.describe() == f"SQLite database {tmp_path}/a b%20#.db"
    assert (tmp_path / "a b%20#.db").exists()


async def test_rows_say_who_wrote_what_and_when(store: SqliteStore, path: Path) -> None:
    await store.append([entry("x", b"a", user_id="ann"), entry("x", b"b")])

    rows = execute(path, 'SELECT seq, user_id, accepted_at, "update" FROM document_update ORDER BY seq')

    us = int(NOW.timestamp()) * 1_000_000 + 123456
    assert rows == [(1, "ann", us, b"a"), (2, None, us, b"b")]


async def test_every_commit_is_flushed(store: SqliteStore) -> None:
    await store.append([entry("x", b"a")])

    def settings() -> list[object]:
        connection = store._writer._connection
        assert connection is not None
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]

    assert await store._run(0, settings) == ["wal", 2]


async def test_append_takes_few_statements_however_many_rows() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(MIGRATIONS[0])
    statements: list[str] = []
    connection.set_trace_callback(statements.append)

    _append(connection, [entry(f"d{i}", *[b"u"] * 10) for i in range(100)])

    assert len(statements) <= 2 * 3 + 8  # documents 64 + 32 + 4, rows 3 × 256 + 128 + 64 + 32 + 8


@pytest.mark.parametrize("statement", ["PRAGMA user_version = 99", "PRAGMA application_id = 7"])
async def test_newer_or_foreign_database_is_refused_and_left_as_it_is(path: Path, statement: str) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()
    execute(path, statement)
    before = path.read_bytes()

    with pytest.raises(StoreUnusable, match=r"newer crdt-sync|another program"):
        await store.open()

    assert path.read_bytes() == before


async def test_database_of_another_program_is_refused_and_left_as_it_is(path: Path) -> None:
    execute(path, "CREATE TABLE accounts (id)")
    before = path.read_bytes()

    with pytest.raises(StoreUnusable, match="another program"):
        await SqliteStore(path).open()

    assert path.read_bytes() == before


async def test_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_text("Dear diary, " * 1000)

    with pytest.raises(StoreUnusable, match="not a SQLite database"):
        await SqliteStore(path).open()

    assert path.read_text() == "Dear diary, " * 1000


@pytest.mark.parametrize("found", [1, 2])
async def test_database_of_an_older_release_is_brought_up_to_date(path: Path, found: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.executescript(f"{' '.join(MIGRATIONS[:found])} PRAGMA user_version = {found};")
        old.execute(f"PRAGMA application_id = {sqlite_file.APPLICATION_ID}")
        old.execute("INSERT INTO document VALUES (7, 'x', 4, 0, NULL)")
        old.execute("INSERT INTO document_snapshot VALUES (7, 2, 0, x'76', x'', x'73')")
        old.execute("INSERT INTO document_update VALUES (7, 3, 'ann', 1, x'63'), (7, 4, NULL, 2, x'64')")
    before = await SqliteStore(path).schema()
    with pytest.raises(StoreUnusable, match=f"has schema {found}, this version needs 3: run crdt-sync migrate"):
        await SqliteStore(path, migrate=False).open()

    store = SqliteStore(path)
    await store.open()

    assert (before, await store.schema()) == (Schema(found, 3), Schema(3, 3))
    folded = Snapshot("x", seq=2, state=b"s", state_vector=b"v", whole=False)
    assert await store.load("x") == Stored(4, folded, (b"c", b"d"))
    await store.quarantine("x", b"digest", at=NOW)
    assert [(span.first_seq, span.last_seq) for span in await store.timeline("x")] == [(3, 4)]
    assert await store.versioned() == []
    taken = await store.take_version("x", at=NOW, kind="auto")
    assert taken is not None
    assert (taken.id, taken.seq, taken.whole) == (1, 2, False)
    await store.checkpoint([Snapshot("x", seq=4, state=b"s", state_vector=b"v")])
    assert [row.update for row in await store.rows("x", first=3, last=4)] == [b"c", b"d"]
    with pytest.raises(HistoryTrimmed, match="begins at seq 3"):
        await store.rows("x", first=2, last=4)
    assert await store.delete("x", at=NOW)
    await store.close()


async def test_purge_leaves_no_row_behind(store: SqliteStore, path: Path) -> None:
    await store.append([entry("x", b"a", b"b"), entry("y", b"a")])
    await store.checkpoint([Snapshot(name, seq=1, state=b"s", state_vector=b"v") for name in "xy"])
    await store.quarantine("x", b"digest", at=NOW)
    await store.take_version("x", at=NOW, kind="auto")
    await store.delete("x", at=NOW)

    await store.purge("x")

    counts = {
        "document": 1,
        "document_update": 0,
        "document_snapshot": 1,
        "document_history": 1,
        "document_version": 0,
        "quarantined_update": 0,
    }
    assert {table: execute(path, f"SELECT count(*) FROM {table}")[0][0] for table in counts} == counts


async def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="/nowhere does not exist"):
        await SqliteStore(tmp_path / "nowhere" / "store.db").open()


async def test_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="is a folder"):
        await SqliteStore(tmp_path).open()


async def test_second_server_is_refused_until_the_first_has_closed(store: SqliteStore, path: Path) -> None:
    (path.parent / "link.db").symlink_to(path)
    second = SqliteStore(path.parent / "link.db")

    with pytest.raises(StoreUnusable, match="in use by another server"):
        await second.open()
    await store.close()
    await second.open()

    assert (await second.load("x")).head_seq == 0
    await second.close()


async def test_refused_open_holds_nothing(path: Path) -> None:
    path.write_text("Dear diary, " * 1000)
    with pytest.raises(StoreUnusable):
        await SqliteStore(path).open()
    path.unlink()

    store = SqliteStore(path)
    await store.open()

    await store.close()


async def test_kill_9_keeps_every_append_that_returned(path: Path) -> None:
    code = """
async def main():
    await store.open()
    n = 0
    while True:
        n += 1
        print((await store.append([entry(b"%d" % n)]))[0], flush=True)
        if n % 7 == 0:
            state = b"%d" % n
            await store.checkpoint([Snapshot("x", seq=n, state=state, state_vector=b"")])
asyncio.run(main())
"""
    process = script(code, path)
    assert process.stdout is not None
    for line in process.stdout:
        returned = int(line)
        if returned == 100:
            process.send_signal(signal.SIGKILL)
    process.wait()

    store = SqliteStore(path)
    await store.open()  # the dead server's lock is gone, too
    stored = await store.load("x")
    past = await store.rows("x", first=1, last=stored.head_seq)
    await store.close()

    assert stored.head_seq in (returned, returned + 1)
    assert [row.update for row in past] == [b"%d" % n for n in range(1, stored.head_seq + 1)]
    folded = int(stored.snapshot.state) if stored.snapshot else 0
    assert stored.updates == tuple(b"%d" % n for n in range(folded + 1, stored.head_seq + 1))


async def test_locked_database_is_unavailable_and_works_after_release(store: SqliteStore, path: Path) -> None:
    await store.append([entry("x", b"a")])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(StoreUnavailable, match="append of 2 updates failed: database is locked"):
            await store.append([entry("x", b"b", b"c")])
        meanwhile = await store.load("x")

    assert meanwhile == Stored(head_seq=1, snapshot=None, updates=(b"a",))
    assert await store.append([entry("x", b"b", b"c")]) == [3]


async def test_full_disk_stores_nothing_and_works_again_when_there_is_room(path: Path) -> None:
    # A limit on the size of files: write() fails in the middle of the WAL, as it does on a full disk.
    code = """
async def main():
    await store.open()
    await store.append([entry(b"a")])
    room = os.stat(sys.argv[1] + "-wal").st_size + 20_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    for _ in range(3):
        try:
            await store.append([entry(b"lost"), entry(bytes(300_000))])
        except StoreUnavailable as error:
            print(type(error.__cause__).__name__)
    print((await store.load("x")).updates)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(await store.append([entry(b"b"), entry(bytes(300_000))]))
    print([len(u) for u in (await store.load("x")).updates])
    await store.close()
asyncio.run(main())
"""
    process = script(code, path)
    output, _ = await asyncio.to_thread(process.communicate, timeout=60)

    assert output.splitlines() == ["OperationalError"] * 3 + ["(b'a',)", "[2, 3]", "[1, 1, 300000]"]


async def test_full_disk_during_a_checkpoint_leaves_the_log_as_it_was(path: Path) -> None:
    code = """
async def main():
    await store.open()
    updates = [os.urandom(1000) for _ in range(300)]
    await store.append([entry(*updates)])
    snapshot = Snapshot("x", seq=300, state=b"s", state_vector=b"v")
    room = os.stat(sys.argv[1] + "-wal").st_size + 100_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        await store.checkpoint([snapshot])
    except StoreUnavailable as error:
        print(type(error.__cause__).__name__)
    print((await store.load("x")).updates == tuple(updates), len(await store.timeline("x")))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.checkpoint([snapshot])
    rows = await store.rows("x", first=1, last=300)
    print((await store.load("x")).updates, [row.update for row in rows] == updates, len(await store.timeline("x")))
    await store.close()
asyncio.run(main())
"""
    process = script(code, path)
    output, _ = await asyncio.to_thread(process.communicate, timeout=60)

    assert output.splitlines() == ["OperationalError", "True 1", "() True 1"]


async def test_snapshot_that_reads_back_different_changes_nothing(store: SqliteStore, path: Path) -> None:
    await store.append([entry("x", b"a", b"b"), entry("y", b"a")])
    execute(
        path,
        "CREATE TRIGGER bit_rot AFTER INSERT ON document_snapshot WHEN new.state = x'7878' "
        "BEGIN UPDATE document_snapshot SET state = x'7879' WHERE document_id = new.document_id; END",
    )

    with pytest.raises(StoreCorrupt, match="read back different"):
        await store.checkpoint(
            [
                Snapshot("y", seq=1, state=b"fine", state_vector=b"v"),
                Snapshot("x", seq=2, state=b"xx", state_vector=b"v"),
            ]
        )

    assert await store.load("x") == Stored(head_seq=2, snapshot=None, updates=(b"a", b"b"))
    assert await store.load("y") == Stored(head_seq=1, snapshot=None, updates=(b"a",))


async def test_checkpoint_leaves_exactly_the_rows_after_it(store: SqliteStore, path: Path) -> None:
    await store.append([entry("x", b"a", b"b", b"c", b"d"), entry("y", b"a")])
    await store.checkpoint([Snapshot("x", seq=1, state=b"a", state_vector=b"v")])

    await store.checkpoint([Snapshot("x", seq=3, state=b"abc", state_vector=b"v")])

    rows = execute(path, "SELECT name, seq FROM document_update JOIN document ON id = document_id ORDER BY name")
    assert rows == [("x", 4), ("y", 1)]


async def test_log_with_a_hole_is_refused_rather_than_shown(store: SqliteStore, path: Path) -> None:
    await store.append([entry("x", b"a", b"b", b"c")])
    execute(path, "DELETE FROM document_update WHERE seq = 2")

    with pytest.raises(StoreCorrupt, match="update 2 of 'x' is missing"):
        await store.load("x")


async def test_snapshot_with_cut_waiting_updates_is_refused(store: SqliteStore, path: Path) -> None:
    await store.append([entry("x", b"a")])
    await store.checkpoint([Snapshot("x", seq=1, state=b"", waiting=(b"abc",), state_vector=b"")])
    execute(path, "UPDATE document_snapshot SET waiting = x'0000000361'")

    with pytest.raises(StoreCorrupt, match="inside an update"):
        await store.load("x")


def unlink(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    path.rename(path.with_suffix(".old"))
    path.write_bytes(path.with_suffix(".old").read_bytes())


async def test_the_check_notices_a_full_disk(store: SqliteStore, path: Path) -> None:
    await store.append([entry("x", b"a")])
    full = Path(f"{path}-wal").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    await store.check()
    resource.setrlimit(resource.RLIMIT_FSIZE, (full, hard))
    try:
        with pytest.raises(StoreUnavailable, match="check failed"):
            await store.check()
        with pytest.raises(StoreUnavailable):
            await store.append([entry("x", b"b")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    await store.check()
    assert await store.append([entry("x", b"b")]) == [2]


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("remove", [unlink, replace])
async def test_removed_file_is_noticed(
    store: SqliteStore, path: Path, remove: Callable[[Path], None], suffix: str
) -> None:
    await store.append([entry("x", b"a")])
    remove(Path(f"{path}{suffix}"))

    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="removed or replaced"):
            await store.append([entry("x", b"b")])


async def test_file_removed_during_the_commit_is_noticed(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append([entry("x", b"a")])
    check = store._file.check_in_place

    def check_then_remove() -> None:
        check()
        path.unlink()

    monkeypatch.setattr(store._file, "check_in_place", check_then_remove)

    with pytest.raises(StoreUnavailable, match="removed or replaced"):
        await store.append([entry("x", b"b")])


async def test_file_that_is_put_back_is_used_again(store: SqliteStore, path: Path) -> None:
    await store.append([entry("x", b"a")])
    path.rename(path.with_suffix(".away"))
    with pytest.raises(StoreUnavailable, match="removed or replaced"):
        await store.append([entry("x", b"b")])
    path.with_suffix(".away").rename(path)

    seqs = await store.append([entry("x", b"b")])

    assert seqs == [2]
    assert (await store.load("x")).updates == (b"a", b"b")


async def test_removed_wal_loses_nothing_once_the_server_has_closed(store: SqliteStore, path: Path) -> None:
    await store.append([entry("x", b"a")])
    Path(f"{path}-wal").unlink()
    with pytest.raises(StoreUnavailable, match="removed or replaced"):
        await store.append([entry("x", b"b")])
    await store.close()

    await store.open()

    assert (await store.load("x")).updates == (b"a",)


async def test_broken_connection_is_made_anew(store: SqliteStore) -> None:
    await store.append([entry("x", b"a")])

    def break_it() -> None:
        assert store._writer._connection is not None
        store._writer._connection.close()

    await store._run(0, break_it)

    with pytest.raises(StoreUnavailable, match="closed database"):
        await store.append([entry("x", b"b")])
    assert await store.append([entry("x", b"b")]) == [2]


async def test_wal_stays_bounded(store: SqliteStore, path: Path) -> None:
    wal = Path(f"{path}-wal")
    for _ in range(200):
        await store.append([entry("x", os.urandom(100_000))])
    after_many = wal.stat().st_size
    await store.append([entry("y", os.urandom(30 << 20))])
    for _ in range(2):
        await store.append([entry("x", b"a")])

    assert after_many < 6 << 20
    assert wal.stat().st_size <= 16 << 20


async def test_close_waits_for_what_is_under_way(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    tasks = [asyncio.create_task(store.append([entry("x", b"a" * 10_000)])) for _ in range(20)]
    await asyncio.sleep(0)

    await store.close()

    assert [await task for task in tasks] == [[n] for n in range(1, 21)]


async def test_append_whose_caller_is_cancelled_runs_to_its_end(store: SqliteStore) -> None:
    tasks = [asyncio.create_task(store.append([entry("x", b"a")])) for _ in range(20)]
    await asyncio.sleep(0)

    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert await store.append([entry("x", b"b")]) == [21]


async def test_cancelled_open_can_be_closed_and_opened_again(path: Path) -> None:
    store = SqliteStore(path)
    task = asyncio.create_task(store.open())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await store.open()

    assert await store.append([entry("x", b"a")]) == [1]
    await store.close()
