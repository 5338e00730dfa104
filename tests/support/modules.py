"""Pages for a browser that use packages of `tests/node` and of this repository, served as they are: no bundler."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .command import ROOT

_PACKAGES = ROOT / "tests/node/node_modules"
_OURS = {"crdt-sync-client": ROOT / "clients/js"}
_CONDITIONS = ("browser", "module", "import", "default")
# `from 'package'` and `import 'package'`, where the specifier isn't a path.
_BARE = re.compile(r"""((?:\bfrom|\bimport)\s*)(['"])([@\w][^'"]*)\2""")


@contextmanager
def serving(script: str) -> Iterator[str]:
    """A page that runs a module, whose imports are resolved as bundlers do; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/":
                body, kind = b'<!doctype html><script type="module" src="/script.js"></script>', "text/html"
            elif self.path == "/script.js":
                body, kind = _linked(script), "text/javascript"
            else:
                path = _file(self.path)
                if path is None:
                    self.send_error(404)
                    return
                body, kind = _linked(path.read_text()), "text/javascript"
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="modules", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _linked(script: str) -> bytes:
    return _BARE.sub(lambda found: f"{found[1]}'{_place(found[3])}'", script).encode()


def _place(specifier: str) -> str:
    """The path at which a package's module is served."""
    parts = specifier.split("/")
    length = 2 if specifier.startswith("@") else 1
    package, inside = "/".join(parts[:length]), "/".join([".", *parts[length:]])
    manifest = json.loads((_folder(package) / "package.json").read_text())
    target = manifest["exports"][inside]
    while isinstance(target, dict):
        target = next(value for name, value in target.items() if name in _CONDITIONS)
    return f"/{package}/{target.removeprefix('./')}"


def _file(path: str) -> Path | None:
    for package in (*_OURS, *(one.name for one in _PACKAGES.iterdir())):
        if path.startswith(f"/{package}/"):
            found = _folder(package) / path.removeprefix(f"/{package}/")
            return found if found.is_file() else None
    return None


def _folder(package: str) -> Path:
    return _OURS.get(package, _PACKAGES / package)
