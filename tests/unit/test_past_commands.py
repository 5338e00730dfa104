"""The admin's commands about a document's past, on a database: what they print, what they change, what they refuse."""

import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.authors import Bucket
from crdt_sync.past_reports import print_activity, print_changes
from tests.support.command import ROOT, Result, content, fill, run_outside
from tests.support.past import EMPTY, FULL, emptied_trip

Run = Callable[..., Result]

COMMANDS = [
    ("versions", "list", "trip-1"),
    ("versions", "show", "trip-1", "1"),
    ("versions", "create", "trip-1"),
    ("versions", "diff", "trip-1", "--from", "seq:1"),
    ("versions", "label", "trip-1", "1", "x"),
    ("versions", "delete", "trip-1", "1", "--yes"),
    ("activity", "trip-1"),
    ("restore", "trip-1", "--seq", "1", "--yes"),
    ("restore", "trip-1", "--seq", "1", "--dry-run"),
    ("restore", "trip-1", "--seq", "1", "--as-new", "new"),
    ("rollback", "trip-1", "--user", "eve", "--seq", "1", "--yes"),
    ("export", "trip-1", "--seq", "1", "--format", "json"),
]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database of each kind with a trip that eve has emptied; commands find it by themselves."""
    sqlite = request.param == "sqlite"
    found: str = f"sqlite:///{tmp_path}/trips.db" if sqlite else request.getfixturevalue("postgres_url")
    return prepared(found, monkeypatch)


@pytest.fixture
def sqlite_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return prepared(f"sqlite:///{tmp_path}/trips.db", monkeypatch)


def prepared(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    fill(url, emptied_trip("trip-1").export())
    monkeypatch.setenv("CRDT_SYNC_DATABASE_URL", url)
    return url


def shown(run: Run, name: str = "trip-1") -> Any:
    result = run("export", name, "--format", "json")
    assert result.code == 0, result.err
    return json.loads(result.out)


# ------------------------------------------------------------------------------------------------------- versions


def test_versions_are_taken_listed_shown_labelled_and_deleted(run: Run, url: str) -> None:
    none = run("versions", "list", "trip-1")
    created = run("versions", "create", "trip-1")
    labelled = run("versions", "label", "trip-1", "1", "as emptied")
    again = run("versions", "create", "trip-1", "--label", "second name")
    listed = run("versions", "list", "trip-1")
    shortened = run("versions", "list", "trip-1", "--limit", "1")
    one = run("versions", "show", "trip-1", "1")
    removed = run("versions", "label", "trip-1", "1", "--remove")
    deleted = run("versions", "delete", "trip-1", "2", "1", "2", "--yes")

    results = (none, created, labelled, again, listed, shortened, one, removed, deleted)
    assert [(result.code, result.err) for result in results] == [(0, "")] * len(results)
    assert none.out == "'trip-1' has no versions yet: crdt-sync versions create 'trip-1' takes one\n"
    assert created.out == "'trip-1' as of seq 3 is kept as version 1\n"
    assert labelled.out == "version 1 of 'trip-1' is 'as emptied' now, and kept for ever\n"
    assert again.out == "'trip-1' as of seq 3 is kept as version 2, for ever, as 'second name'\n"
    assert re.search(
        r"^ 1 +20\d\d-\S+ \S+ +manual +3 +\d+ bytes +ann, bob, eve +as emptied *$", listed.out, re.MULTILINE
    )
    assert re.search(r"\n2 versions, \d+ bytes\n$", listed.out)
    assert "… and 1 older: --limit 2 shows them all" in shortened.out
    assert re.search(r"^ label +as emptied *$", one.out, re.MULTILINE)
    assert re.search(r"^ edited by +ann, bob, eve *$", one.out, re.MULTILINE)
    assert removed.out.startswith("version 1 of 'trip-1' has no label any more")
    assert deleted.out == "2 versions of 'trip-1' forgotten\n"
    assert run("versions", "list", "trip-1", "--json").out == "[]\n"


def test_versions_are_told_to_scripts_as_by_the_api(run: Run, sqlite_url: str) -> None:
    created = json.loads(run("versions", "create", "trip-1", "--label", "L", "--json").out)
    listed = json.loads(run("versions", "list", "trip-1", "--json").out)
    one = json.loads(run("versions", "show", "trip-1", "1", "--json").out)
    labelled = json.loads(run("versions", "label", "trip-1", "1", "--remove", "--json").out)
    deleted = json.loads(run("versions", "delete", "trip-1", "1", "--yes", "--json").out)

    assert listed == [created]
    assert one == created
    assert datetime.now(UTC) - datetime.fromisoformat(created.pop("taken_at")) < timedelta(minutes=1)
    assert created.pop("size_bytes") > 0
    assert created == {
        "id": 1,
        "seq": 3,
        "kind": "manual",
        "label": "L",
        "taken_by": None,
        "users": ["ann", "bob", "eve"],
        "whole": True,
        "archived": False,
    }
    assert labelled == {"name": "trip-1", "id": 1, "label": None}
    assert deleted == {"name": "trip-1", "deleted": [1]}


def test_no_version_is_deleted_if_one_of_them_is_not_there(run: Run, sqlite_url: str) -> None:
    run("versions", "create", "trip-1")

    result = run("versions", "delete", "trip-1", "1", "7", "--yes")

    assert (result.code, result.out) == (1, "")
    assert result.err == "crdt-sync: 'trip-1' has no version 7: crdt-sync versions list 'trip-1' lists them\n"
    assert [one["id"] for one in json.loads(run("versions", "list", "trip-1", "--json").out)] == [1]


@pytest.mark.parametrize("label", ["", "x" * 1001, "\udcff"])
def test_what_can_be_no_label_is_refused_in_a_sentence(run: Run, sqlite_url: str, label: str) -> None:
    run("versions", "create", "trip-1")

    results = [run("versions", "label", "trip-1", "1", label), run("versions", "create", "trip-1", "--label", label)]

    assert [(one.code, one.out, one.err.count("\n")) for one in results] == [(1, "", 1)] * 2
    assert all("can't be a label" in one.err for one in results)


# ------------------------------------------------------------------------------------------------------- what was


def test_differences_are_shown_between_versions_seqs_and_moments(run: Run, url: str) -> None:
    run("versions", "create", "trip-1")

    since = run("versions", "diff", "trip-1", "--from", "1 hour ago")
    between = run("versions", "diff", "trip-1", "--from", "seq:1", "--to", "seq:2")
    none = run("versions", "diff", "trip-1", "--from", "1", "--to", "now")
    found = json.loads(run("versions", "diff", "trip-1", "--from", "seq:2", "--to", "1", "--json").out)

    assert since.out == "m.city (eve)\n- Rome\nm.days (eve)\n- 3\nt (eve)\n@ 0\n- Pack light. Take a hat.\n"
    assert re.fullmatch(r"1 hour ago: 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d\n", since.err)
    assert between.out == "t (bob)\n@ 11\n  Pack light.\n+  Take a hat.\n"
    assert none.out == "nothing differs\n"
    assert (found["name"], found["from"], found["to"]) == ("trip-1", "seq 2", "version 1")
    assert [(one["where"], one["kind"], one["authors"]) for one in found["changes"]] == [
        ("m.city", "removed", ["eve"]),
        ("m.days", "removed", ["eve"]),
        ("t", "text", ["eve"]),
    ]


def test_activity_shows_who_did_how_much_with_bars(run: Run, url: str) -> None:
    table = run("activity", "trip-1", "--since", "4 hours ago", "--bucket", "5m")
    since = run("activity", "trip-1", "--since", "1h")
    none = run("activity", "trip-1", "--since", "1 minute ago")
    found = json.loads(run("activity", "trip-1", "--since", "4h", "--bucket", "5m", "--json").out)

    lines = [line.split() for line in table.out.splitlines()]
    assert lines[0] == ["from", "who", "updates", "inserted", "deleted"]
    assert [line[2:] for line in lines[1:]] == [
        ["ann", "1", "13", "0", "+" * 16],
        ["bob", "1", "12", "0", "+" * 15],
        ["eve", "1", "0", "25", "-" * 30],
    ]
    assert "eve" in since.out
    assert "bob" not in since.out
    assert none.out.startswith("nothing that is kept was written to 'trip-1' since 20")
    assert [(one["user"], one["inserted"], one["deleted"]) for one in found["activity"]] == [
        ("ann", 13, 0),
        ("bob", 12, 0),
        ("eve", 0, 25),
    ]
    assert found["bucket_s"] == 300


def test_activity_in_too_many_stretches_is_refused(run: Run, sqlite_url: str) -> None:
    result = run("activity", "trip-1", "--since", "7d", "--bucket", "1s")

    assert (result.code, result.out) == (1, "")
    assert "more than 5000 stretches: give a longer --bucket" in result.err


def test_bars_are_as_long_as_the_most_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2026, 5, 4, tzinfo=UTC)

    print_activity(
        [Bucket(at, "a\x1b", 1, 30, 30, 9), Bucket(at, None, 1, 0, 0, 9), Bucket(at, "b", 1, 1, 0, 9)], bucket_s=30
    )

    lines = capsys.readouterr().out.splitlines()
    assert "a\\x1b" in lines[1]
    assert lines[1].split()[-1] == "+" * 15 + "-" * 15
    assert lines[2].split() == ["-", "1", "0", "0"]
    assert lines[3].split()[-1] == "+"


def test_changes_steer_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_changes("m\n+ \x1b[31mred\x07\n")

    assert capsys.readouterr().out == "m\n+ \\u001b[31mred\\u0007\n"


def test_document_is_exported_as_it_was(run: Run, url: str, tmp_path: Path) -> None:
    run("versions", "create", "trip-1")

    results = [
        run("export", "trip-1", "--format", "json", *when)
        for when in (("--at", "1 hour ago"), ("--seq", "2"), ("--version", "1"), ())
    ]
    written = run("export", "trip-1", "--seq", "2", "--output", tmp_path / "x.bin", "--json")
    run("import", "copy", tmp_path / "x.bin")

    assert [json.loads(one.out) for one in results] == [FULL, FULL, EMPTY, EMPTY]
    assert (json.loads(written.out)["seq"], json.loads(written.out)["exact"]) == (2, True)
    assert shown(run, "copy") == FULL


def test_nearest_version_stands_in_for_what_is_not_kept_and_that_is_said(
    run: Run, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDT_SYNC_HISTORY_DAYS", "0")
    monkeypatch.setenv("CRDT_SYNC_VERSION_INTERVAL_S", "0")
    trip = emptied_trip("trip-1")
    trip.edit("ann", timedelta(0), lambda m, t: m.update({"city": "Oslo"}))
    trip.edit("ann", timedelta(0), lambda m, t: m.update({"city": "Bern"}))
    run("versions", "create", "trip-1")
    for row in trip.rows[3:]:
        (tmp_path / "update.bin").write_bytes(row.update)
        assert run("import", "trip-1", tmp_path / "update.bin").code == 0
    run("versions", "create", "trip-1")

    exported = run("export", "trip-1", "--format", "json", "--seq", "4")
    rehearsed = run("restore", "trip-1", "--seq", "4", "--dry-run")
    too_early = run("export", "trip-1", "--format", "json", "--at", "2 hours ago")

    assert json.loads(exported.out) == EMPTY
    said = "what it was then isn't kept any more; the nearest before it: seq 3"
    assert exported.err == f"{said}\n"
    assert rehearsed.err.startswith(f"{said}, version 1\n")
    assert (too_early.code, too_early.out) == (1, "")
    assert "nothing is kept of 'trip-1' from" in too_early.err


# ------------------------------------------------------------------------------------------------------- restore


def test_emptied_trip_comes_back_and_it_is_told_how_to_undo_that(run: Run, url: str) -> None:
    rehearsed = run("restore", "trip-1", "--at", "1 hour ago", "--dry-run")
    between = content(url)
    done = run("restore", "trip-1", "--at", "1 hour ago", "--yes")
    full = shown(run)
    again = run("restore", "trip-1", "--seq", "2", "--yes")
    undone = run(*done.out.splitlines()[-1].removeprefix("to undo that: crdt-sync ").split(), "--yes")

    changes = "m.city\n+ Rome\nm.days\n+ 3\nt\n@ 0\n+ Pack light. Take a hat.\n"
    assert (rehearsed.code, rehearsed.out) == (0, changes)
    assert rehearsed.err.endswith("found: seq 2\na rehearsal: nothing was done\n")
    assert between == [emptied_like(between)]
    assert done.code == 0, done.err
    assert re.fullmatch(
        re.escape(changes) + r"'trip-1' shows again what it showed at 20\S+\n"
        r"to undo that: crdt-sync restore trip-1 --version 1\n",
        done.out,
    )
    assert full == FULL
    assert (again.code, again.out) == (0, "'trip-1' shows that already: there is nothing to do\n")
    assert undone.code == 0, undone.err
    assert shown(run) == EMPTY


def emptied_like(found: list[Any]) -> Any:
    """The only document there, if nothing was stored since it was made."""
    (only,) = found
    assert (only.head_seq, only.snapshot, only.versions) == (3, None, ())
    return only


def test_restoring_is_told_to_scripts(run: Run, sqlite_url: str) -> None:
    rehearsed = json.loads(run("restore", "trip-1", "--seq", "2", "--dry-run", "--json").out)
    done = run("restore", "trip-1", "--seq", "2", "--yes", "--json")
    again = json.loads(run("restore", "trip-1", "--seq", "2", "--yes", "--json").out)

    found = json.loads(done.out)
    assert rehearsed == found | {"done": False, "version_before": None}
    assert [one["where"] for one in found["changes"]] == ["m.city", "m.days", "t"]
    assert (found["name"], found["past"], found["impossible"], found["done"]) == (
        "trip-1",
        {"seq": 2, "exact": True, "version": None},
        [],
        True,
    )
    assert found["version_before"]["kind"] == "restore"
    assert "+ Rome" in done.err
    assert (again["done"], again["changes"]) == (False, [])


def test_only_chosen_roots_are_restored(run: Run, sqlite_url: str) -> None:
    done = run("restore", "trip-1", "--seq", "2", "--roots", "t", "--yes")

    assert done.code == 0, done.err
    assert shown(run) == {"m": {}, "t": FULL["t"]}


def test_what_can_not_be_restored_is_said_first_and_nothing_is_done_unless_it_may(run: Run, url: str) -> None:
    refused = run("restore", "trip-1", "--seq", "2", "--roots", "t,nowhere", "--yes")
    rehearsed = run("restore", "trip-1", "--seq", "2", "--roots", "t,nowhere", "--dry-run")
    between = shown(run)
    nothing = run("restore", "trip-1", "--seq", "2", "--roots", "nowhere", "--anyway", "--yes")
    done = run("restore", "trip-1", "--seq", "2", "--roots", "t,nowhere", "--anyway", "--yes")

    assert [one.code for one in (refused, rehearsed, nothing, done)] == [1, 1, 1, 0]
    assert refused.err.splitlines()[1:] == [
        "not exactly: There never was anything in “nowhere”.",
        "crdt-sync: that isn't possible exactly: --anyway does what is possible. Nothing was done",
    ]
    assert between == EMPTY
    assert shown(run) == {"m": {}, "t": FULL["t"]}


def test_past_becomes_a_document_of_its_own(run: Run, url: str) -> None:
    rehearsed = run("restore", "trip-1", "--seq", "2", "--as-new", "copy", "--dry-run")
    names = [one["name"] for one in json.loads(run("rooms", "list", "--json").out)]
    done = run("restore", "trip-1", "--seq", "2", "--as-new", "copy")
    taken = run("restore", "trip-1", "--seq", "2", "--as-new", "copy", "--json")
    no_name = run("restore", "trip-1", "--seq", "2", "--as-new", "a\nb")

    assert (rehearsed.code, names) == (0, ["trip-1"])
    assert done.code == 0, done.err
    assert (shown(run, "copy"), shown(run)) == (FULL, EMPTY)
    assert (taken.code, taken.out) == (1, "")
    assert "'copy' has content already: choose a name that is free" in taken.err
    assert (no_name.code, no_name.err.count("\n")) == (1, 1)


def test_one_user_s_edits_are_taken_back_and_others_stay(run: Run, url: str) -> None:
    trip = emptied_trip("spam")
    trip.edit("bob", timedelta(minutes=20), lambda m, t: m.update({"days": 4}))
    fill(url, trip.export())

    rehearsed = run("rollback", "spam", "--user", "eve", "--since", "1 hour ago", "--dry-run")
    between = shown(run, "spam")
    done = run("rollback", "spam", "--user", "eve", "--since", "1h", "--yes")
    again = run("rollback", "spam", "--user", "eve", "--since", "1h", "--yes")

    assert (rehearsed.code, rehearsed.out) == (0, "m.city\n+ Rome\nt\n@ 0\n+ Pack light. Take a hat.\n")
    assert between == {"m": {"days": 4}, "t": None}
    assert done.code == 0, done.err
    assert re.search(r"\nwhat 'eve' did in 'spam' since 20\S+ is taken back\nto undo that: ", done.out)
    assert shown(run, "spam") == {"m": {"city": "Rome", "days": 4}, "t": FULL["t"]}
    assert again.out == "'spam' shows that already: there is nothing to do\n"


# ------------------------------------------------------------------------------------------------------- asking, refusing


@pytest.mark.parametrize(
    "command",
    [
        ("restore", "trip-1", "--seq", "2"),
        ("rollback", "trip-1", "--user", "eve", "--seq", "2"),
        ("versions", "delete", "trip-1", "1"),
    ],
)
def test_nothing_is_done_where_nobody_can_be_asked(run: Run, sqlite_url: str, command: tuple[str, ...]) -> None:
    run("versions", "create", "trip-1")
    before = content(sqlite_url)

    result = run_outside(*command)

    assert result.code == 1
    assert result.err.endswith("Nobody can be asked here: give --yes if so. Nothing was done\n")
    assert content(sqlite_url) == before


@pytest.mark.parametrize(("answer", "restored"), [("y", True), ("n", False), ("", False)])
def test_whoever_is_asked_sees_in_colours_what_would_change(sqlite_url: str, answer: str, restored: bool) -> None:
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "crdt_sync", "restore", "trip-1", "--seq", "2"]
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    with subprocess.Popen(command, cwd=ROOT, stdin=terminal, stdout=terminal, stderr=terminal, env=env) as process:
        asked = b""
        while b"[y/N]" not in asked:
            assert select.select([controller], [], [], 20)[0], asked
            asked += os.read(controller, 1000)
        os.write(controller, f"{answer}\n".encode())
        code = process.wait(timeout=20)
    os.close(terminal)
    os.close(controller)

    assert b"\x1b[32m+ Rome\x1b[0m" in asked
    assert asked.index(b"+ Rome") < asked.index(b"Restore 'trip-1' to seq 2 at SQLite database")
    assert code == (0 if restored else 1)
    (document,) = content(sqlite_url)
    assert document is not None
    assert document.head_seq == (4 if restored else 3)


@pytest.mark.parametrize("command", COMMANDS)
def test_document_that_is_not_there_or_was_deleted_is_said_so(
    run: Run, sqlite_url: str, command: tuple[str, ...]
) -> None:
    words = list(command)
    words[words.index("trip-1")] = "nowhere"
    absent = run(*words)
    run("rooms", "delete", "trip-1", "--yes")
    before = content(sqlite_url)

    deleted = run(*command)

    assert (absent.code, absent.out) == (deleted.code, deleted.out) == (1, "")
    assert absent.err.splitlines()[-1].startswith("crdt-sync: there is no document 'nowhere' in SQLite database")
    assert deleted.err.splitlines()[-1] == (
        "crdt-sync: 'trip-1' was deleted: crdt-sync rooms undelete 'trip-1' brings it back"
    )
    assert content(sqlite_url) == before


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("restore", "trip-1"), 2, "one of the arguments --version --at --seq is required"),
        (("restore", "trip-1", "--seq", "1", "--version", "1"), 2, "not allowed with"),
        (("restore", "trip-1", "--seq", "x"), 2, "a whole number is needed, not 'x'"),
        (("restore", "trip-1", "--seq", "1", "--as-new", "x", "--roots", "t"), 2, "not allowed with"),
        (("versions", "label", "trip-1", "1"), 2, "one of the arguments TEXT --remove is required"),
        (("rollback", "trip-1", "--seq", "1"), 2, "--user"),
        (("restore", "trip-1", "--at", "whenever", "--yes"), 1, "'whenever' is neither a time nor a moment"),
        (("restore", "trip-1", "--at", "2100-01-01", "--yes"), 1, "is in the future"),
        (("restore", "trip-1", "--seq", "99", "--yes"), 1, "has no update 99: its last one is 3"),
        (("restore", "trip-1", "--version", "9", "--yes"), 1, "has no version 9"),
        (("versions", "diff", "trip-1", "--from", "2 fortnights ago"), 1, "is neither a time nor a moment"),
        (("activity", "trip-1", "--bucket", "soon"), 2, "'soon' is no time"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_sentence(
    run: Run, sqlite_url: str, arguments: tuple[str, ...], code: int, why: str
) -> None:
    before = content(sqlite_url)

    result = run(*arguments)

    assert (result.code, result.out) == (code, "")
    assert why in result.err
    assert "Traceback" not in result.err
    assert content(sqlite_url) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_works_in_a_process_of_its_own(run: Run, sqlite_url: str, command: tuple[str, ...]) -> None:
    run("versions", "create", "trip-1")

    result = run_outside(*command)

    assert result.code == 0, result.err
    assert result.out or command[0] == "restore"


@pytest.mark.parametrize(
    "command",
    [("versions", verb) for verb in ("list", "show", "create", "diff", "label", "delete")]
    + [("activity",), ("restore",), ("rollback",)],
)
def test_help_teaches_by_example(run: Run, command: tuple[str, ...]) -> None:
    result = run(*command, "--help")

    assert result.code == 0
    assert f"examples:\n\n  crdt-sync {' '.join(command)} trip-1" in result.out
