"""WebSocket frames by example. `property_tests/test_frames_laws.py` compares them with what websockets makes of them."""

import pytest

from crdt_sync.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    NO_CODE,
    PING,
    PONG,
    TEXT,
    TOO_BIG,
    InvalidFrame,
    Reader,
    read_close,
    write_binary,
    write_close,
    write_control,
)
from tests.support.raw import frame

# RFC 6455, 5.7: a masked "Hello".
HELLO = bytes.fromhex("8185 37fa213d 7f9f4d5158")


def test_the_example_of_the_rfc_is_read() -> None:
    assert Reader(100).read(HELLO) == [(TEXT, b"Hello")]


def test_a_frame_in_single_bytes_is_a_message_at_its_last_byte() -> None:
    reader = Reader(100)

    found = [reader.read(HELLO[at : at + 1]) for at in range(len(HELLO))]

    assert found == [[]] * (len(HELLO) - 1) + [[(TEXT, b"Hello")]]
    assert (reader.held, reader.frames) == (0, 1)


@pytest.mark.parametrize("size", [0, 3, 4, 125, 126])
def test_a_frame_by_itself_is_bounded_like_any_other(size: int) -> None:
    reader = Reader(3)

    found = reader.read(frame(BINARY, bytes(size)))

    assert found == ([(BINARY, bytes(size))] if size <= 3 else [])
    assert (reader.error and reader.error.code) == (None if size <= 3 else TOO_BIG)


def test_many_frames_in_one_piece_are_as_many_messages() -> None:
    reader = Reader(100)

    found = reader.read(frame(BINARY, b"1") + frame(PING, b"2") + frame(BINARY, b"") + frame(BINARY, b"3")[:-1])

    assert found == [(BINARY, b"1"), (PING, b"2"), (BINARY, b"")]
    assert (reader.held, reader.frames) == (6, 3)
    assert reader.read(b"3") == [(BINARY, b"3")]


def test_fragments_are_one_message_and_control_frames_come_between_them() -> None:
    reader = Reader(100)

    found = [
        reader.read(frame(BINARY, b"1", fin=False)),
        reader.read(frame(PING, b"p") + frame(CONTINUATION, b"", fin=False) + frame(PONG, b"q")),
        reader.read(frame(CONTINUATION, b"2")),
        reader.read(frame(BINARY, b"3")),
    ]

    assert found == [[], [(PING, b"p"), (PONG, b"q")], [(BINARY, b"12")], [(BINARY, b"3")]]
    assert reader.frames == 6


def test_a_character_may_be_cut_by_fragments() -> None:
    reader = Reader(100)

    assert reader.read(frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"\xbc")) == [(TEXT, "ü".encode())]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(BINARY | 0x40, b""), 1002),
        (frame(BINARY | 0x20, b""), 1002),
        (frame(BINARY | 0x10, b""), 1002),
        (frame(3, b""), 1002),
        (frame(11, b""), 1002),
        (frame(BINARY, b"", masked=False), 1002),
        (frame(PING, b"", fin=False), 1002),
        (frame(CLOSE, b"x" * 126), 1002),
        (frame(CONTINUATION, b""), 1002),
        (frame(BINARY, b"", fin=False) + frame(BINARY, b""), 1002),
        (frame(BINARY, b"", fin=False) + frame(TEXT, b""), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xc3"), 1007),
        (frame(TEXT, b"\xed\xa0\x80"), 1007),
        (frame(BINARY, b"x" * 101), 1009),
        (frame(BINARY, b"x" * 60, fin=False) + frame(CONTINUATION, b"x" * 41), 1009),
    ],
)
def test_what_is_wrong_has_a_code_and_ends_it(data: bytes, code: int) -> None:
    reader = Reader(100)

    found = reader.read(frame(BINARY, b"before") + data + frame(BINARY, b"after"))

    assert found == [(BINARY, b"before")]
    assert reader.error is not None
    assert reader.error.code == code
    assert reader.read(frame(BINARY, b"after")) == []


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"\x83\x80", 1002),
        (b"\x82\x00", 1002),
        (b"\x82\xff" + (1 << 63).to_bytes(8) + bytes(4), 1009),
        (b"\x82\xfe" + (101).to_bytes(2) + bytes(4), 1009),
    ],
)
def test_a_head_that_is_wrong_is_told_so_before_anything_follows(head: bytes, code: int) -> None:
    reader = Reader(100)

    assert reader.read(head) == []
    assert reader.error is not None
    assert reader.error.code == code


def test_a_message_of_the_largest_size_is_read_in_whatever_frames() -> None:
    reader = Reader(100)

    found = reader.read(
        frame(BINARY, b"x" * 100) + frame(BINARY, b"x" * 99, fin=False) + frame(PING, b"y" * 125) + frame(0, b"x")
    )

    assert found == [(BINARY, b"x" * 100), (PING, b"y" * 125), (BINARY, b"x" * 100)]


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"", NO_CODE), ((1000).to_bytes(2), 1000), ((1014).to_bytes(2) + b"why", 1014), ((4999).to_bytes(2), 4999)],
)
def test_a_close_frame_says_a_code(payload: bytes, code: int) -> None:
    assert read_close(payload) == code


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x03", 1002),
        *[(code.to_bytes(2), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)],
        ((1000).to_bytes(2) + b"\xff", 1007),
    ],
)
def test_a_close_frame_says_nothing_else(payload: bytes, code: int) -> None:
    with pytest.raises(InvalidFrame) as refused:
        read_close(payload)

    assert refused.value.code == code


def test_frames_are_written_with_the_shortest_length() -> None:
    assert write_binary(b"") == b"\x82\x00"
    assert write_binary(b"x" * 125)[:2] == b"\x82\x7d"
    assert write_binary(b"x" * 126)[:4] == b"\x82\x7e\x00\x7e"
    assert write_binary(b"x" * 65_535)[:4] == b"\x82\x7e\xff\xff"
    assert write_binary(b"x" * 65_536)[:10] == b"\x82\x7f" + (65_536).to_bytes(8)
    assert write_control(PONG, b"here") == b"\x8a\x04here"


def test_a_reason_that_is_too_long_is_cut_between_characters() -> None:
    said = write_close(4400, "ü" * 100)

    assert said[:4] == b"\x88\x7c" + (4400).to_bytes(2)
    assert said[4:].decode() == "ü" * 61
    assert write_close(NO_CODE, "") == b"\x88\x00"
