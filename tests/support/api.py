"""Requests to a server's HTTP API, and tokens that it takes."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .tokens import SECRET, hs256

GUARDED = {"CRDT_SYNC_JWT_SECRET": SECRET}
"""The environment of a server that asks for tokens."""


def token(user: str = "ann", rooms: Mapping[str, str] | None = None, *, ttl_s: float = 600, **claims: object) -> str:
    """A token for now; without `rooms`, for writing everywhere."""
    now = time.time()
    granted = {"*": "write"} if rooms is None else dict(rooms)
    return hs256({"sub": user, "iat": int(now), "exp": now + ttl_s, "rooms": granted, **claims})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered with."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON; None if there is none."""
        return json.loads(self.body) if self.body else None


async def request(
    url: str,
    method: str,
    path: str,
    *,
    bearer: str | None = None,
    body: bytes | dict[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request to the server at `ws://host:port` and return its answer."""
    sent = dict(headers or {})
    if bearer is not None:
        sent["Authorization"] = f"Bearer {bearer}"
    content = json.dumps(body).encode() if isinstance(body, dict) else body

    def ask() -> Answer:
        connection = http.client.HTTPConnection(url.removeprefix("ws://"), timeout=15)
        try:
            connection.request(method, path, body=content, headers=sent)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    return await asyncio.to_thread(ask)
