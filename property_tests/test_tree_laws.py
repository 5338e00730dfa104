"""Laws of what a document takes: everything that real Yjs writes, and nothing that pycrdt doesn't survive."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from crdt_sync.document import Document
from tests.support.yjs import Yjs

ROOT = Path(__file__).parents[1]
ROOTS = {"text": "text", "array": "array", "map": "map", "xml": "xml"}

# Run in a process of its own, since the point is whether it survives: each document gets updates from the fuzzer that
# follow upon what it holds, and is asked for its state after each.
SURVIVE = """
import sys
from random import Random
from crdt_sync.document import Document, Outcome
from crdt_sync.errors import DocumentBroken, SyncError
from crdt_sync.update import read_state_vector
from tests.support.grammar import FOUNDATION, hostile_update

integrated = 0
for seed in range(int(sys.argv[1]), int(sys.argv[2])):
    rng, document = Random(seed), Document()
    document.apply(FOUNDATION)
    for n in range(100):
        update = hostile_update(rng, read_state_vector(document.state_vector()))
        try:
            integrated += document.apply(update) is Outcome.NEW
            document.state()
        except DocumentBroken as error:
            print(f"seed {seed}, update {n}: {error}")
            document = Document()
            document.apply(FOUNDATION)
        except SyncError:
            pass
print(integrated, "integrated")
"""


@pytest.mark.parametrize("histories", [200, pytest.param(5000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_a_document_takes_every_history_that_real_yjs_writes(histories: int, yjs: Yjs) -> None:
    for seed in range(histories):
        rng = random.Random(seed)
        history = yjs.generate(
            seed,
            clients=rng.choice((1, 2, 3, 5)),
            steps=rng.choice((20, 60, 150)),
            emoji=rng.random() < 0.5,
            odd=rng.random() < 0.5,
            gc=rng.random() < 0.6,
            undo=rng.random() < 0.5,
            shuffle=rng.choice((0, 0, 5, 20)),
            exchange=rng.choice((0.1, 0.5, 0.9)),
        )
        document = Document(waiting_bytes_max=1 << 30)

        for update in history.updates:
            document.apply(update)  # raises if it refuses
        state = document.state()
        document.apply(history.state)

        assert state.waiting == (), f"seed {seed}"
        loaded = yjs.apply([state.update], ROOTS)
        assert loaded.error is None, f"seed {seed}"
        assert loaded.state_vector == history.state_vector, f"seed {seed}"


@pytest.mark.parametrize("documents", [100, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_pycrdt_survives_all_that_a_document_takes(documents: int) -> None:
    # With freed memory overwritten, a dangling pointer is a crash now rather than some time later.
    environment = {**os.environ, "MALLOC_PERTURB_": "165", "RUST_BACKTRACE": "0"}
    integrated = 0
    for start in range(0, documents, 50):
        run = subprocess.run(
            [sys.executable, "-c", SURVIVE, str(start), str(start + 50)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        *broken, last = run.stdout.splitlines() or [""]
        assert run.returncode == 0, f"seeds from {start}: {run.stderr[-500:]}"
        assert broken == []
        integrated += int(last.split()[0])
    # Otherwise the fuzzer only knocks at the door.
    assert integrated > documents * 10
