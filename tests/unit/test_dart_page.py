"""docs/how-to/write-a-dart-client.md: what can be known of it without a Dart SDK."""

import re
from collections.abc import Iterator

import pytest
import tree_sitter
import tree_sitter_dart

from crdt_sync import protocol
from tests.support.pages import Block, blocks, read

PAGE = "docs/how-to/write-a-dart-client.md"


@pytest.mark.parametrize("block", blocks("dart"), ids=str)
def test_a_parser_of_dart_reads_it(block: Block) -> None:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_dart.language()))

    tree = parser.parse(block.text.encode())

    assert [str(wrong) for wrong in mistakes(tree.root_node)] == []


def mistakes(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    if node.is_error or node.is_missing:
        yield node
    for child in node.children:
        yield from mistakes(child)


def test_its_numbers_are_those_of_the_protocol() -> None:
    constants = dict(re.findall(r"(\w+) = (\d+)(?=[,;])", "".join(re.findall(r"^const .*", read(PAGE), re.MULTILINE))))

    assert {name: int(number) for name, number in constants.items()} == {
        "sync": protocol.SYNC,
        "awareness": protocol.AWARENESS,
        "auth": protocol.AUTH,
        "queryAwareness": protocol.QUERY_AWARENESS,
        "confirm": protocol.CONFIRM,
        "step1": protocol.SYNC_STEP_1,
        "step2": protocol.SYNC_STEP_2,
        "update": protocol.SYNC_UPDATE,
        "denied": protocol.AUTH_DENIED,
        "token": protocol.AUTH_TOKEN,
        "expires": protocol.AUTH_EXPIRES,
    }


def test_it_says_that_it_was_not_run() -> None:
    assert "The code on this page has not been run" in read(PAGE)
