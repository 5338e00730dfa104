"""The world of the simulation: time that can stop for one node, and a bus in bad weather.

Everything here is deterministic: what is random comes from the simulation's seed.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import Counter
from collections.abc import Callable
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from crdt_sync.bus.memory import Hub, MemoryBus
from crdt_sync.envelope import Kind, decode
from tests.support.fakes import VirtualLoop

ROOMS = ("north", "south")
_OTHERS = {room: [other.encode() for other in ROOMS if other != room] for room in ROOMS}

OWNER: ContextVar[str] = ContextVar("OWNER", default="")
"""The node on whose behalf something runs; empty for the world outside."""


class Failed(AssertionError):
    """What the simulation is there to find."""


def refuse_leaks(room: str, data: bytes, where: str) -> None:
    """Fail if something of another room stands in `data`. Whatever anybody writes carries its room's name."""
    for other in _OTHERS[room]:
        if other in data:
            raise Failed(f"something of {other.decode()} is in {where} of {room}")


# ----------------------------------------------------------------------------------------------------------------- time


class SimulationLoop(VirtualLoop):
    """Virtual time that can stand still for one node, as under SIGSTOP, while it goes on for the others."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, list[tuple[asyncio.Handle, bool]]] = {}
        # Nothing comes from outside: the operating system needn't be asked.
        self._jumping.select = self._jump  # type: ignore[method-assign]

    def pauses(self, owner: str) -> bool:
        """Whether time stands still for a node."""
        return owner in self._held

    def pause(self, owner: str) -> None:
        """Have time stand still for a node."""
        held = self._held.setdefault(owner, [])
        # Only now: these are the loop's busiest methods.
        self._call_soon = self._call_soon_unless_held
        self.call_at = self._call_at_unless_held  # type: ignore[method-assign, assignment]
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        for i, handle in enumerate(ready):
            if handle._context.get(OWNER) == owner and not handle._cancelled:
                held.append((handle, False))
                # Not removed: the loop has counted them.
                ready[i] = nothing = asyncio.Handle(lambda: None, (), self)
                nothing.cancel()
        mine = [one for one in scheduled if one._context.get(OWNER) == owner and not one._cancelled]
        if mine:
            for timer in sorted(mine, key=lambda one: one._when):
                timer._scheduled = False
                held.append((timer, True))
            scheduled[:] = [one for one in scheduled if one._scheduled]
            heapq.heapify(scheduled)

    def resume(self, owner: str) -> None:
        """Have time go on. What was due meanwhile is done now."""
        for handle, is_timer in self._held.pop(owner, ()):
            if handle._cancelled:
                continue
            if is_timer:
                handle._scheduled = True  # type: ignore[attr-defined]
                heapq.heappush(self._scheduled, handle)  # type: ignore[attr-defined]
            else:
                self._ready.append(handle)  # type: ignore[attr-defined]
        if not self._held and "call_at" in vars(self):
            del self._call_soon, self.call_at

    def _call_at_unless_held(
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = super().call_at(when, callback, *args, context=context)
        if (owner := timer._context.get(OWNER)) in self._held:  # type: ignore[attr-defined]
            self._scheduled.remove(timer)  # type: ignore[attr-defined]
            heapq.heapify(self._scheduled)  # type: ignore[attr-defined]
            timer._scheduled = False  # type: ignore[attr-defined]
            self._held[owner].append((timer, True))
        return timer

    def _call_soon_unless_held(self, callback: Any, args: Any, context: Context | None) -> asyncio.Handle:
        handle: asyncio.Handle = super()._call_soon(callback, args, context)  # type: ignore[misc]
        if (owner := handle._context.get(OWNER)) in self._held:  # type: ignore[attr-defined]
            self._ready.pop()  # type: ignore[attr-defined]
            self._held[owner].append((handle, False))
        return handle

    def _jump(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Failed("everybody waits, and nothing is going to happen")
        self._jumping.now += max(timeout, 0)
        return []


# ------------------------------------------------------------------------------------------------------------------ bus


def site_of(node: str) -> int:
    """Where a node runs, from its id."""
    return int(node[:2], 16)


def node_id(site: int, start: int) -> str:
    """A node's id: where it runs, and the how manieth it is there."""
    return f"{site:02x}{start:014x}"


def owner_of(node: str) -> str:
    """A node as the trace has it, from its id."""
    return f"{site_of(node)}.{int(node[2:], 16)}"


@dataclass(slots=True)
class Weather:
    """What messages between nodes go through."""

    drop: float = 0.0
    """This share of the messages to a node is lost."""
    repeat: float = 0.0
    """This share arrives twice."""
    late: float = 0.0
    """This share arrives late, so that others overtake it."""
    late_s: float = 0.3
    forget: float = 0.0
    """Of those that should go into the log, this share doesn't."""
    mute: float = 0.0
    """This share goes only into the log, to nobody."""
    washes_away: bool = False
    """Whether the next update reaches nobody, and the log is gone before anybody notices."""
    cut: Counter[tuple[int, int]] = field(default_factory=Counter)
    """From which site to which nothing gets through."""


class SimulatedHub(Hub):
    """A hub with bad weather.

    Args:
        rng: Decides what happens to a message.
        seen: Counts it.
        kept_max: Bound on the messages in a room's log.
    """

    def __init__(self, rng: random.Random, seen: Counter[str], kept_max: int) -> None:
        super().__init__()
        self.rng, self.seen, self.kept_max = rng, seen, kept_max
        self.weather = Weather()
        self.digest = sha256()
        """Of all that arrived anywhere."""

    def keep(self, room: str, message: bytes) -> None:
        if self.weather.forget and self.rng.random() < self.weather.forget:
            self.seen["the log forgot a message"] += 1
            return
        super().keep(room, message)
        if len(self.logs[room]) > self.kept_max:
            del self.logs[room][: -self.kept_max]
            self.seen["log trimmed"] += 1


class SimulatedBus(MemoryBus):
    """One node's end of it.

    Args:
        hub: What it is an end of.
        node: The node's id.
        context: The node's, in which it hears.
        trace: Takes a line for each message; None if nobody reads them.
    """

    def __init__(
        self, hub: SimulatedHub, *, node: str, context: Context, trace: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(hub, node=node)
        self.site = site_of(node)
        self.context = context
        self._sky = hub
        self._trace = trace

    def publish(self, room: str, message: bytes, *, keep: bool) -> None:
        sky = self._sky
        if sky.weather.washes_away and not self._away and room and decode(message).kind == Kind.UPDATES:
            sky.weather.washes_away = False
            sky.seen["hub flushed while something was missing"] += 1
            sky.flush()
            return
        if sky.weather.mute and not self._away and sky.rng.random() < sky.weather.mute:
            sky.seen["published to nobody"] += 1
            if keep:
                sky.keep(room, message)
            return
        super().publish(room, message, keep=keep)

    def send(self, bus: MemoryBus, room: str, message: bytes) -> None:
        assert isinstance(bus, SimulatedBus)
        sky, loop = self._sky, asyncio.get_running_loop()
        weather = sky.weather
        if bus is not self:
            if weather.cut[self.site, bus.site] > 0:
                sky.seen["message cut off"] += 1
                return
            if weather.drop and sky.rng.random() < weather.drop:
                sky.seen["message dropped"] += 1
                return
            for share, what in ((weather.repeat, "repeated"), (weather.late, "late")):
                if share and sky.rng.random() < share:
                    sky.seen[f"message {what}"] += 1
                    delay_s = sky.rng.random() * weather.late_s
                    loop.call_later(delay_s, bus.deliver, room, message, context=bus.context)
                    if what == "late":
                        return
        loop.call_soon(bus.deliver, room, message, context=bus.context)

    def deliver(self, room: str, message: bytes) -> None:
        if room:
            self._sky.digest.update(message)
            refuse_leaks(room, message, "a message")
            if self._trace is not None:
                self._trace(self._describe(room, message))
        super().deliver(room, message)

    def _describe(self, room: str, message: bytes) -> str:
        envelope = decode(message)
        to = f" to {owner_of(envelope.to.hex())}" if envelope.to else ""
        kind, source = Kind(envelope.kind).name, envelope.source[8:].hex()
        sender = owner_of(envelope.node.hex())
        return f"    {sender} -> {owner_of(self.node)} {room} {kind} {envelope.number}{to} {source}"
