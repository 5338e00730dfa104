"""The binary primitives of lib0, strictly bounded.

Owns varUint, varUint8Array and varString. Leaves what the numbers mean to `update`, `protocol` and
`awareness`. Every reader takes a whole frame and a position, and returns the value with the position just after
it. None of them allocates more than the frame holds, or takes longer than linear time.

Source: lib0 `decoding.js` and `encoding.js`; y-protocols PROTOCOL.md, "Base encoding approaches".
"""

from .errors import ProtocolError

MAX_SAFE_INTEGER = 2**53 - 1
"""JavaScript's `Number.MAX_SAFE_INTEGER`, the largest number that lib0 reads."""

# Eight groups of seven bits hold any MAX_SAFE_INTEGER. More can only be padding, and would cost quadratic time.
_SHIFTS = (7, 14, 21, 28, 35, 42, 49)


def read_var_uint(data: bytes, pos: int) -> tuple[int, int]:
    """Read one lib0 varUint.

    Seven bits per byte, least significant group first; a set high bit says another byte follows.

    Args:
        data: A whole frame.
        pos: Index of the first byte to read, `0 <= pos <= len(data)`.

    Returns:
        The value, `0 <= value < 2**53`, and the index just after it.

    Raises:
        ProtocolError: The frame ends inside the number, or the number is larger than JavaScript's
            `Number.MAX_SAFE_INTEGER` or longer than eight bytes.

    Source: lib0 `decoding.readVarUint`.
    """
    try:
        byte = data[pos]
        pos += 1
        if byte < 128:
            return byte, pos
        value = byte & 127
        for shift in _SHIFTS:
            byte = data[pos]
            pos += 1
            if byte < 128:
                value |= byte << shift
                if value > MAX_SAFE_INTEGER:
                    break
                return value, pos
            value |= (byte & 127) << shift
    except IndexError:
        raise ProtocolError(f"the frame of {len(data)} bytes ends inside a number") from None
    raise ProtocolError(f"the number that ends before byte {pos} is larger than 2**53 - 1 or longer than 8 bytes")


def read_var_uints(data: bytes, pos: int, count: int) -> tuple[list[int], int]:
    """Read `count` varUints, one after the other: a third of the time that `read_var_uint` takes for each.

    Raises:
        ProtocolError: As for `read_var_uint`.
    """
    values: list[int] = []
    append = values.append
    try:
        for _ in range(count):
            value = data[pos]
            pos += 1
            if value > 127:
                value &= 127
                for shift in _SHIFTS:
                    byte = data[pos]
                    pos += 1
                    if byte < 128:
                        value |= byte << shift
                        break
                    value |= (byte & 127) << shift
                else:
                    raise ProtocolError(f"the number that ends before byte {pos} is longer than 8 bytes")
                if value > MAX_SAFE_INTEGER:
                    raise ProtocolError(f"the number that ends before byte {pos} is larger than 2**53 - 1")
            append(value)
    except IndexError:
        raise ProtocolError(f"the frame of {len(data)} bytes ends inside a number") from None
    return values, pos


def read_var_bytes(data: bytes, pos: int) -> tuple[bytes, int]:
    """Read one lib0 varUint8Array: its length in bytes, then the bytes.

    Returns:
        The bytes and the index just after them.

    Raises:
        ProtocolError: The frame ends before the bytes do.

    Source: lib0 `decoding.readVarUint8Array`.
    """
    length, pos = read_var_uint(data, pos)
    end = pos + length
    if end > len(data):
        raise ProtocolError(f"{length} bytes announced at byte {pos}, {len(data) - pos} left")
    return data[pos:end], end


def read_var_string(data: bytes, pos: int) -> tuple[str, int]:
    """Read one lib0 varString: its length in *bytes*, then UTF-8.

    Strict, like JavaScript's `TextDecoder` with `fatal: true`: no surrogates, no overlong forms. A byte order
    mark is content.

    Returns:
        The string and the index just after it.

    Raises:
        ProtocolError: The frame ends before the string does, or the bytes are not UTF-8.

    Source: lib0 `decoding.readVarString`.
    """
    raw, end = read_var_bytes(data, pos)
    try:
        return raw.decode(), end
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the string before byte {end} is not UTF-8") from error


def write_var_uint(value: int) -> bytes:
    """Write one lib0 varUint, in as few bytes as it takes. `value` must be in `[0, 2**53)`."""
    assert 0 <= value <= MAX_SAFE_INTEGER, value
    if value < 128:
        return bytes((value,))
    # Of what is written, most is a client's clock or the length of a message.
    if value < 1 << 14:
        return bytes((value & 127 | 128, value >> 7))
    if value < 1 << 21:
        return bytes((value & 127 | 128, value >> 7 & 127 | 128, value >> 14))
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_var_bytes(value: bytes) -> bytes:
    """Write one lib0 varUint8Array; of a string's UTF-8 it makes a varString."""
    return write_var_uint(len(value)) + value
