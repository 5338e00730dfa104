"""The command that finds out whether a server speaks the protocol: conformance."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from . import logs
from .commands import CommandFailed, Commands, add_command, add_json, seconds, server_token
from .playing import ROOMS, Badge, Played, Unreachable, play
from .scenarios import InvalidVectors, Scenario, folder, read_scenarios
from .settings import PREFIX, TOKEN_VARIABLE, InvalidSettings, Settings
from .tables import print_lines, print_table, printable, to_json

SECRET_VARIABLE: Final = f"{PREFIX}JWT_SECRET"
VERDICTS: Final = ("passed", "failed", "skipped")
_STYLES: Final = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def conformance(
    *,
    url: str,
    only: Sequence[str] | None,
    vectors: Path | None,
    common: bool,
    long: bool,
    secret: str | None,
    token: str | None,
    timeout_s: int,
    as_list: bool,
    as_json: bool,
) -> int:
    """Play the scenarios, and say which went wrong.

    Returns:
        1 if any has.
    """
    scenarios = _chosen(vectors or folder(), only, common=common, long=long)
    if as_list:
        _print_scenarios(scenarios, as_json=as_json)
        return 0
    logs.configure("CRITICAL", "text")
    badge = _badge(Settings.read(), secret, token)
    done: list[Played] = []

    def tell(one: Played) -> None:
        done.append(one)
        if not as_json:
            print_lines(_lines(one))

    try:
        asyncio.run(play(url, scenarios, badge, patience_s=timeout_s, tell=tell))
    except Unreachable as error:
        raise CommandFailed(str(error)) from error
    counts = Counter(one.verdict for one in done)
    if as_json:
        done.sort(key=lambda one: one.name)
        print(to_json({"url": url, "scenarios": done, "counts": {verdict: counts[verdict] for verdict in VERDICTS}}))
    else:
        print("\n" + ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS))
    return 1 if counts["failed"] else 0


def _badge(settings: Settings, secret: str | None, token: str | None) -> Badge:
    if secret is None and settings.jwt_secret is not None:
        secret = settings.jwt_secret.get_secret_value()
    try:
        return Badge(
            secret=secret,
            claims={"aud": next(iter(settings.jwt_audience), None), "iss": next(iter(settings.jwt_issuer), None)},
            lifetime_max_s=settings.jwt_lifetime_max_s,
            token=server_token(token),
        )
    except ValueError as error:
        raise InvalidSettings(f"--secret {error}") from error


def _chosen(vectors: Path, only: Sequence[str] | None, *, common: bool, long: bool) -> list[Scenario]:
    try:
        scenarios = read_scenarios(vectors)
    except (InvalidVectors, OSError) as error:
        raise CommandFailed(f"these vectors can't be played: {error}") from error
    if only:
        known = {one.name: one for one in scenarios}
        if unknown := [name for name in only if name not in known]:
            raise CommandFailed(
                f"there is no scenario {', '.join(map(repr, unknown))}; --list shows the {len(known)} that there are"
            )
        return [known[name] for name in dict.fromkeys(only)]
    return [one for one in scenarios if (one.common or not common) and (long or not one.long)]


def _print_scenarios(scenarios: Sequence[Scenario], *, as_json: bool) -> None:
    if as_json:
        shown = ("name", "title", "common", "keys", "long")
        print(to_json([{key: getattr(one, key) for key in shown} for one in scenarios]))
        return
    print_table(
        ["SCENARIO", "WHOSE", "WHAT"],
        [[one.name, "common" if one.common else "crdt-sync", one.title] for one in scenarios],
        left=["WHOSE", "WHAT"],
    )


def _lines(one: Played) -> list[tuple[str, str]]:
    lines = [(f"{one.verdict:<8}{printable(one.name):<34}  {printable(one.title)}", _STYLES[one.verdict])]
    if one.found:
        at = f"step {one.step}: " if one.step is not None else ""
        lines.append((f"{'':<8}-> {at}{printable(one.found)}", ""))
    return lines


def add_parsers(commands: Commands) -> None:
    """Add `conformance`."""
    command = add_command(
        commands,
        "conformance",
        conformance,
        help="find out whether a server speaks the protocol",
        description="Play scenarios against a running server, this one or any other that speaks y-websocket: what clients send, and what has to come of it. "
        "docs/reference/vectors.md describes them. Exits 1 if one goes wrong, and says at which step.\n\n"
        f"Each has a room of its own, whose name begins with {ROOMS}; what is written there stays, so play on a server where that does no harm.",
        examples=[
            "crdt-sync conformance ws://127.0.0.1:1234",
            "crdt-sync conformance ws://127.0.0.1:1234 --common",
            f"{SECRET_VARIABLE}=... crdt-sync conformance https://sync.example.com --json",
            "crdt-sync conformance ws://127.0.0.1:1234 --scenario relay --scenario confirm",
        ],
    )
    command.add_argument(
        "url", metavar="URL", help="the server: ws://host:port or https://host, with the path that it is mounted at"
    )
    command.add_argument(
        "--scenario",
        dest="only",
        action="append",
        metavar="NAME",
        help="play this one only; may be given several times",
    )
    command.add_argument(
        "--common", action="store_true", help="only what every y-websocket server does, nothing of crdt-sync's own"
    )
    command.add_argument("--long", action="store_true", help="also what takes more than some seconds")
    command.add_argument(
        "--list", dest="as_list", action="store_true", help="say which scenarios there are, and play none"
    )
    command.add_argument(
        "--vectors",
        type=Path,
        metavar="FOLDER",
        help="scenarios of your own, *.json (default: those that come with crdt-sync)",
    )
    command.add_argument(
        "--secret",
        metavar="SECRET",
        help=f"what the server judges tokens with, to make some; better in {SECRET_VARIABLE}, as the process list shows command lines",
    )
    command.add_argument(
        "--token",
        metavar="TOKEN",
        help=f"without a secret, what clients show; with write in '{ROOMS}*' (default: {TOKEN_VARIABLE})",
    )
    command.add_argument(
        "--timeout",
        dest="timeout_s",
        type=seconds,
        default="5s",
        metavar="TIME",
        help="how long an answer may take: 5s if not given",
    )
    add_json(command, "print scenarios, each with verdict, step and what was found, and counts")
