"""Makes the pictures of the trip planner in `docs/pictures`, anew: `python -m tests.support.demo_pictures`.

Two people plan a trip, each in a browser of their own, and somebody looks at it on a phone.
"""

from __future__ import annotations

import asyncio
import base64
import html
import tempfile
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

from .browser import Browser, Page
from .command import ROOT
from .server import ServerProcess

PICTURES = ROOT / "docs/pictures"
FONTS = ("fonts-inter",)
WINDOW: dict[str, Any] = {"width": 940, "height": 850}
PHONE: dict[str, Any] = {"width": 375, "height": 700}
ANN, BOB, CY = ("Ann Ålund", 3), ("Bob Okafor", 1), ("Cy", 4)
"""Names, and which of the colours."""

FRAME = """<!doctype html><meta charset="utf-8"><style>
body { margin: 0; display: flex; gap: 28px; padding: 32px; width: max-content; background: #cfe3e0 }
figure { margin: 0; border-radius: 12px; overflow: hidden; box-shadow: 0 10px 30px #0004; background: #e9e5dc }
figcaption { padding: 9px 14px; font: 13px Inter; color: #444; display: flex; gap: 7px; align-items: center }
i { width: 11px; height: 11px; border-radius: 50%; background: #c9c3b6 } b { font-weight: 500; margin-left: 8px }
img { display: block } .phone { border: 9px solid #1a1d20; border-radius: 34px }
</style>"""


async def make(browser: Browser, folder: Path) -> None:
    """Make them all."""
    PICTURES.mkdir(exist_ok=True)
    async with (
        ServerProcess(folder, script=ROOT / "examples/trip-planner/serve.py") as server,
        AsyncExitStack() as pages,
    ):
        here = server.url.replace("ws:", "http:") + "/"
        ann = await pages.enter_async_context(browser.page(here, **WINDOW))
        bob = await pages.enter_async_context(browser.page(here, **WINDOW))
        cy = await pages.enter_async_context(browser.page(here, **PHONE, scale=1.5))
        dark = await pages.enter_async_context(browser.page(here, **PHONE, scale=1.5, dark=True))
        for page, person in ((ann, ANN), (bob, BOB), (cy, CY)):
            await _enter(page, *person)

        await _keep(ann, "As we left it")
        await _edit_together(ann, bob)
        names = {"ann": ann, "bob": bob}
        await _frame(browser, PICTURES / "trip-planner.png", folder, names)

        await ann.click("role=button[name='History']")
        await ann.click(".version >> text=As we left it")
        await ann.see(".groups li")
        await ann.screenshot(PICTURES / "trip-planner-history.png")

        await _enter(dark, "Dina", 5)
        await dark.click("[data-item=example-4] .unfold")
        await cy.click(".pill")
        await cy.click("text=Work offline")
        await cy.press("Escape")
        await cy.click(".tabs >> text=Notes")
        await cy.click(".ql-editor")
        await cy.press("Control+End", "Enter")
        await cy.type("No signal in the train")
        await cy.until("document.querySelector('.pill').innerText.includes('unsaved')")
        await _frame(browser, PICTURES / "trip-planner-phone.png", folder, {"cy": cy, "dark": dark}, phone=True)


async def _enter(page: Page, name: str, color: int) -> None:
    await page.fill("role=textbox[name='Your name']", name)
    await page.click(f"role=radio[name='Colour {color}']")
    await page.click("role=button[name='Start planning']")
    await page.until("document.querySelector('.item') && document.querySelector('.pill').innerText === 'Saved'")


async def _keep(page: Page, label: str) -> None:
    await page.click("role=button[name='History']")
    await page.fill("role=textbox[name='Name of the version']", label)
    await page.click("role=button[name='Keep']")
    await page.see(f".version >> text={label}")
    await page.press("Escape")


async def _edit_together(ann: Page, bob: Page) -> None:
    await bob.click("[data-item=example-6] .unfold")
    await bob.fill("[data-item=example-6] >> role=textbox[name='Cost']", "14.50")
    await bob.press("Enter")
    await bob.click("[data-item=example-6] .unfold")
    await ann.drag("[data-item=example-7] .grip", "[data-day='3'] .add-item")
    await bob.click("[data-item=example-4] >> role=textbox")
    await bob.press("End")
    await bob.type(" with fado")
    await ann.click(".ql-editor")
    await ann.press("Control+End")
    await ann.type("Sunscreen, and the good camera")
    await ann.press("Home")
    await bob.click(".ql-editor li >> nth=0")
    await bob.press("End")
    await bob.type(", both of them")
    await ann.until("document.querySelector('.ql-editor').innerText.includes('both of them')")
    await ann.press("End")
    for page in (ann, bob):
        await page.evaluate("scrollTo(0, 0)")
        await page.until("document.querySelector('.pill').innerText === 'Saved'")


async def _frame(browser: Browser, path: Path, folder: Path, pages: dict[str, Page], *, phone: bool = False) -> None:
    """Put windows side by side."""
    shown = FRAME
    for name, page in pages.items():
        await page.screenshot(folder / f"{name}.png")
    for name in pages:
        data = base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
        title = (
            ""
            if phone
            else f"<figcaption><i></i><i></i><i></i><b>{html.escape(name.title())}’s browser</b></figcaption>"
        )
        width = PHONE["width"] if phone else WINDOW["width"]
        shown += f'<figure class="{"phone" if phone else ""}">{title}<img width="{width}" src="data:image/png;base64,{data}"></figure>'
    (folder / "frame.html").write_text(shown)
    size: dict[str, Any] = {"width": 900, "height": 780} if phone else {"width": 1972, "height": 950}
    async with browser.page((folder / "frame.html").as_uri(), **size, scale=1 if phone else 0.75) as page:
        await page.evaluate("document.fonts.ready.then(() => null)")
        await page.screenshot(path, whole=True)


if __name__ == "__main__":
    with closing(Browser(fonts=FONTS)) as _browser, tempfile.TemporaryDirectory() as _folder:
        asyncio.run(make(_browser, Path(_folder)))
