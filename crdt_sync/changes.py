"""What differs between two states of one document, by path.

Owns which changes there are and whose they are. Leaves to `alignment` what two sequences have in common, to `content` what
things look like, to `authors` who wrote what, and to `changes_forms` how changes are shown.

Nothing is guessed: both states have the same units (client and clock), so what shows in both was kept, what shows in the newer
one alone was added, and what shows in the older one alone was removed. One thing is then taken back: what was removed and
added in the same place with equal content is unchanged, since restoring a state makes new units with old content.

Pure Python that shares nothing, like `content`. Not recursive along shared types.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal, NamedTuple, TypeAlias

from .alignment import Keep, align, canonical, gaps, name_of
from .authors import Authors
from .content import KINDS, MAPS, TEXTS, Kind, Node, Reader, is_keyless, kind_of_root, node_to_json, values_of
from .javascript import UNDEFINED
from .order import Item, Type, read_document
from .strips import PLAIN, Formats, Strip, TextReader, as_text, is_low, strip_of_list
from .structure import NONE
from .whose import Users, Whose, last_unit

Path: TypeAlias = tuple[str | int, ...]
"""The name of a root, then keys and indices; in a text, the position of what is embedded."""

RunKind: TypeAlias = Literal["kept", "inserted", "removed", "formatted"]


@dataclass(frozen=True, slots=True)
class TextRun:
    """A stretch of a text: kept as it is, inserted, removed, or kept but formatted differently."""

    kind: RunKind
    at: int
    """Where it begins in the newer text, in UTF-16 units; in the older one if it was removed."""
    length: int
    """In UTF-16 units; an embed is one."""
    content: Any = None
    """The characters, or an embed's value or `Node`. In what was kept, U+FFFC stands for each embed."""
    is_embed: bool = False
    before: Mapping[str, Any] = field(default_factory=dict)
    """What it was formatted with: all of that, if it was removed; else what is different now."""
    after: Mapping[str, Any] = field(default_factory=dict)
    """What it is formatted with: all of that, if it was inserted; else what was different."""
    authors: Users = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One difference."""

    path: Path
    """Where in the newer state; of what was removed, where in the older one."""
    kind: Literal["added", "removed", "changed", "text", "formatted"]
    """`text` if a text has other characters, `formatted` if only its formats differ."""
    before: Any = None
    """What was removed, or replaced: a value as in `javascript`, or a `Node`."""
    after: Any = None
    """What was added, or took its place."""
    runs: tuple[TextRun, ...] = ()
    """Of a text: all of it, in order."""
    authors: Users = ()


def diff(older: bytes, newer: bytes, *, authors: Authors | None = None) -> list[Change]:
    """Tell what differs between two states of one document.

    Args:
        older: One update with the whole document.
        newer: Likewise. It needn't be the later one: backwards, what was added is removed.
        authors: Of the rows between the two, if it shall be told who made the difference.

    Returns:
        Root by root, and of each type first what is directly in it. Whoever takes away what was removed, last first, and
        then goes through the rest in order, gets the newer content. Nothing, if both show the same.

    Raises:
        MalformedUpdate: Not an update, or one that builds on others.
        ContentTooCostly: Made up so that showing it takes forever, or gigabytes.
    """
    sources = authors is not None
    return _Differ(_State(older, sources=sources), _State(newer, sources=sources), authors).run()


class _State:
    def __init__(self, update: bytes, *, sources: bool) -> None:
        self.document = read_document(update)
        self.texts = TextReader(sources=sources)
        self._reader = Reader()
        self._nodes: dict[Type, Node] = {}

    def root(self, name: str) -> tuple[Type, Kind]:
        type_ = self.document.roots.get(name) or Type(NONE)
        return type_, kind_of_root(type_)

    def shown(self, value: Any) -> Any:
        """A value, or the node of a type."""
        if not isinstance(value, Type):
            return value
        if value not in self._nodes:
            self._nodes[value] = self._reader.root(value) if value.kind == NONE else self._reader.nested(value)
        return self._nodes[value]

    def written(self, value: Any) -> str:
        """Text that is equal for equal content."""
        if isinstance(value, Type):
            return json.dumps(node_to_json(self.shown(value), rich=True), sort_keys=True)
        return canonical(value)


class _Place:
    """Where something is in both states: a chain, from which paths are made only for what differs."""

    __slots__ = ("_around", "_newer", "_older")

    def __init__(self, around: "_Place | None", older: str | int, newer: str | int) -> None:
        self._around = around
        self._older = older
        self._newer = newer

    def older(self, *inside: str | int) -> Path:
        return (*reversed([place._older for place in self._outwards()]), *inside)

    def newer(self, *inside: str | int) -> Path:
        return (*reversed([place._newer for place in self._outwards()]), *inside)

    def _outwards(self) -> "Iterator[_Place]":
        place: _Place | None = self
        while place is not None:
            yield place
            place = place._around


class _Differ:
    def __init__(self, older: _State, newer: _State, authors: Authors | None) -> None:
        self._older = older
        self._newer = newer
        self._whose = Whose(older.document, newer.document, authors)
        self._changes: list[Change] = []
        self._todo: list[tuple[Type, Type, Kind, _Place]] = []

    def run(self) -> list[Change]:
        for name in sorted(self._older.document.roots.keys() | self._newer.document.roots.keys()):
            older, kind = self._older.root(name)
            newer, kind_now = self._newer.root(name)
            place = _Place(None, name, name)
            if _has_sequence(kind) and _has_sequence(kind_now) and (kind in TEXTS) != (kind_now in TEXTS):
                before, after = self._older.shown(older), self._newer.shown(newer)
                self._changes.append(Change(place.newer(), "changed", before, after, (), self._whose.nobody))
                continue
            self._todo.append((older, newer, kind_now if _has_sequence(kind_now) else kind, place))
            while self._todo:
                self._compare(*self._todo.pop())
        return self._changes

    def _compare(self, older: Type, newer: Type, kind: Kind, place: _Place) -> None:
        others = len(self._todo)
        if not is_keyless(newer):
            self._compare_keys(older, newer, place)
        if kind in TEXTS:
            self._compare_texts(self._older.texts.strip(older), self._newer.texts.strip(newer), place)
        elif kind not in MAPS:
            self._compare_lists(strip_of_list(older), strip_of_list(newer), place)
        self._todo[others:] = reversed(self._todo[others:])

    def _add(self, path: Path, item: Item, index: int, value: Any) -> None:
        who = self._whose.addition(item, index)
        self._changes.append(Change(path, "added", None, self._newer.shown(value), (), who))

    def _remove(self, path: Path, item: Item, index: int, value: Any) -> None:
        who = self._whose.removal(item, index)
        self._changes.append(Change(path, "removed", self._older.shown(value), None, (), who))

    def _compare_keys(self, older: Type, newer: Type, place: _Place) -> None:
        before, after = dict(older.entries()), dict(newer.entries())
        for key in sorted(before.keys() | after.keys()):
            was, now = before.get(key), after.get(key)
            if was is not None and now is not None:
                self._compare_values(key, was, now, place)
            elif now is not None:
                self._add(place.newer(key), now, last_unit(now), _value(now))
            elif was is not None:
                self._remove(place.older(key), was, last_unit(was), _value(was))

    def _compare_values(self, key: str, was: Item, now: Item, place: _Place) -> None:
        one, other = _value(was), _value(now)
        if isinstance(one, Type) and isinstance(other, Type):
            kind = KINDS[other.kind]
            # A text that was written again is still compared by its words.
            if _is_same_type(was, now) or (one.kind == other.kind and kind in TEXTS):
                self._todo.append((one, other, kind, _Place(place, key, key)))
                return
        if self._older.written(one) != self._newer.written(other):
            # Backwards, the older state is the one that knows of both: the difference is made by who wrote its value.
            backwards = self._older.document.has(now.client, now.clock + last_unit(now))
            who = self._whose.removal(was, last_unit(was)) if backwards else self._whose.addition(now, last_unit(now))
            change = Change(place.newer(key), "changed", self._older.shown(one), self._newer.shown(other), (), who)
            self._changes.append(change)

    def _compare_lists(self, older: Strip, newer: Strip, place: _Place) -> None:
        keeps = align(older, newer, self._older.written, self._newer.written)
        for o_start, o_stop, n_start, n_stop in gaps(keeps, older.length, newer.length):
            for piece, first, last in older.slices(o_start, o_stop):
                for index in range(first, last):
                    self._remove(place.older(piece.at + index), piece.item, index, piece.content[index])
            for piece, first, last in newer.slices(n_start, n_stop):
                for index in range(first, last):
                    self._add(place.newer(piece.at + index), piece.item, index, piece.content[index])
        self._go_into_kept(older, newer, keeps, place)

    def _compare_texts(self, older: Strip, newer: Strip, place: _Place) -> None:
        keeps = align(older, newer, self._older.written, self._newer.written)
        parts: list[_Part] = []
        for (o_start, o_stop, n_start, n_stop), keep in zip(
            gaps(keeps, older.length, newer.length), [*keeps, Keep(0, 0, 0)], strict=True
        ):
            for piece, first, last in older.slices(o_start, o_stop):
                for start, stop, who in _whole(piece.content, self._whose.removals(piece.item, first, last)):
                    content = _shown(self._older, piece.content[start:stop])
                    parts.append(_Part("removed", piece.at + start, stop - start, content, piece.formats, PLAIN, who))
            for piece, first, last in newer.slices(n_start, n_stop):
                for start, stop, who in _whole(piece.content, self._whose.additions(piece.item, first, last)):
                    content = _shown(self._newer, piece.content[start:stop])
                    parts.append(_Part("inserted", piece.at + start, stop - start, content, PLAIN, piece.formats, who))
            parts += self._kept_parts(older, newer, keep)
        runs = _merged(parts)
        if any(run.kind != "kept" for run in runs):
            only_formats = all(run.kind in ("kept", "formatted") for run in runs)
            users = tuple(dict.fromkeys(user for run in runs for user in run.authors))
            kind: Literal["formatted", "text"] = "formatted" if only_formats else "text"
            self._changes.append(Change(place.newer(), kind, None, None, runs, users))
        self._go_into_kept(older, newer, keeps, place)

    def _kept_parts(self, older: Strip, newer: Strip, keep: Keep) -> "Iterator[_Part]":
        o_at = keep.older
        for piece, first, last in newer.slices(keep.newer, keep.newer + keep.length):
            for other, start, stop in older.slices(o_at, o_at + last - first):
                length = stop - start
                if other.formats.texts == piece.formats.texts:
                    content = piece.content[first : first + length] if isinstance(piece.content, str) else "\ufffc"
                    yield _Part("kept", piece.at + first, length, content, PLAIN, PLAIN, ())
                else:
                    content = _shown(self._newer, piece.content[first : first + length])
                    before, after = _differing(other.formats, piece.formats)
                    who = self._whose.formatting(before, after)
                    yield _Part("formatted", piece.at + first, length, content, before, after, who)
                first += length
                o_at += length

    def _go_into_kept(self, older: Strip, newer: Strip, keeps: list[Keep], place: _Place) -> None:
        index = 0
        for piece in newer.types():
            while index < len(keeps) and keeps[index].newer + keeps[index].length <= piece.at:
                index += 1
            if index == len(keeps) or piece.at < keeps[index].newer:
                continue
            o_at = keeps[index].older + piece.at - keeps[index].newer
            [(other, _, _)] = older.slices(o_at, o_at + 1)
            was, now = other.content[0], piece.content[0]
            # Else it took the place of another one with equal content.
            if _is_same_type(other.item, piece.item) or name_of(was) == name_of(now) is not None:
                self._todo.append((was, now, KINDS[now.kind], _Place(place, o_at, piece.at)))


class _Part(NamedTuple):
    kind: RunKind
    at: int
    length: int
    content: Any
    before: Formats
    after: Formats
    authors: Users


def _shown(state: _State, content: Any) -> Any:
    """Characters as they are, an embed as a list of it."""
    return content if isinstance(content, str) else [state.shown(each) for each in content]


def _whole(content: Any, parts: Iterator[tuple[int, int, Users]]) -> Iterator[tuple[int, int, Users]]:
    """The same stretches of content, but a surrogate pair belongs to one of them."""
    end = 0
    for start, stop, users in parts:
        start = max(start, end)
        end = stop + (stop < len(content) and isinstance(content, str) and is_low(content[stop]))
        if start < end:
            yield start, end, users


def _merged(parts: list[_Part]) -> tuple[TextRun, ...]:
    """Neighbours that differ in nothing but their characters as one run."""

    def sameness(numbered: tuple[int, _Part]) -> Any:
        number, part = numbered
        is_embed = not isinstance(part.content, str)
        return number if is_embed else (part.kind, part.before.texts, part.after.texts, part.authors)

    runs = []
    for _, group in groupby(enumerate(parts), sameness):
        same = [part for _, part in group]
        kind, at, _, content, before, after, users = same[0]
        is_embed = not isinstance(content, str)
        content = content[0] if is_embed else as_text("".join(part.content for part in same))
        length = sum(part.length for part in same)
        runs.append(TextRun(kind, at, length, content, is_embed, before.values, after.values, users))
    return tuple(runs)


def _differing(before: Formats, after: Formats) -> tuple[Formats, Formats]:
    """Only what differs of both."""

    def only(of: Formats, other: Formats) -> Formats:
        keys = [key for key, text in of.texts.items() if other.texts.get(key) != text]
        texts, values = {key: of.texts[key] for key in keys}, {key: of.values[key] for key in sorted(keys)}
        return Formats(texts, values, of.sources)

    return only(before, after), only(after, before)


def _has_sequence(kind: Kind) -> bool:
    return kind not in MAPS and kind is not Kind.EMPTY


def _is_same_type(was: Item, now: Item) -> bool:
    same_unit = (was.client, was.clock) == (now.client, now.clock)
    return same_unit and (was.content.kind, was.content.name) == (now.content.kind, now.content.name)


def _value(item: Item) -> Any:
    """What an item is as the value of a key."""
    values = values_of(item)
    return values[-1] if values else UNDEFINED
