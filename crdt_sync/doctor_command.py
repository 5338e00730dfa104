"""The command that says whether everything is set up as it has to be: doctor."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Final

from .calling import call
from .checkups import Finding, Verdict, bad
from .commands import URLS, Commands, add_command, add_json, seconds, server_token, tool_settings
from .examining import examine
from .settings import TOKEN_VARIABLE, InvalidSettings, Settings
from .tables import counted, print_lines, printable, to_json

_STYLES: Final = {Verdict.GOOD: "green", Verdict.DOUBTFUL: "yellow", Verdict.BAD: "bold red"}
_WIDTH: Final = max(map(len, Verdict))


def doctor(
    *, database_url: str | None, url: str | None, token: str | None, patience_s: int | None, as_json: bool
) -> int:
    """Look at everything, and say what is wrong.

    Returns:
        1 if anything is bad.
    """
    found: list[Finding] = []

    def tell(one: Finding) -> None:
        found.append(one)
        if not as_json:
            print_lines(_lines(one))

    try:
        settings = tool_settings(database_url, log_level="CRITICAL")
    except InvalidSettings as error:
        for line in str(error).splitlines():
            tell(bad("settings", line, "docs/reference/settings.md lists what there is"))
    else:
        asyncio.run(_examine(settings, tell))
    if url is not None:
        for one in call(url, server_token(token), patience_s=patience_s or 0):
            tell(one)
    counts = Counter(one.verdict for one in found)
    if as_json:
        print(to_json({"findings": found, "counts": {verdict: counts[verdict] for verdict in Verdict}}))
    else:
        print(f"\n{counted(len(found), 'finding')}: " + ", ".join(f"{counts[one]} {one}" for one in Verdict))
    return 1 if counts[Verdict.BAD] else 0


async def _examine(settings: Settings, tell: Callable[[Finding], None]) -> None:
    async with aclosing(examine(settings)) as findings:
        async for one in findings:
            tell(one)


def _lines(one: Finding) -> Iterator[tuple[str, str]]:
    yield f"{one.verdict:<{_WIDTH}}  {one.about:<9}  {printable(one.found)}", _STYLES[one.verdict]
    if one.advice:
        yield f"{'':<{_WIDTH}}  {'':<9}  -> {printable(one.advice)}", ""


def add_parsers(commands: Commands) -> None:
    """Add `doctor`."""
    command = add_command(
        commands,
        "doctor",
        doctor,
        help="find out whether everything is set up as it has to be",
        description="Look at the configuration, the keys, the database (a document is stored, read and deleted again), the archive, Redis, clocks and limits, "
        "as a server here would find them; and with --url at a running server, through whatever is in front of it, by a real y-websocket handshake. "
        "Each line is good, doubtful or bad, and says what to do. Exits 1 if one is bad.",
        examples=[
            "crdt-sync doctor",
            "crdt-sync doctor --url https://sync.example.com --patience 90s",
            "crdt-sync doctor --json | jq '.findings[] | select(.verdict != \"good\")'",
        ],
    )
    command.add_argument("--database", dest="database_url", metavar="URL", help=URLS)
    command.add_argument("--url", metavar="URL", help="a running server, as clients reach it: https://sync.example.com")
    command.add_argument(
        "--token",
        metavar="TOKEN",
        help=f"what the server is shown, if it asks for tokens; with read in 'crdt-sync-doctor-*' at least (default: {TOKEN_VARIABLE})",
    )
    command.add_argument(
        "--patience",
        dest="patience_s",
        type=seconds,
        metavar="TIME",
        help="for how long to hold a connection, to see whether a proxy cuts it: 90s (default: not at all)",
    )
    add_json(command)
