"""What a client shows, and what judges it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from .grants import Grant


@dataclass(frozen=True, slots=True)
class Credentials:
    """What came with a request. Its `repr` shows no secrets."""

    token: str | None = field(repr=False)
    """From `Authorization: Bearer`, the URL or the subprotocol."""
    headers: Mapping[str, str] = field(repr=False)
    """All headers of the request, names in lower case. Cookies are in `headers["cookie"]`."""
    room: str | None = None
    """What it is wanted for, if that is a room."""


TokenVerifier: TypeAlias = Callable[[Credentials], Awaitable[Grant]]
"""Turns credentials into a grant, or raises an `AuthError`."""
