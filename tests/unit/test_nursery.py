"""What is forked does what a fresh `python -m crdt_sync` does, and says how it ended."""

import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.nursery import Forked, nursery
from tests.support.processes import is_alive, wait_until
from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[2]


def fork(*arguments: str, output: Path, env: dict[str, str] | None = None) -> Forked:
    with output.open("ab") as file:
        return nursery().fork(arguments, env={**os.environ, **(env or {})}, output=file)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--version"], 0, f"crdt-sync {version('crdt-sync')}\n"),
        (["rooms", "--database", "memory://x"], 2, "usage: crdt-sync rooms"),
    ],
)
def test_a_command_ends_with_its_exit_code(arguments: list[str], code: int, says: str, tmp_path: Path) -> None:
    forked = fork(*arguments, output=tmp_path / "log")

    assert forked.wait() == code
    assert forked.poll() == code
    assert says in (tmp_path / "log").read_text()


def test_each_has_an_environment_of_its_own(tmp_path: Path) -> None:
    env = {"CRDT_SYNC_PORT": "none"}

    assert fork("serve", output=tmp_path / "one", env=env).wait() == 2
    assert fork("serve", output=tmp_path / "two", env={"CRDT_SYNC_HOST": "none such"}).wait() == 1

    assert "CRDT_SYNC_PORT" in (tmp_path / "one").read_text()
    assert "CRDT_SYNC_PORT" not in (tmp_path / "two").read_text()


async def test_a_killed_one_is_told_from_one_that_stopped(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        process = server._running()
        assert isinstance(process, Forked)
        assert process.poll() is None

        server.tell(signal.SIGKILL)

        assert await server.ended() == -signal.SIGKILL
        assert not is_alive(process.pid)
        process.kill()  # harmless


def test_a_killed_test_run_leaves_no_server_behind(tmp_path: Path) -> None:
    program = """if True:
        import asyncio, sys
        from pathlib import Path
        from tests.support.server import ServerProcess
        server = ServerProcess(Path(sys.argv[1]))
        asyncio.run(server.start())
        print(server.pid, flush=True)
        sys.stdin.read()
    """
    run = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert run.stdout is not None
    pid = int(run.stdout.readline())
    assert is_alive(pid)

    run.kill()
    run.communicate()

    wait_until(lambda: not is_alive(pid), timeout_s=10)
