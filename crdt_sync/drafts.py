"""A draft: a copy of a document that somebody edits, and what all they did amounts to, as one update.

Has the pycrdt document noted transaction by transaction: the difference between before and after would repeat all
deletes that the document ever saw.
"""

import pycrdt

from .errors import MalformedUpdate
from .native import Doc
from .pacing import Steps
from .standins import revealing

# Merging many at once is quadratic, merging them as a tree isn't.
_MERGED_AT_ONCE = 16


class Draft:
    """Watches a copy of a document, from now until it is closed.

    Args:
        doc: Nobody else's.
    """

    def __init__(self, doc: Doc) -> None:
        self.doc = doc
        self._updates: list[bytes] = []
        self._subscription = doc.observe(self._note)

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was done so far."""
        return not self._updates

    def _note(self, event: pycrdt.TransactionEvent) -> None:
        self._updates.append(bytes(event.update))

    def close(self) -> None:
        """Watch no longer. Without this, the document would never be freed."""
        self.doc.unobserve(self._subscription)

    def amounting(self) -> Steps[bytes | None]:
        """Return what was done, in steps, as one update for real Yjs; None if it was nothing.

        Raises:
            MalformedUpdate: What was put in is nothing that Yjs could load.
        """
        updates = self._updates
        try:
            while len(updates) > 1:
                merged = []
                for first in range(0, len(updates), _MERGED_AT_ONCE):
                    merged.append(bytes(pycrdt.merge_updates(*updates[first : first + _MERGED_AT_ONCE])))
                    yield
                updates = merged
        except ValueError as error:
            raise MalformedUpdate(f"pycrdt can't merge it: {error}") from error
        # What was copied out of the document may hold stand-ins.
        return (yield from revealing(updates[0])) if updates else None
