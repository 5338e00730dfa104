"""How commands show things to people: tables, progress bars, sizes and ages in words. JSON too, for scripts.

The only home of rich. Names of documents come from anybody, so what could steer a terminal is spelled out.
"""

import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_NAME_COLUMNS_MAX: Final = 60
# What isn't read on a terminal must not be folded for one of 80 columns.
_WIDTH_ELSEWHERE: Final = 200
_UNITS_S: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))

size = decimal
"""Tells a number of bytes: "18.4 kB"."""


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, left: Collection[str] = ()) -> None:
    """Print rows below headers: to the left the first column, and those with the headers in `left`, to the right the others."""
    _console().print(_table(headers, rows, left))


@dataclass(frozen=True)
class Shown:
    """A table below a title, or lines of text with their styles."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Collection[str] = ()
    """Headers of columns to the left; the first is anyway."""
    head: Sequence[tuple[str, str]] = ()

    def render(self) -> Group:
        """As rich has it."""
        parts: list[RenderableType] = [Text(line, style) for line, style in self.head]
        if self.title:
            parts += [Text(""), Text(self.title, "bold")]
        if self.rows:
            parts.append(_table(self.headers, self.rows, self.left))
        return Group(*parts)


def print_shown(blocks: Iterable[Shown]) -> None:
    """Print tables and lines, one below the other."""
    console = _console()
    for block in blocks:
        console.print(block.render())


@contextmanager
def live() -> Iterator[Callable[[Iterable[Shown]], None]]:
    """Have the terminal to oneself. What was there is back afterwards.

    Yields:
        To be called with what is to be there from now on; what finds no room is cut off.
    """
    with Live(console=Console(highlight=False), screen=True, auto_refresh=False) as screen:
        yield lambda blocks: screen.update(Group(*(block.render() for block in blocks)), refresh=True)


def print_lines(lines: Iterable[tuple[str, str]], *, aside: bool = False) -> None:
    """Print lines with their styles, as rich calls them, which show if it is a terminal.

    Args:
        lines: Without what a terminal would obey.
        aside: Whether to standard error.
    """
    console = Console(highlight=False, stderr=aside)
    for line, style in lines:
        if console.is_terminal:
            console.print(Text(line, style), soft_wrap=True)
        else:
            print(line, file=sys.stderr if aside else sys.stdout)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print labels and values, one below the other."""
    grid = Table.grid(padding=(0, 1))
    for label, value in facts:
        grid.add_row("", label, Text(value))
    _console().print(grid)


@contextmanager
def progress(noun: str, total: int, *, total_bytes: int | None) -> Iterator[Callable[[int], None]]:
    """Show how far work is, on standard error if that is a terminal.

    Args:
        noun: What is counted, in the plural.
        total: How many there are.
        total_bytes: How many bytes they have together; None if nobody knows.

    Yields:
        To be called with the bytes of each one that is done.
    """
    console = Console(stderr=True)
    columns: list[ProgressColumn] = [TextColumn(f"{{task.fields[count]}} of {total} {noun}"), BarColumn()]
    if total_bytes is not None:
        columns.append(DownloadColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)
    count = 0
    with bar:
        task = bar.add_task("", total=total if total_bytes is None else total_bytes, count=0)

        def advance(one_bytes: int) -> None:
            nonlocal count
            count += 1
            bar.update(task, advance=1 if total_bytes is None else one_bytes, count=count)

        yield advance


def age(since: datetime, now: datetime) -> str:
    """Tell how long ago something was, in the largest unit of which there is a whole one."""
    seconds = max(0, int((now - since).total_seconds()))
    size, unit = next(((size, unit) for size, unit in _UNITS_S if seconds >= size), _UNITS_S[-1])
    return f"{seconds // size} {unit}"


def counted(number: int, noun: str) -> str:
    """Return "1 document", "2 documents"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(name: str) -> str:
    """Return a name as it is, but for characters that a terminal would obey, not show."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in name)


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """Write JSON with times in ISO 8601; dataclasses are objects. Without `indent`, in one line."""
    return json.dumps(value, indent=indent, default=_plain)


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[str]) -> Table:
    table = Table(box=None, padding=(0, 1), show_edge=False)
    first, *others = headers
    table.add_column(first, overflow="fold", max_width=_NAME_COLUMNS_MAX)
    for header in others:
        table.add_column(header, justify="left" if header in left else "right", no_wrap=True)
    for name, *cells in rows:
        table.add_row(Text(printable(name)), *map(Text, cells))
    return table


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} is not for JSON")


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_ELSEWHERE)
