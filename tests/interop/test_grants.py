"""Rights that change while a client is connected, and how often clients come back that may not."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from crdt_sync.lib0 import read_var_uint, write_var_bytes
from tests.support.api import GUARDED, request, token
from tests.support.clients import NODE_VERSIONS, NodeClient, NodeClients
from tests.support.cluster import Cluster
from tests.support.database import stored_updates
from tests.support.raw import Closed, RawClient
from tests.support.redis import RedisServer
from tests.support.server import ServerProcess

ENV = GUARDED | {"CRDT_SYNC_JWT_LEEWAY_S": "0"}
ROOT = token("root", {"*": "admin"}, ttl_s=86400)
WATCH_S = 10
ATTEMPTS_MAX = 8
"""What a client makes in 10 s that is refused at each: 100, 200, 400, 800, 1600 ms, then every 2.5 s."""

UPDATES = [bytes([1, 1, client, 0, 4, 1, 1, 0x74, 1, 0x78, 0]) for client in range(1, 6)]
"""Each an item of a client of its own in the text "t"."""


@pytest_asyncio.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tmp_path, env=ENV) as server:
        yield server
    assert server.errors() == []


@pytest_asyncio.fixture
async def two_nodes(tmp_path: Path, postgres_url: str, redis: RedisServer) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, database_url=postgres_url, redis=redis, nodes=2, env=ENV) as cluster:
        yield cluster
    for node in cluster.nodes:
        assert node.errors() == []


async def join(server: ServerProcess, room: str, shown: str) -> RawClient:
    return await RawClient.connect(server.url, room, headers={"Authorization": f"Bearer {shown}"})


async def said(client: RawClient) -> list[bytes]:
    """What the server says until everything that was sent is stored."""
    await client.send(b"\x66\x01c")
    got = []
    while (frame := await client.receive()) != b"\x66\x01c":
        assert frame is not None, client.closed
        got.append(frame)
    return got


async def next_auth(client: RawClient, *, timeout_s: float = 5) -> bytes:
    """The next word about credentials."""
    async with asyncio.timeout(timeout_s):
        while True:
            frame = await client.receive(timeout_s=timeout_s)
            assert frame is not None, client.closed
            if frame[0] == 2:
                return frame


def update(number: int) -> bytes:
    return b"\x00\x02" + write_var_bytes(UPDATES[number])


def fresh(shown: str) -> bytes:
    return b"\x02\x01" + write_var_bytes(shown.encode())


# ------------------------------------------------------------------------------------------------------ stock clients


async def attempts_of(client: NodeClient) -> int:
    status = await client.status()
    return int(status["opened"]) + len(status["refusals"])


@pytest.mark.waits
@pytest.mark.timeout(120)
async def test_no_stock_client_that_may_not_be_here_comes_back_often(
    guarded: ServerProcess, clients: NodeClients
) -> None:
    """Four versions, each refused from the start, revoked, writing without the right, and in a deleted room."""
    for room in ("revoked", "deleted", "read"):
        async with await join(guarded, room, token("ann")) as ann:
            await ann.send(update(0))
            await said(ann)

    async def client(version: str, room: str, right: str, *, bad: bool = False) -> NodeClient:
        shown = token(f"{room}-{version}", {room: right}, jti=f"{room}-{version}") + ("x" if bad else "")
        return await clients.create(
            guarded.url, room, version, params={"token": shown}, synced=not bad, connect=not bad
        )

    made = {
        (room, version): await client(version, room, right, bad=room == "refused")
        for room, right in (("refused", "write"), ("revoked", "write"), ("deleted", "write"), ("read", "read"))
        for version in NODE_VERSIONS
    }
    before = {key: await attempts_of(one) for key, one in made.items()}
    for (room, version), one in made.items():
        if room == "refused":
            await one.connect()
        elif room == "read":
            await one.insert(0, "mine")
        elif room == "revoked":
            await request(guarded.url, "POST", "/api/v1/revocations", bearer=ROOT, body={"token": f"revoked-{version}"})
    await request(guarded.url, "DELETE", "/api/v1/rooms/deleted", bearer=ROOT)

    await asyncio.sleep(WATCH_S)

    attempts = {key: await attempts_of(one) - before[key] for key, one in made.items()}
    print(attempts)
    assert {key: count for key, count in attempts.items() if count > ATTEMPTS_MAX} == {}
    for room, code in (("revoked", 4401), ("deleted", 4404), ("read", 4403)):
        for version in NODE_VERSIONS:
            status = await made[room, version].status()
            assert code in [close["code"] for close in status["closes"]], (room, version)
        # It knows what 44xx means.
        assert attempts[room, "3.1"] == 0
    # The refused were not forgotten either.
    assert all(attempts["refused", version] >= 4 for version in NODE_VERSIONS)


@pytest.mark.parametrize("version", NODE_VERSIONS)
async def test_a_stock_client_whose_token_expires_is_sent_away_and_one_that_renews_it_stays(
    version: str, guarded: ServerProcess, clients: NodeClients, room: str
) -> None:
    ends = await clients.create(guarded.url, room, version, params={"token": token("ann", ttl_s=3)})
    stays = await clients.create(guarded.url, room, version, params={"token": token("bob", ttl_s=3)})
    await stays.send(fresh(token("bob", ttl_s=600)))

    await ends.wait(connected=False, timeout_s=6)
    await asyncio.sleep(1.5)

    status = await ends.status()
    assert (4401, "credential expired") in [(close["code"], close["reason"]) for close in status["closes"]]
    assert status["opened"] == 1
    # 3.1 gives up; the others are refused at the upgrade.
    assert bool(status["refusals"]) == (version != "3.1")
    await stays.insert(0, "still here")
    await stays.confirm()
    assert (await stays.status())["opened"] == 1


@pytest.mark.parametrize("version", NODE_VERSIONS)
async def test_a_stock_client_whose_right_to_write_ends_goes_on_reading_until_it_writes(
    version: str, guarded: ServerProcess, clients: NodeClients, room: str
) -> None:
    ann = await clients.create(guarded.url, room, version, params={"token": token("ann")})
    bob = await clients.create(guarded.url, room, version, params={"token": token("bob")})
    await ann.insert(0, "mine")
    await ann.confirm()
    await ann.send(fresh(token("ann", {room: "read"})))
    await bob.wait(text="mine")
    await bob.insert(4, " and yours")

    await ann.wait(text="mine and yours")
    await ann.set_state({"cursor": 1})
    await bob.wait(states={ann.client_id: {"cursor": 1, "user": {"id": "ann"}}})
    await ann.insert(0, "not ")
    async with asyncio.timeout(5):
        while (4403, "read only") not in [(c["code"], c["reason"]) for c in (await ann.status())["closes"]]:
            await asyncio.sleep(0.05)
    assert (await bob.content("text"))["text"] == "mine and yours"


# ------------------------------------------------------------------------------------------------------ expiry


async def test_a_grant_that_ends_ends_its_connection(guarded: ServerProcess) -> None:
    began = time.monotonic()
    async with await join(guarded, "trip-1", token("ann", ttl_s=2)) as ann:
        notice = await next_auth(ann)
        end = await ann.wait_closed()

    assert (notice[:2], read_var_uint(notice, 2)[0]) == (b"\x02\x02", 2)
    assert end == Closed(4401, "credential expired")
    assert 1.5 < time.monotonic() - began < 4


async def test_a_fresh_token_keeps_a_client_in_its_place(guarded: ServerProcess) -> None:
    async with await join(guarded, "trip-1", token("ann", ttl_s=3)) as ann:
        await next_auth(ann)
        await ann.send(fresh(token("ann", ttl_s=600)))
        answer = await next_auth(ann)
        await asyncio.sleep(3.5)
        await ann.send(update(0))
        await said(ann)

        assert answer[:2] == b"\x02\x02"
        assert 590 <= read_var_uint(answer, 2)[0] <= 600
        assert ann.closed is None


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (lambda: "nonsense", b"credential invalid"),
        (lambda: token("ann", ttl_s=-60), b"credential expired"),
        (lambda: token("bob"), b"not allowed"),
        (lambda: token("ann", {"another": "write"}), b"not allowed"),
    ],
    ids=["nonsense", "expired", "another user's", "another room's"],
)
async def test_a_fresh_token_that_is_no_good_changes_nothing(shown, reason: bytes, guarded: ServerProcess) -> None:  # type: ignore[no-untyped-def]
    async with await join(guarded, "trip-1", token("ann")) as ann:
        await ann.send(fresh(shown()))

        assert await next_auth(ann) == b"\x02\x00" + write_var_bytes(reason)
        await ann.send(update(0))
        await said(ann)
    assert len(stored_updates(guarded.database_url, "trip-1")) == 1


async def test_rights_change_live_in_both_directions(guarded: ServerProcess) -> None:
    async with (
        await join(guarded, "trip-1", token("ann", {"trip-1": "write"})) as ann,
        await join(guarded, "trip-1", token("bob")) as bob,
    ):
        await ann.send(update(0))
        await said(ann)
        await ann.send(fresh(token("ann", {"trip-1": "read"})))
        await next_auth(ann)
        await bob.send(update(1))
        heard = await said(bob) and await said(ann)
        await ann.send(update(0))
        await said(ann)  # a repeat is no attempt
        await ann.send(fresh(token("ann", {"trip-1": "write"})))
        asked = await ann.receive()
        while asked is not None and asked[:2] != b"\x00\x00":
            asked = await ann.receive()
        await ann.send(update(2))
        await said(ann)
        await ann.send(fresh(token("ann", {"trip-1": "read"})))
        await next_auth(ann)
        await ann.send(update(3))

        assert update(1) in heard
        assert asked is not None, "the server asks for what it refused meanwhile"
        assert await ann.wait_closed() == Closed(4403, "read only")
    assert stored_updates(guarded.database_url, "trip-1") == UPDATES[:3]


async def test_on_an_open_server_a_fresh_token_means_nothing(server: ServerProcess) -> None:
    async with await RawClient.connect(server.url, "trip-1") as client:
        await client.send(fresh("anything"))
        assert [frame for frame in await said(client) if frame[0] == 2] == []


# ------------------------------------------------------------------------------------------------------ two nodes


@pytest.mark.parametrize("kind", ["user", "token", "room"])
async def test_a_revocation_reaches_the_other_node_within_a_second(kind: str, two_nodes: Cluster) -> None:
    here, there = two_nodes.nodes
    shown = token("ann", {"trip-1": "write"}, jti="t1")
    value = {"user": "ann", "token": "t1", "room": "trip-1"}[kind]
    # A node looks into the store 1 s after its start. This is about being told.
    await asyncio.sleep(2.5)
    async with await join(there, "trip-1", shown) as ann, await join(there, "trip-2", token("bob")) as bob:
        began = time.monotonic()
        answer = await request(here.url, "POST", "/api/v1/revocations", bearer=ROOT, body={kind: value})
        end = await ann.wait_closed()
        took_s = time.monotonic() - began

        assert (answer.status, end.code) == (201, 4403 if kind == "room" else 4401)
        assert took_s < 1
        assert bob.closed is None
    for node in two_nodes.nodes:
        status = (await request(node.url, "GET", "/api/v1/rooms/trip-1", bearer=shown)).status
        assert status == (403 if kind == "room" else 401)


async def test_a_revocation_that_redis_did_not_carry_is_found_in_the_store(two_nodes: Cluster) -> None:
    here, there = two_nodes.nodes
    async with await join(there, "trip-1", token("ann")) as ann:
        for link in two_nodes.links:
            link.cut()
        await request(here.url, "POST", "/api/v1/revocations", bearer=ROOT, body={"user": "ann"})

        assert (await ann.wait_closed(timeout_s=30)).code == 4401


async def test_a_deletion_reaches_the_other_node(two_nodes: Cluster) -> None:
    here, there = two_nodes.nodes
    async with await join(here, "trip-1", token("ann")) as ann, await join(there, "trip-1", token("bob")) as bob:
        await ann.send(update(0))
        await said(ann)
        began = time.monotonic()
        assert (await request(here.url, "DELETE", "/api/v1/rooms/trip-1", bearer=ROOT)).status == 204

        assert [await ann.wait_closed(), await bob.wait_closed()] == [Closed(4404, "document deleted")] * 2
        assert time.monotonic() - began < 1
    forget = await request(there.url, "DELETE", "/api/v1/deleted/trip-1", bearer=ROOT)
    assert (forget.status, 0 < int(forget.headers["retry-after"]) <= 90) == (409, True)
    async with await join(there, "trip-1", token("bob")) as stale:
        assert (await stale.wait_closed()).code == 4404
