"""Long work on the event loop, in short stretches."""

import asyncio
from collections.abc import AsyncIterator, Generator, Iterable
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Steps: TypeAlias = Generator[None, None, T]
"""Work that pauses every few milliseconds, and returns something in the end."""

# Others' messages wait no longer than this for their turn, and one item.
SLICE_S = 0.002


async def unhurried(items: Iterable[T]) -> AsyncIterator[T]:
    """Iterate, and give others their turn whenever a slice of time is used up."""
    loop = asyncio.get_running_loop()
    turn_ends = loop.time() + SLICE_S
    for item in items:
        yield item
        if loop.time() >= turn_ends:
            await asyncio.sleep(0)
            turn_ends = loop.time() + SLICE_S


def at_once(steps: Steps[T]) -> T:
    """Do all steps, and return what they amount to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


class Turns:
    """Long work of a node: one slice in each turn of the loop, whoever it is for."""

    def __init__(self, side_by_side: int = 2) -> None:
        """Prepare; `side_by_side` is how much work that may need much memory is under way at once."""
        self._large = asyncio.Semaphore(side_by_side)
        self._slice = asyncio.Lock()

    async def take_large(self, steps: Steps[T]) -> T:
        """Like `take`, when there is room for it."""
        async with self._large:
            return await self.take(steps)

    async def take(self, steps: Steps[T]) -> T:
        """Do all steps, and return what they amount to."""
        clock = asyncio.get_running_loop().time
        while True:
            async with self._slice:
                ends = clock() + SLICE_S
                while True:
                    try:
                        next(steps)
                    except StopIteration as end:
                        return end.value  # type: ignore[no-any-return]
                    if clock() >= ends:
                        break
            await asyncio.sleep(0)
