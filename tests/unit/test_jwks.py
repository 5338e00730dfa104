"""Keys that are published: fetched from a real server, which is slow, endless, away, or has new ones."""

import asyncio
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa

from auth import CredentialInvalid, InvalidKeys, KeysUnavailable, Verifier, fetch, make_verifier
from auth.claims import Rules
from auth.fetch import FetchFailed, FileSource, WebSource, source_of
from auth.jwks import Jwks, read_jwks
from auth.keys import public_key
from tests.support.jwks_server import Answer, JwksServer, answer, dripping, endless, silent
from tests.support.tokens import (
    EC_KEY,
    ED_KEY,
    NOW,
    RSA_KEY,
    hs256,
    jwk,
    private_pem,
    public_pem,
    self_signed,
    shown,
    signed,
)

OTHER_RSA = rsa.generate_private_key(65537, 2048)


class Clock:
    """Monotonic seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def verifying(jwks: Jwks, *pems: str) -> Verifier:
    return Verifier(map(public_key, pems), jwks, Rules(), clock=lambda: NOW)


def using(server: JwksServer, clock: Clock | None = None) -> Verifier:
    """A verifier that fetches when it has to, and not by itself."""
    return verifying(Jwks(WebSource(server.url), clock=clock or Clock()))


@asynccontextmanager
async def opened(jwks: Jwks) -> AsyncIterator[Jwks]:
    await jwks.open()
    try:
        yield jwks
    finally:
        await jwks.close()


async def user(verifier: Verifier, token: str) -> str | None:
    return (await verifier(shown(token))).user


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def keys_in(*entries: dict[str, Any]) -> tuple[list[tuple[str, str | None]], list[str]]:
    keys, skipped = read_jwks(json.dumps({"keys": entries}).encode())
    return [(key.algorithm, key.kid) for key in keys], skipped


# Which key


async def test_a_key_is_picked_by_its_kid() -> None:
    async with JwksServer(jwk(RSA_KEY, "r"), jwk(OTHER_RSA, "o"), jwk(EC_KEY, "e"), jwk(ED_KEY, "d")) as server:
        verifier = using(server)

        for key, algorithm, kid in ((RSA_KEY, "RS256", "r"), (EC_KEY, "ES256", "e"), (ED_KEY, "EdDSA", "d")):
            assert await user(verifier, signed(key, algorithm, kid=kid)) == "ann"
        with pytest.raises(CredentialInvalid):
            await user(verifier, signed(RSA_KEY, "RS256", kid="o"))
        with pytest.raises(CredentialInvalid):
            await user(verifier, signed(RSA_KEY, "RS256"))
        assert len(server.requests) == 1


@pytest.mark.parametrize("kid", [None, "r"])
async def test_a_single_key_also_serves_tokens_without_a_kid(kid: str | None) -> None:
    async with JwksServer(jwk(RSA_KEY, kid), jwk(EC_KEY, "e", use="enc")) as server:
        assert await user(using(server), signed(RSA_KEY, "RS256")) == "ann"


async def test_the_algorithm_is_the_keys_and_not_the_tokens() -> None:
    async with JwksServer(jwk(RSA_KEY, "r")) as server:
        verifier = using(server)

        for forged in (
            signed(RSA_KEY, "PS256", kid="r"),
            signed(RSA_KEY, "RS512", kid="r"),
            signed(EC_KEY, "ES256", kid="r"),
            hs256(key=public_pem(RSA_KEY), header={"kid": "r"}),
            hs256(key=json.dumps(jwk(RSA_KEY, "r")), header={"kid": "r"}),
        ):
            with pytest.raises(CredentialInvalid):
                await user(verifier, forged)


async def test_keys_that_do_not_change_serve_beside_published_ones() -> None:
    async with JwksServer(jwk(RSA_KEY, "r")) as server:
        verifier = verifying(Jwks(WebSource(server.url)), public_pem(OTHER_RSA))

        assert await user(verifier, signed(OTHER_RSA, "RS256")) == "ann"
        assert server.requests == []
        assert await user(verifier, signed(RSA_KEY, "RS256", kid="r")) == "ann"


async def test_a_key_is_not_found_for_another_algorithm() -> None:
    async with JwksServer(jwk(RSA_KEY, "r")) as server:
        jwks = Jwks(WebSource(server.url))

        assert [key.kid for key in await jwks.find("RS256", "r")] == ["r"]
        assert await jwks.find("ES256", "r") == ()


@pytest.mark.parametrize(
    "entry",
    [
        jwk(RSA_KEY, "x", use="enc"),
        jwk(RSA_KEY, "x", use=7),
        jwk(RSA_KEY, "x", key_ops=["encrypt"]),
        jwk(RSA_KEY, "x", key_ops="verify"),
        jwk(RSA_KEY, "x", alg="RS512"),
        jwk(RSA_KEY, "x", alg="HS256"),
        jwk(RSA_KEY, "x", alg=None),
        jwk(RSA_KEY, "x", n=""),
        jwk(RSA_KEY, "x", n=7),
        jwk(RSA_KEY, "x", n="ü"),
        jwk(RSA_KEY, "x", n="A" * 100_000),
        jwk(RSA_KEY, "x", n="_" * 100_000),
        jwk(RSA_KEY, "x", e=None),
        jwk(RSA_KEY, "x", e="AA"),
        jwk(RSA_KEY, "x", kty=["RSA"]),
        jwk(RSA_KEY) | {"kid": 7},
        jwk(rsa.generate_private_key(65537, 1024), "x"),
        jwk(ec.generate_private_key(ec.SECP384R1()), "x"),
        jwk(ec.generate_private_key(ec.SECP384R1()), "x", crv="P-256"),
        jwk(EC_KEY, "x", x="AAAA"),
        jwk(EC_KEY, "x", crv={}),
        jwk(ed448.Ed448PrivateKey.generate(), "x"),
        jwk(ED_KEY, "x", x="AAAA"),
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "x"},
        {"kid": "x"},
        {},
    ],
    # Without what is random: all workers have to call a test the same.
    ids=lambda entry: " ".join(f"{name}={value!r:.8}" for name, value in entry.items() if name not in ("n", "x", "y")),
)
def test_a_key_that_is_not_for_this_is_skipped_and_the_others_serve(entry: dict[str, Any]) -> None:
    keys, skipped = keys_in(entry, jwk(EC_KEY, "good"))

    assert keys == [("ES256", "good")]
    assert len(skipped) == 1


def test_keys_that_say_what_they_are_for_are_taken() -> None:
    keys, skipped = keys_in(
        jwk(RSA_KEY, "1", use="sig", alg="RS256", key_ops=["sign", "verify"]), jwk(ED_KEY, "2", alg="EdDSA")
    )

    assert (keys, skipped) == ([("RS256", "1"), ("EdDSA", "2")], [])


def test_a_private_key_that_was_published_only_verifies() -> None:
    ((key,), _) = read_jwks(json.dumps({"keys": [jwk(RSA_KEY, "1") | {"d": "AQAB", "p": "AQAB"}]}).encode())

    assert isinstance(key.material, rsa.RSAPublicKey)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[7]}', b'{"keys":null}', b"\xff", b"[" * 100_000, b"<html>"],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_set_of_keys_is_refused(body: bytes) -> None:
    with pytest.raises(FetchFailed):
        read_jwks(body)


def test_a_set_has_at_most_100_keys() -> None:
    entry = jwk(ED_KEY)

    assert len(keys_in(*[entry] * 100)[0]) == 100
    with pytest.raises(FetchFailed, match="101 keys"):
        keys_in(*[entry] * 101)


# When they are fetched


async def test_a_new_key_is_fetched_when_a_token_names_it() -> None:
    clock = Clock()
    async with JwksServer(jwk(RSA_KEY, "old")) as server:
        verifier = using(server, clock)
        assert await user(verifier, signed(RSA_KEY, "RS256", kid="old")) == "ann"
        server.publish(jwk(EC_KEY, "new"))
        clock.now = 10.0

        assert await user(verifier, signed(EC_KEY, "ES256", kid="new")) == "ann"
        with pytest.raises(CredentialInvalid):
            await user(verifier, signed(RSA_KEY, "RS256", kid="old"))


async def test_unknown_keys_are_asked_for_once_in_ten_seconds_at_most() -> None:
    clock = Clock()
    async with JwksServer(jwk(RSA_KEY, "r")) as server:
        verifier = using(server, clock)
        for now, requests in ((0.0, 1), (9.9, 1), (10.0, 2), (19.9, 2), (20.0, 3)):
            clock.now = now
            for n in range(20):
                with pytest.raises(CredentialInvalid):
                    await user(verifier, signed(RSA_KEY, "RS256", kid=f"made-up-{n}"))
            assert len(server.requests) == requests


async def test_tokens_for_which_no_key_could_be_published_fetch_nothing() -> None:
    async with JwksServer(jwk(RSA_KEY, "r")) as server:
        for token in (hs256(header={"kid": "new"}), hs256(header={"alg": "none", "kid": "new"})):
            with pytest.raises(CredentialInvalid):
                await user(using(server), token)
        assert server.requests == []


async def test_all_who_wait_share_a_fetch_and_one_who_leaves_does_not_end_it() -> None:
    go = asyncio.Event()

    async def held(writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await answer(json.dumps({"keys": [jwk(ED_KEY, "d")]}).encode())(writer)

    async with JwksServer() as server:
        server.misbehave(held)
        verifier = using(server)
        waiting = [asyncio.create_task(user(verifier, signed(ED_KEY, "EdDSA", kid="d"))) for _ in range(50)]
        await server.asked.wait()
        waiting[0].cancel()
        await asyncio.wait({waiting[0]})
        go.set()

        assert await asyncio.gather(*waiting[1:]) == ["ann"] * 49
        assert len(server.requests) == 1


async def test_an_open_set_is_fetched_at_once_and_again_from_time_to_time() -> None:
    async with (
        JwksServer(jwk(RSA_KEY, "r")) as server,
        opened(Jwks(WebSource(server.url), refresh_s=0.01, again_s=0.0)) as jwks,
    ):
        await until(lambda: len(server.requests) > 2)
        server.publish(jwk(EC_KEY, "e"))
        seen = len(server.requests)
        await until(lambda: len(server.requests) > seen + 1)

        assert await user(verifying(jwks), signed(EC_KEY, "ES256", kid="e")) == "ann"


async def test_a_closed_set_fetches_nothing_more() -> None:
    async with JwksServer() as server:
        server.misbehave(silent)
        jwks = Jwks(WebSource(server.url), again_s=0.0)
        async with opened(jwks):
            await server.asked.wait()

        with pytest.raises(KeysUnavailable):
            await user(verifying(jwks), signed(RSA_KEY, "RS256", kid="r"))
        assert len(server.requests) == 1
        assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint({"jwks", "jwks-fetch"})


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for loopback, with its key."""
    file = tmp_path / "certificate.pem"
    file.write_text(private_pem(RSA_KEY) + self_signed(RSA_KEY, "127.0.0.1"))
    return file


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def test_a_set_is_fetched_from_https_whose_certificate_is_trusted(
    certificate: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with JwksServer(jwk(RSA_KEY, "r"), tls=tls) as server:
        with pytest.raises(FetchFailed):
            await WebSource(server.url).read()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

        assert await user(using(server), signed(RSA_KEY, "RS256", kid="r")) == "ann"


async def test_a_redirect_does_not_lead_from_https_to_http(
    certificate: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with JwksServer(jwk(RSA_KEY, "r")) as plain, JwksServer(tls=tls) as server:
        server.misbehave(answer(b"", status="302 Found", Location=plain.url))

        with pytest.raises(FetchFailed, match="redirects"):
            await WebSource(server.url).read()
        assert plain.requests == []


# When fetching fails


async def _reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


FAILURES: dict[str, Answer] = {
    "endless": endless,
    "reset": _reset,
    "500": answer(b'{"keys":[]}', status="500 Oops"),
    "204": answer(b"", status="204 No Content"),
    "html": answer(b"<html>"),
    "too large": answer(b'{"keys":[]}' + b" " * fetch.BYTES_MAX),
    "compressed": answer(b"\x1f\x8b", Content_Encoding="gzip"),
    "no http": answer(b"", status="x"),
    "redirect to http elsewhere": answer(b"", status="302 Found", Location="http://192.0.2.1/jwks"),
    "redirect to https": answer(b"", status="302 Found", Location="https://127.0.0.1:1/jwks"),
    "redirect to a file": answer(b"", status="302 Found", Location="file:///etc/passwd"),
    "redirect to itself": answer(b"", status="302 Found", Location="/jwks.json"),
    "redirect to nonsense": answer(b"", status="302 Found", Location="http://[/"),
}


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        ("500", "the answer is 500"),
        ("too large", "it has more than 262144 bytes"),
        ("compressed", "the answer is compressed"),
        ("redirect to http elsewhere", "it redirects to where keys may not come from"),
        ("redirect to https", "it redirects to where keys may not come from"),
        ("redirect to itself", "it redirects too often"),
    ],
)
async def test_a_failure_says_why(failure: str, why: str) -> None:
    async with JwksServer() as server:
        server.misbehave(FAILURES[failure])

        with pytest.raises(FetchFailed, match=why):
            await WebSource(server.url).read()


@pytest.mark.parametrize("failure", FAILURES)
async def test_while_fetching_fails_old_keys_serve_and_new_ones_are_a_matter_of_time(
    failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with JwksServer(jwk(RSA_KEY, "old")) as server:
        verifier = using(server, clock)
        assert await user(verifier, signed(RSA_KEY, "RS256", kid="old")) == "ann"
        server.misbehave(FAILURES[failure])

        for now in (10.0, 20.0):
            clock.now = now
            with pytest.raises(KeysUnavailable):
                await user(verifier, signed(EC_KEY, "ES256", kid="new"))
            assert await user(verifier, signed(RSA_KEY, "RS256", kid="old")) == "ann"
        server.publish(jwk(EC_KEY, "new"))
        clock.now = 30.0

        assert await user(verifier, signed(EC_KEY, "ES256", kid="new")) == "ann"
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [(record.levelname, record.message) for record in warnings] == [("WARNING", "jwks_failing")]
    assert "s3cret" not in str([vars(record) for record in caplog.records])


async def test_a_server_that_is_away_at_the_start_is_no_reason_to_refuse_for_good() -> None:
    async with JwksServer(jwk(RSA_KEY, "r")) as server:
        await server.stop()
        jwks = Jwks(WebSource(server.url), again_s=0.01)
        async with opened(jwks):
            with pytest.raises(KeysUnavailable):
                await user(verifying(jwks), signed(RSA_KEY, "RS256", kid="r"))
            await server.start()
            await until(lambda: server.requests != [])
            await until(lambda: jwks._keys != ())

            assert await user(verifying(jwks), signed(RSA_KEY, "RS256", kid="r")) == "ann"


@pytest.mark.parametrize("behaviour", [silent, dripping])
async def test_a_slow_server_takes_bounded_time_and_nobody_elses(
    behaviour: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT_S", 0.3)
    async with JwksServer() as server:
        server.misbehave(behaviour)
        verifier = verifying(Jwks(WebSource(server.url)), public_pem(ED_KEY))
        waiting = asyncio.create_task(user(verifier, signed(RSA_KEY, "RS256", kid="r")))
        await server.asked.wait()

        assert await user(verifier, signed(ED_KEY, "EdDSA")) == "ann"
        assert not waiting.done()
        with pytest.raises(KeysUnavailable):
            await asyncio.wait_for(waiting, 5)


async def test_endless_bytes_are_read_no_further_than_allowed() -> None:
    sent = 0

    async def counting(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(b" " * 65536)
            await writer.drain()
            sent += 65536

    async with JwksServer() as server:
        server.misbehave(counting)
        with pytest.raises(FetchFailed, match="more than 262144 bytes"):
            await WebSource(server.url).read()

    assert sent < 32 << 20, "what fits into the buffers of a socket, and not what a second on loopback brings"


async def test_fetching_does_not_hold_up_the_event_loop() -> None:
    async def longest_turn(source: WebSource) -> float:
        fetching = asyncio.create_task(Jwks(source).find("RS256", "k99"))
        longest = 0.0
        while not fetching.done():
            began = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - began)
        assert len(await fetching) == 1
        return longest

    async with JwksServer(*(jwk(RSA_KEY, f"k{n}") for n in range(100))) as server:
        source = WebSource(server.url)
        await source.read()  # what is loaded once

        # The best of some, since other tests want the processor too.
        assert min([await longest_turn(source) for _ in range(5)]) < 0.05


async def test_a_redirect_on_the_same_scheme_is_followed() -> None:
    async with JwksServer(jwk(RSA_KEY, "r")) as new, JwksServer() as old:
        old.misbehave(answer(b"", status="301 Moved Permanently", Location=new.url))

        assert await user(using(old), signed(RSA_KEY, "RS256", kid="r")) == "ann"


async def test_a_set_without_usable_keys_is_obeyed_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    async with JwksServer(jwk(RSA_KEY, "r")) as server:
        verifier = using(server, clock)
        await user(verifier, signed(RSA_KEY, "RS256", kid="r"))
        server.publish(jwk(RSA_KEY, "r", use="enc"))
        clock.now = 10.0

        for kid in ("new", "r"):
            with pytest.raises(KeysUnavailable):
                await user(verifier, signed(RSA_KEY, "RS256", kid=kid))
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == ["jwks_without_keys"]


# Where they are


async def test_a_file_is_read_again_when_a_token_names_another_key(tmp_path: Path) -> None:
    file = tmp_path / "j w%ks.json"
    file.write_text(json.dumps({"keys": [jwk(RSA_KEY, "old")]}))
    for location in (str(file), file.as_uri(), f"file://localhost{file.as_uri().removeprefix('file://')}"):
        file.write_text(json.dumps({"keys": [jwk(RSA_KEY, "old")]}))
        clock = Clock()
        verifier = verifying(Jwks(source_of(location), clock=clock))
        assert await user(verifier, signed(RSA_KEY, "RS256", kid="old")) == "ann"
        file.write_text(json.dumps({"keys": [jwk(EC_KEY, "new")]}))
        clock.now = 10.0

        assert await user(verifier, signed(EC_KEY, "ES256", kid="new")) == "ann"


@pytest.mark.parametrize(
    ("location", "shown_as"),
    [
        ("https://id.example/jwks?key=s3cret", "https://id.example/jwks"),
        ("https://me:s3cret@id.example/jwks", "https://id.example/jwks"),
        ("http://127.0.0.1:8000/jwks", "http://127.0.0.1:8000/jwks"),
        ("http://[::1]/jwks", "http://[::1]/jwks"),
        ("http://localhost/jwks", "http://localhost/jwks"),
        ("file:///etc/jwks.json", "/etc/jwks.json"),
        ("jwks.json", "jwks.json"),
    ],
)
def test_a_set_is_at_a_url_or_in_a_file_and_is_named_without_secrets(location: str, shown_as: str) -> None:
    assert source_of(location).describe() == shown_as


@pytest.mark.parametrize(
    "location",
    [
        "",
        "http://id.example/jwks",
        "http://127.0.0.1.example/jwks",
        "http://localhost.example/jwks",
        "http://127.0.0.1@id.example/jwks",
        "http://169.254.169.254/jwks",
        "http://0.0.0.0/jwks",
        "ftp://127.0.0.1/jwks",
        "https://",
        "https:///jwks",
        "https://id.example:port/",
        "file://id.example/jwks",
        "file:jwks.json",
    ],
)
def test_a_set_is_nowhere_else(location: str) -> None:
    with pytest.raises(ValueError, match="is "):
        source_of(location)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "can't be used: there is no such file"),
        (b"<html>", "can't be used: 6 bytes are not strict JSON"),
        (b'{"keys":[]}', "has no key that can verify tokens: it has none at all"),
        (b'{"keys":[{"kid":"a","kty":"oct"}]}', "has no key that can verify tokens: 'a' has a 'kty' that"),
        (b" " * (fetch.BYTES_MAX + 1), "can't be used: it has more than 262144 bytes"),
    ],
    ids=["missing", "html", "empty", "oct", "large"],
)
def test_a_file_that_can_not_be_used_is_a_problem_at_the_start(tmp_path: Path, content: bytes | None, why: str) -> None:
    file = tmp_path / "jwks.json"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(InvalidKeys) as refused:
        make_verifier(jwks=str(file))

    assert str(refused.value).startswith(f"CRDT_SYNC_JWT_JWKS {why}")


async def test_a_file_that_goes_away_is_a_failed_fetch(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed):
        await FileSource(tmp_path / "gone.json").read()
    with pytest.raises(FetchFailed):
        await FileSource(tmp_path).read()
