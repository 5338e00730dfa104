"""`examples/java-client`: a client that was written from docs/reference/protocol.md, beside stock ones."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.clients import NodeClients
from tests.support.java import Jdk, find_jdk
from tests.support.server import ServerProcess
from tests.support.services import require
from tests.support.yjs import Yjs

from .test_grants import guarded, token  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/java-client"


@pytest.fixture(scope="session")
def jdk() -> Jdk:
    return require(find_jdk)


@pytest.fixture(scope="session")
def classes(jdk: Jdk) -> Path:
    return jdk.compile(EXAMPLE)


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """The client doesn't see which database it is."""
    return f"sqlite:///{tmp_path / 'documents.db'}"


class Running:
    """A client in Java, whose lines are read and written."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def hear(self, *patterns: str) -> None:
        """Read until each of these has matched a whole line, in any order."""
        assert self._process.stdout is not None
        missing, seen = list(patterns), []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30):
                while missing and (line := (await self._process.stdout.readline()).decode()):
                    seen.append(line.rstrip("\n"))
                    missing = [pattern for pattern in missing if not re.fullmatch(pattern, seen[-1])]
        assert not missing, f"no line {missing} came, but {seen}"

    async def leave(self) -> int:
        """End its input, upon which it says goodbye and ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return await asyncio.wait_for(self._process.wait(), 15)


@asynccontextmanager
async def running(
    jdk: Jdk, classes: Path, *arguments: str, roots: tuple[str, str] = ("text", "map")
) -> AsyncIterator[Running]:
    options = ["-XX:TieredStopAtLevel=1", "-cp", str(classes), f"-Dtext={roots[0]}", f"-Dmap={roots[1]}"]
    process = await asyncio.create_subprocess_exec(
        jdk.java,
        *options,
        "NotesClient",
        *arguments,
        env=jdk.env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_client_in_java_edits_with_a_stock_one(
    jdk: Jdk, classes: Path, server: ServerProcess, clients: NodeClients, room: str
) -> None:
    bob = await clients.create(server.url, room, state={"user": {"name": "Bob"}})
    await bob.insert(0, "Ciao 🙂")
    await bob.map_set("days", {"n": [3, -70, 1.5, True, None, "x"]})
    await bob.confirm()

    async with running(jdk, classes, f"{server.url}/{room}", "Ann") as ann:
        await ann.hear(
            "synced",
            "notes: Ciao 🙂",
            r"trip: \{days=\{n=\[3, -70, 1\.5, true, null, x\]\}\}",
            r'here: \[\{"user":\{"name":"Bob"\}\}\]',
        )

        ann.say("append , Roma")
        ann.say("set title Rome")
        ann.say("set title Oslo")
        await ann.hear("saved")
        await bob.wait(text="Ciao 🙂, Roma", map={"days": {"n": [3, -70, 1.5, True, None, "x"]}, "title": "Oslo"})
        assert {"user": {"name": "Ann"}} in (await bob.states()).values()

        # It edits while it isn't connected, as does somebody else, and both come together.
        ann.say("drop")
        ann.say("append  offline")
        await bob.delete(0, 5)
        await bob.map_delete("days")
        await bob.map_set("title", "Roma")
        await ann.hear("closed 1006 .*")
        await ann.hear("saved")
        ann.say("append !")
        await ann.hear("notes: 🙂, Roma offline!", r"trip: \{title=Roma\}")
        await bob.wait(text="🙂, Roma offline!", map={"title": "Roma"})

        assert await ann.leave() == 0
        await bob.wait(states={bob.client_id: {"user": {"name": "Bob"}}})
    async with asyncio.timeout(5):
        while len(await bob.states()) > 1:
            await asyncio.sleep(0.02)


async def test_its_document_is_what_yjs_makes_of_the_same_edits(
    jdk: Jdk, classes: Path, server: ServerProcess, clients: NodeClients, yjs: Yjs, room: str
) -> None:
    """Concurrent edits in the same places, by four clients."""
    history = yjs.generate(7, clients=4, steps=150, kinds=["text", "array", "xml"], emoji=True, exchange=0.2)
    bob = await clients.create(server.url, room)
    await bob.apply(*history.updates)
    await bob.confirm()
    text = (await bob.content("text"))["text"]
    assert len(text) > 20

    async with running(jdk, classes, f"{server.url}/{room}", "Ann") as ann:
        await ann.hear("notes: " + re.escape(text))
        await ann.leave()


async def test_it_shows_a_fresh_token_and_goes_when_its_token_ends(
    jdk: Jdk,
    classes: Path,
    guarded: ServerProcess,  # noqa: F811
    room: str,
) -> None:
    address = f"{guarded.url}/{room}"
    async with running(jdk, classes, address, "Ann", token("ann", ttl_s=50)) as ann:
        await ann.hear("synced", r"token good for \d+ s")
        ann.say(f"token {token('ann', ttl_s=600)}")
        await ann.hear(r"token good for (5[89]\d|600) s")
        ann.say(f"token {token('bob')}")
        await ann.hear("denied: not allowed")
        ann.say(f"token {token('ann', ttl_s=2)}")
        await ann.hear("closed 4401 credential expired", "closed for good")

    async with running(jdk, classes, address, "Ann", "no.to.ken") as ann:
        await ann.hear("refused 401")
