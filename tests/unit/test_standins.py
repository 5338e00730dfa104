from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence, Set
from random import Random

import pycrdt
import pytest

from crdt_sync.standins import for_pycrdt, from_pycrdt
from crdt_sync.update import MAGIC, read_update
from tests.support.grammar import FOUNDATION, block, deletes, item, update, var_bytes, var_uint
from tests.support.yjs import Loaded, Yjs

ROOT = b"\1" + var_bytes(b"t")
MAGIC_TEXT = MAGIC.decode()


def through_pycrdt(
    updates: Sequence[bytes], cuts: Mapping[int, Set[int]] | None = None, state_vector: bytes | None = None
) -> bytes:
    """What a server with pycrdt would hand out after these updates."""
    doc: pycrdt.Doc = pycrdt.Doc()
    for data in updates:
        doc.apply_update(for_pycrdt(data, cuts or {}))
    return from_pycrdt(doc.get_update(state_vector))


def known_cuts(updates: Sequence[bytes]) -> dict[int, set[int]]:
    """Which surrogate pairs are cut by which of the updates."""
    read = [read_update(data) for data in updates]
    boundaries = {boundary for each in read for boundary in each.boundaries()}
    cuts: dict[int, set[int]] = {}
    for each in read:
        for client, lows in each.pairs.items():
            cuts.setdefault(client, set()).update(low for low in lows if (client, low) in boundaries)
    return {client: lows for client, lows in cuts.items() if lows}


def one(ref: int, content: bytes, key: str | None = None) -> bytes:
    if key is None:
        return update(block(9, 0, item(ref, ROOT, content)))
    return update(block(9, 0, item(ref | 32, ROOT, var_bytes(key.encode()), content)))


def embed(text: str) -> bytes:
    return one(5, var_bytes(text.encode()))


def json_values(*texts: str) -> bytes:
    return one(2, var_uint(len(texts)) + b"".join(var_bytes(text.encode()) for text in texts))


BIGINT = b"\x7a" + struct.pack(">q", -(2**63))

DISGUISED = {
    "bigint": one(8, b"\1" + BIGINT),
    "bigint in a map": one(8, b"\1" + BIGINT, key="k"),
    "-0": one(8, b"\1\x7d\x40"),
    "-0, padded": one(8, b"\1\x7d\xc0\0"),
    "-0 as float": one(8, b"\1\x7c" + struct.pack(">f", -0.0)),
    "-0 as double": one(8, b"\1\x7b" + struct.pack(">d", -0.0)),
    "among other values": one(8, b"\3\x7e" + BIGINT + b"\x7d\1"),
    "deep inside": one(8, b"\1\x75\2\x76\2\1a" + BIGINT + b"\1b\x77\1x\x7d\x40"),
    "bytes like a stand-in": one(8, b"\1\x74" + var_bytes(MAGIC + BIGINT)),
    "subdocument": one(9, var_bytes(b"guid") + b"\x76\2\4meta\x76\1\1a" + BIGINT + b"\x08autoLoad\x78"),
    "binary like a stand-in": one(3, var_bytes(MAGIC + b"dxyz")),
    "binary that is a stand-in's beginning": one(3, var_bytes(MAGIC)),
    "XmlHook": one(7, b"\5" + var_bytes(b"hook")),
    "element like a stand-in": one(7, b"\3" + var_bytes(MAGIC + b"hook")),
    "embed -0": embed("-0"),
    "embed with a lone surrogate": embed('{"a":"\\ud83d"}'),
    "embed with an integer outside of i64": embed("[12345678901234567890]"),
    "embed with an infinite number": embed("1e400"),
    "embed with a decimal that serde misses": embed("0.10793126209409987"),
    "embed nested deep": embed("[" * 150 + "]" * 150),
    "embed like a stand-in": embed(f'"{MAGIC_TEXT}1"'),
    "embed like a stand-in, escaped": embed('"crdt\\u002dsync:stand-in:1"'),
    "embed with everything": embed(' { "a" : [ -0, "\\ud83d", "\\n\\"\\\\\\u00fc" ] }\n'),
    "format": one(6, var_bytes(b"bold") + var_bytes(b"-0")),
}


@pytest.mark.parametrize("data", DISGUISED.values(), ids=DISGUISED)
def test_disguise_is_announced_comes_off_and_survives_pycrdt(data: bytes, yjs: Yjs) -> None:
    disguised = for_pycrdt(data, {})

    assert read_update(data).standins
    assert disguised != data
    assert from_pycrdt(disguised) == data
    assert read_update(disguised).ends == read_update(data).ends
    assert yjs.apply([through_pycrdt([data])]) == yjs.apply([data])


@pytest.mark.parametrize("data", [FOUNDATION, b"\0\0", one(3, var_bytes(b"x")), embed('"x"'), one(8, b"\1\x7d\1")])
def test_what_needs_no_disguise_stays_the_same_object(data: bytes) -> None:
    assert not read_update(data).standins
    assert for_pycrdt(data, {}) is data
    assert from_pycrdt(data) is data


def test_disguise_keeps_what_surrounds_it() -> None:
    data = update(
        block(
            2**40,
            3,
            item(0, var_uint(2)),
            item(10, var_uint(3)),
            item(228, var_uint(9) + b"\1" + var_uint(9) + b"\0", var_bytes("ü😀".encode())),
            item(40, b"\0" + var_uint(9) + b"\0", var_bytes(b"key"), b"\2" + BIGINT + b"\x7e"),
            item(1, ROOT, b"\4"),
        ),
        block(9, 0, item(7, ROOT, b"\5" + var_bytes(b"h")), item(7, ROOT, b"\1")),
        deletes=deletes((9, [(0, 1)])),
    )

    assert from_pycrdt(for_pycrdt(data, {})) == data


def _random_json(rng: Random, depth: int = 0) -> str:
    kind = rng.randrange(4 if depth > 3 else 6)
    if kind == 0:
        return rng.choice(
            ("true", "false", "null", "0", "-0", "0.0", "-0.0", "0e0", "9007199254740993", "1e22", "1E-7")
        )
    if kind == 1:
        whole, part = (str(rng.randrange(10 ** rng.randint(0, 20))) for _ in range(2))
        part = "0" * rng.choice((0, 0, 0, 5)) + part
        return rng.choice(("", "-")) + whole + rng.choice(("", "." + part, "." + part + "000", "." + part + "e-5"))
    if kind == 2:
        return repr(rng.random() * 10.0 ** rng.randint(-8, 15))
    if kind == 3:
        parts = (
            "a",
            "ü",
            "😀",
            "\\n",
            "\\u00fc",
            "\\ud83d",
            "\\ud83d\\ude00",
            "\\/",
            "\\\\",
            '\\"',
            "-0",
            "1e5",
            "\u2028",
            "\x7f",
        )
        return '"' + "".join(rng.choices(parts, k=rng.randint(0, 4))) + '"'
    inner = [_random_json(rng, depth + 1) for _ in range(rng.randint(0, 4))]
    if kind == 4:
        return "[" + ", ".join(inner) + "]"
    return "{" + ",".join(f'"{rng.choice("abc")}":{each}' for each in inner) + "}"


@pytest.mark.parametrize("seed", range(5))
def test_json_means_the_same_to_javascript_after_pycrdt(seed: int, yjs: Yjs) -> None:
    rng = Random(seed)
    texts = [_random_json(rng) for _ in range(1000)]
    data = update(block(9, 0, *(item(5, ROOT, var_bytes(text.encode())) for text in texts)))

    disguised = for_pycrdt(data, {}).count(MAGIC)

    assert 100 < disguised < 900
    assert yjs.apply([through_pycrdt([data])]) == yjs.apply([data])


LEGACY = [
    "1",
    "-0",
    "0.5",
    "1e400",
    "3000000000",
    "0.1",
    "null",
    "true",
    '"ü😀"',
    '[1,{"a":-0}]',
    '{"a":{"b":[]}}',
    "1" * 400,
]


def test_legacy_json_becomes_equal_values(yjs: Yjs) -> None:
    data = json_values(*LEGACY, "undefined", "false", ' "x" ', "-2147483647", "2147483648", "63", "64", "-64")

    assert read_update(data).standins
    assert yjs.apply([through_pycrdt([data])]) == yjs.apply([data])


def test_lone_surrogates_in_legacy_json_become_replacement_characters(yjs: Yjs) -> None:
    data = json_values('"\\ud83d!"')

    assert yjs.apply([through_pycrdt([data])], {"t": "array"}).content["t"]["v"] == ["\ufffd!"]


# --- disguised content in the life of a document


def test_array_is_split_between_stand_ins(yjs: Yjs) -> None:
    array = one(8, b"\4" + BIGINT + b"\x7d\x40" + b"\x7e" + BIGINT)
    between = update(block(3, 0, item(196, var_uint(9) + b"\0" + var_uint(9) + b"\1", var_bytes(b"x"))))
    removal = update(deletes=deletes((9, [(1, 2)])))

    updates = [array, between, removal]

    assert yjs.apply([through_pycrdt(updates)]) == yjs.apply(updates)


def test_stand_in_in_a_map_is_overwritten(yjs: Yjs) -> None:
    first = one(9, var_bytes(b"guid") + b"\x76\0", key="k")
    second = update(block(9, 1, item(168, var_uint(9) + b"\0", b"\1" + BIGINT)))

    updates = [first, second]

    assert yjs.apply([through_pycrdt(updates)]) == yjs.apply(updates)


def test_deleted_stand_ins_are_forgotten(yjs: Yjs) -> None:
    updates = [DISGUISED["subdocument"], update(deletes=deletes((9, [(0, 1)])))]

    state = through_pycrdt(updates)

    assert b"guid" not in state
    assert yjs.apply([state]) == yjs.apply(updates)


def test_diff_and_merge_carry_stand_ins(yjs: Yjs) -> None:
    first = DISGUISED["among other values"]
    second = update(block(9, 3, item(136, var_uint(9) + b"\2", b"\2\x7e" + BIGINT)))

    diff = through_pycrdt([first, second], state_vector=b"\1\x09\4")
    merged = from_pycrdt(pycrdt.merge_updates(for_pycrdt(first, {}), for_pycrdt(second, {})))

    assert yjs.apply([merged]) == yjs.apply([first, second])
    assert read_update(diff).needs == {9: 4}
    assert diff.count(BIGINT) == 1


@pytest.mark.parametrize("seed", range(60))
def test_documents_of_real_clients_with_odd_content_survive_pycrdt(seed: int, yjs: Yjs) -> None:
    history = yjs.generate(seed, clients=1 + seed % 3, steps=40, odd=True, undo=seed % 2 == 0, gc=seed % 3 > 0)

    for data in history.updates:
        assert read_update(data).standins == (for_pycrdt(data, {}) != data)
        assert from_pycrdt(for_pycrdt(data, {})) == data
    state = through_pycrdt(history.updates)

    for roots in ({"*": "raw"}, {"text": "text", "array": "array", "map": "map", "xml": "xml"}):
        assert yjs.apply([state], roots) == yjs.apply(history.updates, roots)


# --- surrogate pairs


def text(value: str) -> bytes:
    return one(4, var_bytes(value.encode()))


def test_cut_pair_becomes_two_replacement_characters() -> None:
    assert for_pycrdt(text("a😀b🙂"), {9: {2}}) == text("a\ufffd\ufffdb🙂")
    assert for_pycrdt(text("a😀b🙂"), {9: {2, 5}}) == text("a\ufffd\ufffdb\ufffd\ufffd")


def test_pair_that_nothing_cuts_stays() -> None:
    data = text("a😀b🙂")

    assert for_pycrdt(data, {8: {2}, 9: {1, 3, 4, 6}}) is data


def _split_in_yjs(yjs: Yjs, updates: Sequence[bytes]) -> tuple[Loaded, Loaded]:
    state = through_pycrdt(updates, known_cuts(updates))
    read_update(state)
    return yjs.apply([state]), yjs.apply(updates)


@pytest.mark.parametrize("seed", range(120))
def test_emojis_edited_anywhere_look_as_in_yjs(seed: int, yjs: Yjs) -> None:
    history = yjs.generate(
        seed, clients=2 + seed % 2, steps=50, kinds=["text"], emoji=True, exchange=0.3, gc=seed % 3 > 0
    )

    got, expected = _split_in_yjs(yjs, history.updates)

    assert got == expected


def test_emojis_are_cut_at_all_in_these_histories(yjs: Yjs) -> None:
    cuts = 0
    for seed in range(20):
        history = yjs.generate(seed, clients=2, steps=50, kinds=["text"], emoji=True, exchange=0.3)
        cuts += sum(map(len, known_cuts(history.updates).values()))

    assert cuts > 20


def test_struct_that_is_half_known_is_cut_there(yjs: Yjs) -> None:
    # A client that inserts the halves one by one sends them as U+FFFD, but holds, and later sends, a whole emoji.
    first, whole = text("\ufffd"), text("😀")

    got = yjs.apply([through_pycrdt([first, whole], {9: {1}})])

    assert got == yjs.apply([first, whole])
    assert got.content["t"]["list"] == [{"$": "string", "v": "\ufffd\ufffd"}]
