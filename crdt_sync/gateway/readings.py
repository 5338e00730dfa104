"""What is read of a running server, rather than counted, when somebody asks for its metrics."""

import asyncio
import platform
import time
from importlib.metadata import version

from ..load import memory_bytes
from ..metrics import Sample
from ..pacing import unhurried
from .parts import Parts


async def take_readings(parts: Parts) -> list[Sample]:
    """Everything that `Metrics.snapshot` wants to know. Takes its time where there are many rooms and connections."""
    updates = waiting_bytes = outbox_bytes = 0
    rooms = list(parts.rooms)
    async for room in unhurried(rooms):
        count, size = room.waiting
        updates += count
        waiting_bytes += size
    async for stay in unhurried(parts.sessions):
        outbox_bytes += stay.connection.outbox_bytes
    readiness, journal = parts.readiness, parts.journal
    ready = not await readiness.problems()
    versions = (version("crdt-sync"), version("pycrdt"), platform.python_version())
    values = {
        "ready": ready,
        "draining": readiness.draining,
        "connections": len(parts.sessions),
        "rooms": len(rooms),
        "outbox_bytes": outbox_bytes,
        "journal_backlog_bytes": journal.unstored_bytes,
        "journal_backlog_age_seconds": journal.backlog_age_s(now=asyncio.get_running_loop().time()),
        "waiting_updates": updates,
        "waiting_update_bytes": waiting_bytes,
        "load_level": parts.load.level,
        "memory_bytes": memory_bytes(),
        "cpu_seconds_total": time.process_time(),
    }
    if parts.bus is not None:
        values["bus_up"] = parts.bus.problem is None
    return [
        Sample("build_info", versions, 1),
        *(Sample(name, (), float(value)) for name, value in values.items()),
    ]
