"""Every error of the sync server, with what the other side needs to hear about it.

`close_code` is sent when a WebSocket is closed because of the error, `status` when an HTTP request or an
upgrade is refused because of it, `retry_after_s` when trying again may help. The text of an error is for the
log; `reason` is the short sentence for the wire.
"""

from typing import ClassVar


class NotRunning(RuntimeError):
    """The application's lifespan isn't under way, or not in this event loop, so there are no rooms. The text says what to do."""


class SyncError(Exception):
    """Base of all errors that a client can be told about."""

    status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011
    retry_after_s: ClassVar[int | None] = None
    reason: ClassVar[str] = "internal error"


class ProtocolError(SyncError):
    """The bytes are not what the protocol allows. The client has a bug; trying again won't help."""

    status = 400
    close_code = 4400
    reason = "malformed message"


class MalformedUpdate(ProtocolError):
    """Not a Yjs update (v1) that every Yjs client could load."""

    reason = "malformed update"


class MisplacedUpdate(MalformedUpdate):
    """Well-formed, but it doesn't fit to what the document holds: see `tree`."""


class InvalidRoomName(SyncError):
    """The path names no room. Refused at the upgrade, since it can never become valid."""

    status = 400
    close_code = 4400
    reason = "invalid room name"


class MessageTooBig(SyncError):
    """A message, or a client's awareness state, is over its limit. Trying again won't help."""

    status = 413
    close_code = 1009
    reason = "message too big"


class UpdateTooHeavy(MessageTooBig):
    """An update that can't be taken in without holding up other rooms. Trying again won't help."""

    reason = "update too heavy"


class TryAgainLater(SyncError):
    """Something is full, slow or away at the moment. Transient: try again with backoff."""

    status = 503
    close_code = 1013
    retry_after_s = 5
    reason = "try again later"


class RoomUnavailable(TryAgainLater):
    """The room can't be loaded. It is refused rather than shown empty."""

    reason = "room unavailable"


class RoomFull(TryAgainLater):
    """The room can hold no more of this: updates that wait for others, or awareness."""

    reason = "room full"


class StoreBehind(TryAgainLater):
    """Too many bytes wait to be stored on this node."""

    reason = "store behind"


class NotYetStored(StoreBehind):
    """It was accepted, and others have seen it; but the store takes too long to keep it. It is tried again: don't do it anew."""


class SlowReader(TryAgainLater):
    """The client doesn't read what it is sent."""

    reason = "too slow a reader"


class TooManyConnections(TryAgainLater):
    """The node, the room, the user or the address has as many clients as it may have."""

    reason = "too many connections"


class Overloaded(TryAgainLater):
    """The node has more to do than it can, and takes on nothing new."""

    retry_after_s = 10
    reason = "server busy"


class Flooding(SyncError):
    """The client sends faster than it may, and went on when it was slowed. It must change first."""

    status = 429
    close_code = 4429
    retry_after_s = 30
    reason = "too many messages"


class Idle(SyncError):
    """For long, nothing has been said in either direction. Whoever comes back to the page connects anew."""

    status = 408
    close_code = 4408
    reason = "idle"


class DocumentFull(SyncError):
    """The document is as large as it may be. Only deletes are taken.

    Not transient: the client would come back with the same content for ever. It has to be deleted from first, by
    somebody whose copy doesn't hold what was refused.
    """

    status = 413
    close_code = 4413
    reason = "document full"


class Draining(SyncError):
    """The node is going away; another one, or its successor, takes over."""

    status = 503
    close_code = 1012
    retry_after_s = 1
    reason = "server restarting"


class Unauthorized(SyncError):
    """There is no credential that is any good, or no longer. A fresh one helps."""

    status = 401
    close_code = 4401
    reason = "no valid credential"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason  # type: ignore[misc]


class Forbidden(SyncError):
    """Whoever it is may not do this here."""

    status = 403
    close_code = 4403
    reason = "not allowed"


class ReadOnly(Forbidden):
    """An update came from a client that may only read."""

    reason = "read only"


class OriginNotAllowed(Forbidden):
    """A browser comes from a page of a site that isn't allowed to connect."""

    reason = "origin not allowed"


class DocumentGone(SyncError):
    """The document was deleted. Its name stays taken until an admin allows it again."""

    status = 404
    close_code = 4404
    reason = "document deleted"


class DocumentBroken(SyncError):
    """The cached document can no longer be trusted; the stored one can. The room is closed and loaded again."""

    close_code = 1011
    reason = "room reloading"

    def __init__(self, message: str, *, culprit: bytes | None = None) -> None:
        super().__init__(message)
        self.culprit = culprit
        """The update on which it failed, if that is known."""


class UpdateBreaksDocument(DocumentBroken):
    """This very update made the cached document fail. It was neither stored nor relayed."""

    close_code = 4400
    reason = "malformed update"


class ContentTooCostly(SyncError):
    """Clients can load the document, but to show it here takes more than anybody could want it to."""

    status = 422
    reason = "document too tangled to show"


class InvalidTripEdit(SyncError):
    """What should be written doesn't fit the trip document, or there is no such item. Nothing was changed."""

    status = 422
    reason = "invalid trip edit"
