"""Everybody who is connected to this node, and when what they may do ends."""

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

from auth import Grant

from .connection import Connection
from .errors import Forbidden, SyncError, Unauthorized
from .protocol import encode_expires
from .revocations import Revocations
from .room import Room

log = logging.getLogger("crdt_sync.sessions")

# So long before a grant ends, its client is told.
NOTICE_S = 60.0
# No timer is set further ahead: clocks are corrected, and loops don't take arbitrary times.
AHEAD_S_MAX = 86400.0


@dataclass(slots=True, eq=False)
class Stay:
    """One connection in its room."""

    connection: Connection
    room: Room
    since: float
    """Unix seconds."""
    address: str | None = None
    """Where it comes from."""
    told: bool = False
    """Whether the client knows that its grant is about to end."""
    timer: asyncio.TimerHandle | None = None


class Sessions:
    """The stays of one node.

    Args:
        revocations: What ends them before their time.
    """

    def __init__(self, revocations: Revocations) -> None:
        self._revocations = revocations
        self._stays: dict[int, Stay] = {}
        revocations.concerned = self._check_all

    def __len__(self) -> int:
        return len(self._stays)

    def __iter__(self) -> Iterator[Stay]:
        return iter(list(self._stays.values()))

    def enter(self, connection: Connection, room: Room, *, address: str | None = None) -> None:
        """Note that a client is here, and see to it that it leaves when it has to."""
        stay = Stay(connection, room, time.time(), address)
        self._stays[connection.id] = stay
        self._check(stay)

    def leave(self, connection: Connection) -> None:
        """A client is gone."""
        stay = self._stays.pop(connection.id, None)
        if stay is not None and stay.timer is not None:
            stay.timer.cancel()

    def renew(self, connection: Connection, grant: Grant) -> None:
        """Let a client go on with another grant. It hears how long that lasts.

        Raises:
            Forbidden: It is somebody else's.
        """
        stay = self._stays.get(connection.id)
        if stay is None or connection.closing:
            return
        session = connection.session
        if grant.user != session.user:
            raise Forbidden("a connection stays with its user")
        could_write = session.may_write
        session.renew(grant)
        stay.told = False
        if grant.expires_at is not None:
            connection.notify(encode_expires(max(0, math.floor(grant.expires_at - time.time()))))
        if session.may_write and not could_write:
            # What it wrote meanwhile was not taken.
            stay.room.ask(connection)
        log.info("grant_renewed", extra={"connection": connection.id, "may_write": session.may_write})
        self._check(stay)

    def _check_all(self) -> None:
        for stay in self:
            # Not `_check`: setting ten thousand timers anew would hold up everybody.
            try:
                self._revocations.check(stay.connection.session.grant, stay.room.name)
            except SyncError as error:
                _end(stay, error)

    def _check(self, stay: Stay) -> None:
        """Close a client whose grant counts no longer, tell one whose grant is about to end, and look again in time."""
        if stay.timer is not None:
            stay.timer.cancel()
            stay.timer = None
        connection, grant = stay.connection, stay.connection.session.grant
        left_s = math.inf if grant.expires_at is None else grant.expires_at - time.time()
        try:
            self._revocations.check(grant, stay.room.name)
            if left_s <= 0:
                raise Unauthorized("the grant has expired", reason="credential expired")
        except SyncError as error:
            _end(stay, error)
            return
        if left_s <= NOTICE_S and not stay.told:
            stay.told = True
            connection.notify(encode_expires(math.ceil(left_s)))
        if left_s < math.inf:
            wait_s = min(AHEAD_S_MAX, left_s if stay.told else left_s - NOTICE_S)
            stay.timer = asyncio.get_running_loop().call_later(wait_s, self._check, stay)


def _end(stay: Stay, error: SyncError) -> None:
    log.info("connection_ends", extra={"connection": stay.connection.id, "error": str(error)})
    stay.connection.close(error.close_code, error.reason)
