"""Laws of a client's way out, over any sequence of what may happen to it."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_sync.connection import Connection, Flush, Wants
from crdt_sync.protocol import encode_confirm
from tests.support.fakes import FakeTransport, run_virtually, turns

OUTBOX_BYTES_MAX = 50

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("relay"), st.integers(1, 60)),
        st.tuples(st.just("ask")),
        st.tuples(st.just("ask who")),
        st.tuples(st.just("expect")),
        st.tuples(st.just("confirm")),
        st.tuples(st.just("read"), st.integers(0, 5)),
        st.tuples(st.just("read all")),
        st.tuples(st.just("block")),
        st.tuples(st.just("turn")),
        st.tuples(st.just("close")),
    ),
    max_size=60,
)


class Room:
    """A document that is a number of edits: each has a number, and a client that hears all of them is complete."""

    def __init__(self, turns_before: int, turns_after: int) -> None:
        self.edits = 0
        self._turns = turns_before, turns_after

    async def catch_up(self, wants: Wants) -> list[bytes]:
        frames = [b"people"]
        if wants.step_2 or wants.behind:
            # Made of what there is somewhere in between.
            await turns(self._turns[0])
            frames.insert(0, b"up to %d" % self.edits)
            await turns(self._turns[1])
        return frames


@given(EVENTS, st.tuples(st.integers(0, 6), st.integers(0, 6)), st.booleans())
@settings(max_examples=600)
def test_a_client_that_reads_hears_everything_and_one_that_does_not_holds_little(
    events: list[tuple[object, ...]], pauses: tuple[int, int], short: bool
) -> None:
    run_virtually(_check(events, pauses, short=short))


async def _check(events: list[tuple[object, ...]], pauses: tuple[int, int], *, short: bool) -> None:
    room, transport = Room(*pauses), FakeTransport(short=short)
    connection = Connection(transport, outbox_bytes_max=OUTBOX_BYTES_MAX, now=0, flush=Flush())
    running = asyncio.create_task(connection.run(room.catch_up))
    expected, sent_at_close = 0, None
    confirmed: list[bytes] = []

    for event in events:
        match event:
            case ("relay", int(size)):
                room.edits += 1
                connection.relay(b"edit %d" % room.edits + b" " * size)
            case ("ask",):
                connection.answer_sync(b"\x00")
            case ("ask who",):
                connection.answer_who()
            case ("expect",):
                connection.expect_confirm()
                expected += 1
            case ("confirm",) if expected > len(confirmed):
                confirmed.append(b"%d" % len(confirmed))
                connection.confirm(confirmed[-1])
            case ("read", int(count)):
                transport.resume(count)
            case ("read all",):
                transport.resume()
            case ("block",):
                transport.block()
            case ("turn",):
                await turns(3)
            case ("close",):
                connection.close(1000, "")
                if sent_at_close is None:
                    sent_at_close = len(transport.frames)
        assert connection.outbox_bytes <= OUTBOX_BYTES_MAX
        assert connection._outbox.size == sum(map(len, connection._outbox._frames))
        assert connection._confirms_owed >= len(connection._confirms)

    transport.resume()
    await turns(300)
    if sent_at_close is not None:
        assert running.done()
        assert transport.closed == (1000, "")
        assert len(transport.frames) <= sent_at_close + 1, "nothing but what was on its way"
        return
    assert connection.idle
    assert [frame for frame in transport.frames if frame.startswith(b"\x66")] == [encode_confirm(t) for t in confirmed]
    assert connection._confirms_owed == expected - len(confirmed)
    assert heard(transport.frames) == room.edits
    running.cancel()
    await asyncio.wait([running])


def heard(frames: list[bytes]) -> int:
    """How many edits a client has that got these frames; an edit whose predecessor is missing counts as lost."""
    has = 0
    for frame in frames:
        if frame.startswith(b"up to "):
            has = max(has, int(frame[6:]))
        elif frame.startswith(b"edit "):
            number = int(frame[5:])
            assert number <= has + 1, f"edit {number} after {has}"
            has = max(has, number)
    return has
