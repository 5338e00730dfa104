"""What counts as the same to a client, and what doesn't."""

import json
from typing import Any

import pytest

from crdt_sync.awareness import ClientState, write_states
from crdt_sync.heard import Coverage, Heard, Message, Mismatch, coverage, read_frame
from crdt_sync.scenarios import Expect

HI = bytes.fromhex("01010100040105 6e6f746573 02 4869 00")  # "Hi" in the text "notes"
BANG = bytes.fromhex("01010102840101 01 21 00")  # "!" behind it
HI_BANG = bytes.fromhex("01010100040105 6e6f746573 03 486921 00")
HO = bytes.fromhex("01010100040105 6e6f746573 02 486f 00")
UNDO = bytes.fromhex("00 01 01 01 00 02")  # deletes both letters
UNDO_TWICE = bytes.fromhex("00 01 01 02 00 01 01 01")


def expected(kind: str, what: Any, **more: Any) -> Expect:
    return Expect("ann", kind, what, None, **more)


def update(data: bytes) -> Message:
    return Message("update", data)


def told(*states: tuple[int, int, Any]) -> Message:
    return Message("awareness", write_states(ClientState(c, k, json.dumps(s).encode()) for c, k, s in states))


def test_updates_that_are_cut_otherwise_are_the_same() -> None:
    heard = Heard()

    assert heard.matches(update(HI_BANG), expected("update", [HI, BANG]))
    assert Heard().matches(Message("step_2", HI_BANG), expected("step_2", [HI_BANG]))


def test_several_updates_may_come_one_by_one() -> None:
    heard = Heard()
    both = expected("update", [HI, BANG])

    assert not heard.matches(update(HI), both)
    assert heard.matches(update(BANG), both)


@pytest.mark.parametrize("other", [BANG, HI_BANG, HO, b"\0\0", UNDO, b"\1\1\1"])
def test_updates_that_mean_something_else_are_not_the_same(other: bytes) -> None:
    with pytest.raises(Mismatch):
        Heard().matches(update(other), expected("update", [HI]))


def test_deleted_ranges_that_touch_are_one() -> None:
    assert coverage([UNDO]) == coverage([UNDO_TWICE]) == Coverage({}, {1: [(0, 2)]})


def test_a_document_has_what_was_sent_and_what_came() -> None:
    heard = Heard()
    heard.send(b"\0\2" + bytes([len(HI)]) + HI)

    assert heard.satisfied(expected("document", {"notes": "Hi"}))
    assert heard.matches(update(BANG), expected("document", {"notes": "Hi!"}))
    assert "Hi!" in heard.told(expected("document", {}))


def test_an_update_of_its_own_comes_in_passing() -> None:
    heard = Heard()
    heard.send(b"\0\2" + bytes([len(HI)]) + HI)

    assert heard.is_in_passing(update(HI), expected("update", [BANG]))
    assert not heard.is_in_passing(update(BANG), expected("update", [BANG]))
    assert heard.is_in_passing(Message("step_1", b"\0"), expected("step_2", [b"\0\0"]))
    assert not heard.is_in_passing(Message("step_1", b"\0"), expected("step_1", b"\0"))
    assert not heard.is_in_passing(Message("confirm", b""), expected("step_1", b"\0"))


def test_state_vectors_are_the_same_in_any_order() -> None:
    wanted = expected("step_1", bytes.fromhex("02 0102 0203"))

    assert Heard().matches(Message("step_1", bytes.fromhex("02 0203 0102")), wanted)
    with pytest.raises(Mismatch):
        Heard().matches(Message("step_1", bytes.fromhex("02 0203 0101")), wanted)


def test_newer_clocks_count_and_of_equal_ones_null() -> None:
    heard = Heard()
    heard.hear(told((42, 2, {"a": 1}), (43, 0, {})))
    heard.hear(told((42, 1, {"old": True})))
    heard.hear(told((42, 2, {"same": True})))

    assert heard.satisfied(expected("awareness", {42: {"a": 1}}, clocks={42: 2}))
    assert not heard.satisfied(expected("awareness", {42: {"a": 1}}, clocks={42: 3}))
    assert not heard.satisfied(expected("awareness", {43: {}}))
    assert not heard.satisfied(expected("awareness", {42: None}))
    heard.hear(told((42, 2, None)))
    assert heard.satisfied(expected("awareness", {42: None}))
    heard.forget()
    assert not heard.satisfied(expected("awareness", {42: None}))


@pytest.mark.parametrize(
    ("state", "wanted", "same"),
    [
        ({"a": 1, "user": {"id": "ann"}}, {"a": 1}, True),
        ({"user": {"id": "ann", "name": "Ann", "mood": 1}}, {"user": {"mood": 1}}, True),
        ({"user": {"id": "ann"}}, {"user": {"id": "bob"}}, False),
        ({"user": {"mood": 1}}, {}, False),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ([1], [1], True),
    ],
)
def test_what_a_server_with_keys_writes_into_states_does_not_matter(state: Any, wanted: Any, same: bool) -> None:
    heard = Heard()
    heard.hear(told((42, 1, state)))

    assert heard.satisfied(expected("awareness", {42: wanted})) == same


def test_frames_are_read_to_their_end() -> None:
    assert read_frame(bytes.fromhex("0002020000 660107 02023c 0200026e6f 05ff")) == [
        Message("update", b"\0\0"),
        Message("confirm", b"\7"),
        Message("expires", b"60"),
        Message("denied", b"no"),
        Message("unknown", b"\xff"),
    ]


def test_a_state_that_is_no_json_is_found() -> None:
    with pytest.raises(Mismatch, match="awareness"):
        Heard().hear(Message("awareness", b"\1\x2a\1\1{"))
