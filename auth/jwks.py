"""Keys that somebody else publishes and replaces (RFC 7517).

Owns when they are fetched: at the start, every ten minutes, and when a token names a key that isn't known, but not more than
once in ten seconds, however many such tokens come. Everybody who waits shares one fetch. While it fails, the old keys go on
being used. Leaves the bytes to `fetch`, and what a single key is to `keys`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

from .claims import read_json
from .errors import KeysUnavailable
from .fetch import FetchFailed, FileSource, WebSource
from .keys import Key, UnsuitableKey, jwk_key

log = logging.getLogger("auth.jwks")

KEYS_MAX: Final = 100
REFRESH_S: Final = 600.0
AGAIN_S: Final = 10.0


class Jwks:
    """A set of keys that is kept up to date."""

    def __init__(
        self,
        source: FileSource | WebSource,
        *,
        refresh_s: float = REFRESH_S,
        again_s: float = AGAIN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare, fetch nothing.

        Args:
            source: Where the keys are.
            refresh_s: How often they are fetched anyway.
            again_s: How long there is no other fetch after one, whatever for.
            clock: Monotonic seconds.
        """
        self._source = source
        self._refresh_s = refresh_s
        self._again_s = again_s
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._failure: str | None = None
        self._may_fetch_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to fetch. Doesn't wait for the keys: those who need them do."""
        self._may_fetch_at = float("-inf")
        self._keeping = asyncio.create_task(self._keep_fresh(), name="jwks")

    async def close(self) -> None:
        """Stop fetching. The keys stay."""
        self._may_fetch_at = float("inf")
        tasks = [task for task in (self._keeping, self._fetching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._keeping = None

    async def count(self) -> int:
        """Fetch them now, unless that was done just before, and tell how many there are.

        Raises:
            KeysUnavailable: They can't be had.
        """
        await self._refresh()
        if self._failure is not None:
            raise KeysUnavailable(f"no keys from {self._source.describe()}: {self._failure}")
        return len(self._keys)

    async def find(self, algorithm: str, kid: str | None) -> tuple[Key, ...]:
        """Return the keys that a token may be signed with, none if the set has no such key.

        Args:
            algorithm: What the token says. It only chooses among keys that are for that.
            kid: What the token calls its key. Without it, only a set with a single key will do.

        Raises:
            KeysUnavailable: The keys couldn't be had, or not lately and the token's isn't among the old ones.
        """
        if not self._knows(kid):
            await self._refresh()
        if not self._knows(kid) and (self._failure is not None or not self._keys):
            raise KeysUnavailable(f"no keys from {self._source.describe()}")
        return tuple(key for key in self._called(kid) if key.algorithm == algorithm)

    def _knows(self, kid: str | None) -> bool:
        # Fetching won't tell which of several keys is meant.
        return bool(self._called(kid)) or (kid is None and bool(self._keys))

    def _called(self, kid: str | None) -> tuple[Key, ...]:
        if kid is None:
            return self._keys if len(self._keys) == 1 else ()
        return tuple(key for key in self._keys if key.kid == kid)

    async def _keep_fresh(self) -> None:
        while True:
            await self._refresh()
            await asyncio.sleep(self._refresh_s if self._failure is None else self._again_s)

    async def _refresh(self) -> None:
        if self._fetching is None:
            now = self._clock()
            if now < self._may_fetch_at:
                return
            self._may_fetch_at = now + self._again_s
            self._fetching = asyncio.create_task(self._fetch(), name="jwks-fetch")
        # Who stops waiting doesn't end it for the others.
        await asyncio.wait({self._fetching})

    async def _fetch(self) -> None:
        where = self._source.describe()
        try:
            body = await self._source.read()
            self._keys, skipped = await asyncio.to_thread(read_jwks, body)
            if self._failure is not None:
                log.info("jwks_recovered", extra={"source": where})
            self._failure = None
            log.info("jwks_read", extra={"source": where, "keys": len(self._keys), "skipped": len(skipped)})
            if not self._keys:
                log.warning("jwks_without_keys", extra={"source": where, "skipped": "; ".join(skipped)})
        except FetchFailed as error:
            if self._failure is None:
                log.warning("jwks_failing", extra={"source": where, "error": str(error), "keys": len(self._keys)})
            self._failure = str(error)
        except Exception as error:
            log.exception("jwks_failing", extra={"source": where, "keys": len(self._keys)})
            self._failure = repr(error)
        finally:
            self._fetching = None


def read_jwks(body: bytes) -> tuple[tuple[Key, ...], list[str]]:
    """Read a JWKS.

    Returns:
        The keys that can verify tokens, and for each of the others what is wrong with it.

    Raises:
        FetchFailed: It isn't one, or it has more than 100 keys.
    """
    try:
        entries = read_json(body).get("keys")
    except ValueError as error:
        raise FetchFailed(str(error)) from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise FetchFailed("it has no list of keys")
    if len(entries) > KEYS_MAX:
        raise FetchFailed(f"it has {len(entries)} keys, of at most {KEYS_MAX}")
    return _suitable(entries)


def _suitable(entries: Iterable[dict[str, object]]) -> tuple[tuple[Key, ...], list[str]]:
    keys: list[Key] = []
    skipped: list[str] = []
    for entry in entries:
        try:
            keys.append(jwk_key(entry))
        except UnsuitableKey as error:
            skipped.append(f"{entry.get('kid')!r:.80} {error}")
    return tuple(keys), skipped
