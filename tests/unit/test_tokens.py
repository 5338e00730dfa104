"""Tokens to grants: what is taken, and that everything else is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from hypothesis import example, given
from hypothesis import strategies as st

from auth import (
    AuthError,
    CredentialExpired,
    CredentialInvalid,
    CredentialMissing,
    Grant,
    InvalidKeys,
    LifetimeTooLong,
    Right,
    Verifier,
    make_verifier,
)
from auth.claims import Rules, read_grant
from auth.keys import TOKEN_BYTES_MAX, Key, public_key, secret_key, verified_payload
from tests.support.tokens import (
    CLAIMS,
    EC_KEY,
    ED_KEY,
    NOW,
    RSA_KEY,
    SECRET,
    b64,
    hs256,
    private_pem,
    public_pem,
    self_signed,
    shown,
    signed,
    without,
)

RSA_PEM = public_pem(RSA_KEY)


def verifier(*pems: str, secret: str | None = SECRET, **rules: Any) -> Verifier:
    keys = [*([secret_key(secret)] if secret else []), *map(public_key, pems)]
    return Verifier(keys, None, Rules(**rules), clock=lambda: NOW)


async def judged(token: str | None, using: Verifier | None = None) -> Grant:
    return await (using or verifier())(shown(token))


def problems(**options: Any) -> list[str]:
    with pytest.raises(InvalidKeys) as refused:
        make_verifier(**options)
    return str(refused.value).splitlines()


# What is taken


async def test_a_token_is_a_grant() -> None:
    claims = without(jti="t-1", name="Ann ✈", color="#0af", rooms={"trip-1": "read", "trip-*": "write", "*": "admin"})

    assert await judged(hs256(claims)) == Grant(
        user="ann",
        rooms={"trip-1": Right.READ, "trip-*": Right.WRITE, "*": Right.ADMIN},
        expires_at=NOW + 3600 + 10,
        issued_at=NOW - 10,
        token_id="t-1",
        name="Ann ✈",
        color="#0af",
    )


async def test_without_rooms_there_is_no_access() -> None:
    grant = await judged(hs256(without("rooms")))

    assert (grant.rooms, grant.right("trip-1")) == ({}, None)


async def test_a_token_that_does_not_say_when_it_was_made_is_older_than_any_revocation() -> None:
    assert (await judged(hs256(without("iat")))).issued_at == 0.0


@pytest.mark.parametrize(
    ("key", "algorithm"), [(RSA_KEY, "RS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA")], ids=["RSA", "EC", "Ed25519"]
)
async def test_each_kind_of_public_key_verifies_its_own_tokens(key: Any, algorithm: str) -> None:
    assert (await judged(signed(key, algorithm), verifier(public_pem(key), secret=None))).user == "ann"


async def test_several_kinds_of_keys_serve_at_once() -> None:
    using = verifier(RSA_PEM, public_pem(ED_KEY))

    for token in (hs256(), signed(RSA_KEY, "RS256"), signed(ED_KEY, "EdDSA")):
        assert (await judged(token, using)).user == "ann"


async def test_claims_that_nobody_asked_about_are_passed_over() -> None:
    assert (await judged(hs256(without(scope="x", azp=["y"], amr=None)))).user == "ann"


# Who signed it


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", "HS384", "HS512", "PS256", "RS512"])
@pytest.mark.parametrize("pem", [None, RSA_PEM], ids=["secret", "secret and key"])
async def test_an_algorithm_that_no_key_is_for_is_refused(algorithm: str, pem: str | None) -> None:
    with pytest.raises(CredentialInvalid):
        await judged(hs256(header={"alg": algorithm}), verifier(*([pem] if pem else [])))


@pytest.mark.parametrize("signature", ["", "AA", "e30"])
async def test_alg_none_is_refused_with_and_without_a_signature(signature: str) -> None:
    token = b64(b'{"alg":"none"}') + "." + b64(json.dumps(CLAIMS).encode()) + "." + signature

    with pytest.raises(CredentialInvalid):
        await judged(token)


@pytest.mark.parametrize("with_secret", [False, True])
@pytest.mark.parametrize(
    "key",
    [
        RSA_PEM,
        RSA_PEM.strip(),
        RSA_PEM + "\n",
        RSA_PEM.replace("\n", "\r\n"),
        RSA_PEM.replace("\n", ""),
        " " + RSA_PEM,
        RSA_PEM.replace("-----BEGIN PUBLIC KEY-----\n", "").replace("-----END PUBLIC KEY-----\n", ""),
        "",
    ],
    ids=["pem", "stripped", "newline", "crlf", "one line", "indented", "base64", "empty"],
)
async def test_a_public_key_is_no_secret(key: str, with_secret: bool) -> None:
    using = verifier(RSA_PEM, secret=SECRET if with_secret else None)

    with pytest.raises(CredentialInvalid):
        await judged(hs256(key=key), using)


async def test_a_token_signed_with_the_secret_is_none_of_a_key() -> None:
    with pytest.raises(CredentialInvalid):
        await judged(hs256(header={"alg": "RS256"}), verifier(RSA_PEM))


def test_a_key_verifies_its_own_algorithm_whatever_the_token_says() -> None:
    secret = SECRET.encode()

    assert verified_payload(hs256(b"{}"), Key("HS256", secret)) == b"{}"
    assert verified_payload(hs256(b"{}"), Key("RS256", secret)) is None
    assert verified_payload(hs256(b"{}", header={"alg": "RS256"}), Key("HS256", secret)) is None


async def test_another_key_is_refused() -> None:
    with pytest.raises(CredentialInvalid):
        await judged(hs256(key=SECRET + "x"))
    with pytest.raises(CredentialInvalid):
        await judged(signed(rsa.generate_private_key(65537, 2048), "RS256"), verifier(RSA_PEM))
    with pytest.raises(CredentialInvalid):
        await judged(signed(ec.generate_private_key(ec.SECP256R1()), "ES256"), verifier(public_pem(EC_KEY)))


@pytest.mark.parametrize("algorithm", ["ES384", "ES256"])
async def test_another_curve_is_refused(algorithm: str) -> None:
    token = signed(ec.generate_private_key(ec.SECP384R1()), "ES384")
    header = b64(json.dumps({"alg": algorithm}).encode())

    with pytest.raises(CredentialInvalid):
        await judged(".".join([header, *token.split(".")[1:]]), verifier(public_pem(EC_KEY)))


async def test_a_changed_token_is_refused() -> None:
    head, _, signature = hs256().split(".")

    with pytest.raises(CredentialInvalid):
        await judged(".".join([head, b64(json.dumps(without(sub="bob")).encode()), signature]))


async def test_a_key_that_comes_with_the_token_is_passed_over() -> None:
    own = rsa.generate_private_key(65537, 2048)
    public = json.loads(
        json.dumps({"kty": "RSA", "n": b64(own.public_key().public_numbers().n.to_bytes(256)), "e": "AQAB"})
    )
    for header in ({"jwk": public}, {"jku": "http://127.0.0.1:1/"}, {"x5u": "http://127.0.0.1:1/"}, {"x5c": ["AA=="]}):
        with pytest.raises(CredentialInvalid):
            await judged(signed(own, "RS256", **header), verifier(RSA_PEM))
        assert (await judged(signed(RSA_KEY, "RS256", **header), verifier(RSA_PEM))).user == "ann"


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["x"], "x": 1},
        {"crit": ["b64"], "b64": True},
        {"crit": []},
        {"b64": False},
        {"kid": 7},
        {"alg": None},
        {"alg": ["HS256"]},
    ],
    ids=str,
)
async def test_a_header_that_is_not_understood_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(CredentialInvalid):
        await judged(hs256(header=header))


# Its form


@pytest.mark.parametrize("token", [None, ""])
async def test_no_token_is_a_missing_one(token: str | None) -> None:
    with pytest.raises(CredentialMissing):
        await judged(token)


async def test_a_token_of_more_than_8_kib_is_refused_before_it_is_read() -> None:
    filling = TOKEN_BYTES_MAX - len(hs256(without(filling=""))) - 3
    fits, over = (hs256(without(filling="x" * (filling * 3 // 4 + more))) for more in (0, 6))
    assert len(fits) <= TOKEN_BYTES_MAX < len(over)

    assert (await judged(fits)).user == "ann"
    with pytest.raises(CredentialInvalid, match="at most 8192 bytes"):
        await judged(over)


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token + "=",
        lambda token: token + ".",
        lambda token: " " + token,
        lambda token: token + "\n",
        lambda token: token.replace(".", ".!", 1),
        lambda token: token.rpartition(".")[0],
        lambda token: token + "." + token,
        lambda token: token + "\udcff",
        lambda token: "a" + token,
    ],
)
async def test_there_is_one_way_to_write_a_token(change: Any) -> None:
    with pytest.raises(CredentialInvalid):
        await judged(change(hs256()))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"null",
        b'"sub"',
        b"{",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"[" * 6_000,
        b'{"sub":' * 1_000,
        b'{"sub":"ann","exp":' + b"9" * 5_000 + b"}",
        b'{"sub":"ann","exp":NaN}',
        b'{"sub":"ann","exp":%d,"other":NaN}' % (NOW + 9),
        b'{"sub":"ann","exp":%d,"other":-Infinity}' % (NOW + 9),
        b'{"sub":"ann","exp":Infinity}',
        b'{"sub":"ann","exp":1e999}',
        b'{"sub":"ann","exp":-1e999}',
        b'{"sub":"ann","sub":"bob","exp":%d}' % (NOW + 9),
        b'{"sub":"ann","exp":%d,"rooms":{"a":"read","a":"admin"}}' % (NOW + 9),
    ],
    ids=lambda payload: repr(payload[:40]),
)
async def test_claims_that_are_not_strict_json_are_refused(payload: bytes) -> None:
    with pytest.raises(CredentialInvalid):
        await judged(hs256(payload))


# When


@pytest.mark.parametrize("after", [-9.9, 0.0])
async def test_a_token_is_taken_until_the_leeway_is_over(after: float) -> None:
    grant = await judged(hs256(without(exp=NOW + after)))

    assert grant.expires_at == pytest.approx(NOW + after + 10)


@pytest.mark.parametrize("after", [-10, -11, -NOW])
async def test_an_expired_token_is_refused_as_such(after: int) -> None:
    with pytest.raises(CredentialExpired):
        await judged(hs256(without(exp=NOW + after)))


async def test_a_token_that_never_expires_is_refused() -> None:
    with pytest.raises(CredentialInvalid, match="no 'exp'"):
        await judged(hs256(without("exp")))


async def test_a_token_that_is_valid_for_too_long_is_refused_with_the_setting_to_change() -> None:
    using = verifier(lifetime_max_s=600, leeway_s=0)
    assert (await judged(hs256(without(exp=NOW + 600)), using)).user == "ann"

    with pytest.raises(LifetimeTooLong) as refused:
        await judged(hs256(without(exp=NOW + 601)), using)

    assert "CRDT_SYNC_JWT_LIFETIME_MAX_S is 600" in str(refused.value)
    assert refused.value.reason == "token lives longer than CRDT_SYNC_JWT_LIFETIME_MAX_S allows"


@pytest.mark.parametrize("claim", ["nbf", "iat"])
async def test_a_token_from_the_future_is_refused_but_for_the_leeway(claim: str) -> None:
    assert (await judged(hs256(without(**{claim: NOW + 10})))).user == "ann"

    with pytest.raises(CredentialInvalid, match=claim):
        await judged(hs256(without(**{claim: NOW + 11})))


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", [True, False, None, "1800000000", [NOW], {}, 2**53, 10**400, -(10**400), 1e300])
async def test_a_moment_is_a_number(claim: str, value: object) -> None:
    with pytest.raises(CredentialInvalid, match=claim):
        await judged(hs256(without(**{claim: value})))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_moment_is_finite_also_for_those_who_read_other_json(value: float) -> None:
    with pytest.raises(CredentialInvalid, match="exp"):
        read_grant(without(exp=value), Rules(), now=NOW)


# Who


@pytest.mark.parametrize(
    "claims",
    [
        without("sub"),
        *({"sub": value} for value in ("", "a" * 256, "a\n", "\x00", "\x9f", "\ud800", 7, None, True, ["ann"])),
        *({"name": value} for value in ("a" * 101, "a\tb", 7, None, ["Ann"])),
        *({"jti": value} for value in ("a" * 256, "a\n", 7, None)),
        *({"color": value} for value in ("", "red", "#12", "#1234", "#12345g", "#1234567", "#fff;", "#fff\n", 7, None)),
    ],
    ids=str,
)
async def test_a_malformed_claim_refuses_the_token(claims: dict[str, Any]) -> None:
    given_claims = claims if "exp" in claims else without(**claims)

    with pytest.raises(CredentialInvalid):
        await judged(hs256(given_claims))


@pytest.mark.parametrize("color", ["#0af", "#00AAff", "#00aaff80"])
async def test_a_colour_is_one_of_css(color: str) -> None:
    assert (await judged(hs256(without(color=color)))).color == color


async def test_texts_may_be_as_long_as_allowed() -> None:
    grant = await judged(hs256(without(sub="ü" * 255, name="🧳" * 100, jti="t" * 255)))

    assert (len(grant.user or ""), len(grant.name or ""), len(grant.token_id or "")) == (255, 100, 255)


@pytest.mark.parametrize(
    "rooms",
    [
        None,
        [],
        "trip-1",
        7,
        {"trip-1": "owner"},
        {"trip-1": "WRITE"},
        {"trip-1": ""},
        {"trip-1": 2},
        {"trip-1": True},
        {"trip-1": None},
        {"trip-1": ["write"]},
        {"trip-1": "write", "": "read"},
        {"trip-*-x": "write"},
        {"**": "write"},
        {"trip\r\n": "write"},
        {"\udc00": "write"},
        {"a" * 256: "write"},
        {"ü" * 128: "write"},
    ],
    ids=lambda rooms: f"{rooms!r:.30}",
)
async def test_rooms_that_are_malformed_refuse_the_token(rooms: object) -> None:
    with pytest.raises(CredentialInvalid, match="rooms"):
        await judged(hs256(without(rooms=rooms)))


def test_rooms_are_bounded_in_number() -> None:
    read_grant(without(rooms={f"trip-{n}": "read" for n in range(10_000)}), Rules(), now=NOW)

    with pytest.raises(CredentialInvalid, match="10001 entries"):
        read_grant(without(rooms={f"trip-{n}": "read" for n in range(10_001)}), Rules(), now=NOW)


# For whom


@pytest.mark.parametrize("aud", ["api", ["api"], ["web", "api"], "other"])
async def test_one_of_the_audiences_has_to_be_ours(aud: object) -> None:
    assert (await judged(hs256(without(aud=aud)), verifier(audiences=frozenset({"api", "other"})))).user == "ann"


@pytest.mark.parametrize("claims", [{}, {"aud": "web"}, {"aud": []}, {"aud": ["web"]}, {"aud": "ap"}, {"aud": "api "}])
async def test_a_token_for_another_audience_is_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(CredentialInvalid, match="aud"):
        await judged(hs256(without(**claims)), verifier(audiences=frozenset({"api"})))


@pytest.mark.parametrize("claims", [{}, {"iss": "other"}, {"iss": ""}])
async def test_a_token_of_another_issuer_is_refused(claims: dict[str, Any]) -> None:
    using = verifier(issuers=frozenset({"https://id.example"}))
    assert (await judged(hs256(without(iss="https://id.example")), using)).user == "ann"

    with pytest.raises(CredentialInvalid, match="iss"):
        await judged(hs256(without(**claims)), using)


async def test_audience_and_issuer_do_not_matter_unless_configured_but_are_well_formed() -> None:
    assert (await judged(hs256(without(aud="web", iss="x")))).user == "ann"
    for claims in ({"aud": 7}, {"aud": None}, {"aud": [7]}, {"iss": None}, {"iss": ["x"]}):
        with pytest.raises(CredentialInvalid):
            await judged(hs256(without(**claims)))


# Laws

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
_NAMES = st.sampled_from(["sub", "exp", "iat", "nbf", "aud", "iss", "jti", "name", "color", "rooms"])
_EVERY_KEY = verifier(RSA_PEM, public_pem(EC_KEY), public_pem(ED_KEY))


async def _is_a_grant_or_an_auth_error(token: str) -> None:
    refused = None
    try:
        assert isinstance(await judged(token, _EVERY_KEY), Grant)
    except AuthError as error:
        refused = error
    if refused is not None:
        assert 0 < len(refused.reason.encode()) <= 123, "a close frame has room for no more"
        # Of a text as short as this, a part may be in the message by chance.
        assert len(token) < 20 or token not in str(refused)


@given(st.text(max_size=300) | st.text("abcXYZ019_-.=", max_size=300))
@example(hs256())
@example("..")
@example("e30.e30.e30")
async def test_any_string_is_a_grant_or_an_auth_error(token: str) -> None:
    await _is_a_grant_or_an_auth_error(token)


@given(st.dictionaries(_NAMES, _json, max_size=4), st.sets(_NAMES, max_size=2))
async def test_any_signed_claims_are_a_grant_or_an_auth_error(changed: dict[str, Any], left_out: set[str]) -> None:
    await _is_a_grant_or_an_auth_error(hs256(without(*left_out, **changed)))


@given(st.binary(max_size=300))
async def test_any_signed_bytes_are_a_grant_or_an_auth_error(payload: bytes) -> None:
    await _is_a_grant_or_an_auth_error(hs256(payload))


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk"]), _json, max_size=4))
@example({"alg": "ES256"})
@example({"alg": "EdDSA"})
async def test_any_header_is_a_grant_or_an_auth_error(header: dict[str, Any]) -> None:
    await _is_a_grant_or_an_auth_error(hs256(header=header))


# Configuration


def test_without_keys_there_is_no_verifier() -> None:
    assert make_verifier() is None


def test_every_problem_is_reported_together_with_what_to_do() -> None:
    assert problems(secret="twelve bytes", public_key="nowhere.pem", jwks="http://id.example/jwks") == [
        "CRDT_SYNC_JWT_SECRET has 12 bytes, at least 32 are needed: `openssl rand -base64 48`",
        "CRDT_SYNC_JWT_PUBLIC_KEY is neither a key in PEM nor a file that can be read (No such file or directory)",
        "CRDT_SYNC_JWT_JWKS is neither an https URL, an http URL on loopback, nor a file",
    ]


def test_what_is_set_but_empty_is_a_problem_and_not_an_open_server() -> None:
    assert [line.split()[0] for line in problems(secret="", public_key="", jwks="")] == [
        "CRDT_SYNC_JWT_SECRET",
        "CRDT_SYNC_JWT_PUBLIC_KEY",
        "CRDT_SYNC_JWT_JWKS",
    ]


def test_an_audience_without_a_key_is_a_problem_and_not_an_open_server() -> None:
    assert [line.split()[0] for line in problems(audience=["a"], issuer=["b"])] == [
        "CRDT_SYNC_JWT_AUDIENCE",
        "CRDT_SYNC_JWT_ISSUER",
    ]


@pytest.mark.parametrize("secret", [RSA_PEM, " " + RSA_PEM, private_pem(RSA_KEY), "ssh-rsa " + "A" * 60])
def test_a_key_is_no_secret_to_configure(secret: str) -> None:
    (problem,) = problems(secret=secret)

    assert problem.startswith("CRDT_SYNC_JWT_SECRET is a key or a certificate, not a secret")
    assert "BEGIN" not in problem


@pytest.mark.parametrize("change", [str, lambda pem: pem.replace("\n", "\\n"), lambda pem: f"\n{pem}\n "])
def test_a_public_key_may_be_text(change: Any) -> None:
    assert make_verifier(public_key=change(RSA_PEM)) is not None


def test_a_public_key_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(RSA_PEM)

    assert make_verifier(public_key=str(tmp_path / "key.pem")) is not None


async def test_a_certificate_is_a_public_key() -> None:
    certificate = self_signed(RSA_KEY, "127.0.0.1")

    assert (await judged(signed(RSA_KEY, "RS256"), verifier(certificate, secret=None))).user == "ann"


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (private_pem(RSA_KEY), "is a private key"),
        (public_pem(rsa.generate_private_key(65537, 1024)), "is an RSA key of 1024 bits, at least 2048 are needed"),
        (public_pem(ec.generate_private_key(ec.SECP384R1())), "is an EC key on secp384r1"),
        (public_pem(ec.generate_private_key(ec.SECP256K1())), "is an EC key on secp256k1"),
        (public_pem(ed448.Ed448PrivateKey.generate()), "RSA, EC on P-256 and Ed25519 can be used"),
        (RSA_PEM.replace("A", "?"), "is no public key in PEM"),
        ("-----BEGIN PUBLIC KEY-----", "is no public key in PEM"),
    ],
)
def test_a_key_that_can_not_be_used_is_refused_with_the_reason(pem: str, why: str) -> None:
    (problem,) = problems(public_key=pem)

    assert problem.startswith("CRDT_SYNC_JWT_PUBLIC_KEY ")
    assert why in problem


def test_a_secret_in_the_wrong_variable_is_not_repeated() -> None:
    assert all(SECRET not in line for line in problems(public_key=SECRET, jwks=SECRET))


def test_keys_are_not_shown() -> None:
    assert SECRET not in repr(secret_key(SECRET))
