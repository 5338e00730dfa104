"""A document's past over the HTTP API: versions, reading it, what changed by whom, and bringing it back while people edit."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pycrdt
import pytest
import pytest_asyncio

from crdt_sync.lib0 import read_var_bytes
from tests.support.api import GUARDED, Answer, request, token
from tests.support.raw import RawClient
from tests.support.server import ServerProcess
from tests.support.yjs import Yjs

ROOT = token("root", {"*": "admin"}, ttl_s=86400)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tmp_path_factory.mktemp("past"), env=GUARDED) as server:
        yield server
    assert server.errors() == []


class Trip:
    """A document that people edit through the API, and somebody watches on a WebSocket."""

    def __init__(self, server: ServerProcess, room: str) -> None:
        self.server = server
        self.room = room
        self.heard: list[bytes] = []
        self._docs: dict[str, pycrdt.Doc[Any]] = {}
        self._socket: RawClient

    async def __aenter__(self) -> "Trip":
        headers = {"Authorization": f"Bearer {token('watcher')}"}
        self._socket = await RawClient.connect(self.server.url, self.room, headers=headers)
        await self._socket.send(b"\x00\x00\x01\x00")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._socket.close()

    async def hear(self) -> list[bytes]:
        """All updates that the watcher has been sent so far."""
        await self._socket.send(b"\x66\x04done")
        while (frame := await self._socket.receive()) != b"\x66\x04done":
            assert frame is not None, self._socket.closed
            if frame[0] == 0 and frame[1] > 0:
                self.heard.append(read_var_bytes(frame, 2)[0])
        return self.heard

    async def ask(self, method: str, path: str, *, bearer: str = ROOT, body: Any = None) -> Answer:
        return await request(self.server.url, method, f"/api/v1/rooms/{self.room}{path}", bearer=bearer, body=body)

    async def get(self, path: str) -> Any:
        answer = await self.ask("GET", path)
        assert answer.status == 200, answer
        return answer.json

    async def do(self, path: str, body: dict[str, Any], *, status: int = 200) -> Any:
        answer = await self.ask("POST", path, body=body)
        assert answer.status == status, answer
        return answer.json

    async def post(self, update: bytes, *, user: str = "ann") -> None:
        answer = await self.ask("POST", "/updates", bearer=token(user), body=update)
        assert answer.status == 200, answer

    async def edit(self, user: str, change: Any) -> None:
        """Have a user see everything, and change the shared types `m` and `t`."""
        doc = self._docs.setdefault(user, pycrdt.Doc())
        for update in await self.hear():
            doc.apply_update(update)
        before = doc.get_state()
        with doc.transaction():
            change(doc.get("m", type=pycrdt.Map), doc.get("t", type=pycrdt.Text))
        await self.post(doc.get_update(before), user=user)

    async def content(self) -> Any:
        return (await self.ask("GET", "/document?format=json")).json

    async def version(self, label: str | None = None) -> int:
        return int((await self.do("/versions", {"label": label} if label else {}, status=201))["id"])


@pytest_asyncio.fixture
async def trip(guarded: ServerProcess, room: str) -> AsyncIterator[Trip]:
    async with Trip(guarded, room) as made:
        yield made


async def test_a_trip_that_somebody_emptied_comes_back_while_people_have_it_open(trip: Trip) -> None:
    await trip.edit("ann", lambda m, t: (m.update({"city": "Rome", "days": 3}), t.insert(0, "Pack light.")))
    await trip.edit("bob", lambda m, t: t.insert(11, " Take a hat."))
    full, label = await trip.content(), await trip.version("planned")
    await trip.edit("eve", lambda m, t: (m.clear(), t.clear()))
    emptied = await trip.content()

    preview = await trip.do("/restore", {"version": label, "dry_run": True})
    after_preview = await trip.content()
    done = await trip.do("/restore", {"version": label})

    assert (full, emptied) == ({"m": {"city": "Rome", "days": 3}, "t": "Pack light. Take a hat."}, {"m": {}, "t": None})
    assert (preview["done"], preview["impossible"], after_preview) == (False, [], emptied)
    assert {change["where"] for change in preview["changes"]} == {"m.city", "m.days", "t"}
    assert done["changes"] == preview["changes"]
    assert await trip.content() == full
    watcher: pycrdt.Doc[Any] = pycrdt.Doc()
    for update in await trip.hear():
        watcher.apply_update(update)
    assert (watcher.get("m", type=pycrdt.Map).to_py(), str(watcher.get("t", type=pycrdt.Text))) == tuple(full.values())
    # And back again.
    await trip.do("/restore", {"version": done["version_before"]["id"]})
    assert await trip.content() == emptied


async def test_whoever_was_offline_brings_nothing_back_and_loses_nothing(trip: Trip) -> None:
    await trip.edit("ann", lambda m, t: (m.update({"city": "Rome"}), t.insert(0, "Rome")))
    before = await trip.version()
    await trip.edit("eve", lambda m, t: (m.update({"city": "Nowhere"}), t.insert(4, " is cancelled")))
    # Bob has seen the unwanted content, and goes on with it offline.
    bob: pycrdt.Doc[Any] = pycrdt.Doc()
    for update in await trip.hear():
        bob.apply_update(update)
    had = bob.get_state()
    bob.get("t", type=pycrdt.Text).insert(0, "To ")
    await trip.do("/restore", {"version": before})

    await trip.post(bob.get_update(had), user="bob")

    assert await trip.content() == {"m": {"city": "Rome"}, "t": "To Rome"}


async def test_what_one_user_did_is_taken_back_and_what_others_did_stays(trip: Trip) -> None:
    await trip.edit("ann", lambda m, t: (m.update({"city": "Rome", "days": 3}), t.insert(0, "Pack light.")))
    start = await trip.version()
    await trip.edit("eve", lambda m, t: (m.update({"city": "Nowhere"}), t.insert(0, "SPAM ")))
    await trip.edit("bob", lambda m, t: (m.update({"days": 4}), t.insert(16, " Take a hat.")))

    preview = await trip.do("/rollback", {"user": "eve", "version": start, "dry_run": True})
    spammed = await trip.content()
    done = await trip.do("/rollback", {"user": "eve", "version": start})
    content = await trip.content()
    await trip.edit("eve", lambda m, t: t.insert(0, "MORE "))
    await trip.do("/rollback", {"user": "eve", "version": start})

    assert spammed == {"m": {"city": "Nowhere", "days": 4}, "t": "SPAM Pack light. Take a hat."}
    assert (preview["done"], done["done"]) == (False, True)
    assert content == {"m": {"city": "Rome", "days": 4}, "t": "Pack light. Take a hat."}
    # What the first time brought back isn't there twice.
    assert await trip.content() == content


async def test_two_who_restore_at_the_same_time_bring_everything_back_once(trip: Trip) -> None:
    await trip.edit("ann", lambda m, t: (m.update({"city": "Rome"}), t.insert(0, "Pack light. " * 2000)))
    full, version = await trip.content(), await trip.version()
    await trip.edit("eve", lambda m, t: (m.clear(), t.clear()))

    answers = await asyncio.gather(*(trip.do("/restore", {"version": version}) for _ in range(3)))
    copies = await asyncio.gather(
        *(
            trip.ask("POST", "/restore", body={"version": version, "as_new": f"{trip.room}-copy"}, bearer=ROOT)
            for _ in range(3)
        )
    )

    copy = await request(trip.server.url, "GET", f"/api/v1/rooms/{trip.room}-copy/document?format=json", bearer=ROOT)
    assert sorted(one["done"] for one in answers) == [False, False, True]
    assert sorted(one.status for one in copies) == [200, 409, 409]
    assert await trip.content() == copy.json == full


async def test_a_plan_is_told_as_text_if_that_is_asked_for(trip: Trip) -> None:
    await trip.edit("ann", lambda m, t: m.update({"city": "Rome"}))
    version = await trip.version()
    await trip.edit("eve", lambda m, t: m.update({"city": "Oslo"}))

    restored = await trip.do("/restore", {"version": version, "dry_run": True, "format": "text"})
    taken_back = await trip.do("/rollback", {"user": "eve", "version": version, "dry_run": True, "format": "text"})

    assert restored["changes"] == taken_back["changes"] == "m.city\n- Oslo\n+ Rome\n"


async def test_differences_say_whose_they_are(trip: Trip) -> None:
    await trip.edit("ann", lambda m, t: (m.update({"city": "Rome"}), t.insert(0, "Pack light.")))
    start = await trip.version()
    await trip.edit("bob", lambda m, t: (m.update({"city": "Oslo"}), t.insert(11, " Warm things.")))
    end = await trip.version()

    found = (await trip.get(f"/diff?from={start}&to={end}"))["changes"]
    text = (await trip.ask("GET", f"/diff?from={start}&format=text")).body.decode()
    backwards = (await trip.get(f"/diff?from={end}&to={start}"))["changes"]

    assert [(one["where"], one["kind"], one["authors"]) for one in found] == [
        ("m.city", "changed", ["bob"]),
        ("t", "text", ["bob"]),
    ]
    assert (found[0]["before"], found[0]["after"]) == ("Rome", "Oslo")
    assert "Warm things." in text
    assert (backwards[0]["before"], backwards[0]["after"]) == ("Oslo", "Rome")
    assert await trip.get(f"/diff?from={end}") == {"changes": []}


async def test_a_document_is_read_as_of_any_seq_and_any_moment(trip: Trip) -> None:
    moments, contents = [], []
    for number in range(5):
        await trip.edit("ann", lambda m, t, number=number: m.update({"n": number}))
        moments.append(datetime.now(UTC).isoformat().replace("+00:00", "Z"))
        contents.append(await trip.content())
        await asyncio.sleep(0.01)

    by_seq = [await trip.get(f"/at?seq={seq}&format=json") for seq in range(1, 6)]
    by_time = [await trip.get(f"/at?time={moment}&format=json") for moment in moments]
    before = await trip.ask("GET", "/at?seq=0&format=json")
    missing = await trip.ask("GET", "/at?seq=6")
    exact = await trip.ask("GET", "/at?seq=3")

    assert by_seq == by_time == contents
    assert (before.status, before.json) == (200, {})
    assert (missing.status, missing.json["title"]) == (404, "no such past")
    assert "its last one is 5" in missing.json["detail"]
    assert (exact.headers["crdt-sync-seq"], exact.headers["crdt-sync-exact"]) == ("3", "true")


async def test_activity_tells_who_did_how_much(trip: Trip) -> None:
    await trip.edit("ann", lambda m, t: t.insert(0, "Pack light."))
    await trip.edit("eve", lambda m, t: t.clear())

    found = await trip.get("/activity?bucket_s=86400")

    by_user = {one["user"]: (one["updates"], one["inserted"], one["deleted"]) for one in found["activity"]}
    assert by_user == {"ann": (1, 11, 0), "eve": (1, 0, 11)}
    assert await trip.get("/activity?until=2020-01-01T00:00:00Z") == {"bucket_s": 3600, "activity": []}


async def test_a_version_becomes_a_document_of_its_own(trip: Trip) -> None:
    await trip.edit("ann", lambda m, t: (m.update({"city": "Rome"}), t.insert(0, "Rome")))
    version = await trip.version()
    await trip.edit("eve", lambda m, t: t.clear())
    name = f"{trip.room}-copy"

    done = await trip.do("/restore", {"version": version, "as_new": name})
    again = await trip.ask("POST", "/restore", body={"version": version, "as_new": name})
    forbidden = await trip.ask(
        "POST", "/restore", bearer=token("ann", {trip.room: "write"}), body={"version": version, "as_new": "other"}
    )

    copy = await request(trip.server.url, "GET", f"/api/v1/rooms/{name}/document?format=json", bearer=ROOT)
    assert (done["done"], done["name"]) == (True, name)
    assert copy.json == {"m": {"city": "Rome"}, "t": "Rome"}
    assert (again.status, again.json["title"]) == (409, "document exists")
    assert forbidden.status == 403


async def test_only_chosen_roots_are_restored(trip: Trip) -> None:
    await trip.edit("ann", lambda m, t: (m.update({"city": "Rome"}), t.insert(0, "Rome")))
    version = await trip.version()
    await trip.edit("eve", lambda m, t: (m.clear(), t.clear()))

    await trip.do("/restore", {"version": version, "roots": ["t"]})
    unknown = await trip.ask("POST", "/restore", body={"version": version, "roots": ["nothing"]})

    assert await trip.content() == {"m": {}, "t": "Rome"}
    assert (unknown.status, unknown.json["title"]) == (409, "not restorable")


async def test_versions_are_listed_labelled_and_deleted(trip: Trip) -> None:
    await trip.edit("ann", lambda m, t: m.update({"n": 1}))
    first = await trip.version("first")
    await trip.edit("bob", lambda m, t: m.update({"n": 2}))
    second = await trip.version()

    listed = (await trip.get("/versions"))["versions"]
    relabelled = await trip.ask("PATCH", f"/versions/{second}", body={"label": "second"})
    too_long = await trip.ask("PATCH", f"/versions/{second}", body={"label": "x" * 1001})
    shown = await trip.get(f"/versions/{second}")
    content = await trip.get(f"/versions/{first}?format=json")
    deleted = await trip.ask("DELETE", f"/versions/{first}")
    gone = await trip.ask("GET", f"/versions/{first}")

    assert [(one["id"], one["seq"], one["kind"], one["label"], one["users"], one["whole"]) for one in listed] == [
        (second, 2, "manual", None, ["bob"], True),
        (first, 1, "manual", "first", ["ann"], True),
    ]
    assert all(one["size_bytes"] > 0 and one["taken_by"] == "root" for one in listed)
    assert (relabelled.status, too_long.status, shown["label"]) == (204, 400, "second")
    assert content == {"m": {"n": 1}}
    assert (deleted.status, gone.status) == (204, 404)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/at", None),
        ("GET", "/at?seq=1&time=2026-01-01T00:00:00Z", None),
        ("GET", "/at?seq=x", None),
        ("GET", "/at?time=yesterday", None),
        ("GET", "/at?time=2026-01-01T00:00:00", None),
        ("GET", "/diff?from=-1", None),
        ("GET", "/diff?from=1&format=xml", None),
        ("GET", "/activity?bucket_s=0", None),
        ("GET", "/activity?since=2000-01-01T00:00:00Z&bucket_s=1", None),
        ("POST", "/restore", {"version": 1, "seq": 2}),
        ("POST", "/restore", {"version": "1"}),
        ("POST", "/restore", {"version": True}),
        ("POST", "/restore", {"version": 1, "roots": "t"}),
        ("POST", "/restore", {"version": 1, "dry_run": "yes"}),
        ("POST", "/restore", {"version": 1, "nonsense": 1}),
        ("POST", "/restore", {"time": 5}),
        ("POST", "/restore", {"version": 1, "format": "xml"}),
        ("POST", "/rollback", {"version": 1, "user": "ann", "format": ["text"]}),
        ("POST", "/restore", b"[]"),
        ("POST", "/restore", b"{"),
        ("POST", "/rollback", {"version": 1}),
        ("POST", "/versions", {"label": ""}),
        ("POST", "/versions", {"label": "\ud800"}),
    ],
)
async def test_what_makes_no_sense_is_told_and_changes_nothing(trip: Trip, method: str, path: str, body: Any) -> None:
    await trip.edit("ann", lambda m, t: m.update({"n": 1}))

    answer = await trip.ask(method, path, body=body)

    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json["detail"]
    assert await trip.content() == {"m": {"n": 1}}


@pytest.mark.parametrize("documents", [50, pytest.param(500, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
async def test_restoring_gives_exactly_what_was_for_all_shared_types_on_clients_and_after_a_restart(
    documents: int, tmp_path: Path, yjs: Yjs
) -> None:
    expected = {}
    async with ServerProcess(tmp_path, env=GUARDED | {"CRDT_SYNC_JOURNAL_INTERVAL_S": "0"}) as server:
        for seed in range(documents):
            history = yjs.generate(seed, steps=12, clients=2, odd=seed % 2 == 0, emoji=seed % 3 == 0)
            updates = history.updates
            middle = len(updates) // 2
            name = f"doc-{seed}"
            async with Trip(server, name) as trip:
                for update in updates[:middle]:
                    await trip.post(update)
                kinds = {kind: kind for kind in history.content}
                was = yjs.apply(await trip.hear(), kinds)
                version = await trip.version()
                for update in updates[middle:]:
                    await trip.post(update)

                done = await trip.do("/restore", {"version": version})

                shown = yjs.apply(await trip.hear(), kinds)
                assert done["impossible"] == []
                assert (shown.error, shown.content) == (None, was.content), f"seed {seed}"
                expected[name] = was.content
        await server.restart()
        for name, content in expected.items():
            async with Trip(server, name) as trip:
                assert yjs.apply(await trip.hear(), {kind: kind for kind in content}).content == content, name
        assert server.errors() == []


async def test_a_restore_is_seen_within_a_second(trip: Trip) -> None:
    await trip.edit("ann", lambda m, t: t.insert(0, "x" * 100_000))
    version = await trip.version()
    await trip.edit("eve", lambda m, t: t.clear())
    started = time.monotonic()

    await trip.do("/restore", {"version": version})
    heard = await trip.hear()

    assert len(heard[-1]) > 100_000
    assert time.monotonic() - started < 1 + 2  # and two more for a machine that has other things to do
