"""Real Yjs as the referee, in a Node process of its own.

Tests ask it what updates amount to, and have it write documents by chance. `tests/node/oracle.mjs` does the work.
One user at a time; each xdist worker has its own.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

_FOLDER = Path(__file__).resolve().parents[1] / "node"


class YjsFailed(AssertionError):
    """Real Yjs threw where the test didn't expect it, or didn't come back."""


@dataclass(slots=True)
class Loaded:
    """What a fresh Yjs document holds after applying updates."""

    content: dict[str, Any]
    """Root name to content: text as delta and string, everything else as JSON with tags (`{"$": kind, …}`)."""
    state_vector: dict[int, int]
    pending: bool
    """Some structs or deletes wait for others."""
    error: str | None
    """What `applyUpdate`, or reading the content, threw."""


@dataclass(slots=True)
class History:
    """Edits of several Yjs clients, and what they amount to."""

    updates: list[bytes]
    """In causal order, unless shuffled."""
    authors: list[int]
    """Who made each: the number of a client."""
    state: bytes
    """`encodeStateAsUpdate` of a client that heard everything."""
    content: dict[str, Any]
    """What a client that heard everything shows. With `emoji` or `odd` this can differ from what a fresh document makes
    of the updates: Yjs cuts emojis for formats without effect too, which it tells nobody, and lone surrogates and
    some options of subdocuments don't survive the wire. Then `apply(updates)` is the referee."""
    state_vector: dict[int, int]


class Yjs:
    """A running oracle. Use as a context manager, or `close` it."""

    def __init__(self, *, timeout_s: float = 30) -> None:
        """Start Node.

        Args:
            timeout_s: How long one request may take. After that Node is ended, and started again for the next.

        Raises:
            RuntimeError: Node, or the packages in `tests/node`, are missing.
        """
        node = shutil.which("node")
        if node is None:
            raise RuntimeError("these tests need Node (>= 18): no `node` in PATH")
        if not (_FOLDER / "node_modules" / "yjs").is_dir():
            raise RuntimeError(f"these tests need Yjs: run `npm ci` in {_FOLDER}")
        self._command = [node, "--stack-size=900", str(_FOLDER / "oracle.mjs")]
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._buffer = b""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Yjs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End Node."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def apply(self, updates: Iterable[bytes], roots: Mapping[str, str] | None = None, *, gc: bool = True) -> Loaded:
        """Apply updates, one by one, to an empty document.

        Args:
            updates: In this order.
            roots: Root name to kind: `text`, `array`, `map`, `xml`, any of them after `json-` for its `toJSON()`, or
                `raw` for whatever is in it. The name `*` means all that the updates name. All as `raw` by default.
            gc: Whether the document collects garbage.
        """
        answer = self._ask("apply", updates=_encode_all(updates), roots=dict(roots or {"*": "raw"}), gc=gc)
        return Loaded(answer["content"], _clocks(answer), answer["pending"], answer["error"])

    def encode(self, updates: Iterable[bytes], sv: bytes | None = None, *, gc: bool = True) -> bytes:
        """What a document with these updates sends to one with the state vector `sv`."""
        sv_text = None if sv is None else _encode(sv)
        return _decode(self._ask("encode", updates=_encode_all(updates), sv=sv_text, gc=gc))

    def merge(self, updates: Iterable[bytes]) -> bytes:
        """`mergeUpdates`."""
        return _decode(self._ask("merge", updates=_encode_all(updates)))

    def parse_json(self, texts: Sequence[str]) -> list[dict[str, Any] | None]:
        """`{"v": value}` for each text that `JSON.parse` takes, None for the others."""
        answer: list[dict[str, Any] | None] = self._ask("json", texts=list(texts))
        return answer

    def generate(self, seed: int, **options: Any) -> History:
        """Have some clients edit a document by chance, exchanging updates now and then.

        Args:
            seed: The same seed and options give the same history.
            **options: `clients` (2), `steps` (30), `kinds` (text, array, map, xml; each is the name of a root too),
                `emoji` (False; edits at any UTF-16 offset, so inside of surrogate pairs), `odd` (False; bigint, -0,
                subdocuments, XmlHook, magic strings …), `gc` (True), `exchange` (0.5, chance that a client hears
                some of the others before an edit), `undo` (False), `shuffle` (0; window of disorder).
        """
        answer = self._ask("generate", seed=seed, **options)
        updates = [_decode(update) for update in answer["updates"]]
        return History(updates, answer["authors"], _decode(answer["state"]), answer["content"], _clocks(answer))

    def _ask(self, op: str, **request: Any) -> Any:
        if self._process is None:
            self._buffer = b""
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stdin = self._process.stdin
        assert stdin is not None
        request_id = next(self._ids)
        stdin.write(json.dumps({"id": request_id, "op": op, **request}).encode() + b"\n")
        stdin.flush()
        answer = json.loads(self._read_line())
        assert answer["id"] == request_id, "one user at a time"
        if "failed" in answer:
            raise YjsFailed(f"{op}: {answer['failed']}")
        return answer["ok"]

    def _read_line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        stdout = self._process.stdout.fileno()
        deadline = time.monotonic() + self._timeout_s
        chunks = [self._buffer]
        while b"\n" not in chunks[-1]:
            ready, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(stdout, 1 << 20) if ready else b""
            if not chunk:
                self.close()
                raise YjsFailed("Node ended" if ready else f"no answer within {self._timeout_s} s")
            chunks.append(chunk)
        line, self._buffer = b"".join(chunks).split(b"\n", 1)
        return line


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _encode_all(updates: Iterable[bytes]) -> list[str]:
    return [_encode(update) for update in updates]


def _decode(text: str) -> bytes:
    return base64.b64decode(text)


def _clocks(answer: dict[str, Any]) -> dict[int, int]:
    return {int(client): clock for client, clock in answer["state_vector"].items()}
