"""Which Redis a URL names: one server, a master that Sentinels know, or a cluster."""

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from . import InvalidBusUrl

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/,\s]+)(?::(\d{1,5}))?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})
_SENTINEL_OPTIONS = frozenset({"sentinel_username", "sentinel_password"})


class Mode(Enum):
    """How servers are found."""

    SINGLE = ""
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    """Its name or number; of a Unix socket, the path."""
    port: int
    """0 of a Unix socket."""

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Target:
    """What a URL names."""

    mode: Mode
    addresses: tuple[Address, ...]
    db: int = 0
    service: str = ""
    """What the Sentinels call the master."""
    tls: bool = False
    account: dict[str, Any] = field(default_factory=dict, repr=False)
    sentinel_account: dict[str, Any] = field(default_factory=dict, repr=False)
    tls_options: dict[str, Any] = field(default_factory=dict, repr=False)

    def describe(self) -> str:
        """A URL without secrets, for people."""
        if not self.addresses[0].port:
            return f"unix://{self.addresses[0]}?db={self.db}"
        scheme = "rediss" if self.tls else "redis"
        if self.mode is not Mode.SINGLE:
            scheme += f"+{self.mode.value}"
        path = f"/{self.service}" if self.service else ""
        return f"{scheme}://{','.join(map(str, self.addresses))}{path}" + (f"/{self.db}" if self.db else "")


def parse_url(url: str) -> Target:
    """Read a bus's URL.

    Raises:
        InvalidBusUrl: It isn't one. The text repeats nothing that may be a password.
    """
    scheme, separator, rest = url.partition("://")
    transport, _, mode_name = scheme.partition("+")
    if transport not in ("redis", "rediss", "unix") or (transport == "unix" and mode_name) or mode_name == "single":
        start = repr(scheme + separator) if separator and _SCHEME.fullmatch(scheme) else "no scheme"
        raise InvalidBusUrl(f"no bus for URLs that start with {start}")
    try:
        mode = Mode(mode_name)
    except ValueError:
        raise InvalidBusUrl(f"no bus for {scheme}://: use +sentinel, +cluster, or neither") from None
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    if "@" in path and transport != "unix":
        raise InvalidBusUrl("a bus URL has a '/' before its '@': percent-encode the password")
    userinfo, _, hosts = authority.rpartition("@")
    username, _, password = userinfo.partition(":")
    account = _account(unquote(username), unquote(password))
    options = _options(query)
    if transport == "unix":
        _check_options(options, frozenset({"db"}))
        if hosts or not path:
            raise InvalidBusUrl("a bus URL for a socket is unix:///path/to/socket, or unix://user:password@/path")
        return Target(mode, (Address("/" + unquote(path), 0),), _db(options.get("db", "")), account=account)
    sentinel, tls = mode is Mode.SENTINEL, transport == "rediss"
    _check_options(options, (_TLS_OPTIONS if tls else frozenset()) | (_SENTINEL_OPTIONS if sentinel else frozenset()))
    service, path = path.partition("/")[::2] if sentinel else ("", path)
    if sentinel and not service:
        raise InvalidBusUrl("a bus URL for Sentinel ends with the master's name: redis+sentinel://host:26379/mymaster")
    db = _db(path)
    if mode is Mode.CLUSTER and db:
        raise InvalidBusUrl("a Redis Cluster has no databases: leave the number out of the bus URL")
    addresses = tuple(_address(host, 26379 if sentinel else 6379) for host in hosts.split(","))
    if mode is Mode.SINGLE and len(addresses) > 1:
        raise InvalidBusUrl("a bus URL names several hosts only with redis+sentinel:// or redis+cluster://")
    return Target(
        mode,
        addresses,
        db,
        unquote(service),
        tls,
        account,
        _account(options.get("sentinel_username", ""), options.get("sentinel_password", "")),
        _tls_options(options),
    )


def _address(text: str, default_port: int) -> Address:
    match = _HOST.fullmatch(text)
    port = int(match[2] or default_port) if match else 0
    if match is None or not 0 < port < 65536:
        raise InvalidBusUrl("a bus URL names its servers as host, host:port or [IPv6]:port, with commas between them")
    return Address(match[1].strip("[]"), port)


def _db(text: str) -> int:
    if text and not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise InvalidBusUrl("the database in a bus URL is a number, as in redis://host:6379/0")
    return int(text or 0)


def _account(username: str, password: str) -> dict[str, Any]:
    return {"username": username or None, "password": password or None}


def _options(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, strict_parsing=True)) if query else {}
    except ValueError:
        raise InvalidBusUrl("the options of a bus URL are ?name=value&name=value") from None


def _check_options(options: dict[str, str], allowed: frozenset[str]) -> None:
    # Not repeated: what follows a '?' in a password that nobody encoded would be shown.
    if not options.keys() <= allowed:
        names = ", ".join(sorted(allowed)) or "none"
        raise InvalidBusUrl(f"a bus URL has an option that doesn't exist there; these do: {names}")


def _tls_options(options: dict[str, str]) -> dict[str, Any]:
    chosen: dict[str, Any] = {name: value for name, value in options.items() if name in _TLS_OPTIONS}
    if chosen.get("ssl_cert_reqs", "required") not in ("required", "optional", "none"):
        raise InvalidBusUrl("ssl_cert_reqs in a bus URL is required, optional or none")
    if "ssl_check_hostname" in chosen:
        if chosen["ssl_check_hostname"] not in ("true", "false"):
            raise InvalidBusUrl("ssl_check_hostname in a bus URL is true or false")
        chosen["ssl_check_hostname"] = chosen["ssl_check_hostname"] == "true"
    return chosen
