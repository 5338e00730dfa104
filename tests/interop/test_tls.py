"""The server speaks TLS itself: real wss clients, what else comes to the port, and renewed certificates."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from websockets.asyncio.client import connect

from crdt_sync.lib0 import read_var_bytes, write_var_bytes
from crdt_sync.serve import CannotServe, _certificate
from crdt_sync.settings import InvalidSettings, Settings
from crdt_sync.tls import Certificate, InvalidCertificate
from tests.support.certificates import Authority
from tests.support.clients import NodeClients
from tests.support.cluster import until
from tests.support.server import ServerProcess
from tests.support.services import HOST

ROOM = "trip-1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def tls_server(folder: Path, authority: Authority, **settings: object) -> AsyncIterator[ServerProcess]:
    chain, key = authority.certify()
    env = {f"CRDT_SYNC_{name.upper()}": str(value) for name, value in settings.items()}
    env |= {"CRDT_SYNC_SSL_CERTFILE": str(chain), "CRDT_SYNC_SSL_KEYFILE": str(key)}
    async with ServerProcess(folder, env=env) as server:
        yield server
    assert server.errors() == []


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.path)


@pytest.mark.parametrize("version", ["1.5", "3.1"])
async def test_stock_clients_edit_together_by_wss(
    version: str, tmp_path: Path, authority: Authority, clients: NodeClients
) -> None:
    async with tls_server(tmp_path, authority) as server:
        url = server.url.replace("ws:", "wss:")
        assert await until(lambda: f"url={url!r}" in server.log, timeout_s=5)
        ann = await clients.create(url, ROOM, version, ca=authority.text)
        # More than a record, and than what is read at once.
        long = "".join(map(str, range(50_000)))
        await ann.insert(0, long)
        await ann.confirm()
        bob = await clients.create(url, ROOM, version, ca=authority.text)
        await bob.wait(text=long)
        await bob.insert(0, "b")
        await ann.wait(text="b" + long)


async def test_a_python_client_gets_back_the_very_bytes_by_wss(tmp_path: Path, authority: Authority) -> None:
    update = bytes([1, 1, 7, 0, 4, 1, 1]) + b"t" + write_var_bytes(b"x" * 100_000) + b"\x00"
    async with tls_server(tmp_path, authority) as server:
        url = f"{server.url.replace('ws:', 'wss:')}/{ROOM}"
        async with (
            connect(url, ssl=trusting(authority), compression=None) as ann,
            connect(url, ssl=trusting(authority), compression=None) as bob,
        ):
            await ann.send(b"\x00\x02" + write_var_bytes(update))
            while True:
                frame = await asyncio.wait_for(bob.recv(), 5)
                assert isinstance(frame, bytes)
                if frame.startswith(b"\x00\x02"):
                    break
        assert read_var_bytes(frame, 2)[0] == update


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_versions_of_tls_are_refused(tmp_path: Path, authority: Authority) -> None:
    async with tls_server(tmp_path, authority) as server:
        context = trusting(authority)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1

        with pytest.raises((ssl.SSLError, ConnectionError)), socket.create_connection((HOST, server.port)) as plain:
            await asyncio.to_thread(context.wrap_socket, plain, server_hostname=HOST)


async def test_what_speaks_no_tls_is_closed_without_an_error(tmp_path: Path, authority: Authority) -> None:
    async with tls_server(tmp_path, authority) as server:
        reader, writer = await asyncio.open_connection(HOST, server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

        answer = await asyncio.wait_for(reader.read(), 5)

        assert not answer.startswith(b"HTTP")
        writer.close()
        assert await until(lambda: "limit_met limit='tls_handshake' count=1" in server.log, timeout_s=5)


async def test_a_handshake_has_a_deadline(tmp_path: Path, authority: Authority) -> None:
    async with tls_server(tmp_path, authority, handshake_timeout_s=0.5) as server:
        began_at = time.monotonic()
        reader, writer = await asyncio.open_connection(HOST, server.port)
        writer.write(b"\x16\x03\x01")  # the beginning of one

        assert await asyncio.wait_for(reader.read(), 5) == b""

        assert 0.4 < time.monotonic() - began_at < 3
        writer.close()


async def test_handshakes_are_as_many_as_may_be_and_the_oldest_gives_way(tmp_path: Path, authority: Authority) -> None:
    async with tls_server(tmp_path, authority, upgrades_max=3, handshake_timeout_s=60) as server:
        silent = [await asyncio.open_connection(HOST, server.port) for _ in range(4)]

        assert await asyncio.wait_for(silent[0][0].read(), 5) == b""

        url = f"{server.url.replace('ws:', 'wss:')}/{ROOM}"
        async with connect(url, ssl=trusting(authority)) as ann:
            assert await ann.recv()
        assert not silent[3][0].at_eof()
        for _, writer in silent:
            writer.close()


def test_a_renewed_certificate_is_taken_up_once_both_files_fit(tmp_path: Path, authority: Authority) -> None:
    chain, key = authority.certify()
    certificate = Certificate(chain, key)
    first = certificate.context
    new_chain, new_key = authority.certify("renewed")

    certificate.refresh()
    assert certificate.context is first
    new_chain.replace(chain)
    certificate.refresh()
    assert certificate.context is first
    new_key.replace(key)
    certificate.refresh()

    assert certificate.context is not first
    assert shown(certificate) == "renewed"


def test_a_link_that_points_elsewhere_is_a_renewal(tmp_path: Path, authority: Authority) -> None:
    """As Kubernetes and certbot do it."""
    for name in ("one", "two"):
        chain, key = authority.certify(name)
        (tmp_path / name).mkdir()
        (tmp_path / name / "all.pem").write_bytes(key.read_bytes() + chain.read_bytes())
    link = tmp_path / "live"
    link.symlink_to(tmp_path / "one")
    certificate = Certificate(link / "all.pem")
    assert shown(certificate) == "one"

    link.unlink()
    link.symlink_to(tmp_path / "two")
    certificate.refresh()

    assert shown(certificate) == "two"


def test_what_can_not_be_used_is_told_with_its_reason(tmp_path: Path, authority: Authority) -> None:
    chain, _ = authority.certify()
    _, other = authority.certify("other")
    (tmp_path / "junk.pem").write_text("junk")

    for files, reason in [
        ((tmp_path / "missing.pem", None), "No such file"),
        ((tmp_path / "junk.pem", None), "PEM"),
        ((chain, other), "mismatch"),
    ]:
        with pytest.raises(InvalidCertificate, match=reason):
            Certificate(*files)
    with pytest.raises(CannotServe, match="CRDT_SYNC_SSL_CERTFILE"):
        _certificate(Settings(ssl_certfile=tmp_path / "missing.pem"))
    with pytest.raises(InvalidSettings, match="SSL_CERTFILE"):
        Settings.read(ssl_keyfile=str(other))


def shown(certificate: Certificate) -> str:
    """The common name of the certificate that a client is shown."""
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = certificate.context.wrap_bio(ours, theirs, server_side=True)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = context.wrap_bio(theirs, ours)
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    found = client.getpeercert(binary_form=True)
    assert found is not None
    return _common_name(found)


def _common_name(der: bytes) -> str:
    (name,) = x509.load_der_x509_certificate(der).subject
    return str(name.value)
