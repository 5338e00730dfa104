"""The lesson in docs/tutorial/bring-a-trip-back.md, done as it says, with real clients and the real command."""

import asyncio
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.interop.test_tutorial import ROOT, hear, say
from tests.support.server import ServerProcess

LESSON = (ROOT / "docs/tutorial/bring-a-trip-back.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", LESSON, re.DOTALL) for line in block.splitlines()]


async def test_a_trip_that_somebody_emptied_is_brought_back_while_people_have_it_open(tmp_path: Path) -> None:
    (script,) = re.findall(r"```js\n(.*?)```", LESSON, re.DOTALL)
    assert script == (ROOT / "examples/node-client/person.mjs").read_text(), "the example is what the lesson has"
    secret = re.findall(r"CRDT_SYNC_JWT_SECRET='(.*)'", LESSON)[0]
    (tmp_path / "node_modules").symlink_to(ROOT / "tests/node/node_modules")
    async with ServerProcess(tmp_path, env={"CRDT_SYNC_JWT_SECRET": secret}) as server:
        (tmp_path / "person.mjs").write_text(script.replace("ws://127.0.0.1:1234", server.url))
        shell = Shell(tmp_path, server.url, secret)
        ann, bob, eve = [await shell.person(name) for name in ("ann", "bob", "eve")]
        await hear(bob, "bob sees: nothing")
        for person, word, plan in ((ann, "museum", "museum"), (ann, "lunch", "museum, lunch"), (bob, "train", PLAN)):
            say(person, word)
            await hear(bob, f"bob sees: {plan}")
        await hear(ann, f"ann sees: {PLAN}")
        await hear(eve, f"eve sees: {PLAN}")
        say(bob, "offline")
        say(bob, "hat")
        await hear(bob, f"bob sees: {PLAN}, hat")
        await asyncio.sleep(0.5)  # instead of the lesson's minute
        shell.before = datetime.now(UTC).isoformat()
        await asyncio.sleep(0.5)
        say(eve, "empty")
        await hear(ann, "ann sees: nothing")

        activity = await shell.run("crdt-sync activity")
        difference = await shell.run("crdt-sync versions diff")
        preview = await shell.run("crdt-sync restore", "--dry-run")
        still = await shell.run("crdt-sync export trip-1 --format json --url http://127.0.0.1:1234")
        began = time.monotonic()
        done = await shell.run("crdt-sync restore", "--yes")
        await hear(ann, f"ann sees: {PLAN}")
        await hear(eve, f"eve sees: {PLAN}")
        took_s = time.monotonic() - began
        say(bob, "online")
        for name, person in (("ann", ann), ("bob", bob), ("eve", eve)):
            await hear(person, f"{name} sees: {PLAN}, hat")
        at_last = await shell.run("crdt-sync export trip-1 --format json --url http://127.0.0.1:1234")
        for person in (ann, bob, eve):
            person.kill()
            await person.wait()
        assert server.errors() == []

    assert re.search(r"eve.*3", activity), activity
    for shown in (difference, preview):
        assert all(word in shown for word in ("museum", "lunch", "train")), shown
    assert "eve" in difference
    assert '"museum"' not in still
    assert "crdt-sync restore trip-1 --version" in done, "it says how to undo it"
    # A command takes a second or two to start here.
    assert took_s < 10
    assert at_last.strip() == '{"plan": ["museum", "lunch", "train", "hat"]}'


PLAN = "museum, lunch, train"


class Shell:
    """Runs what the lesson has somebody type."""

    def __init__(self, folder: Path, url: str, secret: str) -> None:
        self.before = ""
        self._folder = folder
        self._url = url
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("CRDT_SYNC_")}
        self._env |= {"CRDT_SYNC_JWT_SECRET": secret, "PATH": f"{ROOT / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"}

    async def person(self, name: str) -> asyncio.subprocess.Process:
        """Somebody, who is in the lesson as Ann is."""
        get_token, start = [line.replace("ann", name) for line in COMMANDS if "ann" in line]
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_shell(
            f"{get_token}\nexec {start}", cwd=self._folder, env=self._env, stdin=pipe, stdout=pipe
        )

    async def run(self, command: str, flag: str = "") -> str:
        """Run a command of the lesson, as its admin, or one that isn't in it; return what it prints."""
        (get_token,) = [line for line in COMMANDS if "root" in line]
        found = [line for line in COMMANDS if line.startswith(command) and flag in line] or [command]
        line = found[0].replace("http://127.0.0.1:1234", self._url.replace("ws:", "http:"))
        line = line.replace("'1 minute ago'", f"'{self.before}'")
        process = await asyncio.create_subprocess_shell(
            f"{get_token}\n{line}",
            cwd=self._folder,
            env=self._env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()
