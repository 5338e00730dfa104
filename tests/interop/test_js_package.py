"""`clients/js` as npm would publish it, and what its README says about it.

Runs the blocks of clients/js/README.md.
"""

import asyncio
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.command import ROOT
from tests.support.pages import blocks
from tests.support.processes import run
from tests.support.server import ServerProcess

PACKAGE = ROOT / "clients/js"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package is installed, beside the stock clients."""
    npm = shutil.which("npm")
    assert npm is not None, "these tests need npm, which comes with Node"
    outer = tmp_path_factory.mktemp("packed")
    (outer / "node_modules").symlink_to(ROOT / "tests/node/node_modules")
    folder = outer / "app"
    modules = folder / "node_modules"
    modules.mkdir(parents=True)
    subprocess.run([npm, "pack", str(PACKAGE), "--silent", "--offline"], cwd=folder, check=True, stdout=subprocess.PIPE)
    [archive] = folder.glob("*.tgz")
    with tarfile.open(archive) as tar:
        tar.extractall(modules, filter="data")
    (modules / "package").rename(modules / "crdt-sync-client")
    return folder


def test_published_is_what_is_needed_and_nothing_else(packed: Path) -> None:
    published = packed / "node_modules/crdt-sync-client"
    manifest = json.loads((published / "package.json").read_text())

    files = {path.name for path in published.iterdir()}
    assert files == {path.name for path in PACKAGE.iterdir()}
    assert "dependencies" not in manifest
    assert (published / manifest["exports"]["."]["types"]).exists()
    assert manifest["license"] == "MIT"
    assert (published / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


async def test_readme_does_as_it_says(packed: Path, tmp_path: Path) -> None:
    [block] = [block for block in blocks("js") if block.page == "clients/js/README.md"]
    node = shutil.which("node")
    assert node is not None
    async with ServerProcess(tmp_path) as server:
        script = block.text.replace("ws://127.0.0.1:1234", server.url)
        assert script.count(server.url) == 1
        (packed / "readme.mjs").write_text(
            "import WebSocket from 'ws'\nglobalThis.WebSocket = WebSocket\n"
            + script
            + "console.log('end', confirm.state, confirm.unsaved)\nprocess.exit()\n"
        )

        said = await asyncio.to_thread(run, [node, "readme.mjs"], folder=packed)

    assert said.splitlines()[0] == "offline 1"
    assert said.endswith("saved 0\nend saved 0\n")


def test_sources_use_no_package() -> None:
    for source in PACKAGE.glob("*.js"):
        imported = re.findall(r"from '([^']+)'", source.read_text())

        assert all(one.startswith("./") for one in imported), source


def test_types_are_those_of_the_sources_and_of_every_stock_provider(packed: Path) -> None:
    node = shutil.which("node")
    assert node is not None
    (packed / "consumer.ts").write_text((ROOT / "tests/node/consumer.ts").read_text())
    (packed / "package.json").write_text('{"type": "module"}')
    options = {
        "noEmit": True,
        "strict": True,
        "noImplicitAny": False,
        "allowJs": True,
        "checkJs": True,
        "skipLibCheck": True,
        "preserveSymlinks": True,
        "types": [],
        "target": "es2022",
        "module": "nodenext",
        "lib": ["es2022", "dom"],
    }
    config = {"compilerOptions": options, "files": ["consumer.ts", str(PACKAGE / "index.js")]}
    (packed / "tsconfig.json").write_text(json.dumps(config))

    compiled = subprocess.run(
        [node, "../node_modules/typescript/bin/tsc", "-p", "."], cwd=packed, capture_output=True, text=True, check=False
    )

    assert (compiled.stdout, compiled.returncode) == ("", 0)
