"""How `make docs` makes a site of the pages beside this file, with Sphinx, MyST and Furo.

The pages are plain Markdown, to be read on a forge too. `index.md` is what there is in order: the sidebar has its sections and the
links of their lists, so a page that isn't linked there is a warning, and warnings are errors.
"""

import re

from sphinx.application import Sphinx

project = "crdt-sync"
author = "the authors of crdt-sync"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
suppress_warnings = ["myst.header"]
myst_heading_anchors = 4
myst_url_schemes = ["http", "https", "mailto"]
nitpicky = True

html_theme = "furo"
html_title = "crdt-sync"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
highlight_language = "none"
pygments_style = "default"
pygments_dark_style = "monokai"

_SECTION = re.compile(r"^##+ ([^\n]+)\n(.*?)(?=^##+ |\Z)", re.MULTILINE | re.DOTALL)
_LISTED = re.compile(r"^ *- \[[^\]]+\]\(([^)#:]+)\.md\)", re.MULTILINE)
_UNKNOWN_TO_PYGMENTS = re.compile(r"^( *)```promql$", re.MULTILINE)
_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?:README|examples|tests|benchmarks|clients)[^)]*\)")


def setup(app: Sphinx) -> None:
    """Have pages read as the site wants them."""
    app.connect("source-read", _adapt)


def _adapt(app: Sphinx, name: str, source: list[str]) -> None:
    text = _UNKNOWN_TO_PYGMENTS.sub(r"\1```text", source[0])
    # What isn't a page is in the checkout; the site names it.
    text = _OUTSIDE.sub(lambda link: link[1] if "`" in link[1] else f"`{link[1]}`", text)
    if name == "index":
        for title, section in _SECTION.findall(text):
            if pages := _LISTED.findall(section):
                text += "\n```{toctree}\n:hidden:\n:caption: " + title + "\n\n" + "\n".join(pages) + "\n```\n"
    source[0] = text
