"""Laws of the codec: what is written is read, and any bytes are messages or a `ProtocolError`."""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from crdt_sync import protocol
from crdt_sync.awareness import Awareness, ClientState, read_states, write_states
from crdt_sync.errors import ProtocolError, SyncError
from crdt_sync.lib0 import MAX_SAFE_INTEGER, write_var_bytes, write_var_uint
from crdt_sync.protocol import (
    AwarenessUpdate,
    Confirm,
    Message,
    QueryAwareness,
    SyncStep1,
    SyncUpdate,
    decode,
)

PAYLOADS = st.binary(max_size=300)
NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, MAX_SAFE_INTEGER))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
STATES = st.builds(ClientState, NUMBERS, NUMBERS, VALUES.map(lambda value: json.dumps(value).encode()))


def written(message: Message) -> bytes:
    """As a client writes it."""
    match message:
        case SyncStep1(state_vector):
            return protocol.encode_step_1(state_vector)
        case SyncUpdate(update):
            return protocol.encode_update(update)
        case AwarenessUpdate(states):
            return protocol.encode_awareness(states)
        case QueryAwareness():
            return write_var_uint(protocol.QUERY_AWARENESS)
        case Confirm(token):
            return write_var_uint(protocol.CONFIRM) + write_var_bytes(token)


MESSAGES = st.one_of(
    st.builds(SyncStep1, PAYLOADS),
    st.builds(SyncUpdate, PAYLOADS),
    st.builds(AwarenessUpdate, PAYLOADS),
    st.just(QueryAwareness()),
    st.builds(Confirm, st.binary(max_size=protocol.CONFIRM_TOKEN_BYTES_MAX)),
)


@given(st.lists(MESSAGES, max_size=10))
@settings(max_examples=300)
def test_what_is_written_is_read(messages: list[Message]) -> None:
    assert decode(b"".join(map(written, messages))) == messages


@given(PAYLOADS)
def test_a_step_2_is_read_as_an_update(update: bytes) -> None:
    assert decode(protocol.encode_step_2(update)) == [SyncUpdate(update)]


@given(st.binary(max_size=400))
@settings(max_examples=500)
@example(b"\x00\x00")
@example(b"\xff" * 8)
def test_any_frame_is_messages_or_a_protocol_error(frame: bytes) -> None:
    try:
        messages = decode(frame)
    except ProtocolError:
        return
    again = b"".join(map(written, messages))
    assert decode(again) == messages


@given(st.lists(MESSAGES, min_size=1, max_size=5), st.data())
def test_a_frame_cut_anywhere_gives_the_messages_before_the_cut(messages: list[Message], data: st.DataObject) -> None:
    frames = [written(message) for message in messages]
    frame = b"".join(frames)
    cut = data.draw(st.integers(0, len(frame)))
    whole = 0
    while whole < len(frames) and len(b"".join(frames[: whole + 1])) <= cut:
        whole += 1

    if whole or not cut:
        assert decode(frame[:cut]) == messages[:whole]
    else:
        try:
            assert decode(frame[:cut]) == []
        except ProtocolError:
            pass


@given(st.lists(STATES, max_size=10))
@settings(max_examples=300)
def test_awareness_states_that_are_written_are_read(states: list[ClientState]) -> None:
    read = read_states(write_states(states))

    assert [(one.client, one.clock, json.loads(one.state)) for one in read] == [
        (one.client, one.clock, json.loads(one.state)) for one in states
    ]


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_any_bytes_are_awareness_states_or_a_protocol_error(payload: bytes) -> None:
    try:
        states = read_states(payload)
    except ProtocolError:
        return
    for one in states:
        json.loads(one.state)


class Peer:
    """A y-protocols `Awareness` that only listens."""

    def __init__(self) -> None:
        self.clocks: dict[int, int] = {}
        self.states: dict[int, bytes] = {}

    def hear(self, payload: bytes | None) -> None:
        for one in read_states(payload) if payload else []:
            clock = self.clocks.get(one.client, 0)
            if one.clock > clock or (one.clock == clock and one.state == b"null" and one.client in self.states):
                self.clocks[one.client] = one.clock
                if one.state == b"null":
                    self.states.pop(one.client, None)
                else:
                    self.states[one.client] = one.state


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("say"),
            st.integers(0, 3),
            st.integers(1, 4),
            st.integers(0, 6),
            st.sampled_from([b"1", b"2", b"null"]),
        ),
        st.tuples(st.just("leave"), st.integers(0, 3), st.sampled_from([0.0, 5.0])),
        st.tuples(st.just("wait"), st.sampled_from([0.1, 5.0, 15.0, 30.0])),
        st.tuples(st.just("announce")),
        st.tuples(st.just("tell")),
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=500)
def test_a_peer_that_hears_every_change_shows_who_is_here(steps: list[tuple[object, ...]]) -> None:
    """Whatever clients say, in any order and from any connection."""
    room, peer, now = Awareness(client_bytes_max=100, room_bytes_max=2000), Peer(), 0.0
    everyone: dict[int, int] = {}

    for step in steps:
        match step:
            case ("say", int(owner), int(client), int(clock), bytes(state)):
                try:
                    room.receive(owner, [ClientState(client, clock, state)], now=now)
                except SyncError:
                    pass
            case ("leave", int(owner), float(grace_s)):
                room.leave(owner, now=now, grace_s=grace_s)
            case ("wait", float(seconds)):
                # A minute after somebody left, its clock is forgotten; peers that remember it hear nothing of a return.
                now = min(now + seconds, 59)
                room.expire(now=now)
            case ("announce",):
                room.announce()
            case _:
                peer.hear(room.take_changes())
                here = room.everyone()
                assert peer.states == {one.client: one.state for one in (read_states(here) if here else [])}
                assert len(room) == len(peer.states)
        for one in read_states(room.everyone() or b"\x00"):
            assert one.clock >= everyone.get(one.client, 0), "clocks only grow"
            everyone[one.client] = one.clock

    for owner in range(4):
        room.leave(owner, now=now, grace_s=0)
    room.expire(now=now + 5)
    peer.hear(room.take_changes())
    assert (peer.states, room.everyone(), len(room)) == ({}, None, 0)
    room.expire(now=now + 100)
    assert not room._entries
    assert room._bytes == 0
