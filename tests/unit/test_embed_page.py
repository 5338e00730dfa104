"""The code in docs/how-to/embed.md and docs/reference/python.md does what the pages say."""

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pycrdt
import pytest
from fastapi.testclient import TestClient

import crdt_sync
from auth import Credentials, Grant, Right
from crdt_sync import LiveRooms, NotRunning, Settings, SyncApp, create_app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/embed.md").read_text()
REFERENCE = (ROOT / "docs/reference/python.md").read_text()


async def verify(credentials: Credentials) -> Grant:
    return Grant(user="ann", rooms={"trip-*": Right.WRITE})


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What there is before a page's code runs."""
    monkeypatch.setenv("CRDT_SYNC_DATABASE_URL", "memory://")
    return {"verify": verify, "sync": create_app(token_verifier=verify)}


def blocks_below(heading: str, page: str = PAGE) -> list[str]:
    """The Python code below a heading, up to the next of its kind."""
    section = re.split(rf"^{heading}\n", page, flags=re.MULTILINE)[1]
    section = re.split(r"^## ", section, flags=re.MULTILINE)[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def text_in(doc: pycrdt.Doc[Any]) -> str:
    return str(doc.get("text", type=pycrdt.Text))


async def test_a_mounted_server_runs_with_its_frameworks_lifespan(names: dict[str, Any]) -> None:
    first, second = blocks_below("## FastAPI, Starlette")
    exec(first, names)
    with TestClient(names["app"]) as client:
        assert client.get("/sync/ready").status_code == 200

    exec(second, names)
    with TestClient(names["app"]):
        assert names["sync"].rooms.is_open
    with pytest.raises(NotRunning):
        await names["sync"].rooms.read("trip-1")


def test_the_example_for_django_is_as_the_page_says() -> None:
    (block,) = blocks_below("## Django")
    example = (ROOT / "examples/django/service/asgi.py").read_text()

    def statements(code: str) -> list[str]:
        body = ast.parse(code).body
        return [
            ast.unparse(one) for one in body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
        ]

    assert statements(block) == statements(example)


def test_the_verifier_for_django_is_the_examples() -> None:
    section = (ROOT / "docs/how-to/authenticate.md").read_text().split("### Django\n", 1)[1]
    page = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
    example = (ROOT / "examples/django/trips/live.py").read_text()

    def functions(code: str) -> list[str]:
        found = [one for one in ast.parse(code).body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
        for one in found:
            if ast.get_docstring(one) is not None:
                del one.body[0]
        return [ast.unparse(one) for one in found if one.name in ("granted", "verify")]

    assert functions(page) == functions(example)


async def test_a_room_is_edited_and_what_can_go_wrong_is_told(
    names: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    for block in blocks_below("## Edit a room"):
        exec(block, names)
    sync: SyncApp = names["sync"]

    async with sync.lifespan():
        assert await names["try_to_suggest"]("1")
        doc = await sync.rooms.read("trip-1")
        await sync.state.parts.rooms.delete("trip-1")
        assert not await names["try_to_suggest"]("1")

    assert text_in(doc) == "\nHave you been to the museum?"
    assert "not made: 'trip-1' was deleted" in caplog.text


async def test_the_hooks_of_the_page_index_and_count_and_its_tests_pass(
    names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crdt_sync.hooks.TELL_AFTER_S", 0.01)
    index, count = blocks_below("## Hear of what was stored")
    in_process, by_lifespan = blocks_below("## Test your service")
    exec(index, names)
    exec(blocks_below("## Edit a room")[0], names)
    exec(by_lifespan, names)

    await names["test_what_was_written_is_found"]()

    exec(count, names)
    sync = names["sync"] = create_app(on_stored=names["count_words"])
    async with sync.lifespan():
        await names["suggest"]("1")
        while (doc := await sync.rooms.read("trip-1")).get("facts", type=pycrdt.Map).to_py() != {"words": 6.0}:
            pass
        assert text_in(doc)
    exec(in_process, names)


def test_the_test_of_the_page_that_needs_a_socket_passes(names: dict[str, Any]) -> None:
    exec(blocks_below("## Test your service")[0], names)

    names["test_a_suggestion_reaches_who_has_the_trip_open"]()


async def test_the_references_code_runs(names: dict[str, Any]) -> None:
    names |= {"Text": pycrdt.Text, "websocket_protocol": crdt_sync.websocket_protocol}
    code = re.findall(r"```python\n(.*?)```", REFERENCE, re.DOTALL)
    assert len(code) == 3

    for block in code:
        exec(block, names)

    async with names["sync"].lifespan():
        await names["write_title"]("Rome")
        assert await names["text_of_trip"]() == "Rome\n"


@pytest.mark.parametrize(
    ("heading", "function"),
    [
        ("## `create_app", create_app),
        ("## `websocket_protocol", crdt_sync.websocket_protocol),
        ("### `edit", LiveRooms.edit),
        ("### `read", LiveRooms.read),
        ("**`lifespan", SyncApp.lifespan),
    ],
)
def test_the_reference_has_the_signatures(heading: str, function: Callable[..., Any]) -> None:
    shown = re.search(rf"^{re.escape(heading)}(\(.*?\))`", REFERENCE, re.MULTILINE)
    assert shown is not None

    parameters = [
        one.replace(annotation=inspect.Parameter.empty)
        for name, one in inspect.signature(function).parameters.items()
        if name != "self"
    ]
    bare = inspect.Signature(parameters)

    assert shown[1] == str(bare)


def test_the_reference_has_every_method() -> None:
    public = {name for name, one in vars(LiveRooms).items() if not name.startswith("_") and inspect.isroutine(one)}

    assert set(re.findall(r"^### `(\w+)", REFERENCE, re.MULTILINE)) == public - {"open", "close"}


def test_settings_for_tests_are_made_as_the_page_makes_them() -> None:
    assert Settings(database_url="memory://").database_url == "memory://"
