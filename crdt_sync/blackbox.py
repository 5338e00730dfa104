"""What a process was doing when it died: noted in memory that outlives it.

Owns the files of all processes that have used a store on this machine, their own and those of the dead. Leaves what is
made of them to `suspects`.

A file is mapped into memory, so a note costs no system call, and is the kernel's at once: nothing that ends a process
can take it back, be it a crash in native code, the OOM killer or `kill -9`. Whoever lives holds a lock on its file,
which the kernel lets go of.
"""

import contextlib
import fcntl
import mmap
import os
import stat
import struct
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from time import time, time_ns

# Time, length of the name, length of the update. The byte before says whether the rest means anything.
_HEAD = struct.Struct("<dHQ")
_pack_head = _HEAD.pack_into
_HEAD_AT = 8
_NAME_AT = 32
NAME_BYTES_MAX = 1024
_UPDATE_AT = _NAME_AT + NAME_BYTES_MAX
# Allocated beforehand: to write to a mapping for which there is no space is deadly.
MAPPED_BYTES = 64 << 10
INSIDE_BYTES_MAX = MAPPED_BYTES - _UPDATE_AT

# The files of the dead stay for every process to see, and because they are counted.
KEPT_S = 600.0

# Two changes of a folder so far apart have different times: the kernel's clock for them ticks every 1 to 10 ms.
CHANGES_SEEN_NS = 100_000_000

IDLE, BUSY = 0, 1
_SUFFIX = ".box"


class NoBlackBox(Exception):
    """The folder can't be used. The text says why."""


@dataclass(frozen=True, slots=True)
class Death:
    """A process has died while it was busy with a room."""

    box: str
    """Names the process."""
    room: str
    at: float
    """When, in seconds since 1970: when it began with what it didn't survive."""


class BlackBox:
    """The notes of this process, and access to those of others. Closing removes its file.

    Args:
        store: Says which store it is, the same in every process that uses it.
        folder: Where the files are, in a folder that only this user can enter; by default in memory if there is such a file
            system, otherwise where temporary files are.

    Raises:
        NoBlackBox: The folder can't be used.
    """

    def __init__(self, store: str, *, folder: Path | None = None) -> None:
        self._prefix = f"{sha256(store.encode()).hexdigest()[:16]}-"
        self._name = f"{self._prefix}{token_hex(8)}{_SUFFIX}"
        try:
            self._folder = _own_folder(folder or _default_folder())
            self._fd, self._map = self._make()
        except OSError as error:
            raise NoBlackBox(f"no notes can be kept in {folder or _default_folder()}: {error}") from error
        self._known: dict[str, Death] = {}
        # Others' files, and when the folder was last changed when they were looked up; None if it may have been since, unseen.
        self._others: list[str] = []
        self._others_as_of: int | None = None
        # Also what is left of stores that nobody uses any more.
        self._scan("")

    def recorder(self, room: str) -> "RoomRecorder":
        """Where what happens to one room is noted."""
        return RoomRecorder(room, self._fd, self._map)

    def deaths(self) -> list[Death]:
        """Those of the others that died busy, oldest first. Removes the files from which nothing is to be learned."""
        # Who is dead stays so.
        self._known = self._scan(self._prefix)
        return sorted(self._known.values(), key=lambda death: death.at)

    def update(self, death: Death) -> bytes | None:
        """What it was taking in; None if it wasn't about one update, or that could not be noted."""
        try:
            fd = os.open(self._folder / death.box, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            *_, size = _HEAD.unpack(os.pread(fd, _HEAD.size, _HEAD_AT))
            place = _UPDATE_AT if size <= INSIDE_BYTES_MAX else MAPPED_BYTES
            update = os.pread(fd, min(size, os.fstat(fd).st_size), place)
        finally:
            os.close(fd)
        return update if update and len(update) == size else None

    def close(self) -> None:
        """Remove the file: this process ends as it should."""
        with contextlib.suppress(OSError):
            (self._folder / self._name).unlink()
        self._map.close()
        os.close(self._fd)

    def _scan(self, prefix: str) -> dict[str, Death]:
        found: dict[str, Death] = {}
        for name in self._list():
            if not name.startswith(prefix):
                continue
            with contextlib.suppress(OSError):
                path = self._folder / name
                death = self._known.get(name) or _look_at(path)
                if death is not None and 0 <= time() - death.at < KEPT_S:
                    found[name] = death
                elif death is not None:
                    path.unlink()
        return found

    def _list(self) -> list[str]:
        """Others' files. Looked up anew only when the folder has changed: this is asked for each client that comes."""
        try:
            changed_at = os.stat(self._folder).st_mtime_ns
            if changed_at != self._others_as_of:
                # Within a tick of its clock, the kernel gives two changes one time.
                settled = time_ns() - changed_at > CHANGES_SEEN_NS
                self._others = [
                    name for name in os.listdir(self._folder) if name.endswith(_SUFFIX) and name != self._name
                ]
                self._others_as_of = changed_at if settled else None
        except OSError:  # somebody has tidied up
            self._others, self._others_as_of = [], None
        return self._others

    def _make(self) -> tuple[int, mmap.mmap]:
        # Under another name until it is locked, or it would be taken for that of a dead one.
        path = self._folder / f"{self._name}.new"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            _allocate(fd, MAPPED_BYTES)
            mapped = mmap.mmap(fd, MAPPED_BYTES)
            path.rename(self._folder / self._name)
        except BaseException:
            path.unlink()
            os.close(fd)
            raise
        return fd, mapped


class RoomRecorder:
    """One room's part in a black box: what `document.Recorder` says. Used several times for each keystroke."""

    def __init__(self, room: str, fd: int, mapped: mmap.mmap) -> None:
        self._fd = fd
        self._map = mapped
        self._room = room.encode()[:NAME_BYTES_MAX]
        self._room_ends_at = _NAME_AT + len(self._room)
        self._has_tail = False

    def note(self, update: bytes) -> None:
        """The process is about to take in this update; an empty one stands for anything else that it may do."""
        mapped = self._map
        size = len(update)
        _pack_head(mapped, _HEAD_AT, time(), len(self._room), size)
        mapped[_NAME_AT : self._room_ends_at] = self._room
        if size <= INSIDE_BYTES_MAX:
            mapped[_UPDATE_AT : _UPDATE_AT + size] = update
        else:
            # Not by way of the mapping, and so without danger: this says so if there is no space.
            self._has_tail = True
            with contextlib.suppress(OSError):
                os.pwrite(self._fd, update, MAPPED_BYTES)
        mapped[0] = BUSY

    def clear(self) -> None:
        """It has survived."""
        self._map[0] = IDLE
        if self._has_tail:
            self._has_tail = False
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, MAPPED_BYTES)


def _default_folder() -> Path:
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def _own_folder(parent: Path) -> Path:
    """A folder in `parent` that nobody else can have put anything into."""
    folder = parent / f"crdt-sync-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{folder} isn't a folder that only this user can enter")
    return folder


def _allocate(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:
        os.pwrite(fd, bytes(size), 0)


def _look_at(path: Path) -> Death | None:
    """The death that a file tells of, None if its process lives. A file that tells nothing is removed."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            # Shared: several may look at the same time.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        death = _read(path.name, os.pread(fd, _UPDATE_AT, 0))
        if death is None:
            path.unlink()
        return death
    finally:
        os.close(fd)


def _read(box: str, head: bytes) -> Death | None:
    if len(head) < _UPDATE_AT or head[0] != BUSY:
        return None
    at, name_bytes, _ = _HEAD.unpack_from(head, _HEAD_AT)
    try:
        return Death(box, head[_NAME_AT : _NAME_AT + name_bytes].decode(), at)
    except UnicodeDecodeError:
        return None
