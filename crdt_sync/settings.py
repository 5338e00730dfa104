"""The configuration: read once from `CRDT_SYNC_*`, checked as a whole, every problem reported together."""

import ipaddress
import json
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "CRDT_SYNC_"
# What commands show to a server. No setting of a server, and so not refused as an unknown one.
TOKEN_VARIABLE = PREFIX + "TOKEN"


class InvalidSettings(Exception):
    """What is configured can't work. The text lists every problem."""


def _split(value: object) -> object:
    """Read `a, b`, or a list of JSON, as environments have it."""
    if not isinstance(value, str):
        return value
    listed = json.loads(value) if value.lstrip().startswith("[") else [one.strip() for one in value.split(",")]
    if not listed or not all(listed):
        # One that is set, but empty, would check nothing, and whoever set it believes that it does.
        raise ValueError("names are expected, with commas between them; leave it unset if there are none")
    return listed


_Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """Everything that can be set. Each field is also an environment variable, `CRDT_SYNC_` and its name."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(1234, ge=0, le=65535, description="The port to listen on; 0 takes a free one.")
    ops_host: str = Field("127.0.0.1", description="The address to listen on for `CRDT_SYNC_OPS_PORT`.")
    ops_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="A port for `/health`, `/ready` and `/metrics`, which aren't found on the other one then. "
        "It asks nobody who he is.",
    )
    metrics_token: SecretStr | None = Field(
        None,
        description="Who shows this as a bearer token may read `/metrics` from other machines. Others need an admin's token.",
    )
    database_url: str = Field(
        "sqlite:///crdt-sync.db",
        repr=False,  # it may hold a password
        description="Where documents are kept: `postgresql://user:password@host/database`, `sqlite:///relative.db`, "
        "`sqlite:////absolute.db`, or `memory://`, which forgets them.",
    )
    database_replica_url: str | None = Field(
        None,
        repr=False,
        description="PostgreSQL: a standby that lists and exports documents. Rooms are never loaded from it.",
    )
    database_migrate: bool = Field(
        True, description="Whether a starting server may create and change tables; if not, run `crdt-sync migrate`."
    )
    database_timeout_s: float = Field(
        10.0, gt=0, description="PostgreSQL: what takes longer has failed, and is tried again."
    )
    database_connections_max: int = Field(
        8, ge=3, description="PostgreSQL: how many connections one server opens at most."
    )
    database_start_timeout_s: float = Field(
        30.0, ge=0, description="How long a starting server waits for a database that can't be reached."
    )
    redis_url: str | None = Field(
        None,
        repr=False,
        description="Where nodes meet: `redis://`, `rediss://`, `unix://`, `redis+sentinel://host,host/name` or "
        "`redis+cluster://host,host`. Without it, this is the only node.",
    )
    redis_prefix: str = Field(
        "crdt-sync",
        pattern=r"^[^{}\s]+$",
        description="What all keys and channels in Redis begin with. Nodes with the same prefix must share a database.",
    )
    jwt_secret: SecretStr | None = Field(
        None,
        description="The secret that tokens are signed with (HS256), at least 32 bytes: `openssl rand -base64 48`.",
    )
    jwt_public_key: str | None = Field(
        None,
        repr=False,
        description="The public key or certificate that verifies tokens, as PEM or as the path of a PEM file: RSA from "
        "2048 bits on (RS256), P-256 (ES256) or Ed25519 (EdDSA).",
    )
    jwt_jwks: str | None = Field(
        None,
        repr=False,
        description="Where the keys that verify tokens are published (JWKS): an https URL (http on loopback), or a file.",
    )
    jwt_audience: _Names = Field((), description="Tokens need one of these as `aud`, with commas between them.")
    jwt_issuer: _Names = Field((), description="Tokens need one of these as `iss`, with commas between them.")
    jwt_leeway_s: float = Field(
        10.0, ge=0, le=300, description="How far the clock of whoever makes tokens may be from ours."
    )
    jwt_lifetime_max_s: float = Field(
        30 * 86400.0,
        gt=0,
        le=366 * 86400,
        description="A token that is valid for longer is refused. Revocations are remembered for as long.",
    )
    insecure_open: bool = Field(
        False,
        description="Without keys, whether everybody who reaches this server may read and write every room. If not, only "
        "who connects from this machine may.",
    )
    allowed_origins: _Names = Field(
        (),
        description="From which sites' pages browsers may connect, `https://app.example.com,https://example.com`, or `*`. "
        "Empty: from the server's own, and without keys from any.",
    )
    read_only_updates: Literal["close", "drop"] = Field(
        "close",
        description="What an update from a client that may only read leads to: its connection is closed (4403), or the "
        "update is dropped.",
    )
    grant_timeout_s: float = Field(10.0, gt=0, description="How long judging a credential may take.")
    ssl_certfile: Path | None = Field(
        None, description="A certificate, as PEM, with those between it and its root behind it: then TLS is spoken."
    )
    ssl_keyfile: Path | None = Field(None, description="Its key, as PEM, if that isn't in the same file.")
    workers: int = Field(1, ge=1, le=256, description="How many processes serve the port, each a node of its own.")
    black_box_folder: Path | None = Field(
        None,
        description="Where a process notes which update it is taking in, in case it doesn't survive that. "
        "By default `/dev/shm`, or the folder of temporary files.",
    )
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR.")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="How lines look: `json`, `text`, or `auto`, which is text at a terminal and JSON elsewhere."
    )
    log_lines_per_s_max: float = Field(
        100.0,
        gt=0,
        description="Lines of one event that are logged in a second, once 20 times as many have come at once. "
        "Others are counted in the next one.",
    )
    trace_url: str | None = Field(
        None,
        repr=False,
        description="An OpenTelemetry collector that takes traces by OTLP over HTTP, such as `http://collector:4318`. "
        "Without it, nothing is traced.",
    )
    trace_sample: float = Field(0.01, ge=0, le=1, description="Which share of messages and requests is traced.")

    journal_interval_s: float = Field(
        0.2, ge=0, le=10, description="Accepted updates are committed, and confirmed, at most this often."
    )
    checkpoint_interval_s: float = Field(
        5.0, gt=0, description="A room that changes gets a compacted state this often."
    )
    history_days: float = Field(
        7.0,
        ge=0,
        le=3650,
        description="How long each update is kept, so that a document can be read as of any moment. 0: not at all.",
    )
    version_interval_s: float = Field(
        300.0,
        ge=0,
        description="A document that is being edited gets a version this often, and when its last client leaves. "
        "0: only when somebody asks for one.",
    )
    versions_all_hours: float = Field(24.0, ge=0, description="How long all versions are kept.")
    versions_hourly_days: float = Field(7.0, ge=0, description="How long one version an hour is kept.")
    versions_daily_days: float = Field(
        90.0, ge=0, description="How long one version a day is kept. Those with a label are kept for ever."
    )
    archive_url: str | None = Field(
        None,
        repr=False,
        description="Where the content of old versions is kept: `file:///folder`, or `s3://bucket/prefix`, with "
        "`?endpoint=https://host` for what isn't AWS. Without it, they stay in the database.",
    )
    archive_after_days: float = Field(
        30.0, ge=0, le=36500, description="How old a version is when its content moves to the archive."
    )
    sweep_interval_s: float = Field(
        3600.0,
        gt=0,
        description="How often versions and updates that aren't kept any longer are removed, and old versions archived.",
    )
    room_idle_s: float = Field(
        30.0,
        ge=0,
        description="A room without clients is unloaded after this long, once everything is stored.",
    )
    open_timeout_s: float = Field(
        10.0, gt=0, description="A client that waits longer than this for its room is told to try again."
    )
    drain_notice_s: float = Field(
        0.0,
        ge=0,
        description="How long a stopping server says that it isn't ready, and serves as usual, before it sends clients away.",
    )
    drain_spread_s: float = Field(
        5.0,
        ge=0,
        description="Over how long a stopping server closes its clients (1012), a hundred a second at least.",
    )
    drain_deadline_s: float = Field(
        30.0,
        gt=0,
        description="So long after it was told to stop, a server has ended, whether everything could be stored or not.",
    )
    keep_alive_interval_s: float = Field(
        20.0,
        gt=0,
        lt=30,
        description="A client that was sent nothing for this long is sent an empty message. "
        "Stock clients reconnect after 30 s of silence.",
    )
    ping_interval_s: float = Field(25.0, gt=0, description="How often a WebSocket ping is sent.")
    ping_timeout_s: float = Field(35.0, gt=0, description="A client that doesn't answer a ping for this long is gone.")
    idle_timeout_s: float = Field(
        0.0,
        ge=0,
        description="A client to and from which nothing went for this long but signs of life is closed (4408). 0: never.",
    )
    slow_reader_timeout_s: float = Field(
        30.0,
        gt=0,
        description="A client that takes nothing of what waits for it for this long is closed (1013).",
    )
    awareness_interval_s: float = Field(
        0.05, ge=0, description="Awareness changes of a room are passed on at most this often."
    )
    awareness_grace_s: float = Field(5.0, ge=0, description="A user whose connection is lost stays visible this long.")
    awareness_leave_s: float = Field(
        0.5, ge=0, description="A user whose connection is closed properly stays visible this long."
    )

    message_bytes_max: int = Field(16 << 20, ge=1024, description="A larger message closes its connection (1009).")
    outbox_bytes_max: int = Field(
        1 << 20,
        ge=1024,
        description="What may wait for one client. Beyond it, the client gets one difference once it reads again.",
    )
    waiting_bytes_max: int = Field(
        1 << 20, ge=1024, description="Updates of one room that wait for others before they can be applied."
    )
    unstored_bytes_max: int = Field(
        64 << 20,
        ge=1024,
        description="Accepted updates of all rooms that aren't stored yet. Beyond it, 1013.",
    )
    awareness_client_bytes_max: int = Field(
        16 << 10,
        ge=64,
        description="One client's awareness state. A larger one closes its connection (1009).",
    )
    awareness_room_bytes_max: int = Field(
        1 << 20, ge=1024, description="All awareness states of one room. Beyond it, 1013."
    )

    document_bytes_max: int = Field(
        64 << 20, ge=1024, description="A larger document takes only deletes; who adds to it is closed (4413)."
    )
    partial_bytes_max: int = Field(
        256 << 20,
        ge=1024,
        description="What all clients together have sent of messages that aren't complete yet. Beyond it, the largest is closed (1013).",
    )

    trusted_proxies: _Names = Field(
        (),
        description="Proxies whose `X-Forwarded-For` is believed: addresses and networks, separated by commas, such as `10.0.0.0/8,::1`.",
    )
    connections_max: int = Field(
        20_000,
        ge=1,
        description="Clients of one process; fewer if the limit of open files is lower. More are refused (503), as by all limits of connections.",
    )
    connections_per_address_max: int = Field(
        1000, ge=1, description="Clients from one IPv4 address, or one IPv6 /64. Behind a proxy, set `trusted_proxies`."
    )
    connections_per_user_max: int = Field(100, ge=1, description="Clients of one user on one process.")
    connections_per_room_max: int = Field(2000, ge=1, description="Clients in one room on one process.")
    rooms_per_user_max: int = Field(100, ge=1, description="Rooms that one user has open on one process.")
    accepts_per_s_max: float = Field(
        4000, gt=0, description="Connections that are accepted in a second. More wait in the operating system's queue."
    )
    upgrades_per_s_max: float = Field(
        4000,
        gt=0,
        description="Clients that are let in in a second, as far as the event loop has time for them. More wait, and their addresses take turns.",
    )
    upgrades_max: int = Field(
        5000,
        ge=1,
        description="Connections that aren't let in yet. Beyond it, the one that has sent nothing for longest is dropped.",
    )
    handshake_timeout_s: float = Field(10.0, gt=0, description="How long a connection may take for its first request.")
    messages_per_s_max: float = Field(
        1000, gt=0, description="WebSocket frames that one client may send in a second. Above, it is read more slowly."
    )
    messages_burst_max: int = Field(20_000, ge=1, description="Frames that it may send at once, after a quiet time.")
    received_bytes_per_s_max: float = Field(
        1 << 20, gt=0, description="Bytes that one client may send in a second. Above, it is read more slowly."
    )
    received_bytes_burst_max: int = Field(
        64 << 20, ge=1024, description="Bytes that it may send at once, after a quiet time."
    )
    flooding_timeout_s: float = Field(
        30.0, gt=0, description="A client that sends as much as it is let for this long is closed (4429)."
    )
    load_cpu_max: float = Field(
        0.8,
        gt=0,
        description="Share of a core that the event loop may use for 10 s before the node takes on less; above 1, never.",
    )
    load_memory_max: float = Field(
        0.85, gt=0, description="Share of its memory limit that the process may use before the node takes on less."
    )
    memory_bytes_max: int | None = Field(
        None, ge=1 << 20, description="The memory limit of one process; without it, that of its control group."
    )

    @property
    def proxies(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """`trusted_proxies`, read."""
        return tuple(ipaddress.ip_network(entry, strict=False) for entry in self.trusted_proxies)

    @field_validator("trace_url")
    @classmethod
    def _traces_go_by_http(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("a collector's URL begins with http:// or https://, and names a host")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            try:
                ipaddress.ip_network(entry, strict=False)
            except ValueError as error:
                raise ValueError(f"{entry!r} is neither an address nor a network") from error
        return value

    @model_validator(mode="after")
    def _what_may_be_sent_once_is_no_flood(self) -> "Settings":
        for bound in ("received_bytes_burst_max", "partial_bytes_max"):
            if getattr(self, bound) < self.message_bytes_max:
                raise ValueError(
                    f"{PREFIX}{bound.upper()} ({getattr(self, bound)}) must be at least {PREFIX}MESSAGE_BYTES_MAX "
                    f"({self.message_bytes_max}), or large messages could never be received"
                )
        return self

    @model_validator(mode="after")
    def _keys_have_certificates(self) -> "Settings":
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ValueError(f"{PREFIX}SSL_KEYFILE is of no use without {PREFIX}SSL_CERTFILE")
        return self

    @model_validator(mode="after")
    def _clients_are_gone_before_the_deadline(self) -> "Settings":
        if self.drain_notice_s + self.drain_spread_s >= self.drain_deadline_s:
            raise ValueError(
                f"{PREFIX}DRAIN_DEADLINE_S ({self.drain_deadline_s:g}) must be more than {PREFIX}DRAIN_NOTICE_S and "
                f"{PREFIX}DRAIN_SPREAD_S together ({self.drain_notice_s + self.drain_spread_s:g}), or nothing could be "
                "stored afterwards"
            )
        return self

    @model_validator(mode="after")
    def _what_may_be_sent_may_be_stored(self) -> "Settings":
        if self.unstored_bytes_max < 2 * self.message_bytes_max:
            raise ValueError(
                f"{PREFIX}UNSTORED_BYTES_MAX ({self.unstored_bytes_max}) must be at least twice "
                f"{PREFIX}MESSAGE_BYTES_MAX ({self.message_bytes_max}), or large messages could never be stored"
            )
        return self

    @classmethod
    def read(cls, **options: object) -> "Settings":
        """Read the environment; `options` that are not None go first.

        Raises:
            InvalidSettings: With one line for every problem.
        """
        given = {name: value for name, value in options.items() if value is not None}
        known = (None, _field(TOKEN_VARIABLE), *cls.model_fields)
        lines = [_unknown(name) for name in sorted(os.environ) if _field(name) not in known]
        try:
            settings = cls(**given)  # type: ignore[arg-type]
        except ValidationError as error:
            for problem in error.errors():
                name = "_".join(str(part) for part in problem["loc"])
                lines.append(
                    f"{PREFIX}{name.upper()}={problem['input']!r}: {problem['msg']}" if name else problem["msg"]
                )
            raise InvalidSettings("\n".join(lines)) from error
        if lines:
            raise InvalidSettings("\n".join(lines))
        return settings


def _field(variable: str) -> str | None:
    """The setting that an environment variable names; None if it isn't about us."""
    return variable.removeprefix(PREFIX).lower() if variable.startswith(PREFIX) else None


def _unknown(variable: str) -> str:
    # Refused, not ignored: who sets a token's secret for a server that knows no tokens would believe it guarded.
    close = get_close_matches(variable, [PREFIX + name.upper() for name in Settings.model_fields], 1, 0.8)
    return f"{variable}: there is no such setting" + (f"; did you mean {close[0]}?" if close else "")
