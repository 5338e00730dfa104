"""`crdt-sync import-from`: stores that other servers wrote, as far as they can be had, and what is wrong with some."""

import asyncio
import json
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pycrdt.store import BaseYStore, FileYStore, SQLiteYStore

from tests.support.command import Result, content, run_inside
from tests.support.fakes import Editor, typed

# As @hocuspocus/extension-sqlite 4.7.0 has them (src/SQLite.ts).
HOCUSPOCUS = """CREATE TABLE IF NOT EXISTS "documents" (
  "name" varchar(255) NOT NULL,
  "data" blob NOT NULL,
  UNIQUE(name)
)"""
HOCUSPOCUS_UPSERT = """
  INSERT INTO "documents" ("name", "data") VALUES ($name, $data)
    ON CONFLICT(name) DO UPDATE SET data = $data
"""

Import = Callable[..., tuple[Result, dict[str, Any]]]


@pytest.fixture
def url(tmp_path: Path) -> str:
    found = f"sqlite:///{tmp_path}/ours.db"
    assert run_inside("migrate", "--database", found, env={}).code == 0
    return found


@pytest.fixture
def bring(url: str) -> Import:
    """Runs the command; returns what it did, and its JSON."""

    def bring(*arguments: str | Path) -> tuple[Result, dict[str, Any]]:
        result = run_inside("import-from", *arguments, "--json", "--database", url, env={})
        return result, json.loads(result.out) if result.out else {}

    return bring


def state(text: str, *, client: int = 1) -> bytes:
    editor = Editor(client)
    editor.type(text)
    return bytes(editor.doc.get_update())


def text_of(url: str, name: str) -> str:
    result = run_inside("export", name, "--format", "json", "--database", url, env={})
    assert result.code == 0, result.err
    return str(json.loads(result.out)["text"])


def hocuspocus(path: Path, **documents: bytes) -> Path:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(HOCUSPOCUS)
        for name, data in documents.items():
            database.execute(HOCUSPOCUS_UPSERT, {"name": name, "data": data})
    return path


def yupdates(path: Path, *rows: tuple[str, bytes | None]) -> None:
    """What SQLiteYStore may hold after an accident."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE yupdates (path TEXT NOT NULL, yupdate BLOB, metadata BLOB, timestamp REAL NOT NULL)"
        )
        database.executemany("INSERT INTO yupdates VALUES (?, ?, NULL, 0)", rows)


def folder(path: Path, **documents: bytes) -> Path:
    path.mkdir(exist_ok=True)
    for name, data in documents.items():
        (path / f"{name}.bin").write_bytes(data)
    return path


def write(store: BaseYStore, *updates: bytes) -> None:
    async def write() -> None:
        async with store:
            for update in updates:
                await store.write(update)

    asyncio.run(write())


def outcomes(told: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["outcome"] for one in told["documents"]}


# ---------------------------------------------------------------------------------------------------------- layouts


def test_hocuspocus_documents_come_along(bring: Import, url: str, tmp_path: Path) -> None:
    result, told = bring(
        "hocuspocus-sqlite", hocuspocus(tmp_path / "db.sqlite", a=state("Ann"), b=state("Bob"), c=b"\0\0")
    )

    assert (result.code, outcomes(told)) == (0, {"a": "new", "b": "new", "c": "empty"})
    assert (text_of(url, "a"), text_of(url, "b")) == ("Ann", "Bob")


def test_pycrdt_s_sqlite_store_comes_along(bring: Import, url: str, tmp_path: Path) -> None:
    class Store(SQLiteYStore):
        db_path = str(tmp_path / "ystore.db")

    write(Store("/trip-1"), *typed("Lisboa"))
    write(Store("/trip-2"), *typed("Wien", client_id=2))

    result, told = bring("ystore-sqlite", tmp_path / "ystore.db", "--names", "/(.*)")

    assert (result.code, outcomes(told)) == (0, {"trip-1": "new", "trip-2": "new"})
    assert [one["updates"] for one in told["documents"]] == [6, 4]
    assert (text_of(url, "trip-1"), text_of(url, "trip-2")) == ("Lisboa", "Wien")


def test_compressed_and_squashed_stores_come_along(bring: Import, url: str, tmp_path: Path) -> None:
    class Store(SQLiteYStore):
        db_path = str(tmp_path / "ystore.db")

    store = Store("trip-1")
    store.register_compression_callbacks(zlib.compress, zlib.decompress)
    write(store, *typed("Lisboa"))

    result, told = bring("ystore-sqlite", tmp_path / "ystore.db")

    assert (result.code, outcomes(told)) == (0, {"trip-1": "new"})
    assert text_of(url, "trip-1") == "Lisboa"


def test_pycrdt_s_file_store_comes_along(bring: Import, url: str, tmp_path: Path) -> None:
    write(FileYStore(str(tmp_path / "rooms/paris/notes.y"), metadata_callback=lambda: b"by ann"), *typed("Louvre"))

    result, told = bring("ystore-file", tmp_path / "rooms", "--names", r"(.*)\.y")

    assert (result.code, outcomes(told)) == (0, {"paris/notes": "new"})
    assert text_of(url, "paris/notes") == "Louvre"


def test_a_folder_of_updates_comes_along_under_decoded_names(bring: Import, url: str, tmp_path: Path) -> None:
    (folder(tmp_path / "dumped", **{"trip%2F%E6%97%85": state("旅")}) / "notes.txt").write_text("not a document")

    result, told = bring("updates", tmp_path / "dumped")

    assert (result.code, outcomes(told)) == (0, {"trip/旅": "new"})
    assert text_of(url, "trip/旅") == "旅"


# ------------------------------------------------------------------------------------------- what is here already


def test_running_it_again_changes_nothing(bring: Import, url: str, tmp_path: Path) -> None:
    source = hocuspocus(tmp_path / "db.sqlite", a=state("Ann"))
    bring("hocuspocus-sqlite", source)
    before = content(url)

    result, told = bring("hocuspocus-sqlite", source)

    assert (result.code, outcomes(told)) == (0, {"a": "there"})
    assert content(url) == before


def test_a_document_of_that_name_is_left_alone_unless_merging_is_asked_for(
    bring: Import, url: str, tmp_path: Path
) -> None:
    bring("updates", folder(tmp_path / "ours", a=state("ours ", client=1)))
    theirs = folder(tmp_path / "theirs", a=state("theirs ", client=2), b=state("new"))

    left, told = bring("updates", theirs)
    assert (left.code, outcomes(told)) == (1, {"a": "left alone", "b": "new"})
    assert text_of(url, "a") == "ours "
    assert "--merge" in left.err

    merged, told = bring("updates", theirs, "--merge")
    assert (merged.code, outcomes(told)) == (0, {"a": "merged", "b": "there"})
    assert text_of(url, "a") in ("ours theirs ", "theirs ours ")


def test_a_dry_run_tells_the_same_and_changes_nothing(bring: Import, url: str, tmp_path: Path) -> None:
    bring("updates", folder(tmp_path / "ours", a=state("ours")))
    theirs = folder(tmp_path / "theirs", a=state("theirs", client=2), b=state("new"), c=b"\xff", api=b"\0\0")
    before = content(url)

    result, told = bring("updates", theirs, "--dry-run")

    assert (result.code, told["dry_run"]) == (1, True)
    assert outcomes(told) == {"a": "left alone", "b": "new", "c": "failed", "api": "empty"}
    assert content(url) == before


# --------------------------------------------------------------------------------------------------- what is damaged


def test_a_document_with_a_damaged_update_is_named_and_the_others_come_along(
    bring: Import, url: str, tmp_path: Path
) -> None:
    path = tmp_path / "ystore.db"
    first, second, third = typed("abc")
    yupdates(path, ("bad", first), ("bad", second), ("bad", third[:-3]), ("null", None), ("good", first))

    result, told = bring("ystore-sqlite", path)

    assert (result.code, outcomes(told)) == (1, {"bad": "failed", "good": "new", "null": "failed"})
    assert "'bad': update 3 of 3 isn't one" in result.err
    assert "--anyway" in result.err

    result, told = bring("ystore-sqlite", path, "--anyway", "--names", "bad")
    assert (result.code, outcomes(told)) == (0, {"bad": "new"})
    assert text_of(url, "bad") == "ab"


def test_a_file_that_ends_in_the_middle_of_an_update_is_named(bring: Import, url: str, tmp_path: Path) -> None:
    file = tmp_path / "rooms/trip-1"
    write(FileYStore(str(file)), *typed("abc"))
    file.write_bytes(file.read_bytes()[:-5])
    (tmp_path / "rooms/other").write_text("something else")
    (tmp_path / "rooms/old").write_bytes(b"VERSION:1\n\x01\x00")

    result, told = bring("ystore-file", tmp_path / "rooms")

    assert (result.code, outcomes(told)) == (1, {"old": "failed", "other": "failed", "trip-1": "failed"})
    assert "are no whole update" in result.err
    assert "VERSION:1" in result.err
    assert bring("ystore-file", tmp_path / "rooms", "--anyway", "--names", "trip-1")[0].code == 0
    assert text_of(url, "trip-1") == "ab"


def test_what_waits_for_something_that_never_came_comes_along(bring: Import, url: str, tmp_path: Path) -> None:
    first, _, third = typed("abc")
    rows = tmp_path / "ystore.db"
    yupdates(rows, ("a", first), ("a", third))

    result, _ = bring("ystore-sqlite", rows)
    # What waits isn't part of what can be read here, so nobody knows whether it is there already.
    again, told = bring("ystore-sqlite", rows)
    merged, _ = bring("ystore-sqlite", rows, "--merge")

    assert (result.code, again.code, merged.code) == (0, 1, 0)
    assert outcomes(told) == {"a": "left alone"}
    assert text_of(url, "a") == "a"
    [export] = content(url)
    assert export is not None
    assert export.snapshot is not None
    assert export.snapshot.waiting == (third,)


@pytest.mark.parametrize("name", ["x" * 256, "a%07b", "api%2Fx"])
def test_a_name_that_no_room_can_have_fails_in_a_dry_run_too(bring: Import, tmp_path: Path, name: str) -> None:
    source = tmp_path / "db.sqlite"
    hocuspocus(source, **{name.replace("%07", "\a").replace("%2F", "/"): state("x")})

    for more in ((), ("--dry-run",)):
        result, told = bring("hocuspocus-sqlite", source, *more)
        assert (result.code, told["counts"]["failed"]) == (1, 1)


def test_the_wrong_kind_or_path_says_what_was_expected(bring: Import, tmp_path: Path) -> None:
    source = hocuspocus(tmp_path / "db.sqlite", a=state("x"))
    (tmp_path / "text").write_text("not a database, however long this text may be")

    for kind, path, said in (
        ("ystore-sqlite", source, "no table 'yupdates'"),
        ("hocuspocus-sqlite", tmp_path / "text", "no SQLite database"),
        ("hocuspocus-sqlite", tmp_path / "nowhere", "there is no file"),
        ("updates", tmp_path / "nowhere", "there is no folder"),
    ):
        result, _ = bring(kind, path)
        assert result.code == 1
        assert said in result.err
    assert not (tmp_path / "nowhere").exists()


def test_names_choose_and_rename(bring: Import, tmp_path: Path) -> None:
    source = hocuspocus(tmp_path / "db.sqlite", **{"doc:a": state("A"), "doc:b": state("B"), "tmp:a": state("C")})

    assert outcomes(bring("hocuspocus-sqlite", source, "--names", "doc:(.*)", "--dry-run")[1]) == {
        "a": "new",
        "b": "new",
    }
    assert outcomes(bring("hocuspocus-sqlite", source, "--names", "doc:.*", "--dry-run")[1]) == {
        "doc:a": "new",
        "doc:b": "new",
    }
    assert outcomes(bring("hocuspocus-sqlite", source, "--names", "doc", "--dry-run")[1]) == {}
    assert "one name" in bring("hocuspocus-sqlite", source, "--names", ".*:(.*)", "--dry-run")[0].err
    assert "--names" in bring("hocuspocus-sqlite", source, "--names", "(", "--dry-run")[0].err


def test_people_are_told_in_a_few_lines(url: str, tmp_path: Path) -> None:
    source = hocuspocus(tmp_path / "db.sqlite", a=state("Ann"), b=b"\xff")

    result = run_inside("import-from", "hocuspocus-sqlite", source, "--database", url, env={})

    assert result.out == "imported        1 document: 1 update, 16 bytes together\nfailed          1 document\n"
    assert "'b': update 1 of 1 isn't one: " in result.err
