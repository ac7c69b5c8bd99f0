"""A real nginx for tests, as a load balancer that is told which instances take part."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from tests import debian
from tests.servers import HOST, Server, children, free_port, wait_for

CONFIG = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_timeout 0;
    upstream shop {{
        {members}
        keepalive 16;
    }}
    server {{
        listen {host}:{port};
        location / {{
            proxy_pass http://shop;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream {retries};
        }}
    }}
}}
"""


def provide(config: pytest.Config) -> str:
    """Return the path of nginx, from PATH or Debian's package; skip the test where there is none."""
    try:
        return debian.provide(["nginx"], "nginx", debian.kept(config), without=("libc6",))
    except debian.Missing as error:
        pytest.skip(str(error))


class Nginx(Server):
    """An nginx in front of servers on ports of loopback; `retries` is its `proxy_next_upstream`.

    The free nginx does not ask for readiness: an orchestrator rewrites its list of servers, as `serve` does. It
    closes the connections of clients at once when it reads that list, whoever is about to use them, so here it
    keeps none; those to the servers it keeps.
    """

    def __init__(self, program: str, ports: Sequence[int], retries: str = "off") -> None:
        super().__init__("nginx")
        self.port = free_port()
        self.retries = retries
        self._program = program
        self._write(ports)

    def start(self) -> Self:
        """Start, and return when it listens."""
        self.process.launch([self._program, "-p", str(self.folder), "-e", str(self._log), "-c", str(self._config)])
        wait_for(self._listens, 10, "nginx's listener")
        return self

    def serve(self, ports: Sequence[int]) -> None:
        """Send requests to these ports from now on; those under way go on where they are."""
        before = self._workers()
        self._write(ports)
        self.process.send(signal.SIGHUP)
        wait_for(lambda: self._workers() - before, 5, "nginx's new worker")
        time.sleep(0.05)  # it takes connections a moment after it is there

    @property
    def errors(self) -> str:
        """What it has written to its error log."""
        with suppress(OSError):
            return self._log.read_text()
        return ""

    @property
    def _config(self) -> Path:
        return self.folder / "nginx.conf"

    @property
    def _log(self) -> Path:
        return self.folder / "error.log"

    def _write(self, ports: Sequence[int]) -> None:
        members = "\n        ".join(f"server {HOST}:{port} max_fails=0;" for port in ports)
        text = CONFIG.format(folder=self.folder, host=HOST, port=self.port, members=members, retries=self.retries)
        self._config.write_text(text)

    def _workers(self) -> set[int]:
        return children(self.pid)

    def _listens(self) -> bool:
        if not self.running:
            raise RuntimeError(f"nginx has ended:\n{self.process.stderr}\n{self.errors}")
        with suppress(OSError), socket.create_connection((HOST, self.port), 1):
            return True
        return False
