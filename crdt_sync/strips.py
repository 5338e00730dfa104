"""What shows of a list or a text, unit by unit, with who each unit is: what `alignment` lays beside each other.

A unit is what takes one clock: an element, an embed, a UTF-16 unit of text. Pieces of items stand for many of them.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .content import ATTRIBUTES_MAX, Attributes, values_of
from .errors import ContentTooCostly
from .order import Item, Type
from .structure import EMBED, FORMAT, STRING, TYPE

_ASTRAL = re.compile("[\U00010000-\U0010ffff]")


class Formats:
    """What text is formatted with: by key, text that is equal for equal values, the value, and the item that says so."""

    __slots__ = ("sources", "texts", "values")

    def __init__(self, texts: Mapping[str, str], values: Mapping[str, Any], sources: Mapping[str, Item]) -> None:
        self.texts = texts
        self.values = values
        self.sources = sources
        """Also of keys that text is no longer formatted with."""


PLAIN = Formats({}, {}, {})


class Piece(NamedTuple):
    """Some visible units of one item, in a strip."""

    item: Item
    at: int
    """Index of the first unit in its strip."""
    content: Any
    """A string, of which each character is a UTF-16 unit, or a list of values; of a type its `Type`."""
    formats: Formats


class Strip:
    """The visible units of a sequence, in pieces."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.starts: list[int] = []
        self.length = 0

    def append(self, item: Item, content: Any, formats: Formats = PLAIN) -> None:
        """Add the units of an item."""
        if content:
            self.starts.append(self.length)
            self.pieces.append(Piece(item, self.length, content, formats))
            self.length += len(content)

    def slices(self, start: int, stop: int) -> Iterator[tuple[Piece, int, int]]:
        """The pieces between two indices, each with where in it they begin and end."""
        index = bisect_right(self.starts, start) - 1
        while start < stop:
            piece = self.pieces[index]
            end = min(stop, piece.at + len(piece.content))
            yield piece, start - piece.at, end - piece.at
            start, index = end, index + 1

    def types(self) -> Iterator[Piece]:
        """Those that are shared types."""
        return (piece for piece in self.pieces if piece.item.ref == TYPE)


def strip_of_list(type_: Type) -> Strip:
    """What shows of an array, or of the children of XML."""
    strip = Strip()
    for item in type_.sequence.visible():
        strip.append(item, values_of(item))
    return strip


class TextReader:
    """Makes strips of the texts of one document, and sees to it that their formats don't take gigabytes.

    Args:
        sources: Whether `Formats.sources` is wanted.
    """

    def __init__(self, *, sources: bool) -> None:
        self._with_sources = sources
        self._attributes_size = 0

    def strip(self, type_: Type) -> Strip:
        """What shows of a text."""
        strip = Strip()
        current = Attributes(1)
        sources: dict[str, Item] = {}
        formats, changed = PLAIN, False
        for item in type_.sequence.visible():
            if item.ref == FORMAT:
                current.set(*item.content)
                if self._with_sources:
                    sources[item.content[0]] = item
                changed = True
            elif item.ref in (STRING, EMBED, TYPE):
                if changed:
                    changed = False
                    self._count(current.size + 8 * len(sources))
                    formats = Formats(current.texts.copy(), current.sorted(), sources.copy())
                strip.append(item, as_units(item.content) if item.ref == STRING else values_of(item), formats)
        return strip

    def _count(self, size: int) -> None:
        self._attributes_size += size
        if self._attributes_size > ATTRIBUTES_MAX:
            raise ContentTooCostly(f"the attributes of all runs of text take more than {ATTRIBUTES_MAX} bytes")


def is_low(unit: Any) -> bool:
    """Whether it is the second half of a surrogate pair."""
    return isinstance(unit, str) and "\udc00" <= unit <= "\udfff"


def as_units(text: str) -> str:
    """The text with a character for each UTF-16 unit."""
    if text.isascii() or max(text) <= "\uffff":
        return text
    return _ASTRAL.sub(lambda pair: "".join(map(chr, _halves(ord(pair[0]) - 0x10000))), text)


def as_text(units: str) -> str:
    """What `as_units` was given."""
    if units.isascii():
        return units
    return units.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _halves(offset: int) -> tuple[int, int]:
    return 0xD800 + (offset >> 10), 0xDC00 + (offset & 0x3FF)
