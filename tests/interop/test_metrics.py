"""`/health`, `/ready` and `/metrics` of real servers: what they say is what happened."""

import asyncio
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pycrdt
import pytest
import pytest_asyncio

from crdt_sync.awareness import ClientState, write_states
from crdt_sync.protocol import KINDS, encode_awareness, encode_confirm, encode_update, kind_of
from tests.support.api import GUARDED, request, token
from tests.support.cluster import until
from tests.support.debian import find_program
from tests.support.raw import RawClient
from tests.support.redis import RedisServer
from tests.support.scrape import scrape
from tests.support.server import ServerProcess, free_port
from tests.support.services import require

EDITS = 60
READERS = 4
STEP_1 = b"\x00\x00\x01\x00"


pytestmark = pytest.mark.asyncio(loop_scope="module")


class Counting:
    """A client that counts what it sends and gets, by kind."""

    def __init__(self, raw: RawClient) -> None:
        self.raw = raw
        self.sent: Counter[str] = Counter()
        self.sent_bytes: Counter[str] = Counter()
        self.got: Counter[str] = Counter()
        self.got_bytes: Counter[str] = Counter()
        self._reading = asyncio.create_task(self._read())

    async def send(self, frame: bytes) -> None:
        kind = KINDS[kind_of(frame)]
        self.sent[kind] += 1
        self.sent_bytes[kind] += len(frame)
        await self.raw.send(frame)

    async def until_got(self, kind: str, count: int) -> None:
        assert await until(lambda: self.got[kind] >= count, timeout_s=10), (kind, self.got)

    async def goodbye(self, code: int) -> None:
        await self.raw.send_frame(8, code.to_bytes(2, "big"))
        await self._reading

    async def lose(self) -> None:
        self.raw.abort()
        await self._reading

    async def _read(self) -> None:
        try:
            while (frame := await self.raw.receive(timeout_s=30)) is not None:
                kind = KINDS[kind_of(frame)]
                self.got[kind] += 1
                self.got_bytes[kind] += len(frame)
        except OSError:
            pass


def edits(count: int) -> list[bytes]:
    """What a client that types sends."""
    frames: list[bytes] = []
    document = pycrdt.Doc()
    text = document.get("text", type=pycrdt.Text)
    document.observe(lambda event: frames.append(encode_update(event.update)))
    for _ in range(count):
        text += "x"
    return frames


async def joined(url: str, room: str) -> Counting:
    client = Counting(await RawClient.connect(url, room))
    await client.send(STEP_1)
    await client.until_got("sync_step_2", 1)
    return client


async def load(*urls: str) -> list[Counting]:
    """One client that edits, shows itself and asks for a confirmation, and others that read along."""
    clients = [await joined(urls[index % len(urls)], "trip-1") for index in range(READERS + 1)]
    writer, readers = clients[0], clients[1:]
    for frame in edits(EDITS):
        await writer.send(frame)
    await writer.send(encode_awareness(write_states([ClientState(7, 1, b'{"name":"ann"}')])))
    await writer.send(encode_confirm(b"all"))
    await writer.until_got("confirm", 1)
    for reader in readers:
        await reader.until_got("update", EDITS)
    return clients


def total(counts: list[Counter[str]]) -> dict[str, float]:
    return {kind: count for kind, count in sum(counts, Counter[str]()).items() if count}


async def test_a_scrape_agrees_with_what_the_load_generator_counted(tmp_path: Path) -> None:
    # Awareness is renewed, and keep-alives are sent, by the clock: not while this is counted.
    async with ServerProcess(tmp_path) as server:
        clients = await load(server.url)
        for client in clients:
            await client.until_got("awareness", 1)

        now = await scrape(server.url)

        assert now.by("kind", "messages_total", direction="in") == total([one.sent for one in clients])
        assert now.by("kind", "message_bytes_total", direction="in") == total([one.sent_bytes for one in clients])
        assert now.by("kind", "messages_total", direction="out") == total([one.got for one in clients])
        assert now.by("kind", "message_bytes_total", direction="out") == total([one.got_bytes for one in clients])
        assert (now("fan_out_count"), now("fan_out_sum")) == (EDITS, EDITS * READERS)
        assert (now("connections"), now("connections_opened_total"), now("rooms")) == (5, 5, 1)
        assert now("journal_backlog_bytes") == now("journal_backlog_age_seconds") == now("outbox_bytes") == 0
        assert now("commit_seconds_count") >= now("confirm_seconds_count") >= 1
        assert 0 < now("delivery_seconds_count") <= EDITS * READERS
        assert now("delivery_seconds_sum") / now("delivery_seconds_count") < 1
        assert 0 < now("apply_seconds_count") <= EDITS
        assert now("load_seconds_count") == 1
        assert now("loop_lag_seconds_count") > 0
        assert now("ready") == 1
        assert now("memory_bytes") == pytest.approx(server.rss_bytes(), rel=0.5)

        await clients[0].goodbye(1000)
        await clients[1].goodbye(3999)
        await clients[2].lose()
        await clients[3].send(b"\x00\x07\x00")
        await clients[3]._reading

        assert await until_scraped(server.url, "connections", 1)
        then = await scrape(server.url)
        assert then.by("code", "closes_total") == {"1000": 1, "other": 1, "1006": 1, "4400": 1}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """A server without keys."""
    async with ServerProcess(tmp_path_factory.mktemp("plain")) as server:
        yield server
    assert server.errors() == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """A server with keys, and a token for metrics."""
    env = GUARDED | {"CRDT_SYNC_METRICS_TOKEN": "scrape-me"}
    async with ServerProcess(tmp_path_factory.mktemp("guarded"), env=env) as server:
        yield server
    assert "scrape-me" not in server.log


async def test_promtool_has_nothing_to_say_about_a_scrape(plain: ServerProcess) -> None:
    promtool = require(lambda: find_program("promtool", package="prometheus"))
    client = await joined(plain.url, "trip-1")
    text = (await scrape(plain.url)).text
    await client.lose()

    checked = await asyncio.to_thread(
        subprocess.run,
        [promtool.path, "check", "metrics"],
        input=text,
        env={**os.environ, **promtool.env},
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


async def test_updates_that_wait_and_refusals_are_told(guarded: ServerProcess) -> None:
    writer = token("ann", {"trip-1": "write"})
    async with await RawClient.connect(guarded.url, f"trip-1?token={writer}") as client:
        await client.send(edits(2)[1])  # the first is missing
        assert await until_scraped(guarded.url, "waiting_updates", 1)
    before = await scrape(guarded.url)
    assert (await request(guarded.url, "GET", "/api/v1/rooms", bearer="x")).status == 401

    now = await scrape(guarded.url)

    assert now("waiting_update_bytes") > 0
    assert now("refusals_total", reason="unauthorized") == before("refusals_total", reason="unauthorized") + 1


async def test_metrics_are_for_this_machine_for_who_has_the_token_and_for_admins(guarded: ServerProcess) -> None:
    async def status(bearer: str | None = None, **headers: str) -> int:
        return (await request(guarded.url, "GET", "/metrics", bearer=bearer, headers=headers)).status

    far = {"X-Forwarded-For": "198.51.100.1"}
    assert await status() == 200
    assert await status(**far) == 401
    assert await status(Host="sync.example.com") == 401
    assert await status("wrong", **far) == 401
    assert await status("scrape-me", **far) == 200
    assert await status(token("ann", {"*": "write"}), **far) == 403
    assert await status(token("ann", {"trip-*": "admin"}), **far) == 403
    assert await status(token("ann", {"*": "admin"}), **far) == 200
    # It is good for nothing else.
    assert (await request(guarded.url, "GET", "/api/v1/rooms", bearer="scrape-me")).status == 401
    # The others say no more than how it is.
    for path in ("/health", "/ready"):
        assert (await request(guarded.url, "GET", path, headers=far)).status == 200


async def test_without_keys_metrics_are_for_this_machine_only(plain: ServerProcess) -> None:
    far = await request(plain.url, "GET", "/metrics", headers={"X-Forwarded-For": "198.51.100.1"})

    assert far.status == 403


async def test_a_port_of_their_own_has_the_three_paths_and_the_main_one_has_not(tmp_path: Path) -> None:
    port = free_port()
    async with ServerProcess(tmp_path, env=GUARDED | {"CRDT_SYNC_OPS_PORT": str(port)}) as server:
        ops = f"ws://127.0.0.1:{port}"

        health = await request(ops, "GET", "/health")
        assert (health.status, health.body) == (200, b"ok\n")
        # It answers before the store is open.
        async with asyncio.timeout(10):
            while "start" in (ready := (await request(ops, "GET", "/ready")).json)["problems"]:
                await asyncio.sleep(0.05)
        assert ready == {"ready": True, "problems": {}, "warnings": {}}
        assert (await scrape(ops))("ready") == 1
        for path in ("/", "/api/v1/rooms", "/trip-1"):
            assert (await request(ops, "GET", path)).status == 404
        for path in ("/health", "/ready", "/metrics"):
            assert (await request(server.url, "GET", path)).status == 404


@pytest_asyncio.fixture(loop_scope="module")
async def workers(tmp_path: Path, postgres_url: str, redis: RedisServer) -> AsyncIterator[ServerProcess]:
    """Two processes on one port, with a port for operators."""
    env = {
        "CRDT_SYNC_REDIS_URL": redis.url,
        "CRDT_SYNC_REDIS_PREFIX": tmp_path.name,
        "CRDT_SYNC_WORKERS": "2",
        "CRDT_SYNC_OPS_PORT": str(free_port()),
    }
    server = ServerProcess(tmp_path, database_url=postgres_url, env=env)
    server.ops = f"ws://127.0.0.1:{env['CRDT_SYNC_OPS_PORT']}"  # type: ignore[attr-defined]
    async with server:
        assert await until(lambda: server.log.count("node_started") == 2, timeout_s=20), server.log
        yield server


async def test_one_scrape_covers_all_workers(workers: ServerProcess) -> None:
    ops: str = workers.ops  # type: ignore[attr-defined]
    assert await until_scraped(ops, "ready", 2)
    clients = await load(workers.url)

    assert await until_scraped(ops, "messages_total", EDITS * READERS, direction="out", kind="update")
    now = await scrape(ops)

    assert now.by("kind", "messages_total", direction="in") == total([one.sent for one in clients])
    assert now("connections") == len(clients)
    assert now.text.count("# TYPE crdt_sync_connections gauge") == 1
    assert set(now.by("worker", "build_info")) == {"0", "1"}
    assert now("workers_missing", worker="all") == 0
    assert now("bus_up") == 2
    for client in clients:
        await client.lose()
    # Measured once a second, when what was said is heard.
    deadline = time.monotonic() + 5
    while (await scrape(ops))("bus_lag_seconds_count") == 0:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_a_worker_that_hangs_is_left_out_and_missed(workers: ServerProcess) -> None:
    ops: str = workers.ops  # type: ignore[attr-defined]
    assert await until_scraped(ops, "ready", 2)
    hung = int(re.findall(r"worker_started pid=(\d+)", workers.log)[0])
    os.kill(hung, signal.SIGSTOP)
    try:
        # The kernel may give a connection to either; whoever asks the one that hangs gets no answer, and asks again.
        began = time.monotonic()
        answers = [asyncio.create_task(scrape(ops)) for _ in range(4)]
        done, pending = await asyncio.wait(answers, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        took_s = time.monotonic() - began
        now = done.pop().result()
        ready = await asyncio.wait_for(request(ops, "GET", "/ready"), 5)
    finally:
        os.kill(hung, signal.SIGCONT)
    await asyncio.gather(*pending)

    assert took_s < 3
    assert now("workers_missing") == 1
    assert len(now.by("worker", "build_info")) == 1
    assert (ready.status, ready.json["warnings"]) == (200, {"workers": "1 of them didn't answer"})


async def until_scraped(url: str, name: str, value: float, **labels: str) -> bool:
    """Wait until a scrape says this; fails with the last one."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        last = await scrape(url)
        if last(name, **labels) == value:
            return True
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} is {last(name, **labels)}, not {value}")


async def test_prometheus_understands_every_query_of_the_page(tmp_path: Path) -> None:
    promtool = require(lambda: find_program("promtool", package="prometheus"))
    page = (Path(__file__).parents[2] / "docs/how-to/monitor.md").read_text()
    queries = re.findall(r"```promql\n(.*?)\n```", page, re.DOTALL)
    scrapes = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    rules = [{"record": f"page:query{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "page", "rules": rules}]}))
    checks = [["rules", tmp_path / "rules.yml"]]
    for number, text in enumerate(scrapes):
        (tmp_path / f"prometheus{number}.yml").write_text(text)
        checks.append(["config", "--syntax-only", tmp_path / f"prometheus{number}.yml"])

    for arguments in checks:
        checked = await asyncio.to_thread(
            subprocess.run,
            [promtool.path, "check", *arguments],
            env={**os.environ, **promtool.env},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert checked.returncode == 0, checked.stderr
    assert len(queries) > 10
