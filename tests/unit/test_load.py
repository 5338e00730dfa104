"""How busy a node is, and what it does about that."""

import asyncio
from pathlib import Path

import pytest

from crdt_sync.errors import Overloaded
from crdt_sync.limits import Limits
from crdt_sync.load import STEP_S, WINDOW_S, Judge, Level, Load, Sample, Work, cgroup_memory_limit, memory_bytes
from crdt_sync.settings import Settings

GIB = 1 << 30


class Machine:
    """Makes samples, one a second."""

    def __init__(self, *, limit_bytes: int | None = None) -> None:
        self.judge = Judge(cpu_max=0.8, memory_max=0.85, memory_limit_bytes=limit_bytes)
        self.at = 0.0
        self.cpu_s = 0.0

    def run(self, seconds: int, *, cpu: float = 0.0, memory_bytes: int = 0) -> list[Level]:
        levels = []
        for _ in range(seconds):
            levels.append(self.judge.take(Sample(self.at, self.cpu_s, memory_bytes)))
            self.at += 1
            self.cpu_s += cpu
        return levels


def changes(levels: list[Level]) -> list[Level]:
    return [level for n, level in enumerate(levels) if n == 0 or level is not levels[n - 1]]


def test_a_node_below_its_bound_is_calm() -> None:
    assert set(Machine().run(3600, cpu=0.79)) == {Level.CALM}


def test_a_burst_shorter_than_the_window_is_no_overload() -> None:
    machine = Machine()
    machine.run(60, cpu=0.1)

    assert set(machine.run(7, cpu=1.0) + machine.run(60, cpu=0.1)) == {Level.CALM}


def test_a_busy_start_is_no_overload() -> None:
    machine = Machine()
    machine.cpu_s = 9.0

    assert set(machine.run(30, cpu=0.2)) == {Level.CALM}


def test_steps_are_taken_one_by_one_while_it_stays_too_much() -> None:
    machine = Machine()

    levels = machine.run(40, cpu=1.0)

    assert changes(levels) == [Level.CALM, Level.NO_JOINS, Level.AWARENESS_THINNED, Level.WRITERS_SLOWED]
    assert levels.index(Level.NO_JOINS) == WINDOW_S
    assert levels.index(Level.WRITERS_SLOWED) == WINDOW_S + 2 * STEP_S


def test_a_step_that_helps_is_the_last() -> None:
    machine = Machine()
    machine.run(11, cpu=1.0)

    assert changes(machine.run(60, cpu=0.7)) == [Level.NO_JOINS], "above what counts as relieved"


def test_steps_are_taken_back_one_by_one() -> None:
    machine = Machine()
    machine.run(40, cpu=1.0)

    levels = machine.run(80, cpu=0.1)

    assert changes(levels) == [Level.WRITERS_SLOWED, Level.AWARENESS_THINNED, Level.NO_JOINS, Level.CALM]


def test_load_around_the_bound_does_not_make_it_flap() -> None:
    machine = Machine()
    levels = []
    for _ in range(30):
        levels += machine.run(10, cpu=0.9) + machine.run(10, cpu=0.65)

    assert len(changes(levels)) <= 4


def test_memory_counts_at_once_and_only_where_there_is_a_limit() -> None:
    limited, unlimited = Machine(limit_bytes=GIB), Machine()

    assert limited.run(1, memory_bytes=int(0.9 * GIB)) == [Level.NO_JOINS]
    assert unlimited.run(60, memory_bytes=64 * GIB)[-1] is Level.CALM


def test_the_heaviest_rooms_are_the_fewest_that_make_half_of_the_work() -> None:
    work = Work()
    for n in range(100):
        work.add(f"small-{n}", size=20, receivers=2)
    for _ in range(100):
        work.add("crowded", size=20, receivers=50)
    for _ in range(10):
        work.add("bulky", size=400_000, receivers=1)

    work.settle()

    assert work.heaviest == {"bulky"}


def test_work_is_forgotten() -> None:
    work = Work()
    work.add("trip-1", size=100_000, receivers=10)
    for _ in range(40):
        work.settle()

    assert work.heaviest == frozenset()
    assert work._of_room == {}


def busy(load: Load, seconds: int) -> None:
    for second in range(seconds):
        load.look(Sample(1000 + second, float(second), 0))


def test_each_step_does_what_it_says() -> None:
    limits = Limits(Settings.read())
    load = Load(Settings.read(), limits)
    seen = []
    for second in range(45):
        load.pause_s("heavy", size=100_000, receivers=10)
        load.look(Sample(1000 + second, float(second), 0))
        pauses = [load.pause_s(room, size=10, receivers=1) for room in ("heavy", "light")]
        seen.append((limits.joins_refused_because is not None, load.awareness_stretch, *pauses))

    assert [each for n, each in enumerate(seen) if n == 0 or each != seen[n - 1]] == [
        (False, 1.0, 0.0, 0.0),
        (True, 1.0, 0.0, 0.0),
        (True, 10.0, 0.0, 0.0),
        (True, 10.0, 0.05, 0.0),
    ]
    assert limits.refused["writers_slowed"] > 0
    with pytest.raises(Overloaded):
        limits.place("a")


def test_what_is_done_can_be_read_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    load = Load(Settings.read(memory_bytes_max=GIB), Limits(Settings.read()))
    assert load.problem is None

    busy(load, 25)

    assert load.problem == ("CPU 100% of one core, memory 0% of its limit: new joins are refused, awareness is thinned")
    levels = [vars(record)["load_level"] for record in caplog.records if record.message == "load_level"]
    assert levels == ["NO_JOINS", "AWARENESS_THINNED"]


async def test_the_load_of_this_process_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdt_sync.load.SAMPLE_INTERVAL_S", 0.001)
    limits = Limits(Settings.read())
    load = Load(Settings.read(memory_bytes_max=1 << 20), limits)

    watching = asyncio.create_task(load.run())
    async with asyncio.timeout(5):
        while load.problem is None:
            await asyncio.sleep(0.001)
    watching.cancel()

    assert "memory" in load.problem
    assert memory_bytes() > 1 << 20


def control_groups(folder: Path, lines: str, limits: dict[str, str]) -> int | None:
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(lines)
    for path, limit in limits.items():
        file = folder / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(limit + "\n")
    return cgroup_memory_limit(proc=folder / "proc", sys=folder / "sys")


@pytest.mark.parametrize(
    ("lines", "limits", "limit"),
    [
        pytest.param("0::/\n", {"memory.max": "1073741824"}, GIB, id="in a container"),
        pytest.param("0::/\n", {"memory.max": "max"}, None, id="in one without a limit"),
        pytest.param(
            "0::/a.slice/b.service\n",
            {"a.slice/memory.max": "1073741824", "a.slice/b.service/memory.max": "max"},
            GIB,
            id="of the group above",
        ),
        pytest.param(
            "5:cpu,cpuacct:/x\n4:memory:/x\n0::/\n",
            {"memory/x/memory.limit_in_bytes": "1073741824"},
            GIB,
            id="version 1",
        ),
        pytest.param(
            "4:memory:/x\n", {"memory/x/memory.limit_in_bytes": "9223372036854771712"}, None, id="version 1, no limit"
        ),
        pytest.param("0::/not/mounted\n", {}, None, id="unreadable"),
    ],
)
def test_the_memory_limit_is_the_least_of_the_control_groups(
    lines: str, limits: dict[str, str], limit: int | None, tmp_path: Path
) -> None:
    assert control_groups(tmp_path, lines, limits) == limit


def test_processes_share_the_limit(tmp_path: Path) -> None:
    control_groups(tmp_path, "0::/\n", {"memory.max": str(GIB)})

    assert cgroup_memory_limit(share=4, proc=tmp_path / "proc", sys=tmp_path / "sys") == GIB // 4


def test_where_there_are_no_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cgroup_memory_limit(proc=tmp_path, sys=tmp_path) is None
