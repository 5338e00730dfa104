"""What one client may do, and what is written into the states that it shows."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth import OPEN, Grant, Right
from crdt_sync.awareness import NESTING_MAX, ClientState, read_states, write_states
from crdt_sync.errors import ProtocolError
from crdt_sync.session import Session, user_of

ANN = Grant(user="ann", rooms={"trip-*": Right.WRITE, "trip-1": Right.READ}, name="Ann Ünal", color="#abc")
PLAIN = Grant(user="ann", rooms={"*": Right.READ})
STAMP = {"id": "ann", "name": "Ann Ünal", "color": "#abc"}


def stamped(text: str, grant: Grant = ANN) -> Any:
    """What others get of a state, as a browser reads it."""
    return json.loads(stamped_bytes(text.encode(), grant))


def stamped_bytes(text: bytes, grant: Grant = ANN) -> bytes:
    (state,) = Session("trip-1", grant).stamp(read_states(write_states([ClientState(1, 1, text)])))
    return state.state


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("grant", "room", "may_write"),
    [
        (OPEN, "anything", True),
        (ANN, "trip-1", False),
        (ANN, "trip-2", True),
        (ANN, "elsewhere", False),
        (Grant(user="ann", rooms={"*": Right.ADMIN}), "trip-1", True),
    ],
)
def test_who_may_write(grant: Grant, room: str, may_write: bool) -> None:
    assert Session(room, grant).may_write is may_write


def test_another_grant_changes_what_may_be_done_and_shown() -> None:
    session = Session("trip-1", ANN)

    session.renew(Grant(user="ann", rooms={"trip-1": Right.WRITE}, name="Ann B."))

    assert session.may_write
    (state,) = session.stamp([ClientState(1, 2, b"{}")])
    assert json.loads(state.state) == {"user": {"id": "ann", "name": "Ann B."}}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("{}", {"user": STAMP}),
        ('{"cursor": 3}', {"cursor": 3, "user": STAMP}),
        ('{"user": {"id": "bob", "name": "Bob", "avatar": "b.png"}}', {"user": {**STAMP, "avatar": "b.png"}}),
        ('{"user": {"id": "bob"}, "user": {"id": "eve"}}', {"user": STAMP}),
        ('{"\\u0075ser": {"\\u0069d": "bob"}}', {"user": STAMP}),
        ('{"user": "bob"}', {"user": STAMP}),
        ('{"user": ["bob"]}', {"user": STAMP}),
        ('{"user": null}', {"user": STAMP}),
        ('{"__proto__": {"user": {"id": "bob"}}}', {"__proto__": {"user": {"id": "bob"}}, "user": STAMP}),
        ('{"User": {"id": "bob"}}', {"User": {"id": "bob"}, "user": STAMP}),
        ('{"n": 123456789012345678901234567890}', {"n": 123456789012345678901234567890, "user": STAMP}),
        # Nothing that could say who it is.
        ("[1]", [1]),
        ('"ann"', "ann"),
        ("0", 0),
    ],
)
def test_states_say_whose_they_are_whatever_they_said(text: str, result: object) -> None:
    assert stamped(text) == result


def test_what_a_grant_does_not_say_is_the_client_s_to_choose() -> None:
    assert stamped('{"user": {"name": "Anni", "color": "red"}}', PLAIN) == {
        "user": {"name": "Anni", "color": "red", "id": "ann"}
    }


def test_a_removal_and_an_open_server_s_states_stay_as_they_are() -> None:
    assert stamped_bytes(b"null") == b"null"
    assert stamped_bytes(b' { "user" : 1 } ', OPEN) == b' { "user" : 1 } '


def test_text_takes_no_more_bytes_than_before() -> None:
    text = json.dumps({"note": "Привет, 旅行! 🧳" * 10}, ensure_ascii=False, separators=(",", ":")).encode()

    assert len(stamped_bytes(text, PLAIN)) == len(text) + len(b',"user":{"id":"ann"}')


def test_half_a_surrogate_pair_stays_one() -> None:
    assert stamped('{"note": "\\ud83d"}', PLAIN) == {"note": "\ud83d", "user": {"id": "ann"}}


def test_a_number_that_no_browser_could_write_is_refused() -> None:
    with pytest.raises(ProtocolError):
        stamped('{"n": 1e999}')


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "{", "", '{"a": 1}x', "9" * 5000, "\ufeff{}"])
def test_what_a_browser_can_not_read_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        stamped(text)


def test_nesting_is_bounded_far_from_where_python_gives_up() -> None:
    assert stamped(nested(NESTING_MAX)) == json.loads(nested(NESTING_MAX))
    assert len(stamped("[" + ",".join(["[]"] * 200) + "]")) == 200
    for depth in (NESTING_MAX + 1, 500, 900, 940, 960, 980, 1000, 8000):
        with pytest.raises(ProtocolError):
            stamped(nested(depth))
        with pytest.raises(ProtocolError):
            stamped('{"a":' * depth + "0" + "}" * depth)


@pytest.mark.parametrize(
    ("state", "user"),
    [
        (b'{"user":{"id":"ann"}}', "ann"),
        (b'{"user":{"id":7}}', None),
        (b'{"user":"ann"}', None),
        (b"[]", None),
        (b"null", None),
    ],
)
def test_whose_a_state_is(state: bytes, user: str | None) -> None:
    assert user_of(state) == user
    assert Session("trip-1", ANN).may_be(state) is (user == "ann")
    assert Session("trip-1", OPEN).may_be(state)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["user", "id", "a"]) | st.text(), inner)
    ),
    max_leaves=10,
)


@given(state=st.dictionaries(st.sampled_from(["user", "cursor"]) | st.text(), _json), escaped=st.booleans())
def test_any_object_is_stamped_and_otherwise_unchanged(state: dict[str, Any], escaped: bool) -> None:
    result = stamped(json.dumps(state, ensure_ascii=escaped))

    assert result["user"] | STAMP == result["user"]
    assert {name: value for name, value in result.items() if name != "user"} == {
        name: value for name, value in state.items() if name != "user"
    }
