"""Laws of drafts: what was done to a copy, in however many transactions, is what its one update does to the original."""

from typing import Any

import pycrdt
from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.document import Document, Outcome
from crdt_sync.drafts import Draft
from crdt_sync.pacing import at_once

Op = tuple[str, int, int, str]
OPS = st.tuples(
    st.sampled_from(["insert", "delete", "put", "remove", "append", "pop", "begin", "end"]),
    st.integers(0, 20),
    st.integers(1, 8),
    st.text("abü漢🙂", min_size=1, max_size=4),
)


def do(doc: "pycrdt.Doc[Any]", ops: list[Op]) -> None:
    text, facts = doc.get("text", type=pycrdt.Text), doc.get("map", type=pycrdt.Map)
    array: pycrdt.Array[Any] = doc.get("array", type=pycrdt.Array)
    transaction: pycrdt.Transaction | None = None
    for kind, at, length, word in ops:
        # pycrdt counts bytes, and may only be asked to cut between characters.
        places = [len(str(text)[:index].encode()) for index in range(len(str(text)) + 1)]
        start = min(at, len(places) - 1)
        end = min(start + length, len(places) - 1)
        match kind:
            case "insert":
                text.insert(places[start], word)
            case "delete" if start < end:
                del text[places[start] : places[end]]
            case "put":
                facts[word[0]] = word
            case "remove" if word[0] in facts:
                del facts[word[0]]
            case "append":
                array.append(word)
            case "pop" if len(array):
                del array[at % len(array)]
            case "begin" if transaction is None:
                transaction = doc.transaction().__enter__()
            case "end" if transaction is not None:
                transaction.__exit__(None, None, None)
                transaction = None
    if transaction is not None:
        transaction.__exit__(None, None, None)


def shown(doc: "pycrdt.Doc[Any]") -> tuple[str, Any, Any]:
    return (
        str(doc.get("text", type=pycrdt.Text)),
        doc.get("map", type=pycrdt.Map).to_py(),
        doc.get("array", type=pycrdt.Array).to_py(),
    )


@given(before=st.lists(OPS, max_size=12), rounds=st.lists(st.lists(OPS, max_size=25), min_size=1, max_size=4))
def test_a_drafts_update_makes_the_original_what_the_draft_was(before: list[Op], rounds: list[list[Op]]) -> None:
    author: pycrdt.Doc[Any] = pycrdt.Doc(client_id=1)
    do(author, before)
    document = Document()
    document.apply(author.get_update())

    for ops in rounds:
        # As one client, round after round, as live rooms do it.
        draft = Draft(at_once(document.copying(2)))
        do(draft.doc, ops)
        draft.close()
        update = at_once(draft.amounting())
        was = shown(draft.doc)
        if update is not None:
            assert document.apply(update) is Outcome.NEW

        assert shown(at_once(document.copying(3))) == was
