"""Whom the pass believes about client, scheme and host."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Request

from flask_prod.components.proxy.engine import (
    PEER_KEY,
    AllowedHosts,
    DirectPeer,
    TrustedHops,
    adopt_request_id,
    canonical_address,
    connection_scheme,
    host_problems,
)
from flask_prod.core.component import Event
from flask_prod.core.record import RequestRecord


def record_of(**environ: Any) -> RequestRecord:
    """Make the record of a request with these environ entries."""
    base = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "wsgi.url_scheme": "http",
        "SERVER_NAME": "inner",
        "SERVER_PORT": "8000",
        "HTTP_HOST": "shop.example.com",
        "REMOTE_ADDR": "10.0.0.9",
    }
    return RequestRecord({**base, **environ}, "a" * 32, 0.0)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:5555", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:C000:0201", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("unknown", ""),
        ("_hidden", ""),
        ("192.0.2.1\x00", ""),
        ("192.0.2.256", ""),
        ("١٩٢.0.2.1", ""),
        ("", ""),
    ],
)
def test_canonical_address(text: str, address: str) -> None:
    """One client has one spelling; what is no address is none."""
    assert canonical_address(text) == address


@given(st.ip_addresses())
def test_canonical_address_is_stable(address: Any) -> None:
    """Every address of the two families has a form, and the form is its own."""
    form = canonical_address(str(address))

    assert form
    assert canonical_address(form) == form


@given(st.text())
def test_canonical_address_never_raises(text: str) -> None:
    """Whatever a header holds, the answer is an address or nothing."""
    assert isinstance(canonical_address(text), str)


def test_without_proxies_nothing_forwarded_counts() -> None:
    """With no trusted proxy the headers are gone, before anything could read them."""
    record = record_of(
        HTTP_X_FORWARDED_FOR="6.6.6.6",
        HTTP_X_FORWARDED_PROTO="https",
        HTTP_X_FORWARDED_HOST="evil.example",
        HTTP_FORWARDED="for=6.6.6.6;proto=https",
    )

    assert DirectPeer(lambda event: None).ask(record) is None

    assert (record.client, record.scheme, record.host) == ("10.0.0.9", "http", "shop.example.com")
    assert not [name for name in record.environ if "FORWARDED" in name]
    assert record.environ[PEER_KEY] == "10.0.0.9"


def test_ignored_headers_are_told_once() -> None:
    """A forgotten TRUSTED_PROXIES is one event per process, whatever clients send."""
    events: list[Event] = []
    step = DirectPeer(events.append)

    for _ in range(3):
        step.ask(record_of(HTTP_X_FORWARDED_FOR="6.6.6.6"))

    assert [event.name for event in events] == ["prod.proxy.ignored"]
    assert "TRUSTED_PROXIES" in events[0].message


@pytest.mark.parametrize(
    ("hops", "forwarded", "client"),
    [
        (1, "203.0.113.7", "203.0.113.7"),
        (1, "6.6.6.6, 203.0.113.7", "203.0.113.7"),
        (2, "6.6.6.6, 203.0.113.7, 10.0.0.1", "203.0.113.7"),
        (2, "203.0.113.7", "10.0.0.9"),
        (1, "6.6.6.6, unknown", "10.0.0.9"),
        (1, "", "10.0.0.9"),
    ],
)
def test_client_behind_proxies(hops: int, forwarded: str, client: str) -> None:
    """The N-th address from the right is the client; what stands to its left is what the client says."""
    record = record_of(HTTP_X_FORWARDED_FOR=forwarded)

    TrustedHops(hops).ask(record)

    assert record.client == record.environ["REMOTE_ADDR"] == client
    assert record.environ[PEER_KEY] == "10.0.0.9"


@pytest.mark.parametrize(
    ("hops", "proto", "scheme"),
    [
        (1, "https", "https"),
        (1, "HTTPS", "https"),
        (2, "https,https", "https"),
        (2, "https, http", "https"),
        (1, "https,http", "http"),
        (2, "https", "http"),
        (1, "wss", "https"),
        (1, "javascript", "http"),
    ],
)
def test_scheme_behind_proxies(hops: int, proto: str, scheme: str) -> None:
    """Chained values are read by position, and only schemes of the web count."""
    record = record_of(HTTP_X_FORWARDED_PROTO=proto)

    TrustedHops(hops).ask(record)

    assert record.scheme == record.environ["wsgi.url_scheme"] == scheme


@pytest.mark.parametrize(
    ("proto", "host", "port", "expected"),
    [
        ("https", "shop.example.org", "", "shop.example.org"),
        ("https", "evil.example, shop.example.org", "", "shop.example.org"),
        ("https", "shop.example.org:8443", "", "shop.example.org:8443"),
        ("https", "shop.example.org", "443", "shop.example.org"),
        ("https", "shop.example.org", "8443", "shop.example.org:8443"),
        ("http", "[2001:db8::1]", "8080", "[2001:db8::1]:8080"),
        ("https", "shop.example.org", "443x", "shop.example.org"),
        ("https", "", "8443", "shop.example.com:8443"),
    ],
)
def test_host_behind_proxies(proto: str, host: str, port: str, expected: str) -> None:
    """Host and port come from the trusted entry, the default port is left out."""
    record = record_of(HTTP_X_FORWARDED_PROTO=proto, HTTP_X_FORWARDED_HOST=host, HTTP_X_FORWARDED_PORT=port)

    assert TrustedHops(1).ask(record) is None

    assert record.host == record.environ["HTTP_HOST"] == expected


def test_only_named_headers_count() -> None:
    """A header that the proxy passes on from clients can be left out of FORWARDED_HEADERS."""
    record = record_of(HTTP_X_FORWARDED_FOR="203.0.113.7", HTTP_X_FORWARDED_HOST="evil.example")

    TrustedHops(1, ("for", "proto")).ask(record)

    assert (record.client, record.host) == ("203.0.113.7", "shop.example.com")


@pytest.mark.parametrize(
    "host", ["a b", "shop.example.com/x", "a@b", "x\r\nSet-Cookie: a", "münchen.de", "a:b:c", "[::1"]
)
def test_malformed_host_is_refused(host: str) -> None:
    """What cannot be a host name is answered 400, from clients and from proxies."""
    assert isinstance(DirectPeer(lambda event: None).ask(record_of(HTTP_HOST=host)), BadRequest)
    assert isinstance(TrustedHops(1).ask(record_of(HTTP_X_FORWARDED_HOST=host)), BadRequest)


def test_no_host_header_is_no_malformed_one() -> None:
    """HTTP/1.0 clients send none; the server's own name stands in."""
    assert DirectPeer(lambda event: None).ask(record_of(HTTP_HOST="", SERVER_NAME="/run/app socket")) is None


@pytest.mark.parametrize("step", [DirectPeer(lambda event: None), TrustedHops(1)])
def test_empty_host_is_none(step: DirectPeer | TrustedHops) -> None:
    """An empty Host stands for the server's own name, in addresses that Werkzeug builds as well."""
    record = record_of(HTTP_HOST="")

    assert step.ask(record) is None
    assert record.host == "inner"
    assert Request(record.environ).url == "http://inner:8000/"


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("shop.example.com", True),
        ("SHOP.example.com:8443", True),
        ("shop.example.com.", True),
        ("a.example.org", True),
        ("a.b.example.org", True),
        ("example.org", False),
        ("evilexample.org", False),
        ("shop.example.com.evil.net", False),
        ("xn--mnchen-3ya.de", True),
        ("", False),
    ],
)
def test_allowed_hosts(host: str, allowed: bool) -> None:
    """Names are compared whole; a wildcard covers subdomains and not the domain itself."""
    hosts = AllowedHosts(["shop.example.com", "*.example.org", "münchen.de"])

    assert hosts.allows(host) is allowed
    assert (hosts.ask(record_of(HTTP_HOST=host, SERVER_NAME="")) is None) is allowed


@pytest.mark.parametrize(
    "name", ["*", "https://shop.example.com", "shop.example.com:443", "*example.com", ".example.com", ""]
)
def test_unusable_allowed_hosts_are_explained(name: str) -> None:
    """An entry that would match nothing, or everything, is refused at start."""
    assert next(host_problems([name])).startswith("ALLOWED_HOSTS")


@pytest.mark.parametrize(
    ("given", "adopted"),
    [
        ("a1b2c3d4", True),
        ("0af7651916cd43dd8448eb211c80319c", True),
        ("short", False),
        ("x" * 129, False),
        ("a b c d e f", False),
        ("evil\nline", False),
    ],
)
def test_request_id_of_a_proxy(given: str, adopted: bool) -> None:
    """An id is taken over when it can do no harm in a log."""
    record = record_of(HTTP_X_REQUEST_ID=given)

    adopt_request_id(record)

    assert (record.request_id == given) is adopted


def test_gunicorn_is_not_believed_about_https() -> None:
    """gunicorn takes X-Forwarded-Proto from the loopback for the scheme; its socket tells otherwise."""
    plain, encrypted = object(), type("TLS", (), {"cipher": None})()

    assert connection_scheme({"wsgi.url_scheme": "https", "gunicorn.socket": plain}) == "http"
    assert connection_scheme({"wsgi.url_scheme": "https", "gunicorn.socket": encrypted}) == "https"
    assert connection_scheme({"wsgi.url_scheme": "https"}) == "https"
