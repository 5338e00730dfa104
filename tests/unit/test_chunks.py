"""Chunks: those that are stored can be read by every later release, and damaged ones by none."""

from datetime import UTC, datetime, timedelta

import pytest

from persistence import Chunk, Row, StoreCorrupt
from persistence.blobs import pack, unpack
from persistence.chunks import pack_rows, unpack_rows

NOW = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
ROWS = [
    Row(7, b"abc", "ann", NOW),
    Row(8, b"", None, NOW - timedelta(microseconds=1)),
    Row(9, b"d", "zoë", NOW + timedelta(seconds=1)),
]
# As the documentation of `chunks` has it.
WRITTEN = bytes.fromhex(
    "03000000 0700000000000000 807e8e27f5500600 19000000"
    "5b22616e6e222c20227a6f5c7530306562222c206e756c6c5d"
    "0000000000000000 ffffffffffffffff 41420f0000000000 0000 0200 0100 03000000 00000000 01000000 61626364 58401c76"
)


def test_chunk_of_this_release_is_what_every_release_writes() -> None:
    (chunk,) = pack_rows(ROWS)

    assert unpack(chunk.blob) == WRITTEN
    assert unpack_rows("x", chunk) == ROWS


@pytest.mark.parametrize("data", [b"", b"\0", b"\0" * 24, b"\0" * 4, WRITTEN[:-1], WRITTEN + b"\0"])
def test_what_is_no_chunk_is_corrupt(data: bytes) -> None:
    with pytest.raises(StoreCorrupt, match="history of 'x'"):
        unpack_rows("x", Chunk(7, 9, NOW, NOW, (), 0, pack(data)))
