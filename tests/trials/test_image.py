"""The Dockerfile's steps, done without Docker: in a folder of its own, as an account of nobody."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api import GUARDED
from tests.support.processes import ProcessTree, can_run, private_folder, run, unprivileged_account, wait_until
from tests.support.server import free_port

ROOT = Path(__file__).parents[2]
STOPS_WITHIN_S = 30
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


class Image:
    """What the steps make, below one folder for all stages, and what is said of running it.

    Left out are the base image, for which this Python stands, and what only Docker could do.
    """

    def __init__(self, folder: Path) -> None:
        """Do all steps."""
        self.root = folder / "root"
        self.env: dict[str, str] = {}
        self.command: list[str] = []
        self.healthcheck: list[str] = []
        self.account = unprivileged_account()
        self._context = folder / "context"
        self._programs = folder / "programs"
        self._cwd = self.root
        self._programs.mkdir()
        self.root.mkdir()
        python, self._libraries = python_for(self.account, folder / "base")
        # No link: an environment made by one would look for its libraries beside the link.
        (self._programs / "python").write_text(f'#!/bin/sh\nexec {python} "$@"\n')
        (self._programs / "python").chmod(0o755)
        copy_context(self._context)
        for instruction, rest in steps((ROOT / "Dockerfile").read_text()):
            getattr(self, f"_{instruction.lower()}")(rest)

    def path(self, text: str) -> str:
        """With the absolute paths of the image as they are here."""
        return re.sub(r"(?<![\w./])(?=/(?:opt|data|run|src)\b)", str(self.root), text)

    def _from(self, rest: str) -> None:
        assert rest in ("${BASE} AS build", "${BASE}")
        # Nothing of the first stage is there, but for what is copied.
        shutil.rmtree(self.root / "src", ignore_errors=True)
        self._cwd = self.root

    def _workdir(self, rest: str) -> None:
        self._cwd = Path(self.path(rest))
        self._cwd.mkdir(exist_ok=True)

    def _copy(self, rest: str) -> None:
        *options, source, target = rest.split() if rest.startswith("--") else ["", "", rest]
        if "--from=build" in options:
            assert source == target
            assert Path(self.path(source)).exists()
            if any(option.startswith("--chown=") for option in options) and self.account is not None:
                shutil.chown(self.path(source), self.account)
            return
        *sources, target = rest.split()
        for one in sources:
            there = self._context / one
            if there.is_dir():
                shutil.copytree(there, self._cwd / target)
            else:
                shutil.copy(there, self._cwd / target)

    def _run(self, rest: str) -> None:
        path = f"{self._programs}:/usr/bin:/bin"
        (self.root / "run").mkdir(exist_ok=True)
        run(["sh", "-ec", self.path(rest)], folder=self._cwd, env={"PATH": path, **self._libraries})

    def _env(self, rest: str) -> None:
        self.env |= self._libraries
        for name, value in re.findall(r"(\w+)=(\S+)", rest):
            self.env[name] = self.path(value).replace("sqlite:////", f"sqlite:///{self.root}/")

    def _healthcheck(self, rest: str) -> None:
        self.healthcheck = json.loads(rest.partition("CMD ")[2])

    def _entrypoint(self, rest: str) -> None:
        self.command = json.loads(rest)

    def _cmd(self, rest: str) -> None:
        self.command += json.loads(rest)

    def _user(self, rest: str) -> None:
        assert rest == "10001:10001"

    def _volume(self, rest: str) -> None:
        assert all(Path(self.path(folder)).is_dir() for folder in json.loads(rest))

    def _arg(self, rest: str) -> None:
        assert rest == f"BASE=python:{VERSION}-slim-bookworm", "the tests run with this version"

    def _stopsignal(self, rest: str) -> None:
        assert rest == "SIGTERM"

    def _expose(self, rest: str) -> None:
        assert rest.split() == ["1234", "9234"]


@pytest.fixture
def image() -> Iterator[Image]:
    folder = private_folder("image", account=unprivileged_account())
    yield Image(folder)
    shutil.rmtree(folder)


@pytest.mark.long
def test_image_is_made_serves_as_nobody_says_how_it_is_and_stops_when_told(image: Image, tmp_path: Path) -> None:
    ports = {"CRDT_SYNC_PORT": str(free_port()), "CRDT_SYNC_OPS_PORT": str(free_port())}
    env = {**os.environ, **image.env, **ports, "CRDT_SYNC_HOST": "127.0.0.1", "CRDT_SYNC_OPS_HOST": "127.0.0.1"}
    program = shutil.which(image.command[0], path=image.env["PATH"])
    assert program is not None
    command = [program, *image.command[1:]]
    log = image.root / "log"

    def health() -> bool:
        python = shutil.which(image.healthcheck[0], path=image.env["PATH"])
        assert python == f"{image.root}/opt/crdt-sync/bin/python"
        try:
            run([python, *image.healthcheck[1:]], folder=image.root / "data", account=image.account, env=env)
        except AssertionError:
            return False
        return True

    with pytest.raises(AssertionError, match="no keys are configured"):
        run(command, folder=image.root / "data", account=image.account, env={**env, "CRDT_SYNC_HOST": "0.0.0.0"})
    server = ProcessTree(command, folder=image.root / "data", log=log, account=image.account, env={**env, **GUARDED})
    try:
        wait_until(lambda: server.poll() is not None or health(), timeout_s=30, interval_s=0.1)
        assert server.poll() is None, log.read_text()
        assert (image.root / "data/crdt-sync.db").exists()
        assert list((image.root / "run/crdt-sync").iterdir()) != [], "what it is doing is noted there"
        code = server.interrupt(15, timeout_s=STOPS_WITHIN_S)  # type: ignore[arg-type]
    finally:
        server.kill()

    assert (code, health()) == (0, False), log.read_text()


def python_for(account: str | None, folder: Path) -> tuple[Path, dict[str, str]]:
    """The Python of this environment, or if the account doesn't reach it, say below root's home, a copy with nothing but pip.

    Returns:
        It, and what its environment has to have.
    """
    program = Path(sys.base_prefix) / f"bin/python{VERSION}"
    if can_run(program, account=account):
        return program, {}

    def unwanted(parent: str, names: list[str]) -> list[str]:
        installed = parent.endswith("site-packages")
        return [
            name
            for name in names
            if name in ("test", "tests", "__pycache__")
            or name.endswith(".a")
            or (installed and not name.startswith("pip"))
        ]

    shutil.copytree(sys.base_prefix, folder, symlinks=True, ignore=unwanted)
    return folder / program.relative_to(sys.base_prefix), {"LD_LIBRARY_PATH": str(folder / "lib")}


def copy_context(target: Path) -> None:
    """What `.dockerignore` lets through."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    ignored = shutil.ignore_patterns(*(line.removeprefix("**/") for line in lines if line.startswith("**/")))
    target.mkdir()
    for name in (line[1:] for line in lines if line.startswith("!")):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, target / name)


def steps(dockerfile: str) -> Iterator[tuple[str, str]]:
    """Its instructions, and what follows each."""
    lines = "\n".join(line for line in dockerfile.splitlines() if not line.lstrip().startswith("#"))
    for line in lines.replace("\\\n", " ").splitlines():
        if line.strip():
            instruction, _, rest = line.strip().partition(" ")
            yield instruction, rest.strip()
