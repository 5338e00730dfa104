"""Blobs: whatever goes in comes out, and what isn't a blob is noticed."""

import os

import pytest

from persistence import StoreCorrupt
from persistence.blobs import PACK_BYTES_MIN, pack, unpack


@pytest.mark.parametrize("data", [b"", b"\0", b"\1", b"x" * PACK_BYTES_MIN, b"trip " * 100_000, os.urandom(5000)])
def test_what_is_packed_is_unpacked(data: bytes) -> None:
    assert unpack(pack(data)) == data


def test_what_cannot_be_made_smaller_is_left_as_it_is() -> None:
    data = os.urandom(5000)

    assert len(pack(data)) == len(data) + 1


@pytest.mark.parametrize("blob", [b"", b"abc", b"\x5a", b"\x5aabc", pack(b"trip " * 1000)[:-1]])
def test_what_pack_did_not_write_is_corrupt(blob: bytes) -> None:
    with pytest.raises(StoreCorrupt):
        unpack(blob)


def test_a_flipped_bit_never_makes_other_data() -> None:
    data = b"".join(b"place %d " % i for i in range(2000))
    blob = pack(data)
    noticed = 0

    for position in range(0, len(blob), 37):
        flipped = bytearray(blob)
        flipped[position] ^= 1
        try:
            assert unpack(bytes(flipped)) == data, "a bit that says nothing"
        except StoreCorrupt:
            noticed += 1

    assert noticed > len(blob) // 37 - 2
