"""What comparing two states of a document costs: `python -m benchmarks.changes`.

For each pair: CPU time to read both, to tell what differs, and to write that as text and JSON; the best of some rounds. Each is
shown at two sizes, to see that the cost is linear.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from time import thread_time
from typing import Any, TypeVar

import pycrdt

from crdt_sync.authors import Authors, activity
from crdt_sync.changes import diff
from crdt_sync.changes_forms import to_json, to_text
from crdt_sync.content import read_content
from persistence import Row

ROUNDS = 2
WORDS = ("walk", "museum", "train", "hotel", "lunch", "and", "the", "of", "rain", "Louvre")

T = TypeVar("T")


def words(characters: int, rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) + str(rng.randrange(1000)) for _ in range(characters // 8))[:characters]


def edited_text(size: int) -> tuple[bytes, bytes]:
    """A text, and one change for each hundred characters."""
    rng = random.Random(1)
    doc: pycrdt.Doc[Any] = pycrdt.Doc()
    text = doc.get("text", type=pycrdt.Text)
    text += words(size, rng)
    older = doc.get_update()
    with doc.transaction():
        for number in range(size // 100):
            at = rng.randrange(len(text) - 20)
            if number % 2:
                text.insert(at, "new words ")
            else:
                del text[at : at + 9]
    return older, doc.get_update()


def rewritten_text(size: int) -> tuple[bytes, bytes]:
    """A text, deleted and written again with another word in each hundred characters."""
    rng = random.Random(2)
    doc: pycrdt.Doc[Any] = pycrdt.Doc()
    text = doc.get("text", type=pycrdt.Text)
    old = words(size, rng)
    text += old
    older = doc.get_update()
    with doc.transaction():
        text.clear()
        new = old.split(" ")
        new[::12] = [f"other{number}" for number in range(len(new[::12]))]
        text += " ".join(new)
    return older, doc.get_update()


def edited_numbers(size: int) -> tuple[bytes, bytes]:
    """A list of numbers, of which a tenth is deleted and a tenth new."""
    rng = random.Random(3)
    doc: pycrdt.Doc[Any] = pycrdt.Doc()
    array = doc.get("list", type=pycrdt.Array)
    array.extend(list(range(size)))
    older = doc.get_update()
    with doc.transaction():
        for _ in range(size // 10):
            array.insert(rng.randrange(len(array)), -1)
            del array[rng.randrange(len(array))]
    return older, doc.get_update()


def items(numbers: range) -> list[pycrdt.Map[Any]]:
    return [pycrdt.Map({"id": str(n), "day": n % 9, "title": pycrdt.Text(f"item {n}")}) for n in numbers]


def edited_items(size: int) -> tuple[bytes, bytes]:
    """A list of maps, of which a tenth has another title, and one in a hundred is gone."""
    rng = random.Random(4)
    doc: pycrdt.Doc[Any] = pycrdt.Doc()
    array = doc.get("list", type=pycrdt.Array)
    array.extend(items(range(size)))
    older = doc.get_update()
    with doc.transaction():
        for number in range(0, size, 10):
            array[number]["title"].insert(0, "great ")
        for _ in range(size // 100):
            del array[rng.randrange(len(array))]
    return older, doc.get_update()


def restored_items(size: int) -> tuple[bytes, bytes]:
    """A list of maps that was emptied and filled again, all equal but the last."""
    doc: pycrdt.Doc[Any] = pycrdt.Doc()
    array = doc.get("list", type=pycrdt.Array)
    array.extend(items(range(size)))
    older = doc.get_update()
    with doc.transaction():
        array.clear()
        array.extend(items(range(size - 1)))
    return older, doc.get_update()


PAIRS: dict[str, tuple[Callable[[int], tuple[bytes, bytes]], int]] = {
    "text of {} with a change per 100": (edited_text, 50_000),
    "text of {} written again": (rewritten_text, 50_000),
    "list of {} numbers": (edited_numbers, 5_000),
    "list of {} maps": (edited_items, 5_000),
    "list of {} maps written again": (restored_items, 5_000),
}


def timed(work: Callable[[], T]) -> tuple[float, T]:
    best = float("inf")
    for _ in range(ROUNDS):
        begin = thread_time()
        result = work()
        best = min(best, thread_time() - begin)
    return best * 1000, result


def keystrokes(count: int) -> Iterator[Row]:
    doc: pycrdt.Doc[Any] = pycrdt.Doc()
    text = doc.get("text", type=pycrdt.Text)
    begin = datetime(2026, 5, 1, tzinfo=UTC)
    for number in range(count):
        state = doc.get_state()
        text += "x"
        yield Row(number + 1, doc.get_update(state), f"user-{number // 50 % 5}", begin)


def main() -> None:
    print(f"{'':45} {'read ms':>8} {'diff ms':>8} {'forms ms':>8} {'changes':>8} {'runs':>6}")
    for name, (make, size) in PAIRS.items():
        for each in (size, 2 * size):
            older, newer = make(each)
            read_ms, _ = timed(lambda: (read_content(older), read_content(newer)))  # noqa: B023
            diff_ms, changes = timed(lambda: diff(older, newer))  # noqa: B023
            forms_ms, _ = timed(lambda: (to_text(changes), to_json(changes)))  # noqa: B023
            runs = sum(len(change.runs) for change in changes)
            label = name.format(f"{each:,}")
            print(f"{label:45} {read_ms:8.0f} {diff_ms:8.0f} {forms_ms:8.0f} {len(changes):8} {runs:6}")
    rows = list(keystrokes(20_000))
    authors_ms, _ = timed(lambda: Authors(rows))
    activity_ms, _ = timed(lambda: activity(rows, 60))
    print(f"20,000 rows: who wrote what {authors_ms:.0f} ms, activity {activity_ms:.0f} ms")


if __name__ == "__main__":
    main()
