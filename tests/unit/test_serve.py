"""What the server listens with."""

import socket

from crdt_sync.serve import _listen
from crdt_sync.settings import Settings


def test_connections_send_small_frames_at_once() -> None:
    """With Nagle's algorithm, the second of two frames waits for the acknowledgement of the first, up to 40 ms."""
    with _listen(Settings(port=0)) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
