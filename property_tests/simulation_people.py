"""The simulation's people: each edits one room, by way of whatever node it is connected to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pycrdt

from crdt_sync.awareness import ClientState
from crdt_sync.errors import SyncError
from crdt_sync.protocol import encode_update
from crdt_sync.room import Room
from crdt_sync.settings import Settings
from tests.support.fakes import Client

from .simulation_nodes import Content, Site
from .simulation_world import ROOMS, refuse_leaks

if TYPE_CHECKING:
    from .simulation import Simulation

# y-protocols.
RENEW_S = 15.0


class Replica:
    """A client's document, as a `Client` needs it: a text and a map."""

    waiting = ()

    def __init__(self, client_id: int) -> None:
        self.doc: pycrdt.Doc[Any] = pycrdt.Doc(client_id=client_id)
        self.text = self.doc.get("text", type=pycrdt.Text)
        self.map = self.doc.get("map", type=pycrdt.Map)
        self._written: list[bytes] | None = None
        self._subscription = self.doc.observe(self._keep)

    def write(self, change: Callable[[], object]) -> list[bytes]:
        """Make a change; returns its updates, as Yjs would send them."""
        written: list[bytes] = []
        self._written = written
        change()
        self._written = None
        return written

    def state_vector(self) -> bytes:
        """See `Document.state_vector`."""
        return bytes(self.doc.get_state())

    def diff(self, state_vector: bytes) -> bytes:
        """See `Document.diff`."""
        return bytes(self.doc.get_update(state_vector))

    def restore(self, update: bytes) -> None:
        """See `Document.restore`."""
        self.doc.apply_update(update)

    def shown(self) -> tuple[str, dict[str, Any]]:
        """What a person sees."""
        return str(self.text), dict(self.map.to_py() or {})

    def held(self) -> Content:
        """What is in it, seen or deleted."""
        return Content(self.diff(b"\x00"))

    def _keep(self, event: Any) -> None:
        if self._written is not None:
            self._written.append(bytes(event.update))


class Session(Client):
    """One connection of a person.

    Attributes:
        given_up: Whether the person doesn't listen any more.
        caught_up: Whether the person's document has been exchanged with the node.
        promised: Token to what the person had when it asked for the confirmation.
    """

    def __init__(self, person: Person, site: Site) -> None:
        super().__init__(person.replica)  # type: ignore[arg-type]
        self.people = person.people
        self.site, self.context = site, site.context
        self.given_up = False
        self.caught_up = False
        self.promised: dict[bytes, Content] = {}
        self._person = person
        self._reading = self._posting = False

    def enter(self, room: Room, settings: Settings, *, window: int | None = None) -> Client:
        super().enter(room, settings, window=window)
        self.transport.on_frame = self._frame_came
        return self

    def say(self, *frames: bytes) -> None:
        self.link.extend(frames)
        self.post()

    def post(self) -> None:
        """Have what is on the link arrive after a while."""
        if not self._posting:
            self._posting = True
            self._person.world.outside(self._person.latency_s, self._arrive)

    def _frame_came(self) -> None:
        if not self._reading:
            self._reading = True
            self._person.world.outside(self._person.latency_s, self._read)

    def _read(self) -> None:
        self._reading = False
        if self.given_up or self.room is None:
            return
        for frame in self.transport.frames:
            refuse_leaks(self._person.room, frame, f"what {self._person.name} got")
        self.read()
        self.received.clear()
        self.told.clear()
        if self.link:
            self.post()
        self._person.look(self)

    def _arrive(self) -> None:
        self._posting = False
        if not self.given_up and self.room is not None and self.site.responds:
            self.context.run(self.deliver)


class Person:
    """Somebody who edits one room.

    Attributes:
        asks_at_once: Whether it asks for a confirmation as soon as it has connected.
        leaves_when_confirmed: Whether it goes for good when it hears that what it has is stored.
        gone: Whether it has.
    """

    def __init__(self, world: Simulation, number: int, room: str) -> None:
        self.world, self.number, self.room = world, number, room
        self.name = f"p{number}"
        # A document's clients say which room it is of.
        self.client_id = 1000 + number * 10 + ROOMS.index(room)
        self.replica = Replica(self.client_id)
        self.people: dict[int, ClientState] = {}
        self.session: Session | None = None
        self.connecting = False
        self.asks_at_once = False
        self.leaves_when_confirmed = False
        self.gone = False
        self.latency_s = 0.001 + 0.03 * world.rng.random()
        self._words = 0
        # To y-protocols, a client that has set its state is at 1.
        self._clock = 1
        self._renewal: asyncio.TimerHandle | None = None

    # editing

    def edit(self) -> None:
        """Insert a word, delete a few letters, or set a key."""
        rng, replica = self.world.rng, self.replica
        size = len(replica.text)
        kind = rng.random()
        self._words += 1
        word = f"{self.room}{self.number}.{self._words} "
        if kind < 0.6 or not size:
            at = rng.randint(0, size)
            updates = replica.write(lambda: replica.text.insert(at, word))
        elif kind < 0.85:
            start = rng.randrange(size)
            stop = min(size, start + rng.randint(1, 12))
            updates = replica.write(lambda: replica.text.__delitem__(slice(start, stop)))
        else:
            key = f"{self.room}-{rng.randrange(3)}"
            updates = replica.write(lambda: replica.map.__setitem__(key, word))
        if self.session is not None:
            self.session.say(*(encode_update(update) for update in updates))

    def ask(self) -> bool:
        """Ask to hear when everything is stored. Returns whether that makes sense now."""
        session = self.session
        if session is None or not session.caught_up:
            return False
        token = self.world.token()
        session.promised[token] = self.replica.held()
        session.ask_for_confirm(token)
        return True

    def look(self, session: Session) -> None:
        """See what came."""
        if session is not self.session:
            return
        session.caught_up = session.caught_up or session.synced
        me = self.people.get(self.client_id)
        if me is not None:
            # As y-protocols does: it goes on from the clock under which it hears of itself.
            self._clock = max(self._clock, me.clock + 1)
        if session.caught_up and self.asks_at_once:
            self.asks_at_once = False
            self.ask()
        for token in session.confirmed:
            self.world.confirmed(self, session.promised.pop(token))
            if self.leaves_when_confirmed:
                self.world.see("author gone for good after its confirmation")
                self.gone = True
                self.disconnect(properly=self.world.rng.random() < 0.3)
                return
        session.confirmed.clear()
        if session.connection.closing is not None:
            self.world.see(f"closed {session.connection.closing[0]}")
            self.disconnect(properly=False)

    # being connected

    @property
    def away(self) -> bool:
        """Whether it might connect."""
        return not self.gone and self.session is None and not self.connecting

    def connect(self, site: Site) -> None:
        """Begin to connect to a node, unless there is a reason not to."""
        if self.away:
            self.connecting = True
            self.world.run_task(self._connect(Session(self, site), site), site.context)

    async def _connect(self, session: Session, site: Site) -> None:
        owner = site.owner
        try:
            assert site.node is not None, "up"
            await session.connect(site.node, self.room)
        except SyncError as error:
            self.world.see("refused")
            self.world.trace(f"{self.name} refused by {owner}: {error}")
            return
        finally:
            self.connecting = False
        if self.gone or site.owner != owner or not site.responds:
            await session.leave(properly=False)
            return
        self.session = session
        self.world.trace(f"{self.name} connected to {owner} {self.room}")
        session.ask_for_sync()
        self._announce()

    def disconnect(self, *, properly: bool) -> None:
        """Leave. What is under way is lost."""
        session, self.session = self.session, None
        if session is None:
            return
        self.world.trace(f"{self.name} left {session.site.owner}")
        session.given_up = True
        session.link.clear()
        # As y-websocket does: the others are gone, for all it knows.
        for client, one in list(self.people.items()):
            if client != self.client_id:
                self.people[client] = ClientState(client, one.clock, b"null")
        self.world.run_task(session.leave(properly=properly), session.context)

    @property
    def visible(self) -> set[int]:
        """Whom it sees."""
        return {client for client, one in self.people.items() if one.state != b"null"} | {self.client_id}

    def _announce(self) -> None:
        if self.session is None:
            return
        self.session.announce(ClientState(self.client_id, self._clock, b'{"is":"%s"}' % self.room.encode()))
        self._clock += 1
        if self._renewal is not None:
            self._renewal.cancel()
        self._renewal = self.world.outside(RENEW_S, self._announce)
