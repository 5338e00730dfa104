"""The lesson in docs/tutorial/first-steps.md, done as it says."""

import asyncio
import re
import shutil
from pathlib import Path

from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[2]


async def test_two_clients_edit_together_hear_what_is_saved_and_find_it_after_a_restart(
    tmp_path: Path, server: ServerProcess
) -> None:
    lesson = (ROOT / "docs/tutorial/first-steps.md").read_text()
    blocks = re.findall(r"```js\n(.*?)```", lesson, re.DOTALL)
    script = (ROOT / "examples/node-client/client.mjs").read_text()
    assert script == "\n".join(blocks), "the example is what the lesson arrives at"
    script = script.replace("ws://127.0.0.1:1234", server.url)
    assert script.count(server.url) == 1
    (tmp_path / "client.mjs").write_text(script)
    install(tmp_path)

    ann, bob = await start(tmp_path), await start(tmp_path)
    await hear(ann, "synced:")
    await hear(bob, "synced:")
    say(ann, "hello")
    await hear(bob, "now:    hello")
    await hear(ann, "saving, 1 unsaved")
    await hear(ann, "saved, 0 unsaved")
    await server.restart()
    say(bob, "again")
    await hear(ann, "now:    hello again")
    for client in (ann, bob):
        client.kill()
        await client.wait()

    cy = await start(tmp_path)
    await hear(cy, "synced: hello again")
    cy.kill()
    await cy.wait()


def install(folder: Path) -> None:
    """What `npm install` does as the lesson has it."""
    modules = folder / "node_modules"
    modules.mkdir()
    for package in (ROOT / "tests/node/node_modules").iterdir():
        (modules / package.name).symlink_to(package)
    (modules / "crdt-sync-client").symlink_to(ROOT / "clients/js")


async def start(folder: Path) -> asyncio.subprocess.Process:
    node = shutil.which("node")
    assert node is not None, "these tests need Node (>= 18): no `node` in PATH"
    return await asyncio.create_subprocess_exec(
        node, "client.mjs", cwd=folder, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )


def say(client: asyncio.subprocess.Process, line: str) -> None:
    assert client.stdin is not None
    client.stdin.write(f"{line}\n".encode())


async def hear(client: asyncio.subprocess.Process, what: str) -> None:
    """Read what the client prints until a line begins with `what`."""
    assert client.stdout is not None
    async with asyncio.timeout(20):
        while line := await client.stdout.readline():
            if line.decode().startswith(what):
                return
    raise AssertionError(f"the client ended before it printed {what!r}")
