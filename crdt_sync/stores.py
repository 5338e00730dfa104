"""The configured store: made, and opened as soon as it can be reached."""

import asyncio
import logging

from persistence import Store, StoreUnavailable, open_store

from .settings import Settings

log = logging.getLogger("crdt_sync.store")

RETRY_S_MIN = 0.1
RETRY_S_MAX = 2.0


def make_store(settings: Settings, *, read_only: bool = False) -> Store:
    """Make the store that the settings name, not open yet.

    Args:
        settings: Where it is, and what may be done with it.
        read_only: Whether to change nothing, so that a server may be using it.

    Raises:
        StoreUnusable: They name none.
    """
    return open_store(
        settings.database_url,
        replica_url=settings.database_replica_url,
        migrate=settings.database_migrate,
        read_only=read_only,
        timeout_s=settings.database_timeout_s,
        connections_max=settings.database_connections_max,
    )


async def open_when_reachable(store: Store, timeout_s: float) -> None:
    """Open the store. A database that starts together with its servers may need a moment.

    Raises:
        StoreUnavailable: It couldn't be reached for `timeout_s`.
        StoreUnusable: Waiting won't help.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    retry_s = RETRY_S_MIN
    waits = False
    while True:
        try:
            await store.open()
            return
        except StoreUnavailable as error:
            if loop.time() + retry_s > deadline:
                raise
            if not waits:
                waits = True
                log.warning("store_awaited", extra={"error": str(error), "timeout_s": timeout_s})
        await asyncio.sleep(retry_s)
        retry_s = min(retry_s * 2, RETRY_S_MAX)
