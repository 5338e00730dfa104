"""The commands that look after stored documents, as they are called: exit codes, what is printed, what is changed."""

import argparse
import asyncio
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crdt_sync import cli
from crdt_sync.document import Document
from crdt_sync.tables import age, printable
from persistence import (
    Chunk,
    Entry,
    Export,
    Quarantined,
    Revocation,
    Row,
    Snapshot,
    Store,
    StoreUnavailable,
    Version,
    VersionContent,
)
from persistence.memory import MemoryStore
from persistence.sqlite import SqliteStore
from tests.support.clients import NodeClients
from tests.support.command import Result, content, fill, run_outside, with_store
from tests.support.database import stored_updates
from tests.support.fakes import Editor, typed
from tests.support.postgres import execute
from tests.support.server import ServerProcess
from tests.support.yjs import Yjs

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
NOBODY = "postgresql://ann:s3cret@127.0.0.1:1/trips"

TRIP = Export("trip-1", NOW, 3, None, tuple(Row(n, b"update %d" % n, "ann", NOW) for n in (1, 2, 3)))
ZURICH = Export(
    "旅行/Zürich 🧳 #%2F",
    NOW,
    9,
    Snapshot("旅行/Zürich 🧳 #%2F", seq=7, state=b"state" * 9_000, waiting=(b"w", b"", b"w2"), state_vector=b"v"),
    (Row(8, b"", None, NOW + timedelta(microseconds=1)), Row(9, b"\0\xff", "bøb 🧳", NOW)),
)
PAST = Export(
    "past",
    NOW,
    2,
    Snapshot("past", seq=2, state=b"s", state_vector=b"v", whole=False),
    (),
    chunks=(Chunk(1, 2, NOW, NOW, ("ann", None), 2, b"as it is."),),
    versions=(
        VersionContent(
            Version(3, 1, NOW, "manual", "Zürich", "ann", users=("ann",), size_bytes=8, whole=True),
            Snapshot("past", seq=1, state=b"s", waiting=(b"w",), state_vector=b"v"),
        ),
    ),
)
FOLDED = Export("folded", NOW, 2, Snapshot("folded", seq=2, state=b"s", state_vector=b"v"), ())
TRIPS = (FOLDED, TRIP, ZURICH)


Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CRDT_SYNC_") and "_TEST_" not in name]:
        monkeypatch.delenv(name)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `crdt-sync` in this process."""
    monkeypatch.setattr("crdt_sync.logs.configure", lambda *_: None)

    def run(*arguments: str | Path) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        code = ended.value.code
        assert isinstance(code, int)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/trips.db"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


def make_newer(url: str) -> None:
    fill(url)
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database, database:
            database.execute("PRAGMA user_version = 99")
    else:
        execute(url, "INSERT INTO crdt_sync.migration (version) VALUES (99)")


# ------------------------------------------------------------------------------------------------------- migrate


def test_migrate_creates_the_schema_and_says_so(run: Run, url: str) -> None:
    first = run("migrate", "--database", url)
    second = run("migrate", "--database", url)

    assert (first.code, first.err) == (0, "")
    assert first.out.endswith(": schema 0 -> 3\n")
    assert (second.code, second.err) == (0, "")
    assert second.out.endswith(": up to date (schema 3)\n")


def test_migrate_is_for_those_whose_servers_may_not(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDT_SYNC_DATABASE_MIGRATE", "false")
    monkeypatch.setenv("CRDT_SYNC_DATABASE_URL", url)

    assert run("migrate").out.endswith(": schema 0 -> 3\n")


def test_migrate_check_says_what_is_to_be_done_and_changes_nothing(run: Run, url: str, tmp_path: Path) -> None:
    pending = [run("migrate", "--check", "--database", url) for _ in range(2)]
    left = list(tmp_path.iterdir())
    run("migrate", "--database", url)
    done = run("migrate", "--check", "--database", url)

    assert [one.code for one in pending] == [1, 1]
    assert all("has schema 0, this version needs 3: run crdt-sync migrate\n" in one.err for one in pending)
    assert left == []
    assert (done.code, done.err) == (0, "")
    assert "up to date" in done.out


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_migrate_refuses_a_newer_schema(run: Run, url: str, options: tuple[str, ...]) -> None:
    make_newer(url)

    result = run("migrate", *options, "--database", url)

    assert (result.code, result.out) == (1, "")
    assert "has schema 99, this version knows up to 3: run the newer crdt-sync again" in result.err


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_migrate_says_when_a_database_can_not_be_used(run: Run, tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "other.db").write_bytes(b"not a database" * 100)

    foreign = run("migrate", *options, "--database", f"sqlite:///{tmp_path}/other.db")
    away = run("migrate", *options, "--database", NOBODY)
    nonsense = run("migrate", *options, "--database", "mongodb://ann:s3cret@host/trips")

    assert [(one.code, one.out, one.err.count("\n")) for one in (foreign, away, nonsense)] == [(1, "", 1)] * 3
    assert "is not a SQLite database" in foreign.err
    assert "PostgreSQL database trips at 127.0.0.1:1" in away.err
    assert "use postgresql://, sqlite:///file.db" in nonsense.err
    assert "s3cret" not in away.err + nonsense.err


def test_migrate_needs_no_replica(run: Run, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDT_SYNC_DATABASE_URL", postgres_url)
    monkeypatch.setenv("CRDT_SYNC_DATABASE_REPLICA_URL", NOBODY)

    assert run("migrate").code == 0


# ------------------------------------------------------------------------------------------------------- stats


def test_stats_show_the_largest_documents_first_and_the_sums(run: Run, url: str) -> None:
    fill(url, *TRIPS)

    result = run("store", "stats", "--database", url)

    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["document", "旅行/Zürich", "trip-1", "folded"]
    assert lines[2].split()[1:6] == ["3", "3", "24", "bytes", "-"]
    assert lines[3].split()[1:4] == ["2", "0", "0"]
    assert re.search(r"documents +3 *\n +logs +5 rows, 26 bytes *\n", result.out)
    assert f"oldest unfolded update {age(NOW, datetime.now(UTC))} ago" in result.out


def test_stats_stop_at_the_limit_and_say_how_many_more_there_are(run: Run, sqlite_url: str) -> None:
    fill(sqlite_url, *TRIPS)

    result = run("store", "stats", "--database", sqlite_url, "--limit", "1")

    assert "Zürich" in result.out
    assert "trip-1" not in result.out
    assert "… and 2 more: --limit 3 shows them all" in result.out
    assert re.search(r"documents +3 *\n", result.out)


def test_stats_in_json_have_everything(run: Run, url: str) -> None:
    fill(url, *TRIPS)

    result = run("store", "stats", "--database", url, "--json", "--limit", "1")

    found = json.loads(result.out)
    by_name = {one["document"]: one for one in found["documents"]}
    assert list(by_name) == sorted(by_name)
    assert set(by_name) == {export.document for export in TRIPS}
    assert by_name["trip-1"] == {
        "document": "trip-1",
        "head_seq": 3,
        "rows": 3,
        "log_bytes": 24,
        "snapshot_seq": 0,
        "snapshot_bytes": 0,
        "oldest_unfolded_at": "2026-05-04T03:02:01.123456+00:00",
        "deleted_at": None,
        "history_bytes": 0,
        "versions": 0,
        "version_bytes": 0,
    }
    assert by_name["folded"]["oldest_unfolded_at"] is None
    totals = found["totals"]
    assert (totals["documents"], totals["rows"], totals["log_bytes"]) == (3, 5, 26)
    assert totals["oldest_unfolded_at"] == "2026-05-04T03:02:01.123456+00:00"
    assert totals["disk_bytes"] > 0
    assert found["store"].startswith(("SQLite database", "PostgreSQL database"))


def test_stats_say_what_is_deleted(run: Run, url: str) -> None:
    fill(url, FOLDED, replace(TRIP, deleted_at=NOW))

    table = run("store", "stats", "--database", url)
    found = json.loads(run("store", "stats", "--database", url, "--json").out)

    header, deleted, kept = (line.rstrip() for line in table.out.splitlines()[:3])
    assert header.endswith("deleted for")
    assert deleted.split()[0] == "trip-1"
    assert deleted.endswith(age(NOW, datetime.now(UTC)))
    assert kept.split()[0] == "folded"
    assert kept.endswith("-")
    assert re.search(r"documents +2 *\n +deleted +1 of these *\n", table.out)
    assert [one["deleted_at"] for one in found["documents"]] == [None, "2026-05-04T03:02:01.123456+00:00"]
    assert (found["totals"]["documents"], found["totals"]["deleted"]) == (2, 1)


def test_stats_show_what_the_past_occupies(run: Run, url: str) -> None:
    fill(url, TRIP, PAST)

    table = run("store", "stats", "--database", url)
    found = json.loads(run("store", "stats", "--database", url, "--json").out)

    header, trip, past = (line.rstrip() for line in table.out.splitlines()[:3])
    assert header.split()[-2:] == ["history", "versions"]
    assert past.split()[0] == "past"
    assert past.split()[-5:] == ["9", "bytes", "1:", "8", "bytes"]
    assert re.search(r"- +-$", trip)
    assert re.search(r"history +9 bytes *\n +versions +1, 8 bytes *\n", table.out)
    totals = found["totals"]
    assert (totals["history_bytes"], totals["versions"], totals["version_bytes"]) == (9, 1, 8)


def test_stats_of_one_document(run: Run, sqlite_url: str) -> None:
    fill(sqlite_url, *TRIPS)

    table = run("store", "stats", "--database", sqlite_url, "--document", "folded")
    listed = json.loads(run("store", "stats", "--database", sqlite_url, "--document", "folded", "--json").out)
    unknown = run("store", "stats", "--database", sqlite_url, "--document", "trip-2")

    assert "folded" in table.out
    assert "trip-1" not in table.out
    assert ([one["document"] for one in listed["documents"]], listed["totals"]["documents"]) == (["folded"], 3)
    assert (unknown.code, unknown.out) == (1, "")
    assert "there is no document 'trip-2' in SQLite database" in unknown.err


def test_stats_of_an_empty_store(run: Run, url: str) -> None:
    fill(url)

    table = run("store", "stats", "--database", url)
    listed = json.loads(run("store", "stats", "--database", url, "--json").out)

    assert (table.code, table.out.count("\n")) == (0, 1)
    assert "has no documents yet" in table.out
    assert listed["documents"] == []
    assert listed["totals"]["oldest_unfolded_at"] is None


def test_stats_create_nothing(run: Run, sqlite_url: str, postgres_url: str, tmp_path: Path) -> None:
    missing = run("store", "stats", "--database", sqlite_url)
    empty = run("store", "stats", "--database", postgres_url)

    assert (missing.code, empty.code) == (1, 1)
    assert "does not exist" in missing.err
    assert "run crdt-sync migrate" in empty.err
    assert list(tmp_path.iterdir()) == []


def test_stats_leave_a_terminal_alone_whatever_a_document_is_called(run: Run, sqlite_url: str) -> None:
    fill(sqlite_url, replace(TRIP, document="[red]a\x1b[2J\nb"))

    assert "[red]a\\x1b[2J\\nb" in run("store", "stats", "--database", sqlite_url).out


def test_stats_of_the_configured_database_come_from_its_replica_and_those_of_another_do_not(
    run: Run, postgres_url: str, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(sqlite_url, TRIP)
    monkeypatch.setenv("CRDT_SYNC_DATABASE_URL", postgres_url)
    monkeypatch.setenv("CRDT_SYNC_DATABASE_REPLICA_URL", NOBODY)
    run("migrate")

    configured = run("store", "stats")
    another = run("store", "stats", "--database", sqlite_url)

    assert configured.code == 1
    assert "127.0.0.1:1" in configured.err
    assert another.code == 0


async def test_stats_export_and_a_check_work_beside_a_running_server(
    server: ServerProcess, clients: NodeClients, tmp_path: Path, yjs: Yjs
) -> None:
    url = f"sqlite:///{server.database_path}"
    client = await clients.create(server.url, "trip-1", "3.1")
    await client.insert(0, "hello")
    await client.confirm()

    found = await asyncio.to_thread(run_outside, "store", "stats", "--json", "--database", url)
    exported = await asyncio.to_thread(
        run_outside, "export", "trip-1", "--output", tmp_path / "trip.bin", "--database", url
    )
    checked = await asyncio.to_thread(run_outside, "migrate", "--check", "--database", url)
    await client.insert(5, " world")
    await client.confirm()

    (document,) = json.loads(found.out)["documents"]
    assert (document["document"], document["head_seq"]) == ("trip-1", 1)
    assert (exported.code, checked.code) == (0, 0)
    assert yjs.apply([(tmp_path / "trip.bin").read_bytes()], {"text": "text"}).content["text"]["string"] == "hello"
    assert yjs.apply(stored_updates(url, "trip-1"), {"text": "text"}).content["text"]["string"] == ("hello world")


# ------------------------------------------------------------------------------------------------------- copy


def test_copy_to_postgresql_and_back_keeps_everything(
    run: Run, sqlite_url: str, postgres_url: str, tmp_path: Path
) -> None:
    back_url = f"sqlite:///{tmp_path}/back.db"
    everything = [FOLDED, PAST, TRIP, ZURICH]
    fill(sqlite_url, *everything)

    there = run("store", "copy", sqlite_url, postgres_url)
    back = run("store", "copy", postgres_url, back_url)

    assert [(one.code, one.err) for one in (there, back)] == [(0, ""), (0, "")]
    assert there.out.startswith("copied         4 documents: 5 updates and all snapshots, ")
    assert "\nversions       1\n" in there.out
    assert content(sqlite_url) == content(postgres_url) == content(back_url) == everything


@pytest.mark.parametrize("past", [replace(PAST, versions=()), replace(PAST, chunks=())], ids=["versions", "history"])
def test_copy_takes_another_past_for_another_content(run: Run, sqlite_url: str, tmp_path: Path, past: Export) -> None:
    target_url = f"sqlite:///{tmp_path}/target.db"
    fill(sqlite_url, PAST)
    fill(target_url, past)

    careful = run("store", "copy", sqlite_url, target_url)
    left_alone = content(target_url)
    run("store", "copy", sqlite_url, target_url, "--overwrite")

    assert (careful.code, left_alone) == (1, [past])
    assert content(target_url) == [PAST]


def test_copied_documents_go_on_from_their_last_update(run: Run, sqlite_url: str, postgres_url: str) -> None:
    fill(sqlite_url, *TRIPS)
    run("store", "copy", sqlite_url, postgres_url)

    seqs = with_store(
        postgres_url,
        lambda store: store.append([Entry(one.document, [b"new"], accepted_at=NOW) for one in TRIPS]),
    )

    assert seqs == [3, 4, 10]


def test_copy_skips_what_is_there_already(run: Run, sqlite_url: str, postgres_url: str) -> None:
    fill(sqlite_url, *TRIPS, PAST)
    fill(postgres_url, TRIP, PAST)

    first = json.loads(run("store", "copy", sqlite_url, postgres_url, "--json").out)
    second = json.loads(run("store", "copy", sqlite_url, postgres_url, "--json").out)

    assert (first["copied"], first["already_there"], first["conflicts"]) == (2, 2, [])
    assert first["rows"] == 2
    assert first["bytes"] > 45_000
    assert (second["copied"], second["already_there"], second["rows"], second["bytes"]) == (0, 4, 0, 0)


def test_copy_leaves_documents_alone_that_differ_unless_told_otherwise(run: Run, url: str, tmp_path: Path) -> None:
    source_url = f"sqlite:///{tmp_path}/source.db"
    edited = replace(TRIP, head_seq=4, rows=(*TRIP.rows, Row(4, b"only here", None, NOW)))
    fill(source_url, *TRIPS)
    fill(url, edited)

    careful = run("store", "copy", source_url, url)
    before = content(url)
    bold = run("store", "copy", source_url, url, "--overwrite")

    assert careful.code == 1
    assert "conflicts      1 document, left alone" in careful.out
    assert "trip-1" in careful.err
    assert "--overwrite" in careful.err
    assert before == [FOLDED, edited, ZURICH]
    assert (bold.code, bold.err) == (0, "")
    assert content(url) == list(TRIPS)


def test_copy_keeps_deleted_documents_deleted_and_says_how_many(
    run: Run, sqlite_url: str, postgres_url: str, tmp_path: Path
) -> None:
    trips = [FOLDED, replace(TRIP, deleted_at=NOW), replace(ZURICH, deleted_at=NOW + timedelta(microseconds=1))]
    fill(sqlite_url, *trips)

    there = run("store", "copy", sqlite_url, postgres_url)
    back = json.loads(run("store", "copy", postgres_url, f"sqlite:///{tmp_path}/back.db", "--json").out)
    again = json.loads(run("store", "copy", sqlite_url, postgres_url, "--json").out)

    assert (there.code, there.err) == (0, "")
    assert "copied         3 documents: 5 updates" in there.out
    assert "deleted        2 of these, there as here\n" in there.out
    assert (back["copied"], back["deleted"]) == (3, 2)
    assert (again["copied"], again["deleted"], again["already_there"]) == (0, 0, 3)
    assert content(postgres_url) == content(f"sqlite:///{tmp_path}/back.db") == trips


@pytest.mark.parametrize(("here", "there"), [(None, NOW), (NOW, None), (NOW, NOW + timedelta(days=1))])
def test_document_that_is_deleted_in_one_store_only_is_a_conflict(
    run: Run, url: str, tmp_path: Path, here: datetime | None, there: datetime | None
) -> None:
    source_url = f"sqlite:///{tmp_path}/source.db"
    fill(source_url, replace(TRIP, deleted_at=here))
    fill(url, replace(TRIP, deleted_at=there))

    careful = run("store", "copy", source_url, url)
    before = content(url)
    bold = run("store", "copy", source_url, url, "--overwrite")

    assert careful.code == 1
    assert "conflicts      1 document, left alone" in careful.out
    assert before == [replace(TRIP, deleted_at=there)]
    assert (bold.code, bold.err) == (0, "")
    assert content(url) == [replace(TRIP, deleted_at=here)]


def test_copy_takes_along_what_must_not_come_back(run: Run, sqlite_url: str, url: str, tmp_path: Path) -> None:
    source_url = f"sqlite:///{tmp_path}/source.db"
    now = datetime.now(UTC)
    ann = Revocation("user", "ann", revoked_at=now, until=now + timedelta(days=1))
    expired = Revocation("token", "t-1", revoked_at=NOW, until=NOW)
    quarantined = [Quarantined("not there yet", b"\0digest", NOW), Quarantined("trip-1", b"digest", NOW)]

    async def refuse(store: Store) -> None:
        await store.revoke(ann)
        await store.revoke(expired)
        for one in quarantined:
            await store.quarantine(one.document, one.digest, at=one.at)

    async def refused(store: Store) -> tuple[list[Quarantined], list[Revocation]]:
        return await store.quarantined(), await store.revocations(now=NOW - timedelta(days=1))

    fill(source_url, TRIP)
    with_store(source_url, refuse)

    first = run("store", "copy", source_url, url)
    second = json.loads(run("store", "copy", source_url, url, "--json").out)

    assert (first.code, first.err) == (0, "")
    assert first.out.endswith("quarantined    2 updates\nrevocations    1\n")
    assert (second["quarantined"], second["revocations"]) == (2, 1)
    assert with_store(url, refused) == (quarantined, [ann])


def test_copy_keeps_what_is_only_in_the_target(run: Run, sqlite_url: str, tmp_path: Path) -> None:
    fill(sqlite_url, FOLDED)
    target_url = f"sqlite:///{tmp_path}/target.db"
    fill(target_url, TRIP)

    run("store", "copy", sqlite_url, target_url, "--overwrite")

    assert content(target_url) == [FOLDED, TRIP]


def test_copy_finds_what_became_different_in_the_target_and_copies_the_rest(
    run: Run, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(sqlite_url, *TRIPS)
    put = SqliteStore.put

    async def put_badly(self: SqliteStore, export: Export, *, replace: bool = False) -> None:
        if export.document == "trip-1":
            row = export.rows[1]
            export = Export(
                export.document, NOW, 3, None, (export.rows[0], row._replace(user_id="bob"), export.rows[2])
            )
        await put(self, export, replace=replace)

    monkeypatch.setattr(SqliteStore, "put", put_badly)
    result = run("store", "copy", sqlite_url, f"sqlite:///{tmp_path}/target.db")

    assert result.code == 1
    assert "copied         2 documents" in result.out
    assert "failed         1 document" in result.out
    assert "'trip-1' reads back different from SQLite database" in result.err


def test_copy_names_a_document_that_is_damaged_and_copies_the_rest(
    run: Run, sqlite_url: str, postgres_url: str
) -> None:
    fill(postgres_url, *TRIPS)
    execute(postgres_url, "DELETE FROM crdt_sync.document_update WHERE seq = 2")

    result = run("store", "copy", postgres_url, sqlite_url, "--json")

    assert result.code == 1
    assert json.loads(result.out)["copied"] == 2
    assert list(json.loads(result.out)["failed"]) == ["trip-1"]
    assert "'trip-1' is missing" in result.err
    assert content(sqlite_url) == [FOLDED, ZURICH]


def test_copy_to_itself_is_refused_however_it_is_spelled(
    run: Run, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(sqlite_url, TRIP)
    monkeypatch.chdir(tmp_path)
    Path("link.db").symlink_to("trips.db")
    pairs = [
        (sqlite_url, "sqlite:///trips.db"),
        (sqlite_url, "sqlite:///link.db"),
        (NOBODY, "postgres://bob@127.0.0.1:1/trips"),
        ("memory://", "memory://"),
    ]

    results = [run("store", "copy", *pair) for pair in pairs]

    assert [one.code for one in results] == [1] * 4
    assert all("both URLs name the same store" in one.err for one in results)


def test_copy_says_in_a_sentence_what_can_not_be_reached(run: Run, sqlite_url: str, tmp_path: Path) -> None:
    fill(sqlite_url, TRIP)
    pairs = [
        (sqlite_url, NOBODY),
        (NOBODY, f"sqlite:///{tmp_path}/target.db"),
        (f"sqlite:///{tmp_path}/missing.db", f"sqlite:///{tmp_path}/target.db"),
        ("trips.db", sqlite_url),
        (sqlite_url, "postgresql://ann:s3cret@127.0.0.1:x/trips"),
    ]

    results = [run("store", "copy", *pair) for pair in pairs]

    assert [(one.code, one.out, one.err.count("\n")) for one in results] == [(1, "", 1)] * len(pairs)
    assert not any("s3cret" in one.err for one in results)
    assert not (tmp_path / "target.db").exists()


def test_copy_does_not_write_into_a_database_that_a_server_uses(run: Run, sqlite_url: str, tmp_path: Path) -> None:
    fill(sqlite_url, TRIP)
    target_url = f"sqlite:///{tmp_path}/target.db"

    result = with_store(
        target_url, lambda store: asyncio.to_thread(run_outside, "store", "copy", sqlite_url, target_url)
    )

    assert result.code == 1
    assert "is in use by another server: stop it first" in result.err
    assert "Traceback" not in result.err


_INTERRUPT_AFTER_2 = """
import os, signal, sys
from crdt_sync import cli
from persistence.sqlite import SqliteStore
put, calls = SqliteStore.put, []
async def put_and_press(self, export, **options):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGINT)
    await put(self, export, **options)
SqliteStore.put = put_and_press
cli.main(sys.argv[1:])
"""


def test_interrupted_copy_says_so_and_goes_on_where_it_stopped(run: Run, sqlite_url: str, tmp_path: Path) -> None:
    exports = [replace(TRIP, document=f"trip-{n}") for n in range(6)]
    fill(sqlite_url, *exports)
    target_url = f"sqlite:///{tmp_path}/target.db"

    stopped = subprocess.run(
        [sys.executable, "-c", _INTERRUPT_AFTER_2, "store", "copy", sqlite_url, target_url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    there = len(content(target_url))
    resumed = json.loads(run("store", "copy", sqlite_url, target_url, "--json").out)

    assert (stopped.returncode, stopped.stdout) == (130, "")
    assert stopped.stderr == (
        "crdt-sync: interrupted; 2 documents copied; run the same command again to go on where it stopped\n"
    )
    assert there in (2, 3)
    assert (resumed["already_there"], resumed["copied"], resumed["conflicts"]) == (there, 6 - there, [])
    assert content(target_url) == exports


def test_copy_whose_target_fails_half_way_says_how_to_go_on(
    run: Run, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(sqlite_url, *TRIPS)
    put = SqliteStore.put

    async def put_until_full(self: SqliteStore, export: Export, *, replace: bool = False) -> None:
        if export.document == "trip-1":
            raise StoreUnavailable("put of 'trip-1' failed: database or disk is full")
        await put(self, export, replace=replace)

    monkeypatch.setattr(SqliteStore, "put", put_until_full)
    result = run("store", "copy", sqlite_url, f"sqlite:///{tmp_path}/target.db")

    assert (result.code, result.out) == (1, "")
    assert result.err == (
        "crdt-sync: put of 'trip-1' failed: database or disk is full\n"
        "1 document copied; run the same command again to go on where it stopped\n"
    )


def test_copy_holds_one_document_at_a_time(run: Run, sqlite_url: str, tmp_path: Path) -> None:
    size = 1 << 20
    fill(sqlite_url, *(Export(f"trip-{n}", NOW, 1, None, (Row(1, os.urandom(size), None, NOW),)) for n in range(30)))

    tracemalloc.start()
    try:
        result = run("store", "copy", sqlite_url, f"sqlite:///{tmp_path}/target.db")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert result.code == 0
    assert peak_bytes < 12 * size


def test_copy_shows_its_progress_on_a_terminal(sqlite_url: str, tmp_path: Path) -> None:
    fill(sqlite_url, *TRIPS)
    controller, terminal = os.openpty()

    done = subprocess.run(
        [sys.executable, "-m", "crdt_sync", "store", "copy", sqlite_url, f"sqlite:///{tmp_path}/target.db"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=terminal,
        timeout=60,
        check=False,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(terminal)
    shown = os.read(controller, 1 << 16).decode()
    os.close(controller)

    assert done.returncode == 0
    assert done.stdout.startswith(b"copied         3 documents")
    assert "3 of 3 documents" in shown


# ------------------------------------------------------------------------------------------------------- export


@pytest.mark.parametrize("folded", [0, 20, 60], ids=["log", "both", "snapshot"])
def test_export_is_what_real_yjs_makes_of_the_document(
    run: Run, url: str, tmp_path: Path, yjs: Yjs, folded: int
) -> None:
    updates = yjs.generate(7, clients=3, steps=60).updates
    folded = min(folded, len(updates))
    document = Document()
    for update in updates[:folded]:
        document.apply(update)
    state = document.state()
    snapshot = (
        Snapshot(
            "trip Zürich",
            seq=folded,
            state=state.update,
            waiting=state.waiting,
            state_vector=state.state_vector,
        )
        if folded
        else None
    )
    rows = tuple(Row(seq, update, None, NOW) for seq, update in enumerate(updates, 1) if seq > folded)
    fill(url, Export("trip Zürich", NOW, len(updates), snapshot, rows))

    result = run("export", "trip Zürich", "--database", url, "--output", tmp_path / "trip.bin")

    assert (result.code, result.out) == (0, "")
    assert f"everything up to seq {len(updates)}" in result.err
    loaded, expected = yjs.apply([(tmp_path / "trip.bin").read_bytes()]), yjs.apply(updates)
    assert (loaded.content, loaded.state_vector, loaded.pending) == (expected.content, expected.state_vector, False)


def stored_log(*updates: bytes) -> Export:
    return Export("x", NOW, len(updates), None, tuple(Row(n, one, None, NOW) for n, one in enumerate(updates, 1)))


def test_export_writes_to_standard_output(sqlite_url: str, tmp_path: Path) -> None:
    fill(sqlite_url, stored_log(*typed("hello")))

    with (tmp_path / "out.bin").open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "crdt_sync", "export", "x"],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
            env={**os.environ, "CRDT_SYNC_DATABASE_URL": sqlite_url},
        )

    assert (done.returncode, done.stderr) == (0, b"")
    document = Document()
    document.apply((tmp_path / "out.bin").read_bytes())
    whole = Document()
    for update in typed("hello"):
        whole.apply(update)
    assert document.state().update == whole.state().update


def test_export_does_not_write_to_a_terminal(run: Run, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    result = run("export", "x", "--database", sqlite_url)

    assert (result.code, result.out) == (1, "")
    assert "--output FILE" in result.err


def test_export_says_how_many_updates_wait(run: Run, sqlite_url: str, tmp_path: Path) -> None:
    editor = Editor(1)
    first, missing, third, fourth = (editor.type(letter) for letter in "abcd")
    assert missing
    snapshot = Snapshot("x", seq=2, state=first, waiting=(third,), state_vector=b"\x01\x01\x01")
    fill(sqlite_url, Export("x", NOW, 3, snapshot, (Row(3, fourth, None, NOW),)))

    result = run("export", "x", "--database", sqlite_url, "--output", tmp_path / "x.bin")

    assert result.code == 0
    assert "2 updates can't be integrated yet and left out" in result.err
    document = Document()
    document.apply((tmp_path / "x.bin").read_bytes())
    assert document.state_vector() == b"\x01\x01\x01"


def test_export_of_what_is_not_there_is_refused(run: Run, sqlite_url: str, tmp_path: Path) -> None:
    fill(sqlite_url, stored_log(*typed("a")))

    results = [
        run("export", name, "--database", sqlite_url, "--output", tmp_path / "x.bin") for name in ("y", "", "\udcff")
    ]

    assert [(one.code, one.out) for one in results] == [(1, "")] * 3
    assert all("there is no document" in one.err for one in results)
    assert not (tmp_path / "x.bin").exists()


def test_export_of_a_deleted_document_is_refused(run: Run, url: str, tmp_path: Path) -> None:
    fill(url, replace(stored_log(*typed("a")), deleted_at=NOW))

    result = run("export", "x", "--database", url, "--output", tmp_path / "x.bin")

    assert (result.code, result.err) == (1, "crdt-sync: 'x' was deleted at 2026-05-04T03:02:01+00:00\n")
    assert not (tmp_path / "x.bin").exists()


def test_export_of_a_document_that_can_not_be_loaded_is_refused(run: Run, sqlite_url: str, tmp_path: Path) -> None:
    fill(sqlite_url, stored_log(b"no update"))

    result = run("export", "x", "--database", sqlite_url, "--output", tmp_path / "x.bin")

    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "'x' can't be loaded" in result.err
    assert not (tmp_path / "x.bin").exists()


def test_export_to_where_nothing_can_be_written(run: Run, sqlite_url: str, tmp_path: Path) -> None:
    fill(sqlite_url, stored_log(*typed("a")))

    result = run("export", "x", "--database", sqlite_url, "--output", tmp_path / "missing" / "x.bin")

    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "x.bin can't be written: No such file or directory" in result.err


# ------------------------------------------------------------------------------------------------------- all


def test_broken_configuration_is_exit_code_2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDT_SYNC_DATABSE_URL", "memory://")

    result = run("store", "stats")

    assert result.code == 2
    assert "did you mean CRDT_SYNC_DATABASE_URL?" in result.err


def test_tools_give_a_database_more_time_than_servers_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def remember(url: str, *, timeout_s: float, **options: Any) -> Store:
        given.append(timeout_s)
        return MemoryStore()

    monkeypatch.setattr("crdt_sync.stores.open_store", remember)
    run("store", "stats")
    monkeypatch.setenv("CRDT_SYNC_DATABASE_TIMEOUT_S", "600")
    run("store", "stats")

    assert given == [60, 600]


def test_reader_that_has_enough_gets_no_traceback(sqlite_url: str) -> None:
    fill(sqlite_url, *(replace(TRIP, document=f"trip-{n}" * 50) for n in range(300)))

    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m crdt_sync store stats --json --database {shlex.quote(sqlite_url)} | head -n1",
        cwd=ROOT,
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("{\n", "")


def test_ctrl_c_ends_a_server_that_still_waits_for_its_database(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "crdt_sync", "serve", "--port", "0", "--database", NOBODY],
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 20
        while "store_awaited" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        code = process.wait(20)
    finally:
        process.kill()
        process.wait()

    assert code == 130
    assert log.read_text().endswith("crdt-sync: interrupted\n")
    assert "Traceback" not in log.read_text()
    assert "s3cret" not in log.read_text()


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0 s"), (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (7199, "1 h"), (200_000, "2 d")]
)
def test_ages_are_told_in_the_largest_unit(seconds: float, text: str) -> None:
    assert age(NOW - timedelta(seconds=seconds), NOW) == text


def test_names_are_shown_in_their_script_without_control_characters() -> None:
    assert printable("旅行 Zürich 🧳") == "旅行 Zürich 🧳"
    assert printable("a\u202eb\x07\u2028") == "a\\u202eb\\x07\\u2028"


# ------------------------------------------------------------------------------------------------------- pages


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """All commands of a parser that have no commands of their own."""
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        yield parser
    for action in nested:
        for command in action.choices.values():
            yield from commands(command)


def test_every_command_and_option_is_in_the_reference() -> None:
    page = (ROOT / "docs/reference/cli.md").read_text()
    sections = {
        " ".join(word for word in title.split() if not word.isupper()): (title, text)
        for title, text in re.findall(r"^## `([^`]+)`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    }
    found = {command.prog: command for command in commands(cli.parser())}

    assert set(sections) == set(found)
    for name, command in found.items():
        title, text = sections[name]
        options = [action for action in command._actions if action.dest != "help"]
        listed = set(re.findall(r"^\| `(--[\w-]+)[^`]*` \|", text, re.MULTILINE))
        assert listed == {action.option_strings[0] for action in options if action.option_strings}, name
        arguments = [action.metavar for action in options if not action.option_strings]
        assert title.split()[len(name.split()) :] == arguments, name


def test_every_command_teaches() -> None:
    for command in commands(cli.parser()):
        assert command.description, command.prog
        assert all(action.help for action in command._actions), command.prog


def test_recipe_for_moving_works_as_it_stands(postgres_url: str, tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/move-between-databases.md").read_text()
    steps = [line.strip() for line in page.splitlines() if line.strip().startswith("crdt-sync store")]
    fill(f"sqlite:///{tmp_path}/crdt-sync.db", *TRIPS)

    for step in steps:
        _, *arguments = shlex.split(step.replace("postgresql://crdt_sync@db.example.com/crdt_sync", postgres_url))
        result = run_outside(*arguments, cwd=tmp_path)
        assert result.code == 0, f"{step}: {result.err}"

    assert len(steps) == 4
    assert content(postgres_url) == content(f"sqlite:///{tmp_path}/back.db") == list(TRIPS)
