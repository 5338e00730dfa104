"""What commands say of a document's past."""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from persistence import Version

from .admin import Restored, Then
from .authors import Bucket
from .changes_forms import printable as printable_line
from .past_forms import version_to_json
from .tables import age, counted, print_facts, print_lines, print_table, printable, size

BAR_CHARS: Final = 30
_STYLES: Final = {"+": "green", "-": "red", "~": "yellow", "@": "dim", " ": ""}


def print_versions(versions: Sequence[Version], *, limit: int) -> None:
    """Print a table of versions."""
    headers = ["version", "taken", "kind", "seq", "size", "edited by", "label"]
    rows = [
        [
            str(one.id),
            f"{one.taken_at.astimezone():%Y-%m-%d %H:%M:%S}",
            one.kind,
            f"{one.seq:,}",
            size(one.size_bytes),
            printable(", ".join(one.users)),
            printable(one.label or ""),
        ]
        for one in versions[:limit]
    ]
    print_table(headers, rows, left=("taken", "kind", "edited by", "label"))
    if len(versions) > limit:
        print(f"  … and {len(versions) - limit:,} older: --limit {len(versions)} shows them all")
    print(f"\n{counted(len(versions), 'version')}, {size(sum(one.size_bytes for one in versions))}")


def print_version(version: Version, *, now: datetime) -> None:
    """Print all that is known of a version."""
    print_facts(
        [
            ("version", str(version.id)),
            ("label", printable(version.label) if version.label is not None else "none"),
            ("taken", f"{version.taken_at.astimezone():%Y-%m-%d %H:%M:%S%z}, {age(version.taken_at, now)} ago"),
            ("taken for", _KINDS[version.kind]),
            ("taken by", printable(version.user_id) if version.user_id is not None else "nobody who is known"),
            ("last update", f"seq {version.seq:,}"),
            ("edited by", printable(", ".join(version.users)) or "nobody who is known"),
            ("size", size(version.size_bytes)),
        ]
    )


def print_changes(text: str, *, aside: bool = False) -> None:
    """Print what differs, as text, with colours on a terminal; on standard error if it is said aside."""
    lines = [printable_line(line) for line in text.splitlines()]
    print_lines([(line, _STYLES.get(line[:1], "bold")) for line in lines], aside=aside)


def print_activity(buckets: Sequence[Bucket], *, bucket_s: int) -> None:
    """Print who did how much when, with bars: + for what was inserted, - for what was deleted."""
    form = "%Y-%m-%d %H:%M" if bucket_s % 60 == 0 else "%Y-%m-%d %H:%M:%S"
    most = max(one.inserted + one.deleted for one in buckets)
    rows = []
    before = ""
    for one in buckets:
        at = one.from_at.astimezone().strftime(form)
        user = printable(one.user_id) if one.user_id is not None else "-"
        numbers = [f"{one.updates:,}", f"{one.inserted:,}", f"{one.deleted:,}"]
        rows.append(["" if at == before else at, user, *numbers, _bar(one, most)])
        before = at
    print_table(["from", "who", "updates", "inserted", "deleted", ""], rows, left=("who", ""))


def say_then(then: Then) -> None:
    """Say what was found, on standard error."""
    which = f"seq {then.seq}" + (f", version {then.version}" if then.version is not None else "")
    if then.exact:
        print(f"found: {which}", file=sys.stderr)
    else:
        print(f"what it was then isn't kept any more; the nearest before it: {which}", file=sys.stderr)


def then_to_json(then: Then) -> dict[str, Any]:
    """As the HTTP API tells it."""
    return {"seq": then.seq, "exact": then.exact, "version": then.version}


def restored_to_json(name: str, restored: Restored) -> dict[str, Any]:
    """As the HTTP API tells it, with the document's name."""
    before = restored.version_before
    return {
        "name": name,
        "past": then_to_json(restored.then),
        "impossible": list(restored.impossible),
        "changes": restored.changes,
        "done": restored.done,
        "version_before": None if before is None else version_to_json(before),
    }


def _bar(bucket: Bucket, most: int) -> str:
    if not most:
        return ""
    whole = -(-(bucket.inserted + bucket.deleted) * BAR_CHARS // most)
    deleted = round(whole * bucket.deleted / max(bucket.inserted + bucket.deleted, 1))
    return "+" * (whole - deleted) + "-" * deleted


_KINDS: Final = {
    "auto": "itself, while the document was edited",
    "manual": "somebody who asked for it",
    "restore": "going back: before the document was restored",
}
