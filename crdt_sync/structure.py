"""What can only be judged of an update when all its structs are known.

Source: yjs 13.6 `encoding.js` (`integrateStructs`), `Item.js` (`getMissing`); yrs 0.28 `update.rs`.
"""

from bisect import bisect_right
from heapq import heappop, heappush
from operator import itemgetter
from typing import TypeAlias

from .errors import MalformedUpdate

# Numbers of content references (`Item.contentRefs`).
GC, DELETED, JSON, BINARY, STRING, EMBED, FORMAT, TYPE, ANY, DOC, SKIP = range(11)

XML_ELEMENT, XML_HOOK = 3, 5
TYPE_REF_MAX = 6

TYPE_DEPTH_MAX = 200
"""How deep shared types may be nested by one update. pycrdt dies when it deletes or prints what is nested 25,000
deep. That many updates can still build it up together: `document` has to watch the sum."""

Id: TypeAlias = tuple[int, int]
"""Client and clock."""
Struct: TypeAlias = tuple[int, int, int, int, int, int, tuple[bytes | None, bytes | None] | None]
"""Clock, content reference, client and clock of the origin, client and clock of the right origin, and, if there is
neither, where it is put: the name of a root type, or None for the type whose id stands in place of the origin; and a
key, or None for a place in the sequence. `NONE` stands for what isn't there. GC and Skip have nothing of this; a run of
either is one."""
NONE = -1
Structs: TypeAlias = dict[int, list[Struct]]
"""Client to its structs, by clock."""
Links: TypeAlias = dict[int, list[tuple[int, int, int]]]
"""Client to each clock of it that refers to another client, with that client and its clock, by clock."""


def refuse_cycles(ends: dict[int, int], links: Links) -> None:
    """Refuse structs of several clients that wait for each other: neither implementation would ever integrate them.

    Simulates integration: each client's structs in order, stopping at a struct that refers to another client's that
    hasn't been reached.
    """
    reached = {client: links[client][0][0] if client in links else end for client, end in ends.items()}
    next_link = dict.fromkeys(links, 0)
    waiting: dict[int, list[tuple[int, int]]] = {}  # client -> heap of (clock waited for, client that waits)
    ready = list(links)
    while ready:
        client = ready.pop()
        own = links[client]
        i = next_link[client]
        while i < len(own):
            clock, other, wanted = own[i]
            reached[client] = clock
            if reached.get(other, wanted + 1) <= wanted < ends.get(other, 0):
                heappush(waiting.setdefault(other, []), (wanted, client))
                break
            i += 1
        else:
            reached[client] = ends[client]
        next_link[client] = i
        heap = waiting.get(client)
        while heap and heap[0][0] < reached[client]:
            ready.append(heappop(heap)[1])
    for client, i in next_link.items():
        if i < len(links[client]):
            clock, other, wanted = links[client][i]
            raise MalformedUpdate(f"struct {client}:{clock} waits for {other}:{wanted}, which waits for it")


def _find(structs: list[Struct], clock: int) -> Struct | None:
    """The struct of one client that holds `clock`, given that clock is before the last one's end."""
    i = bisect_right(structs, clock, key=itemgetter(0)) - 1
    return structs[i] if i >= 0 else None


def refuse_parents_without_children(structs: Structs, ends: dict[int, int], parents: list[Id]) -> None:
    """Refuse items inside an item that is no shared type: yrs fails half-way through (`InvalidParent`)."""
    for client, clock in parents:
        if clock < ends.get(client, 0):
            struct = _find(structs[client], clock)
            if struct is not None and struct[1] not in (TYPE, DELETED, GC, SKIP):
                raise MalformedUpdate(f"the parent {client}:{clock} is no shared type")


def refuse_deep_types(structs: Structs, ends: dict[int, int]) -> None:
    """Refuse nesting that recursion over shared types can't bear.

    An item without a parent of its own has its origin's. What is inside an item outside of this update counts as
    depth 0.
    """
    depths: dict[Id, int] = {}  # (client, clock of a struct) -> number of types around it
    for client, own in structs.items():
        for first in own:
            todo = [(client, first)]
            while todo:
                at, struct = todo[-1]
                clock, _, base_client, base_clock, right_client, right_clock, place = struct
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
