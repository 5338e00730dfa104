"""What the pages say exists: links lead somewhere, commands parse, and settings, files and tests are there.

What their blocks do is in `tests/interop/test_pages.py`.
"""

import argparse
import configparser
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest
import yaml

from crdt_sync import cli
from crdt_sync.settings import PREFIX, Settings
from tests.support.command import ROOT
from tests.support.pages import Block, anchors, blocks, inline_code, links, pages, read

# Of commands, of compose.yaml, of the tests.
OTHER_VARIABLES = {"TOKEN", "PUBLISH"}
# Where a command begins that is about our documents; not in a path, nor as somebody's name.
COMMAND = re.compile(r"(?<![\w/.@=-])(?:\S*bin/)?crdt-sync ((?:--version|[a-z]+)\b(?![/.])(?:'[^'\n]*'|[^'|&;)>\n])*)")


# ------------------------------------------------------------------------------------------------------------ links


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme in ("http", "https"), f"{page}: {link}"
            assert parts.hostname, f"{page}: {link}"
            assert "." in parts.hostname, f"{page}: {link}"
            continue
        target = (ROOT / page).parent / parts.path if parts.path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if parts.fragment:
            there = str(target.resolve().relative_to(ROOT))
            assert parts.fragment in anchors(there), f"{page}: {link}: {there} has no such heading"


def test_front_page_lists_every_page() -> None:
    listed = {str(PurePosixPath("docs", link.partition("#")[0])) for link in links("docs/index.md")}

    assert {page for page in pages() if page.startswith("docs/")} - {"docs/index.md"} <= listed


@pytest.mark.parametrize("page", pages())
def test_files_that_are_named_are_there(page: str) -> None:
    for code in inline_code(page):
        for path in re.findall(
            r"(?<![\w./-])(?:tests|property_tests|examples|benchmarks|docs|clients|crdt_sync|persistence|auth)/[\w./*-]+",
            code,
        ):
            assert list(ROOT.glob(path.rstrip("./"))), f"{page}: {path}"


def test_tests_that_are_named_are_there() -> None:
    sources = [file for folder in ("tests", "property_tests") for file in (ROOT / folder).rglob("test_*.py")]
    known = {
        name for file in sources for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    known |= {file.stem for file in sources}

    for page in pages():
        for code in inline_code(page):
            assert set(re.findall(r"\btest_\w+", code)) <= known, f"{page}: {code}"


# --------------------------------------------------------------------------------------------------------- commands


def said(page: str) -> Iterator[tuple[str, bool]]:
    """All commands of ours on a page, without the program's name, and whether each is whole."""
    for block in blocks("sh"):
        if block.page == page:
            for command in COMMAND.findall(block.text.replace("\\\n", " ")):
                typed = re.sub(r"\s#.*|\s\d$", "", command.strip())  # no comment, and not what is redirected
                yield re.sub(r"\$\w+", "1", typed), True
    for code in inline_code(page):
        if code.startswith("crdt-sync "):
            yield code.removeprefix("crdt-sync "), False


@pytest.mark.parametrize("page", [page for page in pages() if page != "CHANGELOG.md"])
def test_commands_and_options_are_those_of_the_program(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command, whole in said(page):
        words = shlex.split(command)
        if whole and words[0] != "--version":
            try:
                cli.parser(words[0]).parse_args(words)
            except SystemExit:
                pytest.fail(pytrace=False, reason=f"{page}: crdt-sync {command}: {capsys.readouterr().err}")
        else:
            check_mention(page, words)


def check_mention(page: str, words: list[str]) -> None:
    """Whether there is such a command, with such options, which needn't be all that it takes."""
    parser = cli.parser()
    for word in words:
        nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if nested and not word.startswith("-"):
            if word == "COMMAND":
                return
            assert word in nested[0].choices, f"{page}: crdt-sync {' '.join(words)}"
            parser = nested[0].choices[word]
        elif word.startswith("--"):
            known = {string for action in parser._actions for string in action.option_strings}
            assert word.partition("=")[0] in known, f"{page}: crdt-sync {' '.join(words)}"


# --------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("page", pages())
def test_settings_that_are_named_are_there(page: str) -> None:
    text = re.sub(rf"{PREFIX}SHUTDOWN_TIMEOUT_S", "", read(page)) if page == "CHANGELOG.md" else read(page)
    for name in set(re.findall(rf"\b{PREFIX}([A-Z][A-Z_]*[A-Z])\b", text)):
        assert name.lower() in Settings.model_fields or name in OTHER_VARIABLES, f"{page}: {PREFIX}{name}"


def test_settings_in_commands_can_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks("sh"):
        assigned = re.findall(rf"({PREFIX}\w+)=('[^']*'|\"[^\"]*\"|\$\([^)]*\)|[^\s;]+)", block.text)
        with monkeypatch.context() as changed:
            for name, value in assigned:
                if name.removeprefix(PREFIX) not in OTHER_VARIABLES and not re.search(r"\$|…|\.pem", value):
                    changed.setenv(name, value.strip("'\""))
            try:
                Settings.read()
            except ValueError as error:
                pytest.fail(f"{block}: {error}")


# ----------------------------------------------------------------------------------------------------------- blocks


def ids(block: Block) -> str:
    return str(block)


@pytest.mark.parametrize("block", blocks("json"), ids=ids)
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", blocks("yaml"), ids=ids)
def test_yaml_is_yaml(block: Block) -> None:
    assert isinstance(yaml.safe_load(block.text), dict | list)


@pytest.mark.parametrize("block", blocks("ini"), ids=ids)
def test_units_have_sections_and_values(block: Block) -> None:
    unit = configparser.ConfigParser()
    unit.read_string(block.text)

    assert all(unit.items(section) for section in unit.sections())


@pytest.mark.parametrize("block", blocks("python"), ids=ids)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


def test_shells_understand_every_command() -> None:
    bash = shutil.which("bash")
    assert bash is not None
    for block in blocks("sh"):
        checked = subprocess.run([bash, "-n"], input=block.text, capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, ""), f"{block}: {checked.stderr}"
