"""Several nodes as their users run them, on one PostgreSQL and one Redis, and clients that go from node to node."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.exceptions import WebSocketException

from crdt_sync.lib0 import write_var_bytes, write_var_uint
from crdt_sync.protocol import CONFIRM

from .editor import Editor
from .redis import RedisServer
from .redis_proxy import RedisProxy
from .server import ServerProcess


class Cluster:
    """Nodes that each reach Redis by way of a proxy of their own.

    Use as an async context manager: leaving it stops the nodes that run, and fails if one doesn't do so gracefully.
    """

    def __init__(
        self,
        folder: Path,
        *,
        database_url: str,
        redis: RedisServer,
        nodes: int = 3,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare, start nothing.

        Args:
            folder: Takes the logs.
            database_url: A PostgreSQL.
            redis: Needn't run yet.
            nodes: How many.
            env: More environment for each.
        """
        self.database_url = database_url
        self.links = [RedisProxy(redis.port) for _ in range(nodes)]
        self.nodes = [
            ServerProcess(
                folder,
                database_url=database_url,
                env={"CRDT_SYNC_REDIS_URL": link.url(redis.url), **(env or {})},
            )
            for link in self.links
        ]

    async def __aenter__(self) -> Cluster:
        for link in self.links:
            await link.accept()
        try:
            await together(*(node.start for node in self.nodes))
        except BaseException:
            await self._close_links()
            raise
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await together(*(partial(node.__aexit__, error_type, error, traceback) for node in self.nodes))
        finally:
            await self._close_links()

    @property
    def urls(self) -> list[str]:
        """Of the nodes."""
        return [node.url for node in self.nodes]

    @property
    def log(self) -> str:
        """What all of them have printed."""
        return "".join(node.log for node in self.nodes)

    async def until_all_are_found(self, *, timeout_s: float = 5) -> None:
        """Wait until each node has heard of all others, in the log of its first life."""
        others = len(self.nodes) - 1
        found = await until(lambda: all(n.log.count("node_found") >= others for n in self.nodes), timeout_s=timeout_s)
        assert found, self.log

    async def _close_links(self) -> None:
        for node in self.nodes:
            node.kill()  # harmless after it has stopped
        for link in self.links:
            await link.__aexit__()


class Wanderer(Editor):
    """An editor that can go on at another node, with what it has written so far.

    There it asks once more for the confirmations that it hasn't got, if it `confirms` at all.
    """

    def __init__(self, url: str, room: str, *, name: str | None = None, confirms: bool = True) -> None:
        super().__init__(url, room, name=name)
        self.room = room
        self.url = url
        self.confirms = confirms
        self.own: list[bytes] = []
        """Every update that it made. With `received` that is all it knows, for real Yjs to judge."""

    @property
    def text(self) -> str:
        """The text in this client's document."""
        return str(self._text)

    @property
    def unconfirmed(self) -> set[str]:
        """Edits whose confirmation it waits for."""
        return self.sent.keys() - self.confirmed.keys() if self.confirms else set()

    async def edit(self, *, confirm: bool = True, size: int = 0) -> str:
        """See `Editor.edit`."""
        try:
            return await super().edit(confirm=confirm, size=size)
        finally:
            self.own += self._out  # what came meanwhile is there as well, and does no harm

    def lose_connection(self) -> None:
        """Have the connection break, without a word to either side."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def go_to(self, url: str, *, timeout_s: float = 5) -> bool:
        """Leave for another node, or come back to this one.

        Returns:
            Whether that node took it in.
        """
        await self.close()
        self.url, self._url = url, f"{url}/{self.room}"
        self.synced.clear()
        self.close_code = None
        try:
            async with asyncio.timeout(timeout_s):
                await self.open()
                # By then it has answered the node's step 1, too: what it wrote is there.
                await self.until(lambda: self.synced.is_set() or self.close_code is not None, timeout_s)
                if not self.synced.is_set():
                    return False
                assert self._socket is not None, "open"
                for key in self.unconfirmed:
                    await self._socket.send(write_var_uint(CONFIRM) + write_var_bytes(key.encode()))
        except (OSError, EOFError, WebSocketException):
            return False
        return True


async def together(*works: Callable[[], Any]) -> None:
    """Do several things at once; the first failure is raised when all have ended."""
    results = await asyncio.gather(*(work() for work in works), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def until(condition: Callable[[], object], *, timeout_s: float) -> bool:
    """Wait until a condition is true; returns whether it was within that time."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


async def readiness(node: ServerProcess) -> tuple[int, dict[str, Any]]:
    """What `GET /ready` answers: status and body."""
    url = node.url.replace("ws:", "http:") + "/ready"

    def ask() -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return await asyncio.to_thread(ask)


def differences(contents: Mapping[str, set[str]]) -> str:
    """Who lacks what of all that anybody has, for people."""
    everything = set[str]().union(*contents.values())
    lines = [f"{len(everything)} edits in all"]
    for name, content in contents.items():
        if missing := sorted(everything - content):
            lines.append(f"{name} lacks {len(missing)}: {_some(missing)}")
    return "\n".join(lines)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
