"""Spots that take only so many items."""

from __future__ import annotations

import pytest

from crdt_sync.crowd import CROWD_MAX, Crowd
from crdt_sync.document import Document, Outcome
from crdt_sync.errors import UpdateTooHeavy
from crdt_sync.update import CLIENTS_MAX, read_state_vector
from tests.support.grammar import block, item, update, var_bytes, var_uint

KEY = item(40, b"\1" + var_bytes(b"m"), var_bytes(b"k"), b"\1\x7e")
FIRST = item(4, b"\1" + var_bytes(b"t"), var_bytes(b"x"))
BESIDE = item(132, var_uint(1) + b"\0", var_bytes(b"x"))


def test_a_count_is_never_too_low_and_hardly_too_high() -> None:
    crowd = Crowd()
    for n in range(200_000):
        crowd.add(hash((n, -1)))
    for _ in range(500):
        crowd.add(hash("here"))

    assert 500 <= crowd.count(hash("here")) < CROWD_MAX


@pytest.mark.parametrize("struct", [KEY, FIRST, BESIDE], ids=["key", "empty list", "one neighbour"])
def test_a_spot_that_fills_up_by_many_small_updates_is_refused_at_last(struct: bytes) -> None:
    document = Document()
    document.apply(update(block(1, 0, FIRST)))

    def fill() -> None:
        for client in range(2, 10_000):
            document.apply(update(block(client, 0, struct)))

    with pytest.raises(UpdateTooHeavy, match="one spot"):
        fill()

    assert CROWD_MAX - 200 < len(read_state_vector(document.state_vector())) <= CROWD_MAX + 1
    elsewhere = item(132, var_uint(2) + b"\0", var_bytes(b"y"))
    assert document.apply(update(block(1, 1, elsewhere))) is Outcome.NEW


@pytest.mark.parametrize("struct", [KEY, FIRST])
def test_a_spot_that_one_update_would_fill_is_refused_before_anything_is_applied(struct: bytes) -> None:
    document = Document()
    crowded = update(*(block(client, 0, struct) for client in range(10_000, 0, -1)))

    with pytest.raises(UpdateTooHeavy, match="one spot"):
        document.apply(crowded)

    assert document.state_vector() == b"\0"


def test_what_is_stored_already_is_loaded_whatever_its_spots_are_like() -> None:
    document = Document()
    crowded = update(*(block(client, 0, KEY) for client in range(CROWD_MAX + 50, 0, -1)))

    assert document.restore(crowded) is Outcome.NEW


def test_a_document_takes_only_so_many_clients() -> None:
    many = [block(client, 0, item(0, b"\1")) for client in range(CLIENTS_MAX, 0, -1)]
    document = Document()
    document.apply(update(*many))

    with pytest.raises(UpdateTooHeavy, match="clients"):
        document.apply(update(block(CLIENTS_MAX + 1, 0, FIRST)))

    assert document.apply(update(block(7, 1, FIRST))) is Outcome.NEW
    with pytest.raises(UpdateTooHeavy, match="clients"):
        Document().apply(update(*many, block(CLIENTS_MAX + 1, 0, FIRST)))
