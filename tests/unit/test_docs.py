"""The reference pages say what the code says."""

import re
from pathlib import Path

import crdt_sync
from crdt_sync import Settings, client
from crdt_sync import errors as all_errors
from crdt_sync.gateway.operations import OPERATIONS
from crdt_sync.gateway.probes import PATHS
from crdt_sync.metrics import DEFINITIONS

DOCS = Path(__file__).parents[2] / "docs"


def test_settings_page_lists_every_setting_with_its_default() -> None:
    page = (DOCS / "reference/settings.md").read_text()

    listed = re.findall(r"^\| `CRDT_SYNC_(\w+)` \| `([^`]*)` \| (.+) \|$", page, re.MULTILINE)

    assert listed == [
        (name.upper(), str(field.default), field.description) for name, field in Settings.model_fields.items()
    ]


def test_closing_codes_page_lists_every_reason_with_its_code() -> None:
    page = (DOCS / "reference/closing-codes.md").read_text()
    listed = {(code, reason) for code, reason in re.findall(r"\| (\d{4}) \| `([^`]+)` \|", page)}

    known = {
        (str(one.close_code), one.reason)
        for one in vars(all_errors).values()
        if isinstance(one, type) and issubclass(one, all_errors.SyncError)
    }

    # Some errors are only ever told at the upgrade or by HTTP, and one is a base class.
    assert known - listed <= {
        ("4400", "invalid room name"),
        ("1013", "try again later"),
        ("1013", "room unavailable"),
        ("1011", "document too tangled to show"),
        ("1011", "invalid trip edit"),
        ("1013", "too many connections"),
    }
    # One is the WebSocket library's, one a credential's reason, one an admin's.
    assert listed - known == {
        ("1011", "keepalive ping timeout"),
        ("4401", "credential expired"),
        ("4403", "closed by an admin"),
    }


def test_public_surface_is_the_documented_one() -> None:
    page = (DOCS / "reference/python.md").read_text()

    assert sorted(re.findall(r"^## `(\w+)", page, re.MULTILINE)) == sorted(crdt_sync.__all__)


def test_python_page_has_every_name_of_the_client() -> None:
    page = (DOCS / "reference/python.md").read_text().split("\n## The client\n")[1]

    assert {name for name in client.__all__ if not re.search(rf"`{name}\b", page)} == set()


def test_http_page_lists_every_request_with_its_right_and_query() -> None:
    page = (DOCS / "reference/http.md").read_text()
    rows = re.findall(r"^\| `([A-Z]+) ([^`?]+)([^|]*)\| ([a-z]+)(?: in `\*`)? \|", page, re.MULTILINE)
    listed: dict[tuple[str, str], tuple[str, set[str]]] = {}
    for method, path, rest, right in rows:
        _, query = listed.get((method, path), ("", set()))
        listed[method, path] = (right, query | set(re.findall(r"(\w+)=", rest)))

    assert listed == {
        (one.method, one.path): ("any" if one.any_room else one.right.name.lower(), set(one.query))
        for one in OPERATIONS
    }
    others = set(re.findall(r"^\| `GET ([^`]+)`[^|]*\| [^|]* \|$", page, re.MULTILINE))
    assert others == {"/", *PATHS, "/admin"}


def test_metrics_page_lists_every_metric() -> None:
    page = (DOCS / "reference/metrics.md").read_text()

    listed = re.findall(r"^\| `crdt_sync_(\w+)` \| (\w+) \| ([^|]*) \| (.+) \|$", page, re.MULTILINE)

    assert listed == [
        (one.name, one.type, ", ".join(f"`{label}`" for label in one.labels), one.help) for one in DEFINITIONS
    ]


def test_pages_name_only_metrics_that_there_are() -> None:
    known = {one.name for one in DEFINITIONS}
    known |= {f"{one.name}_{part}" for one in DEFINITIONS if one.bounds for part in ("bucket", "count", "sum")}

    for page in DOCS.rglob("*.md"):
        code = "\n".join(re.findall(r"```promql\n(.*?)```", page.read_text(), re.DOTALL))
        assert set(re.findall(r"crdt_sync_(\w+)", code)) <= known, page.name


def test_readme_has_the_numbers_of_the_performance_page() -> None:
    page = (DOCS / "explanation/performance.md").read_text()
    measured = {
        work: dict(re.findall(r"^\| ([\w-]+) \| ([\d.]+) \|", table, re.MULTILINE))
        for work, table in re.findall(r"^\*\*([A-C]): .*?\n\n(.*?)\n\n", page, re.MULTILINE | re.DOTALL)
    }
    head, _, *rows = re.findall(r"^\| .* \|$|^\|[-:|]+\|$", (DOCS.parent / "README.md").read_text(), re.MULTILINE)
    servers = [cell.strip().lower() for cell in head.strip("|").split("|")][1:]

    shown = [dict(zip(servers, re.findall(r" ([\d.]+) (?=\|)", row), strict=True)) for row in rows]

    assert shown == [measured[work] for work in "ABC"]
