"""What a stranger gets: everything that is open is found, and nothing where all is shut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from flask import Flask, Response

from flask_prod.core.kit import state_of
from flask_prod.core.secrets import secrets_of
from flask_prod.review.audit import Audit, audit
from flask_prod.review.stranger import AtHand, FarAway, routes
from tests.review.well import SECRETS, site

OFFLINE = {"SENTRY_DSN": "", "OTLP_ENDPOINT": "", "REDIS_URL": "", "DATABASE_URL": "", "DATABASE_TLS": None}


@contextmanager
def closing(app: Flask) -> Iterator[Flask]:
    """Close an application's kit afterwards."""
    try:
        yield app
    finally:
        state_of(app).lifecycle.close()


def audited(add: Callable[[Flask], object] = lambda _app: None, unsafe: bool = False) -> Audit:
    """Audit a site with one more thing."""
    with closing(site(**OFFLINE)) as app:
        add(app)
        state = state_of(app)
        operational = [path for one in state.contributions.values() for path in one.operational]
        return audit(
            AtHand(app), list(routes(app, unsafe=unsafe)), operational=operational,
            secret_texts=list(secrets_of(app)), told=state.settings.hidden,
        )  # fmt: skip


def page(path: str, answer: Callable[[], Response | str]) -> Callable[[Flask], object]:
    """Add a view."""
    return lambda app: app.add_url_rule(path, "added", answer)


def leaky_cookie() -> Response:
    """Answer with a cookie that has no flags."""
    response = Response("x")
    response.set_cookie("seen", "1")
    return response


def bare() -> Response:
    """Answer as software that tells its version."""
    return Response("x", headers={"X-Powered-By": "Zope/2.13"})


def test_shut() -> None:
    """A site with the kit gives a stranger nothing: probes say one word, /metrics is not there."""
    found = audited()

    assert [(one.id, one.evidence) for one in found.findings] == []
    assert found.requests > 30


@pytest.mark.parametrize(
    ("id", "add"),
    [
        ("A01", page("/admin", lambda: "all orders")),
        ("A01", page("/debug/pool", lambda: "10 connections")),
        ("A01", page("/rq/queues", lambda: "{}")),
        ("A02", page("/x", lambda: "<pre>Traceback (most recent call last):</pre>")),
        ("A03", page("/y", lambda: "<script>EVALEX = true</script>")),
        ("A04", page("/settings", lambda: f"key: {SECRETS['SECRET_KEY']}")),
        ("A06", page("/v", bare)),
        ("A07", page("/c", leaky_cookie)),
    ],
)
def test_open(id: str, add: Callable[[Flask], object]) -> None:
    """What is open is found under its id, and told without a secret."""
    found = audited(add).findings

    assert {one.id for one in found} == {id}
    assert SECRETS["SECRET_KEY"] not in found[0].evidence


def test_header() -> None:
    """An answer without the security headers is found, by header."""
    with closing(site(**OFFLINE)) as app:
        bald = Flask("bald")
        bald.add_url_rule("/", "index", lambda: "<html>")
        bald.extensions["prod"] = app.extensions["prod"]
        found = audit(AtHand(bald), [("GET", "/")]).findings

    assert {one.evidence.partition(":")[0] for one in found if one.id == "A05"} == {
        "x-content-type-options", "strict-transport-security", "referrer-policy", "content-security-policy",
        "x-frame-options",
    }  # fmt: skip


def test_one_page_for_all() -> None:
    """A site that answers every path with one page does not have all operations endpoints."""

    def add(app: Flask) -> None:
        app.add_url_rule("/<path:any>", "everything", lambda any: "<html>the application</html>")

    assert audited(add).findings == ()


def test_safe() -> None:
    """Only safe methods are sent, unless asked; variables in a route get a value of their kind."""
    app = Flask("methods", static_folder=None)
    app.add_url_rule("/a/<int:number>/<name>", "a", lambda **_: "a", methods=["GET", "DELETE"])
    app.add_url_rule("/b/<uuid:id>", "b", lambda **_: "b", methods=["POST"])

    assert set(routes(app)) == {
        ("GET", "/a/1/x"), ("HEAD", "/a/1/x"), ("OPTIONS", "/a/1/x"),
        ("OPTIONS", "/b/00000000-0000-0000-0000-000000000000"),
    }  # fmt: skip
    assert ("DELETE", "/a/1/x") in set(routes(app, unsafe=True))


def test_nobody_there() -> None:
    """Where nothing answers, nothing is judged."""
    found = audit(FarAway("http://127.0.0.1:1"), [("GET", "/")])

    assert found.findings == ()
    assert found.unjudged == found.requests
    with pytest.raises(ValueError, match="not an address"):
        FarAway("ftp://127.0.0.1")
