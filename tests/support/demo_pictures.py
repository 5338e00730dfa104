"""Makes the pictures of the trip planner in `docs/pictures`, anew: `python -m tests.support.demo_pictures`.

Two people plan a trip, each in a browser of their own, and somebody looks at it on a phone.
"""

from __future__ import annotations

import asyncio
import base64
import html
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

from .apng import Frame, animate
from .browser import Browser, Page
from .command import ROOT
from .server import ServerProcess

PICTURES = ROOT / "docs/pictures"
FONTS = ("fonts-inter",)
WINDOW: dict[str, Any] = {"width": 940, "height": 850}
SMALL_WINDOW: dict[str, Any] = {"width": 880, "height": 640}
PHONE: dict[str, Any] = {"width": 375, "height": 700}
ANN, BOB, CY, DINA = ("Ann Ålund", 3), ("Bob Okafor", 1), ("Cy", 4), ("Dina", 5)
"""Names, and which of the colours."""

FRAME = """<!doctype html><meta charset="utf-8"><style>
body { margin: 0; display: flex; gap: 28px; padding: 32px; width: max-content; background: #cfe3e0 }
figure { margin: 0; border-radius: 12px; overflow: hidden; box-shadow: 0 10px 30px #0004; background: #e9e5dc }
figcaption { padding: 9px 14px; font: 13px Inter; color: #444; display: flex; gap: 7px; align-items: center }
i { width: 11px; height: 11px; border-radius: 50%; background: #c9c3b6 } b { font-weight: 500; margin-left: 8px }
img { display: block } .phone { border: 9px solid #1a1d20; border-radius: 34px }
</style>"""
# The part in which a picture differs from the one before, as a PNG that can be seen through where they are the same; all of it
# if there was none, null if all is the same.
DIFFERENCE = """(async () => {
  const [after, before] = await Promise.all([%s].map(async url => createImageBitmap(await (await fetch(url)).blob())))
  const { width, height } = after
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext('2d', { willReadFrequently: true })
  const pixels = image => { if (image) context.drawImage(image, 0, 0); return new Uint32Array(context.getImageData(0, 0, width, height).data.buffer) }
  const [old, now] = [pixels(before), pixels(after)]
  let [left, top, right, bottom] = [width, height, -1, -1]
  for (let at = 0; at < now.length; at++) if (old[at] !== now[at]) {
    const x = at %% width, y = (at - x) / width
    left = Math.min(left, x); right = Math.max(right, x); top = Math.min(top, y); bottom = y
  } else now[at] = 0
  if (right < 0) return null
  const part = new OffscreenCanvas(right - left + 1, bottom - top + 1)
  part.getContext('2d').putImageData(new ImageData(new Uint8ClampedArray(now.buffer), width), -left, -top)
  const bytes = new Uint8Array(await (await part.convertToBlob({ type: 'image/png' })).arrayBuffer())
  return { x: left, y: top, png: btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), '')) }
})()"""


async def make(browser: Browser, folder: Path) -> None:
    """Make them all."""
    PICTURES.mkdir(exist_ok=True)
    async with _two(browser, folder, WINDOW) as (here, ann, bob), AsyncExitStack() as pages:
        cy = await pages.enter_async_context(browser.page(here, **PHONE, scale=1.5))
        dark = await pages.enter_async_context(browser.page(here, **PHONE, scale=1.5, dark=True))
        await _enter(cy, *CY)
        await _keep(ann, "As we left it")
        await _edit_together(ann, bob)
        await _frame(browser, PICTURES / "trip-planner.png", folder, {"Ann": ann, "Bob": bob}, WINDOW)

        await ann.click("role=button[name='History']")
        await ann.click(".version >> text=As we left it")
        await ann.see(".groups li")
        await ann.screenshot(PICTURES / "trip-planner-history.png")

        await _enter(dark, *DINA)
        await dark.click("[data-item=example-4] .unfold")
        await _offline(cy)
        await cy.click(".tabs >> text=Notes")
        await _write_last(cy, "No signal in the train", "Enter")
        await cy.until("document.querySelector('.pill').innerText.includes('unsaved')")
        await _frame(browser, PICTURES / "trip-planner-phone.png", folder, {"Cy": cy, "Dina": dark})
    await _move(browser, folder)


async def _move(browser: Browser, folder: Path) -> None:
    """The picture that moves."""
    shots: list[tuple[bytes, int]] = []
    async with _two(browser, folder, SMALL_WINDOW) as (_, ann, bob):

        async def show(ms: int) -> None:
            await _frame(browser, folder / "shot.png", folder, {"Ann": ann, "Bob": bob}, SMALL_WINDOW)
            shots.append(((folder / "shot.png").read_bytes(), ms))

        await show(1500)
        await _write_last(ann, "Sun")
        for chunk in ("screen", ", and the", " good camera"):
            await show(300)
            await ann.type(chunk)
        await show(1000)
        await bob.click("[data-item=example-4] >> role=textbox")
        await bob.press("End")
        for chunk in (" with", " fado"):
            await bob.type(chunk)
            await show(400)
        await ann.evaluate("document.querySelector('[data-item=example-3] .grip').focus({ focusVisible: true })")
        for _ in range(2):
            await ann.press("ArrowUp")
            await show(700)
        await _offline(bob)
        await show(900)
        await bob.click("role=textbox[name='Add to day 1']")
        await bob.type("Ferry to Cacilhas")
        await bob.press("Enter")
        await show(700)
        await _write_last(bob, "Ask for the ferry", "Enter")
        await show(1800)
        await _offline(bob)
        await ann.until("document.querySelector('.ql-editor').innerText.includes('Ask for')")
        await bob.until("document.querySelector('.pill').innerText === 'Saved'")
        await show(3000)
    frames = []
    async with browser.page("about:blank") as page:
        for index, (shot, ms) in enumerate(shots):
            both = [shot, *(before for before, _ in shots[max(0, index - 1) : index])]
            part = await page.evaluate(DIFFERENCE % ", ".join(f"'{_url(one)}'" for one in both))
            if part is not None:
                frames.append(Frame(base64.b64decode(part["png"]), part["x"], part["y"], ms))
    (PICTURES / "trip-planner-moving.png").write_bytes(animate(frames))


@asynccontextmanager
async def _two(browser: Browser, folder: Path, size: Mapping[str, Any]) -> AsyncIterator[tuple[str, Page, Page]]:
    """Ann and Bob, at a server of their own."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        script = ROOT / "examples/trip-planner/serve.py"
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(ServerProcess(Path(own), script=script))
            here = server.url.replace("ws:", "http:") + "/"
            ann, bob = [await stack.enter_async_context(browser.page(here, **size)) for _ in range(2)]
            await _enter(ann, *ANN)
            await _enter(bob, *BOB)
            await ann.until("document.querySelector('.faces').ariaLabel.includes('Bob')")
            yield here, ann, bob


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


async def _write_last(page: Page, text: str, *keys: str) -> None:
    await page.click(".ql-editor")
    await page.press("Control+End", *keys)
    await page.type(text)


async def _offline(page: Page) -> None:
    await page.click(".pill")
    await page.click("text=Work offline")
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
    await _write_last(ann, "Sunscreen, and the good camera")
    await ann.press("Home")
    await bob.click(".ql-editor li >> nth=0")
    await bob.press("End")
    await bob.type(", both of them")
    await ann.until("document.querySelector('.ql-editor').innerText.includes('both of them')")
    await ann.press("End")
    for page in (ann, bob):
        await page.evaluate("scrollTo(0, 0)")
        await page.until("document.querySelector('.pill').innerText === 'Saved'")


async def _frame(
    browser: Browser, path: Path, folder: Path, pages: Mapping[str, Page], window: Mapping[str, int] | None = None
) -> None:
    """Put pages side by side: as windows, or as phones."""
    size = window or PHONE
    shown = FRAME
    for name, page in pages.items():
        await page.screenshot(folder / f"{name}.png")
        title = f"<figcaption><i></i><i></i><i></i><b>{html.escape(name)}’s browser</b></figcaption>" if window else ""
        picture = f'<img width="{size["width"]}" src="{_url((folder / f"{name}.png").read_bytes())}">'
        shown += f'<figure class="{"" if window else "phone"}">{title}{picture}</figure>'
    (folder / "frame.html").write_text(shown)
    around = (92, 103) if window else (128, 82)
    whole: dict[str, Any] = {"width": 2 * size["width"] + around[0], "height": size["height"] + around[1]}
    async with browser.page((folder / "frame.html").as_uri(), **whole, scale=0.75 if window else 1) as page:
        await page.screenshot(path)


def _url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


if __name__ == "__main__":
    with closing(Browser(fonts=FONTS)) as _browser, tempfile.TemporaryDirectory() as _folder:
        asyncio.run(make(_browser, Path(_folder)))
