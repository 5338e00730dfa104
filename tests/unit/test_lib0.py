import time

import pytest

from crdt_sync.errors import ProtocolError
from crdt_sync.lib0 import (
    MAX_SAFE_INTEGER,
    read_var_bytes,
    read_var_string,
    read_var_uint,
    write_var_bytes,
    write_var_uint,
)

# As lib0's `encoding.writeVarUint` writes them.
NUMBERS = {
    0: "00",
    1: "01",
    127: "7f",
    128: "8001",
    300: "ac02",
    16383: "ff7f",
    16384: "808001",
    2**31: "8080808008",
    2**32 - 1: "ffffffff0f",
    MAX_SAFE_INTEGER: "ffffffffffffff0f",
}


@pytest.mark.parametrize(("value", "raw"), NUMBERS.items())
def test_number_is_read_and_written_as_lib0_does(value: int, raw: str) -> None:
    data = bytes.fromhex(raw)

    assert write_var_uint(value) == data
    assert read_var_uint(b"\xff" + data + b"\x05", 1) == (value, 1 + len(data))


def test_padded_number_of_eight_bytes_is_read() -> None:
    assert read_var_uint(b"\x81\x80\x80\x80\x80\x80\x80\x00", 0) == (1, 8)


@pytest.mark.parametrize("raw", ["", "80", "ffff", "80808080808080"])
def test_truncated_number_is_refused(raw: str) -> None:
    with pytest.raises(ProtocolError, match="ends inside"):
        read_var_uint(bytes.fromhex(raw), 0)


@pytest.mark.parametrize("raw", ["8080808080808010", "ffffffffffffff7f", "808080808080808000", "ff" * 20])
def test_number_beyond_javascripts_integers_is_refused(raw: str) -> None:
    with pytest.raises(ProtocolError, match=r"2\*\*53"):
        read_var_uint(bytes.fromhex(raw), 0)


def test_long_run_of_continuation_bytes_costs_nothing() -> None:
    data = b"\x80" * 1_000_000

    started = time.process_time()
    for _ in range(1000):
        with pytest.raises(ProtocolError):
            read_var_uint(data, 0)

    assert time.process_time() - started < 1


@pytest.mark.parametrize("value", [-1, MAX_SAFE_INTEGER + 1])
def test_number_that_no_peer_could_read_is_not_written(value: int) -> None:
    with pytest.raises(AssertionError):
        write_var_uint(value)


@pytest.mark.parametrize("value", [b"", b"a", b"\xff\0", b"x" * 127, b"x" * 128, b"x" * 100_000])
def test_bytes_come_back(value: bytes) -> None:
    data = write_var_bytes(value)

    assert read_var_bytes(b"\x09" + data, 1) == (value, 1 + len(data))


@pytest.mark.parametrize("raw", ["01", "0261", "ffffffff0f61", "ffffffffffffff0f61"])
def test_bytes_that_are_not_there_are_refused(raw: str) -> None:
    with pytest.raises(ProtocolError, match="announced"):
        read_var_bytes(bytes.fromhex(raw), 0)


@pytest.mark.parametrize("value", ["", "a", "ü", "漢字", "😀", "\ufeffx", "\0", "x" * 300])
def test_length_of_a_string_counts_bytes(value: str) -> None:
    raw = value.encode()

    assert read_var_string(write_var_bytes(raw) + b"!", 0) == (value, len(write_var_bytes(raw)))


@pytest.mark.parametrize("raw", ["ff", "c080", "eda0bd", "f4908080", "e282", "f09f98"])
def test_string_that_is_not_utf8_is_refused(raw: str) -> None:
    with pytest.raises(ProtocolError, match="UTF-8"):
        read_var_string(write_var_bytes(bytes.fromhex(raw)), 0)
