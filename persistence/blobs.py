"""How a snapshot's parts become blobs: updates joined into one, and large ones compressed.

Compression happens here and not in the database, so that the network, the write-ahead log and backups get the small
form too. On Yjs states zstd is three to five times faster than zlib at about the same size, and a fifth smaller than what
PostgreSQL could do by itself (`benchmarks/state_codecs.py`). A blob says in its first byte what it is; the frame carries a
checksum.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

import zstandard

from persistence.store import ArchivedVersion, Snapshot, StoreCorrupt, VersionContent
from persistence.versions import Version

# Below this size the bytes saved are fewer than a page's worth of rows would notice.
PACK_BYTES_MIN: Final = 512
# Packing this much takes less than a millisecond; more of it is left to a thread.
PACK_INLINE_BYTES_MAX: Final = 64 << 10
_LEVEL: Final = 3
# No flipped bit makes one of the other.
_RAW: Final = b"\xa5"
_ZSTD: Final = b"\x5a"
ARCHIVED: Final = (b"", b"", b"")


def pack(data: bytes, *, bytes_min: int = PACK_BYTES_MIN) -> bytes:
    """Compress if that pays. The GIL is free meanwhile: large ones belong in a thread.

    Args:
        data: What to pack.
        bytes_min: Smaller ones are left as they are.
    """
    if len(data) >= bytes_min:
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


def pack_snapshot(snapshot: Snapshot) -> tuple[bytes, bytes, bytes]:
    """Return its state vector, waiting updates and state as blobs."""
    return snapshot.state_vector, pack(encode_waiting(snapshot.waiting)), pack(snapshot.state)


def unpack_snapshot(
    document: str, seq: int, *, state_vector: bytes, waiting: bytes, state: bytes, whole: bool
) -> Snapshot:
    """Undo `pack_snapshot`.

    Raises:
        StoreCorrupt: It isn't what that wrote.
    """
    return Snapshot(
        document,
        seq=seq,
        state=unpack(state),
        waiting=decode_waiting(unpack(waiting)),
        state_vector=state_vector,
        whole=whole,
    )


def pack_version(content: VersionContent | ArchivedVersion) -> tuple[bytes, tuple[bytes, bytes, bytes]]:
    """Return a version's digest and blobs. Those of an archived one are empty, as no others are: so its row says what it is."""
    if isinstance(content, ArchivedVersion):
        return content.digest, ARCHIVED
    blobs = pack_snapshot(content.snapshot)
    return digest_of(blobs), blobs


def unpack_version(
    document: str, version: Version, digest: bytes, blobs: Sequence[bytes]
) -> VersionContent | ArchivedVersion:
    """Undo `pack_version`.

    Args:
        document: Its name.
        version: What is known of the version.
        digest: What was written with it.
        blobs: What was read.

    Raises:
        StoreCorrupt: It isn't what was written.
    """
    if version.archived:
        return ArchivedVersion(version, digest)
    if digest_of(blobs) != digest:
        raise StoreCorrupt(f"version {version.id} of {document!r} isn't what was written: its digest is another")
    state_vector, waiting, state = blobs
    return VersionContent(
        version,
        unpack_snapshot(
            document,
            version.seq,
            state_vector=state_vector,
            waiting=waiting,
            state=state,
            whole=version.whole,
        ),
    )


def digest_of(blobs: Iterable[bytes]) -> bytes:
    """What the blobs of a version are recognised by; small ones have no checksum of their own."""
    return sha256(b"".join(blobs)).digest()
