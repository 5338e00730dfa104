"""Editing a trip from Python, strictly: whatever doesn't fit the model raises `InvalidTripEdit` and changes nothing.

Works on a `pycrdt.Doc`, whose shared types it is a home of beside `document`: what it makes are edits, as a client's, which reach
a stored document as updates like everybody's. So send what an edit added (`doc.get_update(state_before)`), never
what pycrdt makes of the whole document: that isn't always what it was given (see `document`).

Each method is one transaction, and sets `metadata.updated_at`.
"""

import math
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pycrdt

from .errors import InvalidTripEdit
from .trip_model import (
    BOOKING_STATUSES,
    ITEM_TYPES,
    ROLES,
    TARGETS,
    TEXT_ROOTS,
    VERSION,
    Target,
    is_amount,
    is_currency,
    is_name,
    is_number,
    is_ordinal,
)

TEXT_MAX = 1_000_000

_SURROGATE = re.compile("[\ud800-\udfff]")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= TEXT_MAX and _SURROGATE.search(value) is None


def _is_word(value: Any) -> bool:
    return is_name(value) and _is_text(value)


_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "day": is_ordinal,
    "time_slot": _is_word,
    "type": lambda value: isinstance(value, str) and value in ITEM_TYPES,
    "resource_id": _is_word,
    "title": _is_text,
    "notes": _is_text,
    "booking_status": lambda value: isinstance(value, str) and value in BOOKING_STATUSES,
    "cost": is_amount,
    "currency": is_currency,
}
_ITEM_TEXTS = ("title", "notes")


class TripEditor:
    """Edits one trip.

    Args:
        doc: Holds the trip, or nothing.
        now: Tells the time, with its zone.
        new_id: Makes ids.
    """

    def __init__(
        self,
        doc: "pycrdt.Doc[Any]",
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._doc = doc
        self._now = now
        self._new_id = new_id
        self._texts = {name: doc.get(name, type=pycrdt.Text) for name in TEXT_ROOTS}
        self._trip, self._collaborators, self._budget, self._metadata = (
            doc.get(name, type=pycrdt.Map) for name in ("trip", "collaborators", "budget", "metadata")
        )
        self._itinerary, self._attachments, self._comments = (
            doc.get(name, type=pycrdt.Array) for name in ("itinerary", "attachments", "comments")
        )

    # ---- the trip

    def new_trip(self, *, owner_id: str, title: str = "", description: str = "") -> None:
        """Make a trip of an empty document."""
        _check(owner_id=(owner_id, _is_word), title=(title, _is_text), description=(description, _is_text))
        if "owner_id" in self._trip or "created_at" in self._metadata:
            raise InvalidTripEdit("there is a trip already")
        with self._edit() as now:
            self._trip["owner_id"] = owner_id
            self._metadata["created_at"] = now
            self._metadata["version"] = VERSION
            self._texts["title"] += title
            self._texts["description"] += description

    def set_text(self, name: str, text: str) -> None:
        """Make `title`, `description` or `notes` read so. What stays the same at both ends isn't touched."""
        _check(name=(name, lambda value: value in TEXT_ROOTS), text=(text, _is_text))
        _check_plain(name, self._texts[name])
        with self._edit():
            self._set_text(self._texts[name], text)

    def set_collaborator(self, user_id: str, role: str | None) -> None:
        """Give a user a role, or none any more."""
        _check(user_id=(user_id, _is_word), role=(role, lambda value: value is None or value in ROLES))
        with self._edit():
            _set(self._collaborators, user_id, role)

    def set_budget(self, currency: str, amount: float | None) -> None:
        """Plan an amount, or none any more."""
        _check(currency=(currency, is_currency), amount=(amount, lambda value: value is None or is_amount(value)))
        with self._edit():
            _set(self._budget, currency, amount)

    # ---- the itinerary

    def add_item(self, *, day: int, type: str, title: str, before: str | None = None, **fields: Any) -> str:
        """Add an item to a day.

        Args:
            day: Which one, from 1.
            type: One of `ITEM_TYPES`.
            title: What it is called.
            before: The id of an item of that day; else it becomes the last one.
            **fields: Others of an item: `time_slot`, `resource_id`, `notes`, `booking_status`, `cost`, `currency`.

        Returns:
            Its id.
        """
        fields = {"day": day, "type": type, "title": title, "notes": "", "booking_status": "none", **fields}
        _check_fields(fields)
        ranks = self._ranks(day, before, None)
        item_id = self._new_id()
        texts = {key: pycrdt.Text(fields.pop(key)) for key in _ITEM_TEXTS}
        with self._edit():
            rank = self._make_room(ranks)
            self._itinerary.append(pycrdt.Map({"id": item_id, "rank": rank, **fields, **texts}))
        return item_id

    def change_item(self, item_id: str, **fields: Any) -> None:
        """Set fields of an item; None takes one away. For its day, see `move_item`."""
        item = self._item(item_id)
        _check_fields({key: value for key, value in fields.items() if value is not None or key in _ITEM_TEXTS})
        if "day" in fields or fields.keys() - _FIELDS.keys():
            raise InvalidTripEdit(f"an item has none of these to set: {', '.join(sorted(fields))}")
        texts = {key: item[key] for key in _ITEM_TEXTS if key in fields and isinstance(item.get(key), pycrdt.Text)}
        for key, shared in texts.items():
            _check_plain(key, shared)
        with self._edit():
            for key, value in fields.items():
                if key in texts:
                    self._set_text(texts[key], value)
                else:
                    _set(item, key, pycrdt.Text(value) if key in _ITEM_TEXTS else value)

    def move_item(self, item_id: str, *, day: int, before: str | None = None) -> None:
        """Move an item before another one of a day, or to the end of it.

        What others write into it meanwhile stays: its place is a day and a rank, so nothing is taken out and put in again.
        """
        item = self._item(item_id)
        _check(day=(day, is_ordinal))
        ranks = self._ranks(day, before, item_id)
        with self._edit():
            item["rank"] = self._make_room(ranks)
            item["day"] = day

    def remove_item(self, item_id: str) -> None:
        """Remove an item."""
        self._item(item_id)
        with self._edit():
            _remove(self._itinerary, item_id)

    # ---- attachments and comments

    def add_attachment(self, *, name: str, url: str, added_by: str) -> str:
        """Name a file that is kept elsewhere, by `http:` or `https:`. Returns its id."""
        _check(
            name=(name, _is_word),
            url=(url, lambda value: _is_text(value) and re.fullmatch(r"https?://\S+", value) is not None),
            added_by=(added_by, _is_word),
        )
        attachment_id = self._new_id()
        with self._edit() as now:
            fields = {"id": attachment_id, "name": name, "url": url, "added_by": added_by, "added_at": now}
            self._attachments.append(pycrdt.Map(fields))
        return attachment_id

    def remove_attachment(self, attachment_id: str) -> None:
        """Name a file no longer."""
        _find(self._attachments, attachment_id, "attachment")
        with self._edit():
            _remove(self._attachments, attachment_id)

    def add_comment(self, *, author_id: str, content: str, target: Target | None = None) -> str:
        """Comment on the trip, or on a part of it. Returns the comment's id."""
        target = target or Target("trip", "")
        _check(
            author_id=(author_id, _is_word),
            content=(content, lambda value: _is_text(value) and bool(value.strip())),
            target=(target, lambda value: value.type in TARGETS and _is_text(value.path)),
        )
        comment_id = self._new_id()
        with self._edit() as now:
            fields = {"id": comment_id, "author_id": author_id, "created_at": now, "resolved": False}
            about = {"type": target.type, "path": target.path}
            shared = {"content": pycrdt.Text(content), "replies": pycrdt.Array()}
            self._comments.append(pycrdt.Map({**fields, "target": about, **shared}))
        return comment_id

    def reply(self, comment_id: str, *, author_id: str, content: str) -> str:
        """Answer a comment. Returns the answer's id."""
        comment = _find(self._comments, comment_id, "comment")
        _check(
            author_id=(author_id, _is_word), content=(content, lambda value: _is_text(value) and bool(value.strip()))
        )
        reply_id = self._new_id()
        with self._edit() as now:
            if not isinstance(comment.get("replies"), pycrdt.Array):
                comment["replies"] = pycrdt.Array()
            fields = {"id": reply_id, "author_id": author_id, "created_at": now, "content": pycrdt.Text(content)}
            comment["replies"].append(pycrdt.Map(fields))
        return reply_id

    def resolve(self, comment_id: str, *, resolved: bool = True) -> None:
        """Say that a comment is dealt with, or that it isn't."""
        comment = _find(self._comments, comment_id, "comment")
        _check(resolved=(resolved, lambda value: isinstance(value, bool)))
        with self._edit():
            comment["resolved"] = resolved

    # ---- how it is done

    @contextmanager
    def _edit(self) -> Iterator[str]:
        now = self._now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with self._doc.transaction():
            yield now
            self._metadata["updated_at"] = now

    def _item(self, item_id: str) -> "pycrdt.Map[Any]":
        return _find(self._itinerary, item_id, "item")

    def _ranks(self, day: int, before: str | None, moved: str | None) -> "tuple[list[pycrdt.Map[Any]], int]":
        """The items of a day in their order, without the one that is moved, and the index at which there shall be room."""
        items = [each for each in self._itinerary if isinstance(each, pycrdt.Map)]
        others = [each for each in items if each.get("day") == day and (moved is None or each.get("id") != moved)]
        others.sort(key=_rank)
        if before is None:
            return others, len(others)
        for index, each in enumerate(others):
            if each.get("id") == before:
                return others, index
        raise InvalidTripEdit(f"no other item {before!r} on day {day}")

    def _make_room(self, ranks: "tuple[list[pycrdt.Map[Any]], int]") -> float:
        """The rank of an item between its neighbours. Where there is none, the day is numbered anew."""
        items, index = ranks
        if not items:
            return 0.0
        left = _rank(items[index - 1]) if index > 0 else _rank(items[0]) - 2
        right = _rank(items[index]) if index < len(items) else left + 2
        rank = left + (right - left) / 2
        if left < rank < right < math.inf:
            return rank
        for number, item in enumerate([*items[:index], None, *items[index:]]):
            if item is not None:
                item["rank"] = float(number)
        return float(index)

    def _set_text(self, shared: pycrdt.Text, text: str) -> None:
        old = str(shared)
        start = _equal(old, text)
        kept = min(len(old), len(text)) - start
        end = _equal(old[::-1][:kept], text[::-1][:kept])
        # pycrdt counts bytes.
        at = len(old[:start].encode())
        del shared[at : at + len(old[start : len(old) - end].encode())]
        if new := text[start : len(text) - end]:
            shared.insert(at, new)


def _equal(one: str, other: str) -> int:
    """How many characters two strings have in common at the beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _check_plain(name: str, shared: pycrdt.Text) -> None:
    if len(str(shared).encode()) != len(shared):
        raise InvalidTripEdit(f"{name} holds more than characters: edit it in place")


def _rank(item: "pycrdt.Map[Any]") -> float:
    rank: Any = item.get("rank")
    return float(rank) if is_number(rank) else math.inf


def _check(**values: tuple[Any, Callable[[Any], bool]]) -> None:
    for name, (value, fits) in values.items():
        if not fits(value):
            raise InvalidTripEdit(f"{name} can't be {value!r:.100}")


def _check_fields(fields: Mapping[str, Any]) -> None:
    for key, value in fields.items():
        if key not in _FIELDS:
            raise InvalidTripEdit(f"an item has no {key!r:.100}")
        _check(**{key: (value, _FIELDS[key])})


def _set(shared: "pycrdt.Map[Any]", key: str, value: Any) -> None:
    if value is not None:
        shared[key] = value
    elif key in shared:
        del shared[key]


def _find(array: "pycrdt.Array[Any]", wanted: str, what: str) -> "pycrdt.Map[Any]":
    for each in array:
        if isinstance(each, pycrdt.Map) and each.get("id") == wanted:
            return each
    raise InvalidTripEdit(f"no {what} {wanted!r:.100}")


def _remove(array: "pycrdt.Array[Any]", item_id: str) -> None:
    for index in reversed(range(len(array))):
        if isinstance(array[index], pycrdt.Map) and array[index].get("id") == item_id:
            del array[index]
