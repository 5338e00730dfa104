"""Connections to Redis servers, and finding out which server to connect to.

The only home of redis-py, of which just its connections are used: TLS, authentication, reading and writing. Its pools,
pub/sub and cluster client reconnect and repeat by themselves, and nobody learns what was missed meanwhile.
"""

import asyncio
import random
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    MovedError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from .redis_url import Address, Mode, Target

Refusal = ResponseError
"""An error that a server answers with, in place of a reply."""

SLOTS = REDIS_CLUSTER_HASH_SLOTS

# A large pipeline may take longer than the timeout, at this rate.
BYTES_PER_S = 4 << 20
_READ_BYTES = 1 << 18


class LinkLost(Exception):
    """A connection failed, or there was none to be had. What was under way may or may not have happened."""


class Span(NamedTuple):
    """Hash slots of a cluster that one server has."""

    first: int
    last: int
    address: Address


class Link:
    """One connection to one server. One task writes and one reads; it ends for good when anything fails."""

    def __init__(self, connection: Connection | UnixDomainSocketConnection, address: Address, timeout_s: float) -> None:
        """Wrap an open connection; see `open`."""
        self.address = address
        self._connection = connection
        self._timeout_s = timeout_s
        # Kept, because redis-py forgets it when it closes gently; a frozen peer would keep such a socket, and all that
        # waits in it, for as long as it likes.
        writer = connection._writer
        self._transport = writer.transport if writer is not None else None

    @classmethod
    async def open(
        cls,
        target: Target,
        address: Address,
        *,
        timeout_s: float,
        name: str | None = None,
        sentinel: bool = False,
    ) -> "Link":
        """Connect and log in.

        Args:
            target: Account, database and TLS.
            address: Where to.
            timeout_s: For this, and for each exchange later.
            name: What the server lists the connection as.
            sentinel: Whether it is a Sentinel, with accounts of its own.

        Raises:
            LinkLost: With the reason.
        """
        options: dict[str, Any] = {
            **(target.sentinel_account if sentinel else target.account),
            "db": 0 if sentinel else target.db,
            "client_name": name,
            "protocol": 2,
            "socket_timeout": None,  # the timeouts are ours: a subscription waits as long as nothing happens
            "socket_connect_timeout": timeout_s,
            "socket_read_size": _READ_BYTES,
        }
        connection: Connection | UnixDomainSocketConnection
        if not address.port:
            connection = UnixDomainSocketConnection(path=address.host, **options)
        elif target.tls:
            connection = SSLConnection(host=address.host, port=address.port, **target.tls_options, **options)
        else:
            connection = Connection(host=address.host, port=address.port, **options)
        try:
            async with asyncio.timeout(timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, RedisError | OSError):  # TimeoutError is an OSError
                raise _lost(address, error) from error
            raise
        return cls(connection, address, timeout_s)

    async def exchange(self, chunks: Sequence[bytes], replies: int) -> list[object]:
        """Send packed commands, and read so many replies. A refused command's reply is its `Refusal`.

        Raises:
            LinkLost: It failed, or took too long.
        """
        allowed_s = self._timeout_s + sum(map(len, chunks)) / BYTES_PER_S
        read = self._connection.read_response
        answers: list[object] = []
        try:
            async with asyncio.timeout(allowed_s):
                await self._connection.send_packed_command(chunks, check_health=False)
                for _ in range(replies):
                    try:
                        answers.append(await read())
                    except Refusal as refusal:
                        answers.append(refusal)
        except (RedisError, OSError) as error:
            raise _lost(self.address, error) from error
        return answers

    async def send(self, chunks: Sequence[bytes]) -> None:
        """Send packed commands whose replies someone else reads.

        Raises:
            LinkLost: It failed, or took too long.
        """
        try:
            async with asyncio.timeout(self._timeout_s + sum(map(len, chunks)) / BYTES_PER_S):
                await self._connection.send_packed_command(chunks, check_health=False)
        except (RedisError, OSError) as error:
            raise _lost(self.address, error) from error

    async def read(self) -> object:
        """Read one reply, however long that takes.

        Raises:
            LinkLost: The connection ended.
        """
        try:
            return await self._connection.read_response()
        except Refusal as refusal:
            return refusal
        except (RedisError, OSError) as error:
            raise _lost(self.address, error) from error

    async def close(self) -> None:
        """End it, without waiting for anything that isn't sent."""
        if self._transport is not None:
            self._transport.abort()
        await self._connection.disconnect(nowait=True)


def slot_of(key: bytes) -> int:
    """The hash slot of a key, of what stands between its first braces."""
    return key_slot(key)


def argument(value: bytes) -> bytes:
    """One packed argument of a command."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def pack(*words: bytes) -> bytes:
    """One packed command. redis-py's own packing costs three times as much."""
    return b"*%d\r\n%b" % (len(words), b"".join(map(argument, words)))


def is_moved(answer: object) -> bool:
    """Whether another server of the cluster has this slot."""
    return isinstance(answer, MovedError)


def is_not_serving(answer: object) -> bool:
    """Whether this server has become one that can't be written to."""
    return isinstance(answer, ReadOnlyError | MasterDownError | ClusterDownError)


async def find_master(target: Target, *, timeout_s: float) -> Address:
    """Ask the Sentinels, one after the other, where the master is.

    Raises:
        LinkLost: None of them knows.
    """
    reasons = []
    question = pack(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", target.service.encode())
    for address in target.addresses:
        try:
            [reply] = await _ask_once(target, address, question, timeout_s=timeout_s)
            return _address_of(reply)
        except LinkLost as error:
            reasons.append(str(error))
        except (TypeError, ValueError, AttributeError):
            reasons.append(f"{address} knows no master {target.service!r}")
    raise LinkLost("no Sentinel helps: " + "; ".join(reasons))


async def read_layout(target: Target, known: Iterable[Address], *, timeout_s: float) -> list[Span]:
    """Ask the servers of a cluster, one after the other, who has which slots.

    Args:
        target: The cluster.
        known: Servers to ask before those that the URL names.
        timeout_s: For each of them.

    Raises:
        LinkLost: None of them knows.
    """
    reasons = []
    # In any order: one that is cut off from the others goes on believing what it believed.
    addresses = list(dict.fromkeys((*known, *target.addresses)))
    random.shuffle(addresses)
    for address in addresses:
        try:
            [reply] = await _ask_once(target, address, pack(b"CLUSTER", b"SLOTS"), timeout_s=timeout_s)
            if spans := [_span(one, address) for one in reply]:  # type: ignore[attr-defined]
                return spans
            reasons.append(f"{address} knows of no slots")
        except LinkLost as error:
            reasons.append(str(error))
        except (TypeError, ValueError, IndexError, AttributeError):
            reasons.append(f"{address} is not part of a cluster")
    raise LinkLost("; ".join(reasons))


async def _ask_once(target: Target, address: Address, question: bytes, *, timeout_s: float) -> list[object]:
    link = await Link.open(target, address, timeout_s=timeout_s, sentinel=target.mode is Mode.SENTINEL)
    try:
        return await link.exchange([question], 1)
    finally:
        await link.close()


def _address_of(reply: Any) -> Address:
    host, port = reply
    return Address(host.decode(), int(port))


def _span(entry: Any, asked: Address) -> Span:
    first, last, (host, port, *_) = entry[:3]
    # A server that doesn't know its own name leaves it empty: it is the one that was asked.
    return Span(first, last, Address(host.decode() if host else asked.host, port))


def _lost(address: Address, error: BaseException) -> LinkLost:
    # redis-py's own words name the address already, some twice.
    reason = "no answer in time" if isinstance(error, TimeoutError) and not str(error) else str(error)
    return LinkLost(reason if str(address) in reason else f"{address}: {reason or type(error).__name__}")
