"""Private servers for tests, started and stopped by the test run itself.

Owns the life of a server and what happens where it can't be had. Leaves each kind of server to its own file.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import urlsplit

import pytest

from .processes import ProcessTree, private_folder, wait_until
from .server import free_port

HOST = "127.0.0.1"

T = TypeVar("T")


class Unavailable(Exception):
    """This machine has no such service. The message says what to do about it."""


def require(make: Callable[[], T]) -> T:
    """What `make` returns; where the service can't be had the test is skipped, in CI (`CI` is set) it fails.

    A service that is there but doesn't start is an error everywhere.
    """
    try:
        return make()
    except Unavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(f"CI runs every test: {reason}")
        pytest.skip(str(reason))


def through(url: str, port: int) -> str:
    """The URL that leads to the same database by way of another loopback port, such as a proxy's."""
    return urlsplit(url)._replace(netloc=f"{urlsplit(url).username or ''}@{HOST}:{port}".removeprefix("@")).geturl()


class Service(ABC):
    """One server that can be stopped, killed, frozen and started again at the same address.

    Use as a context manager: leaving it ends the server and removes its folder. So do the end of the test run and,
    except for the folder, its violent death. Everything that the server prints, over all its lives, is in `log`.
    """

    _stop_signal = signal.SIGTERM

    def __init__(self, name: str, *, account: str | None = None) -> None:
        """Prepare, start nothing.

        Args:
            name: Part of the folder's name.
            account: Whom the server runs as, if not as ourselves.
        """
        self.port = free_port()
        self.folder = private_folder(name, account=account)
        self._account = account
        self._name = name
        self._log_path = self.folder / "log"
        self._process: ProcessTree | None = None
        atexit.register(self.close)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The id of the server's first process."""
        return self._running().pid

    @property
    def log(self) -> str:
        """Everything that it printed so far."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def start(self, *, timeout_s: float = 30) -> None:
        """Start, and return once it answers.

        Raises:
            AssertionError: It ended instead, or took longer than `timeout_s`; with its log.
        """
        assert self._process is None, f"{self._name} runs already"
        process = self._process = ProcessTree(
            self._prepare(), folder=self.folder, log=self._log_path, account=self._account, env=self._env()
        )
        try:
            wait_until(lambda: process.poll() is not None or self._answers(), timeout_s=timeout_s)
        except TimeoutError:
            self.kill()
            raise AssertionError(f"{self._name} wasn't up after {timeout_s} s:\n{self.log}") from None
        if (code := process.poll()) is not None:
            self.kill()
            raise AssertionError(f"{self._name} ended at its start with exit code {code}:\n{self.log}")

    def stop(self, *, timeout_s: float = 30) -> None:
        """Let it end in its own way, and wait for that.

        Raises:
            AssertionError: Its exit code isn't 0, or it took longer than `timeout_s` (then it is killed); with its log.
        """
        try:
            code = self._running().interrupt(self._stop_signal, timeout_s=timeout_s)
        except TimeoutError:
            self.kill()
            raise AssertionError(f"{self._name} didn't stop within {timeout_s} s:\n{self.log}") from None
        self._process = None
        assert code == 0, f"{self._name} stopped with exit code {code}:\n{self.log}"

    def kill(self) -> None:
        """End it and its children with SIGKILL, and return when all are gone. Does nothing if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def restart(self) -> None:
        """Stop it in its own way and start it again, on the same port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Take all CPU from it and its children (SIGSTOP): connections stay open, nothing answers."""
        self._running().freeze()

    def thaw(self) -> None:
        """Let it go on after `freeze`; harmless otherwise."""
        self._running().thaw()

    def close(self) -> None:
        """Kill it if it runs, and remove its folder. It can't be started again."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)

    @abstractmethod
    def _prepare(self) -> Sequence[str | Path]:
        """Write the files that it needs for this start.

        Returns:
            The program that serves in the foreground, and its arguments.
        """

    def _env(self) -> dict[str, str]:
        """What its environment has beside ours."""
        return {}

    def _answers(self) -> bool:
        """Whether a client would be served."""
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def _running(self) -> ProcessTree:
        assert self._process is not None, f"{self._name} isn't running"
        code = self._process.poll()
        assert code is None, f"{self._name} ended by itself with exit code {code}:\n{self.log}"
        return self._process
