"""The real npm clients, in a Node process that hosts any number of them, and pycrdt's in this one.

`tests/node/client.mjs` does the work. Waiting for a condition happens there, so tests neither sleep nor poll.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from .pyclient import PyClient

_FOLDER = Path(__file__).resolve().parents[1] / "node"

NODE_VERSIONS = ("1.5", "3.0", "3.1", "4.0")
"""y-websocket 1.5.4, 3.0.0 and 3.1.0 with Yjs 13, and @y/websocket 4.0.0-3 with Yjs 14."""
VERSIONS = (*NODE_VERSIONS, "pycrdt")
_CONTENT = frozenset({"text", "delta", "array", "map", "xml"})
_CAMEL = {"text_length": "textLength"}


class ClientFailed(AssertionError):
    """What was asked of a client failed, or what was waited for didn't come; the text says what was seen."""


class NodeProcess:
    """A Node process running `client.mjs`. Usable from any event loop, one after the other; end it with `close`.

    Args:
        script: Another one of `tests/node` that takes requests in the same way.
        env: More environment.
    """

    def __init__(self, script: str = "client.mjs", *, env: Mapping[str, str] | None = None) -> None:
        node = shutil.which("node")
        assert node is not None, "Node.js (20 or later) is missing: the tests run the real clients in it"
        assert (_FOLDER / "node_modules").is_dir(), (
            f"the npm clients are missing: run `make test`, or npm ci in {_FOLDER}"
        )
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [node, script],
            cwd=_FOLDER,
            env=os.environ | dict(env or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]]] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, name="node-clients", daemon=True)
        self._reader.start()

    async def ask(self, op: str, **request: Any) -> Any:
        """Send one request and return its answer; many may be under way.

        Raises:
            ClientFailed: It failed over there, or Node ended.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        request_id = next(self._ids)
        line = json.dumps({"id": request_id, "op": op, **request}).encode() + b"\n"
        with self._lock:
            if self._process.poll() is not None:
                raise ClientFailed(f"Node has ended: {self._complaints()}")
            self._waiting[request_id] = loop, answer
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        return await answer

    def close(self) -> None:
        """End the process, and with it all clients, without goodbyes."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._errors.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._lock:
                loop, future = self._waiting.pop(answer["id"])
            if "failed" in answer:
                self._settle(loop, future, ClientFailed(answer["failed"]))
            else:
                self._settle(loop, future, answer["ok"])
        self._process.wait()
        with self._lock:
            left, self._waiting = self._waiting, {}
        for loop, future in left.values():
            self._settle(loop, future, ClientFailed(f"Node ended: {self._complaints()}"))

    def _settle(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], result: Any) -> None:
        def settle() -> None:
            if future.done():
                return
            if isinstance(result, ClientFailed):
                future.set_exception(result)
            else:
                future.set_result(result)

        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:
            pass  # The loop is closed: its test has ended, and nobody waits any more.

    def _complaints(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-4000:]


class NodeClient:
    """One stock provider with its document. Positions in text are UTF-16 units."""

    def __init__(self, node: NodeProcess, name: str, version: str, client_id: int) -> None:
        self.version = version
        self.client_id = client_id
        self._node = node
        self._name = name
        self._destroyed = False

    # -------------------------------------------------------------------------------------------- connection

    async def connect(self) -> None:
        """`provider.connect()`; returns at once."""
        await self._ask("connect")

    async def disconnect(self) -> None:
        """`provider.disconnect()`: says goodbye to the other users and closes."""
        await self._ask("disconnect")

    async def destroy(self) -> None:
        """Destroy provider, awareness and document, which says goodbye; no other method works afterwards."""
        if not self._destroyed:
            self._destroyed = True
            await self._ask("destroy")

    async def abort(self, *, come_back: bool = True) -> None:
        """Lose the network: the socket is gone without a close frame or a goodbye.

        Args:
            come_back: The provider reconnects by itself, after 100 ms or 200 ms; otherwise not until `connect`.
        """
        await self._ask("abort", comeBack=come_back)

    async def close_tab(self) -> None:
        """Close as a browser tab does: with a close frame, but without a goodbye to the other users."""
        await self._ask("closeTab")

    async def pause_reading(self) -> None:
        """Read nothing from the socket any more, so that its buffers fill up."""
        await self._ask("pauseReading")

    async def resume_reading(self) -> None:
        """Read again."""
        await self._ask("resumeReading")

    async def send(self, message: bytes) -> None:
        """Send any message through the provider's socket."""
        await self._ask("send", message=_base64(message))

    async def status(self) -> dict[str, Any]:
        """What happened to its connections.

        Returns:
            `clientId`, `connected`, `synced`, `shouldConnect` (whether the provider wants to be connected), `opened`
            (count), `closes` (list of `code` and `reason`; 1006 for refused attempts too), `gaps` (how
            many ms each loss of a connection lasted, until it was synced again), `refusals` (texts such as
            "Unexpected server response: 403"), `heard` (updates of others), `framesIn`, `bytesIn`, `buffered`
            (bytes not yet sent).
        """
        return dict(await self._ask("status"))

    async def confirm(self, *, timeout_s: float = 5) -> float:
        """Ask for the confirmation of everything sent so far, and wait for it.

        Returns:
            The seconds it took.

        Raises:
            ClientFailed: It didn't come within `timeout_s`, or the connection closed before.
        """
        return int(await self._ask("confirm", timeoutMs=timeout_s * 1000)) / 1000

    # -------------------------------------------------------------------------------------------- clients/js

    async def attach(
        self, *, tokens: Sequence[str | None] | None = None, storage: str | None = None, loaded: bool | None = None
    ) -> None:
        """Attach the plug-in of `clients/js`.

        Args:
            tokens: What it is given when it asks, one after the other, the last one for ever; None if there is none to be had.
            storage: The name of what keeps its count, for all clients of this process.
            loaded: With False it waits until `load` was called.
        """
        optional = {"tokens": tokens, "storage": storage, "loaded": loaded}
        await self._ask("attach", **{key: value for key, value in optional.items() if value is not None})

    async def load(self) -> None:
        """The document has been loaded from where it is kept locally; see `attach`."""
        await self._ask("loaded")

    async def keep_editing(self, name: str, *, every_ms: int) -> None:
        """From now on, set key after key in the map: `<name>:0`, `<name>:1`, …; `client.made` counts them."""
        await self._ask("keepEditing", name=name, everyMs=every_ms)

    async def detach(self) -> None:
        """`destroy` the plug-in."""
        await self._ask("detach")

    async def saved(self, *, timeout_s: float = 5) -> None:
        """Wait as an application does that awaits `saved()`.

        Raises:
            ClientFailed: With what it was rejected with; or that took longer.
        """
        await self._ask("saved", timeoutMs=timeout_s * 1000)

    async def report(self) -> dict[str, Any]:
        """The plug-in's `state`, `unsaved`, `supported`, `lastSavedAt`, and `events` (names, without `change`)."""
        return dict(await self._ask("report"))

    async def events(self) -> list[Any]:
        """Its events, as names or as name and value."""
        return list(await self._ask("events"))

    async def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, in which `client` is the one of `client.mjs`."""
        return await self._ask("evaluate", script=script)

    # -------------------------------------------------------------------------------------------- edits

    async def edit(self, *edits: Mapping[str, Any]) -> None:
        """Make edits in one transaction; see `dialects.mjs` for what an edit is."""
        await self._ask("edit", edits=edits)

    async def insert(self, index: int, text: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Insert text."""
        await self._do("text", "insert", index, text, *([attributes] if attributes else []))

    async def delete(self, index: int, length: int) -> None:
        """Delete text."""
        await self._do("text", "delete", index, length)

    async def format(self, index: int, length: int, attributes: Mapping[str, Any]) -> None:
        """Format text; an attribute of `None` takes it away."""
        await self._do("text", "format", index, length, attributes)

    async def embed(self, index: int, value: Mapping[str, Any]) -> None:
        """Embed an object in the text (Yjs 13 only)."""
        await self._do("text", "embed", index, value)

    async def array_insert(self, index: int, values: Sequence[Any]) -> None:
        """Insert values into the array."""
        await self._do("array", "insert", index, values)

    async def array_delete(self, index: int, length: int = 1) -> None:
        """Delete from the array."""
        await self._do("array", "delete", index, length)

    async def map_set(self, key: str, value: Any, *, path: Sequence[str] = ()) -> None:
        """Set a value in the map, or in a map in it; `{"$map": {...}}` makes a nested one."""
        await self._do("map", "set", key, value, path=path)

    async def map_delete(self, key: str) -> None:
        """Delete from the map."""
        await self._do("map", "unset", key)

    async def add_element(self, index: int, name: str, attributes: Mapping[str, str], text: str) -> None:
        """Insert `<name attributes>text</name>` into the XML fragment."""
        element = {"$element": name, "attributes": attributes, "children": [{"$xmlText": text}]}
        await self._do("xml", "insert", index, [element])

    async def set_attribute(self, index: int, key: str, value: str) -> None:
        """Set an attribute of the XML element at `index`."""
        await self._do("xml", "set", key, value, path=[index])

    async def apply(self, *updates: bytes) -> None:
        """Apply updates from elsewhere, as a second provider of the same document would; they are sent too."""
        await self._ask("apply", updates=[_base64(update) for update in updates])

    async def track_undo(self) -> None:
        """Start an undo manager over all roots; each transaction of this client from now on is one step."""
        await self._ask("trackUndo")

    async def undo(self) -> None:
        """Undo one step."""
        await self._ask("undo")

    async def redo(self) -> None:
        """Redo one step."""
        await self._ask("redo")

    async def replay(self, txns: Sequence[Sequence[Sequence[Any]]], *, clamp: bool = False, per_turn: int = 20) -> int:
        """Make the edits of a trace, a Yjs transaction each, as fast as the sockets take them.

        Args:
            txns: Each a list of patches `(position, deleted, inserted)`, in UTF-16 units.
            clamp: Fit positions to a text that somebody else edits as well.
            per_turn: Transactions between two looks at the sockets; with fewer, more edits of others come in between.

        Returns:
            How many updates of others came in meanwhile.
        """
        return int(await self._ask("replay", txns=txns, clamp=clamp, perTurn=per_turn))

    async def play(self, updates: Sequence[RecordedUpdate], *, timeout_s: float, per_turn: int = 20) -> None:
        """Make recorded edits, each when what its writer had seen then has arrived here."""
        listed = [{"update": each.update, "needs": each.needs} for each in updates]
        await self._ask("play", updates=listed, timeoutMs=timeout_s * 1000, perTurn=per_turn)

    # -------------------------------------------------------------------------------------------- looking

    async def content(self, *parts: str) -> dict[str, Any]:
        """Some of `text`, `delta`, `array`, `map` and `xml`; as Yjs 13 writes them, with Yjs 14 too."""
        return dict(await self._ask("content", parts=parts))

    async def state_vector(self) -> dict[int, int]:
        """Client ids and clocks."""
        return _by_id(await self._ask("stateVector"))

    async def encode_state(self) -> bytes:
        """`encodeStateAsUpdate`."""
        return base64.b64decode(await self._ask("encodeState"))

    async def keep_updates(self) -> None:
        """Keep what this client says from now on, for `own_updates`."""
        await self._ask("keepUpdates")

    async def own_updates(self) -> list[bytes]:
        """The updates of this client's own edits since `keep_updates`."""
        return [base64.b64decode(update) for update in await self._ask("ownUpdates")]

    async def states(self) -> dict[int, dict[str, Any]]:
        """The awareness states that it shows, by client id."""
        return _by_id(await self._ask("states"))

    async def set_state(self, state: dict[str, Any] | None) -> None:
        """Set its own awareness state."""
        await self._ask("setState", state=state)

    async def awareness_log(self, client_id: int) -> list[str]:
        """What happened to a user in its eyes, in order: `added`, `updated` or `removed`."""
        entries = await self._ask("awarenessLog")
        return [kind for entry in entries for kind in ("added", "updated", "removed") if client_id in entry[kind]]

    async def wait(self, *, timeout_s: float = 5, **until: Any) -> float:
        """Wait until everything given is so at once.

        Args:
            timeout_s: How long at most.
            **until: Of the document `text`, `delta`, `array`, `map`, `xml`, of other roots `array:name` and so on
                (equal), `text_length`, `covers` (a state vector); of the connection `synced`, `connected` (bool), `opened`, `closes`, `refusals` (at least so
                many); of awareness `present`, `absent` (client ids), `states` (client id to state, at least these); of the
                plug-in `plugin` (parts of its `report`), `told` (names of events, at least these).

        Returns:
            The seconds it took.

        Raises:
            ClientFailed: It didn't come true; the text says what was seen last.
        """
        content = {name: until.pop(name) for name in list(until) if name.partition(":")[0] in _CONTENT}
        conditions = {_CAMEL.get(name, name): wanted for name, wanted in until.items()}
        if content:
            conditions["content"] = content
        return int(await self._ask("wait", until=conditions, timeoutMs=timeout_s * 1000)) / 1000

    async def _do(self, on: str, do: str, *args: Any, path: Sequence[str | int] = ()) -> None:
        await self.edit({"on": on, "path": list(path), "do": do, "args": args})

    async def _ask(self, op: str, **request: Any) -> Any:
        return await self._node.ask(op, client=self._name, **request)


AnyClient = NodeClient | PyClient
"""What the two kinds have in common is what tests of all versions use."""


@dataclass(frozen=True, slots=True)
class RecordedUpdate:
    """One transaction of a concurrent trace."""

    agent: int
    """Who made it."""
    update: str
    """Its Yjs update, base64."""
    needs: dict[str, int]
    """The state vector that its writer had."""


class NodeClients:
    """The clients of one test: makes them, and ends them all in `close`."""

    _names = itertools.count(1)

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self._open: list[NodeClient | PyClient] = []

    async def create(
        self,
        url: str,
        room: str,
        version: str = "3.1",
        *,
        connect: bool = True,
        synced: bool = True,
        state: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        client_id: int | None = None,
        ca: str | None = None,
        tabs: bool = False,
        cookie: str | None = None,
    ) -> NodeClient:
        """Make a stock npm client.

        Args:
            url: `ws://host:port`.
            room: Goes into the URL as it is.
            version: One of `NODE_VERSIONS`.
            connect: Connect at once.
            synced: If so, return only once it is synced.
            state: Its awareness state before it connects; by default `{}`, as the provider sets it.
            params: For the query of its URL.
            client_id: Instead of a random one.
            ca: The authority that it trusts, as PEM, for `wss:`.
            cookie: What it sends along, as a browser does.
            tabs: Whether it is a tab of a browser: those of one address and room hear of each other beside the server.
        """
        name = f"{version}/{next(self._names)}"
        optional = {"state": state, "params": params, "clientId": client_id, "ca": ca, "tabs": tabs, "cookie": cookie}
        given = {key: value for key, value in optional.items() if value is not None}
        made = await self._node.ask(
            "create", client=name, version=version, url=url, room=room, connect=connect, **given
        )
        client = NodeClient(self._node, name, version, made)
        self._open.append(client)
        if connect and synced:
            await client.wait(synced=True)
        return client

    async def create_any(
        self, url: str, room: str, version: str, *, state: Mapping[str, Any] | None = None
    ) -> NodeClient | PyClient:
        """Make and sync a client of one of `VERSIONS`, so also pycrdt's."""
        if version != "pycrdt":
            return await self.create(url, room, version, state=state)
        client = PyClient(url, room)
        self._open.append(client)
        await client.set_state(dict(state or {}))
        await client.connect()
        await client.wait(synced=True)
        return client

    async def record(
        self, txns: Sequence[Mapping[str, Any]], client_ids: Sequence[int]
    ) -> tuple[list[RecordedUpdate], list[str]]:
        """Make updates of a concurrent trace, each on exactly what its writer had seen.

        Args:
            txns: With `parents`, `agent` and `patches` (UTF-16 units).
            client_ids: The Yjs client id of each agent.

        Returns:
            The updates in order, and the final text in each agent's document.
        """
        answer = await self._node.ask("record", txns=txns, clientIds=list(client_ids))
        return [RecordedUpdate(**each) for each in answer["updates"]], answer["texts"]

    async def close(self) -> None:
        """Destroy all clients that are left."""
        clients, self._open = self._open, []
        for client in clients:
            await client.destroy()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@overload
def _by_id(answer: dict[str, int]) -> dict[int, int]: ...
@overload
def _by_id(answer: dict[str, dict[str, Any]]) -> dict[int, dict[str, Any]]: ...
def _by_id(answer: Mapping[str, Any]) -> dict[int, Any]:
    return {int(client_id): value for client_id, value in answer.items()}
