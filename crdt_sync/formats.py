"""The forms in which a document is given out: an update for Yjs, JSON for programs, text for people."""

import json
from typing import Final

from .content import read_content
from .content_text import to_text

FORMATS: Final = ("update", "json", "rich", "text")
"""`rich` is JSON with types and formats; see docs/reference/content.md."""


def show(update: bytes, form: str) -> bytes:
    """Return a document in one of `FORMATS`. It is Python, and long.

    Args:
        update: One update with the whole document.
        form: Which.

    Raises:
        MalformedUpdate: Not an update, or one that builds on others.
        ContentTooCostly: Made up so that showing it takes forever, or gigabytes.
    """
    if form == "update":
        return update
    content = read_content(update)
    if form == "text":
        return to_text(content).encode()
    return json.dumps(content.to_json(rich=form == "rich"), ensure_ascii=False, allow_nan=False).encode()
