"""How rows of a log become the chunks of a history, and what is put together from both.

A chunk is the `pack` of these, numbers with their least significant byte first:

    count         4 bytes        how many rows
    first_seq     8              seq of the first; the others follow without gaps
    first_at      8, signed      when it was accepted, in microseconds since 1970, UTC
    users_bytes   4
    users         users_bytes    JSON: an array of ids, with null for an unknown user
    later_us      8 each, signed how long after the row before it each row was accepted; 0 for the first
    user          2 each         index in users
    lengths       4 each         of the updates
    updates                      one after the other
    crc32         4              of all before
"""

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise, zip_longest
from typing import Final, TypeAlias

from persistence.blobs import pack, unpack
from persistence.moments import micros, moment
from persistence.store import HistoryTrimmed, Row, StoreCorrupt
from persistence.versions import Chunk, Span

# Who wants one row reads and unpacks its whole chunk.
CHUNK_ROWS_MAX: Final = 10_000
CHUNK_UPDATE_BYTES_MAX: Final = 4 << 20
# Likewise of rows, whatever is in them.
PACK_INLINE_ROWS_MAX: Final = 500
# Most chunks are small: some seconds of typing. Those of ten updates are half as large compressed.
_PACK_BYTES_MIN: Final = 128
_HEAD: Final = struct.Struct("<IQqI")

# A row with its moment as a number, see `moments`: seq, update, user's id, microseconds.
NumberedRow: TypeAlias = tuple[int, bytes, str | None, int]


def users_of(rows: Iterable[Row]) -> tuple[str | None, ...]:
    """Who wrote them: each once, in order of their code points, with None at the end."""
    return sorted_users({row.user_id for row in rows})


def sorted_users(users: Iterable[str | None]) -> tuple[str | None, ...]:
    """Put users in the order that `Span.users` has."""
    return tuple(sorted(users, key=lambda user: (user is None, user or "")))


def pack_rows(rows: Sequence[Row]) -> list[Chunk]:
    """Pack rows into chunks: one, unless they are many, or some are missing in between. As slow as `pack`.

    Args:
        rows: In seq order.
    """
    return pack_numbered([(row.seq, row.update, row.user_id, micros(row.accepted_at)) for row in rows])


def pack_numbered(rows: Sequence[NumberedRow]) -> list[Chunk]:
    """Do what `pack_rows` does, for rows that come with numbers."""
    return [_pack_run(run) for run in _runs(rows)]


def unpack_rows(document: str, chunk: Chunk) -> list[Row]:
    """Undo `pack_rows`.

    Args:
        document: Whose it is, for the error.
        chunk: One of the chunks.

    Raises:
        StoreCorrupt: The blob isn't what was written, or belongs elsewhere.
    """
    try:
        rows = _decode_rows(unpack(chunk.blob))
    except StoreCorrupt as error:
        raise StoreCorrupt(
            f"the history of {document!r} is damaged at seqs {chunk.first_seq} to {chunk.last_seq}: {error}"
        ) from error
    if not rows or (rows[0].seq, rows[-1].seq) != (chunk.first_seq, chunk.last_seq):
        raise StoreCorrupt(
            f"the history of {document!r} has other updates where {chunk.first_seq} to {chunk.last_seq} should be"
        )
    return rows


def span_of(rows: Sequence[Row]) -> Span:
    """Sum up rows, of which there is one at least, in seq order."""
    times = [row.accepted_at for row in rows]
    return Span(
        rows[0].seq,
        rows[-1].seq,
        from_at=min(times),
        until_at=max(times),
        users=users_of(rows),
        log_bytes=sum(len(row.update) for row in rows),
    )


def without_blob(chunk: Chunk) -> Span:
    """Return what a timeline shows of a chunk."""
    return Span(chunk.first_seq, chunk.last_seq, chunk.from_at, chunk.until_at, chunk.users, chunk.log_bytes)


def refuse_trimmed(document: str, first: int, kept_from: int) -> None:
    """Raise `HistoryTrimmed` if `first` is before what is kept."""
    if first < kept_from:
        raise HistoryTrimmed(f"what is kept of {document!r} begins at seq {kept_from}, after {first}")


def rows_between(document: str, chunks: Iterable[Chunk], rows: Iterable[Row], *, first: int, last: int) -> list[Row]:
    """Pick the rows from `first` to `last` out of what was read.

    Args:
        document: Its name, for the errors.
        chunks: All that have some of them, in seq order.
        rows: Those of the log, in seq order.
        first: Seq of the first.
        last: Seq of the last.

    Raises:
        StoreCorrupt: One is missing, or a chunk is damaged.
    """
    unpacked = (row for chunk in chunks for row in unpack_rows(document, chunk))
    found = [row for part in (unpacked, rows) for row in part if first <= row.seq <= last]
    for seq, row in zip_longest(range(first, last + 1), found):
        if row is None or row.seq != seq:
            raise StoreCorrupt(f"update {seq} of {document!r} is missing, of those from {first} to {last}")
    return found


def _runs(rows: Sequence[NumberedRow]) -> Iterator[Sequence[NumberedRow]]:
    start = size = 0
    for i, (seq, update, _, _) in enumerate(rows):
        size += len(update)
        if i > start and (seq != rows[i - 1][0] + 1 or size > CHUNK_UPDATE_BYTES_MAX or i - start >= CHUNK_ROWS_MAX):
            yield rows[start:i]
            start, size = i, len(update)
    if rows:
        yield rows[start:]


def _pack_run(rows: Sequence[NumberedRow]) -> Chunk:
    seqs, updates, authors, times = zip(*rows, strict=True)
    users, lengths = sorted_users(set(authors)), list(map(len, updates))
    count, ids = len(rows), json.dumps(users).encode()
    index = {user: i for i, user in enumerate(users)}
    data = b"".join(
        (
            _HEAD.pack(count, seqs[0], times[0], len(ids)),
            ids,
            struct.pack(f"<{count}q", 0, *map(int.__sub__, times[1:], times)),
            struct.pack(f"<{count}H", *map(index.__getitem__, authors)),
            struct.pack(f"<{count}I", *lengths),
            *updates,
        )
    )
    return Chunk(
        seqs[0],
        seqs[-1],
        from_at=moment(min(times)),
        until_at=moment(max(times)),
        users=users,
        log_bytes=sum(lengths),
        blob=pack(data + zlib.crc32(data).to_bytes(4, "little"), bytes_min=_PACK_BYTES_MIN),
    )


def _decode_rows(data: bytes) -> list[Row]:
    if len(data) < _HEAD.size or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise StoreCorrupt(f"the checksum of {len(data)} bytes is wrong")
    count, first_seq, first_at, users_bytes = _HEAD.unpack_from(data)
    pos = _HEAD.size + users_bytes
    users = json.loads(data[_HEAD.size : pos])
    later, authors, lengths = (
        struct.unpack_from(f"<{count}{code}", data, pos + count * before)
        for code, before in (("q", 0), ("H", 8), ("I", 10))
    )
    ends = accumulate(lengths, initial=pos + count * 14)
    times = accumulate(later, initial=first_at)
    next(times)
    return [
        Row(seq, data[start:end], users[author], moment(at))
        for seq, author, at, (start, end) in zip(
            range(first_seq, first_seq + count), authors, times, pairwise(ends), strict=True
        )
    ]
