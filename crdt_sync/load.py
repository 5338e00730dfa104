"""How busy this node is, and what it does about that.

Owns the level, which follows from samples of CPU time and memory, and which rooms are the heaviest. Refusing joins is
carried out by `limits`, thinning awareness by `room`, slowing writers by the gateway; each asks here, or is told.

A node that can't keep up does less of what is least missed, one step at a time: first it takes nobody more (clients
wait at another node, or come again), then awareness is passed on less often, then the rooms that cause most of the
work have their writers read more slowly. It takes the steps back in the same order, and not at once, or it would flap.

CPU time is that of the thread that runs the event loop, in shares of one core. Other threads wait for the store.
"""

import asyncio
import logging
import os
import time
from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from .limits import Limits
from .metrics import SAMPLE_INTERVAL_S as METRICS_INTERVAL_S
from .metrics import Metrics
from .settings import Settings

log = logging.getLogger("crdt_sync.load")

SAMPLE_INTERVAL_S = 1.0
# CPU time is judged over this long: a burst of joins or one large document is no overload.
WINDOW_S = 10.0
# Between one step and the next, in either direction: no sooner than what the last one did can be seen in the window.
STEP_S = 10.0
# Below this part of the bound, it is over.
RELIEVED = 0.75
# How much less often awareness is passed on.
AWARENESS_STRETCH = 10.0
# How long a heavy room's writer isn't read after each of its messages.
PAUSE_S = 0.05
# The heaviest rooms are those that together make up this part of the work.
HEAVY_PART = 0.5
# What a message costs beside its bytes, in bytes.
MESSAGE_WORTH = 500
# Work that is older than some seconds counts little.
FADING = 0.7


class Level(IntEnum):
    """What a node does about its load. Each level includes those before it."""

    CALM = 0
    NO_JOINS = 1
    AWARENESS_THINNED = 2
    WRITERS_SLOWED = 3


# Asked for each message; see `document.NEW`.
WRITERS_SLOWED = Level.WRITERS_SLOWED


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured at one moment."""

    at: float
    cpu_s: float
    """CPU time so far."""
    memory_bytes: int


class Judge:
    """Makes a level of samples. Pure.

    Args:
        cpu_max: Share of one core from which on there is too much to do.
        memory_max: Share of `memory_limit_bytes` from which on it is too much.
        memory_limit_bytes: None if there is no limit.
    """

    def __init__(self, *, cpu_max: float, memory_max: float, memory_limit_bytes: int | None) -> None:
        self.level = Level.CALM
        self.cpu = 0.0
        """Share of one core, over the window."""
        self.memory = 0.0
        """Share of the limit."""
        self._cpu_max = cpu_max
        self._memory_max = memory_max
        self._limit = memory_limit_bytes
        self._samples: deque[Sample] = deque()
        self._changed_at = float("-inf")

    def take(self, sample: Sample) -> Level:
        """Take the next sample into account; returns the level."""
        samples = self._samples
        samples.append(sample)
        while len(samples) > 2 and sample.at - samples[1].at >= WINDOW_S:
            samples.popleft()
        elapsed = sample.at - samples[0].at
        # Before the window is full nothing is known of it: the start itself is busy.
        self.cpu = (sample.cpu_s - samples[0].cpu_s) / elapsed if elapsed >= WINDOW_S else 0.0
        self.memory = sample.memory_bytes / self._limit if self._limit else 0.0
        if sample.at - self._changed_at >= STEP_S:
            step = self._step()
            if step:
                self.level = Level(self.level + step)
                self._changed_at = sample.at
        return self.level

    def why(self) -> str:
        """The last measurements, for people."""
        memory = f", memory {self.memory:.0%} of its limit" if self._limit else ""
        return f"CPU {self.cpu:.0%} of one core{memory}"

    def _step(self) -> int:
        if self.cpu >= self._cpu_max or self.memory >= self._memory_max:
            return int(self.level < max(Level))
        if self.cpu < RELIEVED * self._cpu_max and self.memory < RELIEVED * self._memory_max:
            return -int(self.level > Level.CALM)
        return 0


class Work:
    """Which rooms cause most of the work. Pure."""

    def __init__(self) -> None:
        self.heaviest: frozenset[str] = frozenset()
        """The fewest rooms that together made up half of the work lately."""
        self._of_room: dict[str, float] = {}

    def add(self, room: str, size: int, receivers: int) -> None:
        """A message came that goes to so many."""
        self._of_room[room] = self._of_room.get(room, 0.0) + (size + MESSAGE_WORTH) * (1 + receivers)

    def shares(self) -> dict[str, float]:
        """By room, which part of all work lately was because of it."""
        whole = sum(self._of_room.values())
        return {room: work / whole for room, work in self._of_room.items()}

    def settle(self) -> None:
        """Find the heaviest, and let old work fade; call it once a second."""
        left = HEAVY_PART * sum(self._of_room.values())
        heaviest = []
        for room in sorted(self._of_room, key=self._of_room.__getitem__, reverse=True):
            if left <= 0:
                break
            heaviest.append(room)
            left -= self._of_room[room]
        self.heaviest = frozenset(heaviest)
        self._of_room = {room: work * FADING for room, work in self._of_room.items() if work * FADING >= MESSAGE_WORTH}


class Load:
    """How busy one node is.

    Args:
        settings: Bounds.
        limits: Told when nobody more may join.
        metrics: Told how late the event loop is.
    """

    def __init__(self, settings: Settings, limits: Limits, metrics: Metrics | None = None) -> None:
        self._metrics = metrics or Metrics()
        self.limits = limits
        """Where it is counted what was refused."""
        self._judge = Judge(
            cpu_max=settings.load_cpu_max,
            memory_max=settings.load_memory_max,
            memory_limit_bytes=settings.memory_bytes_max or cgroup_memory_limit(share=settings.workers),
        )
        self._work = Work()

    @property
    def level(self) -> Level:
        """What the node does about its load."""
        return self._judge.level

    @property
    def awareness_stretch(self) -> float:
        """By how much the interval between awareness messages is longer than usual."""
        return AWARENESS_STRETCH if self.level >= Level.AWARENESS_THINNED else 1.0

    @property
    def problem(self) -> str | None:
        """What an operator should know of it; None if nothing."""
        if self.level is Level.CALM:
            return None
        steps = ("new joins are refused", "awareness is thinned", "the heaviest rooms' writers are slowed")
        return f"{self._judge.why()}: {', '.join(steps[: self.level])}"

    def shares(self) -> dict[str, float]:
        """By room, which part of all work of the last seconds was because of it; rooms that had none are missing."""
        return self._work.shares()

    def pause_s(self, room: str, *, size: int, receivers: int) -> float:
        """Count a message of a client, and say for how long the next shouldn't be read; 0 as a rule."""
        self._work.add(room, size, receivers)
        if self.level < WRITERS_SLOWED or room not in self._work.heaviest:
            return 0.0
        self.limits.note("writers_slowed", room)
        return PAUSE_S

    async def run(self) -> None:
        """Look at the load once a second, in the thread of the event loop, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_forever())
            group.create_task(self._measure_lag_forever())

    async def _measure_lag_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + METRICS_INTERVAL_S
            await asyncio.sleep(METRICS_INTERVAL_S)
            self._metrics.sample(max(0.0, loop.time() - due))

    async def _look_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.look(Sample(loop.time(), time.thread_time(), memory_bytes()))
            self.limits.report()
            await asyncio.sleep(SAMPLE_INTERVAL_S)

    def look(self, sample: Sample) -> None:
        """Judge by one more sample."""
        before = self.level
        self._work.settle()
        level = self._judge.take(sample)
        self.limits.joins_refused_because = self.problem
        if level is not before:
            fields = {
                "load_level": level.name,
                "cpu": round(self._judge.cpu, 2),
                "memory": round(self._judge.memory, 2),
            }
            log.log(logging.INFO if level is Level.CALM else logging.WARNING, "load_level", extra=fields)


def memory_bytes() -> int:
    """What this process occupies; 0 where that can't be read."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def cgroup_memory_limit(*, share: int = 1, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> int | None:
    """The least limit of the control groups that this process is in, divided among `share` processes.

    None if there is none. Knows both versions of control groups.
    """
    limits = []
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = sys / "fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            root, name = sys / "fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = Path(path.lstrip("/"))
        for ancestor in (group, *group.parents):
            limit = _read_limit(root / ancestor / name)
            if limit is not None:
                limits.append(limit)
    return min(limits) // share if limits else None


def _read_limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    # Version 1 says "none" with the largest number of whole pages.
    return int(text) if text.isdigit() and int(text) < 1 << 60 else None
