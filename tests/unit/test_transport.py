"""One WebSocket on a socket that isn't one: what is sent is what the test says, and time is virtual."""

import asyncio
import base64
import gc
import weakref
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from crdt_sync.connection import Relayed, TransportClosed, on_the_wire
from crdt_sync.errors import MessageTooBig, Overloaded
from crdt_sync.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from crdt_sync.gateway.sync import TRANSPORT_EXTENSION
from crdt_sync.limits import FRAGMENTS_MAX, Limits
from crdt_sync.transport import GONE_S, LINGER_S, READ_BYTES, WebSocketProtocol, _view
from tests.support.fakes import in_virtual_time, quick_settings, turns
from tests.support.raw import frame

KEY = (b"sec-websocket-key", base64.b64encode(bytes(16)))
HEADERS = [(b"host", b"x"), KEY, (b"sec-websocket-version", b"13")]
PING_INTERVAL_S, PING_TIMEOUT_S = 25.0, 35.0


class Socket(asyncio.Transport):
    """Stands for asyncio's: keeps what is written, and hands on what is sent, a piece at a time."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.9", 4711), "sockname": ("127.0.0.1", 80)})
        self.written = b""
        self.paused = False
        self.aborted = False
        self.buffered = 0
        self._protocol: Any = None
        self._closing = False
        self._unread = b""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        # As asyncio's does under TLS, also when the connection is lost.
        self._kept = protocol.get_buffer if isinstance(protocol, asyncio.BufferedProtocol) else None

    def send(self, data: bytes) -> None:
        """The client sends this; what isn't read, since reading is paused, waits."""
        self._unread += data
        while self._unread and not self.paused and not self._closing:
            piece, self._unread = self._unread[:READ_BYTES], self._unread[READ_BYTES:]
            self._protocol.get_buffer(-1)[: len(piece)] = piece
            self._protocol.buffer_updated(len(piece))

    def end(self) -> None:
        """The client closes its socket, or its half of it."""
        if not self._protocol.eof_received() and not self._closing:
            self.close()

    def break_(self) -> None:
        """Writing has failed, of which the protocol hears in the next turn."""
        self._closing = True
        asyncio.get_running_loop().call_soon(self.lose, BrokenPipeError())

    def lose(self, error: Exception | None = None) -> None:
        """The connection breaks."""
        self._closing = True
        if self._protocol is not None:
            protocol, self._protocol = self._protocol, None
            protocol.connection_lost(error)

    def block(self) -> None:
        """The client doesn't read."""
        self.buffered = 1 << 20
        self._protocol.pause_writing()

    def unblock(self) -> None:
        self.buffered = 0
        self._protocol.resume_writing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._closing, "written after close"
        self.written += data

    def close(self) -> None:
        # Under TLS, that makes it useless.
        assert not self._closing, "closed twice"
        self._closing = True
        if not self.buffered:
            asyncio.get_running_loop().call_soon(self.lose)

    def abort(self) -> None:
        self.aborted = True
        self._closing = True
        asyncio.get_running_loop().call_soon(self.lose)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused, "it isn't"
        self.paused = False
        asyncio.get_running_loop().call_soon(self.send, b"")

    def get_write_buffer_size(self) -> int:
        return self.buffered

    @property
    def lost(self) -> bool:
        return self._protocol is None


class Guest:
    """A visitor that keeps what it hears. `wait` makes the messages that begin with `slow` take until it is set."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.codes: list[int] = []
        self.wait = asyncio.Event()
        self.finished = 0

    def receive(self, message: bytes) -> Awaitable[None] | None:
        assert not self.codes, "it is gone"
        self.heard.append(message)
        return self._take_time(message) if message.startswith(b"slow") else None

    def gone(self, code: int) -> None:
        assert self.finished == sum(one.startswith(b"slow") for one in self.heard), "in the middle of something"
        self.codes.append(code)

    async def _take_time(self, message: bytes) -> None:
        await self.wait.wait()
        self.finished += 1
        if message == b"slow and broken":
            raise RuntimeError("a bug")


class Line:
    """A WebSocket, its socket, and whom it is for.

    Args:
        app: Answers the upgrade; by default, it lets everybody in.
        settings: Of the limits.
    """

    def __init__(self, app: Callable[..., Awaitable[None]] | None = None, **settings: Any) -> None:
        self.guest = Guest()
        self.socket = Socket()
        self.limits = Limits(quick_settings(**settings))
        self.state = ServerState()
        self.scope: dict[str, Any] = {}
        self._app = app
        self.protocol = self.another()

    def another(self) -> WebSocketProtocol:
        config = SimpleNamespace(
            loaded_app=self.answer,
            ws_max_size=self.limits.settings.message_bytes_max,
            ws_ping_interval=PING_INTERVAL_S,
            ws_ping_timeout=PING_TIMEOUT_S,
            root_path="",
            asgi_version="3.0",
        )
        return WebSocketProtocol(cast(Any, config), self.state, {}, limits=self.limits)

    def upgrade(
        self,
        *,
        method: bytes = b"GET",
        target: bytes = b"/room?x=1",
        headers: Sequence[tuple[bytes, bytes]] = HEADERS,
        early: bytes = b"",
    ) -> None:
        self.protocol.upgrade(self.socket, method, target, headers, early)

    async def opened(self, *, early: bytes = b"") -> "Line":
        self.upgrade(early=early)
        await turns()
        assert self.answered.startswith(b"HTTP/1.1 101 "), self.socket.written
        return self

    async def answer(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scope = scope
        assert await receive() == {"type": "websocket.connect"}
        if self._app is not None:
            await self._app(scope, receive, send)
        else:
            await let_in(scope, send, self.guest)

    @property
    def answered(self) -> bytes:
        """The answer to the upgrade."""
        return self.socket.written.partition(b"\r\n\r\n")[0]

    @property
    def said(self) -> list[tuple[int, bytes]]:
        """The frames that came after it."""
        return frames_in(self.socket.written.partition(b"\r\n\r\n")[2])


def received(data: bytes) -> bytes:
    """Puts it where the next connection reads it."""
    _view[: len(data)] = data
    return data


async def let_in(scope: dict[str, Any], send: Any, guest: Guest) -> None:
    await send({"type": "websocket.accept", "subprotocol": None})
    scope["extensions"][TRANSPORT_EXTENSION].serve(guest)


def frames_in(wire: bytes) -> list[tuple[int, bytes]]:
    """As a client reads them, with websockets' own parser."""
    reader = StreamReader()
    reader.feed_data(wire)
    found = []
    while reader.buffer:
        try:
            next(Frame.parse(reader.read_exact, mask=False))
        except StopIteration as done:
            found.append((int(done.value.opcode), bytes(done.value.data)))
        else:
            raise AssertionError("the last frame has no end")
    return found


def closed(code: int, reason: str = "") -> tuple[int, bytes]:
    return CLOSE, code.to_bytes(2) + reason.encode()


# ------------------------------------------------------------------------------------------------------- what is sent


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
@pytest.mark.parametrize("kind", [bytes, Relayed])
def test_a_frame_of_any_size_is_what_a_client_reads(size: int, kind: type[bytes]) -> None:
    frame = kind(b"x" * size)

    assert frames_in(on_the_wire(frame)) == [(Opcode.BINARY, frame)]


def test_what_goes_to_many_is_made_once() -> None:
    frame = Relayed(b"x" * 1000)

    assert on_the_wire(frame) is on_the_wire(frame)


# ------------------------------------------------------------------------------------------------------- the upgrade


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"method": b"POST"}, 405),
        ({"target": b"/" + b"x" * 8190}, 414),
        ({"headers": [*HEADERS, *[(b"a", b"b")] * 128]}, 431),
        ({"headers": [*HEADERS, (b"a", b"b" * 8190)]}, 431),
        ({"headers": [KEY]}, 426),
        ({"headers": [KEY, (b"sec-websocket-version", b"8")]}, 426),
        ({"headers": HEADERS[2:]}, 400),
        ({"headers": [*HEADERS[2:], (b"sec-websocket-key", b"short")]}, 400),
        ({"headers": [*HEADERS[2:], (b"sec-websocket-key", b"AAAA")]}, 400),
        ({"headers": [*HEADERS[2:], (b"sec-websocket-key", b"\xff" * 24)]}, 400),
    ],
)
@in_virtual_time
async def test_what_is_no_upgrade_is_refused(request_: dict[str, Any], status: int) -> None:
    line = Line()

    line.upgrade(**request_, early=frame(BINARY, b"early"))
    await turns()

    head, _, body = line.socket.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Length: %d\r\n" % len(body) in head
    # RFC 6455, 4.2.2: who speaks another version is told which is spoken here.
    assert (b"\r\nSec-WebSocket-Version: 13\r\n" in head) == (status == 426)
    assert line.socket.lost
    assert (line.scope, line.guest.heard, line.limits.refused["malformed_request"]) == ({}, [], 1)
    assert not line.state.connections


@in_virtual_time
async def test_the_key_is_answered_as_the_rfc_says() -> None:
    line = Line()

    line.upgrade(headers=[*HEADERS[2:], (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")])
    await turns()

    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in line.answered


@in_virtual_time
async def test_the_application_sees_the_request() -> None:
    line = Line()

    line.upgrade(target=b"/a%20b/%C3%BC?q=%20", headers=[*HEADERS, (b"sec-websocket-protocol", b"a, b")])
    await turns()

    seen = {name: line.scope[name] for name in ("type", "scheme", "path", "raw_path", "query_string", "subprotocols")}
    assert seen == {
        "type": "websocket",
        "scheme": "ws",
        "path": "/a b/ü",
        "raw_path": b"/a%20b/%C3%BC",
        "query_string": b"q=%20",
        "subprotocols": ["a", "b"],
    }
    assert (line.scope["client"], line.scope["server"]) == (("127.0.0.9", 4711), ("127.0.0.1", 80))


@in_virtual_time
async def test_what_comes_before_the_answer_is_read_after_it_in_order() -> None:
    let = asyncio.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await let.wait()
        await let_in(scope, send, line.guest)

    line = Line(app)
    line.upgrade(early=frame(BINARY, b"1") + frame(BINARY, b"2")[:3])
    line.socket.send(frame(BINARY, b"2")[3:] + frame(BINARY, b"3"))
    await turns()
    assert line.socket.paused
    assert line.guest.heard == []

    let.set()
    await turns()

    assert line.guest.heard == [b"1", b"2", b"3"]
    assert not line.socket.paused


@in_virtual_time
async def test_much_that_comes_with_the_request_is_read_in_small_pieces() -> None:
    line = Line(messages_burst_max=100_000, messages_per_s_max=100_000)
    line.upgrade(early=frame(BINARY, b"") * 20_000 + frame(BINARY, b"last"))
    most = before = 0
    while len(line.guest.heard) <= 20_000:
        await asyncio.sleep(0)
        most, before = max(most, len(line.guest.heard) - before), len(line.guest.heard)
    await turns()

    assert most <= READ_BYTES // 6 + 1
    assert line.guest.heard[-1] == b"last"
    assert not line.socket.paused


@in_virtual_time
async def test_who_is_lost_while_that_is_read_holds_nothing_any_more() -> None:
    line = Line()
    line.upgrade(early=frame(BINARY, bytes(1 << 18))[:-1])
    while not line.limits.partial_bytes:
        await asyncio.sleep(0)

    line.socket.lose(BrokenPipeError())
    await turns(200)

    assert line.limits.partial_bytes == 0
    assert line.guest.codes == [1006]


@pytest.mark.parametrize("how", ["ends", "is lost"])
@in_virtual_time
async def test_who_goes_before_the_answer_is_let_in_nowhere(how: str) -> None:
    let, outcome = asyncio.Event(), []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await let.wait()
        try:
            await send({"type": "websocket.accept"})
        except TransportClosed as error:
            outcome.append(error)
            raise

    line = Line(app)
    line.upgrade()
    await turns()
    line.socket.end() if how == "ends" else line.socket.lose(ConnectionResetError())
    let.set()
    await turns()

    assert len(outcome) == 1
    assert (line.socket.written, line.socket.lost) == (b"", True)
    assert not line.state.connections
    assert not line.state.tasks


@in_virtual_time
async def test_a_refusal_of_the_application_is_an_answer() -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": 503, "headers": [(b"retry-after", b"5")]})
        await send({"type": "websocket.http.response.body", "body": b"later\n"})

    line = Line(app)
    line.upgrade()
    await turns()

    assert line.answered.startswith(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n")
    assert line.socket.written.endswith(b"\r\n\r\nlater\n")
    assert line.socket.lost


@in_virtual_time
async def test_a_bug_in_the_application_is_answered_with_500(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        raise RuntimeError("a bug")

    line = Line(app)
    line.upgrade()
    await turns()

    assert line.answered.startswith(b"HTTP/1.1 500 ")
    assert line.socket.lost
    assert [record.message for record in caplog.records] == ["upgrade_failed"]


@in_virtual_time
async def test_a_bug_in_the_application_after_its_answer_is_told_in_a_close_frame(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        raise RuntimeError("a bug")

    line = await Line(app).opened()

    assert line.said == [closed(1011, "internal error")]
    assert [record.message for record in caplog.records] == ["upgrade_failed"]


@in_virtual_time
async def test_an_application_that_accepts_and_closes_is_heard() -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4404, "reason": "deleted"})

    line = await Line(app).opened()

    assert line.said == [closed(4404, "deleted")]
    line.socket.send(frame(CLOSE, b""))
    await turns()
    assert line.socket.lost


@in_virtual_time
async def test_who_waits_for_the_end_through_asgi_hears_of_it() -> None:
    ended = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        ended.append(await receive())

    line = await Line(app).opened()
    line.socket.send(frame(CLOSE, (1001).to_bytes(2)))
    await turns()

    assert ended == [{"type": "websocket.disconnect", "code": 1001, "reason": ""}]


# ------------------------------------------------------------------------------------------------------- messages


@in_virtual_time
async def test_messages_are_heard_in_the_turn_in_which_they_come() -> None:
    line = await Line().opened()

    line.socket.send(frame(BINARY, b"1") + frame(TEXT, b"nothing") + frame(BINARY, b"2", fin=False))
    line.socket.send(frame(CONTINUATION, b"3") + frame(BINARY, b"")[:2])

    assert line.guest.heard == [b"1", b"23"]
    assert line.limits.partial_bytes == 2


@in_virtual_time
async def test_what_comes_behind_a_message_that_takes_time_waits_in_order() -> None:
    line = await Line().opened()

    line.socket.send(frame(BINARY, b"1") + frame(BINARY, b"slow") + frame(BINARY, b"2") + frame(BINARY, b"slow 2"))
    line.socket.send(frame(BINARY, b"3"))
    await turns()

    assert line.guest.heard == [b"1", b"slow"]
    assert line.socket.paused
    line.guest.wait.set()
    await turns()
    assert line.guest.heard == [b"1", b"slow", b"2", b"slow 2", b"3"]
    assert not line.socket.paused


@pytest.mark.parametrize("end", ["says so", "ends", "is lost"])
@in_virtual_time
async def test_what_a_client_sent_before_it_went_is_heard_before_it_is_gone(end: str) -> None:
    line = await Line().opened()

    line.socket.send(
        frame(BINARY, b"slow") + frame(BINARY, b"1") + frame(CLOSE, (1000).to_bytes(2)) * (end == "says so")
    )
    if end == "ends":
        line.socket.end()
    elif end == "is lost":
        line.socket.lose(ConnectionResetError())
    await turns()
    assert line.guest.codes == []
    line.guest.wait.set()
    await turns()

    assert line.guest.heard == [b"slow", b"1"]
    assert line.guest.codes == [1000 if end == "says so" else 1006]
    assert line.socket.lost


@in_virtual_time
async def test_nothing_that_comes_after_a_close_frame_is_heard() -> None:
    line = await Line().opened()

    line.socket.send(frame(BINARY, b"1") + frame(CLOSE, b"") + frame(BINARY, b"2") + frame(PING, b"3"))
    await turns()

    assert line.guest.heard == [b"1"]
    assert line.said == [(CLOSE, b"")]
    assert line.guest.codes == [1005]


@in_virtual_time
async def test_nothing_that_comes_after_a_close_frame_is_heard_behind_a_message_that_takes_time() -> None:
    line = await Line().opened()

    line.socket.send(frame(BINARY, b"slow") + frame(CLOSE, b"") + frame(BINARY, b"2"))
    line.guest.wait.set()
    await turns()

    assert line.guest.heard == [b"slow"]


@in_virtual_time
async def test_messages_before_a_bad_frame_are_heard() -> None:
    line = await Line().opened()

    line.socket.send(frame(BINARY, b"1") + frame(3, b"") + frame(BINARY, b"2"))
    await turns()

    assert line.guest.heard == [b"1"]
    assert line.said == [closed(1002, "unknown kind of frame 3")]
    assert line.guest.codes == [1002]
    assert line.socket.paused
    await asyncio.sleep(LINGER_S + 0.1)
    assert line.socket.aborted


@in_virtual_time
async def test_a_message_whose_work_fails_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    line = await Line().opened()

    line.socket.send(frame(BINARY, b"slow and broken") + frame(BINARY, b"1"))
    line.guest.wait.set()
    await turns()

    assert line.guest.heard == [b"slow and broken"]
    assert line.said[-1][1][:2] == (1011).to_bytes(2)
    assert line.guest.codes == [1011]
    assert [record.message for record in caplog.records] == ["message_failed"]


@pytest.mark.parametrize("reason", ["too large", "too many pieces", "too much of all"])
@in_virtual_time
async def test_what_is_too_large_is_closed(reason: str) -> None:
    line = await Line(message_bytes_max=1 << 20, partial_bytes_max=1 << 20, messages_burst_max=100_000).opened()

    if reason == "too large":
        line.socket.send(frame(BINARY, bytes(70_000))[:4] + b"\x00\xff\xff\xff\xff\xff" + bytes(10))
    elif reason == "too many pieces":
        # None of them holds any bytes, nor does a piece of what is read end within one.
        for at in range(FRAGMENTS_MAX + 1):
            line.socket.send(frame(CONTINUATION if at else BINARY, b"", fin=False))
    else:
        line.limits.partial_bytes = 1 << 20
        line.socket.send(frame(BINARY, b"x", fin=False))
    await turns()

    error = Overloaded if reason == "too much of all" else MessageTooBig
    said = "too many unfinished messages" if reason == "too much of all" else error.reason
    assert line.guest.codes == [error.close_code]
    assert line.said[0][1][:2] == error.close_code.to_bytes(2), said
    assert line.limits.partial_bytes == ((1 << 20) if reason == "too much of all" else 0)


# ------------------------------------------------------------------------------------------------------- pausing


@in_virtual_time
async def test_who_sends_too_fast_is_not_read_for_a_while_and_nothing_is_lost() -> None:
    line = await Line(messages_burst_max=10, messages_per_s_max=10, flooding_timeout_s=1000).opened()

    line.socket.send(frame(BINARY, b"x") * 1000)

    assert line.socket.paused
    assert len(line.guest.heard) <= READ_BYTES // 7 + 1
    await asyncio.sleep(120)
    assert len(line.guest.heard) == 1000
    assert line.limits.refused["slowed"] > 1


@pytest.mark.parametrize("sent", [frame(PONG, b""), frame(TEXT, b""), frame(BINARY, b"", fin=False)])
@in_virtual_time
async def test_frames_of_any_kind_count(sent: bytes) -> None:
    line = await Line(messages_burst_max=10, messages_per_s_max=10).opened()

    line.socket.send(sent + (frame(CONTINUATION, b"", fin=False) if not sent[0] & 0x80 else sent) * 20)

    assert line.socket.paused
    assert line.limits.refused["slowed"] == 1


@in_virtual_time
async def test_who_is_slowed_and_busy_is_read_when_neither_is_so_any_more() -> None:
    line = await Line(messages_burst_max=10, messages_per_s_max=10).opened()

    line.socket.send(frame(BINARY, b"slow") + frame(BINARY, b"x") * 20)
    await asyncio.sleep(10)
    assert line.socket.paused
    line.guest.wait.set()
    await asyncio.sleep(1)
    assert not line.socket.paused

    line.socket.send(frame(BINARY, b"slow") + frame(BINARY, b"x") * 20)
    await turns()
    assert line.socket.paused
    await asyncio.sleep(20)
    assert not line.socket.paused


@in_virtual_time
async def test_who_is_closed_for_flooding_is_never_read_again() -> None:
    line = await Line(messages_burst_max=10, messages_per_s_max=10, flooding_timeout_s=5).opened()

    line.socket.send(frame(BINARY, b"x") * 2000)
    while not line.guest.codes:
        await asyncio.sleep(0.1)
    heard = len(line.guest.heard)
    await asyncio.sleep(LINGER_S / 2)

    assert line.guest.codes == [4429]
    assert line.socket.paused
    assert len(line.guest.heard) == heard
    await asyncio.sleep(LINGER_S)
    assert line.socket.lost


# ------------------------------------------------------------------------------------------------------- pings


@in_virtual_time
async def test_pings_are_answered_also_within_a_message() -> None:
    line = await Line().opened()

    line.socket.send(frame(BINARY, b"1", fin=False) + frame(PING, b"here?") + frame(CONTINUATION, b"2"))

    assert line.said == [(PONG, b"here?")]
    assert line.guest.heard == [b"12"]


@in_virtual_time
async def test_who_does_not_read_gets_no_pongs() -> None:
    line = await Line().opened()
    line.socket.block()

    line.socket.send(frame(PING, b"here?"))

    assert line.said == []


@in_virtual_time
async def test_who_is_lost_gets_no_pongs() -> None:
    line = await Line().opened()
    line.socket.break_()

    line.protocol.buffer_updated(len(received(frame(PING, b"here?") * 10)))

    assert line.said == []


@in_virtual_time
async def test_who_answers_pings_stays() -> None:
    line = await Line().opened()

    for count in range(1, 5):
        await asyncio.sleep(PING_INTERVAL_S + 1)
        pings = [payload for kind, payload in line.said if kind == PING]
        assert len(pings) == count
        line.socket.send(frame(PONG, b"unasked") + frame(PONG, pings[-1]))

    assert line.guest.codes == []


@pytest.mark.parametrize("reads", [True, False])
@in_virtual_time
async def test_who_does_not_answer_a_ping_is_gone(reads: bool) -> None:
    line = await Line().opened()

    if not reads:
        line.socket.block()
    await asyncio.sleep(PING_INTERVAL_S)
    line.socket.send(frame(PONG, b"wrong"))
    await asyncio.sleep(PING_TIMEOUT_S + 0.1)

    assert line.said[-1] == closed(1011, "keepalive ping timeout")
    assert line.guest.codes == [1006]
    await asyncio.sleep(LINGER_S)
    assert line.socket.lost


@in_virtual_time
async def test_a_pong_that_is_not_read_since_its_client_is_busy_is_waited_for() -> None:
    line = await Line().opened()

    line.socket.send(frame(BINARY, b"slow"))
    await asyncio.sleep(PING_INTERVAL_S + 1)
    line.socket.send(frame(PONG, line.said[-1][1]))
    await asyncio.sleep(PING_TIMEOUT_S)
    line.guest.wait.set()
    await asyncio.sleep(1)

    assert line.guest.codes == []
    await asyncio.sleep(PING_INTERVAL_S)
    assert [kind for kind, _ in line.said] == [PING, PING]


# ------------------------------------------------------------------------------------------------------- the way out


@in_virtual_time
async def test_what_is_sent_while_the_client_does_not_read_waits() -> None:
    line = await Line().opened()
    line.socket.block()

    sending = asyncio.create_task(line.protocol.send(b"1"))
    await turns()
    assert not line.protocol.ready
    assert not sending.done()
    line.socket.unblock()
    await turns()

    assert sending.done()
    assert line.said == [(BINARY, b"1")]
    assert line.protocol.ready


@pytest.mark.parametrize("how", ["is lost", "closes", "is closed", "is aborted"])
@in_virtual_time
async def test_what_waits_to_be_sent_fails_when_the_client_goes(how: str) -> None:
    line = await Line().opened()
    line.socket.block()

    sending = asyncio.create_task(line.protocol.send(b"1"))
    await turns()
    if how == "is lost":
        line.socket.lose(ConnectionResetError())
    elif how == "closes":
        line.socket.send(frame(CLOSE, b""))
    elif how == "is aborted":
        line.protocol.abort()
    else:
        await line.protocol.close(4401, "bye")
    await turns()

    with pytest.raises(TransportClosed):
        await sending
    with pytest.raises(TransportClosed):
        await line.protocol.send(b"2")
    assert len(line.guest.codes) == 1


@in_virtual_time
async def test_who_is_told_to_go_is_not_written_to_any_more_when_it_reads_again() -> None:
    line = await Line().opened()
    line.socket.block()

    await line.protocol.close(4401, "revoked")
    line.socket.unblock()

    assert not line.protocol.ready
    with pytest.raises(TransportClosed):
        await line.protocol.send(b"1")


@in_virtual_time
async def test_a_cancelled_send_leaves_nothing_behind() -> None:
    line = await Line().opened()
    line.socket.block()
    sending = asyncio.create_task(line.protocol.send(b"1"))
    await turns()
    sending.cancel()
    await turns()
    line.socket.unblock()
    await line.protocol.send(b"2")

    assert line.said == [(BINARY, b"2")]


# ------------------------------------------------------------------------------------------------------- the end


@in_virtual_time
async def test_who_is_told_to_go_and_says_so_too_is_gone_at_once() -> None:
    line = await Line().opened()

    await line.protocol.close(4401, "revoked")
    await line.protocol.close(1000, "again")
    line.socket.send(frame(BINARY, b"late") + frame(CLOSE, (4401).to_bytes(2)))
    await turns()

    assert line.said == [closed(4401, "revoked")]
    assert line.guest.codes == [4401]
    assert line.guest.heard == []
    assert line.socket.lost
    assert not line.socket.aborted


@pytest.mark.parametrize("reads", [True, False])
@in_virtual_time
async def test_who_is_told_to_go_and_does_not_is_dropped(reads: bool) -> None:
    line = await Line().opened()
    if not reads:
        line.socket.block()

    await line.protocol.close(4401, "revoked")
    await asyncio.sleep(GONE_S - 0.1)
    assert not line.socket.aborted
    await asyncio.sleep(0.2)

    assert line.socket.aborted
    assert line.guest.codes == [4401]


@in_virtual_time
async def test_who_is_told_to_go_and_sends_what_is_no_frame_has_less_time() -> None:
    line = await Line().opened()

    await line.protocol.close(4401, "revoked")
    line.socket.send(frame(BINARY, b"1", fin=False) + frame(3, b""))

    assert line.socket.paused
    assert line.protocol._reader.held == 0
    await asyncio.sleep(LINGER_S + 0.1)
    assert line.socket.aborted


@pytest.mark.parametrize(
    ("payload", "answer", "code"),
    [
        (b"", b"", 1005),
        ((1000).to_bytes(2) + b"bye", (1000).to_bytes(2), 1000),
        ((4999).to_bytes(2), (4999).to_bytes(2), 4999),
        (b"\x03", None, 1002),
        ((1006).to_bytes(2), None, 1002),
        ((1000).to_bytes(2) + b"\xff", None, 1007),
    ],
)
@in_virtual_time
async def test_a_close_frame_is_answered(payload: bytes, answer: bytes | None, code: int) -> None:
    line = await Line().opened()

    line.socket.send(frame(CLOSE, payload))
    await turns()

    ((kind, said),) = line.said
    assert kind == CLOSE
    assert said == answer if answer is not None else said.startswith(code.to_bytes(2))
    assert line.guest.codes == [code]
    await asyncio.sleep(LINGER_S + 0.1)
    assert line.socket.lost


@pytest.mark.parametrize("behind", [frame(CLOSE, b""), frame(3, b""), frame(CLOSE, b"") + frame(3, b"")])
@in_virtual_time
async def test_what_comes_behind_a_close_frame_does_no_harm(behind: bytes) -> None:
    line = await Line().opened()

    line.socket.send(frame(CLOSE, b"") + behind)
    line.protocol.shutdown()
    await asyncio.sleep(60)

    assert line.said == [(CLOSE, b"")]
    assert line.guest.codes == [1005]
    assert line.socket.lost


@pytest.mark.parametrize("how", ["ends", "is lost"])
@in_virtual_time
async def test_who_goes_without_a_word_is_gone(how: str) -> None:
    line = await Line().opened()

    line.socket.end() if how == "ends" else line.socket.lose(ConnectionResetError())
    await turns()

    assert line.guest.codes == [1006]
    assert line.said == []
    assert line.socket.lost
    assert not line.state.connections


@in_virtual_time
async def test_who_ends_its_half_and_reads_nothing_is_dropped() -> None:
    line = await Line().opened()
    line.socket.block()

    line.socket.end()
    await asyncio.sleep(GONE_S + 0.1)

    assert line.guest.codes == [1006]
    assert line.socket.aborted


@in_virtual_time
async def test_it_is_gone_once_whatever_ends_it() -> None:
    line = await Line().opened()

    line.socket.send(frame(BINARY, b"slow") + frame(CLOSE, b""))
    await line.protocol.close(4401, "")
    line.protocol.abort()
    line.socket.lose()
    line.guest.wait.set()
    await asyncio.sleep(60)

    assert line.guest.codes == [1005]


@in_virtual_time
async def test_who_is_lost_by_what_it_says_is_gone_when_that_is_done() -> None:
    line = await Line().opened()
    receive = line.guest.receive

    def lose(message: bytes) -> Awaitable[None] | None:
        line.socket.lose(BrokenPipeError())
        return receive(message)

    line.guest.receive = lose  # type: ignore[method-assign]
    line.socket.send(frame(BINARY, b"slow"))
    await turns()
    assert line.guest.codes == []
    line.guest.wait.set()
    await turns()

    assert line.guest.codes == [1006]


@in_virtual_time
async def test_a_visitor_that_comes_when_all_is_over_is_told_so() -> None:
    line = await Line(lambda scope, receive, send: send({"type": "websocket.accept"})).opened()
    guest = Guest()

    line.protocol.serve(guest)
    await turns()

    assert guest.codes == [1006]
    assert line.socket.lost


@in_virtual_time
async def test_a_server_that_ends_says_so() -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await asyncio.sleep(1)
        await send({"type": "websocket.accept"})

    line, answering = await Line().opened(), Line(app)
    answering.upgrade()
    await turns()

    for one in (line, answering):
        one.protocol.shutdown()
        one.protocol.shutdown()
    await asyncio.sleep(2)

    assert line.said == [closed(1012)]
    assert line.guest.codes == [1012]
    assert answering.answered.startswith(b"HTTP/1.1 500 ")
    assert line.socket.lost
    assert answering.socket.lost


@in_virtual_time
async def test_an_upgrade_that_is_cancelled_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    line = Line(app)
    line.upgrade()
    await turns()
    for task in list(line.state.tasks):
        task.cancel()
    await turns()

    assert caplog.records == []
    assert line.socket.lost


@pytest.mark.parametrize("how", ["closes", "is lost", "is closed", "floods"])
@in_virtual_time
async def test_of_a_connection_that_is_gone_nothing_is_left_for_the_garbage_collector(how: str) -> None:
    gc.collect()
    gc.disable()
    try:
        line = await Line().opened()
        line.socket.send(frame(BINARY, b"slow") + frame(BINARY, b"1"))
        line.guest.wait.set()
        await turns()
        if how == "closes":
            line.socket.send(frame(CLOSE, b""))
        elif how == "is lost":
            line.socket.lose()
        elif how == "floods":
            line.socket.send(frame(3, b""))
            await asyncio.sleep(LINGER_S + 1)
        else:
            await line.protocol.close(4401, "")
            await asyncio.sleep(GONE_S + 1)
        await turns()
        assert line.socket.lost
        gone = [weakref.ref(each) for each in (line.guest, line.socket)]
        del line.guest, line.socket, line.protocol, line.scope

        assert [each() for each in gone] == [None, None]
    finally:
        gc.enable()
