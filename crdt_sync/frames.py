"""WebSocket frames (RFC 6455): bytes of a client to messages, and messages to bytes for a client.

Pure. Owns what a frame may look like; leaves what is done about one that may not be, and when, to `transport`. No
extension is understood, so no reserved bit may be set.

Most frames are a small masked binary message that arrives whole, so that is what the reader looks for first.
"""

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

CONTINUATION = 0
TEXT = 1
BINARY = 2
CLOSE = 8
PING = 9
PONG = 10

NORMAL = 1000
NO_CODE = 1005
ABNORMAL = 1006
PROTOCOL_ERROR = 1002
INVALID_DATA = 1007
TOO_BIG = 1009

CONTROL_BYTES_MAX = 125
# Codes that may stand in a close frame (RFC 6455, 7.4, and what IANA has registered since); others are for no wire.
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})
_KINDS = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})

Message = tuple[int, bytes]
"""`TEXT`, `BINARY`, `CLOSE`, `PING` or `PONG`, and what it says."""


class InvalidFrame(Exception):
    """What a client sent is no frame, or not one that may come now; `code` says so in a close frame."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class Reader:
    """Makes messages of what one client sends.

    Args:
        message_bytes_max: Bound on one message, whatever number of frames it comes in.
    """

    __slots__ = ("_bytes_max", "_fragment_bytes", "_kind", "_left", "_needed", "error", "fragments", "frames")

    def __init__(self, message_bytes_max: int) -> None:
        self.frames = 0
        """How many frames have come, of any kind."""
        self.fragments: list[bytes] = []
        """What has come of a message that isn't complete."""
        self.error: InvalidFrame | None = None
        """What was wrong with the last frame, after which nothing is read."""
        self._bytes_max = message_bytes_max
        self._fragment_bytes = 0
        self._kind = CONTINUATION
        # What has come of a frame that isn't complete, and how much of it has to be there before looking again is of use.
        self._left: bytearray | None = None
        self._needed = 0

    @property
    def held(self) -> int:
        """Bytes that are kept of a message, or a frame, that isn't complete."""
        return self._fragment_bytes + (len(self._left) if self._left is not None else 0)

    def forget(self) -> None:
        """Keep nothing: no more will be read."""
        self.fragments = []
        self._fragment_bytes = 0
        self._left = None

    def read(self, data: bytes) -> list[Message]:
        """Take in what has come; returns the messages that it completes. After a frame with an `error` there are none."""
        if self.error is not None:
            return []
        if self._left is not None:
            self._left += data
            if len(self._left) < self._needed:
                return []
            data, self._left = bytes(self._left), None
        elif len(data) >= 6 and data[0] == 0x82 and not self.fragments:
            # Nearly always: one small message, whole.
            size = data[1] - 0x80
            if len(data) == 6 + size and size < 126 and size <= self._bytes_max:
                self.frames += 1
                return [(BINARY, apply_mask(data[6:], data[2:6]))]
        messages: list[Message] = []
        pos = 0
        try:
            while pos < len(data):
                stop = self._read_frame(data, pos, messages)
                if stop > len(data):
                    self._left, self._needed = bytearray(data[pos:]), stop - pos
                    break
                pos = stop
        except InvalidFrame as error:
            # Another: to this one hangs a traceback, which leads back here, and would keep all of it alive.
            self.error = InvalidFrame(error.code, str(error))
        return messages

    def _read_frame(self, data: bytes, pos: int, messages: list[Message]) -> int:
        """Read the frame that begins at `pos`; returns where it ends, or up to where more is needed to say anything of it."""
        start = pos + 6
        if start > len(data):
            # A head that is wrong is told so when it has come.
            if len(data) - pos >= 2:
                self._check_head(data[pos], data[pos + 1])
                length = data[pos + 1] & 0x7F
                return start + (length if length < 126 else 2 if length == 126 else 8)
            return pos + 2
        first, second = data[pos], data[pos + 1]
        size = second - 0x80
        if first != 0x82 or not 0 <= size < 126 or self.fragments:
            self._check_head(first, second)
            if size >= 126:
                start += 2 if size == 126 else 8
                if start > len(data):
                    return start
                size = int.from_bytes(data[pos + 2 : start - 4])
        if size + self._fragment_bytes > self._bytes_max and not first & 8:
            raise InvalidFrame(TOO_BIG, f"message of at least {size + self._fragment_bytes} bytes")
        stop = start + size
        if stop > len(data):
            return stop
        self.frames += 1
        payload = apply_mask(data[start:stop], data[start - 4 : start])
        if first == 0x82:
            messages.append((BINARY, payload))
        else:
            self._take(first, payload, messages)
        return stop

    def _check_head(self, first: int, second: int) -> None:
        kind = first & 0x0F
        if first & 0x70:
            raise InvalidFrame(PROTOCOL_ERROR, "reserved bits are set")
        if kind not in _KINDS:
            raise InvalidFrame(PROTOCOL_ERROR, f"unknown kind of frame {kind}")
        if not second & 0x80:
            raise InvalidFrame(PROTOCOL_ERROR, "a client's frame has no mask")
        if kind & 8:
            if not first & 0x80:
                raise InvalidFrame(PROTOCOL_ERROR, "a control frame in pieces")
            if second & 0x7F > CONTROL_BYTES_MAX:
                raise InvalidFrame(PROTOCOL_ERROR, f"a control frame of more than {CONTROL_BYTES_MAX} bytes")
        elif (kind == CONTINUATION) != bool(self.fragments):
            raise InvalidFrame(PROTOCOL_ERROR, "a continuation of nothing, or a message within another")

    def _take(self, first: int, payload: bytes, messages: list[Message]) -> None:
        kind = first & 0x0F
        if kind & 8:
            messages.append((kind, payload))
            return
        if kind != CONTINUATION:
            self._kind = kind
        if not first & 0x80:
            self.fragments.append(payload)
            self._fragment_bytes += len(payload)
            return
        if self.fragments:
            payload = b"".join([*self.fragments, payload])
            self.fragments = []
            self._fragment_bytes = 0
        if self._kind == TEXT:
            _require_utf8(payload)
        messages.append((self._kind, payload))


def read_close(payload: bytes) -> int:
    """What a client says on going: a code, or `NO_CODE`.

    Raises:
        InvalidFrame: Nothing that may stand there.
    """
    if not payload:
        return NO_CODE
    code = int.from_bytes(payload[:2])
    if len(payload) < 2 or code not in _CLOSE_CODES:
        raise InvalidFrame(PROTOCOL_ERROR, "a close frame without a code that may stand there")
    _require_utf8(payload[2:])
    return code


def write_binary(message: bytes) -> bytes:
    """A binary message in one frame."""
    return _head(0x80 | BINARY, len(message)) + message


def write_close(code: int, reason: str) -> bytes:
    """A close frame. Of a reason that is too long, the beginning; `NO_CODE` stands for none."""
    if code == NO_CODE:
        return _head(0x80 | CLOSE, 0)
    said = code.to_bytes(2) + reason.encode()[: CONTROL_BYTES_MAX - 2].decode(errors="ignore").encode()
    return _head(0x80 | CLOSE, len(said)) + said


def write_control(kind: int, payload: bytes) -> bytes:
    """A `PING` or a `PONG`."""
    return _head(0x80 | kind, len(payload)) + payload


def _head(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    return bytes((first, 126)) + size.to_bytes(2) if size < 1 << 16 else bytes((first, 127)) + size.to_bytes(8)


def _require_utf8(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise InvalidFrame(INVALID_DATA, "a text that isn't UTF-8") from error
