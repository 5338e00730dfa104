"""Why a credential wasn't taken.

The text of an error is for the log, `reason` is the short sentence for the wire. Neither has token material in it.
"""

from typing import ClassVar


class AuthError(Exception):
    """Base of all reasons for which a credential gives no grant."""

    reason: ClassVar[str] = "not authorized"


class CredentialMissing(AuthError):
    """There is no credential. One is needed."""

    reason = "credential missing"


class CredentialInvalid(AuthError):
    """The credential isn't one, or it is for somebody else. Trying again with the same won't help."""

    reason = "credential invalid"


class CredentialExpired(CredentialInvalid):
    """It was valid. A fresh one helps."""

    reason = "credential expired"


class LifetimeTooLong(CredentialInvalid):
    """The token is valid for longer than the server remembers that tokens were revoked."""

    reason = "token lives longer than CRDT_SYNC_JWT_LIFETIME_MAX_S allows"


class KeysUnavailable(AuthError):
    """The keys to judge it with can't be had at the moment. Transient: try again with backoff."""

    reason = "keys unavailable"


class InvalidKeys(Exception):
    """What is configured can't work. The text has one line for every problem."""
