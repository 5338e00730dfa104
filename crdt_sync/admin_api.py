"""An admin's work by way of a running server: the HTTP API below `/api/v1`. Clients see it at once.

A home of httpx2, which speaks to the server; the other one fetches keys.
"""

from dataclasses import fields
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import httpx2

from .admin import Exported, Imported, RoomFacts
from .commands import CommandFailed, NoSuchDocument, is_text
from .settings import TOKEN_VARIABLE
from .verifying import Checked, Finding

# A large document may have to be loaded, and shown, first.
TIMEOUT_S: Final = 120.0
PAGE: Final = 1000
_MEDIA_TYPES: Final = {
    "update": "application/octet-stream",
    "json": "application/json",
    "rich": "application/json",
    "text": "text/plain",
}


class ApiAdmin:
    """An `Admin` that asks a server.

    Args:
        url: `http://host:port`, or `https://…`, with the path that the server is mounted at, if it is.
        token: What it is shown.

    Raises:
        CommandFailed: It is no such URL. The text repeats nothing of it, since it may hold a password.
    """

    notice: str | None = None

    def __init__(self, url: str, token: str | None) -> None:
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise CommandFailed("--url is no URL: http://127.0.0.1:1234 would be one") from error
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo or parsed.query:
            raise CommandFailed("--url is http://host:port or https://host, without a user, a password or a query")
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            raise CommandFailed("the token has characters that no token has")
        self._url = str(parsed).rstrip("/")
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {token}"} if token is not None else {},
            timeout=TIMEOUT_S,
            follow_redirects=False,  # nobody else gets the token
            trust_env=parsed.host
            not in ("localhost", "127.0.0.1", "::1"),  # a proxy doesn't reach this machine's loopback
        )

    def describe(self) -> str:
        """See `Admin`."""
        return f"the server at {self._url}"

    def close(self) -> None:
        """See `Admin`."""
        self._client.close()

    def rooms(self, *, deleted: bool = False, prefix: str = "") -> list[RoomFacts]:
        """See `Admin`."""
        path = "/deleted" if deleted else "/rooms"
        found: list[RoomFacts] = []
        after: str | None = ""
        while after is not None:
            query = {"after": after, "limit": str(PAGE)} | ({} if deleted else {"prefix": prefix})
            answer = self._ask("GET", path, query=query, needs="admin in '*'" if deleted else "some right")
            page = self._json(answer, "rooms", "next")
            found += [_facts(one) for one in page["rooms"] if one["name"].startswith(prefix)]
            after = page["next"]
        return found

    def room(self, name: str) -> RoomFacts:
        """See `Admin`."""
        answer = self._try("GET", _path(name))
        if answer.status_code == 404:
            for one in self.rooms(deleted=True, prefix=name) if _title(answer) == "document deleted" else ():
                if one.name == name:
                    return one
        shown = self._json(self._judged(answer, needs=f"read in {name!r}"), "name", "seq")
        connections = self._try("GET", f"{_path(name)}/connections")
        users = None
        if connections.status_code == 200:  # for admins only
            listed = self._json(connections, "connections")["connections"]
            users = tuple(sorted({one["user"] for one in listed if one["user"]}))
        return _facts(shown, connected_users=users)

    def delete(self, name: str) -> None:
        """See `Admin`."""
        self._do("DELETE", _path(name), name)

    def undelete(self, name: str) -> None:
        """See `Admin`."""
        self._do("POST", f"{_path(name, 'deleted')}/undelete", name)

    def purge(self, name: str) -> None:
        """See `Admin`."""
        self._do("DELETE", _path(name, "deleted"), name)

    def export(self, name: str, form: str) -> Exported:
        """See `Admin`."""
        answer = self._ask("GET", f"{_path(name)}/document", query={"format": form}, needs=f"read in {name!r}")
        if _media_type(answer) != _MEDIA_TYPES[form]:
            raise self._somebody_else(answer)
        return Exported(answer.content)

    def apply(self, name: str, update: bytes) -> Imported:
        """See `Admin`."""
        before = self._try("GET", _path(name))
        created = before.status_code == 404 or (before.is_success and self._json(before, "seq")["seq"] == 0)
        answer = self._ask("POST", f"{_path(name)}/updates", content=update, needs=f"write in {name!r}")
        outcome = self._json(answer, "outcome")["outcome"]
        return Imported(outcome, created and outcome != "repeat")

    def verify(self, name: str) -> Checked:
        """See `Admin`."""
        answer = self._ask("GET", f"{_path(name)}/verification", needs=f"admin in {name!r}")
        found = self._json(answer, *(one.name for one in fields(Checked)))
        problems = tuple(Finding(**one) for one in found.pop("problems"))
        return Checked(**found, problems=problems)

    def _do(self, method: str, path: str, name: str) -> None:
        answer = self._ask(method, path, needs=f"admin in {name!r}")
        if answer.status_code != 204:
            raise self._somebody_else(answer)

    def _ask(
        self, method: str, path: str, *, needs: str, query: dict[str, str] | None = None, content: bytes | None = None
    ) -> httpx2.Response:
        return self._judged(self._try(method, path, query=query, content=content), needs=needs)

    def _try(
        self, method: str, path: str, *, query: dict[str, str] | None = None, content: bytes | None = None
    ) -> httpx2.Response:
        try:
            return self._client.request(method, f"{self._url}/api/v1{path}", params=query, content=content)
        except httpx2.ConnectError as error:
            raise CommandFailed(f"no server answers at {self._url}: {error}") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            what = str(error) or type(error).__name__
            raise CommandFailed(f"the server at {self._url} didn't answer as it should: {what}") from error

    def _judged(self, answer: httpx2.Response, *, needs: str) -> httpx2.Response:
        if answer.is_success:
            return answer
        title = _title(answer)
        if title is None:
            raise self._somebody_else(answer)
        if title in ("no such document", "no such deleted document"):
            raise NoSuchDocument(f"the server at {self._url} says: {title}")
        detail = answer.json().get("detail")
        text = f"the server at {self._url} says: {title}" + (f": {detail}" if detail else "")
        if answer.status_code == 401:
            text += f"; give a token with --token or {TOKEN_VARIABLE}, crdt-sync token makes one"
        elif answer.status_code == 403:
            text += f"; that needs {needs}"
        elif "retry-after" in answer.headers:
            text += f"; try again in {answer.headers['retry-after']} s"
        raise CommandFailed(text)

    def _json(self, answer: httpx2.Response, *names: str) -> dict[str, Any]:
        """The object that was answered, with these members."""
        try:
            found = answer.json()
        except ValueError as error:
            raise self._somebody_else(answer) from error
        if not isinstance(found, dict) or not found.keys() >= set(names):
            raise self._somebody_else(answer)
        return found

    def _somebody_else(self, answer: httpx2.Response) -> CommandFailed:
        return CommandFailed(
            f"{self._url} answers {answer.status_code}, but not as expected: is that a crdt-sync server of this version, and "
            "the whole path?"
        )


def _path(name: str, kind: str = "rooms") -> str:
    if not is_text(name):
        raise CommandFailed(f"{name!r} is no name: names are UTF-8")
    # A dot alone would be a folder's.
    return f"/{kind}/{quote(name, safe='').replace('.', '%2E')}"


def _media_type(answer: httpx2.Response) -> str:
    return str(answer.headers.get("content-type", "")).partition(";")[0]


def _title(answer: httpx2.Response) -> str | None:
    """The title of a problem; None if the answer is none, so that somebody else gave it."""
    if _media_type(answer) != "application/problem+json":
        return None
    try:
        return str(answer.json()["title"])
    except (ValueError, TypeError, KeyError):
        return None


def _facts(one: dict[str, Any], connected_users: tuple[str, ...] | None = None) -> RoomFacts:
    deleted_at = one.get("deleted_at")
    return RoomFacts(
        name=one["name"],
        seq=one.get("seq"),
        open=one.get("open"),
        connections=one.get("connections"),
        connected_users=connected_users,
        deleted_at=datetime.fromisoformat(deleted_at) if deleted_at is not None else None,
    )
