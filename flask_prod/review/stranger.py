"""Asks an application, in this process or at an address, as somebody from the internet would."""

from __future__ import annotations

import http.client
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Protocol
from urllib.parse import urlsplit

from flask import Flask

from flask_prod.core.kit import state_of

LARGEST = 256 * 1024
"""Bytes of an answer that are looked at."""


@dataclass(frozen=True)
class Reply:
    """What came back; header names are in lower case. `failed` says why nothing did."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cookies: tuple[str, ...] = ()
    failed: str = ""

    @property
    def html(self) -> bool:
        """Tell whether a browser would show it as a page."""
        return self.headers.get("content-type", "").startswith("text/html")


class Stranger(Protocol):
    """Somebody who is not signed in and has no token."""

    def ask(self, method: str, path: str) -> Reply:
        """Return the answer to one request; redirects are not followed."""


class AtHand:
    """Calls the application in this process, by https and from another public address each time.

    Each request is another client, so that limits hide nothing; no packet goes to these addresses.
    """

    def __init__(self, app: Flask) -> None:
        service = state_of(app).service
        name = next((host.replace("*", "www") for host in service.allowed_hosts), "localhost")
        self._app = app
        self._base = f"https://{name}"
        self._proxied = service.trusted_proxies > 0
        self._numbers = count(1)

    def ask(self, method: str, path: str) -> Reply:
        """Return the answer; what the application raises is an answer of 500 with no body."""
        address = _address(next(self._numbers))
        headers = {"X-Forwarded-For": address, "X-Forwarded-Proto": "https"} if self._proxied else {}
        client = self._app.test_client(use_cookies=False)
        logging.disable(logging.CRITICAL)  # the errors that this provokes are not the service's
        try:
            response = client.open(
                path, method=method, base_url=self._base, headers=headers, environ_base={"REMOTE_ADDR": address}
            )
            body = response.get_data()[:LARGEST]
            response.close()
        except Exception as error:
            return Reply(500, {}, b"", failed=type(error).__name__)
        finally:
            logging.disable(logging.NOTSET)
        found = {key.lower(): value for key, value in response.headers}
        return Reply(response.status_code, found, body, tuple(response.headers.getlist("Set-Cookie")))


class FarAway:
    """Asks a running service over the network; ValueError for what is no address."""

    def __init__(self, url: str, timeout: float = 5.0) -> None:
        self._parts = urlsplit(url if "://" in url else f"http://{url}")
        if self._parts.scheme not in ("http", "https") or not self._parts.hostname:
            raise ValueError(f"{url!r} is not an address such as https://shop.example.com")
        _ = self._parts.port  # raises for what is no port
        self._timeout = timeout

    def ask(self, method: str, path: str) -> Reply:
        """Return the answer, or why there is none."""
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=self._timeout)
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, headers={"Accept": "text/html,*/*"})
            response = connection.getresponse()
            body = response.read(LARGEST)
        except (OSError, http.client.HTTPException) as error:
            return Reply(0, {}, b"", failed=str(error) or type(error).__name__)
        finally:
            connection.close()
        found = {key.lower(): value for key, value in response.getheaders()}
        return Reply(response.status, found, body, tuple(response.headers.get_all("Set-Cookie") or ()))


def routes(app: Flask, *, unsafe: bool = False) -> Iterator[tuple[str, str]]:
    """Yield method and path of every route, with a value in each variable; unsafe methods only when asked."""
    safe = {"GET", "HEAD", "OPTIONS"}
    for rule in app.url_map.iter_rules():
        values = {name: _value(rule._converters[name]) for name in rule.arguments if name in rule._converters}
        built = rule.build({**values, **(rule.defaults or {})}, append_unknown=False)
        if built is None:
            continue
        for method in sorted(rule.methods or ()):
            if unsafe or method in safe:
                yield method, built[1].partition("?")[0]


def _value(converter: object) -> object:
    kind = type(converter).__name__
    samples = {
        "IntegerConverter": 1,
        "FloatConverter": 1.5,
        "UUIDConverter": "00000000-0000-0000-0000-000000000000",
    }
    if kind == "AnyConverter":
        return next(iter(converter.items))  # type: ignore[attr-defined]  # of werkzeug
    return samples.get(kind, "x")


def _address(number: int) -> str:
    """Return one of 16 million public addresses; those for documentation count as private."""
    return f"11.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
