"""Who the client really is: what N trusted proxies say, and nothing that anybody else says.

The N-th entry from the right of a forwarded header was written by the outermost trusted proxy; all to the left of
it came from the client.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import TYPE_CHECKING, TypeAlias

from werkzeug.exceptions import BadRequest

from flask_prod.core.component import Event
from flask_prod.core.ports import Meter, NoMeter
from flask_prod.core.record import RequestRecord

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

PEER_KEY = "flask_prod.peer"
"""Where the address of the direct peer, a proxy or the client itself, lies in the WSGI environment."""

FORWARDED = (
    "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX", "HTTP_X_FORWARDED_PROTOCOL", "HTTP_X_FORWARDED_SSL", "HTTP_FORWARDED",
)  # fmt: skip
"""Every header by which somebody may claim to speak for another."""

_HOST = re.compile(r"(?P<name>\[[0-9a-f]*:[0-9a-f:.]*\]|[a-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII | re.I)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}", re.ASCII)
_ALLOWED_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]", re.ASCII)

_MAPPED = bytes(10) + b"\xff\xff"
"""The first 12 bytes of an IPv4 address written as IPv6 (RFC 4291, 2.5.5.2)."""

_LONGEST_HOST = 261
"""255 bytes of a name (RFC 1035, 2.3.4), a colon and a port; keeps the cache of verdicts small."""

_MOST_HEARD, _LONGEST_SAID = 4096, 256
"""A cache is emptied when it is full, and long headers stay out: at most about 3 MB, whatever clients send."""

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class DirectPeer:
    """The step without trusted proxies: the peer is the client, and forwarded headers do not exist."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._told = False

    def ask(self, record: RequestRecord) -> BadRequest | None:
        """Drop what the client claims about itself; BadRequest for a Host that is none.

        An empty Host is dropped too: it stands for the server's own name, as in `record.host`, and Werkzeug
        would write `https:///` into redirects.
        """
        environ = record.environ
        environ[PEER_KEY] = record.client = environ["REMOTE_ADDR"] = _canonical_peer(record.client)
        for name in FORWARDED:
            if name in environ:
                del environ[name]
                self._told = self._told or self._tell()
        if record.scheme != "http":
            record.scheme = environ["wsgi.url_scheme"] = connection_scheme(environ)
        if environ.get("HTTP_HOST") == "":
            del environ["HTTP_HOST"]
        return None if is_host(record.host) else _not_a_host(record, self._emit)

    def _tell(self) -> bool:
        self._emit(
            Event(
                "prod.proxy.ignored",
                "A request came with forwarded headers, which were ignored: TRUSTED_PROXIES is 0. "
                "If a proxy stands in front of this service, set TRUSTED_PROXIES to how many there are.",
                severity="warning",
            )
        )
        return True


Heard: TypeAlias = tuple[str, str, str, Mapping[str, str], bool]
"""What the headers of a request come to: client, scheme and host, what changes in its environment, and whether the
host is one. A plain tuple, which is taken apart in half the time of a named one."""

Said: TypeAlias = tuple[str, str, str, str | None, str | None, str | None, str | None]
"""Peer, scheme and host of the connection; then forwarded for, proto, host and port."""


class TrustedHops:
    """The step behind *hops* proxies; *headers* names which of for, proto, host and port they set."""

    def __init__(
        self,
        hops: int,
        headers: Collection[str] = ("for", "proto", "host", "port"),
        emit: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._hops = hops
        self._emit = emit
        self._for, self._proto, self._host, self._port = (
            f"HTTP_X_FORWARDED_{name.upper()}" if name in headers else ""
            for name in ("for", "proto", "host", "port")
        )
        self._heard: dict[Said, Heard] = {}

    def ask(self, record: RequestRecord) -> BadRequest | None:
        """Give the record the client, scheme and host that the outermost trusted proxy saw, and its request id."""
        environ = record.environ
        get = environ.get
        if get("HTTP_HOST") == "":
            del environ["HTTP_HOST"]
        scheme = connection_scheme(environ) if record.scheme == "https" else record.scheme
        said: Said = (
            record.client, scheme, record.host, get(self._for), get(self._proto), get(self._host), get(self._port)
        )  # fmt: skip
        heard = self._heard.get(said) or self._hear(said)
        record.client, record.scheme, record.host, changes, valid = heard
        environ.update(changes)
        if "HTTP_X_REQUEST_ID" in environ:
            adopt_request_id(record)
        return None if valid else _not_a_host(record, self._emit)

    def _hear(self, said: Said) -> Heard:
        """Read the headers; clients come again, and what short ones say is kept."""
        heard = self._read(said)
        if sum(map(len, filter(None, said))) <= _LONGEST_SAID:
            if len(self._heard) >= _MOST_HEARD:
                self._heard.clear()
            self._heard[said] = heard
        return heard

    def _read(self, said: Said) -> Heard:
        peer, scheme, host, *forwarded = said
        said_for, said_proto, said_host, said_port = map(self._entry, forwarded)
        peer = _canonical_peer(peer)
        client = canonical_address(said_for) or peer
        scheme = _SCHEMES.get(said_proto.lower()) or scheme
        changes = {PEER_KEY: peer, "REMOTE_ADDR": client, "wsgi.url_scheme": scheme}
        if said_host or said_port:
            moved = _moved(said_host or host, said_port, scheme)
            host = moved.get("HTTP_HOST", "")
            changes |= moved
        return client, scheme, host, changes, is_host(host)

    def _entry(self, value: str | None) -> str:
        """Return the N-th entry from the right, empty where there are fewer: then no trusted proxy wrote it."""
        if not value:
            return ""
        entries = value.split(",")
        return entries[-self._hops].strip() if len(entries) >= self._hops else ""


def _moved(host: str, port: str, scheme: str) -> dict[str, str]:
    """Return the environment of a request for another host; empty when that is none."""
    match = _HOST.fullmatch(host)
    if match is None:
        return {}
    environ_port = match["port"] or _DEFAULT_PORTS[scheme]
    if port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536:
        host = match["name"] if port == _DEFAULT_PORTS[scheme] else f"{match['name']}:{port}"
        environ_port = port
    return {"HTTP_HOST": host, "SERVER_NAME": match["name"], "SERVER_PORT": environ_port}


_REFUSED = "Requests for a host that is not in ALLOWED_HOSTS."


class AllowedHosts:
    """The step that answers 400 to a host on no list; `*.example.com` covers subdomains of any depth."""

    def __init__(
        self,
        allowed: Iterable[str],
        meter: Meter | None = None,
        emit: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._emit = emit
        self._refused = (meter or NoMeter()).counter("flask_prod_hosts_refused_total", _REFUSED)
        names = [ascii_name(name) for name in allowed]
        self._exact = frozenset(name for name in names if not name.startswith("*."))
        self._suffixes = tuple(name[1:] for name in names if name.startswith("*."))
        self._is_allowed = lru_cache(maxsize=1024)(self.allows)

    def ask(self, record: RequestRecord) -> BadRequest | None:
        """Let the record pass when its host is on the list."""
        if self._is_allowed(record.host):
            return None
        self._refused.inc()
        self._emit(_refused(record.host))
        return BadRequest("This service does not answer to that host name.")

    def allows(self, host: str) -> bool:
        """Tell whether *host*, with or without port or trailing dot, is on the list."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].lower().removesuffix(".")
        return name in self._exact or name.endswith(self._suffixes)


def adopt_request_id(record: RequestRecord) -> None:
    """Go on under the id that the trusted proxy gave the request, if it looks like one."""
    given = record.environ.get("HTTP_X_REQUEST_ID")
    if given and _REQUEST_ID.fullmatch(given):
        record.request_id = given


def canonical_address(text: str) -> str:
    """Return an IP address without port, brackets or zone, IPv4-mapped IPv6 as IPv4; empty when it is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        if ":" not in text:
            inet_pton(AF_INET, text)
            return text
        packed = inet_pton(AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):
        return ""
    return inet_ntop(AF_INET, packed[12:]) if packed.startswith(_MAPPED) else inet_ntop(AF_INET6, packed)


def connection_scheme(environ: WSGIEnvironment) -> str:
    """Return the scheme of the connection itself.

    gunicorn believes X-Forwarded-Proto from the addresses in its forwarded_allow_ips, the loopback by default. A
    socket that cannot name a cipher carries no TLS, whatever that header said.
    """
    scheme: str = environ["wsgi.url_scheme"]
    socket = environ.get("gunicorn.socket")
    if scheme == "https" and socket is not None and not hasattr(socket, "cipher"):
        return "http"
    return scheme


def is_host(host: str) -> bool:
    """Tell whether *host* consists of what host names, addresses and ports consist of."""
    return len(host) <= _LONGEST_HOST and _matches_host(host)


@lru_cache(maxsize=1024)
def _matches_host(host: str) -> bool:
    return _HOST.fullmatch(host) is not None


def ascii_name(name: str) -> str:
    """Return a host name as it appears in a Host header: lower case, IDNA, without the trailing dot."""
    name = name.strip().lower().removesuffix(".")
    if name.isascii():
        return name
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError:
        return name


def host_problems(allowed: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong with each entry of ALLOWED_HOSTS."""
    for name in allowed:
        if name == "*":
            yield "ALLOWED_HOSTS has '*': leave it empty to answer to any host, or name the hosts."
        elif not _ALLOWED_HOST.fullmatch(ascii_name(name)):
            yield (
                f"ALLOWED_HOSTS has {name!r}: write host names alone, such as shop.example.com or *.example.com, "
                "without scheme, port or path."
            )


def _canonical_peer(address: str) -> str:
    return (canonical_address(address) or address) if ":" in address else address


def _not_a_host(record: RequestRecord, emit: Callable[[Event], None]) -> BadRequest | None:
    # Without a Host header (HTTP/1.0) or on a Unix socket the server's own name stands in, whatever it is.
    if not record.environ.get("HTTP_HOST") and record.host:
        return None
    emit(_refused(record.environ.get("HTTP_X_FORWARDED_HOST") or record.host))
    return BadRequest("The Host header is not a host name.")


def _refused(host: str) -> Event:
    message = "A request for a host name that is none of this service's was refused."
    return Event("security.host_refused", message, "warning", {"host": host[:_LONGEST_HOST]})
