"""uvicorn's WebSocket protocol, with what the gateway needs to know beyond ASGI."""

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from .gateway.sync import TRANSPORT_EXTENSION


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Gives the application its transport, and tells a lost connection (1006) from one closed without a code (1005)."""

    async def run_asgi(self) -> None:
        self.scope["extensions"][TRANSPORT_EXTENSION] = {"transport": self.transport}
        await super().run_asgi()

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            # uvicorn 0.54 forgets to, and then logs every refused upgrade as an error.
            self.handshake_complete = True

    def connection_lost(self, exc: Exception | None) -> None:
        if self.handshake_complete and self.conn.close_rcvd is None:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006, "reason": ""})
        super().connection_lost(exc)
