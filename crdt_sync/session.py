"""What one client may do in its room, until when, and under which name it is seen there.

Pure. Where grants come from and when they are judged anew is the gateway's.
"""

import json
from collections.abc import Callable
from typing import Any

from auth import OPEN, Grant, Right

from .awareness import NULL, ClientState
from .errors import ProtocolError

USER = "user"
"""Where an awareness state says whose it is: `id` is stamped by the server, and `name` and `color` if the grant has them."""


class Session:
    """One client's stay in a room.

    Args:
        room: The room's name.
        grant: What it may do; without one, the server is open to all.
    """

    def __init__(self, room: str, grant: Grant = OPEN) -> None:
        self.room = room
        self.show_token: Callable[[str], None] = ignore_token
        """Called with a fresh token that the client shows."""
        self.refused_updates = 0
        """Updates that weren't taken since it may only read."""
        self.grant = grant
        self.may_write = False
        """Whether its updates are taken."""
        self.renew(grant)

    def renew(self, grant: Grant) -> None:
        """Go on with another grant."""
        right = grant.right(self.room)
        self.grant = grant
        self.may_write = right is not None and right >= Right.WRITE

    @property
    def user(self) -> str | None:
        """The id of whoever it is; None if nobody asked."""
        return self.grant.user

    def stamp(self, states: list[ClientState]) -> list[ClientState]:
        """Write into awareness states whose they are, so that nobody can pass for somebody else.

        Nothing is changed on a server that is open to all, nor in what isn't an object: there a user has no place.

        Raises:
            ProtocolError: A state holds a number that no browser could write.
        """
        if self.grant.user is None:
            return states
        return [ClientState(one.client, one.clock, self._stamp(one.state)) for one in states]

    def may_be(self, state: bytes) -> bool:
        """Whether a client that shows this (stamped) awareness state may be the same one, on another connection."""
        return self.grant.user is None or user_of(state) == self.grant.user

    def _stamp(self, text: bytes) -> bytes:
        if text == NULL:
            return text
        state = json.loads(text)
        if not isinstance(state, dict):
            return text
        known = state.get(USER)
        user: dict[str, Any] = known if isinstance(known, dict) else {}
        user["id"] = self.grant.user
        if self.grant.name is not None:
            user["name"] = self.grant.name
        if self.grant.color is not None:
            user["color"] = self.grant.color
        state[USER] = user
        try:
            try:
                return json.dumps(state, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                # Half a surrogate pair, which only an escape can hold. The other scripts would take three times the bytes.
                return json.dumps(state, separators=(",", ":"), allow_nan=False).encode()
        except ValueError as error:
            raise ProtocolError("a number in an awareness state is beyond all bounds") from error


def user_of(state: bytes) -> str | None:
    """The user's id that was stamped into an awareness state."""
    value = json.loads(state)
    user = value.get(USER) if isinstance(value, dict) else None
    found = user.get("id") if isinstance(user, dict) else None
    return found if isinstance(found, str) else None


def ignore_token(token: str) -> None:
    """Nobody wants to see it."""
