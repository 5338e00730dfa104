"""Archived versions over the HTTP API of a server whose archive comes and goes."""

import asyncio
from pathlib import Path

from persistence.archived import folder_of
from tests.support.api import GUARDED, request, token
from tests.support.fakes import typed
from tests.support.processes import wait_until
from tests.support.server import ServerProcess

ROOT = token("root", {"*": "admin"}, ttl_s=86400)
EDITS = typed("ab")


async def test_an_archive_that_is_away_holds_up_nothing_but_its_versions(tmp_path: Path) -> None:
    archive, away = tmp_path / "archive", tmp_path / "away"
    env = {
        **GUARDED,
        "CRDT_SYNC_ARCHIVE_URL": archive.as_uri(),
        "CRDT_SYNC_ARCHIVE_AFTER_DAYS": "0",
        "CRDT_SYNC_HISTORY_DAYS": "0",
        "CRDT_SYNC_SWEEP_INTERVAL_S": "0.5",
        "CRDT_SYNC_CHECKPOINT_INTERVAL_S": "0.1",
    }
    async with ServerProcess(tmp_path, env=env) as server:

        async def ask(method: str, path: str, body: object = None) -> tuple[int, object]:
            answer = await request(server.url, method, f"/api/v1/rooms/x{path}", bearer=ROOT, body=body)  # type: ignore[arg-type]
            return answer.status, answer.json if answer.headers.get("content-type", "").endswith(
                "json"
            ) else answer.body

        for edit in EDITS:
            assert (await ask("POST", "/updates", edit))[0] == 200
            assert (await ask("POST", "/versions", {"label": "kept"}))[0] == 201
        without_folder = await ask("GET", "/versions/1?format=text")
        archive.mkdir()
        moved = archive / folder_of("x") / "1"
        await asyncio.to_thread(wait_until, moved.exists, timeout_s=20)
        while not (await ask("GET", "/versions/1"))[1]["archived"]:  # type: ignore[index]
            await asyncio.sleep(0.05)
        with_archive = await ask("GET", "/versions/1?format=text")
        archive.rename(away)
        unreachable = await ask("GET", "/versions/1?format=text")
        others = [(await ask("GET", path))[0] for path in ("/versions", "/versions/2?format=text", "/document")]
        deleted = (await ask("DELETE", "/versions/1"))[0]
        away.rename(archive)
        await asyncio.to_thread(wait_until, lambda: not moved.exists(), timeout_s=20)

    assert without_folder == with_archive
    assert with_archive[0] == 200
    assert (unreachable[0], unreachable[1]["title"]) == (503, "archive unavailable")  # type: ignore[index]
    assert others == [200, 200, 200]
    assert deleted == 204
