"""A server that speaks the parts of Vault's HTTP interface that the kit uses, with its own shape of answers."""

from __future__ import annotations

import json
import secrets
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

HOST = "127.0.0.1"


@dataclass
class Vault:
    """KV version 2 below `mount`, sign-in by AppRole and Kubernetes, tokens that live `ttl` seconds.

    `mode` is "", "hang", "sealed" or "nonsense"; `context` lets it speak TLS.
    """

    mount: str = "secret"
    ttl: float = 3600.0
    mode: str = ""
    namespace: str = ""
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    role: tuple[str, str] = ("role-id", "secret-id")
    jwt: str = "service-account"
    asked: list[str] = field(default_factory=list)
    tokens: dict[str, float] = field(default_factory=dict)
    context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        handler = type("Handler", (_Handler,), {"vault": self})
        self._server = _Server((HOST, 0), handler)
        if self.context is not None:
            # Whoever connects shakes hands in a thread of his own, when it reads.
            self._server.socket = self.context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def url(self) -> str:
        """The address."""
        return f"http{'s' if self.context else ''}://{HOST}:{self._server.server_port}"

    def token(self) -> str:
        """Make a token, as signing in does."""
        made = f"hvs.{secrets.token_hex(12)}"
        self.tokens[made] = time.monotonic() + self.ttl
        return made

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.mode = ""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method: str, path: str, token: str, namespace: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Return status and answer."""
        self.asked.append(f"{method} {path}")
        if namespace != self.namespace:
            return 404, {"errors": []}
        if path == "auth/approle/login":
            good = (body.get("role_id"), body.get("secret_id")) == self.role
            return self._signed_in() if good else (400, {"errors": ["invalid role or secret ID"]})
        if path == "auth/kubernetes/login":
            return self._signed_in() if body.get("jwt") == self.jwt else (403, {"errors": ["permission denied"]})
        if self.tokens.get(token, 0.0) < time.monotonic():
            return 403, {"errors": ["permission denied"]}
        if path == "auth/token/lookup-self":
            return 200, {"data": {"ttl": int(self.tokens[token] - time.monotonic()), "renewable": True}}
        if path == "auth/token/renew-self":
            self.tokens[token] = time.monotonic() + self.ttl
            return 200, {"auth": self._auth(token)}
        return self._read(path)

    def _signed_in(self) -> tuple[int, Any]:
        return 200, {"auth": self._auth(self.token())}

    def _auth(self, token: str) -> dict[str, Any]:
        return {"client_token": token, "lease_duration": int(self.ttl), "renewable": True, "policies": ["shop"]}

    def _read(self, path: str) -> tuple[int, Any]:
        found = self.secrets.get(path.removeprefix(f"{self.mount}/data/"))
        if found is None or not path.startswith(f"{self.mount}/data/"):
            return 404, {"errors": []}
        return 200, {"data": {"data": found, "metadata": {"version": 1, "destroyed": False, "deletion_time": ""}}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing of a client that does not trust us."""


class _Handler(BaseHTTPRequestHandler):
    vault: Vault

    def log_message(self, *args: Any) -> None:
        """Be quiet."""

    def _answer(self) -> None:
        vault = self.vault
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        while vault.mode == "hang":
            time.sleep(0.02)
        path = self.path.removeprefix("/v1/").partition("?")[0]
        headers = (self.headers.get("X-Vault-Token") or "", self.headers.get("X-Vault-Namespace") or "")
        status, answer = vault.answer(self.command, path, *headers, body)
        data = json.dumps(answer).encode()
        if vault.mode == "sealed":
            status, data = 503, b'{"errors": ["Vault is sealed"]}'
        elif vault.mode == "nonsense":
            status, data = 200, b'{"data": "password=hunter2"}'
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            pass  # the client did not wait

    do_GET = do_POST = do_PUT = _answer
