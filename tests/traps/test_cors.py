"""Traps of CORS: who may read answers, and which answers nobody can read."""

from __future__ import annotations

import pytest
from werkzeug.test import TestResponse

from flask_prod import ConfigError

from .conftest import OpenShop
from .shops import Shop

APP = "https://app.example.com"
EVIL = "https://evil.example"


def allowed(answer: TestResponse) -> str | None:
    """Return who may read an answer."""
    return answer.headers.get("Access-Control-Allow-Origin")


def home(shop: Shop, *paths: str) -> None:
    """Give the shop pages."""
    for path in paths or ("/",):
        shop.app.add_url_rule(path, path, lambda: "page")


@pytest.mark.trap("CORS(app, supports_credentials=True) lets every website read what a signed-in user sees")
def test_trap_01_credentials_for_everybody(open_shop: OpenShop) -> None:
    """Credentials go to origins of a list; `*` with credentials does not start."""
    shop = open_shop(kit={"CORS_CREDENTIALS": True}, by_hand={"cors": {"supports_credentials": True}})
    home(shop)

    answer = shop.visit("/", Origin=EVIL)

    assert allowed(answer) is None, f"{allowed(answer)} may read, with credentials"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    with pytest.raises(ConfigError, match="CORS_CREDENTIALS"):
        open_shop(origins=["*"], kit={"CORS_CREDENTIALS": True})


@pytest.mark.trap("origins with a * are unanchored regular expressions: look-alikes pass, real subdomains do not")
def test_trap_02_look_alikes(open_shop: OpenShop) -> None:
    """`*.` means true subdomains, compared as a whole."""
    shop = open_shop(origins=["https://*.example.com"])
    home(shop)
    evil = (
        "https://app.example.com.evil.net", "https://xexample.com.evil.net", "https://evilexample.com",
        "http://app.example.com", "https://app.example.com:8443", "https://example.com",
    )  # fmt: skip

    passed = [origin for origin in evil if allowed(shop.visit("/", Origin=origin))]

    assert not passed, f"*.example.com let {passed[0]} read"
    assert allowed(shop.visit("/", Origin=APP)) == APP


@pytest.mark.trap("resources={r'/api/*': ...}, the documented form, opens /apikeys and /api-internal as well")
def test_trap_42_paths(open_shop: OpenShop) -> None:
    """A path covers what is below it, not what begins alike."""
    resources = {r"/api/*": {"origins": [APP]}}
    shop = open_shop(
        kit={"CORS_RESOURCES": resources, "ALLOWED_ORIGINS": [APP]}, by_hand={"cors": {"resources": resources}}
    )
    home(shop, "/api/orders", "/apikeys", "/api-internal")

    assert allowed(shop.visit("/api/orders", Origin=APP)) == APP
    opened = [path for path in ("/apikeys", "/api-internal") if allowed(shop.visit(path, Origin=APP))]
    assert not opened, f"{', '.join(opened)} opened too"


@pytest.mark.trap("a preflight over http is redirected, which browsers refuse: every call fails")
def test_trap_23_preflights_are_not_redirected(open_shop: OpenShop) -> None:
    """A valid preflight is answered where it arrives; every other request is redirected."""
    shop = open_shop(origins=[APP], by_hand={"talisman": {}})
    home(shop)

    answer = shop.preflight("/", scheme="http")

    assert answer.status_code in (200, 204), f"the preflight was answered {answer.status_code}"
    assert allowed(answer) == APP
    assert shop.visit("/", scheme="http").status_code in (302, 308)


@pytest.mark.trap(
    "with @cross_origin alone no script can read a 429, 404, 405 or crash: they have no CORS headers"
)
def test_trap_56_errors_can_be_read(open_shop: OpenShop) -> None:
    """An allowed origin may read every answer, and when to come again."""
    shop = open_shop(limit=4, kit={"ALLOWED_ORIGINS": [APP]})

    @shop.app.get("/")
    @shop.cross_origin(origins=[APP])
    def index() -> str:
        return "home"

    @shop.app.get("/boom")
    @shop.cross_origin(origins=[APP])
    def boom() -> str:
        return str(1 / 0)

    visits = (("/", "GET"), ("/boom", "GET"), ("/nope", "GET"), ("/", "DELETE"))
    answers = [shop.visit(path, method, Origin=APP) for path, method in visits]
    answers += [shop.visit("/", Origin=APP) for _ in range(5)]

    statuses = [answer.status_code for answer in answers]
    hidden = [answer.status_code for answer in answers if allowed(answer) != APP]
    assert not hidden, f"no script can read {', '.join(str(status) for status in dict.fromkeys(hidden))}"
    assert {200, 500, 404, 405, 429} <= set(statuses)
    assert "Retry-After" in answers[-1].headers["Access-Control-Expose-Headers"]
