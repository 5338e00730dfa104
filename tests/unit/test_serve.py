"""What the server listens with."""

import resource
import socket

from crdt_sync.limits import Capacity
from crdt_sync.serve import _capacity, _listen
from crdt_sync.settings import Settings


def test_connections_send_small_frames_at_once() -> None:
    """With Nagle's algorithm, the second of two frames waits for the acknowledgement of the first, up to 40 ms."""
    with _listen(Settings(port=0)) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_a_process_may_open_as_many_files_as_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] // 2, before[1]))

    capacity = _capacity(Settings())

    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    assert capacity == Capacity.within(Settings(), before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
