"""The y-websocket protocol: a frame to messages, a message to a frame.

Pure and total: any bytes are messages or a `ProtocolError`. Whether an update or an awareness state inside a
message is well-formed is for `update` and `awareness` to say.

Source: y-protocols PROTOCOL.md, `sync.js`, `awareness.js`; y-websocket `y-websocket.js`.
"""

from dataclasses import dataclass, field

from .errors import ProtocolError
from .lib0 import read_var_bytes, read_var_uint, write_var_bytes, write_var_uint

SYNC = 0
AWARENESS = 1
AUTH = 2
QUERY_AWARENESS = 3
CONFIRM = 102

SYNC_STEP_1 = 0
SYNC_STEP_2 = 1
SYNC_UPDATE = 2

AUTH_DENIED = 0
AUTH_TOKEN = 1
AUTH_EXPIRES = 2

CONFIRM_TOKEN_BYTES_MAX = 64
# What HTTP servers and proxies let through in a header.
CREDENTIAL_BYTES_MAX = 8 << 10

KINDS = ("sync_step_1", "sync_step_2", "update", "awareness", "query_awareness", "confirm", "auth", "other")
"""What frames are told apart by where they are counted; see `kind_of`."""

UPDATE_KIND = KINDS.index("update")
AWARENESS_KIND = KINDS.index("awareness")
_OTHER = KINDS.index("other")
_KIND_OF_SYNC = (KINDS.index("sync_step_1"), KINDS.index("sync_step_2"), UPDATE_KIND)
_KIND_OF_TYPE = {
    AWARENESS: AWARENESS_KIND,
    AUTH: KINDS.index("auth"),
    QUERY_AWARENESS: KINDS.index("query_awareness"),
    CONFIRM: KINDS.index("confirm"),
}

# Stock clients put one message into a frame. Without a bound, a frame of 16 MiB could hold as many messages.
FRAME_MESSAGES_MAX = 1000


@dataclass(frozen=True, slots=True)
class SyncStep1:
    """What the sender has, asking for the rest."""

    state_vector: bytes


@dataclass(frozen=True, slots=True)
class SyncUpdate:
    """Changes, as an answer to step 1 (step 2) or as they happen (update). Both are merged alike."""

    update: bytes


@dataclass(frozen=True, slots=True)
class AwarenessUpdate:
    """States of clients, encoded; see `awareness.read_states`."""

    states: bytes


@dataclass(frozen=True, slots=True)
class QueryAwareness:
    """Asks for the states of everyone who is here."""


@dataclass(frozen=True, slots=True)
class Confirm:
    """Asks for the token back once everything sent before it is stored."""

    token: bytes


@dataclass(frozen=True, slots=True)
class FreshToken:
    """A credential for the rest of this connection."""

    token: str = field(repr=False)


Message = SyncStep1 | SyncUpdate | AwarenessUpdate | QueryAwareness | Confirm | FreshToken


def decode(frame: bytes) -> list[Message]:
    """Read the messages of one WebSocket frame.

    A frame may hold several. What follows the last one that can be read is ignored, as every JavaScript peer does;
    so is a message of an unknown type, whose end can't be found.

    Raises:
        ProtocolError: The frame doesn't begin with a message, or holds more than `FRAME_MESSAGES_MAX`.
    """
    messages: list[Message] = []
    pos = 0
    while pos < len(frame):
        try:
            message, pos = _read_message(frame, pos)
        except ProtocolError:
            if not messages:
                raise
            break
        if message is None:
            break
        messages.append(message)
        if len(messages) > FRAME_MESSAGES_MAX:
            raise ProtocolError(f"more than {FRAME_MESSAGES_MAX} messages in one frame")
    return messages


def read_sole_update(frame: bytes) -> bytes | None:
    """The update of a frame that is nothing but one small one, as nearly all are; None if `decode` has to look at it."""
    if (
        len(frame) > 3
        and frame[2] == len(frame) - 3 < 128
        and frame[0] == SYNC
        and frame[1] in (SYNC_STEP_2, SYNC_UPDATE)
    ):
        return frame[3:]
    return None


def kind_of(frame: bytes) -> int:
    """Which of `KINDS` a frame is, by the first message in it. For any bytes, and cheap."""
    try:
        return _KIND_OF_SYNC[frame[1]] if frame[0] == SYNC else _KIND_OF_TYPE[frame[0]]
    except LookupError:
        return _OTHER


def is_sync(frame: bytes) -> bool:
    """Whether a frame begins with a message about the document's content."""
    return frame[:1] == b"\x00"


def encode_step_1(state_vector: bytes) -> bytes:
    """The server's "this is what I have"."""
    return b"\x00\x00" + write_var_bytes(state_vector)


def encode_step_2(update: bytes) -> bytes:
    """The answer to a client's step 1."""
    return b"\x00\x01" + write_var_bytes(update)


def encode_update(update: bytes) -> bytes:
    """A change as it happens."""
    return b"\x00\x02" + write_var_bytes(update)


def encode_awareness(states: bytes) -> bytes:
    """States of clients; see `awareness.write_states`."""
    return b"\x01" + write_var_bytes(states)


def encode_confirm(token: bytes) -> bytes:
    """The answer to `Confirm`: everything before the token is stored."""
    return write_var_uint(CONFIRM) + write_var_bytes(token)


def encode_denied(reason: str) -> bytes:
    """What a client showed is not taken. Stock clients warn about it."""
    return b"\x02\x00" + write_var_bytes(reason.encode())


def encode_token(token: str) -> bytes:
    """A client's fresh credential, for the rest of its connection."""
    return b"\x02\x01" + write_var_bytes(token.encode())


def encode_expires(seconds: int) -> bytes:
    """The client's credential is good for so much longer. Stock clients ignore it."""
    return b"\x02\x02" + write_var_uint(seconds)


def _read_message(frame: bytes, pos: int) -> tuple[Message | None, int]:
    """Read one message; None stands for one that isn't for us and can't be skipped."""
    kind, pos = read_var_uint(frame, pos)
    if kind == SYNC:
        step, pos = read_var_uint(frame, pos)
        payload, pos = read_var_bytes(frame, pos)
        if step == SYNC_STEP_1:
            return SyncStep1(payload), pos
        if step in (SYNC_STEP_2, SYNC_UPDATE):
            return SyncUpdate(payload), pos
        raise ProtocolError(f"unknown sync message {step}")
    if kind == AWARENESS:
        payload, pos = read_var_bytes(frame, pos)
        return AwarenessUpdate(payload), pos
    if kind == QUERY_AWARENESS:
        return QueryAwareness(), pos
    if kind == AUTH:
        step, pos = read_var_uint(frame, pos)
        return _read_token(frame, pos) if step == AUTH_TOKEN else (None, pos)
    if kind == CONFIRM:
        token, pos = read_var_bytes(frame, pos)
        if len(token) > CONFIRM_TOKEN_BYTES_MAX:
            raise ProtocolError(f"confirm token of {len(token)} bytes, at most {CONFIRM_TOKEN_BYTES_MAX}")
        return Confirm(token), pos
    return None, pos


def _read_token(frame: bytes, pos: int) -> tuple[FreshToken, int]:
    token, pos = read_var_bytes(frame, pos)
    if len(token) > CREDENTIAL_BYTES_MAX:
        raise ProtocolError(f"token of {len(token)} bytes, at most {CREDENTIAL_BYTES_MAX}")
    try:
        return FreshToken(token.decode()), pos
    except UnicodeDecodeError as error:
        raise ProtocolError("token is not UTF-8") from error
