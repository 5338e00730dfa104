import asyncio
from contextlib import suppress

from crdt_sync.bus import EVERYONE
from crdt_sync.bus.memory import Hub, MemoryBus
from crdt_sync.envelope import Envelope, Kind, encode
from crdt_sync.nodes import Nodes


async def test_messages_to_all_nodes_reach_their_handlers_and_unknown_ones_are_counted() -> None:
    hub = Hub()
    mine, others = MemoryBus(hub), MemoryBus(hub)
    await mine.open()
    await others.open()
    nodes = Nodes(mine, lost=lambda node: None, missed=lambda node: None)
    heard: list[bytes] = []
    done = asyncio.Event()
    nodes.hear(Kind.DELETED, heard.append)
    nodes.hear(Kind.REVOKED, lambda body: done.set())
    running = asyncio.create_task(nodes.run())
    await asyncio.sleep(0)
    source = bytes.fromhex(others.node) + bytes(4)

    others.publish(EVERYONE, encode(Envelope(Kind.DELETED, source, body=b"trip-1")), keep=False)
    others.publish(EVERYONE, encode(Envelope(4711, source, body=b"from the future")), keep=False)
    others.publish(EVERYONE, b"\xff", keep=False)
    others.publish(EVERYONE, encode(Envelope(Kind.REVOKED, source)), keep=False)
    async with asyncio.timeout(5):
        await done.wait()

    assert heard == [b"trip-1"]
    assert nodes.ignored == 2
    assert bytes.fromhex(others.node) not in nodes.living()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
