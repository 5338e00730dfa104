"""What a request to the HTTP API is made of, and what all operations do with one."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from auth import Grant, Right
from persistence import Row

from ..elsewhere import ProcessLost
from ..errors import DocumentGone, MessageTooBig
from ..formats import FORMATS, show
from ..settings import Settings
from .access import require, require_everywhere
from .parts import Parts
from .problems import Problem

log = logging.getLogger("crdt_sync.api")

# What is made of this much takes some tens of milliseconds in a thread, and so little memory that collecting its garbage holds up
# nobody. A process would take its time to start.
IN_THREAD_BYTES_MAX = 64 << 10
# 16 MiB at 4.5 Mbit/s.
BODY_TIMEOUT_S = 30.0
SMALL_BODY_BYTES_MAX = 64 << 10
UPDATE = "application/octet-stream"
JSON = "application/json"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One request, and who makes it."""

    request: Request
    parts: Parts
    settings: Settings
    grant: Grant
    values: dict[str, str]
    """What stands in the path for `{room}` and the like."""

    @property
    def room(self) -> str:
        """The room that it is about."""
        return self.values["room"]

    async def body(self, bytes_max: int) -> bytes:
        """The request's body. May take its time; the grant still counts then.

        Raises:
            MessageTooBig: It is larger.
            Problem: It doesn't come to an end.
            SyncError: The grant counts no longer.
        """
        parts = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for part in self.request.stream():
                    parts += part
                    if len(parts) > bytes_max:
                        raise MessageTooBig(f"a body of more than {bytes_max} bytes")
        except ClientDisconnect as error:
            raise Problem(400, "request cut short") from error
        except TimeoutError as error:
            detail = f"the body took longer than {BODY_TIMEOUT_S:g} s"
            raise Problem(408, "request timeout", detail, headers={"connection": "close"}) from error
        self.parts.access.check(self.grant, self.values.get("room"))
        return bytes(parts)


Handler: TypeAlias = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked for."""

    method: str
    path: str
    """Below `/api/v1`, with `{room}` and the like for one segment each."""
    right: Right
    """What is needed: in the room, if the path has one, else in `*`."""
    handler: Handler
    any_room: bool = False
    """Whether it is for everyone, and shows to each what he has a right to."""
    query: tuple[str, ...] = ()
    """Parameters that may stand in the query."""
    body: str | None = None
    """Media type of the request's body, if there is one."""
    answer: str = JSON
    """Media type of the answer, by default."""

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (self.handler.__doc__ or "").strip().splitlines()[0]


def authorize(operation: Operation, grant: Grant, values: dict[str, str]) -> None:
    """Check that a grant allows an operation.

    Raises:
        Forbidden: It doesn't.
    """
    if operation.any_room:
        return
    if "room" in values:
        require(grant, values["room"], operation.right)
    else:
        require_everywhere(grant, operation.right)


async def head_seq_of(call: Call) -> int:
    """Seq of the room's last stored update; 0 for one that is open and has nothing stored.

    Raises:
        Problem: There is no such document.
        DocumentGone: It was deleted.
    """
    head_seq = (await call.parts.store.heads([call.room])).get(call.room, 0)
    if head_seq is None:
        raise DocumentGone(f"{call.room!r} was deleted")
    if head_seq == 0 and call.room not in call.parts.rooms:
        raise Problem(404, "no such document")
    return head_seq


def read_number(request: Request, name: str, default: int, most: int) -> int:
    """A parameter of the query that is a number from 1 on.

    Raises:
        Problem: It is none, or above `most`.
    """
    text = request.query_params.get(name, str(default))
    # Not longer: Python refuses to read numbers of thousands of digits.
    if len(text) > len(str(most)) or not text.isdecimal() or not 1 <= int(text) <= most:
        raise Problem(400, "malformed request", f"{name} is a number from 1 to {most}")
    return int(text)


async def content_of(call: Call, update: bytes, *, headers: dict[str, str] | None = None) -> Response:
    """A document's content in the form that `?format=` asks for.

    Raises:
        Problem: There is no such form.
    """
    form = read_format(call.request)
    if form == "update":
        return Response(update, media_type=UPDATE, headers=headers)
    body = await elsewhere(call, show, update, form)
    return Response(body, media_type="text/plain" if form == "text" else JSON, headers=headers)


def read_format(request: Request) -> str:
    """Which form of a document is asked for.

    Raises:
        Problem: There is no such form.
    """
    form = request.query_params.get("format", "update")
    if form not in FORMATS:
        raise Problem(400, "unknown format", f"format is one of {', '.join(FORMATS)}")
    return form


async def elsewhere(call: Call, work: Callable[..., T], *args: object, **options: object) -> T:
    """Do long work that is Python, where it holds up nobody; one after the other.

    Raises:
        Problem: The process that does it ended.
    """
    async with call.parts.showing:
        if _bytes_in([*args, *options.values()]) <= IN_THREAD_BYTES_MAX:
            return await asyncio.to_thread(work, *args, **options)
        try:
            return await call.parts.elsewhere.run(work, *args, **options)
        except ProcessLost as error:
            log.error("work_lost", extra={"room": call.values.get("room"), "error": str(error)})
            detail = "the process that worked on it ended: it may have needed more memory than there is"
            raise Problem(503, "not done", detail) from error


def _bytes_in(values: Iterable[object]) -> int:
    """How many bytes of documents and of rows there are."""
    size = 0
    for value in values:
        if isinstance(value, bytes):
            size += len(value)
        elif isinstance(value, list):
            size += sum(len(one.update) for one in value if isinstance(one, Row))
    return size
