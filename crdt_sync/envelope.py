"""What nodes say to each other about a room, as bytes.

```
message = varUint version · varUint kind · varBytes header · body
header  = varBytes source · varBytes to · varUint number · [varBytes trace · (what newer versions add)]
```

Old and new nodes run side by side during an upgrade. So a header may be longer than this version knows, and a kind that
it doesn't know is for others. A version is only for what couldn't be read at all by those before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from .errors import ProtocolError
from .lib0 import read_var_bytes, read_var_uint, write_var_bytes, write_var_uint

VERSION = 1
NODE_BYTES = 8
SOURCE_BYTES = 12
TRACE_BYTES_MAX = 200


class Kind(IntEnum):
    """What a message is about, and what `number` and the body mean in it."""

    UPDATES = 1
    """Updates that the source accepted. `number`: of the first; a source counts its updates from 1. Body: updates."""
    STORED = 2
    """The source's updates up to `number` are stored. Body: first and last seq of those stored last."""
    TAIL = 3
    """The source has published updates up to `number`."""
    AWARENESS = 4
    """States of clients of the source. Body: an awareness payload."""
    ASK = 5
    """Who has what the source lacks? `number`: 1 if this asks back, so that nobody does so again. Body: fingerprint,
    state vector."""
    ANSWER = 6
    """What `to` lacks. `number`: as of TAIL. Body: an awareness payload, updates."""
    ALIVE = 7
    """The node runs. `number`: how often it has said so. To all nodes."""
    GONE = 8
    """The node has ended. To all nodes."""
    DELETED = 9
    """A document was deleted. Body: its name. To all nodes."""
    REVOKED = 10
    """Credentials were revoked. Body: see `revocations`. To all nodes."""
    ANNOUNCE = 11
    """Somebody is back who needs to hear of everybody under a new clock: see `awareness`."""
    QUARANTINED = 12
    """An update took a process down. Body: its digest, 32 bytes, and the document's name. To all nodes."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message."""

    kind: int
    """A `Kind`, or one that this version doesn't know."""
    source: bytes
    """Node (8 bytes) and which opening of the room there (4 bytes)."""
    number: int = 0
    to: bytes = b""
    """The node that it is for; empty for everyone."""
    body: bytes = b""
    trace: str = ""
    """A W3C traceparent of what led to it; empty if that isn't traced."""

    @property
    def node(self) -> bytes:
        """The node that sent it."""
        return self.source[:NODE_BYTES]


def encode(envelope: Envelope) -> bytes:
    """Return the message's bytes."""
    header = write_var_bytes(envelope.source) + write_var_bytes(envelope.to) + write_var_uint(envelope.number)
    if envelope.trace:
        header += write_var_bytes(envelope.trace.encode("ascii"))
    return write_var_uint(VERSION) + write_var_uint(envelope.kind) + write_var_bytes(header) + envelope.body


def decode(message: bytes) -> Envelope:
    """Undo `encode`.

    Raises:
        ProtocolError: Not a message of a version that can be read.
    """
    version, pos = read_var_uint(message, 0)
    if version != VERSION:
        raise ProtocolError(f"a message of version {version} from another node, this one reads {VERSION}")
    kind, pos = read_var_uint(message, pos)
    header, pos = read_var_bytes(message, pos)
    source, at = read_var_bytes(header, 0)
    to, at = read_var_bytes(header, at)
    number, at = read_var_uint(header, at)
    if len(source) != SOURCE_BYTES:
        raise ProtocolError(f"a source has {SOURCE_BYTES} bytes, this one {len(source)}")
    return Envelope(kind, source, number, to, message[pos:], _read_trace(header, at))


def _read_trace(header: bytes, pos: int) -> str:
    """What stands there if it is a trace: nothing about it is worth losing a message."""
    try:
        trace, _ = read_var_bytes(header, pos)
        return trace.decode("ascii") if len(trace) <= TRACE_BYTES_MAX else ""
    except (ProtocolError, UnicodeDecodeError):
        return ""


def write_parts(parts: Sequence[bytes]) -> bytes:
    """Join parts of a body, each with its length."""
    return b"".join(write_var_bytes(part) for part in parts)


def read_parts(body: bytes) -> list[bytes]:
    """Undo `write_parts`.

    Raises:
        ProtocolError: It ends inside a part.
    """
    parts = []
    pos = 0
    while pos < len(body):
        part, pos = read_var_bytes(body, pos)
        parts.append(part)
    return parts
