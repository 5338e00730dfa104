"""A client's fresh tokens. What they do is in `tests/interop/test_grants.py`."""

import gc
import weakref
from typing import Any, cast

from auth.credentials import Credentials
from crdt_sync.connection import Connection
from crdt_sync.gateway.visit import Renewal
from tests.support.fakes import FakeTransport, in_virtual_time


@in_virtual_time
async def test_a_connection_that_is_gone_is_not_left_to_the_garbage_collector() -> None:
    connection = Connection(FakeTransport(), outbox_bytes_max=100, now=0)
    renewal = Renewal(cast(Any, None), connection, cast(Credentials, None))
    gone = weakref.ref(connection)
    gc.disable()
    try:
        renewal.close()
        del connection, renewal

        assert gone() is None
    finally:
        gc.enable()
