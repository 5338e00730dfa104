"""`crdt-sync token`: what it prints, and that a server takes it."""

import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from auth import Grant, Right, make_verifier
from crdt_sync import Settings, cli
from crdt_sync.keys import configured_verifier
from tests.support.tokens import EC_KEY, ED_KEY, RSA_KEY, SECRET, jwk, private_pem, public_pem, shown

ROOT = Path(__file__).parents[2]


@dataclass
class Result:
    """What a command did."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CRDT_SYNC_") and "_TEST_" not in name]:
        monkeypatch.delenv(name)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `crdt-sync token` in this process."""

    def run(*arguments: str | Path) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main(["token", *map(str, arguments)])
        code = ended.value.code
        assert isinstance(code, int)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret is set, for the command and for the server."""
    monkeypatch.setenv("CRDT_SYNC_JWT_SECRET", SECRET)


async def taken(token: str) -> Grant:
    """What a server with this environment makes of a token."""
    verifier = configured_verifier(Settings.read())
    assert verifier is not None
    return await verifier(shown(token))


def printed(result: Result) -> str:
    assert (result.code, result.err) == (0, "")
    return result.out.strip()


def header(token: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    return read


@pytest.mark.usefixtures("secret")
async def test_the_token_is_taken_by_a_server_with_the_same_secret(run: Run) -> None:
    began = int(time.time())
    result = run("--user", "ann", "--room", "trip-*=write", "--room", "a=b=read")  # a name may have a '='

    grant = await taken(printed(result))

    assert result.out.count("\n") == 1
    assert (grant.user, grant.rooms) == ("ann", {"trip-*": Right.WRITE, "a=b": Right.READ})
    assert (grant.name, grant.color) == (None, None)
    assert grant.token_id
    assert grant.issued_at is not None
    assert began <= grant.issued_at <= time.time()
    assert grant.expires_at == grant.issued_at + 3600 + 10


@pytest.mark.usefixtures("secret")
async def test_every_option_is_a_claim(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDT_SYNC_JWT_AUDIENCE", "api, web")
    monkeypatch.setenv("CRDT_SYNC_JWT_ISSUER", "https://id.example")
    options = ["--name", "Ann ✈", "--color", "#0af", "--id", "t-1", "--audience", "web", "--ttl", "90s"]

    grant = await taken(printed(run("--user", "ann", "--room", "*=admin", *options)))

    assert (grant.name, grant.color, grant.token_id, grant.rooms) == ("Ann ✈", "#0af", "t-1", {"*": Right.ADMIN})
    assert (grant.expires_at or 0) - (grant.issued_at or 0) == 90 + 10


@pytest.mark.usefixtures("secret")
async def test_a_token_is_for_the_configured_audience_unless_told_otherwise(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDT_SYNC_JWT_AUDIENCE", "api,web")
    monkeypatch.setenv("CRDT_SYNC_JWT_ISSUER", "https://id.example")

    token = printed(run("--user", "ann", "--room", "*=read"))

    assert (await taken(token)).user == "ann"


@pytest.mark.usefixtures("secret")
def test_json_has_the_token_and_its_claims(run: Run) -> None:
    found = json.loads(printed(run("--user", "ann", "--room", "trip-1=read", "--id", "t-1", "--json")))

    claims = found["claims"]
    assert claims == {
        "sub": "ann",
        "iat": claims["iat"],
        "exp": claims["iat"] + 3600,
        "jti": "t-1",
        "rooms": {"trip-1": "read"},
    }
    payload = found["token"].split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(payload + "==")) == claims


@pytest.mark.usefixtures("secret")
def test_two_tokens_can_be_revoked_one_by_one(run: Run) -> None:
    ids = {json.loads(printed(run("--user", "ann", "--room", "*=read", "--json")))["claims"]["jti"] for _ in range(2)}

    assert len(ids) == 2


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize(("ttl", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604800)])
def test_a_lifetime_has_a_unit(run: Run, ttl: str, seconds: int) -> None:
    claims = json.loads(printed(run("--user", "ann", "--room", "*=read", "--ttl", ttl, "--json")))["claims"]

    assert claims["exp"] - claims["iat"] == seconds


@pytest.mark.parametrize(
    ("key", "algorithm"), [(RSA_KEY, "RS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA")], ids=["RSA", "EC", "Ed25519"]
)
async def test_a_private_key_signs_for_a_server_with_the_public_one(
    run: Run, tmp_path: Path, key: Any, algorithm: str
) -> None:
    file = tmp_path / "key.pem"
    file.write_text(private_pem(key))

    token = printed(run("--user", "ann", "--room", "*=read", "--private-key", file))

    verifier = make_verifier(public_key=public_pem(key))
    assert verifier is not None
    assert (await verifier(shown(token))).user == "ann"
    assert header(token) == {"alg": algorithm, "typ": "JWT"}


async def test_a_private_key_may_be_one_of_a_set(run: Run, tmp_path: Path) -> None:
    key, jwks = tmp_path / "key.pem", tmp_path / "jwks.json"
    key.write_text(private_pem(RSA_KEY))
    jwks.write_text(json.dumps({"keys": [jwk(EC_KEY, "1"), jwk(RSA_KEY, "2")]}))

    token = printed(run("--user", "ann", "--room", "*=read", "--private-key", key, "--key-id", "2"))

    verifier = make_verifier(jwks=str(jwks))
    assert verifier is not None
    assert (await verifier(shown(token))).user == "ann"


def test_without_a_secret_it_says_how_to_make_one(run: Run) -> None:
    result = run("--user", "ann", "--room", "*=read")

    assert (result.code, result.out) == (2, "")
    assert "CRDT_SYNC_JWT_SECRET is not set" in result.err
    assert "export CRDT_SYNC_JWT_SECRET=$(openssl rand -base64 48)" in result.err


def test_the_secret_that_it_tells_to_make_is_taken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # What `openssl rand -base64 48` prints.
    monkeypatch.setenv("CRDT_SYNC_JWT_SECRET", base64.b64encode(os.urandom(48)).decode())

    assert printed(run("--user", "ann", "--room", "*=read")).count(".") == 2


def test_a_secret_that_a_server_would_refuse_is_refused_here_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDT_SYNC_JWT_SECRET", "twelve bytes")

    result = run("--user", "ann", "--room", "*=read")

    assert (result.code, result.out) == (2, "")
    assert "CRDT_SYNC_JWT_SECRET has 12 bytes, at least 32 are needed: `openssl rand -base64 48`" in result.err
    assert "twelve" not in result.err


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "can't be read: No such file or directory"),
        (public_pem(RSA_KEY), "is no private key in PEM, or it needs a password"),
        ("", "is no private key in PEM, or it needs a password"),
    ],
    ids=["missing", "public", "empty"],
)
def test_a_private_key_that_can_not_be_used_is_named(run: Run, tmp_path: Path, content: str | None, why: str) -> None:
    if content is not None:
        (tmp_path / "key.pem").write_text(content)

    result = run("--user", "ann", "--room", "*=read", "--private-key", tmp_path / "key.pem")

    assert (result.code, result.out) == (2, "")
    assert why in result.err


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--user", "", "--room", "*=read"], "'sub' is missing or empty"),
        (["--user", "a\n", "--room", "*=read"], "'sub' is not a text"),
        (["--user", "ann", "--room", "a*b=read"], "has a '*' that is not at its end"),
        (["--user", "ann", "--room", "*=read", "--color", "red"], "'color' is not #rgb"),
        (["--user", "ann", "--room", "*=read", "--name", "a" * 101], "'name' is not a text of at most 100"),
        (["--user", "ann", "--room", "*=read", "--ttl", "31d"], "CRDT_SYNC_JWT_LIFETIME_MAX_S is 2592000"),
        (["--user", "ann", "--room", "*"], "'*' is not NAME=read, NAME=write or NAME=admin"),
        (["--user", "ann", "--room", "=read"], "is not NAME=read"),
        (["--user", "ann", "--room", "trip-1=owner"], "is not NAME=read"),
        (["--user", "ann", "--room", "*=read", "--ttl", "60"], "'60' is no time: 90s, 15m, 1h, 7d and '2 weeks' are"),
        (["--user", "ann", "--room", "*=read", "--ttl", "0s"], "is no time"),
        (["--user", "ann", "--room", "*=read", "--ttl", "-1h"], "--ttl"),
        (["--user", "ann", "--room", "*=read", "--ttl", "١h"], "is no time"),
        (["--user", "ann"], "--room"),
        (["--room", "*=read"], "--user"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_token_that_no_server_would_take_is_not_made(run: Run, arguments: list[str], why: str) -> None:
    result = run(*arguments)

    assert (result.code, result.out) == (2, "")
    assert why in result.err


@pytest.mark.usefixtures("secret")
def test_a_token_may_live_for_as_long_as_the_server_lets_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDT_SYNC_JWT_LIFETIME_MAX_S", "3600")

    assert run("--user", "ann", "--room", "*=read", "--ttl", "60m").code == 0
    assert run("--user", "ann", "--room", "*=read", "--ttl", "61m").code == 2


async def test_a_shell_can_take_the_token() -> None:
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "crdt_sync", "token", "--user", "ann", "--room", "*=read"),
        env={**os.environ, "PYTHONPATH": str(ROOT), "CRDT_SYNC_JWT_SECRET": SECRET},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(command.communicate(), 60)

    verifier = make_verifier(secret=SECRET)
    assert verifier is not None
    assert (await verifier(shown(out.decode().removesuffix("\n")))).user == "ann"
    assert (command.returncode, err) == (0, b"")
