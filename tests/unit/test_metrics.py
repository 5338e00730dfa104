"""What is counted, and what Prometheus reads of it."""

import json
import re

from prometheus_client.parser import text_string_to_metric_families

from crdt_sync.metrics import DEFINITIONS, PREFIX, Distribution, Histogram, Metrics, Sample, from_json, render


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
