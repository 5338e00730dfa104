"""A network between a node and its Redis that also loses, repeats and reorders single pub/sub messages."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .proxy import Proxy

if TYPE_CHECKING:
    from .proxy import _Link

_CHUNK_BYTES = 65536
_PUSHED = (b"*3\r\n$7\r\nmessage\r\n", b"*3\r\n$8\r\nsmessage\r\n")


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What becomes of a message: one throw of the dice decides, so the chances add up to 1 at most."""

    lost: float = 0.3
    repeated: float = 0.2
    late: float = 0.3
    """Overtaken by those that come within `late_s_max`."""
    late_s_max: float = 0.3


class RedisProxy(Proxy):
    """A `Proxy` that knows where a message begins and ends. Answers to commands always pass as they are.

    It reads RESP2, as the bus speaks it.
    """

    def __init__(self, server_port: int) -> None:
        """Prepare, start nothing.

        Args:
            server_port: Where Redis listens.
        """
        super().__init__(server_port)
        self.messages: Counter[str] = Counter()
        """How many messages were `passed`, `lost`, `repeated` and `late` so far."""
        self._disturbance: Disturbance | None = None
        self._rng = random.Random()

    def disturb(self, disturbance: Disturbance, *, rng: random.Random) -> None:
        """Treat messages like that from now on."""
        self._disturbance, self._rng = disturbance, rng

    def behave(self) -> None:
        """Let every message pass again, once and in order. What is late still comes."""
        self._disturbance = None

    async def _pass_answers(self, link: _Link, reader: asyncio.StreamReader) -> None:
        disturbed = asyncio.StreamReader()
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(super()._pass_answers(link, disturbed))
            pumps.create_task(self._disturb(reader, disturbed))

    async def _disturb(self, reader: asyncio.StreamReader, disturbed: asyncio.StreamReader) -> None:
        late: list[asyncio.TimerHandle] = []
        rest = b""
        try:
            while data := await reader.read(_CHUNK_BYTES):
                rest += data
                start = 0
                while (end := reply_end(rest, start)) is not None:
                    self._put(rest[start:end], disturbed, late)
                    start = end
                rest = rest[start:]
        except OSError:
            pass
        finally:
            for handle in late:
                handle.cancel()
            disturbed.feed_eof()

    def _put(self, reply: bytes, disturbed: asyncio.StreamReader, late: list[asyncio.TimerHandle]) -> None:
        fate = self._fate() if reply.startswith(_PUSHED) else None
        if fate is not None:
            self.messages[fate] += 1
        if fate == "late":
            assert self._disturbance is not None
            after_s = self._rng.uniform(0, self._disturbance.late_s_max)
            late.append(asyncio.get_running_loop().call_later(after_s, disturbed.feed_data, reply))
        elif fate != "lost":
            disturbed.feed_data(reply * (2 if fate == "repeated" else 1))

    def _fate(self) -> str:
        chances = self._disturbance
        if chances is None:
            return "passed"
        dice = self._rng.random()
        for fate, chance in (("lost", chances.lost), ("repeated", chances.repeated), ("late", chances.late)):
            if dice < chance:
                return fate
            dice -= chance
        return "passed"


def reply_end(data: bytes, pos: int) -> int | None:
    """Find the end of a RESP2 reply.

    Args:
        data: What has come so far.
        pos: Where the reply begins.

    Returns:
        The index just after it, None if it isn't all there yet.
    """
    expected = 1
    while expected:
        line_end = data.find(b"\r\n", pos)
        if line_end < 0:
            return None
        kind, rest = data[pos : pos + 1], data[pos + 1 : line_end]
        pos = line_end + 2
        expected -= 1
        if kind == b"*":
            expected += max(0, int(rest))
        elif kind == b"$" and int(rest) >= 0:
            pos += int(rest) + 2
            if pos > len(data):
                return None
    return pos
