"""Frames that are written past ASGI."""

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from crdt_sync.connection import Relayed
from crdt_sync.transport import _on_the_wire


def parsed(wire: bytes) -> Frame:
    """As a client reads it, with websockets' own parser."""
    reader = StreamReader()
    reader.feed_data(wire)
    try:
        next(Frame.parse(reader.read_exact, mask=False))
    except StopIteration as done:
        assert not reader.buffer, "there is more than one frame"
        frame: Frame = done.value
        return frame
    raise AssertionError("the frame has no end")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
@pytest.mark.parametrize("kind", [bytes, Relayed])
def test_a_frame_of_any_size_is_what_a_client_reads(size: int, kind: type[bytes]) -> None:
    frame = kind(b"x" * size)

    found = parsed(_on_the_wire(frame))

    assert (found.opcode, found.fin, found.data) == (Opcode.BINARY, True, frame)


def test_what_goes_to_many_is_made_once() -> None:
    frame = Relayed(b"x" * 1000)

    assert _on_the_wire(frame) is _on_the_wire(frame)
