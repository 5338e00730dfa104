"""Whose connection it is, when a proxy is between."""

import pytest

from crdt_sync.gateway.client_address import REMEMBERED, UNKNOWN, _read, client_address, counted_as
from crdt_sync.settings import InvalidSettings, Settings

PROXIES = Settings.read(trusted_proxies="10.0.0.0/8, 2001:db8:1::/48,192.0.2.7").proxies


def of(peer: str | None, *forwarded: str) -> str:
    return client_address(peer, [(b"x-forwarded-for", each.encode()) for each in forwarded], PROXIES)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        pytest.param("203.0.113.5", (), "203.0.113.5", id="without a proxy"),
        pytest.param("203.0.113.5", ("198.51.100.1",), "203.0.113.5", id="who is no proxy isn't believed"),
        pytest.param("127.0.0.1", ("198.51.100.1",), "127.0.0.1", id="nor is loopback by itself"),
        pytest.param("10.1.1.1", ("198.51.100.1",), "198.51.100.1", id="a proxy is"),
        pytest.param("192.0.2.7", ("198.51.100.1",), "198.51.100.1", id="a proxy by its address"),
        pytest.param(
            "10.1.1.1", ("6.6.6.6, 198.51.100.1",), "198.51.100.1", id="the left end is the client's own word"
        ),
        pytest.param("10.1.1.1", ("6.6.6.6", "198.51.100.1"), "198.51.100.1", id="in headers of its own too"),
        pytest.param("10.1.1.1", ("6.6.6.6, 198.51.100.1, 10.2.2.2",), "198.51.100.1", id="two proxies"),
        pytest.param(
            "10.1.1.1", ("6.6.6.6, 10.2.2.2, 198.51.100.1",), "198.51.100.1", id="a client that names a proxy"
        ),
        pytest.param("10.1.1.1", (), "10.1.1.1", id="a proxy's own request"),
        pytest.param("10.1.1.1", ("10.3.3.3",), "10.3.3.3", id="from inside"),
        pytest.param("10.1.1.1", ("6.6.6.6, nonsense",), "10.1.1.1", id="nothing beyond what can't be read"),
        pytest.param("10.1.1.1", ("",), "10.1.1.1", id="empty"),
        pytest.param("10.1.1.1", ("198.51.100.1:55123",), "198.51.100.1", id="with a port"),
        pytest.param("10.1.1.1", ("[2001:db8:9::1]:55123",), "2001:db8:9::1", id="IPv6 with a port"),
        pytest.param("2001:db8:1::9", ("198.51.100.1",), "198.51.100.1", id="a proxy on IPv6"),
        pytest.param("::ffff:203.0.113.5", (), "203.0.113.5", id="IPv4 on a socket of both kinds"),
        pytest.param("::ffff:10.1.1.1", ("198.51.100.1",), "198.51.100.1", id="a proxy on one"),
        pytest.param("fe80::1%eth0", (), "fe80::1", id="with a zone"),
        pytest.param(None, (), UNKNOWN, id="no address"),
        pytest.param("/run/app.sock", ("6.6.6.6",), UNKNOWN, id="a path"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_proxy(
    peer: str | None, forwarded: tuple[str, ...], client: str
) -> None:
    assert of(peer, *forwarded) == client


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("2001:db8:9:0:1:2:3:4", "2001:db8:9::/64"),
        ("2001:db8:9:1::4", "2001:db8:9:1::/64"),
        (UNKNOWN, UNKNOWN),
    ],
)
def test_ipv6_is_counted_by_its_64(address: str, counted: str) -> None:
    """What one customer gets is a /64 at least: counting its addresses would count nothing."""
    assert counted_as(address) == counted


def test_an_endless_chain_of_proxies_ends() -> None:
    assert of("10.1.1.1", "6.6.6.6," + ",".join(["10.2.2.2"] * 10_000)) == "10.2.2.2"


def test_no_header_makes_it_fail() -> None:
    for value in ("," * 1000, "::::", "[", "]", "[]:1", "%", "1.2.3.4%x", "\xff\xfe", "1.2.3.4:5:6"):
        assert of("10.1.1.1", value)


def test_a_proxy_that_is_no_network_is_refused_by_name() -> None:
    with pytest.raises(InvalidSettings, match=r"TRUSTED_PROXIES.*'10\.0\.0\.300'"):
        Settings.read(trusted_proxies="10.0.0.0/8,10.0.0.300")


def test_what_is_too_long_for_an_address_is_none_and_is_not_remembered() -> None:
    before = _read.cache_info().currsize

    assert of("10.1.1.1", f"fe80::1%{'x' * 10_000}") == "10.1.1.1"
    assert _read.cache_info().currsize <= before + 1


def test_addresses_that_were_read_are_remembered_up_to_a_bound() -> None:
    for n in range(2 * REMEMBERED):
        of(f"203.0.{n >> 8}.{n & 255}")

    assert _read.cache_info().currsize == REMEMBERED
