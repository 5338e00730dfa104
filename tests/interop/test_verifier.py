"""An application that decides itself who may do what, under plain uvicorn."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt_sync.lib0 import write_var_bytes
from tests.support.api import request
from tests.support.raw import Closed, RawClient, Refused
from tests.support.server import free_port

ROOT = Path(__file__).parents[2]
WRITE = b"\x00\x02" + write_var_bytes(bytes.fromhex("0101010004010174017800"))


@pytest.fixture
def url(app: tuple[str, Path]) -> str:
    return app[0]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Where it is, and its log."""
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("CRDT_SYNC_")}
    log = tmp_path_factory.mktemp("app") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "tests.support.session_app:app", "--port", str(port)],
            cwd=ROOT,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + 20
    while b"running on" not in log.read_bytes():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    yield f"ws://127.0.0.1:{port}", log
    process.terminate()
    assert process.wait(15) in (0, -15)


async def join(url: str, cookie: str | None, room: str = "trip-1") -> RawClient:
    return await RawClient.connect(url, room, headers={"Cookie": cookie} if cookie else {})


@pytest.mark.parametrize(
    ("cookie", "status", "body"),
    [
        (None, 401, b"credential missing\n"),
        ("user=eve", 401, b"credential invalid\n"),
        ("user=slow", 503, b"try again later\n"),
        ("user=bug", 500, b"internal error\n"),
        ("user=nothing", 500, b"internal error\n"),
        ("user=nobody", 500, b"internal error\n"),
        ("user=number", 500, b"internal error\n"),
    ],
)
async def test_what_a_verifier_does_is_an_answer(cookie: str | None, status: int, body: bytes, url: str) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(Refused) as refused:
            await join(url, cookie)

    assert (refused.value.status, refused.value.body) == (status, body)
    answer = await request(url, "GET", "/api/v1/rooms", headers={"Cookie": cookie} if cookie else {})
    assert answer.status == status


async def test_sessions_decide_who_writes(url: str) -> None:
    async with await join(url, "user=ann") as ann, await join(url, "user=bob") as bob:
        await ann.send(WRITE)
        while await bob.receive() != WRITE:
            assert bob.closed is None
        await bob.send(WRITE.replace(b"\x01\x01\x01", b"\x01\x01\x02"))

        assert await bob.wait_closed() == Closed(4403, "read only")
    with pytest.raises(Refused) as refused:
        await join(url, "user=ann", "trip-2?%74oken=hush")
    assert refused.value.status == 403
    assert (await request(url, "GET", "/api/v1/rooms?auth=hush")).status == 401


async def test_a_page_of_another_site_gets_nowhere_with_a_cookie(url: str) -> None:
    with pytest.raises(Refused) as refused:
        await RawClient.connect(url, "trip-1", headers={"Cookie": "user=ann", "Origin": "https://evil.example"})

    assert (refused.value.status, refused.value.body) == (403, b"origin not allowed\n")


async def test_the_log_of_uvicorn_has_no_tokens(app: tuple[str, Path]) -> None:
    url, log = app

    await (await join(url, "user=ann", "trip-1?token=hush")).close()

    assert '"WebSocket /trip-1?***" [accepted]' in log.read_text()
    assert "hush" not in log.read_text()
