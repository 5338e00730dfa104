"""What Redis servers say of themselves, for whoever looks after them."""

import time
from datetime import UTC, datetime

from . import BusUnavailable, ServerFacts
from .redis_link import Link, LinkLost, Refusal, find_master, pack, read_layout
from .redis_url import Address, Mode, Target, parse_url

_CONFIG = ("maxmemory", "maxmemory-policy", "appendonly", "save")
_QUESTION = [
    pack(b"INFO"),
    pack(b"TIME"),
    *(pack(b"CONFIG", b"GET", name.encode()) for name in _CONFIG),
]


async def read_facts(url: str, *, timeout_s: float) -> list[ServerFacts]:
    """Ask each Redis server that a URL leads to what it is.

    Args:
        url: See `open_bus`.
        timeout_s: For connecting to each, and for each exchange.

    Raises:
        InvalidBusUrl: The URL names no bus.
        BusUnavailable: One doesn't answer.
    """
    target = parse_url(url)
    try:
        return [await _facts(target, address, timeout_s) for address in await _servers(target, timeout_s)]
    except LinkLost as error:
        raise BusUnavailable(str(error)) from error


async def _servers(target: Target, timeout_s: float) -> list[Address]:
    if target.mode is Mode.SENTINEL:
        return [await find_master(target, timeout_s=timeout_s)]
    if target.mode is Mode.CLUSTER:
        spans = await read_layout(target, target.addresses, timeout_s=timeout_s)
        return sorted({span.address for span in spans})
    return [target.addresses[0]]


async def _facts(target: Target, address: Address, timeout_s: float) -> ServerFacts:
    link = await Link.open(target, address, timeout_s=timeout_s)
    try:
        asked_at = time.monotonic()
        await link.exchange([pack(b"PING")], 1)
        took_s = time.monotonic() - asked_at
        info, now, *config = await link.exchange(_QUESTION, len(_QUESTION))
    finally:
        await link.close()
    if isinstance(info, Refusal) or isinstance(now, Refusal):
        raise BusUnavailable(f"{address} refuses to tell what it is: {info if isinstance(info, Refusal) else now}")
    assert isinstance(info, bytes), "INFO is answered by text"
    assert isinstance(now, list), "TIME is answered by seconds and microseconds"
    lines = (line.partition(":") for line in info.decode(errors="replace").splitlines() if ":" in line)
    settings: dict[str, str] = {}
    for answer in config:
        # A hosted Redis may keep its configuration to itself.
        if isinstance(answer, list):
            settings |= {
                name.decode(): value.decode(errors="replace") for name, value in zip(*[iter(answer)] * 2, strict=True)
            }
    return ServerFacts(
        address=str(address),
        took_s=took_s,
        now=datetime.fromtimestamp(int(now[0]) + int(now[1]) / 1e6, UTC),
        info={name: value.strip() for name, _, value in lines},
        settings=settings,
    )
