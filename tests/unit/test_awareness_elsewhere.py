"""Presence across nodes: whose word counts about whom."""

import pytest

from crdt_sync.awareness import CLOCK_MAX, OUTDATED_S, Awareness, ClientState, read_states

HERE, AGAIN = "connection", "another connection"
A, B = b"node a", b"node b"
ANN = b'{"user":"Ann"}'


def told(awareness: Awareness) -> dict[int, tuple[int, bytes]]:
    """What this node's clients are told: client to clock and state."""
    changes = awareness.take_changes()
    return {one.client: (one.clock, one.state) for one in read_states(changes)} if changes else {}


def told_elsewhere(awareness: Awareness) -> dict[int, tuple[int, bytes]]:
    changes = awareness.take_changes_here()
    awareness.take_changes()
    return {one.client: (one.clock, one.state) for one in read_states(changes)} if changes else {}


def test_a_client_of_another_node_is_shown_here_and_not_told_to_other_nodes() -> None:
    awareness = Awareness()

    awareness.hear(A, [ClientState(1, 5, ANN)], now=0)

    assert awareness.take_changes_here() is None
    assert told(awareness) == {1: (5, ANN)}
    assert read_states(awareness.everyone_here()) == []


def test_a_client_of_this_node_is_told_to_the_others() -> None:
    awareness = Awareness()

    awareness.receive(HERE, [ClientState(1, 5, ANN)], now=0)

    assert told_elsewhere(awareness) == {1: (5, ANN)}
    assert read_states(awareness.everyone_here()) == [ClientState(1, 5, ANN)]


def test_a_renewal_of_another_node_is_told_here() -> None:
    awareness = Awareness()
    awareness.hear(A, [ClientState(1, 5, ANN)], now=0)
    told(awareness)

    awareness.hear(A, [ClientState(1, 6, ANN)], now=15)

    assert told(awareness) == {1: (6, ANN)}


def test_an_old_word_is_ignored() -> None:
    awareness = Awareness()
    awareness.hear(A, [ClientState(1, 5, ANN)], now=0)
    told(awareness)

    awareness.hear(A, [ClientState(1, 4, b'{"old":1}')], now=1)

    assert told(awareness) == {}


def test_who_left_is_gone_when_its_node_says_so() -> None:
    awareness = Awareness()
    awareness.hear(A, [ClientState(1, 5, ANN)], now=0)
    told(awareness)

    awareness.hear(A, [ClientState(1, 5, b"null")], now=1)

    assert told(awareness) == {1: (5, b"null")}


def test_a_word_that_was_overtaken_by_the_goodbye_brings_nobody_back() -> None:
    awareness = Awareness()
    awareness.hear(A, [ClientState(1, 5, ANN)], now=0)
    awareness.hear(A, [ClientState(1, 6, b"null")], now=1)
    told(awareness)

    awareness.hear(A, [ClientState(1, 6, ANN), ClientState(1, 5, ANN)], now=1)

    assert told(awareness) == {}


@pytest.mark.parametrize("first", ["arrival", "removal"])
def test_who_hops_to_another_node_stays_whichever_word_comes_first(first: str) -> None:
    awareness = Awareness()
    awareness.hear(A, [ClientState(1, 5, ANN)], now=0)
    told(awareness)

    def arrive() -> None:
        awareness.hear(B, [ClientState(1, 5, ANN)], now=1)

    def remove() -> None:
        awareness.hear(A, [ClientState(1, 5, b"null")], now=1)

    for step in (arrive, remove) if first == "arrival" else (remove, arrive):
        step()

    assert [one.client for one in read_states(awareness.everyone() or b"\0")] == [1]


def test_who_comes_here_from_another_node_belongs_here() -> None:
    awareness = Awareness()
    awareness.hear(A, [ClientState(1, 5, ANN)], now=0)
    told(awareness)

    awareness.receive(HERE, [ClientState(1, 5, ANN)], now=1)
    said = told_elsewhere(awareness)
    awareness.hear(A, [ClientState(1, 5, b"null")], now=2)

    assert said == {1: (5, ANN)}, "the others have to know"
    assert told(awareness) == {}


def test_who_goes_elsewhere_within_the_grace_is_not_removed() -> None:
    awareness = Awareness()
    awareness.receive(HERE, [ClientState(1, 5, ANN)], now=0)
    awareness.leave(HERE, now=1, grace_s=5)
    told(awareness)

    awareness.hear(B, [ClientState(1, 5, ANN)], now=2)
    awareness.expire(now=10)

    assert told(awareness) == {}


def test_nobody_takes_over_who_is_elsewhere_by_a_later_message() -> None:
    awareness = Awareness()
    awareness.hear(A, [ClientState(1, 5, ANN)], now=0)
    awareness.receive(HERE, [ClientState(2, 1, b"{}")], now=0)
    told(awareness)

    # What y-websocket sends back of what it heard.
    awareness.receive(HERE, [ClientState(1, 6, ANN)], now=1)

    assert told(awareness) == {}


def test_users_of_a_lost_node_go_after_the_grace_and_nobody_else() -> None:
    awareness = Awareness()
    awareness.hear(A, [ClientState(1, 5, ANN)], now=0)
    awareness.hear(B, [ClientState(2, 5, ANN)], now=0)
    awareness.receive(HERE, [ClientState(3, 5, ANN)], now=0)
    told(awareness)

    awareness.leave(A, now=1, grace_s=5)
    before = told(awareness)
    awareness.expire(now=6)

    assert awareness.take_changes_here() is None, "each node sees that for itself"
    assert (before, told(awareness)) == ({}, {1: (5, b"null")})


def test_who_is_not_renewed_goes_wherever_it_is() -> None:
    awareness = Awareness()
    awareness.hear(A, [ClientState(1, 5, ANN)], now=0)
    told(awareness)

    awareness.expire(now=OUTDATED_S)

    assert told(awareness) == {1: (5, b"null")}


def test_what_another_node_says_cannot_exceed_the_bounds() -> None:
    awareness = Awareness(room_bytes_max=2000)

    awareness.hear(A, [ClientState(client, 1, b'"' + b"x" * 300 + b'"') for client in range(1, 50)], now=0)
    awareness.hear(A, [ClientState(99, CLOCK_MAX, b"{}")], now=0)

    assert len(awareness) == 2


def test_a_node_may_speak_for_more_clients_than_a_connection() -> None:
    awareness = Awareness()

    awareness.hear(A, [ClientState(client, 1, b"{}") for client in range(1, 100)], now=0)

    assert len(awareness) == 99
