"""What the processes that serve one port tell each other, so that one can answer for all.

Whoever asks a node how it is reaches one of its processes, and not always the same. So each listens at a Unix socket of
its own, in a folder that only this user can enter, and that one asks the others.

A process takes the first number that is free. The kernel frees it when the process ends, in whatever way, so the one that
is started in its place has its number.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

log = logging.getLogger("crdt_sync.siblings")

# What is asked may itself wait for a second, for the store.
ASK_TIMEOUT_S = 1.5
QUESTION_BYTES_MAX = 100

Tell = Callable[[str], Awaitable[bytes]]


class Siblings:
    """One process among those that serve a port.

    Args:
        folder: Theirs.
        count: How many there are.

    Raises:
        OSError: The folder can't be used.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        # As long as somebody holds it, systemd-tmpfiles doesn't tidy up in it.
        self._held = os.open(folder, os.O_RDONLY)
        fcntl.flock(self._held, fcntl.LOCK_SH)
        self._count = count
        self.number, self._lock = self._take_number()
        """From 0."""

    @contextlib.asynccontextmanager
    async def listening(self, tell: Tell) -> AsyncIterator[None]:
        """Answer the others inside the `with` block.

        Args:
            tell: Gives the answer to a question.
        """

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    question = (await reader.readline()).decode().strip()
                    writer.write(await tell(question))
                    await writer.drain()
            except (OSError, ValueError, TimeoutError):
                pass  # whoever asked does without
            finally:
                writer.close()

        path = self._path(self.number)
        path.unlink(missing_ok=True)  # left by one that was killed
        try:
            server = await asyncio.start_unix_server(answer, path, limit=QUESTION_BYTES_MAX)
        except OSError as error:
            # A folder with a name that is too long for a socket's, say. The others will miss this one.
            log.error("siblings_unreachable", extra={"socket": str(path), "error": str(error)})
            yield
            return
        try:
            yield
        finally:
            server.close()

    async def ask(self, question: str) -> dict[int, bytes]:
        """Ask all others at once; returns what those said that answered in time, by their numbers."""
        others = [number for number in range(self._count) if number != self.number]
        answers = await asyncio.gather(*(self._ask(number, question) for number in others))
        return {number: answer for number, answer in zip(others, answers, strict=True) if answer}

    def missing(self, answers: dict[int, bytes]) -> int:
        """How many didn't answer."""
        return self._count - 1 - len(answers)

    async def _ask(self, number: int, question: str) -> bytes:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(self._path(number))
                try:
                    writer.write(f"{question}\n".encode())
                    return await reader.read(-1)
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return b""

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.socket"

    def _take_number(self) -> tuple[int, int]:
        for number in range(self._count):
            lock = os.open(self._folder / f"{number}.lock", os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
            else:
                return number, lock
        raise OSError(f"all {self._count} numbers are taken in {self._folder}")
