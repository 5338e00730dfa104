"""`crdt-sync` as its users run it, and databases to run it on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from persistence import Export, Store, open_store

ROOT = Path(__file__).parents[2]
T = TypeVar("T")


@dataclass
class Result:
    """What a command did."""

    code: int
    out: str
    err: str


def run_outside(
    *arguments: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None, stdin: bytes | None = None
) -> Result:
    """Run `crdt-sync` in a process of its own, which gets `stdin`, or the end of it."""
    done = subprocess.run(
        [sys.executable, "-m", "crdt_sync", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        input=stdin or b"",
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def with_store(url: str, job: Callable[[Store], Awaitable[T]]) -> T:
    """Do something with the store at `url`, and close it."""

    async def work() -> T:
        store = open_store(url)
        await store.open()
        try:
            return await job(store)
        finally:
            await store.close()

    return asyncio.run(work())


def fill(url: str, *exports: Export) -> None:
    """Put documents into a database, which is made if need be."""

    async def put(store: Store) -> None:
        for export in exports:
            await store.put(export)

    with_store(url, put)


def content(url: str) -> list[Export | None]:
    """All documents of a database with their past, deleted ones too, by name."""

    async def read(store: Store) -> list[Export | None]:
        heads = sorted([*await store.documents(), *await store.documents(deleted=True)])
        return [await store.export(head.name, deleted=True, history=True) for head in heads]

    return with_store(url, read)
