"""Turns a credential into a grant and answers what the grant allows.

Knows nothing of HTTP or CRDTs. The `Verifier` reads JSON Web Tokens; an application may bring another `TokenVerifier`.
"""

from .credentials import Credentials, TokenVerifier
from .errors import (
    AuthError,
    CredentialExpired,
    CredentialInvalid,
    CredentialMissing,
    InvalidKeys,
    KeysUnavailable,
    LifetimeTooLong,
)
from .grants import OPEN, Grant, Right
from .minting import Minted, mint, minting_key
from .verifier import Verifier, make_verifier

__all__ = [
    "OPEN",
    "AuthError",
    "CredentialExpired",
    "CredentialInvalid",
    "CredentialMissing",
    "Credentials",
    "Grant",
    "InvalidKeys",
    "KeysUnavailable",
    "LifetimeTooLong",
    "Minted",
    "Right",
    "TokenVerifier",
    "Verifier",
    "make_verifier",
    "mint",
    "minting_key",
]
