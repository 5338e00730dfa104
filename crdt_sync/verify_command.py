"""The command that finds out whether what is stored is what it has to be: verify."""

import time
from collections.abc import Sequence

from .admin import RoomFacts, total_bytes
from .admins import Place, add_place
from .commands import Commands, NoSuchDocument, add_command, add_json
from .room_reports import print_verified
from .tables import progress, to_json
from .verifying import ADVICE, Checked


def verify(*, place: Place, rooms: Sequence[str], strict: bool, as_json: bool) -> int:
    """Check some documents, or all.

    Returns:
        1 if anything is wrong; if it is to be strict, also if anything might be.
    """
    started = time.monotonic()
    found: list[Checked] = []
    with place.admin("verify", *rooms, primary=True) as admin:
        every = [*admin.rooms(), *admin.rooms(deleted=True)] if not rooms else [RoomFacts(name=one) for one in rooms]
        with progress("documents", len(every), total_bytes=total_bytes(every)) as advance:
            for one in every:
                try:
                    found.append(admin.verify(one.name))
                except NoSuchDocument:
                    if rooms:
                        raise
                    # Forgotten since it was listed.
                advance(one.size_bytes or 0)
        where = admin.describe()
    elapsed_s = time.monotonic() - started
    wrong = any(one.problems for one in found)
    if as_json:
        print(
            to_json(
                {
                    "where": where,
                    "documents": found,
                    "advice": {problem.kind: ADVICE[problem.kind] for one in found for problem in one.problems},
                    "seconds": round(elapsed_s, 3),
                }
            )
        )
    else:
        print_verified(found, elapsed_s)
    return 1 if wrong or (strict and any(one.waiting for one in found)) else 0


def add_parsers(commands: Commands) -> None:
    """Add `verify`."""
    command = add_command(
        commands,
        "verify",
        verify,
        help="find out whether what is stored is in order",
        description="Read all that is stored of some documents, or of all, deleted ones too, and check it: that no seq is missing, that each update is "
        "well-formed and fits, that the snapshot can be loaded and has what its state vector says, and that log and snapshot "
        "together make a document that can be stored anew; that history and versions are whole, and the history amounts to the snapshot. Nothing is changed or repaired, and a server may be running. Exits 1 "
        "if something is wrong, and says what to do.\n\n"
        "A changed byte is found if what it belongs to no longer makes sense, or if the history has it otherwise. One letter of a text "
        "that became another isn't found where no history is kept: disks and databases with checksums find that.",
        examples=[
            "crdt-sync verify",
            "crdt-sync verify trip-1 trip-2 --json",
            "crdt-sync verify --url https://sync.example.com",
        ],
    )
    command.add_argument("rooms", metavar="ROOM", nargs="*", help="documents to check; without any, all")
    command.add_argument(
        "--strict",
        action="store_true",
        help="exit 1 also if updates wait for something that never came: clients may have sent them so, or it got lost",
    )
    add_json(command)
    add_place(command)
