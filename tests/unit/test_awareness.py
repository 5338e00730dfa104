"""Who is here. The rules are y-protocols' (`awareness.js`), and FIELD-NOTES, "Awareness rules"."""

import json
import tracemalloc

import pytest

from crdt_sync.awareness import (
    CONNECTION_STATES_MAX,
    ENTRY_BYTES,
    GONE_MAX,
    GONE_S,
    KEEP_ALIVE,
    OUTDATED_S,
    SILENT_S,
    Awareness,
    ClientState,
    read_states,
    write_states,
)
from crdt_sync.errors import MessageTooBig, ProtocolError, RoomFull
from crdt_sync.lib0 import MAX_SAFE_INTEGER

ALICE, BOB = 1, 2
GRACE_S = 5.0

# Connections.
A, B, C = "a", "b", "c"


def at(clock: int, state: bytes = b'{"name":"alice"}', client: int = ALICE) -> ClientState:
    return ClientState(client, clock, state)


def gone(clock: int, client: int = ALICE) -> ClientState:
    return ClientState(client, clock, b"null")


def told(room: Awareness) -> list[ClientState]:
    payload = room.take_changes()
    return [] if payload is None else read_states(payload)


def here(room: Awareness) -> list[ClientState]:
    payload = room.everyone()
    return [] if payload is None else read_states(payload)


def with_alice(clock: int = 1, *, now: float = 0) -> Awareness:
    """A room in which alice was announced by connection A, and told of."""
    room = Awareness()
    room.receive(A, [at(clock)], now=now)
    room.take_changes()
    return room


# ------------------------------------------------------------------------------------------------------- bytes


def test_states_are_read_as_they_were_written() -> None:
    states = [at(3), gone(4, BOB), ClientState(2**53 - 1, 0, '{"s":"😀"}'.encode())]

    assert read_states(write_states(states)) == states


def test_the_bytes_of_the_field_notes_are_read() -> None:
    assert read_states(b"\x00") == []
    assert read_states(b"\x01\x07\x03\x04null") == [ClientState(7, 3, b"null")]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x01",
        b"\x01\x07\x03\x05null",
        b"\x02\x07\x03\x04null",
        b"\x01\x07\x03\x04null\x00",
        b"\xff\xff\xff\xff\x0f\x07\x03\x04null",
        b"\x00\x00",
    ],
)
def test_a_payload_that_is_cut_short_or_too_long_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_states(payload)


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b'{"x":NaN}',
        b"undefined",
        b"{'a':1}",
        b"[1,]",
        b'"\x01"',
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b"01",
        b"[" * 100_000,
    ],
)
def test_a_state_that_json_parse_would_refuse_is_refused(state: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_states(write_states([ClientState(1, 1, state)]))


def test_a_state_that_is_null_in_other_words_is_a_removal_too() -> None:
    # To peers it is: they compare what JSON.parse returns. Kept as a state, somebody who left would stay.
    room = with_alice()

    room.receive(A, read_states(write_states([ClientState(ALICE, 2, b" null ")])), now=1)

    assert here(room) == []
    assert [(one.client, one.clock, json.loads(one.state)) for one in told(room)] == [(ALICE, 2, None)]


def test_a_message_with_more_states_than_a_room_can_hold_is_refused_before_it_is_read() -> None:
    payload = write_states([ClientState(i, 1, b"1") for i in range(200_000)])
    tracemalloc.start()

    try:
        read_states(payload)
    except (ProtocolError, RoomFull):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 4 << 20


# ------------------------------------------------------------------------------------------------------- clocks


def test_a_newer_state_replaces_an_older_one() -> None:
    room = with_alice(1)

    room.receive(A, [at(2, b'{"name":"al"}')], now=1)

    assert told(room) == [at(2, b'{"name":"al"}')]
    assert here(room) == [at(2, b'{"name":"al"}')]


def test_an_older_state_is_ignored() -> None:
    room = with_alice(5)

    room.receive(A, [at(4, b'{"name":"old"}')], now=1)

    assert not room.changed
    assert here(room) == [at(5)]


def test_a_renewal_is_told_although_nothing_changed_but_the_clock() -> None:
    room = with_alice(1)

    room.receive(A, [at(2)], now=15)

    assert told(room) == [at(2)]


def test_the_same_state_under_the_same_clock_is_not_told_again() -> None:
    room = with_alice(1)

    room.receive(A, [at(1)], now=1)

    assert not room.changed


def test_a_removal_is_taken_under_the_same_clock_and_under_a_newer_one() -> None:
    same, newer = with_alice(3), with_alice(3)

    same.receive(A, [gone(3)], now=1)
    newer.receive(A, [gone(4)], now=1)

    assert (told(same), here(same)) == ([gone(3)], [])
    assert (told(newer), here(newer)) == ([gone(4)], [])


def test_a_removal_under_an_older_clock_is_ignored() -> None:
    room = with_alice(3)

    room.receive(A, [gone(2)], now=1)

    assert here(room) == [at(3)]


def test_the_known_clock_of_an_unknown_client_is_zero() -> None:
    room = Awareness()

    room.receive(A, [at(0), gone(7, BOB)], now=0)

    assert not room.changed
    assert len(room) == 0


def test_the_largest_clock_breaks_nothing() -> None:
    # Announcing somebody anew takes a clock more than was sent; there is none above 2**53 - 1.
    room = Awareness()
    last = MAX_SAFE_INTEGER

    room.receive(A, [at(last)], now=0)
    room.receive(A, [at(last, b'{"name":"other"}')], now=0)
    room.leave(A, now=1, grace_s=0)
    room.expire(now=1)
    room.receive(B, [at(last)], now=2)

    room.take_changes()
    room.everyone()


def test_changes_are_told_once_and_with_the_latest_state() -> None:
    room = Awareness()

    for clock in range(1, 50):
        room.receive(A, [at(clock, b"%d" % clock)], now=0)

    assert told(room) == [at(49, b"49")]
    assert told(room) == []
    assert room.take_changes() is None


def test_nobody_is_nothing_to_say() -> None:
    assert Awareness().everyone() is None


# ------------------------------------------------------------------------------------------------------- ownership


def test_nobody_else_can_change_a_state() -> None:
    room = with_alice(1)

    room.receive(B, [at(9, b'{"name":"mallory"}')], now=1)

    assert not room.changed
    assert here(room) == [at(1)]


@pytest.mark.parametrize("clock", [1, 2, 99])
def test_nobody_else_can_remove_a_state(clock: int) -> None:
    room = with_alice(1)
    room.receive(B, [at(1, client=BOB)], now=0)

    room.receive(B, [gone(clock)], now=1)

    assert at(1) in here(room)


def test_the_echo_that_y_websocket_sends_back_changes_nothing() -> None:
    room = with_alice(1)
    room.receive(B, [at(1, client=BOB)], now=0)
    room.receive(A, [at(2)], now=1)
    echo = read_states(room.take_changes() or b"\x00")

    room.receive(B, echo, now=1.1)

    assert not room.changed
    room.leave(B, now=2, grace_s=0)
    room.expire(now=2)
    assert here(room) == [at(2)]


def test_the_echo_of_a_removal_that_a_new_client_sends_first_does_not_bring_anybody_back() -> None:
    room = with_alice(3)
    room.receive(A, [gone(4)], now=1)
    echo = read_states(room.take_changes() or b"\x00")

    room.receive(B, echo, now=1)

    assert (told(room), here(room)) == ([], [])


def test_an_old_echo_does_not_bring_back_who_left() -> None:
    room = with_alice(3)
    room.receive(B, [at(1, client=BOB)], now=0)
    room.leave(A, now=1, grace_s=0)
    room.expire(now=1)
    room.take_changes()

    room.receive(B, [at(3), at(2)], now=1.2)

    assert not room.changed
    assert here(room) == [at(1, client=BOB)]


def test_a_silent_owner_is_taken_over() -> None:
    room = with_alice(1, now=0)

    room.receive(B, [at(2)], now=SILENT_S - 0.1)
    before = here(room)
    room.receive(B, [at(2)], now=SILENT_S)

    assert before == [at(1)]
    assert here(room) == [at(2)]
    room.leave(A, now=SILENT_S, grace_s=0)
    room.expire(now=SILENT_S)
    assert here(room) == [at(2)], "it isn't A's any more"


def test_a_renewing_owner_is_not_taken_over() -> None:
    room = with_alice(1, now=0)
    room.receive(A, [at(2)], now=15)

    room.receive(B, [at(3, b'{"name":"mallory"}')], now=30)

    assert here(room) == [at(2)]


def test_one_connection_may_speak_for_a_few_clients() -> None:
    room = Awareness()

    room.receive(A, [at(1, client=client) for client in range(CONNECTION_STATES_MAX)], now=0)

    assert len(room) == CONNECTION_STATES_MAX


def test_one_connection_may_not_speak_for_many_clients() -> None:
    room = Awareness()

    with pytest.raises(MessageTooBig):
        room.receive(A, [at(1, client=client) for client in range(CONNECTION_STATES_MAX + 1)], now=0)
    assert len(room) == CONNECTION_STATES_MAX, "those before stand"


def test_clients_that_left_do_not_count_towards_the_bound_of_a_connection() -> None:
    room = Awareness()
    for client in range(CONNECTION_STATES_MAX * 3):
        room.receive(A, [at(1, client=client)], now=0)

        room.receive(A, [gone(2, client)], now=0)

    assert len(room) == 0


# ------------------------------------------------------------------------------------------------------- leaving


def test_who_says_goodbye_is_gone_at_once() -> None:
    room = with_alice(1)

    room.receive(A, [gone(2)], now=1)

    assert (told(room), here(room), len(room)) == ([gone(2)], [], 0)


def test_whose_connection_is_gone_stays_for_the_grace() -> None:
    room = with_alice(1)

    room.leave(A, now=10, grace_s=GRACE_S)
    room.expire(now=10 + GRACE_S - 0.01)
    during = here(room)
    room.expire(now=10 + GRACE_S)

    assert during == [at(1)]
    assert (told(room), here(room)) == ([gone(1)], []), "at the same clock"


def test_the_next_expiry_is_that_of_the_first_whose_grace_ends() -> None:
    room = Awareness()
    assert room.next_expiry() is None
    room.receive(A, [at(1)], now=0)
    room.receive(B, [at(1, client=BOB)], now=0)

    room.leave(A, now=3, grace_s=5)
    room.leave(B, now=4, grace_s=0.5)

    assert room.next_expiry() == 4.5
    room.expire(now=4.5)
    assert room.next_expiry() == 8
    room.expire(now=8)
    assert room.next_expiry() is None


def test_a_connection_that_leaves_takes_only_its_own_clients_along() -> None:
    room = with_alice(1)
    room.receive(B, [at(1, client=BOB)], now=0)

    room.leave(B, now=1, grace_s=0)
    room.leave(C, now=1, grace_s=0)
    room.expire(now=1)

    assert here(room) == [at(1)]


def test_who_comes_back_within_the_grace_is_taken_over_unseen() -> None:
    room = with_alice(4)
    room.leave(A, now=10, grace_s=GRACE_S)

    room.receive(B, [at(4)], now=12)
    room.expire(now=10 + GRACE_S)

    assert told(room) == []
    assert here(room) == [at(4)]


def test_who_comes_back_before_the_old_connection_is_seen_to_be_gone_waits_for_that() -> None:
    room = with_alice(4)

    room.receive(B, [at(4)], now=12)
    room.leave(A, now=13, grace_s=GRACE_S)
    room.receive(B, [at(5)], now=13)
    room.expire(now=13 + GRACE_S)

    assert here(room) == [at(5)]


def test_who_comes_back_within_the_grace_with_something_new_is_announced_above_the_known_clock() -> None:
    room = with_alice(4)
    room.leave(A, now=10, grace_s=GRACE_S)

    room.receive(B, [at(4, b'{"name":"new"}')], now=12)

    assert told(room) == [at(5, b'{"name":"new"}')]


def test_who_comes_back_under_the_clock_of_its_removal_is_visible_at_once() -> None:
    room = with_alice(4)
    room.leave(A, now=10, grace_s=0)
    room.expire(now=10)
    room.take_changes()

    room.receive(B, [at(4)], now=12)

    assert told(room) == [at(5)], "peers ignore the clock under which they saw it leave"
    assert here(room) == [at(5)]


def test_what_a_returned_client_says_before_it_hears_of_its_new_clock_is_not_lost() -> None:
    room = with_alice(4)
    room.leave(A, now=10, grace_s=0)
    room.expire(now=10)
    room.receive(B, [at(4)], now=12)
    room.take_changes()

    room.receive(B, [at(5, b'{"cursor":1}')], now=12.1)

    assert told(room) == [at(6, b'{"cursor":1}')]


def test_somebody_who_stays_connected_is_not_announced_anew_by_repeating_itself() -> None:
    room = with_alice(4)
    room.receive(A, [gone(5)], now=1)
    room.take_changes()

    room.receive(A, [at(5), at(4)], now=2)

    assert not room.changed


def test_a_removal_of_somebody_within_its_grace_by_another_is_ignored() -> None:
    room = with_alice(4)
    room.receive(B, [at(1, client=BOB)], now=0)
    room.leave(A, now=10, grace_s=GRACE_S)

    room.receive(B, [gone(4)], now=11)

    assert at(4) in here(room)


def test_who_is_not_heard_of_for_30_s_is_removed_under_the_same_clock() -> None:
    room = with_alice(4, now=100)

    room.expire(now=100 + OUTDATED_S - 0.1)
    before = here(room)
    room.expire(now=100 + OUTDATED_S)

    assert before == [at(4)]
    assert (told(room), here(room)) == ([gone(4)], [])


def test_who_was_removed_for_silence_and_then_renews_is_back() -> None:
    room = with_alice(4, now=100)
    room.expire(now=100 + OUTDATED_S)
    room.take_changes()

    room.receive(A, [at(5)], now=140)

    assert told(room) == [at(5)]


def test_a_goodbye_after_the_removal_is_nothing_new() -> None:
    room = with_alice(4, now=100)
    room.expire(now=100 + OUTDATED_S)
    room.take_changes()

    room.receive(A, [gone(5)], now=140)

    assert not room.changed


# ------------------------------------------------------------------------------------------------------- bounds


def test_a_state_over_16_kib_is_refused() -> None:
    room = Awareness()
    largest = json.dumps("x" * ((16 << 10) - 2)).encode()

    room.receive(A, [at(1, largest)], now=0)
    with pytest.raises(MessageTooBig):
        room.receive(A, [at(2, largest[:-1] + b'x"')], now=0)
    assert here(room) == [at(1, largest)]


def test_all_states_of_a_room_together_are_bounded() -> None:
    state = json.dumps("x" * 698).encode()
    room = Awareness(room_bytes_max=10 * (len(state) + ENTRY_BYTES))
    for client in range(10):
        room.receive(client, [at(1, state, client)], now=0)

    with pytest.raises(RoomFull):
        room.receive("one too many", [at(1, state, 10)], now=0)
    with pytest.raises(RoomFull):
        room.receive(3, [at(2, state[:-1] + b'x"', 3)], now=0)

    assert len(room) == 10


def test_who_leaves_makes_room_for_others() -> None:
    state = json.dumps("x" * 698).encode()
    room = Awareness(room_bytes_max=2 * (len(state) + ENTRY_BYTES))

    for client in range(50):
        room.receive(client, [at(1, state, client)], now=client)
        if client % 3 == 0:
            room.receive(client, [gone(2, client)], now=client)
        elif client % 3 == 1:
            room.leave(client, now=client, grace_s=0)
            room.expire(now=client)
        else:
            room.receive(client, [at(2, b"1", client), at(3, state, client)], now=client)
            room.expire(now=client + OUTDATED_S)

    assert len(room) == 0


def test_who_left_is_forgotten_after_a_while() -> None:
    room = with_alice(4, now=0)
    room.receive(A, [gone(5)], now=0)
    room.take_changes()

    room.expire(now=GONE_S)

    # Had it been remembered, peers' clock 5 would have to be exceeded.
    room.receive(A, [at(3)], now=GONE_S)
    assert told(room) == [at(3)]


def test_no_more_than_a_bounded_number_of_those_who_left_is_remembered() -> None:
    room = Awareness()
    tracemalloc.start()

    for client in range(20 * GONE_MAX):
        room.receive(A, [at(1, b"1", client), gone(2, client)], now=0)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert held < GONE_MAX * 1000
    assert len(room.take_changes() or b"") < GONE_MAX * 20


def test_connections_that_left_are_forgotten() -> None:
    room = Awareness()
    room.receive("first", [at(1)], now=0)
    room.leave("first", now=0, grace_s=0)
    tracemalloc.start()

    for n in range(5000):
        room.receive(n, [at(n + 2)], now=0)
        room.leave(n, now=0, grace_s=1)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert held < 20_000


def test_a_peer_hears_of_nobody_twice_under_one_clock_with_two_states() -> None:
    """Two clients with one id (a copied browser profile): whoever came first is shown, the other one ignored."""
    room = with_alice(1)

    for clock in range(1, 10):
        room.receive(B, [at(clock, b'{"name":"twin"}')], now=1)
        room.receive(A, [at(clock)], now=1)

    assert here(room) == [at(9)]


def test_the_keep_alive_holds_no_states() -> None:
    assert read_states(KEEP_ALIVE) == []


def said(room: Awareness) -> list[ClientState]:
    changes = room.take_changes()
    return read_states(changes) if changes else []


def test_who_is_here_is_announced_under_a_new_clock_to_who_is_back() -> None:
    room = Awareness()
    room.receive("a", [ClientState(1, 5, b"{}")], now=0)
    room.receive("b", [ClientState(2, 1, b"{}")], now=0)
    room.take_changes()
    before = room.returned
    room.leave("b", now=1, grace_s=5)
    room.receive("c", [ClientState(2, 1, b"{}")], now=2)

    room.announce()

    assert before, "client 1 came with a clock of somebody who has been somewhere"
    assert said(room) == [ClientState(1, 6, b"{}"), ClientState(2, 2, b"{}")]
    assert not room.returned


def test_a_newcomer_makes_nobody_be_announced_anew() -> None:
    room = Awareness()

    room.receive("a", [ClientState(1, 1, b"{}")], now=0)
    room.receive("b", [ClientState(2, 2, b"{}")], now=0)

    assert not room.returned


def test_a_client_is_taken_at_its_word_before_it_hears_of_its_new_clock() -> None:
    room = Awareness()
    room.receive("a", [ClientState(1, 5, b"{}")], now=0)
    room.announce()
    room.announce()
    told = said(room)

    room.receive("a", [ClientState(1, 6, b'{"cursor":1}')], now=1)
    moved = said(room)
    room.receive("a", [ClientState(1, 8, b'{"cursor":1}')], now=2)  # what it heard, as y-websocket repeats it
    repeated = said(room)
    room.receive("a", [ClientState(1, 9, b'{"cursor":2}')], now=3)

    assert told == [ClientState(1, 7, b"{}")]
    assert moved == [ClientState(1, 8, b'{"cursor":1}')]
    assert repeated == []
    assert said(room) == [ClientState(1, 9, b'{"cursor":2}')]


def test_a_client_that_never_takes_its_new_clock_stays_and_leaves_when_it_wants() -> None:
    room = Awareness()
    room.receive("a", [ClientState(1, 5, b"{}")], now=0)
    room.announce()
    room.announce()
    for renewal in range(1, 6):
        room.receive("a", [ClientState(1, 5 + renewal, b"{}")], now=renewal * 15)
        room.expire(now=renewal * 15)
    said(room)

    here = len(room)
    room.receive("a", [ClientState(1, 11, b"null")], now=80)

    assert (here, len(room)) == (1, 0)
    assert [one.state for one in said(room)] == [b"null"]


def test_who_is_lost_is_not_announced_and_comes_back_with_the_clock_that_it_had() -> None:
    room = Awareness()
    room.receive("a", [ClientState(1, 5, b"{}")], now=0)
    room.leave("a", now=1, grace_s=5)
    room.announce()
    said(room)

    room.receive("b", [ClientState(1, 5, b'{"back":1}')], now=2)

    assert said(room) == [ClientState(1, 6, b'{"back":1}')]
