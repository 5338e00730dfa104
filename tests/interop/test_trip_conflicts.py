"""What comes of editing a trip at the same time: each row of the table in docs/reference/trips.md, with real clients.

Two clients know the same trip, lose each other, edit, and meet again. What both show then is the outcome.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import pytest
import pytest_asyncio

from crdt_sync.content import read_content
from crdt_sync.trip_model import Trip
from crdt_sync.trips import read_trip
from tests.support.clients import NodeClient, NodeClients
from tests.support.server import ServerProcess

pytestmark = pytest.mark.parametrize("shared_server", ["sqlite"], indirect=True)

LOW, HIGH = 1000, 2000
"""The client ids of the two."""

Edits: TypeAlias = list[dict[str, Any]]
Meet: TypeAlias = Callable[[Edits, Edits], Awaitable[Trip]]


def edit(on: str, do: str, *args: Any, path: tuple[str | int, ...] = ()) -> dict[str, Any]:
    return {"on": on, "path": list(path), "do": do, "args": args}


def item(item_id: str, **fields: Any) -> dict[str, Any]:
    texts = {"title": {"$text": item_id}, "notes": {"$text": ""}}
    return {"$map": {"id": item_id, "day": 1, "rank": 1, "type": "free", **texts, **fields}}


TRIP = [
    edit("text:title", "insert", 0, "Paris"),
    edit("text:notes", "insert", 0, "a long walk"),
    edit("map:trip", "set", "owner_id", "ann"),
    edit("map:budget", "set", "EUR", 1500),
    edit("array:itinerary", "insert", 0, [item("museum", rank=1), item("lunch", rank=2), item("hotel", rank=3)]),
    edit(
        "array:comments", "insert", 0,
        [{"$map": {"id": "c", "content": {"$text": "Too early?"}, "resolved": False, "replies": {"$array": []}}}],
    ),
]  # fmt: skip


@pytest_asyncio.fixture
async def pair(
    shared_server: ServerProcess, clients: NodeClients, room: str
) -> AsyncIterator[tuple[NodeClient, NodeClient]]:
    """Two clients, of different versions, who know the same trip."""
    low = await clients.create(shared_server.url, room, "3.1", client_id=LOW)
    high = await clients.create(shared_server.url, room, "1.5", client_id=HIGH)
    await low.edit(*TRIP)
    await same(low, high)
    yield low, high


@pytest.fixture
def meet(pair: tuple[NodeClient, NodeClient]) -> Meet:
    """Has the two edit without each other, the low one and the high one, and returns what both show in the end."""

    async def edit_and_meet(of_low: Edits, of_high: Edits) -> Trip:
        low, high = pair
        await low.disconnect()
        await high.disconnect()
        await low.edit(*of_low)
        await high.edit(*of_high)
        await low.connect()
        await high.connect()
        return await same(low, high)

    return edit_and_meet


async def same(low: NodeClient, high: NodeClient) -> Trip:
    """Wait until each has all of the other, deletes too; they must show the same then."""
    for one, other in ((low, high), (high, low), (low, high)):
        await one.wait(synced=True)
        # Says that it has come all the way, after everything before it.
        await one.edit(edit("map", "set", str(one.client_id), await one.state_vector()))
        await other.wait(covers=await one.state_vector())
    trips = [read_trip(read_content(await each.encode_state())) for each in (low, high)]
    assert trips[0] == trips[1]
    return trips[0]


def ids(trip: Trip) -> list[str | None]:
    return [each.id for each in trip.itinerary]


async def test_text_typed_at_the_same_position_is_all_kept(meet: Meet) -> None:
    trip = await meet(
        [edit("text:notes", "insert", 7 + at, letter) for at, letter in enumerate("slow ")],
        [edit("text:notes", "insert", 7 + at, letter) for at, letter in enumerate("quick ")],
    )

    assert trip.notes == "a long slow quick walk"


async def test_items_added_at_the_same_place_are_both_kept(meet: Meet) -> None:
    trip = await meet(
        [edit("array:itinerary", "insert", 1, [item("coffee", rank=1.5)])],
        [edit("array:itinerary", "insert", 1, [item("tea", rank=1.5)])],
    )

    assert ids(trip) == ["museum", "coffee", "tea", "lunch", "hotel"]


async def test_an_item_that_somebody_removed_is_gone_with_what_others_wrote_in_it(meet: Meet) -> None:
    trip = await meet(
        [edit("array:itinerary", "delete", 1, 1)],
        [edit("array:itinerary", "insert", 0, "slow ", path=(1, "title")), edit("array:itinerary", "set", "cost", 5, path=(1,))],
    )  # fmt: skip

    assert ids(trip) == ["museum", "hotel"]


@pytest.mark.parametrize(("of_low", "of_high"), [(1, 2), (2, 1)])
async def test_of_two_values_the_higher_client_ids_wins(meet: Meet, of_low: int, of_high: int) -> None:
    trip = await meet([edit("map:budget", "set", "EUR", of_low)], [edit("map:budget", "set", "EUR", of_high)])

    assert trip.budget == {"EUR": of_high}


async def test_who_sets_a_value_having_seen_the_other_wins(pair: tuple[NodeClient, NodeClient]) -> None:
    low, high = pair
    await high.edit(edit("map:budget", "set", "EUR", 2))
    await same(low, high)
    await low.edit(edit("map:budget", "set", "EUR", 1))

    trip = await same(low, high)

    assert trip.budget == {"EUR": 1}


async def test_different_fields_of_an_item_are_both_kept(meet: Meet) -> None:
    trip = await meet(
        [edit("array:itinerary", "set", "cost", 17, path=(0,))],
        [edit("array:itinerary", "set", "time_slot", "noon", path=(0,))],
    )

    assert (trip.itinerary[0].cost, trip.itinerary[0].time_slot) == (17, "noon")


@pytest.mark.parametrize("low_sets", [True, False])
async def test_a_key_that_is_set_and_deleted_is_set(meet: Meet, low_sets: bool) -> None:
    edits = [[edit("map:budget", "set", "EUR", 7)], [edit("map:budget", "unset", "EUR")]]

    trip = await meet(*(edits if low_sets else edits[::-1]))

    assert trip.budget == {"EUR": 7}


async def test_what_is_typed_in_a_passage_that_is_deleted_is_kept(meet: Meet) -> None:
    trip = await meet([edit("text:notes", "delete", 0, 11)], [edit("text:notes", "insert", 4, "very ")])

    assert trip.notes == "very "


async def test_what_two_delete_is_deleted_once(meet: Meet) -> None:
    trip = await meet(
        [edit("text:notes", "delete", 0, 7), edit("array:itinerary", "delete", 0, 1)],
        [edit("text:notes", "delete", 2, 5), edit("array:itinerary", "delete", 0, 1)],
    )

    assert (trip.notes, ids(trip)) == ("walk", ["lunch", "hotel"])


async def test_an_item_that_two_move_stands_in_one_place_once(meet: Meet) -> None:
    trip = await meet(
        [edit("array:itinerary", "set", "rank", 2.5, path=(0,))],
        [edit("array:itinerary", "set", "rank", 4, path=(0,)), edit("array:itinerary", "set", "day", 2, path=(0,))],
    )

    assert ids(trip) == ["lunch", "hotel", "museum"]


async def test_what_is_written_in_an_item_that_is_moved_stays(meet: Meet) -> None:
    trip = await meet(
        [edit("array:itinerary", "set", "rank", 9, path=(0,)), edit("array:itinerary", "set", "day", 2, path=(0,))],
        [edit("array:itinerary", "insert", 0, "Great ", path=(0, "title"))],
    )

    assert [(each.day, each.title) for each in trip.itinerary] == [(1, "lunch"), (1, "hotel"), (2, "Great museum")]


async def test_an_item_that_is_moved_and_removed_is_removed(meet: Meet) -> None:
    trip = await meet([edit("array:itinerary", "set", "rank", 9, path=(0,))], [edit("array:itinerary", "delete", 0, 1)])

    assert ids(trip) == ["lunch", "hotel"]


async def test_formats_cover_what_they_were_put_on(meet: Meet, pair: tuple[NodeClient, NodeClient]) -> None:
    await meet(
        [edit("text:notes", "format", 0, 6, {"bold": True, "color": "red"})],
        [edit("text:notes", "format", 2, 9, {"italic": True, "color": "blue"})],
    )

    for each in pair:
        # A colour wins for each passage; between them is what both coloured.
        [delta] = (await each.content("delta:notes")).values()
        assert "".join(run["insert"] for run in delta) == "a long walk"
        formats = [run["attributes"] for run in delta for _ in run["insert"]]
        assert [("bold" in each, "italic" in each) for each in formats] == (
            [(True, False)] * 2 + [(True, True)] * 4 + [(False, True)] * 5
        )
        assert formats[0]["color"] == "red"
        assert {each["color"] for each in formats[2:6]} in ({"red"}, {"blue"})


async def test_a_comment_that_is_answered_and_resolved_is_both(meet: Meet) -> None:
    trip = await meet(
        [edit("array:comments", "insert", 0, [{"$map": {"id": "r", "content": {"$text": "No"}}}], path=(0, "replies"))],
        [edit("array:comments", "set", "resolved", True, path=(0,))],
    )

    [comment] = trip.comments
    assert (comment.resolved, [reply.content for reply in comment.replies]) == (True, ["No"])


async def test_a_trip_that_two_begin_offline_is_one(
    shared_server: ServerProcess, clients: NodeClients, room: str
) -> None:
    low = await clients.create(shared_server.url, room, "3.1", client_id=LOW, connect=False)
    high = await clients.create(shared_server.url, room, "3.0", client_id=HIGH, connect=False)
    await low.edit(*TRIP)
    await high.edit(
        edit("text:title", "insert", 0, "Rome"),
        edit("map:trip", "set", "owner_id", "bob"),
        edit("array:itinerary", "insert", 0, [item("forum", rank=5)]),
        edit("map:budget", "set", "USD", 100),
    )
    await low.connect()
    await high.connect()

    trip = await same(low, high)

    assert trip.title in ("ParisRome", "RomeParis")
    assert ids(trip) == ["museum", "lunch", "hotel", "forum"]
    assert (trip.owner_id, trip.budget) == ("bob", {"EUR": 1500, "USD": 100})


async def test_undo_undoes_only_the_own_edits(shared_server: ServerProcess, clients: NodeClients, room: str) -> None:
    ann = await clients.create(shared_server.url, room, "3.1", client_id=LOW)
    bob = await clients.create(shared_server.url, room, "1.5", client_id=HIGH)
    await ann.track_undo()
    await ann.insert(0, "Paris")
    await bob.wait(text="Paris")
    await bob.insert(5, " in May")
    await ann.wait(text="Paris in May")

    await ann.undo()

    await bob.wait(text=" in May")
    await ann.wait(text=" in May")
