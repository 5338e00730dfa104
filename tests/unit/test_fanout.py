"""When what goes to everybody in a room goes out, to whom, and in how many writes."""

import asyncio
import itertools
from collections.abc import Iterable

import pytest

from crdt_sync.connection import FLUSH_BYTES, Connection, Flush, Relayed, Wants
from crdt_sync.fanout import BATCH_BYTES, ENOUGH, LARGE, SPACING_MIN_S, SPACING_S, Fanout
from crdt_sync.metrics import Metrics
from crdt_sync.protocol import AWARENESS_KIND, UPDATE_KIND, encode_awareness, encode_update
from tests.support.fakes import FakeTransport, in_virtual_time, turns


class Writes(FakeTransport):
    """Also keeps when it was written to."""

    def __init__(self, *, window: int | None = None) -> None:
        super().__init__(window=window, short=True)
        self.writes: list[tuple[float, int]] = []

    def write_wire(self, wire: bytes) -> None:
        before = len(self.frames)
        super().write_wire(wire)
        self.writes.append((asyncio.get_running_loop().time(), len(self.frames) - before))


class Crowd:
    """Clients of one room."""

    def __init__(self, count: int, *, outbox_bytes_max: int = 1 << 20) -> None:
        self.metrics = Metrics()
        self.flush = Flush()
        self.outbox_bytes_max = outbox_bytes_max
        self.sockets: dict[Connection, Writes] = {}
        self.fanout = Fanout(self.sockets.keys(), self.metrics, outbox_bytes_max=outbox_bytes_max)
        self.clients = [self.join() for _ in range(count)]

    def join(self, *, window: int | None = None) -> Connection:
        socket = Writes(window=window)
        client = Connection(
            socket,
            outbox_bytes_max=self.outbox_bytes_max,
            now=asyncio.get_running_loop().time(),
            metrics=self.metrics,
            flush=self.flush,
        )
        client.start(nothing)
        self.fanout.flush()
        self.sockets[client] = socket
        return client

    def heard(self, client: Connection) -> list[bytes]:
        return self.sockets[client].frames

    def sent(self, kind: int) -> tuple[int, int]:
        """Messages and bytes, as counted."""
        sent = self.metrics.sent
        return sent.messages[kind], sent.size[kind]


async def nothing(wants: Wants) -> Iterable[bytes]:
    return [b"difference"]


def update(n: int = 0, size: int = 10) -> Relayed:
    return Relayed(encode_update(b"%06d" % n + bytes(size)))


@in_virtual_time
async def test_in_a_small_room_what_comes_in_one_turn_goes_out_at_its_end_in_one_write() -> None:
    crowd = Crowd(LARGE - 1)
    now = asyncio.get_running_loop().time()

    for n in range(6):
        if n == 3:
            await asyncio.sleep(0)
        crowd.fanout.relay(update(n))
    await asyncio.sleep(0)

    for client in crowd.clients:
        assert crowd.heard(client) == [update(n) for n in range(6)]
        assert crowd.sockets[client].writes == [(now, 3), (now, 3)]


@in_virtual_time
async def test_in_a_large_room_the_first_goes_out_at_once_and_what_follows_is_spaced() -> None:
    crowd = Crowd(LARGE)
    loop = asyncio.get_running_loop()
    began_at = loop.time()

    for n in range(20):
        crowd.fanout.relay(update(n))
        await asyncio.sleep(SPACING_S / 5)
    await asyncio.sleep(SPACING_S * 2)
    crowd.fanout.relay(update(20))
    await asyncio.sleep(0)

    (client, *_) = crowd.clients
    assert crowd.heard(client) == [update(n) for n in range(21)]
    writes = [(at - began_at, count) for at, count in crowd.sockets[client].writes]
    assert writes[0] == (0, 1)
    assert len(writes) <= 6
    assert all(later - earlier >= SPACING_S * 0.99 for (earlier, _), (later, _) in itertools.pairwise(writes))
    # After a quiet time, nothing is waited for.
    assert writes[-1][0] == pytest.approx(SPACING_S * 6)


@in_virtual_time
async def test_when_enough_has_come_it_is_not_kept_waiting_but_writes_are_still_spaced() -> None:
    crowd = Crowd(LARGE)
    began_at = asyncio.get_running_loop().time()
    crowd.fanout.relay(update(0))
    await asyncio.sleep(0)

    for n in range(1, 1 + ENOUGH * 2):
        crowd.fanout.relay(update(n))
    await asyncio.sleep(SPACING_S * 0.99)

    writes = [(at - began_at, count) for at, count in crowd.sockets[crowd.clients[0]].writes]
    assert writes == [(0, 1), (pytest.approx(SPACING_MIN_S), ENOUGH * 2)]


@in_virtual_time
async def test_nothing_waits_longer_than_the_spacing() -> None:
    crowd = Crowd(LARGE)
    loop = asyncio.get_running_loop()
    crowd.fanout.relay(update(0))
    await asyncio.sleep(0)

    asked_at = loop.time()
    crowd.fanout.relay(update(1))
    await asyncio.sleep(SPACING_S * 1.01)

    assert crowd.heard(crowd.clients[0])[-1] == update(1)
    assert crowd.sockets[crowd.clients[0]].writes[-1][0] - asked_at <= SPACING_S


@in_virtual_time
async def test_a_large_batch_is_not_kept_waiting() -> None:
    crowd = Crowd(LARGE)
    crowd.fanout.relay(update(0))
    await asyncio.sleep(0)

    crowd.fanout.relay(update(1, BATCH_BYTES // 2))
    crowd.fanout.relay(update(2, BATCH_BYTES // 2))

    assert len(crowd.heard(crowd.clients[0])) == 3


@in_virtual_time
async def test_what_follows_upon_a_large_batch_is_spaced_again() -> None:
    crowd = Crowd(LARGE)
    crowd.fanout.relay(update(0))
    await asyncio.sleep(0)
    crowd.fanout.relay(update(1, BATCH_BYTES))
    crowd.fanout.relay(update(2))

    for n in range(3, 6):
        crowd.fanout.relay(update(n))

    heard = len(crowd.heard(crowd.clients[0]))
    await asyncio.sleep(SPACING_S * 2)
    assert heard == 2
    assert len(crowd.heard(crowd.clients[0])) == 6


@in_virtual_time
async def test_a_batch_that_had_to_go_early_is_not_waited_for_any_more() -> None:
    crowd = Crowd(LARGE)
    crowd.fanout.relay(update(0))
    await asyncio.sleep(0)
    crowd.fanout.relay(update(1))
    await asyncio.sleep(SPACING_S / 2)

    crowd.fanout.flush()
    crowd.fanout.relay(update(2))
    await asyncio.sleep(SPACING_S * 0.75)

    assert len(crowd.heard(crowd.clients[0])) == 2
    await asyncio.sleep(SPACING_S / 2)
    assert len(crowd.heard(crowd.clients[0])) == 3


@in_virtual_time
async def test_nobody_hears_its_own_whoever_else_is_in_the_batch() -> None:
    crowd = Crowd(LARGE)
    ann, bob, *others = crowd.clients
    crowd.fanout.relay(update(0))
    await asyncio.sleep(0)

    for n, sender in enumerate([ann, bob, None, ann, bob], start=1):
        crowd.fanout.relay(update(n), sender)
    await asyncio.sleep(SPACING_S * 2)

    assert crowd.heard(ann)[1:] == [update(n) for n in (2, 3, 5)]
    assert crowd.heard(bob)[1:] == [update(n) for n in (1, 3, 4)]
    for other in others:
        assert crowd.heard(other)[1:] == [update(n) for n in range(1, 6)]
    assert [[count for _, count in crowd.sockets[each].writes] for each in (ann, bob, others[0])] == [
        [1, 3],
        [1, 3],
        [1, 5],
    ]


@in_virtual_time
async def test_who_wrote_all_of_it_is_not_taken_for_somebody_who_was_sent_something() -> None:
    crowd = Crowd(2)
    ann, _ = crowd.clients
    await asyncio.sleep(10)
    sent_at = ann.sent_at

    crowd.fanout.relay(update(0), ann)
    await turns()

    # Or it would get no keep-alive while it is the only one to type.
    assert ann.sent_at == sent_at
    assert crowd.sockets[ann].writes == []


@in_virtual_time
async def test_who_joins_gets_nothing_of_the_batch_before_it() -> None:
    crowd = Crowd(LARGE)
    crowd.fanout.relay(update(0))
    await asyncio.sleep(0)

    crowd.fanout.relay(update(1))
    late = crowd.join()
    crowd.fanout.relay(update(2))
    await asyncio.sleep(SPACING_S * 3)

    assert crowd.heard(late) == [update(2)]
    assert crowd.heard(crowd.clients[0]) == [update(n) for n in range(3)]


@in_virtual_time
async def test_a_sender_that_has_left_is_no_trouble() -> None:
    crowd = Crowd(LARGE)
    gone = crowd.clients.pop()

    crowd.fanout.relay(update(0), gone)
    gone.stop()
    del crowd.sockets[gone]
    await turns()

    assert [crowd.heard(client) for client in crowd.clients] == [[update(0)]] * (LARGE - 1)
    assert crowd.sent(UPDATE_KIND)[0] == LARGE - 1


@in_virtual_time
async def test_who_does_not_read_has_it_waiting_and_holds_up_nobody() -> None:
    crowd = Crowd(LARGE)
    slow = crowd.join(window=0)

    crowd.fanout.relay(update(0))
    await turns()
    crowd.fanout.relay(update(1))
    await asyncio.sleep(SPACING_S * 2)

    assert crowd.heard(slow) == []
    # One is in `send`.
    assert slow.outbox_bytes == len(update(1))
    assert len(crowd.heard(crowd.clients[0])) == 2
    crowd.sockets[slow].resume()
    await turns()
    assert crowd.heard(slow) == [update(0), update(1)]


@in_virtual_time
async def test_what_waits_already_goes_first() -> None:
    crowd = Crowd(1)
    (client,) = crowd.clients

    client.notify(b"notice")
    crowd.fanout.relay(update(0))
    await turns()

    assert crowd.heard(client) == [b"notice", update(0)]


@in_virtual_time
async def test_a_batch_that_is_larger_than_an_outbox_makes_nobody_behind_who_reads() -> None:
    crowd = Crowd(LARGE, outbox_bytes_max=100)
    crowd.fanout.relay(update(0))
    await turns()

    for n in range(1, 6):
        crowd.fanout.relay(update(n, 60))
    await asyncio.sleep(SPACING_S * 3)

    for client in crowd.clients:
        heard = crowd.heard(client)
        # All of it, or in its place the difference.
        assert heard == [update(0), *(update(n, 60) for n in range(1, 6))] or b"difference" in heard
        assert not client.behind


@in_virtual_time
async def test_a_frame_that_fits_into_no_outbox_comes_as_a_difference() -> None:
    crowd = Crowd(2, outbox_bytes_max=FLUSH_BYTES * 2)

    crowd.fanout.relay(update(0, FLUSH_BYTES * 3))
    await turns()

    assert [crowd.heard(client) for client in crowd.clients] == [[b"difference"]] * 2
    assert crowd.metrics.fan_out.sum == 0


@in_virtual_time
async def test_one_that_can_not_be_written_to_is_closed_and_the_others_hear_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crowd = Crowd(3)
    broken = crowd.clients[1]

    def fail(wire: bytes) -> None:
        raise RuntimeError("a bug")

    crowd.sockets[broken].write_wire = fail  # type: ignore[method-assign]
    crowd.fanout.relay(update(0))
    await turns()

    assert [len(crowd.heard(client)) for client in crowd.clients] == [1, 0, 1]
    assert broken.closing is not None
    assert [record.message for record in caplog.records] == ["flush_failed"]


@in_virtual_time
async def test_each_that_gets_it_is_counted_once_however_it_gets_it() -> None:
    crowd = Crowd(LARGE)
    sender, *_ = crowd.clients
    slow = crowd.join(window=0)
    closed = crowd.join()
    closed.close(1013, "")
    await turns()
    loop = asyncio.get_running_loop()

    first, second = update(1), Relayed(encode_awareness(b"state"))
    first.received_at = loop.time() - 2
    crowd.fanout.relay(first, sender)
    crowd.fanout.relay(second)
    await turns()
    crowd.sockets[slow].resume()
    await turns()

    # All but the sender and who is closed; the other goes to the sender, too.
    assert crowd.sent(UPDATE_KIND) == (LARGE, LARGE * len(first))
    assert crowd.sent(AWARENESS_KIND) == (LARGE + 1, (LARGE + 1) * len(second))
    assert (sum(crowd.metrics.fan_out.counts), crowd.metrics.fan_out.sum) == (1, LARGE)
    assert (sum(crowd.metrics.delivery_seconds.counts), crowd.metrics.delivery_seconds.sum) == (LARGE, 2.0 * LARGE)
