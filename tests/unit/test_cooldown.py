"""Clients that come back at once after they were sent away for good."""

import asyncio

import pytest

from crdt_sync.gateway.cooldown import CLIENTS_MAX, REMEMBER_S, WAIT_S, Cooldown
from tests.support.fakes import in_virtual_time


def test_who_was_sent_away_waits_and_nobody_else() -> None:
    cooldown = Cooldown()

    cooldown.note("ann", now=0)

    assert cooldown.wait_s("ann", now=1) == WAIT_S
    assert cooldown.wait_s("bob", now=1) == 0


def test_it_is_forgotten_after_a_while() -> None:
    cooldown = Cooldown()

    cooldown.note("ann", now=0)

    assert cooldown.wait_s("ann", now=REMEMBER_S - 0.1) == WAIT_S
    assert cooldown.wait_s("ann", now=REMEMBER_S) == 0


def test_who_is_sent_away_again_waits_on() -> None:
    cooldown = Cooldown()

    cooldown.note("ann", now=0)
    cooldown.note("bob", now=1)
    cooldown.note("ann", now=9)
    cooldown.note("eve", now=12)

    assert cooldown.wait_s("ann", now=15) == WAIT_S
    assert cooldown.wait_s("bob", now=15) == 0


def test_what_is_remembered_is_bounded_and_does_not_outlast_its_time() -> None:
    cooldown = Cooldown()

    for client in range(3 * CLIENTS_MAX):
        cooldown.note(client, now=1)
    assert len(cooldown._until) == CLIENTS_MAX
    assert cooldown.wait_s(0, now=2) == 0
    assert cooldown.wait_s(3 * CLIENTS_MAX - 1, now=2) == WAIT_S

    cooldown.note("late", now=1 + REMEMBER_S)
    assert list(cooldown._until) == ["late"]


@in_virtual_time
async def test_pausing_takes_as_long_as_it_says() -> None:
    cooldown, loop = Cooldown(), asyncio.get_running_loop()
    began = loop.time()

    await cooldown.pause("ann")
    assert loop.time() == began

    cooldown.note("ann", now=began)
    await cooldown.pause("ann")
    assert loop.time() - began == pytest.approx(WAIT_S)


@in_virtual_time
async def test_an_old_client_is_let_in_no_more_often_than_a_refused_one() -> None:
    cooldown, loop = Cooldown(), asyncio.get_running_loop()
    began = loop.time()
    let_in = []

    while loop.time() - began < 20:
        await cooldown.pause("ann")
        let_in.append(loop.time() - began)
        cooldown.note("ann", now=loop.time())
        await asyncio.sleep(0.1)

    assert len([at for at in let_in if at < 10]) == 8
