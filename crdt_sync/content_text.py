"""What a document contains, as text for people.

One line a value, what is inside of something indented below it, text as it was written. Formats are left out. The form
is described in docs/reference/content.md; nothing but people should read it.

Not recursive along shared types, like `content`.
"""

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

from .content import MAPS, TEXTS, Content, Kind, Node
from .javascript import UNDEFINED, BigInt, Subdocument, to_json, to_string, well_formed

INDENTS_MAX = 20
"""What is nested deeper isn't indented further: 200 levels around 100,000 short lines would be 40 MB of spaces."""

Block: TypeAlias = list["str | Block"]
"""Lines; those in a list are indented."""


def to_text(content: Content) -> str:
    """Write a document for people: its roots by name, each with what it contains below it.

    Returns:
        Lines, each ended by a newline. UTF-8 can encode them.
    """
    done: dict[Node, Block] = {}
    for node in reversed(content.nodes):
        done[node] = _block(node, done)
    lines: Block = []
    for name, root in content.roots.items():
        lines.append(f"{_key(name)}:")
        lines.append(done[root])
    return "".join(_flat(lines))


def _flat(lines: Block) -> Iterator[str]:
    stack = [iter(lines)]
    while stack:
        for each in stack[-1]:
            if isinstance(each, list):
                stack.append(iter(each))
                break
            yield "  " * min(len(stack) - 1, INDENTS_MAX) + well_formed(each) + "\n" if each else "\n"
        else:
            stack.pop()


def _block(node: Node, done: dict[Node, Block]) -> Block:
    """What stands below the name of a type. Never empty."""
    if node.kind in TEXTS:
        return _text(node, done) + _entries(node, done)
    if node.kind is Kind.XML_ELEMENT:
        return _element(node, done)
    lines: Block = []
    for item in node.items:
        if isinstance(item, Node) and node.kind is Kind.XML_FRAGMENT:
            lines += done.pop(item)
        else:
            lines += _after("-", item, done)
    if node.kind is not Kind.XML_FRAGMENT or node.entries:
        lines += _entries(node, done)
    empty = {Kind.EMPTY: "(empty)", Kind.MAP: "{}", Kind.XML_HOOK: "{}", Kind.ARRAY: "[]"}
    return lines or [empty.get(node.kind, '""')]


def _entries(node: Node, done: dict[Node, Block]) -> Block:
    lines: Block = []
    for key, value in node.entries.items():
        lines += _after(f"{_key(key)}:", value, done)
    return lines


def _after(label: str, value: Any, done: dict[Node, Block]) -> Block:
    """A value behind its key, or behind the dash of an array: on the same line if it is one line, else below."""
    if not isinstance(value, Node):
        lines: Block = list(value.split("\n")) if isinstance(value, str) and value else [_value(value)]
    else:
        lines = done.pop(value)
    first = lines[0]
    if len(lines) == 1 and isinstance(first, str):
        is_list = isinstance(value, Node) and value.kind in (*MAPS, Kind.ARRAY)
        if label == "-" or not is_list or first in ("{}", "[]"):
            return [f"{label} {first}"]
    if label == "-" and isinstance(first, str):
        return [f"- {first}", lines[1:]]
    return [label, lines]


def _text(node: Node, done: dict[Node, Block]) -> Block:
    lines: Block = []
    line = ""
    for run in node.runs:
        if isinstance(run.insert, Node):
            # Paragraphs of some editors are texts in a text.
            if line:
                lines.append(line)
                line = ""
            lines.append(done.pop(run.insert))
        else:
            first, *more = (_value(run.insert) if run.is_embed else run.insert).split("\n")
            line += first
            for each in more:
                lines.append(line)
                line = each
    if line or not lines:
        lines.append(line or '""')
    return lines


def _element(node: Node, done: dict[Node, Block]) -> Block:
    attributes = "".join(f' {key}="{_attribute(value)}"' for key, value in node.entries.items())
    opening, closing = f"<{node.name}{attributes}>", f"</{node.name}>"
    lines: Block = []
    for child in node.items:
        lines += done.pop(child) if isinstance(child, Node) else [_value(child)]
    if not lines:
        return [opening + closing]
    only = node.items[0]
    if len(lines) == 1 and isinstance(lines[0], str) and isinstance(only, Node) and only.kind is Kind.XML_TEXT:
        return [f"{opening}{lines[0] if only.runs else ''}{closing}"]
    return [opening, lines, closing]


def _attribute(value: Any) -> str:
    if isinstance(value, Node):
        return f"({value.kind.value})"
    return to_string(value) if isinstance(value, str) else _value(value)


def _value(value: Any) -> str:
    """A value in one line, if it is no string: JSON, with words for what JSON doesn't know."""
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if isinstance(value, Subdocument):
        return f"(document {value.guid})"
    if value is UNDEFINED or isinstance(value, BigInt | float):
        return to_string(value)
    return json.dumps(to_json(value), ensure_ascii=False)


def _key(key: str) -> str:
    """A key as it is, unless that would look like something else."""
    return key if key.isprintable() and key.strip() == key != "" else json.dumps(key)
