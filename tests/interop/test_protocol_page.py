"""docs/reference/protocol.md byte by byte: stock libraries write what it shows, and this server says what it says."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from crdt_sync import awareness, connection, protocol, update
from crdt_sync.gateway.sync import ROOM_NAME_BYTES_MAX
from crdt_sync.lib0 import MAX_SAFE_INTEGER, read_var_string, read_var_uint, write_var_bytes, write_var_uint
from crdt_sync.limits import FRAGMENTS_MAX
from crdt_sync.protocol import AwarenessUpdate, Confirm, FreshToken, QueryAwareness, SyncStep1, SyncUpdate
from crdt_sync.settings import Settings
from tests.support.raw import RawClient
from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/protocol.md").read_text()
HI = bytes.fromhex("01010100040105 6e6f746573 02486900")


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """The protocol is the same, whatever the database."""
    return f"sqlite:///{tmp_path / 'documents.db'}"


@pytest.fixture(scope="module")
def stock() -> dict[str, Any]:
    """What stock libraries write."""
    node = shutil.which("node")
    assert node is not None, "Node.js (20 or later) is missing"
    done = subprocess.run([node, "protocol_page.mjs"], cwd=ROOT / "tests/node", capture_output=True, check=True)
    written: dict[str, Any] = json.loads(done.stdout)
    return written


def table(header: str) -> dict[str, str]:
    """The rows of a table of two columns: text to bytes."""
    rows = re.search(rf"^\| {header} \| (?:Bytes)? ?\|\n\|---\|---\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert rows is not None, f"no table of {header}"
    found = re.findall(r"^\| (.+?) \| (.+?) ?\|$", rows[1], re.MULTILINE)
    return {name: re.sub("`", "", shown) for name, shown in found}


@pytest.mark.parametrize("kind", ["varUint", "string", "varInt", "Value"])
def test_primitives_are_what_lib0_writes(kind: str, stock: dict[str, Any]) -> None:
    assert table(kind) == stock[kind]


def test_primitives_are_what_this_server_reads() -> None:
    for text, shown in table("varUint").items():
        data = bytes.fromhex(shown)
        assert (write_var_uint(int(text)), read_var_uint(data, 0)) == (data, (int(text), len(data)))
    for text, shown in table("string").items():
        data = bytes.fromhex(shown)
        assert read_var_string(data, 0) == ("" if text == "(empty)" else text, len(data))


def test_messages_are_what_stock_clients_write(stock: dict[str, Any]) -> None:
    # The others are this server's own.
    assert list(table("Example").values())[: len(stock["Example"])] == stock["Example"]


def test_messages_are_what_this_server_reads_and_writes() -> None:
    shown = [bytes.fromhex(one) for one in table("Example").values()]
    step_1, step_2, typed, here, gone, nobody, denied, fresh, expires, query, confirm = shown

    assert [protocol.decode(one) for one in (step_1, step_2, typed, fresh, query, confirm)] == [
        [SyncStep1(b"\0")],
        [SyncUpdate(b"\0\0")],
        [SyncUpdate(HI)],
        [FreshToken("a.b.c")],
        [QueryAwareness()],
        [Confirm(b"\7")],
    ]
    read = [awareness.read_states(one.states) for one in map(only_states, (here, gone, nobody))]
    assert read == [
        [awareness.ClientState(42, 1, b'{"user":{"name":"Ann"}}')],
        [awareness.ClientState(42, 2, b"null")],
        [],
    ]
    assert denied == protocol.encode_denied("not allowed")
    assert expires == protocol.encode_expires(60)
    assert nobody == protocol.encode_awareness(awareness.KEEP_ALIVE)


def only_states(frame: bytes) -> AwarenessUpdate:
    (message,) = protocol.decode(frame)
    assert isinstance(message, AwarenessUpdate)
    return message


def test_updates_are_what_yjs_writes(stock: dict[str, Any]) -> None:
    walked = " ".join(re.findall(r"`([0-9a-f ]+)`", PAGE.partition("by client 1:\n")[2].partition("\n\nAnd after")[0]))

    assert [walked, *table("Edit").values()] == stock["edits"]
    assert list(table("State vector").values()) == stock["stateVectors"]
    assert stock["text"] == "Xi!"
    assert f"00 02 0a {stock['typed']}" in PAGE
    for shown in stock["edits"]:
        update.read_update(bytes.fromhex(shown))


async def test_the_conversation_takes_place(server: ServerProcess, room: str) -> None:
    lines = re.findall(r"^([→←])  ((?:[0-9a-f]{2} ?)+?)(?:  .*)?$", PAGE, re.MULTILINE)
    assert len(lines) == 12
    async with await RawClient.connect(server.url, room) as filler:
        await filler.send(b"\0\2" + write_var_bytes(HI) + b"\x66\x00")
        while await filler.receive() != b"\x66\x00":
            pass

    async with await RawClient.connect(server.url, room) as ann:
        heard: list[bytes] = []
        for arrow, text in lines:
            frame = bytes.fromhex(text)
            if arrow == "→":
                await ann.send(frame)
                continue
            while frame not in heard:
                got = await ann.receive()
                assert got is not None, ann.closed
                heard.append(got)
            heard.remove(frame)

    # Nothing but this was said, and in no other order than is possible.
    assert heard == []


def test_sizes_are_those_of_the_code() -> None:
    settings = Settings()

    assert {name: size for name, (size, _) in sizes().items()} == {
        "a WebSocket message (`message_bytes_max`)": (
            f"{settings.message_bytes_max >> 20} MiB, in {FRAGMENTS_MAX:,} fragments"
        ),
        "messages in one frame": f"{protocol.FRAME_MESSAGES_MAX:,}",
        "a room's name": f"{ROOM_NAME_BYTES_MAX} bytes",
        "a varUint": power_of_two(MAX_SAFE_INTEGER + 1) + "−1, 8 bytes",
        "a clock of a document": power_of_two(update.CLOCK_MAX + 1) + "−1",
        "a clock of awareness": "below " + power_of_two(awareness.CLOCK_MAX),
        "an awareness state (`awareness_client_bytes_max`)": f"{settings.awareness_client_bytes_max >> 10} KiB",
        "how deep a state is nested": str(awareness.NESTING_MAX),
        "clients that one connection speaks for": str(awareness.CONNECTION_STATES_MAX),
        "states in one awareness message": f"{awareness.MESSAGE_STATES_MAX:,}",
        "a confirm token": f"{protocol.CONFIRM_TOKEN_BYTES_MAX} bytes",
        "confirmations that are outstanding": f"{connection.CONFIRMS_MAX:,}",
        "a fresh token": f"{protocol.CREDENTIAL_BYTES_MAX >> 10} KiB",
        "updates that wait for others, in a room (`waiting_bytes_max`)": f"{settings.waiting_bytes_max >> 20} MiB",
        "structs in one update; ranges that one deletes": f"{update.ITEMS_MAX:,} each",
        "clients in an update, or a document": f"{update.CLIENTS_MAX:,}",
        "clients in a state vector beyond those that the document has": f"{update.STRANGERS_MAX:,}",
        "a document (`document_bytes_max`)": f"{settings.document_bytes_max >> 20} MiB",
    }
    text = " ".join(PAGE.split())
    assert f"every {settings.ping_interval_s:.0f} s (`ping_interval_s`)" in text
    assert f"answers none for {settings.ping_timeout_s:.0f} s" in text
    assert f"sent nothing for {settings.keep_alive_interval_s:.0f} s" in text


async def test_what_is_larger_closes_with_the_code_that_is_told(server: ServerProcess, room: str) -> None:
    state = b"{}"
    too_large = {
        "messages in one frame": (b"\3" * 1001, b"\3" * 1000),
        "an awareness state (`awareness_client_bytes_max`)": tuple(
            states((42, 1, b'"' + b"x" * size + b'"')) for size in (16384, 16382)
        ),
        "how deep a state is nested": tuple(states((42, 1, b"[" * n + b"]" * n)) for n in (101, 100)),
        "clients that one connection speaks for": tuple(
            states(*((client, 1, state) for client in range(1, count + 1))) for count in (9, 8)
        ),
        "states in one awareness message": tuple(states(*[(42, 1, state)] * count) for count in (4097, 4096)),
        "a confirm token": tuple(b"\x66" + write_var_bytes(bytes(size)) for size in (65, 64)),
        "a fresh token": tuple(b"\2\1" + write_var_bytes(b"x" * size) for size in (8193, 8192)),
        "a clock of a document": tuple(b"\0\2" + write_var_bytes(typed_at(clock)) for clock in (2**31 - 1, 2**31 - 2)),
        "clients in a state vector beyond those that the document has": tuple(
            b"\0\0" + write_var_bytes(update.write_state_vector(dict.fromkeys(range(count), 1)))
            for count in (20_001, 20_000)
        ),
    }

    for name, (over, within) in too_large.items():
        for frame, closes in ((within, False), (over, True)):
            # Each in a room of its own: the 20,000 clients of one would count for another.
            async with await RawClient.connect(server.url, f"{room}-{len(name)}-{closes}") as ann:
                await ann.send(frame + b"\x66\x01\x00" if name != "messages in one frame" else frame)
                if closes:
                    assert str((await ann.wait_closed()).code) == sizes()[name][1], name
                else:
                    await ann.send(b"\x66\x01\x00")
                    while (got := await ann.receive()) != b"\x66\x01\x00":
                        assert got is not None, (name, ann.closed)


def typed_at(clock: int) -> bytes:
    """One character by client 1 in the root "t", at a clock."""
    return b"\1\1\1" + write_var_uint(clock) + b"\4\1\1t\1x\0"


def states(*each: tuple[int, int, bytes]) -> bytes:
    return protocol.encode_awareness(awareness.write_states(awareness.ClientState(*one) for one in each))


def sizes() -> dict[str, tuple[str, str]]:
    """What is at most how large, and what is beyond it."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", PAGE.partition("## Sizes\n\n| |")[2], re.MULTILINE)
    return {name: (size, beyond) for name, size, beyond in rows}


def power_of_two(number: int) -> str:
    return "2" + str(number.bit_length() - 1).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
