"""The recipes of docs/how-to/back-up-and-restore.md, while people edit."""

import json
import os
import re
from pathlib import Path

from tests.support.clients import NodeClients
from tests.support.desk import Desk, sections
from tests.support.postgres import execute, find_programs
from tests.support.server import ServerProcess

PAGE = "docs/how-to/back-up-and-restore.md"


async def shown(desk: Desk, room: str) -> object:
    return json.loads(await desk.type(f"crdt-sync export {room} --format json", what="export"))


async def test_a_sqlite_backup_brings_one_document_or_all_back_and_clients_bring_what_came_later(
    tmp_path: Path, clients: NodeClients
) -> None:
    desk = Desk(tmp_path, PAGE)
    server = ServerProcess(tmp_path, database_url=f"sqlite:///{tmp_path}/crdt-sync.db")
    async with server:
        ann = await clients.create(server.url, "trip-1")
        await ann.insert(0, "Lisboa")
        await ann.confirm()
        assert "all in order" in await desk.follow("SQLite")
        await ann.insert(6, " and Porto")
        await ann.confirm()
        await server.stop()

        await desk.follow("Restore one document")
        assert await shown(desk, "trip-1-from-backup") == {"text": "Lisboa"}
        assert await shown(desk, "trip-1") == {"text": "Lisboa and Porto"}

        await desk.follow("Restore everything")
        assert await shown(desk, "trip-1") == {"text": "Lisboa"}

        await server.start()
        bob = await clients.create(server.url, "trip-1")
        await bob.wait(text="Lisboa and Porto")


async def test_a_postgresql_backup_can_be_restored_and_is_in_order(
    tmp_path: Path, clients: NodeClients, postgres_url: str
) -> None:
    desk = Desk(tmp_path, PAGE)
    host = postgres_url.rpartition("/")[0]
    recipe = desk.sections["PostgreSQL"].replace("postgresql://crdt_sync@db.example/trips", postgres_url)
    desk.sections["PostgreSQL"] = recipe.replace("postgresql://crdt_sync@db.example", host)
    env = {"PATH": f"{find_programs()}{os.pathsep}{desk.env['PATH']}"}
    async with ServerProcess(tmp_path, database_url=postgres_url) as server:
        ann = await clients.create(server.url, "trip-1")
        await ann.insert(0, "Lisboa")
        await ann.confirm()

        said = await desk.follow("PostgreSQL", env=env)
        await clients.close()
    restored = await desk.type(
        f"crdt-sync export trip-1 --format json --database {host}/rehearsal", what="what was restored"
    )
    execute(postgres_url, "DROP DATABASE rehearsal")

    assert "checked 1 document: " in said
    assert said.endswith("all in order\n")
    assert json.loads(restored) == {"text": "Lisboa"}


def test_every_recipe_is_tried() -> None:
    tried = set(re.findall(r'desk\.follow\(\s*"([^"]+)"', Path(__file__).read_text()))

    assert tried == {heading for heading, text in sections(PAGE).items() if "```sh" in text}
