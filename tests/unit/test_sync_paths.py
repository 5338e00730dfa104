"""From a request's path to the room, or the part of the API, that it names."""

import pytest

from crdt_sync.errors import InvalidRoomName
from crdt_sync.gateway.sync import own_path, room_name


@pytest.mark.parametrize(
    ("root_path", "raw_path", "room"),
    [
        ("", b"/trip-1", "trip-1"),
        ("", b"/a/b", "a/b"),
        ("", b"/a%2Fb", "a/b"),
        ("", b"//a", "/a"),
        ("", b"/a%252Fb", "a%2Fb"),
        ("", b"/%E2%9C%88", "✈"),
        ("/sync", b"/sync/trip-1", "trip-1"),
        ("/sync", b"/s%79nc/trip-1", "trip-1"),
        ("/it's (me)", b"/it's%20(me)/trip-1", "trip-1"),
        ("/sync", b"/sync/sync/trip-1", "sync/trip-1"),
        # A proxy that took it away.
        ("/sync", b"/trip-1", "trip-1"),
    ],
)
def test_a_room_is_what_follows_the_application_s_own_path(root_path: str, raw_path: bytes, room: str) -> None:
    assert room_name({"raw_path": raw_path, "root_path": root_path}) == room


@pytest.mark.parametrize(
    "raw_path", [b"/", b"", b"/%00", b"/%ff", b"/a%0d%0ab", b"/api/x", b"/%61pi/x", b"/" + b"a" * 256]
)
def test_what_names_no_room_is_refused(raw_path: bytes) -> None:
    with pytest.raises(InvalidRoomName):
        room_name({"raw_path": raw_path})


def test_a_path_that_ends_inside_the_application_s_own_is_left_alone() -> None:
    assert own_path({"raw_path": b"/sy", "root_path": "/sync"}) == b"/sy"
    assert own_path({"raw_path": b"/syn%", "root_path": "/sync"}) == b"/syn%"
