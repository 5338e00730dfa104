"""A private Prometheus, and its tool that checks what is written for one."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .debian import find_program, reachable
from .processes import run, unprivileged_account
from .services import HOST, Service


def promtool(*arguments: str | Path, folder: Path) -> str:
    """Run promtool.

    Returns:
        What it printed.

    Raises:
        AssertionError: It found something wrong; with what it printed.
        Unavailable: There is no such program.
    """
    program = find_program("promtool", package="prometheus")
    return run([program.path, *arguments], folder=folder, env=program.env)


class Prometheus(Service):
    """A Prometheus with a configuration of the test's. What it refers to has to be in the same folder."""

    def __init__(self, config: str, **files: str) -> None:
        """Prepare, start nothing.

        Args:
            config: prometheus.yml.
            files: More files, by name without `.yml`.

        Raises:
            Unavailable: There is no such program.
        """
        account = unprivileged_account()
        self._program = reachable(find_program("prometheus"), account)
        super().__init__("prometheus", account=account)
        self._files = {"prometheus": config, **files}

    def ask(self, path: str, **query: str) -> Any:
        """What its API answers below `/api/v1/`: the `data` of it."""
        url = f"http://{HOST}:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]

    def _prepare(self) -> Sequence[str | Path]:
        for name, text in self._files.items():
            (self.folder / f"{name}.yml").write_text(text)
        return [
            self._program.path,
            f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/data",
            f"--web.listen-address={HOST}:{self.port}",
        ]

    def _answers(self) -> bool:
        # It listens before it can be asked.
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def _env(self) -> dict[str, str]:
        return self._program.env
