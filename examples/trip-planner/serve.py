"""The trip planner's server: its page, guests' tokens and crdt-sync, in one process at one address. `make demo` runs it.

Owns what an application adds to crdt-sync: its files, and who may do what. Here that is simple: whoever opens the page
says a name, and may edit every trip. An application of yours would have its login in the place of `session`.
"""

import contextlib
import os
import secrets
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import jwt
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from crdt_sync import InvalidSettings, Settings, create_app

HERE = Path(__file__).parent
FILES = HERE / "dist"
PORT = 1234
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
TOKEN_LIFETIME_S = 600
"""Short, so that one can see tokens being renewed on a connection that stays."""
RIGHTS = {"trip-*": "write"}
NAME_CHARS_MAX = 40
PAGE_HEADERS = {
    # Names and trips come from strangers: no script but our files, no request but to this server, no frame around it.
    # quill-cursors wants inline styles.
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # Asked for anew each time; what it loads has a hash of its content in its name.
    "cache-control": "no-cache",
}


def make_app(settings: Settings, secret: str, *, local: bool) -> Starlette:
    """Make the application: crdt-sync, with a page and a login in front of it.

    Args:
        settings: The server's; `secret` is its `jwt_secret`.
        secret: What tokens are signed with.
        local: Whether tokens are for this machine's browsers only.
    """
    app = create_app(settings)

    async def session(request: Request) -> Response:
        """Let somebody in under the name that they say, which is also their user id: there are no accounts here."""
        if local and request.headers.get("host", "").rpartition(":")[0] not in LOCAL_NAMES:
            # A page elsewhere that has had its own name point to this machine.
            return JSONResponse({"detail": "this demo is for the machine that it runs on"}, status_code=403)
        try:
            wish = await request.json()
            name, color = wish["name"].strip(), wish["color"]
            if not 1 <= len(name) <= NAME_CHARS_MAX or not name.isprintable():
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            return JSONResponse({"detail": f"a name has 1 to {NAME_CHARS_MAX} characters"}, status_code=400)
        now = int(time.time())
        claims = {"sub": name, "name": name, "color": color, "iat": now, "exp": now + TOKEN_LIFETIME_S, "rooms": RIGHTS}
        return JSONResponse({"token": jwt.encode(claims, secret, algorithm="HS256")})

    # In front of crdt-sync's own. Rooms are reached by WebSocket, so these paths take no names from them.
    app.router.routes[:0] = [
        Route("/", _file("index.html")),
        Route("/service-worker.js", _file("service-worker.js")),
        Route("/session", session, methods=["POST"]),
        Mount("/assets", StaticFiles(directory=FILES / "assets")),
    ]
    return app


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return FileResponse(FILES / name, headers=PAGE_HEADERS)

    return answer


def listen(host: str, port: int | None) -> socket.socket:
    """Listen at a port; without one at the usual one, or at a free one if somebody else has that.

    Raises:
        OSError: It can't be had.
    """
    if port is not None:
        return socket.create_server((host, port))
    try:
        return socket.create_server((host, PORT))
    except OSError:
        return socket.create_server((host, 0))


def main() -> int:
    """Serve until Ctrl-C. `CRDT_SYNC_*` says otherwise, as for `crdt-sync serve`: host, port, and where trips are kept."""
    secret = secrets.token_urlsafe(48)
    try:
        settings = Settings.read(
            database_url=os.environ.get("CRDT_SYNC_DATABASE_URL", f"sqlite:///{HERE / 'trips.db'}"),
            jwt_secret=secret,
            version_interval_s=60,
        )
        local = settings.host in ("127.0.0.1", "localhost", "::1")
        app = make_app(settings, secret, local=local)
        listener = listen(settings.host, settings.port if "CRDT_SYNC_PORT" in os.environ else None)
    except (InvalidSettings, OSError) as error:
        print(f"The demo can't start: {error}", file=sys.stderr)
        return 2
    port = listener.getsockname()[1]
    everywhere = settings.host in ("0.0.0.0", "::")
    print(
        f"\n  The trip planner is at  http://{'127.0.0.1' if everywhere else settings.host}:{port}/\n"
        "  Open it in two windows, side by side, and edit in both.  Ctrl-C stops it.\n"
        + ("" if local else f"\n  EVERYBODY who can reach this machine at port {port} can read and edit all trips.\n"),
        flush=True,
    )
    config = uvicorn.Config(
        app, log_level="warning", ws="websockets-sansio", ws_per_message_deflate=False, timeout_graceful_shutdown=2
    )
    # uvicorn raises the signal again by which it was ended.
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
