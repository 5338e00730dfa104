"""What a credential turned out to allow, and until when."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Final

ROOMS_MAX: Final = 10_000
ROOM_BYTES_MAX: Final = 255

# Control characters, and halves of surrogate pairs, which no UTF-8 can hold.
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Right(IntEnum):
    """What somebody may do in a room. Each includes those before it."""

    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may do, and until when.

    Raises:
        ValueError: The rooms are no such map. The text says which entry.
    """

    user: str | None
    """Who it is. None only for the open server."""
    rooms: Mapping[str, Right]
    """From the name of a room, or a prefix of names and a `*`, to the right there. A copy is kept."""
    expires_at: float | None = None
    """Unix seconds."""
    issued_at: float | None = None
    """Unix seconds. None: it was judged just now. A token that doesn't say counts as 0, older than any revocation."""
    token_id: str | None = None
    name: str | None = None
    """For people."""
    color: str | None = None
    """A CSS colour: `#rgb`, `#rrggbb` or `#rrggbbaa`."""
    _lengths: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Of the prefixes, the longest first."""

    def __post_init__(self) -> None:
        rooms = dict(self.rooms)
        if len(rooms) > ROOMS_MAX:
            raise ValueError(f"a grant has at most {ROOMS_MAX} rooms, not {len(rooms)}")
        for pattern, right in rooms.items():
            _check(pattern, right)
        object.__setattr__(self, "rooms", MappingProxyType(rooms))
        lengths = {len(pattern) - 1 for pattern in rooms if pattern.endswith("*")}
        object.__setattr__(self, "_lengths", tuple(sorted(lengths, reverse=True)))

    def right(self, room: str) -> Right | None:
        """Return what is allowed in a room, or None.

        The name itself goes before any prefix, a longer prefix before a shorter one.
        """
        exact = self.rooms.get(room)
        if exact is not None:
            return exact
        # By the name and not by the entries: grants may have thousands of them.
        for length in self._lengths:
            right = self.rooms.get(room[:length] + "*") if length <= len(room) else None
            if right is not None:
                return right
        return None


def printable(text: str, characters_max: int) -> bool:
    """Whether a text is short enough, and could be shown and stored."""
    return len(text) <= characters_max and not _UNPRINTABLE.search(text)


def _check(pattern: object, right: object) -> None:
    if not isinstance(pattern, str) or not printable(pattern, ROOM_BYTES_MAX):
        raise ValueError(f"{pattern!r:.40} is neither the name of a room nor a prefix")
    if not pattern or len(pattern.encode()) > ROOM_BYTES_MAX:
        raise ValueError(f"{pattern!r:.40} has not 1 to {ROOM_BYTES_MAX} bytes")
    if "*" in pattern[:-1]:
        raise ValueError(f"{pattern!r:.40} has a '*' that is not at its end")
    if not isinstance(right, Right):
        raise ValueError(f"{right!r:.40} is no right")


OPEN: Final = Grant(user=None, rooms={"*": Right.ADMIN})
"""What everybody has on a server without keys."""
