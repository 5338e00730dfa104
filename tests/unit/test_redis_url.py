import pytest

from crdt_sync.bus import InvalidBusUrl, open_bus
from crdt_sync.bus.redis import RedisBus
from crdt_sync.bus.redis_url import Address, Mode, Target, parse_url

NOBODY = {"username": None, "password": None}


@pytest.mark.parametrize(
    ("url", "mode", "addresses", "db"),
    [
        ("redis://localhost", Mode.SINGLE, ["localhost:6379"], 0),
        ("redis://localhost/", Mode.SINGLE, ["localhost:6379"], 0),
        ("redis://10.0.0.1:7000/3", Mode.SINGLE, ["10.0.0.1:7000"], 3),
        ("redis://[::1]:7000/3", Mode.SINGLE, ["[::1]:7000"], 3),
        ("rediss://cache.example:6380/0", Mode.SINGLE, ["cache.example:6380"], 0),
        ("unix:///run/redis.sock", Mode.SINGLE, ["/run/redis.sock"], 0),
        ("unix:///run/redis.sock?db=2", Mode.SINGLE, ["/run/redis.sock"], 2),
        ("redis+sentinel://a,b:5000/mymaster", Mode.SENTINEL, ["a:26379", "b:5000"], 0),
        ("redis+sentinel://a/mymaster/4", Mode.SENTINEL, ["a:26379"], 4),
        ("redis+cluster://a:1,b:2,[::1]", Mode.CLUSTER, ["a:1", "b:2", "[::1]:6379"], 0),
        ("rediss+cluster://a:1/", Mode.CLUSTER, ["a:1"], 0),
    ],
)
def test_url_names_servers(url: str, mode: Mode, addresses: list[str], db: int) -> None:
    target = parse_url(url)

    assert (target.mode, [str(address) for address in target.addresses], target.db) == (mode, addresses, db)
    assert target.tls == url.startswith("rediss")


@pytest.mark.parametrize(
    ("url", "account"),
    [
        ("redis://h", NOBODY),
        ("redis://:s3cret@h", {"username": None, "password": "s3cret"}),
        ("redis://me:s3cret@h", {"username": "me", "password": "s3cret"}),
        ("redis://me:p%40ss%2Fw%3Ard@h/1", {"username": "me", "password": "p@ss/w:rd"}),
        ("redis://me:p@ss@h", {"username": "me", "password": "p@ss"}),
        ("unix://me:s3cret@/run/redis.sock", {"username": "me", "password": "s3cret"}),
        ("redis+sentinel://me:s3cret@h,i/m", {"username": "me", "password": "s3cret"}),
    ],
)
def test_account_is_read_and_not_shown(url: str, account: dict[str, str | None]) -> None:
    target = parse_url(url)

    assert target.account == account
    assert "s3cret" not in repr(target) + target.describe() + RedisBus(url).describe()


def test_options_are_read() -> None:
    url = "rediss+sentinel://h/m?ssl_ca_certs=/ca.pem&ssl_check_hostname=false&sentinel_password=s3cret"

    target = parse_url(url)

    assert target == Target(
        Mode.SENTINEL,
        (Address("h", 26379),),
        service="m",
        tls=True,
        account=NOBODY,
        sentinel_account={"username": None, "password": "s3cret"},
        tls_options={"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False},
    )
    assert target.describe() == "rediss+sentinel://h:26379/m"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://s3cret@h",
        "redis:/s3cret@h",
        "redis+tls://s3cret@h",
        "unix+cluster:///run/redis.sock",
        "redis://",
        "redis:///1",
        "redis://h:0",
        "redis://h:99999",
        "redis://h:s3cret",
        "redis://a,b",
        "redis://a,,b",
        "redis://h/s3cret",
        "redis://h/-1",
        "redis://h/1/2",
        "redis://me:s3/cret@h",
        "redis://h?s3cret=1",
        "redis://h?ssl_ca_certs=/ca.pem",
        "redis://h/0?s3cret",
        "rediss://h?ssl_cert_reqs=s3cret",
        "rediss://h?ssl_check_hostname=maybe",
        "redis+sentinel://h",
        "redis+sentinel://h/",
        "redis+sentinel://h/m/s3cret",
        "redis+cluster://h/1",
        "unix://",
        "unix://host/run/redis.sock",
        "unix:///run/redis.sock?db=s3cret",
        "unix:///run/redis.sock?ssl_ca_certs=/ca.pem",
    ],
)
def test_url_that_names_no_bus_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidBusUrl) as caught:
        open_bus(url)

    assert "s3" not in str(caught.value)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "a b", "a{b", "}", "a\n"])
def test_prefix_that_would_break_keys_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        open_bus("redis://h", prefix=prefix)
