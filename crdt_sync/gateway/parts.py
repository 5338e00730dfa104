"""What the routes work with; made anew by each lifespan, found in `app.state.parts`."""

import asyncio
from dataclasses import dataclass, field

from persistence import Store

from ..archiving import Archiving
from ..going_back import GoingBack
from ..limits import Limits
from ..load import Load
from ..revocations import Revocations
from ..rooms import Rooms
from ..sessions import Sessions
from ..tracing import Tracer
from .access import Access
from .ops import Readiness


@dataclass(frozen=True, slots=True)
class Parts:
    """One running server."""

    store: Store
    archiving: Archiving
    rooms: Rooms
    access: Access
    sessions: Sessions
    revocations: Revocations
    readiness: Readiness
    limits: Limits
    load: Load
    going_back: GoingBack
    tracer: Tracer | None = None
    """Makes spans, if there are to be any."""
    showing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Held by whoever shows a document's content."""
    verifying: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Held by whoever checks what is stored of one."""
