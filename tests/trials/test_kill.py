"""`kill -9` at random moments: nothing that was confirmed is missing afterwards.

The authors are closed for good together with the server. Clients that came back would bring their edits along and hide
what the server had lost. Likewise a server that survives its database: it is paused until the database was looked at.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.database import stored_updates
from tests.support.editor import Editor
from tests.support.postgres import PostgresServer, execute
from tests.support.server import ServerProcess
from tests.support.services import require
from tests.support.yjs import Yjs

ROOM = "trip-1"
EDITORS = 8
# Checkpoints as often as kills, so that some of the kills hit one.
OFTEN = {"CRDT_SYNC_CHECKPOINT_INTERVAL_S": "0.3"}

ROUNDS = pytest.mark.parametrize("rounds", [6, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])


@ROUNDS
async def test_nothing_confirmed_is_lost_when_the_server_is_killed(rounds: int, tmp_path: Path, yjs: Yjs) -> None:
    rng = random.Random(rounds)
    confirmed: set[str] = set()
    unconfirmed = 0
    async with ServerProcess(tmp_path, env=OFTEN) as server:
        for round_ in range(rounds):
            editors = await edit_until_killed(server, rng, round_)
            confirmed |= all_confirmed(editors)
            unconfirmed += len(all_sent(editors)) - len(all_confirmed(editors))

            await server.start()

            assert confirmed <= what_yjs_reads(yjs, stored_updates(server.database_url, ROOM)), f"round {round_}"
            assert confirmed <= await what_a_newcomer_is_sent(server, yjs), f"round {round_}"

    # A trial in which the kill never came between an edit and its confirmation would have shown nothing.
    assert unconfirmed > rounds
    assert len(confirmed) > rounds * EDITORS


@ROUNDS
async def test_nothing_confirmed_is_lost_when_postgresql_the_server_or_both_are_killed(
    rounds: int, tmp_path: Path, yjs: Yjs
) -> None:
    with require(PostgresServer) as postgres:
        async with ServerProcess(tmp_path, database_url=postgres.create_database(), env=OFTEN) as server:
            trial = Trial(postgres, server, yjs, random.Random(rounds))
            try:
                for round_ in range(rounds):
                    await trial.run_round(round_)
            finally:
                await trial.close_editors()

        ((snapshots,),) = execute(server.database_url, "SELECT count(*) FROM crdt_sync.document_snapshot")
        assert snapshots == 1
    # Each kind of kill came, and they came between edits and their confirmations.
    assert trial.rounds.keys() == trial.unconfirmed.keys() == {"postgres", "server", "both"}
    assert trial.unconfirmed.total() > rounds
    assert len(trial.confirmed) > rounds * EDITORS


class Trial:
    """Rounds of editing and killing, and what was confirmed over all of them."""

    def __init__(self, postgres: PostgresServer, server: ServerProcess, yjs: Yjs, rng: random.Random) -> None:
        self.confirmed: set[str] = set()
        self.rounds: Counter[str] = Counter()
        """How many rounds there were, by who was killed."""
        self.unconfirmed: Counter[str] = Counter()
        """How many edits waited for their confirmation at the moment of the kill, by who was killed."""
        self._postgres = postgres
        self._server = server
        self._yjs = yjs
        self._rng = rng
        self._editors: list[Editor] = []
        self._typing: list[asyncio.Task[None]] = []

    async def run_round(self, number: int) -> None:
        """Edit, kill, bring back what was killed, and look for everything confirmed."""
        kind = self._rng.choice(("postgres", "server", "both"))
        seed = f"round {number}: {kind}"
        if not self._editors:
            self._editors = await open_editors(self._server, number)
        rngs = [random.Random(self._rng.random()) for _ in self._editors]
        self._typing = [asyncio.create_task(keep_editing(*each)) for each in zip(self._editors, rngs, strict=True)]
        await asyncio.sleep(self._rng.uniform(0.2, 1.0))  # the moment is the point

        self.rounds[kind] += 1
        self.unconfirmed[kind] += len(all_sent(self._editors) - all_confirmed(self._editors))
        if kind == "postgres":
            await self._kill_postgres(seed)
        else:
            await self._kill_server(seed, and_postgres=kind == "both")

        assert self.confirmed <= await what_a_newcomer_is_sent(self._server, self._yjs), seed

    async def close_editors(self) -> None:
        """Close all clients for good."""
        for task in self._typing:
            task.cancel()
        editors, self._editors = self._editors, []
        for editor in editors:
            await editor.close()

    async def _kill_server(self, seed: str, *, and_postgres: bool) -> None:
        kills = [self._server.kill, *([self._postgres.kill] if and_postgres else [])]
        self._rng.shuffle(kills)
        for kill in kills:
            kill()
        await asyncio.wait(self._typing)
        self.confirmed |= all_confirmed(self._editors)
        await self.close_editors()

        if and_postgres:
            self._postgres.start()
        self._check_what_is_stored(seed)
        await self._server.start()

    async def _kill_postgres(self, seed: str) -> None:
        self._postgres.kill()
        await self._see_that_editing_goes_on()
        self._server.freeze()
        self._postgres.start()
        self.confirmed |= all_confirmed(self._editors)
        self._check_what_is_stored(seed)
        self._server.thaw()

        sent = all_sent(self._editors)
        async with asyncio.timeout(5):
            for editor in self._editors:
                await editor.until(lambda editor=editor: sent & editor.sent.keys() <= editor.confirmed.keys())

        for task in self._typing:
            task.cancel()
        await asyncio.wait(self._typing)
        await self._see_that_all_have_the_same(seed)
        self.confirmed |= all_confirmed(self._editors)
        self._check_what_is_stored(seed)

    async def _see_that_editing_goes_on(self) -> None:
        killed = {editor: set(editor.sent) for editor in self._editors}
        for editor in self._editors:
            others = [other for other in self._editors if other is not editor]
            await editor.until(
                lambda editor=editor, others=others: all(
                    editor.seen.keys() & (other.sent.keys() - killed[other]) for other in others
                )
            )

    async def _see_that_all_have_the_same(self, seed: str) -> None:
        last = await self._editors[0].edit()
        sent = all_sent(self._editors)
        for editor in self._editors:
            await editor.until(lambda editor=editor: sent <= editor.seen.keys() | editor.sent.keys())
            await editor.until(lambda editor=editor: editor.sent.keys() == editor.confirmed.keys())
        contents = [editor.edits() for editor in self._editors]
        assert all(content == contents[0] for content in contents), seed
        assert last in contents[0]

    def _check_what_is_stored(self, seed: str) -> None:
        stored = what_yjs_reads(self._yjs, stored_updates(self._server.database_url, ROOM))
        assert self.confirmed <= stored, seed


async def edit_until_killed(server: ServerProcess, rng: random.Random, round_: int) -> list[Editor]:
    """Have eight clients edit and ask for confirmation, kill the server in the middle of it, and close them all."""
    editors = await open_editors(server, round_)
    try:
        typing = [asyncio.create_task(keep_editing(editor, random.Random(rng.random()))) for editor in editors]
        await asyncio.sleep(rng.uniform(0.2, 1.0))  # the moment is the point
        server.kill()
        await asyncio.wait(typing)
    finally:
        for editor in editors:
            await editor.close()
    return editors


async def open_editors(server: ServerProcess, round_: int) -> list[Editor]:
    editors = [Editor(server.url, ROOM, name=f"{round_}.{n}") for n in range(EDITORS)]
    async with asyncio.TaskGroup() as group:
        for editor in editors:
            group.create_task(editor.open())
    return editors


async def keep_editing(editor: Editor, rng: random.Random) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await editor.edit(size=rng.choice((0, 10, 1000)))
            await asyncio.sleep(rng.uniform(0, 0.03))


def all_sent(editors: Iterable[Editor]) -> set[str]:
    return {edit for editor in editors for edit in editor.sent}


def all_confirmed(editors: Iterable[Editor]) -> set[str]:
    return {edit for editor in editors for edit in editor.confirmed}


async def what_a_newcomer_is_sent(server: ServerProcess, yjs: Yjs) -> set[str]:
    async with Editor(server.url, ROOM) as newcomer:
        await asyncio.wait_for(newcomer.synced.wait(), 10)
        return what_yjs_reads(yjs, newcomer.received)


def what_yjs_reads(yjs: Yjs, updates: list[bytes]) -> set[str]:
    """The edits in a document, as real Yjs loads it; each is in the map and in the text."""
    loaded = yjs.apply(updates, {"edits": "map", "text": "text"})
    assert loaded.error is None
    assert not loaded.pending
    edits = set(loaded.content["edits"]["v"] if "v" in loaded.content["edits"] else loaded.content["edits"])
    edits.discard("overwritten")  # of `Editor.overwrite`, which is no edit
    words = set(loaded.content["text"]["string"].split())
    assert edits == words
    return edits
