"""Our server beside others, under the same load: `python -m benchmarks.peers`.

Starts each server in turn, afresh for every work, and drives it with the same clients; the server has one core, the clients
another. Prints a table for each work, and bars. With several rounds, numbers are medians, and the servers take turns in each.

Works: A, a fan-out; B, many small rooms; C, busy rooms; D, idle connections; E, a connect storm; F, time until an update is on disk;
G, two nodes; H, many editors with cursors; I, opening a stored document; J, 10,000 connections; and, only if it is asked
for by name, K: whether memory or latency grow in an hour. See docs/explanation/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

from benchmarks.databases import folder

from . import report
from .measured import Broken, Numbers, Timing
from .profiling import Profile
from .servers import KINDS, OURS, Kind, Server, Unable, cores, install, on_core, serve
from .works import BY_NAME_ONLY, WORKS


def main() -> None:
    """Measure, and say what was measured."""
    options = read_arguments()
    for name in [name for name in os.environ if name.startswith("CRDT_SYNC_")]:
        del os.environ[name]
    kinds = [kind for kind in KINDS if kind.name in options.servers]
    if any(kind.from_npm for kind in kinds):
        install()
    for kind in kinds:
        print(f"{kind.name} {kind.release()}")
    results: report.Results = {}
    for work in options.works:
        results[work] = measure(work, kinds, options)
        print("\n" + report.table(work, WORKS[work].title, results[work]), flush=True)
    print("\n" + report.bars(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.png:
        report.picture(results, options.png)


def measure(work: str, kinds: list[Kind], options: argparse.Namespace) -> dict[str, Numbers | str]:
    """One work with all servers; numbers of several rounds are medians. What takes an hour is done once."""
    found: dict[str, list[Numbers]] = {}
    failed: dict[str, str] = {}
    for _ in range(1 if work in BY_NAME_ONLY else options.rounds):
        for kind in kinds:
            if kind.name in failed:
                continue
            print(f"{work} {kind.name}", file=sys.stderr)
            try:
                found.setdefault(kind.name, []).append(once(work, kind, options))
            except (Broken, ConnectionError, TimeoutError) as reason:
                failed[kind.name] = f"failed: {reason}"
            except Unable as reason:
                failed[kind.name] = str(reason)
    medians = {
        name: {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        for name, rounds in found.items()
        if rounds and name not in failed
    }
    return {kind.name: failed.get(kind.name) or medians[kind.name] for kind in kinds}


def once(work: str, kind: Kind, options: argparse.Namespace) -> Numbers:
    """One work with one server, on a fresh database."""
    servers_core, clients_core = cores()
    profiles: list[Profile] = []
    setup = WORKS[work].setup
    with (
        folder() as path,
        serve(kind, setup, path, options.database, servers_core) as server,
        on_core(clients_core),
    ):

        def profile(server: Server) -> None:
            tree = server.nodes[0].tree
            assert tree is not None
            profiles.append(Profile(tree.pid, options.seconds, path))

        begin = profile if options.profile and kind.name == OURS else bool
        timing = Timing(options.warm_up, options.seconds, begin, growth_s=options.minutes * 60)
        numbers = WORKS[work].measure(server, timing)
        for found in profiles:
            print("\n" + found.table())
        return numbers


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [kind.name for kind in KINDS]
    parser.add_argument("works", nargs="*", metavar="WORK", help=f"which of {', '.join(WORKS)}; without any, all but K")
    parser.add_argument("--servers", nargs="+", choices=names, default=names, metavar="SERVER", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="how long each work is measured")
    parser.add_argument("--minutes", type=float, default=60, help="how long K is watched (default 60); at least 1")
    parser.add_argument("--warm-up", type=float, default=2, metavar="SECONDS", help="and done before")
    parser.add_argument(
        "--database", choices=("sqlite", "postgres"), default="sqlite", help="where ours keeps documents"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the bars there; needs the extra `bench`")
    parser.add_argument("--profile", action="store_true", help="say where our time goes; needs the extra `bench`")
    options = parser.parse_args()
    options.works = [work.upper() for work in options.works] or [work for work in WORKS if work not in BY_NAME_ONLY]
    if options.minutes < 1:
        parser.error(f"K needs a minute at least, --minutes is {options.minutes:g}")
    if unknown := [work for work in options.works if work not in WORKS]:
        parser.error(f"there is no work {', '.join(unknown)}; there are {', '.join(WORKS)}")
    return options


if __name__ == "__main__":
    main()
