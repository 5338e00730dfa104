"""An admin's work by way of a running server: the HTTP API below `/api/v1`. Clients see it at once.

A home of httpx2, which speaks to the server; the other one fetches keys.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx2

from persistence import Version

from .admin import Exported, Imported, Restored, RoomFacts, Then
from .authors import Bucket
from .commands import CommandFailed, NoSuchDocument, is_text
from .past_forms import bucket_of_json, version_of_json
from .settings import TOKEN_VARIABLE
from .time_machine import NOW, Point
from .verifying import Checked, Finding

T = TypeVar("T")

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

    def ready(self) -> dict[str, Any]:
        """What `/ready` says: `problems` and `warnings`, by part."""
        return self._json(self._send("GET", "/ready"), "problems", "warnings")

    def metrics(self) -> str | None:
        """What `/metrics` says; None if it isn't shown to us, or not here."""
        answer = self._send("GET", "/metrics")
        return answer.text if answer.is_success else None

    def open_rooms(self, limit: int) -> tuple[list[dict[str, Any]], int]:
        """The busiest open rooms, and how many are open."""
        answer = self._ask("GET", "/open", query={"limit": str(limit)}, needs="some right")
        listed = self._json(answer, "rooms", "open")
        return listed["rooms"], listed["open"]

    def slowest_connections(self, limit: int) -> tuple[list[dict[str, Any]], int] | None:
        """The connections for which most waits, and how many there are; None if the token may not see them."""
        answer = self._try("GET", "/connections", query={"order": "outbox", "limit": str(limit)})
        if answer.status_code == 403:
            return None
        listed = self._json(self._judged(answer, needs="admin in '*'"), "connections", "open")
        return listed["connections"], listed["open"]

    def delete(self, name: str) -> None:
        """See `Admin`."""
        self._do("DELETE", _path(name), name)

    def undelete(self, name: str) -> None:
        """See `Admin`."""
        self._do("POST", f"{_path(name, 'deleted')}/undelete", name)

    def purge(self, name: str) -> None:
        """See `Admin`."""
        self._do("DELETE", _path(name, "deleted"), name)

    def export(self, name: str, form: str, point: Point = NOW) -> Exported:
        """See `Admin`."""
        path, query = _of_past(name, point)
        right = "read" if point == NOW else "write"
        answer = self._ask("GET", path, query={**query, "format": form}, needs=f"{right} in {name!r}")
        if _media_type(answer) != _MEDIA_TYPES[form]:
            raise self._somebody_else(answer)
        seq = answer.headers.get("crdt-sync-seq", "")
        exact = answer.headers.get("crdt-sync-exact") != "false"
        return Exported(answer.content, int(seq) if seq.isdecimal() else None, exact=exact)

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

    def versions(self, name: str) -> list[Version]:
        """See `Admin`."""
        answer = self._ask("GET", f"{_path(name)}/versions", needs=f"write in {name!r}")
        listed = self._json(answer, "versions")["versions"]
        return self._read(answer, lambda: [version_of_json(one) for one in listed])

    def take_version(self, name: str, label: str | None) -> Version:
        """See `Admin`."""
        wish = {} if label is None else {"label": label}
        answer = self._ask("POST", f"{_path(name)}/versions", json=wish, needs=f"write in {name!r}")
        return self._read(answer, lambda: version_of_json(answer.json()))

    def label_version(self, name: str, id: int, label: str | None) -> None:
        """See `Admin`."""
        self._do("PATCH", f"{_path(name)}/versions/{id}", name, json={"label": label}, right="write")

    def delete_versions(self, name: str, ids: Sequence[int]) -> None:
        """See `Admin`."""
        for id in ids:
            self._do("DELETE", f"{_path(name)}/versions/{id}", name)

    def diff(self, name: str, older: Point, newer: Point, form: str) -> list[dict[str, Any]] | str:
        """See `Admin`."""
        query = {"from": _point(older), "to": _point(newer), "format": form}
        answer = self._ask("GET", f"{_path(name)}/diff", query=query, needs=f"write in {name!r}")
        if form == "text":
            if _media_type(answer) != "text/plain":
                raise self._somebody_else(answer)
            return answer.text
        changes: list[dict[str, Any]] = self._json(answer, "changes")["changes"]
        return changes

    def activity(self, name: str, since: datetime, bucket_s: int) -> list[Bucket]:
        """See `Admin`."""
        query = {"since": since.isoformat(), "bucket_s": str(bucket_s)}
        answer = self._ask("GET", f"{_path(name)}/activity", query=query, needs=f"write in {name!r}")
        listed = self._json(answer, "activity")["activity"]
        return self._read(answer, lambda: [bucket_of_json(one) for one in listed])

    def restore(
        self, name: str, point: Point, *, roots: Sequence[str] | None, form: str, dry_run: bool, anyway: bool
    ) -> Restored:
        """See `Admin`."""
        wish = _wish(point) | {"format": form, "dry_run": dry_run, "anyway": anyway}
        return self._go_back(name, "restore", wish if roots is None else wish | {"roots": list(roots)})

    def restore_as_new(self, name: str, point: Point, new: str, *, dry_run: bool) -> Then:
        """See `Admin`."""
        if not is_text(new):
            raise CommandFailed(f"{new!r} is no name: names are UTF-8")
        wish = _wish(point) | {"as_new": new, "dry_run": dry_run}
        needs = f"write in {name!r} and {new!r}"
        answer = self._ask("POST", f"{_path(name)}/restore", json=wish, needs=needs)
        past = self._json(answer, "past", "name", "done")["past"]
        return self._read(answer, lambda: _then(past))

    def roll_back(self, name: str, user: str, since: Point, *, form: str, dry_run: bool, anyway: bool) -> Restored:
        """See `Admin`."""
        wish = _wish(since) | {"user": user, "format": form, "dry_run": dry_run, "anyway": anyway}
        return self._go_back(name, "rollback", wish)

    def _go_back(self, name: str, verb: str, wish: dict[str, Any]) -> Restored:
        answer = self._ask("POST", f"{_path(name)}/{verb}", json=wish, needs=f"write in {name!r}")
        found = self._json(answer, "past", "impossible", "changes", "done")
        before = found.get("version_before")
        return self._read(
            answer,
            lambda: Restored(
                _then(found["past"]),
                tuple(found["impossible"]),
                found["changes"],
                found["done"],
                None if before is None else version_of_json(before),
            ),
        )

    def _do(
        self, method: str, path: str, name: str, *, json: dict[str, Any] | None = None, right: str = "admin"
    ) -> None:
        answer = self._ask(method, path, json=json, needs=f"{right} in {name!r}")
        if answer.status_code != 204:
            raise self._somebody_else(answer)

    def _read(self, answer: httpx2.Response, read: Callable[[], T]) -> T:
        try:
            return read()
        except (KeyError, TypeError, ValueError) as error:
            raise self._somebody_else(answer) from error

    def _ask(self, method: str, path: str, *, needs: str, **what: Any) -> httpx2.Response:
        return self._judged(self._try(method, path, **what), needs=needs)

    def _try(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        content: bytes | None = None,
        json: dict[str, Any] | None = None,
    ) -> httpx2.Response:
        return self._send(method, f"/api/v1{path}", params=query, content=content, json=json)

    def _send(self, method: str, path: str, **what: Any) -> httpx2.Response:
        try:
            return self._client.request(method, f"{self._url}{path}", **what)
        except httpx2.ConnectError as error:
            raise CommandFailed(f"no server answers at {self._url}: {error}") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise CommandFailed(f"the server at {self._url} didn't answer as it should: {reason}") from error

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
        elif title == "document deleted":
            text += "; crdt-sync rooms undelete brings it back"
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


def _of_past(name: str, point: Point) -> tuple[str, dict[str, str]]:
    """Where a document is read as of then."""
    if point.version is not None:
        return f"{_path(name)}/versions/{point.version}", {}
    if point.seq is not None:
        return f"{_path(name)}/at", {"seq": str(point.seq)}
    if point.time is not None:
        return f"{_path(name)}/at", {"time": point.time.isoformat()}
    return f"{_path(name)}/document", {}


def _wish(point: Point) -> dict[str, Any]:
    if point.version is not None:
        return {"version": point.version}
    return {"seq": point.seq} if point.seq is not None else {"time": _point(point)}


def _point(point: Point) -> str:
    """As `parse_point` reads it."""
    if point.version is not None:
        return str(point.version)
    if point.seq is not None:
        return f"seq:{point.seq}"
    return point.time.isoformat() if point.time is not None else "now"


def _then(form: dict[str, Any]) -> Then:
    return Then(form["seq"], form["exact"], form["version"])


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
