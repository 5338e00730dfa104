"""Keys, and what they sign: the home of PyJWT and cryptography.

A key knows the one algorithm that it is for. What a token claims about its algorithm only ever chooses among keys.
"""

import base64
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from .claims import read_json
from .errors import CredentialInvalid

TOKEN_BYTES_MAX: Final = 8 << 10
SECRET_BYTES_MIN: Final = 32  # RFC 7518, 3.2: no shorter than the hash
RSA_BITS_MIN: Final = 2048  # RFC 7518, 3.3
RSA_BITS_MAX: Final = 16384  # OpenSSL verifies with none that is larger

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_JWS: Final = jwt.PyJWS(algorithms=["HS256", "RS256", "ES256", "EdDSA"])
_JWK_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}


class UnsuitableKey(Exception):
    """It isn't a key for this. The text says why and what to do, and shows nothing of the key."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key, and the one algorithm that it is for."""

    algorithm: str
    material: Any = field(repr=False)
    kid: str | None = None
    """What a JWKS calls it."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a token says of how it is signed."""

    algorithm: str
    kid: str | None


def read_header(token: str) -> Header:
    """Read a token's header, and nothing else of it.

    `jwk`, `jku`, `x5c` and `x5u` are passed over: who signs doesn't say with which key that is to be verified.

    Raises:
        CredentialInvalid: It isn't a signed token, or an extension is critical (RFC 7515, 4.1.11): there are none.
    """
    if len(token) > TOKEN_BYTES_MAX:
        raise CredentialInvalid(f"a token has at most {TOKEN_BYTES_MAX} bytes, not {len(token)}")
    if not _TOKEN.fullmatch(token):
        raise CredentialInvalid("a token has three parts of base64url, with dots between them")
    try:
        header = read_json(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))
    except ValueError as error:
        raise CredentialInvalid("the token's header is not base64url of strict JSON") from error
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not (kid is None or isinstance(kid, str)):
        raise CredentialInvalid("the token's 'alg' or 'kid' is not a text")
    if "crit" in header or "b64" in header:
        raise CredentialInvalid("the token's header has a critical extension")
    return Header(algorithm, kid)


def verified_payload(token: str, key: Key) -> bytes | None:
    """Return what was signed with a key, or None if the token wasn't.

    Raises:
        CredentialInvalid: It isn't a token.
    """
    try:
        payload: bytes = _JWS.decode_complete(token, key.material, algorithms=[key.algorithm])["payload"]
    except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
        return None
    except (jwt.PyJWTError, ValueError) as error:
        raise CredentialInvalid("a malformed token") from error
    return payload


def sign(payload: bytes, key: Key) -> str:
    """Make a token with a secret or a private key."""
    headers = None if key.kid is None else {"kid": key.kid}
    return _JWS.encode(payload, key.material, algorithm=key.algorithm, headers=headers)


def secret_key(secret: str) -> Key:
    """Make the key of HS256.

    Raises:
        UnsuitableKey: It is too short, or it is no secret but a public key.
    """
    material = secret.encode(errors="surrogateescape")
    if len(material) < SECRET_BYTES_MIN:
        raise UnsuitableKey(
            f"has {len(material)} bytes, at least {SECRET_BYTES_MIN} are needed: `openssl rand -base64 48`"
        )
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(material)
    except jwt.InvalidKeyError as error:
        raise UnsuitableKey("is a key or a certificate, not a secret: `openssl rand -base64 48` makes one") from error
    return Key("HS256", material)


def public_key(pem: str) -> Key:
    """Read a public key or a certificate.

    Raises:
        UnsuitableKey: It is none, or of a kind that signs no tokens here.
    """
    data = _pem_bytes(pem)
    if b"PRIVATE KEY-----" in data:
        raise UnsuitableKey("is a private key. Keep that where tokens are made: `openssl pkey -in FILE -pubout`")
    try:
        if b"BEGIN CERTIFICATE" in data:
            return _pinned(x509.load_pem_x509_certificate(data).public_key())
        return _pinned(load_pem_public_key(data))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnsuitableKey("is no public key in PEM: `openssl pkey -in PRIVATE -pubout` prints one") from error


def private_key(pem: str, kid: str | None = None) -> Key:
    """Read a private key that needs no password.

    Raises:
        UnsuitableKey: It is none, or of a kind that signs no tokens here.
    """
    try:
        material = load_pem_private_key(_pem_bytes(pem), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnsuitableKey("is no private key in PEM, or it needs a password") from error
    if not isinstance(material, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey):
        raise UnsuitableKey(_kinds(material))
    return Key(_pinned(material.public_key()).algorithm, material, kid)


def jwk_key(jwk: Mapping[str, Any]) -> Key:
    """Read one key of a JWKS. Private parts are passed over.

    Raises:
        UnsuitableKey: It isn't for verifying tokens, or of a kind that signs none here.
    """
    members, kid = _JWK_MEMBERS.get(str(jwk.get("kty"))), jwk.get("kid")
    if members is None or not (kid is None or isinstance(kid, str)):
        raise UnsuitableKey("has a 'kty' that is not RSA, EC or OKP, or a 'kid' that is no text")
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise UnsuitableKey("is not for verifying signatures")
    public = {"kty": jwk["kty"], **{name: jwk.get(name) for name in members}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyJWT, about short RSA keys: they are refused
            key = _pinned(_from_jwk(public), kid)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, OverflowError, UnsupportedAlgorithm) as error:
        raise UnsuitableKey(f"is no {jwk['kty']} key") from error
    if jwk.get("alg", key.algorithm) != key.algorithm:
        raise UnsuitableKey(f"is not for {key.algorithm}")
    return key


def _from_jwk(public: dict[str, Any]) -> Any:
    match public["kty"]:
        case "RSA":
            return RSAAlgorithm.from_jwk(public)
        case "EC":
            return ECAlgorithm.from_jwk(public)
        case _:
            return OKPAlgorithm.from_jwk(public)


def _pinned(material: object, kid: str | None = None) -> Key:
    match material:
        case RSAPublicKey():
            if not RSA_BITS_MIN <= material.key_size <= RSA_BITS_MAX:
                raise UnsuitableKey(f"is an RSA key of {material.key_size} bits, at least {RSA_BITS_MIN} are needed")
            return Key("RS256", material, kid)
        case EllipticCurvePublicKey() if isinstance(material.curve, SECP256R1):
            return Key("ES256", material, kid)
        case Ed25519PublicKey():
            return Key("EdDSA", material, kid)
    raise UnsuitableKey(_kinds(material))


def _kinds(material: object) -> str:
    curve = getattr(getattr(material, "curve", None), "name", "")
    what = f"an EC key on {curve}" if curve else f"a key of the kind {type(material).__name__}"
    return f"is {what}. RSA, EC on P-256 and Ed25519 can be used"


def _pem_bytes(pem: str) -> bytes:
    # In environments that take one line, line ends are written as \n.
    return pem.replace("\\n", "\n").strip().encode(errors="surrogateescape")
