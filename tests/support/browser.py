"""A real browser: Chromium without a window, driven by `tests/node/browser.mjs`.

Owns having one and its pages. Leaves what is on them to the tests. Waiting happens over there, as for clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from .clients import ClientFailed, NodeProcess
from .debian import find_program
from .processes import private_folder

_FONTS = "fonts-dejavu-core"
_FAMILIES = {"sans-serif": "DejaVu Sans", "system-ui": "DejaVu Sans", "monospace": "DejaVu Sans Mono"}
TIMEOUT_S = 20.0


class Browser:
    """One Chromium, in a profile of its own that is removed with it. Usable from any event loop; end it with `close`.

    Args:
        fonts: Packages of Debian's with fonts that pages may ask for.

    Raises:
        Unavailable: There is none here, and none can be fetched.
    """

    def __init__(self, *, fonts: tuple[str, ...] = ()) -> None:
        # The package's `usr/bin/chromium` is a script that looks for an installed one.
        chromium = find_program("chromium", path="usr/lib/chromium/chromium", also=("chromium-common", _FONTS))
        self._folder = private_folder("browser")
        folders: list[str | Path] = [
            "/usr/share/fonts",
            *(find_program(one, path="usr/share/fonts").path for one in fonts),
        ]
        if chromium.folder is not None:
            folders.append(chromium.folder / "usr/share/fonts")
        config = self._folder / "fonts.conf"
        config.write_text(
            "<fontconfig>"
            + "".join(f"<dir>{folder}</dir>" for folder in folders)
            + "".join(
                f"<alias><family>{family}</family><prefer><family>{font}</family></prefer></alias>"
                for family, font in _FAMILIES.items()
            )
            # For whatever else is asked for.
            + '<match><edit name="family" mode="append_last"><string>DejaVu Sans</string></edit></match>'
            + f"<cachedir>{self._folder}</cachedir></fontconfig>"
        )
        folder = str(self._folder)
        env = {"CHROMIUM": str(chromium.path), "FONTCONFIG_FILE": str(config), "HOME": folder, "TMPDIR": folder}
        self._node = NodeProcess("browser.mjs", env=chromium.env | env)
        self._names = itertools.count(1)

    def close(self) -> None:
        """End it. No event loop may be running."""
        # Killed together with Node, it would still be writing into its folder.
        with contextlib.suppress(ClientFailed):
            asyncio.run(self._node.ask("end"))
        self._node.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.asynccontextmanager
    async def page(
        self,
        url: str,
        *,
        width: int = 1280,
        height: int = 800,
        dark: bool = False,
        scale: float = 1,
        clock: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> AsyncIterator[Page]:
        """Open a page, as the first one of somebody who was never here; leaving the block closes it.

        Args:
            url: Where to.
            width: Of the viewport, in CSS pixels; 360 is a phone's.
            height: Likewise.
            dark: Whether the user likes it dark.
            scale: Device pixels for each CSS pixel.
            clock: Whether time passes for it by `let_pass` too.
            timeout_s: How long whatever is waited for may take.
        """
        page = Page(self._node, str(next(self._names)))
        await self._node.ask(
            "open",
            page=page.name,
            url=url,
            width=width,
            height=height,
            dark=dark,
            scale=scale,
            clock=clock,
            timeoutMs=timeout_s * 1000,
        )
        try:
            yield page
        finally:
            await page._ask("close")


class Page:
    """One page. Selectors are Playwright's: `role=button[name="Close"]`, `text=…`, or CSS.

    All methods wait until what they are about is there and ready, and raise ClientFailed if that takes too long.
    """

    def __init__(self, node: NodeProcess, name: str) -> None:
        self.name = name
        self._node = node

    async def goto(self, url: str) -> None:
        """Go to another page, or another place of this one."""
        await self._ask("goto", url=url)

    async def reload(self) -> None:
        """Load it anew."""
        await self._ask("reload")

    async def click(self, selector: str) -> None:
        """Click on the one element."""
        await self._ask("click", selector=selector)

    async def fill(self, selector: str, text: str) -> None:
        """Write into the one field, in the place of what is there."""
        await self._ask("fill", selector=selector, text=text)

    async def press(self, *keys: str) -> None:
        """Press keys, such as `Tab` or `Shift+Tab`, one after the other."""
        for key in keys:
            await self._ask("press", key=key)

    async def type(self, text: str) -> None:
        """Type into whatever has the focus."""
        await self._ask("type", text=text)

    async def let_pass(self, time_s: float) -> None:
        """Have the page's clock, which has to be one for it alone (`clock`), be so much later at once."""
        await self._ask("pass", timeMs=time_s * 1000)

    async def drag(self, selector: str, onto: str) -> None:
        """Drag the one element with the mouse, and drop it in the middle of another."""
        await self._ask("drag", selector=selector, onto=onto)

    async def select(self, selector: str, value: str) -> None:
        """Choose an option by its value."""
        await self._ask("select", selector=selector, value=value)

    async def see(self, selector: str) -> None:
        """Wait until there is such an element, and it is visible."""
        await self._ask("see", selector=selector)

    async def gone(self, selector: str) -> None:
        """Wait until there is none that is visible."""
        await self._ask("gone", selector=selector)

    async def text(self, selector: str) -> str:
        """The text of the first one, as it is seen."""
        return str(await self._ask("text", selector=selector))

    async def texts(self, selector: str) -> list[str]:
        """The texts of all that are there now."""
        return list(await self._ask("texts", selector=selector))

    async def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page, as JSON."""
        return await self._ask("evaluate", script=script)

    async def until(self, script: str) -> None:
        """Wait until a JavaScript expression is true."""
        await self._ask("until", script=script)

    async def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen, or with `whole` everything down to the page's end, as a PNG."""
        await self._ask("screenshot", path=str(path), whole=whole)

    async def answer(self, url: str, *, status: int = 200, body: str = "", content_type: str = "text/plain") -> None:
        """From now on, answer the page's requests for `url` (a glob) in the server's place."""
        await self._ask("answer", url=url, status=status, body=body, contentType=content_type)

    async def offline(self, offline: bool = True) -> None:
        """From now on, none of its requests reach anybody; or they do again."""
        await self._ask("offline", offline=offline)

    async def errors(self) -> list[str]:
        """What its scripts failed at, what the browser forbade them, and dialogs that they opened."""
        return list((await self._ask("seen"))["errors"])

    async def requests(self) -> list[str]:
        """The URLs of all requests that were made for it."""
        return list((await self._ask("seen"))["requests"])

    async def flaws(self) -> list[str]:
        """What makes it hard for some people to use, such as low contrast or fields without labels, by axe-core's rules."""
        return list(await self._ask("flaws"))

    async def scrolls_sideways(self) -> bool:
        """Whether it is wider than its viewport."""
        return bool(await self.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))

    async def _ask(self, op: str, **request: Any) -> Any:
        async with asyncio.timeout(60):
            return await self._node.ask(op, page=self.name, **request)
