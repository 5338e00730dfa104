"""One Yjs document: what becomes of updates, what a peer is sent, what is stored.

The laws over whole histories, with real Yjs as the referee, are in `property_tests/test_document_laws.py`.
"""

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pycrdt
import pytest

from crdt_sync.document import Document, Outcome, State, digest, is_sound
from crdt_sync.errors import DocumentBroken, MalformedUpdate, ProtocolError, RoomFull, SyncError, UpdateBreaksDocument
from crdt_sync.native import DEFERRED_BYTES_MAX, TOGETHER_MAX, Native
from crdt_sync.pacing import at_once
from crdt_sync.update import read_state_vector, read_update, write_state_vector
from crdt_sync.waiting import ENTRY_BYTES
from tests.support import grammar
from tests.support.fakes import Editor, text_of, typed
from tests.support.yjs import Loaded, Yjs

NEW, WAITING, REPEAT = Outcome.NEW, Outcome.WAITING, Outcome.REPEAT
EMPTY = b"\x00\x00"


@pytest.fixture(scope="module")
def yjs() -> Iterator[Yjs]:
    with Yjs() as oracle:
        yield oracle


def document_with(*updates: bytes) -> Document:
    document = Document()
    for update in updates:
        document.apply(update)
    return document


def clocks(document: Document) -> dict[int, int]:
    return read_state_vector(document.state_vector())


def text_update(
    text: str,
    *,
    client: int = 1,
    clock: int = 0,
    left: tuple[int, int] | None = None,
    right: tuple[int, int] | None = None,
) -> bytes:
    """One string, as Yjs writes it: in the root `text`, or between two ids (all numbers below 128)."""
    info = 4 | (128 if left else 0) | (64 if right else 0)
    ids = b"".join(bytes(one) for one in (left, right) if one)
    parent = b"" if ids else b"\x01\x04text"
    raw = text.encode()
    return bytes((1, 1, client, clock, info)) + ids + parent + bytes((len(raw),)) + raw + b"\x00"


def delete_update(client: int, start: int, length: int) -> bytes:
    return bytes((0, 1, client, 1, start, length))


def evidence(document: Document) -> tuple[object, ...]:
    """Everything about a document that an update could change."""
    return (
        dict(document._clocks),
        {client: list(ranges) for client, ranges in document._deleted.items()},
        document.waiting,
        {client: list(pairs) for client, pairs in document._pairs.items()},
        {client: set(cuts) for client, cuts in document._native._cuts.items()},
        list(document._native._deferred),
        {
            client: tuple(list(getattr(runs, name)) for name in ("starts", "lists", "depths", "types"))
            for client, runs in document._tree._runs.items()
        },
        bytes(document._native._doc.get_update()),
    )


def load(yjs: Yjs, *updates: bytes) -> Loaded:
    loaded = yjs.apply(updates, {"text": "text"})
    assert loaded.error is None, loaded.error
    return loaded


def shown(yjs: Yjs, document: Document) -> str:
    """The text as a real Yjs client that joins now sees it."""
    return str(load(yjs, document.diff(b"\x00"), *document.waiting).content["text"]["string"])


# ------------------------------------------------------------------------------------------------------- outcomes


def test_an_empty_document_has_nothing() -> None:
    document = Document()

    assert document.state_vector() == b"\x00"
    assert document.diff(b"\x00") == EMPTY
    assert document.waiting == ()


def test_an_update_that_is_ready_is_new_and_its_repetition_a_repeat() -> None:
    update = text_update("abc")
    document = Document()

    assert [document.apply(update) for _ in range(3)] == [NEW, REPEAT, REPEAT]
    assert read_state_vector(document.state_vector()) == {1: 3}


def test_an_empty_update_is_a_repeat() -> None:
    assert Document().apply(EMPTY) is REPEAT


def test_an_up_to_date_peers_step_2_is_a_repeat_although_it_carries_every_delete() -> None:
    editor = Editor(7)
    updates = [editor.type("hello"), editor.delete(1, 3), editor.put("k", 1), editor.put("k", 2)]
    document = document_with(*updates)

    step_2 = bytes(editor.doc.get_update(document.state_vector()))

    assert step_2 != EMPTY, "its delete set"
    assert document.apply(step_2) is REPEAT


def test_new_deletes_are_new_even_without_structs() -> None:
    document = document_with(text_update("abcdef"))

    outcomes = [
        document.apply(delete_update(1, 1, 2)),
        document.apply(delete_update(1, 1, 2)),
        document.apply(delete_update(1, 2, 1)),
        document.apply(delete_update(1, 2, 2)),
    ]

    assert outcomes == [NEW, REPEAT, REPEAT, NEW]
    assert text_of(document.state().update) == "aef"


def test_known_structs_with_one_unknown_delete_are_new() -> None:
    editor = Editor(7)
    document = document_with(editor.type("hello"))
    editor.delete(0, 1)

    everything = bytes(editor.doc.get_update())

    assert document.apply(everything) is NEW
    assert text_of(document.state().update) == "ello"


def test_deletes_of_what_is_not_there_yet_wait() -> None:
    document = Document()

    outcomes = [document.apply(delete_update(1, 0, 2)), document.apply(text_update("abc"))]

    assert outcomes == [WAITING, NEW]
    assert document.waiting == ()
    assert text_of(document.state().update) == "c"


def test_a_part_that_is_known_does_not_make_the_rest_known() -> None:
    one, two, three = typed("abc")
    whole = bytes(pycrdt.merge_updates(one, two, three))
    document = document_with(one)

    assert [document.apply(whole), document.apply(two), document.apply(three)] == [NEW, REPEAT, REPEAT]
    assert text_of(document.state().update) == "abc"


# ------------------------------------------------------------------------------------------------------- waiting


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_updates_in_any_order_give_the_same_document(order: tuple[int, ...]) -> None:
    first, second = Editor(1), Editor(2)
    updates = [first.type("ab")]
    second.hear(updates[0])
    updates.append(second.type("X", 1))
    first.hear(updates[1])
    updates += [first.type("Y", 2), first.delete(0, 1)]

    document = document_with(*(updates[index] for index in order))

    assert document.waiting == ()
    assert document.state_vector() == document_with(*updates).state_vector()
    assert text_of(document.state().update) == "XYb"


def test_what_waits_is_kept_as_received_oldest_first() -> None:
    _, two, three, four = typed("abcd")
    document = Document()

    outcomes = [document.apply(update) for update in (four, two, three)]

    assert outcomes == [WAITING] * 3
    assert document.waiting == (four, two, three)
    assert document.state().waiting == (four, two, three)


def test_the_repetition_of_something_that_waits_is_a_repeat() -> None:
    _, two = typed("ab")
    document = document_with(two)

    assert document.apply(two) is REPEAT
    assert document.waiting == (two,)


def test_something_that_waited_and_came_in_another_way_does_not_wait_any_longer() -> None:
    one, two, three = typed("abc")
    document = document_with(three, two)

    outcome = document.apply(bytes(pycrdt.merge_updates(one, two, three)))

    assert outcome is NEW
    assert document.waiting == ()
    assert [document.apply(update) for update in (one, two, three)] == [REPEAT] * 3


def test_pycrdt_never_sees_an_update_before_what_it_builds_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    real = Native.give

    def watch(native: Native, data: bytes, *, simple: bool = False) -> None:
        given.append(data)
        real(native, data, simple=simple)
        assert pycrdt.get_update(data, native._doc.get_state())[0] == 0, "pending inside"

    monkeypatch.setattr(Native, "give", watch)
    updates = typed("abcdefghij")
    order = updates[:]
    random.Random(3).shuffle(order)

    document_with(*order)

    assert given == updates


def test_the_eleven_updates_that_pycrdt_loses_one_of_are_all_kept() -> None:
    """FIELD-NOTES 16: valid updates out of order can be lost for good inside pycrdt."""
    updates = typed("the quick brown fox")
    for seed in range(50):
        order = updates[:]
        random.Random(seed).shuffle(order)

        document = document_with(*order)

        assert read_state_vector(document.state_vector()) == {1: len(updates)}
        assert text_of(document.state().update) == "the quick brown fox"


def test_what_does_not_fit_into_the_waiting_room_is_refused_and_changes_nothing() -> None:
    updates = typed("abcdef")
    cost = ENTRY_BYTES + len(updates[1])
    document = Document(waiting_bytes_max=3 * cost)
    for update in updates[2:5]:
        document.apply(update)
    before = evidence(document)

    with pytest.raises(RoomFull):
        document.apply(updates[5])

    assert evidence(document) == before
    assert [document.apply(updates[0]), document.apply(updates[1])] == [NEW, NEW]
    assert document.apply(updates[5]) is NEW
    assert text_of(document.state().update) == "abcdef"


def test_a_lower_bound_on_what_waits_keeps_what_waits() -> None:
    _, two, three = typed("abc")
    document = document_with(two)

    document.bound_waiting(10)

    assert document.waiting == (two,)
    with pytest.raises(RoomFull):
        document.apply(three)


def test_state_and_what_waits_make_the_same_document_again() -> None:
    one, two, three, four = typed("abcd")
    document = document_with(one, three, four)

    state = document.state()
    again = document_with(state.update, *state.waiting)

    assert again.waiting == document.waiting
    assert again.state_vector() == document.state_vector() == state.state_vector
    assert again.apply(two) is NEW
    assert text_of(again.state().update) == "abcd"


def test_nothing_grows_from_waiting_and_releasing() -> None:
    document = Document(waiting_bytes_max=10 * (ENTRY_BYTES + 30))
    editor = Editor(1)

    for _ in range(500):
        one, two = editor.type("a"), editor.type("b")
        assert [document.apply(two), document.apply(one)] == [WAITING, NEW]

    assert document.waiting == ()
    assert not document._waiting._lacking


# ------------------------------------------------------------------------------------------------------- refusing


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x01",
        b"\x01\x01\x01\x00\x00\x00\x00",
        b"\xff" * 9,
        text_update("abc")[:-1],
        text_update("abc") + b"\x00",
        delete_update(1, 0, 0),
        bytes((1, 1, 1, 0, 4)) + b"\x01\x04text" + b"\x02\xff\xfe" + b"\x00",
    ],
)
@pytest.mark.parametrize("base", ["", "a😀b"])
def test_a_malformed_update_changes_nothing(data: bytes, base: str) -> None:
    document = document_with(*([text_update(base)] if base else []))
    before = evidence(document)

    with pytest.raises(MalformedUpdate):
        document.apply(data)

    assert evidence(document) == before


@pytest.mark.parametrize(
    "update",
    [
        pytest.param(text_update("😀x", clock=4, left=(1, 3)), id="adds a pair"),
        pytest.param(text_update("x", client=2, left=(1, 1)), id="cuts a pair"),
        pytest.param(delete_update(1, 1, 1), id="deletes half a pair"),
        pytest.param(text_update("x", clock=4, left=(1, 3)), id="plain"),
    ],
)
@pytest.mark.parametrize("cut_before", [False, True])
def test_an_update_that_pycrdt_refuses_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, update: bytes, cut_before: bool
) -> None:
    document = document_with(text_update("a😀b"))
    if cut_before:
        document.apply(text_update("y", client=3, left=(1, 1)))
    before = evidence(document)

    def refuse(*_: object) -> None:
        raise ValueError("Error while decoding")

    with monkeypatch.context() as patch:
        # Read only for a later time, or applied at once: in either case nobody else can be blamed afterwards.
        patch.setattr(pycrdt, "get_update", refuse)
        patch.setattr(document._native, "_doc", _Refusing(document._native._doc))
        with pytest.raises(MalformedUpdate):
            document.apply(update)

    assert evidence(document) == before
    assert document.apply(update) is NEW


def test_small_updates_share_transactions_and_are_there_whenever_somebody_asks() -> None:
    updates = typed("x" * (2 * TOGETHER_MAX + 5))
    document, plain = Document(), pycrdt.Doc[Any]()
    begun = Counter[str]()
    real = document._native._doc
    real._doc = _Counted(real._doc, begun)  # type: ignore[assignment]
    for count, update in enumerate(updates, 1):
        document.apply(update)
        plain.apply_update(update)
        if count in (1, TOGETHER_MAX - 1, TOGETHER_MAX + 1):
            assert document.diff(b"\0") == plain.get_update()
    assert document.state().update == plain.get_update()
    assert begun["create_transaction"] <= 12


class _Counted:
    """What pycrdt has, and how many transactions it began."""

    def __init__(self, doc: object, begun: Counter[str]) -> None:
        self._doc, self._begun = doc, begun

    def __getattr__(self, name: str) -> Any:
        self._begun[name] += 1
        return getattr(self._doc, name)


class _Refusing:
    def __init__(self, doc: "pycrdt.Doc[Any]") -> None:
        self.get_state, self.get_update, self.transaction = doc.get_state, doc.get_update, doc.transaction

    def apply_update(self, data: bytes) -> None:
        raise ValueError("Error while decoding")


class PanicException(BaseException):
    """What `pyo3_runtime.PanicException` looks like."""


class _Panicking:
    """A pycrdt document that panics, in the named methods."""

    def __init__(self, doc: "pycrdt.Doc[Any]", *methods: str) -> None:
        self._doc, self._methods = doc, methods

    def __getattr__(self, name: str) -> object:
        if name in self._methods:
            return self._panic
        return getattr(self._doc, name)

    def _panic(self, *_: object) -> None:
        raise PanicException("attempt to divide by zero")


def test_a_panic_while_making_sure_breaks_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    document = Document()

    def panic(*_: object) -> bytes:
        raise PanicException("attempt to divide by zero")

    monkeypatch.setattr(pycrdt, "get_update", panic)

    with pytest.raises(UpdateBreaksDocument, match="panicked"):
        document.apply(grammar.FOUNDATION)


def test_a_panic_while_applying_breaks_the_document() -> None:
    document = document_with(text_update("ab"))
    document._native._doc = _Panicking(document._native._doc, "apply_update")  # type: ignore[assignment]

    with pytest.raises(UpdateBreaksDocument):
        document.apply(text_update("c", clock=2, left=(1, 1)))


@pytest.mark.parametrize("method", ["get_update", "get_state"])
def test_a_panic_while_encoding_breaks_the_document(method: str) -> None:
    document = document_with(text_update("ab"))
    document._native._doc = _Panicking(document._native._doc, method)  # type: ignore[assignment]

    with pytest.raises(DocumentBroken):
        document.state()


def test_other_interrupts_are_not_taken_for_panics() -> None:
    document = document_with(text_update("ab"))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    document._native._doc = _Refusing(document._native._doc)  # type: ignore[assignment]
    document._native._doc.apply_update = interrupt  # type: ignore[method-assign, assignment]

    with pytest.raises(KeyboardInterrupt):
        document.apply(text_update("c", clock=2, left=(1, 1)))


@pytest.mark.parametrize("error", [RuntimeError("no"), PanicException("no")])
def test_the_innocent_update_that_releases_a_harmful_one_is_not_called_malformed(error: BaseException) -> None:
    one, two = typed("ab")
    document = document_with(two)
    real = document._native._doc

    class Doc(_Refusing):
        def apply_update(self, data: bytes) -> None:
            if data == two:
                raise error
            real.apply_update(data)

    document._native._doc = Doc(real)  # type: ignore[assignment]

    with pytest.raises(DocumentBroken) as problem:
        document.apply(one)
    assert problem.value.close_code == 1011, "the sender may come back"
    assert problem.value.culprit == two


def test_a_harmful_update_is_set_aside_when_the_document_is_restored() -> None:
    one, two, three = typed("abc")
    document = Document(harmful=[digest(two)])

    for update in (one, two, three):
        document.restore(update)

    assert text_of(document.state().update) == "a"
    assert document.waiting == (two, three), "real Yjs may be able to load it"
    assert document.apply(two) is REPEAT
    with pytest.raises(MalformedUpdate):
        Document(harmful=[digest(one)]).apply(one)


def test_what_is_put_into_something_that_is_no_type_is_refused_and_changes_nothing() -> None:
    document = document_with(text_update("abc"))
    before = evidence(document)

    with pytest.raises(MalformedUpdate):
        document.apply(bytes((1, 1, 2, 0, 4, 0, 1, 1, 1)) + b"x\x00")

    assert evidence(document) == before


def test_what_waits_for_a_parent_that_turns_out_to_be_no_type_is_kept_and_never_integrated(yjs: Yjs) -> None:
    updates = [
        text_update("abc"),
        bytes((1, 1, 2, 0, 4, 0, 1, 3, 1)) + b"x\x00",
        text_update("d", clock=3, left=(1, 2)),
    ]
    document = Document()

    outcomes = [document.apply(update) for update in updates]

    assert outcomes == [NEW, WAITING, NEW]
    assert document.waiting == (updates[1],)
    assert shown(yjs, document) == load(yjs, *updates).content["text"]["string"] == "abcd"
    # Real Yjs takes it for something deleted, and says so in its next step 2.
    assert document.apply(yjs.encode(updates)) is NEW
    assert clocks(document) == load(yjs, *updates).state_vector


def test_what_is_put_beside_something_collected_is_taken(yjs: Yjs) -> None:
    """Yjs collects it as well. One neighbour may be collected while the other isn't: what a client collected before
    it sent it for the first time arrives as GC, while others know it, from a tab beside them, as an item."""
    updates = [
        # An array in the root array, a string in it; what stands before the string arrives as GC.
        bytes((1, 2, 1, 0, 7, 1, 5)) + b"array\x00" + bytes((4, 0, 1, 0, 1)) + b"a\x00",
        bytes((1, 1, 1, 2, 0, 1, 1, 1, 1, 0, 3)),
        bytes((1, 1, 3, 0, 196, 1, 2, 1, 1, 1)) + b"x\x00",
    ]
    document = Document()

    outcomes = [document.apply(update) for update in updates]

    assert outcomes == [NEW] * 3
    assert clocks(document) == load(yjs, *updates).state_vector


def test_what_is_put_into_something_deleted_is_taken() -> None:
    document = document_with(text_update("abc"), delete_update(1, 1, 1))

    assert document.apply(bytes((1, 1, 2, 0, 4, 0, 1, 1, 1)) + b"x\x00") is NEW
    assert text_of(document.state().update) == "ac"
    assert is_sound(document.state())


def test_a_state_that_is_not_what_went_in_is_never_handed_out() -> None:
    document = document_with(text_update("ab"))
    document._native._doc = pycrdt.Doc()

    with pytest.raises(DocumentBroken):
        document.state()


@pytest.mark.parametrize("state_vector", [b"", b"\x01", b"\x01\x01", b"\xff\xff\xff\xff\x07\x01\x01", b"\x00\x00"])
def test_a_state_vector_that_is_none_is_refused(state_vector: bytes) -> None:
    with pytest.raises(SyncError):
        document_with(text_update("ab")).diff(state_vector)


# ------------------------------------------------------------------------------------------------------- what peers lack


def test_a_peer_gets_what_it_lacks_and_nothing_else() -> None:
    updates = typed("abcdef")
    document = document_with(*updates)

    for known in range(7):
        difference = document.diff(write_state_vector({1: known} if known else {}))
        assert text_of(*updates[:known], difference) == "abcdef"
        assert len(difference) <= len(document.diff(b"\x00"))
    assert document.diff(document.state_vector()) == EMPTY


def test_a_peer_that_is_ahead_or_knows_strangers_gets_an_answer() -> None:
    document = document_with(text_update("abc"))

    assert document.diff(write_state_vector({1: 1000})) == EMPTY
    assert text_of(document.diff(write_state_vector({99: 5}))) == "abc"


def test_a_peer_that_is_up_to_date_gets_every_delete() -> None:
    document = document_with(text_update("abc"), delete_update(1, 1, 1))

    assert text_of(text_update("abc"), document.diff(write_state_vector({1: 3}))) == "ac"


def test_a_peer_that_has_half_a_pair_gets_the_whole_one(yjs: Yjs) -> None:
    document = document_with(text_update("a😀b"))

    difference = document.diff(write_state_vector({1: 2}))

    assert load(yjs, text_update("a😀b"), difference).content["text"]["string"] == "a😀b"
    assert load(yjs, text_update("a"), difference).content["text"]["string"] == "a😀b"


# ------------------------------------------------------------------------------------------------------- emoji


CUTS = {
    "insert between the halves": [text_update("x", client=2, left=(1, 1), right=(1, 2))],
    "insert after the high half": [text_update("x", client=2, left=(1, 1))],
    "delete the high half": [delete_update(1, 1, 1)],
    "delete the low half": [delete_update(1, 2, 1)],
    "delete across": [delete_update(1, 2, 2)],
    "cut by one, deleted by another": [text_update("x", client=2, left=(1, 1), right=(1, 2)), delete_update(1, 1, 2)],
}


@pytest.mark.parametrize("edits", CUTS.values(), ids=CUTS.keys())
@pytest.mark.parametrize("ask_between", [False, True])
def test_after_a_cut_real_yjs_sees_the_same_in_the_state_as_in_the_updates(
    yjs: Yjs, edits: list[bytes], ask_between: bool
) -> None:
    updates = [text_update("a😀b"), *edits, text_update("🙂z", client=3), text_update("y", client=4, left=(1, 0))]
    document = Document()

    for update in updates:
        assert document.apply(update) is NEW
        if ask_between:
            document.diff(b"\x00")
            document.state()

    expected = load(yjs, *updates)
    state = document.state()
    assert load(yjs, state.update).content == expected.content
    assert load(yjs, document.diff(b"\x00")).content == expected.content
    assert read_state_vector(state.state_vector) == expected.state_vector
    assert is_sound(state)


def test_a_pair_that_arrives_in_two_halves_is_what_yjs_makes_of_it(yjs: Yjs) -> None:
    # An update that begins in the middle of a known pair, and one whose own boundary cuts a pair that it brings.
    whole = text_update("a😀b")
    cut = text_update("x", client=2, left=(1, 1), right=(1, 2))
    both = bytes(pycrdt.merge_updates(whole, cut))
    document = document_with(both)

    assert shown(yjs, document) == load(yjs, both).content["text"]["string"]


def test_an_edit_that_waits_cuts_when_it_is_released(yjs: Yjs) -> None:
    cut = text_update("x", client=2, left=(1, 1), right=(1, 2))
    updates = [cut, text_update("a😀b")]
    document = document_with(*updates)

    assert document.waiting == ()
    assert shown(yjs, document) == load(yjs, *updates).content["text"]["string"]


def test_after_a_cut_the_state_vector_and_repeats_are_known_without_folding() -> None:
    cut = text_update("x", client=2, left=(1, 1), right=(1, 2))
    document = document_with(text_update("a😀b"), cut)

    assert read_state_vector(document.state_vector()) == {1: 4, 2: 1}
    assert document.apply(cut) is REPEAT
    assert document._native._deferred, "still unfolded"


def test_what_is_collected_after_a_cut_is_folded_before_it_piles_up() -> None:
    document = document_with(text_update("a😀b"), text_update("x", client=2, left=(1, 1)))
    editor = Editor(50)
    letters = "z" * 10_000

    sizes = []
    for _ in range(2 * DEFERRED_BYTES_MAX // len(letters)):
        document.apply(editor.type(letters))
        sizes.append(document._native._deferred_bytes)
        assert sum(len(data) for data, _ in document._native._deferred) == sizes[-1]

    assert DEFERRED_BYTES_MAX < max(sizes) < DEFERRED_BYTES_MAX + 2 * len(letters)
    assert min(sizes) < sizes[0] + len(letters)


def document_with_a_cut(items: int = 2000) -> Document:
    """One with a cut to be folded in, and edits after it."""
    editor = Editor(50)
    document = document_with(text_update("a😀b"), editor.type("z"))
    for _ in range(items):
        document.apply(editor.type("y"))
    document.apply(text_update("x", client=2, left=(1, 1)))
    for _ in range(100):
        document.apply(editor.type("x"))
    return document


def test_a_fold_in_steps_leaves_nothing_light_until_it_is_done(yjs: Yjs) -> None:
    document = document_with_a_cut()
    expected = document_with_a_cut()
    folding = document.folding()

    light = []
    for _ in folding:
        light.append(document.is_light(text_update("q", client=7)))

    assert len(light) > 10
    assert not any(light[:-1])
    assert not document.is_behind
    assert document.is_light(text_update("q", client=7))
    assert shown(yjs, document) == shown(yjs, expected)


@pytest.mark.parametrize("steps", [1, 5, 60, 100])
def test_a_fold_that_is_given_up_is_done_by_the_next(steps: int, yjs: Yjs) -> None:
    document, expected = document_with_a_cut(), document_with_a_cut()
    folding = document.folding()
    for _ in range(steps):
        next(folding)

    folding.close()

    assert document.is_behind
    for one in (document, expected):
        one.apply(text_update("q", client=7))
    assert clocks(document) == clocks(expected)
    assert shown(yjs, document) == shown(yjs, expected)


@pytest.mark.parametrize("steps", [1, 5, 60, 100])
def test_of_two_folds_the_later_one_does_it(steps: int, yjs: Yjs) -> None:
    document, expected = document_with_a_cut(), document_with_a_cut()
    folding = document.folding()
    for _ in range(steps):
        next(folding)

    assert shown(yjs, document) == shown(yjs, expected)
    for one in (document, expected):
        one.apply(text_update("q", client=7))
    at_once(folding)

    assert shown(yjs, document) == shown(yjs, expected)


def test_a_difference_in_steps_is_that_of_the_first_step() -> None:
    bigint = bytes.fromhex("01") + b"\x01\x07\x00\x08\x01\x01a\x01\x7a" + bytes(8) + b"\x00"
    document = document_with(bigint, text_update("ab"))
    taking, diffing = document.taking_state(), document.diffing(b"\x00")
    expected = document.state()
    next(taking)
    next(diffing)

    document.apply(text_update("c", clock=2, left=(1, 1)))

    assert at_once(taking) == expected
    assert at_once(diffing) == expected.update


def test_what_can_not_be_folded_in_breaks_the_document() -> None:
    document = document_with(text_update("a😀b"), text_update("x", client=2, left=(1, 1)))
    document._native._deferred.append((b"\x01\x01\x01", {}))

    with pytest.raises(DocumentBroken) as problem:
        document.diff(b"\x00")
    assert problem.value.close_code == 1011, "whoever asks is innocent"


def test_what_pycrdt_encodes_as_nonsense_breaks_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    document = document_with(text_update("ab"))

    def fail(data: bytes) -> bytes:
        raise ProtocolError("the frame ends inside a number")

    monkeypatch.setattr("crdt_sync.native.revealing", fail)

    with pytest.raises(DocumentBroken):
        document.diff(b"\x00")
    with pytest.raises(DocumentBroken):
        document.state()


# ------------------------------------------------------------------------------------------------------- proof


def test_a_state_is_sound_if_its_document_is_the_one_that_was_meant() -> None:
    state = document_with(*typed("abc")).state()

    assert is_sound(state)
    assert is_sound(Document().state())
    assert not is_sound(replace(state, state_vector=b"\x00"))
    assert not is_sound(replace(state, state_vector=write_state_vector({1: 4})))
    assert not is_sound(replace(state, update=EMPTY))
    assert not is_sound(replace(state, update=state.update[:-1]))
    assert not is_sound(replace(state, update=b""))


def test_a_state_that_lost_a_delete_is_not_sound() -> None:
    state = document_with(text_update("abc"), delete_update(1, 1, 1)).state()
    undeleted = document_with(text_update("abc")).state()

    assert undeleted.state_vector == state.state_vector
    assert is_sound(state)
    assert not is_sound(replace(state, update=undeleted.update))


def test_a_state_that_waits_for_something_is_not_sound() -> None:
    _, two = typed("ab")
    large = Editor(1)
    large.type("a")

    assert not is_sound(State(two, (), b"\x00", {}))
    assert not is_sound(State(two, (), write_state_vector({1: 2}), {}))
    assert not is_sound(State(large.type("x" * (2 << 20)), (), write_state_vector({1: (2 << 20) + 1}), {}))


def test_an_update_that_has_to_wait_deletes_at_once_what_is_there_as_in_yjs(yjs: Yjs) -> None:
    document = Document()
    first = text_update("abc")
    struct = grammar.item(4, b"\1" + grammar.var_bytes(b"text"), grammar.var_bytes(b"x"))
    later = grammar.update(grammar.block(2, 5, struct), deletes=grammar.deletes((1, [(1, 5)])))
    document.apply(first)

    outcome = document.apply(later)

    assert outcome is Outcome.WAITING
    assert document.waiting == (later,)
    assert [read_update(one).deletes for one in document.released] == [{1: [(1, 3)]}]
    assert yjs.apply([document.state().update]).content == yjs.apply([first, later]).content
    more = text_update("de", clock=3)
    document.apply(more)
    assert [read_update(one).deletes for one in document.released] == [{1: [(3, 5)]}]
    assert yjs.apply([document.state().update]).content == yjs.apply([first, later, more]).content


class Diary:
    """A recorder that keeps everything."""

    def __init__(self) -> None:
        self.entries: list[bytes | None] = []

    def note(self, update: bytes) -> None:
        self.entries.append(update)

    def clear(self) -> None:
        self.entries.append(None)


def test_a_recorder_is_told_before_and_after_everything_in_which_native_code_has_a_part() -> None:
    diary = Diary()
    document = Document(recorder=diary)
    [update] = typed("a")

    document.apply(update)
    document.restore(update)
    document.state()
    document.diff(b"\x00")
    with pytest.raises(MalformedUpdate):
        document.apply(b"nonsense")

    around = [b"", None]
    assert diary.entries == [update, None, update, None, *around, *around, *around, b"nonsense", None]


def test_a_trace_tells_of_an_update_when_it_is_its_turn() -> None:
    traced: list[bytes] = []
    document = Document(trace=traced.append)
    first, second = typed("ab")

    document.apply(second)
    assert traced == []
    document.apply(first)

    assert traced == [first, second]


def test_a_trace_tells_of_what_was_collected_after_a_cut() -> None:
    editor = Editor(1)
    updates = [editor.type("a🙂b")]
    cut = Editor(2)
    cut.hear(updates[0])
    updates.append(cut.delete(1, 2))
    traced: list[bytes] = []
    document = Document(trace=traced.append)
    for update in updates:
        document.apply(update)
    document.state()

    assert traced == updates


def test_an_update_that_is_refused_from_now_on_is() -> None:
    document = Document()
    first, second = typed("ab")

    document.refuse({digest(first)})

    with pytest.raises(MalformedUpdate):
        document.apply(first)
    assert document.restore(first) is Outcome.WAITING
    assert document.apply(second) is Outcome.WAITING
