"""How to reach one PostgreSQL database: addresses, connections, timeouts, and what its errors mean.

Owns the pools and the settings on which durability and bounded waiting rest. What is said over a connection is for
`postgres` and `postgres_schema`.

A connection on which anything failed is thrown away: what state it is in is not worth knowing, and the next one may
lead to another server. Whoever asks has a deadline for all of it, connecting included, since a server that hangs
answers nothing, not even a refusal.

Behind a pooler such as PgBouncer in transaction mode, each transaction may meet another server process. So nothing
may live longer than a transaction there: no prepared statements, no session settings, no session locks. Whether a
pooler is in between shows at the start: it makes up the process id with which a client can cancel queries.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

import asyncpg

from persistence.store import StoreUnavailable, StoreUnusable

log = logging.getLogger("persistence.postgres")

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy"
VERSION_MIN: Final = 130000
# A connection unused for this long is closed: firewalls forget it, and then the next use would wait for nothing.
_IDLE_MAX_S: Final = 60.0
_CLOSE_TIMEOUT_S: Final = 3.0

_FAILURES: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a lost connection can surface as
    OSError,
    TimeoutError,
)
# What to do about it, where the server's own words don't say.
_ADVICE: Final[dict[type[BaseException], str]] = {
    asyncpg.TooManyConnectionsError: "raise max_connections, lower CRDT_SYNC_DATABASE_CONNECTIONS_MAX, or put PgBouncer "
    "in front",
    asyncpg.ReadOnlySQLTransactionError: "this server is a standby, or was made read-only: name the primary, or all "
    "servers, as in postgresql://user@one,two/database",
    asyncpg.UndefinedTableError: "a table is missing: bring it back from a backup",
    asyncpg.DiskFullError: "make room on the database's disk",
    asyncpg.InsufficientPrivilegeError: "grant the user USAGE on the schema crdt_sync and all rights on its tables",
}
_HOPELESS: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ClientConfigurationError,
    asyncpg.InsufficientPrivilegeError,
)


@dataclass(frozen=True, slots=True)
class _Server:
    """What the first connection told."""

    pooled: bool
    settings: dict[str, str]


class Link:
    """The way to one database.

    Args:
        url: `postgresql://…`, as libpq and asyncpg read it; several hosts are tried in their order.
        pools: How many connections there may be for what. Whoever only reads can't keep others from writing then.
        timeout_s: What takes longer, connecting included, has failed.
        standby_ok: Whether a server that can't write will do.

    Raises:
        StoreUnusable: The URL can't be read.
    """

    def __init__(self, url: str, *, pools: Mapping[str, int], timeout_s: float, standby_ok: bool = False) -> None:
        self._url = url
        self._sizes = dict(pools)
        self._timeout_s = timeout_s
        self._hosts = _hosts(url)
        self._target = "read-write" if len(self._hosts) > 1 and not standby_ok else None
        self._server: _Server | None = None
        self._pools: dict[str, asyncpg.Pool] = {}

    async def open(self) -> None:
        """Connect once, and learn with whom.

        Raises:
            StoreUnavailable: No server can be reached now.
            StoreUnusable: The server won't do, or won't have us.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._connect_to_any()
                try:
                    self._server = await self._look_at(connection)
                finally:
                    connection.terminate()
        except _HOPELESS as error:
            raise StoreUnusable(f"{self.describe()} can't be used: {error}") from error
        except _FAILURES as error:
            raise StoreUnavailable(self._sentence("connecting", error)) from error
        for name, size in self._sizes.items():
            # Connects nothing yet.
            self._pools[name] = await asyncpg.create_pool(
                min_size=0,
                max_size=size,
                max_inactive_connection_lifetime=_IDLE_MAX_S,
                connect=self._connect,
                reset=_leave_as_it_is,
            )

    async def close(self) -> None:
        """Let running calls finish, for a moment, and disconnect."""
        self._server = None
        pools, self._pools = list(self._pools.values()), {}
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await asyncio.gather(*(pool.close() for pool in pools))
        except _FAILURES:
            for pool in pools:
                pool.terminate()

    @property
    def pooled(self) -> bool:
        """Whether a pooler stands between, so that each transaction may run in another connection."""
        return self._server is not None and self._server.pooled

    def describe(self) -> str:
        """Name the database for people, without user or password."""
        hosts = ", ".join(f"{host}:{port}" if port else host for host, port in self._hosts) or "the local socket"
        return f"PostgreSQL database {urlsplit(self._url).path.lstrip('/') or '(default)'} at {hosts}"

    @asynccontextmanager
    async def connection(self, pool: str, what: str) -> AsyncIterator[Connection]:
        """Borrow a connection of a pool, for one `statement` or `transaction`.

        Args:
            pool: Which pool.
            what: What fails if it fails, for the error.

        Raises:
            StoreUnavailable: The server, or the way to it, failed, or took too long.
        """
        if self._server is None:
            raise StoreUnavailable(f"{self.describe()} is closed")
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._pools[pool].acquire() as connection:
                    try:
                        yield connection
                    except BaseException:
                        connection.terminate()
                        raise
        except _FAILURES as error:
            # The others' may lead to the same server: the next to be used are made anew.
            for each in self._pools.values():
                await each.expire_connections()
            raise StoreUnavailable(self._sentence(what, error)) from error

    @asynccontextmanager
    async def statement(self, connection: Connection) -> AsyncIterator[None]:
        """A block with one statement, that is a transaction by itself: one round trip, unless there is a pooler."""
        assert self._server is not None, "connection() checked"
        if self._server.pooled:
            async with self.transaction(connection):
                yield
        else:
            yield

    @asynccontextmanager
    async def transaction(self, connection: Connection, mode: str = "") -> AsyncIterator[None]:
        """A block that takes effect as a whole. If it fails, the connection has to go: that rolls back."""
        assert self._server is not None, "connection() checked"
        begin = [f"BEGIN {mode}"]
        if self._server.pooled:
            begin += [f"SET LOCAL {name} = '{value}'" for name, value in self._server.settings.items()]
        await connection.execute("; ".join(begin))
        yield
        await connection.execute("COMMIT")

    async def _connect(self, _dsn: None, **options: Any) -> asyncpg.Connection:
        assert self._server is not None, "pools are made after open()"
        return await self._connect_to_any(
            server_settings={} if self._server.pooled else self._server.settings,
            statement_cache_size=0 if self._server.pooled else 100,
            **options,
        )

    async def _connect_to_any(self, **options: Any) -> asyncpg.Connection:
        # Each host has its share of the time: one that hangs must not keep us from the one that took over.
        timeout_s = self._timeout_s / (len(self._hosts) + 1)
        failure: BaseException | None = None
        hosts: Sequence[tuple[str | None, int | None]] = self._hosts or [(None, None)]
        for host, port in hosts:
            try:
                return await asyncpg.connect(
                    self._url,
                    host=host,
                    port=port,
                    timeout=timeout_s,
                    target_session_attrs=self._target,
                    **options,
                )
            except _FAILURES as error:
                # The first one's trouble is the one to tell, unless it only isn't the primary.
                if failure is None or isinstance(failure, asyncpg.TargetServerAttributeNotMatched):
                    failure = error
        assert failure is not None
        raise failure

    async def _look_at(self, connection: asyncpg.Connection) -> _Server:
        version, encoding, pid, synchronous_commit, fsync = await connection.fetchrow(
            "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), "
            "pg_backend_pid(), current_setting('synchronous_commit'), current_setting('fsync')"
        )
        if version < VERSION_MIN:
            raise StoreUnusable(
                f"{self.describe()} is version {version // 10000}: {VERSION_MIN // 10000} is the oldest"
            )
        if encoding != "UTF8":
            raise StoreUnusable(f"{self.describe()} is encoded in {encoding}: make one with ENCODING 'UTF8'")
        if fsync == "off":
            log.warning("postgres_fsync_off", extra={"database": self.describe()})
        timeout = f"{int(self._timeout_s * 1000)}ms"
        # The server gives up when we do: what waits for a lock, or for a client that is gone, must not wait on.
        settings = {"statement_timeout": timeout, "idle_in_transaction_session_timeout": timeout}
        if synchronous_commit == "off":
            # What is confirmed is on disk, whatever the server's default is. Stricter settings stay as they are.
            settings["synchronous_commit"] = "on"
        return _Server(pooled=pid != connection.get_server_pid(), settings=settings)

    def _sentence(self, what: str, error: BaseException) -> str:
        said = f"no answer within {self._timeout_s:g} s" if isinstance(error, TimeoutError) else str(error)
        advice = next((text for kind, text in _ADVICE.items() if isinstance(error, kind)), None)
        return f"{what} failed: {said or type(error).__name__} ({self.describe()})" + (f"; {advice}" if advice else "")


async def _leave_as_it_is(connection: asyncpg.Connection) -> None:
    """Nothing of ours outlives a transaction, so there is nothing to reset, at the price of a round trip."""


def _hosts(url: str) -> list[tuple[str, int | None]]:
    """The hosts in a URL; none if it names none."""
    try:
        netloc = urlsplit(url).netloc.rpartition("@")[2]
        return [_host(part) for part in netloc.split(",")] if netloc else []
    except ValueError:
        # Without its words: they may repeat the password.
        raise StoreUnusable(
            "a PostgreSQL URL is postgresql://user:password@host:port/database; several hosts stand between commas"
        ) from None


def _host(part: str) -> tuple[str, int | None]:
    host, colon, port = part.rpartition(":") if not part.endswith("]") else (part, "", "")
    if not colon:
        return unquote(part).strip("[]"), None
    if not 0 < int(port) < 65536:
        raise ValueError
    return unquote(host).strip("[]"), int(port)
