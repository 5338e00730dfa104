"""What can only be judged of an update when all its structs are known.

Source: yjs 13.6 `encoding.js` (`integrateStructs`), `Item.js` (`getMissing`); yrs 0.28 `update.rs`.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from operator import itemgetter
from typing import TypeAlias, overload

from .errors import MalformedUpdate
from .pacing import Steps

# Numbers of content references (`Item.contentRefs`).
GC, DELETED, JSON, BINARY, STRING, EMBED, FORMAT, TYPE, ANY, DOC, SKIP = range(11)

MAP, XML_ELEMENT, XML_HOOK = 1, 3, 5
TYPE_REF_MAX = 6

TYPE_DEPTH_MAX = 200
"""How deep shared types may be nested by one update. pycrdt dies when it deletes or prints what is nested 25,000
deep. That many updates can still build it up together: `document` has to watch the sum."""

Id: TypeAlias = tuple[int, int]
"""Client and clock."""
Place: TypeAlias = tuple[bytes | None, bytes | None]
Struct: TypeAlias = tuple[int, int, int, int, int, int, Place | None, int]
"""Clock, content reference, client and clock of the origin, client and clock of the right origin, and, if there is
neither, where it is put: the name of a root type, or None for the type whose id stands in place of the origin; and a
key, or None for a place in the sequence. `NONE` stands for what isn't there. GC and Skip have nothing of this; a run of
either is one. At last, the index at which its bytes begin."""
NONE = -1
Structs: TypeAlias = dict[int, Sequence[Struct]]
"""Client to its structs, by clock."""
Links: TypeAlias = "dict[int, array[int]]"
"""Client to each clock of it that refers to another client, followed by that client and its clock, by clock."""

STEP = 1000
"""How many structs, or so, are looked at in one step."""


class Packed(Sequence[Struct]):
    """Many structs of one client: 48 bytes each instead of 300."""

    __slots__ = ("_numbers", "_places", "clocks", "starts")

    def __init__(self) -> None:
        self.clocks = array("I")
        self.starts = array("I")
        self._numbers = array("q")
        self._places: dict[int, Place] = {}

    def append(self, struct: Struct) -> None:
        """Add one at the end."""
        if struct[6] is not None:
            self._places[len(self.clocks)] = struct[6]
        self.clocks.append(struct[0])
        self.starts.append(struct[7])
        self._numbers.extend(struct[1:6])

    def __len__(self) -> int:
        return len(self.clocks)

    def __iter__(self) -> Iterator[Struct]:
        return map(self.__getitem__, range(len(self.clocks)))

    @overload
    def __getitem__(self, index: int) -> Struct: ...
    @overload
    def __getitem__(self, index: slice) -> list[Struct]: ...
    def __getitem__(self, index: int | slice) -> Struct | list[Struct]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self.clocks)))]
        ref, base_client, base, other_client, other = self._numbers[5 * index : 5 * index + 5]
        place = self._places.get(index)
        return self.clocks[index], ref, base_client, base, other_client, other, place, self.starts[index]


def refuse_cycles(ends: dict[int, int], links: Links) -> Steps[None]:
    """Refuse structs of several clients that wait for each other: neither implementation would ever integrate them.

    Simulates integration: each client's structs in order, stopping at a struct that refers to another client's that
    hasn't been reached.
    """
    reached = {client: links[client][0] if client in links else end for client, end in ends.items()}
    next_link = dict.fromkeys(links, 0)
    waiting: dict[int, list[tuple[int, int]]] = {}  # client -> heap of (clock waited for, client that waits)
    ready = list(links)
    count = 0
    while ready:
        client = ready.pop()
        own = links[client]
        i = next_link[client]
        while i < len(own):
            count += 1
            if count % STEP == 0:
                yield
            clock, other, wanted = own[i : i + 3]
            reached[client] = clock
            if reached.get(other, wanted + 1) <= wanted < ends.get(other, 0):
                heappush(waiting.setdefault(other, []), (wanted, client))
                break
            i += 3
        else:
            reached[client] = ends[client]
        next_link[client] = i
        heap = waiting.get(client)
        while heap and heap[0][0] < reached[client]:
            ready.append(heappop(heap)[1])
    for client, i in next_link.items():
        if i < len(links[client]):
            clock, other, wanted = links[client][i : i + 3]
            raise MalformedUpdate(f"struct {client}:{clock} waits for {other}:{wanted}, which waits for it")


def index_of(structs: Sequence[Struct], clock: int) -> int:
    """Which struct of one client holds `clock`, given that it is before the last one's end; -1 for before the first."""
    if isinstance(structs, Packed):
        return bisect_right(structs.clocks, clock) - 1
    return bisect_right(structs, clock, key=itemgetter(0)) - 1


def _find(structs: Sequence[Struct], clock: int) -> Struct | None:
    index = index_of(structs, clock)
    return structs[index] if index >= 0 else None


def refuse_parents_without_children(structs: Structs, ends: dict[int, int], parents: "array[int]") -> Steps[None]:
    """Refuse items inside an item that is no shared type: yrs fails half-way through (`InvalidParent`).

    Args:
        structs: All of the update.
        ends: Client to the clock just after its last struct.
        parents: Client and clock of each parent, one after the other.
    """
    for count, (client, clock) in enumerate(zip(parents[::2], parents[1::2], strict=True), 1):
        if count % STEP == 0:
            yield
        if clock < ends.get(client, 0):
            struct = _find(structs[client], clock)
            if struct is not None and struct[1] not in (TYPE, DELETED, GC, SKIP):
                raise MalformedUpdate(f"the parent {client}:{clock} is no shared type")


def refuse_deep_types(structs: Structs, ends: dict[int, int]) -> Steps[None]:
    """Refuse nesting that recursion over shared types can't bear.

    An item without a parent of its own has its origin's. What is inside an item outside of this update counts as
    depth 0.
    """
    depths: dict[Id, int] = {}  # (client, clock of a struct) -> number of types around it
    count = 0
    for client, own in structs.items():
        for first in own:
            todo = [(client, first)]
            while todo:
                count += 1
                if count % STEP == 0:
                    yield
                at, struct = todo[-1]
                clock, _, base_client, base_clock, right_client, right_clock, place, _ = struct
                if (at, clock) in depths:
                    todo.pop()
                    continue
                inside = place is not None and base_client != NONE
                if base_client == NONE:
                    base_client, base_clock = right_client, right_clock
                depth = 0
                if base_client >= 0 and base_clock < ends.get(base_client, 0):
                    base = _find(structs[base_client], base_clock)
                    if base is not None:
                        known = depths.get((base_client, base[0]))
                        if known is None:
                            todo.append((base_client, base))
                            continue
                        depth = known
                depth += inside
                if depth > TYPE_DEPTH_MAX:
                    raise MalformedUpdate(f"shared types nested more than {TYPE_DEPTH_MAX} deep")
                depths[at, clock] = depth
                todo.pop()
