"""The trip document: read tolerantly, written strictly, shown to programs and to people."""

import json
import random
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pycrdt
import pytest
from markdown_it import MarkdownIt

from crdt_sync import trip_model as model
from crdt_sync import trips
from crdt_sync.content import Content, Kind, Node, Run, read_content
from crdt_sync.errors import InvalidTripEdit
from crdt_sync.javascript import UNDEFINED
from crdt_sync.trip_edits import TripEditor
from crdt_sync.trip_forms import trip_to_json, trip_to_markdown
from crdt_sync.trip_model import Attachment, Comment, ItineraryItem, Metadata, Reply, Target, Trip
from crdt_sync.trips import read_trip

NOW = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)
PAGE = Path(__file__).parents[2] / "docs/reference/trips.md"


def editor(doc: "pycrdt.Doc[Any]") -> TripEditor:
    ids = iter(range(1, 10_000))
    return TripEditor(doc, now=lambda: NOW, new_id=lambda: f"id-{next(ids)}")


def read(doc: "pycrdt.Doc[Any]") -> Trip:
    return read_trip(read_content(doc.get_update()))


@pytest.fixture
def doc() -> "pycrdt.Doc[Any]":
    return pycrdt.Doc()


@pytest.fixture
def edits(doc: "pycrdt.Doc[Any]") -> TripEditor:
    made = editor(doc)
    made.new_trip(owner_id="ann", title="Paris")
    return made


def titles(doc: "pycrdt.Doc[Any]") -> list[tuple[int | None, str]]:
    return [(item.day, item.title) for item in read(doc).itinerary]


def test_what_is_written_is_what_is_read(doc: "pycrdt.Doc[Any]", edits: TripEditor) -> None:
    edits.set_text("notes", "Bring 🌂")
    edits.set_collaborator("bob", "editor")
    louvre = edits.add_item(
        day=1, type="attraction", title="Louvre", time_slot="morning", cost=17, currency="EUR",
        notes="Denon wing", booking_status="confirmed", resource_id="ticket/7",
    )  # fmt: skip
    edits.set_budget("EUR", 1500.5)
    edits.add_attachment(name="Map", url="https://example.org/map.pdf", added_by="bob")
    comment = edits.add_comment(author_id="bob", content="Too early?", target=Target("item", louvre))
    edits.reply(comment, author_id="ann", content="No")
    edits.resolve(comment)

    assert read(doc) == Trip(
        title="Paris",
        description="",
        notes="Bring 🌂",
        owner_id="ann",
        collaborators={"bob": "editor"},
        itinerary=(
            ItineraryItem(
                "id-1", 1, 0, "morning", "attraction", "ticket/7", "Louvre", "Denon wing", "confirmed", 17, "EUR"
            ),
        ),
        budget={"EUR": 1500.5},
        attachments=(Attachment("id-2", "Map", "https://example.org/map.pdf", "bob", NOW),),
        comments=(
            Comment("id-3", Target("item", louvre), "bob", "Too early?", True, NOW, (Reply("id-4", "ann", "No", NOW),)),
        ),
        metadata=Metadata(NOW, NOW, 1),
        oddities=(),
    )


def test_an_empty_document_is_an_empty_trip(doc: "pycrdt.Doc[Any]") -> None:
    trip = read(doc)

    assert (trip.title, trip.itinerary, trip.oddities) == ("", (), ())
    assert trip_to_markdown(trip) == "# A trip without a title\n"


# ------------------------------------------------------------------------------------------------ reading


def test_what_does_not_fit_is_left_out_and_told() -> None:
    array, mapping, text = Kind.ARRAY, Kind.MAP, Kind.TEXT
    item = Node(
        mapping,
        entries={
            "id": 5, "day": 0, "type": "moon", "title": Node(text, runs=[Run("Louvre", {"bold": True}, False)]),
            "notes": "a plain string", "cost": float("nan"), "currency": "Euro", "rank": True, "colour": "red",
            "time_slot": UNDEFINED,
        },
    )  # fmt: skip
    comment = {"content": ["no"], "target": {"type": "sun"}, "replies": {"a": 1}, "resolved": "yes"}
    roots = {
        "title": Node(mapping, entries={"a": 1}),
        "itinerary": Node(array, items=["free", item, {"id": "x", "title": "as an object"}, {"id": "x"}]),
        "comments": Node(array, items=[comment]),
        "budget": Node(mapping, entries={"EUR": 10, "euro": 1, "USD": "10", "CHF": -1}),
        "collaborators": Node(mapping, entries={"bob": "viewer", "cy": "king"}),
        "metadata": Node(mapping, entries={"created_at": "2026-05-01T09:30:00Z", "updated_at": "yesterday"}),
        "letter": Node(text, runs=[Run("hi", {}, False)]),
    }

    trip = read_trip(Content(roots))

    assert trip.itinerary == (
        ItineraryItem(None, None, None, None, None, None, "Louvre", "a plain string", None, None, None),
        ItineraryItem("x", None, None, None, None, None, "as an object", "", None, None, None),
        ItineraryItem("x", None, None, None, None, None, "", "", None, None, None),
    )
    assert (trip.budget, trip.collaborators, trip.metadata.created_at) == ({"EUR": 10}, {"bob": "viewer"}, NOW)
    assert set(trip.oddities) == {
        "title: not a text", "itinerary[0]: not a map", "itinerary[1].id: left out", "itinerary[1].day: left out",
        "itinerary[1].rank: left out", "itinerary[1].type: left out", "itinerary[1].cost: left out",
        "itinerary[1].currency: left out", "itinerary[1].colour: no part of it", "itinerary: the id 'x' more than once",
        "comments[0].content: not a text", "comments[0].target: not a target", "comments[0].replies: not an array",
        "comments[0].resolved: left out", "budget.euro: left out", "budget.USD: left out", "budget.CHF: left out",
        "collaborators.cy: left out", "metadata.updated_at: left out", "letter: no part of a trip",
    }  # fmt: skip


def test_only_so_many_oddities_are_told_one_by_one() -> None:
    trip = read_trip(Content({"itinerary": Node(Kind.ARRAY, items=["free"] * 1000)}))

    assert len(trip.oddities) == trips.ODDITIES_MAX + 1
    assert trip.oddities[-1] == "and 900 more"


ROOTS = ("title", "notes", "itinerary", "comments", "attachments", "budget", "collaborators", "trip", "metadata", "x")
KEYS = ("id", "day", "rank", "type", "title", "notes", "cost", "currency", "target", "path", "content", "replies",
        "resolved", "created_at", "owner_id", "name", "url", "EUR", "\ud800")  # fmt: skip
VALUES = (None, UNDEFINED, True, 0, 1, -0.0, 1e300, float("inf"), "", "hotel", "EUR", "\ud83d", "2026-05-01T09:30:00Z",
          b"\1", "item", "trip", "```\n# x\n<b>", "9999-99", "0001-01-01T00:00:00+14:00")  # fmt: skip


def anything(rng: random.Random, depth: int = 0) -> Any:
    roll = rng.randrange(8 if depth < 4 else 3)
    if roll < 3:
        return rng.choice(VALUES)
    inside = [anything(rng, depth + 1) for _ in range(rng.randrange(4))]
    named = {rng.choice(KEYS): each for each in inside}
    if roll == 3:
        return inside
    if roll == 4:
        return named
    node = Node(rng.choice([kind for kind in Kind if kind is not Kind.EMPTY or depth == 0]))
    if node.kind in (Kind.TEXT, Kind.XML_TEXT):
        node.runs = [Run(each, {}, not isinstance(each, str)) for each in inside]
    elif roll < 7:
        node.items = inside
    node.entries = named if not node.items else {}
    return node


def test_whatever_a_document_holds_reads_as_a_trip_in_every_form() -> None:
    rng = random.Random(6)
    for _ in range(3000):
        roots = {name: each for name in ROOTS if isinstance(each := anything(rng), Node)}

        trip = read_trip(Content(roots))

        json.dumps(trip_to_json(trip), allow_nan=False, ensure_ascii=False).encode()
        trip_to_markdown(trip).encode()


# ------------------------------------------------------------------------------------------------ writing


@pytest.mark.parametrize(
    "bad",
    [
        lambda edits: edits.new_trip(owner_id="bob"),
        lambda edits: edits.set_text("itinerary", "x"),
        lambda edits: edits.set_text("title", "\ud83d"),
        lambda edits: edits.set_collaborator("bob", "king"),
        lambda edits: edits.set_collaborator("", "editor"),
        lambda edits: edits.set_budget("euro", 1),
        lambda edits: edits.set_budget("EUR", -1),
        lambda edits: edits.set_budget("EUR", float("nan")),
        lambda edits: edits.set_budget("EUR", True),
        lambda edits: edits.add_item(day=0, type="hotel", title="x"),
        lambda edits: edits.add_item(day=1, type="moon", title="x"),
        lambda edits: edits.add_item(day=1, type="hotel", title=None),
        lambda edits: edits.add_item(day=1, type="hotel", title="x", colour="red"),
        lambda edits: edits.add_item(day=1, type="hotel", title="x", cost="10"),
        lambda edits: edits.add_item(day=1, type="hotel", title="x", before="nobody"),
        lambda edits: edits.change_item("id-1", day=2),
        lambda edits: edits.change_item("id-1", notes="fine", booking_status="perhaps"),
        lambda edits: edits.change_item("id-1", title=None),
        lambda edits: edits.change_item("nobody", title="x"),
        lambda edits: edits.move_item("id-1", day=1, before="id-1"),
        lambda edits: edits.move_item("id-1", day=True),
        lambda edits: edits.remove_item("nobody"),
        lambda edits: edits.add_attachment(name="x", url="javascript:alert(1)", added_by="ann"),
        lambda edits: edits.remove_attachment("id-1"),
        lambda edits: edits.add_comment(author_id="ann", content="  "),
        lambda edits: edits.add_comment(author_id="ann", content="x", target=Target("sun", "")),
        lambda edits: edits.reply("id-1", author_id="ann", content="x"),
        lambda edits: edits.resolve("id-2", resolved="yes"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    doc: "pycrdt.Doc[Any]", edits: TripEditor, bad: Callable[[TripEditor], Any]
) -> None:
    edits.add_item(day=1, type="hotel", title="Ritz")
    edits.add_comment(author_id="ann", content="x")
    before = doc.get_update()

    with pytest.raises(InvalidTripEdit):
        bad(edits)

    assert doc.get_update() == before


def test_items_stand_where_they_were_put(doc: "pycrdt.Doc[Any]", edits: TripEditor) -> None:
    lunch = edits.add_item(day=1, type="restaurant", title="lunch")
    walk = edits.add_item(day=1, type="free", title="walk")
    edits.add_item(day=1, type="hotel", title="breakfast", before=lunch)
    edits.add_item(day=2, type="hotel", title="sleep long")
    assert titles(doc) == [(1, "breakfast"), (1, "lunch"), (1, "walk"), (2, "sleep long")]

    edits.move_item(walk, day=1, before=lunch)
    edits.move_item(lunch, day=2)

    assert titles(doc) == [(1, "breakfast"), (1, "walk"), (2, "sleep long"), (2, "lunch")]


def test_a_day_is_numbered_anew_when_there_is_no_room_between_two(doc: "pycrdt.Doc[Any]", edits: TripEditor) -> None:
    last = edits.add_item(day=1, type="free", title="last")
    for number in range(200):
        edits.add_item(day=1, type="free", title=str(number), before=last)

    assert [title for _, title in titles(doc)] == [*map(str, range(200)), "last"]


def test_items_without_a_rank_come_last_and_can_be_moved_between(doc: "pycrdt.Doc[Any]", edits: TripEditor) -> None:
    items = doc.get("itinerary", type=pycrdt.Array)
    for name in "abc":
        items.append(pycrdt.Map({"id": name, "day": 1, "title": name}))
    edits.add_item(day=1, type="free", title="mine", before="c")
    assert [title for _, title in titles(doc)] == ["a", "b", "mine", "c"]

    items.append(pycrdt.Map({"id": "d", "day": 1, "title": "d"}))

    assert [title for _, title in titles(doc)] == ["a", "b", "mine", "c", "d"]


def test_setting_a_text_touches_only_what_differs(doc: "pycrdt.Doc[Any]", edits: TripEditor) -> None:
    edits.set_text("notes", "a 🙂 walk 🙂 in Paris")
    other: pycrdt.Doc[Any] = pycrdt.Doc()
    other.apply_update(doc.get_update())
    other.get("notes", type=pycrdt.Text).insert(0, "> ")

    edits.set_text("notes", "a 🙂 long 🎈 walk 🙂 in Paris!")

    doc.apply_update(other.get_update())
    assert read(doc).notes == "> a 🙂 long 🎈 walk 🙂 in Paris!"


def test_a_text_that_holds_more_than_characters_is_not_replaced(doc: "pycrdt.Doc[Any]", edits: TripEditor) -> None:
    doc.get("notes", type=pycrdt.Text).insert_embed(0, {"image": "x"})

    with pytest.raises(InvalidTripEdit, match="more than characters"):
        edits.set_text("notes", "x")


def test_fields_of_an_item_are_changed_and_taken_away(doc: "pycrdt.Doc[Any]", edits: TripEditor) -> None:
    item = edits.add_item(day=1, type="hotel", title="Ritz", cost=300, currency="EUR")

    edits.change_item(item, title="The Ritz", cost=None, time_slot="night")

    [read_item] = read(doc).itinerary
    assert (read_item.title, read_item.cost, read_item.time_slot) == ("The Ritz", None, "night")


# ------------------------------------------------------------------------------------------------ forms


def test_markdown_has_days_in_order_totals_and_replies(doc: "pycrdt.Doc[Any]", edits: TripEditor) -> None:
    edits.add_item(day=2, type="hotel", title="Ritz", cost=300, currency="EUR", booking_status="confirmed")
    edits.add_item(day=1, type="transport", title="Train", cost=0.1, currency="EUR")
    edits.add_item(
        day=1, type="restaurant", title="Diner", time_slot="noon", cost=0.2, currency="EUR", notes="a\nb\n\nc"
    )
    edits.add_item(day=1, type="free", title="Off", cost=99, currency="EUR", booking_status="cancelled")
    edits.set_budget("EUR", 500)
    edits.set_budget("USD", 20)
    comment = edits.add_comment(author_id="bob", content="Too dear", target=Target("budget", "EUR"))
    edits.reply(comment, author_id="ann", content="It is")

    assert (
        trip_to_markdown(read(doc))
        == """\
# Paris

Owner: ann.

## Day 1

- **Train**: transport, 0.10 EUR

- **Diner**: restaurant, noon, 0.20 EUR

  a\\
  b

  c

- **Off**: free, cancelled, 99.00 EUR

## Day 2

- **Ritz**: hotel, confirmed, 300.00 EUR

## Budget

| | Budget | Costs | Left |
|---|--:|--:|--:|
| EUR | 500.00 | 300.30 | 199.70 |
| USD | 20.00 | 0.00 | 20.00 |

## Comments

- **bob**, 2026-05-01 09:30 UTC, on budget EUR

  Too dear

  - **ann**, 2026-05-01 09:30 UTC

    It is
"""
    )


@pytest.mark.parametrize(
    "nasty",
    [
        "# no heading", "1. no list", "7) no list", "- no list", "+ no", "* no * list", "> no quote", "    no code", "```no\nfence",
        "<script>alert(1)</script>", "[no](javascript:x) link", "![no](x) image", "a | b", "**bold** _it_ `code`", "~~gone~~", "&lt; &amp;",
        "a\\", "\\*", "===", "---", "a\r\nb\u2028c\x0bd", "\x00", "[^1]: note", "| a |\n|---|", "$$x$$", "<https://x.y>",
    ],
)  # fmt: skip
def test_nothing_that_a_client_wrote_is_markup_in_markdown(
    doc: "pycrdt.Doc[Any]", edits: TripEditor, nasty: str
) -> None:
    edits.set_text("notes", nasty)
    edits.set_text("title", nasty)
    edits.add_item(day=1, type="free", title=nasty, notes=nasty)
    edits.add_attachment(name=nasty, url="https://example.org/x", added_by="ann")
    comment = edits.add_comment(author_id=nasty, content=nasty)
    edits.reply(comment, author_id="ann", content=nasty)

    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(trip_to_markdown(read(doc)))

    plain = MarkdownIt("commonmark").enable("table").parse(trip_to_markdown(with_words(read(doc), "x")))
    assert [token.type for token in tokens] == [token.type for token in plain]
    words = " ".join(nasty.replace("\x00", "\ufffd").split())
    inline = [token for token in tokens if token.type == "inline"]
    shown = [" ".join("".join(child.content or " " for child in token.children or []).split()) for token in inline]
    assert shown.count(words) == 6  # title, notes, attachment, comment, reply; and the item's notes


def with_words(value: Any, word: str) -> Any:
    """The same trip with another word wherever a client wrote one."""
    if isinstance(value, tuple):
        return tuple(with_words(each, word) for each in value)
    if not is_dataclass(value):
        return value
    words = {"title", "notes", "content", "name", "author_id"}
    members = {each.name: getattr(value, each.name) for each in fields(value)}
    return replace(value, **{key: word if key in words else with_words(each, word) for key, each in members.items()})


def test_json_is_as_the_page_shows_it(doc: "pycrdt.Doc[Any]", edits: TripEditor) -> None:
    louvre = edits.add_item(day=1, type="attraction", title="Louvre", time_slot="morning", cost=17, currency="EUR")
    edits.set_budget("EUR", 1500)
    edits.add_comment(author_id="bob", content="Too early?", target=Target("item", louvre))
    form = trip_to_json(read(doc))

    [page] = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)

    assert json.loads(page) == form


def test_page_lists_every_root_and_field() -> None:
    listed = set(re.findall(r"^\| `([a-z_.]+)` \|", PAGE.read_text(), re.MULTILINE))

    roots = {*model.TEXT_ROOTS, *model.MAP_ROOTS, *model.ARRAY_ROOTS}
    inside = {field.name for each in (ItineraryItem, Attachment, Comment, Metadata) for field in fields(each)}
    assert listed == roots | inside | {"owner_id"}


def test_python_on_the_page_runs(doc: "pycrdt.Doc[Any]", capsys: pytest.CaptureFixture[str]) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {"doc": doc}

    exec(code, names)

    assert "- **Louvre**: attraction, 17.00 EUR" in capsys.readouterr().out
    other: pycrdt.Doc[Any] = pycrdt.Doc()
    other.apply_update(names["update"])
    assert read(other) == names["trip"]
