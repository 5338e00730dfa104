"""What people do in the simulation. An event is a function that begins something."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .simulation import Simulation

Event = Callable[["Simulation"], None]


def edit(world: Simulation) -> None:
    person = world.someone()
    if not person.gone:
        for _ in range(world.rng.choice([1, 1, 1, 4])):
            person.edit()


def confirm(world: Simulation) -> None:
    world.someone().ask()


def author(world: Simulation) -> None:
    """Somebody edits, waits for the confirmation, and is never seen again."""
    person = world.someone()
    if person.gone:
        world.replace(person)
        return
    person.edit()
    if person.ask():
        person.leaves_when_confirmed = True


def connect(world: Simulation) -> None:
    person = world.someone()
    if person.gone:
        world.replace(person)
    else:
        world.connect(person)


def leave(world: Simulation) -> None:
    world.someone().disconnect(properly=world.rng.random() < 0.5)


def hop(world: Simulation) -> None:
    """Somebody goes to another node."""
    person = world.someone()
    if person.session is None:
        return
    others = [site for site in world.sites if site.responds and site is not person.session.site]
    person.disconnect(properly=False)
    if others:
        world.see("client hopped")
        person.connect(world.rng.choice(others))


def block(world: Simulation) -> None:
    """Somebody doesn't read."""
    session = world.someone().session
    if session is not None:
        session.transport.block()
        world.later(session.transport.resume)


USUAL: list[Event] = [*[edit] * 12, *[confirm] * 3, *[connect] * 3, leave, hop, author, block]
