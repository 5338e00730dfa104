"""The conformance vectors: scenarios of clients and a server, as data.

Owns their form, which docs/reference/vectors.md describes, and reads it strictly: a key that isn't known is a mistake, not a
detail. Leaves what a server has to answer to `heard`, and asking one to `playing`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

QUIET_MS: Final = 250
"""How long nothing may come, if a step doesn't say."""
LIFETIME_S: Final = 3600
"""How long a token is valid, if a step doesn't say."""
RIGHTS: Final = ("read", "write", "admin")

T = TypeVar("T")


class InvalidVectors(ValueError):
    """A file isn't a scenario. The text says where and why."""


@dataclass(frozen=True, slots=True)
class TokenFor:
    """A token that is made when it is shown."""

    user: str
    right: str | None
    """In the scenario's room; None for one that is about another room."""
    lifetime_s: int


@dataclass(frozen=True, slots=True)
class Connect:
    """A client opens a connection."""

    client: str
    path: str
    """`{room}` in it stands for the scenario's room."""
    token: TokenFor | str | None
    """A string is shown as it is. None where the scenario needs no keys: whatever the server wants."""
    refused: int | None
    """The HTTP status that has to answer."""


@dataclass(frozen=True, slots=True)
class Send:
    """A client sends one WebSocket message."""

    client: str
    what: bytes | str | TokenFor
    """A binary message, a text message, or a message with a fresh token."""


@dataclass(frozen=True, slots=True)
class Expect:
    """Something has to reach a client."""

    client: str
    kind: str
    """One of `EXPECTATIONS`."""
    what: Any
    """By the kind: see `EXPECTATIONS`."""
    within_ms: int | None
    """How long it may take; None for as long as whoever plays it has patience."""
    clocks: Mapping[int, int] = field(default_factory=dict)
    """Of `awareness`: the clocks that states must have."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nothing may reach a client for a while."""

    client: str
    for_ms: int


@dataclass(frozen=True, slots=True)
class Leave:
    """A client goes: it closes with 1000, or its connection is lost."""

    client: str
    properly: bool


@dataclass(frozen=True, slots=True)
class Forget:
    """A client forgets whom it has heard to be there."""

    client: str


Step: TypeAlias = Connect | Send | Expect | Quiet | Leave | Forget


@dataclass(frozen=True)
class Scenario:
    """What clients do and what has to come of it, in one room."""

    name: str
    """The file's, without `.json`."""
    title: str
    about: str
    common: bool
    """Whether every y-websocket server should do it; else it is crdt-sync's own."""
    keys: bool
    """Whether it is about tokens."""
    long: bool
    """Whether it takes more than some seconds."""
    steps: tuple[Step, ...]


def folder() -> Path:
    """Where the vectors are: beside this module in an installed package, in the documentation of a checkout."""
    installed = Path(__file__).with_name("vectors")
    return installed if installed.is_dir() else Path(__file__).parents[1] / "docs/reference/vectors"


def read_scenarios(folder: Path) -> list[Scenario]:
    """Read all scenarios of a folder, `*.json`, by name.

    Raises:
        InvalidVectors: There are none, or one of them isn't valid.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise InvalidVectors(f"{folder} has no scenarios: no *.json")
    return [read_scenario(file.stem, file.read_bytes()) for file in files]


def read_scenario(name: str, data: bytes) -> Scenario:
    """Read one scenario.

    Raises:
        InvalidVectors: It isn't valid.
    """
    try:
        members = _Members(json.loads(data), f"{name}.json")
    except ValueError as error:
        raise InvalidVectors(f"{name}.json is no JSON: {error}") from error
    scenario = Scenario(
        name,
        title=members.take("title", str),
        about=members.take("about", str),
        common=members.take("common", bool),
        keys=members.take("keys", bool, False),
        long=members.take("long", bool, False),
        steps=tuple(_step(step, f"{name}.json: step {i}") for i, step in enumerate(members.take("steps", list), 1)),
    )
    members.finish()
    _require_connections(scenario)
    return scenario


def _require_connections(scenario: Scenario) -> None:
    """Only who is connected can do anything, and nobody is twice."""
    connected: set[str] = set()
    for i, step in enumerate(scenario.steps, 1):
        if isinstance(step, Connect) == (step.client in connected):
            is_here = "connected already" if step.client in connected else "not connected"
            raise InvalidVectors(f"{scenario.name}.json: step {i}: {step.client!r} is {is_here}")
        if isinstance(step, Leave):
            connected.remove(step.client)
        elif not isinstance(step, Connect) or step.refused is None:
            connected.add(step.client)


class _Members:
    """The members of a JSON object, each of which has to be taken."""

    def __init__(self, value: object, where: str) -> None:
        self.where = where
        if not isinstance(value, dict):
            raise InvalidVectors(f"{where} is no object")
        self._left = dict(value)

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        """Take one; without a default it has to be there."""
        value = self._left.pop(key, default)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InvalidVectors(f"{self.where}: {key!r} has to be {_WORDS[kind]}, not {json.dumps(value)}")
        return value

    def take_any(self, key: str) -> Any:
        """Take one, whatever it is."""
        return self._left.pop(key)

    def finish(self) -> None:
        """Nothing may be left."""
        if self._left:
            raise InvalidVectors(f"{self.where}: nobody knows {', '.join(map(repr, self._left))}")


def _step(value: object, where: str) -> Step:
    members = _Members(value, where)
    verbs = [verb for verb in _STEPS if verb in members]
    if len(verbs) != 1:
        raise InvalidVectors(f"{where} has to have one of {', '.join(_STEPS)}")
    step = _STEPS[verbs[0]](members, members.take(verbs[0], str))
    members.finish()
    return step


def _connect(members: _Members, client: str) -> Connect:
    token: TokenFor | str | None = None
    if "token" in members:
        given = members.take_any("token")
        token = given if isinstance(given, str) else _token(given, members.where)
    return Connect(client, members.take("path", str, "{room}"), token, members.take("refused", int, 0) or None)


def _send(members: _Members, client: str) -> Send:
    if "text" in members:
        return Send(client, members.take("text", str))
    if "fresh_token" in members:
        return Send(client, _token(members.take_any("fresh_token"), members.where))
    return Send(client, _bytes(members.take("frame", str), members.where))


def _expect(members: _Members, client: str) -> Expect:
    kinds = [kind for kind in EXPECTATIONS if kind in members]
    if len(kinds) != 1:
        raise InvalidVectors(f"{members.where} has to expect one of {', '.join(EXPECTATIONS)}")
    (kind,) = kinds
    clocks = _by_client(members, "clocks") if "clocks" in members else {}
    what = EXPECTATIONS[kind](members, kind)
    return Expect(client, kind, what, members.take("within_ms", int, 0) or None, clocks)


def _bytes(text: object, where: str) -> bytes:
    try:
        return bytes.fromhex(str(text))
    except ValueError as error:
        raise InvalidVectors(f"{where}: {text!r} is no hexadecimal: {error}") from error


def _token(value: object, where: str) -> TokenFor:
    members = _Members(value, f"{where}: token")
    right = members.take("right", str, "write")
    if right not in (*RIGHTS, "none"):
        raise InvalidVectors(f"{where}: there is no right {right!r}")
    made = TokenFor(
        members.take("user", str), None if right == "none" else right, members.take("lifetime_s", int, LIFETIME_S)
    )
    members.finish()
    return made


def _one_update(members: _Members, kind: str) -> list[bytes]:
    return [_bytes(members.take(kind, str), members.where)]


def _updates(members: _Members, kind: str) -> list[bytes]:
    given = members.take_any(kind)
    return [_bytes(one, members.where) for one in (given if isinstance(given, list) else [given])]


def _hex(members: _Members, kind: str) -> bytes:
    return _bytes(members.take(kind, str), members.where)


def _by_client(members: _Members, key: str) -> dict[int, Any]:
    given = members.take(key, dict)
    if not all(client.isdecimal() for client in given):
        raise InvalidVectors(f"{members.where}: the keys of {key!r} have to be client ids")
    return {int(client): value for client, value in given.items()}


def _true(members: _Members, kind: str) -> bool:
    if members.take(kind, bool) is not True:
        raise InvalidVectors(f"{members.where}: {kind!r} has to be true")
    return True


_WORDS: Final[Mapping[type, str]] = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    list: "a list",
    dict: "an object",
}

_STEPS: Final[Mapping[str, Callable[[_Members, str], Step]]] = {
    "connect": _connect,
    "send": _send,
    "expect": _expect,
    "quiet": lambda members, client: Quiet(client, members.take("for_ms", int, QUIET_MS)),
    "leave": lambda members, client: Leave(client, properly=True),
    "lose": lambda members, client: Leave(client, properly=False),
    "forget": lambda members, client: Forget(client),
}
STEPS: Final = tuple(_STEPS)

EXPECTATIONS: Final[Mapping[str, Callable[[_Members, str], Any]]] = {
    "step_1": _hex,
    "step_2": _one_update,
    "update": _updates,
    "document": lambda members, kind: members.take(kind, dict),
    "awareness": _by_client,
    "confirm": _hex,
    "denied": _true,
    "expires": _true,
    "anything": _true,
    "closed": lambda members, kind: members.take(kind, int),
}
"""What can be expected, and how what is wanted is read: bytes for `step_1` and `confirm`, updates that amount to it for
`step_2` and `update`, JSON for `document`, states by client id for `awareness`, a code for `closed`."""
