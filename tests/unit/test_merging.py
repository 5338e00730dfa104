"""The rows of a log as fewer updates. What they amount to is compared with what the rows do one by one."""

import random
import sys

import pycrdt
import pytest

from benchmarks.update_reader import struct, update
from crdt_sync import merging as module
from crdt_sync.document import Document, Outcome
from crdt_sync.lib0 import write_var_bytes, write_var_uint
from crdt_sync.merging import merging
from crdt_sync.update import read_update
from tests.support.fakes import Editor, text_of, typed

CLIENT = 3_735_928_559


def loaded(updates: list[bytes]) -> Document:
    document = Document(waiting_bytes_max=sys.maxsize)
    for each in updates:
        document.restore(each)
    return document


def merged(rows: list[bytes]) -> list[bytes]:
    return [each for each, _ in merging(rows)]


def items_of(data: bytes) -> int:
    return sum(map(len, read_update(data).structs.values()))


def after(clock: int, text: bytes, *, right: tuple[int, int] | None = None, client: int = CLIENT) -> bytes:
    """A row: text behind the same client's last character."""
    head = b"\xc4" if right else b"\x84"
    ids = write_var_uint(client) + write_var_uint(clock - 1)
    if right is not None:
        ids += write_var_uint(right[0]) + write_var_uint(right[1])
    return update(clock, head + ids + write_var_bytes(text), client=client)


def deleted(start: int, length: int, client: int = CLIENT) -> bytes:
    return b"\0\1" + write_var_uint(client) + b"\1" + write_var_uint(start) + write_var_uint(length)


FIRST = update(0, struct(0, b"x"))


def history(rng: random.Random) -> list[bytes]:
    """What some clients write who hear of each other now and then."""
    editors = [Editor(client) for client in rng.sample(range(1, 1 << 32), 3)]
    written: list[bytes] = []
    heard = [0] * len(editors)
    at = [0] * len(editors)
    for editor in editors:
        editor.doc.observe(lambda event: written.append(bytes(event.update)))
    for _ in range(rng.randint(20, 120)):
        mine = rng.randrange(len(editors))
        editor = editors[mine]
        kind = rng.random()
        if kind < 0.15:
            # What is applied is told of like what is written.
            for row in (here := list(written))[heard[mine] :]:
                editor.doc.apply_update(row)
            written[:] = here
            heard[mine] = len(written)
        shown = str(editor.text)
        if kind < 0.3:
            at[mine] = rng.randint(0, len(shown))
        at[mine] = min(at[mine], len(shown))
        start = len(shown[: at[mine]].encode())
        if kind < 0.7 or not at[mine]:
            text = "".join(rng.choices("abc ü😀", k=rng.randint(1, 4)))
            editor.text.insert(start, text)
            at[mine] += len(text)
        elif kind < 0.95:
            at[mine] -= 1
            del editor.text[len(shown[: at[mine]].encode()) : start]
        else:
            editor.map["key"] = kind
    return written


@pytest.mark.parametrize("seed", range(40))
def test_what_is_merged_amounts_to_the_rows(seed: int) -> None:
    rows = history(random.Random(seed))

    together, one_by_one = loaded(merged(rows)), loaded(rows)

    assert together.fingerprint() == one_by_one.fingerprint()
    assert together.diff(b"\0") == one_by_one.diff(b"\0")
    assert text_of(together.diff(b"\0")) == text_of(*rows)
    assert together.waiting == ()


def test_most_of_what_people_write_is_merged() -> None:
    rows = [row for seed in range(40) for row in history(random.Random(seed))]

    assert len(merged(rows)) < len(rows) / 2


def test_what_is_typed_on_is_one_item() -> None:
    rows = [FIRST, *(after(clock, b"y") for clock in range(1, 100))]

    first, rest = merging(rows)

    assert first == (FIRST, False)
    assert rest[1]
    assert items_of(rest[0]) == 1
    assert loaded([first[0], rest[0]]).diff(b"\0") == loaded(rows).diff(b"\0")


def test_emojis_count_as_two_when_something_is_typed_on() -> None:
    rows = [FIRST, after(1, "😀".encode()), after(3, "ü".encode()), after(4, b"y")]

    together = merged(rows)

    assert items_of(together[-1]) == 1
    assert loaded(together).diff(b"\0") == loaded(rows).diff(b"\0")


def test_what_is_typed_on_in_front_of_something_else_is_another_item() -> None:
    right = update(0, b"\4\1\1t\1r", client=5)
    rows = [FIRST, right, after(1, b"a"), after(2, b"b", right=(5, 0)), after(3, b"c", right=(5, 0))]

    together = merged(rows)

    assert items_of(together[-1]) == 2
    assert loaded(together).diff(b"\0") == loaded(rows).diff(b"\0")


def test_what_somebody_put_in_between_is_where_it_was() -> None:
    between = update(0, b"\x84" + write_var_uint(CLIENT) + b"\1\1-", client=5)
    rows = [FIRST, after(1, b"a"), after(2, b"b"), between, after(3, b"c")]

    assert loaded(merged(rows)).diff(b"\0") == loaded(rows).diff(b"\0")


def test_a_row_that_is_stored_twice_counts_once() -> None:
    rows = [FIRST, after(1, b"a"), after(2, b"b"), after(1, b"a"), after(3, b"c")]

    together = merged(rows)

    assert len(together) == 2
    assert loaded(together).diff(b"\0") == loaded(rows).diff(b"\0")


def test_a_gap_is_left_to_the_rows() -> None:
    rows = [FIRST, after(1, b"a"), after(3, b"c"), after(2, b"b")]

    assert list(merging(rows)) == [(row, False) for row in rows]


def test_what_waits_for_something_is_seen_when_it_is_applied() -> None:
    rows = [after(1, b"a"), after(2, b"b")]

    ((together, of_several),) = merging(rows)

    assert of_several
    assert Document().apply(together) is Outcome.WAITING


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(after(1, b"a")[:-1] + b"\1", id="with deletes"),
        pytest.param(after(1, b"a") + b"\0", id="too long"),
        pytest.param(after(1, b"a")[:-1], id="too short"),
        pytest.param(after(1, b"\xff"), id="no UTF-8"),
        pytest.param(after(1, b""), id="no text"),
        pytest.param(b"\1\1\x85\0\1\x84\5\0\1y\0", id="a number in more bytes than it takes"),
        pytest.param(deleted(0, 0), id="an empty delete"),
        pytest.param(FIRST, id="the first in its root"),
    ],
)
def test_any_other_row_stands_for_itself(row: bytes) -> None:
    rows = [after(2, b"b"), row, after(3, b"c")]

    assert list(merging(rows)) == [(each, False) for each in rows]


def test_deletes_come_last() -> None:
    rows = [FIRST, after(1, b"abc"), deleted(2, 1), deleted(1, 1), after(4, b"d"), deleted(3, 2)]

    together = merged(rows)

    assert len(together) == 2
    assert loaded(together).fingerprint() == loaded(rows).fingerprint()
    assert loaded(together).diff(b"\0") == loaded(rows).diff(b"\0")


def test_merged_updates_are_of_some_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MERGED_BYTES_MAX", 1000)
    rows = typed("on and on " * 100)

    together = merged(rows)

    assert 1 < len(together) < len(rows) / 20
    assert max(map(len, together)) < 1100
    assert loaded(together).diff(b"\0") == loaded(rows).diff(b"\0")


def test_pycrdt_agrees() -> None:
    rows = history(random.Random(99))
    one, other = pycrdt.Doc(), pycrdt.Doc()

    for row in rows:
        one.apply_update(row)
    for each in merged(rows):
        other.apply_update(each)

    assert str(one.get("text", type=pycrdt.Text)) == str(other.get("text", type=pycrdt.Text))
