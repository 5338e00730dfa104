"""Old versions in an archive: a folder, and a bucket of a server that speaks S3."""

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from crdt_sync.archiving import Archiving, read_version
from crdt_sync.history import History
from crdt_sync.retention import Retention, archivable
from crdt_sync.settings import Settings
from crdt_sync.versions import Versions
from persistence import (
    ArchivedVersion,
    ArchiveUnavailable,
    Entry,
    Snapshot,
    Store,
    StoreCorrupt,
    StoreUnavailable,
    StoreUnusable,
    Version,
    VersionArchive,
    VersionContent,
    open_archive,
    open_store,
)
from persistence.archive import Archive
from persistence.archived import folder_of, key_of
from tests.support.fakes import MoodyStore, text_of, turns, typed
from tests.support.s3 import ENVIRONMENT, S3Server

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ROOM = "Zürich/../🧳"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        server.make_bucket()
        yield server


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "file":
        return tmp_path.as_uri()
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return str(request.getfixturevalue("s3").url).replace("pre/fix", tmp_path.name)


@pytest.fixture
def archive(url: str) -> Iterator[VersionArchive]:
    archive = open_archive(url)
    yield archive
    archive.close()


@pytest.fixture
async def store() -> AsyncIterator[MoodyStore]:
    """With a document of three versions: 60, 50 and 1 days old."""
    store = MoodyStore(open_store("memory://"))
    await store.open()
    for seq, (update, days) in enumerate(zip(typed("abc"), (60, 50, 1), strict=True), start=1):
        await store.append([Entry(ROOM, [update], accepted_at=NOW - days * DAY)])
        state = (await History(store).at_seq(ROOM, seq)).update
        await store.checkpoint([Snapshot(ROOM, seq=seq, state=state, state_vector=b"v")])
        await store.take_version(ROOM, at=NOW - days * DAY, kind="auto", label=f"v{seq}")
    yield store
    await store.close()


def versions_of(store: Store, archiving: Archiving) -> Versions:
    return Versions(store, Settings(history_days=7, archive_after_days=30), archiving, now=lambda: NOW)


async def swept(store: Store, archive: VersionArchive) -> Archiving:
    archiving = Archiving(store, archive)
    await versions_of(store, archiving).sweep()
    return archiving


def object_of(folder: Path, id: int = 1) -> Path:
    return folder / key_of(ROOM, id)


async def until_deleted(archiving: Archiving) -> None:
    while archiving._deleting:
        await asyncio.wait(archiving._deleting)


async def archived_ids(store: Store) -> list[int]:
    return [one.id for one in await store.versions(ROOM) if one.archived]


async def test_sweep_archives_old_versions_that_are_read_as_before(store: MoodyStore, archive: VersionArchive) -> None:
    before = [await store.version(ROOM, id) for id in (1, 2, 3)]

    await swept(store, archive)

    # Version 2 is what the kept log is read on from.
    assert await archived_ids(store) == [1]
    after = [await read_version(store, archive, ROOM, id) for id in (1, 2, 3)]
    assert [one.snapshot for one in after if one] == [one.snapshot for one in before if isinstance(one, VersionContent)]
    assert text_of((await History(store, archive=archive).at_version(ROOM, 1)).update) == "a"


async def test_sweep_that_was_killed_after_writing_is_made_good_by_the_next(
    store: MoodyStore, archive: VersionArchive
) -> None:
    store.fail("archive_version")
    with pytest.raises(StoreUnavailable, match="on purpose"):
        await swept(store, archive)
    between = await archived_ids(store), isinstance(await store.version(ROOM, 1), VersionContent)
    store.recover()

    await swept(store, archive)

    assert between == ([], True)
    assert await archived_ids(store) == [1]
    assert await read_version(store, archive, ROOM, 1) is not None


async def test_nodes_that_archive_the_same_version_leave_it_readable(
    store: MoodyStore, archive: VersionArchive
) -> None:
    (version,) = [one for one in await store.versions(ROOM) if one.id == 1]
    nodes = [Archiving(store, archive) for _ in range(3)]

    moved = await asyncio.gather(*(node.move(ROOM, version) for node in nodes))
    for node in nodes:
        await until_deleted(node)

    assert sum(moved) == 1
    assert await read_version(store, archive, ROOM, 1) is not None


async def test_what_is_deleted_goes_from_the_archive_too(store: MoodyStore, archive: VersionArchive) -> None:
    archiving = await swept(store, archive)
    archived = await store.version(ROOM, 1)
    assert isinstance(archived, ArchivedVersion)

    archiving.forget(ROOM, [1, 99])
    await until_deleted(archiving)
    archiving.forget_all("another")
    await until_deleted(archiving)

    with pytest.raises(StoreCorrupt, match=f"there is no {key_of(ROOM, 1)} in the archive"):
        await archive.read(ROOM, archived)


async def test_a_purge_takes_all_objects_of_a_document_and_none_of_another(
    store: MoodyStore, archive: VersionArchive
) -> None:
    content = await store.version(ROOM, 1)
    assert isinstance(content, VersionContent)
    digests = {(room, id): await _write(archive, room, content, id) for room in (ROOM, "x") for id in (1, 2, 12)}
    archiving = Archiving(store, archive)

    archiving.forget_all(ROOM)
    await until_deleted(archiving)

    found = {}
    for (room, id), digest in digests.items():
        version = replace(content.version, id=id, archived=True)
        try:
            found[room, id] = bool(await archive.read(room, ArchivedVersion(version, digest)))
        except StoreCorrupt:
            found[room, id] = False
    assert found == {(room, id): room == "x" for room, id in digests}


async def _write(archive: VersionArchive, room: str, content: VersionContent, id: int) -> bytes:
    return await archive.write(room, replace(content, version=replace(content.version, id=id)))


async def test_version_deleted_while_it_is_archived_leaves_nothing(store: MoodyStore, tmp_path: Path) -> None:
    archiving = Archiving(store, open_archive(tmp_path.as_uri()))
    (version,) = [one for one in await store.versions(ROOM) if one.id == 1]
    store.hold("archive_version")
    moving = asyncio.create_task(archiving.move(ROOM, version))
    while not object_of(tmp_path).exists():
        await asyncio.sleep(0.001)

    await store.delete_versions(ROOM, [1])
    store.let_go("archive_version")
    moved = await moving
    await until_deleted(archiving)

    assert not moved
    assert not object_of(tmp_path).exists()


async def test_retention_takes_what_is_archived_along(store: MoodyStore, tmp_path: Path) -> None:
    archiving = await swept(store, open_archive(tmp_path.as_uri()))
    was_there = object_of(tmp_path).exists()
    await store.label_version(ROOM, 1, None)

    none_daily = Settings(versions_daily_days=0)
    await Versions(store, none_daily, archiving, now=lambda: NOW).sweep()
    await until_deleted(archiving)

    assert (was_there, object_of(tmp_path).exists()) == (True, False)


async def test_object_in_a_folder_is_on_the_disk_before_the_database_forgets(
    store: MoodyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []
    monkeypatch.setattr("os.fsync", lambda descriptor: flushed.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    store.fail("archive_version")

    with pytest.raises(StoreUnavailable, match="on purpose"):
        await swept(store, open_archive(tmp_path.as_uri()))

    path = object_of(tmp_path)
    assert flushed == [str(path), str(path.parent), str(tmp_path)]


# ------------------------------------------------------------------------------------------------------------- damage


class Forgetful(Archive):
    """An archive that loses the end of what it is given."""

    async def write(self, key: str, data: bytes) -> None:
        await super().write(key, data[:-1])


async def test_what_reads_back_different_stays_in_the_database(store: MoodyStore, tmp_path: Path) -> None:
    (version,) = [one for one in await store.versions(ROOM) if one.id == 1]

    with pytest.raises(StoreCorrupt, match="reads back different"):
        await Archiving(store, VersionArchive(Forgetful(tmp_path.as_uri()))).move(ROOM, version)

    assert isinstance(await store.version(ROOM, 1), VersionContent)


async def test_every_flipped_byte_is_noticed_and_the_object_named(store: MoodyStore, tmp_path: Path) -> None:
    archive = open_archive(tmp_path.as_uri())
    await swept(store, archive)
    good = object_of(tmp_path).read_bytes()

    for at in range(0, len(good), 7):
        object_of(tmp_path).write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(StoreCorrupt, match=f"{key_of(ROOM, 1)} in the archive file://"):
            await read_version(store, archive, ROOM, 1)

    object_of(tmp_path).write_bytes(good)
    assert await read_version(store, archive, ROOM, 1) is not None


async def test_another_databases_version_is_not_overwritten(store: MoodyStore, tmp_path: Path) -> None:
    archive = open_archive(tmp_path.as_uri())
    content = await store.version(ROOM, 1)
    assert isinstance(content, VersionContent)
    other = replace(content, version=replace(content.version, taken_at=NOW - 70 * DAY))
    await archive.write(ROOM, other)
    there = object_of(tmp_path).read_bytes()

    await swept(store, archive)

    assert await archived_ids(store) == []
    assert object_of(tmp_path).read_bytes() == there


async def test_half_an_object_is_overwritten(store: MoodyStore, tmp_path: Path) -> None:
    object_of(tmp_path).parent.mkdir()
    object_of(tmp_path).write_bytes(b"crdt-sync archived ver")

    archive = open_archive(tmp_path.as_uri())
    await swept(store, archive)

    assert await read_version(store, archive, ROOM, 1) is not None


async def test_full_disk_leaves_the_content_in_the_database(store: MoodyStore, tmp_path: Path) -> None:
    archive = open_archive(tmp_path.as_uri())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    (version,) = [one for one in await store.versions(ROOM) if one.id == 1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        with pytest.raises(ArchiveUnavailable, match="writing"):
            await Archiving(store, archive).move(ROOM, version)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert isinstance(await store.version(ROOM, 1), VersionContent)
    assert not object_of(tmp_path).exists()


# -------------------------------------------------------------------------------------------------------- out of reach


@pytest.mark.parametrize("place", ["missing", "file"])
async def test_sweep_without_its_folder_goes_on_and_archives_later(
    store: MoodyStore, tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "disk"
    if place == "file":
        folder.write_bytes(b"no folder")
    archive = open_archive(folder.as_uri())
    versions = versions_of(store, Archiving(store, archive))

    await versions.sweep()
    await versions.sweep()
    between = await archived_ids(store), [one.message for one in caplog.records].count("archive_failing")
    folder.unlink(missing_ok=True)
    folder.mkdir()
    await versions.sweep()

    assert between == ([], 1)
    assert await archived_ids(store) == [1]


async def test_what_could_not_be_deleted_is_deleted_by_the_next_sweep(store: MoodyStore, tmp_path: Path) -> None:
    (folder := tmp_path / "disk").mkdir()
    archiving = await swept(store, open_archive(folder.as_uri()))
    os.rename(folder, tmp_path / "away")
    await store.delete_versions(ROOM, [1])
    archiving.forget(ROOM, [1])
    await until_deleted(archiving)
    os.rename(tmp_path / "away", folder)
    still_there = object_of(folder).exists()

    await versions_of(store, archiving).sweep()

    assert (still_there, object_of(folder).exists()) == (True, False)


async def test_archive_that_does_not_answer_holds_up_no_other_thread(
    store: MoodyStore, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("persistence.archive.CALL_TIMEOUT_S", 0.5)
    archive = open_archive(s3.url)
    await swept(store, archive)
    s3.freeze()
    try:
        reads = [asyncio.create_task(read_version(store, archive, ROOM, 1)) for _ in range(40)]
        await turns()
        started = time.monotonic()
        await asyncio.to_thread(int)
        elapsed_s = time.monotonic() - started
        failed = await asyncio.gather(*reads, return_exceptions=True)
    finally:
        s3.thaw()

    assert elapsed_s < 0.4
    assert {type(one) for one in failed} == {ArchiveUnavailable}


async def test_without_an_archive_an_archived_version_says_what_to_set(store: MoodyStore, tmp_path: Path) -> None:
    await swept(store, open_archive(tmp_path.as_uri()))

    with pytest.raises(ArchiveUnavailable, match="set CRDT_SYNC_ARCHIVE_URL"):
        await History(store).at_version(ROOM, 1)


@pytest.mark.parametrize(
    "wrong", ["ftp://host/x", "file://host/x", "file:///", "x", "s3://", "s3://bucket?nonsense=1", "file:///x?a=b"]
)
def test_url_that_names_no_archive_is_refused(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreUnusable, match="archive"):
        open_archive(wrong)


def test_what_an_archive_is_called_has_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = open_archive("s3://bucket/a?region=x&access_key_id=me&secret_access_key=hush")

    assert archive.describe() == "s3://bucket/a"


def test_keys_tell_nothing_of_a_name() -> None:
    assert key_of(ROOM, 12) == f"{folder_of(ROOM)}/12"
    assert len(folder_of(ROOM)) == 64
    assert folder_of(ROOM).isalnum()


# ------------------------------------------------------------------------------------------------------ which versions

KEEP = Retention(DAY, 7 * DAY, 90 * DAY, 7 * DAY, archived_after=30 * DAY)


def version(days: float, *, whole: bool = True, archived: bool = False) -> Version:
    return Version(int(1000 - days), int(1000 - days), NOW - days * DAY, "auto", None, None, (), 1, whole, archived)


def test_what_the_kept_log_is_read_on_from_stays() -> None:
    versions = [version(31, whole=False), version(40), version(41), version(42, archived=True)]

    assert archivable(versions, KEEP, now=NOW) == [versions[0], versions[2]]
    assert archivable([version(1), version(29), version(30)], KEEP, now=NOW) == [version(30)]


def test_whole_versions_inside_of_a_long_history_stay() -> None:
    long = replace(KEEP, history_for=100 * DAY)

    assert archivable([version(31), version(99)], long, now=NOW) == []
    assert archivable([version(31), version(101), version(102)], long, now=NOW) == [version(102)]
