"""Every block of every page is run: here, by a test of its page's own, or not, for a reason that stands here.

Blocks that are only read, and what they name, are checked in `tests/unit/test_pages.py`. A block that is none of these fails.
"""

import asyncio
import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import asyncpg
import pytest

from tests.support.api import GUARDED, token
from tests.support.command import ROOT, run_outside
from tests.support.debian import find_program
from tests.support.desk import Desk
from tests.support.pages import Block, blocks
from tests.support.postgres import PostgresServer
from tests.support.processes import run
from tests.support.server import ServerProcess
from tests.support.services import require

CHECKED = {"json", "yaml", "ini", "promql", "text"}
"""What isn't for running. `text` is what a program prints, or a drawing; `promql` is read by tests/unit/test_monitoring.py."""

ELSEWHERE = {
    ("clients/js/README.md", "js"): "tests/interop/test_js_package.py",
    ("docs/how-to/administer.md", "sh"): "tests/interop/test_administer_page.py",
    ("docs/how-to/authenticate.md", "python"): "tests/unit/test_authenticate_page.py",
    ("docs/how-to/back-up-and-restore.md", "sh"): "tests/interop/test_back_up_page.py",
    ("docs/how-to/embed.md", "python"): "tests/unit/test_embed_page.py",
    ("docs/how-to/go-back-in-time.md", "sh"): "tests/interop/test_go_back_page.py",
    ("docs/how-to/migrate.md", "js"): "tests/interop/test_migrate_page.py",
    ("docs/how-to/migrate.md", "sh"): "tests/interop/test_migrate_page.py",
    ("docs/how-to/know-what-is-saved.md", "js"): "tests/interop/test_know_what_is_saved.py",
    ("docs/how-to/know-what-is-saved.md", "python"): "tests/interop/test_know_what_is_saved.py",
    ("docs/how-to/move-between-databases.md", "sh"): "tests/unit/test_store_commands.py",
    ("docs/how-to/use-the-admin-page.md", "sh"): "tests/interop/test_admin_page.py",
    ("docs/how-to/write-a-dart-client.md", "dart"): "tests/unit/test_dart_page.py",
    ("docs/reference/content.md", "js"): "tests/unit/test_content.py",
    ("docs/reference/python.md", "python"): "tests/unit/test_embed_page.py",
    ("docs/reference/trips.md", "python"): "tests/unit/test_trips.py",
    ("docs/tutorial/bring-a-trip-back.md", "js"): "tests/interop/test_bring_back.py",
    ("docs/tutorial/bring-a-trip-back.md", "sh"): "tests/interop/test_bring_back.py",
    ("docs/tutorial/first-steps.md", "js"): "tests/interop/test_tutorial.py",
    ("examples/django/README.md", "sh"): "tests/interop/test_example_apps.py",
    ("examples/fastapi/README.md", "sh"): "tests/interop/test_example_apps.py",
}
"""By page and language, the test that runs them all."""

NOT_RUN = {
    r"^(make|npm|pip|git) |^python -m benchmarks": "fetches, builds or measures what this test runs from",
    r"crdt-sync serve": "stays; other tests start servers, and its options and settings are checked with all others",
    r"^docker ": "needs Docker's daemon; tests/unit/test_deployment.py checks the files that it is given",
    r"^(kubectl|helm) |^cd examples/deployment/kubernetes": "needs a cluster; tests/unit/test_deployment.py checks the files",
    r"/opt/crdt-sync|/etc/|systemctl": "changes the machine, as root; tests/unit/test_deployment.py checks the files",
    r"examples/deployment/docker/env.example": "makes the .env of a deployment, in the checkout",
    r"\.example\b|\.example\.com|s3://": "its hosts are the reader's",
}
"""What is in shell blocks that aren't run, as a regular expression for one of their lines, and why."""


def reason(block: Block) -> str | None:
    """Why a shell block isn't run, if it isn't."""
    return next((why for what, why in NOT_RUN.items() if re.search(what, block.text, re.MULTILINE)), None)


def here(language: str) -> dict[str, list[Block]]:
    """The blocks that are run here, by page."""
    found = defaultdict(list)
    for block in blocks(language):
        if (block.page, language) not in ELSEWHERE and (language != "sh" or reason(block) is None):
            found[block.page].append(block)
    return found


def test_every_block_is_run_or_checked() -> None:
    run_here = {"js", "nginx", "python", "sh", "sql"}
    for block in blocks():
        known = block.language in CHECKED | run_here or (block.page, block.language) in ELSEWHERE
        assert known, f"{block}: nothing runs or checks blocks in {block.language!r}"
    for (page, language), test in ELSEWHERE.items():
        assert [block for block in blocks(language) if block.page == page], f"{page} has no {language} any more"
        assert page in (ROOT / test).read_text(), f"{test} doesn't mention {page}"
    for what in NOT_RUN:
        assert any(re.search(what, block.text, re.MULTILINE) for block in blocks("sh")), f"no block has {what} any more"


async def test_commands_do_as_the_pages_say(tmp_path: Path) -> None:
    openssl = require(lambda: find_program("openssl"))
    async with ServerProcess(tmp_path, env=GUARDED) as server:
        url = server.url.replace("ws", "http")
        env = {**openssl.env, **GUARDED, "CRDT_SYNC_TOKEN": token("root", {"*": "admin"})}
        env["PATH"] = f"{openssl.path.parent}{os.pathsep}{os.environ['PATH']}"

        async def follow(number: int, page: str, some: Iterable[Block]) -> None:
            folder = tmp_path / str(number)
            folder.mkdir()
            desk = Desk(folder, page)
            path = desk.env["PATH"] + os.pathsep + env["PATH"]
            await desk.type("".join(block.text for block in some), what=page, url=url, env={**env, "PATH": path})

        await asyncio.gather(*(follow(number, page, some) for number, (page, some) in enumerate(here("sh").items())))


async def test_scripts_do_as_the_pages_say(tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(ROOT / "tests/node/node_modules")
    node = shutil.which("node")
    assert node is not None, "these tests need Node (>= 18): no `node` in PATH"

    async with ServerProcess(tmp_path) as server:
        names = []
        for number, some in enumerate(here("js").values()):
            names.append(f"{number}.mjs")
            (tmp_path / names[-1]).write_text(module(some, server.url))
        (tmp_path / "all.mjs").write_text(PRELUDE.replace("URL", server.url).replace("PAGES", json.dumps(names)))
        said = await asyncio.to_thread(run, [node, "all.mjs"], folder=tmp_path)

    assert said.endswith("all synced\n")


PRELUDE = """
import WebSocket from 'ws'
import * as Y from 'yjs'
import { WebsocketProvider } from 'y-websocket'

// What a page has besides what its blocks say: a browser's globals, and the provider of a page before.
const doc = new Y.Doc()
const provider = new WebsocketProvider('URL', 'of-pages', doc, { WebSocketPolyfill: WebSocket })
const fetchToken = async () => 'token'
Object.assign(globalThis, { WebSocket, addEventListener: () => {}, Y, doc, provider, WebsocketProvider, token: 'token', fetchToken })
await new Promise(resolve => provider.once('sync', resolve))
const made = [provider]
for (const page of PAGES) made.push(...(await import(`./${page}`)).made)
for (const one of made) if (!one.synced) await new Promise(resolve => one.once('sync', resolve))
console.log('all synced')
process.exit(0)
"""


def module(some: Iterable[Block], url: str) -> str:
    """A page's blocks as a module, which exports the providers that they make."""
    imports, bodies = [], []
    for block in some:
        lines = re.sub(r"wss?://(127\.0\.0\.1:1234|sync\.example)\b", url, block.text).split("\n")
        imports += [line for line in lines if line.startswith("import ") and line not in imports]
        body = "\n".join(line for line in lines if not line.startswith("import "))
        bodies.append(f"await (async () => {{ // {block}\n{re.sub(r'new WebsocketProvider', 'make', body)}\n}})()")
    make = "export const made = []\nconst make = (...given) => { made.push(new WebsocketProvider(...given)); return made.at(-1) }"
    return "\n".join([*imports, make, *bodies])


def test_python_does_as_the_pages_say() -> None:
    for some in here("python").values():
        names: dict[str, object] = {}
        for block in some:
            exec(compile(block.text, str(block), "exec"), names)


async def test_statements_do_as_the_pages_say(postgres: PostgresServer) -> None:
    by_page = here("sql")
    administrator = postgres.create_database()
    making = "".join(block.text for block in by_page["docs/how-to/use-postgresql.md"] if "CREATE" in block.text)
    connection = await asyncpg.connect(administrator)
    try:
        for statement in filter(str.strip, making.split(";")):
            await connection.execute(statement)
        [database] = re.findall(r"CREATE DATABASE (\w+)", making)
        inside = administrator.rpartition("/")[0] + f"/{database}"
        made = await asyncio.to_thread(run_outside, "migrate", "--database", inside)
        assert made.code == 0, made.err
        other = await asyncpg.connect(inside)
        for some in by_page.values():
            for block in some:
                if "CREATE" not in block.text:
                    await other.execute(block.text)
        await other.close()
    finally:
        await connection.execute(f'DROP DATABASE IF EXISTS "{database}"')
        await connection.execute("DROP ROLE IF EXISTS crdt_sync")
        await connection.close()
        postgres.drop_database(administrator)


@pytest.mark.parametrize("block", blocks("nginx"), ids=str)
def test_nginx_takes_what_the_page_says(block: Block, tmp_path: Path) -> None:
    nginx = require(lambda: find_program("nginx", path="usr/sbin/nginx"))
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid; error_log stderr;\n{block.text}")

    run([nginx.path, "-t", "-q", "-p", tmp_path, "-c", "nginx.conf"], folder=tmp_path, env=nginx.env)
