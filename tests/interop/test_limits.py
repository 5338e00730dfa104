"""Every limit through a real socket, with what its client hears.

What is counted, and how, is in `tests/unit/test_limits.py`; that all of it holds at once, in `tests/trials/test_floods.py`.
"""

import asyncio
import contextlib
import json
import os
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pycrdt
import pytest

from crdt_sync.lib0 import write_var_bytes
from tests.support.cluster import readiness
from tests.support.editor import Editor
from tests.support.raw import BINARY, CLOSE, PING, TEXT, Closed, RawClient, Refused, frame
from tests.support.server import ServerProcess
from tests.support.tokens import SECRET, hs256

MIB = 1 << 20
CONFIRM = b"\x66\x01x"


@asynccontextmanager
async def serving(folder: Path, **settings: object) -> AsyncIterator[ServerProcess]:
    """A server with these settings; it logs no error whatever is done to it."""
    env = {f"CRDT_SYNC_{name.upper()}": str(value) for name, value in settings.items()}
    async with ServerProcess(folder, env=env) as server:
        yield server
    assert server.errors() == []


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with the defaults, for all tests that leave it as it was."""
    server = ServerProcess(tmp_path_factory.mktemp("plain"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())
    assert server.errors() == []


async def refusal(server: ServerProcess, target: str = "trip-1", **headers: str) -> tuple[int, str | None, bytes]:
    with pytest.raises(Refused) as refused:
        await RawClient.connect(server.url, target, headers=headers)
    return refused.value.status, refused.value.headers.get("retry-after"), refused.value.body


UPGRADE = (
    b"GET /trip-1 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TOO_MANY = (503, "5", b"too many connections\n")


# ---------------------------------------------------------------------------------------------- connections


async def test_a_full_node_refuses_at_the_upgrade_and_says_when_to_come_back(tmp_path: Path) -> None:
    async with serving(tmp_path, connections_max=2) as server:
        async with await RawClient.connect(server.url, "a"), await RawClient.connect(server.url, "b") as second:
            assert await refusal(server) == TOO_MANY

            second.abort()
            await until_served(server)

        await until(lambda: "limit='connections' count=" in server.log)


async def test_a_full_room_refuses_and_others_do_not(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, connections_per_room_max=1) as server,
        await RawClient.connect(server.url, "trip-1"),
        await RawClient.connect(server.url, "trip-2"),
    ):
        assert await refusal(server) == TOO_MANY


async def test_an_address_has_so_many_connections_and_only_a_proxy_may_name_others(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, connections_per_address_max=1, insecure_open=True) as server,
        await RawClient.connect(server.url, "trip-1", headers={"X-Forwarded-For": "198.51.100.1"}),
    ):
        assert await refusal(server, **{"X-Forwarded-For": "198.51.100.2"}) == TOO_MANY


async def test_clients_behind_a_proxy_are_counted_apart_by_what_the_proxy_saw(tmp_path: Path) -> None:
    async with serving(
        tmp_path, connections_per_address_max=1, insecure_open=True, trusted_proxies="127.0.0.0/8"
    ) as server:
        one = {"X-Forwarded-For": "198.51.100.1"}
        other = {"X-Forwarded-For": "198.51.100.2"}
        pretender = {"X-Forwarded-For": "203.0.113.9, 198.51.100.1"}
        async with (
            await RawClient.connect(server.url, "trip-1", headers=one),
            await RawClient.connect(server.url, "trip-1", headers=other),
        ):
            assert await refusal(server, **pretender) == TOO_MANY


@pytest.mark.parametrize("limit", ["connections_per_user", "rooms_per_user"])
async def test_a_user_has_so_many_connections_and_rooms_whatever_the_token(limit: str, tmp_path: Path) -> None:
    now = int(time.time())
    claims = {"iat": now, "exp": now + 600, "rooms": {"trip-*": "write"}}
    ann, ann_too, bob = (
        {"Authorization": f"Bearer {hs256({'sub': user, 'jti': n, **claims})}"}
        for user, n in (("ann", "1"), ("ann", "2"), ("bob", "3"))
    )
    async with (
        serving(tmp_path, jwt_secret=SECRET, **{f"{limit}_max": 1}) as server,
        await RawClient.connect(server.url, "trip-1", headers=ann) as first,
    ):
        assert await refusal(server, "trip-2", **ann_too) == TOO_MANY

        async with await RawClient.connect(server.url, "trip-2", headers=bob) as other:
            await confirmed(other)
        await confirmed(first)
        await until(lambda: f"limit={limit!r}" in server.log)


@pytest.mark.parametrize("limit", ["accepts_per_s", "upgrades_per_s"])
async def test_connections_that_come_too_fast_wait_and_none_is_refused(limit: str, tmp_path: Path) -> None:
    async with serving(tmp_path, **{f"{limit}_max": 20}) as server:
        started = time.monotonic()

        clients = await asyncio.gather(*(RawClient.connect(server.url, "trip-1", timeout_s=30) for _ in range(60)))

        assert 1.5 < time.monotonic() - started < 10
        await until(lambda: f"limit={limit!r}" in server.log)
        for client in clients:
            client.abort()


async def test_a_node_that_is_short_of_memory_takes_nobody_more_and_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path, memory_bytes_max=MIB) as server:
        await until(lambda: "load_level" in server.log)

        assert await refusal(server) == (503, "10", b"server busy\n")
        status, ready = await readiness(server)
        assert (status, list(ready["problems"])) == (503, ["load"])
        assert "new joins are refused" in ready["problems"]["load"]


# ---------------------------------------------------------------------------------------------- handshakes


async def test_an_address_that_sends_many_upgrades_holds_up_only_itself(tmp_path: Path) -> None:
    settings = {"upgrades_per_s_max": 20, "trusted_proxies": "127.0.0.1", "insecure_open": True}
    async with serving(tmp_path, **settings) as server:
        crowd = [
            asyncio.create_task(RawClient.connect(server.url, "trip-1", headers={"X-Forwarded-For": "198.51.100.1"}))
            for _ in range(50)
        ]
        await until(lambda: "limit='upgrades_per_s'" in server.log)
        started = time.monotonic()

        async with await RawClient.connect(server.url, "trip-1", headers={"X-Forwarded-For": "198.51.100.2"}):
            assert time.monotonic() - started < 1
            assert not all(each.done() for each in crowd)

        for client in await asyncio.gather(*crowd):
            client.abort()


async def test_of_more_upgrades_than_may_wait_one_of_the_largest_crowd_is_refused(tmp_path: Path) -> None:
    settings = {"upgrades_per_s_max": 0.2, "trusted_proxies": "127.0.0.1", "insecure_open": True}
    async with serving(tmp_path, upgrades_max=2, **settings) as server:
        attempts = []
        for address in ("198.51.100.1",) * 4 + ("198.51.100.2",):
            headers = {"X-Forwarded-For": address}
            attempts.append(asyncio.create_task(RawClient.connect(server.url, "trip-1", headers=headers)))
            await asyncio.wait(attempts[-1:], timeout=0.3)
        let_in, (waits, refused, other) = attempts[:2], attempts[2:]

        assert not waits.done()
        assert not other.done()
        error = refused.exception()
        assert isinstance(error, Refused)
        assert (error.status, error.headers["retry-after"]) == (503, "5")
        for each in let_in:
            each.result().abort()
        for each in (waits, other):
            each.cancel()
        await asyncio.wait([waits, other])


async def test_a_connection_that_says_nothing_is_closed(tmp_path: Path) -> None:
    async with serving(tmp_path, handshake_timeout_s=1) as server, await RawClient.open_socket(server.port) as client:
        assert 0.9 < await seconds_until_end(client) < 3


async def test_a_request_that_comes_in_drops_is_closed_all_the_same(tmp_path: Path) -> None:
    async with serving(tmp_path, handshake_timeout_s=1) as server, await RawClient.open_socket(server.port) as client:
        dripping = asyncio.create_task(drip(client, b"GET /trip-1 HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100))
        assert 0.9 < await seconds_until_end(client) < 3
        dripping.cancel()


async def test_a_second_request_that_never_ends_is_closed_too(tmp_path: Path) -> None:
    async with serving(tmp_path, handshake_timeout_s=1) as server, await RawClient.open_socket(server.port) as client:
        await client.send_bytes(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.read_response())[0] == 200
        await client.send_bytes(b"GET / HTTP/1.1\r\nHost:")
        assert 0.9 < await seconds_until_end(client) < 3


async def test_a_connection_that_is_idle_after_its_answer_is_closed(plain: ServerProcess) -> None:
    async with await RawClient.open_socket(plain.port) as client:
        await client.send_bytes(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.read_response())[0] == 200
        assert 4 < await seconds_until_end(client) < 8


async def test_of_too_many_that_have_said_nothing_the_oldest_goes(tmp_path: Path) -> None:
    async with serving(tmp_path, upgrades_max=3) as server:
        silent = [await RawClient.open_socket(server.port) for _ in range(6)]

        async with await RawClient.connect(server.url, "trip-1") as client:
            await confirmed(client)
        for each in silent[:3]:
            assert await seconds_until_end(each) < 3
        # The latest two still may say something.
        await silent[-1].send_bytes(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await silent[-1].read_response())[0] == 200
        for each in silent:
            each.abort()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(b"GET /trip-1 HTTP/1.1\r\nHost: x\r\nA: " + b"a" * (1 << 20), 400, id="an endless header"),
        pytest.param(b"GET /trip-1 HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100_000, 400, id="endless headers"),
        pytest.param(b"GET /" + b"a" * (1 << 20), 400, id="an endless path"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00" * 100, 400, id="TLS"),
    ],
)
async def test_an_endless_request_is_refused_while_it_comes(request_: bytes, status: int, plain: ServerProcess) -> None:
    async with await RawClient.open_socket(plain.port) as client:
        sending = asyncio.create_task(client.send_bytes(request_))

        assert (await client.read_response())[0] == status

        await sending


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        pytest.param("trip-1?token=" + "a" * 9000, {}, 414, id="a line"),
        pytest.param("trip-1", {"Authorization": "a" * 9000}, 431, id="a header"),
        pytest.param("trip-1", {f"A{n}": "b" for n in range(200)}, 431, id="many headers"),
    ],
)
async def test_an_upgrade_with_too_much_in_its_head_is_refused(
    target: str, headers: dict[str, str], status: int, plain: ServerProcess
) -> None:
    assert (await refusal(plain, target, **headers))[0] == status


async def test_what_is_no_frame_before_the_answer_ends_the_connection_quietly(plain: ServerProcess) -> None:
    for _ in range(20):
        async with await RawClient.open_socket(plain.port) as client:
            await client.send_bytes(UPGRADE)
            await client.send_bytes(b"\xff" * 100)
            # What comes before the answer ends it without one, what comes after it with 1002. What comes together with
            # the request is thrown away, so here is some more.
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await client.read_response()
                await client.send_bytes(b"\xff" * 100)
                assert (await client.wait_closed()).code in (1002, 1006)
    assert plain.errors() == []


async def test_compression_is_never_agreed_on(plain: ServerProcess) -> None:
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
    async with await RawClient.connect(plain.url, "trip-1", headers=offer) as client:
        assert "sec-websocket-extensions" not in client.headers
        # A frame that claims to be compressed is a broken one.
        await client.send_bytes(bytes([0xC2]) + frame(BINARY, b"x" * 100)[1:])
        assert (await client.wait_closed()).code == 1002


# ---------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("length", [16 * MIB + 1, 1 << 30, 1 << 62])
async def test_a_length_over_the_limit_is_refused_at_the_claim(length: int, plain: ServerProcess) -> None:
    async with await RawClient.connect(plain.url, "trip-1") as client:
        await client.send_bytes(bytes([0x82, 0xFF]) + length.to_bytes(8, "big") + bytes(4))

        assert (await client.wait_closed()).code == 1009


async def test_a_message_too_large_is_told_so_even_if_all_of_it_was_sent(plain: ServerProcess) -> None:
    """A socket that is closed with bytes unread is reset, and the client might never see why."""
    async with await RawClient.connect(plain.url, "trip-1") as client:
        sending = asyncio.create_task(client.send(bytes(32 * MIB)))

        assert (await client.wait_closed()).code == 1009

        sending.cancel()


async def test_fragments_are_bounded_in_sum(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, message_bytes_max=MIB) as server,
        await RawClient.connect(server.url, "trip-1") as client,
    ):
        await client.send_frame(BINARY, bytes(MIB // 2), fin=False)
        await client.send_frame(0, bytes(MIB // 2), fin=False)
        await client.send_frame(0, bytes(1), fin=False)

        assert (await client.wait_closed()).code == 1009


async def test_fragments_are_bounded_in_number(plain: ServerProcess) -> None:
    async with await RawClient.connect(plain.url, "trip-1") as client:
        sending = asyncio.create_task(
            client.send_bytes(frame(BINARY, b"", fin=False) + frame(0, b"", fin=False) * 100_000)
        )

        assert await client.wait_closed(timeout_s=30) == Closed(1009, "message too big")

        sending.cancel()
        await until(lambda: "limit='fragments' count=1" in plain.log)


async def test_a_large_message_in_small_fragments_is_taken(plain: ServerProcess) -> None:
    doc = pycrdt.Doc({"text": pycrdt.Text("x" * (4 * MIB))})
    message = b"\x00\x02" + write_var_bytes(doc.get_update())
    pieces = [message[start : start + 1024] for start in range(0, len(message), 1024)]
    async with await RawClient.connect(plain.url, "trip-1") as client:
        await client.send_frame(BINARY, pieces[0], fin=False)
        for piece in pieces[1:-1]:
            await client.send_frame(0, piece, fin=False)
        await client.send_frame(0, pieces[-1])

        await confirmed(client)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"messages_burst_max": 500, "messages_per_s_max": 2000}, frame(BINARY, b""), id="empty frames"),
        pytest.param({"messages_burst_max": 500, "messages_per_s_max": 2000}, frame(PING, b""), id="pings"),
        pytest.param({"messages_burst_max": 500, "messages_per_s_max": 2000}, frame(TEXT, b"x"), id="text of one byte"),
        pytest.param(
            {"message_bytes_max": MIB, "received_bytes_burst_max": MIB, "received_bytes_per_s_max": MIB},
            frame(TEXT, b"x" * 60_000),
            id="bytes",
        ),
    ],
)
async def test_who_sends_too_fast_is_slowed_and_then_closed(
    settings: dict[str, int], message: bytes, tmp_path: Path
) -> None:
    async with serving(tmp_path, flooding_timeout_s=1, **settings) as server:
        async with await RawClient.connect(server.url, "trip-1") as client:
            started = time.monotonic()
            flooding = asyncio.create_task(flood(client, message))

            closed = await client.wait_closed(timeout_s=20)

            assert closed == Closed(4429, "too many messages")
            assert time.monotonic() - started >= 1
            flooding.cancel()
        await until(lambda: "limit='flooding' count=1" in server.log)
        assert "limit='slowed'" in server.log
        assert "code=4429" in server.log


async def test_who_is_slowed_and_comes_to_its_end_loses_nothing(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, messages_burst_max=100, messages_per_s_max=500) as server,
        Editor(server.url, "trip-1") as author,
    ):
        keys = [await author.edit() for _ in range(500)]

        await author.until(lambda: set(keys) <= author.confirmed.keys(), timeout_s=20)

        assert author.close_code is None
        await until(lambda: "limit='slowed'" in server.log)


async def test_a_full_document_takes_deletes_alone_until_they_have_made_room(tmp_path: Path) -> None:
    author, other = TextDocument(), TextDocument()
    filling = author.change(lambda text: text.insert(0, "x" * 60_000))
    other.doc.apply_update(filling)
    async with serving(tmp_path, document_bytes_max=100_000, checkpoint_interval_s=0.1) as server:
        assert await sent(server, filling) is None
        too_much = author.change(lambda text: text.insert(0, "y" * 60_000))
        assert await sent(server, too_much) == Closed(4413, "document full")
        assert await sent(server, filling) is None, "a repeat adds nothing"

        assert await sent(server, other.change(lambda text: text.clear())) is None

        fits_now = other.change(lambda text: text.insert(0, "z" * 60_000))
        async with asyncio.timeout(10):
            while await sent(server, fits_now) is not None:
                await asyncio.sleep(0.1)
        await until(lambda: "limit='document_bytes'" in server.log)


async def test_unfinished_messages_have_one_bound_for_all(tmp_path: Path) -> None:
    async with serving(tmp_path, message_bytes_max=4 * MIB, partial_bytes_max=8 * MIB) as server:
        small, large = [await RawClient.connect(server.url, "trip-1") for _ in range(2)]
        others = [await RawClient.connect(server.url, "trip-1") for _ in range(2)]
        claim = bytes([0x82, 0xFF]) + (4 * MIB).to_bytes(8, "big") + bytes(4)
        await small.send_bytes(claim + bytes(MIB // 2))
        await large.send_bytes(claim + bytes(4 * MIB - 1))
        for other in others:
            await other.send_bytes(claim + bytes(3 * MIB))

        assert await large.wait_closed() == Closed(1013, "server busy")

        # The others may go on.
        await others[0].send_bytes(bytes(MIB))
        await small.send_bytes(bytes(4 * MIB - MIB // 2))
        assert (await small.wait_closed()).code == 4400, "it came to its end, and was nonsense"
        for client in (large, *others):
            client.abort()


async def test_pongs_do_not_pile_up_for_who_does_not_read(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, messages_burst_max=400_000, messages_per_s_max=400_000) as server,
        await RawClient.connect(server.url, "trip-1") as client,
    ):
        before = server.rss_bytes()

        # Some 40 MB of pongs, of which the kernel takes 10.
        for _ in range(100):
            await client.send_bytes(frame(PING, bytes(125)) * 3000)

        assert server.rss_bytes() - before < 8 * MIB
        client.abort()


async def test_who_closes_and_takes_nothing_of_what_was_sent_is_gone_soon(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, Editor(server.url, "trip-1") as author:
        await author.edit(size=8 * MIB)
        before = sockets(server)
        sleepers = [await RawClient.connect(server.url, "trip-1") for _ in range(3)]
        for sleeper in sleepers:
            for _ in range(4):
                await sleeper.send(b"\x00\x00\x01\x00")
        await asyncio.sleep(1)
        for sleeper in sleepers:
            await sleeper.send_frame(CLOSE, b"")

        await until(lambda: sockets(server) <= before, timeout_s=20)

        for sleeper in sleepers:
            sleeper.abort()


# ---------------------------------------------------------------------------------------------- helpers


class TextDocument:
    """A document whose changes come as updates."""

    def __init__(self) -> None:
        self.doc: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc({"text": pycrdt.Text()})

    def change(self, edit: Callable[[pycrdt.Text], None]) -> bytes:
        before = self.doc.get_state()
        edit(self.doc["text"])
        return self.doc.get_update(before)


async def sent(server: ServerProcess, update: bytes) -> Closed | None:
    """Send an update, over a connection of its own; how the server closed that, if it did."""
    async with await RawClient.connect(server.url, "trip-1") as client:
        await client.send(b"\x00\x02" + write_var_bytes(update))
        await client.send(CONFIRM)
        while (message := await client.receive()) is not None:
            if message == CONFIRM:
                return None
        return client.closed


async def flood(client: RawClient, message: bytes) -> None:
    batch = message * max(1, 10_000 // len(message))
    while client.closed is None:
        await client.send_bytes(batch)
        await asyncio.sleep(0)


async def drip(client: RawClient, data: bytes) -> None:
    for byte in data:
        await client.send_bytes(bytes([byte]))
        await asyncio.sleep(0.1)


async def confirmed(client: RawClient) -> None:
    """Ask for a confirmation, and read until it comes."""
    await client.send(CONFIRM)
    while (message := await client.receive(timeout_s=20)) != CONFIRM:
        assert message is not None, client.closed


async def seconds_until_end(client: RawClient) -> float:
    started = time.monotonic()
    assert (await client.wait_closed(timeout_s=15)).code == 1006
    return time.monotonic() - started


async def until_served(server: ServerProcess) -> None:
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(Refused):
                async with await RawClient.connect(server.url, "trip-1") as client:
                    await confirmed(client)
                    return
            await asyncio.sleep(0.05)


async def until(condition: Callable[[], bool], *, timeout_s: float = 5) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.05)


def sockets(server: ServerProcess) -> int:
    folder = f"/proc/{server.pid}/fd"
    return sum(os.readlink(f"{folder}/{each}").startswith("socket:") for each in os.listdir(folder))


def get_json(server: ServerProcess, path: str) -> dict[str, object]:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
        body: dict[str, object] = json.load(answer)
        return body
