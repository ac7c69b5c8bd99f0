"""The rendered nginx.conf run by a real nginx: only its addresses and its files' places are changed."""

from __future__ import annotations

import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Self

import trustme

from tests.servers import HOST, Answer, Server, children, free_port, wait_for

PLACES = {"/run/nginx.pid": "nginx.pid", "/var/log/nginx/": "", "/var/www/acme": "acme"}
"""What the file names on a machine -> the same below the test's folder."""


class Proxy(Server):
    """An nginx with *conf*, the text of nginx.conf, in front of web servers on ports of loopback."""

    def __init__(self, program: str, conf: str, host: str, ports: Sequence[int]) -> None:
        super().__init__("proxy")
        self.host = host
        self.http, self.https = free_port(), free_port()
        self._program = program
        self.authority = trustme.CA()
        self._conf = self.folder / "nginx.conf"
        self._adapt(conf)
        self._write_certificate()
        self._write_members(ports)

    def check(self) -> str:
        """Return what `nginx -t` says: nothing, where nothing is wrong."""
        done = subprocess.run(
            [*self._command(), "-t", "-q"], capture_output=True, text=True, timeout=20, check=False
        )
        return done.stderr + ("" if done.returncode == 0 else f"exit code {done.returncode}")

    def start(self) -> Self:
        """Start, and return when it listens."""
        self.process.launch([*self._command(), "-g", "daemon off;"])
        wait_for(self._listens, 10, "nginx's listener")
        return self

    def serve(self, ports: Sequence[int]) -> None:
        """Send requests to these web servers from now on, as somebody does who edits upstream.conf and reloads."""
        before = children(self.pid)
        self._write_members(ports)
        self.process.send(signal.SIGHUP)
        wait_for(lambda: children(self.pid) - before, 5, "nginx's new worker")
        time.sleep(0.05)  # it takes connections a moment after it is there

    def connect(
        self, *, tls: bool = True, timeout: float = 10, version: ssl.TLSVersion | None = None
    ) -> HTTPConnection:
        """Return a connection; by TLS with the certificate looked at, as any client does."""
        if not tls:
            return HTTPConnection(HOST, self.http, timeout=timeout)
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        connection = HTTPSConnection(self.host, self.https, timeout=timeout, context=context)
        connection.sock = context.wrap_socket(
            socket.create_connection((HOST, self.https), timeout), server_hostname=self.host
        )
        return connection

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        tls: bool = True,
    ) -> Answer:
        """Send one request by a connection of its own, under the public host name."""
        connection = self.connect(tls=tls)
        try:
            connection.request(method, path, body, {"Host": self.host, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def log(self, name: str) -> str:
        """Return what it has written to a log."""
        with suppress(OSError):
            return (self.folder / name).read_text()
        return ""

    def _command(self) -> list[str]:
        return [self._program, "-p", str(self.folder), "-e", str(self.folder / "error.log"), "-c", str(self._conf)]

    def _adapt(self, text: str) -> None:
        for there, here in PLACES.items():
            text = text.replace(there, f"{self.folder}/{here}")
        text = re.sub(r"^ *listen \[::\].*\n", "", text, flags=re.MULTILINE)
        text = re.sub(r"listen 80\b", f"listen {HOST}:{self.http}", text)
        text = re.sub(r"listen 443\b", f"listen {HOST}:{self.https}", text)
        temporary = [
            f"{one}_temp_path {self.folder}/{one};" for one in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        ]
        text = text.replace("http {\n", "http {\n" + "\n".join(temporary) + "\n", 1)
        text = text.replace("worker_processes auto;", "worker_processes 1;")
        self._conf.write_text(text)

    def _write_certificate(self) -> None:
        folder = self.folder / "tls"
        folder.mkdir()
        issued = self.authority.issue_cert(self.host, key_type=trustme.KeyType.RSA)
        issued.private_key_pem.write_to_path(str(folder / "privkey.pem"))
        for pem in issued.cert_chain_pems:
            pem.write_to_path(str(folder / "fullchain.pem"), append=True)

    def _write_members(self, ports: Sequence[int]) -> None:
        lines = [f"server {HOST}:{port} fail_timeout=2s;\n" for port in ports]
        (self.folder / "upstream.conf").write_text("".join(lines))

    def _listens(self) -> bool:
        if not self.running:
            raise RuntimeError(f"nginx has ended:\n{self.process.stderr}\n{self.log('error.log')}")
        with suppress(OSError), socket.create_connection((HOST, self.https), 1):
            return True
        return False


class Load:
    """Clients who go on asking by GET and POST, and what they were answered."""

    def __init__(self, proxy: Proxy, clients: int = 4) -> None:
        self.answers: Counter[object] = Counter()
        self._proxy = proxy
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self, number: int) -> None:
        method, path = ("POST", "/work") if number % 2 else ("GET", "/whoami")
        while not self._over.is_set():
            try:
                self.answers[
                    method, self._proxy.request(method, path, body=b"{}" if number % 2 else None).status
                ] += 1
            except (OSError, HTTPException) as error:
                self.answers[method, type(error).__name__] += 1
