"""Who is let in by its origin, its host, or the address it claims."""

from __future__ import annotations

import string
from typing import Any

import pytest
from flask import Flask, redirect, request, url_for
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import Client, TestResponse

from tests.apps import MakeApp

APP = "https://app.example.com"
WILD = "https://*.example.org"
HOSTILE = [
    "null", "https://app.example.com.evil.net", "https://evilapp.example.com", "http://app.example.com",
    "https://app.example.com:8443", "https://app.example.com.", "https://app.example.com/",
    "https://app.example.com@evil.net", "https://evil.net#https://app.example.com",
    "https://evil.net/app.example.com", "https://àpp.example.com", "https://app。example.com",
    "https://xn--pp-fka.example.com", "file://", "file:///etc/passwd",
    "https://app.example.com https://evil.net", "https://evil.net https://app.example.com",
    f"https://evil.net, {APP}", f"{APP}, https://evil.net", f"{APP}%60.evil.net", f"{APP}\x0b.evil.net",
    "https://example.org", "http://ab.c.example.org", "https://a.example.org.evil.net", "https://aexample.org", "https://.example.org",
    "https://-.example.org.", "http://a.example.org", "https://a.example.org:444", "https://a/b.example.org",
    "https://a@b.example.org", "https://a b.example.org", "https://*.example.org", "*", "", "https://",
    "//app.example.com", "app.example.com", "chrome-extension://app.example.com", "data:text/html,x",
    "blob:https://app.example.com", f" {APP}x",
]  # fmt: skip


@pytest.fixture
def shop(make_app: MakeApp) -> Flask:
    """Give an application with CORS for one origin and the subdomains of another."""
    app = make_app(
        only=("proxy", "problems", "headers", "cors", "ratelimit"),
        ENVIRONMENT="production",
        ALLOWED_ORIGINS=[APP, WILD],
        CORS_CREDENTIALS=True,
        RATE_LIMIT_PUBLIC="",
    )
    app.add_url_rule("/", "home", lambda: "home")
    app.add_url_rule("/boom", "boom", lambda: str(1 / 0))
    app.add_url_rule("/away", "away", lambda: redirect("/"))
    return app


def ask(app: Flask, method: str, path: str, *headers: tuple[str, str]) -> TestResponse:
    """Send one request over https, with headers as they are."""
    return Client(app).open(path, method=method, base_url="https://shop.example", headers=list(headers))


def answers(app: Flask, origin: str) -> list[TestResponse]:
    """Return what an origin gets: views, errors, a preflight."""
    sent = ("Origin", origin.encode().decode("latin-1"))
    found = [ask(app, "GET", path, sent) for path in ("/", "/nope", "/boom", "/away")]
    found.append(ask(app, "OPTIONS", "/", sent, ("Access-Control-Request-Method", "GET")))
    return found


@pytest.mark.parametrize("origin", HOSTILE)
def test_t42_hostile_origins(shop: Flask, origin: str) -> None:
    """No look-alike of an allowed origin may read anything, and every answer varies by origin."""
    for answer in answers(shop, origin):
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize("origin", [APP, "https://a.example.org", "https://b.a.example.org"])
def test_t42_friends(shop: Flask, origin: str) -> None:
    """What is allowed is allowed everywhere, by its own name."""
    for answer in answers(shop, origin):
        assert answer.headers.getlist("Access-Control-Allow-Origin") == [origin]
        assert "Origin" in answer.headers["Vary"]


def test_t42_two_origins(shop: Flask) -> None:
    """Two Origin headers are none, in either order."""
    for pair in ((APP, "https://evil.net"), ("https://evil.net", APP)):
        answer = ask(shop, "GET", "/", *(("Origin", origin) for origin in pair))
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_t42_nobody(shop: Flask) -> None:
    """Without an Origin there is no permission, and the answer varies all the same."""
    answer = ask(shop, "GET", "/")

    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Origin" in answer.headers["Vary"]


TOKEN = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~, /;=()<>@[]{}\"\\", max_size=40)
METHOD = st.sampled_from(["GET", "PUT", "get", "", "OPTIONS", "TRACE", "CONNECT"]) | TOKEN


def test_t42_random_preflights(shop: Flask) -> None:
    """Whatever a preflight asks, nobody but the list is let in, and the answer is never a server error."""

    @given(origin=st.sampled_from([APP, "https://evil.net"]), method=METHOD, names=TOKEN)
    def check(origin: str, method: str, names: str) -> None:
        sent = (
            ("Origin", origin),
            ("Access-Control-Request-Method", method),
            ("Access-Control-Request-Headers", names),
        )
        answer = ask(shop, "OPTIONS", "/", *sent)

        assert answer.status_code < 500
        assert answer.headers.get("Access-Control-Allow-Origin") in ((APP, None) if origin == APP else (None,))
        assert "Origin" in answer.headers["Vary"]

    check()


PEER = {"REMOTE_ADDR": "198.51.100.7"}
SPOOFED = {
    "X-Forwarded-For": "203.0.113.{0}",
    "X-Real-IP": "203.0.113.{0}",
    "X-Client-IP": "203.0.113.{0}",
    "X-Cluster-Client-IP": "203.0.113.{0}",
    "True-Client-IP": "203.0.113.{0}",
    "CF-Connecting-IP": "203.0.113.{0}",
    "Forwarded": "for=203.0.113.{0};host=evil.net;proto=https",
    "X-Forwarded-Host": "evil.net",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Port": "444",
    "X-Forwarded-Prefix": "/evil",
    "X-Original-URL": "/evil",
    "X-Rewrite-URL": "/evil",
    "X-Host": "evil.net",
}


@pytest.fixture
def direct(make_app: MakeApp) -> Flask:
    """Give an application with no proxy in front, and links to itself."""
    app = make_app(ENVIRONMENT="production", RATE_LIMIT_PUBLIC=5, ALLOWED_HOSTS=["shop.example"])
    app.add_url_rule("/", "home", lambda: url_for("home", _external=True) + " " + str(request.remote_addr))
    app.add_url_rule("/away", "away", lambda: redirect(url_for("home", _external=True)))
    return app


def visit(app: Flask, path: str, scheme: str = "https", **how: Any) -> TestResponse:
    """Come directly, without a proxy."""
    return Client(app).get(path, base_url=f"{scheme}://shop.example", environ_base=PEER, **how)


def test_t43_one_bucket(direct: Flask) -> None:
    """Whatever address a client claims, it is counted as the one that it comes from."""
    statuses = []
    for number in range(8):
        headers = {name: value.format(number) for name, value in SPOOFED.items()}
        answer = visit(direct, "/", headers=headers)
        statuses.append(answer.status_code)
        if answer.status_code == 200:
            assert answer.text == "https://shop.example/ 198.51.100.7"

    assert statuses == [200] * 5 + [429] * 3


@pytest.mark.parametrize("path", ["/", "/away"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_t43_no_evil_location(direct: Flask, path: str, scheme: str) -> None:
    """No header of a client reaches an address in an answer."""
    headers = {name: value.format(1) for name, value in SPOOFED.items()}
    answer = visit(direct, path, scheme, headers=headers)

    said = answer.text + "".join(value for _, value in answer.headers)
    assert "evil" not in said
    assert "203.0.113" not in said
    if answer.location is not None:
        assert answer.location.startswith("https://shop.example/")


FOREIGN_HOSTS = [
    "evil.net", "shop.example.evil.net", "evil.net:80", "shop.example@evil.net", "evilshop.example",
    "shop.example:x", "shop.example evil.net", "shop.example,evil.net", "shop.example/evil",
    "evil.net#shop.example", "[::1]", "127.0.0.1", "shop.example%00.evil.net",
]  # fmt: skip


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_t43_foreign_hosts(direct: Flask, host: str, scheme: str) -> None:
    """A Host that is not ours is answered 400, and not repeated."""
    answer = visit(direct, "/", scheme, environ_overrides={"HTTP_HOST": host})

    assert answer.status_code == 400
    assert "evil" not in answer.text
    assert answer.location is None


def test_t43_no_host(direct: Flask) -> None:
    """Without a Host the server's own name counts."""
    answer = visit(direct, "/", "http", environ_overrides={"HTTP_HOST": ""})

    assert answer.status_code == 400 or answer.location == "https://shop.example/"
