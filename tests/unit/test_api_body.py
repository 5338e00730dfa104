"""The body of a request to the HTTP API."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
from starlette.requests import Request
from starlette.types import Message

from auth import OPEN
from crdt_sync import Settings
from crdt_sync.gateway.access import Access
from crdt_sync.gateway.calls import BODY_TIMEOUT_S, Call
from crdt_sync.gateway.parts import Parts
from crdt_sync.gateway.problems import Problem
from crdt_sync.revocations import Revocations
from persistence.memory import MemoryStore
from tests.support.fakes import in_virtual_time


@in_virtual_time
async def test_a_body_without_end_is_given_up() -> None:
    sent = 0

    async def receive() -> Message:
        nonlocal sent
        sent += 1
        await asyncio.sleep(1)
        return {"type": "http.request", "body": b"x", "more_body": True}

    settings = Settings()
    access = Access(None, settings, Revocations(MemoryStore()))
    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    call = Call(request, cast(Parts, SimpleNamespace(access=access)), settings, OPEN, {})

    with pytest.raises(Problem) as problem:
        await call.body(1 << 20)

    assert problem.value.status == 408
    assert sent == pytest.approx(BODY_TIMEOUT_S, abs=1)
