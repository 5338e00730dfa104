"""One SQLite database file: whose it is, its schema, and that it is still the file that was opened.

Owns the path, the lock that keeps other servers out, migrations, and the settings on which durability rests. What the
tables mean is for `sqlite` to say.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from persistence.store import Schema, StoreInUse, StoreUnavailable, StoreUnusable

APPLICATION_ID: Final = int.from_bytes(b"CRDT", "big")

# Entry n brings a database from user_version n to n + 1. Only ever add; released entries stay as they are.
# document_update has a rowid on purpose: WITHOUT ROWID keeps the blobs inside the B-tree of the key, which made
# commits of 1,000 rows of 2 kB four times slower (37 ms, not 10), the file twice as big, and deleting rows of 16 MiB
# ten times slower. It won only in reading and size of rows of 30 bytes, by a quarter.
MIGRATIONS: Final = (
    """
    CREATE TABLE document (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        head_seq INTEGER NOT NULL,
        created_at INTEGER NOT NULL, -- all times are microseconds since 1970, UTC
        deleted_at INTEGER
    );
    CREATE TABLE document_update (
        document_id INTEGER NOT NULL REFERENCES document,
        seq INTEGER NOT NULL,
        user_id TEXT,
        accepted_at INTEGER NOT NULL,
        "update" BLOB NOT NULL,
        PRIMARY KEY (document_id, seq)
    );
    CREATE TABLE document_snapshot (
        document_id INTEGER PRIMARY KEY REFERENCES document,
        seq INTEGER NOT NULL,
        taken_at INTEGER NOT NULL,
        state_vector BLOB NOT NULL,
        waiting BLOB NOT NULL, -- see encode_waiting
        state BLOB NOT NULL
    );
    """,
    """
    CREATE TABLE quarantined_update (
        document TEXT NOT NULL, -- its name: there may be no such document
        digest BLOB NOT NULL,
        quarantined_at INTEGER NOT NULL,
        PRIMARY KEY (document, digest)
    ) WITHOUT ROWID;
    CREATE TABLE revocation (
        kind TEXT NOT NULL,
        value TEXT NOT NULL,
        revoked_at INTEGER NOT NULL,
        until INTEGER NOT NULL,
        PRIMARY KEY (kind, value)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE document ADD COLUMN last_version INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE document_snapshot ADD COLUMN whole INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE document_history (
        document_id INTEGER NOT NULL REFERENCES document,
        first_seq INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        from_at INTEGER NOT NULL,
        until_at INTEGER NOT NULL,
        users TEXT NOT NULL, -- JSON
        log_bytes INTEGER NOT NULL,
        blob BLOB NOT NULL, -- see chunks
        PRIMARY KEY (document_id, first_seq)
    );
    CREATE TABLE document_version (
        document_id INTEGER NOT NULL REFERENCES document,
        id INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        taken_at INTEGER NOT NULL,
        kind TEXT NOT NULL,
        label TEXT,
        user_id TEXT,
        users TEXT NOT NULL, -- JSON
        size_bytes INTEGER NOT NULL,
        whole INTEGER NOT NULL,
        digest BLOB NOT NULL, -- see blobs.digest_of
        state_vector BLOB NOT NULL,
        waiting BLOB NOT NULL, -- both: see blobs.pack
        state BLOB NOT NULL,
        PRIMARY KEY (document_id, id)
    );
    """,
)

_BUSY_TIMEOUT_S: Final = 1.0  # a person at a SQL prompt, or the predecessor that is just closing
_SETTINGS: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA fullfsync = ON",  # macOS: fsync alone leaves the data in the drive's cache
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA foreign_keys = ON",
    "PRAGMA wal_autocheckpoint = 1000",  # pages, 4 MB
    "PRAGMA journal_size_limit = 16777216",  # what one big commit may leave behind as -wal file
    "PRAGMA secure_delete = FAST",  # Debian's default, ON, writes every folded row once more
    "PRAGMA temp_store = MEMORY",  # a full /tmp must not fail a commit
    "PRAGMA mmap_size = 0",  # with it an I/O error is a SIGBUS
)


class File:
    """The database file: whose it is, that nobody else has it, and whether it is still there."""

    def __init__(self, path: Path, *, migrate: bool = True, read_only: bool = False) -> None:
        self.path = path
        self._may_migrate = migrate
        self._read_only = read_only
        self._lock: sqlite3.Connection | None = None
        self._anchor: sqlite3.Connection | None = None
        self._identities: dict[str, tuple[int, int] | None] = {}

    def open(self) -> None:
        """Take the lock and bring the schema up to date.

        Raises:
            StoreUnusable: Not ours, newer, in use, or a path where no database can be.
        """
        if sqlite3.sqlite_version_info < (3, 32):
            raise StoreUnusable(f"SQLite 3.32 or newer is needed, this Python has {sqlite3.sqlite_version}")
        if not self.path.parent.is_dir():
            raise StoreUnusable(f"the folder {self.path.parent} does not exist: create it, or name another file")
        if self.path.is_dir():
            raise StoreUnusable(f"{self.path} is a folder: name a file in it")
        if not self.path.exists() and self._read_only:
            raise StoreUnusable(f"{self.path} does not exist: check the path")
        if not self.path.exists() and not self._may_migrate:
            raise StoreUnusable(f"{self.path} does not exist: check the path, or run crdt-sync migrate to create it")
        try:
            if not self._read_only:
                self._take_lock()
            # Open as long as the store is, so that the others can come and go: the last one out removes the -wal file.
            self._anchor = self._connect("ro" if self._read_only else "rwc")
            self._bring_up_to_date(self._anchor)
        except sqlite3.Error as error:
            raise _error_at_open(self.path, error) from error
        paths = (str(self.path), f"{os.path.realpath(self.path)}-wal")
        self._identities = {path: _identity(path) for path in paths}

    def schema(self) -> Schema:
        """Tell the schema's version, beside a server that uses the file."""
        if not self.path.exists():
            return Schema(0, len(MIGRATIONS))
        try:
            with closing(self._connect("ro")) as connection:
                return self._read_schema(connection)
        except sqlite3.Error as error:
            raise _error_at_open(self.path, error) from error

    def close(self) -> None:
        """Move the WAL into the database and let others have it."""
        self._identities = {}
        if self._anchor is not None:
            self._anchor.close()
            self._anchor = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def connect(self, *, writes: bool) -> sqlite3.Connection:
        """Connect to the file that was opened, and to no other that took its place.

        Raises:
            StoreUnavailable: Another did; or it is to be written, and was opened for reading only.
        """
        if writes and self._read_only:
            raise StoreUnavailable(f"{self.path} was opened for reading only, so nothing can be stored")
        # Checked before, too: a connection that made a new WAL beside the old one would damage the database.
        self.check_in_place()
        connection = self._connect("ro" if self._read_only else "rw")
        for setting in (*_SETTINGS, f"PRAGMA query_only = {'OFF' if writes else 'ON'}"):
            connection.execute(setting)
        self.check_in_place()
        return connection

    def check_in_place(self) -> None:
        """Raise `StoreUnavailable` if the database or its WAL is no longer the file that is open. Costs 4 µs."""
        for path, identity in self._identities.items():
            if _identity(path) != identity:
                raise StoreUnavailable(
                    f"{path} was removed or replaced while in use, so nothing can be stored: put it back, "
                    "or restart the server to go on with what is there now"
                )

    def _connect(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self.path.as_uri()}?mode={mode}", uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None
        )

    def _take_lock(self) -> None:
        # An exclusive transaction in an empty SQLite file of its own, held as long as the store is open. It is an
        # operating system's lock, so it ends with the process, even on kill -9, and is never stale. Locking the
        # database itself would keep our reader, backups and sqlite3 prompts out. The file stays: who unlinks it
        # lets two servers lock two files of one name.
        path = f"{os.path.realpath(self.path)}-lock"
        self._lock = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            self._lock.execute("PRAGMA journal_mode = OFF")  # nothing is written, so no file for undoing it
            self._lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            self.close()
            if _code(error) != sqlite3.SQLITE_BUSY:
                raise
            raise StoreInUse(
                f"{self.path} is in use by another server: stop it first, or give this one a file of its own. "
                "Several processes share a database in PostgreSQL, not in SQLite"
            ) from error

    def _read_schema(self, connection: sqlite3.Connection) -> Schema:
        application_id = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if (application_id, version, tables) != (0, 0, 0) and application_id != APPLICATION_ID:
            raise StoreUnusable(f"{self.path} is the database of another program: name another file")
        return Schema(version, len(MIGRATIONS))

    def _bring_up_to_date(self, connection: sqlite3.Connection) -> None:
        schema = self._read_schema(connection)
        if schema.found > schema.known:
            raise StoreUnusable(
                f"{self.path} has schema {schema.found}, this version knows up to {schema.known}: "
                "run the newer crdt-sync again, or restore a backup from before the upgrade"
            )
        if schema.found < schema.known and (self._read_only or not self._may_migrate):
            raise StoreUnusable(
                f"{self.path} has schema {schema.found}, this version needs {schema.known}: run crdt-sync migrate"
            )
        if self._read_only:
            return
        # Nothing above writes: what is refused stays as it was.
        journal_mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if journal_mode != "wal":
            raise StoreUnusable(f"{self.path} can't be used in WAL mode ({journal_mode}): use a local disk")
        connection.execute("BEGIN IMMEDIATE")  # shows that the file can be written, even with nothing to migrate
        connection.execute("COMMIT")
        for n, script in enumerate(MIGRATIONS[schema.found :], start=schema.found + 1):
            marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {n};"
            connection.executescript(f"BEGIN IMMEDIATE; {script} {marks} COMMIT;")


class Connection:
    """One thread's connection, made on first use and made anew after an error."""

    def __init__(self, file: File, *, writes: bool) -> None:
        self._file = file
        self._writes = writes
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def transaction(self, what: str, begin: str) -> Iterator[sqlite3.Connection]:
        """Commit what the block did, or nothing of it.

        Raises:
            StoreUnavailable: SQLite failed, the file is no longer where it was, or it may only be read.
        """
        try:
            if self._connection is None:
                self._connection = self._file.connect(writes=self._writes)
            self._connection.execute(begin)
            yield self._connection
            self._file.check_in_place()
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            # Rolls back. A new connection next time is cheaper (0.1 ms) than knowing what still works in this one.
            self.close()
            raise StoreUnavailable(f"{what} failed: {error} ({self._file.path})") from error
        except BaseException:
            self.close()
            raise
        # Once more, as SQLite goes on writing to a file that has been unlinked: whatever it says was durable *in the
        # file at this path* after the commit. Removing it later removes confirmed data, which no check can prevent.
        self._file.check_in_place()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def filesystem(folder: Path) -> str:
    """The type of the file system that a folder is on, such as "ext4"; "" where the system doesn't tell."""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    real = folder.resolve()
    # Later mounts are on top of earlier ones.
    found = ("", "")
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        point = point.encode().decode("unicode_escape")
        if real.is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, kind)
    return found[1]


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _code(error: sqlite3.Error) -> int:
    extended: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return extended & 0xFF


def _error_at_open(path: Path, error: sqlite3.Error) -> StoreUnusable | StoreUnavailable:
    match _code(error):
        case sqlite3.SQLITE_NOTADB:
            return StoreUnusable(f"{path} is not a SQLite database: name another file")
        case sqlite3.SQLITE_CORRUPT:
            return StoreUnusable(f"{path} is damaged ({error}): restore it from a backup")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StoreUnusable(
                f"{path} can't be opened for writing ({error}): check its and its folder's permissions"
            )
    return StoreUnavailable(f"{path} can't be opened: {error}")
