"""The recipes of docs/how-to/migrate.md, on stores that other servers' libraries wrote."""

import asyncio
import json
import re
from pathlib import Path

from pycrdt.store import BaseYStore, FileYStore, SQLiteYStore

from tests.interop.test_tutorial import ROOT
from tests.support.clients import NodeClients
from tests.support.desk import Desk, sections
from tests.support.fakes import typed
from tests.support.processes import run
from tests.support.server import ServerProcess
from tests.unit.test_import_from import hocuspocus, state

PAGE = "docs/how-to/migrate.md"
WRITE_LEVELDB = """
import { LeveldbPersistence } from 'y-leveldb'
import * as Y from 'yjs'

const store = new LeveldbPersistence('db-folder')
for (const name of ['trip-level', 'trip-caf%C3%A9']) {
  const doc = new Y.Doc()
  doc.on('update', update => store.storeUpdate(name, update))
  for (const letter of 'Lisboa') doc.getText('text').insert(doc.getText('text').length, letter)
}
await store.destroy()
"""


async def test_documents_of_other_servers_come_along_as_the_page_says(tmp_path: Path, clients: NodeClients) -> None:
    await make_stores(tmp_path)
    desk = Desk(tmp_path, PAGE)
    (tmp_path / "node_modules").symlink_to(ROOT / "tests/node/node_modules")
    for name, script in scripts().items():
        (tmp_path / name).write_text(script)

    async with ServerProcess(tmp_path, database_url="memory://") as server:
        for room, text in (("trip-1", "one"), ("trip-2", "two")):
            client = await clients.create(server.url, room)
            await client.insert(0, text)
            await client.confirm()
        await desk.follow("Make an empty database")
        shown = await desk.follow("From Hocuspocus")
        assert shown.count("2 documents: 2 updates") == 2
        assert "6 updates" in await desk.follow("From pycrdt-websocket")
        assert "2 documents" in await desk.follow("From y-websocket-server")
        desk.sections["From anything else"] = desk.sections["From anything else"].replace(
            "ws://127.0.0.1:1234", server.url
        )
        assert "imported        2 documents" in await desk.follow("From anything else")

        url = server.url.replace("ws", "http")
        await desk.type(f"crdt-sync import-from updates from-elsewhere --url {url}", what="by way of a server")
        reader = await clients.create(server.url, "notes")
        await reader.wait(text="notes")
    assert "all in order" in await desk.follow("Check, and switch over")

    listed = await desk.type("crdt-sync rooms list --json", what="listing")
    assert {one["name"] for one in json.loads(listed)} == {
        "notes", "trip-1", "trip-2", "trip-café", "trip-file", "trip-h1", "trip-h2", "trip-level", "trip-sqlite",
    }  # fmt: skip
    text = await desk.type("crdt-sync export trip-café --format json", what="export")
    assert json.loads(text) == {"text": "Lisboa"}


def scripts() -> dict[str, str]:
    """The page's scripts, by the names that it says to save them as."""
    page = (ROOT / PAGE).read_text()
    found = re.findall(r"save this as `([\w-]+\.mjs)`:\n\n```js\n(.*?)```", page, re.DOTALL)
    assert len(found) == page.count("```js")
    return dict(found)


async def make_stores(folder: Path) -> None:
    """All that the page reads, where it reads it."""

    class Store(SQLiteYStore):
        db_path = str(folder / "ystore.db")

    hocuspocus(folder / "db.sqlite", **{"trip-h1": state("one"), "trip-h2": state("two", client=2)})
    await write(Store("/trip-sqlite"), *typed("Lisboa"))
    await write(FileYStore(str(folder / "rooms/trip-file.y")), *typed("Wien"))
    (folder / "from-elsewhere").mkdir()
    (folder / "from-elsewhere/notes.bin").write_bytes(state("notes"))
    command = ["node", "--input-type=module", "-e", WRITE_LEVELDB.replace("'db-folder'", f"'{folder}/db-folder'")]
    await asyncio.to_thread(run, command, folder=ROOT / "tests/node")


async def write(store: BaseYStore, *updates: bytes) -> None:
    async with store:
        for update in updates:
            await store.write(update)


def test_every_recipe_is_tried() -> None:
    tried = set(re.findall(r'desk\.follow\(\s*"([^"]+)"', Path(__file__).read_text()))

    assert tried == {heading for heading, text in sections(PAGE).items() if "```sh" in text}
