"""Questions to one Redis server, and their answers, on a connection that is opened for the first of them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from . import BusUnavailable
from .redis_link import Link, LinkLost
from .redis_state import Shared

log = logging.getLogger("crdt_sync.bus")

QUESTIONS_MAX = 32


class _Question(NamedTuple):
    packed: bytes
    replies: int
    answer: asyncio.Future[list[object]]

    def fail(self, reason: str) -> None:
        """There won't be an answer, if there isn't one already."""
        if not self.answer.done():
            self.answer.set_exception(BusUnavailable(reason))


class Asker:
    """One connection for questions."""

    def __init__(self, shared: Shared, connect: Callable[[], Awaitable[Link]]) -> None:
        """Prepare.

        Args:
            shared: The server.
            connect: Opens a connection to it.
        """
        self._shared = shared
        self._connect = connect
        self._link: Link | None = None
        self._questions: list[_Question] = []
        self._wake = asyncio.Event()

    async def ask(self, question: bytes, replies: int = 1) -> list[object]:
        """Ask, and wait for the answer. Safe to cancel.

        Raises:
            BusUnavailable: There is none in time.
        """
        if self._shared.is_away:
            raise BusUnavailable(self._shared.health.problem or "away")
        answer: asyncio.Future[list[object]] = asyncio.get_running_loop().create_future()
        self._questions.append(_Question(question, replies, answer))
        self._wake.set()
        try:
            async with asyncio.timeout(self._shared.limits.timeout_s):
                return await answer
        except TimeoutError:
            raise BusUnavailable(self._shared.health.problem or "no answer in time") from None

    async def run(self) -> None:
        """Ask, for good."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._questions:
                    batch = [one for one in self._questions[:QUESTIONS_MAX] if not one.answer.done()]
                    del self._questions[:QUESTIONS_MAX]
                    if batch:
                        await self._answer(batch)
        finally:
            for one in self._questions:
                one.fail("the bus is closed")
            await self._hang_up()

    async def _answer(self, batch: list[_Question]) -> None:
        reason = "the bus is closed"
        try:
            answers = await self._exchange([one.packed for one in batch], sum(one.replies for one in batch))
            for one in batch:
                mine, answers = answers[: one.replies], answers[one.replies :]
                if not one.answer.done():
                    one.answer.set_result(mine)
        except LinkLost as error:
            reason = str(error)
        except Exception as error:
            log.exception("bus_failed")
            reason = repr(error)
        finally:
            for one in batch:
                one.fail(reason)

    async def _exchange(self, questions: list[bytes], replies: int) -> list[object]:
        if self._link is not None:
            started = asyncio.get_running_loop().time()
            try:
                return await self._link.exchange(questions, replies)
            except LinkLost:
                await self._hang_up()
                # A server may close connections that are idle. One that is slow is asked once only.
                if asyncio.get_running_loop().time() - started > self._shared.limits.timeout_s / 2:
                    raise
        try:
            self._link = await self._connect()
            return await self._link.exchange(questions, replies)
        except BaseException:
            await self._hang_up()
            raise

    async def _hang_up(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()
