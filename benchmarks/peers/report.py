"""What was measured, as a table, as bars, and as a picture. Pure, but for the picture's file.

Absolute numbers say something about the machine; what counts is how servers compare within one run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .measured import Numbers
from .servers import OURS

BUSY = 0.85
KEPT_UP = 0.98
BAR = 40
PANELS = 5

# Memory that grows by less than this share of it in an hour is flat. What grows in less than half of one may be warming up.
FLAT = 0.02
LONG_S = 1800
# And latency that doesn't grow by more than this, or than a millisecond.
SLOWER = 1.25

Results = dict[str, dict[str, Numbers | str]]
"""By work, by server: numbers, or why there are none."""


@dataclass(frozen=True)
class Shape:
    """What a work is about."""

    measure: str
    """Where less is better."""
    label: str
    """What that is, on bars."""
    columns: tuple[tuple[str, str, str], ...]
    """Key, heading and format of what is in its table."""


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
_DURABLE = (
    ("durable_p50_ms", "p50 ms", "{:,.0f}"),
    ("durable_p95_ms", "p95 ms", "{:,.0f}"),
    ("durable_p99_ms", "p99 ms", "{:,.0f}"),
    ("durable_max_ms", "max ms", "{:,.0f}"),
    ("updates_per_s", "updates/s", "{:.0f}"),
    ("server_core", "server's core", "{:.0%}"),
    ("generator_core", "clients' core", "{:.0%}"),
)
_CLUSTER = (
    ("p50_ms", "p50 ms", "{:.2f}"),
    ("p99_ms", "p99 ms", "{:.2f}"),
    ("max_ms", "max ms", "{:.1f}"),
    ("deliveries_per_s", "deliveries/s", "{:,.0f}"),
    ("cpu_us", "CPU µs/delivery, both nodes", "{:.0f}"),
    ("node_1_core", "CPU s/s, a node", "{:.2f}"),
    ("node_2_core", "the other", "{:.2f}"),
    ("memory_mib", "MiB, both", "{:.0f}"),
    ("generator_core", "clients' core", "{:.0%}"),
)
_OPENING = (
    ("open_ms", "ms as it was stored", "{:.0f}"),
    ("open_max_ms", "longest", "{:.0f}"),
    ("open_cpu_ms", "CPU ms", "{:.0f}"),
    ("compacted_ms", "ms once compacted", "{:.1f}"),
    ("compacted_max_ms", "longest", "{:.1f}"),
    ("compacted_cpu_ms", "CPU ms", "{:.0f}"),
)
_MANY = (
    ("p50_ms", "p50 ms", "{:.2f}"),
    ("p99_ms", "p99 ms", "{:.2f}"),
    ("max_ms", "max ms", "{:.1f}"),
    ("disconnects", "disconnects", "{:.0f}"),
    ("deliveries_per_s", "deliveries/s", "{:,.0f}"),
    ("core_in_all", "CPU s/s", "{:.2f}"),
    ("memory_mib", "MiB", "{:.0f}"),
    ("connects_per_s", "connects/s before", "{:,.0f}"),
    ("join_p99_ms", "joins p99 ms", "{:.0f}"),
    ("generator_core", "clients' core", "{:.0%}"),
)
_GROWTH = (
    ("growth_mib_per_h", "MiB more an hour", "{:+.1f}"),
    ("growth_error_mib_per_h", "±", "{:.1f}"),
    ("memory_first_mib", "MiB at first", "{:.0f}"),
    ("memory_mib", "MiB at last", "{:.0f}"),
    ("p50_first_ms", "p50 ms, first quarter", "{:.2f}"),
    ("p50_last_ms", "last", "{:.2f}"),
    ("p99_first_ms", "p99 ms, first quarter", "{:.1f}"),
    ("p99_last_ms", "last", "{:.1f}"),
    ("join_p99_first_ms", "joins p99 ms, first quarter", "{:.1f}"),
    ("join_p99_last_ms", "last", "{:.1f}"),
    ("joins", "joins", "{:,.0f}"),
    ("server_core", "server's core", "{:.0%}"),
    ("generator_core", "clients' core", "{:.0%}"),
)
_UPDATES = Shape("cpu_us", "CPU µs per delivery", _EDITING)
_SHAPES = {
    "A": _UPDATES,
    "B": _UPDATES,
    "C": _UPDATES,
    "D": Shape("kib_per_connection_all", "KiB per idle connection", _IDLE),
    "E": Shape("connect_cpu_us", "CPU µs per connect", _STORM),
    "F": Shape("durable_p95_ms", "ms until durable, p95", _DURABLE),
    "G": Shape("p99_ms", "ms between nodes, p99", _CLUSTER),
    "H": Shape("core_in_all", "CPU s per s of editing", _CURSORS),
    "I": Shape("open_ms", "ms to open 1 MB", _OPENING),
    "J": Shape("p99_ms", "ms with 10,000, p99", _MANY),
    "K": Shape("memory_mib", "MiB after that time", _GROWTH),
}


def ratios(work: str, servers: dict[str, Numbers | str]) -> dict[str, float]:
    """Ours by each peer's, of what the work is about: below 1 ours takes less."""
    ours = servers.get(OURS)
    if not isinstance(ours, dict):
        return {}
    key = _SHAPES[work].measure
    return {
        name: ours[key] / theirs[key] for name, theirs in servers.items() if isinstance(theirs, dict) and name != OURS
    }


def table(work: str, title: str, servers: dict[str, Numbers | str]) -> str:
    """One work, in Markdown."""
    columns = _SHAPES[work].columns
    by_peer = ratios(work, servers)
    lines = [
        f"**{work}: {title}**",
        "",
        "| | " + " | ".join(name for _, name, _ in columns) + " | ours/theirs |",
        "|---|" + "---:|" * (len(columns) + 1),
    ]
    for name, numbers in servers.items():
        if isinstance(numbers, str):
            lines.append(f"| {name} | {numbers} |" + " |" * len(columns))
            continue
        cells = [form.format(numbers[key]) if key in numbers else "–" for key, _, form in columns]
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
        key = _SHAPES[work].measure
        longest = max(numbers[key] for numbers in found.values())
        lines.append(f"{work}  {_SHAPES[work].label}")
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
    rows = -(-len(shown) // PANELS)
    figure = Figure(figsize=(2.6 * min(len(shown), PANELS) + 1.4, 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, min(len(shown), PANELS), squeeze=False, sharey=True).flatten()
    for axes in panels[len(shown) :]:
        axes.remove()
    for axes, (work, servers) in zip(panels, shown.items(), strict=False):
        found = {name: numbers for name, numbers in servers.items() if isinstance(numbers, dict)}
        key = _SHAPES[work].measure
        drawn = axes.barh(names, [found[name][key] if name in found else 0 for name in names], color=colors)
        labels = [_short(found[name][key]) if name in found else _why_not(servers.get(name)) for name in names]
        axes.bar_label(drawn, labels, padding=3)
        axes.margins(x=0.3)
        axes.set_title(f"{work}: {_SHAPES[work].label}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=144)


def verdict(numbers: Numbers) -> str:
    """Whether a server grew, or became slower."""
    rise, error = numbers["growth_mib_per_h"], 2 * numbers["growth_error_mib_per_h"]
    least = FLAT * numbers["memory_first_mib"]
    if rise + error <= least:
        memory = "memory is flat"
    elif rise - error > least and numbers["watched_s"] >= LONG_S:
        memory = "memory grows"
    else:
        memory = "whether memory grows isn't clear from this: watch it for longer"
    first, last = numbers["p99_first_ms"], numbers["p99_last_ms"]
    slower = last > max(first * SLOWER, first + 1)
    return f"{memory}; latency {'grows' if slower else 'is flat'}."


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _why_not(numbers: Numbers | str | None) -> str:
    return "failed" if isinstance(numbers, str) and numbers.startswith("failed") else "–"


def _warnings(numbers: Numbers | str) -> list[str]:
    if isinstance(numbers, str):
        return []
    found = [verdict(numbers)] if "growth_mib_per_h" in numbers else []
    if numbers.get("generator_core", 0) > BUSY:
        found.append(
            "the clients were as busy as they can be: latency and deliveries/s are theirs, the CPU is the server's."
        )
    if (share := numbers.get("kept_up", 1)) < KEPT_UP:
        found.append(f"it didn't keep up: {share:.0%} arrived in time, the rest later.")
    if numbers.get("late_p99_ms", 0) > 5:
        found.append(f"the clients sent {numbers['late_p99_ms']:.0f} ms late (p99): latency is partly theirs.")
    return found
