"""Which credentials count no longer, though they haven't expired.

They are kept in the store. Nodes tell each other at once, and look into the store now and then for what they missed.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

from auth import Grant
from persistence import Revocation, RevocationKind, Store, StoreError

from .envelope import Kind
from .errors import Forbidden, Unauthorized
from .nodes import Nodes

log = logging.getLogger("crdt_sync.revocations")

LOOK_S = 20.0
# So long after the bus is back: what is told in the meantime is heard.
SOON_S = 1.0

_Key: TypeAlias = tuple[str, str]


class Revocations:
    """What is revoked, as far as this node knows.

    Args:
        store: Where it is kept.
        nodes: To be told, if there are any.
        leeway_s: How far the clock of whoever issues credentials may be ahead of ours. What seems to be issued so long
            after a revocation may have been issued before it.
    """

    def __init__(self, store: Store, nodes: Nodes | None = None, *, leeway_s: float = 0.0) -> None:
        self.concerned: Callable[[], None] = lambda: None
        """Called when there is a new one."""
        self._store = store
        self._nodes = nodes
        self._leeway_s = leeway_s
        self._known: dict[_Key, Revocation] = {}
        # Those of them that were seen in the store. Others are on their way there, on some node, or couldn't be stored.
        self._kept: set[_Key] = set()
        # Set at the start for what was revoked after `open`, when this node heard nothing yet.
        self._soon = asyncio.Event()
        self._soon.set()
        if nodes is not None:
            nodes.hear(Kind.REVOKED, self._receive)
            nodes.when_back(self._soon.set)

    def __iter__(self) -> Iterator[Revocation]:
        return iter(list(self._known.values()))

    async def open(self) -> None:
        """Read what is kept.

        Raises:
            StoreError: That failed. Then nobody may be let in.
        """
        await self._look()

    async def run(self) -> None:
        """Look into the store now and then, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._soon.wait()
                await asyncio.sleep(SOON_S)
            except TimeoutError:
                pass
            self._soon.clear()
            try:
                await self._look()
            except StoreError as error:
                log.warning("revocations_not_read", extra={"error": str(error)})
            self._forget()

    async def revoke(self, revocation: Revocation) -> None:
        """Revoke, on all nodes.

        Raises:
            StoreError: It holds now, but a node that starts later won't know of it. Do it again.
        """
        log.info("revoked", extra={"kind": revocation.kind, "until": revocation.until.isoformat()})
        self._learn([revocation])
        if self._nodes is not None:
            self._nodes.tell(Kind.REVOKED, _encode(revocation))
        await self._store.revoke(revocation)

    async def unrevoke(self, kind: RevocationKind, value: str) -> bool:
        """Take one back, on all nodes; returns whether there was one.

        Raises:
            StoreError: It holds still.
        """
        was_kept = await self._store.unrevoke(kind, value)
        was_known = self._drop((kind, value))
        if self._nodes is not None:
            self._nodes.tell(Kind.REVOKED, _encode_taken_back(kind, value))
        return was_kept or was_known

    def check(self, grant: Grant, room: str | None) -> None:
        """Check that a grant still counts, in a room if it is about one.

        Raises:
            Unauthorized: The user or the token was revoked.
            Forbidden: All that was granted for this room was.
        """
        for kind, value in (("token", grant.token_id), ("user", grant.user), ("room", room)):
            found = self._known.get((kind, value)) if value is not None else None
            if found is None or (kind != "token" and self._is_later(grant, found)):
                continue
            if kind == "room":
                raise Forbidden("what was granted for this room was revoked")
            raise Unauthorized(f"the {kind} was revoked", reason="credential revoked")

    def _is_later(self, grant: Grant, revocation: Revocation) -> bool:
        issued_at = grant.issued_at or 0.0
        return issued_at > revocation.revoked_at.timestamp() + self._leeway_s

    async def _look(self) -> None:
        """Know what is in the store, and no longer what was taken out of it."""
        found = await self._store.revocations(now=datetime.now(UTC))
        kept: set[_Key] = {(one.kind, one.value) for one in found}
        for key in self._kept - kept:
            self._drop(key)
        self._kept = kept
        self._learn(found)

    def _learn(self, revocations: Iterable[Revocation]) -> None:
        news = False
        for one in revocations:
            known = self._known.get((one.kind, one.value))
            news = news or known is None or known.revoked_at < one.revoked_at
            # As the store does: the latest of both counts, so that nothing shortens what was said before.
            self._known[one.kind, one.value] = one if known is None else _union(known, one)
        if news:
            self.concerned()

    def _drop(self, key: _Key) -> bool:
        self._kept.discard(key)
        return self._known.pop(key, None) is not None

    def _forget(self) -> None:
        now = datetime.now(UTC)
        for key, one in list(self._known.items()):
            if one.until <= now:
                self._drop(key)

    def _receive(self, body: bytes) -> None:
        try:
            found = json.loads(body)
            if found.get("taken_back"):
                self._drop((found["kind"], found["value"]))
            else:
                self._learn([_decode(found)])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("bus_message_ignored", extra={"error": str(error)})


def _union(one: Revocation, other: Revocation) -> Revocation:
    revoked_at, until = max(one.revoked_at, other.revoked_at), max(one.until, other.until)
    return replace(one, revoked_at=revoked_at, until=until)


def _encode(one: Revocation) -> bytes:
    times = {"revoked_at": one.revoked_at.isoformat(), "until": one.until.isoformat()}
    return json.dumps({"kind": one.kind, "value": one.value, **times}).encode()


def _encode_taken_back(kind: RevocationKind, value: str) -> bytes:
    # Nodes that don't know of it miss the times and pass it over.
    return json.dumps({"kind": kind, "value": value, "taken_back": True}).encode()


def _decode(found: dict[str, Any]) -> Revocation:
    times = (datetime.fromisoformat(found[name]) for name in ("revoked_at", "until"))
    revoked_at, until = times
    return Revocation(found["kind"], found["value"], revoked_at=revoked_at, until=until)
