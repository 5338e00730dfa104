"""Our own WebSocket protocol under somebody else's uvicorn, for a service in which the server is mounted.

uvicorn has one protocol for all WebSockets, and makes it before anybody has looked at the path. So what is made here looks
at that, and passes on what is for others to uvicorn's own.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

from uvicorn.config import Config
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol
from uvicorn.server import ServerState

from .gateway.app import SyncApp
from .limits import Limits
from .transport import WebSocketProtocol


def websocket_protocol(sync: SyncApp, path: str = "/") -> type[asyncio.Protocol]:
    """Return what `uvicorn --ws` takes, for the WebSockets of a mounted server: what goes to many costs about half of what it does by ASGI.

    Args:
        sync: The server.
        path: Where it is mounted. WebSockets elsewhere are served by uvicorn's own protocol.
    """
    limits: Limits = sync.state.limits
    prefix = path.encode().rstrip(b"/") + b"/"

    def make(config: Config, server_state: ServerState, app_state: dict[str, Any]) -> _Upgrade:
        return _Upgrade(config, server_state, app_state, limits, prefix)

    # Where uvicorn wants a class it makes protocols, so what makes them will do.
    return cast(type[asyncio.Protocol], make)


class _Successor(Protocol):
    def connection_lost(self, exc: Exception | None) -> None: ...


class _Upgrade(asyncio.Protocol):
    """A request for a WebSocket, as uvicorn hands it over: written out once more."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], limits: Limits, prefix: bytes
    ) -> None:
        self._arguments: dict[str, Any] = {
            "config": config,
            "server_state": server_state,
            "app_state": app_state,
        }
        self._limits = limits
        self._prefix = prefix
        self._transport: asyncio.Transport
        self._successor: _Successor | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        method, target, headers = _read(data)
        if target.startswith(self._prefix):
            protocol = WebSocketProtocol(**self._arguments, limits=self._limits)
            self._successor = protocol
            protocol.upgrade(transport, method, target, headers, b"")
        else:
            other = cast(Callable[..., asyncio.Protocol], AutoWebSocketsProtocol)(**self._arguments)
            self._successor = other
            other.connection_made(transport)
            other.data_received(data)
        # When this returns, uvicorn makes this one the transport's protocol. Nothing is read before the next turn.
        asyncio.get_running_loop().call_soon(transport.set_protocol, self._successor)

    def connection_lost(self, exc: Exception | None) -> None:
        # It was refused, and closed at once.
        if self._successor is not None:
            self._successor.connection_lost(exc)


def _read(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    """Method, target and headers of a request that uvicorn has read and found to be one."""
    line, *rest = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, target, _ = line.split(b" ", 2)
    headers = []
    for each in rest:
        name, _, value = each.partition(b": ")
        headers.append((name.lower(), value))
    return method, target, headers
