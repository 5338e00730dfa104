"""A private PgBouncer: what this machine has, else Debian's package, fetched without installing it."""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .postgres import PostgresServer
from .processes import can_run, copy_for, run, unprivileged_account
from .services import HOST, Service, Unavailable, through

_FOLDERS = ("/usr/local/sbin", "/usr/sbin")  # where packages put it, beside the PATH of people


class PgBouncer(Service):
    """A pooler in transaction mode: each transaction of a client may run in another connection to the server."""

    # The only one of its three signals that means the same in all versions: let transactions end, then go.
    _stop_signal = signal.SIGINT

    def __init__(
        self, postgres: PostgresServer, *, pool_size: int = 3, settings: Mapping[str, str] | None = None
    ) -> None:
        """Prepare, start nothing.

        Args:
            postgres: The server behind it.
            pool_size: How many connections to the server all clients of one database share.
            settings: More lines for its section `[pgbouncer]`.

        Raises:
            Unavailable: There is no such program.
        """
        account = unprivileged_account()  # it refuses root
        self._program = _reachable(find_program(), account)
        super().__init__("pgbouncer", account=account)
        self._postgres = postgres
        self._settings = {
            "listen_addr": HOST,
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": str(pool_size),
            **(settings or {}),
        }

    def url(self, database_url: str) -> str:
        """The URL of a database of the server behind, by way of the pooler."""
        return through(database_url, self.port)

    def _prepare(self) -> Sequence[str | Path]:
        config = self.folder / "pgbouncer.ini"
        server = f"host={HOST} port={self._postgres.port} user=postgres"
        lines = ["[databases]", f"* = {server}", "[pgbouncer]", *(f"{k} = {v}" for k, v in self._settings.items())]
        config.write_text("\n".join(lines) + "\n")
        return [self._program.path, config]

    def _env(self) -> dict[str, str]:
        return self._program.env


@dataclass(frozen=True)
class Program:
    """A program, and where its libraries are."""

    path: Path
    folder: Path | None = None
    """What it was unpacked to, with all that it needs; None for one that is installed."""

    @property
    def env(self) -> dict[str, str]:
        """What its environment has to have."""
        if self.folder is None:
            return {}
        return {"LD_LIBRARY_PATH": ":".join(sorted({str(file.parent) for file in self.folder.rglob("lib*.so*")}))}


@functools.cache
def find_program() -> Program:
    """The program of this machine, or Debian's, which is fetched once and kept in the user's cache.

    Raises:
        Unavailable: It can't be fetched here.
    """
    if installed := shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), *_FOLDERS])):
        return Program(Path(installed))
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable("no PgBouncer here: have pgbouncer on the PATH")
    folder = _cache() / _system()
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # xdist workers fetch it once
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                _fetch(Path(scratch)).rename(folder)
    return Program(folder / "usr/sbin/pgbouncer", folder)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "crdt-sync-tests" / "pgbouncer"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # an account without a home, such as nobody
        folder = Path(tempfile.mkdtemp(prefix="crdt-sync-pgbouncer-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _system() -> str:
    release = platform.freedesktop_os_release()
    return f"{release['ID']}-{release.get('VERSION_ID', 'rolling')}-{platform.machine()}"


def _fetch(scratch: Path) -> Path:
    """Have apt fetch the package and what it needs beyond what is installed, and unpack it here.

    apt gets lists and archives of its own in `scratch`: that needs no root, changes nothing on the machine and works
    where nobody has run `apt-get update`.

    Returns:
        The folder that it is unpacked to.
    """
    archives = scratch / "cache" / "archives"
    for folder in (scratch / "state" / "lists" / "partial", archives / "partial"):
        folder.mkdir(parents=True)
    apt_get: list[str | Path] = ["apt-get", "--quiet"]
    for option in (
        f"Dir::State={scratch / 'state'}",
        f"Dir::Cache={scratch / 'cache'}",
        "Dir::State::status=/var/lib/dpkg/status",
        "Debug::NoLocking=1",  # the lock is for installing
        "APT::Sandbox::User=",  # apt's own account couldn't write here
        "Acquire::http::Timeout=20",
    ):
        apt_get += ["-o", option]
    download = ["install", "--yes", "--no-install-recommends", "--download-only", "pgbouncer"]
    unpacked = scratch / "unpacked"
    try:
        run([*apt_get, "update"], folder=scratch)
        run([*apt_get, *download], folder=scratch)
        # Of what it depends on only the libraries matter, and never another libc.
        for package in [*archives.glob("pgbouncer_*.deb"), *archives.glob("lib*.deb")]:
            if not package.name.startswith("libc6"):
                run(["dpkg-deb", "--extract", package, unpacked], folder=scratch)
    except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"PgBouncer can't be fetched, have pgbouncer on the PATH: {error}") from error
    return unpacked


@functools.cache
def _reachable(program: Program, account: str | None) -> Program:
    """The program, or if the account doesn't reach it, say below root's home, a copy of it."""
    if program.folder is None or can_run(program.path, account=account, env=program.env):
        return program
    copies = copy_for(account, program.folder)
    atexit.register(shutil.rmtree, copies, ignore_errors=True)
    folder = copies / program.folder.name
    return Program(folder / program.path.relative_to(program.folder), folder)
