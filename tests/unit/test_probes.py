"""What one process answers for all that serve its port."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.datastructures import State
from starlette.requests import Request

from crdt_sync.gateway.probes import READY, Probes
from crdt_sync.settings import Settings

REQUEST = Request({"type": "http", "headers": []})


class Ready:
    """A process' own readiness."""

    def __init__(self, problems: dict[str, str], warnings: dict[str, str]) -> None:
        self._problems, self._warnings = problems, warnings

    async def problems(self) -> dict[str, str]:
        return dict(self._problems)

    def warnings(self) -> dict[str, str]:
        return dict(self._warnings)


class Others:
    """Siblings that say this."""

    number = 0

    def __init__(self, answers: dict[int, bytes], missing: int = 0) -> None:
        self._answers, self._missing = answers, missing

    async def ask(self, question: str) -> dict[int, bytes]:
        return self._answers

    def missing(self, answers: dict[int, bytes]) -> int:
        return self._missing


def probes(own: Ready | None, others: Others | None = None) -> Probes:
    state = State()
    if own is not None:
        state.parts = SimpleNamespace(readiness=own)
    state.siblings = others
    return Probes(Settings(), state)


async def ready(one: Probes) -> tuple[int, Any]:
    answer = await one.ready(REQUEST)
    return answer.status_code, json.loads(answer.body)


async def test_a_process_that_is_not_up_yet_lives_and_is_not_ready() -> None:
    starting = probes(None)

    assert (await starting.health(REQUEST)).status_code == 200
    assert await ready(starting) == (503, {"ready": False, "problems": {"start": "it isn't up yet"}, "warnings": {}})
    assert b'crdt_sync_ready{worker="0"} 0.0' in (await starting.metrics(REQUEST)).body


@pytest.mark.parametrize("part", ["store", "journal"])
async def test_another_process_problem_is_the_nodes_and_says_whose(part: str) -> None:
    other = await probes(Ready({part: "away"}, {"bus": "away too"})).tell(READY)

    assert await ready(probes(Ready({}, {}), Others({2: other}))) == (
        503,
        {"ready": False, "problems": {part: "away (worker 2)"}, "warnings": {"bus": "away too (worker 2)"}},
    )


async def test_ones_own_problem_is_told_first() -> None:
    other = await probes(Ready({"store": "theirs"}, {})).tell(READY)

    assert (await ready(probes(Ready({"store": "mine"}, {}), Others({1: other}))))[1]["problems"] == {"store": "mine"}


async def test_processes_that_do_not_answer_are_a_warning() -> None:
    status, answer = await ready(probes(Ready({}, {}), Others({}, missing=3)))

    assert (status, answer["warnings"]) == (200, {"workers": "3 of them didn't answer"})
