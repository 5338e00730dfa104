"""Alerts and board load where they are meant to, fire when they should, and ask only for what there is."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from crdt_sync import errors, metrics
from tests.support.prometheus import Prometheus, promtool
from tests.support.server import ServerProcess
from tests.support.services import HOST, require

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/deployment"
RULES = EXAMPLES / "prometheus/alerts.yml"
ALERTS = {rule["alert"]: rule for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]}
BOARD = json.loads((EXAMPLES / "grafana/crdt-sync.json").read_text())
PAGES = [*(ROOT / "docs").rglob("*.md")]


def test_prometheus_takes_the_configurations() -> None:
    folder = EXAMPLES / "prometheus"

    said = require(lambda: promtool("check", "config", "prometheus.yml", folder=folder))

    assert f"{len(ALERTS)} rules found" in said


def test_prometheus_takes_the_job_for_kubernetes(tmp_path: Path) -> None:
    # Debian's build can't look for pods. What is done with those that were found is the same for any.
    config = (EXAMPLES / "prometheus/kubernetes.yml").read_text()
    replaced = config.replace("kubernetes_sd_configs:\n      - role: pod", "static_configs:\n      - targets: [pod]")
    (tmp_path / "kubernetes.yml").write_text(replaced)

    require(lambda: promtool("check", "config", "kubernetes.yml", folder=tmp_path))

    assert replaced != config


def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    said = require(lambda: promtool("test", "rules", "alerts_test.yml", folder=EXAMPLES / "prometheus"))

    assert "SUCCESS" in said
    fired = (EXAMPLES / "prometheus/alerts_test.yml").read_text()
    assert [name for name in ALERTS if f'alertname="{name}", alertstate="firing"' not in fired] == ["CrdtSyncDown"]
    assert "alertname: CrdtSyncDown" in fired


def test_each_alert_says_what_it_means_and_where_to_read_on() -> None:
    page = (ROOT / "docs/how-to/alerts.md").read_text()
    explained = re.findall(r"^## (CrdtSync\w+)$", page, re.MULTILINE)

    for name, rule in ALERTS.items():
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/how-to/alerts.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")
    assert explained == list(ALERTS)


def test_grafana_knows_everything_that_the_board_says() -> None:
    register_default_plugins()

    understood = json.loads(json.dumps(Dashboard.from_json(BOARD), cls=JSONEncoder))

    # What Grafana doesn't know it drops, as it would a misspelt option.
    assert list(lost(BOARD, understood)) == []


def test_the_boards_panels_lie_side_by_side_and_ask_the_provisioned_source() -> None:
    [source] = yaml.safe_load((EXAMPLES / "grafana/datasource.yaml").read_text())["datasources"]
    cells = [
        (x, y)
        for panel in BOARD["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    assert {uid for uid in values_of(BOARD, "uid") if uid != BOARD["uid"]} == {source["uid"]}


def test_prometheus_can_read_every_expression(tmp_path: Path) -> None:
    rules = [{"record": f"one:{n}", "expr": expression} for n, expression in enumerate(expressions())]
    (tmp_path / "all.yml").write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))

    said = require(lambda: promtool("check", "rules", "all.yml", folder=tmp_path))

    assert f"{len(rules)} rules found" in said


def test_every_expression_asks_for_metrics_and_labels_that_there_are() -> None:
    known = {metrics.PREFIX + one.name: one for one in metrics.DEFINITIONS}

    for expression in expressions():
        for name, selected in re.findall(r"\b(crdt_sync_\w+)(?:\{([^}]*)\})?", expression):
            definition = known.get(name) or known[re.sub(r"_(bucket|count|sum)$", "", name)]
            assert (definition.type == "histogram") == (name not in known), expression
            labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)", selected))
            assert labels <= {"instance", "namespace", "pod", "worker", "le", *definition.labels}, expression
            if definition.type != "gauge":
                assert re.search(rf"(rate|increase|resets)\({name}\b", expression), expression


def test_the_reasons_for_an_alert_are_errors_by_the_servers_fault() -> None:
    at_fault = {
        re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        for name, one in vars(errors).items()
        if isinstance(one, type) and issubclass(one, errors.SyncError) and one.status >= 500
    }

    named = {reason for text in re.findall(r'reason=~"([^"]+)"', RULES.read_text()) for reason in text.split("|")}

    assert named <= at_fault
    assert named


async def test_prometheus_reads_a_server_and_its_alerts(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        config = (EXAMPLES / "prometheus/prometheus.yml").read_text().replace("15s", "300ms").replace("10s", "300ms")
        targets = re.sub(r"targets: \[\"172.*\]", f'targets: ["{HOST}:{server.port}"]', config)
        with require(lambda: Prometheus(targets, alerts=RULES.read_text())) as prometheus:
            for name in ("crdt_sync_build_info", "crdt_sync_ready"):
                found = await until_found(prometheus, f'{name}{{job="crdt-sync"}}')
                assert [one["value"][1] for one in found] == ["1"]
            [group] = prometheus.ask("rules")["groups"]
            assert {rule["name"] for rule in group["rules"]} == set(ALERTS)
            assert {(rule["name"], rule["state"]) for rule in group["rules"] if rule["state"] == "firing"} == set()


async def until_found(prometheus: Prometheus, query: str) -> list[dict[str, Any]]:
    async with asyncio.timeout(10):
        while not (found := prometheus.ask("query", query=query)["result"]):
            await asyncio.sleep(0.1)
    return list(found)


def expressions() -> Iterator[str]:
    """All that Prometheus is ever asked: by alerts, the board, the autoscaler, and in the docs."""
    yield from (rule["expr"] for rule in ALERTS.values())
    for expression in values_of(BOARD, "expr"):
        yield expression.replace("$__rate_interval", "5m")
    [rule] = yaml.safe_load((EXAMPLES / "kubernetes/prometheus-adapter.yaml").read_text())["rules"]["custom"]
    yield rule["seriesQuery"]
    asked = rule["metricsQuery"].replace("<<.Series>>", rule["name"]["as"]).replace("<<.GroupBy>>", "pod")
    yield asked.replace("<<.LabelMatchers>>", 'pod=~"a|b",namespace="c"')
    for page in PAGES:
        for block in re.findall(r"^```promql\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            yield from filter(None, block.split("\n"))


def values_of(value: Any, name: str) -> Iterator[Any]:
    """What stands under this name, anywhere."""
    if isinstance(value, dict):
        if name in value:
            yield value[name]
        for inner in value.values():
            yield from values_of(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from values_of(inner, name)


def lost(said: Any, understood: Any, path: str = "") -> Iterator[str]:
    """Where what was understood lacks, or has otherwise, what was said."""
    if isinstance(said, dict) and isinstance(understood, dict):
        for key, value in said.items():
            if key in understood:
                yield from lost(value, understood[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(said, list) and isinstance(understood, list) and len(said) == len(understood):
        for number, (one, other) in enumerate(zip(said, understood, strict=True)):
            yield from lost(one, other, f"{path}[{number}]")
    elif said != understood:
        yield f"{path}: {said!r} became {understood!r}"
