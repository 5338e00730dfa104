from __future__ import annotations

import json
import struct
import time
import tracemalloc
from pathlib import Path
from random import Random

import pytest

from crdt_sync.errors import MalformedUpdate, ProtocolError, UpdateTooHeavy
from crdt_sync.structure import TYPE_DEPTH_MAX
from crdt_sync.update import (
    CLIENTS_MAX,
    CLOCK_MAX,
    ITEM_PAIRS_MAX,
    ITEM_VALUES_MAX,
    ITEMS_MAX,
    Update,
    read_state_vector,
    read_update,
    reading,
    write_state_vector,
)
from crdt_sync.values import ANY_DEPTH_MAX, VALUES_MAX
from tests.support.grammar import FOUNDATION, block, deletes, item, update, var_bytes, var_uint
from tests.support.yjs import Yjs

HOSTILE = Path(__file__).resolve().parents[1] / "data" / "hostile"

ROOT = b"\1" + var_bytes(b"t")
X = var_bytes(b"x")  # the content "x"


def ref(client: int, clock: int) -> bytes:
    return var_uint(client) + var_uint(clock)


def string(text: str, info: int = 4, head: bytes = ROOT) -> bytes:
    return item(info, head, var_bytes(text.encode()))


def any_value(raw: bytes) -> bytes:
    return update(block(9, 0, item(8, ROOT, b"\1", raw)))


def embed(text: str | bytes) -> bytes:
    return update(block(9, 0, item(5, ROOT, var_bytes(text if isinstance(text, bytes) else text.encode()))))


def read(data: bytes) -> Update:
    result = read_update(data)
    result.needs = {client: clock for client, clock in result.needs.items() if clock}
    result.pairs = {client: list(lows) for client, lows in result.pairs.items()}
    return result


def boundaries(data: bytes) -> list[tuple[int, int]]:
    return list(read_update(data).boundaries())


# --- what an update contains and needs


@pytest.mark.parametrize("client", [1, 200, 2**32 - 1, 2**53 - 1])
@pytest.mark.parametrize("clock", [5, 127, 128, 129, 70_000, 2**28])
def test_keystroke(client: int, clock: int) -> None:
    data = update(block(client, clock, item(132, ref(client, clock - 1), X)))

    assert read(data) == Update({client: clock + 1}, {client: clock}, {}, {}, False)
    assert boundaries(data) == [(client, clock)]


def test_keystroke_between_two_others() -> None:
    data = update(block(9, 8, item(196, ref(9, 3), ref(9, 6), var_bytes("ü漢".encode()))))

    assert read(data) == Update({9: 10}, {9: 8}, {}, {}, False)
    assert boundaries(data) == [(9, 4), (9, 6)]


def test_keystroke_with_an_emoji_knows_its_pair() -> None:
    data = update(block(9, 8, item(132, ref(9, 3), var_bytes("a😀b🙂".encode()))))

    assert read(data) == Update({9: 14}, {9: 8}, {}, {9: [10, 13]}, False)
    assert boundaries(data) == [(9, 4)]


@pytest.mark.parametrize("origins", [(132, ref(300, 3)), (196, ref(300, 3) + ref(300, 6))])
def test_keystroke_begins_where_its_bytes_do(origins: tuple[int, bytes]) -> None:
    data = update(block(300, 8, item(*origins, X)))

    assert data[read(data).structs[300][0][7] :] == item(*origins, X) + b"\0"


def test_delete_of_one_range() -> None:
    data = update(deletes=deletes((300, [(5, 3)])))

    assert read(data) == Update({}, {300: 8}, {300: [(5, 8)]}, {}, False)
    assert boundaries(data) == [(300, 5), (300, 8)]


def test_empty_update_contains_and_needs_nothing() -> None:
    assert read(b"\0\0") == Update({}, {}, {}, {}, False)


def test_example_of_the_architecture() -> None:
    data = update(block(7, 5, item(132, ref(7, 4), var_bytes(b"abc"))))

    assert read(data).needs == {7: 5}


def test_origin_and_parent_of_other_clients_are_needed() -> None:
    data = update(
        block(9, 0, item(196, ref(3, 7), ref(4, 2), X), item(4, b"\0", ref(5, 6), X), item(68, ref(3, 5), X)),
    )

    assert read(data).needs == {3: 8, 4: 3, 5: 7}


def test_what_the_update_brings_itself_is_not_needed() -> None:
    data = update(
        block(9, 0, item(132, ref(3, 12), X)),
        block(3, 10, item(132, ref(3, 9), var_bytes(b"abc"))),
        deletes=deletes((3, [(11, 2)])),
    )

    assert read(data) == Update({9: 1, 3: 13}, {3: 10}, {3: [(11, 13)]}, {}, False)
    assert boundaries(data) == [(3, 13), (3, 10), (3, 11), (3, 13)]


def test_what_goes_beyond_what_the_update_brings_is_needed() -> None:
    data = update(block(9, 0, item(132, ref(3, 13), X)), block(3, 10, string("abc")), deletes=deletes((9, [(0, 5)])))

    assert read(data).needs == {3: 14, 9: 5}


def test_struct_after_a_gap_needs_the_gap_filled() -> None:
    data = update(block(9, 5, string("ab"), item(10, var_uint(3)), string("c"), item(0, var_uint(4))))

    result = read(data)

    assert (result.ends, result.needs) == ({9: 15}, {9: 10})


def test_gap_at_the_end_is_no_need_and_no_content() -> None:
    data = update(block(9, 5, string("ab"), item(10, var_uint(3)), item(10, var_uint(1))))

    result = read(data)

    assert (result.ends, result.needs) == ({9: 7}, {9: 5})


def test_nothing_but_a_gap_is_no_content() -> None:
    assert read(update(block(9, 5, item(10, var_uint(3))))) == Update({}, {}, {}, {}, False)


def test_clocks_count_utf16_units_and_values() -> None:
    data = update(
        block(
            9,
            0,
            string("a😀"),  # 0-2
            item(8, ROOT, b"\3\x7e\x7e\x7e"),  # 3-5
            item(1, ROOT, var_uint(4)),  # 6-9
            item(2, ROOT, b"\2", var_bytes(b"1"), var_bytes(b"undefined")),  # 10-11
            item(7, ROOT, b"\0"),  # 12
            string("🙂", 132, ref(9, 12)),  # 13-14
        )
    )

    result = read(data)

    assert (result.ends, result.pairs) == ({9: 15}, {9: [2, 14]})


def test_foundation_of_the_fuzzer_is_read() -> None:
    result = read(FOUNDATION)

    assert (result.ends, result.needs) == ({2: 22, 1: 12}, {})


# --- what is refused

ITEM_ERRORS = {
    "garbage of length 0": item(0, b"\0"),
    "gap of length 0": item(10, b"\0"),
    "deleted content of length 0": item(1, ROOT, b"\0"),
    "GC with a flag": item(128, var_uint(1)),
    "Skip with a flag": item(42, var_uint(1)),
    "content reference 11": item(11, ROOT, X),
    "content reference 31": item(31, ROOT, X),
    "empty string": item(4, ROOT, b"\0"),
    "broken UTF-8": item(4, ROOT, var_bytes(b"\xed\xa0\xbd")),
    "no values": item(8, ROOT, b"\0"),
    "no JSON values": item(2, ROOT, b"\0"),
    "legacy JSON that is none": item(2, ROOT, b"\1", var_bytes(b"undef")),
    "shared type 7": item(7, ROOT, b"\7"),
    "shared type 9, a weak link": item(7, ROOT, b"\x09"),
    "name of an element that is not UTF-8": item(7, ROOT, b"\3", var_bytes(b"\xff")),
    "parent info 2": item(4, b"\2", var_bytes(b"t"), X),
    "root that is not UTF-8": item(4, b"\1", var_bytes(b"\xff"), X),
    "key that is not UTF-8": item(36, ROOT, var_bytes(b"\xff"), X),
    "key of a format that is not UTF-8": item(6, ROOT, var_bytes(b"\xff"), var_bytes(b"1")),
    "subdocument without options": item(9, ROOT, var_bytes(b"guid"), b"\x7e"),
    "subdocument whose options are an array": item(9, ROOT, var_bytes(b"guid"), b"\x75\0"),
    "origin is the item itself": item(132, ref(9, 5), X),
    "origin is in its own future": item(132, ref(9, 7), X),
    "right origin is the item itself": item(68, ref(9, 5), X),
    "right origin, beside an origin, is in its own future": item(196, ref(9, 1), ref(9, 7), X),
    "parent is the item itself": item(4, b"\0", ref(9, 5), X),
    "clock of an origin beyond yrs": item(132, ref(3, CLOCK_MAX), X),
    "clock of a right origin beyond yrs": item(68, ref(3, 2**32), X),
    "clock of a parent beyond yrs": item(4, b"\0", ref(3, 2**32), X),
    "deleted content that reaches too far": item(1, ROOT, var_uint(CLOCK_MAX)),
    "garbage that reaches too far": item(0, var_uint(2**53 - 1)),
}


@pytest.mark.parametrize("raw", ITEM_ERRORS.values(), ids=ITEM_ERRORS)
def test_struct_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedUpdate):
        read_update(update(block(9, 5, raw)))
    with pytest.raises(MalformedUpdate):
        read_update(update(block(9, 3, string("ab"), raw), deletes=deletes((1, [(0, 1)]))))


UPDATE_ERRORS = {
    "nothing": b"",
    "no deletes": b"\0",
    "a byte too many": b"\0\0\0",
    "a byte too many after a keystroke": update(block(9, 5, item(132, ref(9, 4), X))) + b"\0",
    "more clients than bytes": var_uint(2**27),
    "more structs than bytes": b"\1" + var_uint(2**30) + b"\x09\0" + string("x") + b"\0",
    "no structs": update(block(9, 5)),
    "more values than bytes": update(block(9, 0, item(8, ROOT, var_uint(2**40), b"\x7e"))),
    "more deletes than bytes": b"\0\1\x09" + var_uint(2**40) + b"\0\1",
    "deletes of more clients than bytes": b"\0" + var_uint(2**40),
    "a client twice": update(block(9, 0, string("a")), block(9, 1, string("b"))),
    "deletes of a client twice": update(deletes=deletes((9, [(0, 1)]), (9, [(1, 1)]))),
    "delete of length 0": update(deletes=deletes((9, [(0, 0)]))),
    "deletes that overlap": update(deletes=deletes((9, [(0, 3), (2, 1)]))),
    "deletes in descending order": update(deletes=deletes((9, [(5, 1), (2, 1)]))),
    "delete that reaches too far": update(deletes=deletes((9, [(CLOCK_MAX, 1)]))),
    "clock that reaches too far": update(block(9, CLOCK_MAX, string("a"))),
    "client beyond JavaScript's integers": update(block(2**53, 0, string("a"))),
    "parent that is a string": update(block(9, 0, string("ab"), item(4, b"\0", ref(9, 1), X))),
    "parent in another client's string": update(block(9, 0, item(4, b"\0", ref(8, 0), X)), block(8, 0, string("a"))),
    "two clients that wait for each other": update(
        block(9, 0, item(132, ref(8, 0), X)), block(8, 0, item(132, ref(9, 0), X))
    ),
    "three clients that wait for each other": update(
        block(9, 0, string("a"), item(132, ref(8, 1), X)),
        block(8, 0, string("a"), item(68, ref(7, 1), X)),
        block(7, 0, string("a"), item(4, b"\0", ref(9, 1), X)),
    ),
}


@pytest.mark.parametrize("data", UPDATE_ERRORS.values(), ids=UPDATE_ERRORS)
def test_update_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedUpdate):
        read_update(data)


def test_every_truncation_of_an_update_is_refused() -> None:
    for data in (FOUNDATION, update(block(9, 8, item(196, ref(9, 3), ref(9, 6), X)), deletes=deletes((9, [(1, 2)])))):
        for end in range(len(data)):
            with pytest.raises(MalformedUpdate):
                read_update(data[:end])


def test_clients_that_build_on_each_other_in_turns_are_no_cycle() -> None:
    data = update(
        block(9, 0, string("a"), item(132, ref(8, 0), X), item(132, ref(8, 1), X)),
        block(8, 0, item(132, ref(9, 0), X), item(132, ref(9, 1), X), item(132, ref(7, 0), X)),
        block(7, 0, item(132, ref(9, 2), X)),
    )

    assert read(data).needs == {}


def test_parent_may_be_deleted_or_outside_of_the_update() -> None:
    data = update(
        block(9, 0, item(1, ROOT, var_uint(2)), item(4, b"\0", ref(9, 1), X), item(4, b"\0", ref(3, 1), X)),
    )

    assert read(data).needs == {3: 2}


# --- values


@pytest.mark.parametrize("depth", [1, ANY_DEPTH_MAX])
def test_nested_value_is_accepted(depth: int) -> None:
    assert read(any_value(b"\x75\1" * depth + b"\x7e")).ends == {9: 1}
    assert read(any_value(b"\x76\1\1k" * depth + b"\x7e")).ends == {9: 1}
    assert read(embed("[" * depth + "]" * depth)).ends == {9: 1}


@pytest.mark.parametrize("depth", [ANY_DEPTH_MAX + 1, 30_000])
def test_deeply_nested_value_is_refused(depth: int) -> None:
    for data in (
        any_value(b"\x75\1" * depth + b"\x7e"),
        any_value(b"\x76\1\1k" * depth + b"\x7e"),
        embed("[" * depth + "]" * depth),
        embed('{"a":' * depth + "1" + "}" * depth),
    ):
        with pytest.raises(MalformedUpdate, match="nested"):
            read_update(data)


@pytest.mark.parametrize(
    "raw",
    [
        *(b"\x73", b"\0", b"\x80", b"\x7d", b"\x7b\0\0\0", b"\x77\1\xff"),
        *(b"\x77\5a", b"\x74\2a", b"\x75\2\x7e", b"\x76\1\1\xff\x7e"),
    ],
)
def test_malformed_value_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedUpdate):
        read_update(any_value(raw))


def test_integer_beyond_javascripts_integers_is_refused() -> None:
    with pytest.raises(MalformedUpdate):
        read_update(any_value(b"\x7d\xbf" + b"\xff" * 7 + b"\x7f"))


JSON_TEXTS = [
    *("true", "null", "0", "-1", "1.5e3", '"x"', "{}", "[]", ' {"a" : [1, 2]} ', '"\\ud83d"', '"\\u00fc"', "1" * 5000),
    *("1e400", "-0", '{"a":1,"a":2}', '"\u2028"', '"\x7f"', '{"__proto__":1}', '"/\\/"', "[1,\n2]", "\t1\r"),
    *(
        "",
        "NaN",
        "Infinity",
        "-Infinity",
        "undefined",
        "nul",
        "{",
        "[1,]",
        '{"a":1,}',
        "01",
        "-",
        "+1",
        ".5",
        "1.",
        "1e",
    ),
    *(
        "'x'",
        '"\t"',
        '"\n"',
        '"\\x"',
        '"\\u12"',
        '"',
        "1 2",
        '{"a"}',
        "{1:2}",
        "\ufeff1",
        "\xa01",
        "\x0b1",
        "/**/1",
        "１",
    ),
    *(
        "True",
        "-01",
        "0x10",
        "1_0",
        '"\\',
        "[",
        "]",
        "[}",
        "1,2",
        "tru e",
        '"a" "b"',
        "\x00",
        '"\x00"',
        "--1",
        "1e+",
        "٣",
    ),
]


def test_json_is_accepted_exactly_where_javascript_accepts_it(yjs: Yjs) -> None:
    accepted = []
    for text in JSON_TEXTS:
        try:
            read_update(embed(text))
        except MalformedUpdate:
            continue
        accepted.append(text)

    assert accepted == [text for text, parsed in zip(JSON_TEXTS, yjs.parse_json(JSON_TEXTS), strict=True) if parsed]


@pytest.mark.parametrize(
    "raw",
    [
        b"\x7a" + b"\0" * 8,  # bigint
        b"\x7d\x40",  # -0 in every way
        b"\x7d\xc0\0",
        b"\x7c" + struct.pack(">f", -0.0),
        b"\x7b" + struct.pack(">d", -0.0),
        b"\x75\2\x7e\x75\1\x7a" + b"\1" * 8,  # in an array in an array
        b"\x76\1\1k\x7d\x40",
        b"\x74\x14crdt-sync:stand-in:x",
    ],
)
def test_value_that_pycrdt_changes_needs_a_stand_in(raw: bytes) -> None:
    assert read(any_value(raw)).standins


@pytest.mark.parametrize(
    "raw", [b"\x7e", b"\x7d\1", b"\x7d\x41", b"\x7c" + b"\x80\0\0\1", b"\x74\1x", b"\x77\1a", b"\x76\0", b"\x7d\xbf\1"]
)
def test_ordinary_value_needs_none(raw: bytes) -> None:
    assert not read(any_value(raw)).standins


@pytest.mark.parametrize(
    "text",
    [
        *("-0", "[-0.0]", "1e400", "1E5", "0.10793126209409987", "12345678901234567890"),
        *('"\\ud83d"', '{"a":"\\uDE00"}', "[" * 120 + "]" * 120),
    ],
)
def test_json_that_pycrdt_changes_needs_a_stand_in(text: str) -> None:
    assert read(embed(text)).standins


@pytest.mark.parametrize(
    "text",
    [
        *(
            "-1",
            "-0.5",
            "123456",
            '"2024-01-05"',
            '{"id":"550e8400-e29b-41d4-a716-446655440000"}',
            '"12345678901234567890"',
        ),
        *('"\\n"', '{"a":{"b":[1,2]}}', '"\\u00fc"', "[" * 20 + "]" * 20),
    ],
)
def test_ordinary_json_needs_none(text: str) -> None:
    assert not read(embed(text)).standins


# --- nesting of shared types


def nested(depth: int, *, through_origins: bool) -> bytes:
    structs = [item(7, ROOT, b"\0")]
    clock = 1
    for _ in range(depth):
        structs.append(item(7, b"\0", ref(9, clock - 1), b"\0"))
        clock += 1
        if through_origins:
            structs.append(item(132, ref(9, clock - 1), X))
            structs.append(item(71, ref(9, clock), b"\0"))
            clock += 2
    return update(block(9, 0, *structs))


@pytest.mark.parametrize("through_origins", [False, True])
def test_shared_types_may_be_nested_only_so_deep(through_origins: bool) -> None:
    assert read(nested(TYPE_DEPTH_MAX, through_origins=through_origins)).needs == {}
    with pytest.raises(MalformedUpdate, match="nested"):
        read_update(nested(TYPE_DEPTH_MAX + 1, through_origins=through_origins))
    with pytest.raises(MalformedUpdate, match="nested"):
        read_update(nested(40_000, through_origins=through_origins))


def test_many_types_beside_each_other_are_accepted() -> None:
    structs = [item(7, ROOT, b"\0")] + [item(7, b"\0", ref(9, 0), b"\1") for _ in range(1000)]

    assert read(update(block(9, 0, *structs))).ends == {9: 1001}


# --- time and memory


@pytest.mark.parametrize(
    "data",
    [
        update(block(9, 0, string("\U0001f600" * 100_000))),
        any_value(b"\x75" + var_uint(200_000) + b"\x75\0" * 200_000),
        embed("[" + "[],{}," * 50_000 + "1]"),
        embed("[" * 200_000),
        embed('"' + "\\" * 200_000 + '"'),
        embed('"\\ud83d' * 30_000 + '"'),
        update(*(block(1000 - n, 0, item(132, ref(999 - n, 0), X)) for n in range(999))),
        update(*(block(n + 1, 0, item(132, ref(n, 0), X)) for n in range(999))),
        update(deletes=deletes((9, [(2 * n, 1) for n in range(100_000)]))),
        b"\x80" * 1_000_000,
        b"\1\1" + b"\x80" * 1_000_000,
        b"\0\1" + b"\x80" * 1_000_000,
    ],
    ids=range(12),
)
def test_reading_takes_no_longer_than_the_bytes_are_worth(data: bytes) -> None:
    started = time.process_time()
    try:
        read_update(data)
    except (MalformedUpdate, UpdateTooHeavy):
        pass

    assert time.process_time() - started < 1.5


def test_structs_take_memory_in_proportion() -> None:
    data = update(block(9, 0, *[item(0, b"\1")] * 50_000))

    tracemalloc.start()
    read_update(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 4 * len(data)


NULLS = b"\x7e" * 1000


@pytest.mark.parametrize(
    ("data", "bounds"),
    [
        (any_value(b"\x75" + var_uint(VALUES_MAX + 1) + b"\x7e" * (VALUES_MAX + 1)), "nested"),
        (update(block(9, 0, item(8, ROOT, var_uint(101), (b"\x75" + var_uint(1000) + NULLS) * 101))), "nested"),
        (update(block(9, 0, item(8, ROOT, var_uint(ITEM_VALUES_MAX + 1), NULLS * 1000, b"\x7e"))), "in one item"),
        (any_value(b"\x75" + var_uint(6_000) + b"\x7a" + bytes(8) + NULLS * 5 + NULLS[:999]), "pycrdt can't hold"),
        (
            update(block(9, 0, item(8, ROOT, var_uint(6_000), NULLS * 5, b"\x7a", bytes(8), NULLS[:999]))),
            "pycrdt can't hold",
        ),
        (update(block(9, 0, item(2, ROOT, var_uint(6_000), b"\x011" * 6_000))), "as JSON"),
        (embed("[" + "1," * VALUES_MAX + "1]"), "JSON of more"),
        (update(block(9, 0, string("\U0001f600" * (ITEM_PAIRS_MAX + 1)))), "surrogate pairs"),
        (update(*(block(n, 0, item(0, b"\1")) for n in range(CLIENTS_MAX + 1))), "clients"),
        (update(block(9, 0, *[item(0, b"\1")] * (ITEMS_MAX + 1))), "structs"),
        (
            update(block(9, 0, item(0, b"\1")), deletes=deletes((9, [(2 * n, 1) for n in range(ITEMS_MAX + 1)]))),
            "deletes",
        ),
    ],
    ids=range(11),
)
def test_what_would_hold_up_others_is_refused_unless_it_is_stored_already(data: bytes, bounds: str) -> None:
    with pytest.raises(UpdateTooHeavy, match=bounds):
        read_update(data)

    assert read_update(data, bounded=False).ends


def test_a_long_string_of_json_is_no_burden() -> None:
    data = embed(json.dumps({"image": "data:image/png;base64," + "aB3e/" * 400_000, "list": ["a,b" * 100_000] * 2}))

    started = time.process_time()
    result = read_update(data)

    assert time.process_time() - started < 0.3
    assert not result.standins


def test_reading_pauses_every_few_milliseconds() -> None:
    data = update(block(9, 0, *[item(4, ROOT, X)] * 100_000), deletes=deletes((9, [(2 * n, 1) for n in range(50_000)])))

    pauses = sum(1 for _ in reading(data))

    assert pauses > len(data) / 17_000


def test_a_large_update_is_read_like_a_small_one_and_takes_less_memory() -> None:
    structs = [
        string("a"),
        *(item(196, ref(9, n), ref(8, n), X) for n in range(60_000)),
        item(0, b"\3"),
        item(10, b"\2"),
    ]
    data = update(block(9, 0, *structs), block(8, 0, *structs[:1], item(0, var_uint(100_000))))
    small = update(block(9, 0, *structs[:50]), block(8, 0, *structs[:1], item(0, var_uint(100_000))))

    tracemalloc.start()
    result = read_update(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert list(result.structs[9][:50]) == [(*one[:7], one[7] + 2) for one in read_update(small).structs[9]]
    assert list(result.structs[9])[-1][:2] == (60_004, 10)
    assert peak < 14 * len(data)


# --- reproducers


def _lines(name: str) -> list[bytes]:
    lines = (HOSTILE / name).read_text().splitlines()
    return [bytes.fromhex(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize(
    "name",
    [
        "01_poison_gc0_get_update_panic.hex",
        "02_gc0_apply_panic.hex",
        "03_any0_unwrap_panic.hex",
        "04_json0_unloadable.hex",
        "10_update_2p27_memory.hex",
        "24_typeref_weak_breaks_js.hex",
        "25_dup_client_diverges.hex",
    ],
)
def test_reproducer_that_hurts_is_refused(name: str) -> None:
    for data in _lines(name):
        with pytest.raises(MalformedUpdate):
            read_update(data)


@pytest.mark.parametrize("name", ["05_json1_misparse.hex", "06_json1_legacy_rejected.hex"])
def test_reproducer_with_legacy_json_is_accepted_in_disguise(name: str) -> None:
    for data in _lines(name):
        assert read_update(data).standins


@pytest.mark.parametrize(
    "name",
    [
        "07_array_str_nonascii_hang.hex",  # what it does is up to who reads the array
        "28_surrogate_split_updates.hex",
        "29_out_of_order_pending_lost.hex",
        "30_pending_not_in_snapshot.hex",
    ],
)
def test_reproducer_that_is_valid_is_accepted(name: str, yjs: Yjs) -> None:
    for data in _lines(name):
        assert not read_update(data).standins
    assert yjs.apply(_lines(name)).error is None


def test_reproducer_of_a_state_vector_is_refused() -> None:
    for data in _lines("09_sv_2p28_memory.hex"):
        with pytest.raises(ProtocolError):
            read_state_vector(data)


# --- state vectors


@pytest.mark.parametrize("clocks", [{}, {1: 0}, {2**53 - 1: CLOCK_MAX, 5: 300}, {n: n for n in range(500)}])
def test_state_vector_comes_back(clocks: dict[int, int]) -> None:
    assert read_state_vector(write_state_vector(clocks)) == clocks


def test_state_vector_is_written_as_yjs_does(yjs: Yjs) -> None:
    loaded = yjs.apply([FOUNDATION])

    assert write_state_vector(loaded.state_vector) == bytes((2, 2, 22, 1, 12))


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "01",
        "0101",
        "000000",
        "0201010101",
        "010101ff",
        "808080807f",
        "0101" + "ffffffffff7f",
        "01" + "80" * 9 + "01",
    ],
)
def test_malformed_state_vector_is_refused(raw: str) -> None:
    with pytest.raises(ProtocolError):
        read_state_vector(bytes.fromhex(raw))


def test_random_bytes_are_never_an_accident() -> None:
    rng = Random(1)
    for _ in range(20_000):
        data = rng.randbytes(rng.randint(0, 30))
        for read_any, error in ((read_update, MalformedUpdate), (read_state_vector, ProtocolError)):
            try:
                read_any(data)
            except error:
                pass
