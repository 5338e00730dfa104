"""In which list an item is, and what may not be put there."""

import time

import pytest

from crdt_sync.document import Document, Outcome
from crdt_sync.errors import MisplacedUpdate
from crdt_sync.structure import TYPE_DEPTH_MAX
from tests.support.grammar import FOUNDATION, block, deletes, item, update, var_bytes, var_uint
from tests.support.yjs import Yjs

X = var_bytes(b"x")
ONE = b"\1\x7d\1"  # the value 1


def ref(client: int, clock: int) -> bytes:
    return var_uint(client) + var_uint(clock)


def inside(client: int, clock: int, key: bytes | None = None) -> bytes:
    return b"\0" + ref(client, clock) + (b"" if key is None else var_bytes(key))


def founded() -> Document:
    document = Document()
    document.apply(FOUNDATION)
    return document


@pytest.mark.parametrize(
    "struct",
    [
        item(196, ref(2, 3), ref(2, 12), X),  # left in a text, right in an array
        item(200, ref(2, 11), ref(1, 5), ONE),  # an array, an attribute
        item(200, ref(2, 14), ref(2, 15), ONE),  # two keys
        item(196, ref(1, 3), ref(1, 1), X),  # inside a type, beside it
    ],
)
def test_neighbours_from_two_lists_are_refused_and_change_nothing(struct: bytes) -> None:
    document = founded()
    before = document.state()

    with pytest.raises(MisplacedUpdate, match="different lists"):
        document.apply(update(block(3, 0, struct)))

    assert document.state() == before


def test_neighbours_from_one_list_are_taken_wherever_they_are() -> None:
    document = founded()

    outcomes = [
        document.apply(update(block(3, 0, item(196, ref(2, 3), ref(2, 4), X)))),
        document.apply(update(block(4, 0, item(200, ref(2, 11), ref(2, 12), ONE)))),
        document.apply(update(block(5, 0, item(136, ref(2, 15), ONE)))),
        # Beside what came in the update before, by another client.
        document.apply(update(block(6, 0, item(196, ref(3, 0), ref(2, 4), X)))),
    ]

    assert outcomes == [Outcome.NEW] * 4


def test_neighbours_may_come_in_the_same_update_in_any_order() -> None:
    # Client 3 builds on client 4, which stands behind it and builds on what is known.
    built_on = block(4, 0, item(132, ref(2, 3), X))
    builds = block(3, 0, item(196, ref(4, 0), ref(2, 4), X))

    assert founded().apply(update(builds, built_on)) is Outcome.NEW
    assert founded().apply(update(built_on, builds)) is Outcome.NEW


@pytest.mark.parametrize("parent", [ref(2, 0), ref(2, 11), ref(2, 15)])
def test_what_is_put_into_something_that_is_no_type_is_refused(parent: bytes) -> None:
    with pytest.raises(MisplacedUpdate, match="no shared type"):
        founded().apply(update(block(3, 0, item(4, b"\0", parent, X))))


def test_what_is_put_into_something_deleted_or_collected_is_taken_and_not_seen(yjs: Yjs) -> None:
    document = founded()
    log = [
        FOUNDATION,
        update(deletes=deletes((2, [(10, 4)]))),
        update(block(3, 0, item(4, inside(2, 10), X))),  # into the array that was deleted
        update(block(4, 0, item(4, inside(2, 11), X))),  # into one of the values that were deleted with it
        update(block(5, 0, item(4, inside(1, 7), X))),  # into what is collected
    ]

    for one in log[1:]:
        assert document.apply(one) is Outcome.NEW

    assert yjs.apply([document.state().update]).content == yjs.apply(log).content


def test_what_is_put_beside_something_collected_is_collected_as_in_yjs(yjs: Yjs) -> None:
    document = founded()
    log = [FOUNDATION, update(block(3, 0, item(200, ref(1, 7), ref(2, 11), ONE)))]

    assert document.apply(log[1]) is Outcome.NEW

    assert yjs.apply([document.state().update]).content == yjs.apply(log).content


def test_nesting_is_bounded_over_many_updates() -> None:
    document = founded()
    document.apply(update(block(3, 0, item(7, b"\1" + var_bytes(b"deep"), b"\0"))))
    for clock in range(1, TYPE_DEPTH_MAX + 1):
        document.apply(update(block(3, clock, item(7, inside(3, clock - 1), b"\0"))))

    with pytest.raises(MisplacedUpdate, match="nested"):
        document.apply(update(block(3, TYPE_DEPTH_MAX + 1, item(7, inside(3, TYPE_DEPTH_MAX), b"\0"))))

    # Through a sibling too, whose place is only known from its origin.
    document.apply(update(block(4, 0, item(135, ref(3, TYPE_DEPTH_MAX), b"\0"))))
    with pytest.raises(MisplacedUpdate, match="nested"):
        document.apply(update(block(4, 1, item(7, inside(4, 0), b"\0"))))


def test_a_string_as_the_value_of_a_key_is_refused_unless_it_is_deleted() -> None:
    keyed = block(3, 0, item(36, inside(2, 14, b"k"), var_bytes(b"abc")))

    with pytest.raises(MisplacedUpdate, match="one key"):
        founded().apply(update(keyed))

    assert founded().apply(update(keyed, deletes=deletes((3, [(0, 3)])))) is Outcome.NEW


def test_an_update_that_goes_on_in_another_list_than_it_began_in_is_refused() -> None:
    document = founded()
    document.apply(update(block(3, 0, item(132, ref(2, 3), X))))

    with pytest.raises(MisplacedUpdate, match="something else stands"):
        document.apply(update(block(3, 0, item(136, ref(2, 11), b"\2\x7d\1\x7d\2"))))


def test_places_are_known_after_loading_a_compacted_state() -> None:
    stored = founded().state().update
    document = Document()
    document.apply(stored)

    with pytest.raises(MisplacedUpdate):
        document.apply(update(block(3, 0, item(196, ref(2, 3), ref(2, 12), X))))
    assert document.apply(update(block(3, 0, item(196, ref(2, 3), ref(2, 4), X)))) is Outcome.NEW


def test_an_item_left_and_right_of_the_same_neighbour_is_taken_as_real_yjs_writes_it(yjs: Yjs) -> None:
    # Seen in one of 1,868 histories, with XML elements.
    document = founded()
    log = [FOUNDATION, update(block(3, 0, item(199, ref(1, 1), ref(1, 1), b"\3" + var_bytes(b"p"))))]

    assert document.apply(log[1]) is Outcome.NEW

    assert yjs.apply([document.state().update]).content == yjs.apply(log).content


def test_many_values_of_keys_with_many_deletes_take_no_longer_than_the_bytes_are_worth() -> None:
    values = [item(40, b"\1" + var_bytes(b"m"), var_bytes(b"%d" % n), b"\2\x7e\x7e") for n in range(20_000)]
    data = update(block(9, 0, *values), deletes=deletes((9, [(2 * n, 2) for n in range(20_000)])))
    document = Document()

    started = time.process_time()
    document.apply(data)

    assert time.process_time() - started < 5
