"""A simulation of several nodes and the people on them, in one process and in virtual time: a seed reproduces.

Rooms, journal, followers and checkpoints are the real ones; clock, network, store and bus are the simulation's. It lets
things happen (`simulation_events`) and then looks:

- What was confirmed is in the store at that moment, and is there after a cold start in the end.
- When nothing goes wrong any more, everybody has the same, sees everybody, and all of it is in the store.
- Nothing of one room appears in another.
- No node logs an error that nobody made on purpose.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any
from unittest.mock import patch

import crdt_sync.connection
from crdt_sync.connection import Connection

from .simulation_checks import differences, start_cold, still_open, unseen, unstored
from .simulation_events import USUAL
from .simulation_faults import CLIMATES, FAULTS, FINALES
from .simulation_nodes import Content, Database, Site
from .simulation_people import Person
from .simulation_watch import Watch
from .simulation_world import ROOMS, Failed, SimulatedHub, SimulationLoop, Weather

SITES = 3
PEOPLE = 4
EVENTS_MIN, EVENTS_MAX = 15, 40
EVENTS_PER_S = 5
# Of all faults, so many may happen in one run. If all did in each, some would hide others.
FAULTS_SHARE = 0.3
CLIMATE_SHARE = 0.15
FINALE_SHARE, FINALE_S = 0.3, 5.0
# If the end comes at once, nobody has the time to repair anything.
SUDDEN_END_SHARE, SUDDEN_END_SHARE_IN_CLIMATE = 0.25, 0.6
# Who left without a word may be seen for 30 s.
SETTLE_S = 45.0


class Simulation:
    """One run.

    Args:
        seed: Decides everything.
        seen: Counts what happened.
        verbose: Whether to print each event and message.
    """

    def __init__(self, seed: int, *, seen: Counter[str], verbose: bool = False) -> None:
        self.rng = random.Random(seed)
        self.seen = seen
        self.verbose = verbose
        self.loop: SimulationLoop
        self.database = Database()
        self.hub = SimulatedHub(self.rng, seen, self.rng.choice([2, 4, 1000]))
        self.sites = [Site(self, number) for number in range(SITES)]
        self.people: list[Person] = []
        self.undo: list[Callable[[], object]] = []
        """What takes back the faults that last."""
        self.promises: dict[str, list[Content]] = {room: [] for room in ROOMS}
        """What was said to be stored."""
        self._tasks: list[asyncio.Task[Any]] = []
        self._tokens = itertools.count(1)
        self._problem: BaseException | None = None
        self._outer: Context

    async def run(self) -> str:
        """Run it to its end; returns a digest of all that happened.

        Raises:
            Exception: Something was found, usually `Failed`.
        """
        self.loop = asyncio.get_running_loop()  # type: ignore[assignment]
        self._outer = copy_context()
        rng = self.rng
        for site in self.sites:
            await site.start()
        self.people = [Person(self, n, ROOMS[n % 2] if n < 2 else rng.choice(ROOMS)) for n in range(PEOPLE)]
        climates = [climate for climate in CLIMATES if rng.random() < CLIMATE_SHARE]
        for climate in climates:
            climate(self)
        for person in self.people:
            self.connect(person)
        await asyncio.sleep(0.2)
        faults = [fault for fault in FAULTS if rng.random() < FAULTS_SHARE]
        events = [*USUAL, *faults * 2]
        self.trace(f"faults: {' '.join(fault.__name__ for fault in faults)}")
        for _ in range(rng.randint(EVENTS_MIN, EVENTS_MAX)):
            rng.choice(events)(self)
            await asyncio.sleep(rng.expovariate(EVENTS_PER_S))
            self._check()
        if rng.random() < FINALE_SHARE:
            rng.choice(FINALES)(self)
            await asyncio.sleep(FINALE_S)
        if rng.random() < (SUDDEN_END_SHARE_IN_CLIMATE if climates else SUDDEN_END_SHARE):
            await self._end_at_once()
        else:
            await self._end_in_peace()
        return self.hub.digest.hexdigest()

    # ------------------------------------------------------------------------------------------------- for the others

    def see(self, what: str) -> None:
        """Count something."""
        self.seen[what] += 1

    def trace(self, text: str) -> None:
        """Note an event."""
        self.hub.digest.update(b"%.6f " % self.loop.time() + text.encode())
        if self.verbose:
            self.detail(text)

    def detail(self, text: str) -> None:
        """Print what happened, for those who replay a seed."""
        print(f"{self.loop.time() - 1000:8.3f} {text}")

    def token(self) -> bytes:
        """Something that no other confirmation has."""
        return b"%d" % next(self._tokens)

    def some_site(self) -> Site | None:
        """A site where a node runs, if there is one."""
        up = [site for site in self.sites if site.up]
        return self.rng.choice(up) if up else None

    def someone(self) -> Person:
        """One of the people."""
        return self.rng.choice(self.people)

    def connected(self, room: str) -> list[Person]:
        """Who has a room open."""
        return [person for person in self.people if person.room == room and person.session is not None]

    def connect(self, person: Person) -> None:
        """Have somebody connect to some node."""
        site = self.some_site()
        if site is not None and site.responds:
            person.connect(site)

    def replace(self, person: Person) -> None:
        """Have somebody new come for one who is gone for good."""
        fresh = Person(self, person.number + PEOPLE, person.room)
        self.people[self.people.index(person)] = fresh
        self.connect(fresh)

    def run_task(self, work: Coroutine[Any, Any, Any], context: Context | None = None) -> None:
        """Do something that takes time, for a node or for the world outside. If it fails, so does the run."""
        self._tasks.append(self.loop.create_task(work, context=context or self._outer))

    def outside(self, after_s: float, what: Callable[[], object]) -> asyncio.TimerHandle:
        """Do something in the world outside, later. If it fails, so does the run."""

        def run() -> None:
            try:
                what()
            except BaseException as error:
                self._problem = self._problem or error

        return self.loop.call_later(after_s, run, context=self._outer)

    def later(self, undo: Callable[[], object], *, mean_s: float = 2.0) -> None:
        """Take a fault back after a while, or when everything heals."""
        self.undo.append(undo)

        def run() -> None:
            if undo in self.undo:
                self.undo.remove(undo)
                undo()

        self.outside(self.rng.expovariate(1 / mean_s), run)

    def confirmed(self, person: Person, promise: Content) -> None:
        """Somebody has been told that what it had is stored."""
        self.see("confirmed")
        self.trace(f"{person.name} confirmed")
        self.promises[person.room].append(promise)
        stored = self.database.held(person.room)
        if not stored.covers(promise):
            raise Failed(f"{person.name} was told that {promise} is stored, and there is {stored}")

    # --------------------------------------------------------------------------------------------------------- the end

    async def _end_at_once(self) -> None:
        self.trace("the end, at once")
        await asyncio.gather(*(site.kill() for site in self.sites))
        self._check()
        for room in ROOMS:
            await start_cold(self, room)

    async def _end_in_peace(self) -> None:
        await self._heal()
        await self._until("everybody has the same", lambda: differences(self))
        if self.rng.random() < 0.5:
            await self._until("everybody sees everybody", lambda: unseen(self))
        await self._until("the store has the same", lambda: unstored(self))
        replicas = {room: people[0].replica for room in ROOMS if (people := self.connected(room))}
        if self.rng.random() < 0.3:
            for person in self.people:
                person.gone = True
                person.disconnect(properly=self.rng.random() < 0.5)
            await self._until("every room is unloaded", lambda: still_open(self))
        end = Site.kill if self.rng.random() < 0.5 else Site.stop
        await asyncio.gather(*(end(site) for site in self.sites))
        self._check()
        for room in ROOMS:
            await start_cold(self, room, replicas.get(room))

    async def _heal(self) -> None:
        """Let nothing go wrong any more, and everybody connect who is still there."""
        self.trace("healing")
        self._undo_all()
        self.hub.weather = Weather()
        for site in self.sites:
            if site.up:
                site.front.heal()
        for _ in range(200):
            await asyncio.sleep(0.1)
            self._check()
            # A crash may have been under way.
            self._undo_all()
            self._connect_all()
            connected = all(person.gone or (person.session and person.session.caught_up) for person in self.people)
            if connected and all(site.up for site in self.sites):
                break
        else:
            raise Failed("not everybody could connect")
        self.trace("healed")

    def _undo_all(self) -> None:
        while self.undo:
            self.undo.pop(0)()

    def _connect_all(self) -> None:
        for person in self.people:
            if person.away:
                self.connect(person)

    async def _until(self, what: str, reason_against: Callable[[], str]) -> None:
        began = self.loop.time()
        while reason := reason_against():
            if self.loop.time() - began > SETTLE_S:
                raise Failed(f"not after {SETTLE_S:.0f} s: {what}: {reason}")
            await asyncio.sleep(0.5)
            self._check()
            self._connect_all()
        took_ms = round((self.loop.time() - began) * 1000)
        self.trace(f"{what} after {took_ms} ms")
        self.seen[f"max ms: {what}"] = max(self.seen[f"max ms: {what}"], took_ms)

    # -------------------------------------------------------------------------------------------------------- checking

    def _check(self) -> None:
        """Fail if anything has failed."""
        if self._problem is not None:
            raise self._problem
        if self.database.losses:
            raise Failed(self.database.losses[0])
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()
        self._tasks = [task for task in self._tasks if not task.done()]
        for site in self.sites:
            if site.up and site.node is not None:
                site.node.check()


def simulate(seed: int, *, seen: Counter[str] | None = None, verbose: bool = False) -> str:
    """Run one seed; returns a digest of all that happened.

    Args:
        seed: Decides everything.
        seen: Counts what happened.
        verbose: Whether to print each event and message.

    Raises:
        Exception: Something was found, usually `Failed`.
    """
    seen = Counter() if seen is None else seen
    simulation = Simulation(seed, seen=seen, verbose=verbose)
    tokens = random.Random(seed + 1)
    random.seed(seed)
    unhandled: list[dict[str, Any]] = []
    with (
        patch("crdt_sync.follow.secrets.token_bytes", tokens.randbytes),
        patch.object(crdt_sync.connection, "_numbers", itertools.count(1)),
        patch.object(Connection, "__hash__", lambda self: self.id),
        Watch(seen, simulation.detail if verbose else None) as watch,
        asyncio.Runner(loop_factory=SimulationLoop) as runner,
    ):
        runner.get_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        digest = runner.run(simulation.run())
    if unhandled:
        raise Failed(f"unhandled: {unhandled[0]}") from unhandled[0].get("exception")
    if watch.complaints:
        raise Failed(f"logged: {watch.complaints}")
    return digest
