"""How commands are told of which moment in a document's past they are to speak."""

import argparse
import sys
from datetime import UTC, datetime
from typing import Final

from .commands import CommandFailed
from .moments import parse_age, show_moment
from .time_machine import Point, parse_point

POINTS: Final = "a version's ID, seq:NUMBER, or a moment: '10 minutes ago', 2026-11-25T10:00Z"


def add_point(command: argparse.ArgumentParser, *, required: bool, time: str = "--at") -> None:
    """Add the options that say when; what the command runs gets them as `version`, `moment` and `seq`."""
    when = command.add_mutually_exclusive_group(required=required)
    when.add_argument("--version", type=number, metavar="ID", help="a version; crdt-sync versions list has their IDs")
    when.add_argument(
        time,
        dest="moment",
        metavar="TIME",
        help="a moment: '10 minutes ago', 'yesterday 14:00', 2026-11-25T10:00Z; what was understood is printed",
    )
    when.add_argument("--seq", type=number, metavar="N", help="when the update with this number had just come")


def number(text: str) -> int:
    """Read a whole number from 0 on; a type for `add_argument`."""
    if not (text.isdecimal() and text.isascii() and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"a whole number is needed, not {text!r}")
    return int(text)


def point_of(*, version: int | None, moment: str | None, seq: int | None) -> Point:
    """Put together what was given of the options of `add_point`; now if nothing was.

    Raises:
        CommandFailed: The moment can't be understood, or is still to come.
    """
    if moment is not None:
        return Point(time=read_moment(moment))
    return Point(version=version, seq=seq)


def read_point(text: str) -> Point:
    """Read one of `POINTS`, or `now`.

    Raises:
        CommandFailed: It is none.
    """
    return parse_point(text, read_moment)


def read_moment(text: str) -> datetime:
    """Read a moment in the past, or how long ago it was, and say what was understood.

    Raises:
        CommandFailed: It can't be understood, or is still to come.
    """
    try:
        moment = parse_age(text, datetime.now(UTC))
    except ValueError as error:
        raise CommandFailed(str(error)) from error
    print(f"{text}: {show_moment(moment)}", file=sys.stderr)
    return moment


def typed(point: Point) -> list[str]:
    """The options that say this, whenever they are typed."""
    if point.version is not None:
        return ["--version", str(point.version)]
    if point.seq is not None:
        return ["--seq", str(point.seq)]
    return ["--at", point.time.isoformat()] if point.time is not None else []
