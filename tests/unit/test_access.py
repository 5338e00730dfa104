"""What a request shows, where it comes from, and what that makes of it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from auth import (
    OPEN,
    CredentialExpired,
    CredentialMissing,
    Credentials,
    Grant,
    KeysUnavailable,
    Right,
    TokenVerifier,
)
from crdt_sync.errors import Forbidden, OriginNotAllowed, SyncError, TryAgainLater, Unauthorized
from crdt_sync.gateway.access import Access, accepted_subprotocol, read_credentials
from crdt_sync.revocations import Revocations
from persistence.memory import MemoryStore
from tests.support.fakes import in_virtual_time, quick_settings

HERE = {"server": ("127.0.0.1", 8000)}


def scope(*headers: tuple[str, str], query: str = "", offered: list[str] | None = None, **more: Any) -> dict[str, Any]:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return {"headers": raw, "query_string": query.encode(), "subprotocols": offered or [], **HERE, **more}


def bearer(value: str) -> tuple[str, str]:
    return ("Authorization", value)


def access(verifier: TokenVerifier | None = None, **options: Any) -> Access:
    return Access(verifier, quick_settings(**options), Revocations(MemoryStore()))


async def admitted(judge: Access, asked: dict[str, Any], room: str | None = "trip-1") -> Grant:
    return await judge.admit(asked, read_credentials(asked, room))


# ------------------------------------------------------------------------------------------------------- credentials


@pytest.mark.parametrize(
    ("asked", "token"),
    [
        (scope(), None),
        (scope(bearer("Bearer a.b.c")), "a.b.c"),
        (scope(bearer("bEARER   a.b.c ")), "a.b.c"),
        (scope(query="token=a.b.c"), "a.b.c"),
        (scope(query="auth=a.b.c"), "a.b.c"),
        (scope(query="x=1&token=a%2Eb.c"), "a.b.c"),
        (scope(offered=["bearer.a.b.c"]), "a.b.c"),
        (scope(offered=["y-websocket", "bearer.a.b.c"]), "a.b.c"),
        # Several at once: the first of header, subprotocol, URL; never a mixture.
        (scope(bearer("Bearer h"), query="token=q", offered=["bearer.s"]), "h"),
        (scope(query="token=q", offered=["bearer.s"]), "s"),
        (scope(query="auth=b&token=a"), "a"),
        (scope(query="token=a&token=b"), "a"),
        (scope(offered=["bearer.a", "bearer.b"]), "a"),
        # One that is there and empty isn't made up for by a worse one.
        (scope(bearer("Bearer"), query="token=q"), ""),
        (scope(bearer("Basic dTpw"), query="token=q"), "q"),
        # Two headers are one that is no token.
        (scope(bearer("Bearer a"), bearer("Bearer b")), "a, Bearer b"),
        # Names are compared exactly, values are read once.
        (scope(query="Token=q"), None),
        (scope(offered=["Bearer.a"]), None),
        (scope(query="token=%2541"), "%41"),
        # Bounds.
        (scope(query="token=" + "a" * 8192), "a" * 8192),
        (scope(query="token=q&" + "a" * 20_000), None),
        (scope(query="token=q" + "&a=1" * 200), None),
    ],
)
def test_where_a_token_is_taken_from(asked: dict[str, Any], token: str | None) -> None:
    assert read_credentials(asked).token == token


def test_headers_that_come_in_several_lines_are_joined() -> None:
    asked = scope(("Cookie", "a=1"), ("Cookie", "b=2"), ("Accept", "x"), ("accept", "y"))

    assert read_credentials(asked).headers == {"cookie": "a=1; b=2", "accept": "x, y"}


def test_credentials_are_shown_to_nobody() -> None:
    asked = scope(bearer("Bearer hush"), ("Cookie", "session=hush"), query="token=hush", offered=["bearer.hush"])

    assert "hush" not in repr(read_credentials(asked, "trip-1"))


@pytest.mark.parametrize(
    ("offered", "accepted"),
    [([], None), (["bearer.a"], "bearer.a"), (["bearer.a", "y"], "y"), (["y", "z"], "y")],
)
def test_a_token_is_only_answered_where_nothing_else_was_offered(offered: list[str], accepted: str | None) -> None:
    assert accepted_subprotocol(scope(offered=offered)) == accepted


# ------------------------------------------------------------------------------------------------------------ origins


async def ann(credentials: Credentials) -> Grant:
    return Grant(user="ann", rooms={"trip-1": Right.READ})


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ([], True),
        ([("Origin", "https://sync.example"), ("Host", "sync.example")], True),
        ([("Origin", "https://SYNC.example"), ("Host", "sync.Example")], True),
        ([("Origin", "https://sync.example:8443"), ("Host", "sync.example:8443")], True),
        ([("Origin", "https://app.example"), ("Host", "sync.example")], True),
        ([("Origin", "https://evil.example"), ("Host", "sync.example")], False),
        ([("Origin", "https://sync.example:8443"), ("Host", "sync.example")], False),
        ([("Origin", "https://sync.example@evil.example"), ("Host", "sync.example")], False),
        ([("Origin", "https://evil.example/sync.example"), ("Host", "sync.example")], False),
        ([("Origin", "https://app.example.evil.example"), ("Host", "sync.example")], False),
        ([("Origin", "http://app.example"), ("Host", "sync.example")], False),
        ([("Origin", "null"), ("Host", "sync.example")], False),
        ([("Origin", "null")], False),
        ([("Origin", "null"), ("Host", "")], False),
        ([("Origin", ""), ("Host", "")], False),
        ([("Origin", "https://[")], False),
        ([("Origin", "https://app.example"), ("Origin", "https://evil.example")], False),
        ([("Origin", "https://evil.example"), ("Host", "sync.example"), ("Host", "evil.example")], False),
        ([("Origin", "https://evil.example"), ("Host", "s"), ("X-Forwarded-Host", "evil.example")], False),
    ],
)
@in_virtual_time
async def test_which_sites_pages_get_in(headers: list[tuple[str, str]], allowed: bool) -> None:
    judge = access(ann, allowed_origins=("https://app.example/",))

    if allowed:
        await admitted(judge, scope(*headers))
    else:
        with pytest.raises(OriginNotAllowed):
            await admitted(judge, scope(*headers))


@in_virtual_time
async def test_another_site_s_page_is_refused_before_anything_is_judged() -> None:
    asked = []

    async def verify(credentials: Credentials) -> Grant:
        asked.append(credentials)
        return await ann(credentials)

    with pytest.raises(OriginNotAllowed):
        await admitted(access(verify), scope(("Origin", "https://evil.example"), ("Host", "sync.example")))

    assert asked == []


# -------------------------------------------------------------------------------------------------------- open servers


@pytest.mark.parametrize(
    ("asked", "local"),
    [
        (scope(), True),
        (scope(server=("::1", 8000)), True),
        (scope(server=("::ffff:127.0.0.1", 8000)), True),
        (scope(server=("localhost", 8000)), True),
        (scope(server=("/run/crdt-sync.sock", None)), True),
        (scope(("Host", "127.0.0.1:8000")), True),
        (scope(("Host", "[::1]:8000")), True),
        (scope(("Host", "localhost:8000"), ("Origin", "http://localhost:5173")), True),
        (scope(("Host", "app.localhost")), True),
        (scope(server=("192.168.1.5", 8000)), False),
        (scope(server=("fe80::1%eth0", 8000)), False),
        (scope(server=("0.0.0.0", 8000)), False),
        (scope(server=("testserver", 80)), False),
        (scope(("Host", "sync.example")), False),
        (scope(("Host", "127.0.0.1.evil.example")), False),
        (scope(("Host", "localhost@evil.example")), False),
        (scope(("Host", "evil.example, localhost")), False),
        (scope(("Host", "[")), False),
        *[
            (scope((name, "localhost")), False)
            for name in ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")
        ],
    ],
)
@in_virtual_time
async def test_an_open_server_is_open_to_its_own_machine(asked: dict[str, Any], local: bool) -> None:
    assert await admitted(access(insecure_open=True), asked) == OPEN
    # Who is let in from elsewhere isn't also handed the tool.
    assert access().has_admin_page(asked) == access(insecure_open=True).has_admin_page(asked) == local
    assert access(giving(OPEN)).has_admin_page(asked)
    if local:
        assert await admitted(access(), asked) == OPEN
    else:
        with pytest.raises(Forbidden):
            await admitted(access(), asked)


# ------------------------------------------------------------------------------------------------------------- judging


def raising(error: BaseException) -> TokenVerifier:
    async def verify(credentials: Credentials) -> Grant:
        raise error

    return verify


def giving(value: object) -> TokenVerifier:
    async def verify(credentials: Credentials) -> Grant:
        return value  # type: ignore[return-value]

    return verify


async def sleeping(credentials: Credentials) -> Grant:
    await asyncio.sleep(3600)
    raise AssertionError("nobody waits for so long")


@pytest.mark.parametrize(
    ("verifier", "error", "reason"),
    [
        (raising(CredentialMissing("none")), Unauthorized, "credential missing"),
        (raising(CredentialExpired("old")), Unauthorized, "credential expired"),
        (raising(KeysUnavailable("away")), TryAgainLater, "try again later"),
        (sleeping, TryAgainLater, "try again later"),
        (raising(RuntimeError("secret of the application")), SyncError, "internal error"),
        (raising(TimeoutError("of its database")), TryAgainLater, "try again later"),
        (giving(None), SyncError, "internal error"),
        (giving({"user": "ann"}), SyncError, "internal error"),
        (giving(OPEN), SyncError, "internal error"),
        (giving(Grant(user="ann", rooms={"*": Right.READ}, expires_at=1.0)), Unauthorized, "credential expired"),
        (giving(Grant(user="ann", rooms={"trip-2": Right.READ})), Forbidden, "not allowed"),
        (giving(Grant(user="ann", rooms={})), Forbidden, "not allowed"),
    ],
)
@in_virtual_time
async def test_what_a_verifier_does_becomes_an_answer(
    verifier: TokenVerifier, error: type[SyncError], reason: str
) -> None:
    with pytest.raises(error) as raised:
        await admitted(access(verifier), scope())

    assert (type(raised.value), raised.value.reason) == (error, reason)
    assert "secret" not in str(raised.value)


@in_virtual_time
async def test_who_hangs_up_ends_the_judging() -> None:
    judging = asyncio.create_task(admitted(access(sleeping), scope()))
    await asyncio.sleep(1)

    judging.cancel()

    with pytest.raises(asyncio.CancelledError):
        await judging


@in_virtual_time
async def test_a_grant_that_says_no_time_was_issued_when_it_was_judged() -> None:
    before = time.time()

    grant = await admitted(access(ann), scope())

    assert before <= (grant.issued_at or 0) <= time.time()


@in_virtual_time
async def test_a_grant_without_a_room_needs_no_right() -> None:
    assert (await admitted(access(giving(Grant(user="ann", rooms={}))), scope(), None)).user == "ann"
