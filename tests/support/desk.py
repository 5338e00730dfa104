"""Pages of recipes, typed as they stand."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

from .command import ROOT


def sections(page: str) -> dict[str, str]:
    """The text below each heading of a page, given by its path in the repository."""
    text = (ROOT / page).read_text()
    return dict(re.findall(r"^##? ([^\n]+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))


class Desk:
    """A shell in a folder, where `crdt-sync` is in the path, and a page of recipes.

    Args:
        folder: It must be there. The database is `crdt-sync.db` in it.
        page: The page's path in the repository.
    """

    def __init__(self, folder: Path, page: str) -> None:
        self.folder = folder
        self.sections = sections(page)
        (folder / "bin").mkdir()
        (folder / "bin/crdt-sync").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m crdt_sync "$@"\n')
        (folder / "bin/crdt-sync").chmod(0o755)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CRDT_SYNC_")}
        path = f"{folder / 'bin'}{os.pathsep}{inherited['PATH']}"
        self.env = inherited | {
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "CRDT_SYNC_DATABASE_URL": "sqlite:///crdt-sync.db",
        }

    async def follow(self, heading: str, *, url: str = "", env: dict[str, str] | None = None) -> str:
        """Type all commands below a heading; they have to succeed. Returns what they print."""
        script = "".join(re.findall(r"```sh\n(.*?)```", self.sections[heading], re.DOTALL))
        assert script, heading
        return await self.type(script, what=heading, url=url, env=env)

    async def type(self, script: str, *, what: str, url: str = "", env: dict[str, str] | None = None) -> str:
        """Type commands; they have to succeed. Returns what they print.

        Args:
            script: The commands.
            what: What they are, for whoever looks into a failure.
            url: The server that they mean by `http://127.0.0.1:1234`.
            env: More environment.
        """
        bash = shutil.which("bash")
        assert bash is not None
        process = await asyncio.create_subprocess_exec(
            *(bash, "-euc", script.replace("http://127.0.0.1:1234", url)),
            cwd=self.folder,
            env=self.env | (env or {}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode == 0, f"{what}: {err.decode()}"
        return out.decode()
