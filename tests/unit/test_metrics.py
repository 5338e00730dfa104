"""What is counted, and what Prometheus reads of it."""

import asyncio
import json
import logging
import re
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from crdt_sync.limits import Limits
from crdt_sync.load import Load
from crdt_sync.metrics import (
    DEFINITIONS,
    PREFIX,
    Distribution,
    ErrorCounter,
    Histogram,
    Metrics,
    Sample,
    from_json,
    render,
)
from crdt_sync.protocol import KINDS
from crdt_sync.settings import Settings
from tests.support.fakes import Client, Editor, in_virtual_time, running_node, turns

# ------------------------------------------------------------------------------------------------- what is counted


@in_virtual_time
async def test_loading_storing_and_compacting_are_timed_and_failures_of_the_store_counted() -> None:
    async with running_node(checkpoint_interval_s=5) as node:
        ann = await Client().connect(node)
        loaded = total(node.metrics.load_seconds)
        node.store.fail("append", times=2)
        node.store.fail("checkpoint", times=1)
        ann.edit(Editor(1).type("x"))
        await ann.delivered()
        await asyncio.sleep(3)
        stored = total(node.metrics.commit_seconds), total(node.metrics.confirm_seconds)
        errors = node.metrics.store_errors
        await asyncio.sleep(12)

        assert loaded == 1
        assert (stored, errors) == ((1, 1), 2)
        # From when it was accepted, with both failures: 0.1 s and 0.2 s.
        assert node.metrics.confirm_seconds.sum == pytest.approx(0.3, abs=0.05)
        assert (total(node.metrics.checkpoint_seconds), node.metrics.store_errors) == (1, 3)


@in_virtual_time
async def test_what_is_relayed_counts_for_those_who_are_not_behind() -> None:
    async with running_node(outbox_bytes_max=1024) as node:
        ann, bob, _ = [await Client().connect(node) for _ in range(3)]
        await turns()
        bob.transport.block()
        types = Editor(1)
        before = list(node.metrics.sent.messages)
        for _ in range(3):
            ann.edit(types.type("x" * 600))
            await ann.delivered()
            await turns()

        update = KINDS.index("update")
        # To Bob one that is being sent, one that waits and is dropped with the third, which isn't counted.
        assert node.metrics.sent.messages[update] - before[update] == 5
        assert (node.metrics.fan_out.counts[:4], node.metrics.fan_out.sum) == ([0, 1, 2, 0], 5)
        assert bob.connection.behind


@in_virtual_time
async def test_the_journal_tells_how_old_its_oldest_update_is() -> None:
    async with running_node() as node:
        ann = await Client().connect(node)
        node.store.hold("append")
        now = asyncio.get_running_loop().time
        at_first = node.journal.backlog_age_s(now=now())
        ann.edit(Editor(1).type("x"))
        await ann.delivered()
        await asyncio.sleep(7)
        behind = node.journal.backlog_age_s(now=now())
        node.store.let_go("append")
        await asyncio.sleep(1)

        assert (at_first, behind, node.journal.backlog_age_s(now=now())) == (0, pytest.approx(7), 0)


@in_virtual_time
async def test_apply_time_and_delivery_are_sampled_whenever_it_is_looked_how_late_the_loop_is() -> None:
    async with running_node() as node:
        ann, _ = await Client().connect(node), await Client().connect(node)
        types = Editor(1)

        async def type_some() -> int:
            for _ in range(5):
                ann.edit(types.type("x"))
                await ann.delivered()
            return total(node.metrics.apply_seconds)

        first = await type_some()
        node.metrics.sample(0.003)
        second = await type_some()

        assert (first, second) == (1, 2)
        assert (total(node.metrics.loop_lag_seconds), node.metrics.loop_lag_seconds.sum) == (1, 0.003)
        assert not node.metrics.sample_delivery


async def test_how_late_the_loop_is_is_looked_at_twenty_times_a_second() -> None:
    metrics = Metrics()
    settings = Settings()
    running = asyncio.create_task(Load(settings, Limits(settings), metrics).run())
    await asyncio.sleep(0.11)
    time.sleep(0.3)  # noqa: ASYNC251 - that is what is looked for
    await asyncio.sleep(0.06)
    running.cancel()

    assert total(metrics.loop_lag_seconds) >= 2
    assert 0.2 < metrics.loop_lag_seconds.sum < 5


def test_lines_at_error_are_counted_where_logging_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    counter = ErrorCounter(metrics)
    counter.attach()
    logging.getLogger("crdt_sync.test").warning("no")
    logging.getLogger("crdt_sync.test").error("yes")
    logging.getLogger("persistence.test").critical("yes")
    counter.detach()
    logging.getLogger("crdt_sync.test").error("too late")
    # Python prints warnings by itself only as long as nobody handles them.
    monkeypatch.setattr(logging.root, "handlers", [])
    counter.attach()

    assert metrics.server_errors == 2
    assert logging.root.handlers == []


def total(histogram: Histogram) -> int:
    return sum(histogram.counts)


# ------------------------------------------------------------------------------------------------- how it is told


def values(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a scrape says, by name and labels."""
    return {
        (sample.name.removeprefix(PREFIX), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def series(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_a_histogram_counts_each_value_up_to_its_bound() -> None:
    histogram = Histogram((1, 2, 5))

    for value in (0, 1, 1.5, 5, 6):
        histogram.observe(value)

    assert (histogram.counts, histogram.sum) == ([2, 1, 1, 1], 13.5)


def test_a_scrape_tells_what_was_counted_and_what_was_read() -> None:
    metrics = Metrics()
    metrics.outbox_drops += 2
    metrics.fan_out.observe(3)
    metrics.received.messages[2] += 1
    metrics.refusals["unauthorized"] += 4

    told = values(render({"0": metrics.snapshot([Sample("rooms", (), 7)])}, "")[0])

    assert told[series("outbox_drops_total", worker="0")] == 2
    assert told[series("rooms", worker="0")] == 7
    assert told[series("messages_total", worker="0", direction="in", kind="update")] == 1
    assert told[series("refusals_total", worker="0", reason="unauthorized")] == 4
    assert told[series("fan_out_bucket", worker="0", le="2.0")] == 0
    assert told[series("fan_out_bucket", worker="0", le="5.0")] == 1
    assert told[series("fan_out_bucket", worker="0", le="+Inf")] == 1
    assert told[series("fan_out_sum", worker="0")] == 3


def test_unusual_closing_codes_share_a_series() -> None:
    metrics = Metrics()

    for code in (1000, 1006, 3999, 4404, 4999, -1):
        metrics.note_close(code)

    assert {code: count for code, count in metrics.closes.items() if count} == {
        "1000": 1,
        "1006": 1,
        "4404": 1,
        "other": 3,
    }


def test_a_snapshot_survives_json() -> None:
    metrics = Metrics()
    metrics.commit_seconds.observe(0.25)
    snapshot = metrics.snapshot([Sample("build_info", ("1", "2", "3"), 1)])

    again = from_json(json.loads(json.dumps(snapshot)))

    assert render({"0": again}, "") == render({"0": snapshot}, "")
    assert Sample("fan_out", [], Distribution([0] * 13, 0.0)) in again


def test_workers_are_told_apart_within_one_family() -> None:
    text, _ = render({"0": [Sample("rooms", (), 1)], "1": [Sample("rooms", (), 2)]}, "")

    assert text.decode().count("# TYPE crdt_sync_rooms ") == 1
    assert values(text) == {series("rooms", worker="0"): 1, series("rooms", worker="1"): 2}


def test_openmetrics_is_told_to_who_asks_for_it() -> None:
    text, content_type = render({"0": Metrics().snapshot([])}, "application/openmetrics-text;version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_names_and_help_keep_the_conventions() -> None:
    for one in DEFINITIONS:
        assert re.fullmatch(r"[a-z_]+", one.name)
        assert one.name.endswith("_total") == (one.type == "counter"), one.name
        assert one.help.endswith("."), one.name
        assert (one.bounds != ()) == (one.type == "histogram"), one.name
        assert list(one.bounds) == sorted(set(one.bounds)), one.name
        assert "room" not in one.labels, one.name
        assert "user" not in one.labels, one.name
