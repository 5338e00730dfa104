"""This node's marks in Redis: one sorted set, of nodes and rooms by the server's time.

It survives the node, which is the point of it.
"""

from collections.abc import Iterable

from . import Mark
from .redis_link import pack


class Notes:
    """This node's marks: those it wants, and what Redis hasn't been told yet. Of one turn, only the outcome counts."""

    def __init__(self, node: str, key: bytes) -> None:
        """No marks.

        Args:
            node: This one.
            key: Where they are kept.
        """
        self._node = node
        self._key = key
        # All by member of the set.
        self._wanted: dict[bytes, float] = {}
        self._told: set[bytes] = set()
        self._add: set[bytes] = set()
        self._remove: set[bytes] = set()

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self._add or self._remove)

    def mark(self, room: str, *, now: float) -> None:
        """See `Bus.mark`."""
        member = _member(self._node, room)
        if member not in self._wanted:
            self._wanted[member] = now
            self._add.add(member)

    def unmark(self, room: str, node: str | None) -> None:
        """See `Bus.unmark`."""
        member = _member(node or self._node, room)
        if node is not None and node != self._node:
            self._remove.add(member)
        elif self._wanted.pop(member, None) is not None:
            self._add.discard(member)
            if member in self._told:
                self._told.discard(member)
                self._remove.add(member)

    def renew(self) -> None:
        """Tell all again: Redis may have forgotten."""
        self._add.update(self._wanted)

    def take(self, clock_offset_s: float) -> tuple[list[bytes], set[bytes]]:
        """What to tell Redis.

        Args:
            clock_offset_s: What to add to the event loop's time to get the server's.

        Returns:
            Packed commands, and what they take back, for `give_back` if they fail.
        """
        commands = []
        remove, self._remove = self._remove, set()
        add, self._add = self._add, set()
        if remove:
            commands.append(pack(b"ZREM", self._key, *remove))
        if add:
            pairs: list[bytes] = []
            for member in add:
                pairs += b"%.3f" % (self._wanted[member] + clock_offset_s), member
            # NX: telling it again doesn't change since when.
            commands.append(pack(b"ZADD", self._key, b"NX", *pairs))
            self._told |= add
        return commands, remove

    def give_back(self, removed: Iterable[bytes]) -> None:
        """What was taken didn't arrive, as far as is known."""
        self._remove.update(removed)
        self.renew()


def marks_question(key: bytes) -> bytes:
    """Ask for all marks of all nodes, in two replies."""
    return pack(b"ZRANGE", key, b"0", b"-1", b"WITHSCORES") + pack(b"TIME")


def read_marks(marks: object, moment: object) -> list[Mark]:
    """What `marks_question` was answered. Anything that isn't a mark is passed over."""
    found: list[Mark] = []
    if not isinstance(marks, list) or not isinstance(moment, list):
        return found
    now = int(moment[0]) + int(moment[1]) / 1e6
    for member, since in zip(marks[::2], marks[1::2], strict=False):
        node, space, room = member.decode(errors="replace").partition(" ")
        if space:
            found.append(Mark(room, node, max(0.0, now - float(since))))
    return found


def _member(node: str, room: str) -> bytes:
    return f"{node} {room}".encode()
