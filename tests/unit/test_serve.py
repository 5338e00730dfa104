"""What the server listens with."""

import resource
import socket
import subprocess
import sys
from pathlib import Path

from crdt_sync.limits import Capacity
from crdt_sync.serve import _capacity, _listen
from crdt_sync.settings import Settings


def test_connections_send_small_frames_at_once() -> None:
    """With Nagle's algorithm, the second of two frames waits for the acknowledgement of the first, up to 40 ms."""
    with _listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
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


# What a server does that it didn't at its start: opens a room, and proves a state in another process.
FIRST_USES = """
import asyncio, sys
from crdt_sync.checkpoints import Checkpoints
from crdt_sync.document import Document
from crdt_sync.server import _warm_up
from persistence.memory import MemoryStore

async def main():
    _warm_up()
    known = set(sys.modules)
    checkpoints = Checkpoints(MemoryStore())
    print(await checkpoints._prove_elsewhere(Document().state()), sorted(set(sys.modules) - known))
    checkpoints.close()

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_nothing_is_imported_while_people_are_served(tmp_path: Path) -> None:
    """Compiling modules took 50 ms, in which nobody else's messages were passed on."""
    (tmp_path / "script.py").write_text(FIRST_USES)

    ran = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=60)

    assert (ran.stdout, ran.returncode) == ("True []\n", 0), ran.stderr
