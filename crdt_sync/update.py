"""Yjs updates (v1) and state vectors as structure.

Owns the decision whether bytes are an update that every Yjs client and pycrdt could load, and what such an update
contains and needs. Leaves rewriting to `standins`, and applying, holding back and merging to `document`. Pure, total
(an `Update` or `MalformedUpdate`), and bounded: memory is linear in the bytes read, time nearly so.

What real Yjs 13 writes is accepted; what is accepted loads in real Yjs 13. Rules beyond the format itself exist
because one of the two implementations fails without them, and say which. Not judged, since it takes the document:
whether a parent outside of the update is a shared type, whether origin and right origin are in the same parent and in
that order, and whether clocks that are known already come with the content that is known.

    update  = clients:varUint client* deleteSet
    client  = structs:varUint id:varUint clock:varUint struct*
    struct  = 0 length:varUint                                                                    GC
            | 10 length:varUint                                                                   Skip
            | info [origin:id] [rightOrigin:id] [parent [parentSub:varString]] content            Item
    info    = content reference (1-9) + 32 (parentSub) + 64 (right origin) + 128 (origin)
    parent  = 1 root:varString | 0 item:id                          only without origin and right origin
    id      = client:varUint clock:varUint
    deleteSet = clients:varUint (id:varUint ranges:varUint (clock:varUint length:varUint)*)*

Source: yjs 13.6 `encoding.js` (`readClientsStructRefs`), `Item.js`, `Content*.js`, `DeleteSet.js`; lib0 `decoding.js`;
yrs 0.28 `update.rs`, `block.rs`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import MalformedUpdate, ProtocolError
from .lib0 import read_var_uint, write_var_uint
from .structure import (
    ANY,
    BINARY,
    DELETED,
    DOC,
    EMBED,
    FORMAT,
    GC,
    JSON,
    NONE,
    SKIP,
    STRING,
    TYPE,
    TYPE_DEPTH_MAX,
    TYPE_REF_MAX,
    XML_ELEMENT,
    XML_HOOK,
    Id,
    Links,
    Struct,
    Structs,
    refuse_cycles,
    refuse_deep_types,
    refuse_parents_without_children,
)
from .values import COMMON_JSON, MAGIC, is_odd_json, low_halves, refuse, skip_any

CLOCK_MAX = 2**31 - 1
"""The largest clock. JavaScript would take 2**53 - 1, but yrs keeps clocks in a u32 and compares them as i32
(`Update::integrate`), so that anything above wraps. A client would have to type for decades to get there."""


@dataclass(slots=True)
class Update:
    """What an update contains and needs."""

    ends: dict[int, int]
    """Client to the clock just after its last struct."""
    needs: dict[int, int]
    """Client to the clock that a state vector must have reached before this update may be integrated."""
    deletes: dict[int, list[tuple[int, int]]]
    """Client to the ranges `[start, end)` that it deletes, ascending."""
    boundaries: list[tuple[int, int]]
    """Each `(client, clock)` before which Yjs cuts an item in two, if the item holds clocks on both sides."""
    pairs: dict[int, list[int]]
    """Client to the clocks of the low halves of surrogate pairs in its strings, ascending."""
    standins: bool
    """Holds something that pycrdt can't hold faithfully: must go through `standins.for_pycrdt`."""
    structs: Structs = field(default_factory=dict, compare=False)
    """What each item builds on, for `tree`."""


def read_update(data: bytes) -> Update:
    """Read an update strictly.

    Args:
        data: An update v1, complete.

    Returns:
        What it contains and needs.

    Raises:
        MalformedUpdate: Some Yjs client or pycrdt couldn't load it, or could be harmed by it.
    """
    try:
        if data[0] == 1:
            if data[1] == 1 and data[-1] == 0 and (update := _read_keystroke(data)) is not None:
                return update
        elif data[0] == 0 and data[1] == 1 and (update := _read_deletion(data)) is not None:
            return update
        return _read(data)
    except IndexError:
        raise MalformedUpdate(f"the update of {len(data)} bytes ends too early") from None
    except UnicodeDecodeError as error:
        raise MalformedUpdate("a string is not UTF-8") from error
    except MalformedUpdate:
        raise
    except ProtocolError as error:
        raise MalformedUpdate(str(error)) from error


# ----------------------------------------------------------------------------------------------------------------
# The two short cuts. Each returns None for whatever isn't exactly the common case, and leaves judging it to `_read`.

_CLOCK = rb"([\x80-\xff]{0,3}[\x00-\x7f])"  # four bytes are less than CLOCK_MAX
_CLIENT = rb"([\x80-\xff]{0,6}[\x00-\x7f]|[\x80-\xff]{7}[\x00-\x0f])"
# One client with one string, whose origin and right origin, if any, are the same client's.
_KEYSTROKE = re.compile(
    rb"\x01\x01" + _CLIENT + _CLOCK + rb"(?:\x84\1" + _CLOCK + rb"|\xc4\1" + _CLOCK + rb"\1" + _CLOCK + rb")"
    rb"([\x01-\x7f])"
)
# No structs; one client, one range.
_DELETION = re.compile(rb"\x00\x01" + _CLIENT + rb"\x01" + _CLOCK + _CLOCK)


def _number(raw: bytes) -> int:
    value = shift = 0
    for byte in raw:
        value |= (byte & 127) << shift
        shift += 7
    return value


def _read_keystroke(data: bytes) -> Update | None:
    match = _KEYSTROKE.match(data)
    if match is None:
        return None
    client_raw, clock_raw, origin_raw, left_raw, right_raw, length_raw = match.groups()
    start = match.end()
    length = length_raw[0]
    if start + length + 1 != len(data):
        return None
    client = _number(client_raw)
    clock = _number(clock_raw)
    pairs = {}
    text = data[start:-1].decode()
    if len(text) != length:
        length = len(text)
        if max(text) > "\uffff":
            lows = low_halves(text, clock)
            length += len(lows)
            pairs[client] = lows
    if origin_raw is not None:
        origin = _number(origin_raw)
        boundaries = [(client, origin + 1)]
        structs: Structs = {client: [(clock, STRING, client, origin, NONE, NONE, None)]}
    else:
        origin = _number(left_raw)
        right = _number(right_raw)
        if right >= clock:
            return None
        boundaries = [(client, origin + 1), (client, right)]
        structs = {client: [(clock, STRING, client, origin, client, right, None)]}
    if origin >= clock:
        return None
    return Update({client: clock + length}, {client: clock}, {}, boundaries, pairs, False, structs)


def _read_deletion(data: bytes) -> Update | None:
    match = _DELETION.fullmatch(data)
    if match is None:
        return None
    client_raw, start_raw, length_raw = match.groups()
    client = _number(client_raw)
    start = _number(start_raw)
    stop = start + _number(length_raw)
    if start == stop:
        return None
    return Update({}, {client: stop}, {client: [(start, stop)]}, [(client, start), (client, stop)], {}, False)


# ----------------------------------------------------------------------------------------------------------------
# Everything else.


# One function, and varUints of one byte read in place: a call per field would double the cost of a struct.
def _read(data: bytes) -> Update:
    size = len(data)
    ends: dict[int, int] = {}
    needs: dict[int, int] = {}
    boundaries: list[tuple[int, int]] = []
    pairs: dict[int, list[int]] = {}
    standins = False
    cut = boundaries.append

    foreign: dict[int, int] = {}  # client -> highest clock of it that another client's struct refers to
    links: Links = {}  # client -> (clock, other client, its clock), by clock
    parents: list[Id] = []  # ids of parents
    types = 0
    structs: Structs = {}

    count, pos = read_var_uint(data, 0)
    if count * 5 > size:
        refuse(f"{count} clients announced in {size} bytes", pos)
    for _ in range(count):
        count, pos = read_var_uint(data, pos)
        if not 0 < count <= (size - pos) >> 1:
            refuse(f"{count} structs announced in {size - pos} bytes", pos)
        start = pos
        client, pos = read_var_uint(data, pos)
        own = data[start:pos]  # an id of the same client begins with these bytes: comparing is cheaper than reading
        own_size = pos - start
        if client in structs:
            refuse(f"client {client} is listed twice", pos)
        clock, pos = read_var_uint(data, pos)
        previous = segment = clock
        end = -1
        mine: list[Struct] = []
        structs[client] = mine
        record = mine.append
        for _ in range(count):
            info = data[pos]
            pos += 1
            if info == GC or info == SKIP:
                length, pos = read_var_uint(data, pos)
                if not length:
                    refuse("a GC or Skip of length 0", pos)
                # One record for a run of them: at two bytes each they would be the cheapest way to fill memory.
                if not mine or mine[-1][1] != info:
                    record((clock, info, NONE, NONE, NONE, NONE, None))
                if info == GC:
                    end = clock + length
                else:
                    if segment < clock:
                        previous = segment
                    segment = clock + length
                clock += length
                continue
            ref = info & 31
            if not DELETED <= ref <= DOC:
                refuse(f"unknown struct {info}", pos)

            if info & 192:
                base_client = base_clock = other_client = other_clock = NONE
                if info & 128:
                    if data.startswith(own, pos):
                        base_client = client
                        pos += own_size
                    else:
                        base_client, pos = read_var_uint(data, pos)
                    base_clock = data[pos]
                    if base_clock < 128:
                        pos += 1
                    else:
                        base_clock, pos = read_var_uint(data, pos)
                        if base_clock >= CLOCK_MAX:
                            refuse(f"clock {base_clock}", pos)
                    if base_client == client:
                        if base_clock >= clock:
                            refuse(f"the struct at clock {clock} depends on itself or its own future", pos)
                    else:
                        if foreign.get(base_client, -1) < base_clock:
                            foreign[base_client] = base_clock
                        links.setdefault(client, []).append((clock, base_client, base_clock))
                    cut((base_client, base_clock + 1))
                if info & 64:
                    if data.startswith(own, pos):
                        other_client = client
                        pos += own_size
                    else:
                        other_client, pos = read_var_uint(data, pos)
                    other_clock = data[pos]
                    if other_clock < 128:
                        pos += 1
                    else:
                        other_clock, pos = read_var_uint(data, pos)
                        if other_clock >= CLOCK_MAX:
                            refuse(f"clock {other_clock}", pos)
                    if other_client == client:
                        if other_clock >= clock:
                            refuse(f"the struct at clock {clock} depends on itself or its own future", pos)
                    else:
                        if foreign.get(other_client, -1) < other_clock:
                            foreign[other_client] = other_clock
                        links.setdefault(client, []).append((clock, other_client, other_clock))
                    cut((other_client, other_clock))
                record((clock, ref, base_client, base_clock, other_client, other_clock, None))
            else:
                parent_info = data[pos]
                pos += 1
                if parent_info == 1:
                    length = data[pos]
                    if length < 128:
                        pos += 1
                    else:
                        length, pos = read_var_uint(data, pos)
                    root = data[pos : pos + length]
                    root.decode()
                    pos += length
                    base_client = base_clock = NONE
                elif parent_info == 0:
                    base_client, pos = read_var_uint(data, pos)
                    base_clock, pos = read_var_uint(data, pos)
                    if base_clock >= CLOCK_MAX:
                        refuse(f"clock {base_clock}", pos)
                    if base_client == client:
                        if base_clock >= clock:
                            refuse(f"the struct at clock {clock} depends on itself or its own future", pos)
                    else:
                        if foreign.get(base_client, -1) < base_clock:
                            foreign[base_client] = base_clock
                        links.setdefault(client, []).append((clock, base_client, base_clock))
                    parents.append((base_client, base_clock))
                    root = None
                else:
                    refuse(f"parent info {parent_info}", pos)
                key = None
                if info & 32:
                    length = data[pos]
                    if length < 128:
                        pos += 1
                    else:
                        length, pos = read_var_uint(data, pos)
                    key = data[pos : pos + length]
                    key.decode()
                    pos += length
                record((clock, ref, base_client, base_clock, NONE, NONE, (root, key)))

            if ref == STRING:
                length = data[pos]
                if length < 128:
                    pos += 1
                else:
                    length, pos = read_var_uint(data, pos)
                stop = pos + length
                if stop > size or not length:
                    refuse(f"a string of {length} bytes", pos)
                text = data[pos:stop].decode()
                pos = stop
                if len(text) != length:
                    length = len(text.encode("utf-16-le")) >> 1
                    if length != len(text):
                        pairs.setdefault(client, []).extend(low_halves(text, clock))
            elif ref == FORMAT or ref == EMBED:
                if ref == FORMAT:
                    length = data[pos]
                    if length < 128:
                        pos += 1
                    else:
                        length, pos = read_var_uint(data, pos)
                    data[pos : pos + length].decode()
                    pos += length
                length = data[pos]
                if length < 128:
                    pos += 1
                else:
                    length, pos = read_var_uint(data, pos)
                stop = pos + length
                if stop > size:
                    refuse(f"JSON of {length} bytes", pos)
                raw = data[pos:stop]
                pos = stop
                if raw not in COMMON_JSON and is_odd_json(raw.decode()):
                    standins = True
                length = 1
            elif ref == DELETED:
                length, pos = read_var_uint(data, pos)
                if not length:
                    refuse("deleted content of length 0", pos)
            elif ref == TYPE:
                kind = data[pos]
                pos += 1
                if kind > TYPE_REF_MAX:
                    refuse(f"unknown shared type {kind}", pos)
                if kind == XML_ELEMENT or kind == XML_HOOK:
                    length, pos = read_var_uint(data, pos)
                    if kind == XML_HOOK or data.startswith(MAGIC, pos):
                        standins = True
                    data[pos : pos + length].decode()
                    pos += length
                types += 1
                length = 1
            elif ref == ANY:
                length = data[pos]
                if length < 128:
                    pos += 1
                else:
                    length, pos = read_var_uint(data, pos)
                if not 0 < length <= size - pos:
                    refuse(f"{length} values announced in {size - pos} bytes", pos)
                pos, odd = skip_any(data, pos, length)
                if odd:
                    standins = True
            elif ref == BINARY:
                length, pos = read_var_uint(data, pos)
                if data.startswith(MAGIC, pos):
                    standins = True
                pos += length
                length = 1
            elif ref == JSON:
                standins = True
                length, pos = read_var_uint(data, pos)
                if not 0 < length <= size - pos:
                    refuse(f"{length} values announced in {size - pos} bytes", pos)
                for _ in range(length):
                    nbytes, pos = read_var_uint(data, pos)
                    stop = pos + nbytes
                    raw = data[pos:stop]
                    if raw != b"undefined":
                        is_odd_json(raw.decode())
                    pos = stop
            else:
                standins = True
                length, pos = read_var_uint(data, pos)
                data[pos : pos + length].decode()
                pos += length
                if data[pos] != 118:
                    refuse("options of a subdocument that are no object", pos)
                pos, _ = skip_any(data, pos, 1)
                length = 1
            clock += length
            end = clock
        if clock > CLOCK_MAX:
            refuse(f"client {client} reaches clock {clock}", pos)
        if pos > size:
            raise IndexError
        if end >= 0:
            ends[client] = end
            needs[client] = segment if segment < end else previous

    deletes: dict[int, list[tuple[int, int]]] = {}
    count, pos = read_var_uint(data, pos)
    if count * 2 > size - pos:
        refuse(f"deletes of {count} clients announced in {size - pos} bytes", pos)
    for _ in range(count):
        client, pos = read_var_uint(data, pos)
        count, pos = read_var_uint(data, pos)
        if client in deletes:
            refuse(f"deletes of client {client} are listed twice", pos)
        if count * 2 > size - pos:
            refuse(f"{count} deletes announced in {size - pos} bytes", pos)
        ranges: list[tuple[int, int]] = []
        deletes[client] = ranges
        stop = 0
        for _ in range(count):
            start = data[pos]
            if start < 128:
                pos += 1
            else:
                start, pos = read_var_uint(data, pos)
            length = data[pos]
            if length < 128:
                pos += 1
            else:
                length, pos = read_var_uint(data, pos)
            if start < stop or not length:
                refuse(f"a delete of {length} at clock {start} after one up to {stop}", pos)
            stop = start + length
            ranges.append((start, stop))
            cut((client, start))
            cut((client, stop))
        if stop > CLOCK_MAX:
            refuse(f"deletes of client {client} reach clock {stop}", pos)
        if stop > ends.get(client, 0) and stop > needs.get(client, 0):
            needs[client] = stop
    if pos != size:
        refuse(f"{size - pos} bytes too many", pos)

    for client, clock in foreign.items():
        if clock >= ends.get(client, 0) and clock >= needs.get(client, 0):
            needs[client] = clock + 1
    if links and len(ends) > 1:
        refuse_cycles(ends, links)
    if parents:
        refuse_parents_without_children(structs, ends, parents)
    if types > TYPE_DEPTH_MAX:
        refuse_deep_types(structs, ends)
    return Update(ends, needs, deletes, boundaries, pairs, standins, structs)


# ----------------------------------------------------------------------------------------------------------------
# State vectors.


def write_deletes(deletes: Mapping[int, list[tuple[int, int]]]) -> bytes:
    """Write an update that deletes ranges `[start, end)`, by client, and nothing else."""
    out = [b"\0", write_var_uint(len(deletes))]
    for client in sorted(deletes, reverse=True):
        out += [write_var_uint(client), write_var_uint(len(deletes[client]))]
        out += [write_var_uint(start) + write_var_uint(end - start) for start, end in deletes[client]]
    return b"".join(out)


def read_state_vector(data: bytes) -> dict[int, int]:
    """Read a state vector: which clock of each client is expected next.

    Raises:
        ProtocolError: Truncated, longer than it says, a client listed twice, or a number too large.

    Source: yjs `encoding.readStateVector`.
    """
    count, pos = read_var_uint(data, 0)
    if count * 2 > len(data) - pos:
        raise ProtocolError(f"a state vector announces {count} clients in {len(data) - pos} bytes")
    clocks: dict[int, int] = {}
    for _ in range(count):
        client, pos = read_var_uint(data, pos)
        clock, pos = read_var_uint(data, pos)
        if clock > CLOCK_MAX:
            raise ProtocolError(f"a state vector has clock {clock} for client {client}")
        clocks[client] = clock
    if len(clocks) != count:
        raise ProtocolError(f"a state vector lists {count - len(clocks)} clients twice")
    if pos != len(data):
        raise ProtocolError(f"a state vector is followed by {len(data) - pos} bytes")
    return clocks


def write_state_vector(clocks: Mapping[int, int]) -> bytes:
    """Write a state vector, higher client ids first as Yjs does."""
    out = [write_var_uint(len(clocks))]
    for client in sorted(clocks, reverse=True):
        out.append(write_var_uint(client))
        out.append(write_var_uint(clocks[client]))
    return b"".join(out)
