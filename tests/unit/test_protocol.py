"""A frame to messages, a message to a frame; the bytes are those of FIELD-NOTES and of y-protocols."""

import time
import tracemalloc

import pytest

from crdt_sync import protocol
from crdt_sync.errors import ProtocolError
from crdt_sync.lib0 import write_var_bytes, write_var_uint
from crdt_sync.protocol import (
    CONFIRM_TOKEN_BYTES_MAX,
    KINDS,
    AwarenessUpdate,
    Confirm,
    Message,
    QueryAwareness,
    SyncStep1,
    SyncUpdate,
    decode,
    kind_of,
)


def confirm(token: bytes) -> bytes:
    return write_var_uint(protocol.CONFIRM) + write_var_bytes(token)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (b"\x00\x00\x01\x00", SyncStep1(b"\x00")),
        (b"\x00\x01\x02\x00\x00", SyncUpdate(b"\x00\x00")),
        (b"\x00\x02\x02\x00\x00", SyncUpdate(b"\x00\x00")),
        (b"\x01\x01\x00", AwarenessUpdate(b"\x00")),
        (b"\x03", QueryAwareness()),
        (b"\x66\x02ab", Confirm(b"ab")),
    ],
)
def test_each_message_is_read_from_the_bytes_that_clients_send(frame: bytes, message: Message) -> None:
    assert decode(frame) == [message]


def test_what_is_encoded_are_the_bytes_that_clients_expect() -> None:
    encoded = [
        protocol.encode_step_1(b"\x00"),
        protocol.encode_step_2(b"\x00\x00"),
        protocol.encode_update(b"\x00\x00"),
        protocol.encode_awareness(b"\x00"),
        protocol.encode_confirm(b"ab"),
    ]

    assert encoded == [
        b"\x00\x00\x01\x00",
        b"\x00\x01\x02\x00\x00",
        b"\x00\x02\x02\x00\x00",
        b"\x01\x01\x00",
        b"\x66\x02ab",
    ]


def test_a_frame_may_hold_several_messages() -> None:
    frame = b"\x00\x00\x01\x00" + b"\x03" + b"\x00\x02\x02\x00\x00" + confirm(b"x")

    assert decode(frame) == [SyncStep1(b"\x00"), QueryAwareness(), SyncUpdate(b"\x00\x00"), Confirm(b"x")]


def test_an_empty_frame_says_nothing() -> None:
    assert decode(b"") == []


@pytest.mark.parametrize("tail", [b"\x00", b"\x00\x02\x05\x00", b"\x00\x07\x00", b"\x01\xff", b"\x80" * 20])
def test_what_follows_the_last_readable_message_is_ignored(tail: bytes) -> None:
    assert decode(b"\x03" + tail) == [QueryAwareness()]


@pytest.mark.parametrize(
    "frame",
    [
        b"\x00",
        b"\x00\x00",
        b"\x00\x00\x02\x00",
        b"\x00\x03\x01\x00",
        b"\x00\x02\xff\xff\xff\xff\x0f",
        b"\x01",
        b"\x01\x05\x00",
        b"\x80" * 100,
        b"\xff" * 9,
        b"\x66\x03ab",
    ],
)
def test_a_frame_that_begins_with_no_message_is_refused(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(frame)


@pytest.mark.parametrize("frame", [b"\x02\x00\x06reason", b"\x04", b"\x09whatever", b"\x65\x00"])
def test_messages_of_other_types_are_passed_over_with_the_rest_of_the_frame(frame: bytes) -> None:
    assert decode(frame) == []
    assert decode(b"\x03" + frame + b"\x03") == [QueryAwareness()]


def test_a_confirm_token_has_a_bound() -> None:
    assert decode(confirm(b"t" * CONFIRM_TOKEN_BYTES_MAX)) == [Confirm(b"t" * CONFIRM_TOKEN_BYTES_MAX)]
    with pytest.raises(ProtocolError):
        decode(confirm(b"t" * (CONFIRM_TOKEN_BYTES_MAX + 1)))


def test_a_long_number_costs_linear_time() -> None:
    before = time.perf_counter()

    with pytest.raises(ProtocolError):
        decode(b"\x80" * 200_000)

    assert time.perf_counter() - before < 1  # quadratic: 3 s


@pytest.mark.parametrize(
    "message", [b"\x03", b"\x00\x00\x01\x00", b"\x00\x02\x02\x00\x00", b"\x66\x00", b"\x01\x01\x00"]
)
def test_a_frame_full_of_tiny_messages_is_bounded(message: bytes) -> None:
    # 16 MiB of queries held the loop for 9 s and took 860 MB, before the first of them was answered.
    tracemalloc.start()

    try:
        decode(message * 100_000)
    except ProtocolError:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2 << 20


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (b"\x00\x00\x01\x00", "sync_step_1"),
        (b"\x00\x01\x02\x00\x00", "sync_step_2"),
        (b"\x00\x02\x02\x00\x00", "update"),
        (b"\x01\x01\x00", "awareness"),
        (b"\x02\x01\x00", "auth"),
        (b"\x03", "query_awareness"),
        (b"f\x00", "confirm"),
        (b"", "other"),
        (b"\x00", "other"),
        (b"\x00\x03", "other"),
        (b"\x80\x01", "other"),
    ],
)
def test_kinds_are_told_apart_by_the_first_message(frame: bytes, kind: str) -> None:
    assert KINDS[kind_of(frame)] == kind
