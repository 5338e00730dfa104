"""What the routes work with; made anew by each lifespan, found in `app.state.parts`."""

from dataclasses import dataclass

from persistence import Store

from ..revocations import Revocations
from ..rooms import Rooms
from ..sessions import Sessions
from .access import Access
from .ops import Readiness


@dataclass(frozen=True, slots=True)
class Parts:
    """One running server."""

    store: Store
    rooms: Rooms
    access: Access
    sessions: Sessions
    revocations: Revocations
    readiness: Readiness
