"""Large updates cut into pieces: the same when they are applied one after the other, whatever their size."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

import benchmarks.heavy_updates as heavy
from benchmarks.update_reader import scattered
from crdt_sync.document import Document, Outcome
from crdt_sync.errors import MisplacedUpdate, RoomFull
from crdt_sync.native import Native, NoRecorder
from crdt_sync.pacing import at_once
from crdt_sync.pieces import Pieces
from crdt_sync.update import read_update
from tests.support.grammar import FOUNDATION, block, deletes, item, update, var_bytes, var_uint
from tests.support.yjs import Yjs

ROOT = b"\1" + var_bytes(b"t")
X = var_bytes(b"x")


def ref(client: int, clock: int) -> bytes:
    return var_uint(client) + var_uint(clock)


def typed(count: int, *, client: int = 9) -> bytes:
    """Items in random places of a text."""
    rng = random.Random(count)
    structs = [item(4, ROOT, X)]
    structs += [item(132, ref(client, rng.randrange(clock)), X) for clock in range(1, count)]
    return update(block(client, 0, *structs))


def pieces(data: bytes, *, structs: int = 1, ranges: int = 1) -> list[bytes]:
    return list(Pieces(data, read_update(data), structs_max=structs, ranges_max=ranges))


def in_steps(document: Document, data: bytes) -> Iterator[Outcome | None]:
    """None after each step, and the outcome at last."""
    outcome = yield from document.applying(data)
    yield outcome


@pytest.mark.parametrize("seed", range(40))
def test_pieces_amount_to_the_whole_to_real_yjs_and_to_a_document(seed: int, yjs: Yjs) -> None:
    history = yjs.generate(
        seed, clients=1 + seed % 4, steps=80, odd=bool(seed & 1), emoji=bool(seed & 2), gc=bool(seed & 4), undo=True
    )
    for data in (history.state, yjs.merge(history.updates)):
        cut = pieces(data, structs=1 + seed % 3, ranges=1 + seed % 5)
        whole, parts = yjs.apply([data]), yjs.apply(cut)
        document = Document()

        outcomes = {document.apply(piece) for piece in cut}

        assert (parts.content, parts.state_vector, parts.pending) == (whole.content, whole.state_vector, False)
        assert Outcome.WAITING not in outcomes
        assert yjs.apply([document.state().update]).content == whole.content


def test_every_piece_comes_after_what_it_builds_on() -> None:
    # Each item of either client stands behind the last one of the other.
    first = [item(4, ROOT, X), *(item(132, ref(8, clock), X) for clock in range(50))]
    second = [item(132, ref(9, clock), X) for clock in range(51)]
    data = update(block(9, 0, *first), block(8, 0, *second))
    document = Document()

    outcomes = [document.apply(piece) for piece in pieces(data)]

    assert outcomes == [Outcome.NEW] * 102
    assert document.fingerprint() == _whole(data).fingerprint()


def test_garbage_gaps_and_deletes_are_cut_too() -> None:
    document = Document()
    document.apply(update(block(9, 0, item(4, ROOT, var_bytes(b"x" * 10)))))
    data = update(
        block(9, 5, item(0, var_uint(5)), item(0, var_uint(2)), item(0, var_uint(3)), item(132, ref(9, 4), X)),
        deletes=deletes((9, [(0, 1), (2, 1), (4, 1)])),
    )

    cut = pieces(data, structs=2, ranges=2)
    for piece in cut:
        document.apply(piece)

    assert (
        document.fingerprint() == _whole(update(block(9, 0, item(4, ROOT, var_bytes(b"x" * 10)))), data).fingerprint()
    )
    assert len(cut) == 3


def test_values_of_a_key_come_with_their_delete() -> None:
    values = item(40, ROOT, var_bytes(b"k"), b"\2\x7e\x7e")
    data = update(block(9, 0, *[item(4, ROOT, X)] * 3, values), deletes=deletes((9, [(3, 2)])))
    document = Document()

    for piece in pieces(data):
        document.apply(piece)

    assert document.fingerprint() == _whole(data).fingerprint()


def test_deletes_in_a_long_text_begin_with_a_coarse_cut() -> None:
    data = update(deletes=deletes((9, [(2 * n, 1) for n in range(100)])))

    cut = [read_update(piece).deletes[9] for piece in pieces(data, ranges=10)]

    assert cut[0] == [(20 * n, 20 * n + 1) for n in range(10)]
    assert [one for ranges in cut[1:] for one in ranges] == [(2 * n, 2 * n + 1) for n in range(100)]


def test_a_large_update_is_applied_in_steps_between_which_others_are() -> None:
    document, data = Document(), typed(3000)
    outcomes = []
    steps: list[Outcome | None] = []
    for step in in_steps(document, data):
        steps.append(step)
        if len(steps) in (10, 100):
            outcomes.append(document.apply(update(block(len(steps), 0, item(4, ROOT, X)))))
            document.state()

    assert steps[-1] is Outcome.NEW
    assert len(steps) > 150
    assert outcomes == [Outcome.NEW, Outcome.NEW]
    assert document.apply(data) is Outcome.REPEAT
    assert read_update(document.state().update).ends == {9: 3000, 10: 1, 100: 1}


def test_a_large_update_is_refused_as_a_whole() -> None:
    document = Document()
    document.apply(FOUNDATION)
    before = document.state()
    misplaced = item(196, ref(2, 3), ref(2, 12), X)
    many = [item(4, ROOT, X), *(item(132, ref(9, clock), X) for clock in range(2000))]

    with pytest.raises(MisplacedUpdate):
        document.apply(update(block(9, 0, *many, misplaced)))

    assert document.state() == before


def test_a_large_update_does_not_wait_for_others() -> None:
    document = Document()

    with pytest.raises(RoomFull):
        document.apply(update(block(9, 5, item(132, ref(9, 4), var_bytes(b"x" * 10_000)))))

    assert document.waiting == ()


def test_what_waited_for_a_large_update_is_released() -> None:
    document = Document()
    late = update(block(8, 0, item(132, ref(9, 2999), X)))
    document.apply(late)

    outcome = document.apply(typed(3000))

    assert (outcome, document.released, document.waiting) == (Outcome.NEW, [late], ())


def _whole(*updates: bytes) -> Document:
    document = Document()
    for data in updates:
        document.apply(data)
    return document


# ------------------------------------------------------------------------------------------------- a document by itself


def restored(data: bytes, before: tuple[bytes, ...], *, alone: bool) -> Document:
    document = Document()
    for each in before:
        document.restore(each)
    at_once(document.restoring(data, alone=alone))
    return document


EMOJIS = heavy.update(0, heavy.struct(0, "😀".encode() * 500), client=5)
WHOLE = [b"\x84\5" + var_uint(2 * count % 1000 + 1) + b"\1x" for count in range(2000)]
HALF = b"\x84\5" + var_uint(500) + b"\1x"

ALONE: dict[str, tuple[bytes, bytes | None]] = {
    "history": (heavy.chain(3_000), None),
    "scattered": (scattered(3_000), None),
    "the rest of what is known": (scattered(3_000), scattered(1_000)),
    "deletes": (heavy.deletes(3_000), heavy.update(0, heavy.struct(0, b"x" * 10_000), client=5)),
    "odd values": (heavy.odd_values(2_000), None),
    "clients, one key": (heavy.by_clients(1000, b"\x28\1\1m\1k\1\x7e"), None),
    "in one place": (heavy.prepended(1000), None),
    "nested": (heavy.nested_maps(150), None),
    "emojis": (
        heavy.update(0, heavy.struct(0, "😀".encode() * 5000), client=5),
        heavy.update(0, heavy.struct(0, b"x"), client=7),
    ),
    "emojis that are cut": (heavy.update(0, *WHOLE, HALF, client=6), EMOJIS),
    "emojis that are not": (heavy.update(0, *WHOLE, client=6), EMOJIS),
    "beside what is collected": (heavy.update(0, *[b"\x84\7\0\1x"] * 2000, client=6), b"\1\1\7\0\0\1\0"),
}


@pytest.mark.parametrize("name", ALONE)
def test_alone_or_not_a_document_holds_the_same_afterwards(name: str) -> None:
    data, base = ALONE[name]
    before = () if base is None else (base,)
    client, end = next(iter(read_update(data).ends.items()), (5, 10_000))
    later = heavy.update(0, b"\x84" + ref(client, end - 1) + b"\1z", client=999_999)

    alone, beside = (restored(data, before, alone=each) for each in (True, False))

    assert [one.restore(later) for one in (alone, beside)] == [Outcome.NEW, Outcome.NEW]
    assert alone.fingerprint() == beside.fingerprint()
    assert alone.diff(b"\0") == beside.diff(b"\0")
    assert alone.waiting == beside.waiting
    assert alone.apply(data) is beside.apply(data)


def test_what_is_loaded_alone_goes_to_pycrdt_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    give = Native.give
    monkeypatch.setattr(
        Native, "give", lambda self, data, **options: given.append(len(data)) or give(self, data, **options)
    )  # type: ignore[func-returns-value]

    restored(scattered(10_000), (), alone=True)

    assert len(given) > 300
    assert max(given) < 1000


def test_what_is_loaded_is_not_noted_anew_for_each_piece() -> None:
    noted: list[int] = []

    class Recorder(NoRecorder):
        def note(self, update: bytes) -> None:
            noted.append(len(update))

    document = Document(recorder=Recorder())
    at_once(document.restoring(scattered(10_000), alone=True))

    assert len(noted) > 300
    assert sum(noted) == 0
