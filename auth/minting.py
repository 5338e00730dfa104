"""Making tokens, for development and for tests. In production the application makes them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .claims import Rules, read_grant
from .grants import Right
from .keys import Key, UnsuitableKey, private_key, secret_key, sign


@dataclass(frozen=True, slots=True)
class Minted:
    """A token, and what it says."""

    token: str = field(repr=False)
    claims: Mapping[str, Any]


def minting_key(*, secret: str | None = None, pem: str | None = None, kid: str | None = None) -> Key:
    """Make the key that signs, from a secret or from a private key.

    Raises:
        ValueError: It can't be one. The text says why.
    """
    try:
        if pem is not None:
            return private_key(pem, kid)
        return secret_key(secret or "")
    except UnsuitableKey as error:
        raise ValueError(str(error)) from error


def mint(
    key: Key,
    *,
    user: str,
    rooms: Mapping[str, Right],
    lifetime_s: int,
    now: int,
    lifetime_max_s: float,
    optional: Mapping[str, str | None] | None = None,
) -> Minted:
    """Make a token that a server with this key takes.

    Args:
        key: What signs it.
        user: `sub`.
        rooms: From names, or prefixes and `*`, to rights.
        lifetime_s: How long it is valid.
        now: Unix seconds.
        lifetime_max_s: How long the server lets tokens be valid.
        optional: More claims, such as `name`; those that are None are left out.

    Raises:
        CredentialInvalid: No server would take it. The text says why.
    """
    claims: dict[str, Any] = {"sub": user, "iat": now, "exp": now + lifetime_s}
    claims |= {name: value for name, value in (optional or {}).items() if value is not None}
    claims["rooms"] = {pattern: right.name.lower() for pattern, right in rooms.items()}
    read_grant(claims, Rules(lifetime_max_s=lifetime_max_s), now=now)
    return Minted(sign(json.dumps(claims, separators=(",", ":")).encode(), key), claims)
