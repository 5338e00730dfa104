"""Documents with a past: who edited them how long ago."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pycrdt

from persistence import Export, Row

Edit = Callable[["pycrdt.Map[Any]", pycrdt.Text], object]


class Edited:
    """A document with a map and a text, edited by people one after the other.

    Args:
        name: The document's name.
        roots: What its map and its text are called.
    """

    def __init__(self, name: str, roots: tuple[str, str] = ("m", "t")) -> None:
        self.name = name
        self.now = datetime.now(UTC)
        self.roots = roots
        self.rows: list[Row] = []
        self._doc: pycrdt.Doc[Any] = pycrdt.Doc()

    def edit(self, user: str | None, ago: timedelta, change: Edit) -> Edited:
        """Have a user change something, so long ago."""
        before = self._doc.get_state()
        with self._doc.transaction():
            m, t = self.roots
            change(self._doc.get(m, type=pycrdt.Map), self._doc.get(t, type=pycrdt.Text))
        self.rows.append(Row(len(self.rows) + 1, self._doc.get_update(before), user, self.now - ago))
        return self

    def export(self) -> Export:
        """As a store takes it."""
        return Export(self.name, self.rows[0].accepted_at, len(self.rows), None, tuple(self.rows))


def emptied_trip(name: str, roots: tuple[str, str] = ("m", "t")) -> Edited:
    """Ann and bob have planned; half an hour ago, eve emptied it."""

    def plan(m: pycrdt.Map[Any], t: pycrdt.Text) -> None:
        m.update({"city": "Rome", "days": 3})
        t.insert(0, "Pack light.")

    def empty(m: pycrdt.Map[Any], t: pycrdt.Text) -> None:
        m.clear()
        t.clear()

    trip = Edited(name, roots)
    trip.edit("ann", timedelta(hours=3), plan)
    trip.edit("bob", timedelta(hours=2), lambda m, t: t.insert(11, " Take a hat."))
    return trip.edit("eve", timedelta(minutes=30), empty)


FULL: dict[str, Any] = {"m": {"city": "Rome", "days": 3}, "t": "Pack light. Take a hat."}
"""What `emptied_trip` was after its second update."""
EMPTY: dict[str, Any] = {"m": {}, "t": None}
