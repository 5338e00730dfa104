"""What documents are said to contain, where made-up ones show it better than those of `test_content_laws`."""

import asyncio
import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from crdt_sync import content as content_module
from crdt_sync import order
from crdt_sync.content import Content, Kind, read_content
from crdt_sync.content_text import to_text
from crdt_sync.document import Document
from crdt_sync.errors import ContentTooCostly, MalformedUpdate
from crdt_sync.javascript import UNDEFINED, BigInt, to_string
from crdt_sync.structure import TYPE_DEPTH_MAX
from crdt_sync.values import ANY_DEPTH_MAX
from tests.support.grammar import FOUNDATION, block, deletes, item, update, var_bytes, var_uint
from tests.support.yjs import Yjs

ROOT = Path(__file__).parents[2]
HOSTILE = ROOT / "tests/data/hostile"
R = b"\1\1r"  # in the root "r"
K = var_bytes(b"k")
X = var_bytes(b"x")
ONE = b"\1\x7d\1"  # the value 1
TEXT, ARRAY, MAP = b"\2", b"\0", b"\1"


def ref(client: int, clock: int) -> bytes:
    return var_uint(client) + var_uint(clock)


def shown(*structs: bytes) -> Content:
    return read_content(update(block(1, 0, *structs)))


def test_foundation_is_shown_as_all_kinds_at_once() -> None:
    content = read_content(FOUNDATION)

    assert content.to_json() == {
        "a": [[1, 2, 3]],
        "m": {"k": {"v": True}},
        "t": "0123456789😀😀",
        "x": '<p class="c">xml</p>',
    }
    assert content.to_json(rich=True)["t"] == {
        "$": "text",
        "delta": [{"insert": "0123456789😀😀"}, {"insert": {"image": 1}, "attributes": {"bold": True}}],
    }
    assert to_text(content) == (
        "a:\n  - - 1\n    - 2\n    - 3\n"
        "m:\n  k:\n    v: true\n"
        't:\n  0123456789😀😀{"image": 1}\n'
        'x:\n  <p class="c">xml</p>\n'
    )


@pytest.mark.parametrize(
    ("structs", "kind", "form"),
    [
        ([item(4, R, X)], Kind.TEXT, "x"),
        ([item(5, R, var_bytes(b"{}"))], Kind.TEXT, ""),
        ([item(6, R, K, var_bytes(b"1"))], Kind.TEXT, ""),
        ([item(7, R, TEXT)], Kind.ARRAY, [""]),
        ([item(7, R, b"\6")], Kind.XML_FRAGMENT, ""),
        ([item(7, R, b"\6"), item(136, ref(1, 0), ONE)], Kind.ARRAY, ["", 1]),
        ([item(7, R, b"\6"), item(132, ref(1, 0), X)], Kind.TEXT, "x"),
        ([item(40, R, K, ONE)], Kind.MAP, {"k": 1}),
        ([item(33, R, K, b"\1")], Kind.MAP, {}),
        ([item(1, R, b"\1")], Kind.EMPTY, None),
        ([item(40, R, K, ONE), item(4, R, X)], Kind.TEXT, {"sequence": "x", "entries": {"k": 1}}),
    ],
)
def test_kind_of_a_root_is_told_by_what_it_holds(structs: list[bytes], kind: Kind, form: Any) -> None:
    content = shown(*structs)

    assert content.roots["r"].kind is kind
    assert content.to_json() == {"r": form}


def test_strings_in_an_array_are_its_utf16_units_as_in_yjs(yjs: Yjs) -> None:
    data = update(block(1, 0, item(8, R, ONE), item(132, ref(1, 0), var_bytes("a😀".encode()))))
    in_array = update(block(1, 0, item(7, R, ARRAY), item(4, b"\0" + ref(1, 0), var_bytes("a😀".encode()))))

    # A root with characters is a text; a type that says what it is stays that.
    assert read_content(data).to_json() == {"r": "a😀"}
    assert read_content(in_array).to_json() == {"r": [["a", "\ufffd", "\ufffd"]]}
    assert yjs.apply([in_array], {"r": "json-array"}).content == {"r": [["a", "\ud83d", "\ude00"]]}


def test_a_pair_that_is_cut_is_shown_as_two_replacement_characters() -> None:
    content = read_content(
        update(
            block(1, 0, item(4, R, var_bytes("a😀b".encode()))),
            block(2, 0, item(196, ref(1, 1), ref(1, 2), var_bytes("–".encode()))),
        )
    )

    assert content.to_json() == {"r": "a\ufffd–\ufffdb"}


def test_values_that_json_lacks_are_told_apart_in_rich_json() -> None:
    values = b"\x7f\x7a\0\0\0\0\0\0\0\5\x7d\x40\x7c\x7f\xc0\0\0\x74\2\1\2\x76\1\1$\x7d\1\x7c\x40\0\0\0"
    content = shown(item(8, R, b"\7" + values), item(2, b"\1\1j", b"\1" + var_bytes(b"undefined")))

    assert content.roots["r"].items[:2] == [UNDEFINED, BigInt(5)]
    assert content.to_json() == {"r": [None, "5", 0, None, "AQI=", {"$": 1}, 2], "j": [None]}
    assert content.to_json(rich=True)["r"]["items"] == [
        {"$": "undefined"},
        {"$": "bigint", "value": "5"},
        {"$": "number", "value": "-0"},
        {"$": "number", "value": "NaN"},
        {"$": "binary", "value": "AQI="},
        {"$": "object", "value": {"$": 1}},
        2,
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.1, "0.1"), (1e21, "1e+21"), (123e18, "123000000000000000000"), (1.5e300, "1.5e+300"), (1e-7, "1e-7"),
        (1.25e-6, "0.00000125"), (-12.5, "-12.5"), (-0.0, "0"), (5e-324, "5e-324"), (float("-inf"), "-Infinity"),
        (2.0**53, "9007199254740992"),
    ],
)  # fmt: skip
def test_numbers_in_strings_are_written_as_javascript_does(number: float, text: str) -> None:
    assert to_string(number) == text


def test_an_update_that_builds_on_another_is_refused() -> None:
    for data in (
        update(block(1, 5, item(4, R, X))),
        update(block(1, 0, item(132, ref(2, 0), X))),
        update(deletes=deletes((1, [(0, 1)]))),
        b"\1",
    ):
        with pytest.raises(MalformedUpdate):
            read_content(data)


def test_empty_document_contains_nothing() -> None:
    content = read_content(Document().diff(b"\0"))

    assert (content.to_json(), content.to_json(rich=True), to_text(content)) == ({}, {}, "")


def test_what_is_beside_or_inside_of_garbage_is_not_shown() -> None:
    content = read_content(
        update(
            block(1, 0, item(0, b"\2"), item(4, R, X)),
            block(2, 0, item(132, ref(1, 1), X), item(7, b"\0" + ref(1, 0), TEXT), item(196, ref(1, 2), ref(1, 0), X)),
        )
    )

    assert content.to_json() == {"r": "x"}


def test_as_deep_as_documents_get_all_forms_are_written() -> None:
    """Types and values at their deepest, in the form that nests most: a text in a text is three levels of JSON."""
    deep = b"\x75\1" * ANY_DEPTH_MAX + b"\x7e"
    for kind in (TEXT, ARRAY, MAP, b"\3\1p"):
        info, key = (39, K) if kind == MAP else (7, b"")
        structs = [item(info, R, key, kind)]
        structs += [item(info, b"\0", ref(1, n), key, kind) for n in range(TYPE_DEPTH_MAX - 1)]
        last = item(40, b"\0", ref(1, TYPE_DEPTH_MAX - 1), K, b"\1" + deep)
        if kind == ARRAY:
            last = item(8, b"\0", ref(1, TYPE_DEPTH_MAX - 1), b"\1" + deep)
        document = Document()
        document.apply(update(block(1, 0, *structs, last)))

        content = read_content(document.diff(b"\0"))

        assert len(content.nodes) == TYPE_DEPTH_MAX + 1
        for form in (content.to_json(), content.to_json(rich=True)):
            json.dumps(form, allow_nan=False)
        assert to_text(content).startswith("r:\n")


@pytest.mark.parametrize("path", sorted(HOSTILE.glob("*.hex")), ids=lambda path: path.stem)
def test_reproducers_are_shown_or_refused_at_once(path: Path) -> None:
    payloads = [bytes.fromhex(line) for line in path.read_text().splitlines() if line and not line.startswith("#")]
    started = time.process_time()

    for payload in payloads:
        try:
            content = read_content(payload)
        except MalformedUpdate:
            continue
        json.dumps([content.to_json(), content.to_json(rich=True), to_text(content)], allow_nan=False)

    assert time.process_time() - started < 1


def test_a_document_that_is_all_conflicts_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "STEPS_MAX", 100_000)
    # Each client puts its item before another one's, so that nobody knows his place before he has looked everywhere.
    many = [block(client, 0, item(68, ref(1, client - 2), X)) for client in range(2, 1000)]
    tangled = update(block(1, 0, item(4, R, var_bytes(b"x" * 1000))), *many)

    with pytest.raises(ContentTooCostly):
        read_content(tangled)


def test_a_format_without_effect_divides_no_run() -> None:
    bold = var_bytes(b"bold") + var_bytes(b'{"a":1,"b":2}')
    again = var_bytes(b"bold") + var_bytes(b'{"b":2,"a":1.0}')
    content = shown(item(6, R, bold), *(item(132 + 2 * (n % 2), ref(1, n), again if n % 2 else X) for n in range(3)))

    assert content.to_json(rich=True)["r"]["delta"] == [{"insert": "xx", "attributes": {"bold": {"a": 1, "b": 2}}}]


def formatted(attribute: bytes, runs: int, kind: bytes = TEXT) -> list[bytes]:
    """A text that is formatted with `attribute` all over, and differently word by word."""
    structs = [item(7, R, kind), item(6, b"\0", ref(1, 0), var_bytes(b"link"), var_bytes(attribute))]
    clock = 1
    for n in range(runs):
        structs += [item(134, ref(1, clock), K, var_bytes(b"%d" % n)), item(132, ref(1, clock + 1), X)]
        clock += 2
    return structs


def test_formats_that_would_be_written_over_and_over_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_module, "ATTRIBUTES_MAX", 10_000)
    link = b'"' + b"x" * 1000 + b'"'

    assert len(shown(*formatted(link, 8)).roots["r"].items[0].runs) == 8
    with pytest.raises(ContentTooCostly):
        shown(*formatted(link, 10))
    with pytest.raises(ContentTooCostly):
        shown(*formatted(link, 1, b"\6"))  # as XML it takes a dozen bytes for each x
    with pytest.raises(ContentTooCostly):
        shown(*formatted(b"1", 100))


def test_of_a_long_string_xml_text_has_no_more_than_a_thousand_attributes() -> None:
    content = shown(*formatted(b'"' + b"x" * 1200 + b'"', 1, b"\6"))

    assert content.to_json()["r"].count('="x"') == 1000


async def test_in_a_thread_a_large_document_leaves_the_event_loop_its_turns() -> None:
    # 60,000 items, each before the last: a second of work.
    structs = [item(8, R, ONE)] + [item(72, ref(1, n), ONE) for n in range(60_000)]
    data = update(block(1, 0, *structs))
    loop = asyncio.get_running_loop()
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    counting = loop.create_task(count_turns())
    started = loop.time()
    content = await asyncio.to_thread(read_content, data)
    took_s = loop.time() - started
    counting.cancel()

    assert len(content.roots["r"].items) == 60_001
    assert turns > took_s / 0.05


def test_text_is_written_for_people() -> None:
    content = shown(
        item(39, R, var_bytes(b""), TEXT),  # 0: an empty text
        item(39, R, var_bytes(b"a b"), TEXT),  # 1
        item(4, b"\0", ref(1, 1), var_bytes(b"one\n\ntwo")),  # 2-9
        item(40, R, var_bytes(b"c\n"), b"\1\x77" + var_bytes(b"x\ny")),  # 10
        item(39, R, var_bytes(b"d"), ARRAY),  # 11
        item(7, b"\0", ref(1, 11), ARRAY),  # 12
        item(8, b"\0", ref(1, 12), b"\2\x7d\1\x7b\x3f\xf8\0\0\0\0\0\0"),  # 13-14
        item(135, ref(1, 12), MAP),  # 15
        item(39, R, var_bytes(b"e"), b"\3\1P"),  # 16
        item(7, b"\0", ref(1, 16), b"\6"),  # 17
        item(4, b"\0", ref(1, 17), var_bytes(b"two\nlines")),
    )

    assert to_text(content) == (
        "r:\n"
        '  "": ""\n'
        "  a b:\n    one\n\n    two\n"
        '  "c\\n":\n    x\n    y\n'
        "  d:\n    - - 1\n      - 1.5\n    - {}\n"
        "  e:\n    <P>\n      two\n      lines\n    </P>\n"
    )


def test_content_page_shows_what_its_example_amounts_to() -> None:
    page = (ROOT / "docs/reference/content.md").read_text()
    blocks = dict(re.findall(r"^```(js|json|json rich|text)\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    node = shutil.which("node")
    assert node is not None, "these tests need Node (>= 18): no `node` in PATH"
    script = (
        f"import * as Y from 'yjs'\nconst doc = new Y.Doc()\n{blocks['js']}\n"
        "process.stdout.write(Y.encodeStateAsUpdate(doc))"
    )

    run = subprocess.run(
        [node, "--input-type=module", "-e", script],
        cwd=ROOT / "tests/node",
        capture_output=True,
        check=True,
        timeout=60,
    )
    content = read_content(run.stdout)

    assert content.to_json() == json.loads(blocks["json"])
    assert content.to_json(rich=True) == json.loads(blocks["json rich"])
    assert to_text(content) == blocks["text"]
