"""One client's way out: a bounded outbox over a transport, and closing.

Owns what waits for one client and in which order it goes. Leaves what a client may say to `room`, and what a frame
means to `protocol`.

What is relayed to a client waits in a bounded outbox. If it would grow beyond its bound, the client is *behind*:
its outbox is emptied, nothing more is relayed to it, and when it reads again it gets the difference between what it
last had and what the room has then. Answers that bring a whole difference are made when they can be sent, not when
they are asked for, so a client that asks often and reads never holds no more memory than one that asks once.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .errors import SlowReader, StoreBehind, SyncError
from .frames import write_binary
from .metrics import Metrics
from .protocol import encode_confirm, kind_of
from .session import Session

# Confirmations that one client may wait for: a client that asks after every keystroke for some minutes.
CONFIRMS_MAX = 4096

# What the server has to say to one client beside its room's content. Older words give way.
NOTICES_MAX = 8

CLOSE_TIMEOUT_S = 5.0

# So much is written to one client at once; where it makes that wait, the rest waits in the outbox.
FLUSH_BYTES = 64 << 10
# For one frame at a time.
ONE = -1

log = logging.getLogger("crdt_sync.connection")

_numbers = itertools.count(1)


def next_number() -> int:
    """What tells one connection from all others of this process."""
    return next(_numbers)


@dataclass(frozen=True, slots=True)
class Wants:
    """What a client is to be told, made of what the room has when it is told."""

    had: bytes
    """State vector of something that it is known to have."""
    step_2: bool
    """It sent a sync step 1."""
    who: bool
    """It asked who is here."""
    behind: bool
    """It wasn't relayed everything since."""


class Relayed(bytes):
    """A frame that goes to many. What is the same for all of them is kept with it."""

    received_at: float | None = None
    """When its content came (the loop's time), if it is to show how long it was on its way."""
    wire: bytes | None = None
    """As it stands on the wire, once somebody has worked that out."""


def on_the_wire(frame: bytes) -> bytes:
    """A binary message as a server sends it. Of what goes to many, made once."""
    if type(frame) is not Relayed:
        return write_binary(frame)
    if frame.wire is None:
        frame.wire = write_binary(frame)
    return frame.wire


CatchUp = Callable[[Wants], Awaitable[Iterable[bytes]]]


class TransportClosed(Exception):
    """The other side is gone."""


class Transport(Protocol):
    """What a connection writes to."""

    @property
    def ready(self) -> bool:
        """Whether `write` may be called now, as it may where there is a short way, and the other side reads."""

    async def send(self, frame: bytes) -> None:
        """Send one binary WebSocket frame; returns once there is room for the next.

        Raises:
            TransportClosed: The other side is gone.
        """

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame."""

    def write_wire(self, wire: bytes) -> None:
        """Send frames, as they stand on the wire (`on_the_wire`), at once, and all together."""

    def abort(self) -> None:
        """Drop the connection without another word. Whatever waits in `send` fails."""

    def is_closing(self) -> bool:
        """Whether what is written goes nowhere, although nobody has been told yet."""

    def buffered_bytes(self) -> int:
        """What was sent but not yet taken by the operating system; 0 if unknown."""


@dataclass(slots=True)
class Outbox:
    """Frames on their way to one client, never more than `bytes_max` together."""

    bytes_max: int
    size: int = 0
    _frames: list[bytes] = field(default_factory=list)

    def put(self, frame: bytes) -> bool:
        """Append a frame, or return False if it would exceed the bound."""
        if self.size + len(frame) > self.bytes_max:
            return False
        self.size += len(frame)
        self._frames.append(frame)
        return True

    def take_some(self, bytes_max: int) -> list[bytes]:
        """Remove and return the oldest frames: one at least, and no more than so many bytes beyond it. There must be one."""
        frames = self._frames
        if self.size <= bytes_max:
            self._frames, self.size = [], 0
            return frames
        count, size = 1, len(frames[0])
        while count < len(frames) and size - len(frames[0]) + len(frames[count]) <= bytes_max:
            size += len(frames[count])
            count += 1
        taken = frames[:count]
        del frames[:count]
        self.size -= size
        return taken

    def clear(self) -> None:
        """Forget everything."""
        self._frames.clear()
        self.size = 0

    def __len__(self) -> int:
        return len(self._frames)


class Flush:
    """Writes at the end of a turn of the event loop what came to be said in it, to each client in one go."""

    def __init__(self) -> None:
        self._connections: list[Connection] = []

    def add(self, connection: "Connection") -> None:
        """Something waits for a client."""
        if not self._connections:
            asyncio.get_running_loop().call_soon(self._run)
        self._connections.append(connection)

    def _run(self) -> None:
        connections, self._connections = self._connections, []
        now = asyncio.get_running_loop().time()
        for connection in connections:
            try:
                connection.flush(now)
            except Exception:
                # One client's trouble is not that of those behind it.
                log.exception("flush_failed", extra={"connection": connection.id})
                connection.close(SyncError.close_code, SyncError.reason)


class Connection:
    """One client.

    What waits for it is written at the end of the turn. Only where that can't be, since something has to be made before, the
    client doesn't read, or there is no short way, a task does it, as long as there is something to do.

    Args:
        transport: Where frames go.
        outbox_bytes_max: Bound on what is relayed but not yet sent.
        now: Monotonic seconds.
        session: What the client may do; everything, if not given.
        metrics: Where it is counted what goes out.
        number: From `next_number`, if it has one.
        flush: Shared with others.
    """

    __slots__ = (
        "__weakref__",
        "_buffered",
        "_busy",
        "_catch_up",
        "_catching_up",
        "_confirms",
        "_confirms_owed",
        "_deadline",
        "_ended",
        "_flush",
        "_making",
        "_metrics",
        "_notices",
        "_outbox",
        "_progress_at",
        "_sending",
        "_task",
        "_transport",
        "active_at",
        "asked",
        "asked_who",
        "behind",
        "bytes_in",
        "closing",
        "frames_in",
        "had",
        "id",
        "received_at",
        "sent_at",
        "session",
        "synced",
    )

    def __init__(
        self,
        transport: Transport,
        *,
        outbox_bytes_max: int,
        now: float,
        session: Session | None = None,
        metrics: Metrics | None = None,
        number: int | None = None,
        flush: Flush | None = None,
    ) -> None:
        self.id = next_number() if number is None else number
        self.frames_in = 0
        """How many frames have come."""
        self.bytes_in = 0
        """How many bytes these had."""
        self.session = session or Session("")
        self.had = b"\x00"
        """State vector of something that the client is known to have."""
        self.behind = False
        self.asked: bool = False
        """Whether a sync step 1 waits for its answer."""
        self.asked_who = False
        """Whether an awareness query waits for its answer."""
        self.synced = False
        """Whether a sync step 1 was answered: from then on the client has all that it was sent."""
        self.received_at = now
        """When the frame came that is being received."""
        self.sent_at = now
        """When a frame last went out."""
        self.active_at = now
        """When it last said anything other than awareness."""
        self.closing: tuple[int, str] | None = None
        self._metrics = metrics or Metrics()
        self._transport = transport
        self._outbox = Outbox(outbox_bytes_max)
        # Before all that is relayed, in this order.
        self._notices: list[bytes] = []
        self._catching_up: list[bytes] = []
        self._confirms: list[bytes] = []
        self._confirms_owed = 0
        self._catch_up: CatchUp | None = None
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._ended: Callable[[], None] | None = None
        self._sending = False
        self._making = False
        self._flush = flush or Flush()
        # Whether the flush knows of it, or a task works for it, or nothing may be sent yet, or any more.
        self._busy = True
        self._progress_at = now
        self._buffered = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits for this client: it has, or is sure to get, all that it was sent."""
        return not (self._sending or self._making or self._has_to_make or self._waits)

    @property
    def outbox_bytes(self) -> int:
        """What is relayed but not yet sent."""
        return self._outbox.size

    def relay(self, frame: bytes) -> bool:
        """Send a frame when its turn comes. A client that is behind will get its content in another way.

        Returns:
            Whether it is on its way. That isn't counted here, since there are many who get the same.
        """
        if self.behind or self.closing:
            return False
        taken = self._outbox.put(frame)
        if not taken:
            self._metrics.outbox_drops += 1
            self._drop_outbox()
            self.behind = True
        self._wake()
        return taken

    def relay_wire(self, wire: bytes, now: float) -> bool:
        """Write at once what goes to many, unless something is before it, or the client doesn't read.

        Args:
            wire: Frames as they stand on the wire.
            now: Monotonic seconds.

        Returns:
            Whether that is done. If not, `relay` them.
        """
        transport = self._transport
        if self._busy or not transport.ready:
            return False
        transport.write_wire(wire)
        self.sent_at = self._progress_at = now
        return True

    def flush(self, now: float) -> None:
        """Write what waits, or have a task do what can't be done at once. Called by `Flush`."""
        if self._catch_up is None:
            return
        self._busy = False
        self._write(now)
        if self.closing is not None or self._has_to_make or self._waits:
            self._busy = True
            self._task = asyncio.get_running_loop().create_task(self._work(self._catch_up))

    def notify(self, frame: bytes) -> None:
        """Send a small frame before all that waits."""
        if len(self._notices) == NOTICES_MAX:
            del self._notices[0]
        self._notices.append(frame)
        self._wake()

    def answer_sync(self, state_vector: bytes) -> None:
        """Answer a sync step 1 when its turn comes."""
        self.had = state_vector
        self.asked = True
        self._wake()

    def answer_who(self) -> None:
        """Answer an awareness query when its turn comes."""
        self.asked_who = True
        self._wake()

    def expect_confirm(self) -> None:
        """Count a confirmation that the client waits for.

        Raises:
            StoreBehind: It waits for too many.
        """
        if self._confirms_owed >= CONFIRMS_MAX:
            raise StoreBehind(f"{self._confirms_owed} confirmations are waited for by one client")
        self._confirms_owed += 1

    def confirm(self, token: bytes) -> None:
        """Send a confirmation that `expect_confirm` counted."""
        self._confirms.append(encode_confirm(token))
        self._wake()

    def close(self, code: int, reason: str) -> None:
        """Close as soon as possible, whatever still waits. A closed connection stays closed for its first reason."""
        if self.closing is None:
            self.closing = (code, reason)
            self._drop_outbox()
            self._deadline = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._give_up)
            self._wake()

    def check(self, *, now: float, stalled_max_s: float) -> None:
        """Close the client if it has taken nothing of what waits for it for `stalled_max_s`."""
        buffered = self._transport.buffered_bytes()
        if self._making or (self.idle and not buffered) or buffered < self._buffered:
            self._progress_at = now
        self._buffered = buffered
        if now - self._progress_at >= stalled_max_s:
            self.close(SlowReader.close_code, SlowReader.reason)

    def start(self, catch_up: CatchUp, *, ended: Callable[[], None] | None = None) -> None:
        """From now on, send what there is to send, until the connection is closed or lost.

        Args:
            catch_up: Gives the frames for what a client wants. What is relayed meanwhile follows them.
            ended: Called when it is closed, or lost.
        """
        self._catch_up = catch_up
        self._ended = ended
        self._busy = False
        if self.closing is not None or self._has_to_make or self._waits:
            self._wake()

    def stop(self) -> None:
        """Send nothing more: the client is gone."""
        if self._task is not None:
            self._task.cancel()
        self._end()

    async def run(self, catch_up: CatchUp) -> None:
        """Like `start`, and wait until it is closed or lost; if that is cancelled, `stop`."""
        ended = asyncio.Event()
        self.start(catch_up, ended=ended.set)
        try:
            await ended.wait()
        finally:
            self.stop()

    @property
    def _has_to_make(self) -> bool:
        return self.asked or self.asked_who or self.behind

    @property
    def _waits(self) -> bool:
        return bool(self._notices or self._catching_up or self._confirms or self._outbox.size)

    def _wake(self) -> None:
        if not self._busy:
            self._busy = True
            self._flush.add(self)

    def _write(self, now: float) -> None:
        """Write what may go, as long as the client reads."""
        while self.closing is None and self._transport.ready and not self._transport.is_closing():
            frames = self._take(FLUSH_BYTES)
            if not frames:
                break
            self._transport.write_wire(b"".join([on_the_wire(frame) for frame in frames]))
            self._sent(frames, now)

    def _take(self, bytes_max: int) -> list[bytes]:
        """Remove and return what goes next: one frame at least, if any may go, and about so many bytes beyond it."""
        taken: list[bytes] = []
        before = (
            (self._notices, self._catching_up)
            if self._has_to_make
            else (self._notices, self._catching_up, self._confirms)
        )
        for frames in before:
            count = 0
            while count < len(frames) and (not taken or len(frames[count]) <= bytes_max):
                frame = frames[count]
                bytes_max -= len(frame) if taken else 0
                taken.append(frame)
                self._metrics.sent.count(kind_of(frame), len(frame))
                count += 1
            del frames[:count]
            if frames is self._confirms:
                self._confirms_owed -= count
            if frames:
                return taken
        if self._outbox.size and not self._has_to_make and (not taken or bytes_max >= 0):
            taken += self._outbox.take_some(bytes_max)
        return taken

    async def _work(self, catch_up: CatchUp) -> None:
        """Do what can't be done at once, until nothing waits, or the connection is closed or lost."""
        loop = asyncio.get_running_loop()
        try:
            while self.closing is None:
                self._write(loop.time())
                frames = self._take(ONE)
                if frames:
                    self._sending = True
                    await self._transport.send(frames[0])
                    self._sending = False
                    self._sent(frames, loop.time())
                elif self._has_to_make:
                    await self._make(catch_up)
                else:
                    return
            await self._transport.close(*self.closing)
            self._end()
        except TransportClosed:
            self._end()
        except Exception:
            log.exception("flush_failed", extra={"connection": self.id})
            self._transport.abort()
            self._end()
        finally:
            self._task = None
            self._sending = False
            self._busy = self._catch_up is None

    async def _make(self, catch_up: CatchUp) -> None:
        wants = Wants(self.had, self.asked, self.asked_who, self.behind)
        # Before it is made: what is relayed from now on may not be in it.
        self.asked = self.asked_who = self.behind = False
        self._metrics.outbox_heals += wants.behind
        self._making = True
        try:
            self._catching_up.extend(await catch_up(wants))
            self.synced = self.synced or wants.step_2
        except SyncError as error:
            self.close(error.close_code, error.reason)
        except Exception:
            # A bug. Without an answer the client would wait for ever.
            log.exception("catch_up_failed", extra={"connection": self.id})
            self.close(SyncError.close_code, SyncError.reason)
        finally:
            self._making = False

    def _sent(self, frames: Sequence[bytes], now: float) -> None:
        self.sent_at = self._progress_at = now
        for frame in frames:
            if type(frame) is Relayed and frame.received_at is not None:
                self._metrics.delivery_seconds.observe(now - frame.received_at)

    def _end(self) -> None:
        """It is closed, or lost."""
        self._catch_up = None
        self._busy = True
        self._drop_outbox()
        if self._deadline is not None:
            self._deadline.cancel()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()

    def _drop_outbox(self) -> None:
        self._metrics.outbox_dropped_messages += len(self._outbox)
        self._outbox.clear()

    def _give_up(self) -> None:
        """The client takes not even the close frame."""
        self._transport.abort()
        self.stop()
