"""What items of an update hold: lib0 any-values, JSON, strings. Walked over, not built.

Judges what not everybody can read, and what pycrdt would refuse or change (*odd*), for which `standins` puts something
else.

Source: lib0 `decoding.js`; yrs 0.28 `any.rs`, which reads JSON with serde_json 1.0.
"""

import json
import re
from collections.abc import Iterator
from itertools import compress
from typing import NoReturn

from .errors import MalformedUpdate, UpdateTooHeavy
from .lib0 import MAX_SAFE_INTEGER, read_var_uint

ANY_DEPTH_MAX = 200
"""How deep a value (lib0 any, or JSON) may be nested. pycrdt and browsers recurse: pycrdt dies of SIGSEGV from about
6,000 (in a thread with a small stack), browsers throw RangeError from about 4,400."""

VALUES_MAX = 100_000
"""How many values may be nested in one, and how many a piece of JSON may have: what takes pycrdt some 10 ms."""
JSON_VALUES_MAX = 5_000
"""How many values of one item may need a stand-in, as all of ContentJSON do, which costs some microseconds each."""

MAGIC = b"crdt-sync:stand-in:"
"""How content that stands in for something that pycrdt can't hold begins; see `standins`."""

_MAGIC_TEXT = MAGIC.decode()


def refuse(what: str, pos: int) -> NoReturn:
    """Raise `MalformedUpdate`, naming the place."""
    raise MalformedUpdate(f"{what} (before byte {pos})")


# Marks the high bytes of low surrogates, U+DC00 to U+DFFF.
_IS_LOW_HALF = bytes(0xDC <= byte <= 0xDF for byte in range(256))


def low_halves(text: str, clock: int) -> Iterator[int]:
    """The clocks of the low halves of surrogate pairs in a string whose first UTF-16 unit has this clock."""
    high_bytes = text.encode("utf-16-le")[1::2]
    return compress(range(clock, clock + len(high_bytes)), high_bytes.translate(_IS_LOW_HALF))


def skip_any(data: bytes, pos: int, count: int, *, bounded: bool = False) -> tuple[int, bool, int]:
    """Walk over lib0 any-values.

    Args:
        data: A whole update.
        pos: Where the first value begins.
        count: How many values, at least 1.
        bounded: Whether only so many may be nested in them.

    Returns:
        The index after the last one, whether one of them is or holds something that pycrdt changes, and how many are
        nested in them.

    Raises:
        MalformedUpdate: Unknown type, nested too deep, too large a number.
        UpdateTooHeavy: More than `VALUES_MAX` are nested in them, or `JSON_VALUES_MAX` if pycrdt changes one.
        IndexError, UnicodeDecodeError, ProtocolError: As one would think.

    Source: lib0 `decoding.readAny`.
    """
    size = len(data)
    odd = False
    stack: list[tuple[int, bool]] = []
    in_object = False
    nested = 0
    while True:
        if not count:
            if not stack:
                break
            count, in_object = stack.pop()
            continue
        count -= 1
        if in_object:
            length = data[pos]
            if length < 128:
                pos += 1
            else:
                length, pos = read_var_uint(data, pos)
            data[pos : pos + length].decode()
            pos += length
        kind = data[pos]
        pos += 1
        if kind == 119:
            length = data[pos]
            if length < 128:
                pos += 1
            else:
                length, pos = read_var_uint(data, pos)
            data[pos : pos + length].decode()
            pos += length
        elif kind == 125:
            byte = data[pos]
            pos += 1
            if byte == 64:
                odd = True
            elif byte > 127:
                value, pos = _read_rest_of_var_int(data, pos - 1)
                if byte & 64 and not value:
                    odd = True
        elif 120 <= kind <= 127:
            if kind == 123:
                if data.startswith(b"\x80\0\0\0\0\0\0\0", pos):
                    odd = True
                pos += 8
            elif kind == 124:
                if data.startswith(b"\x80\0\0\0", pos):
                    odd = True
                pos += 4
            elif kind == 122:
                odd = True
                pos += 8
        elif kind == 117 or kind == 118:
            length, pos = read_var_uint(data, pos)
            if length > (size - pos) >> (kind - 117):
                refuse(f"{length} values announced in {size - pos} bytes", pos)
            stack.append((count, in_object))
            if len(stack) > ANY_DEPTH_MAX:
                refuse(f"a value nested more than {ANY_DEPTH_MAX} deep", pos)
            count = length
            in_object = kind == 118
            nested += length
            if bounded and nested > VALUES_MAX:
                raise UpdateTooHeavy(f"values nested in one: more than {VALUES_MAX}")
        elif kind == 116:
            length, pos = read_var_uint(data, pos)
            if data.startswith(MAGIC, pos):
                odd = True
            pos += length
        else:
            refuse(f"unknown kind of value {kind}", pos)
    if pos > size:
        raise IndexError
    if bounded and odd and nested > JSON_VALUES_MAX:
        raise UpdateTooHeavy(f"{nested} values nested in one, of which pycrdt can't hold each")
    return pos, odd, nested


def _read_rest_of_var_int(data: bytes, pos: int) -> tuple[int, int]:
    """Read the magnitude of a lib0 varInt (six bits and the sign in the first byte, seven in each other)."""
    value = data[pos] & 63
    high, end = read_var_uint(data, pos + 1)
    value += high << 6
    if value > MAX_SAFE_INTEGER:
        refuse("an integer larger than 2**53 - 1", end)
    return value, end


COMMON_JSON = frozenset((b"true", b"null", b"false", b'""', b"{}", b"0", b"1"))
"""Not worth a call of `is_odd_json`: they aren't."""
_PLAIN_JSON = re.compile(r'"[^"\\\x00-\x1f]*"|-?[1-9][0-9]{0,14}')
# What pycrdt refuses or changes: surrogates written as escapes; integers outside of i64; decimals, of which serde_json
# is off by one bit in a fifth of all cases unless they have at most 15 digits and no exponent; -0.
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_ODD_NUMBER = re.compile(r"[0-9][0-9.]{15}|[0-9][eE]|-0(?:\.0*)?(?![0-9.])")
_JSON_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_BRACKETS = re.compile(r"[\[\]{}]")

_YRS_JSON_DEPTH = 100
"""serde_json gives up at 128."""


class _NotJsonError(ValueError):
    pass


class _Numbers:
    """Looks at the numbers of one piece of JSON. JSON.parse knows no NaN and no Infinity, and has no limit on digits:
    numbers are checked, not converted."""

    def __init__(self) -> None:
        self.odd = False

    def see(self, text: str) -> int:
        if len(text) > 1 and _ODD_NUMBER.search(text) is not None:
            self.odd = True
        return 0

    def refuse_constant(self, name: str) -> NoReturn:
        raise _NotJsonError(name)


def is_odd_json(text: str, *, bounded: bool = False) -> bool:
    """Check that `JSON.parse` would take this; whether pycrdt would refuse or change it.

    Args:
        text: What should be JSON.
        bounded: Whether it may only hold so many values.

    Raises:
        MalformedUpdate: Not JSON, or nested too deep.
        UpdateTooHeavy: It holds more than `VALUES_MAX` values.

    Source: ECMA-404; yrs 0.28 parses with serde_json 1.0 (without `float_roundtrip`) into f64 and i64.
    """
    if _PLAIN_JSON.fullmatch(text) is not None:
        return _MAGIC_TEXT in text
    depth = 0
    opened = text.count("[") + text.count("{")
    if opened > _YRS_JSON_DEPTH:
        bare = _JSON_STRING.sub("", text)
        deepest = 0
        for bracket in _BRACKETS.findall(bare):
            depth += 1 if bracket in "[{" else -1
            deepest = max(deepest, depth)
        depth = deepest
    if depth > ANY_DEPTH_MAX:
        raise MalformedUpdate(f"JSON nested more than {ANY_DEPTH_MAX} deep")
    if bounded and len(text) > VALUES_MAX and opened + text.count(",") > VALUES_MAX:
        bare = _JSON_STRING.sub("", text)
        if bare.count("[") + bare.count("{") + bare.count(",") > VALUES_MAX:
            raise UpdateTooHeavy(f"JSON of more than {VALUES_MAX} values")
    numbers = _Numbers()
    decoder = json.JSONDecoder(parse_constant=numbers.refuse_constant, parse_int=numbers.see, parse_float=numbers.see)
    try:
        value = decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise MalformedUpdate(f"not JSON: {text[:40]!r}") from error
    if depth > _YRS_JSON_DEPTH or numbers.odd or _MAGIC_TEXT in text:
        return True
    if isinstance(value, str) and value.startswith(_MAGIC_TEXT):
        return True
    return "\\u" in text and _ESCAPED_SURROGATE.search(text) is not None
