"""What an edit by the server's own code costs, and how long it holds up the event loop, by the size of the document.

python -m benchmarks.server_edits
"""

import asyncio
import time

from pycrdt import Text

from crdt_sync import Settings, create_app

ITEMS = {
    "1 MB in 1 item": (1, 1_000_000),
    "1 MB in 10,000 items": (10_000, 100),
    "1 MB in 100,000 items": (100_000, 10),
}


async def main() -> None:
    """Print a line for each kind of document."""
    sync = create_app(Settings(database_url="memory://"))
    async with sync.lifespan():
        for kind, (count, size) in {"empty": (0, 0), **ITEMS}.items():
            async with sync.rooms.edit(kind) as doc:
                text = doc.get("text", type=Text)
                with doc.transaction():
                    for _ in range(count):
                        text.insert(0, "x" * size)
            print(f"{kind:>24}: {await _measure(sync, kind)}")


async def _measure(sync: object, room: str) -> str:
    held_up = _HeldUp()
    watching = asyncio.create_task(held_up.watch())
    copying, ending = [], []
    for _ in range(5):
        began = time.perf_counter()
        async with sync.rooms.edit(room, stored=False) as doc:  # type: ignore[attr-defined]
            copied = time.perf_counter()
            doc.get("text", type=Text).insert(0, "x")
            edited = time.perf_counter()
        ending.append(time.perf_counter() - edited)
        copying.append(copied - began)
    watching.cancel()
    parts = (("copy", min(copying)), ("end", min(ending)), ("longest step", held_up.longest_s))
    return ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in parts)


class _HeldUp:
    longest_s = 0.0

    async def watch(self) -> None:
        # Of its own time: others on the machine hold it up, too.
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest_s = max(self.longest_s, now - last)
            last = now


if __name__ == "__main__":
    asyncio.run(main())
