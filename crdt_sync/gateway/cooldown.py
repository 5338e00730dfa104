"""Slows down clients that come back at once after they were sent away for good.

y-websocket up to 3.0 doesn't know closing codes, and forgets its backoff as soon as it is let in: it would be back ten
times a second. Its next attempts are let in as late as a refused client would make them. Nobody is refused for it.
"""

import asyncio
from collections.abc import Hashable

# Eight attempts in 10 s, as at a server that refuses.
WAIT_S = 1.3
REMEMBER_S = 10.0
CLIENTS_MAX = 10_000


class Cooldown:
    """Who was sent away lately."""

    def __init__(self) -> None:
        self._until: dict[Hashable, float] = {}

    def note(self, client: Hashable, *, now: float) -> None:
        """A client was sent away for good."""
        self._until.pop(client, None)
        self._until[client] = now + REMEMBER_S
        while len(self._until) > CLIENTS_MAX or next(iter(self._until.values())) <= now:
            del self._until[next(iter(self._until))]

    def wait_s(self, client: Hashable, *, now: float) -> float:
        """How long to let a client wait before it is let in."""
        return WAIT_S if self._until.get(client, 0.0) > now else 0.0

    async def pause(self, client: Hashable) -> None:
        """Let a client wait for as long as it has to."""
        wait_s = self.wait_s(client, now=asyncio.get_running_loop().time())
        if wait_s:
            await asyncio.sleep(wait_s)
