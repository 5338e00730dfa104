"""Which credentials count no longer, though they haven't expired.

They are kept in the store. Nodes tell each other at once, and look into the store now and then for what they missed.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from auth import Grant
from persistence import Revocation, RevocationKind, Store, StoreError

from .envelope import Kind
from .errors import Forbidden, Unauthorized
from .nodes import Nodes

log = logging.getLogger("crdt_sync.revocations")

LOOK_S = 20.0


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
        self._known: dict[tuple[str, str], Revocation] = {}
        if nodes is not None:
            nodes.hear(Kind.REVOKED, self._receive)

    def __iter__(self) -> Iterator[Revocation]:
        return iter(list(self._known.values()))

    async def open(self) -> None:
        """Read what is kept.

        Raises:
            StoreError: That failed. Then nobody may be let in.
        """
        self._learn(await self._store.revocations(now=datetime.now(UTC)))

    async def run(self) -> None:
        """Look into the store now and then, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                kept = await self._store.revocations(now=datetime.now(UTC))
            except StoreError as error:
                log.warning("revocations_not_read", extra={"error": str(error)})
                continue
            self._learn(kept)
            self._forget()

    async def revoke(self, revocation: Revocation) -> None:
        """Revoke, on all nodes.

        Raises:
            StoreError: It holds now, but a node that starts later won't know of it. Do it again.
        """
        log.warning("revoked", extra={"kind": revocation.kind, "until": revocation.until.isoformat()})
        self._learn([revocation])
        if self._nodes is not None:
            self._nodes.tell(Kind.REVOKED, _encode(revocation))
        await self._store.revoke(revocation)

    async def unrevoke(self, kind: RevocationKind, value: str) -> bool:
        """Take one back, here at once and on other nodes when they look next; returns whether there was one."""
        self._known.pop((kind, value), None)
        return await self._store.unrevoke(kind, value)

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

    def _learn(self, revocations: Iterable[Revocation]) -> None:
        news = False
        for one in revocations:
            known = self._known.get((one.kind, one.value))
            if known is None or known.revoked_at < one.revoked_at:
                self._known[one.kind, one.value] = one
                news = True
        if news:
            self.concerned()

    def _forget(self) -> None:
        now = datetime.now(UTC)
        for key, one in list(self._known.items()):
            if one.until <= now:
                del self._known[key]

    def _receive(self, body: bytes) -> None:
        try:
            self._learn([_decode(body)])
        except (ValueError, KeyError, TypeError) as error:
            log.warning("bus_message_ignored", extra={"error": str(error)})


def _encode(one: Revocation) -> bytes:
    times = {"revoked_at": one.revoked_at.isoformat(), "until": one.until.isoformat()}
    return json.dumps({"kind": one.kind, "value": one.value, **times}).encode()


def _decode(body: bytes) -> Revocation:
    found = json.loads(body)
    times = (datetime.fromisoformat(found[name]) for name in ("revoked_at", "until"))
    revoked_at, until = times
    return Revocation(found["kind"], found["value"], revoked_at=revoked_at, until=until)
