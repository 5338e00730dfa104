"""Wait until the server on this machine may get traffic. Goes to /opt/crdt-sync/; systemd ends it if that takes too long."""

import os
import time
import urllib.request

host = os.environ.get("CRDT_SYNC_OPS_HOST", "127.0.0.1")
url = f"http://{f'[{host}]' if ':' in host else host}:{os.environ['CRDT_SYNC_OPS_PORT']}/ready"
while True:
    try:
        urllib.request.urlopen(url, timeout=4)
        break
    except OSError:  # 503 is one, too
        time.sleep(0.2)
