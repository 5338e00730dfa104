"""The admin page: what stands below `/admin`, and who gets it.

It is static and knows nothing: its scripts ask the HTTP API, which judges each request by the token that the page's user
has given it. Nothing on it comes from elsewhere, and browsers are told so.
"""

import hashlib
from importlib.resources import files
from pathlib import PurePath

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from .parts import Parts

MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    # Names and documents come from strangers. Should one ever get out of its text, there is nothing that it could do:
    # no script or style but our files, no request but to this server, no markup from strings, no frame around it.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Asked for anew each time, so that an upgraded server and its page fit together.
    "cache-control": "no-cache",
}
INDEX = "index.html"


class AdminPage:
    """Answers `GET /admin` and what is below it."""

    def __init__(self) -> None:
        self._files = {one.name: one.read_bytes() for one in (files(__package__) / "admin").iterdir() if one.is_file()}

    async def answer(self, request: Request) -> Response:
        """Answer a request: a file, or 404 where there is no page."""
        parts: Parts = request.app.state.parts
        if not parts.access.has_admin_page(request.scope):
            return PlainTextResponse(
                "There is no admin page: set CRDT_SYNC_JWT_SECRET or another key, or open it on the server's own machine.\n",
                status_code=404,
            )
        name = request.path_params.get("name", INDEX)
        if name == "":
            # Its links are relative, so that it works wherever the server is mounted.
            return RedirectResponse("../admin", headers=HEADERS)
        content = self._files.get(name)
        if content is None:
            return PlainTextResponse("There is no such file: the page is at /admin.\n", status_code=404)
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = HEADERS | {"etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=MEDIA_TYPES[PurePath(name).suffix], headers=headers)
