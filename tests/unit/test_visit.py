"""What becomes of a client's frames and of its end, whatever fails on the way."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from auth import Credentials
from crdt_sync.connection import Connection, Flush
from crdt_sync.errors import DocumentGone, Draining, MalformedUpdate
from crdt_sync.gateway.visit import Visit
from crdt_sync.limits import Limits
from crdt_sync.metrics import Metrics
from crdt_sync.session import Session
from tests.support.fakes import FakeTransport, in_virtual_time, quick_settings, turns


class Room:
    """Stands for a room: says what happened, and does with a frame what it is told."""

    name = "trip-1"

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.left: list[bool] = []
        self.join_fails_with: Exception | None = None
        self.do: Callable[[bytes], Awaitable[None] | None] = lambda frame: None

    async def catch_up(self, wants: object) -> list[bytes]:
        return []

    def join(self, connection: Connection) -> None:
        if self.join_fails_with is not None:
            raise self.join_fails_with
        self.connections.add(connection)

    def leave(self, connection: Connection, *, properly: bool) -> None:
        self.connections.discard(connection)
        self.left.append(properly)

    def receive(self, connection: Connection, frame: bytes) -> Awaitable[None] | None:
        return self.do(frame)


class Stay:
    """A visit and everything around it."""

    def __init__(self, *, pause_s: float = 0.0) -> None:
        self.room = Room()
        self.limits = Limits(quick_settings())
        self.metrics = Metrics()
        self.transport = FakeTransport()
        self.held = 1
        self.inside = 0
        self.finished: list[int] = []
        parts = SimpleNamespace(
            limits=self.limits,
            metrics=self.metrics,
            access=SimpleNamespace(is_open=True),
            sessions=SimpleNamespace(enter=self.enter, leave=self.leave),
            load=SimpleNamespace(pause_s=lambda room, *, size, receivers: pause_s),
            tracer=None,
        )
        self.visit = Visit(
            cast(Any, parts),
            cast(Any, SimpleNamespace(room=self.room, leave=self.let_go)),
            self.limits.place("127.0.0.1"),
            Session("trip-1"),
            link=None,
            address="127.0.0.1",
            finished=self.finished.append,
        )

    def begin(self) -> "Stay":
        self.visit.begin(self.transport, Flush(), Credentials("trip-1", {}, None))
        return self

    def enter(self, *args: object, **kwargs: object) -> None:
        self.inside += 1

    def leave(self, connection: Connection) -> None:
        self.inside -= connection in self.room.connections

    def let_go(self) -> None:
        self.held -= 1

    @property
    def left_behind(self) -> tuple[int, int, int, int]:
        """What there is of it in the room, in the sessions, in the limits and of the hold on its room."""
        return len(self.room.connections), self.inside, self.limits.connections, self.held


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("error", "code", "level", "event"),
    [
        (MalformedUpdate("bad"), MalformedUpdate.close_code, logging.WARNING, "connection_refused_message"),
        (RuntimeError("a bug"), 1011, logging.ERROR, "message_failed"),
    ],
)
@in_virtual_time
async def test_a_frame_that_fails_closes_its_client(
    late: bool, error: Exception, code: int, level: int, event: str, caplog: pytest.LogCaptureFixture
) -> None:
    stay = Stay().begin()
    received = []

    async def fail() -> None:
        await asyncio.sleep(1)
        raise error

    def do(frame: bytes) -> Awaitable[None] | None:
        received.append(frame)
        if late:
            return fail()
        raise error

    stay.room.do = do
    rest = stay.visit.receive(b"\x00\x02bad")
    assert (rest is not None) == late
    if rest is not None:
        await rest
    assert stay.visit.receive(b"after") is None
    await turns()

    assert received == [b"\x00\x02bad"]
    assert stay.transport.closed is not None
    assert stay.transport.closed[0] == code
    assert [(record.levelno, record.message) for record in caplog.records] == [(level, event)]


@in_virtual_time
async def test_while_the_node_is_busy_a_client_waits_after_each_frame() -> None:
    stay = Stay(pause_s=3).begin()
    loop = asyncio.get_running_loop()
    began_at = loop.time()

    rest = stay.visit.receive(b"\x00\x02update")
    assert rest is not None
    await rest

    assert loop.time() - began_at == 3


@pytest.mark.parametrize(("code", "properly"), [(1000, True), (1001, True), (1005, True), (1006, False), (1011, False)])
@in_virtual_time
async def test_who_is_gone_leaves_nothing_behind(code: int, properly: bool) -> None:
    stay = Stay().begin()
    assert stay.left_behind == (1, 1, 1, 1)

    stay.visit.gone(code)
    await turns()

    assert stay.left_behind == (0, 0, 0, 0)
    assert stay.room.left == [properly]
    assert stay.finished == [code]


@pytest.mark.parametrize(("error", "properly"), [(DocumentGone, True), (Draining, False)])
@in_virtual_time
async def test_who_was_closed_is_gone_for_that_reason_whatever_it_says(error: Any, properly: bool) -> None:
    stay = Stay().begin()
    (connection,) = stay.room.connections

    connection.close(error.close_code, error.reason)
    await turns()
    stay.visit.gone(1000)

    assert stay.finished == [error.close_code]
    assert stay.room.left == [properly]
    assert stay.left_behind == (0, 0, 0, 0)


@in_virtual_time
async def test_who_is_lost_while_something_is_sent_leaves_no_task() -> None:
    stay = Stay()
    stay.transport.block()
    stay.begin()
    (connection,) = stay.room.connections
    connection.notify(b"notice")
    await turns()
    assert len(asyncio.all_tasks()) == 2

    stay.visit.gone(1006)
    await turns()

    assert len(asyncio.all_tasks()) == 1
    assert stay.left_behind == (0, 0, 0, 0)


@in_virtual_time
async def test_who_can_not_join_leaves_nothing_behind() -> None:
    stay = Stay()
    stay.room.join_fails_with = RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        stay.begin()
    await turns()

    assert stay.left_behind == (0, 0, 0, 0)
    assert stay.finished == [1006]
    assert stay.metrics.connections_opened == 0
