"""What a delivery costs the server, counted instead of timed: `python -m benchmarks.costs`.

Runs the server under valgrind, and counts the instructions and the system calls that it takes to deliver a fixed number of updates. What else
the machine does moves neither. The works are A, B and C of `benchmarks.peers` in short. Their clients keep step: all senders send while the
server is stopped, then it goes on, and they send again when everybody has got everything. So what it finds in a turn of its event loop is always the same.

Pythons differ in how many instructions they take for the same program. So the cost of a delivery is given in *units*, each what this Python takes for one round of
`WORKOUT`, counted by valgrind too. Instructions of the kernel aren't counted; that is what the system calls are for.

Prints the costs and what they were when `costs.json` was written. `--renew` writes it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.peers.clients import Client, Clients
from benchmarks.peers.servers import HOST, OUR_LIMITS, ROOT, START_S
from benchmarks.peers.wire import TOKEN, YWebsocket, pong
from tests.support.debian import Program, find_program
from tests.support.processes import ProcessTree
from tests.support.server import free_port

# Under valgrind all takes some fifty times as long. What would be done in one turn of the event loop would be spread over several, by how busy the machine is.
SERVE = """
from crdt_sync import pacing
assert pacing.SLICE_S < 0.01
pacing.SLICE_S = 1
from crdt_sync import cli
cli.main(["serve"])
"""
STORED = Path(__file__).with_name("costs.json")
WORKOUT_ROUNDS = 20_000
# What a server does all day: calls, attributes, queues, small pieces of bytes.
WORKOUT = f"""
from collections import deque

class Peer:
    def __init__(self):
        self.waiting = deque()
        self.sent = 0

    def put(self, piece):
        if self.waiting is not None and self.sent >= 0:
            self.waiting.append(piece)
            return True
        return False

    def flush(self):
        data = b"".join([bytes((0x82, len(piece))) + piece for piece in self.waiting])
        self.waiting.clear()
        self.sent += len(data)
        return data

peers = {{number: Peer() for number in range(8)}}
for number in range({WORKOUT_ROUNDS}):
    taken = 0
    for peer in peers.values():
        taken += peer.put(b"%08d" % number)
    if number % 4 == 3:
        for peer in peers.values():
            peer.flush()
"""


@dataclass(frozen=True)
class Work:
    """Rooms, all of the same kind, in which updates are sent in step."""

    rooms: int
    clients: int
    senders: int
    """In each room."""
    window: int
    """How many updates each sends at once."""
    steps: int

    @property
    def deliveries(self) -> int:
        """In each step, to clients other than the sender."""
        return self.rooms * self.senders * self.window * (self.clients - 1)


WORKS = {
    "A": Work(rooms=1, clients=51, senders=1, window=8, steps=8),
    "B": Work(rooms=25, clients=4, senders=1, window=1, steps=12),
    "C": Work(rooms=2, clients=20, senders=20, window=1, steps=6),
}
WARM_UP_STEPS = 3
GROWTH_MAX = 0.15
STEP_S = 60
NUDGE_S = 0.03
# Not those that ask for the time or who we are: the former are no system calls outside of valgrind, the latter aren't with newer Pythons.
CALL = re.compile(rb"^SYSCALL\[\d+,\d+\]\( *\d+\) sys_(?!clock_gettime|getpid|futex|gettimeofday)", re.MULTILINE)


@dataclass(frozen=True)
class Cost:
    """What one delivery takes."""

    units: float
    """Instructions outside of the kernel, by those of a round of the workout."""
    calls: float
    """System calls."""


def measure() -> dict[str, Cost]:
    """The cost of each work.

    Raises:
        Unavailable: There is no valgrind, and it can't be fetched.
        AssertionError: The server doesn't start, or loses something.
    """
    valgrind = find_program("valgrind", path="usr/bin/valgrind.bin")
    unit = _unit(valgrind)
    with tempfile.TemporaryDirectory(prefix="crdt-sync-costs-") as folder, _Counted(valgrind, Path(folder)) as server:
        return {name: server.cost(name, work, unit) for name, work in WORKS.items()}


class _Counted:
    """A server under valgrind.

    Args:
        valgrind: The program.
        folder: An existing empty one.
    """

    def __init__(self, valgrind: Program, folder: Path) -> None:
        self._valgrind = valgrind
        self._folder = folder
        self._port = free_port()
        self._calls = folder / "calls"
        self._log = folder / "log"

    def __enter__(self) -> _Counted:
        environment = OUR_LIMITS | {
            "CRDT_SYNC_HOST": HOST,
            "CRDT_SYNC_PORT": str(self._port),
            "CRDT_SYNC_DATABASE_URL": f"sqlite:///{self._folder / 'documents.db'}",
            # What goes by the clock would count more often than it does where nothing is counted.
            "CRDT_SYNC_JOURNAL_INTERVAL_S": "10",
            "CRDT_SYNC_CHECKPOINT_INTERVAL_S": "3600",
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": str(ROOT),
        }
        options = [
            "--tool=callgrind",
            "--instr-atstart=no",
            f"--callgrind-out-file={self._folder / 'counts'}",
            "--trace-syscalls=yes",
            f"--log-file={self._calls}",
            f"--vgdb-prefix={self._folder / 'vgdb'}",
        ]
        self._tree = ProcessTree(
            [self._valgrind.path, *options, sys.executable, "-c", SERVE],
            folder=self._folder,
            log=self._log,
            env=environment | _env(self._valgrind),
        )
        deadline = time.monotonic() + 3 * START_S
        while not self._accepts():
            if self._tree.poll() is not None or time.monotonic() > deadline:
                self._tree.kill()
                raise AssertionError(
                    f"the server didn't start under valgrind:\n{self._log.read_text(errors='replace')}"
                )
            time.sleep(0.1)
        return self

    def __exit__(self, *error: object) -> None:
        self._tree.kill()

    def cost(self, name: str, work: Work, unit: float) -> Cost:
        """Do a work, in rooms of its own, and count."""
        with Clients([self._port], lambda room: YWebsocket(f"{name}-{room}")) as clients:
            clients.connect(work.rooms, work.clients)
            steps = _Steps(clients, work)
            self._tell("instrumentation on", clients)
            counts = [self._counted(clients)]
            for _ in range(WARM_UP_STEPS + work.steps):
                self._tree.freeze()
                steps.send()
                self._tree.thaw()
                steps.wait()
                counts.append(self._counted(clients))
            self._tell("instrumentation off", clients)
        each = [
            (instructions - before, calls - called)
            for (before, called), (instructions, calls) in itertools.pairwise(counts[WARM_UP_STEPS:])
        ]
        # The least: in some steps garbage is collected as well, the journal written, or something else done whose time has come.
        instructions, calls = (min(values) / work.deliveries for values in zip(*each, strict=True))
        return Cost(round(instructions / unit, 4), round(calls, 4))

    def _counted(self, clients: Clients) -> tuple[int, int]:
        """How many instructions it took until now, and how many system calls."""
        threads = re.findall(r"^events-\d+: (\d+)", self._tell("status internal", clients), re.MULTILINE)
        return sum(map(int, threads)), len(CALL.findall(self._calls.read_bytes()))

    def _tell(self, order: str, clients: Clients) -> str:
        """Give valgrind an order; returns its answer."""
        vgdb = self._valgrind.path.with_name("vgdb")
        # Valgrind looks for orders while its program runs. To have it look while that sleeps, vgdb would need `ptrace`, which not every
        # container allows; so we wake the server, by a pong that it didn't ask for.
        options = [f"--vgdb-prefix={self._folder / 'vgdb'}", f"--pid={self._tree.pid}", "--max-invoke-ms=0"]
        asked = subprocess.Popen(
            [vgdb, *options, *order.split()], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        while True:
            try:
                told, _ = asked.communicate(timeout=NUDGE_S)
            except subprocess.TimeoutExpired:
                clients.all[-1].socket.sendall(pong(b""))
            else:
                assert asked.returncode == 0, f"vgdb {order} ended with {asked.returncode}"
                return told

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self._port)) == 0


class _Steps:
    """Updates that all senders send at once, and who has got them.

    Args:
        clients: All of them, connected.
        work: Theirs.
    """

    def __init__(self, clients: Clients, work: Work) -> None:
        self._clients = clients
        self._work = work
        self._senders = clients.all[: work.rooms * work.senders]
        self._sent = 0
        self._got = 0
        self._seen: list[set[int]] = [set() for _ in clients.all]

    def send(self) -> None:
        """Have every sender send its next ones."""
        for _ in range(self._work.window):
            for client in self._senders:
                client.send(self._sent)
                self._sent += 1

    def wait(self) -> None:
        """Return once everybody has got everything that the others sent.

        Raises:
            AssertionError: Something didn't come.
        """
        expected = self._sent * (self._work.clients - 1)
        self._clients.run(time.perf_counter() + STEP_S, self._take, stop=lambda: self._got >= expected)
        got = sum(map(len, self._seen))
        assert self._got == got == expected, f"{self._got} updates came, {got} different ones, instead of {expected}"

    def _take(self, client: Client, data: bytes, now: float) -> None:
        for payload in client.messages():
            numbers = [int(number) for number in TOKEN.findall(payload)]
            self._seen[client.number].update(numbers)
            self._got += len(numbers)


def _unit(valgrind: Program) -> float:
    """The instructions of one round of the workout, with its share of what it takes to start Python."""
    options = ["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    done = subprocess.run(
        [valgrind.path, *options, sys.executable, "-I", "-S", "-c", WORKOUT],
        env=os.environ | _env(valgrind) | {"PYTHONHASHSEED": "0"},
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1].replace(",", "")) / WORKOUT_ROUNDS


def _env(valgrind: Program) -> dict[str, str]:
    if valgrind.folder is None:
        return {}
    return valgrind.env | {"VALGRIND_LIB": str(valgrind.folder / "usr/libexec/valgrind")}


def stored() -> dict[str, Cost]:
    """What each work cost when `costs.json` was written."""
    return {name: Cost(**cost) for name, cost in json.loads(STORED.read_text()).items()}


def grown(costs: dict[str, Cost], before: dict[str, Cost], allowed: float = GROWTH_MAX) -> list[str]:
    """What grew by more than the allowed share, in words."""
    found = []
    for name, cost in costs.items():
        for what in ("units", "calls"):
            now, was = getattr(cost, what), getattr(before[name], what)
            if now > was * (1 + allowed):
                found.append(f"{name}: {now:.3f} {what} a delivery, {now / was - 1:.0%} more than {was:.3f}")
    return found


def least(one: dict[str, Cost], other: dict[str, Cost]) -> dict[str, Cost]:
    """Of two measurements."""
    return {
        name: Cost(min(cost.units, other[name].units), min(cost.calls, other[name].calls)) for name, cost in one.items()
    }


def table(costs: dict[str, Cost], before: dict[str, Cost]) -> str:
    """Both, in Markdown."""
    lines = ["| | units/delivery | stored | system calls/delivery | stored |", "|---|---:|---:|---:|---:|"]
    for name, cost in costs.items():
        was = before[name]
        units = f"{cost.units:.3f} | {was.units:.3f} ({cost.units / was.units - 1:+.1%})"
        lines.append(f"| {name} | {units} | {cost.calls:.3f} | {was.calls:.3f} ({cost.calls / was.calls - 1:+.1%}) |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print, or write."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.costs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--renew", action="store_true", help="write them to costs.json")
    options = parser.parse_args()
    costs = measure()
    print(table(costs, stored() if STORED.exists() else costs))
    if options.renew:
        STORED.write_text(json.dumps({name: asdict(cost) for name, cost in costs.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
