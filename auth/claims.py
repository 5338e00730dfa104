"""The claims of a token whose signature is verified, judged strictly: a grant, or an error. Pure."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .errors import CredentialExpired, CredentialInvalid, LifetimeTooLong
from .grants import (
    COLOR,
    NAME_CHARACTERS_MAX,
    ROOMS_MAX,
    TIME_MAX,
    TOKEN_ID_CHARACTERS_MAX,
    USER_CHARACTERS_MAX,
    Grant,
    Right,
    printable,
)

RIGHTS: Final[Mapping[str, Right]] = {right.name.lower(): right for right in Right}


@dataclass(frozen=True, slots=True)
class Rules:
    """What tokens have to be like, beyond being signed."""

    audiences: frozenset[str] = frozenset()
    """One of these has to be in `aud`. Empty: any will do."""
    issuers: frozenset[str] = frozenset()
    """One of these has to be `iss`. Empty: any will do."""
    leeway_s: float = 10.0
    """How far the issuer's clock may be from ours."""
    lifetime_max_s: float = 30 * 86400.0
    """A token that is valid for longer than this from now is refused."""


def read_json(data: bytes) -> dict[str, Any]:
    """Read an object of strict JSON.

    Raises:
        ValueError: It isn't one, a name is there twice, a number isn't finite, or it nests too deeply.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_without_repeats, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{len(data)} bytes are not strict JSON") from error
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object was expected, not {type(value).__name__}")
    return value


def read_grant(claims: Mapping[str, Any], rules: Rules, *, now: float) -> Grant:
    """Judge a token's claims.

    Args:
        claims: As they were in the token.
        rules: What is expected of them.
        now: Unix seconds.

    Returns:
        What the token allows. It expires when the server stops taking the token: `exp` and the leeway.

    Raises:
        CredentialExpired: It was valid.
        LifetimeTooLong: It is valid for too long.
        CredentialInvalid: A claim is missing, malformed, or says that the token is for somebody else.
    """
    expires_at = _time(claims, "exp")
    if expires_at is None:
        raise CredentialInvalid("the token has no 'exp'")
    issued_at = _time(claims, "iat")
    if expires_at + rules.leeway_s <= now:
        raise CredentialExpired(f"the token expired {now - expires_at:.0f} s ago")
    if expires_at - now > rules.lifetime_max_s + rules.leeway_s:
        raise LifetimeTooLong(
            f"the token is valid for {expires_at - now:.0f} s more, "
            f"and CRDT_SYNC_JWT_LIFETIME_MAX_S is {rules.lifetime_max_s:.0f}"
        )
    # One from the future could not be revoked: revocations concern what was issued before them.
    for name, moment in (("nbf", _time(claims, "nbf")), ("iat", issued_at)):
        if moment is not None and moment > now + rules.leeway_s:
            raise CredentialInvalid(f"the token's {name!r} is {moment - now:.0f} s in the future")
    _check_parties(claims, rules)
    user = _text(claims, "sub", USER_CHARACTERS_MAX)
    if not user:
        raise CredentialInvalid("the token's 'sub' is missing or empty")
    color = _text(claims, "color", 9)
    if color is not None and not COLOR.fullmatch(color):
        raise CredentialInvalid("the token's 'color' is not #rgb, #rrggbb or #rrggbbaa")
    try:
        return Grant(
            user=user,
            rooms=_rooms(claims.get("rooms", {})),
            expires_at=expires_at + rules.leeway_s,
            issued_at=issued_at or 0.0,
            token_id=_text(claims, "jti", TOKEN_ID_CHARACTERS_MAX),
            name=_text(claims, "name", NAME_CHARACTERS_MAX),
            color=color,
        )
    except ValueError as error:
        raise CredentialInvalid(f"the token's 'rooms': {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Who reads the first and who reads the last of two would see different tokens.
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name is there twice")
    return made


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    # A bool is an int in Python. Integers of any length are compared before they become floats, which might not hold them.
    if isinstance(value, bool) or not isinstance(value, int | float) or not -TIME_MAX < value < TIME_MAX:
        raise CredentialInvalid(f"the token's {name!r} is not a number of Unix seconds")
    assert math.isfinite(value)
    return float(value)


def _text(claims: Mapping[str, Any], name: str, characters_max: int) -> str | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, str) or not printable(value, characters_max):
        raise CredentialInvalid(f"the token's {name!r} is not a text of at most {characters_max} printable characters")
    return value


def _check_parties(claims: Mapping[str, Any], rules: Rules) -> None:
    audience = claims.get("aud", [])
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(one, str) for one in audiences):
        raise CredentialInvalid("the token's 'aud' is neither a text nor a list of texts")
    if rules.audiences and rules.audiences.isdisjoint(audiences):
        raise CredentialInvalid("the token's 'aud' has none of CRDT_SYNC_JWT_AUDIENCE")
    issuer = claims.get("iss", "")
    if not isinstance(issuer, str):
        raise CredentialInvalid("the token's 'iss' is not a text")
    if rules.issuers and issuer not in rules.issuers:
        raise CredentialInvalid("the token's 'iss' is none of CRDT_SYNC_JWT_ISSUER")


def _rooms(claim: object) -> dict[str, Right]:
    if not isinstance(claim, dict):
        raise ValueError("a map from names to rights was expected")
    if len(claim) > ROOMS_MAX:
        raise ValueError(f"{len(claim)} entries, of at most {ROOMS_MAX}")
    if not all(isinstance(right, str) and right in RIGHTS for right in claim.values()):
        raise ValueError(f"a right is one of {', '.join(RIGHTS)}")
    return {pattern: RIGHTS[right] for pattern, right in claim.items()}
