"""Objects in an archive: a folder, or a bucket that speaks S3.

Owns the library, its options and its errors. What the objects are is for `archived` to say.

The library's blocking calls are used, in threads: with its async ones, a process that ended soon after one aborted
(SIGABRT) one time in eight (obstore 0.12.1; PyO3/pyo3-async-runtimes issue 40), with these never in 60.
The threads are the archive's own: one that hangs must not take those that other work waits for.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from obstore.exceptions import BaseError, UnknownConfigurationKeyError
from obstore.store import LocalStore, S3Store

from persistence.store import ArchiveUnavailable, StoreUnusable

T = TypeVar("T")

# One attempt and another: a process that ends waits for what its threads still do.
REQUEST_TIMEOUT_S: Final = 10
CALL_TIMEOUT_S: Final = 25.0
_CONNECT_TIMEOUT_S: Final = 3
_RETRIES: Final = 1
_THREADS: Final = 4
_REASON_CHARACTERS_MAX: Final = 300


class Archive:
    """Named objects of bytes.

    Args:
        url: `file:///folder`, or `s3://bucket/prefix?endpoint=…&region=…`: the query takes what `S3Store` of obstore takes,
            which reads the usual environment of AWS for the rest.

    Raises:
        StoreUnusable: There can be no archive there. Whether there is one shows later.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._folder: Path | None = None
        self._bucket: S3Store | None = None
        if parts.scheme == "file" and not parts.netloc and not parts.query and len(parts.path) > 1:
            self._folder = Path(unquote(parts.path))
        elif parts.scheme == "s3" and parts.netloc and parts.username is None:
            self._bucket = _open_bucket(parts.netloc, unquote(parts.path).strip("/"), dict(parse_qsl(parts.query)))
        else:
            raise StoreUnusable(
                "an archive's URL is file:///absolute/folder, or s3://bucket/prefix, with ?endpoint=https://host if it isn't AWS"
            )
        # Without the query, which may hold a password.
        self._where = f"{parts.scheme}://{parts.netloc}{parts.path}"
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="archive")

    def describe(self) -> str:
        """Where it is, for people."""
        return self._where

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, key: str) -> bytes | None:
        """One object; None if there is none of that name.

        Raises:
            ArchiveUnavailable: As from all that follow.
        """
        return await self._run(f"reading {key}", self._read, key)

    async def write(self, key: str, data: bytes) -> None:
        """Write an object, in place of the one that there is. It is durable when this returns."""
        await self._run(f"writing {key}", self._write, key, data)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete those of these objects that there are."""
        await self._run(f"deleting {', '.join(keys[:3])}", self._delete, keys)

    async def delete_folder(self, folder: str) -> None:
        """Delete all objects whose keys begin with `folder` and a slash."""
        await self._run(f"deleting {folder}/", self._delete_folder, folder)

    async def _run(self, what: str, work: Callable[..., T], *args: object) -> T:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        except TimeoutError as error:
            reason = f"no answer within {CALL_TIMEOUT_S:g} s"
            raise ArchiveUnavailable(f"{what} failed in the archive {self._where}: {reason}") from error
        # RuntimeError: it is closed.
        except (BaseError, OSError, RuntimeError) as error:
            reason = str(error).partition("\n")[0][:_REASON_CHARACTERS_MAX]
            raise ArchiveUnavailable(f"{what} failed in the archive {self._where}: {reason}") from error

    def _read(self, key: str) -> bytes | None:
        store = self._store()
        try:
            return bytes(store.get(key).bytes())
        except FileNotFoundError:
            return None

    def _write(self, key: str, data: bytes) -> None:
        self._store().put(key, data, use_multipart=False)
        if self._folder is not None:
            # The library leaves it to the operating system when it gets to the disk. The database forgets what it has next.
            _flush(self._folder / key)

    def _delete(self, keys: Sequence[str]) -> None:
        store = self._store()
        for key in keys:
            try:
                store.delete(key)
            except FileNotFoundError:
                pass
            if self._folder is not None:
                # What a process that was killed while it wrote has left, beside it. The library shows nothing of that.
                for path in self._folder.glob(f"{key}#*"):
                    path.unlink(missing_ok=True)

    def _delete_folder(self, folder: str) -> None:
        store = self._store()
        if self._folder is not None:
            if (self._folder / folder).exists():
                shutil.rmtree(self._folder / folder)
        else:
            self._delete([one["path"] for page in store.list(folder) for one in page])

    def _store(self) -> LocalStore | S3Store:
        if self._bucket is not None:
            return self._bucket
        # Anew each time, so that a disk may be mounted later. Never created: on a disk that isn't mounted, that would be
        # somewhere else.
        return LocalStore(self._folder)


def _open_bucket(name: str, prefix: str, options: dict[str, str]) -> S3Store:
    try:
        return S3Store(
            name,
            prefix=prefix or None,
            config=options,  # type: ignore[arg-type]
            client_options={
                "allow_http": options.get("endpoint", "").startswith("http://"),
                "timeout": f"{REQUEST_TIMEOUT_S}s",
                "connect_timeout": f"{_CONNECT_TIMEOUT_S}s",
            },
            retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=REQUEST_TIMEOUT_S)},
        )
    except UnknownConfigurationKeyError as error:
        raise StoreUnusable(f"the archive's URL has an option that there isn't: one of {', '.join(options)}") from error
    except BaseError as error:
        reason = str(error).partition("\n")[0]
        raise StoreUnusable(f"the archive s3://{name}/{prefix} can't be used as it is configured: {reason}") from error


def _flush(path: Path) -> None:
    """Have a file, and that it is there, on the disk."""
    for place in (path, path.parent, path.parent.parent):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
