"""Spans as a collector gets them, and what it costs if there is none."""

import asyncio
import builtins
import logging
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from crdt_sync import InvalidSettings, Settings, create_app, otlp, tracing
from crdt_sync.journal import Journal
from crdt_sync.otlp import OtlpTracer
from persistence.memory import MemoryStore
from tests.support.collector import Collector

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@asynccontextmanager
async def tracer_to(url: str, *, sample: float = 1) -> AsyncIterator[OtlpTracer]:
    tracer = OtlpTracer(url, sample=sample)
    tracer.open("0011223344556677")
    try:
        yield tracer
    finally:
        await tracer.close()


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# ------------------------------------------------------------------------------------------------- spans


async def test_a_piece_of_work_its_parts_and_its_steps_make_a_trace() -> None:
    with Collector() as collector:
        async with tracer_to(collector.url) as tracer:
            span = tracer.sample("receive", link=PARENT)
            assert span is not None
            span.describe(room="trip-1", size=3)
            with tracing.within(span):
                assert tracing.current.get() is span
                span.step("apply")
                span.child("journal").end()
                span.step("relay", receivers=2)
            assert tracing.current.get() is None

    [receive] = collector.named("receive", room="trip-1", size=3)
    below = collector.below(receive)
    assert sorted(below) == ["apply", "journal", "relay"]
    [apply], [relay] = below["apply"], below["relay"]
    assert receive.start <= apply.start <= apply.end == relay.start <= relay.end <= receive.end
    assert (receive.parent, receive.links) == ("", ((PARENT[3:35], PARENT[36:52]),))
    assert span.traceparent == f"00-{receive.trace}-{receive.id}-01"
    assert span.trace == receive.trace
    assert relay.attributes == {"crdt_sync.receivers": 2}
    assert receive.resource["service.name"] == "crdt-sync"
    assert receive.resource["service.instance.id"] == "0011223344556677"
    assert collector.paths == {"/v1/traces"}


async def test_work_for_a_peer_is_part_of_its_trace() -> None:
    with Collector() as collector:
        async with tracer_to(collector.url, sample=0) as tracer:
            followed = tracer.follow("follow", PARENT)
            assert followed is not None
            followed.end()
            assert tracer.sample("receive") is None

    [seen] = collector.spans
    assert (seen.trace, seen.parent) == (PARENT[3:35], PARENT[36:52])


@pytest.mark.parametrize(
    "given",
    [
        PARENT[:-1] + "0",  # not sampled
        "",
        "nonsense",
        PARENT.upper(),
        PARENT[:-3],
        PARENT + "-more",  # version 00 has no more
        "ff" + PARENT[2:],
        PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        PARENT.replace("00f067aa0ba902b7", "0" * 16),
        PARENT + "\n" + PARENT,
        "00-" + "a" * 100_000,
    ],
)
async def test_what_is_no_sampled_trace_is_not_followed(given: str) -> None:
    async with tracer_to("http://127.0.0.1:1") as tracer:
        assert tracer.follow("follow", given) is None
        linked = tracer.sample("receive", link=given)
        assert linked is not None


async def test_a_newer_version_of_traceparent_is_understood() -> None:
    async with tracer_to("http://127.0.0.1:1") as tracer:
        followed = tracer.follow("follow", "01" + PARENT[2:] + "-more")
        assert followed is not None
        assert followed.trace == PARENT[3:35]


async def test_work_that_fails_is_told_apart_and_its_text_is_not_told() -> None:
    with Collector() as collector:
        async with tracer_to(collector.url) as tracer:
            with pytest.raises(ValueError, match="secret"), tracing.within(tracer.sample("receive")):
                raise ValueError("secret")
            with tracing.within(tracer.sample("connect")) as connected:
                connected()
                assert tracing.current.get() is None

    [receive], [connect] = collector.named("receive"), collector.named("connect")
    assert (receive.failed, connect.failed) == (True, False)
    assert receive.attributes == {"error.type": "ValueError"}


async def test_a_frame_of_thousands_of_messages_is_one_span_with_a_bounded_number_of_steps() -> None:
    with Collector() as collector:
        async with tracer_to(collector.url) as tracer:
            span = tracer.sample("receive")
            assert span is not None
            for _ in range(5000):
                span.step("apply")
            span.end()

    assert len(collector.spans) == otlp.STEPS_MAX + 1


async def test_such_a_share_is_sampled() -> None:
    tracer = OtlpTracer("http://127.0.0.1:1", sample=0.1)

    assert 700 < sum(tracer.sample("receive") is not None for _ in range(10_000)) < 1300


async def test_a_commit_is_traced_once_for_each_message_that_brought_something() -> None:
    store = MemoryStore()
    await store.open()
    with Collector() as collector:
        async with tracer_to(collector.url) as tracer:
            journal = Journal(store, interval_s=0, bytes_max=1 << 20, traced=True)
            task = asyncio.create_task(journal.run())
            with tracing.within(tracer.sample("receive")):
                journal.add(Told(), b"\x00\x00")
                first_added = time.time_ns()
                for _ in range(99):
                    journal.add(Told(), b"\x00\x00")
            journal.add(Told(), b"\x00\x00")
            await journal.flush()
            task.cancel()

    [receive] = collector.named("receive")
    [kept] = collector.below(receive)["journal"]
    [commit] = collector.below(kept)["commit"]
    assert kept.start <= first_added, "one span, from the first of them on"
    assert kept.start <= commit.start <= commit.end <= kept.end
    assert len(collector.spans) == 3


class Told:
    name = "trip-1"

    def stored(self, seq: int, count: int) -> None:
        pass


# ------------------------------------------------------------------------------------------------- the collector


async def test_a_collector_that_is_away_costs_one_warning_and_no_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(otlp, "EXPORT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(otlp, "DELAY_S", 0.02)
    monkeypatch.setattr(otlp, "CLOSE_TIMEOUT_S", 0.5)
    caplog.set_level(logging.INFO, "crdt_sync.tracing")
    port = unused_port()
    longest_s = 0.0

    def told() -> list[str]:
        return [record.message for record in caplog.records if record.name == "crdt_sync.tracing"]

    async with tracer_to(f"http://ann:s3cret@127.0.0.1:{port}") as tracer:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            began_at = time.thread_time()
            for _ in range(10):
                span = tracer.sample("receive")
                assert span is not None
                span.end()
            longest_s = max(longest_s, time.thread_time() - began_at)
            await asyncio.sleep(0.005)
        assert told() == ["tracing_unavailable"]
        assert longest_s < 0.1
        with Collector(port) as collector:
            async with asyncio.timeout(10):
                while "tracing_recovered" not in told():
                    tracer.sample("receive").end()  # type: ignore[union-attr]
                    await asyncio.sleep(0.02)
            assert collector.spans
        closing_at = time.monotonic()
    assert time.monotonic() - closing_at < 3
    assert "s3cret" not in str([vars(record) for record in caplog.records if record.name == "crdt_sync.tracing"])


async def test_a_server_stops_while_its_collector_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "CLOSE_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        tracer = OtlpTracer(f"http://127.0.0.1:{hanging.getsockname()[1]}", sample=1)
        tracer.open(None)
        tracer.sample("receive").end()  # type: ignore[union-attr]

        began_at = time.monotonic()
        await tracer.close()

        assert time.monotonic() - began_at < 2


async def test_a_path_and_credentials_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=abc")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "trips")
    with Collector() as collector:
        async with tracer_to(f"{collector.url}/otlp/traces?tenant=1") as tracer:
            tracer.sample("receive").end()  # type: ignore[union-attr]

    assert collector.paths == {"/otlp/traces?tenant=1"}
    assert collector.headers[0]["x-key"] == "abc"
    assert collector.spans[0].resource["service.name"] == "trips"


# ------------------------------------------------------------------------------------------------- configuring


def test_without_the_libraries_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    really = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(f"No module named {name!r}")
        return really(name, *rest)

    monkeypatch.delitem(sys.modules, "crdt_sync.otlp")
    monkeypatch.setattr(builtins, "__import__", without)
    settings = Settings.read(trace_url="http://127.0.0.1:4318")

    with pytest.raises(InvalidSettings, match=r"run pip install 'crdt-sync\[tracing\]', or unset it"):
        create_app(settings)


def test_nothing_of_it_is_imported_unless_it_is_configured() -> None:
    script = (
        "import sys; from crdt_sync import Settings, create_app; create_app(Settings.read()); "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("url", ["collector:4318", "grpc://collector:4317", "http://", ""])
def test_what_is_no_url_of_a_collector_is_refused(url: str) -> None:
    with pytest.raises(InvalidSettings, match="begins with http:// or https://, and names a host"):
        Settings.read(trace_url=url)
