"""Clients that say anything, cut in any way, and go at any stage, beside two who work: nothing fails, and nothing is left."""

import asyncio
import contextlib
import os
import random
import re
import ssl
import struct
from pathlib import Path

import pycrdt
import pytest

from crdt_sync.lib0 import write_var_bytes
from tests.support.certificates import Authority
from tests.support.editor import Editor
from tests.support.fakes import until
from tests.support.raw import BINARY, CLOSE, PING, PONG, TEXT, frame
from tests.support.server import ServerProcess

VISITS = 150
AT_ONCE = 40
UPGRADE = (
    b"GET /%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def update(size: int) -> bytes:
    doc = pycrdt.Doc({"text": pycrdt.Text("x" * size)})
    return frame(BINARY, b"\x00\x02" + write_var_bytes(doc.get_update()))


# The last takes longer than a turn of the event loop may.
UPDATES = [update(1), update(100), update(300_000)]
LEGAL = [
    frame(BINARY, b"\x00\x00\x01\x00"),
    frame(BINARY, b"\x66\x01x"),
    frame(BINARY, b"\x01" + write_var_bytes(b"\x01\x05\x01\x02{}")),
    frame(BINARY, b"\x00\x00", fin=False) + frame(PING, b"between") + frame(0, b"\x01\x00"),
    frame(PING, b"x" * 125) * 20,
    frame(PONG, b""),
    frame(TEXT, b"hi"),
]
ENDS = [
    frame(CLOSE, b""),
    frame(CLOSE, struct.pack("!H", 1000)) * 2,
    frame(CLOSE, struct.pack("!H", 1006)),
    frame(3, b"x"),
    frame(BINARY, b"x", masked=False),
    frame(0, b"x"),
    bytes([0x82, 0xFF]) + bytes([0xFF] * 8) + bytes(4),
]


def said(chance: random.Random) -> bytes:
    """What one client says after its request."""
    frames = [
        chance.choice(chance.choice([UPDATES[:2], UPDATES, LEGAL, LEGAL, ENDS])) for _ in range(chance.randrange(10))
    ]
    return b"".join(frames)


async def visit(port: int, context: ssl.SSLContext | None, chance: random.Random) -> None:
    """One client."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1 << 14)
    request, rest = UPGRADE % chance.choice([b"a", b"b", b"c", b"api/none"]), said(chance)
    stage = chance.choice(["within the request", "without waiting", "after the answer", "after the answer"])
    if stage == "after the answer":
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        data = rest
    else:
        data = request + rest
        if stage == "within the request":
            data = data[: chance.randrange(len(data))]
    while data:
        size = chance.choice([1, 7, 100, 2048, len(data)])
        size = max(size, len(data) // 20)
        writer.write(data[:size])
        data = data[size:]
        await asyncio.sleep(0)
    match chance.randrange(4):
        case 0:
            writer.transport.abort()
        case 1:
            await asyncio.sleep(chance.random() * 0.2)
            writer.transport.abort()
        case 2 if context is None:
            writer.write_eof()
            await reader.read(1 << 20)
            writer.close()
        case _:
            writer.close()


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 12))])
@pytest.mark.parametrize("tls", [False, True], ids=["", "tls"])
async def test_whoever_comes_and_goes_leaves_nothing(tls: bool, seed: int, tmp_path: Path) -> None:
    env, context = {"CRDT_SYNC_LOG_LEVEL": "INFO"}, None
    if tls:
        chain, key = Authority(tmp_path).certify()
        env |= {"CRDT_SYNC_SSL_CERTFILE": str(chain), "CRDT_SYNC_SSL_KEYFILE": str(key)}
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with ServerProcess(tmp_path, env=env) as server:
        places = asyncio.Semaphore(AT_ONCE)

        async def come(number: int) -> None:
            async with places, asyncio.timeout(60):
                with contextlib.suppress(OSError, EOFError, RuntimeError):
                    await visit(server.port, context, random.Random(f"{seed} {number}"))

        # It listens before its event loop, which has sockets too, begins.
        upgraded, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        writer.write(UPGRADE % b"first")
        await upgraded.readuntil(b"\r\n\r\n")
        sockets = sockets_of(server) - 1
        writer.transport.abort()
        async with contextlib.AsyncExitStack() as stack:
            if not tls:
                author = await stack.enter_async_context(Editor(server.url, "a"))
                reader = await stack.enter_async_context(Editor(server.url, "a"))
            coming = asyncio.gather(*(come(number) for number in range(VISITS)))
            while not tls and not coming.done():
                key = await author.edit()
                await author.until(lambda key=key: key in author.confirmed, timeout_s=20)
                await reader.until(lambda key=key: key in reader.seen, timeout_s=20)
            await coming
        await until(lambda: sockets_of(server) <= sockets, timeout_s=20)

        opened, closed = (
            re.findall(rf"connection_{what} .*connection=(\d+)", server.log) for what in ("opened", "closed")
        )
        assert len(opened) > VISITS / 3
        assert sorted(opened) == sorted(closed)
    assert server.errors() == []
    assert "Traceback" not in server.log


def sockets_of(server: ServerProcess) -> int:
    folder = f"/proc/{server.pid}/fd"
    found = 0
    for each in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"{folder}/{each}").startswith("socket:")
    return found
