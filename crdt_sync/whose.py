"""Whose edits make the difference between two states of a document."""

from collections.abc import Iterator
from typing import TypeAlias

from .authors import Authors
from .order import Integrated, Item, Type
from .strips import Formats, as_units
from .structure import STRING, TYPE

Users: TypeAlias = tuple[str | None, ...]
"""Whose edits make a difference, None for edits of which nobody knows; empty if nobody asked."""


class Whose:
    """By whom one state has what the other one doesn't show.

    What the other state never heard of was inserted since. What it heard of was deleted: forwards, of what is removed, and
    backwards, of what is added.
    """

    def __init__(self, older: Integrated, newer: Integrated, authors: Authors | None) -> None:
        self._older = older
        self._newer = newer
        self._authors = authors
        self.nobody: Users = () if authors is None else (None,)

    def addition(self, item: Item, index: int) -> Users:
        """Of one unit of an item in the newer state; of a type that is new, with all that is in it."""
        users = _distinct(self.additions(item, index, index + 1))
        if self._authors is None or item.ref != TYPE or self._older.has(item.client, item.clock):
            return users
        found = dict.fromkeys(users)
        todo: list[Type] = [item.content]
        while todo:
            type_ = todo.pop()
            inside = [*type_.sequence.visible(), *(each for _, each in type_.entries())]
            for each in inside:
                found.update(dict.fromkeys(_distinct(self.additions(each, 0, last_unit(each) + 1))))
            todo += [each.content for each in reversed(inside) if each.ref == TYPE]
        return tuple(found)

    def removal(self, item: Item, index: int) -> Users:
        """Of one unit of an item in the older state."""
        return _distinct(self.removals(item, index, index + 1))

    def formatting(self, before: Formats, after: Formats) -> Users:
        """Of formats that differ."""
        users: dict[str | None, None] = {}
        for key in sorted(before.texts.keys() | after.texts.keys()):
            was, now = before.sources.get(key), after.sources.get(key)
            if now is not None and not self._older.has(now.client, now.clock):
                users.update(dict.fromkeys(self.addition(now, 0)))
            elif was is not None:
                users.update(dict.fromkeys(self.removal(was, 0)))
            else:
                users.update(dict.fromkeys(self.nobody))
        return tuple(users)

    def additions(self, item: Item, start: int, stop: int) -> Iterator[tuple[int, int, Users]]:
        """Of units of an item in the newer state: start, end, and whose, one after the other."""
        return self._made(item, start, stop, self._older)

    def removals(self, item: Item, start: int, stop: int) -> Iterator[tuple[int, int, Users]]:
        """Of units of an item in the older state, likewise."""
        return self._made(item, start, stop, self._newer)

    def _made(self, item: Item, start: int, stop: int, other: Integrated) -> Iterator[tuple[int, int, Users]]:
        if self._authors is None:
            yield start, stop, ()
            return
        client, clock = item.client, item.clock
        known = min(max(other.ends.get(client, 0) - clock, start), stop)
        for first, last, user in self._authors.deleted(client, clock + start, clock + known):
            yield first - clock, last - clock, (user,)
        for first, last, user in self._authors.inserted(client, clock + known, clock + stop):
            yield first - clock, last - clock, (user,)


def _distinct(parts: Iterator[tuple[int, int, Users]]) -> Users:
    return tuple(dict.fromkeys(user for _, _, users in parts for user in users))


def last_unit(item: Item) -> int:
    """Index of the last unit of an item."""
    if item.ref == STRING:
        return len(as_units(item.content)) - 1
    return len(item.content) - 1 if isinstance(item.content, list) else 0
