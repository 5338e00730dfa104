"""`clients/js`, the plug-in for stock providers: what it calls saved is stored, whatever happens in between."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pycrdt import Doc, Text

from crdt_sync.client import connect
from tests.support.api import GUARDED, token
from tests.support.clients import NODE_VERSIONS, ClientFailed, NodeClient, NodeClients
from tests.support.database import stored_updates
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess
from tests.support.yjs import Yjs

READ_ONLY = "This user may not do that in this room. What the server refused is not stored."

COUNT_SENT = (
    "(client.sent = [], client.send0 = client.socket().send.bind(client.socket()),"
    " client.socket().send = data => { client.sent.push(data); client.send0(data) }, null)"
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """For the tests that leave it alone; each has a room of its own."""
    yield from running(ServerProcess(tmp_path_factory.mktemp("server")))


def running(server: ServerProcess) -> Iterator[ServerProcess]:
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())
    assert server.errors() == []


@contextlib.contextmanager
def locked(server: ServerProcess) -> Iterator[None]:
    """The server can't store anything meanwhile."""
    with contextlib.closing(sqlite3.connect(server.database_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def is_pair(event: object) -> bool:
    return isinstance(event, list)


async def attached(clients: NodeClients, url: str) -> dict[str, NodeClient]:
    """A client of each version, each in a room of its own, with the plug-in."""
    made = {version: await clients.create(url, f"trip-{version}", version) for version in NODE_VERSIONS}
    for client in made.values():
        await client.attach()
    return made


def stored_text(server: ServerProcess, yjs: Yjs, room: str) -> object:
    """The text that is in the database."""
    return yjs.apply(stored_updates(server.database_url, room), {"text": "text"}).content["text"]["string"]


async def test_saved_is_said_only_after_the_commit(clients: NodeClients, tmp_path: Path, yjs: Yjs) -> None:
    async with ServerProcess(tmp_path) as server:
        everyone = await attached(clients, server.url)
        for client in everyone.values():
            await client.saved()

        with locked(server):
            for client in everyone.values():
                await client.insert(0, "a")
                await client.insert(1, "b")
            await asyncio.sleep(0.5)
            during = {version: await client.report() for version, client in everyone.items()}
        for client in everyone.values():
            await client.wait(plugin={"state": "saved", "unsaved": 0, "supported": True})
        server.kill()

        for version in NODE_VERSIONS:
            assert (during[version]["state"], during[version]["unsaved"]) == ("saving", 2)
            assert stored_text(server, yjs, f"trip-{version}") == "ab"


async def test_edits_of_a_killed_server_are_unsaved_until_the_next_one_has_stored_them(
    clients: NodeClients, tmp_path: Path, yjs: Yjs
) -> None:
    async with ServerProcess(tmp_path) as server:
        everyone = await attached(clients, server.url)
        for client in everyone.values():
            await client.saved()
        with locked(server):
            for client in everyone.values():
                await client.insert(0, "sent ")
            await asyncio.sleep(0.3)
            server.kill()
        for client in everyone.values():
            await client.wait(plugin={"state": "offline", "unsaved": 1})
            await client.insert(5, "offline")
            assert (await client.report())["unsaved"] == 2

        await server.start()
        await asyncio.gather(*(client.saved(timeout_s=10) for client in everyone.values()))
        reports = {version: await client.report() for version, client in everyone.items()}
        server.kill()

        for version in NODE_VERSIONS:
            assert (reports[version]["state"], reports[version]["unsaved"]) == ("saved", 0)
            assert stored_text(server, yjs, f"trip-{version}") == "sent offline"


async def test_a_reconnect_in_the_middle_of_a_confirmation_confirms_nothing(
    clients: NodeClients, shared: ServerProcess, room: str
) -> None:
    async with Proxy(shared.port) as proxy:
        ann = await clients.create(proxy.url(shared.url), room)
        await ann.attach()
        await ann.saved()

        proxy.hold_answers()
        await ann.insert(0, "a")
        await asyncio.sleep(0.4)
        held = await ann.report()
        proxy.cut()
        await ann.wait(plugin={"state": "offline"})
        offline = await ann.report()
        proxy.release_answers()
        await ann.wait(plugin={"state": "saved", "unsaved": 0})

    assert (held["state"], held["unsaved"]) == ("saving", 1)
    assert (offline["state"], offline["unsaved"]) == ("offline", 1)


async def test_what_a_server_that_was_set_back_lacks_is_not_saved_until_it_has_it_again(
    clients: NodeClients, tmp_path: Path, yjs: Yjs
) -> None:
    doc: Doc[Any] = Doc()
    async with ServerProcess(tmp_path) as server, Proxy(server.port) as proxy:
        ann = await clients.create(proxy.url(server.url), "trip-1")
        await ann.attach()
        async with connect(proxy.url(server.url), "trip-2", doc) as room:
            await ann.insert(0, "a")
            doc.get("text", type=Text).insert(0, "b")
            await asyncio.gather(ann.saved(), room.saved())

            proxy.refuse()
            server.kill()
            for file in tmp_path.glob("documents.db*"):
                file.unlink()
            await server.start()
            await clients.create(server.url, "trip-1")
            await clients.create(server.url, "trip-2")
            with locked(server):
                await proxy.accept()
                await ann.wait(synced=True, timeout_s=10)
                while room.state == "offline":
                    await asyncio.sleep(0.02)
                await asyncio.sleep(0.3)
                during = (await ann.report())["state"], room.state
            await asyncio.gather(ann.wait(plugin={"state": "saved"}), room.saved())
            server.kill()

            assert during == ("saving", "saving")
            assert stored_text(server, yjs, "trip-1") == "a"
            assert stored_text(server, yjs, "trip-2") == "b"


async def test_two_providers_of_one_document_have_each_their_own_account(
    clients: NodeClients, shared: ServerProcess, room: str
) -> None:
    ann = await clients.create(shared.url, room)
    await ann.attach()
    await ann.evaluate(
        f"(client.second = new client.provider.constructor('{shared.url}', '{room}-copy', client.doc,"
        " { disableBc: true, WebSocketPolyfill: client.provider._WS, awareness: client.provider.awareness }), null)"
    )
    await ann.insert(0, "a")
    await ann.saved()
    copy = await clients.create(shared.url, f"{room}-copy")
    await copy.insert(0, "b")

    # What comes from the other room is no edit of hers, but has to be stored in this one.
    await ann.wait(text="ba")
    assert (await ann.report())["unsaved"] == 0
    await ann.saved()
    bob = await clients.create(shared.url, room)
    await bob.wait(text="ba")
    await ann.evaluate("(client.second.destroy(), null)")


async def test_who_waits_is_told_when_document_or_plugin_are_destroyed(
    clients: NodeClients, shared: ServerProcess, room: str
) -> None:
    for destroy in ("doc", "plugin"):
        ann = await clients.create(shared.url, f"{room}-{destroy}", connect=False)
        await ann.attach()
        await ann.insert(0, "a")
        waiting = asyncio.create_task(ann.saved())
        await asyncio.sleep(0)
        await ann.evaluate(f"(client.{destroy}.destroy(), null)")

        with pytest.raises(ClientFailed, match="destroyed before everything was saved"):
            await waiting
        assert await ann.evaluate("client.provider.messageHandlers[0] === undefined") is False


async def test_a_server_that_never_confirms_is_never_believed(
    clients: NodeClients, shared: ServerProcess, room: str
) -> None:
    ann = await clients.create(shared.url, room, connect=False)
    # The questions don't arrive, and 10 s are over in 0.1 s.
    await ann.evaluate(
        "(globalThis.setTimeout0 = setTimeout,"
        " globalThis.setTimeout = (then, ms, ...rest) => setTimeout0(then, ms === 10_000 ? 100 : ms, ...rest),"
        " client.provider.on('status', () => { const socket = client.provider.ws; if (socket && !socket.muted) {"
        "   const send = socket.send.bind(socket);"
        "   Object.assign(socket, { muted: true, send: data => { if (data[0] !== 102) send(data) } }) } }), null)"
    )
    await ann.attach()
    await ann.connect()
    await ann.insert(0, "a")
    await ann.wait(synced=True, plugin={"supported": False, "state": "saving", "unsaved": 1})
    await ann.evaluate("(globalThis.setTimeout = setTimeout0, null)")


async def test_a_thousand_edits_in_one_turn_are_asked_about_once(
    clients: NodeClients, shared: ServerProcess, room: str
) -> None:
    ann = await clients.create(shared.url, room)
    await ann.attach()
    await ann.saved()
    await ann.evaluate(COUNT_SENT)

    unsaved = await ann.evaluate(
        "(Array.from({length: 1000}, () => client.doc.getText('text').insert(0, 'a')), client.plugin.unsaved)"
    )
    await ann.saved()

    assert unsaved == 1000
    assert (await ann.report())["unsaved"] == 0
    assert await ann.evaluate("client.sent.filter(frame => frame[0] === 102).length") == 1


async def test_an_edit_while_a_confirmation_is_under_way_needs_another_one(
    clients: NodeClients, tmp_path: Path
) -> None:
    async with ServerProcess(tmp_path) as server:
        ann = await clients.create(server.url, "trip-1")
        await ann.attach()
        await ann.saved()

        with locked(server):
            await ann.insert(0, "a")
            await asyncio.sleep(0.1)
            await ann.insert(0, "b")
            await ann.evaluate(
                "(client.least = [], client.plugin.on('change', () => client.least.push(client.plugin.unsaved)), null)"
            )
        await ann.wait(plugin={"unsaved": 0, "state": "saved"})

        assert await ann.evaluate("client.least") == [1, 0]


async def test_what_is_loaded_locally_is_confirmed_but_not_counted(
    clients: NodeClients, shared: ServerProcess, room: str
) -> None:
    other = await clients.create(shared.url, f"{room}-other")
    await other.insert(0, "loaded")
    state = (await other.encode_state()).hex()
    ann = await clients.create(shared.url, room)
    await ann.attach(loaded=False)

    await asyncio.sleep(0.3)
    before = await ann.report()
    await ann.evaluate(f"client.Y.applyUpdate(client.doc, Buffer.from('{state}', 'hex'), {{ name: 'indexeddb' }})")
    await ann.load()
    await ann.wait(plugin={"state": "saved"})

    assert (before["state"], before["unsaved"]) == ("saving", 0)
    bob = await clients.create(shared.url, room)
    await bob.wait(text="loaded")


async def test_the_count_outlives_the_page(clients: NodeClients, shared: ServerProcess, room: str) -> None:
    ann = await clients.create(shared.url, room, connect=False)
    await ann.attach(storage=room)
    await ann.insert(0, "a")
    await ann.insert(1, "b")
    state = (await ann.encode_state()).hex()
    await ann.destroy()

    again = await clients.create(shared.url, room, connect=False)
    await again.attach(storage=room, loaded=False)
    reloaded = await again.report()
    await again.connect()
    await again.wait(synced=True)
    await asyncio.sleep(0.3)
    synced = await again.report()
    await again.evaluate(f"client.Y.applyUpdate(client.doc, Buffer.from('{state}', 'hex'), {{ name: 'indexeddb' }})")
    await again.load()
    await again.saved()
    await again.destroy()
    third = await clients.create(shared.url, room, connect=False)
    await third.attach(storage=room)

    assert (reloaded["state"], reloaded["unsaved"]) == ("offline", 2)
    assert (synced["state"], synced["unsaved"]) == ("saving", 2)
    assert (await third.report())["unsaved"] == 0


async def test_edits_of_a_tab_that_cannot_send_them_are_sent_by_the_other_before_it_calls_them_saved(
    clients: NodeClients, shared: ServerProcess, room: str
) -> None:
    tab = await clients.create(shared.url, room, tabs=True)
    closing = await clients.create(shared.url, room, tabs=True)
    await tab.attach()
    await closing.attach()
    await tab.saved()
    await closing.abort(come_back=False)

    await closing.insert(0, "a")
    await tab.wait(text="a", plugin={"state": "saving", "unsaved": 0})
    assert (await closing.report())["unsaved"] == 1
    await closing.destroy()
    await tab.saved()

    bob = await clients.create(shared.url, room)
    await bob.wait(text="a")


async def test_edits_of_a_tab_that_sends_them_are_sent_once(
    clients: NodeClients, shared: ServerProcess, room: str
) -> None:
    tab = await clients.create(shared.url, room, tabs=True)
    other = await clients.create(shared.url, room, tabs=True)
    await tab.attach()
    await tab.saved()
    sent = "client.sent.filter(frame => frame[0] === 0).length"
    await tab.evaluate(COUNT_SENT)

    await other.insert(0, "a")
    await tab.wait(text="a")
    await tab.saved(timeout_s=0.9)

    assert await tab.evaluate(sent) == 0


# ------------------------------------------------------------------------------------------ tokens and closing codes


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Wants tokens."""
    yield from running(ServerProcess(tmp_path_factory.mktemp("guarded"), env=GUARDED | {"CRDT_SYNC_JWT_LEEWAY_S": "0"}))


async def test_a_fresh_token_is_shown_on_the_same_connection_before_the_old_one_ends(
    clients: NodeClients, guarded: ServerProcess, room: str
) -> None:
    everyone = {}
    for version in NODE_VERSIONS:
        # Within a minute of its end, of which the server tells at once.
        params = {"token": token(ttl_s=4)}
        everyone[version] = await clients.create(
            guarded.url, f"{room}-{version}", version, params=params, connect=False
        )
        await everyone[version].attach(tokens=[token(ttl_s=3600)])
        await everyone[version].connect()
    for client in everyone.values():
        await client.wait(told=["expiring"], plugin={"state": "saved"})
    await asyncio.sleep(4.5)

    for client in everyone.values():
        await client.insert(0, "later")
        await client.saved()
        assert (await client.status())["opened"] == 1
        [expiring] = [value for event, value in filter(is_pair, await client.events()) if event == "expiring"]
        assert expiring["seconds"] <= 4


async def test_a_token_that_is_not_taken_is_told_and_the_next_connection_has_another_one(
    clients: NodeClients, guarded: ServerProcess, room: str
) -> None:
    async def outlive_a_token(version: str) -> None:
        name = f"{room}-{version}"
        first = token(ttl_s=2)
        ann = await clients.create(guarded.url, name, version, params={"token": first}, connect=False)
        if version == "3.1":
            await ann.evaluate(
                f"(client.provider.params = {{}}, client.provider.protocols = ['y', 'bearer.{first}'], null)"
            )
        # The second is for when the connection is closed with 4401.
        await ann.attach(tokens=[token("eve", ttl_s=3600), token(ttl_s=3600)])
        await ann.connect()
        await ann.wait(told=["denied"])
        await ann.wait(closes=1)
        await ann.insert(0, "a")
        await ann.saved(timeout_s=10)

        status = await ann.status()
        assert status["closes"][0]["code"] == 4401
        assert "closed" not in (await ann.report())["events"]

    await asyncio.gather(*(outlive_a_token(version) for version in ("1.5", "3.1")))


async def test_a_provider_stops_when_the_server_closes_it_for_good_and_nothing_is_called_saved(
    clients: NodeClients, guarded: ServerProcess, room: str
) -> None:
    for version in NODE_VERSIONS:
        bob = await clients.create(guarded.url, room, version, params={"token": token("bob", {"*": "read"})})
        await bob.attach()
        await bob.saved()

        await bob.insert(0, "b")
        await bob.wait(told=["closed"])
        with pytest.raises(ClientFailed, match=r"4403 read only.*may not do that"):
            await bob.saved()
        report, status = await bob.report(), await bob.status()
        await asyncio.sleep(0.2)

        assert (report["state"], report["unsaved"]) == ("offline", 1)
        assert ["closed", {"code": 4403, "reason": "read only", "advice": READ_ONLY}] in await bob.events()
        assert (status["shouldConnect"], (await bob.status())["opened"]) == (False, 1)


async def test_what_the_server_drops_is_never_called_saved(clients: NodeClients, tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, env=GUARDED | {"CRDT_SYNC_READ_ONLY_UPDATES": "drop"}) as server:
        bob = await clients.create(server.url, "trip-1", params={"token": token("bob", {"*": "read"})})
        await bob.attach()
        await bob.saved()

        await bob.insert(0, "b")
        await bob.wait(told=["denied"])
        await asyncio.sleep(0.4)

        report = await bob.report()
        assert (report["state"], report["unsaved"]) == ("saving", 1)
        assert ["denied", {"reason": "read only"}] in await bob.events()


async def test_clients_of_a_server_that_is_gone_come_back_spread_over_time(
    clients: NodeClients, tmp_path: Path
) -> None:
    waits_ms = "client.provider.maxBackoffTime"
    async with ServerProcess(tmp_path) as server:
        everyone = [await clients.create(server.url, "trip-1", version) for version in NODE_VERSIONS for _ in range(3)]
        for client in everyone:
            await client.attach()
        server.kill()
        await asyncio.gather(*(client.wait(closes=1) for client in everyone))
        first = [await client.evaluate(waits_ms) for client in everyone]
        await asyncio.gather(*(client.wait(closes=2) for client in everyone))
        second = [await client.evaluate(waits_ms) for client in everyone]
        await everyone[0].detach()

    assert all(100 <= wait_ms <= 1000 for wait_ms in first)
    assert max(first) - min(first) > 200
    assert 1000 < max(second) <= 2500
    assert await everyone[0].evaluate(waits_ms) == 2500


async def test_misuse_is_an_error_that_says_what_to_do(clients: NodeClients) -> None:
    ann = await clients.create("ws://127.0.0.1:1", "trip-1", connect=False)
    await ann.attach()

    with pytest.raises(ClientFailed, match="attached already"):
        await ann.attach()
    await ann.detach()
    await ann.attach()
    await ann.detach()
    with pytest.raises(ClientFailed, match="destroyed"):
        await ann.saved()
