"""Conformance scenarios as files: what is read, and what is refused."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.scenarios import (
    EXPECTATIONS,
    STEPS,
    Connect,
    Expect,
    InvalidVectors,
    Quiet,
    Send,
    TokenFor,
    folder,
    read_scenario,
    read_scenarios,
)

PAGE = (Path(__file__).parents[2] / "docs/reference/vectors.md").read_text()
CONNECT = {"connect": "ann"}


def read(*steps: Any, **members: Any) -> Any:
    scenario = {"title": "A title", "about": "About", "common": True, "steps": steps} | members
    return read_scenario("it", json.dumps(scenario).encode())


def test_steps_are_read_with_their_defaults() -> None:
    scenario = read(
        {"connect": "ann", "token": {"user": "bob"}},
        {"send": "ann", "frame": "00 01"},
        {"expect": "ann", "update": "0000"},
        {"expect": "ann", "awareness": {"42": None}, "clocks": {"42": 3}, "within_ms": 100},
        {"quiet": "ann"},
    )

    assert scenario.steps == (
        Connect("ann", "{room}", TokenFor("bob", "write", 3600), None),
        Send("ann", b"\0\1"),
        Expect("ann", "update", [b"\0\0"], None),
        Expect("ann", "awareness", {42: None}, 100, {42: 3}),
        Quiet("ann", 250),
    )
    assert (scenario.keys, scenario.long) == (False, False)


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ([{"shout": "ann"}], "step 1 has to have one of connect, send"),
        ([{"connect": "ann", "send": "ann"}], "step 1 has to have one of connect, send"),
        ([["connect"]], "step 1 is no object"),
        ([CONNECT, {"send": "ann", "frame": "0"}], "step 2: '0' is no hexadecimal"),
        ([CONNECT, {"send": "ann"}], "step 2: 'frame' has to be a string, not null"),
        ([CONNECT, {"expect": "ann", "update": "0000", "document": {}}], "step 2 has to expect one of step_1"),
        ([CONNECT, {"expect": "ann", "denied": False}], "step 2: 'denied' has to be true"),
        ([CONNECT, {"expect": "ann", "closed": True}], "step 2: 'closed' has to be a whole number, not true"),
        ([CONNECT, {"expect": "ann", "awareness": {"x": {}}}], "step 2: the keys of 'awareness' have to be client ids"),
        ([CONNECT, {"quiet": "ann", "for": 3}], "step 2: nobody knows 'for'"),
        ([{"connect": "ann", "token": {"user": "ann", "right": "own"}}], "step 1: there is no right 'own'"),
        ([{"quiet": "ann"}], "step 1: 'ann' is not connected"),
        ([CONNECT, CONNECT], "step 2: 'ann' is connected already"),
        ([CONNECT, {"lose": "ann"}, {"quiet": "ann"}], "step 3: 'ann' is not connected"),
        ([{"connect": "ann", "refused": 401}, {"quiet": "ann"}], "step 2: 'ann' is not connected"),
    ],
)
def test_what_is_no_scenario_is_told_by_file_and_step(steps: list[Any], complaint: str) -> None:
    with pytest.raises(InvalidVectors, match=re.escape(f"it.json: {complaint}")):
        read(*steps)


def test_a_member_that_nobody_knows_is_a_mistake() -> None:
    with pytest.raises(InvalidVectors, match=r"it\.json: nobody knows 'longs'"):
        read(longs=True)
    with pytest.raises(InvalidVectors, match=r"it\.json is no JSON"):
        read_scenario("it", b"{")


def test_the_page_describes_every_step_and_expectation() -> None:
    section = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))

    assert set(re.findall(r"^\| `(\w+)` \|", section["Steps"], re.MULTILINE)) == set(STEPS)
    assert set(re.findall(r"^\| `(\w+)` \|", section["Expectations"], re.MULTILINE)) == set(EXPECTATIONS)
    example = re.findall(r"```json\n(.*?)```", section["A scenario"], re.DOTALL)[0]
    assert read_scenario("example", example.encode()).common
    assert f"{len(read_scenarios(folder()))} scenarios" in PAGE


def test_installed_vectors_are_those_of_the_documentation() -> None:
    """As pyproject.toml has it: a package of its own, so that there is one place."""
    root = Path(__file__).parents[2]
    setuptools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {
        ".".join(file.parent.relative_to(root).parts)
        for top in ("auth", "crdt_sync", "persistence")
        for file in (root / top).rglob("__init__.py")
    }

    assert set(setuptools["packages"]) == packages | {"crdt_sync.vectors"}
    assert root / setuptools["package-dir"]["crdt_sync.vectors"] == folder()
    assert setuptools["package-data"]["crdt_sync.vectors"] == ["*.json"]
