"""What the routes work with; made anew by each lifespan, found in `app.state.parts`."""

import asyncio
from dataclasses import dataclass, field

from persistence import Store

from ..archiving import Archiving
from ..bus import Bus
from ..draining import Drain
from ..elsewhere import Elsewhere
from ..going_back import GoingBack
from ..journal import Journal
from ..limits import Limits
from ..load import Load
from ..metrics import Metrics
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
    bus: Bus | None
    journal: Journal
    rooms: Rooms
    access: Access
    sessions: Sessions
    revocations: Revocations
    readiness: Readiness
    drain: Drain
    limits: Limits
    load: Load
    metrics: Metrics
    going_back: GoingBack
    tracer: Tracer | None = None
    """Makes spans, if there are to be any."""
    showing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Held by whoever shows a document's content."""
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
    """Where large documents are shown, compared and brought back."""
    verifying: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Held by whoever checks what is stored of one."""
