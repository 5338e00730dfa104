"""The import rules of docs/explanation/architecture.md, enforced by reading the imports."""

import ast
import importlib.util
from pathlib import Path

import pytest

import crdt_sync
from crdt_sync import cli

ROOT = Path(__file__).parents[2]
PACKAGES = ("auth", "persistence", "crdt_sync")

# A module imports only from rows above its own.
ROWS: tuple[frozenset[str], ...] = (
    frozenset({"elsewhere", "errors", "garbage", "hooks", "moments", "otlp", "pacing", "settings", "urgency"}),
    frozenset({"tracing"}),
    frozenset({"logs"}),
    frozenset({"siblings"}),
    frozenset(
        {
            "archiving",
            "blackbox",
            "bus.__init__",
            "crowd",
            "frames",
            "keys",
            "lib0",
            "limits",
            "ranges",
            "retention",
            "scenarios",
            "stores",
            "tls",
        }
    ),
    frozenset(
        {
            "bus.memory",
            "bus.redis_url",
            "envelope",
            "javascript",
            "protocol",
            "structure",
            "trip_model",
            "values",
            "versions",
            "workers",
        }
    ),
    frozenset({"bus.redis_link", "client", "merging", "metrics", "standins", "update"}),
    frozenset({"authors", "bus.redis_notes", "bus.redis_state", "load", "nodes", "order", "pieces", "tree", "waiting"}),
    frozenset({"native"}),
    frozenset(
        {
            "awareness",
            "bus.redis_asker",
            "bus.redis_sender",
            "bus.redis_subscriber",
            "content",
            "copies",
            "document",
            "drafts",
        }
    ),
    frozenset(
        {
            "bus.redis_server",
            "content_text",
            "journal",
            "likeness",
            "replay",
            "revocations",
            "session",
            "strips",
            "trip_edits",
            "trip_forms",
            "trips",
        }
    ),
    frozenset(
        {
            "alignment",
            "bus.redis",
            "bus.redis_facts",
            "connection",
            "formats",
            "heard",
            "history",
            "restoring",
            "verifying",
            "whose",
        }
    ),
    frozenset({"fanout"}),
    frozenset({"apart", "changes", "rollback", "room"}),
    frozenset({"changes_forms", "checkpoints", "follow", "sessions", "suspects", "time_machine"}),
    frozenset({"past_forms", "rooms"}),
    frozenset({"draining", "going_back"}),
    frozenset({"gateway.access", "gateway.client_address", "gateway.cooldown", "gateway.ops", "gateway.problems"}),
    frozenset({"gateway.parts"}),
    frozenset({"gateway.admin_page", "gateway.calls", "gateway.readings", "gateway.visit"}),
    frozenset({"gateway.sync"}),
    frozenset({"gateway.live_rooms", "gateway.probes"}),
    frozenset({"gateway.api", "gateway.past_api", "gateway.verify_api"}),
    frozenset({"gateway.operations"}),
    frozenset({"gateway.openapi"}),
    frozenset({"gateway.routing"}),
    frozenset({"gateway.app"}),
    frozenset({"admin", "checkups", "commands", "ending", "foreign", "scrapes", "store_copy", "tables", "transport"}),
    frozenset({"accepting", "ws"}),
    frozenset({"ops_port", "server"}),
    frozenset({"admin_api", "admin_store", "past_options", "past_reports", "room_reports", "serve", "store_reports"}),
    frozenset({"admins", "examining", "playing"}),
    frozenset({"calling"}),
    frozenset(
        {
            "completion_command",
            "conformance_command",
            "content_commands",
            "doctor_command",
            "import_from_command",
            "past_commands",
            "room_commands",
            "serve_command",
            "store_commands",
            "token_command",
            "top_command",
            "verify_command",
            "version_commands",
        }
    ),
    frozenset({"cli"}),
)
# The package's front doors are above everything.
DOORS = frozenset({"__init__", "__main__", "gateway.__init__"})

HOMES = {
    "pycrdt": {"crdt_sync.client", "crdt_sync.drafts", "crdt_sync.native", "crdt_sync.trip_edits"},
    "starlette": {
        "crdt_sync.gateway.access",
        "crdt_sync.gateway.admin_page",
        "crdt_sync.gateway.api",
        "crdt_sync.gateway.app",
        "crdt_sync.gateway.calls",
        "crdt_sync.gateway.probes",
        "crdt_sync.gateway.past_api",
        "crdt_sync.gateway.problems",
        "crdt_sync.gateway.routing",
        "crdt_sync.gateway.sync",
        "crdt_sync.gateway.verify_api",
    },
    "uvicorn": {
        "crdt_sync.accepting",
        "crdt_sync.ops_port",
        "crdt_sync.serve",
        "crdt_sync.server",
        "crdt_sync.transport",
        "crdt_sync.ws",
    },
    "h11": {"crdt_sync.accepting"},
    "redis": {"crdt_sync.bus.redis_link"},
    "prometheus_client": {"crdt_sync.metrics", "crdt_sync.scrapes"},
    "rich": {"crdt_sync.tables"},
    "opentelemetry": {"crdt_sync.otlp"},
    "pydantic": {"crdt_sync.settings"},
    "pydantic_settings": {"crdt_sync.settings"},
    "jwt": {"auth.keys"},
    "cryptography": {"auth.keys"},
    "httpx2": {"auth.fetch", "crdt_sync.admin_api", "crdt_sync.calling"},
    "websockets": {"crdt_sync.calling", "crdt_sync.client", "crdt_sync.frames", "crdt_sync.playing"},
    "shtab": {"crdt_sync.completion_command"},
    "asyncpg": {"persistence.postgres_link"},
    "zstandard": {"persistence.blobs"},
    "sqlite3": {
        "crdt_sync.foreign",
        "persistence.sqlite",
        "persistence.sqlite_file",
        "persistence.sqlite_history",
        "persistence.sqlite_refusals",
    },
    "obstore": {"persistence.archive"},
}
# Libraries that a package may not import at all, beside those whose home is elsewhere.
OWN = {"auth": set(), "persistence": {"persistence"}, "crdt_sync": {"auth", "persistence", "crdt_sync"}}
DEFERRED_ALLOWED = {
    ("persistence.store", "open_store"),
    ("persistence.archived", "open_archive"),
    ("crdt_sync.bus.__init__", "open_bus"),
    ("crdt_sync.tracing", "open_tracer"),
}


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts)] = path
    return found


def test_what_is_loaded_when_it_is_asked_for_is_there() -> None:
    """The two front doors import by name, which no other test here sees."""
    for name in (*cli._MODULES.values(), *crdt_sync._MODULES.values()):
        assert importlib.util.find_spec(f"crdt_sync.{name.lstrip('.')}"), name


def imports(name: str, tree: ast.AST) -> list[str]:
    """Absolute names of everything imported in `tree`, which is in the module `name`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = name.split(".")[: -node.level]
                prefix = ".".join(base + ([node.module] if node.module else []))
            else:
                prefix = node.module or ""
            found += [f"{prefix}.{alias.name}" for alias in node.names]
    return found


def without_deferred(name: str, tree: ast.Module) -> ast.Module:
    """The module, without the factory that imports from above; see `DEFERRED_ALLOWED`."""
    factories = {function for module, function in DEFERRED_ALLOWED if module == name}
    return ast.Module([node for node in tree.body if getattr(node, "name", None) not in factories], [])


def module_of(imported: str, known: dict[str, Path]) -> str | None:
    """The module of ours that an imported name is, or lives in."""
    parts = imported.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in known:
            return name
        if f"{name}.__init__" in known:
            return f"{name}.__init__"
    return None


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text()) for name, path in modules().items()}


def test_packages_import_each_other_one_way(trees: dict[str, ast.Module]) -> None:
    for name, tree in trees.items():
        own = name.split(".")[0]
        foreign = {one.split(".")[0] for one in imports(name, tree)} & set(PACKAGES)

        assert foreign <= OWN[own] | {own}, name


def test_modules_import_only_from_lower_rows(trees: dict[str, ast.Module]) -> None:
    row_of = {f"crdt_sync.{name}": row for row, names in enumerate(ROWS) for name in names}
    known = modules()
    for name, tree in trees.items():
        short = name.removeprefix("crdt_sync.")
        if not name.startswith("crdt_sync.") or short in DOORS:
            continue
        assert name in row_of, f"{name} has no row: give it one, and a line in the architecture page"
        for imported in imports(name, without_deferred(name, tree)):
            target = module_of(imported, known)
            if target is not None and target.startswith("crdt_sync."):
                assert row_of.get(target, len(ROWS)) < row_of[name], f"{name} imports {target}"


def test_persistence_modules_import_only_from_lower_rows(trees: dict[str, ast.Module]) -> None:
    row_of = {
        f"persistence.{name}": row
        for row, names in enumerate(
            (
                {"versions", "moments"},
                {"store"},
                {"archive", "blobs", "sqlite_file", "postgres_link"},
                {"archived", "chunks", "postgres_schema", "postgres_refusals", "sqlite_refusals"},
                {"memory", "postgres_history", "sqlite_history"},
                {"sqlite", "postgres"},
            )
        )
        for name in names
    }
    for name, tree in trees.items():
        if not name.startswith("persistence.") or name == "persistence.__init__":
            continue
        for imported in imports(name, without_deferred(name, tree)):
            target = module_of(imported, modules())
            if target is not None:
                assert row_of[target] < row_of[name], f"{name} imports {target}"


def test_auth_modules_import_only_from_lower_rows(trees: dict[str, ast.Module]) -> None:
    rows = (
        {"errors", "grants", "fetch"},
        {"credentials", "claims"},
        {"keys"},
        {"jwks", "minting"},
        {"verifier"},
    )
    row_of = {f"auth.{name}": row for row, names in enumerate(rows) for name in names}
    for name, tree in trees.items():
        if not name.startswith("auth.") or name == "auth.__init__":
            continue
        for imported in imports(name, tree):
            target = module_of(imported, modules())
            if target is not None:
                assert row_of[target] < row_of[name], f"{name} imports {target}"


def test_every_foreign_library_has_one_home(trees: dict[str, ast.Module]) -> None:
    for name, tree in trees.items():
        for imported in imports(name, tree):
            library = imported.split(".")[0]
            assert name in HOMES.get(library, {name}), f"{name} imports {library}"


def test_imports_stand_at_the_top_but_for_the_factory(trees: dict[str, ast.Module]) -> None:
    for name, tree in trees.items():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                inside = [node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
                assert not inside or (name, function.name) in DEFERRED_ALLOWED, f"{name}.{function.name}"
