"""A private NGINX in front of several nodes, configured as docs/how-to/stop-and-upgrade.md says."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from .debian import find_program, reachable
from .processes import unprivileged_account
from .services import HOST, Service

_CONFIGURATION = """
daemon off;
pid {folder}/pid;
error_log stderr warn;
worker_processes 1;
worker_rlimit_nofile 4096;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    upstream nodes {{
{servers}
    }}
    server {{
        listen {host}:{port};
        location / {{
            proxy_pass http://nodes;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_connect_timeout 1s;
            proxy_read_timeout 75s;
            proxy_next_upstream error timeout http_503;
        }}
    }}
}}
"""


class Nginx(Service):
    """One that gives each connection to the next node, and to another one if that refuses."""

    # The graceful one waits for WebSockets to end.
    _stop_signal = signal.SIGTERM

    def __init__(self, ports: Sequence[int]) -> None:
        """Prepare, start nothing.

        Args:
            ports: Where the nodes listen, on loopback.

        Raises:
            Unavailable: There is no such program.
        """
        account = unprivileged_account()
        self._program = reachable(find_program("nginx", path="usr/sbin/nginx"), account)
        super().__init__("nginx", account=account)
        self._ports = ports

    @property
    def url(self) -> str:
        """Where WebSocket clients find it."""
        return f"ws://{HOST}:{self.port}"

    def _prepare(self) -> Sequence[str | Path]:
        # With max_fails, NGINX counts a WebSocket as a success only when it has ended: a node that is back would get one
        # connection for each fail_timeout.
        servers = "\n".join(f"        server {HOST}:{port} max_fails=0;" for port in self._ports)
        config = self.folder / "nginx.conf"
        config.write_text(_CONFIGURATION.format(folder=self.folder, servers=servers, host=HOST, port=self.port))
        return [self._program.path, "-p", self.folder, "-e", "stderr", "-c", config]

    def _env(self) -> dict[str, str]:
        return self._program.env
