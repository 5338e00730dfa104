"""Updates that can't be integrated yet, because something that they build on hasn't arrived.

Bounded by what they cost in memory; indexed by the clock that each lacks, so that an arriving update looks
only at those that it might release.
"""

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush

from .errors import RoomFull
from .update import Update

# What an entry costs in memory beside its bytes, and each need after the first: dict slots, a heap tuple, numbers.
# Rounded up from what tracemalloc says of small updates on CPython 3.11.
ENTRY_BYTES = 1000
NEED_BYTES = 200


class Waiting:
    """The held-back updates of one document, oldest first.

    Args:
        bytes_max: Bound on the sum of update sizes plus what the entries cost.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._bytes = 0
        # Only what each needs: the whole structure may take many times the size of the bytes, and is read again.
        self._entries: dict[bytes, dict[int, int] | None] = {}
        self._lacking: dict[int, list[tuple[int, bytes]]] = {}

    @property
    def size(self) -> int:
        """What the updates and their entries take, in bytes."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._entries)

    def __contains__(self, data: bytes) -> bool:
        return data in self._entries

    def add(self, data: bytes, update: Update, clocks: Mapping[int, int], *, bounded: bool = True) -> None:
        """Hold `data` back until `clocks` has reached what `update` needs; if it isn't `bounded`, even if there is no room.

        Raises:
            RoomFull: No room for it. Nothing was kept; the client's next sync brings it in one piece.
        """
        cost = _cost(data, update.needs)
        if bounded and self._bytes + cost > self.bytes_max:
            raise RoomFull(
                f"{len(self._entries)} updates wait for others ({self._bytes} bytes); "
                f"one of {len(data)} bytes doesn't fit below {self.bytes_max}"
            )
        self._bytes += cost
        self._entries[data] = update.needs
        self._await_next_need(data, update.needs, clocks)

    def keep(self, data: bytes) -> None:
        """Hold an accepted update that can never be integrated. It counts, but is never refused or released."""
        if data not in self._entries:
            self._bytes += _cost(data, {})
            self._entries[data] = None

    def release(self, client: int, clocks: Mapping[int, int]) -> Iterator[bytes]:
        """Take out the updates that lacked something of `client` and now lack nothing, in order of need."""
        heap = self._lacking.get(client)
        while heap and heap[0][0] <= clocks.get(client, 0):
            _, data = heappop(heap)
            needs = self._entries[data]
            assert needs is not None, "what is kept lacks nothing"
            if not self._await_next_need(data, needs, clocks):
                del self._entries[data]
                self._bytes -= _cost(data, needs)
                yield data
        if heap is not None and not heap:
            self._lacking.pop(client, None)

    def _await_next_need(self, data: bytes, needs: Mapping[int, int], clocks: Mapping[int, int]) -> bool:
        for client, clock in needs.items():
            if clocks.get(client, 0) < clock:
                heappush(self._lacking.setdefault(client, []), (clock, data))
                return True
        return False


def _cost(data: bytes, needs: Mapping[int, int]) -> int:
    return len(data) + ENTRY_BYTES + NEED_BYTES * max(0, len(needs) - 1)
