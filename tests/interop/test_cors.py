"""The API from pages of other sites: what a browser asks before, and what it then lets a page see."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.api import GUARDED, Answer, request, token
from tests.support.server import ServerProcess

APP = "https://app.example.com"
EVIL = "https://evil.example"
ROOMS = "/api/v1/rooms"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    env = GUARDED | {"CRDT_SYNC_ALLOWED_ORIGINS": "https://App.example.com/,http://localhost:5173"}
    async with ServerProcess(tmp_path_factory.mktemp("guarded"), env=env) as server:
        yield server
    assert server.errors() == []


async def preflight(
    server: ServerProcess, origin: str, *, method: str = "DELETE", headers: str = "authorization"
) -> Answer:
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return await request(server.url, "OPTIONS", f"{ROOMS}/trip-1", headers=asked)


def cors(answer: Answer) -> dict[str, str]:
    prefix = "access-control-"
    return {name.removeprefix(prefix): value for name, value in answer.headers.items() if name.startswith(prefix)}


@pytest.mark.parametrize("origin", [APP, "http://localhost:5173"])
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
async def test_a_page_of_an_allowed_site_may_ask_with_a_token(origin: str, method: str, guarded: ServerProcess) -> None:
    answer = await preflight(guarded, origin, method=method, headers="authorization,content-type")

    assert answer.status == 200
    assert (cors(answer)["allow-origin"], cors(answer)["allow-credentials"]) == (origin, "true")
    assert method in cors(answer)["allow-methods"].split(", ")
    assert {"authorization", "content-type"} <= set(cors(answer)["allow-headers"].lower().split(", "))


@pytest.mark.parametrize(
    "origin",
    [EVIL, "null", "https://app.example.com.evil.example", "http://app.example.com", f"{APP}:8443", f"{APP},{APP}"],
)
async def test_a_page_of_another_site_may_not(origin: str, guarded: ServerProcess) -> None:
    answer = await preflight(guarded, origin)

    assert answer.status == 400
    assert "allow-origin" not in cors(answer)


async def test_an_allowed_page_sees_answers_and_problems(guarded: ServerProcess) -> None:
    good = await request(guarded.url, "GET", ROOMS, bearer=token(), headers={"Origin": APP})
    bad = await request(guarded.url, "GET", ROOMS, headers={"Origin": APP})

    assert (good.status, bad.status) == (200, 401)
    for answer in (good, bad):
        assert (cors(answer)["allow-origin"], answer.headers["vary"]) == (APP, "Origin")
        assert cors(answer)["expose-headers"] == "Retry-After, WWW-Authenticate"


async def test_another_page_is_refused_whatever_it_shows(guarded: ServerProcess) -> None:
    answer = await request(guarded.url, "GET", ROOMS, bearer=token(), headers={"Origin": EVIL})

    assert (answer.status, answer.json["title"]) == (403, "origin not allowed")
    assert "allow-origin" not in cors(answer)


async def test_without_allowed_sites_no_page_of_another_one_may_ask(server: ServerProcess) -> None:
    answer = await preflight(server, APP)

    assert answer.status == 400
    assert "allow-origin" not in cors(answer)


async def test_where_all_sites_are_allowed_cookies_are_not(tmp_path_factory: pytest.TempPathFactory) -> None:
    env = GUARDED | {"CRDT_SYNC_ALLOWED_ORIGINS": "*"}
    async with ServerProcess(tmp_path_factory.mktemp("all"), env=env) as server:
        asked = await preflight(server, EVIL)
        answer = await request(server.url, "GET", ROOMS, bearer=token(), headers={"Origin": EVIL, "Cookie": "a=b"})

        for one in (asked, answer):
            assert one.status == 200
            assert cors(one)["allow-origin"] == "*"
            assert "allow-credentials" not in cors(one)


async def test_options_that_are_no_preflight_are_a_problem(guarded: ServerProcess) -> None:
    answer = await request(guarded.url, "OPTIONS", ROOMS, bearer=token())

    assert (answer.status, answer.json["title"], answer.headers["allow"]) == (405, "method not allowed", "GET")
