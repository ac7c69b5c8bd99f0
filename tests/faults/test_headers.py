"""What answers carry, judged by strangers' rules."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import http_sfv.list
import pytest
from flask import Flask, Response, redirect, render_template_string, session
from werkzeug.test import TestResponse

from flask_prod import ProdKit
from tests.apps import MakeApp
from tests.observatory import Answer, Scan, findings, score, verdicts

HOST = "shop.example"
EVIL = "https://evil.example"
PAGE = '<!doctype html><title>Shop</title><script nonce="{{ csp_nonce() }}">let a = 1</script>'


@pytest.fixture
def shop(make_app: MakeApp) -> Flask:
    """Give an application with the defaults of production and answers of every kind."""
    prod = ProdKit()
    app = make_app(kit=prod, ENVIRONMENT="production", SECRET_KEY="k" * 32, RATE_LIMIT_PUBLIC="")

    def page() -> str:
        session["basket"] = 1
        return render_template_string(PAGE)

    @prod.cache.cached(ttl=60)
    def cached() -> str:
        return render_template_string(PAGE)

    def plain() -> Response:
        return Response("<!doctype html><title>Plain</title>", mimetype="text/html")

    views: dict[str, Callable[[], Any]] = {
        "/": page,
        "/cached": cached,
        "/plain": prod.cache.cached(ttl=60)(plain),
        "/api": lambda: {"a": 1},
        "/boom": lambda: str(1 / 0),
        "/away": lambda: redirect("/"),
    }
    for path, view in views.items():
        app.add_url_rule(path, path.strip("/") or "home", view)
    return app


def visit(app: Flask, path: str, scheme: str = "https", **headers: str) -> TestResponse:
    """Visit without cookies."""
    client = app.test_client(use_cookies=False)
    return client.get(path, base_url=f"{scheme}://{HOST}", headers=headers, buffered=True)


def scan(app: Flask, path: str, accept: str) -> Scan:
    """Look at an answer as the Observatory does: by https, by http, and from a foreign origin."""
    url = f"https://{HOST}{path}"
    seen, plain, foreign = (
        visit(app, path, scheme, Accept=accept, **more)
        for scheme, more in (("https", {}), ("http", {}), ("https", {"Origin": EVIL}))
    )
    return Scan(
        answer=Answer(url=url, headers=list(seen.headers), body=seen.text),
        route=[f"http://{HOST}{path}", plain.location] if plain.location else None,
        foreign=Answer(url=url, headers=list(foreign.headers), origin=EVIL),
    )


@pytest.mark.parametrize(
    ("path", "accept", "least"),
    [
        ("/", "text/html", 150),  # with a session cookie
        ("/api", "application/json", 150),
        ("/nope", "text/html", 145),
        ("/nope", "application/json", 150),
        ("/boom", "text/html", 145),
        ("/boom", "application/json", 150),
        ("/away", "text/html", 145),
        ("/plain", "text/html", 145),
        ("/health/live", "*/*", 150),
    ],
)
def test_t40_observatory(shop: Flask, path: str, accept: str, least: int) -> None:
    """The Observatory's rules give every kind of answer full marks, and no directive is missing."""
    found = scan(shop, path, accept)

    assert score(found) >= least, verdicts(found)
    assert findings(found.answer) == []


@pytest.mark.parametrize("path", ["/", "/cached"])
def test_t41_nonces(shop: Flask, path: str) -> None:
    """A thousand answers, also of a cached view, have a thousand nonces; header and page have the same one."""
    nonces = set()
    for _ in range(1000):
        answer = visit(shop, path)
        in_header = re.findall(r"'nonce-([^']+)'", answer.headers["Content-Security-Policy"])
        in_page = re.findall(r'nonce="([^"]+)"', answer.text)
        assert set(in_header) == set(in_page)
        nonces.update(in_page)

    assert len(nonces) == 1000
    assert all(len(nonce) >= 22 for nonce in nonces)  # 128 bits


def items(answer: TestResponse, name: str) -> list[tuple[Any, dict[str, Any]]]:
    """Parse a list of items by the rules of structured fields."""
    parsed = http_sfv.list.List()
    parsed.parse(answer.headers[name].encode())
    return [(item.value, dict(item.params)) for item in parsed]


@pytest.mark.parametrize("limit", [1, 3])
def test_t17_limits_are_draft_10(make_app: MakeApp, limit: int) -> None:
    """Every answer's RateLimit fields parse; a refusal is a problem document and says when to come again."""
    prod = ProdKit()
    app = make_app(kit=prod, ENVIRONMENT="production", RATE_LIMIT_PUBLIC=limit)
    app.add_url_rule("/", "home", prod.limit("checkout")(lambda: "home"))
    app.add_url_rule("/library", "library", prod.limiter.limit("2/minute")(lambda: "library"))

    refused = 0
    for path in ("/", "/nope", "/library") * 2:
        answer = visit(app, path, Accept="application/json")
        policies, state = items(answer, "RateLimit-Policy"), items(answer, "RateLimit")
        names = [name for name, _ in policies]
        assert [name for name, _ in state] == names
        assert all(isinstance(name, str) for name in names)
        assert all(type(one[key]) is int and one[key] > 0 for _, one in policies for key in ("q", "w"))
        assert all(type(one[key]) is int and one[key] >= 0 for _, one in state for key in ("r", "t"))
        if answer.status_code == 429:
            refused += 1
            longest = max(one["t"] for _, one in state if one["r"] == 0)
            assert int(answer.headers["Retry-After"]) >= longest
            assert answer.mimetype == "application/problem+json"
            problem = answer.get_json()
            assert (problem["status"], problem["title"]) == (429, "Too Many Requests")
            assert re.fullmatch(r"[a-z]+:\S+", problem["type"])
        else:
            assert "Retry-After" not in answer.headers

    assert refused == 6 - limit
