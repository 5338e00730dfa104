"""Servers are forked from a process that has imported what they import, since that is most of what a start takes.

What follows is what `python -m crdt_sync` does, to the interpreter's own end. What a fork doesn't show is that a fresh Python
comes as far; for that there are tests that start one.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from .processes import die_with

_ROOT = Path(__file__).resolve().parents[2]
# What every server imports, and nothing else: what a setting asks for it shall find out by itself.
_IMPORTED = ("crdt_sync.cli", "crdt_sync.serve_command", "crdt_sync.serve")
_ORDER_BYTES_MAX = 1 << 17
_NUMBER_BYTES = 12


class Nursery:
    """A process from which servers are forked. It and they end with this process, even if that is killed."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=_ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(_ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                preexec_fn=functools.partial(die_with, os.getpid()),
            )
        atexit.register(self.close)

    def fork(self, arguments: Sequence[str], *, env: Mapping[str, str], output: IO[bytes]) -> Forked:
        """Start `crdt-sync` with these arguments.

        Args:
            arguments: A command and its options.
            env: Its whole environment.
            output: Takes what it prints.
        """
        fate, told = os.pipe()
        try:
            socket.send_fds(self._orders, [json.dumps([arguments, dict(env)]).encode()], [output.fileno(), told])
        finally:
            os.close(told)
        return Forked(fate)

    def close(self) -> None:
        """End it, and what it forked."""
        self._process.kill()
        self._process.wait()
        self._orders.close()
        atexit.unregister(self.close)


class Forked:
    """A forked server, with what servers need of `subprocess.Popen`.

    Args:
        fate: A pipe that says its process id, and once it has ended its exit code; it is closed then.
    """

    def __init__(self, fate: int) -> None:
        self._fate = fate
        self._code: int | None = None
        self.pid = self._told()

    def poll(self) -> int | None:
        """Its exit code, minus the number of the signal that killed it; None as long as it runs."""
        return self._ended(0)

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        code = self._ended(None)
        assert code is not None
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal. Does nothing if it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout_ms: int | None) -> int | None:
        if self._code is None:
            ready = select.poll()
            ready.register(self._fate, select.POLLIN)
            if ready.poll(timeout_ms):
                self._code = self._told()
                os.close(self._fate)
        return self._code

    def _told(self) -> int:
        number = os.read(self._fate, _NUMBER_BYTES)
        assert number, "the nursery has ended"
        return int(number)


@functools.cache
def nursery() -> Nursery:
    """The one of this process."""
    return Nursery()


def _obey(orders: socket.socket) -> list[str]:
    """Fork whenever told to, until nobody can tell any more. Returns in what is forked: its arguments."""
    fates: dict[int, tuple[int, int]] = {}  # by what shows the end of a process: its id, and where to tell
    ready = select.poll()
    ready.register(orders, select.POLLIN)
    while True:
        for shown, _ in ready.poll():
            if shown in fates:
                pid, fate = fates.pop(shown)
                ready.unregister(shown)
                _tell(fate, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                os.close(fate)
                os.close(shown)
                continue
            order, descriptors, _, _ = socket.recv_fds(orders, _ORDER_BYTES_MAX, 2)
            if not order:
                sys.exit()
            output, fate = descriptors
            parent, pid = os.getpid(), os.fork()
            if pid == 0:
                die_with(parent)
                for descriptor in (orders.detach(), fate, *fates, *(told for _, told in fates.values())):
                    os.close(descriptor)
                arguments: list[str]
                arguments, env = json.loads(order)
                _become(env, output)
                return arguments
            os.close(output)
            _tell(fate, pid)
            fates[shown := os.pidfd_open(pid)] = pid, fate
            ready.register(shown, select.POLLIN)


def _tell(fate: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # whoever wanted to know has gone
        os.write(fate, b"%*d" % (_NUMBER_BYTES, number))


def _become(env: Mapping[str, str], output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    for module in _IMPORTED:
        importlib.import_module(module)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the test run
    sys.argv = ["crdt-sync", *_obey(socket.socket(fileno=int(sys.argv[1])))]
    runpy.run_module("crdt_sync", run_name="__main__", alter_sys=True)
