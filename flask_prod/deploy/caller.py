"""Asks a deployed service as its callers do: by its public address, or in the place of its proxy."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import SplitResult, urlsplit

from flask_prod.core.errors import ProdKitError

LARGEST = 8 * 1024 * 1024
"""Bytes of an answer that are read; a metrics page of many series has a few hundred thousand."""

STRANGER = "192.0.2.1"
"""An address that nobody has (RFC 5737): who asks, when we stand in the place of the proxy."""


class BadAddress(ProdKitError):
    """What was given is no address of a service."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `headers` by lower-case name, the first of each."""

    status: int
    headers: Mapping[str, str]
    cookies: tuple[str, ...]
    body: bytes
    seconds: float

    @property
    def text(self) -> str:
        """The body as text, whatever it is."""
        return self.body.decode("utf-8", "replace")


@dataclass(frozen=True)
class Certificate:
    """What a TLS handshake showed."""

    version: str
    expires: datetime


@dataclass
class Caller:
    """Sends requests to the service at one address; follows no redirect, and keeps what cookies it was given.

    With *hops* above 0 so many proxies are pretended: each request says that it came by https from a stranger.
    *ca* is a file of certificates to trust instead of the system's.
    """

    url: str
    hops: int = 0
    host: str = ""
    ca: str = ""
    timeout: float = 10.0
    cookies: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parts = _split(self.url)
        self._context = ssl.create_default_context(cafile=self.ca or None) if self.secure else None
        self._lock = threading.Lock()

    @property
    def secure(self) -> bool:
        """Whether the address is one of https."""
        return self.parts.scheme == "https"

    @property
    def as_https(self) -> bool:
        """Whether the service takes our requests for https."""
        return self.secure or self.hops > 0

    def get(self, path: str, headers: Mapping[str, str] | None = None, *, proxied: bool = True) -> Answer:
        """Return the answer to one GET on a connection of its own; OSError or HTTPException without one.

        With *proxied* off it is sent as by somebody who has come round the proxy.
        """
        connection = self._connection()
        began = time.monotonic()
        try:
            connection.request("GET", path, headers={**self._headers(proxied), **(headers or {})})
            response = connection.getresponse()
            body = response.read(LARGEST)
        finally:
            connection.close()
        cookies = tuple(response.headers.get_all("Set-Cookie") or ())
        with self._lock:
            self.cookies += cookies
        first = {name.lower(): value for name, value in reversed(response.getheaders())}
        return Answer(response.status, first, cookies, body, time.monotonic() - began)

    def certificate(self) -> Certificate:
        """Return what the TLS handshake shows; OSError where it is refused, an expired certificate included."""
        context = self._context or ssl.create_default_context()
        name = self.parts.hostname or ""
        with (
            socket.create_connection((name, self.parts.port or 443), self.timeout) as plain,
            context.wrap_socket(plain, server_hostname=name) as wrapped,
        ):
            found = wrapped.getpeercert() or {}
            expires = ssl.cert_time_to_seconds(str(found["notAfter"]))
            return Certificate(wrapped.version() or "", datetime.fromtimestamp(expires, UTC))

    def _headers(self, proxied: bool) -> dict[str, str]:
        headers = {"User-Agent": "flask-prod verify", "Accept": "*/*"}
        if self.host:
            headers["Host"] = self.host
        if self.hops and proxied:
            headers["X-Forwarded-For"] = ", ".join([STRANGER, *["127.0.0.1"] * (self.hops - 1)])
            headers["X-Forwarded-Proto"] = ", ".join(["https"] * self.hops)
        return headers

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self.parts.hostname or "", self.parts.port
        if self._context is not None:
            return http.client.HTTPSConnection(host, port, timeout=self.timeout, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=self.timeout)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = ""
    if not good:
        raise BadAddress(f"{url!r} is not an address such as https://shop.example.com or http://127.0.0.1:8000.")
    return parts
