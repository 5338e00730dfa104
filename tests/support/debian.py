"""Programs that tests run: what this machine has, else Debian's package, fetched without installing it."""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .processes import can_run, copy_for, run
from .services import Unavailable

_FOLDERS = ("/usr/local/sbin", "/usr/sbin")  # where packages put servers, beside the PATH of people


@dataclass(frozen=True)
class Program:
    """A program, and where its libraries are."""

    path: Path
    folder: Path | None = None
    """What it was unpacked to, with all that it needs; None for one that is installed."""

    @property
    def env(self) -> dict[str, str]:
        """What its environment has to have."""
        if self.folder is None:
            return {}
        return {"LD_LIBRARY_PATH": ":".join(sorted({str(file.parent) for file in self.folder.rglob("lib*.so*")}))}


@functools.cache
def find_program(
    name: str, *, package: str | None = None, path: str | None = None, also: tuple[str, ...] = ()
) -> Program:
    """The program of this machine, or Debian's, which is fetched once and kept in the user's cache.

    Args:
        name: What it is called on the PATH.
        package: The package it is in, if that is called otherwise.
        path: Where in the package it is, if not at `usr/bin/<name>`.
        also: Packages that it needs beside libraries, such as its data.

    Raises:
        Unavailable: It can't be fetched here.
    """
    if installed := shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *_FOLDERS])):
        return Program(Path(installed))
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable(f"no {name} here: have it on the PATH")
    package = package or name
    folder = _cache(package) / _system()
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # xdist workers fetch it once
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                _fetch(package, also, Path(scratch)).rename(folder)
    return Program(folder / (path or f"usr/bin/{name}"), folder)


@functools.cache
def reachable(program: Program, account: str | None) -> Program:
    """The program, or if the account doesn't reach it, say below root's home, a copy of it."""
    if program.folder is None or can_run(program.path, account=account, env=program.env):
        return program
    copies = copy_for(account, program.folder)
    atexit.register(shutil.rmtree, copies, ignore_errors=True)
    folder = copies / program.folder.name
    return Program(folder / program.path.relative_to(program.folder), folder)


def _cache(package: str) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "crdt-sync-tests" / package
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # an account without a home, such as nobody
        folder = Path(tempfile.mkdtemp(prefix=f"crdt-sync-{package}-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _system() -> str:
    release = platform.freedesktop_os_release()
    return f"{release['ID']}-{release.get('VERSION_ID', 'rolling')}-{platform.machine()}"


def _fetch(package: str, also: tuple[str, ...], scratch: Path) -> Path:
    """Have apt fetch the package and what it needs beyond what is installed, and unpack it here.

    apt gets lists and archives of its own in `scratch`: that needs no root, changes nothing on the machine and works
    where nobody has run `apt-get update`.

    Returns:
        The folder that it is unpacked to.
    """
    archives = scratch / "cache" / "archives"
    for folder in (scratch / "state" / "lists" / "partial", archives / "partial"):
        folder.mkdir(parents=True)
    apt_get: list[str | Path] = ["apt-get", "--quiet"]
    for option in (
        f"Dir::State={scratch / 'state'}",
        f"Dir::Cache={scratch / 'cache'}",
        "Dir::State::status=/var/lib/dpkg/status",
        "Debug::NoLocking=1",  # the lock is for installing
        "APT::Sandbox::User=",  # apt's own account couldn't write here
        "Acquire::http::Timeout=20",
    ):
        apt_get += ["-o", option]
    download = ["install", "--yes", "--no-install-recommends", "--download-only", package, *also]
    unpacked = scratch / "unpacked"
    try:
        run([*apt_get, "update"], folder=scratch)
        run([*apt_get, *download], folder=scratch)
        # Of what it depends on only the libraries matter, and never another libc.
        wanted = [file for name in (package, *also) for file in archives.glob(f"{name}_*.deb")]
        for file in [*wanted, *archives.glob("lib*.deb")]:
            if not file.name.startswith("libc6"):
                run(["dpkg-deb", "--extract", file, unpacked], folder=scratch)
    except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{package} can't be fetched, have it installed: {error}") from error
    return unpacked
