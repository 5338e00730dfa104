"""A server that speaks S3: moto's, which follows what AWS answers, in a process of its own. It forgets everything with it."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Sequence
from pathlib import Path

from .services import HOST, Service

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
"""With it, clients are let in."""


class S3Server(Service):
    """One server on a loopback port."""

    def __init__(self) -> None:
        """Prepare, start nothing."""
        super().__init__("s3")

    @property
    def url(self) -> str:
        """An archive's URL, of a bucket that `make_bucket` makes."""
        return f"s3://bucket/pre/fix?endpoint=http://{HOST}:{self.port}"

    def make_bucket(self) -> None:
        """Have an empty bucket."""
        assert self._ask("PUT", "/bucket") == 200

    def _prepare(self) -> Sequence[str | Path]:
        return [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.port)]

    def _answers(self) -> bool:
        try:
            return self._ask("GET", "/moto-api/data.json") == 200
        except OSError:
            return False

    def _ask(self, method: str, path: str) -> int:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request(method, path)
            return connection.getresponse().status
        finally:
            connection.close()
