"""Reading a trip from whatever clients wrote.

Reading never fails. What doesn't fit is left out, and told in `Trip.oddities`; what people would see is kept
wherever it can be: an item without an id is still an item.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from .content import MAPS, TEXTS, Content, Kind, Node
from .javascript import UNDEFINED, well_formed
from .trip_model import (
    ARRAY_ROOTS,
    BOOKING_STATUSES,
    ITEM_TYPES,
    MAP_ROOTS,
    ROLES,
    TARGETS,
    TEXT_ROOTS,
    Attachment,
    Comment,
    ItineraryItem,
    Metadata,
    Reply,
    Target,
    Trip,
    is_amount,
    is_currency,
    is_name,
    is_number,
    is_ordinal,
    read_moment,
)

ODDITIES_MAX = 100
"""How many oddities are told one by one."""


def read_trip(content: Content) -> Trip:
    """Read a trip from what a document contains, whatever that is."""
    return _Reader(content.roots).trip()


class _Reader:
    def __init__(self, roots: Mapping[str, Node]) -> None:
        self._roots = roots
        self._oddities: list[str] = []
        self._untold = 0

    def trip(self) -> Trip:
        trip = _Fields(self, "trip", self._map_root("trip"))
        metadata = _Fields(self, "metadata", self._map_root("metadata"))
        items = [self._item(*each) for each in self._maps("itinerary", self._array_root("itinerary"))]
        attachments = [self._attachment(*each) for each in self._maps("attachments", self._array_root("attachments"))]
        comments = [self._comment(*each) for each in self._maps("comments", self._array_root("comments"))]
        for name, each in (("itinerary", items), ("attachments", attachments), ("comments", comments)):
            self._tell_doubles(name, each)
        title, description, notes = map(self._text_root, TEXT_ROOTS)
        owner_id = trip.string("owner_id")
        about = Metadata(metadata.moment("created_at"), metadata.moment("updated_at"), metadata.ordinal("version"))
        collaborators = self._members("collaborators", lambda user, role: is_name(user) and role in ROLES)
        budget = self._members("budget", lambda currency, amount: is_currency(currency) and is_amount(amount))
        trip.tell_others()
        metadata.tell_others()
        for name, node in self._roots.items():
            if name not in (*TEXT_ROOTS, *MAP_ROOTS, *ARRAY_ROOTS) and node.kind is not Kind.EMPTY:
                self.tell(name, "no part of a trip")
        if self._untold:
            self._oddities.append(f"and {self._untold} more")
        return Trip(
            title=title,
            description=description,
            notes=notes,
            owner_id=owner_id,
            collaborators=collaborators,
            itinerary=tuple(sorted(items, key=_place)),
            budget=budget,
            attachments=tuple(attachments),
            comments=tuple(comments),
            metadata=about,
            oddities=tuple(self._oddities),
        )

    def tell(self, path: str, what: str) -> None:
        if len(self._oddities) < ODDITIES_MAX:
            self._oddities.append(well_formed(f"{path}: {what}"))
        else:
            self._untold += 1

    def _item(self, path: str, entries: Mapping[str, Any]) -> ItineraryItem:
        fields = _Fields(self, path, entries)
        item = ItineraryItem(
            id=fields.string("id"),
            day=fields.ordinal("day"),
            rank=fields.checked("rank", is_number),
            time_slot=fields.string("time_slot"),
            type=fields.one_of("type", ITEM_TYPES),
            resource_id=fields.string("resource_id"),
            title=fields.text("title"),
            notes=fields.text("notes"),
            booking_status=fields.one_of("booking_status", BOOKING_STATUSES),
            cost=fields.checked("cost", is_amount),
            currency=fields.checked("currency", is_currency),
        )
        fields.tell_others()
        return item

    def _attachment(self, path: str, entries: Mapping[str, Any]) -> Attachment:
        fields = _Fields(self, path, entries)
        attachment = Attachment(
            id=fields.string("id"),
            name=fields.string("name") or "",
            url=fields.string("url"),
            added_by=fields.string("added_by"),
            added_at=fields.moment("added_at"),
        )
        fields.tell_others()
        return attachment

    def _comment(self, path: str, entries: Mapping[str, Any]) -> Comment:
        fields = _Fields(self, path, entries)
        answers = fields.take("replies")
        replies = [] if answers is None else self._maps(f"{path}.replies", self._items(answers, f"{path}.replies"))
        comment = Comment(
            id=fields.string("id"),
            target=self._target(fields.take("target"), f"{path}.target"),
            author_id=fields.string("author_id"),
            content=fields.text("content"),
            resolved=fields.checked("resolved", lambda value: isinstance(value, bool)) or False,
            created_at=fields.moment("created_at"),
            replies=tuple(self._reply(*each) for each in replies),
        )
        fields.tell_others()
        return comment

    def _reply(self, path: str, entries: Mapping[str, Any]) -> Reply:
        fields = _Fields(self, path, entries)
        reply = Reply(
            fields.string("id"), fields.string("author_id"), fields.text("content"), fields.moment("created_at")
        )
        fields.tell_others()
        return reply

    def _target(self, value: Any, path: str) -> Target | None:
        entries = _entries(value)
        if entries is not None:
            type_, at = entries.get("type"), entries.get("path", "")
            if type_ in TARGETS and isinstance(at, str):
                return Target(type_, well_formed(at))
        if value is not None:
            self.tell(path, "not a target")
        return None

    # ---- roots and what is in them

    def _text_root(self, name: str) -> str:
        node = self._roots.get(name)
        return "" if node is None or node.kind is Kind.EMPTY else self.text(node, name)

    def _map_root(self, name: str) -> Mapping[str, Any]:
        node = self._roots.get(name)
        if node is None:
            return {}
        if node.items or node.runs:
            self.tell(name, "not a map alone")
        return node.entries

    def _array_root(self, name: str) -> list[Any]:
        node = self._roots.get(name)
        return [] if node is None or node.kind is Kind.EMPTY else self._items(node, name)

    def _items(self, value: Any, path: str) -> list[Any]:
        if isinstance(value, Node):
            if value.entries and value.kind is not Kind.EMPTY:
                self.tell(path, "not an array alone")
            if value.kind is Kind.ARRAY:
                return value.items
        elif isinstance(value, list):
            return value
        self.tell(path, "not an array")
        return []

    def _maps(self, path: str, items: Iterable[Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for index, each in enumerate(items):
            entries = _entries(each)
            if entries is None:
                self.tell(f"{path}[{index}]", "not a map")
            else:
                yield f"{path}[{index}]", entries

    def _members(self, name: str, fits: Any) -> dict[str, Any]:
        members = {}
        for key, value in self._map_root(name).items():
            if isinstance(value, str | int | float) and fits(key, value):
                members[key] = value
            else:
                self.tell(f"{name}.{key}", "left out")
        return members

    def text(self, value: Any, path: str) -> str:
        if isinstance(value, str):
            return well_formed(value)
        if isinstance(value, Node) and value.kind in TEXTS:
            return well_formed("".join(run.insert for run in value.runs if not run.is_embed))
        self.tell(path, "not a text")
        return ""

    def _tell_doubles(self, name: str, items: Iterable[Any]) -> None:
        seen = set()
        for each in items:
            if each.id in seen and each.id is not None:
                self.tell(name, f"the id {each.id!r} more than once")
            seen.add(each.id)


class _Fields:
    """The members of a map, taken one after the other."""

    def __init__(self, reader: _Reader, path: str, entries: Mapping[str, Any]) -> None:
        self._reader = reader
        self._path = path
        self._left = dict(entries)

    def take(self, key: str) -> Any:
        value = self._left.pop(key, None)
        return None if value is UNDEFINED else value

    def checked(self, key: str, fits: Any) -> Any:
        value = self.take(key)
        if value is None or fits(value):
            return value
        self._reader.tell(f"{self._path}.{key}", "left out")
        return None

    def string(self, key: str) -> str | None:
        value = self.checked(key, lambda value: isinstance(value, str))
        return None if value is None else well_formed(value)

    def one_of(self, key: str, words: tuple[str, ...]) -> Any:
        return self.checked(key, lambda value: isinstance(value, str) and value in words)

    def ordinal(self, key: str) -> int | None:
        value: int | None = self.checked(key, is_ordinal)
        return value

    def moment(self, key: str) -> datetime | None:
        return read_moment(self.checked(key, read_moment))

    def text(self, key: str) -> str:
        value = self.take(key)
        return "" if value is None else self._reader.text(value, f"{self._path}.{key}")

    def tell_others(self) -> None:
        for key in self._left:
            self._reader.tell(f"{self._path}.{key}", "no part of it")


def _entries(value: Any) -> Mapping[str, Any] | None:
    """The members of a map, or of an object that a client put in place of one."""
    if isinstance(value, Node) and value.kind in MAPS:
        return value.entries
    return value if isinstance(value, dict) else None


def _place(item: ItineraryItem) -> tuple[float, float]:
    return item.day or math.inf, math.inf if item.rank is None else item.rank
