"""What is in examples/deployment, the Dockerfile and compose.yaml is valid, and fits together and the server."""

import asyncio
import ipaddress
import json
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

from crdt_sync.keys import configured_verifier
from crdt_sync.settings import PREFIX, InvalidSettings, Settings
from tests.support.debian import find_program
from tests.support.processes import run
from tests.support.services import require

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/deployment"
KUBERNETES = EXAMPLES / "kubernetes"
VERSIONS = ("1.30", "1.37")  # the oldest that still occurs, and the newest whose schemas there are
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
MANIFESTS = {
    one["kind"]: one for file in KUSTOMIZATION["resources"] for one in [yaml.safe_load((KUBERNETES / file).read_text())]
}
POD = MANIFESTS["Deployment"]["spec"]["template"]
SERVER = POD["spec"]["containers"][0]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
NODES = [COMPOSE["services"][name] for name in ("node-1", "node-2")]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
UNIT = (EXAMPLES / "systemd/crdt-sync.service").read_text()
PROXY = (EXAMPLES / "nginx/crdt-sync-proxy.conf").read_text()
GOOD_SECRET = "of-a-test-and-of-48-characters-or-even-some-more"


# ------------------------------------------------------------------------------------------------------ Kubernetes


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", MANIFESTS)
def test_kubernetes_takes_the_manifest(kind: str, version: str) -> None:
    kubernetes_validate.validate(MANIFESTS[kind], version, strict=True)


def test_kustomization_has_every_manifest_and_makes_what_they_refer_to() -> None:
    others = {"kustomization.yaml", "prometheus-adapter.yaml"}  # the latter is for a chart
    made = {
        kind: {one["name"] for one in KUSTOMIZATION[f"{kind}Generator"]} for kind in ("configMap", "secret")
    }  # fmt: skip

    assert KUSTOMIZATION.keys() == {
        "apiVersion", "kind", "resources", "images", "configMapGenerator", "secretGenerator",
    }  # fmt: skip
    assert {file.name for file in KUBERNETES.glob("*.yaml")} == {*KUSTOMIZATION["resources"], *others}
    assert len(MANIFESTS) == len(KUSTOMIZATION["resources"])
    for container in containers():
        assert container["image"] in {image["name"] for image in KUSTOMIZATION["images"]}
        for source in container["envFrom"]:
            [(kind, reference)] = source.items()
            assert reference["name"] in made[kind.removesuffix("Ref")]
    envs = [
        file for kind in ("configMap", "secret") for one in KUSTOMIZATION[f"{kind}Generator"] for file in one["envs"]
    ]
    assert all((KUBERNETES / file).exists() or (KUBERNETES / f"{file}.example").exists() for file in envs)
    assert "secrets.env" in (ROOT / ".gitignore").read_text().split()


def test_manifests_speak_of_the_same_pods_and_ports() -> None:
    labels = POD["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in SERVER["ports"]}
    service, ingress = MANIFESTS["Service"], MANIFESTS["Ingress"]
    [path] = ingress["spec"]["rules"][0]["http"]["paths"]
    policy = MANIFESTS["NetworkPolicy"]["spec"]

    for selector in (
        MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        policy["podSelector"]["matchLabels"],
        POD["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert {port["targetPort"] for port in service["spec"]["ports"]} == {"http"}
    assert path["backend"]["service"]["name"] == service["metadata"]["name"]
    assert path["backend"]["service"]["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == set(ports)
    assert MANIFESTS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "crdt-sync"
    assert (ports["http"], ports["ops"]) == (int(image_env("PORT")), int(image_env("OPS_PORT")))
    assert {probe["httpGet"]["port"] for probe in probes()} == {"ops"}
    assert POD["spec"]["securityContext"]["runAsUser"] == int(re.findall(r"^USER (\d+)", DOCKERFILE, re.MULTILINE)[0])
    assert {mount["name"] for mount in SERVER["volumeMounts"]} == {volume["name"] for volume in POD["spec"]["volumes"]}
    assert image_env("BLACK_BOX_FOLDER") in {mount["mountPath"] for mount in SERVER["volumeMounts"]}


def test_kubernetes_does_not_put_settings_of_its_own_into_the_environment() -> None:
    # For a service called crdt-sync it sets CRDT_SYNC_PORT=tcp://10.0.0.1:80 and others like it in every pod.
    assert POD["spec"]["enableServiceLinks"] is False


def test_autoscaler_goes_by_connections_and_cpu_quickly_up_and_slowly_down() -> None:
    spec = MANIFESTS["HorizontalPodAutoscaler"]["spec"]
    [rule] = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    by = {metric["type"]: metric[metric["type"].lower()] for metric in spec["metrics"]}

    assert by["Pods"]["metric"]["name"] == rule["name"]["as"] == "crdt_sync_connections"
    assert by["Resource"]["name"] == "cpu"
    assert spec["behavior"]["scaleUp"]["stabilizationWindowSeconds"] == 60
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert "replicas" not in MANIFESTS["Deployment"]["spec"]
    assert int(by["Pods"]["target"]["averageValue"]) < Settings.model_fields["connections_max"].default
    # By then a node takes nobody more.
    assert by["Resource"]["target"]["averageUtilization"] / 100 < Settings.model_fields["load_cpu_max"].default


def test_probes_ask_what_the_server_answers() -> None:
    page = (ROOT / "docs/reference/http.md").read_text()
    paths = {probe["httpGet"]["path"] for probe in probes()}

    assert paths == {"/health", "/ready"}
    assert all(f"`GET {path}`" in page for path in paths)
    assert SERVER["livenessProbe"]["httpGet"]["path"] == "/health"  # a database that is away is no reason for a restart
    assert SERVER["readinessProbe"]["httpGet"]["path"] == "/ready"
    start = SERVER["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] > default("database_start_timeout_s") + 10


# -------------------------------------------------------------------------------------------------------- stopping


def test_whoever_stops_a_server_has_the_patience_that_draining_takes() -> None:
    configured = env_file(KUBERNETES / "settings.env")
    sleep = int(SERVER["lifecycle"]["preStop"]["exec"]["command"][1])
    grace = POD["spec"]["terminationGracePeriodSeconds"]
    unit = int(directives()["TimeoutStopSec"][0])

    assert grace >= sleep + float(configured[f"{PREFIX}DRAIN_DEADLINE_S"]) + 5
    for node in NODES:
        assert seconds(node["stop_grace_period"]) >= float(node["environment"][f"{PREFIX}DRAIN_DEADLINE_S"]) + 5
    assert unit >= default("drain_deadline_s", 30) + 5


def test_sigterm_reaches_the_server_and_nobody_else() -> None:
    # A shell in between would keep it for itself.
    assert re.findall(r"^(?:ENTRYPOINT|CMD) (.*)$", DOCKERFILE, re.MULTILINE) == ['["crdt-sync"]', '["serve"]']
    # Workers would hear of it twice.
    assert directives()["KillMode"] == ["mixed"]


def test_proxies_wait_for_longer_than_a_client_is_silent_and_a_room_takes_to_open() -> None:
    silence = default("keep_alive_interval_s") + default("ping_interval_s")
    annotations = {
        name.rpartition("/")[2]: value for name, value in MANIFESTS["Ingress"]["metadata"]["annotations"].items()
    }
    patience = {name: re.findall(rf"^ *{name} (\d+)s;", PROXY, re.MULTILINE) for name in PATIENCE}

    assert {name.replace("_", "-"): value for name, [value] in patience.items()} == {
        name: value for name, value in annotations.items() if name.replace("-", "_") in PATIENCE
    }
    assert min(int(patience[name][0]) for name in PATIENCE[:2]) > silence
    assert int(patience["proxy_next_upstream_timeout"][0]) > default("open_timeout_s")
    for name in ("proxy_next_upstream", "proxy_next_upstream_tries", "proxy_buffering"):
        assert f"{name} {annotations[name.replace('_', '-')]};" in PROXY
    assert f"client_max_body_size {annotations['proxy-body-size']};" in PROXY
    assert "hash $uri consistent;" in (EXAMPLES / "nginx/crdt-sync.conf").read_text()


PATIENCE = ("proxy_read_timeout", "proxy_send_timeout", "proxy_connect_timeout", "proxy_next_upstream_timeout")


# ---------------------------------------------------------------------------------------------------------- compose


def test_compose_takes_the_file() -> None:
    text = (ROOT / "compose.yaml").read_text()
    # Variables are put in before anything else looks at it.
    filled = re.sub(r"\$\{(\w+):([-?])([^}]*)\}", lambda found: found[3] if found[2] == "-" else "filled-in", text)

    composed = PyCompose.from_json(json.dumps(yaml.safe_load(filled)))

    assert set(composed.service_names()) == {
        "node-1", "node-2", "nginx", "postgres", "redis", "prometheus", "grafana",
    }  # fmt: skip


def test_compositions_services_start_in_order_and_say_how_they_are() -> None:
    for name, service in COMPOSE["services"].items():
        if name not in ("node-1", "node-2"):  # the image has its own
            assert service["healthcheck"]["test"][0] == "CMD"
        for other, condition in service.get("depends_on", {}).items():
            assert other in COMPOSE["services"]
            assert condition == {"condition": "service_healthy"}
        assert set(service["networks"]) <= COMPOSE["networks"].keys()
    assert "HEALTHCHECK" in DOCKERFILE
    assert [node["depends_on"].keys() for node in NODES] == [{"postgres", "redis"}] * 2
    assert COMPOSE["services"]["nginx"]["depends_on"].keys() == {"node-1", "node-2"}


def test_composition_mounts_files_that_there_are_and_its_addresses_agree() -> None:
    volumes = [volume for service in COMPOSE["services"].values() for volume in service.get("volumes", [])]
    addresses = [f"{node['networks']['front']['ipv4_address']}" for node in NODES]
    nginx = (EXAMPLES / "nginx/compose.conf").read_text()
    prometheus = yaml.safe_load((EXAMPLES / "prometheus/prometheus.yml").read_text())
    [front] = COMPOSE["networks"]["front"]["ipam"]["config"]
    proxy = COMPOSE["services"]["nginx"]["networks"]["front"]["ipv4_address"]

    for volume in volumes:
        source, target = volume.split(":")[:2]
        assert (ROOT / source).is_file() if source.startswith("./") else source in COMPOSE["volumes"]
        assert target.startswith("/")
    assert re.findall(r"server ([\d.]+):1234 ", nginx) == addresses
    assert prometheus["scrape_configs"][0]["static_configs"] == [{"targets": [f"{one}:9234" for one in addresses]}]
    assert [node["environment"][f"{PREFIX}TRUSTED_PROXIES"] for node in NODES] == [proxy] * 2
    given = ipaddress.ip_network(front["ip_range"])
    assert given.subnet_of(ipaddress.ip_network(front["subnet"]))
    assert not any(ipaddress.ip_address(one) in given for one in [*addresses, proxy])


def test_composition_has_no_secret_of_its_own_and_says_what_is_missing() -> None:
    text = (ROOT / "compose.yaml").read_text()
    required = set(re.findall(r"\$\{(\w+):\?is missing, see (?:docs/how-to/deploy-with-docker\.md)\}", text))
    optional = set(re.findall(r"\$\{(\w+):-[^}]*\}", text))
    example = (EXAMPLES / "docker/env.example").read_text()

    # None of these has a value in the example, so that nobody's password is the example's.
    assert set(re.findall(r"^(\w+)=$", example, re.MULTILINE)) == required
    assert set(re.findall(r"^# (\w+)=", example, re.MULTILINE)) == optional
    assert required | optional == set(re.findall(r"\$\{(\w+)", text))
    assert not re.search(r"(PASSWORD|SECRET)\w*: (?!\$\{\w+:\?)", text)
    assert ".env" in (ROOT / ".gitignore").read_text().split()
    # Only what is listed goes to the builder.
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in ignored if line and not line.startswith("#")) == "*"
    assert "!.env" not in ignored


# --------------------------------------------------------------------------------------------------------- settings


def test_every_setting_in_the_examples_is_one() -> None:
    files = [*EXAMPLES.rglob("*"), ROOT / "Dockerfile", ROOT / "compose.yaml", *(ROOT / "docs/how-to").glob("*.md")]
    others = {"TOKEN", "PUBLISH"}  # for commands; of compose.yaml

    for file in files:
        for name in set(re.findall(rf"\b{PREFIX}([A-Z][A-Z_]*[A-Z])\b", file.read_text() if file.is_file() else "")):
            assert name.lower() in Settings.model_fields or name in others, f"{file.name}: {name}"


def test_examples_make_a_server_that_asks_for_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = dict(one.split("=", 1) for one in directives()["Environment"])
    environments = [
        {**env_file(KUBERNETES / "settings.env"), **env_file(KUBERNETES / "secrets.env.example"), **image_envs()},
        {**unit, **env_file(EXAMPLES / "systemd/settings.example")},
        *({**image_envs(), **node["environment"]} for node in NODES),
    ]

    for environment in environments:
        with monkeypatch.context() as changed:
            for name, value in environment.items():
                changed.setenv(name, re.sub(r"\$\{(\w+):[^}]*\}", "https://app.example", value))
            # As it is, nothing starts: somebody has to choose a secret. What compose.yaml asks for, it doesn't have.
            if "${" not in environment[f"{PREFIX}JWT_SECRET"]:
                with pytest.raises(InvalidSettings, match="JWT_SECRET"):
                    configured_verifier(Settings.read())
            settings = Settings.read(jwt_secret=GOOD_SECRET)
        assert configured_verifier(settings) is not None
        assert settings.trusted_proxies
        assert settings.allowed_origins


# ---------------------------------------------------------------------------------------------------------- systemd


def test_systemd_takes_the_unit_and_finds_it_well_confined(tmp_path: Path) -> None:
    analyze = require(lambda: find_program("systemd-analyze", package="systemd"))
    # It looks whether the programs are there, and warns of an account that is everybody's.
    true = shutil.which("true")
    here = re.sub(r"^(ExecStart\w*)=\S+", rf"\1={true}", UNIT, flags=re.MULTILINE)
    (tmp_path / "crdt-sync.service").write_text(re.sub(r"^User=.*$", "User=daemon", here, flags=re.MULTILINE))

    said = run([analyze.path, "verify", "--man=no", "./crdt-sync.service"], folder=tmp_path, env=analyze.env)
    run(
        [analyze.path, "security", "--offline=true", "--threshold=25", "--no-pager", "./crdt-sync.service"],
        folder=tmp_path,
        env=analyze.env,
    )

    # Of this unit; others of this machine aren't ours.
    assert "crdt-sync.service" not in said


async def test_unit_counts_as_started_once_the_server_is_ready() -> None:
    statuses = ["503 Not Yet", "503 Not Yet", "200 OK"]
    asked = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
        writer.write(f"HTTP/1.1 {statuses[len(asked) - 1]}\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        env = {f"{PREFIX}OPS_PORT": str(server.sockets[0].getsockname()[1])}
        waiting = await asyncio.create_subprocess_exec(
            sys.executable, EXAMPLES / "systemd/wait-until-ready.py", env=env
        )
        code = await asyncio.wait_for(waiting.wait(), 20)

    assert (code, asked) == (0, [b"/ready"] * 3)


def test_unit_allows_as_many_open_files_as_there_may_be_clients() -> None:
    assert int(directives()["LimitNOFILE"][0]) > 2 * default("connections_max")


# ------------------------------------------------------------------------------------------------------------ image


def test_image_has_everything_that_is_optional_for_users() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].keys() - {"bench", "dev", "docs"}

    [installed] = re.findall(r'"\.\[([\w,]+)\]"', DOCKERFILE)

    assert set(installed.split(",")) == extras
    assert "--constraint constraints.txt --only-binary :all:" in DOCKERFILE


def containers() -> Iterator[dict[str, Any]]:
    yield from POD["spec"]["initContainers"]
    yield from POD["spec"]["containers"]


def probes() -> list[dict[str, Any]]:
    return [SERVER[f"{name}Probe"] for name in ("startup", "liveness", "readiness")]


def default(name: str, otherwise: float | None = None) -> float:
    """A setting's default."""
    if name not in Settings.model_fields and otherwise is not None:
        return otherwise
    return float(Settings.model_fields[name].default)


def env_file(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def image_envs() -> dict[str, str]:
    return dict(re.findall(rf"^ +({PREFIX}\w+)=(\S+?)(?: \\)?$", DOCKERFILE, re.MULTILINE))


def image_env(name: str) -> str:
    return image_envs()[PREFIX + name]


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def directives() -> dict[str, list[str]]:
    """The unit's, by name."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found
