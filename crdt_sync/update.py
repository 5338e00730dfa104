"""Yjs updates (v1) and state vectors as structure.

Owns the decision whether bytes are an update that every Yjs client and pycrdt could load, and what such an update
contains and needs. Leaves rewriting to `standins`, and applying, holding back and merging to `document`. Pure, total
(an `Update` or an error), and bounded: memory is linear in the bytes read, time nearly so. Large updates are read in
steps, between which others get their turn.

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
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .errors import MalformedUpdate, ProtocolError, UpdateTooHeavy
from .lib0 import read_var_uint, read_var_uints, write_var_uint
from .pacing import Steps, at_once
from .ranges import Spans
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
    Packed,
    Struct,
    Structs,
    refuse_cycles,
    refuse_deep_types,
    refuse_parents_without_children,
)
from .values import COMMON_JSON, JSON_VALUES_MAX, MAGIC, VALUES_MAX, is_odd_json, low_halves, refuse, skip_any

CLOCK_MAX = 2**31 - 1
"""The largest clock. JavaScript would take 2**53 - 1, but yrs keeps clocks in a u32 and compares them as i32
(`Update::integrate`), so that anything above wraps. A client would have to type for decades to get there."""


CLIENTS_MAX = 100_000
"""The most clients in an update, or in a document. Every page that edits a document adds one to it for good: a thousand a day
would take months. They cost each joiner 2 ms a thousand."""

STRANGERS_MAX = 20_000
"""The most clients in a state vector beyond those that the document has."""

ITEMS_MAX = 500_000
"""The most structs in an update, and the most ranges that it may delete. Each takes pycrdt 220 bytes for good, and 10 µs to
get there."""

# How many bytes are read in one step: some milliseconds, if they are nothing but tiny items.
STEP_BYTES = 8 << 10
# In updates larger than this, structs and ranges are kept in arrays: half as fast, at a fifth of the memory.
PACKED_BYTES = 512 << 10
# How many values of one item are walked over in one step.
STEP_VALUES = 8192
# What pycrdt takes in at once, some tens of milliseconds' worth: values in one item, and characters outside of the Basic
# Multilingual Plane in one string. Yjs joins what one client appends, so documents of honest clients may go beyond it.
ITEM_VALUES_MAX = 1_000_000
ITEM_PAIRS_MAX = 500_000


@dataclass(slots=True)
class Update:
    """What an update contains and needs."""

    ends: dict[int, int]
    """Client to the clock just after its last struct."""
    needs: dict[int, int]
    """Client to the clock that a state vector must have reached before this update may be integrated."""
    deletes: Mapping[int, Sequence[tuple[int, int]]]
    """Client to the ranges `[start, end)` that it deletes, ascending."""
    pairs: dict[int, Sequence[int]]
    """Client to the clocks of the low halves of surrogate pairs in its strings, ascending."""
    standins: bool
    """Holds something that pycrdt can't hold faithfully: must go through `standins.for_pycrdt`."""
    structs: Structs = field(default_factory=dict, compare=False)
    """What each item builds on, for `tree`, and where it stands, for `pieces`."""
    stops: dict[int, int] = field(default_factory=dict, compare=False)
    """Client to the index just after its last struct."""

    def boundaries(self) -> Iterator[Id]:
        """Each `(client, clock)` before which Yjs cuts an item in two, if the item holds clocks on both sides."""
        for own in self.structs.values():
            for _, _, left_client, left, right_client, right, place, _ in own:
                if place is None and left != NONE:
                    yield left_client, left + 1
                if right != NONE:
                    yield right_client, right
        for client, ranges in self.deletes.items():
            for start, stop in ranges:
                yield client, start
                yield client, stop


def read_update(data: bytes, *, bounded: bool = True) -> Update:
    """Read an update strictly.

    Args:
        data: An update v1, complete.
        bounded: Whether one item may only hold so much; not for what is stored already.

    Returns:
        What it contains and needs.

    Raises:
        MalformedUpdate: Some Yjs client or pycrdt couldn't load it, or could be harmed by it.
        UpdateTooHeavy: It holds more than what can be taken in without holding up others.
    """
    head = data[:2]
    if head == b"\1\1":
        if data[-1] == 0 and (update := _read_keystroke(data)) is not None:
            return update
    elif head == b"\0\1" and (update := _read_deletion(data)) is not None:
        return update
    return at_once(reading(data, bounded=bounded))


def reading(data: bytes, *, bounded: bool = True) -> Steps[Update]:
    """Like `read_update`, in steps of some milliseconds."""
    try:
        return (yield from _read(data, bounded))
    except IndexError:
        raise MalformedUpdate(f"the update of {len(data)} bytes ends too early") from None
    except UnicodeDecodeError as error:
        raise MalformedUpdate("a string is not UTF-8") from error
    except OverflowError:
        raise MalformedUpdate(f"a clock beyond {CLOCK_MAX}") from None
    except (MalformedUpdate, UpdateTooHeavy):
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
    pairs: dict[int, Sequence[int]] = {}
    try:
        text = data[start:-1].decode()
    except UnicodeDecodeError:
        return None
    if len(text) != length:
        length = len(text)
        if max(text) > "\uffff":
            lows = list(low_halves(text, clock))
            length += len(lows)
            pairs[client] = lows
    if origin_raw is not None:
        origin = _number(origin_raw)
        structs: Structs = {client: [(clock, STRING, client, origin, NONE, NONE, None, match.end(2))]}
    else:
        origin = _number(left_raw)
        right = _number(right_raw)
        if right >= clock:
            return None
        structs = {client: [(clock, STRING, client, origin, client, right, None, match.end(2))]}
    if origin >= clock:
        return None
    return Update({client: clock + length}, {client: clock}, {}, pairs, False, structs)


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
    return Update({}, {client: stop}, {client: [(start, stop)]}, {}, False)


# ----------------------------------------------------------------------------------------------------------------
# Everything else.


# One function, and varUints of one byte read in place: a call per field would double the cost of a struct.
def _read(data: bytes, bounded: bool) -> Steps[Update]:
    size = len(data)
    pause = STEP_BYTES
    packed = size > PACKED_BYTES
    ends: dict[int, int] = {}
    needs: dict[int, int] = {}
    pairs: dict[int, Sequence[int]] = {}
    stops: dict[int, int] = {}
    standins = False

    foreign: dict[int, int] = {}  # client -> highest clock of it that another client's struct refers to
    links: Links = {}  # client -> (clock, other client, its clock), by clock
    parents = array("q")  # client and clock of each
    types = total = 0
    structs: Structs = {}

    count, pos = read_var_uint(data, 0)
    if count * 5 > size:
        refuse(f"{count} clients announced in {size} bytes", pos)
    if bounded and count > CLIENTS_MAX:
        raise UpdateTooHeavy(f"{count} clients in one update, at most {CLIENTS_MAX}")
    for _ in range(count):
        count, pos = read_var_uint(data, pos)
        if not 0 < count <= (size - pos) >> 1:
            refuse(f"{count} structs announced in {size - pos} bytes", pos)
        total += count
        if bounded and total > ITEMS_MAX:
            raise UpdateTooHeavy(f"{total} structs in one update, at most {ITEMS_MAX}")
        start = pos
        client, pos = read_var_uint(data, pos)
        own = data[start:pos]  # an id of the same client begins with these bytes: comparing is cheaper than reading
        own_size = pos - start
        if client in structs:
            refuse(f"client {client} is listed twice", pos)
        clock, pos = read_var_uint(data, pos)
        previous = segment = clock
        end = -1
        mine: list[Struct] | Packed = Packed() if packed and count > 1 else []
        structs[client] = mine
        record = mine.append
        last = NONE
        for _ in range(count):
            if pos >= pause:
                yield
                pause = pos + STEP_BYTES
            start = pos
            info = data[pos]
            pos += 1
            if info == GC or info == SKIP:
                length, pos = read_var_uint(data, pos)
                if not length:
                    refuse("a GC or Skip of length 0", pos)
                # One record for a run of them: at two bytes each they would be the cheapest way to fill memory.
                if last != info:
                    record((clock, info, NONE, NONE, NONE, NONE, None, start))
                    last = info
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
            last = ref

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
                        links.setdefault(client, array("q")).extend((clock, base_client, base_clock))
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
                        links.setdefault(client, array("q")).extend((clock, other_client, other_clock))
                record((clock, ref, base_client, base_clock, other_client, other_clock, None, start))
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
                        links.setdefault(client, array("q")).extend((clock, base_client, base_clock))
                    parents.extend((base_client, base_clock))
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
                record((clock, ref, base_client, base_clock, NONE, NONE, (root, key), start))

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
                        if bounded and length - len(text) > ITEM_PAIRS_MAX:
                            raise UpdateTooHeavy(f"more than {ITEM_PAIRS_MAX} surrogate pairs in one string")
                        lows = pairs.setdefault(client, array("I"))
                        assert isinstance(lows, array)
                        lows.extend(low_halves(text, clock))
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
                if raw not in COMMON_JSON and is_odd_json(raw.decode(), bounded=bounded):
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
                if bounded and length > ITEM_VALUES_MAX:
                    raise UpdateTooHeavy(f"{length} values in one item, at most {ITEM_VALUES_MAX}")
                nested = odds = 0
                for left in range(length, 0, -STEP_VALUES):
                    if pos >= pause:
                        yield
                        pause = pos + STEP_BYTES
                    pos, odd, more = skip_any(data, pos, min(left, STEP_VALUES), bounded=bounded)
                    nested += more
                    if bounded and nested > VALUES_MAX:
                        raise UpdateTooHeavy(f"values nested in one item: more than {VALUES_MAX}")
                    odds += odd
                if odds:
                    standins = True
                if bounded and odds and length > JSON_VALUES_MAX:
                    raise UpdateTooHeavy(f"{length} values in one item of which pycrdt can't hold each")
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
                if bounded and length > JSON_VALUES_MAX:
                    raise UpdateTooHeavy(f"{length} values in one item, at most {JSON_VALUES_MAX} as JSON")
                for _ in range(length):
                    if pos >= pause:
                        yield
                        pause = pos + STEP_BYTES
                    nbytes, pos = read_var_uint(data, pos)
                    stop = pos + nbytes
                    raw = data[pos:stop]
                    if raw != b"undefined":
                        is_odd_json(raw.decode(), bounded=bounded)
                    pos = stop
            else:
                standins = True
                length, pos = read_var_uint(data, pos)
                data[pos : pos + length].decode()
                pos += length
                if data[pos] != 118:
                    refuse("options of a subdocument that are no object", pos)
                pos, _, _ = skip_any(data, pos, 1, bounded=bounded)
                length = 1
            clock += length
            end = clock
        if clock > CLOCK_MAX:
            refuse(f"client {client} reaches clock {clock}", pos)
        if pos > size:
            raise IndexError
        stops[client] = pos
        if end >= 0:
            ends[client] = end
            needs[client] = segment if segment < end else previous

    deletes: dict[int, Sequence[tuple[int, int]]] = {}
    total = 0
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
        total += count
        if bounded and total > ITEMS_MAX:
            raise UpdateTooHeavy(f"{total} deletes in one update, at most {ITEMS_MAX}")
        ranges: list[tuple[int, int]] | Spans = Spans() if packed and count > 1 else []
        deletes[client] = ranges
        delete = ranges.append
        stop = 0
        for _ in range(count):
            if pos >= pause:
                yield
                pause = pos + STEP_BYTES
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
            if stop > CLOCK_MAX:
                refuse(f"deletes of client {client} reach clock {stop}", pos)
            delete((start, stop))
        if stop > ends.get(client, 0) and stop > needs.get(client, 0):
            needs[client] = stop
    if pos != size:
        refuse(f"{size - pos} bytes too many", pos)

    for client, clock in foreign.items():
        if clock >= ends.get(client, 0) and clock >= needs.get(client, 0):
            needs[client] = clock + 1
    if links and len(ends) > 1:
        yield from refuse_cycles(ends, links)
    if parents:
        yield from refuse_parents_without_children(structs, ends, parents)
    if types > TYPE_DEPTH_MAX:
        yield from refuse_deep_types(structs, ends)
    return Update(ends, needs, deletes, pairs, standins, structs, stops)


# ----------------------------------------------------------------------------------------------------------------
# State vectors.


def write_deletes(deletes: Mapping[int, Sequence[tuple[int, int]]]) -> bytes:
    """Write an update that deletes ranges `[start, end)`, by client, and nothing else."""
    out = [b"\0", write_var_uint(len(deletes))]
    for client in sorted(deletes, reverse=True):
        out += [write_var_uint(client), write_var_uint(len(deletes[client]))]
        out += [write_var_uint(start) + write_var_uint(end - start) for start, end in deletes[client]]
    return b"".join(out)


def read_state_vector(data: bytes, *, clients_max: int | None = None) -> dict[int, int]:
    """Read a state vector: which clock of each client is expected next.

    Args:
        data: The bytes.
        clients_max: So many at most; for what clients send.

    Raises:
        UpdateTooHeavy: It lists more.
        ProtocolError: Truncated, longer than it says, a client listed twice, or a number too large.

    Source: yjs `encoding.readStateVector`.
    """
    count, pos = read_var_uint(data, 0)
    if count * 2 > len(data) - pos:
        raise ProtocolError(f"a state vector announces {count} clients in {len(data) - pos} bytes")
    if clients_max is not None and count > clients_max:
        raise UpdateTooHeavy(f"{count} clients in one state vector, at most {clients_max}")
    numbers, pos = read_var_uints(data, pos, 2 * count)
    clocks = dict(zip(numbers[::2], numbers[1::2], strict=True))
    if count and max(clocks.values()) > CLOCK_MAX:
        raise ProtocolError(f"a state vector has the clock {max(clocks.values())}")
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
