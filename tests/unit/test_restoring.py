"""Going back, where made-up documents show it better than those of `test_restoring_laws`."""

from collections.abc import Iterator

import pytest

from crdt_sync.content import read_content
from crdt_sync.document import Document
from crdt_sync.errors import MalformedUpdate
from crdt_sync.lib0 import write_var_uint
from crdt_sync.order import read_roots
from crdt_sync.restoring import NOT_A_PAST, as_new, restore
from crdt_sync.structure import TYPE_DEPTH_MAX
from crdt_sync.update import read_state_vector, read_update
from tests.support.grammar import FOUNDATION, block, deletes, item, update, var_bytes
from tests.support.restoring import shown, state
from tests.support.yjs import Yjs

RESTORER = 99

# Info bytes: the kind of content, and with what.
DELETED, JSON, BINARY, STRING, EMBED, FORMAT, TYPE, ANY, DOC = range(1, 10)
KEYED, RIGHT, LEFT = 32, 64, 128
ARRAY, MAP, TEXT, ELEMENT, FRAGMENT, HOOK, XML_TEXT = (bytes((kind,)) for kind in range(7))
R = b"\1\1r"  # in the root "r"
K, K2 = var_bytes(b"k"), var_bytes(b"l")
ONE, TWO = b"\1\x7d\1", b"\1\x7d\2"  # the values 1 and 2


def ref(client: int, clock: int) -> bytes:
    return write_var_uint(client) + write_var_uint(clock)


def inside(client: int, clock: int) -> bytes:
    return b"\0" + ref(client, clock)


def text(value: str) -> bytes:
    return var_bytes(value.encode())


def gone(*ranges: tuple[int, int], client: int = 1) -> bytes:
    """An update that deletes clocks, each as first one and how many."""
    return update(deletes=deletes((client, list(ranges))))


ODD_VALUES = b"\5\x7f\x7a" + b"\0" * 7 + b"\7" + b"\x7d\x40" + b"\x74\2ab" + b"\x76\1\1$\x7e"
RICH = (
    item(STRING, R, text("see ")),
    item(FORMAT | LEFT, ref(1, 3), text("bold"), text("true")),
    item(STRING | LEFT, ref(1, 4), text("Bonn")),
    item(FORMAT | LEFT, ref(1, 8), text("bold"), text("null")),
    item(EMBED | LEFT, ref(1, 9), text('{"map":1e2}')),
    item(TYPE | LEFT, ref(1, 10), TEXT),
    item(STRING, inside(1, 11), text("inner")),
)
XML = (
    item(TYPE, R, ELEMENT, text("p")),
    item(ANY | KEYED, inside(1, 0), K, ONE),
    item(TYPE, inside(1, 0), XML_TEXT),
    item(STRING, inside(1, 2), text("hello")),
    item(TYPE | LEFT, ref(1, 2), HOOK, text("hook")),
    item(ANY | KEYED, inside(1, 8), K, TWO),
    item(TYPE | LEFT, ref(1, 0), FRAGMENT),
)
NESTED = (
    item(TYPE, R, MAP),
    item(TYPE | KEYED, inside(1, 0), K, ARRAY),
    item(ANY, inside(1, 1), b"\3\x7d\1\x7d\2\x7d\3"),
    item(ANY | KEYED, inside(1, 0), K2, ONE),
    item(TYPE | LEFT, ref(1, 0), MAP),
)

CASES: dict[str, tuple[tuple[bytes, ...], bytes]] = {
    "a value was set anew": (
        (item(ANY | KEYED, R, K, ONE),),
        update(block(2, 0, item(ANY | KEYED | LEFT, ref(1, 0), TWO)), deletes=deletes((1, [(0, 1)]))),
    ),
    "a key was deleted": ((item(ANY | KEYED, R, K, ONE), item(ANY | KEYED, R, K2, ONE)), gone((0, 1))),
    "a key was added": ((item(ANY | KEYED, R, K, ONE),), update(block(2, 0, item(ANY | KEYED, R, K2, TWO)))),
    "a map as value was replaced": (
        (item(TYPE | KEYED, R, K, MAP), item(ANY | KEYED, inside(1, 0), K, ONE)),
        update(block(2, 0, item(ANY | KEYED | LEFT, ref(1, 0), TWO)), deletes=deletes((1, [(0, 2)]))),
    ),
    "maps in an array were deleted": (NESTED, gone((0, 7))),
    "something inside of a map was deleted": (NESTED, gone((3, 1), (5, 1))),
    "rich text was deleted": (RICH, gone((0, 17))),
    "formats were taken away": (RICH, gone((4, 1), (9, 1))),
    "an embed was deleted": (RICH, gone((10, 1))),
    "XML was deleted": (XML, gone((0, 11))),
    "an attribute was deleted": (XML, gone((1, 1))),
    "a hook was deleted": (XML, gone((8, 2))),
    "odd values were deleted": ((item(ANY, R, ODD_VALUES),), gone((0, 5))),
    "some of many values were deleted": ((item(ANY, R, b"\x09" + b"\x7d\1" * 9),), gone((1, 2), (5, 3))),
    "one odd value was deleted": ((item(ANY, R, ODD_VALUES),), gone((1, 1))),
    "values of Yjs 12 were deleted": ((item(JSON, R, b"\3", text("1"), text("undefined"), text('"x"')),), gone((1, 2))),
    "binary and a subdocument were deleted": (
        (
            item(BINARY, R, text("bytes")),
            item(DOC | LEFT, ref(1, 0), text("guid"), b"\x76\1\4meta\x7a" + b"\0" * 7 + b"\1"),
            item(BINARY | LEFT, ref(1, 1), var_bytes(b"crdt-sync:stand-in:x")),
        ),
        gone((0, 3)),
    ),
    "somebody wrote into an emoji": (
        (item(STRING, R, text("a😀b")),),
        update(block(2, 0, item(STRING | LEFT | RIGHT, ref(1, 1), ref(1, 2), text("x")))),
    ),
    "half an emoji was deleted": ((item(STRING, R, text("a😀b")),), gone((1, 1))),
    "an emoji was deleted in two halves": ((item(STRING, R, text("😀🙂")),), gone((0, 1), (3, 1))),
    "everything was deleted, half an emoji first": ((item(STRING, R, text("a😀b")),), gone((0, 2), (2, 2))),
    "words were deleted and others written": (
        (item(STRING, R, text("one two three")),),
        update(
            block(2, 0, item(STRING | LEFT | RIGHT, ref(1, 3), ref(1, 4), text("six "))), deletes=deletes((1, [(4, 4)]))
        ),
    ),
    "a root came into being": ((item(STRING, R, text("a")),), update(block(2, 0, item(ANY, b"\1\1s", ONE)))),
    "there was nothing": ((), update(block(2, 0, item(ANY, R, ONE), item(ANY | KEYED, R, K, ONE)))),
    "a root has a sequence and keys": ((item(STRING, R, text("a")), item(ANY | KEYED, R, K, ONE)), gone((0, 2))),
    "a root of strings that are keys": ((item(STRING | KEYED, R, K, text("x")),), gone((0, 1))),
}


@pytest.fixture(scope="module")
def yjs() -> Iterator[Yjs]:
    with Yjs() as oracle:
        yield oracle


@pytest.mark.parametrize("case", CASES)
def test_it_shows_what_it_showed_before(case: str, yjs: Yjs) -> None:
    structs, edit = CASES[case]
    document = Document()
    if structs:
        document.apply(update(block(1, 0, *structs)))
    target = document.diff(b"\0")
    document.apply(edit)
    current = document.diff(b"\0")
    assert shown(current) != shown(target)

    restoration = restore(current, target, client=RESTORER)

    assert restoration.impossible == ()
    assert restoration.update is not None
    document.apply(restoration.update)
    restored = document.diff(b"\0")
    assert shown(restored) == shown(target)
    of_yjs = yjs.apply([current, restoration.update])
    assert of_yjs.error is None
    assert {name: root for name, root in of_yjs.content.items() if root["list"] or root["map"]} == (
        yjs.apply([target]).content
    )
    # Once more changes nothing, and there is a way back.
    assert restore(restored, target, client=RESTORER + 1).update is None
    back = restore(restored, current, client=RESTORER + 1)
    assert back.update is not None
    document.apply(back.update)
    assert shown(document.diff(b"\0")) == shown(current)


@pytest.mark.parametrize("case", CASES)
def test_as_new_it_shows_the_same_and_nobody_wrote_it(case: str, yjs: Yjs) -> None:
    structs, edit = CASES[case]
    current = state(*([update(block(1, 0, *structs))] if structs else []), edit)

    new = as_new(current, client=7)

    read = read_update(new)
    assert set(read.ends) <= {7}
    assert not read.deletes
    assert shown(new) == shown(state(new) if read.ends else new) == shown(current)
    assert yjs.apply([new]).content == {
        name: root for name, root in yjs.apply([current]).content.items() if root["list"] or root["map"]
    }


def test_nothing_to_restore_is_no_edit() -> None:
    current = state(FOUNDATION)

    assert restore(current, current, client=RESTORER).update is None


def test_what_both_show_stays_as_it_is() -> None:
    target = state(update(block(1, 0, item(STRING, R, text("hello world")))))
    current = state(target, gone((2, 1)))

    restored = restore(current, target, client=RESTORER).update

    # One letter by the restorer, in front of the one that is deleted, and no delete.
    assert restored == update(block(RESTORER, 0, item(STRING | LEFT | RIGHT, ref(1, 1), ref(1, 2), text("l"))))


def test_a_long_text_of_many_items_comes_back_as_one() -> None:
    count = 2000
    # Each goes in front of the one before.
    structs = [item(STRING, R, text("a"))] + [item(STRING | RIGHT, ref(1, at), text("b")) for at in range(count)]
    target = state(update(block(1, 0, *structs)))
    current = state(target, gone((0, count + 1)))

    restored = restore(current, target, client=RESTORER).update

    assert restored is not None
    assert len(restored) < count + 50


def test_what_others_wrote_meanwhile_merges() -> None:
    target = state(update(block(1, 0, item(STRING, R, text("hello")))))
    current = state(target, gone((0, 5)))
    # Neither has heard of the delete. One goes on writing at the end, one puts something in the middle.
    offline = update(
        block(2, 0, item(STRING | LEFT, ref(1, 4), text(" world"))),
        block(3, 0, item(STRING | LEFT | RIGHT, ref(1, 1), ref(1, 2), text("?"))),
    )

    restored = restore(current, target, client=RESTORER).update

    assert restored is not None
    for updates in ((current, restored, offline), (current, offline, restored)):
        assert read_content(state(*updates)).to_json() == {"r": "hello? world"}


def test_what_somebody_deletes_again_meanwhile_is_not_there_twice() -> None:
    target = state(update(block(1, 0, item(STRING, R, text("hello")))))
    current = state(target, gone((1, 1)))
    offline = gone((1, 2))  # was offline, and deleted one letter more

    restored = restore(current, target, client=RESTORER).update

    assert restored is not None
    assert read_content(state(current, restored, offline)).to_json() == {"r": "helo"}


def test_a_key_that_somebody_else_sets_at_the_same_time_has_one_of_both_values() -> None:
    target = state(update(block(1, 0, item(ANY | KEYED, R, K, ONE))))
    current = state(
        target, update(block(2, 0, item(ANY | KEYED | LEFT, ref(1, 0), TWO)), deletes=deletes((1, [(0, 1)])))
    )
    offline = update(block(200, 0, item(ANY | KEYED | LEFT, ref(2, 0), b"\1\x7d\3")), deletes=deletes((2, [(0, 1)])))

    restored = restore(current, target, client=RESTORER).update

    assert restored is not None
    assert shown(state(current, restored)) == shown(target)
    one, other = state(current, restored, offline), state(current, offline, restored)
    assert read_content(one).to_json() == read_content(other).to_json() == {"r": {"k": 3}}


def test_chosen_roots_alone_are_restored() -> None:
    target = state(update(block(1, 0, item(STRING, R, text("a")), item(STRING, b"\1\1s", text("b")))))
    current = state(target, gone((0, 2)))

    restoration = restore(current, target, client=RESTORER, roots=["s", "t"])

    assert restoration.impossible == ("There never was anything in “t”.",)
    assert restoration.update is not None
    assert read_content(state(current, restoration.update)).to_json() == {"r": None, "s": "b"}


def test_a_state_with_edits_that_the_document_lacks_is_no_past() -> None:
    current = state(FOUNDATION)
    target = state(FOUNDATION, update(block(77, 0, item(STRING, R, text("a")))))

    restoration = restore(current, target, client=RESTORER)

    assert restoration.update is None
    assert restoration.impossible == (NOT_A_PAST,)


def test_a_state_of_another_document_is_no_past() -> None:
    current = state(update(block(1, 0, item(STRING, R, text("hello")))))
    target = state(update(block(1, 0, item(STRING, b"\1\1s", text("hi")))))

    assert restore(current, target, client=RESTORER).impossible == (NOT_A_PAST,)


def test_a_state_in_another_order_is_no_past() -> None:
    current = state(update(block(1, 0, item(STRING, R, text("ab")))))
    target = state(update(block(1, 0, item(STRING, R, text("a")), item(STRING | RIGHT, ref(1, 0), text("b")))))

    assert restore(current, target, client=RESTORER).impossible == (NOT_A_PAST,)


def test_keys_of_another_document_are_no_past() -> None:
    current = state(update(block(1, 0, item(ANY | KEYED, R, K, ONE))))
    target = state(update(block(1, 0, item(ANY | KEYED, R, K2, ONE))))

    assert restore(current, target, client=RESTORER).impossible == (NOT_A_PAST,)


def test_whoever_restores_must_be_new() -> None:
    with pytest.raises(MalformedUpdate):
        restore(state(FOUNDATION), state(FOUNDATION), client=1)


def test_an_update_that_builds_on_others_is_no_state() -> None:
    with pytest.raises(MalformedUpdate):
        restore(state(FOUNDATION), update(block(5, 0, item(STRING | LEFT, ref(9, 9), text("a")))), client=RESTORER)


def test_more_than_one_edit_may_hold_is_said_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    target = state(update(block(1, 0, item(TYPE, R, MAP), item(TYPE | LEFT, ref(1, 0), MAP))))
    current = state(target, gone((0, 2)))
    monkeypatch.setattr("crdt_sync.update.ITEMS_MAX", 1)

    restoration = restore(current, target, client=RESTORER)

    assert restoration.update is None
    assert restoration.impossible == ("It is more than one edit may hold: 2 structs in one update, at most 1.",)


def test_types_as_deep_as_a_document_takes_come_back() -> None:
    structs = [item(TYPE, R, ARRAY)] + [item(TYPE, inside(1, at), ARRAY) for at in range(TYPE_DEPTH_MAX - 1)]
    target = state(update(block(1, 0, *structs)))
    current = state(target, gone((0, TYPE_DEPTH_MAX)))

    restored = restore(current, target, client=RESTORER).update

    assert restored is not None
    assert shown(state(current, restored)) == shown(target)


def test_many_values_that_were_appended_one_by_one_come_back_in_items_that_a_document_takes() -> None:
    odd = b"\x76\2\1a\x7a" + b"\0" * 7 + b"\1\1b\x7e"
    structs = [item(ANY, R, b"\1", odd)] + [item(ANY | LEFT, ref(1, at), b"\1", odd) for at in range(2999)]
    document = Document()
    for clock, struct in enumerate(structs):
        document.apply(update(block(1, clock, struct)))
    target = document.diff(b"\0")
    document.apply(gone((0, 3000)))

    restored = restore(document.diff(b"\0"), target, client=RESTORER).update

    assert restored is not None
    assert len(read_update(restored).structs[RESTORER]) == 2
    document.apply(restored)
    assert shown(document.diff(b"\0")) == shown(target)


def test_a_restored_document_has_one_client_more() -> None:
    structs, edit = CASES["rich text was deleted"]
    target = state(update(block(1, 0, *structs)))
    document = Document()
    document.apply(target)
    document.apply(edit)

    document.apply(restore(document.diff(b"\0"), target, client=RESTORER).update or b"")

    assert read_state_vector(document.state_vector()) == {1: 17, RESTORER: 17}
    assert [each.client for each in read_roots(document.diff(b"\0"))["r"].sequence.visible()] == [RESTORER] * 6
