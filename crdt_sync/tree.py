"""Where every item of a document is: in which list, and how deep.

A list is what items are lined up in: the sequence of a shared type, or the successive values of one of its keys. An
update only names neighbours, so whether they are in one list is known to the document alone. It has to be checked: an
item between neighbours of two lists makes yrs follow dangling pointers, until it crashes at some later update, and
Yjs throw.

Source: yjs 13.6 `Item.getMissing`, `Item.integrate`; found with `tests/support/grammar.py`.
"""

from array import array
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from .crowd import CROWD_MAX, Crowd
from .errors import MisplacedUpdate, UpdateTooHeavy
from .pacing import Steps, at_once
from .ranges import Ranges, covers
from .structure import DELETED, GC, NONE, SKIP, STEP, TYPE, TYPE_DEPTH_MAX, Place, Struct
from .update import Update

List: TypeAlias = tuple[int, int]
"""A list and its depth: how many shared types are around the one that it belongs to. Lists are told apart by a 64-bit
hash, salted by the process, of their type and key."""

GONE: List = (0, 0)
"""What is collected is in no list, nor is what is put beside it."""


KEYED = 1
"""The bit of a list's hash that says that it is the values of a key."""


def _list(type_: bytes | tuple[int, int], key: bytes | None) -> int:
    return hash((type_, key)) & ~KEYED | 2 if key is None else hash((type_, key)) | KEYED


class _Runs:
    """One client's items: each run of clocks with the list that it is in, and which of them are shared types."""

    __slots__ = ("depths", "lists", "starts", "types")

    def __init__(self) -> None:
        self.starts = array("Q")
        self.lists = array("q")
        self.depths = array("H")
        self.types = array("Q")

    def append(self, start: int, where: List) -> None:
        if not self.lists or self.lists[-1] != where[0]:
            self.starts.append(start)
            self.lists.append(where[0])
            self.depths.append(where[1])

    def extend(self, other: "_Runs") -> None:
        first = 1 if self.lists and other.lists and self.lists[-1] == other.lists[0] else 0
        self.starts.extend(other.starts[first:])
        self.lists.extend(other.lists[first:])
        self.depths.extend(other.depths[first:])
        self.types.extend(other.types)

    def at(self, clock: int) -> List:
        index = bisect_right(self.starts, clock) - 1
        return self.lists[index], self.depths[index]

    def is_type(self, clock: int) -> bool:
        index = bisect_right(self.types, clock) - 1
        return index >= 0 and self.types[index] == clock


Gone: TypeAlias = dict[int, dict[int, int]]


@dataclass(slots=True)
class Growth:
    """What an update adds to a tree."""

    runs: dict[int, _Runs]
    """By client."""
    gone: Gone
    """Items that Yjs collects at once, since what is beside or around them is collected: client to clock to length."""
    spots: "array[int] | list[int]"
    """Where items were put, for `crowd`."""


class Tree:
    """The places of all integrated items of a document: 18 bytes for each run of items in one list."""

    def __init__(self) -> None:
        self._runs: dict[int, _Runs] = {}
        self._crowd = Crowd()

    def grow(
        self, update: Update, clocks: Mapping[int, int], deleted: Mapping[int, Ranges], *, bounded: bool = True
    ) -> Growth:
        """Find the places of an update's items. Changes nothing: see `add`.

        Args:
            update: Ready to be integrated.
            clocks: The state vector before it.
            deleted: What is deleted so far.
            bounded: Whether one spot may only take so many items; not for what is stored already.

        Raises:
            MisplacedUpdate: An item has neighbours in two lists, is put into something that is no shared type, too
                deep, or goes on where something else stood.
            UpdateTooHeavy: Too many items in one spot.
        """
        if len(update.structs) == 1:
            ((client, own),) = update.structs.items()
            if len(own) == 1:
                # A keystroke. The long way would cost it a microsecond more.
                grown = Growth({}, {}, [])
                end = update.ends.get(client, 0)
                if end > clocks.get(client, 0) and own[0][1] != SKIP:
                    self._put(grown, update, client, own[0], end, clocks.get(client, 0), deleted)
                    if bounded and grown.spots and self._crowd.count(grown.spots[0]) >= CROWD_MAX:
                        raise UpdateTooHeavy(f"more than {CROWD_MAX} items in one spot: {client}:{own[0][0]}")
                return grown
        return at_once(self.growing(update, clocks, deleted, bounded=bounded))

    def growing(
        self, update: Update, clocks: Mapping[int, int], deleted: Mapping[int, Ranges], *, bounded: bool = True
    ) -> Steps[Growth]:
        """Like `grow`, in steps of some milliseconds. What the document gets in between is seen or not."""
        grown = Growth({}, {}, array("q"))
        spots = grown.spots
        arriving: Crowd | None = None
        count = counted = 0
        structs, ends = update.structs, update.ends
        done = dict.fromkeys(structs, 0)
        # Depth first along what items refer to. That this ends, `read_update` has seen to.
        todo = [(client, ends.get(client, 0)) for client in structs]
        while todo:
            client, upto = todo[-1]
            own = structs[client]
            index = done[client]
            known = clocks.get(client, 0)
            while index < len(own) and own[index][0] <= upto:
                count += 1
                if count % STEP == 0:
                    yield
                struct = own[index]
                end = own[index + 1][0] if index + 1 < len(own) else ends.get(client, 0)
                if end <= known or struct[1] == SKIP:
                    index += 1
                    continue
                missing = None
                for other, wanted in (struct[2:4], struct[4:6]):
                    if other != client and other in structs and wanted >= clocks.get(other, 0):
                        theirs = structs[other]
                        if done[other] < len(theirs) and theirs[done[other]][0] <= wanted:
                            missing = (other, wanted)
                if missing is not None:
                    todo.append(missing)
                    break
                index += 1
                self._put(grown, update, client, struct, end, known, deleted)
                if bounded and len(spots) > counted:
                    counted = len(spots)
                    if arriving is not None:
                        arriving.add(spots[-1])
                    elif counted == STEP:
                        arriving = Crowd()
                        for spot in spots:
                            arriving.add(spot)
                    beside = arriving.count(spots[-1]) if arriving is not None else 1
                    if self._crowd.count(spots[-1]) + beside > CROWD_MAX:
                        raise UpdateTooHeavy(f"more than {CROWD_MAX} items in one spot: {client}:{struct[0]}")
            else:
                todo.pop()
            done[client] = index
        return grown

    @property
    def count(self) -> int:
        """How many items were added."""
        return self._crowd.total

    def add(self, grown: Growth) -> None:
        """Take over what `grow` found, once the update is integrated."""
        for spot in grown.spots:
            self._crowd.add(spot)
        self._extend(grown)

    def adding(self, grown: Growth) -> Steps[None]:
        """Like `add`, in steps of some milliseconds."""
        for count, spot in enumerate(grown.spots, 1):
            self._crowd.add(spot)
            if count % STEP == 0:
                yield
        self._extend(grown)

    def _extend(self, grown: Growth) -> None:
        for client, runs in grown.runs.items():
            mine = self._runs.get(client)
            if mine is None:
                self._runs[client] = runs
            else:
                mine.extend(runs)

    def _put(
        self,
        grown: Growth,
        update: Update,
        client: int,
        struct: Struct,
        end: int,
        known: int,
        deleted: Mapping[int, Ranges],
    ) -> None:
        """Find the place of one struct, of which everything up to `known` is known."""
        clock, ref, left_client, left, right_client, right, place, _ = struct
        if ref == GC:
            where = GONE
        else:
            where = self._place(grown, clock, left_client, left, right_client, right, place, deleted)
            several_values = where[0] & KEYED and end - clock > 1 and ref != DELETED
            if several_values and not covers(update.deletes.get(client, ()), clock, end):
                # Yjs joins values of a key only if all are deleted. yrs doesn't bear it if they are cut again.
                raise MisplacedUpdate(f"the values {client}:{clock} to {end} of one key are one item")
            if where[0] == GONE[0]:
                grown.gone.setdefault(client, {})[clock] = end - clock
            else:
                beside = (left_client, left, right_client, right)
                grown.spots.append(where[0] if place is not None else hash(beside))
        if clock < known and where not in (GONE, self._at(grown, client, known - 1)):
            # Yjs looks for its neighbours at the item before, and throws if that is collected.
            raise MisplacedUpdate(f"{client}:{clock} goes on beyond {known} where something else stands")
        runs = grown.runs.get(client)
        if runs is None:
            mine = self._runs.get(client)
            if mine is not None and mine.lists and mine.lists[-1] == where[0] and ref != TYPE:
                # It is in the last run already.
                return
            runs = grown.runs[client] = _Runs()
        runs.append(max(clock, known), where)
        if ref == TYPE:
            runs.types.append(clock)

    def _place(
        self,
        grown: Growth,
        clock: int,
        left_client: int,
        left: int,
        right_client: int,
        right: int,
        place: Place | None,
        deleted: Mapping[int, Ranges],
    ) -> List:
        if place is None:
            if left == NONE:
                return self._at(grown, right_client, right)
            where = self._at(grown, left_client, left)
            if right == NONE:
                return where
            other = self._at(grown, right_client, right)
            if GONE in (where, other):
                return GONE
            if where != other:
                raise MisplacedUpdate(
                    f"an item at clock {clock} between {left_client}:{left} and {right_client}:{right}, "
                    "which are in different lists"
                )
            return where
        root, key = place
        if root is not None:
            return _list(root, key), 0
        around, depth = self._at(grown, left_client, left)
        if around == GONE[0]:
            return GONE
        runs = grown.runs.get(left_client)
        if runs is None or not runs.is_type(left):
            runs = self._runs.get(left_client)
        if runs is None or not runs.is_type(left):
            ranges = deleted.get(left_client)
            if ranges is not None and ranges.covers(left, left + 1):
                return GONE
            raise MisplacedUpdate(f"an item at clock {clock} inside {left_client}:{left}, which is no shared type")
        if depth >= TYPE_DEPTH_MAX:
            raise MisplacedUpdate(f"shared types nested more than {TYPE_DEPTH_MAX} deep")
        return _list((left_client, left), key), depth + 1

    def _at(self, grown: Growth, client: int, clock: int) -> List:
        runs = grown.runs.get(client)
        if runs is None or clock < runs.starts[0]:
            runs = self._runs[client]
        return runs.at(clock)
