"""What one client of a scenario has heard, and whether it amounts to what was expected. Pure.

Servers may cut, merge and order updates as they like, and send states of others at any time. So messages aren't compared
as bytes but by what they mean to a client: docs/reference/vectors.md says how.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .awareness import ClientState, read_states
from .content import read_content
from .document import Document
from .errors import ProtocolError, SyncError
from .lib0 import read_var_bytes, read_var_string, read_var_uint
from .protocol import (
    AUTH,
    AUTH_DENIED,
    AUTH_EXPIRES,
    AWARENESS,
    CONFIRM,
    SYNC,
    SYNC_STEP_1,
    SYNC_STEP_2,
    SYNC_UPDATE,
)
from .scenarios import Expect
from .session import USER
from .update import read_state_vector, read_update

IN_PASSING: Final = frozenset({"step_1", "awareness", "expires"})
"""Kinds that a server may send at any time: whoever waits for something else passes them over."""

_SYNC: Final = {SYNC_STEP_1: "step_1", SYNC_STEP_2: "step_2", SYNC_UPDATE: "update"}
# What a server with keys writes into the states of its clients.
_STAMPED: Final = ("id", "name", "color")


class Message(NamedTuple):
    """One message of a server."""

    kind: str
    """As in `scenarios.EXPECTATIONS`, or `unknown`."""
    payload: bytes


class Coverage(NamedTuple):
    """Which changes are in updates."""

    clocks: Mapping[int, tuple[int, int]]
    """Client to the clock of its first one and that after its last one."""
    deletes: Mapping[int, Sequence[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Mismatch(Exception):
    """Something else came than what was expected. The text says what."""

    text: str

    def __str__(self) -> str:
        return self.text


def read_frame(frame: bytes) -> list[Message]:
    """Read the messages of one frame of a server.

    Raises:
        ProtocolError: It can't be read.
    """
    messages = []
    pos = 0
    while pos < len(frame):
        message, pos = _read_message(frame, pos)
        messages.append(message)
    return messages


def _read_message(frame: bytes, pos: int) -> tuple[Message, int]:
    kind, pos = read_var_uint(frame, pos)
    if kind == SYNC:
        step, pos = read_var_uint(frame, pos)
        payload, pos = read_var_bytes(frame, pos)
        return Message(_SYNC.get(step, "unknown"), payload), pos
    if kind in (AWARENESS, CONFIRM):
        payload, pos = read_var_bytes(frame, pos)
        return Message("awareness" if kind == AWARENESS else "confirm", payload), pos
    if kind == AUTH:
        step, pos = read_var_uint(frame, pos)
        if step == AUTH_DENIED:
            reason, pos = read_var_string(frame, pos)
            return Message("denied", reason.encode()), pos
        if step == AUTH_EXPIRES:
            seconds, pos = read_var_uint(frame, pos)
            return Message("expires", str(seconds).encode()), pos
    # Its end can't be found.
    return Message("unknown", frame[pos:]), len(frame)


class Heard:
    """What one client has sent and heard so far."""

    def __init__(self) -> None:
        self.view: dict[int, ClientState] = {}
        """The states that it has been told of, by y-protocols' rules; those who left, too."""
        self._sent: list[bytes] = []
        self._known: list[bytes] = []
        self._gathered: list[bytes] = []

    def send(self, frame: bytes) -> None:
        """The client sends this: what it writes itself is in its document."""
        try:
            messages = read_frame(frame)
        except ProtocolError:
            return  # it means to
        for message in messages:
            if message.kind in ("step_2", "update") and _is_update(message.payload):
                self._sent.append(message.payload)
                self._known.append(message.payload)

    def hear(self, message: Message) -> None:
        """A message has come.

        Raises:
            Mismatch: No y-protocols client could read it.
        """
        if message.kind == "awareness":
            self._hear_states(message.payload)

    def forget(self) -> None:
        """Forget whom it has heard of."""
        self.view.clear()

    def is_in_passing(self, message: Message, expected: Expect) -> bool:
        """Whether somebody who expects this passes the message over."""
        if expected.kind in ("anything", "closed"):
            return expected.kind == "closed"
        is_echo = message.kind == "update" and message.payload in self._sent
        return is_echo or (message.kind in IN_PASSING and message.kind != expected.kind)

    def satisfied(self, expected: Expect) -> bool:
        """Whether an expectation about the whole of what was heard is met."""
        if expected.kind == "document":
            return bool(_shown(self._known) == expected.what)
        if expected.kind == "awareness":
            return all(
                client in self.view
                and _same_state(self.view[client].state, state)
                and self.view[client].clock == expected.clocks.get(client, self.view[client].clock)
                for client, state in expected.what.items()
            )
        return False

    def matches(self, message: Message, expected: Expect) -> bool:
        """Take in a message that isn't in passing.

        Returns:
            Whether the expectation is met now. If not, more messages have to come.

        Raises:
            Mismatch: It can't be met any more.
        """
        if expected.kind == "anything":
            return True
        if expected.kind == "document" and message.kind in ("step_2", "update"):
            self._learn(message.payload)
            return self.satisfied(expected)
        if message.kind != expected.kind:
            raise Mismatch(f"{described(message)} came")
        match expected.kind:
            case "step_1":
                return _equal(read_state_vector(message.payload), read_state_vector(expected.what), message)
            case "confirm":
                return _equal(message.payload, expected.what, message)
            case "step_2" | "update":
                return self._amounts_to(message, expected.what)
        return True

    def told(self, expected: Expect) -> str:
        """What there is in place of what is expected."""
        if expected.kind == "document":
            return f"the document is {_json(_shown(self._known))}"
        if expected.kind == "awareness":
            seen = {client: [one.clock, json.loads(one.state)] for client, one in self.view.items()}
            return f"it has heard of {_json(seen)} (clock and state by client)"
        return ""

    def _learn(self, update: bytes) -> None:
        if not _is_update(update):
            raise Mismatch(f"an update that Yjs couldn't load came: {update.hex(' ')}")
        self._known.append(update)

    def _amounts_to(self, message: Message, wanted: list[bytes]) -> bool:
        before = [*self._known]
        self._learn(message.payload)
        self._gathered.append(message.payload)
        got, want = coverage(self._gathered), coverage(wanted)
        if got != want:
            if len(wanted) > len(self._gathered):
                return False  # one of several
            raise Mismatch(f"{described(message)} came: {_told(got)}, not {_told(want)}")
        self._gathered.clear()
        shown, should = _shown(self._known), _shown([*before, *wanted])
        if shown != should:
            raise Mismatch(f"{described(message)} came: the document is {_json(shown)} by it, not {_json(should)}")
        return True

    def _hear_states(self, payload: bytes) -> None:
        try:
            states = read_states(payload)
        except ProtocolError as error:
            raise Mismatch(f"an awareness message that can't be read came: {error}") from error
        for one in states:
            known = self.view.get(one.client, ClientState(one.client, 0, b"null"))
            if one.clock > known.clock or (
                one.clock == known.clock and one.state == b"null" and one.client in self.view
            ):
                self.view[one.client] = one


def coverage(updates: Iterable[bytes]) -> Coverage:
    """Which changes are in updates, taken together.

    Raises:
        MalformedUpdate: One of them isn't an update.
    """
    clocks: dict[int, tuple[int, int]] = {}
    deletes: dict[int, list[tuple[int, int]]] = {}
    for data in updates:
        update = read_update(data)
        for client, end in update.ends.items():
            start = update.structs[client][0][0]
            first, last = clocks.get(client, (start, end))
            clocks[client] = min(start, first), max(end, last)
        for client, ranges in update.deletes.items():
            deletes[client] = _joined([*deletes.get(client, []), *ranges])
    return Coverage(clocks, deletes)


def described(message: Message) -> str:
    """Tell a message in a line."""
    if message.kind in ("denied", "expires"):
        return f"{message.kind} ({message.payload.decode()!r})"
    return f"{message.kind} ({message.payload.hex(' ') or 'empty'})"


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return joined


def _is_update(data: bytes) -> bool:
    try:
        read_update(data)
    except SyncError:
        return False
    return True


def _shown(updates: Iterable[bytes]) -> dict[str, Any]:
    """The document of these updates; those that lack something don't show."""
    document = Document()
    for update in updates:
        document.apply(update)
    return read_content(document.diff(b"\0")).to_json()


def _same_state(text: bytes, wanted: object) -> bool:
    """Whether a state is the wanted one, but for what a server with keys writes into it."""
    state = json.loads(text)
    if state == wanted or not isinstance(state, dict) or not isinstance(wanted, dict):
        return bool(state == wanted)
    user, known = state.get(USER), wanted.get(USER, {})
    if not isinstance(user, dict) or not isinstance(known, dict):
        return False
    user = {key: value for key, value in user.items() if key not in _STAMPED or key in known}
    stamped = {**state, USER: user}
    return stamped in (wanted, {**wanted, USER: known})


def _equal(got: object, wanted: object, message: Message) -> bool:
    if got != wanted:
        raise Mismatch(f"{described(message)} came")
    return True


def _told(covered: Coverage) -> str:
    clocks = [f"{client}: {start}-{end - 1}" for client, (start, end) in sorted(covered.clocks.items())]
    deletes = [
        f"{client}: {start}-{stop - 1}" for client, ranges in sorted(covered.deletes.items()) for start, stop in ranges
    ]
    return f"changes {', '.join(clocks) or 'none'} and deletes {', '.join(deletes) or 'none'}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
