"""The databases that benchmarks measure on: each fresh, on this machine, and gone afterwards.

PostgreSQL waits for the disk here, as in production; the tests' doesn't.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from tests.support.postgres import PostgresServer
from tests.support.services import Unavailable

KINDS = ("sqlite", "postgres")


def add_database_option(parser: argparse.ArgumentParser) -> None:
    """Add `--database`, to be given to `database`."""
    parser.add_argument(
        "--database",
        nargs="+",
        default=list(KINDS),
        metavar="KIND",
        help="sqlite, postgres (both private), or the URL of a PostgreSQL database that may be filled with rubbish",
    )


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder."""
    path = Path(tempfile.mkdtemp(prefix="crdt-sync-benchmark-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def private_postgres(*, settings: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    """A PostgreSQL that waits for the disk. Ends the program with a sentence where there is none."""
    try:
        server = PostgresServer(durable=True, settings=settings)
    except Unavailable as reason:
        raise SystemExit(str(reason)) from reason
    with server:
        yield server


@contextmanager
def database(kind: str, path: Path) -> Iterator[str]:
    """A database.

    Args:
        kind: What `--database` was given.
        path: An existing folder for the SQLite file.

    Yields:
        Its URL.
    """
    if kind == "sqlite":
        yield f"sqlite:///{path / 'documents.db'}"
    elif kind == "postgres":
        with private_postgres() as server:
            yield server.create_database()
    elif kind.startswith(("postgres://", "postgresql://")):
        yield kind
    else:
        raise SystemExit(f"--database takes sqlite, postgres or a postgresql:// URL, not {kind!r}")


def flush_ms(path: Path) -> float:
    """What it takes to append 4 KiB to a file in the folder and have it on disk: the median of 50 times."""
    took = []
    name = path / "flush"
    descriptor = os.open(name, os.O_CREAT | os.O_WRONLY)
    try:
        for _ in range(50):
            started = perf_counter()
            os.write(descriptor, bytes(4096))
            os.fdatasync(descriptor)
            took.append(perf_counter() - started)
    finally:
        os.close(descriptor)
        name.unlink()
    return statistics.median(took) * 1000
