"""The HTTP API's way to find out whether what is stored of a document is what it has to be."""

import asyncio
from dataclasses import asdict

from starlette.responses import JSONResponse, Response

from auth import Right
from persistence import StoreCorrupt

from ..apart import Apart
from ..verifying import Checked, Finding
from .calls import Call, Operation
from .problems import Problem

# What isn't checked by then never will be: a large document takes some seconds.
VERIFY_S_MAX = 60


async def verify_document(call: Call) -> Response:
    """Check what is stored of a document, deleted or not: seqs, updates, snapshot. Nothing is changed."""
    store = call.parts.store
    try:
        export = await store.export(call.room, deleted=True, history=True)
    except StoreCorrupt as error:
        return JSONResponse(asdict(Checked(call.room, problems=(Finding("unreadable", str(error)),))))
    if export is None:
        raise Problem(404, "no such document")
    harmful = {one.digest for one in await store.quarantined() if one.document == call.room}
    # Elsewhere, since damaged bytes may be what native code crashes of.
    apart = Apart(limit_s=VERIFY_S_MAX)
    try:
        async with call.parts.verifying:
            checked = await asyncio.to_thread(apart.check, export, harmful)
    finally:
        apart.close()
    return JSONResponse(asdict(checked))


OPERATIONS = (Operation("GET", "/rooms/{room}/verification", Right.ADMIN, verify_document),)
