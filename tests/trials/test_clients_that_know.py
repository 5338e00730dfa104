"""Both clients that know what is saved, through cut connections and killed servers: what they called saved was committed.

What a client has called saved is compared with the database in the moment in which the server is dead, before anybody comes back and
brings along what was lost.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pycrdt import Doc, Map

from crdt_sync import client
from tests.support.clients import NODE_VERSIONS, NodeClient, NodeClients
from tests.support.database import stored_updates
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess
from tests.support.yjs import Yjs

ROOM = "trip-1"


class Browser:
    """A stock provider with the plug-in."""

    def __init__(self, node: NodeClient) -> None:
        self._node = node

    async def account(self) -> tuple[int, int]:
        """How many edits it has made, and how many of these it has called saved: the first ones."""
        made, unsaved = await self._node.evaluate("[client.made, client.plugin.unsaved]")
        return made, made - unsaved


class Script:
    """The same in Python."""

    def __init__(self, url: str) -> None:
        self._doc: Doc[Any] = Doc()
        self._room = client.connect(url, ROOM, self._doc)
        self._made = 0

    @contextlib.asynccontextmanager
    async def editing(self, name: str) -> AsyncIterator[None]:
        """Edit for as long as the block lasts."""
        map_ = self._doc.get("map", type=Map)

        async def edit() -> None:
            while True:
                self._made += 1
                map_[f"{name}:{self._made - 1}"] = 1
                await asyncio.sleep(0.007)

        async with self._room:
            task = asyncio.create_task(edit())
            yield
            task.cancel()
            await asyncio.wait([task])

    async def account(self) -> tuple[int, int]:
        """See `Browser.account`."""
        return self._made, self._made - self._room.unsaved


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.long)])
async def test_what_was_called_saved_is_in_the_database_of_a_killed_server(
    rounds: int, clients: NodeClients, tmp_path: Path, yjs: Yjs
) -> None:
    rng = random.Random(rounds)
    in_doubt = 0
    async with ServerProcess(tmp_path) as server, Proxy(server.port) as proxy:
        url = proxy.url(server.url)
        authors: dict[str, Browser | Script] = {}
        for version in NODE_VERSIONS:
            # Not synced yet: attached at any moment of its connection.
            node = await clients.create(url, ROOM, version, synced=False)
            await asyncio.sleep(rng.random() / 100)
            await node.attach()
            await node.keep_editing(version, every_ms=7)
            authors[version] = Browser(node)
        authors["python"] = script = Script(url)
        async with script.editing("python"):
            for round_ in range(rounds):
                await asyncio.sleep(rng.uniform(0.3, 1))
                if rng.random() < 0.5:
                    proxy.cut()
                    await asyncio.sleep(rng.uniform(0, 0.5))
                server.kill()
                accounts = {name: await author.account() for name, author in authors.items()}
                loaded = yjs.apply(stored_updates(server.database_url, ROOM), {"map": "map"}).content["map"]
                stored = set(loaded.get("v", loaded))
                for name, (made, saved) in accounts.items():
                    in_doubt += made - saved
                    lost = [i for i in range(saved) if f"{name}:{i}" not in stored]
                    assert lost == [], f"round {round_}: {name} called {saved} of {made} edits saved"
                await server.start()
        assert all([(await author.account())[1] > 0 for author in authors.values()])
        server.kill()

    # Kills that came when everything was saved would have shown nothing.
    assert in_doubt > rounds * len(authors)
