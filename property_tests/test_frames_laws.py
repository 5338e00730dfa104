"""Laws of WebSocket frames: whatever a client sends, in whatever pieces, means what it means to `websockets`, too."""

import struct
import time
import zlib
from collections.abc import Sequence

from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, SERVER, Event, Protocol, State

from crdt_sync.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    INVALID_DATA,
    NO_CODE,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    InvalidFrame,
    Message,
    Reader,
    read_close,
    write_binary,
    write_close,
    write_control,
)

BYTES_MAX = 70_000
LENGTHS = (0, 1, 2, 124, 125, 126, 127, 4095, 65_535, 65_536, BYTES_MAX, BYTES_MAX + 1)

MASKS = st.one_of(st.just(bytes(4)), st.binary(min_size=4, max_size=4))
TEXTS = st.one_of(st.text(max_size=20).map(str.encode), st.binary(max_size=6))
PAYLOADS = st.one_of(
    st.binary(max_size=10),
    TEXTS,
    st.builds(lambda size, seed: (seed * size)[:size], st.sampled_from(LENGTHS), st.binary(min_size=1, max_size=9)),
)
CODES = st.one_of(
    st.integers(0, 5100), st.sampled_from([999, 1000, 1004, 1005, 1006, 1014, 1015, 2999, 3000, 4999, 5000])
)
GOODBYES = st.one_of(
    st.just(b""), st.binary(max_size=3), st.builds(lambda code, why: struct.pack("!H", code) + why, CODES, TEXTS)
)


def masked(payload: bytes, mask: bytes) -> bytes:
    return bytes(each ^ mask[index % 4] for index, each in enumerate(payload)) if any(mask) else payload


def client_frame(
    kind: int,
    payload: bytes,
    mask: bytes = bytes(4),
    *,
    fin: bool = True,
    reserved: int = 0,
    unmasked: bool = False,
    length_bytes: int | None = None,
    claimed: int | None = None,
) -> bytes:
    """One frame, legal or not; its length takes 0, 2 or 8 bytes more than it could, if `length_bytes` says so."""
    size = len(payload) if claimed is None else claimed
    least = 0 if size < 126 else 2 if size < 1 << 16 else 8
    length_bytes = max(least, length_bytes or 0)
    head = bytes(
        (
            (0x80 if fin else 0) | reserved << 4 | kind,
            (0 if unmasked else 0x80) | {0: size, 2: 126, 8: 127}[length_bytes],
        )
    )
    length = size.to_bytes(length_bytes) if length_bytes else b""
    return head + length + (payload if unmasked else mask + masked(payload, mask))


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame with one fault at most; which frames may follow each other is left to chance, which favours what is legal."""
    kind = draw(st.sampled_from([BINARY, BINARY, TEXT, CONTINUATION, CONTINUATION, PING, PONG, CLOSE]))
    control = bool(kind & 8)
    payload = draw(GOODBYES if kind == CLOSE else st.binary(max_size=125) if control else PAYLOADS)
    fin = control or draw(st.booleans())
    mask = draw(MASKS)
    fault = draw(
        st.sampled_from([None] * 12 + ["reserved", "kind", "unmasked", "long", "pieces", "claim", "large control"])
    )
    match fault:
        case "reserved":
            return client_frame(kind, payload[:100], mask, fin=fin, reserved=draw(st.integers(1, 7)))
        case "kind":
            return client_frame(draw(st.sampled_from([3, 4, 5, 6, 7, 11, 12, 13, 14, 15])), payload[:100], mask)
        case "unmasked":
            return client_frame(kind, payload, fin=fin, unmasked=True)
        case "long" if not control:
            # More bytes for the length than are needed: against the RFC, but no reader minds.
            return client_frame(kind, payload, mask, fin=fin, length_bytes=draw(st.sampled_from([2, 8])))
        case "pieces" if control:
            return client_frame(kind, payload, mask, fin=False)
        case "claim" if not control:
            return client_frame(kind, b"", mask, fin=fin, claimed=draw(st.integers(BYTES_MAX + 1, (1 << 64) - 1)))
        case "large control" if control:
            return client_frame(kind, bytes(draw(st.integers(126, 200))), mask)
    return client_frame(kind, payload, mask, fin=fin)


def pieces_of(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut as the sizes say, over and over."""
    pieces, pos, turn = [], 0, 0
    while pos < len(data):
        # Large messages aren't cut into single bytes, which would take long.
        size = max(sizes[turn % len(sizes)], len(data) // 2000)
        pieces.append(data[pos : pos + size])
        pos, turn = pos + size, turn + 1
    return pieces


def as_websockets_reads(data: bytes) -> tuple[list[Message], int | None]:
    """The messages and the error of websockets' own protocol, of which its caller puts fragments together."""
    protocol = Protocol(SERVER, state=State.OPEN, max_size=BYTES_MAX)
    protocol.receive_data(data)
    messages: list[Message] = []
    kind, parts = CONTINUATION, b""
    for event in protocol.events_received():
        found = frame_of(event)
        if found.opcode & 8:
            messages.append((int(found.opcode), bytes(found.data)))
            continue
        kind = kind if found.opcode == Opcode.CONT else int(found.opcode)
        parts += found.data
        if found.fin:
            if kind == TEXT and not is_utf8(parts):
                return messages, INVALID_DATA
            messages.append((kind, parts))
            parts = b""
    error = None
    if protocol.parser_exc is not None:
        assert protocol.close_sent is not None
        error = protocol.close_sent.code
    return messages, error


def frame_of(event: Event) -> Frame:
    assert isinstance(event, Frame)
    return event


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def as_we_read(pieces: Sequence[bytes]) -> tuple[list[Message], int | None]:
    """Up to a close frame, which ends it, as it does in `transport`."""
    reader = Reader(BYTES_MAX)
    messages: list[Message] = []
    for piece in pieces:
        for message in reader.read(piece):
            messages.append(message)
            if message[0] == CLOSE:
                try:
                    read_close(message[1])
                except InvalidFrame as error:
                    return messages[:-1], error.code
                return messages, None
    return messages, reader.error.code if reader.error else None


def closes(messages: list[Message]) -> bool:
    return bool(messages) and messages[-1][0] == CLOSE


def shortened(messages: list[Message]) -> list[tuple[int, int, int]]:
    return [(kind, len(payload), zlib.crc32(payload)) for kind, payload in messages]


class Sent(bytes):
    """One frame, of which a report of a failure shows the beginning."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes: {self[:20].hex(' ')}>"


FRAMES = st.lists(frames().map(Sent), max_size=8)
CUTS = st.lists(st.integers(1, 5000), min_size=1, max_size=5)


@given(FRAMES, CUTS)
@example([Sent(client_frame(BINARY, b"x" * 65_536))], [1])
@example([Sent(client_frame(BINARY, b"", fin=False)), Sent(client_frame(BINARY, b""))], [3])
@example([Sent(client_frame(BINARY, b"x" * 124, length_bytes=2))], [3])
@settings(max_examples=300, deadline=None)
def test_what_a_client_sends_means_what_it_means_to_websockets(sent: list[Sent], sizes: list[int]) -> None:
    data = b"".join(sent)

    theirs, their_error = as_websockets_reads(data)
    # As a client that has time sends them, each frame comes by itself.
    for pieces in (pieces_of(data, sizes), sent):
        ours, our_error = as_we_read(pieces)
        compare(ours, our_error, theirs, their_error)


def compare(ours: list[Message], our_error: int | None, theirs: list[Message], their_error: int | None) -> None:
    if closes(ours) and not closes(theirs):
        # RFC 6455, 5.4: any control frame may come between fragments. To websockets, a close frame is an error there.
        ours, our_error = ours[:-1], PROTOCOL_ERROR
    assert shortened(ours) == shortened(theirs)
    # Of two faults in one frame, websockets names the size, or the text, first.
    assert our_error == their_error or (our_error == PROTOCOL_ERROR and their_error in (TOO_BIG, INVALID_DATA))


@given(FRAMES, CUTS)
@example([Sent(client_frame(BINARY, b"", fin=False)), Sent(client_frame(BINARY, b""))], [3])
@settings(max_examples=200, deadline=None)
def test_how_it_is_cut_makes_no_difference(sent: list[Sent], sizes: list[int]) -> None:
    data = b"".join(sent)

    whole = Reader(BYTES_MAX)
    at_once = whole.read(data)
    for pieces in (pieces_of(data, sizes), sent):
        cut = Reader(BYTES_MAX)
        bit_by_bit = [message for piece in pieces for message in cut.read(piece)]

        assert bit_by_bit == at_once
        assert (cut.error and cut.error.code) == (whole.error and whole.error.code)
        assert cut.frames == whole.frames
        if whole.error is None:
            assert cut.held == whole.held


@given(FRAMES, CUTS)
@settings(max_examples=200, deadline=None)
def test_what_is_held_is_what_came_of_an_unfinished_message_and_bounded(sent: list[Sent], sizes: list[int]) -> None:
    reader = Reader(BYTES_MAX)

    for piece in pieces_of(b"".join(sent), sizes):
        reader.read(piece)

        left = len(reader._left) if reader._left is not None else 0
        assert reader.held == sum(len(each) for each in reader.fragments) + left
        # A message of the largest size, the head of one more frame, and nothing but the frame that isn't complete.
        assert reader.held <= BYTES_MAX + 14
        if reader.error is not None:
            assert reader.read(b"more") == []
            break
    reader.forget()

    assert (reader.held, reader.fragments) == (0, [])


@given(st.binary(max_size=400), st.lists(st.integers(1, 50), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_messages_or_an_error(data: bytes, sizes: list[int]) -> None:
    whole, cut = Reader(BYTES_MAX), Reader(BYTES_MAX)

    at_once = whole.read(data)
    bit_by_bit = [message for piece in pieces_of(data, sizes) for message in cut.read(piece)]

    assert bit_by_bit == at_once
    assert (cut.error is None) == (whole.error is None)


@given(PAYLOADS, st.integers(3000, 4999), st.text(max_size=200), st.binary(max_size=125), st.sampled_from([PING, PONG]))
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_what_a_client_reads(payload: bytes, code: int, why: str, ping: bytes, kind: int) -> None:
    client = Protocol(CLIENT, state=State.OPEN, max_size=None)

    client.receive_data(write_binary(payload) + write_control(kind, ping) + write_close(code, why))

    assert client.parser_exc is None
    message, control, goodbye = [frame_of(event) for event in client.events_received()]
    assert (message.opcode, message.data) == (Opcode.BINARY, payload)
    assert (control.opcode, control.data) == (kind, ping)
    said = Close.parse(goodbye.data)
    assert said.code == code
    assert why.startswith(said.reason)
    assert said.reason == why or len(said.reason.encode()) > 123 - 4


def test_no_code_is_a_close_frame_without_one() -> None:
    client = Protocol(CLIENT, state=State.OPEN)

    client.receive_data(write_close(NO_CODE, "never said"))

    assert client.close_rcvd == Close(1005, "")


def test_a_large_message_in_small_pieces_costs_no_more_for_each_piece() -> None:
    data = client_frame(BINARY, bytes(16 << 20))
    pieces = [data[at : at + 2048] for at in range(0, len(data), 2048)]
    reader = Reader(16 << 20)

    began_at = time.process_time()
    messages = [message for piece in pieces for message in reader.read(piece)]
    took_s = time.process_time() - began_at

    assert [len(payload) for _, payload in messages] == [16 << 20]
    # Some 0.03 s; if each piece cost as much as all before it, 64 GiB would be copied.
    assert took_s < 2
