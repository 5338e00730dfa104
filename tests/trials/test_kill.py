"""`kill -9` at random moments: nothing that was confirmed is missing afterwards.

The authors are closed for good together with the server. Clients that came back would bring their edits along and hide
what the server had lost.
"""

import asyncio
import contextlib
import random
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.database import stored_updates
from tests.support.editor import Editor
from tests.support.server import ServerProcess
from tests.support.yjs import Yjs

ROOM = "trip-1"
EDITORS = 8


@pytest.mark.parametrize("rounds", [15, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
async def test_nothing_confirmed_is_lost_when_the_server_is_killed(rounds: int, tmp_path: Path, yjs: Yjs) -> None:
    rng = random.Random(rounds)
    confirmed: set[str] = set()
    unconfirmed = 0
    # Checkpoints as often as kills, so that some of the kills hit one.
    async with ServerProcess(tmp_path, env={"CRDT_SYNC_CHECKPOINT_INTERVAL_S": "0.3"}) as server:
        for round_ in range(rounds):
            editors = await edit_until_killed(server, rng, round_)
            confirmed.update(*(editor.confirmed for editor in editors))
            unconfirmed += sum(len(editor.sent) - len(editor.confirmed) for editor in editors)

            await server.start()

            assert confirmed <= what_yjs_reads(yjs, stored_updates(server.database_url, ROOM)), f"round {round_}"
            async with Editor(server.url, ROOM) as newcomer:
                await asyncio.wait_for(newcomer.synced.wait(), 10)
                assert confirmed <= what_yjs_reads(yjs, newcomer.received), f"round {round_}"

    # A trial in which the kill never came between an edit and its confirmation would have shown nothing.
    assert unconfirmed > rounds
    assert len(confirmed) > rounds * EDITORS


async def edit_until_killed(server: ServerProcess, rng: random.Random, round_: int) -> list[Editor]:
    """Have eight clients edit and ask for confirmation, kill the server in the middle of it, and close them all."""
    editors = [Editor(server.url, ROOM, name=f"{round_}.{n}") for n in range(EDITORS)]
    try:
        async with asyncio.TaskGroup() as group:
            for editor in editors:
                group.create_task(editor.open())
        typing = [asyncio.create_task(keep_editing(editor, random.Random(rng.random()))) for editor in editors]
        await asyncio.sleep(rng.uniform(0.2, 1.0))  # the moment is the point
        server.kill()
        await asyncio.wait(typing)
    finally:
        for editor in editors:
            await editor.close()
    return editors


async def keep_editing(editor: Editor, rng: random.Random) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await editor.edit(size=rng.choice((0, 10, 1000)))
            await asyncio.sleep(rng.uniform(0, 0.03))


def what_yjs_reads(yjs: Yjs, updates: list[bytes]) -> set[str]:
    """The edits in a document, as real Yjs loads it; each is in the map and in the text."""
    loaded = yjs.apply(updates, {"edits": "map", "text": "text"})
    assert loaded.error is None
    assert not loaded.pending
    edits = set(loaded.content["edits"]["v"] if "v" in loaded.content["edits"] else loaded.content["edits"])
    words = set(loaded.content["text"]["string"].split())
    assert edits == words
    return edits
