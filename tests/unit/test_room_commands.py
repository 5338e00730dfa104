"""The admin's commands on a database, as they are called: exit codes, what is printed, what is changed."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from crdt_sync.document import Document
from persistence import Export, Row, Snapshot
from tests.support.command import ROOT, Result, content, fill, run_inside, run_outside, with_store
from tests.support.fakes import Editor, typed
from tests.support.postgres import execute
from tests.support.yjs import Yjs

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
HELLO = typed("hello")

Run = Callable[..., Result]


def log_of(name: str, *updates: bytes, user: str | None = "ann", deleted_at: datetime | None = None) -> Export:
    rows = tuple(Row(seq, update, user, NOW) for seq, update in enumerate(updates, 1))
    return Export(name, NOW, len(updates), None, rows, deleted_at)


TRIP = log_of("trip-1", *HELLO)
EMPTIED = log_of("trip-2", *typed("x"), user="bob", deleted_at=NOW)
ZURICH = log_of("旅行/Zürich 🧳", *typed("grüezi mitenand"))


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind with three documents, one of them deleted."""
    sqlite = request.param == "sqlite"
    found: str = f"sqlite:///{tmp_path}/trips.db" if sqlite else request.getfixturevalue("postgres_url")
    fill(found, TRIP, EMPTIED, ZURICH)
    return found


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    found = f"sqlite:///{tmp_path}/trips.db"
    fill(found, TRIP, EMPTIED, ZURICH)
    return found


def text_of(url: str, name: str) -> str:
    result = run_inside("export", name, "--format", "json", "--database", url, env={})
    assert result.code == 0, result.err
    return str(json.loads(result.out)["text"])


# -------------------------------------------------------------------------------------------------- list and show


def test_rooms_are_listed_by_name_or_the_largest_first(run: Run, url: str) -> None:
    by_name = run("rooms", "list", "--database", url)
    by_size = run("rooms", "list", "--sort", "size", "--limit", "1", "--database", url)

    assert [line.split()[0] for line in by_name.out.splitlines()[:3]] == ["document", "trip-1", "旅行/Zürich"]
    assert by_name.out.splitlines()[1].split()[1:] == ["5", f"{sum(map(len, HELLO))}", "bytes", "5"]
    assert re.search(r"\n2 documents, \d+ bytes\n$", by_name.out)
    assert "Zürich" in by_size.out
    assert "trip-1" not in by_size.out
    assert "… and 1 more: --limit 2 shows them all" in by_size.out


def test_rooms_are_listed_as_json_for_scripts(run: Run, url: str) -> None:
    result = run("rooms", "list", "--json", "--limit", "1", "--database", url)

    (trip, zurich) = json.loads(result.out)
    assert trip == {
        "name": "trip-1",
        "seq": 5,
        "size_bytes": sum(map(len, HELLO)),
        "updates": 5,
        "snapshot_seq": 0,
        "history_bytes": 0,
        "versions": 0,
        "deleted_at": None,
    }
    assert zurich["name"] == "旅行/Zürich 🧳"


def test_deleted_rooms_are_listed_when_asked_for(run: Run, url: str) -> None:
    result = run("rooms", "list", "--deleted", "--database", url)
    found = json.loads(run("rooms", "list", "--deleted", "--json", "--database", url).out)

    assert re.search(r"^ trip-2 .* d ago *$", result.out, re.MULTILINE)
    assert "trip-1" not in result.out
    assert [(one["name"], one["deleted_at"]) for one in found] == [("trip-2", "2026-05-04T03:02:01+00:00")]


def test_rooms_are_selected_by_prefix(run: Run, sqlite_url: str) -> None:
    found = json.loads(run("rooms", "list", "--prefix", "旅行/", "--json", "--database", sqlite_url).out)
    none = run("rooms", "list", "--prefix", "car-", "--database", sqlite_url)

    assert [one["name"] for one in found] == ["旅行/Zürich 🧳"]
    assert none.out.endswith(" has no documents that begin with 'car-'\n")


def test_room_is_shown_with_all_that_is_known(run: Run, url: str) -> None:
    shown = run("rooms", "show", "trip-1", "--database", url)
    deleted = json.loads(run("rooms", "show", "trip-2", "--json", "--database", url).out)

    lines = {line.split("  ")[0].strip(): line for line in shown.out.splitlines()}
    assert re.search(r"^ document +trip-1 *$", shown.out, re.MULTILINE)
    assert re.search(r"^ log +5 updates *$", shown.out, re.MULTILINE)
    assert re.search(r"^ written by +ann *$", shown.out, re.MULTILINE)
    assert re.search(r"^ last edit +20\d\d-\d\d-\d\d .* d ago *$", shown.out, re.MULTILINE)
    assert "deleted" not in lines
    assert deleted == {
        "name": "trip-2",
        "seq": 1,
        "size_bytes": len(EMPTIED.rows[0].update),
        "updates": 1,
        "snapshot_seq": 0,
        "history_bytes": 0,
        "versions": 0,
        "created_at": "2026-05-04T03:02:01+00:00",
        "edited_at": "2026-05-04T03:02:01+00:00",
        "users": ["bob"],
        "deleted_at": "2026-05-04T03:02:01+00:00",
    }


@pytest.mark.parametrize("name", ["nowhere", "", "\udcff"])
@pytest.mark.parametrize(
    "command",
    [("rooms", "show"), ("rooms", "delete", "--yes"), ("rooms", "undelete"), ("rooms", "purge", "--yes"), ("verify",)],
)
def test_document_that_is_not_there_is_said_so(run: Run, sqlite_url: str, name: str, command: tuple[str, ...]) -> None:
    result = run(*command, name, "--database", sqlite_url)

    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert result.err.startswith(("crdt-sync: there is no document", "crdt-sync: there is no deleted document"))


def test_mistyped_database_is_not_made(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(HELLO[0])
    for command in (("rooms", "list"), ("rooms", "delete", "x", "--yes"), ("gc",), ("import", "x", tmp_path / "x.bin")):
        result = run(*command, "--database", f"sqlite:///{tmp_path}/typo.db")

        assert (result.code, result.out) == (1, "")
        assert "typo.db does not exist: check the path" in result.err
    assert [one.name for one in tmp_path.iterdir()] == ["x.bin"]


# -------------------------------------------------------------------------------------------------- delete and back


def test_deleted_room_comes_back_as_it_was(run: Run, url: str) -> None:
    deleted = run("rooms", "delete", "trip-1", "--yes", "--database", url)
    between = content(url)
    back = run("rooms", "undelete", "trip-1", "--database", url)

    assert (deleted.code, deleted.out) == (0, "'trip-1' is deleted: crdt-sync rooms undelete 'trip-1' brings it back\n")
    assert [one.document for one in between if one is not None and one.deleted_at is not None] == ["trip-1", "trip-2"]
    assert (back.code, back.out.partition(":")[0]) == (0, "'trip-1' is undeleted")
    assert content(url) == [TRIP, EMPTIED, ZURICH]


def test_deleting_twice_is_refused_and_says_when(run: Run, url: str) -> None:
    result = run("rooms", "delete", "trip-2", "--yes", "--database", url)

    assert (result.code, result.err) == (1, "crdt-sync: 'trip-2' was deleted at 2026-05-04T03:02:01+00:00\n")


@pytest.mark.parametrize("command", [("rooms", "delete", "trip-1"), ("rooms", "purge", "trip-2"), ("gc",)])
def test_nothing_is_destroyed_where_nobody_can_be_asked(sqlite_url: str, command: tuple[str, ...]) -> None:
    result = run_outside(*command, "--database", sqlite_url)

    assert (result.code, result.out) == (1, "")
    assert result.err.endswith("Nobody can be asked here: give --yes if so. Nothing was done\n")
    assert content(sqlite_url) == [TRIP, EMPTIED, ZURICH]


@pytest.mark.parametrize(
    ("answer", "deleted"), [("y", True), ("YES", True), ("n", False), ("", False), ("trip-1", False)]
)
def test_whoever_is_asked_decides(sqlite_url: str, answer: str, deleted: bool) -> None:
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "crdt_sync", "rooms", "delete", "trip-1", "--database", sqlite_url]
    with subprocess.Popen(command, cwd=ROOT, stdin=terminal, stdout=subprocess.PIPE, stderr=terminal) as process:
        asked = b""
        while b"[y/N]" not in asked:
            assert select.select([controller], [], [], 20)[0], asked
            asked += os.read(controller, 1000)
        os.write(controller, f"{answer}\n".encode())
        out, _ = process.communicate(timeout=20)
    os.close(terminal)
    os.close(controller)

    assert b"Delete 'trip-1' at SQLite database" in asked
    assert process.returncode == (0 if deleted else 1)
    assert out.startswith(b"'trip-1' is deleted") is deleted
    assert (content(sqlite_url)[0] == TRIP) is not deleted


def test_json_says_what_was_done(run: Run, sqlite_url: str) -> None:
    deleted = run("rooms", "delete", "trip-1", "--yes", "--json", "--database", sqlite_url)
    back = run("rooms", "undelete", "trip-1", "--json", "--database", sqlite_url)

    assert json.loads(deleted.out) == {"name": "trip-1", "done": "deleted"}
    assert json.loads(back.out) == {"name": "trip-1", "done": "undeleted"}


# -------------------------------------------------------------------------------------------------- purge


def test_purged_room_is_gone_for_good_with_a_report(run: Run, url: str) -> None:
    result = run("rooms", "purge", "trip-2", "--yes", "--database", url)

    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("forgotten:\n")
    assert "trip-2" in result.out
    assert "Not reached by this: backups and replicas" in result.out
    assert content(url) == [TRIP, ZURICH]


def test_purge_reports_to_scripts_who_wrote_what(run: Run, sqlite_url: str) -> None:
    found = json.loads(run("rooms", "purge", "trip-2", "--yes", "--json", "--database", sqlite_url).out)

    assert datetime.now(UTC) - datetime.fromisoformat(found["purged_at"]) < timedelta(minutes=1)
    (purged,) = found["purged"]
    assert (purged["name"], purged["users"], purged["deleted_at"]) == ("trip-2", ["bob"], "2026-05-04T03:02:01+00:00")
    assert found["failed"] == {}


def test_room_that_is_not_deleted_is_not_purged(run: Run, url: str) -> None:
    result = run("rooms", "purge", "trip-1", "--yes", "--database", url)

    assert (result.code, result.out) == (1, "")
    assert result.err == "crdt-sync: 'trip-1' isn't deleted: crdt-sync rooms delete 'trip-1' comes first\n"
    assert content(url) == [TRIP, EMPTIED, ZURICH]


def test_room_that_a_server_may_still_have_open_is_not_purged(run: Run, postgres_url: str) -> None:
    fill(postgres_url, TRIP)
    run("rooms", "delete", "trip-1", "--yes", "--database", postgres_url)

    result = run("rooms", "purge", "trip-1", "--yes", "--database", postgres_url)

    assert (result.code, result.out) == (1, "")
    assert re.fullmatch(
        r"crdt-sync: 'trip-1' was deleted just now, and a server may have it open: wait \d\d s\n", result.err
    )
    (kept,) = content(postgres_url)
    assert kept is not None


def test_gc_forgets_what_was_deleted_long_enough_ago_and_nothing_else(run: Run, url: str) -> None:
    lately = log_of("lately", *HELLO, deleted_at=datetime.now(UTC) - timedelta(days=29))
    fill(url, lately)

    rehearsed = run("gc", "--dry-run", "--database", url)
    before = content(url)
    done = run("gc", "--yes", "--json", "--database", url)

    assert re.match(r"deleted before 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d: 1 document\n", rehearsed.err)
    assert "trip-2" in rehearsed.out
    assert before == [lately, TRIP, EMPTIED, ZURICH]
    assert (done.code, [one["name"] for one in json.loads(done.out)["purged"]]) == (0, ["trip-2"])
    assert content(url) == [lately, TRIP, ZURICH]


def test_gc_takes_spans_and_moments_and_refuses_the_future(run: Run, sqlite_url: str) -> None:
    early = run("gc", "--older-than", "2026-05-04T03:02:00Z", "--yes", "--database", sqlite_url)
    future = run("gc", "--older-than", "2100-01-01", "--yes", "--database", sqlite_url)
    nonsense = run("gc", "--older-than", "soon", "--yes", "--database", sqlite_url)
    before = content(sqlite_url)
    late = run("gc", "--older-than", "2026-05-04T03:02:02Z", "--yes", "--database", sqlite_url)

    assert (early.code, early.err.endswith(": 0 documents\n")) == (0, True)
    assert [(one.code, one.out) for one in (future, nonsense)] == [(1, "")] * 2
    assert "--older-than: '2100-01-01' is in the future" in future.err
    assert "--older-than: 'soon' is neither a time nor a moment" in nonsense.err
    assert before == [TRIP, EMPTIED, ZURICH]
    assert (late.code, content(sqlite_url)) == (0, [TRIP, ZURICH])


def test_purged_content_is_no_longer_in_the_file_once_it_is_vacuumed(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "trips.db"
    secret = "a secret of the Zürich trip"
    fill(f"sqlite:///{path}", log_of("trip-2", Editor(1).type(secret * 500), deleted_at=NOW), TRIP)

    run("rooms", "purge", "trip-2", "--yes", "--database", f"sqlite:///{path}")
    freed = secret.encode() in path.read_bytes()
    with_store(f"sqlite:///{path}", lambda store: store.check())
    subprocess.run([sys.executable, "-c", VACUUM, path], check=True)

    assert freed, "SQLite overwrites what it frees by now: the page about it can be shorter"
    assert secret.encode() not in b"".join(one.read_bytes() for one in tmp_path.iterdir())
    assert content(f"sqlite:///{path}") == [TRIP]


VACUUM = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('VACUUM')"


# -------------------------------------------------------------------------------------------------- export and import


def test_document_is_exported_for_programs_and_people(run: Run, url: str) -> None:
    forms = {form: run("export", "trip-1", "--format", form, "--database", url) for form in ("json", "rich", "text")}

    assert {form: one.code for form, one in forms.items()} == {"json": 0, "rich": 0, "text": 0}
    assert json.loads(forms["json"].out) == {"text": "hello"}
    assert json.loads(forms["rich"].out)["text"]["$"] == "text"
    assert forms["text"].out == "text:\n  hello\n"


def test_export_leaves_a_terminal_alone_whatever_people_wrote(sqlite_url: str) -> None:
    fill(sqlite_url, log_of("evil", Editor(1).type("a\x1b[2J\x9bb\nc")))
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "crdt_sync", "export", "evil", "--format", "text", "--database", sqlite_url]
    done = subprocess.run(command, cwd=ROOT, stdout=terminal, timeout=60, check=False)
    os.close(terminal)
    shown = os.read(controller, 1 << 16).decode()
    os.close(controller)

    assert done.returncode == 0
    assert shown == "text:\r\n  a\\x1b[2J\\x9bb\r\n  c\r\n"


def test_gc_goes_on_after_one_that_can_not_be_purged(run: Run, postgres_url: str) -> None:
    fill(postgres_url, EMPTIED, log_of("lately", *HELLO, deleted_at=datetime.now(UTC) - timedelta(seconds=5)))

    result = run("gc", "--older-than", "1s", "--yes", "--json", "--database", postgres_url)

    told = json.loads(result.out)
    assert ([one["name"] for one in told["purged"]], list(told["failed"])) == (["trip-2"], ["lately"])
    assert result.code == 1
    assert "crdt-sync: 'lately' was deleted just now" in result.err


def test_export_says_to_scripts_what_was_written(run: Run, sqlite_url: str, tmp_path: Path) -> None:
    path = tmp_path / "trip.json"
    result = run("export", "trip-1", "--format", "json", "--output", path, "--json", "--database", sqlite_url)
    without_file = run("export", "trip-1", "--format", "json", "--json", "--database", sqlite_url)

    told = json.loads(result.out)
    assert told == {
        "name": "trip-1",
        "format": "json",
        "bytes": 17,
        "seq": 5,
        "exact": True,
        "waiting": 0,
        "file": str(path),
    }
    assert json.loads(path.read_text()) == {"text": "hello"}
    assert (without_file.code, without_file.out) == (1, "")


def test_exported_document_is_imported_as_a_new_one(run: Run, url: str, tmp_path: Path, yjs: Yjs) -> None:
    run("export", "trip-1", "--output", tmp_path / "trip.bin", "--database", url)

    first = run("import", "copy", tmp_path / "trip.bin", "--database", url)
    again = run("import", "copy", tmp_path / "trip.bin", "--json", "--database", url)

    assert (first.code, first.out) == (0, "'copy' is new: the update is in it, and stored\n")
    size = (tmp_path / "trip.bin").stat().st_size
    assert json.loads(again.out) == {"name": "copy", "bytes": size, "outcome": "repeat", "created": False}
    assert text_of(url, "copy") == "hello"


def test_import_merges_into_what_is_there(run: Run, url: str, tmp_path: Path) -> None:
    (tmp_path / "more.bin").write_bytes(Editor(2).type(" world"))

    result = run("import", "trip-1", tmp_path / "more.bin", "--database", url)

    assert (result.code, result.out) == (0, "'trip-1': the update is in it, and stored\n")
    assert sorted(text_of(url, "trip-1")) == sorted("hello world")
    (found,) = [one for one in content(url) if one is not None and one.document == "trip-1"]
    assert found.head_seq == 6


def test_import_takes_standard_input(sqlite_url: str) -> None:
    result = run_outside("import", "new", "-", "--database", sqlite_url, stdin=HELLO[0])

    assert (result.code, result.out, result.err) == (0, "'new' is new: the update is in it, and stored\n", "")
    assert text_of(sqlite_url, "new") == "h"


def test_import_of_a_part_says_that_nobody_sees_it_yet(run: Run, sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "part.bin").write_bytes(HELLO[2])

    result = run("import", "new", tmp_path / "part.bin", "--database", sqlite_url)

    assert result.code == 0
    assert "'new' is new: the update is stored, but shown to nobody before what it builds on has come" in result.out


@pytest.mark.parametrize(
    ("data", "name", "why"),
    [
        (b"\x01\xff", "trip-1", "nothing was imported: malformed update: "),
        (b'{"text": "hello"}', "trip-1", "nothing was imported: malformed update: "),
        (b"", "trip-1", "is empty: no Yjs update is"),
        (b"x" * 200_000, "trip-1", "nothing was imported: message too big: 200000 bytes, at most 100000"),
        (HELLO[0], "trip-2", "nothing was imported: document deleted: 'trip-2' was deleted"),
        (HELLO[0], "a\nb", "nothing was imported: invalid room name: "),
        (HELLO[0], "api/v1", "nothing was imported: invalid room name: "),
        (HELLO[0], "x" * 5000, "nothing was imported: invalid room name: "),
        (HELLO[0], "\udcff", "is no name: names are UTF-8"),
    ],
)
def test_import_is_checked_like_what_clients_send(
    run: Run, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, name: str, why: str
) -> None:
    (tmp_path / "x.bin").write_bytes(data)
    monkeypatch.setenv("CRDT_SYNC_MESSAGE_BYTES_MAX", "100000")

    result = run("import", name, tmp_path / "x.bin", "--database", sqlite_url)

    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert why in result.err
    assert [(one.document, one.head_seq) for one in content(sqlite_url) if one is not None] == [
        (one.document, one.head_seq) for one in (TRIP, EMPTIED, ZURICH)
    ]
    assert text_of(sqlite_url, "trip-1") == "hello"


def test_import_into_a_full_document_is_refused(
    run: Run, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.bin").write_bytes(Editor(2).type("x" * 2000))
    monkeypatch.setenv("CRDT_SYNC_DOCUMENT_BYTES_MAX", "1024")

    result = run("import", "trip-1", tmp_path / "x.bin", "--database", sqlite_url)

    assert (result.code, result.out) == (1, "")
    assert "nothing was imported: document full: " in result.err


def test_import_of_a_file_that_is_not_there(run: Run, sqlite_url: str, tmp_path: Path) -> None:
    result = run("import", "trip-1", tmp_path / "missing.bin", "--database", sqlite_url)

    assert (result.code, result.err.endswith("missing.bin can't be read: No such file or directory\n")) == (1, True)


# -------------------------------------------------------------------------------------------------- verify


def damage(url: str, statement: str) -> None:
    """Change what is stored behind the server's back."""
    if url.startswith("postgresql"):
        execute(url, statement.format(schema="crdt_sync."))
    else:
        code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()"
        path = url.removeprefix("sqlite:///")
        subprocess.run([sys.executable, "-c", code, path, statement.format(schema="")], check=True)


def test_verify_of_a_store_in_order(run: Run, url: str) -> None:
    result = run("verify", "--database", url)
    found = json.loads(run("verify", "trip-1", "--json", "--database", url).out)

    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(
        r"checked 3 documents: 21 updates, 0 snapshots, 0 updates of history, 0 versions, \d+ bytes, in \d+\.\d s: all in order\n",
        result.out,
    )
    assert [(one["name"], one["updates"], one["problems"]) for one in found["documents"]] == [("trip-1", 5, [])]
    assert found["advice"] == {}


def test_verify_finds_a_missing_seq_says_what_to_do_and_repairs_nothing(run: Run, url: str) -> None:
    damage(
        url,
        "DELETE FROM {schema}document_update WHERE seq = 3 "
        "AND document_id = (SELECT id FROM {schema}document WHERE name = 'trip-1')",
    )

    results = [run("verify", "--database", url) for _ in range(2)]
    found = json.loads(run("verify", "--json", "--database", url).out)

    assert [one.code for one in results] == [1, 1]
    assert " of 'trip-1' is missing: its log should have 1 to 5" in results[0].out
    assert "what to do (unreadable): " in results[0].out
    assert "export it there, then delete, purge and import it here" in results[0].out
    assert results[0].out.endswith(": 1 with problems\n")
    assert results[0].out.split(" in ")[0] == results[1].out.split(" in ")[0]
    problems = {one["name"]: [problem["kind"] for problem in one["problems"]] for one in found["documents"]}
    assert problems == {"trip-1": ["unreadable"], "trip-2": [], "旅行/Zürich 🧳": []}
    assert list(found["advice"]) == ["unreadable"]


def test_verify_finds_a_flipped_bit(run: Run, sqlite_url: str, postgres_url: str) -> None:
    bad = bytearray(HELLO[1])
    bad[0] ^= 1  # how many clients have structs
    row = TRIP.rows[1]._replace(update=bytes(bad))
    fill(postgres_url, replace(TRIP, document="flipped", rows=(TRIP.rows[0], row, *TRIP.rows[2:])))
    damage(sqlite_url, f"UPDATE document_update SET \"update\" = x'{bad.hex()}' WHERE \"update\" = x'{HELLO[1].hex()}'")

    for url, name in ((sqlite_url, "trip-1"), (postgres_url, "flipped")):
        result = run("verify", name, "--database", url)

        assert result.code == 1
        assert f"{name!r}:\n  the update with seq 2 is malformed: " in result.out
        assert "The stored bytes have changed since they were accepted" in result.out


def test_verify_finds_a_wrong_snapshot(run: Run, url: str) -> None:
    document = Document()
    for update in HELLO[:3]:
        document.apply(update)
    state = document.state()
    document.apply(HELLO[3])
    newer = document.state()
    wrong = Snapshot("wrong", seq=4, state=state.update, state_vector=newer.state_vector)
    fill(url, Export("wrong", NOW, 4, wrong, ()))

    result = run("verify", "wrong", "trip-1", "--database", url)

    assert result.code == 1
    assert "the snapshot's state vector isn't what its state has: of client 1 it says 4, the state has 3" in result.out
    assert result.out.count("'trip-1'") == 0


def test_verify_tells_what_waits_and_fails_for_it_only_if_it_is_strict(run: Run, sqlite_url: str) -> None:
    fill(sqlite_url, log_of("gap", HELLO[0], HELLO[2]))

    usual = run("verify", "gap", "--database", sqlite_url)
    strict = run("verify", "gap", "--strict", "--database", sqlite_url)

    assert (usual.code, strict.code) == (0, 1)
    assert "'gap': 1 update can't be integrated: what to build on is missing" in usual.out


def test_verify_shows_its_progress_on_a_terminal(sqlite_url: str) -> None:
    controller, terminal = pty.openpty()
    shown = b""
    with subprocess.Popen(
        [sys.executable, "-m", "crdt_sync", "verify", "--database", sqlite_url],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    ) as process:
        os.close(terminal)
        while b"3 of 3 documents" not in shown:
            assert select.select([controller], [], [], 20)[0], shown
            shown += os.read(controller, 1 << 16)  # fails when the command has ended
        os.set_blocking(controller, False)
        out, _ = process.communicate(timeout=20)
    os.close(controller)

    assert (process.returncode, out.startswith(b"checked 3 documents")) == (0, True)


def test_verify_of_the_configured_database_looks_at_the_primary(
    run: Run, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(postgres_url, TRIP)
    monkeypatch.setenv("CRDT_SYNC_DATABASE_URL", postgres_url)
    monkeypatch.setenv("CRDT_SYNC_DATABASE_REPLICA_URL", "postgresql://ann:s3cret@127.0.0.1:1/trips")

    assert run("verify").code == 0
    assert run("rooms", "list").code == 1  # the replica, which isn't there


# -------------------------------------------------------------------------------------------------- all


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_all_commands(shell: str) -> None:
    result = run_outside("completion", shell)

    assert (result.code, result.err) == (0, "")
    for word in ("undelete", "verify", "older-than", "completion"):
        assert word in result.out


def test_bash_completes_commands_options_and_files(tmp_path: Path) -> None:
    (tmp_path / "completion").write_text(run_outside("completion", "bash").out)
    (tmp_path / "trip-1.bin").touch()

    def completed(line: str) -> list[str]:
        words = line.split(" ")
        script = (
            f"source ./completion; COMP_WORDS=({' '.join(word or chr(39) * 2 for word in words)}); "
            f"COMP_CWORD={len(words) - 1}; COMP_LINE='{line}'; COMP_POINT={len(line)}; "
            'function="$(complete -p crdt-sync | sed "s/.*-F \\([^ ]*\\).*/\\1/")"; '
            f"$function crdt-sync '{words[-1]}' '{words[-2]}'; echo \"${{COMPREPLY[@]}}\""
        )
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=20
        )
        return done.stdout.split()

    assert completed("crdt-sync rooms und") == ["undelete"]
    assert completed("crdt-sync gc --old") == ["--older-than"]
    assert completed("crdt-sync export --format r") == ["rich"]
    assert completed("crdt-sync import trip-1 tr") == ["trip-1.bin"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("rooms", "list", "--database", "sqlite:///x.db", "--url", "http://127.0.0.1:1"),
        ("rooms", "list", "--sort", "age"),
        ("export", "trip-1", "--format", "pdf"),
        ("completion", "tcsh"),
        ("rooms",),
    ],
)
def test_wrong_call_is_exit_code_2(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)

    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("usage: crdt-sync")


def test_help_teaches_by_example(run: Run) -> None:
    for command in (
        ("rooms", "list"),
        ("rooms", "delete"),
        ("gc",),
        ("import",),
        ("export",),
        ("verify",),
        ("completion",),
    ):
        result = run(*command, "--help")

        assert result.code == 0
        assert f"\nexamples:\n\n  crdt-sync {' '.join(command)}" in result.out.replace('eval "$(', "")


def test_ctrl_c_ends_a_verification_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/trips.db"
    editor = Editor(1)
    fill(url, log_of("large", *(editor.type("x" * 50) for _ in range(2000))))
    command = [sys.executable, "-m", "crdt_sync", "verify", "--database", url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 20
        while not (found := children.read_text().split()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        started = time.monotonic()
        process.send_signal(2)
        out, err = process.communicate(timeout=20)
        took_s = time.monotonic() - started

    assert (process.returncode, out, err) == (130, b"", b"crdt-sync: interrupted\n")
    assert took_s < 3
    while any(Path(f"/proc/{child}").exists() for child in found):
        assert time.monotonic() < deadline, "a process is left"
        time.sleep(0.02)
