"""One client's way out. Laws over any sequence of events are in `property_tests/test_connection_laws.py`."""

import asyncio

import pytest

from crdt_sync.connection import CLOSE_TIMEOUT_S, CONFIRMS_MAX, FLUSH_BYTES, Connection, Flush, Outbox, Relayed, Wants
from crdt_sync.errors import DocumentBroken, SlowReader, StoreBehind
from crdt_sync.metrics import Metrics
from crdt_sync.protocol import KINDS, encode_confirm
from tests.support.fakes import FakeTransport, in_virtual_time, turns


async def difference(wants: Wants) -> list[bytes]:
    """Stands for the room: says from where to where, and why."""
    why = [name for name in ("step_2", "who", "behind") if getattr(wants, name)]
    return [b"difference from " + wants.had + b" because " + "+".join(why).encode()]


@pytest.fixture(autouse=True, params=["short way", "through ASGI"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of this holds both ways."""
    monkeypatch.setattr(FakeTransport, "usual", request.param == "short way")


class Line:
    """A connection that runs."""

    def __init__(self, *, window: int | None = None, outbox_bytes_max: int = 100) -> None:
        self.metrics = Metrics()
        self.transport = FakeTransport(window=window)
        now = asyncio.get_running_loop().time()
        self.connection = Connection(
            self.transport, outbox_bytes_max=outbox_bytes_max, now=now, metrics=self.metrics, flush=Flush()
        )
        self.task = asyncio.create_task(self.connection.run(difference))


def test_an_outbox_takes_no_more_than_its_bound() -> None:
    outbox = Outbox(10)

    taken = [outbox.put(b"123456"), outbox.put(b"12345"), outbox.put(b"1234"), outbox.put(b"")]

    assert taken == [True, False, True, True]
    assert (outbox.size, len(outbox)) == (10, 3)
    assert [outbox.take_some(-1), outbox.size] == [[b"123456"], 4]
    outbox.clear()
    assert (outbox.size, len(outbox), outbox.put(b"x" * 10)) == (0, 0, True)


@in_virtual_time
async def test_once_writing_has_failed_the_rest_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeTransport, "usual", True)
    line = Line(outbox_bytes_max=10 * FLUSH_BYTES)
    await turns()

    def fail() -> None:
        line.transport.broken = True
        asyncio.get_running_loop().call_soon(line.transport.lose)

    line.transport.on_frame = fail

    for _ in range(5):
        line.connection.relay(bytes(FLUSH_BYTES))
    await turns()

    # As many as go in one write.
    assert len(line.transport.frames) == 2


@in_virtual_time
async def test_frames_go_out_in_order_one_by_one() -> None:
    line = Line()

    for frame in (b"1", b"2", b"3"):
        line.connection.relay(frame)
    await turns()

    assert line.transport.frames == [b"1", b"2", b"3"]
    assert line.connection.idle


def test_an_outbox_gives_some_at_a_time() -> None:
    outbox = Outbox(100)
    for frame in (b"1" * 30, b"2", b"3" * 10, b"4"):
        outbox.put(frame)

    assert outbox.take_some(5) == [b"1" * 30, b"2"]
    assert (outbox.size, len(outbox)) == (11, 2)
    assert outbox.take_some(11) == [b"3" * 10, b"4"]
    assert (outbox.size, len(outbox)) == (0, 0)


class Short(FakeTransport):
    """Counts writes."""

    writes = 0

    def write_wire(self, wire: bytes) -> None:
        self.writes += 1
        super().write_wire(wire)


@in_virtual_time
async def test_what_is_relayed_in_one_turn_goes_out_in_one_write() -> None:
    flush, transports = Flush(), [Short(short=True) for _ in range(3)]
    lines = [Connection(one, outbox_bytes_max=1 << 20, now=0, flush=flush) for one in transports]
    running = [asyncio.create_task(line.run(difference)) for line in lines]
    await turns()

    for number in range(10):
        for line in lines:
            line.relay(b"%d" % number)
    await turns(2)

    assert [one.writes for one in transports] == [1, 1, 1]
    assert all(one.frames == [b"%d" % number for number in range(10)] for one in transports)
    assert all(line.idle for line in lines)
    for task in running:
        task.cancel()


@in_virtual_time
async def test_a_client_that_can_not_be_written_to_is_closed_and_holds_up_nobody() -> None:
    class Broken(FakeTransport):
        def write_wire(self, wire: bytes) -> None:
            raise RuntimeError("a bug")

    flush, transports = Flush(), [Broken(short=True), FakeTransport(short=True)]
    lines = [Connection(one, outbox_bytes_max=1 << 20, now=0, flush=flush) for one in transports]
    running = [asyncio.create_task(line.run(difference)) for line in lines]
    await turns()

    for line in lines:
        line.relay(b"x")
    await turns()

    assert transports[0].closed == (1011, "internal error")
    assert transports[1].frames == [b"x"]
    for task in running:
        task.cancel()


@in_virtual_time
async def test_what_is_more_than_one_write_waits_for_the_client_to_read() -> None:
    transport = Short(short=True)
    line = Connection(transport, outbox_bytes_max=1 << 20, now=0, flush=Flush())
    running = asyncio.create_task(line.run(difference))
    await turns()

    for _ in range(8):
        line.relay(b"x" * (FLUSH_BYTES // 4))
    transport.on_frame = lambda: len(transport.frames) == 5 and transport.block()
    await turns()
    # One of the others is on the long way, which waits for the client.
    assert (transport.writes, len(transport.frames), line.outbox_bytes) == (1, 5, FLUSH_BYTES // 2)

    transport.on_frame = lambda: None
    transport.resume()
    await turns()
    assert (transport.writes, len(transport.frames)) == (2, 8)
    running.cancel()


@in_virtual_time
async def test_a_client_that_does_not_read_holds_no_more_than_the_bound() -> None:
    line = Line(window=0)
    await turns()

    sizes = []
    for _ in range(50):
        line.connection.relay(b"x" * 30)
        await turns(1)
        sizes.append(line.connection.outbox_bytes)

    assert max(sizes) <= 100
    assert line.connection.behind
    assert line.connection.outbox_bytes == 0


@in_virtual_time
async def test_a_client_that_was_behind_gets_one_difference_when_it_reads_again() -> None:
    line = Line(window=0)
    line.connection.had = b"A"
    line.connection.relay(b"first")
    await turns()
    for _ in range(50):
        line.connection.relay(b"x" * 30)

    line.transport.resume()
    await turns()
    line.connection.relay(b"afterwards")
    await turns()

    assert line.transport.frames == [b"first", b"difference from A because behind", b"afterwards"]
    assert not line.connection.behind


@in_virtual_time
async def test_a_frame_larger_than_the_outbox_makes_the_client_catch_up() -> None:
    line = Line()

    line.connection.relay(b"x" * 101)
    await turns()

    assert line.transport.frames == [b"difference from \x00 because behind"]


@in_virtual_time
async def test_asking_often_without_reading_is_answered_once_from_the_last_state_vector() -> None:
    line = Line(window=0)
    line.connection.relay(b"first")
    await turns()

    for n in range(1000):
        line.connection.answer_sync(b"%d" % n)
        line.connection.answer_who()
    line.transport.resume()
    await turns()

    assert line.transport.frames == [b"first", b"difference from 999 because step_2+who"]
    assert line.connection.synced


@in_virtual_time
async def test_a_query_of_who_is_here_does_not_count_as_synced() -> None:
    line = Line()

    line.connection.answer_who()
    await turns()

    assert line.transport.frames == [b"difference from \x00 because who"]
    assert not line.connection.synced


@in_virtual_time
async def test_confirmations_survive_being_behind() -> None:
    line = Line(window=0)
    line.connection.relay(b"first")
    await turns()

    for n in range(20):
        line.connection.expect_confirm()
        line.connection.confirm(b"%d" % n)
        line.connection.relay(b"x" * 30)
    line.transport.resume()
    await turns()

    assert line.transport.frames[:2] == [b"first", b"difference from \x00 because behind"]
    assert line.transport.frames[2:] == [encode_confirm(b"%d" % n) for n in range(20)]


@in_virtual_time
async def test_the_confirmations_that_one_client_may_wait_for_are_bounded() -> None:
    line = Line()
    for _ in range(CONFIRMS_MAX):
        line.connection.expect_confirm()

    with pytest.raises(StoreBehind):
        line.connection.expect_confirm()
    line.connection.confirm(b"t")
    await turns()
    line.connection.expect_confirm()


@in_virtual_time
async def test_nothing_is_sent_after_a_close_was_asked_for() -> None:
    line = Line(window=0)
    for frame in (b"1", b"2", b"3"):
        line.connection.relay(frame)
    await turns()

    line.connection.close(1013, "later")
    line.connection.close(1000, "other")
    line.connection.relay(b"4")
    line.connection.answer_sync(b"")
    line.connection.confirm(b"t")
    line.transport.resume()
    await line.task

    assert line.transport.frames == [b"1"], "it was on its way"
    assert line.transport.closed == (1013, "later"), "the first reason"
    assert line.connection.outbox_bytes == 0


@in_virtual_time
async def test_a_connection_that_is_closed_before_it_runs_says_only_that() -> None:
    line = Line()

    line.connection.relay(b"1")
    line.connection.close(1012, "draining")
    await line.task

    assert (line.transport.frames, line.transport.closed) == ([], (1012, "draining"))


@in_virtual_time
async def test_a_client_that_does_not_even_take_the_close_frame_is_dropped() -> None:
    loop = asyncio.get_running_loop()
    line = Line(window=0)
    line.connection.relay(b"1")
    await turns()
    began = loop.time()

    line.connection.close(1013, "slow")
    await asyncio.wait([line.task])

    assert line.transport.aborted
    assert line.transport.closed is None
    assert loop.time() - began == pytest.approx(CLOSE_TIMEOUT_S)


@in_virtual_time
async def test_a_lost_client_ends_the_run_quietly() -> None:
    line = Line(window=0)
    line.connection.relay(b"1")
    await turns()

    line.transport.lose()

    await line.task
    assert line.transport.frames == []


@in_virtual_time
async def test_a_closed_connection_leaves_no_timer_behind() -> None:
    line = Line()
    line.connection.close(1000, "")
    await line.task

    await asyncio.sleep(CLOSE_TIMEOUT_S * 2)

    assert not line.transport.aborted


@in_virtual_time
async def test_a_room_that_breaks_while_it_answers_closes_the_client() -> None:
    transport = FakeTransport()
    connection = Connection(transport, outbox_bytes_max=100, now=0)

    async def fail(_: Wants) -> list[bytes]:
        raise DocumentBroken("broken")

    connection.answer_sync(b"\x00")
    await connection.run(fail)

    assert (transport.frames, transport.closed) == ([], (1011, "room reloading"))


@in_virtual_time
async def test_a_bug_in_making_an_answer_closes_the_client_rather_than_leaving_it_without_a_writer() -> None:
    async def fail(_: Wants) -> list[bytes]:
        raise ZeroDivisionError

    transport = FakeTransport()
    connection = Connection(transport, outbox_bytes_max=100, now=0)
    connection.answer_sync(b"\0")

    await connection.run(fail)

    assert transport.closed == (1011, "internal error")


@in_virtual_time
async def test_a_client_that_takes_nothing_for_long_is_closed() -> None:
    line = Line(window=0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    line.connection.relay(b"1")
    await turns()

    line.connection.check(now=began + 29, stalled_max_s=30)
    before = line.connection.closing
    line.connection.check(now=began + 30, stalled_max_s=30)

    assert before is None
    assert line.connection.closing == (SlowReader.close_code, SlowReader.reason)
    line.transport.resume()
    await line.task


@in_virtual_time
async def test_a_client_that_reads_slowly_is_not_closed() -> None:
    line = Line(window=0, outbox_bytes_max=1000)
    loop = asyncio.get_running_loop()
    for _ in range(10):
        line.connection.relay(b"1")

    for _ in range(8):
        await asyncio.sleep(25)
        line.transport.resume(1)
        await turns()
        line.connection.check(now=loop.time(), stalled_max_s=30)

    assert line.connection.closing is None
    assert len(line.transport.frames) == 8


@in_virtual_time
async def test_a_client_that_has_nothing_to_read_is_not_closed() -> None:
    line = Line()
    await turns()

    for n in range(10):
        line.connection.check(now=1000.0 + 100 * n, stalled_max_s=30)

    assert line.connection.closing is None


@in_virtual_time
async def test_what_the_transport_still_holds_counts_as_not_taken() -> None:
    line = Line()
    now = asyncio.get_running_loop().time()
    line.connection.relay(b"1")
    await turns()
    line.transport.buffered = 5000

    line.connection.check(now=now + 10, stalled_max_s=30)
    line.transport.buffered = 4000
    line.connection.check(now=now + 35, stalled_max_s=30)
    trickling = line.connection.closing
    line.connection.check(now=now + 65, stalled_max_s=30)

    assert trickling is None
    assert line.connection.closing is not None


@in_virtual_time
async def test_the_last_frame_is_timed() -> None:
    line = Line()
    loop = asyncio.get_running_loop()
    await asyncio.sleep(7)

    line.connection.relay(b"1")
    await turns()

    assert line.connection.sent_at == loop.time()


@in_virtual_time
async def test_a_client_is_idle_only_when_nothing_waits_for_it() -> None:
    line = Line(window=0)
    await turns()
    idle = [line.connection.idle]
    line.connection.relay(b"1")
    idle.append(line.connection.idle)
    await turns()
    idle.append(line.connection.idle)

    line.transport.resume()
    await turns()

    assert [*idle, line.connection.idle] == [True, False, False, True]


@in_virtual_time
async def test_a_client_that_falls_behind_is_counted_with_what_it_is_not_sent_and_when_it_has_caught_up() -> None:
    line = Line(window=0)
    taken = [line.connection.relay(b"x" * 40) for _ in range(2)]
    await turns()
    too_much = [line.connection.relay(b"x" * 40) for _ in range(4)]
    behind = line.metrics.outbox_drops, line.metrics.outbox_dropped_messages, line.metrics.outbox_heals
    line.transport.resume()
    await turns()

    assert (taken, too_much) == ([True, True], [True, False, False, False])
    # One is being sent.
    assert behind == (1, 2, 0)
    assert line.metrics.outbox_heals == 1


@in_virtual_time
async def test_what_waits_for_a_client_that_is_closed_or_lost_is_counted_as_dropped() -> None:
    closed, lost = Line(window=0), Line(window=0)
    for line in (closed, lost):
        for _ in range(3):
            line.connection.relay(b"x")
        await turns()

    closed.connection.close(1012, "bye")
    lost.task.cancel()
    await turns()

    assert (closed.metrics.outbox_dropped_messages, lost.metrics.outbox_dropped_messages) == (2, 2)
    assert closed.metrics.outbox_drops == 0


@in_virtual_time
async def test_answers_and_notices_are_counted_when_they_are_sent() -> None:
    line = Line()
    line.connection.notify(b"\x00\x00\x01\x00")
    line.connection.expect_confirm()
    line.connection.confirm(b"c")
    await turns()

    sent = line.metrics.sent
    assert dict(zip(KINDS, sent.messages, strict=True)) == {**dict.fromkeys(KINDS, 0), "sync_step_1": 1, "confirm": 1}
    assert sum(sent.size) == sum(map(len, line.transport.frames))


@in_virtual_time
async def test_a_timed_frame_shows_how_long_it_took_to_be_sent() -> None:
    line = Line(window=0)
    line.connection.relay(b"before")
    await turns()
    frame = Relayed(b"x")
    frame.received_at = asyncio.get_running_loop().time()
    line.connection.relay(frame)
    await asyncio.sleep(2)
    line.transport.resume()
    await turns()

    assert line.transport.frames == [b"before", b"x"]
    assert (sum(line.metrics.delivery_seconds.counts), line.metrics.delivery_seconds.sum) == (1, 2.0)
