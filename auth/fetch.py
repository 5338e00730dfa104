"""Where a JWKS is, and reading it: bounded in bytes and time, without holding up the event loop.

The home of httpx2, which is httpx as it is kept up today. `urllib` in a thread would need no library, but can't be ended: a server that sends a byte now and then
would hold a thread for days.
"""

import asyncio
import ipaddress
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx2

BYTES_MAX: Final = 256 << 10
TIMEOUT_S: Final = 5.0
REDIRECTS_MAX: Final = 3


class FetchFailed(Exception):
    """It couldn't be read this time."""


class FileSource:
    """A file on this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def describe(self) -> str:
        """Where it is, for people."""
        return str(self._path)

    async def read(self) -> bytes:
        """Read all of it.

        Raises:
            FetchFailed: There is no such file, or it is too large.
        """
        return await asyncio.to_thread(self.read_now)

    def read_now(self) -> bytes:
        """Like `read`, for when no event loop is running yet."""
        try:
            if not self._path.is_file():
                raise FetchFailed("there is no such file")
            with self._path.open("rb") as file:
                body = file.read(BYTES_MAX + 1)
        except OSError as error:
            raise FetchFailed(error.strerror or "it can't be read") from error
        return _bounded(body)


class WebSource:
    """An https URL; http only on this machine."""

    def __init__(self, url: str) -> None:
        """Raises ValueError if it is no such URL. The text repeats nothing of it, since it may hold a password."""
        try:
            self._url = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise ValueError("is no URL") from error
        if not _may_be_read(self._url):
            raise ValueError("is neither an https URL, an http URL on loopback, nor a file")
        self._tls: ssl.SSLContext | None = None

    def describe(self) -> str:
        """Where it is, for people: without a user, a password and a query."""
        return str(self._url.copy_with(username=None, password=None, query=None, fragment=None))

    async def read(self) -> bytes:
        """Fetch it.

        Raises:
            FetchFailed: The server can't be reached, takes more than 5 s, or doesn't answer with at most 256 KiB.
        """
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._fetch()
        except TimeoutError as error:
            raise FetchFailed(f"it took longer than {TIMEOUT_S:.0f} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise FetchFailed(type(error).__name__) from error

    async def _fetch(self) -> bytes:
        # Making the first loads half the library, and reads all certificates.
        async with await asyncio.to_thread(self._client) as client:
            # Not compressed: what a few bytes unpack to has no bound.
            headers = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
            request = client.build_request("GET", self._url, headers=headers)
            for _ in range(REDIRECTS_MAX + 1):
                response = await client.send(request, stream=True)
                try:
                    if response.next_request is None:
                        return await _body(response)
                    request = response.next_request
                finally:
                    await response.aclose()
                if request.url.scheme != self._url.scheme or not _may_be_read(request.url):
                    raise FetchFailed("it redirects to where keys may not come from")
            raise FetchFailed("it redirects too often")

    def _client(self) -> httpx2.AsyncClient:
        if self._tls is None:
            self._tls = httpx2.create_ssl_context()
        return httpx2.AsyncClient(
            verify=self._tls,
            trust_env=not _is_loopback(self._url.host),  # a proxy doesn't reach this machine's loopback
            timeout=TIMEOUT_S,
            follow_redirects=False,
        )


def source_of(location: str) -> FileSource | WebSource:
    """Return what a setting names.

    Raises:
        ValueError: It names nothing that can be read. The text says why.
    """
    if not location:
        raise ValueError("is empty")
    if location.lower().startswith("file:"):
        parts = urlsplit(location)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ValueError("is no file URL: file:///absolute/path.json")
        return FileSource(Path(url2pathname(parts.path)))
    if "://" in location:
        return WebSource(location)
    return FileSource(Path(location))


async def _body(response: httpx2.Response) -> bytes:
    if response.status_code != 200:
        raise FetchFailed(f"the answer is {response.status_code}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise FetchFailed("the answer is compressed, though it may not be")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        _bounded(body)
    return bytes(body)


def _bounded(body: bytes | bytearray) -> bytes:
    if len(body) > BYTES_MAX:
        raise FetchFailed(f"it has more than {BYTES_MAX} bytes")
    return bytes(body) if isinstance(body, bytearray) else body


def _may_be_read(url: httpx2.URL) -> bool:
    return bool(url.host) and (url.scheme == "https" or (url.scheme == "http" and _is_loopback(url.host)))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
