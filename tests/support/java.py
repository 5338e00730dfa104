"""A JDK for the examples in Java: this machine's, or Debian's, unpacked."""

from __future__ import annotations

import atexit
import functools
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .debian import Program, find_program
from .services import Unavailable

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_PACKAGE = "openjdk-17-jdk-headless"


@dataclass(frozen=True)
class Jdk:
    """A compiler, and what runs what it makes."""

    javac: Path
    java: Path
    env: dict[str, str]

    def compile(self, sources: Path) -> Path:
        """Compile the `*.java` of a folder. Returns the folder with the classes.

        Raises:
            AssertionError: They don't compile without warnings; with what the compiler says.
        """
        classes = Path(tempfile.mkdtemp(prefix="crdt-sync-java-"))
        atexit.register(shutil.rmtree, classes, ignore_errors=True)
        command: list[str | Path] = [self.javac, "-J-XX:TieredStopAtLevel=1", "-Xlint:all", "-Werror", "-d", classes]
        done = subprocess.run(
            [*command, *sorted(sources.glob("*.java"))], env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return classes


@functools.cache
def find_jdk() -> Jdk:
    """The JDK of this machine if it has one, else Debian's.

    Raises:
        Unavailable: It can't be fetched here.
    """
    found = {}
    home = f"usr/lib/jvm/java-17-openjdk-{_MACHINES.get(platform.machine(), platform.machine())}"
    for name in ("javac", "java"):
        program = find_program(name, package=_PACKAGE, path=f"{home}/bin/{name}", also=("openjdk-17-jre-headless",))
        _relink(program)
        if not program.path.exists():
            raise Unavailable(f"{_PACKAGE} has no {name} at {program.path}")
        found[name] = program
    return Jdk(found["javac"].path, found["java"].path, {**os.environ, **found["java"].env})


def _relink(program: Program) -> None:
    """What is unpacked links to its configuration in /etc, where it isn't: have the links lead to the unpacked one."""
    if program.folder is None:
        return
    for link in program.folder.glob("usr/lib/jvm/**/*"):
        if link.is_symlink() and (target := os.readlink(link)).startswith("/etc/") and not link.exists():
            link.unlink()
            link.symlink_to(program.folder / target.lstrip("/"))
