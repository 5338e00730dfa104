"""What a document contains: as nodes to compare, as JSON for programs, as text for people.

Owns what real Yjs would show of each shared type, and of which kind a root is, which the document itself doesn't say.
Leaves the order of items to `order`, single values to `javascript`, and text for people to `content_text`.

Pure Python that shares nothing: in a thread, however large the document, the event loop gets its turn every 5 ms
(`sys.setswitchinterval`), as it would between slices of `pacing`. The forms are those of docs/reference/content.md.

Not recursive along shared types: `Content.nodes` has every type before those inside it, so whoever goes through it
backwards finds what is inside finished.

Source: yjs 13.6 `YText.toDelta`, `YXmlText.toString`, `YXmlElement.toString`, `AbstractType.js` (`typeListToArray`,
`typeMapGetAll`).
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from .errors import ContentTooCostly
from .javascript import UNDEFINED, parse_json, to_json, to_string, to_tagged, utf16_units, well_formed
from .order import Item, Type, read_roots
from .structure import ANY, BINARY, DOC, EMBED, FORMAT, JSON, NONE, STRING, TYPE

ATTRIBUTES_MAX = 32 << 20
"""About how many bytes the attributes of all runs of text may take. One format of 1 MB around 10,000 bold words would
otherwise be written 10,000 times; 100,000 links of 100 characters stay below."""

_ATTRIBUTE_SIZE = 50
"""Of one without key and value, in memory."""

_MEMBER_SIZE = 12
"""In the string of an XML text, each UTF-16 unit of a string attribute, each element of a list, is an XML attribute."""

_MEMBERS_MAX = 1000
"""How many of those are written. Strings as attributes of XML are a mistake, and few are as long."""


class Kind(Enum):
    """What a shared type is; the values are the words of tagged JSON."""

    ARRAY = "array"
    MAP = "map"
    TEXT = "text"
    XML_ELEMENT = "xml-element"
    XML_FRAGMENT = "xml-fragment"
    XML_HOOK = "xml-hook"
    XML_TEXT = "xml-text"
    EMPTY = "empty"
    """A root without anything in its sequence: text, array or XML, nobody can say."""


KINDS = (Kind.ARRAY, Kind.MAP, Kind.TEXT, Kind.XML_ELEMENT, Kind.XML_FRAGMENT, Kind.XML_HOOK, Kind.XML_TEXT)
"""By type reference."""
_XML = (Kind.XML_ELEMENT, Kind.XML_FRAGMENT, Kind.XML_TEXT)
TEXTS = (Kind.TEXT, Kind.XML_TEXT)
MAPS = (Kind.MAP, Kind.XML_HOOK)


@dataclass(slots=True, eq=False)
class Run:
    """Text, or one embed, with the attributes that it is formatted with."""

    insert: Any
    """A string; for an embed its value or `Node`. A value that is a string is an embed if `is_embed`."""
    attributes: dict[str, Any]
    is_embed: bool


@dataclass(slots=True, eq=False)
class Node:
    """A shared type. Values are as in `javascript`, or nodes."""

    kind: Kind
    name: str = ""
    """Of an XML element or hook, as it was given."""
    items: list[Any] = field(default_factory=list)
    """What is in an array, or the children in XML, in order."""
    runs: list[Run] = field(default_factory=list)
    """What is in a text, in order; neighbours have different attributes."""
    entries: dict[str, Any] = field(default_factory=dict)
    """What is in a map, or the attributes of XML and text, by key. Roots may have some beside their sequence."""

    def children(self) -> Iterator["Node"]:
        """The types directly inside."""
        inserts = [run.insert for run in self.runs]
        return (each for each in (*self.items, *inserts, *self.entries.values()) if isinstance(each, Node))


class Content:
    """What a document contains.

    Args:
        roots: The root types by name. Each node has one place.
    """

    def __init__(self, roots: dict[str, Node]) -> None:
        self.roots = roots
        self.nodes = _with_inside(roots.values())
        """All nodes, each before those inside it."""

    def to_json(self, *, rich: bool = False) -> dict[str, Any]:
        """Write the document as strict JSON.

        Args:
            rich: With kinds, formats, embeds and all that tells values apart; else like `toJSON()` of each root.

        Returns:
            Root name to content. `json.dumps` takes it with `allow_nan=False`, and UTF-8 can encode it.
        """
        done = _forms(self.nodes, rich)
        if not rich:
            for node in self.roots.values():
                if node.entries and node.kind not in MAPS:
                    done[node] = {"sequence": done[node], "entries": _plain_entries(node, done)}
        return {well_formed(name): done[node] for name, node in self.roots.items()}


def node_to_json(node: Node, *, rich: bool = False) -> Any:
    """Write a type that is in another one as strict JSON; see `Content.to_json`."""
    return _forms(_with_inside([node]), rich)[node]


def _with_inside(nodes: Iterable[Node]) -> list[Node]:
    """These nodes and those inside them, each before those."""
    found = list(nodes)
    for node in found:
        found.extend(node.children())
    return found


def _forms(nodes: list[Node], rich: bool) -> "dict[Node, Any]":
    """JSON of the outermost of these nodes."""
    form = _rich if rich else _plain
    done: dict[Node, Any] = {}
    for node in reversed(nodes):
        done[node] = form(node, done)
    return done


def read_content(update: bytes) -> Content:
    """Read what a document contains.

    Args:
        update: One update with the whole document: what `Document.diff(b"\\x00")` returns, or a snapshot.

    Raises:
        MalformedUpdate: Not an update, or one that builds on others.
        ContentTooCostly: Made up so that showing it takes forever, or gigabytes.
    """
    reader = Reader()
    return Content({name: reader.root(type_) for name, type_ in sorted(read_roots(update).items())})


# ------------------------------------------------------------------------------------------------------------
# Types to nodes.


class Reader:
    """Makes nodes of the types of one document."""

    def __init__(self) -> None:
        self._attributes_size = 0
        self._unread: list[tuple[Type, Node]] = []

    def root(self, type_: Type) -> Node:
        """Read a root type."""
        return self._read(type_, kind_of_root(type_))

    def nested(self, type_: Type) -> Node:
        """Read a type that is in another one."""
        return self._read(type_, KINDS[type_.kind])

    def _read(self, type_: Type, kind: Kind) -> Node:
        node = Node(kind, type_.name)
        self._unread.append((type_, node))
        while self._unread:
            self._fill(*self._unread.pop())
        return node

    def _fill(self, type_: Type, node: Node) -> None:
        for key, item in () if is_keyless(type_) else type_.entries():
            values = self._values(item)
            node.entries[key] = values[-1] if values else UNDEFINED
        if node.kind in TEXTS:
            self._fill_runs(type_, node)
        elif node.kind not in MAPS:
            for item in type_.sequence.visible():
                node.items += self._values(item)

    def _values(self, item: Item) -> list[Any]:
        if item.ref == TYPE:
            type_: Type = item.content
            node = Node(KINDS[type_.kind], type_.name)
            self._unread.append((type_, node))
            return [node]
        return values_of(item)

    def _fill_runs(self, type_: Type, node: Node) -> None:
        runs = node.runs
        current = Attributes(member_size=_MEMBER_SIZE if node.kind is Kind.XML_TEXT else 1)
        of_run = current.copy()
        parts: list[str] = []
        changed = False

        def end_run() -> None:
            if parts:
                runs.append(Run("".join(parts), of_run.sorted(), False))
                parts.clear()

        for item in type_.sequence.visible():
            if item.ref == FORMAT:
                current.set(*item.content)
                changed = True
            elif item.ref == STRING:
                if changed:
                    changed = False
                    self._count(current)
                    if current.texts != of_run.texts:
                        end_run()
                        of_run = current.copy()
                parts.append(item.content)
            elif item.ref in (TYPE, EMBED):
                end_run()
                self._count(current)
                runs.append(Run(self._values(item)[0], current.sorted(), True))
        end_run()

    def _count(self, attributes: "Attributes") -> None:
        self._attributes_size += attributes.size
        if self._attributes_size > ATTRIBUTES_MAX:
            raise ContentTooCostly(f"the attributes of all runs of text take more than {ATTRIBUTES_MAX} bytes")


class Attributes:
    """What text is formatted with at some place."""

    def __init__(self, member_size: int) -> None:
        self.texts: dict[str, str] = {}
        """By key, text that is equal for equal values."""
        self.size = 0
        """See `ATTRIBUTES_MAX`."""
        self._values: dict[str, Any] = {}
        self._member_size = member_size

    def set(self, key: str, text: str) -> None:
        if key in self.texts:
            self.size -= self._size_of(key)
            del self.texts[key], self._values[key]
        value = parse_json(text)
        if value is not None:
            self.texts[key] = json.dumps(value, sort_keys=True)
            self._values[key] = value
            self.size += self._size_of(key)

    def _size_of(self, key: str) -> int:
        member_size = self._member_size if isinstance(self._values[key], str | list) else 1
        return _ATTRIBUTE_SIZE + len(key) + len(self.texts[key]) * member_size

    def copy(self) -> "Attributes":
        other = Attributes(self._member_size)
        other.texts, other._values, other.size = self.texts.copy(), self._values.copy(), self.size
        return other

    def sorted(self) -> dict[str, Any]:
        return dict(sorted(self._values.items()))


def values_of(item: Item) -> list[Any]:
    """What an item that isn't deleted puts into an array, or under a key; of a type its `Type`."""
    if item.ref == TYPE:
        return [item.content]
    if item.ref == STRING:
        # Nothing but text puts strings, but Yjs has an answer: one value for each UTF-16 unit.
        return list(utf16_units(item.content))
    if item.ref == FORMAT:
        return []
    values: list[Any] = item.content
    return values


def is_keyless(type_: Type) -> bool:
    """Whether keys of it don't show: Yjs has no way to put any there. What is put into roots might be a map besides."""
    return type_.kind != NONE and KINDS[type_.kind] in (Kind.ARRAY, Kind.XML_FRAGMENT)


def kind_of_root(type_: Type) -> Kind:
    """What a root is, going by what it holds."""
    found = {KINDS[item.content.kind] if item.ref == TYPE else item.ref for item in type_.sequence.visible()}
    if found & {STRING, FORMAT, EMBED}:
        return Kind.TEXT
    if found & {ANY, BINARY, JSON, DOC}:
        return Kind.ARRAY
    if not found:
        return Kind.MAP if type_.keys else Kind.EMPTY
    return Kind.XML_FRAGMENT if found <= {Kind.XML_ELEMENT, Kind.XML_TEXT, Kind.XML_HOOK} else Kind.ARRAY


# ------------------------------------------------------------------------------------------------------------
# Nodes to JSON. Both forms take what is inside from `done`.


def _plain(node: Node, done: dict[Node, Any]) -> Any:
    """What `toJSON()` returns."""
    if node.kind in MAPS:
        return _plain_entries(node, done)
    if node.kind is Kind.ARRAY:
        return [done.pop(each) if isinstance(each, Node) else to_json(each) for each in node.items]
    if node.kind is Kind.TEXT:
        return "".join(run.insert for run in node.runs if not run.is_embed)
    return None if node.kind is Kind.EMPTY else _to_xml(node, done)


def _plain_entries(node: Node, done: dict[Node, Any]) -> dict[str, Any]:
    return {
        well_formed(key): done.pop(value) if isinstance(value, Node) else to_json(value)
        for key, value in node.entries.items()
        if value is not UNDEFINED
    }


def _to_xml(node: Node, done: dict[Node, Any]) -> str:
    """What `toString()` returns: nothing is escaped, and what is no XML is as `String` has it."""

    def written(value: Any) -> str:
        if not isinstance(value, Node):
            return to_string(value)
        inside = done.pop(value)
        return inside if isinstance(inside, str) else "[object Object]"

    if node.kind is Kind.XML_TEXT:
        return "".join(_with_tags(written(run.insert), run.attributes) for run in node.runs)
    children = "".join(map(written, node.items))
    if node.kind is Kind.XML_FRAGMENT:
        return children
    attributes = "".join(f' {key}="{written(value)}"' for key, value in _sorted(node.entries))
    name = node.name.lower()
    return f"<{name}{attributes}>{children}</{name}>"


def _with_tags(text: str, attributes: dict[str, Any]) -> str:
    opening = closing = ""
    for name, value in _sorted(attributes):
        members = "".join(f' {key}="{to_string(member)}"' for key, member in _members(value))
        opening += f"<{name}{members}>"
        closing = f"</{name}>{closing}"
    return opening + text + closing


def _members(value: Any) -> list[tuple[str, Any]]:
    """What `for (const key in value)` goes through, sorted."""
    if isinstance(value, str):
        value = utf16_units(value[: _MEMBERS_MAX + 1])
    if isinstance(value, list):
        value = {str(index): each for index, each in enumerate(value[:_MEMBERS_MAX])}
    return _sorted(value) if isinstance(value, dict) else []


def _sorted(members: dict[str, Any]) -> list[tuple[str, Any]]:
    """As JavaScript sorts strings: by UTF-16 units."""
    ordered = sorted(members.items(), key=lambda member: member[0].encode("utf-16-be", "surrogatepass"))
    return [(well_formed(key), value) for key, value in ordered]


def _rich(node: Node, done: dict[Node, Any]) -> dict[str, Any]:
    """With everything that can be told."""

    def written(value: Any) -> Any:
        return done.pop(value) if isinstance(value, Node) else to_tagged(value)

    form: dict[str, Any] = {"$": node.kind.value}
    entries = {well_formed(key): written(value) for key, value in node.entries.items()}
    if node.kind in (Kind.XML_ELEMENT, Kind.XML_HOOK):
        form["name"] = node.name
    if node.kind in MAPS:
        form["entries"] = entries
        return form
    if node.kind is Kind.XML_ELEMENT or entries:
        form["attributes"] = entries
    if node.kind in TEXTS:
        form["delta"] = _rich_delta(node.runs, [written(run.insert) for run in node.runs])
    elif node.kind is not Kind.EMPTY:
        form["children" if node.kind in _XML else "items"] = [written(each) for each in node.items]
    return form


def _rich_delta(runs: list[Run], inserts: list[Any]) -> list[dict[str, Any]]:
    # Runs share the values of their attributes. So do these.
    tagged: dict[int, Any] = {}
    delta: list[dict[str, Any]] = []
    for run, insert in zip(runs, inserts, strict=True):
        delta.append({"insert": insert})
        for key, value in run.attributes.items():
            if id(value) not in tagged:
                tagged[id(value)] = to_tagged(value)
            delta[-1].setdefault("attributes", {})[well_formed(key)] = tagged[id(value)]
    return delta
