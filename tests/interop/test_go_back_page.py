"""The commands in docs/how-to/go-back-in-time.md do what the page says."""

import asyncio
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from crdt_sync import Settings
from tests.support.api import GUARDED
from tests.support.command import fill, run_inside
from tests.support.desk import Desk, sections
from tests.support.past import Edited
from tests.support.server import ServerProcess

PAGE = "docs/how-to/go-back-in-time.md"
FULL = {"info": {"city": "Rome"}, "itinerary": "Colosseum"}
EMPTY = {"info": {}, "itinerary": None}


def spoilt_trip() -> Edited:
    """What the page speaks of: eve has emptied the trip 70 minutes ago."""
    trip = Edited("trip-1", roots=("info", "itinerary"))
    trip.edit("ann", timedelta(hours=30), lambda info, text: info.update({"city": "Rome"}))
    trip.edit("bob", timedelta(hours=3), lambda info, text: text.insert(0, "Colosseum"))
    trip.edit("eve", timedelta(minutes=70), lambda info, text: info.clear())
    return trip.edit("eve", timedelta(minutes=70), lambda info, text: text.clear())


async def desk_with(folder: Path, trip: Edited) -> Desk:
    folder.mkdir(exist_ok=True)
    await asyncio.to_thread(fill, f"sqlite:///{folder}/crdt-sync.db", trip.export())
    return Desk(folder, PAGE)


async def shown(desk: Desk, name: str = "trip-1") -> Any:
    url = f"sqlite:///{desk.folder}/crdt-sync.db"
    result = await asyncio.to_thread(run_inside, "export", name, "--format", "json", "--database", url, env={})
    assert result.code == 0, result.err
    return json.loads(result.out)


async def test_recipes_work_as_they_stand(tmp_path: Path) -> None:
    desk = await desk_with(tmp_path, spoilt_trip())

    async with ServerProcess(tmp_path, database_url=f"sqlite:///{tmp_path}/crdt-sync.db", env=GUARDED) as server:
        listed = await desk.follow("Go back in time", url=server.url.replace("ws", "http"), env=GUARDED)
        assert "'trip-1' has no versions yet" in listed

    found = await desk.follow("Find the moment")
    assert re.search(r" eve +2 +0 +10 +-+", found)
    assert "info.city (eve)\n- Rome\n" in found
    assert found.endswith("Colosseum\n")

    assert "itinerary\n@ 0\n+ Colosseum\n" in await desk.follow("See what would change")
    assert await shown(desk) == EMPTY

    restored = await desk.follow("Restore")
    assert restored.count("to undo that: crdt-sync restore trip-1 --version ") == 2
    assert await shown(desk) == EMPTY

    await desk.follow("Restore a part")
    assert await shown(desk) == EMPTY | {"itinerary": "Colosseum"}

    await desk.follow("Look at it beside the other")
    assert await shown(desk, "trip-1-before") == FULL

    risky = await desk.follow("Before something risky")
    assert "for ever, as 'before the import'\n" in risky
    assert risky.endswith("1 version of 'trip-1' forgotten\n")


async def test_one_user_s_edits_are_taken_back_as_the_page_says(tmp_path: Path) -> None:
    trip = spoilt_trip()
    trip.edit("bob", timedelta(minutes=5), lambda info, text: info.update({"days": 3}))
    desk = await desk_with(tmp_path, trip)

    done = await desk.follow("Take back one user's edits")

    assert "what 'eve' did in 'trip-1' since 20" in done
    assert await shown(desk) == {"info": {"city": "Rome", "days": 3}, "itinerary": "Colosseum"}


async def test_settings_are_those_of_the_server_with_their_defaults() -> None:
    table = sections(PAGE)["How long what is kept"]

    named = re.findall(r"CRDT_SYNC_(\w+)", table)

    assert {name.lower(): Settings.model_fields[name.lower()].default for name in named} == {
        "history_days": 7,
        "version_interval_s": 5 * 60,
        "versions_all_hours": 24,
        "versions_hourly_days": 7,
        "versions_daily_days": 90,
    }


def test_every_recipe_is_tried() -> None:
    tried = set(re.findall(r'desk\.follow\(\s*"([^"]+)"', Path(__file__).read_text()))

    assert tried == sections(PAGE).keys() - {"How long what is kept"}
