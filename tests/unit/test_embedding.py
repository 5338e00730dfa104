"""The application in another one: its lifespan, its rooms and its hook, in one process and without sockets."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pycrdt
import pytest
from anyio import from_thread
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from auth import Credentials, Grant, Right
from crdt_sync import InvalidSettings, NotRunning, Settings, StoredChange, SyncApp, create_app
from persistence import StoreInUse
from tests.support.fakes import quick_settings, text_of, typed


async def verify(credentials: Credentials) -> Grant:
    return Grant(user="ann", rooms={"trip-*": Right.WRITE})


def make_sync(**options: Any) -> SyncApp:
    return create_app(quick_settings(), token_verifier=verify, **options)


async def edit(sync: SyncApp, room: str, text: str, **options: Any) -> None:
    async with sync.rooms.edit(room, **options) as doc:
        doc.apply_update(*typed(text))


async def get(app: Starlette, path: str) -> httpx2.Response:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://service") as client:
        return await client.get(path)


# ---------------------------------------------------------------------------------------------------------- lifespan


async def test_a_lifespan_that_nobody_runs_is_an_error_that_says_what_to_do() -> None:
    app = Starlette(routes=[Mount("/sync", make_sync())])

    with pytest.raises(NotRunning, match=r"FastAPI\(lifespan=sync.lifespan\)"):
        await get(app, "/sync/api/v1/rooms")
    with pytest.raises(NotRunning), TestClient(app).websocket_connect("/sync/trip-1"):
        pass


async def test_the_lifespan_is_the_frameworks_or_a_part_of_it() -> None:
    sync = make_sync()

    @asynccontextmanager
    async def own(app: Starlette) -> AsyncIterator[None]:
        async with sync.lifespan():
            yield

    for lifespan in (sync.lifespan, own):
        app = Starlette(routes=[Mount("/sync", sync)], lifespan=lifespan)
        async with app.router.lifespan_context(app):
            assert (await get(app, "/sync/ready")).json()["ready"] is True
    with pytest.raises(NotRunning):
        await get(app, "/sync/ready")


async def test_a_lifespan_that_runs_is_not_begun_anew() -> None:
    sync = make_sync()

    async with sync.lifespan():
        with pytest.raises(RuntimeError, match="already"):
            async with sync.lifespan():
                pass
        await edit(sync, "trip-1", "x")


async def test_a_second_process_is_told_that_sqlite_is_for_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'documents.db'}"

    async with create_app(quick_settings(database_url=url)).lifespan():
        with pytest.raises(StoreInUse):
            async with create_app(quick_settings(database_url=url)).lifespan():
                pass


def test_a_client_of_tests_reaches_a_room_under_the_path_of_the_mount() -> None:
    sync = make_sync()
    app = Starlette(routes=[Mount("/sync", sync)], lifespan=sync.lifespan)

    with TestClient(app) as client:
        with client.websocket_connect("/sync/trip-1") as socket:
            assert socket.receive_bytes() == b"\0\0\1\0"
            assert [room.name for room in sync.state.parts.rooms] == ["trip-1"]
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/sync/other"):
            pass


def test_a_route_that_is_not_async_edits_by_way_of_the_servers_event_loop_and_by_no_other() -> None:
    sync = make_sync()
    app = FastAPI(lifespan=sync.lifespan)

    @app.post("/edit")
    def in_a_thread() -> None:
        with pytest.raises(NotRunning, match=r"anyio\.from_thread"):
            asyncio.run(edit(sync, "trip-1", "x"))
        from_thread.run(edit, sync, "trip-1", "x")

    @app.get("/text")
    async def text() -> str:
        return text_of((await sync.rooms.read("trip-1")).get_update())

    with TestClient(app) as client:
        assert client.post("/edit").status_code == 200
        assert client.get("/text").json() == "x"


def test_without_keys_a_mounted_server_is_for_its_own_machine(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sync = create_app(quick_settings())
    app = Starlette(routes=[Mount("/sync", sync)], lifespan=sync.lifespan)

    with TestClient(app, base_url="http://service.example") as client:
        assert client.get("/sync/api/v1/rooms").status_code == 403
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        assert client.get("/sync/api/v1/rooms").status_code == 200
        assert client.get("/sync/api/v1/rooms", headers={"x-forwarded-for": "9.9.9.9"}).status_code == 403

    refusals = [getattr(record, "error", "") for record in caplog.records]
    assert sum("give create_app a token_verifier" in one for one in refusals) == 2


def test_what_can_not_be_a_hook_is_refused_at_once() -> None:
    def sync_hook(change: StoredChange) -> None:
        """It would hold up everything."""

    with pytest.raises(TypeError, match="async"):
        create_app(quick_settings(), on_stored=sync_hook)  # type: ignore[arg-type]
    with pytest.raises(InvalidSettings, match="token_verifier"):
        create_app(quick_settings(jwt_secret="x" * 32), token_verifier=verify)


# -------------------------------------------------------------------------------------------------------------- hook


async def test_the_hook_is_told_who_wrote_what_was_stored_and_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdt_sync.hooks.TELL_AFTER_S", 0.02)
    told: asyncio.Queue[tuple[StoredChange, str]] = asyncio.Queue()

    async def on_stored(change: StoredChange) -> None:
        doc = await sync.rooms.read(change.room)
        told.put_nowait((change, text_of(doc.get_update())))

    sync = make_sync(on_stored=on_stored)
    async with sync.lifespan():
        await edit(sync, "trip-1", "x", user="bot")
        first = await told.get()
        await edit(sync, "trip-1", "x", user="bot")  # a repeat
        await edit(sync, "trip-2", "y")
        second = await told.get()

    assert first == (StoredChange("trip-1", 1, 1, frozenset({"bot"})), "x")
    assert second == (StoredChange("trip-2", 1, 1, frozenset({None})), "y")
    assert told.empty()


async def test_the_hook_is_told_at_the_end_what_was_stored_last_and_may_read_and_edit() -> None:
    texts: list[str] = []

    async def on_stored(change: StoredChange) -> None:
        if change.users == {"bot"}:
            return
        doc = await sync.rooms.read(change.room)
        texts.append(text_of(doc.get_update()))
        async with sync.rooms.edit(change.room, user="bot") as doc:
            doc.get("map", type=pycrdt.Map)["indexed"] = change.seq

    sync = make_sync(on_stored=on_stored)
    async with sync.lifespan():
        await edit(sync, "trip-1", "x")

    assert texts == ["x"]
    assert sync.state.unstored == []


async def test_the_hook_is_told_at_the_end_what_was_not_stored_before() -> None:
    told: list[str] = []

    async def on_stored(change: StoredChange) -> None:
        told.append(change.room)

    sync = make_sync(on_stored=on_stored)
    async with sync.lifespan():
        await edit(sync, "trip-1", "x")
        await edit(sync, "trip-2", "y", stored=False)

    assert sorted(told) == ["trip-1", "trip-2"]


async def test_a_hook_that_hangs_ends_when_the_application_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdt_sync.hooks.FINISH_S", 0.05)
    begun = asyncio.Event()

    async def on_stored(change: StoredChange) -> None:
        begun.set()
        await asyncio.Event().wait()

    sync = make_sync(on_stored=on_stored)
    async with asyncio.timeout(10):
        async with sync.lifespan():
            await edit(sync, "trip-1", "x")

    assert begun.is_set()
    assert sync.state.unstored == []


def test_settings_of_the_environment_are_read_when_none_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDT_SYNC_DATABASE_URL", "memory://")

    assert create_app().rooms._settings == Settings.read()
