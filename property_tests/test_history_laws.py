"""Reading a document as of a seq, with real Yjs as the referee: it is what the updates up to that one amount to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_sync.document import Document
from crdt_sync.history import History, NoSuchPast, Past
from persistence import Entry, Snapshot, Version
from persistence.memory import MemoryStore
from property_tests.test_document_laws import SEEDS, Histories, expect_same, roots
from tests.support.yjs import Yjs

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def histories(yjs: Yjs) -> Histories:
    return Histories(yjs)


class Written:
    """A store in which a document was written, compacted and kept, in an order left to chance."""

    def __init__(self, updates: list[bytes], rng: random.Random) -> None:
        self.store = MemoryStore()
        self.history = History(self.store)
        self.versions: dict[int, Version] = {}
        self.trimmed_to = 0
        self._updates = updates
        self._rng = rng

    async def write(self) -> None:
        await self.store.open()
        document = Document(waiting_bytes_max=1 << 30)
        for seq, update in enumerate(self._updates, start=1):
            document.apply(update)
            user = self._rng.choice(["ann", "bob", None])
            entry = Entry("doc", [update], accepted_at=moment(seq), user_id=user)
            assert await self.store.append([entry]) == [seq]
            if self._rng.random() < 0.3:
                state = document.state()
                whole = self._rng.random() < 0.8
                snapshot = Snapshot(
                    "doc",
                    seq=seq,
                    state=state.update,
                    waiting=state.waiting,
                    state_vector=state.state_vector,
                    whole=whole,
                )
                await self.store.checkpoint([snapshot])
                if self._rng.random() < 0.5:
                    version = await self.store.take_version("doc", at=moment(seq), kind="auto")
                    assert version is not None
                    self.versions[seq] = version
                    if whole and self._rng.random() < 0.2:
                        await self.store.trim_history("doc", upto=seq)
                        self.trimmed_to = seq


def moment(seq: int) -> datetime:
    return BEGAN + timedelta(seconds=10 * seq)


@given(seed=SEEDS, chance=st.integers(0, 10_000))
@settings(max_examples=50)
def test_reading_at_a_seq_or_its_moment_equals_replaying_up_to_it(
    histories: Histories, yjs: Yjs, seed: int, chance: int
) -> None:
    history = histories.get(seed)
    updates, rng = history.updates, random.Random(chance)

    async def check() -> None:
        past = Written(updates, rng)
        await past.write()
        for seq in sorted({0, len(updates), *rng.sample(range(len(updates) + 1), min(6, len(updates)))}):
            by_seq = await read(past, past.history.at_seq("doc", seq))
            assert seq or by_seq == Past(0, b"\0\0", exact=True)
            kept = seq >= past.trimmed_to
            exact = kept or (seq in past.versions and past.versions[seq].whole)
            assert by_seq is None or not seq or by_seq.exact == exact
            for one in (
                *([by_seq] if seq else []),
                await read(past, past.history.at_time("doc", moment(seq))),
                await read(past, past.history.at_time("doc", moment(seq) + timedelta(seconds=9))),
            ):
                if not kept:
                    earlier = [version for version in past.versions.values() if version.seq <= seq]
                    assert (one and one.seq) == max((version.seq for version in earlier), default=None)
                if one is None:
                    continue
                assert one.exact >= kept
                assert one.seq == seq or not one.exact
                upto = yjs.apply([yjs.merge(updates[: one.seq])] if one.seq else [], roots(history))
                expect_same(yjs.apply([one.update], roots(history)), upto, f"at {one.seq}, asked for {seq}")

    asyncio.run(check())


async def read(past: Written, reading: Coroutine[object, object, Past]) -> Past | None:
    try:
        return await reading
    except NoSuchPast:
        assert past.trimmed_to
        return None
