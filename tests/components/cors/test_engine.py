"""The pieces of the CORS pass."""

from __future__ import annotations

import pytest

from flask_prod.components.cors.engine import PathRule, Rule, read_preflight, vary_by_origin
from flask_prod.components.cors.origins import Origins
from flask_prod.core.record import RequestRecord


@pytest.mark.parametrize(
    ("value", "merged"),
    [
        ("", "Origin"),
        ("Accept", "Accept, Origin"),
        ("Accept-Encoding, Cookie", "Accept-Encoding, Cookie, Origin"),
        ("origin", "origin"),
        ("Accept, ORIGIN", "Accept, ORIGIN"),
        ("X-Original-URL", "X-Original-URL, Origin"),
        ("*", "*"),
    ],
)
def test_vary_by_origin(value: str, merged: str) -> None:
    """Origin joins what is there, once."""
    assert vary_by_origin(value) == merged


@pytest.mark.parametrize(
    ("rule", "path", "covered"),
    [
        ("/api", "/api", True),
        ("/api", "/api/orders", True),
        ("/api", "/apikeys", False),
        ("/api", "/api-internal", False),
        ("/api", "/", False),
        ("", "/anything", True),
    ],
)
def test_paths_are_matched_by_segment(rule: str, path: str, covered: bool) -> None:
    """A path covers itself and what is below it."""
    assert PathRule(rule, None).covers(path) is covered  # type: ignore[arg-type]  # the rule is not asked


@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_ACCESS_CONTROL_REQUEST_METHOD": ""},
        {"HTTP_ORIGIN": ""},
        {"HTTP_ACCESS_CONTROL_REQUEST_HEADERS": "x-a\r\nSet-Cookie: b"},
        {"HTTP_ACCESS_CONTROL_REQUEST_HEADERS": "x-a,,x-b"},
        {"HTTP_ACCESS_CONTROL_REQUEST_HEADERS": "x" * 2000},
    ],
)
def test_what_no_browser_sends_is_no_preflight(headers: dict[str, str]) -> None:
    """Header names are echoed, so only header names are."""
    environ = {
        "REQUEST_METHOD": "OPTIONS",
        "wsgi.url_scheme": "https",
        "HTTP_HOST": "shop.example.com",
        "HTTP_ORIGIN": "https://app.example.com",
        "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "GET",
    }

    assert read_preflight(RequestRecord({**environ}, "a", 0.0)) is not None
    assert read_preflight(RequestRecord({**environ, **headers}, "a", 0.0)) is None


def test_memory_of_origins_is_bounded() -> None:
    """Any number of subdomains may come; the memory of answers does not grow with them."""
    from flask import Flask
    from flask_cors.core import get_cors_options

    rule = Rule(Origins.parse(("https://*.example.com",)), get_cors_options(Flask("x"), {"methods": ["GET"]}))

    for number in range(3000):
        assert rule.answer(f"https://a{number}.example.com")
    assert len(rule._known) <= 1024
