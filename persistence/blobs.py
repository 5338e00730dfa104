"""How a snapshot's parts become blobs: updates joined into one, and large ones compressed.

Compression happens here and not in the database, so that the network, the write-ahead log and backups get the small
form too. On Yjs states zstd is three to five times faster than zlib at about the same size, and a fifth smaller than what
PostgreSQL could do by itself (`benchmarks/state_codecs.py`). A blob says in its first byte what it is; the frame carries a
checksum.
"""

from collections.abc import Sequence
from typing import Final

import zstandard

from persistence.store import StoreCorrupt

# Below this size the bytes saved are fewer than a page's worth of rows would notice.
PACK_BYTES_MIN: Final = 512
_LEVEL: Final = 3
# No flipped bit makes one of the other.
_RAW: Final = b"\xa5"
_ZSTD: Final = b"\x5a"


def pack(data: bytes) -> bytes:
    """Compress if that pays. The GIL is free meanwhile: large ones belong in a thread."""
    if len(data) >= PACK_BYTES_MIN:
        packed = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(data)
        if len(packed) < len(data):
            return _ZSTD + packed
    return _RAW + data


def unpack(blob: bytes) -> bytes:
    """Undo `pack`.

    Raises:
        StoreCorrupt: It isn't what `pack` wrote.
    """
    kind, data = blob[:1], blob[1:]
    if kind == _RAW:
        return data
    if kind != _ZSTD:
        raise StoreCorrupt(f"a stored blob starts with {kind!r}, which says nothing")
    try:
        return zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise StoreCorrupt(f"a compressed blob of {len(blob)} bytes can't be read: {error}") from error


def encode_waiting(waiting: Sequence[bytes]) -> bytes:
    """Join updates into one blob: each has its length before it, 4 bytes, most significant first."""
    return b"".join(part for update in waiting for part in (len(update).to_bytes(4, "big"), update))


def decode_waiting(blob: bytes) -> tuple[bytes, ...]:
    """Undo `encode_waiting`.

    Raises:
        StoreCorrupt: The blob ends inside an update or a length.
    """
    updates = []
    pos = 0
    while pos < len(blob):
        start = pos + 4
        pos = start + int.from_bytes(blob[pos:start], "big")
        if start > len(blob) or pos > len(blob):
            raise StoreCorrupt(f"waiting updates end at byte {len(blob)}, inside an update")
        updates.append(blob[start:pos])
    return tuple(updates)
