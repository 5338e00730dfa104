"""Tokens to grants, with the keys that are configured."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from .claims import Rules, read_grant, read_json
from .credentials import Credentials
from .errors import CredentialInvalid, CredentialMissing, InvalidKeys
from .fetch import FetchFailed, FileSource, source_of
from .grants import Grant
from .jwks import Jwks, read_jwks
from .keys import Header, Key, UnsuitableKey, public_key, read_header, secret_key, verified_payload

SETTING: Final = "CRDT_SYNC_JWT_"
PEM_BYTES_MAX: Final = 64 << 10
T = TypeVar("T")
_PUBLISHED: Final = frozenset({"RS256", "ES256", "EdDSA"})


class Verifier:
    """A `TokenVerifier` for JSON Web Tokens (RFC 7519, as RFC 8725 recommends). Open it to have a JWKS kept up to date."""

    def __init__(
        self, keys: Iterable[Key], jwks: Jwks | None, rules: Rules, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Prepare.

        Args:
            keys: Those that don't change.
            jwks: Those that do.
            rules: What tokens have to be like.
            clock: Unix seconds.
        """
        self._keys = tuple(keys)
        self._jwks = jwks
        self._rules = rules
        self._clock = clock

    async def open(self) -> None:
        """Begin to fetch keys. Doesn't wait for them."""
        if self._jwks is not None:
            await self._jwks.open()

    async def close(self) -> None:
        """Stop fetching keys."""
        if self._jwks is not None:
            await self._jwks.close()

    async def published_keys(self) -> int | None:
        """Fetch the keys that are published, and tell how many there are; None if none are expected to be.

        Raises:
            KeysUnavailable: They can't be had.
        """
        return None if self._jwks is None else await self._jwks.count()

    async def __call__(self, credentials: Credentials) -> Grant:
        """Judge a token. Takes a fraction of a millisecond, unless a key has to be fetched: then 5 s at most.

        Raises:
            CredentialMissing: There is none.
            CredentialInvalid: It is malformed, signed by somebody else, expired, or for somebody else.
            KeysUnavailable: Its key can't be had at the moment.
        """
        if not credentials.token:
            raise CredentialMissing("no token")
        payload = await self._payload(credentials.token, read_header(credentials.token))
        if payload is None:
            raise CredentialInvalid("the token is signed with none of the keys")
        try:
            claims = read_json(payload)
        except ValueError as error:
            raise CredentialInvalid(f"the token's claims: {error}") from error
        return read_grant(claims, self._rules, now=self._clock())

    async def _payload(self, token: str, header: Header) -> bytes | None:
        payload = _verified(token, (key for key in self._keys if key.algorithm == header.algorithm))
        if payload is None and self._jwks is not None and header.algorithm in _PUBLISHED:
            return _verified(token, await self._jwks.find(header.algorithm, header.kid))
        return payload


def _verified(token: str, keys: Iterable[Key]) -> bytes | None:
    return next((payload for key in keys if (payload := verified_payload(token, key)) is not None), None)


def make_verifier(
    *,
    secret: str | None = None,
    public_key: str | None = None,
    jwks: str | None = None,
    audience: Iterable[str] = (),
    issuer: Iterable[str] = (),
    leeway_s: float = 10.0,
    lifetime_max_s: float = 30 * 86400.0,
) -> Verifier | None:
    """Make what judges tokens, from settings. Files are read now, and URLs later.

    Args:
        secret: For HS256.
        public_key: In PEM, or the path of a file with it. Which algorithm it is for follows from its kind.
        jwks: An https URL, or a file.
        audience: Which `aud` tokens may have; none: any.
        issuer: Which `iss` tokens may have; none: any.
        leeway_s: How far clocks may be apart.
        lifetime_max_s: How long a token may be valid.

    Returns:
        The verifier, or None if no key is configured.

    Raises:
        InvalidKeys: With one line for every problem.
    """
    problems: list[str] = []
    keys = [
        key
        for name, value, read in (("SECRET", secret, secret_key), ("PUBLIC_KEY", public_key, _public_key))
        if value is not None and (key := _try(name, value, read, problems)) is not None
    ]
    published = None if jwks is None else _try("JWKS", jwks, _jwks, problems)
    configured = any(one is not None for one in (secret, public_key, jwks))
    rules = Rules(frozenset(audience), frozenset(issuer), leeway_s, lifetime_max_s)
    for name, wanted in (("AUDIENCE", rules.audiences), ("ISSUER", rules.issuers)):
        if wanted and not configured:
            # Whoever sets it believes that tokens are checked.
            problems.append(f"{SETTING}{name} is set, but no key is, so that the server would be open to everybody")
    if problems:
        raise InvalidKeys("\n".join(problems))
    return Verifier(keys, published, rules) if configured else None


def _try(name: str, value: str, read: Callable[[str], T], problems: list[str]) -> T | None:
    try:
        return read(value)
    except UnsuitableKey as error:
        problems.append(f"{SETTING}{name} {error}")
        return None


def _public_key(value: str) -> Key:
    return public_key(value if "-----BEGIN" in value else _read_pem(value))


def _read_pem(path: str) -> str:
    # The path isn't repeated: it may be a secret that was put into the wrong variable.
    try:
        with Path(path).open("rb") as file:
            return file.read(PEM_BYTES_MAX).decode(errors="replace")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no path"
        raise UnsuitableKey(f"is neither a key in PEM nor a file that can be read ({why})") from error


def _jwks(location: str) -> Jwks:
    try:
        source = source_of(location)
        if isinstance(source, FileSource):
            keys, skipped = read_jwks(source.read_now())
            if not keys:
                raise UnsuitableKey(
                    "has no key that can verify tokens: " + ("; ".join(skipped) or "it has none at all")
                )
    except FetchFailed as error:
        raise UnsuitableKey(f"can't be used: {error}") from error
    except ValueError as error:
        raise UnsuitableKey(str(error)) from error
    return Jwks(source)
