"""A large update cut into small ones that amount to the same when they are applied one after the other.

Owns the order, in which everything comes after what it builds on, and where to cut: between structs only. Leaves reading
to `update` and applying to `document`. Pure.

Deletes come last, but for items that hold several values and are deleted as a whole: if those are values of a key,
they may only come together with their delete. See `tree`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from math import isqrt
from time import thread_time

from .lib0 import write_var_uint
from .ranges import covers
from .structure import DELETED, GC, SKIP
from .update import Update, write_deletes

# Each piece has as much as took between these times.
PIECE_S = (0.0005, 0.0015)
PIECE_MIN, PIECE_STRUCTS_MAX, PIECE_RANGES_MAX = 4, 32, 512

# Cutting many ranges out of one long text in order would copy its rest for each: every so many first.
_COARSE_FROM = 64


class Pieces:
    """The pieces of an update that is ready to be integrated, made as they are asked for.

    Args:
        data: What `update` was read from.
        update: Its structure.

    Attributes:
        structs_max: How many structs the next piece may have.
        ranges_max: How many ranges the next piece may delete, beside those that come with their items.
    """

    def __init__(
        self, data: bytes, update: Update, *, structs_max: int = PIECE_MIN, ranges_max: int = PIECE_MIN
    ) -> None:
        self.structs_max = structs_max
        self.ranges_max = ranges_max
        self._data = data
        self._update = update
        # Client to the first struct of the next piece, and the first that isn't in it any more.
        self._runs: dict[int, list[int]] = {}

    def __iter__(self) -> Iterator[bytes]:
        count = 0
        for client, index in self._in_order():
            own = self._update.structs[client]
            skips = own[index][1] == SKIP
            if count >= self.structs_max or (skips and client in self._runs):
                yield self._write()
                count = 0
            if not skips:
                self._runs.setdefault(client, [index, index])[1] = index + 1
                count += 1
        if count:
            yield self._write()
        for client, ranges in self._update.deletes.items():
            if len(ranges) > _COARSE_FROM:
                yield from self._delete(client, iter(ranges[:: isqrt(len(ranges))]))
            yield from self._delete(client, iter(ranges))

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Around what is done with a piece: makes the next one larger or smaller, after what this one takes."""
        started = thread_time()
        yield
        took_s = thread_time() - started
        factor = 2 if took_s < PIECE_S[0] else 0.5 if took_s > PIECE_S[1] else 1
        self.structs_max = int(min(max(self.structs_max * factor, 1), PIECE_STRUCTS_MAX))
        self.ranges_max = int(min(max(self.ranges_max * factor, 1), PIECE_RANGES_MAX))

    def _in_order(self) -> Iterator[tuple[int, int]]:
        """Each struct, as client and index, after those that it refers to."""
        structs = self._update.structs
        done = dict.fromkeys(structs, 0)
        # Depth first along what items refer to. That this ends, `read_update` has seen to.
        todo = [(client, self._update.ends.get(client, 0)) for client in structs]
        while todo:
            client, upto = todo[-1]
            own = structs[client]
            index = done[client]
            while index < len(own):
                clock, _, left_client, left, right_client, right, _, _ = own[index]
                if clock > upto:
                    todo.pop()
                    break
                missing = None
                for other, wanted in ((left_client, left), (right_client, right)):
                    if other != client and other in structs and wanted < self._update.ends.get(other, 0):
                        theirs = structs[other]
                        if done[other] < len(theirs) and theirs[done[other]][0] <= wanted:
                            missing = (other, wanted)
                if missing is not None:
                    todo.append(missing)
                    break
                yield client, index
                index = done[client] = index + 1
            else:
                todo.pop()

    def _write(self) -> bytes:
        blocks = []
        deletes = {}
        for client, (first, last) in self._runs.items():
            own = self._update.structs[client]
            parts = []
            begins = own[first][7]
            count = last - first
            for index in range(first, last):
                clock, ref = own[index][:2]
                if ref == GC:
                    # It may stand for a run of them.
                    parts += [
                        self._data[begins : own[index][7]],
                        b"\0",
                        write_var_uint(self._end(client, index) - clock),
                    ]
                    begins = self._stop(client, index)
            parts.append(self._data[begins : self._stop(client, last - 1)])
            clock = own[first][0]
            blocks += [write_var_uint(count), write_var_uint(client), write_var_uint(clock), *parts]
            if client in self._update.deletes:
                ranges = self._whole_deletes(client, first, last)
                if ranges:
                    deletes[client] = ranges
        written = b"".join((write_var_uint(len(self._runs)), *blocks, write_deletes(deletes)[1:]))
        self._runs.clear()
        return written

    def _whole_deletes(self, client: int, first: int, last: int) -> list[tuple[int, int]]:
        own = self._update.structs[client]
        ranges = self._update.deletes[client]
        found = []
        for index in range(first, last):
            clock, ref = own[index][:2]
            end = self._end(client, index)
            if end - clock > 1 and ref not in (GC, DELETED) and covers(ranges, clock, end):
                found.append((clock, end))
        return found

    def _end(self, client: int, index: int) -> int:
        own = self._update.structs[client]
        return own[index + 1][0] if index + 1 < len(own) else self._update.ends[client]

    def _stop(self, client: int, index: int) -> int:
        own = self._update.structs[client]
        return own[index + 1][7] if index + 1 < len(own) else self._update.stops[client]

    def _delete(self, client: int, ranges: Iterator[tuple[int, int]]) -> Iterator[bytes]:
        while some := list(islice(ranges, self.ranges_max)):
            yield write_deletes({client: some})
