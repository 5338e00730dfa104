"""From a connection that the kernel has to a WebSocket: how many at once, how fast, for how long.

After a restart all clients come at once, and so do attackers. What is scarce is shared out so that whoever behaves is
served:

- *Upgrades take turns.* One costs as much as a hundred messages. In each turn of the event loop a few are let in, as many
  as don't make it long for those who are connected (`Slices`); the others wait here, and the addresses that they come from
  take turns, so that one that sends thousands holds up only itself. They aren't refused: stock clients come back after
  2.5 s at most and without jitter, all together, again and again.
- *Who has sent nothing gives way.* When too many connections are without an upgrade, the oldest of those that haven't
  completed a request is dropped. An honest client completes its within two round trips, so the oldest isn't one. If there
  is none, the last of the address that has most is refused.
- *Accepting is paced* too: what waits in the kernel's queue can't be told apart.
- *Everything has a deadline*: the first request, each that follows, its body, and taking the answer.
"""

import asyncio
import errno
import functools
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from .gateway.client_address import client_address, counted_as
from .limits import Limits, TokenBucket
from .tls import Certificate
from .transport import WebSocketProtocol

# The kernel caps it by net.core.somaxconn.
BACKLOG = 4096
# A request's line and headers. A token in the URL or in a header fits: 8 KiB each is what most servers allow.
HEAD_BYTES_MAX = 16 << 10
KEEP_ALIVE_S = 5
# Uploading a body of the largest size, or taking an answer, over a bad line.
TRANSFER_TIMEOUT_S = 60.0
# After so many connections the event loop gets its turn.
ACCEPT_SLICE = 16
# How many seconds' worth of upgrades may come at once.
BURST_S = 0.05
# While many are let in, a turn of the event loop should take about as long: everybody's messages wait for it once or twice.
TURN_S = 0.01
# So many are let in in one turn at most.
SLICE_MAX = 32
# However long turns take: who wants in gets a share of some percent of the loop.
UPGRADES_PER_S_MIN = 100
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
# When there are no descriptors left: some are given back soon.
EXHAUSTED_S = 0.1
# How long a peer may take to answer the end of a TLS connection.
TLS_END_S = 5.0

T = TypeVar("T")

log = logging.getLogger("crdt_sync.accepting")


async def accept_forever(
    listener: socket.socket,
    protocol: Callable[[], asyncio.Protocol],
    limits: Limits,
    certificate: Certificate | None = None,
) -> None:
    """Give each connection a protocol, not faster than the limit allows, until cancelled.

    With TLS, that is when the handshake is complete. If too many have begun one, the oldest is dropped, as it is of those
    that have yet to send a request.

    Args:
        listener: Listens.
        protocol: Makes one.
        limits: Says how fast, and how many.
        certificate: What is shown, if TLS is spoken.
    """
    loop = asyncio.get_running_loop()
    rate = limits.settings.accepts_per_s_max
    bucket = TokenBucket(rate, rate, now=loop.time())
    listener.setblocking(False)
    starting: dict[asyncio.Task[None], None] = {}

    def started(task: asyncio.Task[None], connection: socket.socket) -> None:
        starting.pop(task, None)
        if task.cancelled():
            # Perhaps before it had begun.
            connection.close()

    accepted = 0
    while True:
        try:
            connection, _ = await loop.sock_accept(listener)
        except OSError as error:
            if error.errno == errno.ECONNABORTED:
                continue
            limits.note("descriptors", error)
            await asyncio.sleep(EXHAUSTED_S)
            continue
        if len(starting) >= limits.capacity.upgrades:
            limits.note("upgrades")
            oldest = next(iter(starting))
            del starting[oldest]
            oldest.cancel()
        task = loop.create_task(_start(connection, protocol, limits, certificate))
        starting[task] = None
        task.add_done_callback(functools.partial(started, connection=connection))
        accepted += 1
        wait_s = bucket.take(1, now=loop.time())
        if wait_s:
            limits.note("accepts_per_s")
        if wait_s or accepted % ACCEPT_SLICE == 0:
            await asyncio.sleep(wait_s)


async def _start(
    connection: socket.socket,
    protocol: Callable[[], asyncio.Protocol],
    limits: Limits,
    certificate: Certificate | None,
) -> None:
    loop = asyncio.get_running_loop()
    try:
        if certificate is None:
            await loop.connect_accepted_socket(protocol, connection)
        else:
            await loop.connect_accepted_socket(
                protocol,
                connection,
                ssl=certificate.context,
                ssl_handshake_timeout=limits.settings.handshake_timeout_s,
                ssl_shutdown_timeout=TLS_END_S,
            )
    except ConnectionAbortedError:
        limits.note("request_timeout")
    except ssl.SSLError as error:
        # It speaks something else, HTTP perhaps, or doesn't like the certificate.
        limits.note("tls_handshake", error.reason or error)
        # It leads to the protocol's objects, which lead back to it: all would stay until garbage is collected.
        error.__traceback__ = None
    except OSError:
        # Gone already.
        connection.close()


class Turns(Generic[T]):
    """Items that wait, from several keys, which take turns. Pure."""

    def __init__(self) -> None:
        self._of_key: dict[str, deque[T]] = {}
        self._count = 0

    def add(self, key: str, item: T) -> None:
        """One more, at the end of those with its key."""
        self._of_key.setdefault(key, deque()).append(item)
        self._count += 1

    def take(self) -> T:
        """The first of the key whose turn it is; there must be one."""
        key = next(iter(self._of_key))
        items = self._of_key.pop(key)
        item = items.popleft()
        if items:
            self._of_key[key] = items
        self._count -= 1
        return item

    def give_up(self) -> T:
        """The last of the key that has most; there must be one."""
        key = max(self._of_key, key=lambda each: len(self._of_key[each]))
        item = self._of_key[key].pop()
        if not self._of_key[key]:
            del self._of_key[key]
        self._count -= 1
        return item

    def __len__(self) -> int:
        return self._count


class Slices:
    """How many may be let in in one turn of the event loop, which follows from how long the turns before took. Pure.

    What letting one in costs comes due in later turns too: reading a document, telling it to a client. So nothing is
    reckoned. As long as turns are short there is one more in each; after a long one there are half as many.
    """

    def __init__(self) -> None:
        self._size = 4

    def next(self, turn_s: float) -> int:
        """How many in the next turn, given how long the last one took in which some were let in."""
        self._size = max(1, self._size // 2) if turn_s > TURN_S else min(SLICE_MAX, self._size + 1)
        return max(self._size, int(turn_s * UPGRADES_PER_S_MIN))


class Entrance:
    """Connections that are no WebSockets yet.

    Args:
        limits: How many, and how many become one in a second at most.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._proxies = limits.settings.proxies
        # Those that haven't completed a request, the oldest first.
        self._silent: dict[HttpProtocol, None] = {}
        self._turns: Turns[HttpProtocol] = Turns()
        rate = limits.settings.upgrades_per_s_max
        self._bucket = TokenBucket(rate, max(1.0, rate * BURST_S), now=0.0)
        self._slices = Slices()
        # How many more may be let in in this turn of the event loop.
        self._left = 1
        self._timer: asyncio.Handle | None = None

    def silent(self, connection: "HttpProtocol") -> None:
        """Somebody is there who has yet to send a request; if there are too many, the oldest goes."""
        if connection not in self._silent and self._full and self._silent:
            oldest = next(iter(self._silent))
            self.limits.note("upgrades", oldest.client)
            self.spoke(oldest)
            oldest.transport.abort()
        self._silent[connection] = None

    def spoke(self, connection: "HttpProtocol") -> None:
        """It has sent a request, or is gone."""
        self._silent.pop(connection, None)

    def upgrade(self, connection: "HttpProtocol", headers: list[tuple[bytes, bytes]]) -> None:
        """Somebody wants to become a WebSocket: let it when its turn comes. If too many do, one is refused."""
        full = self._full
        peer = connection.client[0] if connection.client else None
        self._turns.add(counted_as(client_address(peer, headers, self._proxies)), connection)
        if full:
            refused = self._turns.give_up()
            self.limits.note("upgrades", refused.client)
            refused.refuse()
        if self._left:
            self._let_in()

    @property
    def _full(self) -> bool:
        return len(self._silent) + len(self._turns) >= self.limits.capacity.upgrades

    def _let_in(self) -> None:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        wait_s = 0.0
        while self._turns and self._left and not wait_s:
            connection = self._turns.take()
            if not connection.transport.is_closing():
                self._left -= 1
                wait_s = self._bucket.take(1, now=loop.time())
                try:
                    connection.become_websocket()
                except Exception:
                    # One connection's trouble is not that of those behind it.
                    log.exception("upgrade_failed")
                    connection.transport.abort()
        if wait_s:
            # Also if nobody waits now: whoever comes meanwhile does.
            self._left = 0
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_later(wait_s, self._next_turn, None)
            if self._turns:
                self.limits.note("upgrades_per_s")
        elif self._timer is None:
            self._timer = loop.call_soon(self._next_turn, began_at)

    def _next_turn(self, began_at: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        self._left = self._slices.next(0.0 if began_at is None else loop.time() - began_at)
        if self._turns:
            self._let_in()


class HttpProtocol(H11Protocol):
    """One connection that speaks HTTP, until it becomes a WebSocket.

    Args:
        config: uvicorn's.
        server_state: uvicorn's.
        app_state: uvicorn's.
        entrance: Where it waits for its request to be complete, and for its turn.
        _loop: uvicorn's.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        entrance: Entrance,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._entrance = entrance
        self._upgrade: h11.Request | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._deadline_is_for: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._entrance.silent(self)
        self._set_deadline("head", self._entrance.limits.settings.handshake_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._request_complete()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._upgrade is not None:
            return
        if self.conn.their_state is h11.IDLE:
            self._entrance.silent(self)
            self._set_deadline("head", self._entrance.limits.settings.handshake_timeout_s)
        elif self.conn.their_state is h11.SEND_BODY:
            self._entrance.spoke(self)
            self._set_deadline("body", TRANSFER_TIMEOUT_S)
        else:
            self._request_complete()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._request_complete()
        self._upgrade = event
        self.transport.pause_reading()
        self._entrance.upgrade(self, self.headers)

    def become_websocket(self) -> None:
        """It is this connection's turn."""
        request = self._upgrade
        assert request is not None, "it asked for one"
        self.connections.discard(self)
        protocol = cast(Callable[..., WebSocketProtocol], self.ws_protocol_class)(
            config=self.config, server_state=self.server_state, app_state=self.app_state
        )
        self.transport.resume_reading()
        early, _ = self.conn.trailing_data
        protocol.upgrade(self.transport, request.method, request.target, self.headers, early)

    def refuse(self) -> None:
        """There are too many that want to become one."""
        self.transport.write(BUSY)
        self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._upgrade is None and not self.transport.is_closing():
            self._entrance.silent(self)

    def shutdown(self) -> None:
        if self._upgrade is not None:
            self.transport.close()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        self._entrance.limits.note("malformed_request", self.client)
        super().send_400_response(msg)
        # What comes after it isn't read, and what isn't taken of the answer isn't waited for.
        self.loop.call_later(KEEP_ALIVE_S, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_deadline("answer", TRANSFER_TIMEOUT_S)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._set_deadline(None, 0)

    def _request_complete(self) -> None:
        self._entrance.spoke(self)
        if not self.flow.write_paused:
            self._set_deadline(None, 0)

    def _set_deadline(self, what: str | None, after_s: float) -> None:
        """Drop the connection in `after_s`, unless it waits for something else by then, or for nothing (None)."""
        if what is self._deadline_is_for:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline_is_for = what
        self._deadline = self.loop.call_later(after_s, self._drop) if what is not None else None

    def _drop(self) -> None:
        self._entrance.limits.note("request_timeout", self.client)
        self.transport.abort()


def http_protocol(entrance: Entrance) -> type[asyncio.Protocol]:
    """What makes uvicorn's HTTP protocols, in the form that uvicorn wants it."""

    def make(*args: Any, **kwargs: Any) -> HttpProtocol:
        return HttpProtocol(*args, **kwargs, entrance=entrance)

    return cast(type[asyncio.Protocol], make)
