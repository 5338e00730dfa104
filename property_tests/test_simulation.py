"""Laws of several nodes on one store and one bus, whatever goes wrong with any of them; see `simulation`.

To see what a seed does, event by event and message by message:

    SIMULATION_SEED=17 make test ARGS="-n0 -s property_tests/test_simulation.py -k replay"
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from .simulation import simulate
from .simulation_mutants import MUTANTS, planted
from .simulation_world import Failed

ROOT = Path(__file__).parents[1]
SEEDS, CHUNK = 375, 125
LONG = os.environ.get("SIMULATION_SEEDS", "0-200000")
"""Which seeds the long form runs, the last one excluded. Processes that share them share the work."""
MUTANT_SEEDS = 300

RARE = [
    "a confirmation had to wait for another node",
    "a node was deaf all the time",
    "a snapshot had to wait for another node",
    "adopted after a death",
    "adopted after a timeout",
    "answer lost after append",
    "answer lost after checkpoint",
    "append hangs",
    "appends hung all the time",
    "author gone for good after its confirmation",
    "bus away",
    "capture not whole",
    "checkpoint hangs",
    "checkpoint passed over as busy",
    "client hopped",
    "confirmed",
    "crash after append",
    "crash after checkpoint",
    "crash before append",
    "crash before checkpoint",
    "decline",
    "early messages during a load",
    "gap filled by an answer",
    "gap filled from the log",
    "hub flushed",
    "hub flushed while something was missing",
    "kill",
    "load hangs",
    "log trimmed",
    "logged room_load_failed",
    "logged room_recovered",
    "logged room_stays_behind",
    "logged room_unloaded",
    "message cut off",
    "message dropped",
    "message late",
    "message repeated",
    "partition",
    "pause",
    "published to nobody",
    "refused",
    "resync",
    "room found something new in the store",
    "room read from the store because behind",
    "room read from the store because in doubt",
    "stopped gracefully",
    "store down during append",
    "store down during checkpoint",
    "store down during load",
    "the log forgot a message",
]
"""What the simulation is there for; a run that never had one of these proves nothing about it."""


class Broken(AssertionError):
    """A seed found something."""


def run(seed: int, seen: Counter[str] | None = None) -> str:
    """Run a seed; says how to run it again if it finds something."""
    try:
        return simulate(seed, seen=seen)
    except Exception as error:
        replay = f'SIMULATION_SEED={seed} make test ARGS="-n0 -s property_tests/test_simulation.py -k replay"'
        raise Broken(f"seed {seed}: {error}\n{replay}") from error


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_nothing_confirmed_is_lost_and_all_become_equal_whatever_happens(first: int) -> None:
    seen = Counter[str]()

    for seed in range(first, first + CHUNK):
        run(seed, seen)

    print("\n".join(f"{count:8} {what}" for what, count in sorted(seen.items())))
    assert [what for what in RARE if not seen[what]] == []


@pytest.mark.long
@pytest.mark.timeout(0)
def test_the_same_with_many_seeds(capfd: pytest.CaptureFixture[str]) -> None:
    first, end = map(int, LONG.split("-"))
    seen, broken, began = Counter[str](), list[str](), time.monotonic()

    for seed in range(first, end):
        try:
            run(seed, seen)
        except Broken as error:
            broken.append(str(error))
        if (seed + 1 - first) % 1000 == 0:
            per_s = (seed + 1 - first) / (time.monotonic() - began)
            with capfd.disabled():
                print(f"up to seed {seed} of {end}, {per_s:.0f}/s, broken: {broken}", flush=True)

    print("\n".join(f"{count:8} {what}" for what, count in sorted(seen.items())))
    assert broken == []
    assert [what for what in RARE if not seen[what]] == []


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_mistake_is_noticed(mutant: str) -> None:
    with planted(mutant):
        for seed in range(MUTANT_SEEDS):
            try:
                simulate(seed)
            except Failed as failure:
                print(f"seed {seed}: {failure}")
                return

    pytest.fail(f"not noticed in {MUTANT_SEEDS} seeds")


def test_a_seed_always_does_the_same() -> None:
    seeds = range(20)
    here = [run(seed) for seed in seeds]
    again = [run(seed) for seed in seeds]
    elsewhere = subprocess.run(
        [sys.executable, "-c", f"from {simulate.__module__} import simulate\nfor n in range(20): print(simulate(n))"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "17"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout.split()

    assert again == here
    assert elsewhere == here


def test_replay_a_seed() -> None:
    simulate(int(os.environ.get("SIMULATION_SEED", "0")), verbose=True)
