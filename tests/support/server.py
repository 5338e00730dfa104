"""The server as its users run it: a real process on a loopback port, with its database in a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from .nursery import Forked, nursery

_ROOT = Path(__file__).resolve().parents[2]
_HOST = "127.0.0.1"
_WATCHED = Path(__file__).parent / "watched"


class ServerProcess:
    """One `crdt-sync serve`, that can be stopped, killed, frozen and started again at the same address.

    Use as an async context manager: leaving it stops the server and fails if that isn't graceful, or if the server
    had ended by itself. Everything that the server prints, over all its lives, is in `log`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        database_url: str | None = None,
        env: Mapping[str, str] | None = None,
        script: Path | None = None,
        watch_stalls: bool = False,
    ) -> None:
        """Prepare, start nothing.

        Args:
            folder: Takes the log, and the SQLite database if there is no other.
            database_url: Where it keeps documents.
            env: More environment, such as `{"CRDT_SYNC_JOURNAL_INTERVAL_S": "0.05"}`.
            script: Is run in place of the command.
            watch_stalls: Whether it notes when its event loop is held up, for `stalls`.
        """
        self.port = free_port()
        self.url = f"ws://{_HOST}:{self.port}"
        self.database_path = folder / "documents.db"
        """The SQLite file, unless another database was given."""
        self.database_url = database_url or f"sqlite:///{self.database_path}"
        self._folder = folder
        self._log_path = folder / f"server-{self.port}.log"
        self._env = {
            "CRDT_SYNC_HOST": _HOST,
            "CRDT_SYNC_PORT": str(self.port),
            "CRDT_SYNC_DATABASE_URL": self.database_url,
            "CRDT_SYNC_LOG_FORMAT": "text",
            **(env or {}),
        }
        self._script = script
        self._stalls_path = folder / f"stalls-{self.port}.log"
        if watch_stalls:
            self._env |= {"PYTHONPATH": f"{_WATCHED}{os.pathsep}{_ROOT}", "WATCHED_STALLS": str(self._stalls_path)}
        self._process: subprocess.Popen[bytes] | Forked | None = None

    async def __aenter__(self) -> ServerProcess:
        await self.start()
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.kill()
        elif self._process is not None:
            await self.stop()

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    async def start(self, *, timeout_s: float = 20) -> None:
        """Start, and return once it accepts connections.

        Raises:
            AssertionError: It ended instead, or took longer than `timeout_s`; with its log.
        """
        assert self._process is None, "the server runs already"
        self._process = self._launch()
        deadline = time.monotonic() + timeout_s
        while not self._accepts():
            if (code := self._process.poll()) is not None:
                self._process = None
                raise AssertionError(f"the server ended at its start with exit code {code}:\n{self.log}")
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the server wasn't up after {timeout_s} s:\n{self.log}")
            await asyncio.sleep(0.02)

    async def stop(self, *, timeout_s: float = 20) -> None:
        """Press Ctrl-C and wait for the end.

        Raises:
            AssertionError: Its exit code isn't 0, or it took longer than `timeout_s` (then it is killed); with its log.
        """
        self._running()
        self.thaw()
        self.tell(signal.SIGINT)
        code = await self.ended(timeout_s=timeout_s)
        assert code == 0, f"the server stopped with exit code {code}:\n{self.log}"

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._running().send_signal(number)

    async def ended(self, *, timeout_s: float = 20) -> int:
        """Wait until it has ended, as it was told to; returns the exit code.

        Raises:
            AssertionError: It took longer than `timeout_s` (then it is killed); with its log.
        """
        assert self._process is not None, "the server isn't running"
        try:
            code = await _ended(self._process, timeout_s)
        except TimeoutError:
            self.kill()
            raise AssertionError(f"the server didn't end within {timeout_s} s:\n{self.log}") from None
        self._process = None
        return code

    def kill(self) -> None:
        """End it with SIGKILL: it gets no chance to store anything. Does nothing if it has ended."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._process = None

    async def restart(self) -> None:
        """Stop it gracefully and start it again, on the same port and database."""
        await self.stop()
        await self.start()

    def freeze(self) -> None:
        """Take all CPU from it (SIGSTOP): connections stay open, nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze`; harmless otherwise."""
        self._running().send_signal(signal.SIGCONT)

    @property
    def log(self) -> str:
        """Everything that it printed so far."""
        return self._log_path.read_text(errors="replace")

    def errors(self) -> list[str]:
        """The log lines of level ERROR or worse, and tracebacks' first lines."""
        marks = (" ERROR ", " CRITICAL ", "Traceback (most recent call last)", "Exception ignored", "panicked at")
        return [line for line in self.log.splitlines() if any(mark in line for mark in marks)]

    def stalls(self) -> list[str]:
        """What held up its event loop for more than 50 ms of CPU time, so that it wasn't the machine that was slow."""
        return self._stalls_path.read_text().splitlines() if self._stalls_path.exists() else []

    def longest_turns_ms(self) -> int:
        """How long the turns of its event loop were, by CPU time, in which it spent all but a twentieth of its time until it
        was last stopped."""
        return int(Path(f"{self._stalls_path}.turns").read_text())

    def rss_bytes(self) -> int:
        """The memory that it occupies now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_s(self) -> float:
        """The CPU time that it has used since its start."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _launch(self) -> subprocess.Popen[bytes] | Forked:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CRDT_SYNC_")}
        env = {**inherited, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(_ROOT), **self._env}
        # Other programs' variables may be for Python, or for a library while it is imported.
        fresh = self._script is not None or any(not name.startswith("CRDT_SYNC_") for name in self._env)
        with self._log_path.open("ab") as log:
            if not fresh:
                return nursery().fork(["serve"], env=env, output=log)
            return subprocess.Popen(
                [sys.executable, str(self._script)] if self._script else [sys.executable, "-m", "crdt_sync", "serve"],
                cwd=_ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _running(self) -> subprocess.Popen[bytes] | Forked:
        assert self._process is not None, "the server isn't running"
        code = self._process.poll()
        assert code is None, f"the server ended by itself with exit code {code}:\n{self.log}"
        return self._process

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((_HOST, self.port)) == 0


def free_port() -> int:
    """A port that nobody listens on, outside of the range from which outgoing connections take theirs.

    A client that retries a port of that range while the server is down can end up connected to itself.
    """
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_HOST, port))
            return port


async def _ended(process: subprocess.Popen[bytes] | Forked, timeout_s: float) -> int:
    async with asyncio.timeout(timeout_s):
        while (code := process.poll()) is None:
            await asyncio.sleep(0.02)
    return code
