"""Who gets in, and what each may do: every way to show a token, every route and every message, over real sockets."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from crdt_sync.awareness import ClientState, read_states, write_states
from crdt_sync.gateway.operations import OPERATIONS
from crdt_sync.lib0 import write_var_bytes
from tests.support.api import GUARDED, request, token
from tests.support.database import stored_updates
from tests.support.raw import BINARY, Closed, RawClient, Refused
from tests.support.server import ServerProcess
from tests.support.tokens import RSA_KEY, SECRET, b64, hs256, public_pem, signed

AUDIENCE = "crdt-sync"

# One item of client 1, "x" in the text "t", and a step 2 that says nothing.
UPDATE = bytes.fromhex("0101010004010174017800")
WRITE = b"\x00\x02" + write_var_bytes(UPDATE)
REPEAT = b"\x00\x01" + write_var_bytes(UPDATE)
EMPTY_STEP_2 = b"\x00\x01\x02\x00\x00"
STEP_1 = b"\x00\x00\x01\x00"
CONFIRM = b"\x66\x01c"
QUERY = b"\x03"


def claims(**changed: object) -> dict[str, Any]:
    now = time.time()
    return {"sub": "ann", "exp": now + 600, "aud": AUDIENCE, "rooms": {"*": "admin"}, **changed}


def with_aud(rooms: dict[str, str], **more: object) -> str:
    return token("ann", rooms, aud=AUDIENCE, **more)


def unsigned() -> str:
    return ".".join([b64(b'{"alg":"none"}'), hs256(claims()).split(".")[1], ""])


BAD = {
    "none": (lambda: None, "credential missing"),
    "empty": (lambda: "", "credential missing"),
    "garbage": (lambda: "x.y.z", "credential invalid"),
    "expired": (lambda: hs256(claims(exp=time.time() - 60)), "credential expired"),
    "no expiry": (lambda: hs256({"sub": "ann", "aud": AUDIENCE, "rooms": {"*": "admin"}}), "credential invalid"),
    "wrong audience": (lambda: hs256(claims(aud="another")), "credential invalid"),
    "wrong key": (lambda: hs256(claims(), key="another-secret-of-32-bytes-or-more"), "credential invalid"),
    "alg none": (unsigned, "credential invalid"),
    "public key as secret": (lambda: hs256(claims(), key=public_pem(RSA_KEY)), "credential invalid"),
    "secret as RSA": (lambda: hs256(claims(), header={"alg": "RS256"}), "credential invalid"),
    "malformed rooms": (lambda: hs256(claims(rooms={"*": "owner"})), "credential invalid"),
    "for ever": (lambda: hs256(claims(exp=time.time() + 10**9)), None),
}
"""Credentials that let nobody in, and the reason that is told."""

WEAK: dict[str, dict[str, str]] = {
    "no rooms": {},
    "another room": {"trip-2": "admin"},
    "a prefix of others": {"tour-*": "admin"},
    "a longer name": {"trip-10": "admin"},
}
"""Grants with nothing for trip-1."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """A server that takes tokens signed with the secret, or with the RSA key."""
    env = GUARDED | {"CRDT_SYNC_JWT_PUBLIC_KEY": public_pem(RSA_KEY), "CRDT_SYNC_JWT_AUDIENCE": AUDIENCE}
    async with ServerProcess(tmp_path_factory.mktemp("guarded"), env=env) as server:
        yield server
    assert server.errors() == []
    assert SECRET not in server.log


async def join(server: ServerProcess, room: str, shown: str | None, **headers: str) -> RawClient:
    sent = dict(headers) if shown is None else {"Authorization": f"Bearer {shown}", **headers}
    return await RawClient.connect(server.url, room, headers=sent)


async def answers(client: RawClient) -> list[bytes]:
    """What came until everything that was sent is stored, or until the connection was closed."""
    await client.send(CONFIRM)
    got = []
    while (frame := await client.receive()) is not None and frame != CONFIRM:
        got.append(frame)
    return got


# ------------------------------------------------------------------------------------------------------ upgrades


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_credential_is_refused_at_the_upgrade_and_by_every_operation(
    name: str, guarded: ServerProcess
) -> None:
    make, reason = BAD[name]
    shown = make()

    with pytest.raises(Refused) as refused:
        await join(guarded, "trip-1", shown)

    assert refused.value.status == 401
    if reason is not None:
        assert refused.value.body == f"{reason}\n".encode()
    for operation in OPERATIONS:
        path = "/api/v1" + operation.path.format(room="trip-1", connection="1", kind="user", value="bob", version="1")
        answer = await request(guarded.url, operation.method, path, bearer=shown)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer"), operation
        assert answer.headers["content-type"] == "application/problem+json"
    if shown:
        assert shown not in guarded.log
        assert shown.rpartition(".")[2] not in guarded.log or not shown.rpartition(".")[2]


@pytest.mark.parametrize("name", WEAK)
async def test_a_grant_for_other_rooms_is_refused_at_the_upgrade(name: str, guarded: ServerProcess) -> None:
    with pytest.raises(Refused) as refused:
        await join(guarded, "trip-1", with_aud(WEAK[name]))

    assert (refused.value.status, refused.value.body) == (403, b"not allowed\n")


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("trip-1", {"Authorization": "Bearer {}"}),
        ("trip-1", {"Authorization": "bearer {}"}),
        ("trip-1?token={}", {}),
        ("trip-1?x=1&auth={}", {}),
        ("trip-1", {"Sec-WebSocket-Protocol": "bearer.{}"}),
        ("trip-1", {"Sec-WebSocket-Protocol": "crdt-sync, bearer.{}"}),
    ],
)
@pytest.mark.parametrize("algorithm", ["HS256", "RS256"])
async def test_a_token_can_be_shown_in_four_ways(
    target: str, headers: dict[str, str], algorithm: str, guarded: ServerProcess
) -> None:
    shown = hs256(claims()) if algorithm == "HS256" else signed(RSA_KEY, "RS256", claims())

    filled = {name: value.format(shown) for name, value in headers.items()}
    async with await RawClient.connect(guarded.url, target.format(shown), headers=filled) as client:
        assert await client.receive() is not None

    assert shown not in guarded.log
    assert shown.rpartition(".")[2] not in guarded.log


async def test_a_subprotocol_that_is_no_token_is_answered_before_the_token(guarded: ServerProcess) -> None:
    shown = hs256(claims())
    heads = []
    for offered in (f"bearer.{shown}, crdt-sync", f"bearer.{shown}"):
        client = await RawClient.open_socket(guarded.port)
        lines = ["GET /trip-1 HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade"]
        lines += ["Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==", "Sec-WebSocket-Version: 13"]
        await client.send_bytes("\r\n".join([*lines, f"Sec-WebSocket-Protocol: {offered}", "", ""]).encode())
        heads.append((await client.read_head()).lower())
        await client.close()

    assert "sec-websocket-protocol: crdt-sync\r\n" in heads[0]
    assert f"sec-websocket-protocol: bearer.{shown}\r\n".lower() in heads[1]


async def test_the_longest_match_counts(guarded: ServerProcess) -> None:
    shown = with_aud({"*": "read", "trip-*": "write", "trip-1": "read", "trip-12*": "admin"})

    taken = []
    for room in ("x", "trip-0", "trip-1", "trip-123"):
        async with await join(
            guarded, f"{room}-{time.time_ns()}" if room in ("x", "trip-0") else room, shown
        ) as client:
            await client.send(WRITE)
            await answers(client)
            taken.append(client.closed is None or client.closed.code != 4403)

    assert taken == [False, True, False, True]


ORIGINS = {
    "http://{host}": 101,
    "https://{host}": 101,
    "https://app.example.com": 101,
    "https://APP.example.com": 101,
    "https://two.example.com": 101,
    "https://app.example.com.evil.org": 403,
    "https://evil.org": 403,
    "null": 403,
    "http://app.example.com": 403,
}


async def test_browsers_come_from_allowed_sites(tmp_path: Path) -> None:
    env = GUARDED | {"CRDT_SYNC_ALLOWED_ORIGINS": "https://app.example.com, https://two.example.com/"}
    got, asked = {}, {}
    async with ServerProcess(tmp_path, env=env) as server:
        for origin in ORIGINS:
            sent = origin.format(host=server.url.removeprefix("ws://"))
            try:
                await (await join(server, "trip-1", token(), Origin=sent)).close()
                got[origin] = 101
            except Refused as refused:
                got[origin] = refused.status
            asked[origin] = (
                await request(server.url, "GET", "/api/v1/rooms", bearer=token(), headers={"Origin": sent})
            ).status

    assert got == ORIGINS
    assert asked == {origin: 200 if status == 101 else 403 for origin, status in ORIGINS.items()}


# ------------------------------------------------------------------------------------------------------ open servers


async def test_an_open_server_serves_pages_of_any_site_but_nobody_behind_a_proxy(server: ServerProcess) -> None:
    async with await join(server, "trip-1", None, Origin="https://anywhere.example.com") as client:
        assert await client.receive() is not None

    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        with pytest.raises(Refused) as refused:
            await join(server, "trip-1", None, **{name: "203.0.113.7"})
        assert refused.value.status == 403
        assert (await request(server.url, "GET", "/api/v1/rooms", headers={name: "203.0.113.7"})).status == 403


async def test_a_server_without_keys_starts_on_loopback_only(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="--insecure-open"):
        await ServerProcess(tmp_path, env={"CRDT_SYNC_HOST": "0.0.0.0"}).start()

    for env in ({"CRDT_SYNC_INSECURE_OPEN": "true"}, GUARDED):
        async with ServerProcess(tmp_path, env={"CRDT_SYNC_HOST": "0.0.0.0", **env}) as server:
            await (await join(server, "trip-1", token() if env is GUARDED else None)).close()
        assert ("ANYONE WHO CAN REACH" in server.log) == ("CRDT_SYNC_INSECURE_OPEN" in env)


# ------------------------------------------------------------------------------------------------------ messages

ALLOWED: dict[str, dict[bytes, int | None]] = {
    "read": {WRITE: 4403, REPEAT: None, EMPTY_STEP_2: None, STEP_1: None, QUERY: None, CONFIRM: None},
    "write": {WRITE: None, REPEAT: None, EMPTY_STEP_2: None, STEP_1: None, QUERY: None, CONFIRM: None},
    "admin": {WRITE: None, REPEAT: None, EMPTY_STEP_2: None, STEP_1: None, QUERY: None, CONFIRM: None},
}


@pytest.mark.parametrize("right", ALLOWED)
async def test_what_each_right_allows_to_say(right: str, guarded: ServerProcess, room: str) -> None:
    async with await join(guarded, room, with_aud({room: "write"})) as ann:
        await ann.send(WRITE)
        await answers(ann)
    other = b"\x00\x02" + write_var_bytes(bytes.fromhex("0101020004010174017900"))

    ends: dict[bytes, int | None] = {}
    for message in ALLOWED[right]:
        async with await join(guarded, room, with_aud({room: right})) as bob:
            await bob.send(other if message == WRITE else message)
            await answers(bob)
            ends[message] = None if bob.closed is None else bob.closed.code

    assert ends == ALLOWED[right]
    assert len(stored_updates(guarded.database_url, room)) == (1 if right == "read" else 2)


async def test_a_read_only_client_hears_everything_and_shows_its_cursor(guarded: ServerProcess, room: str) -> None:
    async with (
        await join(guarded, room, with_aud({room: "write"})) as ann,
        await join(guarded, room, token("bob", {room: "read"}, aud=AUDIENCE)) as bob,
    ):
        await bob.send(b"\x01" + write_var_bytes(write_states([ClientState(7, 1, b'{"cursor":3}')])))
        await ann.send(WRITE)

        while (frame := await bob.receive()) != WRITE:
            assert frame is not None, bob.closed
        seen: list[ClientState] = []
        while not seen:
            frame = await ann.receive()
            assert frame is not None, ann.closed
            seen = [one for one in read_states(frame[2:]) if frame[0] == 1 and one.client == 7] if frame[0] == 1 else []
        assert seen == [ClientState(7, 1, b'{"cursor":3,"user":{"id":"bob"}}')]


async def test_updates_of_a_read_only_client_can_be_dropped_instead_and_are_not_confirmed(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, env=GUARDED | {"CRDT_SYNC_READ_ONLY_UPDATES": "drop"}) as server:
        async with await join(server, "trip-1", token("bob", {"*": "read"})) as bob:
            await answers(bob)
            await bob.send(WRITE)
            await bob.send(WRITE)
            assert await bob.receive() == b"\x02\x00\x09read only"
            await bob.send(CONFIRM)
            with pytest.raises(TimeoutError):
                await bob.receive(timeout_s=0.5)
            admin = token("root", {"*": "admin"})
            (found,) = (await request(server.url, "GET", "/api/v1/rooms/trip-1/connections", bearer=admin)).json[
                "connections"
            ]

            assert bob.closed is None
            assert (found["user"], found["may_write"], found["refused_updates"]) == ("bob", False, 2)
        assert stored_updates(server.database_url, "trip-1") == []


async def test_malformed_updates_of_a_read_only_client_are_malformed(guarded: ServerProcess, room: str) -> None:
    async with await join(guarded, room, with_aud({room: "read"})) as client:
        await client.send(b"\x00\x02\x03\xff\xff\xff")

        assert await client.wait_closed() == Closed(4400, "malformed update")


# ------------------------------------------------------------------------------------------------------ identity


async def test_nobody_passes_for_somebody_else(guarded: ServerProcess, room: str) -> None:
    def say(client: int, clock: int, state: bytes) -> bytes:
        return b"\x01" + write_var_bytes(write_states([ClientState(client, clock, state)]))

    async with (
        await join(guarded, room, token("ann", {"*": "write"}, aud=AUDIENCE, name="Ann", color="#a00")) as ann,
        await join(guarded, room, token("eve", {"*": "write"}, aud=AUDIENCE)) as eve,
    ):
        await ann.send(say(1, 1, b'{"user":{"id":"root","name":"?","colorLight":"#fcc"},"cursor":null}'))
        await answers(ann)
        await eve.send(say(1, 5, b'{"user":{"id":"ann"}}'))  # ann's client
        await eve.send(say(1, 6, b"null"))
        await eve.send(say(2, 1, b'{"user":{"id":"ann","name":"Ann"}}'))
        await eve.send(say(3, 1, b'"ann"'))
        await answers(eve)

        admin = hs256(claims())
        found = (await request(guarded.url, "GET", f"/api/v1/rooms/{room}/presence", bearer=admin)).json["clients"]

    assert found == [
        {
            "client": 1,
            "clock": 1,
            "state": {"user": {"id": "ann", "name": "Ann", "colorLight": "#fcc", "color": "#a00"}, "cursor": None},
        },
        {"client": 2, "clock": 1, "state": {"user": {"id": "eve", "name": "Ann"}}},
        {"client": 3, "clock": 1, "state": "ann"},
    ]


async def test_a_client_of_somebody_who_was_lost_is_taken_over_by_nobody_else(
    guarded: ServerProcess, room: str
) -> None:
    state = write_states([ClientState(1, 1, b"{}")])
    async with await join(guarded, room, token("ann", {"*": "write"}, aud=AUDIENCE)) as ann:
        await ann.send(b"\x01" + write_var_bytes(state))
        await answers(ann)
        ann.abort()

    async with await join(guarded, room, token("eve", {"*": "write"}, aud=AUDIENCE)) as eve:
        await eve.send(b"\x01" + write_var_bytes(write_states([ClientState(1, 2, b'{"mine":1}')])))
        await answers(eve)
        admin = hs256(claims())
        path = f"/api/v1/rooms/{room}/presence"
        (found,) = (await request(guarded.url, "GET", path, bearer=admin)).json["clients"]
        async with await join(guarded, room, token("ann", {"*": "write"}, aud=AUDIENCE)) as again:
            await again.send(b"\x01" + write_var_bytes(write_states([ClientState(1, 2, b'{"back":1}')])))
            await answers(again)
            (back,) = (await request(guarded.url, "GET", path, bearer=admin)).json["clients"]

    assert found["state"] == {"user": {"id": "ann"}}
    assert back["state"] == {"back": 1, "user": {"id": "ann"}}


async def test_text_frames_and_unknown_auth_messages_are_nothing(guarded: ServerProcess, room: str) -> None:
    async with await join(guarded, room, with_aud({room: "read"})) as client:
        await client.send_frame(BINARY, b"\x02\x00\x01x")
        await client.send_frame(BINARY, b"\x02\x07")
        await client.send_frame(1, b"\x02\x01")
        await answers(client)

        assert client.closed is None
