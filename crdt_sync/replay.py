"""A document put together again from stored updates, without those that break it.

For whatever reads stored documents outside of a room. Rooms do the same with their own memory of what is harmful.
"""

import itertools
import sys
from collections.abc import Collection, Sequence

from persistence import Snapshot

from .document import Document, digest
from .errors import DocumentBroken
from .pacing import Steps

# As many updates may break a document when it is put together, and are left out then, as in a room.
HARMFUL_MAX = 64


def replaying(snapshot: Snapshot | None, updates: Sequence[bytes], harmful: Collection[bytes] = ()) -> Steps[Document]:
    """Put a document together, in steps of some milliseconds.

    Args:
        snapshot: What it begins with.
        updates: What follows, in seq order.
        harmful: Digests of updates to leave out.

    Raises:
        DocumentBroken: It can't be loaded.
        ProtocolError: There is something among the updates that was never accepted.
    """
    before = [snapshot.state, *snapshot.waiting] if snapshot is not None else []
    left_out = set(harmful)
    for attempt in itertools.count(1):
        document = Document(waiting_bytes_max=sys.maxsize, harmful=left_out)
        try:
            for update in (*before, *updates):
                if document.is_light(update):
                    document.restore(update)
                    yield
                else:
                    yield from document.restoring(update)
            yield from document.folding()
        except DocumentBroken as error:
            if error.culprit is None or attempt > HARMFUL_MAX:
                raise
            left_out.add(digest(error.culprit))
        else:
            return document
    raise AssertionError("counted to infinity")
