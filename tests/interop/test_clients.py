"""The real clients against the real server, each version with another one.

y-websocket 1.5.4, 3.0.0, 3.1.0 (Yjs 13), @y/websocket 4.0.0-3 (Yjs 14) and pycrdt's Provider.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import NODE_VERSIONS, VERSIONS, ClientFailed, NodeClient, NodeClients
from tests.support.database import stored_updates
from tests.support.server import ServerProcess
from tests.support.yjs import Yjs

PAIRS = [("1.5", "3.1"), ("3.0", "1.5"), ("3.1", "4.0"), ("4.0", "1.5"), ("pycrdt", "3.0"), ("4.0", "pycrdt")]
"""Every version edits first once, and second once or twice."""

across_versions = pytest.mark.parametrize(("first", "second"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
every_npm_version = pytest.mark.parametrize("version", NODE_VERSIONS)


# -------------------------------------------------------------------------------------------------- documents


@across_versions
async def test_text_and_its_formats_are_edited_both_ways(
    shared_server: ServerProcess, clients: NodeClients, room: str, first: str, second: str
) -> None:
    a = await clients.create_any(shared_server.url, room, first)
    b = await clients.create_any(shared_server.url, room, second)

    await a.insert(0, "hello wörld")
    await a.format(0, 5, {"bold": True})
    await b.wait(delta=[{"insert": "hello", "attributes": {"bold": True}}, {"insert": " wörld"}])
    await b.insert(11, "!", {"italic": True})
    await b.delete(5, 1)

    edited = [
        {"insert": "hello", "attributes": {"bold": True}},
        {"insert": "wörld"},
        {"insert": "!", "attributes": {"italic": True}},
    ]
    await a.wait(delta=edited)
    await b.wait(delta=edited)


@across_versions
async def test_an_array_is_edited_both_ways(
    shared_server: ServerProcess, clients: NodeClients, room: str, first: str, second: str
) -> None:
    a = await clients.create_any(shared_server.url, room, first)
    b = await clients.create_any(shared_server.url, room, second)

    await a.array_insert(0, [1, "two", {"three": [3.5, None, True]}])
    await b.wait(array=[1, "two", {"three": [3.5, None, True]}])
    await b.array_insert(1, ["between"])
    await b.array_delete(0)

    await a.wait(array=["between", "two", {"three": [3.5, None, True]}])
    await b.wait(array=["between", "two", {"three": [3.5, None, True]}])


@across_versions
async def test_a_map_is_edited_both_ways(
    shared_server: ServerProcess, clients: NodeClients, room: str, first: str, second: str
) -> None:
    a = await clients.create_any(shared_server.url, room, first)
    b = await clients.create_any(shared_server.url, room, second)

    await a.map_set("title", "Lisbon")
    await a.map_set("days", 3)
    await b.wait(map={"title": "Lisbon", "days": 3})
    await b.map_set("title", {"pt": "Lisboa"})
    await b.map_delete("days")

    await a.wait(map={"title": {"pt": "Lisboa"}})
    await b.wait(map={"title": {"pt": "Lisboa"}})


@across_versions
async def test_xml_is_edited_both_ways(
    shared_server: ServerProcess, clients: NodeClients, room: str, first: str, second: str
) -> None:
    a = await clients.create_any(shared_server.url, room, first)
    b = await clients.create_any(shared_server.url, room, second)

    await a.add_element(0, "p", {"class": "intro"}, "Day one")
    await b.wait(xml='<p class="intro">Day one</p>')
    await b.set_attribute(0, "class", "lead")
    await b.add_element(1, "p", {}, "Day two")

    await a.wait(xml='<p class="lead">Day one</p><p>Day two</p>')
    await b.wait(xml='<p class="lead">Day one</p><p>Day two</p>')


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_nested_map_of_yjs_13_is_edited_by_every_version(
    shared_server: ServerProcess, clients: NodeClients, room: str, version: str
) -> None:
    a = await clients.create(shared_server.url, room, "3.1")
    b = await clients.create_any(shared_server.url, room, version)

    await a.map_set("day", {"$map": {"stops": {"$array": ["Belém", {"$text": "Alfama"}]}}})
    await b.wait(map={"day": {"stops": ["Belém", "Alfama"]}})
    await b.map_set("date", "2026-05-01", path=["day"])

    await a.wait(map={"day": {"stops": ["Belém", "Alfama"], "date": "2026-05-01"}})


@pytest.mark.parametrize("version", ["1.5", "3.0", "4.0"])
async def test_an_embed_in_text_reaches_every_version(
    shared_server: ServerProcess, clients: NodeClients, room: str, version: str
) -> None:
    a = await clients.create(shared_server.url, room, "3.1")
    b = await clients.create(shared_server.url, room, version)

    await a.insert(0, "ab")
    await a.embed(1, {"image": "tram.jpg"})

    await b.wait(delta=[{"insert": "a"}, {"insert": {"image": "tram.jpg"}}, {"insert": "b"}])


@every_npm_version
async def test_an_undo_reaches_the_others(
    shared_server: ServerProcess, clients: NodeClients, room: str, version: str
) -> None:
    a = await clients.create(shared_server.url, room, version)
    b = await clients.create(shared_server.url, room, "3.1")
    await a.track_undo()
    await a.insert(0, "keep")
    await a.insert(4, " drop")
    await b.wait(text="keep drop")

    await a.undo()

    await b.wait(text="keep")


async def test_all_versions_in_one_room_agree_on_concurrent_edits(
    shared_server: ServerProcess, clients: NodeClients, room: str
) -> None:
    everyone = [await clients.create_any(shared_server.url, room, version) for version in VERSIONS]

    for number, client in enumerate(everyone):
        await client.insert(0, f"{number} ")
        await client.array_insert(0, [number])

    last = await clients.create(shared_server.url, room, "3.1", connect=False)
    for client in everyone:
        await client.confirm()
    await last.connect()
    await last.wait(synced=True)
    agreed = await last.content("text", "array")
    assert (sorted(agreed["text"].split()), sorted(agreed["array"])) == (["0", "1", "2", "3", "4"], [0, 1, 2, 3, 4])
    for client in everyone:
        await client.wait(**agreed)


@pytest.mark.parametrize("version", VERSIONS)
async def test_edits_made_offline_are_merged_after_a_reconnect(
    shared_server: ServerProcess, clients: NodeClients, room: str, version: str
) -> None:
    a = await clients.create_any(shared_server.url, room, version)
    b = await clients.create(shared_server.url, room, "3.1")
    await a.insert(0, "one three")
    await b.wait(text="one three")

    await a.disconnect()
    await a.insert(4, "two ")
    await b.insert(9, " four")
    await a.connect()

    await a.wait(text="one two three four")
    await b.wait(text="one two three four")


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_version_can_ask_whether_its_edits_are_stored(
    shared_server: ServerProcess, clients: NodeClients, room: str, yjs: Yjs, version: str
) -> None:
    a = await clients.create_any(shared_server.url, room, version)
    await a.insert(0, "kept")

    await a.confirm(timeout_s=2)

    stored = yjs.apply(stored_updates(shared_server.database_url, room), {"text": "text"})
    assert stored.content["text"]["string"] == "kept"


# -------------------------------------------------------------------------------------------------- awareness


@across_versions
async def test_a_joiner_sees_who_is_there_within_a_second(
    shared_server: ServerProcess, clients: NodeClients, room: str, first: str, second: str
) -> None:
    a = await clients.create_any(shared_server.url, room, first, state={"user": "Ana"})
    b = await clients.create_any(shared_server.url, room, second, state={"user": "Ben"})

    await b.wait(present=[a.client_id], timeout_s=1)
    await a.wait(present=[b.client_id], timeout_s=1)

    assert (await b.states())[a.client_id] == {"user": "Ana"}
    assert (await a.states())[b.client_id] == {"user": "Ben"}


@across_versions
async def test_a_user_who_says_goodbye_is_gone_at_once(
    tmp_path: Path, clients: NodeClients, room: str, first: str, second: str
) -> None:
    # With these, nobody is gone within a second because of a closed connection.
    patient = {"CRDT_SYNC_AWARENESS_LEAVE_S": "60", "CRDT_SYNC_AWARENESS_GRACE_S": "60"}
    async with ServerProcess(tmp_path, env=patient) as server:
        a = await clients.create_any(server.url, room, first, state={"user": "Ana"})
        b = await clients.create_any(server.url, room, second)
        await b.wait(present=[a.client_id])

        await a.disconnect()

        await b.wait(absent=[a.client_id], timeout_s=1)


@every_npm_version
async def test_a_user_who_closes_the_tab_is_gone_within_a_second(
    shared_server: ServerProcess, clients: NodeClients, room: str, version: str
) -> None:
    a = await clients.create(shared_server.url, room, version, state={"user": "Ana"})
    b = await clients.create(shared_server.url, room, "3.1")
    await b.wait(present=[a.client_id])

    await a.close_tab()

    await b.wait(absent=[a.client_id], timeout_s=1)


@every_npm_version
async def test_a_user_who_comes_back_is_seen_within_a_second(
    shared_server: ServerProcess, clients: NodeClients, room: str, version: str
) -> None:
    a = await clients.create(shared_server.url, room, version, state={"user": "Ana"})
    b = await clients.create(shared_server.url, room, "3.1")
    await b.wait(present=[a.client_id])
    await a.disconnect()
    await b.wait(absent=[a.client_id])

    await a.connect()
    await a.wait(connected=True)

    # The stock client announces itself with the clock at which it was removed: without the server's help,
    # the others would ignore it until its next renewal.
    await b.wait(states={a.client_id: {"user": "Ana"}}, timeout_s=1)


@every_npm_version
async def test_a_lost_network_and_a_quick_return_go_unnoticed(
    tmp_path: Path, clients: NodeClients, room: str, version: str
) -> None:
    async with ServerProcess(tmp_path, env={"CRDT_SYNC_AWARENESS_GRACE_S": "1"}) as server:
        a = await clients.create(server.url, room, version, state={"user": "Ana"})
        b = await clients.create(server.url, room, "3.1")
        await b.wait(present=[a.client_id])

        await a.abort()
        await a.wait(opened=2, synced=True)
        with pytest.raises(ClientFailed):
            await b.wait(absent=[a.client_id], timeout_s=2)

        assert "removed" not in await b.awareness_log(a.client_id)


async def test_a_user_whose_network_is_lost_stays_for_the_grace_and_is_gone_then(
    tmp_path: Path, clients: NodeClients, room: str
) -> None:
    async with ServerProcess(tmp_path, env={"CRDT_SYNC_AWARENESS_GRACE_S": "2"}) as server:
        a = await clients.create(server.url, room, state={"user": "Ana"})
        b = await clients.create(server.url, room)
        await b.wait(present=[a.client_id])

        await a.abort(come_back=False)
        gone_after_s = await b.wait(absent=[a.client_id], timeout_s=4)
        assert gone_after_s > 1.5

        await a.connect()
        await b.wait(states={a.client_id: {"user": "Ana"}}, timeout_s=1)


@every_npm_version
async def test_a_change_of_state_reaches_the_others(
    shared_server: ServerProcess, clients: NodeClients, room: str, version: str
) -> None:
    a = await clients.create(shared_server.url, room, version, state={"cursor": 1})
    b = await clients.create(shared_server.url, room, "3.1")
    await b.wait(states={a.client_id: {"cursor": 1}})

    await a.set_state({"cursor": 2, "name": "Zoë 🙂"})

    await b.wait(states={a.client_id: {"cursor": 2, "name": "Zoë 🙂"}}, timeout_s=1)


# -------------------------------------------------------------------------------------------------- connections


@pytest.mark.waits
@pytest.mark.parametrize("shared_server", ["sqlite"], indirect=True)  # one such wait is enough
async def test_a_client_idle_for_70_seconds_keeps_its_one_connection(
    shared_server: ServerProcess, clients: NodeClients, room: str
) -> None:
    # One client in each room, so that nobody else's messages keep it company. Those with a state renew it and hear
    # it back; those without one say nothing, and hear only what the server sends by itself.
    shown = [await clients.create(shared_server.url, f"{room}-shown-{each}", each) for each in NODE_VERSIONS]
    silent = []
    for each in NODE_VERSIONS:
        client = await clients.create(shared_server.url, f"{room}-silent-{each}", each, connect=False)
        await client.set_state(None)
        await client.connect()
        await client.wait(synced=True)
        silent.append(client)
    python = await clients.create_any(shared_server.url, f"{room}-python", "pycrdt")

    await asyncio.gather(*(_stays_connected(client, 70) for client in [*shown, *silent]))

    for client in [*shown, *silent]:
        status = await client.status()
        assert (status["opened"], status["closes"], status["synced"]) == (1, [], True)
    await python.insert(0, "still here")
    await python.confirm()


@every_npm_version
@pytest.mark.parametrize("lost", ["connection", "server"])
async def test_who_reconnects_sees_everybody_at_once_and_is_seen(
    server: ServerProcess, clients: NodeClients, room: str, version: str, lost: str
) -> None:
    """y-websocket forgets the others when its connection drops, but not their clocks, and ignores what is no newer."""
    users = [await clients.create(server.url, room, version, state={"user": name}) for name in ("Ana", "Ben", "Cleo")]
    ids = [one.client_id for one in users]
    for number in range(3):
        for one in users:
            await one.set_state({"cursor": number})
    for one in users:
        await one.wait(states={client: {"cursor": 2} for client in ids})

    if lost == "server":
        await server.restart()
    else:
        await users[0].abort()
    for one in users if lost == "server" else users[:1]:
        await one.wait(opened=2, synced=True, timeout_s=10)

    for one in users:
        await one.wait(present=ids, timeout_s=3)
    # Nobody's next move is lost to the clocks that were raised.
    for number, one in enumerate(users):
        await one.set_state({"cursor": 10 + number})
    for one in users:
        await one.wait(states={client: {"cursor": 10 + number} for number, client in enumerate(ids)}, timeout_s=1)


@every_npm_version
async def test_a_client_comes_back_by_itself_after_a_restart(
    server: ServerProcess, clients: NodeClients, room: str, version: str
) -> None:
    a = await clients.create(server.url, room, version)
    b = await clients.create(server.url, room, "3.1")
    await a.insert(0, "before ")
    await b.wait(text="before ")

    await server.stop()
    await a.wait(connected=False)
    await a.insert(7, "meanwhile ")
    await server.start()
    await b.wait(text="before meanwhile ", timeout_s=10)
    await b.insert(17, "after")

    await a.wait(text="before meanwhile after")


async def test_everything_is_there_after_a_restart_without_those_who_wrote_it(
    server: ServerProcess, clients: NodeClients, room: str
) -> None:
    writers = [await clients.create_any(server.url, room, version) for version in VERSIONS]
    for number, writer in enumerate(writers):
        await writer.map_set(f"by {writer.version}", number)
    await writers[0].insert(0, "bold", {"bold": True})
    await writers[1].array_insert(0, [1, 2])
    await writers[2].add_element(0, "p", {"id": "1"}, "text")
    everything: dict[str, Any] = {
        "delta": [{"insert": "bold", "attributes": {"bold": True}}],
        "array": [1, 2],
        "map": {f"by {version}": number for number, version in enumerate(VERSIONS)},
        "xml": '<p id="1">text</p>',
    }
    for writer in writers:
        await writer.wait(**everything)
        await writer.destroy()

    await server.restart()

    for version in VERSIONS:
        reader = await clients.create_any(server.url, room, version)
        await reader.wait(**everything)


@pytest.mark.parametrize("version", ["1.5", "3.0", "3.1"])
async def test_half_an_emoji_is_the_same_for_everybody_and_after_a_restart(
    server: ServerProcess, clients: NodeClients, room: str, version: str
) -> None:
    a = await clients.create(server.url, room, version)
    b = await clients.create(server.url, room, "3.1")

    await a.insert(0, "a🙂b🙃c")
    await b.wait(text="a🙂b🙃c")
    await a.delete(2, 1)
    await b.insert(5, "x")
    await a.insert(1, "y")
    await a.confirm()
    await b.confirm()
    await b.wait(covers=await a.state_vector())
    await a.wait(covers=await b.state_vector())
    text = (await a.content("text"))["text"]
    await b.wait(text=text)
    await a.destroy()
    await b.destroy()
    await server.restart()

    await (await clients.create(server.url, room, version)).wait(text=text)


async def _stays_connected(client: NodeClient, seconds: float) -> None:
    with pytest.raises(ClientFailed):
        await client.wait(closes=1, timeout_s=seconds)
