"""docs/how-to/know-what-is-saved.md does as it says: in a real browser, with real IndexedDB, and in Python."""

import asyncio
import contextlib
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.support.browser import Browser
from tests.support.command import ROOT
from tests.support.database import stored_updates
from tests.support.modules import serving
from tests.support.pages import blocks
from tests.support.processes import run
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess
from tests.support.yjs import Yjs

PAGE = "docs/how-to/know-what-is-saved.md"


def script(url: str) -> str:
    """The page's blocks, one after the other."""
    text = "\n".join(block.text for block in blocks("js") if block.page == PAGE)
    assert text.count("ws://127.0.0.1:1234") == 2
    before = "globalThis.fetchToken = async () => 'token'\n"
    after = "\nObject.assign(globalThis, { doc, provider, confirm, renewed })\n"
    return before + text.replace("ws://127.0.0.1:1234", url) + after


@pytest.mark.timeout(120)
async def test_edits_made_offline_are_counted_over_a_reload_until_they_are_committed(
    browser: Browser, tmp_path: Path, yjs: Yjs
) -> None:
    async with ServerProcess(tmp_path) as server, Proxy(server.port) as proxy:
        with serving(script(proxy.url(server.url))) as url:
            async with browser.page(url) as page:
                await page.until("globalThis.confirm?.state === 'saved' && renewed.state === 'saved'")

                proxy.refuse()
                proxy.cut()
                await page.until("confirm.state === 'offline'")
                await page.evaluate("doc.getText('text').insert(0, 'Rome')")
                await page.evaluate("doc.getText('text').insert(4, ' and Naples')")
                await page.until("document.title === 'offline, 2 unsaved'")
                # Whoever leaves now is asked whether they mean it. The first time they don't.
                await page.evaluate("setTimeout(() => location.reload()) && null")
                while "beforeunload: " not in await page.errors():
                    await asyncio.sleep(0.02)
                await page.evaluate("Event.prototype.preventDefault = () => {}, null")
                await page.reload()
                await page.until("globalThis.doc?.getText('text').toString() === 'Rome and Naples'")
                assert await page.evaluate("[confirm.state, confirm.unsaved]") == ["offline", 2]

                with contextlib.closing(sqlite3.connect(server.database_path, isolation_level=None)) as other:
                    other.execute("BEGIN IMMEDIATE")
                    await proxy.accept()
                    await page.until("provider.synced")
                    await asyncio.sleep(0.5)
                    assert await page.evaluate("[confirm.state, confirm.unsaved]") == ["saving", 2]
                    other.execute("ROLLBACK")
                await page.until("confirm.state === 'saved' && confirm.unsaved === 0 && document.title === 'saved'")
                server.kill()

                errors = [error for error in await page.errors() if not error.startswith("WebSocket connection to ")]
                assert errors == ["beforeunload: "]
        stored = yjs.apply(stored_updates(server.database_url, "trip-1"), {"text": "text"})
        assert stored.content["text"]["string"] == "Rome and Naples"


async def test_python_does_as_the_page_says(tmp_path: Path, yjs: Yjs) -> None:
    [block] = [block for block in blocks("python") if block.page == PAGE]
    async with ServerProcess(tmp_path) as server:
        (tmp_path / "page.py").write_text(block.text.replace("ws://127.0.0.1:1234", server.url))

        said = await asyncio.to_thread(run, [sys.executable, "page.py"], folder=tmp_path, env={"PYTHONPATH": str(ROOT)})

        assert said == "saved 0\n"
        stored = yjs.apply(stored_updates(server.database_url, "trip-1"), {"title": "text"})
        assert stored.content["title"]["string"] == "Rome"
