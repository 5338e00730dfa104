"""Documents as other servers keep them, read where they lie and never changed.

Owns their layouts, and what a document's updates amount to. Leaves where they go to whoever asks.
"""

import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import unquote

from .document import State
from .errors import MalformedUpdate, ProtocolError
from .lib0 import read_var_bytes
from .pacing import at_once
from .replay import replaying
from .update import read_update

FILE_SUFFIX: Final = ".bin"
_VERSION: Final = b"VERSION:"
_KNOWN: Final = b"VERSION:2\n"


T = TypeVar("T")


class Unreadable(Exception):
    """There is no such store here, or it isn't one. The text says what was expected."""


@dataclass(slots=True)
class Found:
    """What is kept of one document."""

    updates: list[bytes]
    """In the order in which they were stored."""
    problems: list[str]
    """What couldn't be read, and is left out of `updates`; for people."""


Reading: TypeAlias = Mapping[str, Callable[[], Found]]
"""By name, how to read each document."""


@contextmanager
def opened(kind: str, path: Path) -> Iterator[Reading]:
    """Open a store of one of `KINDS`.

    Yields:
        Its documents.

    Raises:
        Unreadable: There is none at `path`.
    """
    with KINDS[kind](path) as documents:
        yield documents


def amount_to(updates: Sequence[bytes]) -> State:
    """Put a document together from updates, each of which was checked.

    Raises:
        DocumentBroken, ProtocolError: It can't be.
    """
    return at_once(replaying(None, updates)).state()


def knows(there: bytes, state: State) -> bool:
    """Whether a document, given as one update, has all that is in another."""
    document = at_once(replaying(None, [there]))
    return document.knows(state.update) and all(document.knows(one) for one in state.waiting)


# ---------------------------------------------------------------------------------------------------------- layouts


@contextmanager
def _hocuspocus_sqlite(path: Path) -> Iterator[Reading]:
    """`@hocuspocus/extension-sqlite`: one row for each document, with its state."""
    with _database(path, "documents", "name", "data") as database:

        def read(name: str) -> Found:
            (data,) = database.execute("SELECT data FROM documents WHERE name = ?", (name,)).fetchone()
            return _checked([data] if data else [])

        yield _reading(_column(database, "SELECT name FROM documents ORDER BY name"), read)


@contextmanager
def _ystore_sqlite(path: Path) -> Iterator[Reading]:
    """`SQLiteYStore` of pycrdt.store, pycrdt-websocket and ypy-websocket: one row for each update, which may be compressed."""
    with _database(path, "yupdates", "path", "yupdate") as database:

        def read(name: str) -> Found:
            # By rowid: clocks go back, and what was squashed has the time of its last part.
            rows = _column(database, "SELECT yupdate FROM yupdates WHERE path = ? ORDER BY rowid", name)
            return _checked(rows)

        yield _reading(_column(database, "SELECT DISTINCT path FROM yupdates ORDER BY path"), read)


@contextmanager
def _ystore_file(path: Path) -> Iterator[Reading]:
    """`FileYStore` of the same: a file for each document, whose name is its path."""
    yield _files(path, "*", _read_ystore_file, lambda name: name)


def _read_ystore_file(file: Path) -> Found:
    data = file.read_bytes()
    if not data.startswith(_KNOWN):
        version = data.partition(b"\n")[0][:20] if data.startswith(_VERSION) else None
        what = "no FileYStore document" if version is None else f"of {version.decode(errors='replace')}"
        return Found([], [f"it is {what}; {_KNOWN.decode().strip()} was expected"])
    updates, position = [], len(_KNOWN)
    problems = []
    while position < len(data):
        try:
            update, after = read_var_bytes(data, position)
            _metadata, after = read_var_bytes(data, after)
            time, after = read_var_bytes(data, after)
            struct.unpack("<d", time)
        except (ProtocolError, struct.error):
            # The server died while it wrote, or the disk was full.
            problems.append(f"the last {len(data) - position} bytes are no whole update")
            break
        updates.append(update)
        position = after
    found = _checked(updates)
    return Found(found.updates, found.problems + problems)


@contextmanager
def _updates(path: Path) -> Iterator[Reading]:
    """A folder of files with one Yjs update each: for whatever else there is."""
    yield _files(path, f"*{FILE_SUFFIX}", lambda file: _checked([file.read_bytes()]), _decoded)


def _decoded(name: str) -> str:
    return unquote(name.removesuffix(FILE_SUFFIX), errors="strict")


KINDS: Final = {
    "hocuspocus-sqlite": _hocuspocus_sqlite,
    "ystore-sqlite": _ystore_sqlite,
    "ystore-file": _ystore_file,
    "updates": _updates,
}
"""By name, the layouts that can be read."""


# ------------------------------------------------------------------------------------------------------------ parts


@contextmanager
def _database(path: Path, table: str, *columns: str) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise Unreadable(f"there is no file {path}")
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        try:
            there = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        except sqlite3.Error as error:
            raise Unreadable(f"{path} is no SQLite database that can be read: {error}") from error
        if not there.issuperset(columns):
            raise Unreadable(f"{path} has no table {table!r} with {' and '.join(columns)}: is it of another server?")
        yield database


def _column(database: sqlite3.Connection, query: str, *values: str) -> list[Any]:
    return [value for (value,) in database.execute(query, values)]


def _files(path: Path, pattern: str, read: Callable[[Path], Found], named: Callable[[str], str]) -> Reading:
    if not path.is_dir():
        raise Unreadable(f"there is no folder {path}")
    files = sorted(file for file in path.rglob(pattern) if file.is_file())
    return {named(file.relative_to(path).as_posix()): partial(_try, read, file) for file in files}


def _reading(names: Sequence[str], read: Callable[[str], Found]) -> Reading:
    return {name: partial(_try, read, name) for name in names}


def _try(read: Callable[[T], Found], what: T) -> Found:
    try:
        return read(what)
    except (OSError, sqlite3.Error) as error:
        return Found([], [f"it can't be read: {error}"])


def _checked(stored: Sequence[object]) -> Found:
    """Sort out what is no update."""
    found = Found([], [])
    for number, one in enumerate(stored, 1):
        try:
            if not isinstance(one, bytes):
                raise MalformedUpdate(f"{type(one).__name__} was stored, not bytes")
            found.updates.append(_plain(one))
        except ProtocolError as error:
            found.problems.append(f"update {number} of {len(stored)} isn't one: {error}")
    return found


def _plain(data: bytes) -> bytes:
    """An update as it is, or in a compression that is known.

    Raises:
        MalformedUpdate: It is no update, however it is read.
    """
    try:
        read_update(data, bounded=False)
    except MalformedUpdate:
        try:
            # Of zlib or gzip, whichever it says it is.
            plain = zlib.decompress(data, wbits=zlib.MAX_WBITS | 32)
        except zlib.error:
            plain = b""
        if not plain:
            raise
        read_update(plain, bounded=False)
        return plain
    return data
