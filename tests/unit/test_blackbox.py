"""What a process was doing when it died is known to those that live."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt_sync import blackbox
from crdt_sync.blackbox import INSIDE_BYTES_MAX, KEPT_S, MAPPED_BYTES, BlackBox, NoBlackBox

ROOT = Path(__file__).parents[2]
DIES = """
import os, signal, sys
from pathlib import Path
from crdt_sync.blackbox import BlackBox

folder, store, room, size, idle = sys.argv[1:]
recorder = BlackBox(store, folder=Path(folder)).recorder(room)
recorder.note(b"x" * int(size))
if idle == "idle":
    recorder.clear()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[BlackBox]:
    made = BlackBox("store", folder=tmp_path)
    yield made
    made.close()


def test_what_a_killed_process_was_taking_in_is_known(box: BlackBox, tmp_path: Path) -> None:
    let_die(tmp_path, size=25)

    [death] = box.deaths()

    assert (death.room, box.update(death)) == ("trip-1 ü", b"x" * 25)
    assert abs(time.time() - death.at) < 60


def test_an_update_larger_than_the_mapping_is_noted_whole_and_its_space_given_back(
    box: BlackBox, tmp_path: Path
) -> None:
    size = 3 * MAPPED_BYTES
    let_die(tmp_path, size=size)
    recorder = box.recorder("trip-1")

    recorder.note(b"x" * size)
    occupied = own_file(box, tmp_path).stat().st_size
    recorder.clear()

    [death] = box.deaths()
    assert box.update(death) == b"x" * size
    assert (occupied, own_file(box, tmp_path).stat().st_size) == (MAPPED_BYTES + size, MAPPED_BYTES)


@pytest.mark.parametrize("size", [INSIDE_BYTES_MAX, INSIDE_BYTES_MAX + 1])
def test_updates_around_the_bound_are_noted_whole(size: int, box: BlackBox, tmp_path: Path) -> None:
    let_die(tmp_path, size=size)

    [death] = box.deaths()

    assert box.update(death) == b"x" * size


def test_without_space_for_a_large_update_the_room_is_noted_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    dying, looking = BlackBox("store", folder=tmp_path), BlackBox("store", folder=tmp_path)
    monkeypatch.setattr(os, "pwrite", is_full)
    dying.recorder("trip-1").note(b"x" * MAPPED_BYTES)
    # As when it dies. The mapping has a descriptor of its own.
    dying._map.close()
    os.close(dying._fd)

    [death] = looking.deaths()

    assert (death.room, looking.update(death)) == ("trip-1", None)


def test_what_is_not_about_one_update_names_the_room_alone(box: BlackBox, tmp_path: Path) -> None:
    let_die(tmp_path, size=0)

    [death] = box.deaths()

    assert (death.room, box.update(death)) == ("trip-1 ü", None)


def test_who_died_idle_leaves_nothing(box: BlackBox, tmp_path: Path) -> None:
    let_die(tmp_path, size=25, idle=True)

    assert box.deaths() == []
    assert files(tmp_path) == [own_file(box, tmp_path)]


def test_the_living_are_not_counted_among_the_dead(box: BlackBox, tmp_path: Path) -> None:
    other = BlackBox("store", folder=tmp_path)
    other.recorder("trip-1").note(b"x")

    assert box.deaths() == []

    other.close()


def test_every_process_sees_the_same_deaths(box: BlackBox, tmp_path: Path) -> None:
    let_die(tmp_path, size=25)
    other = BlackBox("store", folder=tmp_path)

    assert box.deaths() == other.deaths() != []

    other.close()


def test_deaths_are_forgotten_after_some_time(box: BlackBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_die(tmp_path, size=25)
    assert len(box.deaths()) == 1
    later = time.time() + KEPT_S
    monkeypatch.setattr(blackbox, "time", lambda: later)

    assert box.deaths() == []
    assert files(tmp_path) == [own_file(box, tmp_path)]


def test_deaths_of_another_store_are_not_seen(box: BlackBox, tmp_path: Path) -> None:
    let_die(tmp_path, size=25, store="another")

    assert box.deaths() == []


def test_what_is_left_of_other_stores_is_removed_at_the_next_start(tmp_path: Path) -> None:
    let_die(tmp_path, size=25, store="another", idle=True)
    left = files(tmp_path)

    box = BlackBox("store", folder=tmp_path)

    assert len(left) == 1
    assert files(tmp_path) == [own_file(box, tmp_path)]
    box.close()


def test_a_folder_that_somebody_removed_tells_nothing(tmp_path: Path) -> None:
    box = BlackBox("store", folder=tmp_path)
    shutil.rmtree(own_file(box, tmp_path).parent)

    box.recorder("trip-1").note(b"x")
    assert box.deaths() == []

    box.close()


@pytest.mark.parametrize("content", [b"", b"\1", b"\1" * MAPPED_BYTES, b"\1" + b"\xff" * MAPPED_BYTES])
def test_a_file_that_makes_no_sense_is_removed(content: bytes, box: BlackBox, tmp_path: Path) -> None:
    mine = own_file(box, tmp_path)
    mine.with_name(f"{mine.name.split('-')[0]}-0.box").write_bytes(content)

    assert box.deaths() == []
    assert files(tmp_path) == [mine]


def test_closing_removes_the_file(tmp_path: Path) -> None:
    box = BlackBox("store", folder=tmp_path)
    box.recorder("trip-1").note(b"x")

    box.close()

    assert files(tmp_path) == []


def test_nobody_else_can_read_the_notes_or_add_to_them(box: BlackBox, tmp_path: Path) -> None:
    mine = own_file(box, tmp_path)

    assert [path.stat().st_mode & 0o777 for path in (mine.parent, mine)] == [0o700, 0o600]


def test_a_folder_that_others_can_enter_is_not_used(tmp_path: Path) -> None:
    (tmp_path / f"crdt-sync-{os.geteuid()}").mkdir(mode=0o755)

    with pytest.raises(NoBlackBox, match="only this user"):
        BlackBox("store", folder=tmp_path)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoBlackBox, match="No such file"):
        BlackBox("store", folder=tmp_path / "missing")


def let_die(folder: Path, *, size: int, idle: bool = False, store: str = "store") -> None:
    subprocess.run(
        [sys.executable, "-c", DIES, folder, store, "trip-1 ü", str(size), "idle" if idle else "busy"],
        cwd=ROOT,
        check=False,
    )


def own_file(box: BlackBox, folder: Path) -> Path:
    return folder / f"crdt-sync-{os.geteuid()}" / box._name


def files(folder: Path) -> list[Path]:
    return list((folder / f"crdt-sync-{os.geteuid()}").iterdir())


@pytest.mark.parametrize("settled", [False, True])
def test_a_file_that_comes_is_seen_at_once_also_if_the_folder_was_looked_at_just_before(
    settled: bool, box: BlackBox, tmp_path: Path
) -> None:
    folder = own_file(box, tmp_path).parent
    let_die(tmp_path, size=1, store="another")
    [file] = set(folder.iterdir()) - {own_file(box, tmp_path)}
    name = own_file(box, tmp_path).name[:17] + "0.box"
    if settled:
        let_settle(folder)
    assert box.deaths() == []
    before = folder.stat().st_mtime_ns

    file.rename(folder / name)
    if not settled:
        # As within one tick of the kernel's clock.
        os.utime(folder, ns=(before, before))

    assert [death.box for death in box.deaths()] == [name]


def test_a_folder_in_which_nothing_has_changed_is_not_read_again(
    box: BlackBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_die(tmp_path, size=1)
    let_settle(own_file(box, tmp_path).parent)
    found = box.deaths()
    monkeypatch.setattr(os, "listdir", None)

    assert box.deaths() == found
    assert len(found) == 1


def let_settle(folder: Path) -> None:
    """Make it look as if nothing had changed for a while."""
    os.utime(folder, ns=(0, time.time_ns() - 10**9))
