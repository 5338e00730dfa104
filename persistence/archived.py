"""The content of versions in an archive.

Owns what an object is called and what is in it, and that nothing counts as written before it was read back. Leaves
which versions are archived, and that the database learns of it, to whoever calls.
"""

import asyncio
import json
import secrets
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final, Protocol

from persistence.blobs import pack_snapshot, unpack_snapshot
from persistence.store import ArchivedVersion, StoreCorrupt, StoreUnusable, VersionContent

# An object is this line, a line of JSON that says whose version it is and how long its parts are, and the parts.
_MAGIC: Final = b"crdt-sync archived version 1\n"


class Objects(Protocol):
    """Where bytes are kept by name. See `archive.Archive`."""

    def describe(self) -> str:
        """Where it is, for people."""

    def close(self) -> None:
        """Begin nothing more."""

    async def read(self, key: str) -> bytes | None:
        """One object; None if there is none of that name."""

    async def write(self, key: str, data: bytes) -> None:
        """Write an object durably."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete those of these objects that there are."""

    async def delete_folder(self, folder: str) -> None:
        """Delete all objects whose keys begin with `folder` and a slash."""


class VersionArchive:
    """Keeps the content of versions of documents. One is for one database: objects are called by document and id.

    Every method raises `ArchiveUnavailable` if it can't be reached, or doesn't take what it is given.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def describe(self) -> str:
        """Where it is, for people."""
        return self._objects.describe()

    def close(self) -> None:
        """Begin nothing more."""
        self._objects.close()

    async def write(self, document: str, content: VersionContent) -> bytes:
        """Keep a version, read it back and compare. What an interrupted call has left is no obstacle.

        Returns:
            What it is recognised by.

        Raises:
            StoreCorrupt: It reads back different; or another version has its place, of another database, it seems.
        """
        key = key_of(document, content.version.id)
        data = await asyncio.to_thread(_encode, document, content)
        there = await self._objects.read(key)
        if there is not None and there != data and _is_of_another(there, document, content):
            raise StoreCorrupt(
                f"{key} in the archive {self.describe()} is another version {content.version.id} of {document!r}: "
                "have each database use an archive, or a prefix, of its own. If it is left from a document that was purged, delete it"
            )
        if there != data:
            await self._objects.write(key, data)
            if await self._objects.read(key) != data:
                raise StoreCorrupt(f"{key} reads back different from the archive {self.describe()}: have it checked")
        return sha256(data).digest()

    async def read(self, document: str, archived: ArchivedVersion) -> VersionContent:
        """Read a version.

        Raises:
            StoreCorrupt: It isn't there, or isn't what was written.
        """
        key = key_of(document, archived.version.id)
        what = f"version {archived.version.id} of {document!r}"
        data = await self._objects.read(key)
        if data is None:
            raise StoreCorrupt(
                f"{what} is missing: there is no {key} in the archive {self.describe()}; put it back from a backup"
            )
        if sha256(data).digest() != archived.digest:
            raise StoreCorrupt(
                f"{what} is damaged: {key} in the archive {self.describe()} isn't what was written; put it back from a backup"
            )
        return await asyncio.to_thread(_decode, document, archived, data)

    async def check(self) -> None:
        """Write an object that is no version's, read it, and delete it again.

        Raises:
            StoreCorrupt: It reads back different.
        """
        key = f"check/{secrets.token_hex(8)}"
        await self._objects.write(key, _MAGIC)
        found = await self._objects.read(key)
        await self._objects.delete([key])
        if found != _MAGIC:
            raise StoreCorrupt(f"the archive {self.describe()} gives back something else than was written")

    async def delete(self, document: str, ids: Sequence[int]) -> None:
        """Delete these versions, as far as they are there."""
        await self._objects.delete([key_of(document, id_) for id_ in ids])

    async def delete_all(self, document: str) -> None:
        """Delete all that is here of a document."""
        await self._objects.delete_folder(folder_of(document))


def open_archive(url: str) -> VersionArchive:
    """Return the archive that a URL names. It needn't be reachable yet.

    Args:
        url: See `archive.Archive`.

    Raises:
        StoreUnusable: The URL names none, or what it takes isn't installed.
    """
    try:
        from persistence.archive import Archive
    except ImportError as error:
        raise StoreUnusable(
            f"an archive takes what isn't installed ({error}): run pip install 'crdt-sync[archive]'"
        ) from error
    return VersionArchive(Archive(url))


def folder_of(document: str) -> str:
    """What the keys of a document's objects begin with: any name becomes one, and none can be read off it."""
    return sha256(document.encode()).hexdigest()


def key_of(document: str, id_: int) -> str:
    """The key of a version's object."""
    return f"{folder_of(document)}/{id_}"


def _encode(document: str, content: VersionContent) -> bytes:
    version, blobs = content.version, pack_snapshot(content.snapshot)
    header = {
        "document": document,
        "id": version.id,
        "seq": version.seq,
        "taken_at": version.taken_at.isoformat(),
        "whole": version.whole,
        "parts": ["state_vector", "waiting", "state"],
        "lengths": [len(blob) for blob in blobs],
        "sha256": sha256(b"".join(blobs)).hexdigest(),
    }
    return _MAGIC + json.dumps(header).encode() + b"\n" + b"".join(blobs)


def _decode(document: str, archived: ArchivedVersion, data: bytes) -> VersionContent:
    """Undo `_encode`. The digest was right, so what doesn't fit was never a version of this document."""
    version = archived.version
    header = _read_header(data)
    if header is None or (header["document"], header["id"], header["seq"]) != (document, version.id, version.seq):
        raise StoreCorrupt(f"version {version.id} of {document!r} has an object in the archive that is none of its own")
    state_vector_bytes, waiting_bytes, _ = header["lengths"]
    start = len(_MAGIC) + data[len(_MAGIC) :].index(b"\n") + 1
    middle = start + state_vector_bytes
    end = middle + waiting_bytes
    snapshot = unpack_snapshot(
        document,
        version.seq,
        state_vector=data[start:middle],
        waiting=data[middle:end],
        state=data[end:],
        whole=version.whole,
    )
    return VersionContent(version, snapshot)


def _is_of_another(data: bytes, document: str, content: VersionContent) -> bool:
    """Whether an object is whole, and of another version than this; else nothing is lost with it."""
    header = _read_header(data)
    if header is None:
        return False
    version = content.version
    return (header["seq"], header["taken_at"]) != (version.seq, version.taken_at.isoformat())


def _read_header(data: bytes) -> dict[str, Any] | None:
    if not data.startswith(_MAGIC):
        return None
    try:
        header = json.loads(data[len(_MAGIC) :].partition(b"\n")[0])
    except ValueError:
        return None
    return (
        header
        if isinstance(header, dict) and {"document", "id", "seq", "taken_at", "lengths"} <= header.keys()
        else None
    )
