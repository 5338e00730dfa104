"""Taking back what one user did, where made-up documents show it better than those of `test_restoring_laws`."""

from typing import Any

import pytest

from crdt_sync.content import read_content
from crdt_sync.document import Document, Outcome
from crdt_sync.errors import MalformedUpdate
from crdt_sync.lib0 import write_var_uint
from crdt_sync.restoring import Restoration
from crdt_sync.rollback import OTHERS_INSIDE, UNKNOWN_EDITS, roll_back
from tests.support.grammar import block, deletes, item, update, var_bytes
from tests.support.restoring import state

RESTORER = 99
DELETED, JSON, STRING, TYPE, ANY = 1, 2, 4, 7, 8
KEYED, RIGHT, LEFT = 32, 64, 128
ARRAY, MAP = b"\0", b"\1"
R = b"\1\1r"  # in the root "r"
K = var_bytes(b"k")
ONE, TWO, THREE = b"\1\x7d\1", b"\1\x7d\2", b"\1\x7d\3"


def ref(client: int, clock: int) -> bytes:
    return write_var_uint(client) + write_var_uint(clock)


def text(value: str) -> bytes:
    return var_bytes(value.encode())


def gone(*ranges: tuple[int, int], client: int = 1) -> bytes:
    return update(deletes=deletes((client, list(ranges))))


def key(client: int, value: bytes, *, over: bytes = b"", gone: int = 0, clock: int = 0) -> bytes:
    """An update that sets the key; `over` is the value so far, of the client `gone`."""
    struct = item(ANY | KEYED | LEFT, over, value) if over else item(ANY | KEYED, R, K, value)
    return update(block(client, clock, struct), deletes=deletes((gone, [(0, 1)])) if gone else b"\0")


def taken_back(before: bytes, *edits: tuple[bytes, bool]) -> tuple[Any, Restoration]:
    """What a document shows of "r" after the edits, of which those with True are taken back; and how."""
    current = state(before, *(edit for edit, _ in edits))
    restoration = roll_back(current, before=before, edits=edits, client=RESTORER)
    if restoration.update is not None:
        current = state(current, restoration.update)
    return read_content(current).to_json().get("r"), restoration


HELLO = state(update(block(1, 0, item(STRING, R, text("hello")))))
SET = state(key(1, ONE))


def test_what_the_user_inserted_disappears_and_what_others_did_stays() -> None:
    shown, _ = taken_back(
        HELLO,
        (update(block(2, 0, item(STRING | LEFT, ref(1, 4), text(" you")))), True),
        (update(block(3, 0, item(STRING | LEFT, ref(2, 1), text("!")))), False),
        (update(block(3, 1, item(STRING | LEFT | RIGHT, ref(1, 0), ref(1, 1), text("a")))), False),
    )

    assert shown == "haello!"


def test_what_the_user_deleted_comes_back_in_its_place() -> None:
    shown, restoration = taken_back(
        HELLO,
        (gone((1, 3)), True),
        (update(block(3, 0, item(STRING | LEFT | RIGHT, ref(1, 0), ref(1, 4), text("-")))), False),
    )

    assert shown in ("hell-o", "h-ello")
    assert restoration.impossible == ()


def test_what_somebody_else_deleted_stays_deleted() -> None:
    assert taken_back(HELLO, (gone((0, 1)), False), (gone((0, 3)), True))[0] == "ello"


def test_deletes_of_the_user_that_another_client_repeats_are_the_users() -> None:
    # It was offline, and tells all deletes that it knows of with its own.
    back = update(block(3, 0, item(STRING | LEFT, ref(1, 4), text("!"))), deletes=deletes((1, [(0, 5)])))

    assert taken_back(HELLO, (gone((0, 4)), True), (back, False))[0] == "hell!"


def test_a_key_gets_its_former_value() -> None:
    assert taken_back(SET, (key(2, TWO, over=ref(1, 0), gone=1), True))[0] == {"k": 1}


def test_a_key_that_was_not_there_goes() -> None:
    assert taken_back(state(update(block(1, 0, item(ANY | KEYED, R, var_bytes(b"l"), ONE)))), (key(2, TWO), True))[
        0
    ] == {"l": 1}


def test_a_key_that_the_user_deleted_is_back() -> None:
    assert taken_back(SET, (gone((0, 1)), True))[0] == {"k": 1}


def test_a_key_that_somebody_set_after_the_user_stays() -> None:
    edits = (key(2, TWO, over=ref(1, 0), gone=1), True), (key(3, THREE, over=ref(2, 0), gone=2), False)

    assert taken_back(SET, *edits)[0] == {"k": 3}


def test_a_key_that_somebody_set_before_the_user_has_that_value() -> None:
    edits = (key(3, THREE, over=ref(1, 0), gone=1), False), (key(2, TWO, over=ref(3, 0), gone=3), True)

    assert taken_back(SET, *edits)[0] == {"k": 3}


def test_a_key_that_somebody_set_at_the_same_time_has_that_value() -> None:
    # The user's counts at first, for the higher client id.
    edits = (key(3, THREE, over=ref(1, 0), gone=1), False), (key(200, TWO, over=ref(1, 0), gone=1), True)

    assert read_content(state(SET, *(edit for edit, _ in edits))).to_json() == {"r": {"k": 2}}
    assert taken_back(SET, *edits)[0] == {"k": 3}


def test_a_key_that_somebody_deleted_after_the_user_stays_away() -> None:
    assert taken_back(SET, (key(2, TWO, over=ref(1, 0), gone=1), True), (gone((0, 1), client=2), False))[0] == {}


def test_a_type_that_the_user_deleted_comes_back_with_what_others_put_there_meanwhile() -> None:
    before = state(update(block(1, 0, item(TYPE, R, ARRAY), item(ANY, b"\0" + ref(1, 0), ONE))))
    late = update(block(3, 0, item(ANY | LEFT, ref(1, 1), THREE)))

    assert taken_back(before, (gone((0, 2)), True), (late, False))[0] == [[1, 3]]


def test_what_others_put_into_something_of_the_user_goes_with_it_and_that_is_said() -> None:
    mine = update(block(2, 0, item(TYPE | LEFT, ref(1, 0), MAP)))
    theirs = update(block(3, 0, item(ANY | KEYED, b"\0" + ref(2, 0), K, THREE)))
    before = state(update(block(1, 0, item(TYPE, R, MAP))))

    shown, restoration = taken_back(before, (mine, True), (theirs, False))

    assert shown == [{}]
    assert restoration.impossible == (OTHERS_INSIDE,)


def test_edits_that_nobody_told_of_are_not_touched() -> None:
    current = state(HELLO, gone((0, 1)), update(block(3, 0, item(STRING | LEFT, ref(1, 4), text("!")))))

    restoration = roll_back(current, before=HELLO, edits=[(gone((0, 1)), True)], client=RESTORER)

    assert restoration == Restoration(None, (UNKNOWN_EDITS,))


def test_nothing_to_take_back_is_no_edit() -> None:
    assert taken_back(HELLO, (gone((0, 1)), False))[1] == Restoration(None)


def test_an_edit_that_still_waits_for_others_does_not_count() -> None:
    waits = update(block(2, 7, item(STRING | LEFT, ref(2, 6), text("later"))))

    restoration = roll_back(HELLO, before=HELLO, edits=[(waits, True)], client=RESTORER)

    assert restoration == Restoration(None)


@pytest.mark.parametrize(("own", "shown"), [(True, "hello"), (False, "ello")])
def test_what_an_edit_deletes_that_still_waits_for_others_counts(own: bool, shown: str) -> None:
    waits = update(block(2, 7, item(STRING | LEFT, ref(2, 6), text("later"))), deletes=deletes((1, [(0, 1), (9, 1)])))
    document = Document()
    document.apply(HELLO)
    assert document.apply(waits) is Outcome.WAITING
    assert read_content(document.diff(b"\0")).to_json() == {"r": "ello"}

    restored = roll_back(document.diff(b"\0"), before=HELLO, edits=[(waits, own)], client=RESTORER).update

    if restored is not None:
        document.apply(restored)
    assert read_content(document.diff(b"\0")).to_json() == {"r": shown}


def test_an_edit_that_came_before_what_it_builds_on_counts() -> None:
    first = update(block(2, 0, item(STRING | LEFT, ref(1, 4), text("!"))))
    second = update(block(2, 1, item(STRING | LEFT, ref(2, 0), text("?"))))
    current = state(HELLO, first, second)

    restoration = roll_back(current, before=HELLO, edits=[(second, True), (first, False)], client=RESTORER)

    assert restoration.update is not None
    assert read_content(state(current, restoration.update)).to_json() == {"r": "hello!"}


@pytest.mark.parametrize(
    ("ref_", "known", "longer", "left"),
    [
        (STRING, text("ab"), text("abcd"), "cd"),
        (STRING, text("a😀"), text("a😀bü"), "bü"),
        (ANY, b"\2\x7d\1\x76\0", b"\4\x7d\1\x76\0\x7d\3\x7e", [3, None]),
        (JSON, b"\1" + text("1"), b"\3" + text("1") + text("2") + text('"x"'), [2, "x"]),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_of_an_item_that_somebody_continued_each_part_is_its_authors(
    ref_: int, known: bytes, longer: bytes, left: Any, beside: bool
) -> None:
    info, place = (ref_ | LEFT | RIGHT, ref(1, 0) + ref(1, 1)) if beside else (ref_, R)
    around = item(TYPE, R, ARRAY), item(TYPE | LEFT, ref(1, 0), ARRAY)
    before = state(update(block(1, 0, *around))) if beside else b"\0\0"
    edits = (
        (update(block(2, 0, item(info, place, known))), True),
        (update(block(2, 0, item(info, place, longer))), False),
    )
    current = state(*([before] if beside else []), *(edit for edit, _ in edits))

    restored = roll_back(current, before=before, edits=edits, client=RESTORER).update

    assert restored is not None
    if beside and isinstance(left, list):  # a text shows nothing of the arrays
        left = [[], *left, []]
    assert read_content(state(current, restored)).to_json() == {"r": left}


def test_whoever_takes_back_must_be_new() -> None:
    with pytest.raises(MalformedUpdate):
        roll_back(HELLO, before=HELLO, edits=[], client=1)


def test_an_emoji_that_the_user_wrote_into_is_whole_again() -> None:
    before = state(update(block(1, 0, item(STRING, R, text("a😀b")))))
    mine = update(block(2, 0, item(STRING | LEFT | RIGHT, ref(1, 1), ref(1, 2), text("x"))))

    assert taken_back(before, (mine, True))[0] == "a😀b"


def test_an_emoji_that_somebody_else_wrote_into_as_well_stays_cut() -> None:
    before = state(update(block(1, 0, item(STRING, R, text("a😀b")))))
    mine = update(block(2, 0, item(STRING | LEFT | RIGHT, ref(1, 1), ref(1, 2), text("x"))))
    theirs = update(block(3, 0, item(STRING | LEFT | RIGHT, ref(1, 1), ref(1, 2), text("y"))))

    assert taken_back(before, (mine, True), (theirs, False), (gone((0, 1), client=3), False))[0] == "a\ufffd\ufffdb"


def test_taking_back_the_same_twice_changes_nothing() -> None:
    edits = [(gone((1, 3)), True), (update(block(2, 0, item(STRING | LEFT, ref(1, 0), text("i")))), True)]
    current = state(HELLO, *(edit for edit, _ in edits))
    first = roll_back(current, before=HELLO, edits=edits, client=RESTORER).update
    assert first is not None

    again = roll_back(state(current, first), before=HELLO, edits=[*edits, (first, True)], client=RESTORER + 1)

    assert again == Restoration(None)
