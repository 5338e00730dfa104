"""The commands in docs/how-to/administer.md do what the page says, in its order, on one database."""

import asyncio
import json
import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from persistence import Export, Row
from tests.support.api import GUARDED, token
from tests.support.clients import NodeClients
from tests.support.command import fill
from tests.support.desk import Desk, sections
from tests.support.fakes import typed
from tests.support.server import ServerProcess

PAGE = "docs/how-to/administer.md"
NOW = datetime(2026, 5, 4, tzinfo=UTC)


async def test_recipes_work_as_they_stand(tmp_path: Path, clients: NodeClients) -> None:
    desk = Desk(tmp_path, PAGE)
    url = f"sqlite:///{tmp_path}/crdt-sync.db"
    rows = tuple(Row(seq, update, "ann", NOW) for seq, update in enumerate(typed("Lisboa"), 1))
    trip = Export("trip-1", NOW, len(rows), None, rows)
    await asyncio.to_thread(
        fill, url, trip, replace(trip, document="trip-2"), replace(trip, document="old", deleted_at=NOW)
    )

    assert re.search(r"^ trip-1 .*\n(.*\n)*2 documents", await desk.follow("See what there is"), re.MULTILINE)

    async with ServerProcess(tmp_path, database_url=url, env=GUARDED) as server:
        ann = await clients.create(server.url, "trip-1", params={"token": token("ann")})
        await ann.wait(text="Lisboa")
        shown = await desk.follow("Ask the running server", url=server.url.replace("ws", "http"), env=GUARDED)
        assert re.search(r"^ clients +1: ann *$", shown, re.MULTILINE)
        await clients.close()

    assert "Lisboa" in await desk.follow("Export a trip")
    assert json.loads((tmp_path / "trip-1.json").read_text()) == {"text": "Lisboa"}
    assert await desk.follow("Import") == "'trip-1-copy' is new: the update is in it, and stored\n"
    assert "'trip-1-copy' is undeleted" in await desk.follow("Delete, and bring back")

    await desk.follow("Really delete")
    (forgotten,) = json.loads((tmp_path / "forgotten.json").read_text())["purged"]
    assert (forgotten["name"], forgotten["users"]) == ("trip-2", ["ann"])
    assert [one["name"] for one in json.loads((tmp_path / "forgotten-today.json").read_text())["purged"]] == ["old"]

    verified = await desk.follow("Verify, after a crash or before you rely on a backup")
    assert verified.count("checked 2 documents: ") == verified.count("all in order") == 2

    with closing(sqlite3.connect(tmp_path / "crdt-sync.db")) as database, database:
        database.execute("UPDATE document SET head_seq = 9 WHERE name = 'trip-1'")
    brought_back = await desk.follow("Bring a damaged document back from a backup")
    assert "'trip-1' is new: the update is in it, and stored\n" in brought_back
    assert brought_back.endswith("all in order\n")

    await desk.follow("Complete with the tab key")


def test_every_recipe_is_tried() -> None:
    tried = set(re.findall(r'desk\.follow\(\s*"([^"]+)"', Path(__file__).read_text()))

    assert tried == sections(PAGE).keys() - {"Administer documents"}
