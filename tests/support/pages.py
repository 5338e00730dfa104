"""The pages of the documents: where they are, their fenced blocks, headings and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from .command import ROOT

_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    page: str
    """The page's path in the repository."""
    line: int
    """Where it begins."""
    language: str
    """The first word behind the fence; empty if there is none."""
    text: str
    """Without the indentation of the fence."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def pages() -> tuple[str, ...]:
    """All that people read, by path in the repository."""
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    for folder in ("examples", "clients"):
        found += (ROOT / folder).rglob("*.md")
    places = [one.relative_to(ROOT) for one in found]
    return tuple(sorted(str(one) for one in places if not {"node_modules", "_build"} & set(one.parts)))


@cache
def read(page: str) -> str:
    """A page's text."""
    return (ROOT / page).read_text()


@cache
def blocks(*languages: str) -> tuple[Block, ...]:
    """The blocks of all pages in these languages, in order; all blocks if none is named."""
    found = []
    for page in pages():
        text = read(page)
        for one in _FENCE.finditer(text):
            language = one[2].split(" ")[0]
            if not languages or language in languages:
                inside = re.sub(rf"^{one[1]}", "", one[3], flags=re.MULTILINE)
                found.append(Block(page, text.count("\n", 0, one.start()) + 1, language, inside))
    return tuple(found)


def prose(page: str) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", read(page))


def inline_code(page: str) -> list[str]:
    """What stands between single backticks."""
    return _INLINE.findall(prose(page))


def links(page: str) -> list[str]:
    """Where a page's links and pictures lead."""
    return _LINK.findall(_INLINE.sub("", prose(page)))


@cache
def anchors(page: str) -> frozenset[str]:
    """What may stand behind `#` in links to a page, as forges and the site make it of headings."""
    found: dict[str, int] = {}
    names = []
    for heading in re.findall(r"^#+ (.+?) *$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        names.append(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return frozenset(names)
