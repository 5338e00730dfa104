"""What differs between two states, where made-up ones show it better than those of `test_changes_laws`."""

import asyncio
import functools
import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pycrdt
import pytest

from crdt_sync import strips
from crdt_sync.authors import Authors, Bucket, activity
from crdt_sync.changes import Change, TextRun, diff
from crdt_sync.changes_forms import LINE_CHARS_MAX, VALUE_LINES_MAX, path_to_text, to_json, to_text
from crdt_sync.content import Kind, Node, Run
from crdt_sync.errors import ContentTooCostly
from crdt_sync.javascript import UNDEFINED
from persistence import Row
from tests.support.grammar import block, deletes, item, update, var_bytes, var_uint
from tests.support.yjs import Yjs

PAGE = Path(__file__).parents[2] / "docs/reference/changes.md"
BEGIN = datetime(2026, 5, 1, 9, tzinfo=UTC)
R = b"\1\1r"  # in the root "r"
X = var_bytes(b"x")


def ref(client: int, clock: int) -> bytes:
    return var_uint(client) + var_uint(clock)


class People:
    """Several users who edit one document, one after the other, and what the log has of it."""

    def __init__(self) -> None:
        self.docs: dict[str, pycrdt.Doc[Any]] = {}
        self.rows: list[Row] = []

    def __call__(self, user: str, edit: "Callable[[pycrdt.Doc[Any]], Any]") -> bytes:
        """Have one of them edit; returns the document then."""
        # Client ids in order of the first edits.
        doc = self.docs.setdefault(user, pycrdt.Doc(client_id=len(self.docs) + 1))
        for row in self.rows:
            doc.apply_update(row.update)
        before = doc.get_state()
        with doc.transaction():
            edit(doc)
        at = BEGIN + timedelta(seconds=10 * len(self.rows))
        self.rows.append(Row(len(self.rows) + 1, doc.get_update(before), user, at))
        return doc.get_update()

    def authors(self) -> Authors:
        return Authors(self.rows)


@pytest.fixture
def people() -> People:
    return People()


def text(doc: "pycrdt.Doc[Any]", name: str = "notes") -> pycrdt.Text:
    return doc.get(name, type=pycrdt.Text)


def array(doc: "pycrdt.Doc[Any]", name: str = "list") -> "pycrdt.Array[Any]":
    return doc.get(name, type=pycrdt.Array)


def mapping(doc: "pycrdt.Doc[Any]", name: str = "map") -> "pycrdt.Map[Any]":
    return doc.get(name, type=pycrdt.Map)


EMPTY = b"\0\0"


# ------------------------------------------------------------------------------------------------ maps and arrays


def test_keys_are_added_changed_and_removed(people: People) -> None:
    older = people("ann", lambda doc: mapping(doc).update({"a": 1, "b": 2, "same": 3}))

    def edit(doc: "pycrdt.Doc[Any]") -> None:
        mapping(doc)["a"] = "one"
        del mapping(doc)["b"]
        mapping(doc)["c"] = None

    newer = people("bob", edit)

    assert diff(older, newer, authors=people.authors()) == [
        Change(("map", "a"), "changed", 1, "one", (), ("bob",)),
        Change(("map", "b"), "removed", 2, None, (), ("bob",)),
        Change(("map", "c"), "added", None, None, (), ("bob",)),
    ]


def test_backwards_it_is_still_said_who_made_the_difference(people: People) -> None:
    older = people("ann", lambda doc: (mapping(doc).update({"a": 1, "b": 2}), array(doc).extend([1, 2])))

    def edit(doc: "pycrdt.Doc[Any]") -> None:
        mapping(doc)["a"] = "one"
        del mapping(doc)["b"]
        del array(doc)[0]
        array(doc).append(3)

    newer = people("bob", edit)

    assert diff(newer, older, authors=people.authors()) == [
        Change(("list", 0), "added", None, 1, (), ("bob",)),
        Change(("list", 1), "removed", 3, None, (), ("bob",)),
        Change(("map", "a"), "changed", "one", 1, (), ("bob",)),
        Change(("map", "b"), "added", None, 2, (), ("bob",)),
    ]


def test_elements_have_the_index_of_the_state_that_they_are_in(people: People) -> None:
    older = people("ann", lambda doc: array(doc).extend(list("abcdef")))

    def edit(doc: "pycrdt.Doc[Any]") -> None:
        del array(doc)[4]
        del array(doc)[1]
        array(doc).insert(0, "new")

    assert diff(older, people("bob", edit)) == [
        Change(("list", 0), "added", None, "new"),
        Change(("list", 1), "removed", "b"),
        Change(("list", 4), "removed", "e"),
    ]


def test_what_is_inside_of_something_that_moved_is_where_that_is_now(people: People) -> None:
    older = people("ann", lambda doc: array(doc).append(pycrdt.Map({"title": pycrdt.Text("Louvre"), "cost": 17})))

    def edit(doc: "pycrdt.Doc[Any]") -> None:
        array(doc)[0]["cost"] = 20
        text_in = array(doc)[0]["title"]
        text_in += "!"
        array(doc).insert(0, 0)

    assert diff(older, people("ann", edit)) == [
        Change(("list", 0), "added", None, 0),
        Change(("list", 1, "cost"), "changed", 17, 20),
        Change(
            ("list", 1, "title"), "text", None, None, (TextRun("kept", 0, 6, "Louvre"), TextRun("inserted", 6, 1, "!"))
        ),
    ]


def test_a_new_type_is_one_change_with_all_that_is_in_it_and_all_who_wrote_it(people: People) -> None:
    older = people("ann", lambda doc: array(doc).append(1))
    people("ann", lambda doc: array(doc).append(pycrdt.Map({"title": pycrdt.Text("Louvre")})))
    newer = people("bob", lambda doc: array(doc)[1].update({"cost": 17}))

    [change] = diff(older, newer, authors=people.authors())

    assert to_json([change]) == [
        {
            "path": ["list", 1],
            "where": "list[1]",
            "kind": "added",
            "after": {"cost": 17, "title": "Louvre"},
            "authors": ["ann", "bob"],
        }
    ]
    assert to_json([change], rich=True)[0]["after"] == {
        "$": "map",
        "entries": {"cost": 17, "title": {"$": "text", "delta": [{"insert": "Louvre"}]}},
    }


def test_nobody_knows_who_wrote_what_the_rows_do_not_have(people: People) -> None:
    older = people("ann", lambda doc: array(doc).append(1))
    newer = people("ann", lambda doc: array(doc).append(2))

    assert [change.authors for change in diff(older, newer)] == [()]
    assert [change.authors for change in diff(older, newer, authors=Authors([]))] == [(None,)]


# ------------------------------------------------------------------------------------------------ texts


def test_a_text_is_told_in_runs_with_whose_they_are(people: People) -> None:
    older = people("ann", lambda doc: text(doc).insert(0, "a long walk"))
    people("bob", lambda doc: text(doc).insert(7, "slow "))
    newer = people("cy", lambda doc: text(doc).__delitem__(slice(0, 2)))

    [change] = diff(older, newer, authors=people.authors())

    assert change == Change(
        ("notes",),
        "text",
        runs=(
            TextRun("removed", 0, 2, "a ", authors=("cy",)),
            TextRun("kept", 0, 5, "long "),
            TextRun("inserted", 5, 5, "slow ", authors=("bob",)),
            TextRun("kept", 10, 4, "walk"),
        ),
        authors=("cy", "bob"),
    )


def test_text_of_two_is_two_runs(people: People) -> None:
    people("ann", lambda doc: text(doc).insert(0, "ann "))
    newer = people("bob", lambda doc: text(doc).insert(4, "bob"))

    [change] = diff(EMPTY, newer, authors=people.authors())

    assert [(run.content, run.authors) for run in change.runs] == [("ann ", ("ann",)), ("bob", ("bob",))]


def test_positions_are_utf16_units(people: People) -> None:
    older = people("ann", lambda doc: text(doc).insert(0, "🙂🙂 walk"))
    newer = people("ann", lambda doc: text(doc).insert(len("🙂🙂 ".encode()), "🌂"))

    [change] = diff(older, newer)

    assert change.runs == (
        TextRun("kept", 0, 5, "🙂🙂 "),
        TextRun("inserted", 5, 2, "🌂"),
        TextRun("kept", 7, 4, "walk"),
    )


def test_an_emoji_that_was_cut_is_two_other_characters(yjs: Yjs) -> None:
    older = update(block(1, 0, item(4, R, var_bytes("a😀b".encode()))))
    newer = yjs.encode([older, update(block(2, 0, item(196, ref(1, 1), ref(1, 2), var_bytes("–".encode()))))])

    [change] = diff(older, newer)

    assert [(run.kind, run.content) for run in change.runs] == [
        ("kept", "a"), ("removed", "😀"), ("inserted", "\ufffd–\ufffd"), ("kept", "b"),
    ]  # fmt: skip
    [back] = diff(newer, older)
    assert [(run.kind, run.content) for run in back.runs] == [
        ("kept", "a"), ("removed", "\ufffd–\ufffd"), ("inserted", "😀"), ("kept", "b"),
    ]  # fmt: skip


def test_formats_that_differ_are_told_apart_from_characters(people: People) -> None:
    older = people("ann", lambda doc: text(doc).insert(0, "a long walk", {"bold": True}))

    def edit(doc: "pycrdt.Doc[Any]") -> None:
        text(doc).format(2, 6, {"bold": None, "italic": True})

    newer = people("bob", edit)

    assert diff(older, newer, authors=people.authors()) == [
        Change(
            ("notes",),
            "formatted",
            runs=(
                TextRun("kept", 0, 2, "a "),
                TextRun("formatted", 2, 4, "long", False, {"bold": True}, {"italic": True}, ("bob",)),
                TextRun("kept", 6, 5, " walk"),
            ),
            authors=("bob",),
        )
    ]


def test_inserted_and_removed_text_has_its_formats(people: People) -> None:
    older = people("ann", lambda doc: text(doc).insert(0, "old", {"bold": True}))
    newer = people("ann", lambda doc: (text(doc).insert(3, "new", {"link": "x"}), text(doc).__delitem__(slice(0, 3))))

    [change] = diff(older, newer)

    assert change.runs == (
        TextRun("removed", 0, 3, "old", False, {"bold": True}, {}),
        TextRun("inserted", 0, 3, "new", False, {}, {"link": "x"}),
    )


def test_embeds_and_types_in_a_text_count_as_one_unit(people: People) -> None:
    def begin(doc: "pycrdt.Doc[Any]") -> None:
        text(doc).insert(0, "ab")
        text(doc).insert_embed(1, pycrdt.Map({"k": 1}))

    def edit(doc: "pycrdt.Doc[Any]") -> None:
        text(doc).insert_embed(0, {"image": "x"})
        text(doc).insert(4, "c")

    older, newer = people("ann", begin), people("ann", edit)

    [change] = diff(older, newer)

    assert change.runs == (
        TextRun("inserted", 0, 1, {"image": "x"}, is_embed=True),
        TextRun("kept", 1, 3, "a\ufffcb"),
        TextRun("inserted", 4, 1, "c"),
    )


def test_what_is_in_a_type_in_a_text_has_its_position_in_the_path() -> None:
    begin = [item(4, R, X), item(135, ref(1, 0), b"\1")]
    older = update(block(1, 0, *begin))
    key = b"\0" + ref(1, 1) + var_bytes(b"k")
    newer = update(block(1, 0, *begin, item(40, key, b"\1\x7d\1")))

    assert diff(older, newer) == [Change(("r", 1, "k"), "added", None, 1)]


# ------------------------------------------------------------------------------------------------ XML


def test_xml_is_told_by_attributes_children_and_texts(people: People) -> None:
    def begin(doc: "pycrdt.Doc[Any]") -> None:
        letter = doc.get("letter", type=pycrdt.XmlFragment)
        letter.children.append(pycrdt.XmlElement("p", {"align": "left", "id": "1"}, ["Hello"]))
        letter.children.append(pycrdt.XmlElement("hr"))

    def edit(doc: "pycrdt.Doc[Any]") -> None:
        paragraph, rule = doc.get("letter", type=pycrdt.XmlFragment).children
        paragraph.attributes["align"] = "right"
        del paragraph.attributes["id"]
        paragraph.children[0].insert(5, " Ann")
        paragraph.children.append(pycrdt.XmlElement("br"))
        assert rule.tag == "hr"
        del doc.get("letter", type=pycrdt.XmlFragment).children[1]

    changes = diff(people("ann", begin), people("ann", edit))

    assert [(path_to_text(change.path), change.kind) for change in changes] == [
        ("letter[1]", "removed"),
        ("letter[0].align", "changed"),
        ("letter[0].id", "removed"),
        ("letter[0][1]", "added"),
        ("letter[0][0]", "text"),
    ]
    assert to_json(changes)[3]["after"] == "<br></br>"


# ------------------------------------------------------------------------------------------------ roots


def test_a_root_that_was_emptied_or_is_new_is_compared_with_nothing(people: People) -> None:
    older = people("ann", lambda doc: (text(doc).insert(0, "x"), array(doc).append(1)))
    newer = people("ann", lambda doc: (text(doc).clear(), array(doc).clear(), mapping(doc).update({"a": 1})))

    assert diff(older, newer) == [
        Change(("list", 0), "removed", 1),
        Change(("map", "a"), "added", None, 1),
        Change(("notes",), "text", runs=(TextRun("removed", 0, 1, "x"),)),
    ]


def test_a_root_that_was_a_list_and_is_a_text_is_changed_as_a_whole() -> None:
    older = update(block(1, 0, item(8, R, b"\1\x7d\1")))
    newer = update(block(1, 0, item(8, R, b"\1\x7d\1"), item(132, ref(1, 0), X)), deletes=deletes((1, [(0, 1)])))

    assert to_json(diff(older, newer)) == [
        {"path": ["r"], "where": "r", "kind": "changed", "before": [1], "after": "x"}
    ]


# ------------------------------------------------------------------------------------------------ restoring


def test_what_was_deleted_and_written_again_is_unchanged(people: People) -> None:
    def begin(doc: "pycrdt.Doc[Any]") -> None:
        text(doc).insert(0, "a long walk", {"bold": True})
        array(doc).extend([1, pycrdt.Map({"title": pycrdt.Text("Louvre"), "cost": float("nan")}), {"k": [None]}])
        mapping(doc).update({"plain": 1, "type": pycrdt.Map({"a": 1})})

    older = people("ann", begin)
    people("bob", lambda doc: (text(doc).clear(), array(doc).clear(), mapping(doc).clear()))

    newer = people("cy", begin)

    assert diff(older, newer) == diff(newer, older) == []


def test_what_undoing_brings_back_is_unchanged(people: People) -> None:
    def begin(doc: "pycrdt.Doc[Any]") -> None:
        text(doc).insert(0, "We walk 🙂 home", {"bold": True})
        for number in range(5):
            array(doc).append(pycrdt.Map({"title": pycrdt.Text(f"item {number}"), "tags": pycrdt.Array([number])}))

    older = people("ann", begin)
    doc = people.docs["ann"]
    undo = pycrdt.UndoManager(scopes=[text(doc), array(doc)], capture_timeout_millis=0)
    emptied = people("ann", lambda doc: (text(doc).clear(), array(doc).__delitem__(slice(1, 4))))
    undo.undo()

    assert diff(older, doc.get_update()) == []
    assert len(diff(emptied, doc.get_update())) == 4


def test_maps_with_the_same_id_are_the_same_thing_even_if_written_again(people: People) -> None:
    def things(*fields: tuple[str, str, int]) -> "list[pycrdt.Map[Any]]":
        return [pycrdt.Map({"id": name, "title": pycrdt.Text(title), "cost": cost}) for name, title, cost in fields]

    older = people("ann", lambda doc: array(doc).extend(things(("a", "one", 1), ("b", "two trains", 2), ("c", "x", 3))))
    again = things(("a", "one", 1), ("b", "two slow trains", 20), ("d", "x", 3))
    newer = people("bob", lambda doc: (array(doc).clear(), array(doc).extend(again)))

    changes = to_json(diff(older, newer, authors=people.authors()))

    assert [(change["where"], change["kind"], change["authors"]) for change in changes] == [
        ("list[2]", "removed", ["bob"]),
        ("list[2]", "added", ["bob"]),
        ("list[1].cost", "changed", ["bob"]),
        ("list[1].title", "text", ["bob"]),
    ]
    assert [run["text"] for run in changes[3]["runs"] if run["kind"] == "inserted"] == ["slow "]


def test_a_text_that_took_another_ones_place_is_compared_with_it(people: People) -> None:
    older = people("ann", lambda doc: mapping(doc).update({"notes": pycrdt.Text("a long walk")}))
    newer = people("bob", lambda doc: mapping(doc).update({"notes": pycrdt.Text("a slow walk")}))

    [change] = diff(older, newer)

    assert [(run.kind, run.content) for run in change.runs] == [
        ("kept", "a "), ("removed", "long "), ("inserted", "slow "), ("kept", "walk"),
    ]  # fmt: skip


def test_of_a_list_that_was_written_again_only_what_is_different_is_told(people: People) -> None:
    older = people("ann", lambda doc: array(doc).extend(list("abcdefgh")))
    newer = people("bob", lambda doc: (array(doc).clear(), array(doc).extend(list("abXdefh!"))))

    assert [(change.kind, change.path[1], change.before or change.after) for change in diff(older, newer)] == [
        ("removed", 2, "c"), ("added", 2, "X"), ("removed", 6, "g"), ("added", 7, "!"),
    ]  # fmt: skip


def test_of_a_text_that_was_written_again_only_other_words_are_told(people: People) -> None:
    words = [f"word{number} " for number in range(200)]
    older = people("ann", lambda doc: text(doc).insert(0, "".join(words)))
    words[50:52] = ["another "]
    words[149] = "word1500 "
    newer = people("bob", lambda doc: (text(doc).clear(), text(doc).insert(0, "".join(words))))

    [change] = diff(older, newer, authors=people.authors())

    assert [(run.kind, run.content, run.authors) for run in change.runs if run.kind != "kept"] == [
        ("removed", "word50 word51 ", ("bob",)), ("inserted", "another ", ("bob",)),
        ("removed", "word150 ", ("bob",)), ("inserted", "word1500 ", ("bob",)),
    ]  # fmt: skip


def test_a_word_is_never_taken_to_pieces(people: People) -> None:
    older = people("ann", lambda doc: text(doc).insert(0, "cat"))
    newer = people("ann", lambda doc: (text(doc).clear(), text(doc).insert(0, "car")))

    [change] = diff(older, newer)

    assert change.runs == (TextRun("removed", 0, 3, "cat"), TextRun("inserted", 0, 3, "car"))


def test_text_written_again_with_other_formats_is_formatted(people: People) -> None:
    older = people("ann", lambda doc: text(doc).insert(0, "walk"))
    newer = people("ann", lambda doc: (text(doc).clear(), text(doc).insert(0, "walk", {"bold": True})))

    assert diff(older, newer) == [
        Change(("notes",), "formatted", runs=(TextRun("formatted", 0, 4, "walk", False, {}, {"bold": True}),))
    ]


# ------------------------------------------------------------------------------------------------ states


def test_states_of_which_neither_is_a_past_of_the_other_differ_by_what_each_has(people: People) -> None:
    start = people("ann", lambda doc: array(doc).append("both"))
    copies: list[pycrdt.Doc[Any]] = [pycrdt.Doc(client_id=client) for client in (7, 8)]
    for doc in copies:
        doc.apply_update(start)
    array(copies[0]).append("one's")
    array(copies[1]).append("the other's")

    assert diff(copies[0].get_update(), copies[1].get_update()) == [
        Change(("list", 1), "removed", "one's"),
        Change(("list", 1), "added", None, "the other's"),
    ]


def test_the_same_state_does_not_differ_however_it_is_written(people: People) -> None:
    state = people("ann", lambda doc: (array(doc).extend([1, 2]), text(doc).insert(0, "x")))

    assert diff(state, state) == []
    assert diff(EMPTY, EMPTY) == []


# ------------------------------------------------------------------------------------------------ authors, activity


def test_the_first_row_that_has_something_is_the_one_that_did_it(people: People) -> None:
    people("ann", lambda doc: text(doc).insert(0, "abc"))
    people("bob", lambda doc: text(doc).__delitem__(0))
    everything = Row(3, people.docs["bob"].get_update(), "cy", BEGIN)

    authors = Authors([*people.rows, everything])

    assert list(authors.inserted(1, 0, 5)) == [(0, 3, "ann"), (3, 5, None)]
    assert list(authors.deleted(1, 0, 3)) == [(0, 1, "bob"), (1, 3, None)]
    assert list(authors.inserted(9, 0, 1)) == [(0, 1, None)]


def test_rows_out_of_order_fill_each_others_gaps() -> None:
    def row(seq: int, client_clock: int, letters: str, user: str) -> Row:
        origin = (
            item(4, R, var_bytes(letters.encode()))
            if not client_clock
            else item(132, ref(1, client_clock - 1), var_bytes(letters.encode()))
        )
        return Row(seq, update(block(1, client_clock, origin)), user, BEGIN)

    authors = Authors([row(1, 2, "cc", "cy"), row(2, 6, "g", "gus"), row(3, 0, "aabbccddg", "all")])

    assert list(authors.inserted(1, 0, 10)) == [
        (0, 2, "all"), (2, 4, "cy"), (4, 6, "all"), (6, 7, "gus"), (7, 9, "all"), (9, 10, None),
    ]  # fmt: skip


def test_a_row_that_is_no_update_is_named_and_passed_over() -> None:
    authors = Authors([Row(7, b"\xff", "ann", BEGIN)])

    assert authors.unreadable == [7]
    assert [bucket.updates for bucket in activity([Row(7, b"\xff", "ann", BEGIN)], 60)] == [1]


def test_activity_counts_by_time_and_user(people: People) -> None:
    people("ann", lambda doc: text(doc).insert(0, "🙂bc", {"bold": True}))
    people("bob", lambda doc: text(doc).__delitem__(slice(4, 6)))
    people("ann", lambda doc: array(doc).extend([1, 2, 3]))
    people("ann", lambda doc: array(doc).append(4))
    sizes = [len(row.update) for row in people.rows]

    assert activity(people.rows, 30) == [
        Bucket(BEGIN, "ann", 2, 7, 0, sizes[0] + sizes[2]),
        Bucket(BEGIN, "bob", 1, 0, 2, sizes[1]),
        Bucket(BEGIN + timedelta(seconds=30), "ann", 1, 1, 0, sizes[3]),
    ]


def test_activity_does_not_count_what_is_repeated(people: People) -> None:
    people("ann", lambda doc: text(doc).insert(0, "abc"))
    before = people("bob", lambda doc: text(doc).__delitem__(0))
    people("cy", lambda doc: text(doc).insert(0, "x"))
    # As a reconnecting client does, with everything that was ever deleted.
    row = people.rows[-1]._replace(update=people.docs["cy"].get_update())

    [bucket] = activity([*people.rows[:2], row], 3600)[2:]
    [alone] = activity([row], 3600, before=before)

    assert (bucket.inserted, bucket.deleted) == (1, 0)
    assert alone.deleted == 0


# ------------------------------------------------------------------------------------------------ forms


@pytest.mark.parametrize(
    ("path", "written"),
    [
        (("itinerary", 2, "title"), "itinerary[2].title"),
        (("a", "b c", 0), 'a["b c"][0]'),
        (("",), '[""]'),
        (("ü", "1st"), 'ü["1st"]'),
        (('q"q',), '["q\\"q"]'),
    ],
)
def test_paths_are_written_as_javascript_would(path: tuple[str | int, ...], written: str) -> None:
    assert path_to_text(path) == written


def test_long_values_are_shortened_in_text() -> None:
    lines = "\n".join(["x" * (LINE_CHARS_MAX + 7)] * (VALUE_LINES_MAX + 3))
    node = Node(Kind.TEXT, runs=[Run(lines, {}, False)])

    for value in (lines, node):
        shown = to_text([Change(("a",), "added", None, value)]).splitlines()

        assert shown[1] == f"+ {'x' * LINE_CHARS_MAX}… (7 more characters)"
        assert shown[-1] == "+ … 3 more lines"
        assert len(shown) == VALUE_LINES_MAX + 2


def test_text_has_nothing_that_a_terminal_would_obey() -> None:
    nasty = "\x1b[31m\x07\r\u202e\x9b\ud800👩‍🚀"
    runs = (TextRun("inserted", 0, 3, nasty, False, {}, {nasty: nasty}, (nasty,)),)
    shown = to_text([Change((nasty,), "text", runs=runs, authors=(nasty, "x")), Change(("a",), "added", None, nasty)])

    assert "\\u001b[31m" in shown
    assert "👩‍🚀" in shown
    assert not set(shown) & set("\x1b\x07\r\u202e\x9b\ud800")


def test_values_that_json_lacks_have_words_in_text() -> None:
    values = [UNDEFINED, b"123", float("nan"), "", None, [1]]

    shown = to_text([Change((f"k{i}",), "added", None, value) for i, value in enumerate(values)])

    assert re.findall(r"(?m)^\+ (.*)$", shown) == ["undefined", "(3 bytes)", "NaN", '""', "null", "[1]"]


def test_a_type_as_an_attribute_of_new_xml_is_as_yjs_writes_it() -> None:
    element = Node(Kind.XML_ELEMENT, "P", entries={"a": Node(Kind.MAP, entries={"k": 1})})

    [change] = to_json([Change(("r", 0), "added", None, element)])

    assert change["after"] == '<p a="[object Object]"></p>'


def test_formats_that_would_take_gigabytes_are_refused(monkeypatch: pytest.MonkeyPatch, people: People) -> None:
    monkeypatch.setattr(strips, "ATTRIBUTES_MAX", 200)

    def edit(doc: "pycrdt.Doc[Any]") -> None:
        for at in range(5):
            text(doc).insert(2 * at, "ab")
            text(doc).format(2 * at, 2 * at + 1, {"link": "x" * 50})

    with pytest.raises(ContentTooCostly):
        diff(EMPTY, people("ann", edit))


def example(people: People) -> list[Change]:
    """What docs/reference/changes.md shows."""

    def begin(doc: "pycrdt.Doc[Any]") -> None:
        text(doc).insert(0, "We take the night train from Vienna and walk to the hotel.")
        mapping(doc, "budget")["EUR"] = 1500
        array(doc, "itinerary").append(pycrdt.Map({"title": pycrdt.Text("Louvre"), "cost": 17}))

    older = people("ann", begin)
    people("bob", lambda doc: (text(doc).insert(40, "slowly "), text(doc).format(29, 35, {"bold": True})))
    people("cy", lambda doc: text(doc).__delitem__(slice(12, 18)))
    newer = people(
        "ann",
        lambda doc: (
            mapping(doc, "budget").update({"EUR": 1800}),
            array(doc, "itinerary").insert(0, pycrdt.Map({"title": pycrdt.Text("Breakfast")})),
            array(doc, "itinerary")[1].update({"cost": 20}),
        ),
    )
    return diff(older, newer, authors=people.authors())


def test_page_shows_the_example_as_it_is(people: People) -> None:
    changes = example(people)
    page = PAGE.read_text()

    [shown_text] = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    [shown_json] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)

    assert to_text(changes) == shown_text
    assert to_json(changes) == json.loads(shown_json)


# ------------------------------------------------------------------------------------------------ cost


@functools.cache
def large_states() -> tuple[bytes, bytes]:
    doc: pycrdt.Doc[Any] = pycrdt.Doc()
    text(doc).insert(0, "".join(f"word{number} " for number in range(12_000)))
    array(doc).extend(list(range(10_000)))
    older = doc.get_update()
    with doc.transaction():
        for number in range(1000):
            if number % 2:
                text(doc).insert(100 * number, "more ")
            else:
                del text(doc)[100 * number : 100 * number + 4]
            array(doc)[10 * number] = -1
    return older, doc.get_update()


def test_a_large_text_and_a_long_list_take_no_more_than_a_few_times_their_reading() -> None:
    older, newer = large_states()

    begin = time.thread_time()
    changes = diff(older, newer)
    took_s = time.thread_time() - begin

    assert len(changes) == 2001
    # Some 0.2 s. Were it quadratic, it would be minutes.
    assert took_s < 5


async def test_in_a_thread_the_event_loop_gets_its_turns() -> None:
    states = large_states()
    work = asyncio.create_task(asyncio.to_thread(diff, *states))
    turns = 0
    while not work.done():
        await asyncio.sleep(0.001)
        turns += 1

    assert len(await work) == 2001
    assert turns > 3
