"""Where a Python server's time goes, function by function, sampled from outside by py-spy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

SAMPLES_PER_S = 250
FILES = 16
FUNCTIONS = 24


class Profile:
    """Samples of one process while it works.

    Args:
        pid: The process.
        seconds: For how long.
        path: An existing folder, for py-spy's file.

    Raises:
        SystemExit: py-spy isn't installed.
    """

    def __init__(self, pid: int, seconds: float, path: Path) -> None:
        program = shutil.which("py-spy", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
        if program is None:
            raise SystemExit("--profile needs py-spy: pip install 'crdt-sync[bench]'")
        self._path = path / "samples"
        # Blocking, py-spy takes three quarters of the server's time here. Not blocking, it sees some stacks torn: what is on top is
        # right, what is below may be missing.
        options = ["--nonblocking", "--function", "--format", "raw", "--rate", str(SAMPLES_PER_S), "--duration"]
        command = [program, "record", *options, str(max(1, round(seconds))), "--output", str(self._path)]
        self._process = subprocess.Popen(
            [*command, "--pid", str(pid)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def table(self) -> str:
        """The functions that took most, in Markdown, once the samples are there.

        Raises:
            SystemExit: py-spy couldn't; it mostly lacks the right to look into another process.
        """
        _, errors = self._process.communicate()
        if self._process.returncode or not self._path.exists():
            raise SystemExit(f"py-spy failed: {errors.decode(errors='replace')}")
        return table(self._path.read_text())


def table(samples: str) -> str:
    """What py-spy's raw format says: lines of frames, outermost first, with `;` between, and a count.

    Returns:
        The shares of files, then of functions, each without what it calls.
    """
    functions: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        if not count.isdigit():  # a name with a line break in it: a torn one
            continue
        name = re.sub(r":\d+\)$", ")", stack.rpartition(";")[2])
        functions[name] += int(count)
        files[name.rpartition("(")[2].rstrip(")")] += int(count)
    return "\n\n".join((_shares("file", files, FILES), _shares("function", functions, FUNCTIONS)))


def _shares(what: str, counts: Counter[str], most: int) -> str:
    total = counts.total() or 1
    lines = [f"| {what} | share |", "|---|---:|"]
    lines += [f"| `{name}` | {count / total:.1%} |" for name, count in counts.most_common(most)]
    return "\n".join(lines)
