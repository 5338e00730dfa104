"""The HTTP API, over real sockets: what each operation does, and for whom."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio

from crdt_sync.awareness import ClientState, write_states
from crdt_sync.gateway.operations import OPERATIONS
from crdt_sync.lib0 import write_var_bytes
from tests.support.api import GUARDED, request, token
from tests.support.database import stored_updates
from tests.support.raw import Closed, RawClient
from tests.support.server import ServerProcess
from tests.support.yjs import Yjs

# One item of client 1 and 2: "x" and "y" in the text "t".
UPDATE = bytes.fromhex("0101010004010174017800")
OTHER = bytes.fromhex("0101020004010174017900")
ROOT = token("root", {"*": "admin"}, ttl_s=86400)
PROBLEM = "application/problem+json"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    env = GUARDED | {"CRDT_SYNC_MESSAGE_BYTES_MAX": "100000"}
    async with ServerProcess(tmp_path_factory.mktemp("guarded"), env=env) as server:
        await post(server, "x")
        yield server
    assert server.errors() == []


async def join(server: ServerProcess, room: str, bearer: str) -> RawClient:
    return await RawClient.connect(server.url, room, headers={"Authorization": f"Bearer {bearer}"})


async def post(server: ServerProcess, room: str, update: bytes = UPDATE, bearer: str = ROOT) -> None:
    answer = await request(server.url, "POST", f"/api/v1/rooms/{room}/updates", bearer=bearer, body=update)
    assert answer.status == 200, answer


# What each right is answered, by operation; `{room}` has one update and a deleted sibling.
STATUSES: Mapping[str, tuple[int, int, int, int]] = {
    # nothing, read, write, admin, each in the room alone
    "GET /rooms": (200, 200, 200, 200),
    "GET /rooms/{room}": (403, 200, 200, 200),
    "DELETE /rooms/{room}": (403, 403, 403, 204),
    "GET /rooms/{room}/document": (403, 200, 200, 200),
    "POST /rooms/{room}/updates": (403, 403, 200, 200),
    "GET /rooms/{room}/presence": (403, 200, 200, 200),
    "GET /rooms/{room}/connections": (403, 403, 403, 200),
    "GET /deleted": (403, 403, 403, 403),
    "POST /deleted/{room}/undelete": (403, 403, 403, 404),
    "DELETE /deleted/{room}": (403, 403, 403, 404),
    "GET /open": (200, 200, 200, 200),
    "GET /connections": (403, 403, 403, 403),
    "DELETE /connections/{connection}": (403, 403, 403, 403),
    "POST /drain": (403, 403, 403, 403),
    "GET /revocations": (403, 403, 403, 403),
    "POST /revocations": (403, 403, 403, 403),
    "DELETE /revocations/{kind}/{value}": (403, 403, 403, 403),
    "GET /rooms/{room}/versions": (403, 403, 200, 200),
    "POST /rooms/{room}/versions": (403, 403, 201, 201),
    "GET /rooms/{room}/versions/{version}": (403, 403, 404, 404),
    "PATCH /rooms/{room}/versions/{version}": (403, 403, 404, 404),
    "DELETE /rooms/{room}/versions/{version}": (403, 403, 403, 404),
    "GET /rooms/{room}/at": (403, 403, 400, 400),
    "GET /rooms/{room}/diff": (403, 403, 400, 400),
    "GET /rooms/{room}/activity": (403, 403, 200, 200),
    "POST /rooms/{room}/restore": (403, 403, 400, 400),
    "POST /rooms/{room}/rollback": (403, 403, 400, 400),
    "GET /rooms/{room}/verification": (403, 403, 403, 200),
}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
async def test_each_operation_needs_its_right_in_the_room(operation, guarded: ServerProcess, room: str) -> None:  # type: ignore[no-untyped-def]
    await post(guarded, room)
    path = "/api/v1" + operation.path.format(room=room, connection="0", kind="user", value="nobody", version="7")
    got = []
    for rooms in ({"x-*": "admin"}, {room: "read"}, {room: "write"}, {room: "admin"}):
        body = OTHER if operation.path.endswith("updates") else None
        answer = await request(guarded.url, operation.method, path, bearer=token("ann", rooms), body=body)
        got.append(answer.status)
        if answer.status >= 400:
            assert (answer.headers["content-type"], answer.json["status"]) == (PROBLEM, answer.status)
            assert answer.json["title"]

    assert tuple(got) == STATUSES[f"{operation.method} {operation.path}"]


def test_the_table_above_has_every_operation() -> None:
    assert [f"{one.method} {one.path}" for one in OPERATIONS] == list(STATUSES)


async def test_the_openapi_document_describes_every_operation(guarded: ServerProcess) -> None:
    found = (await request(guarded.url, "GET", "/api/v1/openapi.json")).json

    assert found["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, methods in found["paths"].items() for method in methods}
    assert described == {(one.method, f"/api/v1{one.path}") for one in OPERATIONS}
    for methods in found["paths"].values():
        for operation in methods.values():
            assert operation["summary"].endswith(".")


async def test_an_update_is_applied_stored_and_heard_by_clients(guarded: ServerProcess, room: str, yjs: Yjs) -> None:
    await post(guarded, room)
    async with await join(guarded, room, token("bob")) as bob:
        outcomes = []
        for update in (OTHER, OTHER):
            path = f"/api/v1/rooms/{room}/updates"
            answer = await request(guarded.url, "POST", path, bearer=token("ann"), body=update)
            outcomes.append((answer.status, answer.json))
        while (frame := await bob.receive()) != b"\x00\x02" + write_var_bytes(OTHER):
            assert frame is not None, bob.closed

    assert outcomes == [(200, {"outcome": "new"}), (200, {"outcome": "repeat"})]
    assert stored_updates(guarded.database_url, room) == [UPDATE, OTHER]
    content = await request(guarded.url, "GET", f"/api/v1/rooms/{room}/document", bearer=token("ann", {room: "read"}))
    assert (content.status, content.headers["content-type"]) == (200, "application/octet-stream")
    assert sorted(yjs.apply([content.body], {"t": "text"}).content["t"]["string"]) == ["x", "y"]
    shown = await request(guarded.url, "GET", f"/api/v1/rooms/{room}", bearer=ROOT)
    content_bytes = len(UPDATE) + len(OTHER)
    assert shown.json == {"name": room, "seq": 2, "open": True, "connections": 0, "bytes": content_bytes}


@pytest.mark.parametrize(
    ("form", "media_type", "shown"),
    [
        ("json", "application/json", b'{"t": "x"}'),
        ("rich", "application/json", None),
        ("text", "text/plain; charset=utf-8", None),
    ],
)
async def test_a_document_is_shown_to_people_and_programs(
    form: str, media_type: str, shown: bytes | None, guarded: ServerProcess, room: str
) -> None:
    await post(guarded, room)

    answer = await request(guarded.url, "GET", f"/api/v1/rooms/{room}/document?format={form}", bearer=ROOT)

    assert (answer.status, answer.headers["content-type"]) == (200, media_type)
    assert b"x" in answer.body
    if shown is not None:
        assert answer.body == shown


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "title"),
    [
        ("POST", "/api/v1/rooms/x/updates", b"\x01\xff", 400, "malformed update"),
        ("POST", "/api/v1/rooms/x/updates", b"x" * 200_000, 413, "message too big"),
        ("GET", "/api/v1/rooms/nowhere", None, 404, "no such document"),
        ("GET", "/api/v1/rooms/nowhere/document", None, 404, "no such document"),
        ("GET", "/api/v1/rooms/nowhere/presence", None, 404, "no such document"),
        ("DELETE", "/api/v1/rooms/nowhere", None, 404, "no such document"),
        ("GET", "/api/v1/rooms/x/document?format=pdf", None, 400, "unknown format"),
        ("GET", "/api/v1/rooms?limit=0", None, 400, "malformed request"),
        ("GET", f"/api/v1/rooms?limit={'1' * 5000}", None, 400, "malformed request"),
        ("GET", "/api/x/api/v1/rooms", None, 404, "no such resource"),
        ("GET", "/%61pi/v1/rooms", None, 404, "no such resource"),
        ("GET", "/api/v1/rooms/%00", None, 400, "invalid room name"),
        ("GET", "/api/v1/rooms/%ff", None, 400, "malformed request"),
        ("GET", "/api/v1/rooms/a/b", None, 404, "no such resource"),
        ("GET", "/api/v1/rooms/", None, 404, "no such resource"),
        ("GET", "/api/v2/rooms", None, 404, "no such resource"),
        ("PUT", "/api/v1/rooms/x", None, 405, "method not allowed"),
        ("DELETE", "/api/v1/connections/12345", None, 404, "no such connection"),
        ("DELETE", "/api/v1/connections/1?code=1000", None, 400, "unknown code"),
        ("POST", "/api/v1/revocations", b"", 400, "malformed request"),
        ("POST", "/api/v1/revocations", b"[]", 400, "malformed request"),
        ("POST", "/api/v1/revocations", b'{"user": 1}', 400, "malformed request"),
        ("POST", "/api/v1/revocations", b'{"user": "a", "room": "b"}', 400, "malformed request"),
        ("POST", "/api/v1/revocations", b'{"user": "a", "until": "tomorrow"}', 400, "malformed request"),
        ("POST", "/api/v1/revocations", b'{"user": "a", "until": "2030-01-01"}', 400, "malformed request"),
        ("POST", "/api/v1/revocations", b'{"user": "a", "until": "2001-01-01T00:00:00Z"}', 400, "malformed request"),
        ("POST", "/api/v1/revocations", b'{"user": "a", "until": "9000-01-01T00:00:00Z"}', 400, "malformed request"),
        (
            "POST",
            "/api/v1/revocations",
            b'{"user": "a", "until": "9999-12-31T23:59:59-23:59"}',
            400,
            "malformed request",
        ),
        ("POST", "/api/v1/revocations", b'{"user": "\\ud800"}', 400, "malformed request"),
        ("POST", "/api/v1/revocations", b"[" * 60_000, 400, "malformed request"),
        ("DELETE", "/api/v1/revocations/user/nobody", None, 404, "no such revocation"),
        ("DELETE", "/api/v1/revocations/team/x", None, 404, "no such revocation"),
    ],
)
async def test_what_can_not_be_done_is_a_problem(
    method: str, path: str, body: bytes | None, status: int, title: str, guarded: ServerProcess
) -> None:
    answer = await request(guarded.url, method, path, bearer=ROOT, body=body)

    assert (answer.status, answer.headers["content-type"], answer.json["title"]) == (status, PROBLEM, title)


@pytest.mark.parametrize("ends", ["expired", "revoked"])
async def test_a_body_that_ends_after_its_grant_is_not_taken(ends: str, tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, env=GUARDED | {"CRDT_SYNC_JWT_LEEWAY_S": "0"}) as server:
        bearer = token("ann", ttl_s=1 if ends == "expired" else 60, jti="t1")
        ann = await RawClient.open_socket(server.port)
        head = f"POST /api/v1/rooms/trip-1/updates HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n"
        await ann.send_bytes(f"{head}Content-Length: {len(UPDATE)}\r\n\r\n".encode() + UPDATE[:3])
        # Asked after it, answered after it was judged.
        answer = await request(server.url, "GET", "/api/v1/rooms", bearer=bearer)
        assert answer.status == 200
        if ends == "revoked":
            await request(server.url, "POST", "/api/v1/revocations", bearer=ROOT, body={"token": "t1"})
        else:
            while (await request(server.url, "GET", "/api/v1/rooms", bearer=bearer)).status == 200:
                await asyncio.sleep(0.05)

        await ann.send_bytes(UPDATE[3:])

        assert (await ann.read_head()).startswith("HTTP/1.1 401 ")
        await ann.close()
        assert (await request(server.url, "GET", "/api/v1/rooms/trip-1", bearer=ROOT)).status == 404


async def test_rooms_are_listed_as_far_as_they_may_be_read(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, env=GUARDED) as server:
        names = [f"trip-{number}" for number in range(5)] + ["a%2Fb", "z"]
        for name in names:
            await post(server, name)

        async def listed(rooms: dict[str, str], query: str = "") -> tuple[list[str], str | None]:
            answer = (await request(server.url, "GET", f"/api/v1/rooms{query}", bearer=token("ann", rooms))).json
            return [one["name"] for one in answer["rooms"]], answer["next"]

        assert await listed({"*": "read"}) == (["a/b", *names[:5], "z"], None)
        assert await listed({"trip-*": "read", "a/b": "write"}) == (["a/b", *names[:5]], None)
        assert await listed({"*": "read"}, "?prefix=trip-&limit=2") == (["trip-0", "trip-1"], "trip-1")
        assert await listed({"*": "read"}, "?prefix=trip-&limit=2&after=trip-3") == (["trip-4"], None)
        assert await listed({"*": "read"}, "?contains=p-3") == (["trip-3"], None)
        assert await listed({"*": "read"}, "?prefix=trip-&contains=-&limit=1&after=trip-1") == (["trip-2"], "trip-2")
        assert await listed({"*": "read"}, "?contains=nothing") == ([], None)
        assert await listed({}) == ([], None)


async def test_a_connection_is_listed_and_closed(guarded: ServerProcess, room: str) -> None:
    async with await join(guarded, room, token("bob", {room: "write"})) as bob:
        path = f"/api/v1/rooms/{room}/connections"
        (found,) = (await request(guarded.url, "GET", path, bearer=ROOT)).json["connections"]
        everywhere = (await request(guarded.url, "GET", "/api/v1/connections", bearer=ROOT)).json["connections"]
        path = f"/api/v1/connections/{found['id']}"
        another = await request(guarded.url, "DELETE", f"{path}?since=2026-05-04T00:00:00Z", bearer=ROOT)
        closed = await request(guarded.url, "DELETE", f"{path}?since={quote(found['since'])}", bearer=ROOT)

        assert found in everywhere
        assert (found["room"], found["user"], found["address"], found["may_write"]) == (room, "bob", "127.0.0.1", True)
        assert datetime.now(UTC) - datetime.fromisoformat(found["since"]) < timedelta(seconds=10)
        assert (another.status, closed.status) == (404, 204)
        assert await bob.wait_closed() == Closed(4403, "closed by an admin")


async def test_connections_are_listed_in_pages(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ServerProcess(tmp_path, env=GUARDED))
        for number in range(5):
            await stack.enter_async_context(await join(server, f"trip-{number}", token(f"user-{number}")))

        async def listed(query: str) -> tuple[list[str], int | None]:
            answer = (await request(server.url, "GET", f"/api/v1/connections{query}", bearer=ROOT)).json
            assert answer["open"] == 5
            return [one["user"] for one in answer["connections"]], answer["next"]

        users = [f"user-{number}" for number in range(5)]
        first, after = await listed("?limit=3")
        assert (first, await listed(f"?limit=3&after={after}")) == (users[:3], (users[3:], None))
        assert await listed("?order=id") == (users, None)
        assert await listed("?contains=user-3") == await listed("?contains=trip-3&order=outbox") == (users[3:4], None)
        assert (await listed("?contains=127.0.0.1&limit=2"))[0] == users[:2]
        assert await listed("?contains=nobody") == ([], None)
        assert sorted((await listed("?order=outbox&limit=5"))[0]) == users
        unknown = await request(server.url, "GET", "/api/v1/connections?order=age", bearer=ROOT)
        assert (unknown.status, unknown.json["title"]) == (400, "unknown order")


async def test_open_rooms_are_listed_the_busiest_first(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, env=GUARDED) as server:
        await post(server, "trip-asleep")
        async with (
            await join(server, "trip-1", token("ann")),
            await join(server, "trip-2", token("bob")) as bob,
            await join(server, "trip-2", token("ann")),
        ):
            for _ in range(20):
                await bob.send(b"\x01\x01\x00")  # an awareness message about nobody
            await bob.send(b"\x66\x04done")
            while await bob.receive() != b"\x66\x04done":
                pass
            answer = (await request(server.url, "GET", "/api/v1/open", bearer=ROOT)).json
            (most,) = (await request(server.url, "GET", "/api/v1/open?limit=1", bearer=ROOT)).json["rooms"]
            own = token("eve", {"trip-1": "read"})
            mine = (await request(server.url, "GET", "/api/v1/open", bearer=own)).json

        found = {one["name"]: one for one in answer["rooms"]}
        assert next(iter(found)) == most["name"] == "trip-2"
        assert (found["trip-1"]["connections"], found["trip-2"]["connections"]) == (1, 2)
        assert 0.5 < found["trip-2"]["work"] <= 1
        assert found["trip-2"]["unstored"] == 0
        assert ([one["name"] for one in mine["rooms"]], mine["open"]) == (["trip-1"], 1)


# ------------------------------------------------------------------------------------------------------ deletion


async def test_a_deleted_document_is_gone_until_it_is_brought_back(guarded: ServerProcess, room: str) -> None:
    await post(guarded, room)
    other = f"{room}-other"
    await post(guarded, other)
    async with await join(guarded, room, token("bob")) as bob, await join(guarded, other, token("bob")) as elsewhere:
        answer = await request(guarded.url, "DELETE", f"/api/v1/rooms/{room}", bearer=ROOT)

        assert answer.status == 204
        assert await bob.wait_closed() == Closed(4404, "document deleted")
        assert elsewhere.closed is None
    for path in (f"/api/v1/rooms/{room}", f"/api/v1/rooms/{room}/document", f"/api/v1/rooms/{room}/presence"):
        assert (await request(guarded.url, "GET", path, bearer=ROOT)).json["title"] == "document deleted"
    answer = await request(guarded.url, "POST", f"/api/v1/rooms/{room}/updates", bearer=ROOT, body=OTHER)
    assert (answer.status, answer.json["title"]) == (404, "document deleted")
    assert (await request(guarded.url, "DELETE", f"/api/v1/rooms/{room}", bearer=ROOT)).status == 404
    listed = (await request(guarded.url, "GET", "/api/v1/deleted", bearer=ROOT)).json["rooms"]
    assert room in [one["name"] for one in listed]
    async with await join(guarded, room, token("bob")) as stale:
        # Let in, since a browser can't see why it is refused.
        assert await stale.wait_closed() == Closed(4404, "document deleted")

    assert (await request(guarded.url, "POST", f"/api/v1/deleted/{room}/undelete", bearer=ROOT)).status == 204

    async with asyncio.timeout(10):
        while (await request(guarded.url, "GET", f"/api/v1/rooms/{room}/document", bearer=ROOT)).status != 200:
            await asyncio.sleep(0.1)
    await post(guarded, room, OTHER)
    assert stored_updates(guarded.database_url, room) == [UPDATE, OTHER]


async def test_a_forgotten_document_s_name_is_free_again(guarded: ServerProcess, room: str) -> None:
    await post(guarded, room)
    await request(guarded.url, "DELETE", f"/api/v1/rooms/{room}", bearer=ROOT)

    async with asyncio.timeout(10):
        while True:
            answer = await request(guarded.url, "DELETE", f"/api/v1/deleted/{room}", bearer=ROOT)
            if answer.status == 204:
                break
            assert (answer.status, answer.json["title"]) == (409, "deleted just now")
            assert 0 < int(answer.headers["retry-after"]) <= 3
            await asyncio.sleep(0.1)
    await post(guarded, room, OTHER)
    assert stored_updates(guarded.database_url, room) == [OTHER]


async def test_what_was_accepted_just_before_is_deleted_too_and_comes_back(tmp_path: Path) -> None:
    env = GUARDED | {"CRDT_SYNC_JOURNAL_INTERVAL_S": "5"}
    async with ServerProcess(tmp_path, env=env) as server:
        async with await join(server, "trip-1", token("ann")) as ann:
            await ann.send(b"\x00\x02" + write_var_bytes(UPDATE))
            await ann.send(b"\x03")
            await ann.receive()

            assert (await request(server.url, "DELETE", "/api/v1/rooms/trip-1", bearer=ROOT)).status == 204
            assert (await ann.wait_closed()).code == 4404
        assert (await request(server.url, "POST", "/api/v1/deleted/trip-1/undelete", bearer=ROOT)).status == 204
        assert stored_updates(server.database_url, "trip-1") == [UPDATE]


# ------------------------------------------------------------------------------------------------------ revocations


@pytest.mark.parametrize("kind", ["user", "token", "room"])
async def test_what_is_revoked_is_closed_at_once_and_refused_after_a_restart(kind: str, tmp_path: Path) -> None:
    code, status = (4403, 403) if kind == "room" else (4401, 401)
    async with ServerProcess(tmp_path, env=GUARDED | {"CRDT_SYNC_JWT_LEEWAY_S": "0"}) as server:
        bearer = token("ann", {"trip-1": "write"}, jti="t1")
        value = {"user": "ann", "token": "t1", "room": "trip-1"}[kind]
        async with await join(server, "trip-1", bearer) as ann, await join(server, "trip-2", token("bob")) as bob:
            answer = await request(server.url, "POST", "/api/v1/revocations", bearer=ROOT, body={kind: value})

            assert (answer.status, answer.json[kind]) == (201, value)
            assert (await ann.wait_closed()).code == code
            assert bob.closed is None
        await server.restart()
        refused = await request(server.url, "GET", "/api/v1/rooms/trip-1", bearer=bearer)
        assert refused.status == status
        listed = (await request(server.url, "GET", "/api/v1/revocations", bearer=ROOT)).json["revocations"]
        assert [one[kind] for one in listed] == [value]
        until = datetime.fromisoformat(listed[0]["until"])
        assert timedelta(days=29) < until - datetime.now(UTC) < timedelta(days=31)

        await asyncio.sleep(1.1)  # tokens say when they were issued in whole seconds
        fresh = await request(server.url, "GET", "/api/v1/rooms", bearer=token("ann", {"trip-1": "write"}, jti="t2"))
        assert fresh.status == 200
        back = await request(server.url, "DELETE", f"/api/v1/revocations/{kind}/{value}", bearer=ROOT)
        assert back.status == 204
        allowed = await request(server.url, "GET", "/api/v1/rooms/trip-1/document", bearer=bearer)
        assert allowed.status == 404  # no such document, but it may ask


async def test_an_api_of_an_open_server_is_open(server: ServerProcess) -> None:
    answer = await request(server.url, "POST", "/api/v1/rooms/trip-1/updates", body=UPDATE)

    assert (answer.status, json.loads(answer.body)) == (200, {"outcome": "new"})


async def test_presence_shows_what_python_would_not_write(server: ServerProcess, room: str) -> None:
    async with await RawClient.connect(server.url, room) as ann:
        states = [ClientState(7, 1, b'{"half":"\\ud83d"}'), ClientState(8, 1, b'{"big":1e999}')]
        await ann.send(b"\x01" + write_var_bytes(write_states(states)))
        await ann.send(b"\x66\x01c")
        while await ann.receive() != b"\x66\x01c":
            assert ann.closed is None

        answer = await request(server.url, "GET", f"/api/v1/rooms/{room}/presence")

    assert answer.body == (
        b'{"clients":[{"client":7,"clock":1,"state":{"half":"\\ud83d"}},{"client":8,"clock":1,"state":{"big":1e999}}]}'
    )
