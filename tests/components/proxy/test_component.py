"""The proxy room in the pass, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, request, url_for

from flask_prod import ConfigError
from tests.apps import MakeApp, StartGunicorn

ROOMS = ("proxy", "problems", "headers", "health")


def build(make_app: MakeApp, **config: Any) -> Flask:
    """Build an application that says what it believes."""
    app = make_app(only=ROOMS, **config)

    @app.get("/seen")
    def seen() -> dict[str, Any]:
        return {
            "client": request.remote_addr,
            "secure": request.is_secure,
            "url": url_for("seen", _external=True),
            "route": list(request.access_route),
        }

    return app


def test_default_trusts_nobody(make_app: MakeApp) -> None:
    """Without TRUSTED_PROXIES no header changes client, scheme, host, or anything derived from them."""
    spoof = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "X-Request-ID": "chosen-by-client",
    }

    answer = build(make_app).test_client().get("/seen", headers=spoof)

    assert answer.json == {
        "client": "127.0.0.1",
        "secure": False,
        "url": "http://localhost/seen",
        "route": ["127.0.0.1"],
    }
    assert answer.headers["X-Request-ID"] != "chosen-by-client"


def test_trap_21_scheme_comes_from_one_place(make_app: MakeApp) -> None:
    """A spoofed scheme is redirected, a trusted one is not, chained values work, and url_for agrees."""
    config = {"SECURITY_FORCE_HTTPS": True}
    spoofed = build(make_app, **config).test_client().get("/seen", headers={"X-Forwarded-Proto": "https"})
    one = build(make_app, TRUSTED_PROXIES=1, **config).test_client()
    two = build(make_app, TRUSTED_PROXIES=2, **config).test_client()

    trusted = one.get("/seen", headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example.com"})
    chained = two.get("/seen", headers={"X-Forwarded-Proto": "https,https"})

    assert spoofed.status_code == 308
    assert trusted.get_json()["url"] == "https://shop.example.com/seen"
    assert chained.status_code == 200


def test_request_id_of_a_trusted_proxy_is_kept(make_app: MakeApp) -> None:
    """The id of the edge is the id of the answer."""
    client = build(make_app, TRUSTED_PROXIES=1).test_client()

    assert (
        client.get("/seen", headers={"X-Request-ID": "edge-0123456789"}).headers["X-Request-ID"]
        == "edge-0123456789"
    )


def test_refused_host(make_app: MakeApp) -> None:
    """A host on no list is answered 400 with all headers of an answer, and names nothing of it."""
    client = build(make_app, ALLOWED_HOSTS=["shop.example.com"]).test_client()

    answer = client.get("/seen", base_url="http://evil.example")

    assert answer.status_code == 400
    assert answer.mimetype == "application/problem+json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert b"evil" not in answer.data
    assert client.get("/seen", base_url="http://shop.example.com").status_code == 200


def test_probes_are_asked_by_address(make_app: MakeApp) -> None:
    """A load balancer's probe knows no host name, and is never refused for it."""
    client = build(make_app, ALLOWED_HOSTS=["shop.example.com"]).test_client()

    assert client.get("/health/live", base_url="http://10.1.2.3:8000").status_code == 200


def test_unusable_hosts_stop_the_start(make_app: MakeApp) -> None:
    """A wildcard alone is refused with advice."""
    with pytest.raises(ConfigError, match="leave it empty"):
        make_app(only=ROOMS, ALLOWED_HOSTS="*")


SOURCE = """
from flask import Flask, request
from flask_prod import ProdKit

def create_app():
    app = Flask("shop")
    ProdKit(app, only=("proxy", "problems", "headers"))

    @app.get("/seen")
    def seen():
        return {"scheme": request.scheme, "client": request.remote_addr}

    return app
"""


def test_gunicorn_does_not_let_a_spoofed_scheme_through(gunicorn: StartGunicorn) -> None:
    """gunicorn believes X-Forwarded-Proto from the loopback; the pass does not."""
    server = gunicorn(source=SOURCE, env={"ENVIRONMENT": "production"})

    answer = server.get("/seen", headers={"X-Forwarded-Proto": "https"})

    assert answer.status == 308
    assert answer.headers["Location"].startswith("https://")


def test_gunicorn_behind_a_trusted_proxy(gunicorn: StartGunicorn) -> None:
    """With one hop the last entry counts, over real HTTP."""
    server = gunicorn(source=SOURCE, env={"ENVIRONMENT": "production", "TRUSTED_PROXIES": "1"})

    answer = server.get("/seen", headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "6.6.6.6, 203.0.113.7"})

    assert answer.status == 200
    assert b"203.0.113.7" in answer.body
