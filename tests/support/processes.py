"""Processes that a test run starts, and that end with it whatever happens to it. Linux only.

Owns starting one as an account that may run it, pausing and killing it together with its children, and the folders
it works in. Leaves what the process is to `services`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class ProcessTree:
    """A process and all its descendants, also those that made themselves a session of their own.

    When the process that started it dies, even from SIGKILL, the kernel kills it too. That is tied to the *thread*
    that started it, so only the main thread may.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        folder: Path,
        log: Path,
        account: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it.

        Args:
            command: The program and its arguments.
            folder: Where it runs.
            log: Takes what it prints, after what is there already.
            account: Whom to run it as, if not as ourselves. Only root can choose.
            env: More environment.
        """
        assert threading.current_thread() is threading.main_thread(), "start it from the main thread, or it ends early"
        with log.open("ab") as output:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                command,
                cwd=folder,
                env=_environment(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the test run, which then stops us in its own order
                # Runs after the change of account, which would reset what it sets.
                preexec_fn=functools.partial(die_with, os.getpid()),
                **_identity(account),
            )
        self._frozen: list[int] = []
        self._waker: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the process, not of its children."""
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code, None as long as it runs."""
        return self._process.poll()

    def freeze(self) -> None:
        """Take all CPU from it and its descendants (SIGSTOP)."""
        if self._frozen:
            return
        self._frozen = self._pause()
        # A paused child can't notice that its parent is gone. If we are killed, this pipe closes and the child goes on.
        self._waker = subprocess.Popen(
            ["sh", "-c", 'read -r _; kill -CONT "$@" 2>/dev/null', "waker", *map(str, self._frozen)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def thaw(self) -> None:
        """Let it go on after `freeze`; harmless otherwise."""
        if self._waker is None:
            return
        assert self._waker.stdin is not None
        self._waker.stdin.close()
        self._waker.wait()
        self._frozen, self._waker = [], None

    def interrupt(self, number: signal.Signals, *, timeout_s: float) -> int:
        """Send it a signal that ends it, and wait for that.

        Returns:
            Its exit code.

        Raises:
            TimeoutError: It took longer than `timeout_s`.
        """
        self.thaw()
        self._process.send_signal(number)
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self._process.args!r} ignored {number.name} for {timeout_s} s") from None

    def kill(self) -> None:
        """End it and its descendants with SIGKILL, and return when all are gone. Harmless if they are."""
        members = set(self._frozen)
        if self._process.poll() is None:
            members.update(self._pause())
        for pid in members - {self.pid}:
            _signal(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        wait_until(lambda: not any(map(is_alive, members)), timeout_s=20)
        self.thaw()

    def _pause(self) -> list[int]:
        """Stop it, then its descendants: once their parents are paused, no new ones appear."""
        members: list[int] = []
        found = [self.pid]
        while found:
            for pid in found:
                _signal(pid, signal.SIGSTOP)
            wait_until(lambda: not any(map(_is_running, found)), timeout_s=20)  # noqa: B023 - called in this round
            members += found
            found = [pid for pid in descendants(self.pid) if pid not in members]
        return members


def wait_until(condition: Callable[[], object], *, timeout_s: float, interval_s: float = 0.005) -> None:
    """Return as soon as the condition is true.

    Raises:
        TimeoutError: It wasn't within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {timeout_s} s")
        time.sleep(interval_s)


def is_alive(pid: int) -> bool:
    """Whether the process exists, other than as a zombie that nobody reaps."""
    return _state(pid) not in (None, "Z", "X")


def descendants(root: int) -> list[int]:
    """The ids of the children of a process, and of theirs."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and (fields := _stat(int(entry))) is not None:
            parents[int(entry)] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def unprivileged_account() -> str | None:
    """Whom to run a program as that refuses root: None if we aren't root, otherwise an account that every system has."""
    return "nobody" if os.geteuid() == 0 else None


def private_folder(name: str, *, account: str | None = None) -> Path:
    """A new folder that only the account can read, directly in the temporary folder.

    pytest's own folders are below one that, for root, no other account can enter.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"crdt-sync-{name}-"))
    if account is not None:
        entry = pwd.getpwnam(account)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    return folder


def run(
    command: Sequence[str | Path],
    *,
    folder: Path,
    account: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 120,
) -> str:
    """Run a program to its end.

    Returns:
        What it printed.

    Raises:
        AssertionError: Its exit code isn't 0; with what it printed.
    """
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command,
        cwd=folder,
        env=_environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_s,
        check=False,
        text=True,
        errors="replace",
        **_identity(account),
    )
    assert done.returncode == 0, f"{command[0]} ended with exit code {done.returncode}:\n{done.stdout}"
    return done.stdout


def can_run(program: Path, *, account: str | None, env: Mapping[str, str] | None = None) -> bool:
    """Whether the account reaches the program and the libraries that it needs."""
    try:
        run([program, "--version"], folder=Path("/"), account=account, env=env)
    except (OSError, AssertionError):
        return False
    return True


def copy_for(account: str | None, *folders: Path) -> Path:
    """Copy folders to where the account reaches them.

    Returns:
        The folder that holds the copies, under their old names. Whoever called removes it.
    """
    target = private_folder("copy", account=account)
    for folder in folders:
        shutil.copytree(folder, target / folder.name, symlinks=True)
    return target


def _identity(account: str | None) -> dict[str, Any]:
    if account is None:
        return {}
    entry = pwd.getpwnam(account)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    # PGHOST and its like would turn the tools to another server.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return {**inherited, "LC_ALL": "C", **(more or {})}


def die_with(parent: int) -> None:
    """In a process that was just forked: have the kernel kill it when the thread ends that forked it."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_running(pid: int) -> bool:
    return _state(pid) not in (None, "T", "t", "Z", "X")


def _state(pid: int) -> str | None:
    fields = _stat(pid)
    return None if fields is None else fields[0]


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on, None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
