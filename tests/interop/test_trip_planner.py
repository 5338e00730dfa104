"""examples/trip-planner, as people use it: real browsers on the server that `make demo` starts."""

import asyncio
import contextlib
import sqlite3
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pycrdt
import pytest
import pytest_asyncio

from crdt_sync.content import read_content
from crdt_sync.trip_model import Trip
from crdt_sync.trips import read_trip
from tests.support.api import request
from tests.support.browser import Browser, Page
from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[2]
SERVE = ROOT / "examples/trip-planner/serve.py"
EXAMPLE = "trip-lisbon"
NOTES = ".ql-editor"
STATE = "document.querySelector('.pill').innerText"
SAVED = f"{STATE} === 'Saved'"
TITLES = "[...document.querySelectorAll('.item')].map(one => one.closest('[data-day]').dataset.day + ' ' + one.querySelector('.item-title').value)"
PHONE: dict[str, Any] = {"width": 320, "height": 640}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tmp_path_factory.mktemp("demo"), script=SERVE) as server:
        yield server
    assert server.errors() == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """One that takes small trips only, and whose tokens end soon, but let everybody delete trips."""
    env = {"CRDT_SYNC_JWT_LEEWAY_S": "0", "CRDT_SYNC_DOCUMENT_BYTES_MAX": "20000"}
    script = ROOT / "tests/support/demo.py"
    async with ServerProcess(tmp_path_factory.mktemp("strict"), script=script, env=env) as server:
        yield server
    assert server.errors() == []


@pytest.fixture
def trip() -> str:
    return uuid.uuid4().hex[:12]


def url(server: ServerProcess, query: str = "") -> str:
    return server.url.replace("ws:", "http:") + "/" + query


@contextlib.asynccontextmanager
async def traveller(
    browser: Browser, server: ServerProcess, name: str, query: str = "", **options: Any
) -> AsyncIterator[Page]:
    """Somebody who has opened a trip, and sees what the server has of it."""
    async with browser.page(url(server, query), **options) as page:
        await page.fill(".welcome .name", name)
        await page.click("role=button[name='Start planning']")
        await page.until(f"document.querySelector('.pill') && {SAVED}")
        yield page
        # Attempts to reach a server that is away show in the console whatever a page does.
        assert [one for one in await page.errors() if "WebSocket connection to" not in one] == []


async def add(page: Page, title: str, day: int = 1) -> None:
    await page.fill(f"role=textbox[name='Add to day {day}']", title)
    await page.press("Enter")
    await page.until(f"{TITLES}.includes('{day} {title}')")


async def switch_offline(page: Page) -> None:
    """Press the switch: then it is offline, or online again."""
    await page.click(".pill")
    await page.click("text=Work offline")
    await page.press("Escape")


async def write(page: Page, text: str) -> None:
    """Write at the end of the notes."""
    await page.click(NOTES)
    await page.press("Control+End")
    await page.type(text)


async def ask(server: ServerProcess, method: str, path: str, *, body: bytes | None = None) -> bytes:
    """What the HTTP API answers to a guest."""
    session = await request(server.url, "POST", "/session", body={"name": "guest", "color": "#0b6e69"})
    got = await request(server.url, method, f"/api/v1/rooms/{path}", bearer=session.json["token"], body=body)
    assert got.status in (200, 204), got
    return got.body


async def stored(server: ServerProcess, room: str) -> Trip:
    """The trip as the project's own reader reads it."""
    return read_trip(read_content(await ask(server, "GET", f"{room}/document")))


def says(selector: str, text: str) -> str:
    return f"document.querySelector({selector!r})?.innerText.includes({text!r})"


# ------------------------------------------------------------------------------------------------------ together


async def test_two_plan_a_trip_together_and_a_third_who_comes_later_sees_all(
    demo: ServerProcess, browser: Browser
) -> None:
    async with traveller(browser, demo, "Ann") as ann, traveller(browser, demo, "Bob Ng") as bob:
        await ann.until("document.querySelector('.faces').ariaLabel.includes('Bob Ng')")
        await write(ann, "Take the ferry")
        await bob.until(says(NOTES, "Take the ferry"))
        await bob.until("document.querySelector('.ql-cursor-name')?.textContent === 'Ann'")
        await bob.click(NOTES)
        await ann.until("document.querySelector('.ql-cursor-name')?.textContent === 'Bob Ng'")
        await add(bob, "Fado", 2)
        await bob.click("[data-item=example-4] .unfold")
        await bob.click("[data-item=example-4] >> role=button[name='Reply']")
        await bob.fill("role=textbox[name='Reply to Ines']", "Booked!")
        await bob.press("Enter")
        await ann.until(says("#talk", "Booked!"))
        await ann.click("#talk >> role=button[name='Resolve']")
        await ann.fill("role=textbox[name='Planned in EUR']", "500")
        await ann.press("Enter")
        await bob.until(says("#budget", "€43 over"))

        await ann.until(SAVED)
        async with traveller(browser, demo, "Cy") as cy:
            assert "2 Fado" in await cy.evaluate(TITLES)
            assert "Take the ferry" in await cy.text(NOTES)
            assert "€43 over" in await cy.text("#budget")
            await cy.click("#talk >> role=button[name='Resolved 1']")
            assert "Booked!" in await cy.text("#talk")

    trip = await stored(demo, EXAMPLE)
    assert trip.oddities == ()
    assert len(trip.itinerary) == 11
    assert trip.budget == {"EUR": 500}
    (comment,) = trip.comments
    assert comment.resolved
    assert [reply.author_id for reply in comment.replies] == ["Tom", "Bob Ng"]


async def test_two_first_visitors_who_know_nothing_of_each_other_bring_the_example_once(
    strict: ServerProcess, browser: Browser, trip: str
) -> None:
    query = f"?trip={trip}"
    async with traveller(browser, strict, "Ann", query) as ann, traveller(browser, strict, "Bob", query) as bob:
        for page in (ann, bob):
            await switch_offline(page)
            await page.goto(url(strict))
            await page.until(f"{TITLES}.length === 10")
        for page in (ann, bob):
            await switch_offline(page)
            await page.until(SAVED)
        await add(ann, "Fado")
        await bob.until(f"{TITLES}.length > 10")

        assert len(await bob.evaluate(TITLES)) == 11


async def test_items_are_moved_by_keys_buttons_and_mouse_and_stay_the_ones_they_are(
    demo: ServerProcess, browser: Browser, trip: str
) -> None:
    query = f"?trip={trip}"
    async with traveller(browser, demo, "Ann", query) as ann, traveller(browser, demo, "Bob", query) as bob:
        for title in ("one", "two", "three"):
            await add(ann, title)
        await bob.until(f"{TITLES}.length === 3")
        await write(ann, "words")
        before = [item.id for item in (await stored(demo, f"trip-{trip}")).itinerary]

        # Bob has it open meanwhile.
        await bob.click("role=button[name='Details of three']")
        await bob.click("role=textbox[name='When']")
        await bob.type("at noon")
        await ann.evaluate("document.querySelector('[aria-label=\"Move three\"]').focus()")
        await ann.press("ArrowUp", "ArrowUp")
        await ann.until(f"{TITLES}.join() === '1 three,1 one,1 two'")
        await ann.press("ArrowDown", "ArrowDown", "ArrowDown")
        await ann.until(f"{TITLES}.join() === '1 one,1 two,2 three'")
        await write(bob, " of his")
        await ann.until(says(NOTES, "words of his"))
        assert await ann.evaluate("document.activeElement.ariaLabel") == "Move three"
        assert await ann.text("#announcements") == "three: day 2, 1 of 1"
        await ann.click("role=button[name='Details of one']")
        await ann.click("role=button[name='Move down']")
        await ann.until(f"{TITLES}.join() === '1 two,1 one,2 three'")
        await ann.click("role=button[name='Details of one']")
        await ann.drag("[aria-label='Move two']", "[data-day='2'] .add-item")
        await ann.until(f"{TITLES}.join() === '1 one,2 three,2 two'")

        await bob.until(f"{TITLES}.join() === '1 one,2 three,2 two'")
        await ann.until(SAVED)
        await bob.until(SAVED)
        now = (await stored(demo, f"trip-{trip}")).itinerary
        assert [item.id for item in now] == [before[0], before[2], before[1]]
        assert now[1].time_slot == "at noon"


async def test_undo_takes_back_own_edits_only(demo: ServerProcess, browser: Browser, trip: str) -> None:
    query = f"?trip={trip}"
    async with traveller(browser, demo, "Ann", query) as ann, traveller(browser, demo, "Bob", query) as bob:
        await add(ann, "hers")
        await write(ann, "words")
        await bob.until(says(NOTES, "words"))
        await add(bob, "his")
        await ann.until(f"{TITLES}.length === 2")

        await ann.press("Control+z")
        await ann.until(f"!({says(NOTES, 'words')})")
        await ann.click("role=button[name='Undo my last edit']")

        await bob.until(f"{TITLES}.join() === '1 his'")
        await ann.click("role=button[name='Redo']")
        await bob.until(f"{TITLES}.join() === '1 hers,1 his'")


async def test_others_see_who_is_away_and_where_somebody_is(demo: ServerProcess, browser: Browser, trip: str) -> None:
    query = f"?trip={trip}"
    async with traveller(browser, demo, "Ann", query) as ann, traveller(browser, demo, "Bob", query, clock=True) as bob:
        await add(ann, "Louvre")
        await bob.click(".item-title")
        await ann.until(says(".here .unseen", "Bob here"))

        await bob.let_pass(61)
        await ann.until("document.querySelector('.faces').ariaLabel.includes('Bob, idle')")
        await bob.press("Shift")
        await ann.until("!document.querySelector('.faces').ariaLabel.includes('idle')")


async def test_what_other_apps_put_into_a_trip_is_left_alone(demo: ServerProcess, browser: Browser, trip: str) -> None:
    doc: pycrdt.Doc[Any] = pycrdt.Doc()
    doc["notes"] = notes = pycrdt.Text("before after")
    notes.insert_embed(7, {"picture": "harbour"})
    doc["itinerary"] = pycrdt.Array([{"id": "no map"}, 7, pycrdt.Map({"id": "odd", "day": "tomorrow", "cost": -5})])
    doc["budget"] = pycrdt.Map({"EUR": "lots", "doubloons": 5})
    doc["comments"] = pycrdt.Array(
        [3, pycrdt.Map({"content": "no id"}), pycrdt.Map({"id": "c", "content": "<b>hm</b>"})]
    )
    await ask(demo, "POST", f"trip-{trip}/updates", body=doc.get_update())

    async with traveller(browser, demo, "Ann", f"?trip={trip}") as ann:
        await write(ann, ", and on")
        assert "<b>hm</b>" in await ann.text("#talk")
        await ann.until(SAVED)

    now = await ask(demo, "GET", f"trip-{trip}/document")
    doc.apply_update(now)
    assert [part for part, _ in notes.diff()] == ["before ", {"picture": "harbour"}, "after, and on"]
    assert doc["budget"].to_py() == {"EUR": "lots", "doubloons": 5}


# ----------------------------------------------------------------------------------------------- what is saved


async def test_edits_made_offline_survive_a_reload_and_meet_the_others(
    demo: ServerProcess, browser: Browser, trip: str
) -> None:
    query = f"?trip={trip}"
    async with traveller(browser, demo, "Ann", query) as ann, traveller(browser, demo, "Bob", query) as bob:
        await add(ann, "Louvre")
        await bob.until(f"{TITLES}.length === 1")
        await switch_offline(bob)
        await bob.until(f"{STATE} === 'Offline'")
        await ann.until("document.querySelectorAll('.faces .avatar').length === 1")
        await add(bob, "Orsay")
        # All in one go is one edit.
        await bob.fill(".item-title >> nth=0", "Louvre, early")
        await bob.until(f"{STATE} === 'Offline, 2 unsaved'")
        await ann.click("role=button[name='Details of Louvre']")
        await ann.select("role=combobox[name='Day']", "2")

        await bob.reload()
        await bob.until(f"document.querySelector('.pill') && {STATE} === 'Offline, 2 unsaved'")
        assert await bob.evaluate(TITLES) == ["1 Louvre, early", "1 Orsay"]
        await switch_offline(bob)

        await bob.until(SAVED)
        for page in (ann, bob):
            await page.until(f"{TITLES}.join() === '1 Orsay,2 Louvre, early'")


async def test_saved_means_stored(demo: ServerProcess, browser: Browser, trip: str) -> None:
    query = f"?trip={trip}"
    async with traveller(browser, demo, "Ann", query) as ann, traveller(browser, demo, "Bob", query) as bob:
        with contextlib.closing(sqlite3.connect(demo.database_path, isolation_level=None)) as other:
            # Nobody else can write now.
            other.execute("BEGIN IMMEDIATE")
            await add(ann, "Louvre")
            await bob.until(f"{TITLES}.length === 1")
            await asyncio.sleep(0.7)

            assert await ann.evaluate(STATE) == "Saving…"
            await ann.click(".pill")
            assert "1 edit of yours is kept in this browser" in await ann.text(".saving .menu-body")
            other.execute("ROLLBACK")
        await ann.until(SAVED)

    assert len((await stored(demo, f"trip-{trip}")).itinerary) == 1


async def test_without_a_server_the_page_opens_and_edits_are_sent_when_it_is_back(
    tmp_path: Path, browser: Browser, trip: str
) -> None:
    async with ServerProcess(tmp_path, script=SERVE) as server:
        async with traveller(browser, server, "Ann", f"?trip={trip}") as ann:
            await add(ann, "Louvre")
            await ann.until(SAVED)
            await ann.until("caches.match('/').then(page => page !== undefined)")
            server.kill()
            await ann.until(f"{STATE} === 'No connection'")
            await ann.reload()
            await ann.until("document.querySelector('.item') !== null")
            await add(ann, "Orsay")
            await ann.until(f"{STATE} === 'Connecting…, 1 unsaved'")
            await ann.see("text=The server can’t be reached")

            # It has other keys now.
            await server.start()
            await ann.until(SAVED)
            await ann.gone("text=The server can’t be reached")
        assert len((await stored(server, f"trip-{trip}")).itinerary) == 2


async def test_tokens_are_renewed_without_anybody_noticing(strict: ServerProcess, browser: Browser, trip: str) -> None:
    async with traveller(browser, strict, "Ann", f"?trip={trip}") as ann:
        await ann.evaluate(f"window.states = []; setInterval(() => states.push({STATE}), 10)")
        await add(ann, "Louvre")
        async with asyncio.timeout(20):
            while sum(one.endswith("/session") for one in await ann.requests()) < 2:
                await asyncio.sleep(0.05)
        await add(ann, "Orsay")
        await ann.until(SAVED)
        assert set(await ann.evaluate("states")) <= {"Saved", "Saving…"}


async def test_who_has_a_deleted_trip_open_is_told_and_keeps_no_copy(
    strict: ServerProcess, browser: Browser, trip: str
) -> None:
    async with traveller(browser, strict, "Ann", f"?trip={trip}") as ann:
        await add(ann, "Louvre")
        await ann.until(SAVED)

        await ask(strict, "DELETE", f"trip-{trip}")

        await ann.see("text=This trip was deleted")
        await ann.until("indexedDB.databases().then(all => all.every(one => !one.name.includes('trip-')))")


async def test_who_writes_more_than_a_trip_may_hold_is_told_that_it_is_not_saved(
    strict: ServerProcess, browser: Browser, trip: str
) -> None:
    async with traveller(browser, strict, "Ann", f"?trip={trip}") as ann:
        await ann.fill(NOTES, "endless " * 4000)

        await ann.see("text=This trip is full")
        assert await ann.evaluate(STATE) == "No connection, 1 unsaved"


# ------------------------------------------------------------------------------------------------------ the past


async def test_a_version_is_brought_back_from_the_history(demo: ServerProcess, browser: Browser, trip: str) -> None:
    query = f"?trip={trip}"
    async with traveller(browser, demo, "Ann", query) as ann, traveller(browser, demo, "Bob", query) as bob:
        await add(ann, "Louvre")
        await write(ann, "Take the night train")
        await ann.click("role=button[name='History']")
        await ann.fill("role=textbox[name='Name of the version']", "As planned")
        await ann.click("role=button[name='Keep']")
        await ann.see(".version >> text=As planned")
        await ann.press("Escape")
        await bob.click("role=button[name='Details of Louvre']")
        await bob.click("role=button[name='Remove']")
        await write(bob, " or not")
        await bob.until(SAVED)

        await ann.click("role=button[name='History']")
        await ann.click(".version >> text=As planned")
        await ann.until(says(".groups", "Removed from day 1"))
        assert await ann.texts(".groups h3") == ["Louvre", "Notes"]
        assert await ann.texts(".groups .who") == ["Bob", "Bob"]
        assert await ann.texts(".groups ins") == [" or not"]
        await ann.click("role=button[name='Restore']")

        await bob.until(f"{TITLES}.join() === '1 Louvre'")
        await bob.until(f"!({says(NOTES, 'or not')})")
        await ann.click("text=Take that back")
        await bob.until(f"{TITLES}.length === 0")


# ----------------------------------------------------------------------------------------------- for everybody


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_it_fits_a_phone_and_everybody_can_read_and_use_it(
    demo: ServerProcess, browser: Browser, dark: bool
) -> None:
    async with traveller(browser, demo, "Ann with a very long name indeed, 40 cha", dark=dark, **PHONE) as ann:
        await ann.click("[data-item=example-4] .unfold")
        assert not await ann.scrolls_sideways()
        assert await ann.flaws() == []
        for tab in ("Notes", "Budget", "Comments"):
            await ann.click(f".tabs >> text={tab}")
            assert not await ann.scrolls_sideways(), tab
        for button in ("More", "Share"):
            await ann.click(f"role=button[name='{button}']")
            assert not await ann.scrolls_sideways(), button
        await ann.press("Escape")
        await ann.click("role=button[name='History']")
        await ann.see(".list ol, .list .nothing")
        assert not await ann.scrolls_sideways()
        assert await ann.flaws() == []


async def test_a_new_trip_invites_and_a_broken_link_says_so(demo: ServerProcess, browser: Browser) -> None:
    async with traveller(browser, demo, "Ann", "?new") as ann:
        await ann.see("text=Where are you going?")
        await ann.fill("role=textbox[name='Title of the trip']", "Paris")
        await ann.until(SAVED)
        await ann.click("role=button[name='Share']")
        link = await ann.evaluate("document.querySelector('.share input').value")
        assert link == await ann.evaluate("location.href")

        trip = await stored(demo, "trip-" + link.partition("?trip=")[2])
        assert (trip.title, trip.owner_id, trip.metadata.version, trip.oddities) == ("Paris", "Ann", 1, ())
    async with browser.page(url(demo, "?trip=a/b")) as lost:
        await lost.see("text=This is no link to a trip")


async def test_the_page_is_for_this_machine_and_nobody_else_gets_a_token(demo: ServerProcess) -> None:
    wish = {"name": "eve", "color": "#000000"}

    rebound = await request(demo.url, "POST", "/session", body=wish, headers={"Host": "evil.example:1234"})
    nameless = await request(demo.url, "POST", "/session", body=wish | {"name": " "})
    page = await request(demo.url, "GET", "/")

    assert (rebound.status, nameless.status, page.status) == (403, 400, 200)
    assert "default-src 'self'" in page.headers["content-security-policy"]
