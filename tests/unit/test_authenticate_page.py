"""The code in docs/how-to/authenticate.md does what the page says."""

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from auth import AuthError, CredentialInvalid, CredentialMissing, Credentials, Grant, Right, make_verifier
from tests.support.tokens import SECRET, shown

PAGE = (Path(__file__).parents[2] / "docs/how-to/authenticate.md").read_text()
SESSION_SECRET = "the secret of sessions"


def code_below(heading: str) -> dict[str, Any]:
    """What the Python code below a heading defines."""
    section = PAGE.split(f"{heading}\n", 1)[1]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(compile(found[1], heading, "exec"), names)
    return names


async def session_of(path: str) -> str:
    """The session cookie of a website: `/sign-in` begins a session, `/visit` one of nobody."""

    async def sign_in(request: Request) -> PlainTextResponse:
        request.session.update(user="ann", trips=["1", "旅行"])
        return PlainTextResponse("hello")

    async def visit(request: Request) -> PlainTextResponse:
        request.session["theme"] = "dark"
        return PlainTextResponse("hello")

    website = Starlette(
        routes=[Route("/sign-in", sign_in), Route("/visit", visit)],
        middleware=[Middleware(SessionMiddleware, secret_key=SESSION_SECRET)],
    )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(website), base_url="http://website") as browser:
        return (await browser.get(path)).cookies["session"]


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SESSION_SECRET", SESSION_SECRET)
    return code_below("### FastAPI or Starlette")["verify"]


async def test_a_token_made_as_the_page_says_is_taken() -> None:
    token = code_below("## Make tokens")["sync_token"](SECRET, "u-1", "Ann", ["1", "2"])
    verifier = make_verifier(secret=SECRET)
    assert verifier is not None

    grant = await verifier(shown(token))

    assert (grant.user, grant.name, grant.right("trip-2"), grant.right("trip-3")) == ("u-1", "Ann", Right.WRITE, None)


async def test_a_session_of_starlette_is_a_grant(verify: Any) -> None:
    cookies = f"other=1; session={await session_of('/sign-in')}"

    grant = await verify(Credentials(token=None, headers={"cookie": cookies}, room="trip-1"))

    assert isinstance(grant, Grant)
    assert (grant.user, grant.rooms) == ("ann", {"trip-1": Right.WRITE, "trip-旅行": Right.WRITE})


async def test_a_session_of_nobody_is_refused(verify: Any) -> None:
    cookie = await session_of("/visit")

    with pytest.raises(CredentialInvalid):
        await verify(shown(None, cookie=f"session={cookie}"))


async def test_a_forged_session_is_refused(verify: Any) -> None:
    cookie = await session_of("/sign-in")

    for forged in (cookie[:-1], "x" + cookie, "", "e30=.x.y", SESSION_SECRET):
        with pytest.raises(AuthError):
            await verify(shown(None, cookie=f"session={forged}"))


async def test_no_session_is_a_missing_credential(verify: Any) -> None:
    for headers in ({}, {"cookie": ""}, {"cookie": "other=1"}):
        with pytest.raises(CredentialMissing):
            await verify(shown(None, **headers))
