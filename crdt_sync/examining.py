"""Finding out how things are with what a server depends on, by using it: the configured database, Redis, keys, limits."""

import os
import resource
import secrets
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from auth import KeysUnavailable
from persistence import Entry, Store, StoreError, StoreInUse, open_archive

from .accepting import BACKLOG
from .bus import BusUnavailable, InvalidBusUrl
from .bus.redis_facts import read_facts
from .checkups import (
    Finding,
    bad,
    doubtful,
    good,
    judge_clock,
    judge_commit,
    judge_limits,
    judge_redis,
    judge_schema,
    judge_settings,
    judge_store,
    skew_s,
)
from .keys import configured_verifier
from .limits import Capacity
from .settings import PREFIX, Settings
from .stores import make_store

# No server has it open, and none of the names that people give is like it.
TRIAL: Final = "crdt-sync-doctor-"
# Yjs' empty update.
_NOTHING: Final = b"\0\0"
_REDIS_TIMEOUT_S: Final = 5.0


async def examine(settings: Settings) -> AsyncGenerator[Finding, None]:
    """Look at all that is configured, part by part."""
    try:
        store = make_store(settings)
    except StoreError as error:
        yield bad("store", str(error), f"set {PREFIX}DATABASE_URL (docs/reference/settings.md)")
        return
    for one in judge_settings(settings, cores=os.cpu_count() or 1, shared=store.shared):
        yield one
    for examined in (_keys(settings), _store(store, settings), _archive(settings), _redis(settings), _limits(settings)):
        async for one in examined:
            yield one


async def _keys(settings: Settings) -> AsyncGenerator[Finding, None]:
    verifier = configured_verifier(settings)
    if verifier is None or settings.jwt_jwks is None:
        return
    try:
        count = await verifier.published_keys()
    except KeysUnavailable as error:
        yield bad(
            "keys", str(error), f"look whether {PREFIX}JWT_JWKS can be reached from here: nobody gets in otherwise"
        )
        return
    if count:
        yield good("keys", f"{count} published key{'' if count == 1 else 's'} can be fetched")
    else:
        yield bad("keys", "what is published has no key of use", "RSA from 2048 bits on, P-256 and Ed25519 are")


async def _store(store: Store, settings: Settings) -> AsyncGenerator[Finding, None]:
    where = store.describe()
    try:
        schema = judge_schema(await store.schema(), migrates=settings.database_migrate)
        yield schema
        if schema.verdict != "good":
            return
        await store.open()
    except StoreInUse:
        yield good("store", f"{where} is in use by a server, which looks after it: --url asks that one")
        return
    except StoreError as error:
        yield bad("store", str(error), "nothing can be opened or stored without it (docs/how-to/use-postgresql.md)")
        return
    try:
        asked_at = datetime.now(UTC)
        facts = await store.facts()
        answered_at = datetime.now(UTC)
        for one in judge_store(facts, settings, shared=store.shared):
            yield one
        yield await _try(store)
        if store.shared:
            yield judge_clock("store", skew_s(facts.now, asked_at, answered_at))
    except StoreError as error:
        yield bad("store", str(error), "edits can't be stored like this")
    finally:
        await store.close()


async def _try(store: Store) -> Finding:
    """Store a document, read it, and delete it again, for good."""
    name = TRIAL + secrets.token_hex(8)
    begun = time.monotonic()
    await store.append([Entry(name, [_NOTHING], accepted_at=datetime.now(UTC))])
    commit_s = time.monotonic() - begun
    try:
        stored = await store.load(name)
    finally:
        await store.delete(name, at=datetime.now(UTC))
        await store.purge(name)
    if [*stored.updates] != [_NOTHING]:
        return bad("store", "what was stored isn't what is read", "run crdt-sync verify, and look at the disk")
    return judge_commit(commit_s)


async def _archive(settings: Settings) -> AsyncGenerator[Finding, None]:
    if settings.archive_url is None:
        return
    try:
        archive = open_archive(settings.archive_url)
    except StoreError as error:
        yield bad("archive", str(error), "docs/how-to/archive-versions.md says how it is set up")
        return
    try:
        await archive.check()
        yield good("archive", f"{archive.describe()} can be written, read and emptied")
    except StoreError as error:
        yield bad("archive", str(error), "old versions stay in the database until it works")
    finally:
        archive.close()


async def _redis(settings: Settings) -> AsyncGenerator[Finding, None]:
    if settings.redis_url is None:
        return
    asked_at = datetime.now(UTC)
    try:
        servers = await read_facts(settings.redis_url, timeout_s=_REDIS_TIMEOUT_S)
    except (BusUnavailable, InvalidBusUrl) as error:
        yield bad(
            "redis", str(error), "nodes don't hear of each other's edits without it (docs/how-to/run-several-nodes.md)"
        )
        return
    answered_at = datetime.now(UTC)
    for server in servers:
        for one in judge_redis(server):
            yield one
        # Marks of what isn't stored yet have its time.
        yield judge_clock("redis", skew_s(server.now, asked_at, answered_at))


async def _limits(settings: Settings) -> AsyncGenerator[Finding, None]:
    system = {}
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY:
        system["files"] = files
    if (somaxconn := _read_number(Path("/proc/sys/net/core/somaxconn"))) is not None:
        system["somaxconn"] = somaxconn
    capacity = Capacity.within(settings, system.get("files", 1 << 30))
    for one in judge_limits(settings, capacity, system=system, backlog=BACKLOG):
        yield one
    if not system:
        yield doubtful("limits", "this system doesn't tell its limits", "see that enough files may be open")


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
