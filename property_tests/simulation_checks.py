"""What has to hold in the simulation once nothing goes wrong any more, and after everything has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_sync.document import Document
from tests.support.fakes import Node, document_of

from .simulation_nodes import SETTINGS, Content
from .simulation_people import Replica
from .simulation_world import ROOMS, Failed, refuse_leaks

if TYPE_CHECKING:
    from .simulation import Simulation


def differences(world: Simulation) -> str:
    """Who has something else than others, be it a person or a node; empty if nobody."""
    if any(not person.gone and person.session is None for person in world.people):
        return "not everybody is connected"
    for room in ROOMS:
        people = world.connected(room)
        held = {person.name: person.replica.held() for person in people}
        for site in world.sites:
            opened = site.room(room)
            if opened is not None:
                held[site.owner] = _held(document_of(opened))
        shown = {person.name: person.replica.shown() for person in people}
        for one in (held, shown):
            if any(each != next(iter(one.values())) for each in one.values()):
                return f"{room} isn't the same everywhere: {one}"
    return ""


def unseen(world: Simulation) -> str:
    """Who doesn't see who is in its room, or sees somebody who isn't; empty if nobody."""
    for room in ROOMS:
        people = world.connected(room)
        there = {person.client_id for person in people}
        for person in people:
            if person.visible != there:
                return f"{person.name} sees {sorted(person.visible)}, there are {sorted(there)}"
    return ""


def unstored(world: Simulation) -> str:
    """What isn't stored yet, or is and hasn't come to the people; empty if nothing."""
    for site in world.sites:
        for name, entry in site.open_rooms().items():
            if entry.room.unstored or not entry.settled_elsewhere:
                return f"{name} at {site.owner}"
    for room in ROOMS:
        stored = world.database.held(room)
        for person in world.connected(room):
            if person.replica.held() != stored:
                return f"of {room} {stored} is stored, {person.name} has {person.replica.held()}"
    return ""


def still_open(world: Simulation) -> str:
    """Which rooms are open; empty if none."""
    return " ".join(f"{name} at {site.owner}" for site in world.sites for name in site.open_rooms())


async def start_cold(world: Simulation, room: str, replica: Replica | None = None) -> None:
    """Look at what a node finds that has nothing but the store.

    Args:
        world: Where no node runs any more.
        room: Which of its rooms.
        replica: What everybody had who was there in the end; None if some may have had more than was stored.

    Raises:
        Failed: Something is missing, or too much.
    """
    for update in world.database.raw(room):
        refuse_leaks(room, update, "the store")
    node = await Node(world.database, settings=SETTINGS).start()
    document = document_of(await node.room(room))
    await node.kill()
    held, waiting = _held(document), document.waiting
    if any((client - ROOMS.index(room)) % 10 for client in [*held.clocks, *held.deletes]):
        raise Failed(f"{room} has something of a stranger: {held}")
    if replica is not None and (waiting or replica.held() != held):
        raise Failed(f"the store has of {room} {held} {waiting}, the people have {replica.held()}")
    for promise in world.promises[room]:
        if not held.covers(promise):
            raise Failed(f"something confirmed of {room} is lost: {promise}, there is {held}")


def _held(document: Document) -> Content:
    return Content(document.diff(b"\x00"))
