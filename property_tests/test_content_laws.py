"""Laws of what a document is said to contain: it is what real Yjs shows, and saying it always ends."""

import contextlib
import json
import random
from typing import Any

import pytest

from crdt_sync.content import Content, Kind, Node, read_content
from crdt_sync.content_text import to_text
from crdt_sync.document import Document
from crdt_sync.errors import ProtocolError, SyncError
from crdt_sync.javascript import well_formed
from crdt_sync.structure import NONE
from crdt_sync.update import read_state_vector, read_update
from tests.support.grammar import FOUNDATION, hostile_update
from tests.support.yjs import Yjs

# What the referee is asked to take a root for.
KINDS = {Kind.TEXT: "text", Kind.ARRAY: "array", Kind.MAP: "map", Kind.XML_FRAGMENT: "xml", Kind.EMPTY: "array"}

SUBDOCUMENT = {"autoLoad", "gc", "meta", "shouldLoad"}


def rich(value: Any) -> Any:
    """What the referee says, as `to_json(rich=True)` writes it."""
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, int) and abs(value) >= 2**53:
        return float(value)
    if isinstance(value, list):
        return [rich(each) for each in value]
    if not isinstance(value, dict):
        return value
    # In this order, since two keys with lone surrogates may become one. The referee's answers can't hold `__proto__`.
    members = {well_formed(key): rich(member) for key, member in sorted(value.items()) if key != "__proto__"}
    kind = members.get("$")
    if kind == "text" or kind == "xml-text":
        members["delta"] = merged(members["delta"])
        members.pop("string", None)
        if kind == "text" or not members.get("attributes"):
            members.pop("attributes", None)  # which the referee doesn't ask a text for
    elif kind == "doc":
        # Yjs fills in what the options don't say.
        defaults = {"autoLoad": False, "gc": True, "meta": None, "shouldLoad": members["autoLoad"]}
        options = {key: members[key] for key, default in defaults.items() if members[key] != default}
        return {"$": "subdocument", "guid": members["guid"], "options": options}
    elif kind == "subdocument":
        # The referee tells only what Yjs takes.
        members["options"] = {key: members["options"][key] for key in SUBDOCUMENT & members["options"].keys()}
    elif "v" in members and kind is not None:
        members[{"array": "items", "map": "entries", "xml-hook": "entries"}.get(kind, "value")] = members.pop("v")
    return members


def merged(delta: list[dict[str, Any]]) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = []
    for run in delta:
        same = bool(runs) and isinstance(run["insert"], str) and isinstance(runs[-1]["insert"], str)
        if same and canonical(run.get("attributes")) == canonical(runs[-1].get("attributes")):
            runs[-1]["insert"] += run["insert"]
        else:
            runs.append(run)
    return runs


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def plain(value: Any) -> Any:
    """What the referee says of `toJSON()`, as `to_json()` writes it."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if not isinstance(value, dict):
        return rich(value)
    match value.get("$"):
        case "undefined":
            return None
        case "bigint" | "binary":
            return value["v"]
        case "number":
            return 0 if value["v"] == "-0" else None
        case "doc":
            return {"guid": well_formed(value["guid"])}
        case "object":
            value = value["v"]
    return {well_formed(key): plain(member) for key, member in sorted(value.items()) if member != {"$": "undefined"}}


def check_against(yjs: Yjs, update: bytes, content: Content) -> None:
    """Compare all roots, each as the kind that it was taken for."""
    kinds = {name: KINDS[node.kind] for name, node in content.roots.items()}
    loaded = yjs.apply([update], kinds)
    assert loaded.error is None
    shown = content.to_json(rich=True)
    shown.pop("__proto__", None)  # which the referee's answer can't hold
    assert shown.keys() == loaded.content.keys()
    for name, root in shown.items():
        if content.roots[name].kind is Kind.EMPTY:
            assert loaded.content[name] == {"$": "array", "v": []}
        else:
            root.pop("attributes", None)  # Yjs shows none of a root, whatever it has
            # Like the referee's, since an embedded string can't be told from text in a delta.
            assert rich(root) == rich(loaded.content[name])


def check_forms(content: Content) -> None:
    """Every form is strict, whatever is in there."""
    for form in (content.to_json(), content.to_json(rich=True)):
        json.dumps(form, allow_nan=False, ensure_ascii=False).encode()
    to_text(content).encode()


@pytest.mark.parametrize("histories", [200, pytest.param(5000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_content_is_what_real_yjs_shows_of_every_history(histories: int, yjs: Yjs) -> None:
    kinds_seen = set()
    for seed in range(histories):
        rng = random.Random(seed)
        history = yjs.generate(
            seed,
            clients=rng.choice((1, 2, 3, 5)),
            steps=rng.choice((20, 60, 150)),
            emoji=rng.random() < 0.5,
            odd=rng.random() < 0.5,
            gc=rng.random() < 0.6,
            undo=rng.random() < 0.5,
            exchange=rng.choice((0.1, 0.5, 0.9)),
        )
        document = Document()
        for update in history.updates:
            document.apply(update)

        for state in (document.diff(b"\x00"), history.state, yjs.merge(history.updates)):
            content = read_content(state)

            check_against(yjs, state, content)
            check_forms(content)
        kinds_seen |= {node.kind for node in content.nodes}
        for name, root in content.roots.items():
            # What can't be told is into what kind of root somebody put nothing but shared types.
            inside = [*root.items, *(run.insert for run in root.runs)]
            only_types = all(isinstance(each, Node) for each in inside)
            assert KINDS[root.kind] == name or only_types, f"seed {seed}"
    assert kinds_seen == set(Kind)


def test_plain_json_is_what_to_json_of_real_yjs_returns(yjs: Yjs) -> None:
    for seed in range(150):
        history = yjs.generate(seed, clients=3, steps=80, emoji=seed % 2 == 0, odd=seed % 3 > 0, undo=seed % 5 == 0)
        content = read_content(history.state)

        shown = content.to_json()

        kinds = {name: f"json-{KINDS[node.kind]}" for name, node in content.roots.items() if node.kind in KINDS}
        loaded = yjs.apply([history.state], kinds)
        assert loaded.error is None
        for name, root in shown.items():
            if content.roots[name].kind is not Kind.EMPTY:
                assert root == plain(loaded.content[name]), f"seed {seed}, {name}"


@pytest.mark.parametrize("documents", [200, pytest.param(3000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_whatever_a_document_takes_can_be_shown(documents: int, yjs: Yjs) -> None:
    compared = 0
    for seed in range(documents):
        rng = random.Random(seed)
        document = Document()
        document.apply(FOUNDATION)
        for _ in range(30):
            with contextlib.suppress(SyncError):
                document.apply(hostile_update(rng, read_state_vector(document.state_vector())))
        state = document.diff(b"\x00")

        content = read_content(state)

        check_forms(content)
        if not has_crossed_origins(state):
            compared += 1
            check_against(yjs, state, content)
    assert compared > documents / 3


def has_crossed_origins(state: bytes) -> bool:
    """Whether some item claims to be left of what it is right of.

    Where that ends up depends, in Yjs, on what has been cut by then: `getItemCleanStart` shortens the item that
    `getItemCleanEnd` has just found. No client writes such items.
    """
    structs = [struct for own in read_update(state).structs.values() for struct in own]
    return any(
        left_client == right_client != NONE and right <= left
        for _, _, left_client, left, right_client, right, *_ in structs
    )


@pytest.mark.parametrize(
    "updates", [20_000, pytest.param(2_000_000, marks=[pytest.mark.long, pytest.mark.timeout(7200)])]
)
def test_any_bytes_are_shown_or_refused(updates: int) -> None:
    shown = 0
    rng = random.Random(updates)
    for _ in range(updates):
        try:
            content = read_content(hostile_update(rng, {}))
        except ProtocolError:
            continue
        check_forms(content)
        shown += 1
    assert shown > updates / 100
