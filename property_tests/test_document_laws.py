"""Laws of one document, with real Yjs as the referee: what it hands out amounts to what went in.

The histories are written by real Yjs (`Yjs.generate`): text with formats, arrays, nested maps, XML, emoji that are cut at
any UTF-16 offset, undo, garbage collection, and values that pycrdt can't hold.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pycrdt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crdt_sync.document import Document, Outcome, is_sound
from crdt_sync.errors import DocumentBroken, MalformedUpdate, RoomFull, SyncError
from crdt_sync.update import read_state_vector, read_update, write_state_vector
from tests.support.yjs import History, Loaded, Yjs

FLAVOURS: list[dict[str, Any]] = [
    {"emoji": True, "kinds": ["text"], "exchange": 0.7},
    {"emoji": True, "clients": 3, "undo": True},
    {"odd": True, "clients": 2},
    {"clients": 4, "exchange": 0.3, "gc": False},
    {"emoji": True, "odd": True, "clients": 3, "exchange": 0.9},
]


@dataclass(frozen=True)
class Histories:
    """Histories by seed, each written once.

    The content and the state are those of a client that gets the updates and nothing else. The authors themselves may
    see something else: searching a position inside a surrogate pair spoils the pair, even if no edit follows from it.
    """

    yjs: Yjs

    @lru_cache(maxsize=500)  # noqa: B019
    def get(self, seed: int) -> History:
        written = self.yjs.generate(seed, steps=30, **FLAVOURS[seed % len(FLAVOURS)])
        fresh = self.yjs.apply(written.updates, roots(written))
        assert fresh.error is None
        assert fresh.state_vector == written.state_vector
        return replace(written, state=self.yjs.encode(written.updates), content=fresh.content)


@pytest.fixture(scope="module")
def histories(yjs: Yjs) -> Histories:
    return Histories(yjs)


SEEDS = st.integers(0, 10_000)


def roots(history: History) -> dict[str, str]:
    """How to read what the history wrote to: each root is named after its kind."""
    return {name: name for name in history.content}


def expect_same(loaded: Loaded, expected: Loaded | History, what: str) -> None:
    if isinstance(loaded, Loaded):
        assert loaded.error is None, f"{what}: {loaded.error}"
    assert loaded.content == expected.content, what
    assert loaded.state_vector == expected.state_vector, what


@given(
    seed=SEEDS,
    order=st.randoms(use_true_random=False),
    looks=st.integers(0, 4),
    window=st.sampled_from([0, 3, 20, 999]),
)
def test_whatever_the_order_and_repetition_the_document_is_what_real_yjs_makes_of_the_updates(
    histories: Histories, yjs: Yjs, seed: int, order: random.Random, looks: int, window: int
) -> None:
    history = histories.get(seed)
    updates = shuffled(history.updates, order, window)
    updates += order.sample(updates, min(5, len(updates)))
    ask_at = {order.randrange(len(updates)) for _ in range(looks)}
    document = Document(waiting_bytes_max=1 << 30)

    for index, update in enumerate(updates):
        document.apply(update)
        if index in ask_at:
            state = document.state()
            assert is_sound(state)
            half_way = yjs.apply([state.update, *state.waiting], roots(history))
            if not window or "odd" not in FLAVOURS[seed % len(FLAVOURS)]:
                # Merged, since Yjs may leave an update pending for good that came before what it builds on. Merging
                # in turn loses lone surrogates in JSON.
                arrived = yjs.apply([yjs.merge(updates[: index + 1])], roots(history))
                expect_same(half_way, arrived, f"after {index + 1} updates")

    assert document.waiting == ()
    state = document.state()
    expect_same(yjs.apply([state.update], roots(history)), history, "the state")
    expect_same(yjs.apply([document.diff(b"\x00")], roots(history)), history, "the diff from nothing")
    assert read_state_vector(state.state_vector) == history.state_vector
    assert is_sound(state)
    assert all(document.apply(update) is Outcome.REPEAT for update in updates)
    # Deleting a parent deletes what others put into it meanwhile. That is in nobody's update, but in every state.
    document.apply(yjs.encode(history.updates))
    assert clocks(document) == history.state_vector
    assert document.apply(yjs.encode(history.updates)) is Outcome.REPEAT, "an up-to-date peer's step 2"


@given(seed=SEEDS, order=st.randoms(use_true_random=False), restarts=st.integers(1, 5))
def test_compacting_and_reloading_at_any_moment_changes_nothing(
    histories: Histories, yjs: Yjs, seed: int, order: random.Random, restarts: int
) -> None:
    history = histories.get(seed)
    updates = shuffled(history.updates, order, 6)
    restart_at = {order.randrange(len(updates)) for _ in range(restarts)}
    document = Document(waiting_bytes_max=1 << 30)

    for index, update in enumerate(updates):
        document.apply(update)
        if index in restart_at:
            before = document.state()
            document = Document(waiting_bytes_max=1 << 30)
            for part in (before.update, *before.waiting):
                document.apply(part)
            after = document.state()
            assert clocks(document) == read_state_vector(before.state_vector) == read_state_vector(after.state_vector)
            assert after.waiting == before.waiting
            expect_same(
                yjs.apply([after.update], roots(history)),
                yjs.apply([before.update], roots(history)),
                f"after {index + 1} updates",
            )

    assert document.waiting == ()
    expect_same(yjs.apply([document.state().update], roots(history)), history, "the state")


@given(seed=SEEDS, choice=st.randoms(use_true_random=False))
def test_a_peer_at_any_state_vector_is_complete_after_one_difference(
    histories: Histories, yjs: Yjs, seed: int, choice: random.Random
) -> None:
    """Also one that says it has half a pair, or that fell behind in the middle of an update."""
    history = histories.get(seed)
    updates = history.updates
    known = choice.randrange(len(updates) + 1)
    document = Document()
    for update in updates:
        document.apply(update)
    peer_has = yjs.apply(updates[:known]).state_vector
    claimed = {
        client: choice.randint(0, clock) if choice.random() < 0.3 else clock for client, clock in peer_has.items()
    }

    difference = document.diff(write_state_vector({client: clock for client, clock in claimed.items() if clock}))

    expect_same(yjs.apply([*updates[:known], difference], roots(history)), history, f"{claimed} of {peer_has}")


@given(seed=SEEDS, choice=st.randoms(use_true_random=False))
def test_differences_between_edits_bring_a_following_peer_along(
    histories: Histories, yjs: Yjs, seed: int, choice: random.Random
) -> None:
    history = histories.get(seed)
    document, heard = Document(), []
    peer = Document()

    for update in history.updates:
        document.apply(update)
        if choice.random() < 0.3:
            heard.append(document.diff(peer.state_vector()))
            peer.apply(heard[-1])
            assert clocks(peer) == clocks(document)
    heard.append(document.diff(peer.state_vector()))
    peer.apply(heard[-1])

    expect_same(yjs.apply(heard, roots(history)), history, "what the peer heard")
    expect_same(yjs.apply([peer.state().update], roots(history)), history, "the peer")
    document.apply(peer.diff(document.state_vector()))
    assert document.apply(peer.diff(document.state_vector())) is Outcome.REPEAT


@given(seed=SEEDS, order=st.randoms(use_true_random=False), parts=st.integers(2, 6))
def test_merged_updates_are_as_good_as_single_ones(
    histories: Histories, yjs: Yjs, seed: int, order: random.Random, parts: int
) -> None:
    """A client that was offline sends its edits merged; `mergeUpdates` may leave gaps (Skip) in them."""
    history = histories.get(seed)
    groups: list[list[bytes]] = [[] for _ in range(parts)]
    for update in history.updates:
        order.choice(groups).append(update)
    merged = [yjs.merge(group) for group in groups if group]
    order.shuffle(merged)
    document = Document(waiting_bytes_max=1 << 30)

    for update in merged:
        document.apply(update)

    state = document.state()
    expect_same(
        yjs.apply([state.update, *state.waiting], roots(history)), yjs.apply(merged, roots(history)), "all of it"
    )
    document.apply(yjs.merge(merged))
    assert (document.waiting, clocks(document)) == ((), history.state_vector), (
        "what somebody who has all sends heals it"
    )


@given(seed=SEEDS, order=st.randoms(use_true_random=False), bound=st.integers(1000, 20_000))
def test_a_refused_update_changes_nothing(histories: Histories, seed: int, order: random.Random, bound: int) -> None:
    history = histories.get(seed)
    document = Document(waiting_bytes_max=bound)

    for update in shuffled(history.updates, order, 999):
        before = evidence(document) if order.random() < 0.3 else None
        try:
            document.apply(broken(update, order) if order.random() < 0.3 else update)
        except (RoomFull, MalformedUpdate):
            assert before is None or evidence(document) == before
        except DocumentBroken:
            return

    again = Document(waiting_bytes_max=1 << 30)
    state = document.state()
    again.apply(state.update)
    assert clocks(again) == clocks(document)


@given(data=st.binary(max_size=200), seed=SEEDS, order=st.randoms(use_true_random=False))
@example(data=b"", seed=0, order=random.Random(0))
@settings(max_examples=200)
def test_no_bytes_break_a_document(histories: Histories, data: bytes, seed: int, order: random.Random) -> None:
    history = histories.get(seed % 5)
    document = Document(waiting_bytes_max=1 << 20)
    for update in history.updates:
        document.apply(update)

    for hostile in (data, broken(order.choice(history.updates), order), spliced(history.updates, order)):
        for use in (document.apply, document.diff):
            try:
                use(hostile)
            except DocumentBroken:
                return
            except SyncError:
                pass

    state = document.state()
    assert is_sound(state)


@given(seed=SEEDS)
def test_pycrdt_holds_nothing_pending(histories: Histories, seed: int) -> None:
    history = histories.get(seed)
    document = Document(waiting_bytes_max=1 << 30)

    for update in shuffled(history.updates, random.Random(seed), 10):
        document.apply(update)
        inside = read_state_vector(bytes(document._native._doc.get_state()))
        if not document._native._deferred:
            assert inside == document._clocks

    document.state()
    for update in history.updates:
        if not read_update(update).standins:
            assert pycrdt.get_update(update, document._native._doc.get_state())[0] == 0


def clocks(document: Document) -> dict[int, int]:
    return read_state_vector(document.state_vector())


def shuffled(updates: list[bytes], order: random.Random, window: int) -> list[bytes]:
    """Out of order by at most `window` places."""
    places = [(index + order.random() * window, update) for index, update in enumerate(updates)]
    return [update for _, update in sorted(places)]


def broken(update: bytes, order: random.Random) -> bytes:
    data = bytearray(update)
    for _ in range(order.randint(1, 3)):
        at = order.randrange(len(data))
        match order.randrange(4):
            case 0:
                data[at] = order.randrange(256)
            case 1:
                data[at] ^= 1 << order.randrange(8)
            case 2:
                del data[at:]
            case _:
                data.insert(at, order.randrange(256))
        if not data:
            break
    return bytes(data)


def spliced(updates: list[bytes], order: random.Random) -> bytes:
    one, two = order.choice(updates), order.choice(updates)
    return one[: order.randrange(len(one) + 1)] + two[order.randrange(len(two) + 1) :]


def evidence(document: Document) -> tuple[object, ...]:
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
