"""What an operator's machinery asks: does it live, may it get traffic, what has it counted?

`/ready` and `/metrics` are about the whole node: where several processes serve its port, the one that is asked asks the
others. `/health` is about this process alone, and waits for nothing.
"""

import asyncio
import hmac
import json
import logging
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from auth import Right

from ..errors import SyncError
from ..metrics import ALL_WORKERS, Sample, from_json, render
from ..settings import Settings
from ..siblings import Siblings
from .access import is_from_this_machine, read_credentials, require_everywhere
from .parts import Parts
from .problems import Problem, problem_of
from .readings import take_readings

log = logging.getLogger("crdt_sync.probes")

PATHS = ("/health", "/ready", "/metrics")
READY = "ready"
METRICS = "metrics"


class Probes:
    """Answers the three paths.

    Args:
        settings: Who may read the metrics.
        state: The application's, where its lifespan puts its parts, and whoever runs several processes their `siblings`.
    """

    def __init__(self, settings: Settings, state: State) -> None:
        self._settings = settings
        self._state = state

    def application(self) -> Starlette:
        """For a port that is for this alone."""
        answers = (self.health, self.ready, self.metrics)
        return Starlette(routes=[Route(path, answer) for path, answer in zip(PATHS, answers, strict=True)])

    def routes_beside_rooms(self) -> list[Route]:
        """For the port that clients come to. Where there is another for this, these are not found here."""
        if self._settings.ops_port is not None:
            return [Route(path, _elsewhere) for path in PATHS]
        answers = (self.health, self.ready, self.guarded_metrics)
        return [Route(path, answer) for path, answer in zip(PATHS, answers, strict=True)]

    async def health(self, request: Request) -> Response:
        """`GET /health`: 200, as long as there is anybody to say so."""
        return PlainTextResponse("ok\n")

    async def ready(self, request: Request) -> Response:
        """`GET /ready`: 200, or 503 with the reason per part."""
        report, answers = await asyncio.gather(self._report(), self._ask(READY))
        problems, warnings = report["problems"], report["warnings"]
        for number, answer in answers.items():
            other = json.loads(answer)
            for mine, theirs in ((problems, other["problems"]), (warnings, other["warnings"])):
                for part, reason in theirs.items():
                    mine.setdefault(part, f"{reason} (worker {number})")
        if missing := self._missing(answers):
            warnings["workers"] = f"{missing} of them didn't answer"
        answer = {"ready": not problems, "problems": problems, "warnings": warnings}
        return JSONResponse(answer, status_code=503 if problems else 200)

    async def metrics(self, request: Request) -> Response:
        """`GET /metrics`: what Prometheus reads, of all processes."""
        own, answers = await asyncio.gather(self._snapshot(), self._ask(METRICS))
        snapshots = {self._worker: own, **{str(number): from_json(json.loads(one)) for number, one in answers.items()}}
        snapshots[ALL_WORKERS] = [Sample("workers_missing", (), self._missing(answers))]
        text, content_type = render(snapshots, request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    async def guarded_metrics(self, request: Request) -> Response:
        """`metrics`, for who may read them."""
        try:
            await self._admit(request)
        except SyncError as error:
            return problem_of(error).response()
        return await self.metrics(request)

    async def tell(self, question: str) -> bytes:
        """Answer a sibling."""
        if question == METRICS:
            return json.dumps(await self._snapshot()).encode()
        return json.dumps(await self._report()).encode()

    async def _admit(self, request: Request) -> None:
        """Let in who asks on this machine, shows the token for metrics, or is an admin.

        Raises:
            SyncError: It is nobody of these.
        """
        credentials = read_credentials(request.scope)
        if is_from_this_machine(request.scope, credentials.headers):
            return
        token = self._settings.metrics_token
        if token is not None and credentials.token is not None:
            expected = token.get_secret_value().encode()
            if hmac.compare_digest(expected, credentials.token.encode(errors="replace")):
                return
        parts: Parts = request.app.state.parts
        require_everywhere(await parts.access.admit(request.scope, credentials), Right.ADMIN)

    @property
    def _parts(self) -> Parts | None:
        return getattr(self._state, "parts", None)

    @property
    def _siblings(self) -> Siblings | None:
        return getattr(self._state, "siblings", None)

    @property
    def _worker(self) -> str:
        return str(self._siblings.number) if self._siblings is not None else "0"

    async def _ask(self, question: str) -> dict[int, bytes]:
        return await self._siblings.ask(question) if self._siblings is not None else {}

    def _missing(self, answers: dict[int, bytes]) -> int:
        return self._siblings.missing(answers) if self._siblings is not None else 0

    async def _report(self) -> dict[str, Any]:
        if self._parts is None:
            return {"problems": {"start": "it isn't up yet"}, "warnings": {}}
        readiness = self._parts.readiness
        return {"problems": await readiness.problems(), "warnings": readiness.warnings()}

    async def _snapshot(self) -> list[Sample]:
        parts = self._parts
        if parts is None:
            return [Sample("ready", (), 0)]
        return parts.metrics.snapshot(await take_readings(parts), parts.limits.refused)


async def _elsewhere(request: Request) -> Response:
    return Problem(404, "no such resource", "CRDT_SYNC_OPS_PORT is set: ask there").response()
