"""Several processes that do the same: ended together, and started again when one dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crdt_sync.cli import main
from tests.support.processes import is_alive, wait_until

ROOT = Path(__file__).parents[2]

SCRIPT = """
import os, queue, sys
from pathlib import Path
from crdt_sync import logs
from crdt_sync.workers import Workers

def work(folder: str, well: bool, orders) -> bool:
    heard = queue.Queue()
    orders.follow(heard.put)
    Path(folder, str(os.getpid())).touch()
    if sys.argv[2] == "asks":
        orders.end_all()
    urgency = 0
    while urgency < int(os.environ["URGENCY"]):
        urgency = heard.get()
        Path(folder, f"{os.getpid()}.{urgency}").touch()
    Path(folder, f"{os.getpid()}.ended").touch()
    return well

if __name__ == "__main__":
    logs.configure("INFO", "text")
    sys.exit(0 if Workers(3, work, (sys.argv[1], sys.argv[2] != "badly"), deadline_s=0).run() else 1)
"""


DYING = """
import os, sys
from pathlib import Path
from crdt_sync.workers import Workers

def work(folder: str, orders) -> bool:
    Path(folder, str(os.getpid())).touch()
    os._exit(3)

if __name__ == "__main__":
    Workers(1, work, (sys.argv[1],), deadline_s=1).run()
"""


class Run:
    def __init__(self, folder: Path, outcome: str = "well", *, urgency: int = 1) -> None:
        (folder / "script.py").write_text(SCRIPT)
        self.notes = folder / "notes"
        self.notes.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, folder / "script.py", self.notes, outcome],
            env={**os.environ, "PYTHONPATH": str(ROOT), "URGENCY": str(urgency)},
            stderr=subprocess.PIPE,
        )

    def started(self) -> list[int]:
        return [int(path.name) for path in self.notes.iterdir() if path.suffix == ""]

    def living(self) -> list[int]:
        return [pid for pid in self.started() if is_alive(pid)]

    def until(self, count: int) -> None:
        wait_until(lambda: len(self.living()) == count, timeout_s=20)


def test_all_are_ended_by_one_signal_and_the_exit_code_says_that_it_went_well(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.until(3)

    run.process.send_signal(signal.SIGTERM)

    assert run.process.wait(10) == 0
    assert len(list(run.notes.glob("*.ended"))) == 3
    assert run.living() == []


def test_the_exit_code_says_when_it_went_wrong(tmp_path: Path) -> None:
    run = Run(tmp_path, "badly")
    run.until(3)

    run.process.send_signal(signal.SIGINT)

    assert run.process.wait(10) == 1


def test_each_signal_reaches_all_even_if_their_process_group_gets_it_too(tmp_path: Path) -> None:
    run = Run(tmp_path, urgency=3)
    run.until(3)

    for urgency in (1, 2, 3):
        for pid in (run.process.pid, *run.living()):
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda urgency=urgency: len(list(run.notes.glob(f"*.{urgency}"))) == 3, timeout_s=10)

    assert run.process.wait(10) == 0


def test_one_of_them_can_have_all_end(tmp_path: Path) -> None:
    run = Run(tmp_path, "asks")

    assert run.process.wait(30) == 0
    assert len(list(run.notes.glob("*.ended"))) == 3


def test_one_that_does_not_end_is_killed_and_told_of(tmp_path: Path) -> None:
    run = Run(tmp_path, urgency=2)
    run.until(3)

    run.process.send_signal(signal.SIGTERM)

    assert run.process.wait(20) == 1
    assert run.living() == []
    assert run.process.stderr is not None
    assert run.process.stderr.read().count(b"worker_killed") >= 3


def test_one_that_dies_is_started_again(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.until(3)
    victim = run.living()[0]

    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(run.started()) == 4 and len(run.living()) == 3, timeout_s=10)

    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(10) == 0
    assert run.process.stderr is not None
    assert run.process.stderr.read().count(b"worker_died") == 1


def test_nobody_is_left_when_the_first_process_is_killed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.until(3)

    run.process.kill()
    run.process.wait(10)

    run.until(0)
    assert len(list(run.notes.glob("*.ended"))) == 3, "they were asked to end, and could store everything"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "CRDT_SYNC_REDIS_URL"),
        ({"CRDT_SYNC_REDIS_URL": "redis://127.0.0.1:1"}, "CRDT_SYNC_DATABASE_URL to a postgresql:// URL"),
    ],
)
def test_workers_that_could_share_nothing_are_refused_with_the_reason(
    options: dict[str, str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    for name, value in options.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit) as ended:
        main(["serve", "--port", "0", "--workers", "2", "--database", f"sqlite:///{tmp_path / 'x.db'}"])

    assert ended.value.code == 1
    assert reason in capsys.readouterr().err


def test_a_worker_that_cannot_live_is_not_started_again_all_the_time(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(DYING)
    notes = tmp_path / "notes"
    notes.mkdir()
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", notes], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    wait_until(lambda: len(list(notes.iterdir())) >= 2, timeout_s=30)
    time.sleep(3)  # in which it could be started some fifty times
    process.terminate()
    process.wait(10)

    assert len(list(notes.iterdir())) <= 10
