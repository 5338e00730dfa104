"""Which address a client has, and what connections are counted by.

Owns whom to believe. A proxy appends the address that it sees to `X-Forwarded-For`; everything to the left of what
configured proxies appended was written by whoever came before them, and means nothing.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Longer chains of proxies don't exist.
HOPS_MAX = 16
# What one customer gets of IPv6 is a /64 at least, so that counting its addresses would count nothing.
IPV6_PREFIX = 64
UNKNOWN = "unknown"
# No address is longer, with brackets, zone and port.
ADDRESS_CHARS_MAX = 100
# So many are remembered as read: clients come again, and from one proxy.
REMEMBERED = 4096


def client_address(peer: str | None, headers: Iterable[tuple[bytes, bytes]], proxies: Sequence[Network]) -> str:
    """The address that a request comes from.

    Args:
        peer: The other end of the socket; None if that has no address.
        headers: Of the request, names in lower case.
        proxies: Those whose word is taken.

    Returns:
        An address of either version, or `UNKNOWN`.
    """
    address = _parse(peer or "")
    if address is None:
        return UNKNOWN
    if _is_in(address, proxies):
        forwarded = b",".join(value for name, value in headers if name == b"x-forwarded-for")
        # From the right, where the nearest proxy writes, up to the first that isn't one.
        for entry in reversed(forwarded.decode("latin-1").rsplit(",", HOPS_MAX)[-HOPS_MAX:]):
            before = _parse(entry)
            if before is None:
                break
            address = before
            if not _is_in(address, proxies):
                break
    return str(address)


@lru_cache(REMEMBERED)
def counted_as(address: str) -> str:
    """What an address of a client is counted by: itself, or for IPv6 its /64."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
    return address


def _parse(text: str) -> Address | None:
    text = text.strip()
    return _read(text) if len(text) <= ADDRESS_CHARS_MAX else None


@lru_cache(REMEMBERED)
def _read(text: str) -> Address | None:
    # Some proxies add the port: "1.2.3.4:5678", "[2001:db8::1]:5678".
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
