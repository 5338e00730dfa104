"""NGINX with the very files of examples/deployment/nginx, in front of real nodes with real clients, and of upstreams that misbehave."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.support.api import GUARDED, request, token
from tests.support.clients import NodeClients, NodeProcess
from tests.support.cluster import Cluster
from tests.support.nginx import Nginx
from tests.support.redis import RedisServer
from tests.support.services import HOST, require

# The examples' time-outs and the default keep-alive, scaled down alike.
SCALE = 1 / 45
KEEP_ALIVE_S = 20 * SCALE
TIMEOUT_S = 90 * SCALE
BACK_S = 3


@pytest.mark.timeout(90)
async def test_stock_clients_edit_together_by_way_of_nginx_and_two_nodes(
    redis: RedisServer, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {
        **GUARDED,
        "CRDT_SYNC_REDIS_PREFIX": tmp_path.name,
        "CRDT_SYNC_TRUSTED_PROXIES": HOST,
        "CRDT_SYNC_KEEP_ALIVE_INTERVAL_S": str(KEEP_ALIVE_S),
    }
    patient = {"_timeout 90s": f"_timeout {TIMEOUT_S:.0f}s"}
    async with AsyncExitStack() as stack:
        cluster = Cluster(tmp_path, database_url=postgres_url, redis=redis, nodes=2, env=env)
        await stack.enter_async_context(cluster)
        one, two = cluster.nodes
        nginx = stack.enter_context(require(lambda: Nginx([one.port, two.port], replacing=patient)))
        monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(nginx.certificate))
        node = NodeProcess()
        stack.callback(node.close)
        clients = NodeClients(node)
        stack.push_async_callback(clients.close)
        url, params = f"wss://{HOST}:{nginx.port}", {"token": token()}
        versions = ("1.5", "3.0", "3.1", "4.0")
        people = [await clients.create(url, "trip%2F旅", version, params=params) for version in versions]
        forged = {"Authorization": f"Bearer {token()}", "X-Forwarded-For": "192.0.2.66"}
        stranger = await stack.enter_async_context(
            connect(
                f"{url}/trip-2",
                ssl=trusting(nginx),
                local_addr=("127.0.0.2", 0),
                additional_headers=forged,
                compression=None,
                ping_interval=None,
            )
        )

        await people[0].insert(0, "from the first ")
        await people[-1].map_set("from", "the last")
        for person in people:
            await person.wait(text="from the first ", map={"from": "the last"})

        # Both nodes have some, who take them for whom NGINX says, not for whom they say.
        addresses = [await addresses_at(node.url) for node in cluster.nodes]
        assert sorted(map(len, addresses)) == [2, 3]
        assert sorted(addresses[0] + addresses[1]) == [*[HOST] * 4, "127.0.0.2"]

        # Who says nothing for longer than NGINX waits is still there.
        await asyncio.sleep(2.2 * TIMEOUT_S)
        assert stranger.close_code is None
        assert [(await person.status())["opened"] for person in people] == [1] * 4

        # A node is stopped: its clients are at the other, those of the other notice nothing.
        await one.stop()
        async with asyncio.timeout(BACK_S):
            while not all([(await person.status())["synced"] for person in people]):
                await asyncio.sleep(0.05)
        moved = [(await person.status())["opened"] > 1 for person in people]
        assert sum(moved) == addresses[0].count(HOST)
        await people[1].map_set("still", "there")
        await people[2].wait(map={"from": "the last", "still": "there"})

        assert params["token"] not in nginx.logged


class Upstream:
    """Answers each request by its path: 503 to some, else 200. Use as an async context manager."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.seen: list[str] = []
        """The paths that were asked for, as they came."""

    async def __aenter__(self) -> "Upstream":
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ")[1]
        self.seen.append(path)
        status = "503 Busy" if path.startswith(self.refused or ("-",)) else "200 OK"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@pytest_asyncio.fixture
async def upstreams() -> AsyncIterator[tuple[Upstream, Upstream]]:
    """One that refuses what begins with `/either` or `/first`, one that refuses what begins with `/either`."""
    async with Upstream("/either", "/first") as first, Upstream("/either") as second:
        yield first, second


async def test_whom_a_node_refuses_the_other_gets_and_nobody_else_suffers(
    upstreams: tuple[Upstream, Upstream],
) -> None:
    with require(lambda: Nginx([one.port for one in upstreams])) as nginx:
        async with browser(nginx) as client:
            refused = {await status(client, f"/either?token=s3cret{n}") for n in range(20)}
            passed_on = {await status(client, "/first%2F?token=s3cret") for _ in range(6)}
            operations = [await status(client, path) for path in ("/metrics", "/ready", "/health")]
            redirected = await client.get(f"http://{HOST}:{nginx.plain_port}/a?b", headers={"host": "sync.example.com"})

        assert (refused, passed_on, operations) == ({503}, {200}, [404] * 3)
        assert upstreams[1].seen.count("/first%2F?token=s3cret") == 6
        assert redirected.headers["location"] == "https://sync.example.com/a?b"
        assert "s3cret" not in nginx.logged


async def test_a_room_stays_on_one_node_if_asked_for_and_moves_when_that_is_gone(
    upstreams: tuple[Upstream, Upstream],
) -> None:
    site = (Path(__file__).parents[2] / "examples/deployment/nginx/crdt-sync.conf").read_text()
    option = re.search(r"# (hash .*;)", site)
    assert option is not None
    hashed = {"least_conn;": option[1]}
    rooms = [f"/trip-{n}" for n in range(30)]
    first, second = upstreams
    with require(lambda: Nginx([one.port for one in upstreams], replacing=hashed)) as nginx:
        async with browser(nginx) as client:
            for n in range(3):
                assert {await status(client, f"{room}?token={n}") for room in rooms} == {200}
            rooms_of = [{path.partition("?")[0] for path in one.seen} for one in upstreams]
            await first.__aexit__()
            after = {await status(client, room) for room in rooms}

    assert rooms_of[0] | rooms_of[1] == set(rooms)
    assert rooms_of[0] & rooms_of[1] == set()
    assert min(map(len, rooms_of)) >= 6
    assert (after, set(second.seen) >= set(rooms)) == ({200}, True)


async def test_the_compositions_nginx_serves_too(upstreams: tuple[Upstream, Upstream]) -> None:
    with require(lambda: Nginx([one.port for one in upstreams], site="compose.conf")) as nginx:
        nginx.check()
        async with httpx2.AsyncClient(base_url=f"http://{HOST}:{nginx.port}", trust_env=False) as client:
            answers = [await status(client, path) for path in ("/nginx-health", "/trip-1", "/metrics")]

    assert answers == [200, 200, 404]


def trusting(nginx: Nginx) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=nginx.certificate)


def browser(nginx: Nginx) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=f"https://{HOST}:{nginx.port}", verify=trusting(nginx), trust_env=False)


async def status(client: httpx2.AsyncClient, path: str) -> int:
    return (await client.get(path)).status_code


async def addresses_at(url: str) -> list[str]:
    """Where a node takes its clients to be."""
    answer = await request(url, "GET", "/api/v1/connections", bearer=token(rooms={"*": "admin"}))
    return [one["address"] for one in answer.json["connections"]]
