"""From a request to what it may do: where it comes from, what it shows, and the grant that this gives."""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from urllib.parse import parse_qs, urlsplit

from starlette.types import Scope

from auth import OPEN, AuthError, Credentials, Grant, KeysUnavailable, Right, TokenVerifier

from ..errors import Forbidden, OriginNotAllowed, SyncError, TryAgainLater, Unauthorized
from ..protocol import CREDENTIAL_BYTES_MAX
from ..revocations import Revocations
from ..settings import Settings

log = logging.getLogger("crdt_sync.access")

BEARER_PROTOCOL = "bearer."
QUERY_NAMES = ("token", "auth")
# What proxies add. A request with one of these comes from further away than its connection.
FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
# No name of a host is longer, with a port.
HOST_CHARS_MAX = 260
# Of so many it is remembered whether they are this machine: a server is called by one or two.
HOSTS_REMEMBERED = 256


class Access:
    """Judges who may come in.

    Args:
        verifier: Turns credentials into grants. None: the server is open, as far as settings let it be.
        settings: Allowed origins, and how long judging may take.
        revocations: What doesn't count any more.
    """

    def __init__(self, verifier: TokenVerifier | None, settings: Settings, revocations: Revocations) -> None:
        self._verifier = verifier
        self._settings = settings
        self._revocations = revocations

    @property
    def is_open(self) -> bool:
        """Whether there are no keys: who may come in at all may do everything."""
        return self._verifier is None

    async def admit(self, scope: Scope, credentials: Credentials) -> Grant:
        """Judge a request before anything is done for it.

        Raises:
            OriginNotAllowed: A page of another site's sent it.
            Unauthorized: There is no good credential.
            Forbidden: The server has no keys, and the request comes from another machine; or there is no right at all in
                the room that the credentials are for.
            TryAgainLater: It couldn't be judged in time.
        """
        self._check_origin(credentials.headers)
        if self._verifier is None:
            self._check_open(scope, credentials.headers)
            return OPEN
        return await self.judge(credentials)

    async def judge(self, credentials: Credentials) -> Grant:
        """Turn credentials into a grant that gives some right in their room.

        Raises:
            SyncError: As for `admit`.
        """
        grant = await self._verified(credentials)
        if grant.issued_at is None:
            grant = replace(grant, issued_at=time.time())
        if credentials.room is not None:
            require(grant, credentials.room, Right.READ)
        self.check(grant, credentials.room)
        return grant

    def check(self, grant: Grant, room: str | None) -> None:
        """Check that a grant that was judged before still counts.

        Raises:
            SyncError: It has expired, or was revoked.
        """
        if grant.expires_at is not None and grant.expires_at <= time.time():
            raise Unauthorized("the grant has expired", reason="credential expired")
        self._revocations.check(grant, room)

    async def _verified(self, credentials: Credentials) -> Grant:
        assert self._verifier is not None, "an open server judges nobody"
        try:
            async with asyncio.timeout(self._settings.grant_timeout_s):
                grant = await self._verifier(credentials)
        except KeysUnavailable as error:
            raise TryAgainLater(f"the credential can't be judged: {error}") from error
        except AuthError as error:
            raise Unauthorized(str(error) or error.reason, reason=error.reason) from error
        except TimeoutError as error:
            raise TryAgainLater(f"no grant after {self._settings.grant_timeout_s:g} s") from error
        except Exception as error:
            log.exception("verifier_failed")
            raise SyncError(f"the verifier failed: {type(error).__name__}") from error
        if not isinstance(grant, Grant):
            raise SyncError(f"the verifier returned {type(grant).__name__}, not a Grant")
        if grant.user is None:
            # Nothing would be stamped: they could pass for anybody. Guests need names, such as guest-7.
            raise SyncError("the verifier returned a grant of nobody")
        return grant

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        """Browsers say which site's page connects. Everything else can say anything, and needs no protection from it."""
        origin = headers.get("origin")
        if origin is None or _same_site(origin, headers.get("host", "")):
            return
        allowed = allowed_origins(self._settings)
        if "*" in allowed or origin.lower() in allowed:
            return
        if self._verifier is None and not allowed:
            return
        raise OriginNotAllowed(f"origin {origin!r:.200} is not in CRDT_SYNC_ALLOWED_ORIGINS")

    def has_admin_page(self, scope: Scope) -> bool:
        """Whether the admin page is there for who asks. On a server without keys, it would be a tool for everybody who comes by."""
        return self._verifier is not None or is_from_this_machine(scope, read_credentials(scope).headers)

    def _check_open(self, scope: Scope, headers: Mapping[str, str]) -> None:
        if self._settings.insecure_open:
            return
        if not is_from_this_machine(scope, headers):
            raise Forbidden(
                "without keys, only this machine is served: set CRDT_SYNC_JWT_SECRET, give create_app a token_verifier, or set "
                "CRDT_SYNC_INSECURE_OPEN=true"
            )


def is_from_this_machine(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Whether a request comes from this machine, and not by way of a proxy here."""
    # A proxy that adds nothing often leaves the name by which it was called, as does a page that had a name of its own
    # point here.
    called = headers.get("host", "")
    forwarded = any(name in headers for name in FORWARDED)
    return _is_local(scope) and not forwarded and (not called or _is_loopback(called))


def allowed_origins(settings: Settings) -> list[str]:
    """The sites whose pages may connect, as browsers write them; `*` for all."""
    return [one.lower().rstrip("/") for one in settings.allowed_origins]


def require(grant: Grant, room: str, right: Right) -> None:
    """Check that a grant allows this.

    Raises:
        Forbidden: It doesn't.
    """
    has = grant.right(room)
    if has is None or has < right:
        raise Forbidden(f"{right.name.lower()} in {room!r} is not granted")


def require_everywhere(grant: Grant, right: Right) -> None:
    """Check that a grant allows this in `*`, whatever it allows in rooms.

    Raises:
        Forbidden: It doesn't.
    """
    if (grant.rooms.get("*") or 0) < right:
        raise Forbidden(f"{right.name.lower()} in '*' is not granted")


def read_credentials(scope: Scope, room: str | None = None) -> Credentials:
    """Take out of a request what it shows: a bearer token in `Authorization`, as a subprotocol, or in the URL."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        # Cookies and lists may come in several lines.
        headers[key] = f"{headers[key]}{'; ' if key == 'cookie' else ', '}{text}" if key in headers else text
    return Credentials(_token(scope, headers), headers, room)


def accepted_subprotocol(scope: Scope) -> str | None:
    """What to answer to the subprotocols that were offered: browsers give up if none of several is taken.

    One that isn't the token, if there is one, so that proxies don't log that with the answer.
    """
    offered: list[str] = scope.get("subprotocols", [])
    others = [one for one in offered if not one.startswith(BEARER_PROTOCOL)]
    return next(iter(others or offered), None)


def _token(scope: Scope, headers: Mapping[str, str]) -> str | None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    for offered in scope.get("subprotocols", []):
        if offered.startswith(BEARER_PROTOCOL):
            return str(offered.removeprefix(BEARER_PROTOCOL))
    query: bytes = scope.get("query_string", b"")
    if len(query) > 2 * CREDENTIAL_BYTES_MAX:
        return None
    try:
        found = parse_qs(query.decode("latin-1"), max_num_fields=100)
    except ValueError:
        return None
    return next((found[name][0] for name in QUERY_NAMES if name in found), None)


def _same_site(origin: str, host: str) -> bool:
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _is_local(scope: Scope) -> bool:
    """Whether the connection was made on this machine. Judged by our end of it: the other one can be anything."""
    server = scope.get("server")
    if server is None or server[1] is None:
        return True  # a Unix socket
    return _is_loopback(f"[{server[0]}]" if ":" in server[0] else server[0])


def _is_loopback(host: str) -> bool:
    """Whether a host, as it stands in a URL, is this machine's loopback."""
    return len(host) <= HOST_CHARS_MAX and _names_loopback(host)


@lru_cache(HOSTS_REMEMBERED)
def _names_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
