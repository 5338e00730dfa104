"""Clients between whom and the server nothing goes but signs of life: closed after a while, if that is wanted."""

import asyncio
from collections.abc import Callable

import pytest

from crdt_sync.awareness import NULL, ClientState
from tests.support.fakes import Client, Editor, Node, in_virtual_time, running_node, settle, typed

IDLE = (4408, "idle")
ALICE, BOB = 11, 22


async def joined(node: Node, *names: str) -> list[Client]:
    clients = [await Client().connect(node, name) for name in names]
    for client, number in zip(clients, (ALICE, BOB), strict=False):
        client.ask_for_sync()
        client.announce(ClientState(number, 1, b"{}"))
    await settle(*clients)
    return clients


async def pass_time(
    seconds: float, *clients: Client, every_s: float = 15, doing: Callable[[], None] | None = None
) -> None:
    """Let stock clients renew their awareness, and read, meanwhile."""
    loop = asyncio.get_running_loop()
    until, clock = loop.time() + seconds, int(loop.time()) + 2
    while loop.time() < until:
        for client, number in zip(clients, (ALICE, BOB), strict=False):
            if client.closed is None:
                client.announce(ClientState(number, clock, b"{}"))
        if doing is not None:
            doing()
        clock += 1
        await asyncio.sleep(min(every_s, until - loop.time()))
        for client in clients:
            client.read()


@in_virtual_time
async def test_clients_that_only_renew_their_awareness_are_closed_as_idle() -> None:
    async with running_node(idle_timeout_s=300) as node:
        alice, bob = await joined(node, "room", "room")

        await pass_time(290, alice, bob)
        assert (alice.closed, bob.closed) == (None, None)
        await pass_time(15, alice, bob)

        assert (alice.closed, bob.closed) == (IDLE, IDLE)


@in_virtual_time
async def test_nobody_is_closed_as_idle_unless_that_is_wanted() -> None:
    async with running_node() as node:
        (alice,) = await joined(node, "room")

        await pass_time(3_000, alice, every_s=20)

        assert alice.closed is None


@in_virtual_time
@pytest.mark.parametrize("what", ["edit", "cursor", "confirm", "step 1", "comes and goes"])
async def test_who_says_something_or_is_told_something_is_not_idle(what: str) -> None:
    async with running_node(idle_timeout_s=300) as node:
        alice, bob = await joined(node, "room", "room")
        editor, clock = Editor(1), 1_000_000
        elsewhere = {"confirm", "step 1"}

        for number in range(4):
            await pass_time(200, alice, bob)
            clock += 1
            if what == "edit":
                bob.edit(editor.type(str(number)))
            elif what == "cursor":
                bob.announce(ClientState(BOB, clock, b'{"at":%d}' % number))
                bob.announce(ClientState(BOB, clock + 1, b"{}"))
            elif what == "confirm":
                bob.ask_for_confirm(b"x")
            elif what == "step 1":
                bob.ask_for_sync()
            else:
                (eve,) = await joined(node, "room")
                eve.announce(ClientState(33, 1, b"{}"), ClientState(33, 2, NULL))
                await settle(eve)
                await eve.leave()

        assert bob.closed is None
        # What was only between Bob and the server is nothing to Alice.
        assert alice.closed == (IDLE if what in elsewhere else None)


@in_virtual_time
async def test_what_happens_in_another_room_keeps_nobody() -> None:
    async with running_node(idle_timeout_s=300) as node:
        alice, bob = await joined(node, "room", "other")

        await pass_time(310, alice, bob, doing=lambda: bob.edit(typed("a")[0]) if bob.closed is None else None)

        assert (alice.closed, bob.closed) == (IDLE, None)
