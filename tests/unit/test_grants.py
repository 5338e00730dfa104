"""What a grant allows: exact names, prefixes, and nothing else."""

import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from auth import OPEN, Credentials, Grant, Right


def right(rooms: Mapping[str, Right], room: str) -> Right | None:
    return Grant(user="ann", rooms=rooms).right(room)


def test_a_room_is_allowed_by_its_name() -> None:
    assert right({"trip-1": Right.WRITE}, "trip-1") is Right.WRITE
    assert right({"trip-1": Right.WRITE}, "trip-10") is None
    assert right({"trip-1": Right.WRITE}, "trip") is None


def test_no_match_is_no_access() -> None:
    assert right({}, "trip-1") is None
    assert right({"note-*": Right.ADMIN}, "trip-1") is None


def test_a_prefix_is_itself_and_all_that_begins_with_it() -> None:
    rooms = {"trip-*": Right.READ}

    assert [right(rooms, room) for room in ("trip-", "trip-1", "trip-1/notes", "trip", "Trip-1")] == [
        Right.READ,
        Right.READ,
        Right.READ,
        None,
        None,
    ]


def test_the_longest_prefix_wins_also_when_it_allows_less() -> None:
    rooms = {"*": Right.ADMIN, "trip-*": Right.WRITE, "trip-secret-*": Right.READ}

    assert right(rooms, "trip-secret-1") is Right.READ
    assert right(rooms, "trip-2") is Right.WRITE
    assert right(rooms, "note") is Right.ADMIN
    assert right(rooms, "") is Right.ADMIN


def test_the_name_itself_goes_before_any_prefix() -> None:
    rooms = {"trip-1": Right.READ, "trip-1*": Right.ADMIN, "*": Right.ADMIN}

    assert right(rooms, "trip-1") is Right.READ
    assert right(rooms, "trip-1a") is Right.ADMIN


def test_names_are_compared_character_by_character() -> None:
    rooms = {"旅行-🧳*": Right.WRITE}

    assert right(rooms, "旅行-🧳🧳") is Right.WRITE
    assert right(rooms, "旅行-") is None


def test_a_prefix_of_the_greatest_length_matches() -> None:
    assert right({"a" * 254 + "*": Right.READ}, "a" * 254) is Right.READ
    assert right({"a" * 254 + "*": Right.READ}, "a" * 255) is Right.READ
    assert right({"a" * 254 + "*": Right.READ}, "a" * 253) is None


def test_thousands_of_rooms_take_no_longer_than_a_few() -> None:
    few = Grant(user="ann", rooms={"a*": Right.READ})
    many = Grant(user="ann", rooms={f"trip-{n}*": Right.READ for n in range(9_999)} | {"a*": Right.READ})

    def took(grant: Grant) -> float:
        best = 1.0
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(20):
                assert grant.right("a" * 255) is Right.READ
                assert grant.right("b" * 255) is None
            best = min(best, time.perf_counter() - began)
        return best

    assert took(many) < 10 * took(few)


@pytest.mark.parametrize(
    "rooms",
    [
        {"": Right.READ},
        {"a*b": Right.READ},
        {"**": Right.READ},
        {"trip\n": Right.READ},
        {"trip\x7f": Right.READ},
        {"\ud800": Right.READ},
        {"a" * 256: Right.READ},
        {"ü" * 128: Right.READ},
        {"trip": 1},
        {"trip": "write"},
        {"trip": None},
        {7: Right.READ},
        {f"trip-{n}": Right.READ for n in range(10_001)},
    ],
    ids=lambda rooms: f"{rooms!r:.30}",
)
def test_a_grant_of_no_such_rooms_can_not_be_made(rooms: Mapping[str, Right]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Grant(user="ann", rooms=rooms)


@pytest.mark.parametrize(
    "fields",
    [
        {"user": 42},
        {"user": ""},
        {"user": "a\x00"},
        {"user": "\ud800"},
        {"user": "a" * 256},
        {"token_id": 7},
        {"name": "a" * 101},
        {"name": "a\nb"},
        {"color": "red;}"},
        {"color": 0xFF0000},
        {"expires_at": math.nan},
        {"expires_at": math.inf},
        {"expires_at": "2030-01-01"},
        {"expires_at": datetime(2030, 1, 1, tzinfo=UTC)},
        {"expires_at": Decimal(2_000_000_000)},
        {"expires_at": True},
        {"issued_at": -math.inf},
    ],
    ids=repr,
)
def test_a_grant_of_what_can_not_be_stored_shown_or_timed_can_not_be_made(fields: dict[str, Any]) -> None:
    (name,) = fields

    with pytest.raises(ValueError, match=name):
        Grant(**{"user": "ann", "rooms": {}} | fields)


def test_rights_do_not_change_with_the_map_that_they_came_from() -> None:
    rooms = {"trip-1": Right.READ}
    grant = Grant(user="ann", rooms=rooms)

    rooms["trip-1"] = Right.ADMIN

    assert grant.right("trip-1") is Right.READ
    with pytest.raises(TypeError):
        grant.rooms["trip-1"] = Right.ADMIN  # type: ignore[index]


def test_rights_include_those_before_them() -> None:
    assert Right.READ < Right.WRITE < Right.ADMIN


def test_an_open_server_allows_everything_to_nobody_in_particular() -> None:
    assert (OPEN.user, OPEN.right("any"), OPEN.expires_at) == (None, Right.ADMIN, None)


def test_credentials_show_no_secret() -> None:
    shown = repr(Credentials(token="s3cret", headers={"cookie": "s3cret"}, room="trip-1"))

    assert shown == "Credentials(room='trip-1')"
