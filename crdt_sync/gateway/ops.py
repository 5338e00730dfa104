"""What an operator's machinery asks: may this node get traffic?"""

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse

from persistence import Store, StoreError

from ..bus import Bus
from ..journal import Journal
from ..load import Load

# Shorter than a probe's own timeout usually is.
CHECK_TIMEOUT_S = 1.0
# However often it is asked for, the store is checked no more often than this.
CHECK_INTERVAL_S = 0.5


class Readiness:
    """Whether edits that arrive now would be stored.

    Args:
        store: Checked when somebody asks.
        journal: Knows whether what arrived is being stored.
        bus: The way to other nodes, if there is one.
        load: Whether the node can keep up.
    """

    def __init__(self, store: Store, journal: Journal, bus: Bus | None = None, load: Load | None = None) -> None:
        self._store = store
        self._journal = journal
        self._bus = bus
        self._load = load
        self.draining = False
        """Whether this node is going away."""
        self._check: asyncio.Task[str | None] | None = None
        self._checked_at = float("-inf")

    async def problems(self) -> dict[str, str]:
        """By part, why this node shouldn't get traffic; empty if it should."""
        found = {"store": await self._store_problem(), "journal": self._journal_problem()}
        if self.draining:
            found["draining"] = "this node is going away"
        return {part: problem for part, problem in found.items() if problem is not None}

    def warnings(self) -> dict[str, str]:
        """By part, what is wrong but no reason to send nobody here: without the bus, edits are stored all the same."""
        parts = {"bus": self._bus, "load": self._load}
        found = {name: part.problem for name, part in parts.items() if part is not None}
        return {part: problem for part, problem in found.items() if problem is not None}

    def _journal_problem(self) -> str | None:
        since = self._journal.failing_since
        if since is not None:
            return f"nothing could be stored for {asyncio.get_running_loop().time() - since:.1f} s"
        if self._journal.unstored_bytes > self._journal.bytes_max / 2:
            return f"{self._journal.unstored_bytes} bytes wait to be stored"
        return None

    async def _store_problem(self) -> str | None:
        loop = asyncio.get_running_loop()
        if self._check is None or (self._check.done() and loop.time() - self._checked_at >= CHECK_INTERVAL_S):
            self._check = loop.create_task(self._check_store())
        # Shared: whoever asks meanwhile gets the same answer.
        return await asyncio.shield(self._check)

    async def _check_store(self) -> str | None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await self._store.check()
        except StoreError as error:
            return str(error)
        except TimeoutError:
            return f"no answer within {CHECK_TIMEOUT_S:g} s"
        finally:
            self._checked_at = asyncio.get_running_loop().time()
        return None


async def ready(request: Request) -> JSONResponse:
    """`GET /ready`: 200, or 503 with the reason per part."""
    readiness: Readiness = request.app.state.parts.readiness
    problems = await readiness.problems()
    answer = {"ready": not problems, "problems": problems, "warnings": readiness.warnings()}
    return JSONResponse(answer, status_code=503 if problems else 200)
