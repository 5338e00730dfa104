"""The command that shows what a running server is doing: top."""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from .admin_api import ApiAdmin
from .commands import CommandFailed, Commands, add_command, add_json, count, server_token
from .moments import parse_span
from .scrapes import Scrape
from .settings import TOKEN_VARIABLE
from .tables import Shown, age, counted, live, print_shown, printable, size, to_json

# So many are asked for; the terminal may have room for fewer.
_ROWS_MAX: Final = 1000
# Lines beside the two tables' rows.
_FRAME_LINES: Final = 14
_ROWS_ELSEWHERE: Final = 20
_INTERVAL_S_MIN: Final = 0.1

Rates: TypeAlias = dict[str, float | None]
"""By name: seconds, bytes, or so many a second; None where nothing is known. Empty where there are no metrics."""


@dataclass(frozen=True)
class Look:
    """What there is to see at one moment."""

    at: datetime
    ready: bool
    problems: dict[str, str]
    warnings: dict[str, str]
    rooms: list[dict[str, Any]]
    rooms_open: int
    connections: list[dict[str, Any]] | None
    """None if the token may not see them."""
    connections_open: int | None
    scrape: Scrape | None
    """None if the server shows us no metrics."""


def top(*, url: str, token: str | None, interval_s: float, times: int | None, limit: int | None, as_json: bool) -> int:
    """Show it again and again, until Ctrl-C; where there is no terminal, once."""
    admin = ApiAdmin(url, server_token(token))
    on_terminal = sys.stdout.isatty() and not as_json
    left = times if times is not None else None if on_terminal else 1
    rows = limit or (None if on_terminal else _ROWS_ELSEWHERE)
    before: Scrape | None = None
    try:
        with _screen(admin.describe(), on_terminal=on_terminal, as_json=as_json) as show:
            while left != 0:
                seen = _look(admin, rows or _lines())
                if before is None and seen.scrape is not None and not on_terminal:
                    # A rate takes two looks, and nobody would see that the first has none.
                    before = seen.scrape
                else:
                    show(seen, _rates(before, seen.scrape) if before is not None and seen.scrape is not None else {})
                    before = seen.scrape
                    left = None if left is None else left - 1
                if left != 0:
                    time.sleep(interval_s)
    except KeyboardInterrupt:
        pass  # that is how one leaves it
    finally:
        admin.close()
    return 0


@contextmanager
def _screen(where: str, *, on_terminal: bool, as_json: bool) -> Iterator[Callable[[Look, Rates], None]]:
    if as_json:
        yield lambda seen, rates: print(_to_json(where, seen, rates), flush=True)
    elif on_terminal:
        with live() as show:
            yield lambda seen, rates: show(_tables(where, seen, rates))
    else:
        yield lambda seen, rates: print_shown(_tables(where, seen, rates))


def _look(admin: ApiAdmin, rows: int) -> Look:
    ready, metrics = admin.ready(), admin.metrics()
    rooms, rooms_open = admin.open_rooms(min(rows, _ROWS_MAX))
    connections, connections_open = admin.slowest_connections(min(rows, _ROWS_MAX)) or (None, None)
    try:
        scrape = None if metrics is None else Scrape.read(metrics, at=time.monotonic())
    except ValueError as error:
        raise CommandFailed(f"{admin.describe()} answers /metrics by something else: {error}") from error
    return Look(
        datetime.now(UTC),
        not ready["problems"],
        ready["problems"],
        ready["warnings"],
        rooms,
        rooms_open,
        connections,
        connections_open,
        scrape,
    )


def _rates(before: Scrape, now: Scrape) -> Rates:
    """What is told of the time between two looks."""
    return {
        "messages_in_per_s": now.rate(before, "messages_total", direction="in"),
        "messages_out_per_s": now.rate(before, "messages_total", direction="out"),
        "bytes_in_per_s": now.rate(before, "message_bytes_total", direction="in"),
        "bytes_out_per_s": now.rate(before, "message_bytes_total", direction="out"),
        "cpu": now.rate(before, "cpu_seconds_total"),
        "memory_bytes": now.total("memory_bytes"),
        "backlog_bytes": now.total("journal_backlog_bytes"),
        "backlog_age_s": now.worst("journal_backlog_age_seconds"),
        "confirm_p99_s": now.quantile(before, "confirm_seconds", 0.99),
        "delivery_p99_s": now.quantile(before, "delivery_seconds", 0.99),
        "loop_lag_p99_s": now.quantile(before, "loop_lag_seconds", 0.99),
        "load_level": now.worst("load_level"),
    }


def _tables(where: str, seen: Look, rates: Rates) -> list[Shown]:
    state = "ready" if seen.ready else "NOT READY"
    told = [f"{part}: {text}" for part, text in (*seen.problems.items(), *seen.warnings.items())]
    head = [(f"{where} is {state}", "green" if seen.ready else "bold red")]
    head += [(printable(line), "yellow" if seen.ready else "red") for line in told]
    head.append((_traffic(rates), "") if rates else ("no metrics are shown here, so no rates (see --help)", "dim"))
    now = seen.at
    rooms = Shown(
        counted(seen.rooms_open, "open room"),
        ("room", "work", "clients", "size", "unstored", "seq"),
        [
            (
                one["name"],
                f"{one['work']:.0%}",
                f"{one['connections']:,}",
                size(one["bytes"] or 0),
                f"{one['unstored']:,}",
                f"{one['seq']:,}",
            )
            for one in seen.rooms
        ],
    )
    if seen.connections is None:
        return [Shown("", (), [], head=head), rooms]
    connections = Shown(
        counted(seen.connections_open or 0, "connection"),
        ("room", "user", "address", "waiting", "refused", "since"),
        [
            (
                one["room"],
                printable(one["user"] or "-"),
                printable(one["address"] or "-"),
                size(one["outbox_bytes"]),
                f"{one['refused_updates']:,}",
                age(datetime.fromisoformat(one["since"]), now),
            )
            for one in seen.connections
        ],
        left=("user", "address"),
    )
    return [Shown("", (), [], head=head), rooms, connections]


def _traffic(rates: Rates) -> str:
    def told(name: str, show: Any, unit: str = "") -> str:
        value = rates[name]
        return "-" if value is None else f"{show(value)}{unit}"

    def number(value: float) -> str:
        return f"{value:,.0f}"

    def milliseconds(value: float) -> str:
        return f"<= {value * 1000:,g} ms"

    def bytes_(value: float) -> str:
        return size(int(value))

    lines = (
        f"in {told('messages_in_per_s', number)} messages/s, {told('bytes_in_per_s', bytes_)}/s; "
        f"out {told('messages_out_per_s', number)} messages/s, {told('bytes_out_per_s', bytes_)}/s",
        f"99 % are delivered in {told('delivery_p99_s', milliseconds)}, confirmed in {told('confirm_p99_s', milliseconds)}; "
        f"the loop is late by {told('loop_lag_p99_s', milliseconds)}",
        f"CPU {told('cpu', lambda value: f'{value:.0%}')}, memory {told('memory_bytes', bytes_)}, "
        f"{told('backlog_bytes', bytes_)} wait to be stored, load level {told('load_level', number)}",
    )
    return "\n".join(lines)


def _to_json(where: str, seen: Look, rates: Rates) -> str:
    told = {
        "at": seen.at,
        "where": where,
        "ready": seen.ready,
        "problems": seen.problems,
        "warnings": seen.warnings,
        "rates": rates or None,
        "rooms": seen.rooms,
        "rooms_open": seen.rooms_open,
        "connections": seen.connections,
        "connections_open": seen.connections_open,
    }
    return to_json(told, indent=None)


def _lines() -> int:
    """How many rows each of the two tables may have."""
    return max(1, (shutil.get_terminal_size().lines - _FRAME_LINES) // 2)


def _interval(text: str) -> float:
    try:
        seconds = float(text) if text.replace(".", "", 1).isdecimal() else parse_span(text).total_seconds()
    except ValueError as error:
        raise CommandFailed(f"--interval: {error}") from error
    return max(seconds, _INTERVAL_S_MIN)


def add_parsers(commands: Commands) -> None:
    """Add `top`."""
    command = add_command(
        commands,
        "top",
        top,
        help="watch what a running server is doing",
        description="Show, again and again, how a running server is: whether it is ready, traffic and delays, its busiest rooms, and the connections for which most waits. "
        "Ctrl-C ends it. Where the output isn't a terminal, it is shown once.\n\n"
        "With several workers, rooms and connections are those of the one that happens to answer; traffic and delays are of all of them, if /metrics can be read at that "
        "URL (docs/reference/metrics.md). Connections are shown to a token that has admin in '*'.",
        examples=[
            "crdt-sync top",
            "crdt-sync top --url https://sync.example.com --interval 5s",
            "crdt-sync top --json --times 10 > looks.jsonl",
        ],
    )
    command.add_argument(
        "--url", default="http://127.0.0.1:1234", metavar="URL", help="a running server (default http://127.0.0.1:1234)"
    )
    command.add_argument(
        "--token", metavar="TOKEN", help=f"what it is shown, if it asks for tokens (default: {TOKEN_VARIABLE})"
    )
    command.add_argument(
        "--interval",
        dest="interval_s",
        type=_interval,
        default="2s",
        metavar="TIME",
        help="time between two looks (default 2s)",
    )
    command.add_argument(
        "--times",
        type=count,
        metavar="N",
        help="look so often (default: until Ctrl-C, or once where there is no terminal)",
    )
    command.add_argument(
        "--limit", type=count, metavar="N", help="rows of each table (default: as many as there is room for)"
    )
    add_json(command, "print each look as a line of JSON: seconds, bytes, ISO times")
