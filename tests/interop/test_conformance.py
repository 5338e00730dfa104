"""`crdt-sync conformance` and its vectors, against this server, others, and broken ones."""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from crdt_sync.scenarios import Expect, Send, folder, read_scenarios
from crdt_sync.update import read_update
from tests.support.command import Result
from tests.support.processes import wait_until
from tests.support.server import ServerProcess, free_port
from tests.support.tokens import SECRET
from tests.support.yjs import Yjs

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/vectors.md").read_text()
SCENARIOS = read_scenarios(folder())
COMMON = {one.name for one in SCENARIOS if one.common and not one.long}
OWN = {one.name for one in SCENARIOS if not one.common and not one.keys and not one.long}
KEYS = {one.name for one in SCENARIOS if one.keys}
# Without it, a token is taken for 10 s longer than it says.
GUARDED = {"CRDT_SYNC_JWT_SECRET": SECRET, "CRDT_SYNC_JWT_LEEWAY_S": "0"}

Run = Callable[..., Result]


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """The protocol is the same, whatever the database."""
    return f"sqlite:///{tmp_path / 'documents.db'}"


@pytest.fixture
def y_websocket_server() -> Iterator[str]:
    """The URL of a running `@y/websocket-server`."""
    node, port = shutil.which("node"), free_port()
    assert node is not None, "Node.js (20 or later) is missing"
    process = subprocess.Popen(
        [node, "y-websocket-server.mjs"], cwd=ROOT / "tests/node", env={**os.environ, "PORT": str(port)}
    )
    try:
        wait_until(lambda: _listens(port), timeout_s=20)
        yield f"ws://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def verdicts(result: Result) -> dict[str, set[str]]:
    """Names by verdict."""
    found: dict[str, set[str]] = {"passed": set(), "failed": set(), "skipped": set()}
    for one in json.loads(result.out)["scenarios"]:
        found[one["verdict"]].add(one["name"])
    return found


async def test_this_server_passes(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    demanding = {"CRDT_SYNC_JWT_AUDIENCE": "trips", "CRDT_SYNC_JWT_ISSUER": "us", "CRDT_SYNC_JWT_LIFETIME_MAX_S": "600"}
    for name, value in demanding.items():
        monkeypatch.setenv(name, value)
    async with ServerProcess(tmp_path, env=GUARDED | demanding) as server:
        result = await asyncio.to_thread(
            run, "conformance", server.url, "--secret", SECRET, "--timeout", "20s", "--json"
        )

    assert [one for one in json.loads(result.out)["scenarios"] if one["verdict"] != "passed"] == []
    assert verdicts(result)["passed"] == COMMON | OWN | KEYS
    assert (result.code, result.err) == (0, "")


@pytest.mark.long
async def test_this_server_passes_what_takes_longer(run: Run, server: ServerProcess) -> None:
    names = [one.name for one in SCENARIOS if one.long]
    chosen = [argument for name in names for argument in ("--scenario", name)]

    result = await asyncio.to_thread(run, "conformance", server.url, *chosen)

    assert f"{len(names)} passed, 0 failed" in result.out, result.out


async def test_y_websocket_server_does_what_is_common_and_nothing_of_what_is_ours(
    y_websocket_server: str, run: Run
) -> None:
    result = await asyncio.to_thread(run, "conformance", y_websocket_server, "--timeout", "3s", "--json")

    assert verdicts(result) == {"passed": COMMON, "failed": OWN, "skipped": KEYS}
    assert result.code == 1
    # The page says how each differs.
    table = PAGE.partition("## Differences")[2].partition("pycrdt-websocket")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == OWN | {"keep-alive"}


BROKEN = """
from crdt_sync import awareness, cli, connection, document, room

# It sends updates back to whoever they come from,
relay = room.Room._relay
room.Room._relay = lambda self, update, sender: relay(self, update, None)
# confirms nothing,
connection.Connection.confirm = lambda self, token: None
# tells of states under the clock before theirs,
put = awareness.Awareness._put
awareness.Awareness._put = lambda self, owner, client, clock, *rest, **more: put(
    self, owner, client, max(1, clock - 1), *rest, **more
)
# answers every step 1 by all that it has,
answer = room.Room._step_2
room.Room._step_2 = lambda self, state_vector: answer(self, bytes(1))
# and applies updates that lack something.
document.Document._is_ready = lambda self, update: True

cli.main(["serve"])
"""
FOUND_OUT_BY = {
    "no-echo",
    "confirm",
    "confirm-waits",
    "awareness-clocks",
    "awareness-renewal",
    "step-1-with-state-vector",
    "reconnect",
    "out-of-order",
}


async def test_a_server_that_is_broken_is_found_out(tmp_path: Path, run: Run) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    server = ServerProcess(tmp_path, script=tmp_path / "broken.py", env={"PYTHONPATH": str(ROOT)})
    sound = {"join-empty-room", "awareness-join", "text-frames"}
    chosen = [argument for name in sorted(FOUND_OUT_BY | sound) for argument in ("--scenario", name)]
    await server.start()
    try:
        result = await asyncio.to_thread(run, "conformance", server.url, *chosen, "--timeout", "2s", "--json")
    finally:
        server.kill()

    assert verdicts(result) == {"passed": sound, "failed": FOUND_OUT_BY, "skipped": set()}


async def test_it_says_at_which_step_and_what_came(y_websocket_server: str, run: Run) -> None:
    result = await asyncio.to_thread(
        run, "conformance", y_websocket_server, "--scenario", "no-echo", "--scenario", "relay", "--scenario", "expiry"
    )

    lines = result.out.splitlines()
    assert sum(line.startswith("passed  relay ") for line in lines) == 1
    failed = next(i for i, line in enumerate(lines) if line.startswith("failed  no-echo "))
    assert "step 9: 'ann' was to be sent nothing; update (01 01 01 00 04 01 05 6e 6f" in lines[failed + 1]
    skipped = next(i for i, line in enumerate(lines) if line.startswith("skipped expiry "))
    assert "--secret" in lines[skipped + 1]
    assert lines[-1] == "1 passed, 1 failed, 1 skipped"
    assert result.code == 1


async def test_another_code_or_status_is_not_the_right_one(tmp_path: Path, run: Run) -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(404, "nobody") if "refused" in request.path else None

    async def close(connection: ServerConnection) -> None:
        await connection.close(4401, "other")

    for name, steps in {
        "closes": [{"connect": "ann"}, {"expect": "ann", "closed": 4400}],
        "closes-early": [{"connect": "ann"}, {"expect": "ann", "step_1": "00"}],
        "refuses": [{"connect": "ann", "path": "refused", "refused": 400}],
        "refuses-rightly": [{"connect": "ann", "path": "refused", "refused": 404}],
    }.items():
        scenario = {"title": name, "about": name, "common": True, "steps": steps}
        (tmp_path / f"{name}.json").write_text(json.dumps(scenario))
    async with serve(close, "127.0.0.1", 0, process_request=refuse) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        result = await asyncio.to_thread(run, "conformance", f"ws://127.0.0.1:{port}", "--vectors", tmp_path, "--json")

    assert {one["name"]: one["found"] for one in json.loads(result.out)["scenarios"]} == {
        "closes": "'ann' expected closed with 4400; the connection was closed with 4401 (other)",
        "closes-early": "'ann' expected step 1; the connection was closed with 4401 (other)",
        "refuses": "the upgrade of 'ann' was answered with 404",
        "refuses-rightly": "",
    }


async def test_a_server_that_ends_meanwhile_fails_what_is_left(tmp_path: Path, run: Run) -> None:
    async def end(connection: ServerConnection) -> None:
        server.close()
        await connection.wait_closed()

    steps = [{"connect": "ann"}, {"expect": "ann", "closed": 1001}, {"connect": "bob"}]
    (tmp_path / "it.json").write_text(json.dumps({"title": "", "about": "", "common": True, "steps": steps}))
    async with serve(end, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        result = await asyncio.to_thread(run, "conformance", f"ws://127.0.0.1:{port}", "--vectors", tmp_path, "--json")

    (one,) = json.loads(result.out)["scenarios"]
    assert one["found"].startswith("the server answers no more")
    assert (one["step"], result.code) == (3, 1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["ws://127.0.0.1:{port}"], "no WebSocket server answers at ws://127.0.0.1:{port}"),
        (["127.0.0.1:1234"], "is no URL of a server; ws://127.0.0.1:1234 would be one"),
        (["ws://127.0.0.1:{port}", "--scenario", "nothing"], "there is no scenario 'nothing'; --list shows"),
        (["ws://127.0.0.1:{port}", "--vectors", "{empty}"], "has no scenarios"),
    ],
)
def test_what_can_not_be_played_is_told(arguments: list[str], complaint: str, tmp_path: Path, run: Run) -> None:
    names = {"port": free_port(), "empty": tmp_path}

    result = run("conformance", *(each.format(**names) for each in arguments))

    assert complaint.format(**names) in result.err
    assert result.code == 1


def test_a_secret_that_is_none_is_told(run: Run) -> None:
    result = run("conformance", "ws://127.0.0.1:1", "--secret", "short")

    assert "--secret" in result.err
    assert result.code == 2


def test_list_shows_all(run: Run) -> None:
    result = run("conformance", "ws://127.0.0.1:1", "--list", "--long", "--json")

    assert [one["name"] for one in json.loads(result.out)] == [one.name for one in SCENARIOS]


def test_stock_yjs_reads_the_vectors_as_the_player_does(yjs: Yjs) -> None:
    """What is expected of documents is what Yjs makes of the updates that are sent, and no update is other than it seems."""
    for scenario in SCENARIOS:
        if scenario.name in ("malformed-updates", "unreadable-frames"):
            continue
        sent: list[bytes] = []
        for step in scenario.steps:
            if isinstance(step, Send) and isinstance(step.what, bytes):
                sent += updates_in(step.what)
            elif isinstance(step, Expect) and step.kind in ("update", "step_2"):
                assert yjs.apply([*sent, *step.what]).state_vector == yjs.apply(sent).state_vector, scenario.name
            elif isinstance(step, Expect) and step.kind == "document":
                assert shown(yjs, sent, step.what) == step.what, scenario.name


def updates_in(frame: bytes) -> list[bytes]:
    """The updates of a frame of small messages."""
    found = []
    while frame[:2] in (b"\0\1", b"\0\2"):
        update = frame[3 : 3 + frame[2]]
        read_update(update)
        found.append(update)
        frame = frame[3 + frame[2] :]
    return found


def shown(yjs: Yjs, updates: list[bytes], like: dict[str, Any]) -> dict[str, Any]:
    """What Yjs shows of the roots of `like`."""
    kinds = {name: "json-text" if isinstance(value, str) else "json-map" for name, value in like.items()}
    return dict(yjs.apply(updates, kinds).content)
