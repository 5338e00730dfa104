"""Which operation of the API a request asks for, and its answer, errors included."""

import asyncio
import logging
from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from persistence import ArchiveUnavailable, StoreError

from .. import tracing
from ..errors import SyncError
from ..settings import Settings
from .access import read_credentials
from .calls import Call, Operation, authorize
from .openapi import document
from .operations import OPERATIONS
from .parts import Parts
from .problems import Problem, problem_of
from .sync import check_room_name, own_path

log = logging.getLogger("crdt_sync.api")

BASE = b"/api/v1/"
READS = frozenset({"GET", "HEAD", "OPTIONS"})


class ApiEndpoint:
    """Answers everything below `/api/`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def answer(self, request: Request) -> Response:
        """Answer a request; every error is an answer too."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        parts: Parts = request.app.state.parts
        path = own_path(request.scope).decode("latin-1")
        request.state.user = request.state.error = None
        span = tracing.begin(
            parts.tracer, "request", traceparent=request.headers.get("traceparent"), method=request.method, path=path
        )
        with tracing.within(span):
            response = await self._respond(request)
            if span is not None:
                span.describe(status=response.status_code)
        refused = request.state.error is not None
        level = logging.DEBUG if request.method in READS and not refused else logging.INFO
        if log.isEnabledFor(level):
            # Of the URL, the path alone: the rest may hold a token.
            fields = {
                "method": request.method,
                "path": path,
                "status": response.status_code,
                "after_s": round(loop.time() - began_at, 3),
                "user": request.state.user,
                "error": request.state.error,
            }
            log.log(level, "request", extra={name: value for name, value in fields.items() if value is not None})
        return response

    async def _respond(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except Problem as problem:
            return problem.response()
        except SyncError as error:
            request.app.state.parts.metrics.note_refusal(error)
            request.state.error = str(error)
            return problem_of(error).response()
        except ArchiveUnavailable as error:
            log.error("request_failed", extra={"error": str(error)})
            detail = "this version is in the archive, which can't be reached; what isn't archived can be read. The server's log says why"
            return Problem(503, "archive unavailable", detail, headers={"retry-after": "30"}).response()
        except StoreError as error:
            request.app.state.parts.metrics.store_errors += 1
            log.error("request_failed", extra={"error": str(error)})
            return Problem(503, "store unavailable", headers={"retry-after": "5"}).response()
        except Exception:
            log.exception("request_failed")
            return Problem(500, "internal error").response()

    async def _answer(self, request: Request) -> Response:
        segments = _segments(request)
        if segments == ["openapi.json"] and request.method in ("GET", "HEAD"):
            return JSONResponse(document())
        operation, values = _find(request.method, segments)
        parts: Parts = request.app.state.parts
        # Before the grant, so that a verifier never gets a name that can't be one.
        room = check_room_name(values["room"]) if "room" in values else None
        grant = await parts.access.admit(request.scope, read_credentials(request.scope, room))
        request.state.user = grant.user
        authorize(operation, grant, values)
        return await operation.handler(Call(request, parts, self._settings, grant, values))


def _segments(request: Request) -> list[str]:
    path = own_path(request.scope)
    if not path.startswith(BASE):
        raise Problem(404, "no such resource", "the API is below /api/v1/; /api/v1/openapi.json describes it")
    try:
        return [unquote_to_bytes(part).decode() for part in path.removeprefix(BASE).split(b"/")]
    except UnicodeDecodeError as error:
        raise Problem(400, "malformed request", "paths are UTF-8") from error


def _find(method: str, segments: list[str]) -> tuple[Operation, dict[str, str]]:
    allowed = set()
    for operation in OPERATIONS:
        pattern = operation.path[1:].split("/")
        if len(pattern) != len(segments):
            continue
        pairs = list(zip(pattern, segments, strict=True))
        if all(part == segment or (part.startswith("{") and segment) for part, segment in pairs):
            if operation.method == ("GET" if method == "HEAD" else method):
                return operation, {part[1:-1]: segment for part, segment in pairs if part.startswith("{")}
            allowed.add(operation.method)
    if allowed:
        raise Problem(405, "method not allowed", headers={"allow": ", ".join(sorted(allowed))})
    raise Problem(404, "no such resource", "/api/v1/openapi.json describes what there is")
