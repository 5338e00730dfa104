"""pycrdt-websocket under uvicorn, as its documentation starts it, in memory: `python pycrdt_websocket.py PORT`."""

import asyncio
import sys

import uvicorn
from pycrdt.websocket import ASGIServer, WebsocketServer


async def main(port: int) -> None:
    """Serve until a signal ends it."""
    rooms = WebsocketServer()
    config = uvicorn.Config(ASGIServer(rooms), host="127.0.0.1", port=port, log_level="warning")
    async with rooms:
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
