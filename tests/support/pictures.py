"""Makes the pictures of the admin page and of `crdt-sync top` in `docs/images`, anew: `python -m tests.support.pictures`.

A server with stock clients that write, and a browser that looks on for long enough to have something on its charts.
"""

from __future__ import annotations

import asyncio
import io
import random
import tempfile
import time
from contextlib import closing
from pathlib import Path

from rich.console import Console

from crdt_sync import top_command
from crdt_sync.admin_api import ApiAdmin

from .api import GUARDED, request, token
from .browser import Browser, Page
from .clients import NodeClient, NodeClients, NodeProcess
from .command import ROOT
from .server import ServerProcess

IMAGES = ROOT / "docs/images"
# A chart shows five minutes.
WATCHED_S = 240
ADMIN = token("root", {"*": "admin"}, ttl_s=3600)
PEOPLE = {"ann": ("Ann Ålund", "#d9480f"), "bob": ("Bob Okafor", "#1864ab"), "cy": ("Cy Lindqvist", "#2b8a3e")}


async def make(browser: Browser, node: NodeProcess, folder: Path) -> None:
    """Make them all."""
    clients = NodeClients(node)
    async with ServerProcess(folder, env=GUARDED) as server:
        here = server.url.replace("ws:", "http:") + "/admin"
        paris = [await _person(server, clients, "trip-paris", user) for user in PEOPLE]
        others = [await _person(server, clients, f"trip-{city}", "cy") for city in ("lisboa", "oslo", "wien") * 4]
        ann, bob, cy = paris
        await ann.map_set("title", "Paris in May")
        await ann.insert(0, "We take the night train from Vienna and walk to the hotel.")
        await cy.array_insert(0, [{"day": 1, "plan": "Louvre"}, {"day": 2, "plan": "free"}])
        await asyncio.gather(ann.confirm(), cy.confirm())
        await request(
            server.url, "POST", "/api/v1/rooms/trip-paris/versions", bearer=ADMIN, body={"label": "As agreed"}
        )
        await bob.wait(text="We take the night train from Vienna and walk to the hotel.")
        await bob.delete(12, 6)
        await bob.insert(34, "slowly ")
        await bob.map_set("title", "Paris in June")
        await cy.array_delete(0)
        await asyncio.gather(bob.confirm(), cy.confirm())

        async with browser.page(here, height=720) as page:
            await _sign_in(page)
            await _write_for(others, WATCHED_S)
            await page.screenshot(IMAGES / "admin-server.png")
            writing = asyncio.create_task(_write_for(others, 4))
            (folder / "top.svg").write_text(await asyncio.to_thread(_top, server.url.replace("ws:", "http:")))
            await writing
            await page.goto(f"{here}#/rooms/trip-paris/changes?from=1")
            await page.see(".change")
            await page.screenshot(IMAGES / "admin-changes.png")
        async with browser.page((folder / "top.svg").as_uri(), width=980, height=422) as page:
            await page.screenshot(IMAGES / "top.png")
        async with browser.page(here, width=360, height=640, scale=1.5, dark=True) as page:
            await _sign_in(page)
            await page.goto(f"{here}#/rooms/trip-paris")
            await page.see(".people li")
            await page.gone("#said p")
            await page.screenshot(IMAGES / "admin-phone.png")
        await clients.close()


def _top(url: str) -> str:
    """What `top` shows of a server on a terminal, drawn."""
    admin = ApiAdmin(url, ADMIN)
    before = top_command._look(admin, 8).scrape
    time.sleep(2)
    seen = top_command._look(admin, 8)
    admin.close()
    assert before is not None, "it shows its metrics to this machine"
    assert seen.scrape is not None, "and goes on to"
    console = Console(record=True, width=110, file=io.StringIO(), force_terminal=True)
    for block in top_command._tables(
        "the server at http://127.0.0.1:1234", seen, top_command._rates(before, seen.scrape)
    ):
        console.print(block.render())
    return console.export_svg(title="crdt-sync top")


async def _person(server: ServerProcess, clients: NodeClients, room: str, user: str) -> NodeClient:
    name, color = PEOPLE[user]
    client = await clients.create(server.url, room, params={"token": token(user, name=name, color=color, ttl_s=3600)})
    await client.set_state({"user": {"name": name}})
    await client.wait(synced=True)
    return client


async def _sign_in(page: Page) -> None:
    await page.fill("#token", ADMIN)
    await page.click("role=button[name='Sign in']")
    await page.see(".state.good")


async def _write_for(writers: list[NodeClient], duration_s: float) -> None:
    """Have them write in waves, each of them a bit and now and then."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    chance = random.Random(1)
    while (passed_s := loop.time() - began) < duration_s:
        busy = 1 + int(len(writers) * abs((passed_s / 60) % 2 - 1))
        await asyncio.gather(*(each.insert(0, "word ") for each in chance.sample(writers, min(busy, len(writers)))))
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    with closing(Browser()) as _browser, closing(NodeProcess()) as _node, tempfile.TemporaryDirectory() as _folder:
        asyncio.run(make(_browser, _node, Path(_folder)))
