"""A private NGINX, with the files of `examples/deployment/nginx/`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from .debian import find_program, reachable
from .processes import run, unprivileged_account
from .server import free_port
from .services import HOST, Service
from .tokens import RSA_KEY, private_pem, self_signed

EXAMPLES = Path(__file__).parents[2] / "examples/deployment/nginx"
# What a fresh machine doesn't have, or only root may use.
_FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx(Service):
    """NGINX in front of nodes, as the examples configure it: only addresses, ports and paths are others.

    Files are taken as they are; `replacing` says what else differs. What is replaced has to be there.
    """

    def __init__(
        self, ports: Sequence[int], *, site: str = "crdt-sync.conf", replacing: Mapping[str, str] | None = None
    ) -> None:
        """Prepare, start nothing.

        Args:
            ports: Where the nodes listen: one for each `server` line of the example.
            site: The file with the upstream.
            replacing: By what is in the files, what to have there.

        Raises:
            Unavailable: There is no such program.
        """
        account = unprivileged_account()
        self._program = reachable(find_program("nginx", path="usr/sbin/nginx"), account)
        super().__init__("nginx", account=account)
        self.plain_port = free_port()
        """Where it redirects to TLS."""
        self._ports = list(ports)
        self._site = site
        self._replacing = dict(replacing or {})
        self.certificate = self.folder / "certificate.pem"
        """What its clients have to trust."""

    @property
    def url(self) -> str:
        """Where WebSocket clients find it, if the site has no TLS."""
        return f"ws://{HOST}:{self.port}"

    @property
    def logged(self) -> str:
        """Both of its logs."""
        return (self.folder / "access.log").read_text() + self.log

    def check(self) -> None:
        """Have it read its configuration.

        Raises:
            AssertionError: It complains.
        """
        said = run([*self._prepare(), "-t"], folder=self.folder, account=self._account, env=self._env())
        assert "[warn]" not in said, said

    def _prepare(self) -> Sequence[str | Path]:
        own = {
            "/etc/nginx/conf.d/*.conf": f"{self.folder}/site.conf",
            "/etc/nginx/snippets/": f"{self.folder}/",
            "/var/log/nginx/": f"{self.folder}/",
            "/tmp/nginx.pid": f"{self.folder}/nginx.pid",
            "http {": "http {\n" + "\n".join(f"{name}_temp_path {self.folder}/{name};" for name in _FOLDERS),
            "worker_processes auto;": "worker_processes 2;\ndaemon off;",
            "worker_connections 32768;": "worker_connections 1000;",
            "worker_rlimit_nofile 65536;": "",
            "listen 443 ssl;": f"listen {HOST}:{self.port} ssl;",
            "listen 80;": f"listen {HOST}:{self.plain_port};",
            "listen 8080;": f"listen {HOST}:{self.port};",
            "listen [::]:443 ssl;": "",
            "listen [::]:80;": "",
            "/etc/letsencrypt/live/sync.example.com/fullchain.pem": str(self.certificate),
            "/etc/letsencrypt/live/sync.example.com/privkey.pem": str(self.folder / "key.pem"),
        }
        files = {"nginx.conf": "nginx.conf", self._site: "site.conf", "crdt-sync-proxy.conf": "crdt-sync-proxy.conf"}
        texts = {source: (EXAMPLES / source).read_text() for source in files}
        for old in self._replacing:
            assert any(old in text for text in texts.values()), f"no file has {old!r}"
        for source, target in files.items():
            text = texts[source]
            for old, new in {**own, **self._replacing}.items():
                text = text.replace(old, new)
            ports = iter(self._ports)
            text = re.sub(r"server [\d.]+:1234 ", lambda _: f"server {HOST}:{next(ports)} ", text)  # noqa: B023
            (self.folder / target).write_text(text)
        self.certificate.write_text(self_signed(RSA_KEY, HOST))
        (self.folder / "key.pem").write_text(private_pem(RSA_KEY))
        return [self._program.path, "-e", "stderr", "-p", self.folder, "-c", self.folder / "nginx.conf"]

    def _env(self) -> dict[str, str]:
        return self._program.env
