"""`crdt-sync` as its users run it, and databases to run it on."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from unittest import mock

from crdt_sync import cli
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


_inside = threading.Lock()


def run_inside(*arguments: str | Path, env: Mapping[str, str], stdin: bytes | None = None) -> Result:
    """Do the same in this process: it has loaded already what takes half a second. One at a time."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CRDT_SYNC_")}
    with (
        _inside,
        mock.patch.dict(os.environ, {**clean, **env}, clear=True),
        mock.patch("crdt_sync.logs.configure"),
        mock.patch.object(
            logging.root, "handlers", [logging.NullHandler()]
        ),  # those of other tests write to what is closed
        mock.patch.multiple(sys, stdin=io.TextIOWrapper(io.BytesIO(stdin or b"")), stdout=out, stderr=err),
    ):
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    for stream in (out, err):
        stream.flush()
    return Result(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))


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
