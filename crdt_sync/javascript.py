"""The values that a document holds, as Python has them, and as JSON or JavaScript's `String` writes them.

| In JavaScript | In Python | JSON | tagged JSON |
|---|---|---|---|
| `undefined` | `UNDEFINED` | null, or no member | `{"$": "undefined"}` |
| bigint | `BigInt` | its digits as a string | `{"$": "bigint", "value": "1"}` |
| number | int if it is a safe integer, else float | the number | the number |
| NaN, an infinity, -0 | float | null, null, 0 | `{"$": "number", "value": "NaN"}` |
| Uint8Array | bytes | base64 | `{"$": "binary", "value": "AQID"}` |
| subdocument | `Subdocument` | `{"guid": "…"}` | `{"$": "subdocument", "guid": "…", "options": {…}}` |
| object with a member `$` | dict | the object | `{"$": "object", "value": {…}}` |

Both kinds of JSON are strict: `json.dumps` takes them with `allow_nan=False`, and UTF-8 can encode them. Members are
sorted by key, so that the same document reads the same wherever it was loaded.

Recursive along values, which `values` bounds at `ANY_DEPTH_MAX`. Source: lib0 `decoding.readAny`; ECMA-262.
"""

import base64
import json
import math
import re
import struct
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from .lib0 import MAX_SAFE_INTEGER, read_var_bytes, read_var_string, read_var_uint


class _Undefined(Enum):
    UNDEFINED = "undefined"


UNDEFINED: Final = _Undefined.UNDEFINED


class BigInt(int):
    """A bigint: equal to the number, but another value in JavaScript."""


@dataclass(frozen=True, slots=True)
class Subdocument:
    """A document inside of a document. Only named here; its content is a room of its own, if anything."""

    guid: str
    options: dict[str, Any]


# ------------------------------------------------------------------------------------------------------------
# Out of the bytes. Both take what `read_update` has accepted.


def read_any(data: bytes, pos: int) -> tuple[Any, int]:
    """Read one lib0 any-value: the value, and the index after it."""
    kind = data[pos]
    pos += 1
    if kind == 119:
        return read_var_string(data, pos)
    if kind == 125:
        return _read_var_int(data, pos)
    if kind == 118:
        count, pos = read_var_uint(data, pos)
        members = {}
        for _ in range(count):
            key, pos = read_var_string(data, pos)
            value, pos = read_any(data, pos)
            if key != "__proto__":  # lib0 assigns it, which adds no member
                members[key] = value
        return members, pos
    if kind == 117:
        count, pos = read_var_uint(data, pos)
        values = []
        for _ in range(count):
            value, pos = read_any(data, pos)
            values.append(value)
        return values, pos
    if kind == 116:
        return read_var_bytes(data, pos)
    if kind == 122:
        return BigInt(struct.unpack_from(">q", data, pos)[0]), pos + 8
    if kind == 123:
        return _number(struct.unpack_from(">d", data, pos)[0]), pos + 8
    if kind == 124:
        return _number(struct.unpack_from(">f", data, pos)[0]), pos + 4
    return {120: True, 121: False, 126: None, 127: UNDEFINED}[kind], pos


def _read_var_int(data: bytes, pos: int) -> tuple[int | float, int]:
    first = data[pos]
    value = first & 63
    pos += 1
    if first & 128:
        high, pos = read_var_uint(data, pos)
        value += high << 6
    if first & 64:
        return -value or -0.0, pos
    return value, pos


def parse_json(text: str) -> Any:
    """What `JSON.parse` makes of it; of "undefined", which ContentJSON may hold, `UNDEFINED`."""
    return UNDEFINED if text == "undefined" else _decode_json(text)


def _number(value: float) -> int | float:
    if value.is_integer() and abs(value) <= MAX_SAFE_INTEGER and (value or math.copysign(1, value) > 0):
        return int(value)
    return value


# JSON.parse has one kind of number.
_decode_json = json.JSONDecoder(
    parse_int=lambda text: _number(float(text)), parse_float=lambda text: _number(float(text))
).decode


# ------------------------------------------------------------------------------------------------------------
# And into other forms.


def well_formed(text: str) -> str:
    """The text, with U+FFFD for each half of a surrogate pair without the other: `toWellFormed`."""
    return _SURROGATE.sub("\ufffd", text) if _SURROGATE.search(text) is not None else text


_SURROGATE = re.compile("[\ud800-\udfff]")


def utf16_units(text: str) -> list[str]:
    """The text as JavaScript iterates over its indices: a surrogate pair is two."""
    units = text.encode("utf-16-le", "surrogatepass")
    return [units[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(units), 2)]


def to_json(value: Any) -> Any:
    """A value as JSON, like `JSON.stringify`, where that says anything."""
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, BigInt):
        return str(value)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value or 0 if math.isfinite(value) else None
    if isinstance(value, list):
        return [to_json(each) for each in value]
    if isinstance(value, dict):
        return {well_formed(key): to_json(each) for key, each in sorted(value.items()) if each is not UNDEFINED}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Subdocument):
        return {"guid": value.guid}
    return None


def to_tagged(value: Any) -> Any:
    """A value as JSON from which the value can be told."""
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, BigInt):
        return {"$": "bigint", "value": str(value)}
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        if not value or not math.isfinite(value):
            return {"$": "number", "value": to_string(value) if value else "-0"}
        return value
    if isinstance(value, list):
        return [to_tagged(each) for each in value]
    if isinstance(value, dict):
        members = {well_formed(key): to_tagged(each) for key, each in sorted(value.items())}
        return {"$": "object", "value": members} if "$" in members else members
    if isinstance(value, bytes):
        return {"$": "binary", "value": base64.b64encode(value).decode()}
    if isinstance(value, Subdocument):
        return {"$": "subdocument", "guid": value.guid, "options": to_tagged(value.options)}
    return {"$": "undefined"}


def to_string(value: Any) -> str:
    """What `String(value)` writes."""
    if isinstance(value, str):
        return well_formed(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number_to_string(value)
    if isinstance(value, list):
        return ",".join("" if each is None or each is UNDEFINED else to_string(each) for each in value)
    if isinstance(value, bytes):
        return ",".join(map(str, value))
    return "undefined" if value is UNDEFINED else "[object Object]"


def _number_to_string(value: float) -> str:
    """Source: ECMA-262, `Number::toString`. Python finds the same shortest digits."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "0"
    if value < 0:
        return "-" + _number_to_string(-value)
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = fraction.rstrip("0")
    digits = (whole + fraction).lstrip("0")
    # The value is 0.digits times ten to this power.
    power = int(exponent or 0) + len(digits) - len(fraction)
    digits = digits.rstrip("0")
    if len(digits) <= power <= 21:
        return digits.ljust(power, "0")
    if 0 < power <= 21:
        return f"{digits[:power]}.{digits[power:]}"
    if -6 < power <= 0:
        return "0." + "0" * -power + digits
    return f"{digits[0]}{'.' if len(digits) > 1 else ''}{digits[1:]}e{power - 1:+d}"
