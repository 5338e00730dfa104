"""Stand-ins: what pycrdt can't hold faithfully goes in disguised, and comes out as it was.

Owns the disguise. Leaves to `update` to say which updates need one, and to `document` to put every update
through `for_pycrdt`, and every state that pycrdt encodes through `from_pycrdt`. Pure; works on bytes that `update`
accepted, struct by struct, and copies what it doesn't change.

| What | What pycrdt 0.14 (yrs 0.28) does with it | What stands in for it |
|---|---|---|
| bigint, -0, in a value | becomes a number; becomes 0 | Uint8Array: magic, the value |
| subdocument | rewrites its options, loses `meta` | binary: magic, `d`, the content |
| odd JSON in embeds and formats (1) | refuses it, or is off by one bit | a JSON string: magic, the JSON |
| XmlHook | refuses it | XmlElement, name: magic, `h`, the hook's name |
| ContentJSON (Yjs before 13) | misreads it | ContentAny with the same values, for good |
| a surrogate pair that a boundary cuts | encodes it unreadably | two U+FFFD, as in Yjs, for good |

(1) Lone surrogates, integers outside of i64, decimals with many digits, exponents, -0, nested more than 100 deep.

Content that looks like a stand-in already is disguised once more, so that `from_pycrdt` is exact. Not kept: the
order of keys in objects, NaN's payload, and in ContentJSON the key `__proto__` and lone surrogates.

Source: lib0 `encoding.writeAny`; yjs 13.6 `Content*.js`, `ContentString.splice`. Measured with pycrdt 0.14.13.
"""

import json
import re
import struct
from collections.abc import Callable, Generator, Iterator, Mapping, Set
from types import MappingProxyType
from typing import Any, TypeAlias

from .lib0 import read_var_bytes, read_var_string, read_var_uint, write_var_bytes, write_var_uint
from .pacing import Steps, at_once
from .structure import (
    ANY,
    BINARY,
    DELETED,
    DOC,
    EMBED,
    FORMAT,
    GC,
    JSON,
    SKIP,
    STEP,
    STRING,
    TYPE,
    XML_ELEMENT,
    XML_HOOK,
)
from .values import MAGIC, is_odd_json, low_halves, skip_any

_HOOK, _ELEMENT, _SUBDOCUMENT, _BINARY = b"h", b"e", b"d", b"b"
_MAGIC_TEXT = MAGIC.decode()

# So many bytes of values take some milliseconds.
PAUSE_BYTES = 8 << 10

NOTHING: Mapping[int, Mapping[int, int]] = MappingProxyType({})

_Content: TypeAlias = tuple[int, bytes]
"""A content reference and the bytes of the content."""


def for_pycrdt(data: bytes, cuts: Mapping[int, Set[int]], gone: Mapping[int, Mapping[int, int]] = NOTHING) -> bytes:
    """Disguise what pycrdt can't hold.

    Args:
        data: An update that `read_update` accepted.
        cuts: Client to the clocks of the low halves of surrogate pairs that some boundary cuts. Such a pair
            becomes two U+FFFD, as in Yjs; the clocks of everything else stay as they are.
        gone: Client to the clocks of items that Yjs would collect at once, with their lengths. So does this:
            pycrdt would show some of them, and follow dangling pointers.

    Returns:
        An update with the same structs, clocks and deletes; `data` itself if nothing needs a disguise.
    """

    def disguise(ref: int, content: bytes, client: int, clock: int) -> _Content | None:
        if client in gone and clock in gone[client]:
            return GC, write_var_uint(gone[client][clock])
        if ref == STRING:
            return _cut(content, cuts[client], clock) if client in cuts else None
        wrap = _WRAPPERS.get(ref)
        return None if wrap is None else wrap(content)

    return at_once(_rewriting(data, disguise))


def cutting(data: bytes, cuts: Mapping[int, Set[int]]) -> Steps[bytes]:
    """Cut surrogate pairs in what pycrdt encoded, for pycrdt; in steps of some milliseconds. See `for_pycrdt`."""

    def cut(ref: int, content: bytes, client: int, clock: int) -> _Content | None:
        return _cut(content, cuts[client], clock) if ref == STRING and client in cuts else None

    return _rewriting(data, cut)


def from_pycrdt(data: bytes) -> bytes:
    """Put back what stand-ins stand for. Like `revealing`, at once."""
    return at_once(revealing(data))


def revealing(data: bytes) -> Steps[bytes]:
    """Put back what stand-ins stand for, in steps of some milliseconds.

    Args:
        data: An update that pycrdt encoded (state, diff or merge), from what `for_pycrdt` returned.

    Returns:
        The same with the original content; `data` itself if it holds no stand-in.
    """

    def reveal(ref: int, content: bytes, client: int, clock: int) -> _Content | Steps[_Content] | None:
        if MAGIC not in content:
            return None
        if ref == ANY:
            return _unwrapping_values(content)
        unwrap = _UNWRAPPERS.get(ref)
        return None if unwrap is None else unwrap(content)

    return (yield from _rewriting(data, reveal)) if MAGIC in data else data


_Change: TypeAlias = "Callable[[int, bytes, int, int], _Content | Steps[_Content] | None]"
"""From a content, with its client and clock, to what replaces it."""


def _rewriting(data: bytes, change: _Change) -> Steps[bytes]:
    out = bytearray()
    copied = 0
    for index, item in enumerate(_walk(data)):
        if not index % STEP or item is None:
            yield
        if item is None:
            continue
        client, clock, start, content_start, end = item
        info = data[start]
        content = data[content_start:end]
        changed = change(info & 31, content, client, clock)
        if isinstance(changed, Generator):
            changed = yield from changed
        if changed is not None and changed != (info & 31, content):
            out += data[copied:start]
            if changed[0] == GC:
                out.append(GC)
            else:
                out.append(info & ~31 | changed[0])
                out += data[start + 1 : content_start]
            out += changed[1]
            copied = end
    if not copied:
        return data
    out += data[copied:]
    return bytes(out)


_Item: TypeAlias = tuple[int, int, int, int, int]


def items_of(data: bytes) -> Iterator[_Item]:
    """Walk over the items of a well-formed update.

    Yields:
        Client, clock, and where the item, its content, and whatever is next begin.
    """
    return (item for item in _walk(data) if item is not None)


def _walk(data: bytes) -> Iterator[_Item | None]:
    """Like `items_of`, with None in between where it takes its time."""
    clients, pos = read_var_uint(data, 0)
    for _ in range(clients):
        structs, pos = read_var_uint(data, pos)
        client, pos = read_var_uint(data, pos)
        clock, pos = read_var_uint(data, pos)
        for _ in range(structs):
            start = pos
            info = data[pos]
            pos += 1
            if info in (GC, SKIP):
                length, pos = read_var_uint(data, pos)
                clock += length
                continue
            if info & 192:
                for _ in range(4 if info & 192 == 192 else 2):
                    while data[pos] > 127:
                        pos += 1
                    pos += 1
            else:
                if data[pos]:
                    _, pos = read_var_bytes(data, pos + 1)
                else:
                    _, pos = read_var_uint(data, pos + 1)
                    _, pos = read_var_uint(data, pos)
                if info & 32:
                    _, pos = read_var_bytes(data, pos)
            content = pos
            if info & 31 == ANY:
                # pycrdt joins the values of neighbours: there may be millions.
                length, pos = read_var_uint(data, pos)
                paused = pos
                for _ in range(length):
                    pos, _, _ = skip_any(data, pos, 1)
                    if pos - paused > PAUSE_BYTES:
                        paused = pos
                        yield None
            else:
                length, pos = _skip_content(info & 31, data, pos)
            yield client, clock, start, content, pos
            clock += length


def _skip_content(ref: int, data: bytes, pos: int) -> tuple[int, int]:
    """How many clocks a content takes, and where it ends."""
    if ref == STRING:
        text, pos = read_var_string(data, pos)
        return len(text) if text.isascii() else len(text.encode("utf-16-le")) >> 1, pos
    if ref == DELETED:
        return read_var_uint(data, pos)
    if ref == JSON:
        length, pos = read_var_uint(data, pos)
        for _ in range(length):
            _, pos = read_var_bytes(data, pos)
        return length, pos
    if ref == TYPE:
        if data[pos] not in (XML_ELEMENT, XML_HOOK):
            return 1, pos + 1
        pos += 1
    elif ref == FORMAT:
        _, pos = read_var_bytes(data, pos)
    _, pos = read_var_bytes(data, pos)
    if ref == DOC:
        pos, _, _ = skip_any(data, pos, 1)
    return 1, pos


# ------------------------------------------------------------------------------------------------------------
# Into the disguise. Each takes the content's bytes, and may return them unchanged.


def _cut(content: bytes, cuts: Set[int], clock: int) -> _Content:
    text, _ = read_var_string(content, 0)
    lows = list(low_halves(text, clock))
    if cuts.isdisjoint(lows):
        return STRING, content
    remaining = iter(lows)
    text = re.sub(
        "[\U00010000-\U0010ffff]",
        lambda match: "\ufffd\ufffd" if next(remaining) in cuts else match[0],
        text,
    )
    return STRING, write_var_bytes(text.encode())


def _wrap_binary(content: bytes) -> _Content:
    value, _ = read_var_bytes(content, 0)
    return BINARY, write_var_bytes(MAGIC + _BINARY + value) if value.startswith(MAGIC) else content


def _wrap_subdocument(content: bytes) -> _Content:
    return BINARY, write_var_bytes(MAGIC + _SUBDOCUMENT + content)


def _wrap_type(content: bytes) -> _Content | None:
    if content[0] not in (XML_ELEMENT, XML_HOOK):
        return None
    name, _ = read_var_bytes(content, 1)
    if content[0] == XML_HOOK:
        name = MAGIC + _HOOK + name
    elif name.startswith(MAGIC):
        name = MAGIC + _ELEMENT + name
    else:
        return None
    return TYPE, bytes((XML_ELEMENT,)) + write_var_bytes(name)


def _wrap_embed(content: bytes) -> _Content:
    text, _ = read_var_string(content, 0)
    return EMBED, _wrap_json(text) if is_odd_json(text) else content


def _wrap_format(content: bytes) -> _Content:
    _, pos = read_var_bytes(content, 0)
    text, _ = read_var_string(content, pos)
    return FORMAT, content[:pos] + _wrap_json(text) if is_odd_json(text) else content


def _wrap_json(text: str) -> bytes:
    return write_var_bytes(json.dumps(_MAGIC_TEXT + text, ensure_ascii=False).encode())


def _wrap_values(content: bytes) -> _Content:
    count, pos = read_var_uint(content, 0)
    if not skip_any(content, pos, count)[1]:
        return ANY, content
    return ANY, _map_values(content, _wrap_value)


def _wrap_value(kind: int, raw: bytes) -> bytes:
    """Disguise one value that is no array or object; `raw` begins with its kind."""
    if skip_any(raw, 0, 1)[1]:
        return b"\x74" + write_var_bytes(MAGIC + raw)
    return raw


def _json_to_values(content: bytes) -> _Content:
    count, pos = read_var_uint(content, 0)
    out = [write_var_uint(count)]
    for _ in range(count):
        text, pos = read_var_string(content, pos)
        out.append(b"\x7f" if text == "undefined" else _write_any(_parse_json(text)))
    return _wrap_values(b"".join(out))


_WRAPPERS: dict[int, Callable[[bytes], _Content | None]] = {
    BINARY: _wrap_binary,
    DOC: _wrap_subdocument,
    TYPE: _wrap_type,
    EMBED: _wrap_embed,
    FORMAT: _wrap_format,
    ANY: _wrap_values,
    JSON: _json_to_values,
}


# ------------------------------------------------------------------------------------------------------------
# And out of it again.


def _unwrap_binary(content: bytes) -> _Content:
    value, _ = read_var_bytes(content, 0)
    if not value.startswith(MAGIC):
        return BINARY, content
    kind = value[len(MAGIC) : len(MAGIC) + 1]
    original = value[len(MAGIC) + 1 :]
    return (DOC, original) if kind == _SUBDOCUMENT else (BINARY, write_var_bytes(original))


def _unwrap_type(content: bytes) -> _Content | None:
    if content[0] != XML_ELEMENT:
        return None
    name, _ = read_var_bytes(content, 1)
    if not name.startswith(MAGIC):
        return None
    kind = XML_HOOK if name[len(MAGIC) : len(MAGIC) + 1] == _HOOK else XML_ELEMENT
    return TYPE, bytes((kind,)) + write_var_bytes(name[len(MAGIC) + 1 :])


def _unwrap_embed(content: bytes) -> _Content:
    text, _ = read_var_string(content, 0)
    return EMBED, _unwrap_json(text)


def _unwrap_format(content: bytes) -> _Content:
    _, pos = read_var_bytes(content, 0)
    text, _ = read_var_string(content, pos)
    return FORMAT, content[:pos] + _unwrap_json(text)


def _unwrap_json(text: str) -> bytes:
    if text.startswith('"' + _MAGIC_TEXT):
        text = json.loads(text)[len(_MAGIC_TEXT) :]
    return write_var_bytes(text.encode())


def _unwrapping_values(content: bytes) -> Steps[_Content]:
    count, pos = read_var_uint(content, 0)
    out = bytearray(content[:pos])
    paused = pos
    for _ in range(count):
        end, _, _ = skip_any(content, pos, 1)
        if content.find(MAGIC, pos, end) < 0:
            out += content[pos:end]
        else:
            _map_value(content, pos, _unwrap_value, out)
        pos = end
        if pos - paused > PAUSE_BYTES:
            paused = pos
            yield
    return ANY, bytes(out)


def _unwrap_value(kind: int, raw: bytes) -> bytes:
    if kind == 116:
        value, _ = read_var_bytes(raw, 1)
        if value.startswith(MAGIC):
            return value[len(MAGIC) :]
    return raw


_UNWRAPPERS: dict[int, Callable[[bytes], _Content | None]] = {
    BINARY: _unwrap_binary,
    TYPE: _unwrap_type,
    EMBED: _unwrap_embed,
    FORMAT: _unwrap_format,
}


# ------------------------------------------------------------------------------------------------------------
# lib0 any-values.


def _map_values(content: bytes, change: Callable[[int, bytes], bytes]) -> bytes:
    """Change each value of a ContentAny that is no array or object."""
    count, pos = read_var_uint(content, 0)
    out = bytearray(content[:pos])
    for _ in range(count):
        pos = _map_value(content, pos, change, out)
    return bytes(out)


def _map_value(data: bytes, pos: int, change: Callable[[int, bytes], bytes], out: bytearray) -> int:
    # Recursive: `skip_any` has found that it is at most ANY_DEPTH_MAX deep.
    kind = data[pos]
    if kind != 117 and kind != 118:
        end, _, _ = skip_any(data, pos, 1)
        out += change(kind, data[pos:end])
        return end
    count, end = read_var_uint(data, pos + 1)
    out += data[pos:end]
    pos = end
    for _ in range(count):
        if kind == 118:
            _, end = read_var_bytes(data, pos)
            out += data[pos:end]
            pos = end
        pos = _map_value(data, pos, change, out)
    return pos


# JSON.parse has one kind of number.
_parse_json = json.JSONDecoder(parse_int=float, parse_float=float).decode


def _write_any(value: Any) -> bytes:
    """Write what `JSON.parse` returned as lib0 would: `encoding.writeAny`."""
    if value is None:
        return b"\x7e"
    if value is True:
        return b"\x78"
    if value is False:
        return b"\x79"
    if isinstance(value, float):
        return _write_number(value)
    if isinstance(value, str):
        return b"\x77" + _write_string(value)
    if isinstance(value, list):
        return b"\x75" + write_var_uint(len(value)) + b"".join(map(_write_any, value))
    members = [_write_string(key) + _write_any(member) for key, member in value.items()]
    return b"\x76" + write_var_uint(len(value)) + b"".join(members)


def _write_string(text: str) -> bytes:
    return write_var_bytes(re.sub("[\ud800-\udfff]", "\ufffd", text).encode())


def _write_number(number: float) -> bytes:
    if number.is_integer() and abs(number) <= 2**31 - 1:
        magnitude = int(abs(number))
        sign = 64 if struct.pack(">d", number)[0] & 128 else 0
        if magnitude < 64:
            return bytes((125, sign | magnitude))
        return bytes((125, 128 | sign | magnitude & 63)) + write_var_uint(magnitude >> 6)
    try:
        short = struct.pack(">f", number)
    except OverflowError:
        short = b""
    if short and struct.unpack(">f", short)[0] == number:
        return b"\x7c" + short
    return b"\x7b" + struct.pack(">d", number)
