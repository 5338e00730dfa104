"""The certificate that the server shows, for those who have no proxy that does; replaced while it runs.

Whoever renews certificates writes files anew, or has a link point elsewhere, and need tell nobody.
"""

import asyncio
import logging
import os
import ssl
from pathlib import Path

log = logging.getLogger("crdt_sync.tls")

# How often it is looked whether the files are new.
LOOK_S = 10.0


class InvalidCertificate(Exception):
    """The files can't be used. The text says why."""


class Certificate:
    """A certificate chain and its key, in PEM files.

    Args:
        chain: The server's certificate, and those between it and a root.
        key: Its key, without a password; None if it is in the same file.

    Raises:
        InvalidCertificate: See there.
    """

    def __init__(self, chain: Path, key: Path | None = None) -> None:
        self._chain = chain
        self._key = key
        self._seen = self._look()
        self.context = self._load()
        """For connections that begin now."""

    async def keep_fresh(self) -> None:
        """Take up new files when there are some, until cancelled. Those that can't be used change nothing."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.refresh()

    def refresh(self) -> None:
        """Take up new files now, if there are some."""
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            # Not into the same context: if only one of two files is written yet, they don't fit.
            self.context = self._load()
        except InvalidCertificate as error:
            log.error("certificate_not_renewed", extra={"error": str(error)})
        else:
            log.info("certificate_renewed", extra={"certfile": str(self._chain)})

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        # Spelled out, so that no upgrade can change it. Every browser since 2014 speaks 1.2.
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Nobody is there to be asked for a password.
            context.load_cert_chain(self._chain, self._key, password="")
        except (OSError, ValueError) as error:
            files = str(self._chain) if self._key is None else f"{self._chain} and {self._key}"
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise InvalidCertificate(
                f"{files} can't be used: {why}. They are PEM: the certificate first, then those between it and its root; "
                "a key without a password that belongs to it"
            ) from error
        return context

    def _look(self) -> list[tuple[int, int, int] | None]:
        """What changes when a file does."""
        return [_mark(path) for path in (self._chain, self._key) if path is not None]


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
