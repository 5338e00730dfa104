"""The buses under contract. A new one is one more entry in `BUSES`."""

import asyncio
import secrets
from collections.abc import Callable

import pytest

from crdt_sync.bus import Bus
from crdt_sync.bus.memory import Hub, MemoryBus
from crdt_sync.bus.redis import RedisBus

from ..support.redis import RedisCluster, RedisServer

MakeBus = Callable[[], Bus]


def memory_place(request: pytest.FixtureRequest) -> MakeBus:
    hub = Hub()
    return lambda: MemoryBus(hub)


def redis_place(request: pytest.FixtureRequest) -> MakeBus:
    server: RedisServer = request.getfixturevalue("redis")
    prefix = f"test-{secrets.token_hex(8)}"
    return lambda: RedisBus(server.url, prefix=prefix)


def cluster_place(request: pytest.FixtureRequest) -> MakeBus:
    cluster: RedisCluster = request.getfixturevalue("redis_cluster")
    prefix = f"test-{secrets.token_hex(8)}"
    return lambda: RedisBus(cluster.url, prefix=prefix)


BUSES: dict[str, Callable[[pytest.FixtureRequest], MakeBus]] = {
    "memory": memory_place,
    "redis": redis_place,
    "cluster": cluster_place,
}


class Ear:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.resyncs = 0
        self._changed = asyncio.Event()

    def receive(self, message: bytes) -> None:
        self.messages.append(message)
        self._changed.set()

    def resync(self) -> None:
        self.resyncs += 1
        self._changed.set()

    async def heard(self, *messages: bytes, timeout_s: float = 10) -> None:
        """Return once exactly these have arrived, in this order."""
        expected = list(messages)
        await self.until(lambda: len(self.messages) >= len(expected), timeout_s=timeout_s)
        assert self.messages == expected

    async def resynced(self, times: int = 1, *, timeout_s: float = 10) -> None:
        """Return once it was told to resync so often."""
        await self.until(lambda: self.resyncs >= times, timeout_s=timeout_s)

    async def until(self, condition: Callable[[], bool], *, timeout_s: float = 10) -> None:
        """Return once the condition is true, which is looked at whenever something happens here."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()
