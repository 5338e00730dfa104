"""Long work on the event loop, in short stretches."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

# Others' messages wait no longer than this for their turn, and one item.
SLICE_S = 0.005


async def unhurried(items: Iterable[T]) -> AsyncIterator[T]:
    """Iterate, and give others their turn whenever a slice of time is used up."""
    loop = asyncio.get_running_loop()
    turn_ends = loop.time() + SLICE_S
    for item in items:
        yield item
        if loop.time() >= turn_ends:
            await asyncio.sleep(0)
            turn_ends = loop.time() + SLICE_S
