"""What the benchmark beside other servers counts by."""

import time
from array import array

import pycrdt
import pytest

from benchmarks.peers import report
from benchmarks.peers.clients import Client
from benchmarks.peers.editing import Editing
from benchmarks.peers.keeping import Confirmations
from benchmarks.peers.load import Load
from benchmarks.peers.measured import Broken
from benchmarks.peers.profiling import table
from benchmarks.peers.trend import percentile, slope
from benchmarks.peers.wire import (
    TOKEN,
    Hocuspocus,
    YWebsocket,
    frames,
    is_message,
    is_ping,
    last_number,
    masked,
    pong,
    token,
)
from benchmarks.peers.works import WORKS
from crdt_sync.lib0 import write_var_bytes

DIALECTS = pytest.mark.parametrize("dialect", [YWebsocket, Hocuspocus])


def from_server(payload: bytes, first: int = 0x82) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 1 << 16:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def unmasked(frame: bytes) -> bytes:
    at = {126: 4, 127: 10}.get(frame[1] & 127, 2)
    key, payload = frame[at : at + 4], frame[at + 4 :]
    return bytes(byte ^ key[n % 4] for n, byte in enumerate(payload))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_frames_of_every_length_are_found(size: int) -> None:
    data = from_server(b"x" * size) + from_server(b"", 0x89)

    found = list(frames(data))

    assert [(is_message(first), is_ping(first), end - start) for first, start, end in found] == [
        (True, False, size),
        (False, True, 0),
    ]


def test_every_beginning_of_a_frame_is_left_for_later() -> None:
    data = from_server(b"x" * 200)

    assert [list(frames(data[:size])) for size in range(len(data))] == [[]] * len(data)


def test_a_part_of_a_message_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a frame at 0"):
        list(frames(b"\x02\1x"))


@pytest.mark.parametrize("size", [0, 1, 3, 4, 125, 126, 70_000])
def test_masked_payload_is_what_was_meant(size: int) -> None:
    payload = (bytes(range(256)) * 300)[:size]

    assert unmasked(masked(payload)) == payload


def test_pong_has_what_the_ping_had() -> None:
    assert (pong(b"abc")[0], unmasked(pong(b"abc"))) == (0x8A, b"abc")


@DIALECTS
def test_updates_of_a_client_are_one_text(dialect: type[YWebsocket]) -> None:
    wire, doc = dialect("room-1"), pycrdt.Doc()

    for number in range(3):
        found = wire.read(wire.update(number, 1_000_000_000, 10 * number))
        assert found is not None
        doc.apply_update(found[1])

    assert str(doc.get("t", type=pycrdt.Text)) == "~k00000000~k00000001~k00000002"


@DIALECTS
def test_update_that_ends_what_came_is_known_by_its_end(dialect: type[YWebsocket]) -> None:
    wire = dialect("room-1")
    data = b"".join(from_server(wire.update(number, 1_000_000_000, 10 * number)) for number in range(5))

    assert last_number(data) == 4


def test_bytes_that_end_otherwise_have_to_be_looked_at() -> None:
    frame = from_server(YWebsocket("room-1").update(7, 1_000_000_000, 0))

    assert [last_number(frame[:-1]), last_number(frame + from_server(b"\1\1\0")), last_number(b"")] == [None] * 3


def test_merged_updates_count_as_many() -> None:
    wire = YWebsocket("room-1")
    updates = [found[1] for n in range(8) if (found := wire.read(wire.update(n, 1_000_000_000, 10 * n)))]
    doc: pycrdt.Doc = pycrdt.Doc()
    for update in updates:
        doc.apply_update(update)

    for data in (pycrdt.merge_updates(*updates), doc.get_update()):
        assert TOKEN.findall(data) == [b"%08d" % n for n in range(8)]


@DIALECTS
def test_messages_without_an_update_count_for_nothing(dialect: type[YWebsocket]) -> None:
    wire = dialect("room-1")
    head = b"\6room-1" if dialect is Hocuspocus else b""

    assert [wire.read(head + message) for message in (b"\0\0\1\0", b"\1\3\1\2\3", b"\3", b"\x08\1")] == [None] * 4
    assert wire.asks(head + b"\0\0\1\0")
    assert wire.read(wire.nothing_new()) == (True, b"\0\0")


def test_token_of_an_update_says_which() -> None:
    found = TOKEN.fullmatch(token(12_345))

    assert found is not None
    assert int(found[1]) == 12_345


def test_ratios_are_ours_by_theirs() -> None:
    servers: dict[str, report.Numbers | str] = {"crdt-sync": {"cpu_us": 1.0}, "a": {"cpu_us": 4.0}, "b": "failed: lost"}

    assert report.ratios("A", servers) == {"a": 0.25}


def test_busy_clients_are_told_of() -> None:
    numbers = dict.fromkeys(("cpu_us", "deliveries_per_s", "p50_ms", "p99_ms", "max_ms", "memory_mib"), 1.0)
    servers: dict[str, report.Numbers | str] = {"crdt-sync": {**numbers, "server_core": 0.5, "generator_core": 0.97}}

    assert "the clients were as busy as they can be" in report.table("A", "title", servers)


class Nowhere:
    """A socket that takes everything."""

    def send(self, data: bytes) -> int:
        return len(data)

    sendall = send


def clients_of_a_room(count: int) -> list[Client]:
    """Clients with nothing but the answer to their handshake; the first one's updates are numbered from 0."""
    made = []
    for number in range(count):
        client = Client.__new__(Client)
        client.socket, client.wire = Nowhere(), YWebsocket("room-1")  # type: ignore[assignment]
        client.number, client.yjs_id, client.room, client.clock, client.moves = number, 1_000_000_000 + number, 0, 0, 1
        client.lost = False
        client.received, client.parsed = bytearray(b"HTTP/1.1 101\r\n\r\n"), 0
        client.times, client.ends = array("d", [0.0]), array("Q", [len(client.received)])
        made.append(client)
    return made


def receive(client: Client, at: float, *payloads: bytes) -> None:
    for payload in payloads:
        client.received += from_server(payload)
    client.times.append(at)
    client.ends.append(len(client.received))


def load_of(count: int, receivers: int) -> tuple[Load, list[Client], list[bytes]]:
    """Updates of one sender, sent but not received."""
    clients = clients_of_a_room(1 + receivers)
    load = Load(clients, clients[:1])
    for _ in range(count):
        load.send(0)
    return load, clients, [clients[0].wire.update(n, clients[0].yjs_id, 10 * n) for n in range(count)]


def test_merged_and_single_updates_are_as_many_deliveries() -> None:
    load, (sender, one, other), messages = load_of(4, 2)
    now = time.perf_counter()
    receive(sender, now, *messages)  # its own, back: no delivery
    for message in messages:
        receive(one, now + 1, message)
    updates = [found[1] for message in messages if (found := one.wire.read(message))]
    receive(other, now + 1, b"\0\2" + write_var_bytes(pycrdt.merge_updates(*updates)))

    numbers = load.check(now - 1, now + 2, cpu_s=1.0)

    assert numbers["cpu_us"] == pytest.approx(1e6 / 8)
    assert numbers["deliveries_per_s"] == pytest.approx(8 / 3)


def test_lost_update_is_no_result() -> None:
    load, (_, one, other), messages = load_of(3, 2)
    receive(one, 1.0, *messages)
    receive(other, 1.0, *messages[:1], *messages[2:])

    with pytest.raises(Broken, match="client 2 lacks 1 of 3 updates"):
        load.check(0.0, 2.0, cpu_s=1.0)


def test_documents_that_differ_are_no_result() -> None:
    load, (sender, one, other), messages = load_of(3, 2)
    receive(one, 1.0, *messages)
    # The last one says what it should, of an item that isn't there.
    receive(other, 1.0, *messages[:2], sender.wire.update(2, sender.yjs_id, 50))

    with pytest.raises(Broken, match="2 versions of room 0"):
        load.check(0.0, 2.0, cpu_s=1.0)


def test_sender_goes_on_when_all_have_got_its_oldest_update() -> None:
    load, clients, _ = load_of(0, 2)
    on_data = load.closed(2)
    messages = [from_server(clients[0].wire.update(n, clients[0].yjs_id, 10 * n)) for n in range(3)]

    clocks = [clients[0].clock]
    for client, data in ((clients[1], messages[0] + messages[1]), (clients[2], messages[0]), (clients[2], messages[1])):
        client.received += data
        on_data(client, data, 0.0)
        clocks.append(clients[0].clock)

    assert clocks == [20, 20, 30, 40]


def test_profile_counts_what_is_on_top() -> None:
    samples = "main (a.py:1);run (a.py:7);send (b.py:3) 6\nmain (a.py:1);run (a.py:7) 3\nmain (a.py:1) 1\n"

    files, functions = table(samples).split("\n\n")

    assert files.splitlines()[2:] == ["| `b.py` | 60.0% |", "| `a.py` | 40.0% |"]
    assert functions.splitlines()[2:] == [
        "| `send (b.py)` | 60.0% |",
        "| `run (a.py)` | 30.0% |",
        "| `main (a.py)` | 10.0% |",
    ]


@DIALECTS
def test_ordinary_messages_say_nothing_about_what_is_stored(dialect: type[YWebsocket]) -> None:
    wire = dialect("room-1")

    assert [wire.stored(message) for message in (wire.nothing_new(), wire.update(0, 1, 0), wire.cursor(0, 1, 1))] == [
        None
    ] * 3


def test_our_answer_is_the_question_back() -> None:
    wire = YWebsocket("room-1")
    question = wire.question(300)
    assert question is not None

    assert wire.stored(question) == 300


def test_hocuspocus_says_unasked_how_long_the_stored_text_is() -> None:
    wire = Hocuspocus("room-1")

    assert wire.question(1) is None
    assert wire.stored(b"\6room-1\5" + write_var_bytes(b"stored 120")) == 12


def test_what_is_stored_is_counted_from_when_it_was_sent() -> None:
    client = clients_of_a_room(1)[0]
    client.parsed = len(client.received)
    log = Confirmations([client])
    for _ in range(3):
        log.send(client)
    sent = time.perf_counter()

    before = log.all_stored()
    for count in (2, 1, 3):
        question = client.wire.question(count)
        assert question is not None
        receive(client, sent, question)
        log.take(client, b"", sent + count)

    assert (before, log.all_stored()) == (False, True)
    assert [round(delay / 1000) for delay in log.delays_ms(0, sent)] == [2, 2, 3]


def test_client_that_was_lost_has_to_have_nothing() -> None:
    load, (_, one, other), messages = load_of(3, 2)
    receive(one, 1.0, *messages)
    other.lost = True

    assert load.all_there()
    assert load.check(0.0, 2.0, cpu_s=1.0)["cpu_us"] == pytest.approx(1e6 / 3)


def test_every_fifth_client_edits_counted_room_by_room() -> None:
    work = Editing("", rooms=10, clients=4, every=5)
    clients = clients_of_a_room(40)
    for client in clients:  # in the order in which they connect
        client.room = client.number % 10

    assert [(client.room, client.number // 10) for client in work._editors(clients)] == [
        *((0, 0), (1, 1), (2, 2), (3, 3)),
        *((5, 0), (6, 1), (7, 2), (8, 3)),
    ]


def test_growth_is_found_and_trusted_as_far_as_it_goes() -> None:
    times = [number / 60 for number in range(60)]
    noise = [(-1) ** (number // 2) for number in range(60)]

    rise, error = slope(times, [100 + 6 * time + wave for time, wave in zip(times, noise, strict=True)])

    assert (slope(times, [7.0] * 60), slope(times, times)) == ((0, 0), (pytest.approx(1), pytest.approx(0, abs=1e-9)))
    assert abs(rise - 6) < 2 * error < 2


def test_samples_that_resemble_each_other_count_for_fewer() -> None:
    times = [float(number) for number in range(60)]

    _, quick = slope(times, [number % 2 for number in range(60)])
    _, slow = slope(times, [number // 15 % 2 for number in range(60)])

    assert slow > 3 * quick


def test_percentile_of_nothing_is_no_number() -> None:
    assert [percentile([1, 2, 3, 4], 0.5), percentile([1], 0.99)] == [3, 1]
    assert percentile([], 0.5) != percentile([], 0.5)


@pytest.mark.parametrize(
    ("rise", "error", "last", "says"),
    [
        (0.5, 0.5, 5.5, "memory is flat; latency is flat."),
        (-9.0, 1.0, 5.5, "memory is flat; latency is flat."),
        (5.0, 1.0, 9.0, "memory grows; latency grows."),
        (1.0, 3.0, 5.5, "whether memory grows isn't clear from this: watch it for longer; latency is flat."),
    ],
)
def test_verdict_on_growth(rise: float, error: float, last: float, says: str) -> None:
    numbers = {
        "growth_mib_per_h": rise,
        "growth_error_mib_per_h": error,
        "memory_first_mib": 100.0,
        "watched_s": 3600.0,
    }

    assert report.verdict(numbers | {"p99_first_ms": 5.0, "p99_last_ms": last}) == says


def test_what_grows_for_a_few_minutes_may_be_warming_up() -> None:
    numbers = {"growth_mib_per_h": 99.0, "growth_error_mib_per_h": 1.0, "memory_first_mib": 100.0, "watched_s": 600.0}

    assert "isn't clear" in report.verdict(numbers | {"p99_first_ms": 5.0, "p99_last_ms": 5.0})


def test_every_work_has_its_table_and_says_where_there_is_no_number() -> None:
    for work in WORKS:
        assert "| a | keeps nothing |" in report.table(work, "title", {"a": "keeps nothing"})
    assert "| 5 | – |" in report.table("I", "title", {"a": {"open_ms": 5.0}})
