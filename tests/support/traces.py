"""Recorded editing sessions (`tests/data/traces`), in the units of Yjs."""

from __future__ import annotations

import gzip
import json
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parents[1] / "data" / "traces"

Patch = tuple[int, int, str]
"""Position, length deleted there, text inserted there."""
Txn = list[Patch]


@dataclass(frozen=True, slots=True)
class Trace:
    """What one writer did, from an empty document on."""

    txns: list[Txn]
    """Positions and lengths in UTF-16 units."""
    end: str


@dataclass(frozen=True, slots=True)
class ConcurrentTrace:
    """What several writers did at the same time."""

    txns: list[dict[str, Any]]
    """`parents` (indices of transactions whose merge it starts from), `agent`, `patches` (UTF-16 units)."""
    agents: int
    end: str


def read_trace(name: str) -> Trace:
    """Read a sequential trace; a text to start from becomes its first transaction."""
    raw = _read(name)
    start: Iterable[Sequence[Patch]] = [[(0, 0, raw["startContent"])]] if raw["startContent"] else []
    return Trace(to_utf16([*start, *(txn["patches"] for txn in raw["txns"])]), raw["endContent"])


def read_concurrent_trace(name: str) -> ConcurrentTrace:
    """Read a trace with several writers.

    Its positions count in documents that only a merge can tell, so they are converted only as far as they need no
    conversion: all text has to be in the Basic Multilingual Plane, where code points are UTF-16 units.
    """
    raw = _read(name)
    assert not any(_astral(text) for txn in raw["txns"] for _, _, text in txn["patches"])
    return ConcurrentTrace(raw["txns"], raw["numAgents"], raw["endContent"])


def to_utf16(txns: Iterable[Sequence[Patch]]) -> list[Txn]:
    """Convert the patches of consecutive transactions from Unicode code points to UTF-16 units."""
    astral: list[int] = []  # where in the text, in code points, the characters of two units are
    converted = []
    for txn in txns:
        patches: Txn = []
        for position, deleted, inserted in txn:
            first, last = bisect_left(astral, position), bisect_left(astral, position + deleted)
            patches.append((position + first, deleted + last - first, inserted))
            moved_by = len(inserted) - deleted
            astral[first:] = [
                *(position + offset for offset in _astral(inserted)),
                *(each + moved_by for each in astral[last:]),
            ]
        converted.append(patches)
    return converted


def _astral(text: str) -> list[int]:
    return [] if text.isascii() else [offset for offset, each in enumerate(text) if ord(each) > 0xFFFF]


def _read(name: str) -> Any:
    with gzip.open(_FOLDER / f"{name}.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)
