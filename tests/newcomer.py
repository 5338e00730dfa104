"""Goes the way of somebody who has just heard of crdt-sync, and takes the time: `python -m tests.newcomer`.

Follows README.md to the letter: clones the repository into an empty folder, and types the commands of the block with
`make demo`; then opens two browsers at the address that was printed, of which one sees what the other writes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .support.browser import Browser, Page
from .support.pages import blocks

ROOT = Path(__file__).parents[1]
ADDRESS = re.compile(r"http://\S+")
GIVEN_S = 180.0
"""Within three minutes, somebody should see it work."""


def commands() -> str:
    """What README.md has one type to see the demo."""
    (block,) = [one for one in blocks("sh") if one.page == "README.md" and "make demo" in one.text.splitlines()]
    return block.text


@contextlib.contextmanager
def demo(script: str, folder: Path) -> Iterator[str]:
    """Run the commands until an address is printed, and inside the `with` block; then press Ctrl-C.

    Raises:
        RuntimeError: They ended instead, or not in time; with what was printed.
    """
    # As somebody else's machine has it: no settings, and nothing that was downloaded before.
    env = {key: value for key, value in os.environ.items() if not key.startswith("CRDT_SYNC_")}
    env["PIP_NO_CACHE_DIR"] = "1"
    log = folder / "log"
    with log.open("wb") as out:
        shell = subprocess.Popen(
            ["bash", "-e", "-c", script], cwd=folder, env=env, stdout=out, stderr=out, start_new_session=True
        )
    try:
        deadline = time.monotonic() + GIVEN_S
        while (found := ADDRESS.search(log.read_text())) is None or "Ctrl-C" not in log.read_text():
            if shell.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no address was printed:\n{script}\n{log.read_text()}")
            time.sleep(0.05)
        yield found[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGINT)
        try:
            shell.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()


async def _enter(page: Page, name: str) -> None:
    await page.fill("role=textbox[name='Your name']", name)
    await page.click("role=button[name='Start planning']")


async def see_each_other(browser: Browser, address: str) -> None:
    """Open it twice, and write in one what shows in the other."""
    async with browser.page(address) as ann, browser.page(address) as bob:
        await _enter(ann, "Ann")
        await _enter(bob, "Bob")
        await ann.fill("role=textbox[name='Title of the trip']", "Ten days in Lisbon")
        await bob.until("document.querySelector('[aria-label=\"Title of the trip\"]')?.value === 'Ten days in Lisbon'")


def main() -> int:
    """Take the time, and fail if it is too long."""
    parser = argparse.ArgumentParser(description="Follow README.md from nothing to two browsers, and take the time.")
    parser.add_argument("--repository", default=str(ROOT), help="what to clone (default: this one, as committed)")
    options = parser.parse_args()
    browser = Browser()  # whoever comes along has one
    try:
        with tempfile.TemporaryDirectory() as folder:
            script = f"git clone --quiet {shlex.quote(options.repository)} crdt-sync\ncd crdt-sync\n{commands()}"
            began = time.monotonic()
            with demo(script, Path(folder)) as address:
                up = time.monotonic()
                asyncio.run(see_each_other(browser, address))
                seen = time.monotonic()
    finally:
        browser.close()
    print(f"{up - began:6.1f} s  from nothing to an address:  {' ; '.join(script.strip().splitlines())}")
    print(f"{seen - up:6.1f} s  until one browser shows what was written in the other")
    print(f"{seen - began:6.1f} s  together; {GIVEN_S:.0f} s are given")
    return 0 if seen - began < GIVEN_S else 1


if __name__ == "__main__":
    sys.exit(main())
