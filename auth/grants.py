"""What a credential turned out to allow, and until when."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Final

ROOMS_MAX: Final = 10_000
ROOM_BYTES_MAX: Final = 255
USER_CHARACTERS_MAX: Final = 255
TOKEN_ID_CHARACTERS_MAX: Final = 255
NAME_CHARACTERS_MAX: Final = 100
COLOR: Final = re.compile(r"#(?:[0-9A-Fa-f]{3}|[0-9A-Fa-f]{6}|[0-9A-Fa-f]{8})")
# Unix seconds beyond it aren't exact in JSON, and no date either.
TIME_MAX: Final = 2**53

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
        ValueError: A field is not what it says below. The text says which.
    """

    user: str | None
    """Who it is, 1 to 255 printable characters. It is stored with each update. None only for the open server."""
    rooms: Mapping[str, Right]
    """From the name of a room, or a prefix of names and a `*`, to the right there. A copy is kept."""
    expires_at: float | None = None
    """Unix seconds. None: never."""
    issued_at: float | None = None
    """Unix seconds. None: it was judged just now. A token that doesn't say counts as 0, older than any revocation."""
    token_id: str | None = None
    name: str | None = None
    """For people, at most 100 printable characters."""
    color: str | None = None
    """A CSS colour: `#rgb`, `#rrggbb` or `#rrggbbaa`."""
    _lengths: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Of the prefixes, the longest first."""

    def __post_init__(self) -> None:
        for name, text, characters_max in (
            ("user", self.user, USER_CHARACTERS_MAX),
            ("token_id", self.token_id, TOKEN_ID_CHARACTERS_MAX),
            ("name", self.name, NAME_CHARACTERS_MAX),
        ):
            if text is not None and not (isinstance(text, str) and printable(text, characters_max)):
                raise ValueError(f"{name} is a text of at most {characters_max} printable characters, not {text!r:.40}")
        if self.user == "":
            raise ValueError("user is empty")
        if self.color is not None and not (isinstance(self.color, str) and COLOR.fullmatch(self.color)):
            raise ValueError(f"color is #rgb, #rrggbb or #rrggbbaa, not {self.color!r:.40}")
        for name, moment in (("expires_at", self.expires_at), ("issued_at", self.issued_at)):
            if moment is not None and not _is_time(moment):
                raise ValueError(f"{name} is a number of Unix seconds, not {moment!r:.40}")
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


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -TIME_MAX < value < TIME_MAX


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
