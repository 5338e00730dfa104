"""What tests of restoring compare: what documents show, apart from roots with nothing in them."""

from typing import Any

from crdt_sync.content import read_content
from crdt_sync.document import Document, Outcome

EMPTY: tuple[dict[str, Any], ...] = ({"$": "empty"}, {"$": "map", "entries": {}})
"""What a root is shown as that is empty. Which of both depends on what once was in it."""


def document(*updates: bytes) -> Document:
    """The server's document after these updates, each of which is taken in at once."""
    made = Document()
    for update in updates:
        assert made.apply(update) is Outcome.NEW
    return made


def state(*updates: bytes) -> bytes:
    """The state of `document`."""
    return document(*updates).diff(b"\0")


def shown(update: bytes) -> dict[str, Any]:
    """What a document shows, in roots that aren't empty."""
    content = read_content(update).to_json(rich=True)
    return {name: root for name, root in content.items() if root not in EMPTY}
