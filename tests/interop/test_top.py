"""`crdt-sync top` on a running server."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.api import GUARDED, token
from tests.support.command import ROOT, Result
from tests.support.editor import Editor
from tests.support.server import ServerProcess, free_port

Run = Callable[..., Result]


def http_url(server: ServerProcess) -> str:
    return server.url.replace("ws://", "http://")


async def test_looks_are_lines_of_json(tmp_path: Path, run: Run) -> None:
    async with ServerProcess(tmp_path) as server, Editor(server.url, "trip-1") as ann, Editor(server.url, "trip-2"):
        working = asyncio.create_task(work(ann))
        result = await asyncio.to_thread(
            run, "top", "--url", http_url(server), "--json", "--times", "2", "--interval", "0.5"
        )
        working.cancel()

    first, second = (json.loads(line) for line in result.out.splitlines())
    assert (result.code, result.err) == (0, "")
    assert (second["ready"], second["rooms_open"], second["connections_open"]) == (True, 2, 2)
    assert [one["name"] for one in second["rooms"]] == ["trip-1", "trip-2"]
    assert {one["room"] for one in second["connections"]} == {"trip-1", "trip-2"}
    assert first["at"] < second["at"]
    for look in (first, second):
        rates = look["rates"]
        assert 5 < rates["messages_in_per_s"] < 200
        assert rates["confirm_p99_s"] > 0
        assert rates["memory_bytes"] > 10e6


async def work(editor: Editor) -> None:
    while True:
        await editor.edit()
        await asyncio.sleep(0.02)


async def test_a_terminal_shows_it_until_ctrl_c(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server, Editor(server.url, "trip-1"):
        screen, code = await asyncio.to_thread(watch, http_url(server))

    assert "is ready" in screen
    assert "1 open room" in screen
    assert "trip-1" in screen
    assert "messages/s" in screen
    # What was there before is back.
    assert screen.index("\x1b[?1049h") < screen.index("\x1b[?1049l")
    assert code == 0


def watch(url: str) -> tuple[str, int]:
    """Run it in a terminal of 100 columns, and press Ctrl-C once it has shown two looks."""
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "crdt_sync", "top", "--url", url, "--interval", "0.2"],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", "LINES": "30", "TERM": "xterm", "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    os.close(inner)
    seen = ""
    deadline = time.monotonic() + 30
    while seen.count("is ready") < 2 and time.monotonic() < deadline:
        seen += os.read(outer, 65536).decode()
    process.send_signal(signal.SIGINT)
    try:
        while chunk := os.read(outer, 65536).decode():
            seen += chunk
    except OSError:
        pass  # it has hung up
    os.close(outer)
    return seen, process.wait(timeout=20)


async def test_who_may_see_rooms_only_sees_rooms_only(tmp_path: Path, run: Run) -> None:
    reader = token("ann", {"trip-1": "read"})
    async with ServerProcess(tmp_path, env=GUARDED) as server:
        where = ("top", "--url", http_url(server), "--interval", "0.1")
        allowed = await asyncio.to_thread(run, *where, "--token", reader)
        refused = await asyncio.to_thread(run, *where)

    assert "0 open rooms" in allowed.out
    assert "connections" not in allowed.out
    assert (refused.code, "give a token with --token" in refused.err) == (1, True)


def test_a_server_that_is_not_there_is_said(run: Run) -> None:
    result = run("top", "--url", f"http://127.0.0.1:{free_port()}")

    assert (result.code, "no server answers" in result.err) == (1, True)
