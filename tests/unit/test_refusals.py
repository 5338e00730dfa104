"""How the WebSocket endpoint says no, also to servers that know less than ours."""

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.types import Message

from auth import CredentialInvalid, Credentials, Grant, KeysUnavailable, Right
from crdt_sync.errors import DocumentGone
from crdt_sync.gateway.access import Access
from crdt_sync.gateway.cooldown import WAIT_S
from crdt_sync.gateway.sync import SyncEndpoint
from crdt_sync.limits import Limits
from crdt_sync.load import Load
from crdt_sync.metrics import Metrics
from crdt_sync.revocations import Revocations
from crdt_sync.rooms import Held
from crdt_sync.sessions import Sessions
from persistence.memory import MemoryStore
from tests.support.fakes import in_virtual_time, quick_settings, running_node, turns

DENIAL = {"websocket.http.response": {}}


async def verify(credentials: Credentials) -> Grant:
    if credentials.token == "slow":
        await asyncio.sleep(5)
    if credentials.token == "away":
        raise KeysUnavailable("away")
    if credentials.token != "good":
        raise CredentialInvalid("bad")
    return Grant(user="ann", rooms={"trip-1": Right.WRITE})


class Upgrade:
    """One upgrade, and what it was answered."""

    def __init__(self, parts: object, path: bytes, *, extensions: dict[str, Any] | None = None) -> None:
        self.sent: list[Message] = []
        self.events: asyncio.Queue[Message] = asyncio.Queue()
        self.events.put_nowait({"type": "websocket.connect"})
        raw_path, _, query = path.partition(b"?")
        self.scope = {
            "type": "websocket",
            "app": SimpleNamespace(state=SimpleNamespace(parts=parts)),
            "raw_path": raw_path,
            "query_string": query,
            "headers": [],
            "extensions": extensions or {},
        }

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def run(self, endpoint: SyncEndpoint | None = None) -> list[Message]:
        await (endpoint or SyncEndpoint(quick_settings()))(self.scope, self.events.get, self.send)
        return self.sent


def parts(rooms: object = None) -> Any:
    revocations = Revocations(MemoryStore())
    settings = quick_settings()
    limits = Limits(settings)
    return SimpleNamespace(
        access=Access(verify, settings, revocations),
        rooms=SimpleNamespace(while_open=nullcontext) if rooms is None else rooms,
        sessions=Sessions(revocations),
        revocations=revocations,
        limits=limits,
        load=Load(settings, limits),
        metrics=Metrics(),
        tracer=None,
    )


@pytest.mark.parametrize(
    ("path", "status", "headers", "body"),
    [
        (b"/trip-1", 401, {b"www-authenticate": b"Bearer"}, b"credential invalid\n"),
        (b"/trip-1?token=away", 503, {b"retry-after": b"5"}, b"try again later\n"),
        (b"/trip-2?token=good", 403, {}, b"not allowed\n"),
        (b"/?token=good", 400, {}, b"invalid room name\n"),
    ],
)
@in_virtual_time
async def test_a_refusal_is_an_http_answer(path: bytes, status: int, headers: dict[bytes, bytes], body: bytes) -> None:
    start, end = await Upgrade(parts(), path, extensions=DENIAL).run()

    assert start["status"] == status
    assert dict(start["headers"]) == {b"content-type": b"text/plain; charset=utf-8", **headers}
    assert end == {"type": "websocket.http.response.body", "body": body}


@in_virtual_time
async def test_where_no_answer_can_be_given_the_upgrade_is_denied() -> None:
    assert await Upgrade(parts(), b"/trip-1").run() == [
        {"type": "websocket.close", "code": 4401, "reason": "credential invalid"}
    ]


@in_virtual_time
async def test_who_wants_a_deleted_document_is_told_so_on_its_websocket_and_waits_when_it_comes_again() -> None:
    async def enter(name: str) -> Held:
        raise DocumentGone(name)

    made = parts(SimpleNamespace(while_open=nullcontext, enter=enter))
    endpoint = SyncEndpoint(quick_settings())
    loop = asyncio.get_running_loop()
    began_at = loop.time()

    sent = [await Upgrade(made, b"/trip-1?token=good").run(endpoint) for _ in range(2)]

    assert sent == 2 * [
        [
            {"type": "websocket.accept", "subprotocol": None},
            {"type": "websocket.close", "code": 4404, "reason": "document deleted"},
        ]
    ]
    assert loop.time() - began_at == pytest.approx(WAIT_S)
    assert made.limits.connections == 0


@in_virtual_time
async def test_a_client_that_can_not_be_entered_is_not_left_in_its_room() -> None:
    async with running_node() as node:
        made = parts(node.rooms)

        def fail(*args: object, **kwargs: object) -> None:
            raise RuntimeError("a bug")

        made.sessions.enter = fail
        with pytest.raises(RuntimeError):
            await Upgrade(made, b"/trip-1?token=good").run()
        await turns()

        assert (await node.room("trip-1")).connections == set()
        assert not [task for task in asyncio.all_tasks() if "Connection.run" in repr(task)]


@in_virtual_time
async def test_who_still_waits_to_be_let_in_is_refused_as_soon_as_the_node_goes_away() -> None:
    async with running_node() as node:
        upgrade = Upgrade(parts(node.rooms), b"/trip-1?token=slow", extensions=DENIAL)
        answering = asyncio.create_task(upgrade.run())
        await turns()
        node.rooms.drain()
        node.rooms.drain()
        await asyncio.wait_for(answering, 0.1)
        late = await Upgrade(parts(node.rooms), b"/trip-1?token=good", extensions=DENIAL).run()

        assert [sent[0]["status"] for sent in (upgrade.sent, late)] == [503, 503]
        assert upgrade.sent[-1]["body"] == b"server restarting\n"
