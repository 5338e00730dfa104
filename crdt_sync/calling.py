"""Calling a server as its clients do, through whatever is in between: HTTP, TLS, and a y-websocket handshake."""

import secrets
import socket
import ssl
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx2
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from .checkups import Finding, bad, doubtful, good, judge_clock, skew_s
from .examining import TRIAL
from .protocol import SyncUpdate, decode, encode_step_1
from .settings import PREFIX, TOKEN_VARIABLE

TIMEOUT_S: Final = 10.0
_ROUND_TRIPS: Final = 5
_SLOW_S: Final = 0.2
# Clients are sent something at least this often; who hears nothing for 30 s comes anew.
_SILENCE_S: Final = 30.0
_CERTIFICATE_DAYS: Final = 14
# For documentation (RFC 5737): nobody has it.
_NOBODY: Final = "192.0.2.7"
_PROXY: Final = "docs/how-to/put-nginx-in-front.md has a configuration that works"
_EMPTY: Final = b"\0"


def call(url: str, token: str | None, *, patience_s: float) -> Iterator[Finding]:
    """Call the server at a URL.

    Args:
        url: `https://host` or `http://host:port`, with the path that the server is mounted at, if it is.
        token: What it is shown.
        patience_s: For how long to hold a connection, to see whether something cuts it.
    """
    base = httpx2.URL(url)
    if base.scheme not in ("http", "https") or not base.host:
        yield bad("url", "it is no URL of a server", "https://sync.example.com would be one")
        return
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    local = base.host in ("localhost", "127.0.0.1", "::1")
    caller = _Caller(url.rstrip("/"), TRIAL + secrets.token_hex(8), headers, local=local)
    with httpx2.Client(timeout=TIMEOUT_S, trust_env=not local, headers=headers) as client:
        yield from _ready(client, caller.url)
        try:
            with caller.connect() as connection:
                yield from _talk(connection)
                yield from _stay(connection, patience_s)
            yield from _seen_as(client, caller)
        except InvalidStatus as error:
            yield _refused(error.response.status_code)
        except ConnectionClosed as error:
            code = error.rcvd.code if error.rcvd is not None else 1006
            reason = error.rcvd.reason if error.rcvd is not None else "the connection was lost"
            yield bad("websocket", f"it was closed with {code}: {reason}", "docs/reference/closing-codes.md says why")
        except ssl.SSLError as error:
            yield bad("tls", str(error), "no browser will connect: renew the certificate, or name the host it is for")
        except (InvalidHandshake, OSError) as error:
            yield bad("websocket", str(error) or type(error).__name__, _PROXY)


@dataclass(frozen=True)
class _Caller:
    """What all calls have in common."""

    url: str
    room: str
    headers: dict[str, str]
    local: bool
    """Whether no proxy of this machine's can be meant."""

    def connect(self, **more: str) -> ClientConnection:
        """Open a WebSocket, with more headers."""
        return connect(
            f"ws{self.url.removeprefix('http')}/{self.room}",
            additional_headers=self.headers | more,
            open_timeout=TIMEOUT_S,
            compression=None,
            proxy=None if self.local else True,
            ping_interval=None,
        )


def _ready(client: httpx2.Client, url: str) -> Iterator[Finding]:
    asked_at = datetime.now(UTC)
    try:
        answer = client.get(f"{url}/ready")
    except httpx2.HTTPError as error:
        yield bad("http", f"{url}/ready: {error}", "see that the server runs, and that the way to it is open")
        return
    answered_at = datetime.now(UTC)
    try:
        found: dict[str, Any] = answer.json()
        problems, warnings = found["problems"], found["warnings"]
    except (ValueError, KeyError, TypeError):
        if answer.status_code == 404:
            yield good("http", "it keeps /ready to itself (or to CRDT_SYNC_OPS_PORT), as is right in public")
        else:
            yield bad("http", f"{url}/ready is answered by somebody else ({answer.status_code})", _PROXY)
        return
    for part, problem in problems.items():
        yield bad("http", f"the server isn't ready: {part}: {problem}", "it takes no traffic until that is mended")
    for part, problem in warnings.items():
        yield doubtful("http", f"the server warns: {part}: {problem}", "see docs/how-to/monitor.md")
    if not problems:
        yield good("http", f"the server is ready, and says so in {answer.elapsed.total_seconds() * 1000:.0f} ms")
    try:
        theirs = parsedate_to_datetime(answer.headers.get("date", ""))
    except ValueError:
        return
    # It has whole seconds, and servers write it anew only once a second.
    yield judge_clock("http", skew_s(theirs, asked_at - timedelta(seconds=2), answered_at))


def _talk(connection: ClientConnection) -> Iterator[Finding]:
    if (found := connection.socket) and isinstance(found, ssl.SSLSocket):
        yield from _certificate(found)
    took = []
    for _ in range(_ROUND_TRIPS):
        begun = time.monotonic()
        connection.send(encode_step_1(_EMPTY))
        while not _is_step_2(connection.recv(timeout=TIMEOUT_S)):
            pass
        took.append(time.monotonic() - begun)
    found_ms = f"a y-websocket handshake works; the server answers in {statistics.median(took) * 1000:.1f} ms (the slowest of {_ROUND_TRIPS}: {max(took) * 1000:.1f})"
    if statistics.median(took) >= _SLOW_S:
        yield doubtful("websocket", found_ms, "people see each other's edits that late: have the server nearer to them")
    else:
        yield good("websocket", found_ms)


def _is_step_2(frame: str | bytes) -> bool:
    return isinstance(frame, bytes) and frame[:2] == b"\0\1" and isinstance(decode(frame)[0], SyncUpdate)


def _certificate(found: ssl.SSLSocket) -> Iterator[Finding]:
    certificate = found.getpeercert()
    until = ssl.cert_time_to_seconds(str(certificate["notAfter"])) if certificate else None
    if until is None:
        return
    days = (until - time.time()) / 86400
    told = f"the certificate is good for {days:.0f} days more ({found.version()})"
    if days < _CERTIFICATE_DAYS:
        yield doubtful("tls", told, "see that it is renewed by itself")
    else:
        yield good("tls", told)


def _seen_as(client: httpx2.Client, caller: _Caller) -> Iterator[Finding]:
    """Whom the server takes us for. That shows whether a proxy in between is believed, and nobody else."""
    try:
        with caller.connect(**{"X-Forwarded-For": _NOBODY}) as connection:
            mine = {str(connection.local_address[0]), *_addresses()}
            answer = client.get(f"{caller.url}/api/v1/rooms/{caller.room}/connections")
        addresses = [str(one["address"]) for one in answer.json()["connections"]] if answer.is_success else []
    except InvalidStatus:
        yield good("proxy", "without keys, the server takes nobody by way of a proxy")
        return
    except (httpx2.HTTPError, ValueError, KeyError, TypeError):
        addresses = []
    if not addresses:
        yield good(
            "proxy",
            f"whom the server takes its clients for wasn't looked at: that needs admin in '{TRIAL}*' ({TOKEN_VARIABLE})",
        )
        return
    seen = addresses[-1]
    if seen == _NOBODY:
        yield doubtful(
            "proxy",
            "the server believes what this machine says in X-Forwarded-For",
            f"right if this is one of its proxies; if not, {PREFIX}TRUSTED_PROXIES is too wide, and limits by address mean nothing",
        )
    elif seen in mine:
        yield good("proxy", f"the server knows where its clients come from (it sees {seen})")
    else:
        yield doubtful(
            "proxy",
            f"the server sees this machine as {seen}",
            f"if that is a proxy of yours, name it in {PREFIX}TRUSTED_PROXIES, and have it set X-Forwarded-For: all clients "
            "share the limits of one address otherwise",
        )


def _addresses() -> set[str]:
    """This machine's, as far as it knows its name."""
    try:
        return {str(each[4][0]) for each in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        return set()


def _stay(connection: ClientConnection, patience_s: float) -> Iterator[Finding]:
    """Hold a connection, hear what comes, and say nothing."""
    if not patience_s:
        return
    ends = heard = time.monotonic()
    ends += patience_s
    longest = 0.0
    while (left := ends - time.monotonic()) > 0:
        try:
            connection.recv(timeout=left)
        except TimeoutError:
            pass
        longest, heard = max(longest, time.monotonic() - heard), time.monotonic()
    if longest > _SILENCE_S:
        yield bad(
            "websocket",
            f"nothing came for {longest:.0f} s, though the server sends something every 20 s",
            f"something in between holds messages back: turn its buffering off; {_PROXY}",
        )
    else:
        yield good("websocket", f"a connection on which nothing is said stays for {patience_s:.0f} s")


def _refused(status: int) -> Finding:
    found = f"the upgrade to a WebSocket is answered by {status}"
    if status == 401:
        return bad(
            "websocket",
            found,
            f"the server asks for a token: give one with --token or {TOKEN_VARIABLE}; crdt-sync token makes one",
        )
    if status == 403:
        return bad("websocket", found, f"the token needs read in '{TRIAL}*', or '*'; and the origin has to be allowed")
    if status in (502, 504):
        return bad("websocket", found, "a proxy is there, but doesn't reach the server behind it")
    if status == 503:
        return bad("websocket", found, "the server is full, overloaded or draining: /ready and its log say which")
    return bad("websocket", found, f"something in between doesn't pass upgrades on; {_PROXY}")
