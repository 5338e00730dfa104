"""Pictures that move: PNGs as frames of one APNG (https://www.w3.org/TR/png-3/#apng-frame-based-animation)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Frame:
    """What changes, where, and for how long it is shown."""

    png: bytes
    """The first one is the whole picture. All have one colour type. What was there before shows through."""
    x: int
    y: int
    shown_ms: int


def animate(frames: Sequence[Frame]) -> bytes:
    """Make one picture that shows each frame on top of those before, once, and stays at the last."""
    head = next(data for kind, data in _chunks(frames[0].png) if kind == b"IHDR")
    parts = [_SIGNATURE, _chunk(b"IHDR", head), _chunk(b"acTL", struct.pack(">II", len(frames), 1))]
    number = 0
    for index, frame in enumerate(frames):
        chunks = list(_chunks(frame.png))
        own = next(data for kind, data in chunks if kind == b"IHDR")
        assert own[8:] == head[8:], "all frames have the same colour type"
        size = own[:8]
        control = (
            struct.pack(">I", number) + size + struct.pack(">IIHHBB", frame.x, frame.y, frame.shown_ms, 1000, 0, 1)
        )
        parts.append(_chunk(b"fcTL", control))
        number += 1
        for data in (data for kind, data in chunks if kind == b"IDAT"):
            if index == 0:
                parts.append(_chunk(b"IDAT", data))
            else:
                parts.append(_chunk(b"fdAT", struct.pack(">I", number) + data))
                number += 1
    parts.append(_chunk(b"IEND", b""))
    return b"".join(parts)


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        at += 12 + size


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
