"""Keys and tokens for tests, also such as no honest signer makes."""

import base64
import hashlib
import hmac
import ipaddress
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from auth import Credentials

SECRET = "correct-horse-battery-staple-secret-of-tests"
NOW = 1_800_000_000

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()

CLAIMS: dict[str, Any] = {"sub": "ann", "iat": NOW - 10, "exp": NOW + 3600, "rooms": {"trip-*": "write"}}


def without(*names: str, **changed: object) -> dict[str, Any]:
    """The claims of a good token, some changed, some left out."""
    return {name: value for name, value in (CLAIMS | changed).items() if name not in names}


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def shown(token: str | None, **headers: str) -> Credentials:
    """As a client shows it."""
    return Credentials(token=token, headers=headers, room="trip-1")


def hs256(claims: object = CLAIMS, *, key: str | bytes = SECRET, header: dict[str, Any] | None = None) -> str:
    """A token made by hand: any header, any claims (bytes as they are), any key."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signed = b64(json.dumps({"alg": "HS256", "typ": "JWT"} | (header or {})).encode()) + "." + b64(payload)
    secret = key.encode() if isinstance(key, str) else key
    return signed + "." + b64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())


def signed(key: Any, algorithm: str, claims: dict[str, Any] = CLAIMS, *, kid: str | None = None, **header: Any) -> str:
    """A token with a real signature."""
    headers = header if kid is None else header | {"kid": kid}
    return jwt.encode(claims, key, algorithm=algorithm, headers=headers)


def public_pem(key: Any) -> str:
    """The public half of a private key."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()  # type: ignore[no-any-return]


def private_pem(key: Any) -> str:
    """A private key."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()  # type: ignore[no-any-return]


def jwk(key: Any, kid: str | None = None, **members: Any) -> dict[str, Any]:
    """The public half of a private key, as a JWKS has it."""
    public = key.public_key()
    if isinstance(key, rsa.RSAPrivateKey):
        made: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        made = jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        made = jwt.algorithms.OKPAlgorithm.to_jwk(public, as_dict=True)
    made.pop("key_ops", None)
    return made | ({} if kid is None else {"kid": kid}) | members


def self_signed(key: rsa.RSAPrivateKey, address: str) -> str:
    """A certificate for an IP address, in PEM."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, address)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 7, now - timedelta(1), now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()
