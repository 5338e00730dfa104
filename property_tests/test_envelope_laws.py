"""Laws of messages between nodes: all that is written is read, and what other versions write does no harm."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crdt_sync.envelope import (
    SOURCE_BYTES,
    TRACE_BYTES_MAX,
    VERSION,
    Envelope,
    Kind,
    decode,
    encode,
    read_parts,
    write_parts,
)
from crdt_sync.errors import ProtocolError
from crdt_sync.lib0 import read_var_bytes, read_var_uint, write_var_bytes, write_var_uint

envelopes = st.builds(
    Envelope,
    kind=st.sampled_from([*Kind, 99, 2**30]),
    source=st.binary(min_size=SOURCE_BYTES, max_size=SOURCE_BYTES),
    number=st.integers(0, 2**53 - 1),
    to=st.sampled_from([b"", bytes(range(8))]),
    body=st.binary(max_size=200),
    trace=st.sampled_from(["", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]),
)


@given(envelopes)
def test_what_is_encoded_is_decoded(envelope: Envelope) -> None:
    assert decode(encode(envelope)) == envelope


@given(envelopes, st.binary(max_size=50))
def test_what_a_newer_version_adds_to_the_header_is_passed_over(envelope: Envelope, more: bytes) -> None:
    message = encode(envelope)
    _, pos = read_var_uint(message, 0)
    _, pos = read_var_uint(message, pos)
    header, end = read_var_bytes(message, pos)

    if not envelope.trace:
        # Newer versions write one, if only an empty one, before what they add.
        header += write_var_bytes(b"")
    assert decode(message[:pos] + write_var_bytes(header + more) + message[end:]) == envelope


@given(envelopes, st.binary(max_size=50))
@example(Envelope(Kind.TAIL, bytes(SOURCE_BYTES)), write_var_bytes(b"a" * (TRACE_BYTES_MAX + 1)))  # too long to be one
def test_nothing_about_a_trace_loses_a_message(envelope: Envelope, more: bytes) -> None:
    untraced = replace(envelope, trace="")
    message = encode(untraced)
    _, pos = read_var_uint(message, 0)
    _, pos = read_var_uint(message, pos)
    header, end = read_var_bytes(message, pos)

    read = decode(message[:pos] + write_var_bytes(header + more) + message[end:])

    assert replace(read, trace="") == untraced
    assert read.trace.isascii()
    assert len(read.trace) <= TRACE_BYTES_MAX


def test_traced_messages_are_those_of_before_with_something_appended_to_the_header() -> None:
    before = Envelope(Kind.UPDATES, bytes(range(12)), 7, b"", b"body")
    traced = replace(before, trace="00-" + "a" * 32 + "-" + "b" * 16 + "-01")

    head = bytes.fromhex("0c 000102030405060708090a0b 00 07")
    assert encode(before) == b"\x01\x01" + bytes([len(head)]) + head + b"body"
    appended = b"\x37" + traced.trace.encode()
    assert encode(traced) == b"\x01\x01" + bytes([len(head + appended)]) + head + appended + b"body"
    assert decode(encode(traced)) == traced


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    try:
        decode(data)
    except ProtocolError:
        pass


@given(envelopes)
def test_another_version_is_refused(envelope: Envelope) -> None:
    message = encode(envelope)

    with pytest.raises(ProtocolError, match="version"):
        decode(write_var_uint(VERSION + 1) + message[1:])


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_parts_of_a_body_are_read_as_they_were_written(parts: list[bytes]) -> None:
    assert read_parts(write_parts(parts)) == parts


@given(st.binary(max_size=60))
def test_any_body_is_parts_or_a_protocol_error(body: bytes) -> None:
    try:
        assert write_parts(read_parts(body)) is not None
    except ProtocolError:
        pass
