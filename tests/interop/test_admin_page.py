"""The admin page: who gets it, and what an admin does with it, in a real browser, while stock clients are connected."""

import json
import re
import time
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from crdt_sync.gateway.admin_page import MEDIA_TYPES
from tests.support.api import GUARDED, request, token
from tests.support.browser import Browser, Page
from tests.support.clients import NodeClient, NodeClients
from tests.support.desk import Desk
from tests.support.raw import RawClient
from tests.support.server import ServerProcess

ROOT = token("root", {"*": "admin"}, ttl_s=86400)
PHONE: dict[str, Any] = {"width": 360, "height": 740}
BUTTON = "role=button[name='{}']"
# What is wider than the box that it is in, but for what may be pushed aside.
CUT_OFF = """[...document.querySelectorAll('main *, dialog, dialog *')].filter(one => one.clientWidth > 1 &&
    one.scrollWidth > one.clientWidth + 1 && !one.matches('.tabs, thead *, input, select, option')).map(one => one.outerHTML.slice(0, 200))"""
MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    env = GUARDED | {"CRDT_SYNC_JWT_LEEWAY_S": "0", "CRDT_SYNC_AWARENESS_LEAVE_S": "0"}
    async with ServerProcess(tmp_path_factory.mktemp("guarded"), env=env) as server:
        yield server
    assert server.errors() == []
    assert ROOT not in server.log


def page_of(server: ServerProcess, place: str = "") -> str:
    return server.url.replace("ws:", "http:") + "/admin" + place


async def sign_in(page: Page, bearer: str = ROOT) -> None:
    await page.fill("#token", bearer)
    await page.click(BUTTON.format("Sign in"))
    await page.gone("dialog")


async def person(server: ServerProcess, clients: NodeClients, room: str, user: str, **claims: object) -> NodeClient:
    """Somebody with a stock client in a room, who shows themselves there."""
    client = await clients.create(server.url, room, params={"token": token(user, **claims)})
    await client.set_state({"user": {"name": user}, "cursor": 3})
    await client.wait(synced=True)
    return client


async def take_version(server: ServerProcess, room: str, label: str) -> int:
    path = f"/api/v1/rooms/{room}/versions"
    answer = await request(server.url, "POST", path, bearer=ROOT, body={"label": label})
    assert answer.status == 201, answer
    return int(answer.json["id"])


# ---------------------------------------------------------------------------------------------------- who gets it


async def test_a_server_with_keys_gives_everybody_the_page_and_nothing_else(guarded: ServerProcess) -> None:
    got = await request(guarded.url, "GET", "/admin", headers={"Host": "sync.example", "X-Forwarded-For": "9.9.9.9"})

    assert (got.status, got.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = dict(one.strip().split(" ", 1) for one in got.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert {*policy["script-src"].split(), *policy["style-src"].split(), *policy["connect-src"].split()} == {"'self'"}
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["referrer-policy"] == "no-referrer"
    again = await request(guarded.url, "GET", "/admin", headers={"If-None-Match": got.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    moved = await request(guarded.url, "GET", "/admin/")
    assert (moved.status, moved.headers["location"]) == (307, "../admin")
    for path in ("/admin/nothing.js", "/admin/../app.py", "/admin/%2e%2e/app.py", "/admin/x/index.html"):
        assert (await request(guarded.url, "GET", path)).status in (404, 426), path


async def test_rooms_may_be_called_as_the_page_is(guarded: ServerProcess) -> None:
    for room in ("admin", "admin/main.js"):
        async with await RawClient.connect(guarded.url, room, headers={"Authorization": f"Bearer {ROOT}"}) as client:
            assert await client.receive() is not None


def test_the_page_is_all_ours_and_makes_no_markup_from_strings() -> None:
    for file in (files("crdt_sync.gateway") / "admin").iterdir():
        text = file.read_text()
        links = set(re.findall(r"https?://[^\s'\"]+", text)) - {"http://www.w3.org/2000/svg"}

        assert any(file.name.endswith(suffix) for suffix in MEDIA_TYPES), file.name
        assert links == set(), file.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|\bFunction\(", text), (
            file.name
        )
        # What it imports is there.
        for name in re.findall(r"from '\./([^']+)'", text):
            assert (files("crdt_sync.gateway") / "admin" / name).is_file(), (file.name, name)


# ---------------------------------------------------------------------------------------------------- in a browser


async def test_an_admin_sees_who_is_there_and_brings_a_trip_back_before_their_eyes(
    guarded: ServerProcess, clients: NodeClients, browser: Browser, room: str, tmp_path: Path
) -> None:
    ann = await person(guarded, clients, room, "ann", name="Ann Ålund", color="#d9480f")
    bob = await person(guarded, clients, room, "bob")
    await ann.map_set("title", "Paris in May")
    await ann.confirm()
    version = await take_version(guarded, room, "As planned")
    await bob.wait(map={"title": "Paris in May"})
    await bob.map_set("title", "nothing at all")
    await bob.confirm()

    bearer = await Desk(tmp_path, "docs/how-to/use-the-admin-page.md").follow("Open it", env=GUARDED)

    async with browser.page(page_of(guarded)) as page:
        await sign_in(page, bearer.strip())
        await page.see("h1.state.good >> text=Ready")

        await page.click("nav >> text=Rooms")
        await page.fill("#contains", room[8:])
        await page.click(f"td >> text={room}")
        await page.see(".people >> text=Ann Ålund")
        assert await page.texts(".people summary > bdi") == ["Ann Ålund", "bob"]
        assert "Connections here\n2" in await page.text(".facts")

        await page.click(".tabs >> text=Versions")
        await page.click("text=Changes since")
        await page.see(".change")
        assert await page.texts(".change h3") == ["map.title by bob"]
        assert await page.texts(".diff > div > bdi") == ["Paris in May", "nothing at all"]

        await page.click(".tabs >> text=Versions")
        await page.click(BUTTON.format("Restore…"))
        await page.see(f"dialog >> text=Restore version {version} “As planned”?")
        assert "an edit like any other" in await page.text("dialog")
        assert await page.texts("dialog .diff > div > bdi") == ["nothing at all", "Paris in May"]
        assert (await bob.content("map"))["map"] == {"title": "nothing at all"}
        await page.click(BUTTON.format("Restore"))
        await bob.wait(map={"title": "Paris in May"})
        await ann.wait(map={"title": "Paris in May"})

        await page.click(BUTTON.format("Undo…"))
        await page.click(BUTTON.format("Restore"))
        await ann.wait(map={"title": "nothing at all"})
        await page.gone("dialog")

        await page.fill("#label", "Emptied")
        await page.click(BUTTON.format("Take a version"))
        await page.see("td >> text=Emptied")

        await page.click(".tabs >> text=Content")
        await page.see("pre >> text=title: nothing at all")
        await page.select("#form", "json")
        await page.see("""pre:has-text('"title": "nothing at all"')""")

        await page.click(".tabs >> text=Connections")
        await page.click(f"tr:has-text('bob') >> {BUTTON.format('Close…')}")
        await page.see("dialog >> text=bob in")
        await page.click(BUTTON.format("Close it"))
        await bob.wait(closes=1)
        assert (await bob.status())["closes"] == [{"code": 4403, "reason": "closed by an admin"}]
        await page.gone("td >> text=bob")
        await page.click(".tabs >> text=People")
        await page.see(".people >> text=Ann Ålund")
        await page.gone(".people >> text=bob")

        assert await page.errors() == []
        base = page_of(guarded).removesuffix("/admin")
        assert all(url.startswith(base) and bearer.strip() not in url for url in await page.requests())


async def test_charts_move_with_what_clients_do(
    guarded: ServerProcess, clients: NodeClients, browser: Browser, room: str
) -> None:
    async with browser.page(page_of(guarded)) as page:

        async def shown() -> list[str]:
            """What the charts say now: connections, messages in and out, commit and confirm, what waits, lag, memory."""
            await page.click("nav >> text=Rooms")
            await page.click("nav >> text=Server")
            await page.until("!['', '–'].includes(document.querySelectorAll('.chart output')[7].textContent)")
            return await page.texts(".chart output")

        await sign_in(page)
        before = await shown()
        ann = await person(guarded, clients, room, "ann")
        for number in range(50):
            await ann.map_set("n", number)
        await ann.confirm()
        after = await shown()

        assert int(after[0]) == int(before[0]) + 1
        assert "–" not in after
        assert float(after[1].removesuffix("/s")) > 0
        assert await page.errors() == []


async def test_charts_show_what_happened_between_two_scrapes(guarded: ServerProcess, browser: Browser) -> None:
    def scrape(connections: int, messages: int, quick: int, slow: int) -> str:
        """Of two processes; all that is slow is in one of them."""
        lines = []
        for worker in (0, 1):
            lines += [
                f'crdt_sync_connections{{worker="{worker}"}} {connections / 2}',
                f'crdt_sync_messages_total{{direction="in",kind="update",worker="{worker}"}} {messages / 2}',
                f'crdt_sync_messages_total{{direction="out",kind="update",worker="{worker}"}} {messages * 5}',
                f'crdt_sync_confirm_seconds_bucket{{le="0.1",worker="{worker}"}} {quick * (1 - worker)}',
                f'crdt_sync_confirm_seconds_bucket{{le="0.5",worker="{worker}"}} {slow if worker else quick}',
                f'crdt_sync_confirm_seconds_bucket{{le="+Inf",worker="{worker}"}} {slow if worker else quick}',
                f'crdt_sync_memory_bytes{{worker="{worker}"}} 5e+07',
            ]
        return "\n".join(["# HELP crdt_sync_connections Some.", *lines, ""])

    async with browser.page("about:blank", **PHONE) as page:
        await page.answer("**/metrics", body=scrape(10, 1000, 10_000, 0))
        await page.goto(page_of(guarded))
        await sign_in(page)
        await page.until("document.querySelector('.chart output').textContent === '10'")
        before = await page.evaluate("document.querySelector('.line').getAttribute('d')")
        # Since the scrape before, 200 confirmations of which half took from 100 to 500 ms.
        await page.answer("**/metrics", body=scrape(30, 1400, 10_100, 100))
        await page.click("nav >> text=Rooms")
        await page.click("nav >> text=Server")
        await page.until("document.querySelector('.chart output').textContent === '30'")

        shown = await page.texts(".chart output")
        assert await page.evaluate("document.querySelector('.line').getAttribute('d')") != before
        assert (shown[0], shown[4], shown[7]) == ("30", "490 ms", "100 MB")
        assert shown[3] == shown[6] == "–"
        incoming, outgoing = (float(re.sub(r"[/s,]", "", one)) for one in shown[1:3])
        assert incoming > 0
        assert outgoing == pytest.approx(10 * incoming, rel=0.1)
        assert "now 30, between 10 and 30" in str(await page.evaluate("document.querySelector('.chart svg').ariaLabel"))
        assert "Processes\n2" in await page.text(".facts")
        assert not await page.scrolls_sideways()
        assert await page.errors() == []


async def test_a_server_that_can_is_drained_after_a_question_and_says_why_it_is_not_ready(
    guarded: ServerProcess, browser: Browser
) -> None:
    problems = {"draining": "this node is going away", "store": "no answer within 1 s"}
    answer = {"ready": False, "problems": problems, "warnings": {"bus": "<b>Redis</b> can't be reached"}}
    async with browser.page("about:blank") as page:
        await page.answer("**/openapi.json", body='{"paths": {"/api/v1/drain": {}}}', content_type="application/json")
        await page.answer("**/api/v1/drain", status=202, body='{"draining": true}', content_type="application/json")
        await page.goto(page_of(guarded))
        await sign_in(page)
        await page.click(BUTTON.format("Drain…"))
        await page.see("dialog >> text=takes nobody any more")
        assert not any(url.endswith("/drain") for url in await page.requests())
        await page.answer("**/ready", status=503, body=json.dumps(answer), content_type="application/json")
        await page.click("role=button[name='Drain']")
        await page.gone("dialog")
        await page.see("h1 >> text=Draining")

        assert any(url.endswith("/api/v1/drain") for url in await page.requests())
        assert await page.texts(".reasons li") == [
            "draining this node is going away",
            "store no answer within 1 s",
            "bus <b>Redis</b> can't be reached",
        ]
        assert await page.errors() == []


async def test_what_its_parts_make_of_odd_input(guarded: ServerProcess, browser: Browser) -> None:
    scrape = 'x{a="q\\\\\\"{}\\n",b=""} +Inf 5\n# y 1\n\nz 1e3\n'
    diff = 'a["b (c)"].d[0] (e (f), g)\n- x\n+ \n  (kept)\nÜ (unknown)\n'
    script = f"""Promise.all(['metrics', 'diff', 'text'].map(name => import(`./admin/${{name}}.js`))).then(([metrics, diff, text]) => ({{
        parsed: [...metrics.parse({json.dumps(scrape)})].map(([name, [one]]) => [name, one.labels, String(one.value)]),
        restarted: metrics.rate(100, 30, 3),
        unknown: [metrics.rate(null, 1, 3), metrics.rate(1, 2, 0), metrics.quantile(0.5, [], [])],
        median: metrics.quantile(0.5, [[1, 10], [2, 10], [Infinity, 10]], [[1, 10], [2, 20], [Infinity, 20]]),
        restartedMedian: metrics.quantile(0.5, [[1, 10], [2, 90]], [[1, 0], [2, 4]]),
        above: metrics.quantile(0.99, [], [[1, 0], [Infinity, 5]]),
        changes: diff.parse({json.dumps(diff)}),
        shown: text.plain({json.dumps(chr(0x202E) + "b" + chr(10) + chr(0x200D))}),
        sizes: [text.size(999), text.size(1000), text.size(25e6), text.seconds(0.0123)],
    }}))"""
    async with browser.page(page_of(guarded)) as page:
        found = await page.evaluate(script)

    assert found == {
        "parsed": [["x", {"a": 'q\\"{}\n', "b": ""}, "Infinity"], ["z", {}, "1000"]],
        "restarted": 10,
        "unknown": [None, None, None],
        "median": 1.5,
        "restartedMedian": 1.5,
        "above": 1,
        "changes": [
            {
                "path": 'a["b (c)"].d[0]',
                "authors": "e (f), g",
                "lines": [
                    {"kind": "removed", "text": "x"},
                    {"kind": "added", "text": ""},
                    {"kind": "kept", "text": "(kept)"},
                ],
            },
            {"path": "Ü", "authors": "unknown", "lines": []},
        ],
        "shown": "\\u202eb\\u000a\u200d",
        "sizes": ["999 B", "1.0 kB", "25 MB", "12 ms"],
    }


async def test_a_phone_shows_everything_without_scrolling_sideways(
    guarded: ServerProcess, clients: NodeClients, browser: Browser, room: str
) -> None:
    room = f"{room}-{'x' * 200}"
    ann = await person(guarded, clients, room, "a" * 255)
    await ann.insert(0, "y" * 500)
    await ann.map_set("k" * 200, "z" * 300)
    await ann.confirm()
    await take_version(guarded, room, "L" * 100)
    await ann.map_set("k" * 200, "other")
    await ann.confirm()

    async with browser.page(page_of(guarded), dark=True, **PHONE) as page:
        await sign_in(page)
        for place, what in {
            "#/": ".state.good",
            "#/rooms": "td",
            "#/connections": "td",
            f"#/rooms/{room}": ".people li",
            f"#/rooms/{room}/connections": "td",
            f"#/rooms/{room}/versions": "td",
            f"#/rooms/{room}/changes": ".change",
            f"#/rooms/{room}/content": "pre.content",
        }.items():
            await page.goto(page_of(guarded, place))
            await page.see(what)
            assert not await page.scrolls_sideways(), place
            assert await page.evaluate(CUT_OFF) == [], place
        await page.goto(page_of(guarded, f"#/rooms/{room}/versions"))
        await page.click(BUTTON.format("Restore…"))
        await page.see("dialog")

        assert not await page.scrolls_sideways()
        assert await page.evaluate(CUT_OFF) == []
        assert await page.errors() == []


async def test_whatever_clients_write_is_text(
    guarded: ServerProcess, clients: NodeClients, browser: Browser, room: str
) -> None:
    room = f"{room} {MARKUP} \u202etxt.exe"
    user = f"{MARKUP}\u202e"
    ann = await person(guarded, clients, room, user, name=MARKUP)
    states: list[Any] = [
        {"user": {"name": {"toString": 1}, "color": {"toString": 1}}},
        {"user": {"name": [], "color": "red;background:url(//evil.example)"}},
        {"user": {"name": MARKUP * 50, "color": "#fff"}, "__proto__": {"x": 1}},
        [MARKUP],
        MARKUP,
    ]
    for state in states:
        client = await clients.create(guarded.url, room, params={"token": token("eve")})
        await client.set_state(state)
    await ann.map_set(MARKUP, MARKUP)
    await ann.insert(0, MARKUP)
    await ann.confirm()

    async with browser.page(page_of(guarded)) as page:
        await sign_in(page)
        await page.click("nav >> text=Rooms")
        await page.click("td a:has-text('txt.exe')")
        await page.until(f"document.querySelectorAll('.people li').length === {1 + len(states)}")
        assert await page.text("h1") == room.replace("\u202e", "\\u202e")
        deep = '{"client": 1, "clock": 1, "state": {"user": {"name": "Deep"}, "x": ' + "[" * 8000 + "]" * 8000 + "}}"
        other = '{"client": 2, "clock": 1, "state": {"user": {"name": "Next"}}}'
        await page.answer("**/presence", body=f'{{"clients": [{deep}, {other}]}}', content_type="application/json")
        await page.click(".tabs >> text=People")
        await page.see(".people >> text=Next")
        await page.see(".people >> text=Deep")
        await page.click(".tabs >> text=Connections")
        await page.see(f"td >> text={MARKUP}\\u202e")
        await page.click(".tabs >> text=Versions")
        await page.fill("#label", MARKUP)
        await page.click(BUTTON.format("Take a version"))
        await page.see(f"td >> text={MARKUP}")
        await ann.map_set(MARKUP, "gone")
        await ann.delete(0, 5)
        await ann.confirm()
        await page.click("text=Changes since")
        await page.until("document.querySelectorAll('.change').length === 2")
        changes = await page.texts(".change h3")
        assert changes[0].endswith(f"by {MARKUP}\\u202e")
        await page.click(".tabs >> text=Content")
        await page.see("pre.content >> text=onerror")

        assert (
            await page.evaluate("document.querySelectorAll('main img, main script, main iframe, [onerror]').length")
            == 0
        )
        assert await page.errors() == []
        assert not any("evil" in url for url in await page.requests())


async def test_a_room_that_browsers_take_for_a_step_is_not_mistaken_for_another(
    guarded: ServerProcess, browser: Browser
) -> None:
    async with await RawClient.connect(guarded.url, "..", headers={"Authorization": f"Bearer {ROOT}"}) as client:
        assert await client.receive() is not None
        async with browser.page(page_of(guarded, "#/connections")) as page:
            await sign_in(page)
            await page.click("td >> text=..")
            await page.see('#trouble >> text=Browsers can\'t ask for a room that is called "..".')

            asked = await page.requests()

    assert not any(re.search(r"/api/v1/(presence|rooms/?)$", url) for url in asked)


async def test_who_has_no_token_or_a_bad_one_is_told_what_is_wanted(
    guarded: ServerProcess, clients: NodeClients, browser: Browser, room: str
) -> None:
    await person(guarded, clients, room, "ann")

    async with browser.page(page_of(guarded, "#/connections")) as page:
        await page.see("dialog >> text=wants to know who you are")
        assert await page.evaluate("document.activeElement.id") == "token"
        for bearer, answer in {
            "rubbish": "doesn't take this token",
            "Übel\u2028": "doesn't take this token",
            token("ann"): "gives no admin right",
            token("ann", {room: "admin"}): "gives no admin right",
            token("root", {"*": "admin"}, ttl_s=-5): "has expired",
        }.items():
            await page.fill("#token", bearer)
            await page.press("Enter")
            await page.see(f"dialog .trouble >> text={answer}")
        assert await page.texts("td") == []
        await page.press("Escape")
        await page.see("#trouble >> text=You are not signed in")
        assert await page.evaluate("sessionStorage.length") == 0

        await page.click("#trouble >> role=button[name='Sign in']")
        await page.fill("#token", ROOT)
        await page.press("Enter")
        await page.see(f"td >> text={room}")
        await page.gone("#trouble")
        await page.reload()
        await page.see(f"td >> text={room}")
        await page.click(BUTTON.format("Sign out"))
        await page.see("dialog")
        assert await page.evaluate("sessionStorage.length") == 0
        assert await page.texts("td") == []
        assert await page.errors() == []


async def test_who_is_signed_in_when_their_token_expires_goes_on_where_they_were(
    guarded: ServerProcess, clients: NodeClients, browser: Browser, room: str
) -> None:
    ann = await person(guarded, clients, room, "ann")
    await ann.map_set("title", "Rome")
    await ann.confirm()

    async with browser.page(page_of(guarded, f"#/rooms/{room}/versions")) as page:
        await page.see("dialog")
        soon = time.time() + 1.5
        await sign_in(page, token("root", {"*": "admin"}, ttl_s=1.5))
        await page.fill("#label", "Half a label")
        await page.until(f"Date.now() > {soon * 1000}")
        await page.click(BUTTON.format("Take a version"))
        await page.see("dialog >> text=has expired")
        assert await page.evaluate("document.getElementById('label').value") == "Half a label"
        await sign_in(page)

        await page.see("td >> text=Half a label")
        assert await page.errors() == []


async def test_a_server_without_keys_is_used_without_a_token_and_by_keyboard_and_missed_while_away(
    tmp_path: Path, clients: NodeClients, browser: Browser
) -> None:
    async with ServerProcess(tmp_path) as server:
        ann = await clients.create(server.url, "trip-1")
        await ann.map_set("title", "Rome")
        await ann.confirm()

        async with browser.page(page_of(server, "#/rooms")) as page:
            await page.see("td >> text=trip-1")
            for _ in range(20):
                await page.press("Tab")
                if await page.evaluate("document.activeElement.textContent") == "trip-1":
                    break
            assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            await page.press("Enter")
            await page.see("h1 >> text=trip-1")
            await page.goto(page_of(server, "#/rooms/trip-1/connections"))
            await page.see("td >> text=not known")
            await page.evaluate("document.querySelector('[data-act=close]').focus()")
            await page.press("Enter")
            await page.see("dialog")
            # Nothing of the page behind can be reached.
            for _ in range(6):
                await page.press("Tab")
                assert await page.evaluate(
                    "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
                )
            await page.answer("**/api/v1/connections/*", status=404, body="{}", content_type="application/problem+json")
            await page.evaluate("document.querySelector('dialog input').focus()")
            await page.press("Enter")
            await page.see("dialog >> text=another process of this node has it")
            await page.press("Escape")
            assert await page.evaluate("document.activeElement.dataset.act") == "close"

            elsewhere = await request(server.url, "GET", "/admin", headers={"X-Forwarded-For": "9.9.9.9"})
            assert (elsewhere.status, elsewhere.body[:23]) == (404, b"There is no admin page:")
            await page.offline()
            await page.click("nav >> text=Rooms")
            await page.see("#trouble >> text=The server gives no answer")
            await page.offline(False)
            await page.click(BUTTON.format("Try again"))
            await page.gone("#trouble")
            await page.see("td >> text=trip-1")
            assert await page.errors() == []
