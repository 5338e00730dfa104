"""Messages between nodes: the `Bus` protocol.

A bus carries opaque bytes to whoever follows a room on another node, and keeps the most recent of them for those who
come a little late. It promises speed, not delivery: any message may be lost, repeated or overtaken, at any time, and
whoever uses it has to find out and make up for it (`follow`). What it does promise is to say when it may have lost
something that it can know of.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

EVERYONE = ""
"""What stands for a room's name in messages to all nodes. No room has an empty name."""


class BusUnavailable(Exception):
    """It can't be reached now. Transient; the bus itself goes on trying."""


class InvalidBusUrl(ValueError):
    """A URL names no bus. The text tells what is expected, and repeats nothing that may be a password."""


class Kept(NamedTuple):
    """A message in a room's short-term log."""

    position: str
    """Where it stands: what `tail` takes as `after`."""
    message: bytes


class Mark(NamedTuple):
    """A node's note that it has updates of a room that aren't stored yet."""

    room: str
    node: str
    age_s: float
    """Since when."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What one server says of itself, for whoever looks after it."""

    address: str
    took_s: float
    """How long a question and its answer took."""
    now: datetime
    """What its clock says."""
    info: Mapping[str, str]
    """`INFO`, as Redis has it."""
    settings: Mapping[str, str]
    """Some of its configuration; nothing if it keeps that to itself."""


class Listener(Protocol):
    """Who follows a room. Neither method may raise or take long."""

    def receive(self, message: bytes) -> None:
        """A message of some node, this one included."""

    def resync(self) -> None:
        """Messages may have been lost, in either direction: those that were published here too."""


class Bus(Protocol):
    """The way to the other nodes.

    Nothing here waits for the other side except where it says so; publishing never does. Rooms that nobody follows
    here cost nothing here.
    """

    node: str
    """This node's id, unique for each process: 16 hexadecimal digits."""

    @property
    def problem(self) -> str | None:
        """Why nothing gets through at the moment, for people; None if it does."""

    async def open(self) -> None:
        """Get going. A bus that can't be reached is no failure: it is tried until it can."""

    async def close(self) -> None:
        """Send what waits, for a moment, and let go."""

    def publish(self, room: str, message: bytes, *, keep: bool) -> None:
        """Send a message to all who follow the room.

        It leaves with the others of this turn of the event loop. If it can't be sent, or too much waits, it is dropped,
        and the room's listener here is told to `resync` once messages get through again.

        Args:
            room: Its name, or `EVERYONE`.
            message: The bytes.
            keep: Whether to append it to the room's short-term log.
        """

    def follow(self, room: str, listener: Listener) -> None:
        """Have a listener hear what is published in a room. One listener a room."""

    def unfollow(self, room: str) -> None:
        """Hear no more of a room. Does nothing if it isn't followed."""

    async def followed(self, room: str) -> None:
        """Return once everything that is published from now on would arrive here.

        Raises:
            BusUnavailable: The bus is away; `resync` will be called when it is back.
        """

    async def tail(self, room: str, after: str | None) -> list[Kept]:
        """Read a room's short-term log, oldest message first.

        Args:
            room: Its name.
            after: Only what stands after this position; None for all that is kept.

        Raises:
            BusUnavailable: The bus is away.
        """

    def mark(self, room: str) -> None:
        """Note that this node has updates of a room that aren't stored yet. Harmless if it is noted already."""

    def unmark(self, room: str, *, node: str | None = None) -> None:
        """Take this node's note back; or that of a node that is gone, whose updates are stored by now."""

    async def marks(self) -> list[Mark]:
        """All notes, of all nodes.

        Raises:
            BusUnavailable: The bus is away.
        """


def open_bus(url: str, *, prefix: str = "crdt-sync") -> Bus:
    """Make the bus that a URL names. It touches nothing until `open()` is called.

    Args:
        url: One Redis server: `redis://user:password@host:6379/0`, with TLS `rediss://…`, or
            `unix:///path/to/socket?db=0`. A master that Sentinels know: `redis+sentinel://host:26379,host2:26379/mymaster/0`.
            A cluster: `redis+cluster://host:6379,host2:6379`. These two also start with `rediss+`. What has a meaning in
            URLs is percent-encoded in accounts. Options of TLS: `?ssl_ca_certs=…&ssl_certfile=…&ssl_keyfile=…`,
            `ssl_cert_reqs=none`, `ssl_check_hostname=false`; of Sentinel: `?sentinel_username=…&sentinel_password=…`.
        prefix: What all keys and channels start with.

    Raises:
        InvalidBusUrl: The URL names no bus.
    """
    from .redis import RedisBus

    return RedisBus(url, prefix=prefix)
