"""What goes wrong in the simulation: events that take themselves back after a while, or when everything heals."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from .simulation_events import Event, edit
from .simulation_nodes import Site
from .simulation_people import Person
from .simulation_world import ROOMS, SimulatedBus, Weather

if TYPE_CHECKING:
    from .simulation import Simulation

# --------------------------------------------------------------------------------------------------------------- nodes


def kill(world: Simulation) -> None:
    site = world.some_site()
    if site is not None:
        world.see("kill")
        _kill(world, site)


def stop(world: Simulation) -> None:
    site = world.some_site()
    if site is not None and site.responds:
        world.run_task(_restart_after(world, site, site.stop()))


def pause(world: Simulation) -> None:
    site = world.some_site()
    if site is None or not site.responds:
        return
    owner = site.owner
    world.see("pause")
    world.trace(f"pause {owner}")
    world.loop.pause(owner)

    def resume() -> None:
        world.trace(f"resume {owner}")
        world.loop.resume(owner)
        for person in world.people:
            if person.session is not None and person.session.link:
                person.session.post()

    world.later(resume, mean_s=4)


def decline(world: Simulation) -> None:
    """A node gets into trouble, its people hear that all is well or go elsewhere, and it dies."""
    inhabited = [person.session.site for person in world.people if person.session is not None]
    if not inhabited or not (site := world.rng.choice(inhabited)).responds:
        return
    world.see("decline")
    world.trace(f"decline of {site.owner}")
    if world.rng.random() < 0.5:
        _hold(world, site, "append", mean_s=6)
    else:
        _be_away(world, [site.bus], mean_s=6)
    for person in world.people:
        if person.session is not None and person.session.site is site:
            person.edit()
            if world.rng.random() < 0.5:
                person.leaves_when_confirmed = person.ask()
            else:
                world.outside(0.5 + world.rng.expovariate(1), partial(_move, world, person, site))
    world.later(partial(_kill, world, site), mean_s=2.5)


def _move(world: Simulation, person: Person, site: Site) -> None:
    """Go from a site to another, and ask there whether everything is stored."""
    others = [other for other in world.sites if other.responds and other is not site]
    if others and person.session is not None and person.session.site is site:
        person.disconnect(properly=False)
        person.asks_at_once = True
        person.leaves_when_confirmed = world.rng.random() < 0.5
        person.connect(world.rng.choice(others))


def _kill(world: Simulation, site: Site) -> None:
    world.run_task(_restart_after(world, site, site.kill()))


async def _restart_after(world: Simulation, site: Site, end: Coroutine[Any, Any, None]) -> None:
    await end
    world.later(lambda: world.run_task(site.start()), mean_s=3)


# --------------------------------------------------------------------------------------------------------------- store


def store_down(world: Simulation) -> None:
    sites = [site for site in world.sites if site.up]
    if world.rng.random() < 0.5:
        sites = sites[:1]
    methods = world.rng.choice([("append", "checkpoint", "load"), ("append",), ("checkpoint",), ("load",)])
    world.trace(f"store down {methods} for {[site.owner for site in sites]}")
    fronts = [site.front for site in sites]
    for front in fronts:
        for method in methods:
            front.fail(method)

    def recover() -> None:
        world.trace("store recovers")
        for front in fronts:
            front.recover()

    world.later(recover)


def store_hangs(world: Simulation) -> None:
    site = world.some_site()
    if site is not None:
        _hold(world, site, world.rng.choice(["append", "append", "checkpoint", "load"]))


def _hold(world: Simulation, site: Site, method: str, *, mean_s: float = 2.0) -> None:
    front = site.front
    world.see(f"{method} hangs")
    world.trace(f"{method} hangs for {site.owner}")
    front.hold(method)
    world.later(lambda: front.let_go(method), mean_s=mean_s)


def store_slow(world: Simulation) -> None:
    site = world.some_site()
    if site is None:
        return
    front = site.front
    front.answers_after_s["load"] = 2 * world.rng.random()
    front.latency_s = 0.5
    world.trace(f"store slow for {site.owner}")

    def hurry() -> None:
        front.answers_after_s.clear()
        front.latency_s = 0.02

    world.later(hurry)


def answer_lost(world: Simulation) -> None:
    site = world.some_site()
    if site is not None:
        method = world.rng.choice(["append", "append", "checkpoint"])
        world.trace(f"answer to {method} lost for {site.owner}")
        site.front.lose_answer(method)


def crash(world: Simulation) -> None:
    """A node is killed right before or after the store does something for it."""
    site = world.some_site()
    if site is None:
        return
    method = world.rng.choice(["append", "append", "checkpoint"])
    when = world.rng.choice(["before", "after"])
    world.trace(f"{site.owner} will crash {when} its next {method}")

    async def die() -> None:
        world.see(f"crash {when} {method}")
        world.outside(0, lambda: _kill(world, site))
        await asyncio.Event().wait()

    site.front.interruptions[method, when] = die


def busy(world: Simulation) -> None:
    """Another node seems to be writing a snapshot."""
    site = world.some_site()
    if site is not None:
        front, room = site.front, world.rng.choice(ROOMS)
        front.busy_elsewhere.add(room)
        world.later(lambda: front.busy_elsewhere.discard(room))


# ----------------------------------------------------------------------------------------------------------------- bus


def bus_away(world: Simulation) -> None:
    buses = [site.bus for site in world.sites if site.up]
    if buses and world.rng.random() < 0.6:
        buses = [world.rng.choice(buses)]
    _be_away(world, buses)


def _be_away(world: Simulation, buses: list[SimulatedBus], *, mean_s: float = 2.0) -> None:
    world.see("bus away")
    world.trace(f"bus away for {[bus.site for bus in buses]}")
    for bus in buses:
        bus.away = True

    def back() -> None:
        world.trace(f"bus back for {[bus.site for bus in buses]}")
        for bus in buses:
            if bus in world.hub.buses:
                bus.context.run(setattr, bus, "away", False)

    world.later(back, mean_s=mean_s)


def partition(world: Simulation) -> None:
    """One node doesn't hear another, or neither the other."""
    one, two = world.rng.sample(range(len(world.sites)), 2)
    pairs = [(one, two), (two, one)] if world.rng.random() < 0.6 else [(one, two)]
    cut = world.hub.weather.cut
    world.see("partition")
    world.trace(f"partition {pairs}")
    cut.update(pairs)

    def mend() -> None:
        world.trace(f"partition over {pairs}")
        cut.subtract(pairs)

    world.later(mend)


def flush(world: Simulation) -> None:
    world.see("hub flushed")
    world.trace("flush")
    world.hub.flush()


def wash_away(world: Simulation) -> None:
    """An update doesn't arrive, and isn't in the log either."""
    world.trace("the next update is washed away")
    world.hub.weather.washes_away = True


def lose_last_word(world: Simulation) -> None:
    """Somebody edits, it is washed away, and no edit follows that would show it."""
    wash_away(world)
    edit(world)


def drops(world: Simulation) -> None:
    _weather(world, drop=world.rng.choice([0.1, 0.4]))


def repeats(world: Simulation) -> None:
    _weather(world, repeat=world.rng.choice([0.1, 0.5]))


def delays(world: Simulation) -> None:
    _weather(world, late=world.rng.choice([0.2, 0.8]), late_s=world.rng.choice([0.1, 1.0, 3.0]))


def forgetting(world: Simulation) -> None:
    _weather(world, forget=0.5)


def muting(world: Simulation) -> None:
    _weather(world, mute=0.3)


def _weather(world: Simulation, **change: float) -> None:
    weather = world.hub.weather
    world.trace(f"weather {change}")
    for name, value in change.items():
        setattr(weather, name, value)

    def clear() -> None:
        for name in change:
            setattr(weather, name, getattr(Weather(), name))

    world.later(clear, mean_s=3)


# --------------------------------------------------------------------------------------------------- for the whole run


def deafness(world: Simulation) -> None:
    """One node never hears one or both of the others, and neither do its successors."""
    deaf, *others = world.rng.sample(range(len(world.sites)), len(world.sites))
    heard_not = others[: world.rng.choice([1, 2])]
    world.see("a node was deaf all the time")
    world.trace(f"{deaf} never hears {heard_not}")
    world.hub.weather.cut.update((other, deaf) for other in heard_not)


def stuck_appends(world: Simulation) -> None:
    """One node gets nothing stored until it is killed."""
    site = world.rng.choice(world.sites)
    world.see("appends hung all the time")
    world.trace(f"append hangs for {site.owner} until the end")
    front = site.front
    front.hold("append")
    world.undo.append(lambda: front.let_go("append"))


FAULTS: list[Event] = [
    *(kill, stop, pause, decline),
    *(store_down, store_hangs, store_slow, answer_lost, crash, busy),
    *(bus_away, partition, flush, wash_away, drops, repeats, delays, forgetting, muting),
]
CLIMATES: list[Event] = [deafness, stuck_appends]
FINALES: list[Event] = [decline, lose_last_word]
"""What is most interesting when nothing follows."""
