"""Two sequences, out of two states of one document, laid beside each other: what is the same in both.

First by identity: a unit (client and clock) that shows in both is the same one. What is left between those was removed from one and
added to the other; of that, what has equal content is taken for the same too, since restoring a state makes new units
with the content of old ones. Text is compared by words then, so that a word is never taken to pieces. Maps with equal ids are
then taken for the same thing with other content.

Pure. About linear: a sort, and for what is left a bounded number of passes.
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from .content import values_of
from .javascript import to_tagged
from .order import Type
from .strips import Piece, Strip, is_low
from .structure import MAP

PASSES_MAX = 20
"""How often what is left is gone through in search of equal content. Each pass halves it, or so."""

# A surrogate pair; a character of those scripts that come without spaces; a word with the spaces after it; anything else.
_TOKEN = re.compile("[\ud800-\udbff][\udc00-\udfff]|[\u2e80-\uffff]|[^\\W\u2e80-\uffff]+ *|\\W")

Written: TypeAlias = Callable[[Any], str]


class Keep(NamedTuple):
    """Units that are the same in both."""

    older: int
    newer: int
    length: int


def canonical(value: Any) -> str:
    """Text that is equal for equal values."""
    return json.dumps(to_tagged(value), sort_keys=True)


def align(older: Strip, newer: Strip, older_written: Written, newer_written: Written) -> list[Keep]:
    """Find what two strips have in common.

    Args:
        older: One.
        newer: The other.
        older_written: Says of a value, or a type, in the older one what is equal for equal content.
        newer_written: Likewise in the newer one.

    Returns:
        Ascending in both; between two of them at least one unit is in one of the strips alone.
    """
    keeps = _joined(_ascending(list(_identical(older, newer))))
    keeps = _with_equal(
        keeps,
        older,
        newer,
        lambda start, stop: _tokens(older, start, stop, older_written),
        lambda start, stop: _tokens(newer, start, stop, newer_written),
    )
    return _with_equal(
        keeps,
        older,
        newer,
        lambda start, stop: _names(older, start, stop),
        lambda start, stop: _names(newer, start, stop),
    )


def name_of(value: Any) -> str | None:
    """The `id` of a map, if it is a string: by that, applications tell maps in a list apart."""
    if isinstance(value, Type) and value.kind == MAP and "id" in value.keys:
        items = list(value.keys["id"])
        values = values_of(items[-1]) if items and not items[-1].deleted else []
        if values and isinstance(values[-1], str):
            return values[-1]
    return None


def gaps(keeps: Sequence[Keep], older: int, newer: int) -> Iterator[tuple[int, int, int, int]]:
    """What is before, between and after: start and end in the older and in the newer strip."""
    o_at = n_at = 0
    for keep in (*keeps, Keep(older, newer, 0)):
        yield o_at, keep.older, n_at, keep.newer
        o_at, n_at = keep.older + keep.length, keep.newer + keep.length


# ------------------------------------------------------------------------------------------------------------
# By identity.


def _identical(older: Strip, newer: Strip) -> Iterator[Keep]:
    """In the order of the newer one."""
    by_client: dict[int, list[Piece]] = {}
    for piece in older.pieces:
        by_client.setdefault(piece.item.client, []).append(piece)
    clocks = {}
    for client, pieces in by_client.items():
        pieces.sort(key=lambda piece: piece.item.clock)
        clocks[client] = [piece.item.clock for piece in pieces]
    for piece in newer.pieces:
        client, clock = piece.item.client, piece.item.clock
        if client not in by_client:
            continue
        pieces, stop = by_client[client], clock + len(piece.content)
        index = max(0, bisect_right(clocks[client], clock) - 1)
        while index < len(pieces) and pieces[index].item.clock < stop:
            other = pieces[index]
            first = max(clock, other.item.clock)
            last = min(stop, other.item.clock + len(other.content))
            if first < last:
                o_from, n_from = first - other.item.clock, first - clock
                theirs = other.content[o_from : last - other.item.clock]
                for start, length in _equal_parts(theirs, piece.content[n_from : last - clock]):
                    yield Keep(other.at + o_from + start, piece.at + n_from + start, length)
            index += 1


def _equal_parts(one: Any, other: Any) -> Iterator[tuple[int, int]]:
    """Where the same units have the same content, which is everywhere unless a surrogate pair was cut."""
    if isinstance(one, str) and one == other:
        yield 0, len(one)
        return
    differing = [at for at, (a, b) in enumerate(zip(one, other, strict=True)) if not _is_same(a, b)]
    start = 0
    for at in [*differing, len(one)]:
        # Only a client that uses clocks twice could make half a pair the same.
        first = start + (start < at and start > 0 and (is_low(one[start]) or is_low(other[start])))
        last = at - (first < at < len(one) and (is_low(one[at]) or is_low(other[at])))
        if first < last:
            yield first, last - first
        start = at + 1


def _is_same(a: Any, b: Any) -> bool:
    if isinstance(a, Type) or isinstance(b, Type):
        return isinstance(a, Type) and isinstance(b, Type) and (a.kind, a.name) == (b.kind, b.name)
    if isinstance(a, str | int) and type(a) is type(b):
        return bool(a == b)
    return canonical(a) == canonical(b)


def _ascending(keeps: list[Keep]) -> list[Keep]:
    """Those that stand in the same order in both, as many as possible. In states of one document, that is all."""
    if all(keeps[i].older < keeps[i + 1].older for i in range(len(keeps) - 1)):
        return keeps
    return [keeps[index] for index in _longest_ascent([keep.older for keep in keeps])]


def _longest_ascent(values: Sequence[int]) -> list[int]:
    """Indices of a longest ascending subsequence."""
    ends: list[int] = []
    end_indices: list[int] = []
    before: list[int] = []
    for index, value in enumerate(values):
        at = bisect_left(ends, value)
        before.append(end_indices[at - 1] if at else -1)
        ends[at : at + 1] = [value]
        end_indices[at : at + 1] = [index]
    chosen = []
    index = end_indices[-1] if end_indices else -1
    while index >= 0:
        chosen.append(index)
        index = before[index]
    return chosen[::-1]


def _joined(keeps: Sequence[Keep]) -> list[Keep]:
    joined: list[Keep] = []
    for keep in keeps:
        if joined:
            older, newer, length = joined[-1]
            if (older + length, newer + length) == (keep.older, keep.newer):
                joined[-1] = Keep(older, newer, length + keep.length)
                continue
        joined.append(keep)
    return joined


# ------------------------------------------------------------------------------------------------------------
# By content.

_Token = tuple[int, int, str]
"""Index of the first unit, how many, and what."""
_Tokens: TypeAlias = Callable[[int, int], list[_Token]]


def _with_equal(keeps: list[Keep], older: Strip, newer: Strip, left_of: _Tokens, right_of: _Tokens) -> list[Keep]:
    """These, and between them what has equal tokens."""
    found = []
    for o_start, o_stop, n_start, n_stop in gaps(keeps, older.length, newer.length):
        if o_start < o_stop and n_start < n_stop:
            left, right = left_of(o_start, o_stop), right_of(n_start, n_stop)
            # Of several ways to lay them beside each other, the same one in both directions.
            if [what for *_, what in left] <= [what for *_, what in right]:
                pairs = _matches(left, right)
            else:
                pairs = [(i, j) for j, i in _matches(right, left)]
            found += [Keep(left[i][0], right[j][0], left[i][1]) for i, j in pairs]
    return _joined(sorted([*keeps, *found])) if found else keeps


def _names(strip: Strip, start: int, stop: int) -> list[_Token]:
    named = ((piece.at, name_of(piece.content[0])) for piece, _, _ in strip.slices(start, stop))
    return [(at, 1, name) for at, name in named if name is not None]


def _tokens(strip: Strip, start: int, stop: int, written: Written) -> list[_Token]:
    tokens: list[_Token] = []
    parts: list[str] = []
    at = start

    def end_text() -> None:
        nonlocal at
        for match in _TOKEN.finditer("".join(parts)):
            tokens.append((at, len(match[0]), match[0]))
            at += len(match[0])
        parts.clear()

    for piece, first, last in strip.slices(start, stop):
        if isinstance(piece.content, str):
            parts.append(piece.content[first:last])
            continue
        end_text()
        for value in piece.content[first:last]:
            # Not what text could be.
            tokens.append((at, 1, "\0" + written(value)))
            at += 1
    end_text()
    return tokens


def _matches(left: list[_Token], right: list[_Token]) -> list[tuple[int, int]]:
    """Indices of equal tokens, ascending in both.

    What both begin with and end with; then what occurs once in each, in the order in which most of that stands; then the
    same between those.
    """
    matches: list[tuple[int, int]] = []
    todo = [(0, len(left), 0, len(right), PASSES_MAX)]
    while todo:
        i, i_stop, j, j_stop, passes = todo.pop()
        while i < i_stop and j < j_stop and left[i][2] == right[j][2]:
            matches.append((i, j))
            i, j = i + 1, j + 1
        while i < i_stop and j < j_stop and left[i_stop - 1][2] == right[j_stop - 1][2]:
            i_stop, j_stop = i_stop - 1, j_stop - 1
            matches.append((i_stop, j_stop))
        if i == i_stop or j == j_stop or not passes:
            continue
        often = Counter(token[2] for token in left[i:i_stop])
        often_right = Counter(token[2] for token in right[j:j_stop])
        where = {right[at][2]: at for at in range(j, j_stop)}
        once = [at for at in range(i, i_stop) if often[left[at][2]] == 1 == often_right[left[at][2]]]
        anchors = [once[index] for index in _longest_ascent([where[left[at][2]] for at in once])]
        if not anchors:
            continue
        for anchor in anchors:
            at = where[left[anchor][2]]
            matches.append((anchor, at))
            todo.append((i, anchor, j, at, passes - 1))
            i, j = anchor + 1, at + 1
        todo.append((i, i_stop, j, j_stop, passes - 1))
    return sorted(matches)
