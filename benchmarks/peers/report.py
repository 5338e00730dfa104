"""What was measured, as a table, as bars, and as a picture. Pure, but for the picture's file.

Absolute numbers say something about the machine; what counts is how servers compare within one run.
"""

from __future__ import annotations

from pathlib import Path

from .servers import OURS
from .works import Numbers

BUSY = 0.85
KEPT_UP = 0.98
BAR = 40

Results = dict[str, dict[str, Numbers | str]]
"""By work, by server: numbers, or why there are none."""

_EDITING = (
    ("cpu_us", "CPU µs/delivery", "{:.2f}"),
    ("deliveries_per_s", "deliveries/s", "{:,.0f}"),
    ("p50_ms", "p50 ms", "{:.2f}"),
    ("p99_ms", "p99 ms", "{:.2f}"),
    ("max_ms", "max ms", "{:.1f}"),
    ("memory_mib", "MiB", "{:.0f}"),
    ("server_core", "server's core", "{:.0%}"),
    ("generator_core", "clients' core", "{:.0%}"),
)
_IDLE = (
    ("kib_per_connection_all", "KiB/connection, all", "{:.1f}"),
    ("kib_per_connection", "KiB/connection", "{:.1f}"),
    ("kib_per_room", "KiB/room", "{:.1f}"),
    ("empty_mib", "MiB empty", "{:.0f}"),
    ("memory_mib", "MiB full", "{:.0f}"),
    ("connects_per_s", "connects/s", "{:,.0f}"),
    ("connect_cpu_us", "CPU µs/connect", "{:.0f}"),
)
_STORM = (
    ("connect_cpu_us", "CPU µs/connect", "{:.0f}"),
    ("connects_per_s", "connects/s", "{:,.0f}"),
    ("up_s", "s until it is up again", "{:.2f}"),
    ("back_s", "s from then until all are back", "{:.2f}"),
    ("back_per_s", "connects/s then", "{:,.0f}"),
)
_CURSORS = (
    ("core_in_all", "CPU s/s", "{:.2f}"),
    ("p50_ms", "updates p50 ms", "{:.1f}"),
    ("p99_ms", "updates p99 ms", "{:.1f}"),
    ("cursors_p50_ms", "cursors p50 ms", "{:.1f}"),
    ("cursors_p99_ms", "cursors p99 ms", "{:.1f}"),
    ("cursors_per_s", "cursors/s that arrive", "{:,.0f}"),
    ("server_core", "server's core", "{:.0%}"),
    ("generator_core", "clients' core", "{:.0%}"),
)
# By what a work is about: its columns, and what bars say.
_KINDS = {
    "core_in_all": (_CURSORS, "CPU s per s of editing"),
    "cpu_us": (_EDITING, "CPU µs per delivery"),
    "kib_per_connection_all": (_IDLE, "KiB per idle connection"),
    "connect_cpu_us": (_STORM, "CPU µs per connect"),
}


def measure_of(numbers: Numbers) -> str:
    """What a work is about: where less is better."""
    return next(key for key in _KINDS if key in numbers)


def ratios(servers: dict[str, Numbers | str]) -> dict[str, float]:
    """Ours by each peer's, of what the work is about: below 1 ours takes less."""
    ours = servers.get(OURS)
    if not isinstance(ours, dict):
        return {}
    key = measure_of(ours)
    return {
        name: ours[key] / theirs[key] for name, theirs in servers.items() if isinstance(theirs, dict) and name != OURS
    }


def table(title: str, servers: dict[str, Numbers | str]) -> str:
    """One work, in Markdown."""
    found = [numbers for numbers in servers.values() if isinstance(numbers, dict)]
    columns = _KINDS[measure_of(found[0])][0] if found else _EDITING
    by_peer = ratios(servers)
    lines = [
        f"**{title}**",
        "",
        "| | " + " | ".join(name for _, name, _ in columns) + " | ours/theirs |",
        "|---|" + "---:|" * (len(columns) + 1),
    ]
    for name, numbers in servers.items():
        if isinstance(numbers, str):
            lines.append(f"| {name} | {numbers} |" + " |" * len(columns))
            continue
        cells = [form.format(numbers[key]) for key, _, form in columns]
        ratio = f"{by_peer[name]:.2f}" if name in by_peer else ""
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {ratio} |")
    lines += [f"\n{name}: {warning}" for name, numbers in servers.items() for warning in _warnings(numbers)]
    return "\n".join(lines)


def bars(results: Results) -> str:
    """All works, as bars."""
    lines = []
    for work, servers in results.items():
        found = {name: numbers for name, numbers in servers.items() if isinstance(numbers, dict)}
        if not found:
            continue
        key = measure_of(next(iter(found.values())))
        longest = max(numbers[key] for numbers in found.values())
        lines.append(f"{work}  {_KINDS[key][1]}")
        for name, numbers in found.items():
            bar = "█" * max(1, round(numbers[key] / longest * BAR))
            lines.append(f"   {name:<20}{bar} {numbers[key]:.2f}")
    return "\n".join(lines)


def picture(results: Results, path: Path) -> None:
    """The same as a PNG.

    Raises:
        SystemExit: matplotlib isn't installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SystemExit("--png needs matplotlib: pip install 'crdt-sync[bench]'") from error
    shown = {
        work: servers for work, servers in results.items() if any(isinstance(one, dict) for one in servers.values())
    }
    names = list(dict.fromkeys(name for servers in shown.values() for name in servers))[::-1]
    colors = ["#2563eb" if name == OURS else "#b6bcc8" for name in names]
    figure = Figure(figsize=(2.6 * len(shown) + 1.4, 2.6), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axes, (work, servers) in zip(panels, shown.items(), strict=True):
        found = {name: numbers for name, numbers in servers.items() if isinstance(numbers, dict)}
        key = measure_of(next(iter(found.values())))
        drawn = axes.barh(names, [found[name][key] if name in found else 0 for name in names], color=colors)
        axes.bar_label(drawn, [f"{found[name][key]:.3g}" if name in found else "failed" for name in names], padding=3)
        axes.margins(x=0.25)
        axes.set_title(f"{work}: {_KINDS[key][1]}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=144)


def _warnings(numbers: Numbers | str) -> list[str]:
    if isinstance(numbers, str):
        return []
    found = []
    if numbers.get("generator_core", 0) > BUSY:
        found.append(
            "the clients were as busy as they can be: latency and deliveries/s are theirs, the CPU is the server's."
        )
    if (share := numbers.get("kept_up", 1)) < KEPT_UP:
        found.append(f"it didn't keep up: {share:.0%} arrived in time, the rest later.")
    if numbers.get("late_p99_ms", 0) > 5:
        found.append(f"the clients sent {numbers['late_p99_ms']:.0f} ms late (p99): latency is partly theirs.")
    return found
