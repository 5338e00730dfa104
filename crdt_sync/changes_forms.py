"""Changes as JSON for programs, and as text for people. The forms are described in docs/reference/changes.md."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .changes import Change, Path, TextRun
from .content import Content, Node, node_to_json
from .content_text import to_text as content_to_text
from .javascript import UNDEFINED, BigInt, Subdocument, to_string, to_tagged, well_formed
from .javascript import to_json as value_to_json

VALUE_LINES_MAX = 20
LINE_CHARS_MAX = 200
CONTEXT_CHARS = 30
"""What is longer is shortened in text. People want to see which value it is, and export the document for the rest."""

_PLAIN_KEY = re.compile(r"[^\W\d]\w*")


def path_to_text(path: Path) -> str:
    """Write a path as JavaScript would: `itinerary[2].title`; keys that are no names in brackets and quotes."""
    steps = []
    for step in path:
        if isinstance(step, int):
            steps.append(f"[{step}]")
        elif _PLAIN_KEY.fullmatch(step):
            steps.append(f".{step}" if steps else step)
        else:
            steps.append(f"[{json.dumps(step, ensure_ascii=False)}]")
    return well_formed("".join(steps))


# ------------------------------------------------------------------------------------------------------------
# For programs.


def to_json(changes: Sequence[Change], *, rich: bool = False) -> list[dict[str, Any]]:
    """Write changes as strict JSON.

    Args:
        changes: What `diff` returned.
        rich: Values as in rich JSON, from which everything can be told; else as in plain JSON.
    """
    return [_change(change, rich) for change in changes]


def _change(change: Change, rich: bool) -> dict[str, Any]:
    path = [well_formed(step) if isinstance(step, str) else step for step in change.path]
    form: dict[str, Any] = {"path": path, "where": path_to_text(change.path), "kind": change.kind}
    if change.kind in ("removed", "changed"):
        form["before"] = _json(change.before, rich)
    if change.kind in ("added", "changed"):
        form["after"] = _json(change.after, rich)
    if change.runs:
        form["runs"] = [_run(run, rich) for run in change.runs]
    if change.authors:
        form["authors"] = list(change.authors)
    return form


def _run(run: TextRun, rich: bool) -> dict[str, Any]:
    form: dict[str, Any] = {"kind": run.kind, "at": run.at, "length": run.length}
    if run.kind != "kept":
        form["embed" if run.is_embed else "text"] = _json(run.content, rich)
    for name, formats in (("before", run.before), ("after", run.after)):
        if formats:
            form[name] = {well_formed(key): _json(value, rich) for key, value in formats.items()}
    if run.authors:
        form["authors"] = list(run.authors)
    return form


def _json(value: Any, rich: bool) -> Any:
    if isinstance(value, Node):
        return node_to_json(value, rich=rich)
    return to_tagged(value) if rich else value_to_json(value)


# ------------------------------------------------------------------------------------------------------------
# For people.


def to_text(changes: Sequence[Change]) -> str:
    """Write changes like a unified diff: a line with the path, and below it what was removed (-), added (+), formatted (~).

    Returns:
        Lines, each ended by a newline. UTF-8 can encode them, and there is nothing in them that a terminal would obey.
    """
    return "".join(f"{printable(line)}\n" for change in changes for line in _lines(change))


def _lines(change: Change) -> Iterator[str]:
    yield f"{path_to_text(change.path)}{_by(change.authors)}"
    for index in range(len(change.runs)):
        yield from _run_lines(change, index)
    if change.kind in ("removed", "changed"):
        yield from _marked("-", _value_lines(change.before))
    if change.kind in ("added", "changed"):
        yield from _marked("+", _value_lines(change.after))


def _run_lines(change: Change, index: int) -> Iterator[str]:
    run = change.runs[index]
    is_last = index == len(change.runs) - 1
    if run.kind != "kept":
        if index == 0:
            yield f"@ {run.at}"
        lines = _value_lines(run.content) if run.is_embed else run.content.split("\n")
        mark = {"inserted": "+", "removed": "-", "formatted": "~"}[run.kind]
        yield from _marked(mark, lines, _remark(run, many=len(change.authors) > 1))
    elif index and not is_last and run.length <= 2 * CONTEXT_CHARS:
        yield from (f"  {line}" for line in run.content.split("\n"))
    else:
        # The line that what comes before it ends in, and that what comes after it begins in.
        if index:
            after = run.content.split("\n", 1)[0]
            yield f"  {after if len(after) <= CONTEXT_CHARS else after[:CONTEXT_CHARS] + '…'}"
        if not is_last:
            before = run.content.rsplit("\n", 1)[-1]
            yield f"@ {run.at + run.length}"
            yield f"  {before if len(before) <= CONTEXT_CHARS else '…' + before[-CONTEXT_CHARS:]}"


def _remark(run: TextRun, *, many: bool) -> str:
    if run.kind == "formatted":
        told = [f"{key}: {_format(run.before, key)} → {_format(run.after, key)}" for key in {**run.before, **run.after}]
    else:
        told = [f"{key}: {_one_line(value)}" for key, value in {**run.before, **run.after}.items()]
    text = _shortened(", ".join(told))
    by = _by(run.authors) if many else ""
    return f"  [{text}]{by}" if text else f" {by}" if by else ""


def _format(formats: Mapping[str, Any], key: str) -> str:
    return _one_line(formats[key]) if key in formats else "none"


def _by(users: tuple[str | None, ...]) -> str:
    return f" ({', '.join('unknown' if user is None else user for user in users)})" if users else ""


def _marked(mark: str, lines: Sequence[str], remark: str = "") -> Iterator[str]:
    for line in lines[:VALUE_LINES_MAX]:
        yield f"{mark} {_shortened(line)}{remark}"
        remark = ""
    if len(lines) > VALUE_LINES_MAX:
        yield f"{mark} … {len(lines) - VALUE_LINES_MAX} more lines"


def _value_lines(value: Any) -> list[str]:
    if isinstance(value, Node):
        # Below a name, hence indented.
        return [line.removeprefix("  ") for line in content_to_text(Content({"x": value})).split("\n")[1:-1]]
    return value.split("\n") if isinstance(value, str) and value else [_one_line(value)]


def _one_line(value: Any) -> str:
    if isinstance(value, Node):
        return f"({value.kind.value})"
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if isinstance(value, Subdocument):
        return f"(document {value.guid})"
    if value is UNDEFINED or isinstance(value, BigInt | float):
        return to_string(value)
    return json.dumps(value_to_json(value), ensure_ascii=False)


def _shortened(line: str) -> str:
    if len(line) <= LINE_CHARS_MAX:
        return line
    return f"{line[:LINE_CHARS_MAX]}… ({len(line) - LINE_CHARS_MAX} more characters)"


def printable(line: str) -> str:
    """Without what would move the cursor, change colours, or turn the direction of writing."""
    return "".join(
        each if each.isprintable() or each in "\t\u3000\xa0" else _escaped(each) for each in well_formed(line)
    )


def _escaped(character: str) -> str:
    # What joins emojis, and selects how they look, is harmless and common.
    return character if character in "\u200d\ufe0f" else f"\\u{ord(character):04x}"
