"""Laws of what is said to differ: who does as it says has the other state; states that show the same don't differ."""

import contextlib
import itertools
import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pycrdt
import pytest

from crdt_sync.authors import Authors
from crdt_sync.changes import diff
from crdt_sync.changes_forms import to_json, to_text
from crdt_sync.content import read_content
from crdt_sync.document import Document
from crdt_sync.errors import SyncError
from crdt_sync.javascript import utf16_units
from crdt_sync.update import read_state_vector
from persistence import Row
from tests.support.grammar import FOUNDATION, hostile_update
from tests.support.yjs import History, Yjs

from .test_content_laws import check_against

BEGIN = datetime(2026, 5, 1, tzinfo=UTC)

# ------------------------------------------------------------------------------------------------------------
# A reader of change lists of its own: from rich JSON to units, as docs/reference/changes.md says.


@dataclass
class Thing:
    """A shared type. What is in its sequence are values and things; in a text, pairs of a character or embed and formats."""

    kind: str
    name: str = ""
    keys: dict[str, Any] = field(default_factory=dict)
    sequence: list[Any] = field(default_factory=list)

    def inside(self, step: str | int) -> Any:
        found = self.keys[step] if isinstance(step, str) else self.sequence[step]
        return found[0] if isinstance(found, tuple) else found


TYPES = {"array", "map", "text", "xml-element", "xml-fragment", "xml-hook", "xml-text", "empty"}


def thing(form: Any) -> Any:
    if not isinstance(form, dict) or form.get("$") not in TYPES:
        return form
    made = Thing(form["$"], form.get("name", ""))
    made.keys = {key: thing(each) for key, each in {**form.get("entries", {}), **form.get("attributes", {})}.items()}
    made.sequence = [thing(each) for each in [*form.get("items", []), *form.get("children", [])]]
    for run in form.get("delta", []):
        formats = run.get("attributes", {})
        made.sequence += units(run["insert"], not isinstance(run["insert"], str), formats)
    return made


def units(content: Any, is_embed: bool, formats: dict[str, Any]) -> list[Any]:
    return [(each, formats) for each in ([thing(content)] if is_embed else utf16_units(content))]


def roots(update: bytes) -> Thing:
    """What a document shows. Of which kind a root is, it doesn't say, nor that there is one in which nothing is."""
    document = Thing("document")
    for name, form in read_content(update).to_json(rich=True).items():
        root = thing(form)
        root.kind = "root"
        document.keys[name] = root
    return document


def without_empty_roots(document: Thing) -> dict[str, Any]:
    return {name: root for name, root in document.keys.items() if root.keys or root.sequence}


def apply(document: Thing, changes: list[dict[str, Any]]) -> None:
    for change in reversed(changes):
        if change["kind"] == "removed":
            around, step = at(document, change["path"])
            assert around.inside(step) == thing(change["before"])
            del (around.keys if isinstance(step, str) else around.sequence)[step]
    for change in changes:
        if change["kind"] == "removed":
            continue
        around, step = at(document, change["path"])
        if change["kind"] == "added" and isinstance(step, int):
            assert step <= len(around.sequence)
            around.sequence.insert(step, thing(change["after"]))
        elif change["kind"] == "added":
            assert step not in around.keys
            around.keys[step] = thing(change["after"])
        elif change["kind"] == "changed":
            replaced, new = around.inside(step), thing(change["after"])
            assert isinstance(step, str)
            before = thing(change["before"])
            if len(change["path"]) == 1:
                before.kind = new.kind = "root"
            assert replaced == before
            around.keys[step] = new
        elif change["kind"] in ("text", "formatted"):
            text = around.inside(step)
            text.sequence = edited(text.sequence, change["runs"])


def at(document: Thing, path: list[str | int]) -> tuple[Thing, str | int]:
    document.keys.setdefault(path[0], Thing("root"))
    around = document
    for step in path[:-1]:
        around = around.inside(step)
        assert isinstance(around, Thing)
    return around, path[-1]


def edited(sequence: list[Any], runs: list[dict[str, Any]]) -> list[Any]:
    result: list[Any] = []
    old = 0
    for run in runs:
        length, before, after = run["length"], run.get("before", {}), run.get("after", {})
        content = [] if run["kind"] == "kept" else units(run.get("embed", run.get("text")), "embed" in run, {})
        assert run["at"] == (old if run["kind"] == "removed" else len(result))
        assert run["kind"] == "kept" or len(content) == length
        if run["kind"] == "inserted":
            result += [(each, after) for each, _ in content]
            continue
        taken = sequence[old : old + length]
        assert len(taken) == length
        old += length
        if run["kind"] == "removed":
            assert [(each, before) for each, _ in content] == taken
        elif run["kind"] == "formatted":
            for each, formats in taken:
                assert before == {key: formats[key] for key in before}
                assert not any(key in formats for key in after.keys() - before.keys())
                kept = {key: value for key, value in formats.items() if key not in before}
                result.append((each, {**kept, **after}))
        else:
            result += taken
    assert old == len(sequence)
    return result


def check(older: bytes, newer: bytes) -> int:
    changes = diff(older, newer)
    forms = to_json(changes, rich=True)
    json.dumps([forms, to_json(changes)], allow_nan=False, ensure_ascii=False).encode()
    to_text(changes).encode()

    document = roots(older)
    apply(document, forms)

    assert without_empty_roots(document) == without_empty_roots(roots(newer))
    return len(changes)


# ------------------------------------------------------------------------------------------------------------


def history_of(seed: int, yjs: Yjs, *, emoji: bool = True) -> tuple[random.Random, History]:
    rng = random.Random(seed)
    history = yjs.generate(
        seed,
        clients=rng.choice((1, 2, 3, 5)),
        steps=rng.choice((20, 60, 150)),
        emoji=emoji and rng.random() < 0.5,
        odd=rng.random() < 0.4,
        gc=rng.random() < 0.6,
        undo=rng.random() < 0.5,
        exchange=rng.choice((0.1, 0.5, 0.9)),
    )
    return rng, history


def state_of(updates: list[bytes]) -> bytes:
    document = Document()
    for update in updates:
        document.apply(update)
    return document.diff(b"\x00")


HISTORIES = [50, pytest.param(3000, marks=[pytest.mark.long, pytest.mark.timeout(7200)])]


@pytest.mark.parametrize("histories", HISTORIES)
def test_the_older_state_with_the_changes_is_the_newer_in_both_directions(histories: int, yjs: Yjs) -> None:
    found = 0
    for seed in range(histories):
        rng, history = history_of(seed, yjs)
        first, second = sorted(rng.sample(range(len(history.updates) + 1), 2))
        older = state_of(history.updates[:first])
        newer = yjs.encode(history.updates[:second])

        for state in (older, newer):
            check_against(yjs, state, read_content(state))
        found += check(older, newer)
        found += check(newer, older)
        found += check(older, state_of(history.updates))
    assert found > histories


@pytest.mark.parametrize("histories", HISTORIES)
def test_it_holds_for_states_of_which_neither_is_a_past_of_the_other(histories: int, yjs: Yjs) -> None:
    for seed in range(histories):
        rng, history = history_of(seed, yjs)
        states = [state_of([update for update in history.updates if rng.random() < 0.8]) for _ in range(2)]

        check(*states)


@pytest.mark.parametrize("histories", HISTORIES)
def test_it_holds_even_for_states_of_different_documents(histories: int, yjs: Yjs) -> None:
    # Their client ids are the same, so that units are taken for each other that have nothing in common.
    for seed in range(histories):
        one = yjs.generate(2 * seed, clients=3, steps=40, odd=seed % 2 == 0, emoji=seed % 3 == 0)
        other = yjs.generate(2 * seed + 1, clients=3, steps=40, odd=seed % 2 == 0, emoji=seed % 3 == 0)

        check(one.state, other.state)


@pytest.mark.parametrize("documents", HISTORIES)
def test_it_holds_for_things_with_ids_that_are_written_again(documents: int) -> None:
    for seed in range(documents):
        rng = random.Random(seed)
        doc: pycrdt.Doc[Any] = pycrdt.Doc(client_id=1)
        array = doc.get("list", type=pycrdt.Array)
        states = []
        for _ in range(6):
            with doc.transaction():
                rewrite(rng, array)
            states.append(doc.get_update())

        for older, newer in itertools.pairwise(states):
            check(older, newer)
            there = to_json(diff(older, newer), rich=True)
            back = to_json(diff(newer, older), rich=True)
            assert sorted(map(summary, there)) == sorted(summary(backwards(change)) for change in back)
        check(states[0], states[-1])


def rewrite(rng: random.Random, array: "pycrdt.Array[Any]") -> None:
    """Write some of a list again, a little different; ids may be there twice, or be no strings."""
    start = rng.randrange(len(array) + 1)
    stop = rng.randrange(start, len(array) + 1)
    things = array.to_py()[start:stop] if rng.random() < 0.8 else []
    del array[start:stop]
    for thing in [*things, *({} for _ in range(rng.randrange(3)))]:
        if rng.random() < 0.3 or not thing:
            thing = {
                "id": rng.choice(["a", "b", "c", "d", 1, None]),
                "title": rng.choice(["one", "two", "one two three"]),
            }
        if rng.random() < 0.3:
            thing[rng.choice(["id", "cost", "title"])] = rng.choice(["a", "a walk", 5])
        shared = {
            key: pycrdt.Text(value) if key == "title" and isinstance(value, str) else value
            for key, value in thing.items()
        }
        array.insert(rng.randrange(start, len(array) + 1), pycrdt.Map(shared))


@pytest.mark.parametrize("histories", HISTORIES)
def test_states_that_show_the_same_do_not_differ(histories: int, yjs: Yjs) -> None:
    for seed in range(histories):
        _, history = history_of(seed, yjs)
        state = state_of(history.updates)

        for other in (state, yjs.encode([state]), yjs.encode([state], gc=False), yjs.merge(history.updates)):
            assert diff(state, other) == diff(other, state) == []


@pytest.mark.parametrize("histories", HISTORIES)
def test_backwards_what_was_added_is_removed(histories: int, yjs: Yjs) -> None:
    for seed in range(histories):
        rng, history = history_of(seed, yjs)
        older = state_of(history.updates[: rng.randrange(len(history.updates))])
        newer = state_of(history.updates)

        there = to_json(diff(older, newer), rich=True)
        back = to_json(diff(newer, older), rich=True)

        assert sorted(map(summary, there)) == sorted(summary(backwards(change)) for change in back)


BACK = {"added": "removed", "removed": "added", "inserted": "removed"}


def backwards(change: dict[str, Any]) -> dict[str, Any]:
    """What the change is the other way round."""
    turned = {**change, "kind": BACK.get(change["kind"], change["kind"])}
    for name, other in (("before", "after"), ("after", "before")):
        turned.pop(name, None)
        if other in change:
            turned[name] = change[other]
    if "runs" in change:
        kinds = {**BACK, "removed": "inserted"}
        turned["runs"] = [{**backwards(run), "kind": kinds.get(run["kind"], run["kind"])} for run in change["runs"]]
    return turned


def summary(change: dict[str, Any]) -> str:
    """What both directions have to agree on: not where it is, unless it is only in one of the states."""
    told = {key: each for key, each in change.items() if key not in ("path", "where", "runs")}
    if change["kind"] in ("added", "removed"):
        told["path"] = change["path"]
    # Formatted runs are where they are in the newer state, and removed ones stand before inserted ones.
    runs = [{key: each for key, each in run.items() if key != "at"} for run in change.get("runs", [])]
    told["runs"] = sorted(json.dumps(run, sort_keys=True) for run in runs if run["kind"] != "kept")
    return json.dumps(told, sort_keys=True)


@pytest.mark.parametrize("histories", HISTORIES)
def test_every_difference_is_somebodys_whose_row_is_between(histories: int, yjs: Yjs) -> None:
    for seed in range(histories):
        # Without emojis: Yjs cuts some in two when nobody said so.
        rng, history = history_of(seed, yjs, emoji=False)
        first, second = sorted(rng.sample(range(len(history.updates) + 1), 2))
        older, newer = state_of(history.updates[:first]), state_of(history.updates[:second])
        rows = [
            Row(seq, update, f"user-{seq}", BEGIN + timedelta(seconds=seq))
            for seq, update in enumerate(history.updates[first:second], first + 1)
        ]

        changes = diff(older, newer, authors=Authors(rows))

        users = {row.user_id for row in rows}
        assert to_json(diff(older, newer)) == [
            {key: each for key, each in form.items() if key != "authors"} for form in forgetting(to_json(changes))
        ]
        for change in changes:
            assert change.authors
            assert set(change.authors) <= users | {None}
            # What was removed by being overwritten, by somebody who didn't know of it, no delete set says.
            # Nor whose it is that text is formatted now, when the mark that did it was there before.
            if isinstance(change.path[-1], int) and not change.runs:
                assert None not in change.authors
            assert all(None not in run.authors for run in change.runs if run.kind != "formatted")


def forgetting(forms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without authors, by which runs were cut."""
    for form in forms:
        runs: list[dict[str, Any]] = []
        for run in form.get("runs", []):
            run.pop("authors", None)
            last = runs[-1] if runs else {}
            same = all(last.get(key) == run.get(key) for key in ("kind", "before", "after"))
            if same and "text" in run and "text" in last:
                last["length"] += run["length"]
                last["text"] += run["text"]
            else:
                runs.append(run)
        if runs:
            form["runs"] = runs
    return forms


@pytest.mark.parametrize("documents", [200, pytest.param(5000, marks=[pytest.mark.long, pytest.mark.timeout(7200)])])
def test_it_holds_for_whatever_a_document_takes(documents: int) -> None:
    compared = 0
    for seed in range(documents):
        rng = random.Random(seed)
        document = Document()
        document.apply(FOUNDATION)
        states = []
        for _ in range(30):
            with contextlib.suppress(SyncError):
                document.apply(hostile_update(rng, read_state_vector(document.state_vector())))
            states.append(document.diff(b"\x00"))
        older, newer = rng.choice(states), rng.choice(states)

        assert diff(older, older) == []
        to_text(diff(older, newer)).encode()
        if not (has_embedded_strings(older) or has_embedded_strings(newer)):
            compared += 1
            check(older, newer)
    assert compared > documents / 3


def has_embedded_strings(update: bytes) -> bool:
    """Which can't be told from text in rich JSON."""
    runs = [run for node in read_content(update).nodes for run in node.runs]
    return any(run.is_embed and isinstance(run.insert, str) for run in runs)
