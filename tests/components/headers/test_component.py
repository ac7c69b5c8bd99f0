"""The headers room in the pass: every status, the redirect, the nonce, cookies, reports."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask, Response, abort, redirect, render_template_string, session
from werkzeug.test import Client

from flask_prod import ProdKit, SetupFinished
from flask_prod.components.headers import TalismanHandle
from tests.apps import MakeApp

ROOMS = ("proxy", "problems", "headers", "cors", "ratelimit", "health", "metrics")
HTTPS = "https://shop.example.com"
PAGE = "<script nonce='{{ csp_nonce() }}'>1</script><style nonce='{{ csp_nonce() }}'></style>"


def build(make_app: MakeApp, kit: ProdKit | None = None, **config: Any) -> Flask:
    """Build an application with one view of each kind of answer."""
    kit = kit or ProdKit(only=ROOMS)
    app = make_app(
        kit=kit, SECURITY_FORCE_HTTPS=config.pop("SECURITY_FORCE_HTTPS", True), SECRET_KEY="s" * 32, **config
    )
    app.add_url_rule("/", view_func=lambda: "hello", endpoint="home")
    app.add_url_rule("/page", view_func=lambda: render_template_string(PAGE), endpoint="page")
    app.add_url_rule("/json", view_func=lambda: {"a": 1}, endpoint="json", methods=["GET", "POST"])
    app.add_url_rule("/boom", view_func=lambda: 1 / 0, endpoint="boom")  # type: ignore[arg-type]
    app.add_url_rule("/away", view_func=lambda: redirect("/page"), endpoint="away")
    app.add_url_rule("/busy", view_func=lambda: abort(503), endpoint="busy")
    app.add_url_rule("/stream", view_func=lambda: Response(iter(["a", "b"])), endpoint="stream")

    def login() -> str:
        session["user"] = 1
        return "in"

    app.add_url_rule("/login", view_func=login, endpoint="login")
    return app


@pytest.mark.parametrize("path", ["/", "/json", "/nope", "/boom", "/away", "/busy", "/stream", "/static/x"])
def test_trap_60_headers_on_every_status(make_app: MakeApp, path: str) -> None:
    """Pages, JSON, errors, crashes, redirects and streams all carry the security headers, once."""
    answer = build(make_app).test_client().get(path, base_url=HTTPS)

    for name in ("X-Content-Type-Options", "Content-Security-Policy", "X-Frame-Options", "Referrer-Policy"):
        assert len(answer.headers.getlist(name)) == 1, name


def test_trap_60_headers_on_a_limited_answer(make_app: MakeApp) -> None:
    """A 429 is given before the view and carries them too."""
    client = build(make_app, RATE_LIMIT_PUBLIC=1).test_client()

    client.get("/", base_url=HTTPS)
    limited = client.get("/", base_url=HTTPS)

    assert limited.status_code == 429
    assert limited.headers["X-Content-Type-Options"] == "nosniff"


def test_headers_with_propagated_exceptions(make_app: MakeApp) -> None:
    """A crash that escapes Flask (PROPAGATE_EXCEPTIONS) is answered with headers as any other."""
    answer = Client(build(make_app, PROPAGATE_EXCEPTIONS=True)).get("/boom", base_url=HTTPS)

    assert answer.status_code == 500
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_http_is_redirected(make_app: MakeApp, method: str) -> None:
    """A browser is sent to the same address by HTTPS, keeping its method, and must not remember that."""
    answer = build(make_app).test_client().open("/json?q=a%20b", method=method, base_url="http://shop.example.com")

    assert answer.status_code == 308
    assert answer.headers["Location"] == "https://shop.example.com/json?q=a%20b"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Strict-Transport-Security" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer x"}, {"Accept": "application/json"}, {"Content-Type": "application/json"}],
)
def test_programs_are_refused(make_app: MakeApp, headers: dict[str, str]) -> None:
    """A program that sent credentials in the clear learns of its mistake, where a redirect would hide it."""
    answer = build(make_app).test_client().post("/json", headers=headers)

    assert answer.status_code == 403
    assert answer.mimetype == "application/problem+json"
    assert "HTTPS" in answer.get_json()["detail"]


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
def test_trap_22_probes_over_http(make_app: MakeApp, path: str) -> None:
    """Probes and scrapes come by plain HTTP and are answered."""
    assert build(make_app).test_client().get(path).status_code == 200


def test_trap_23_preflight_over_http(make_app: MakeApp) -> None:
    """A valid preflight is answered, since browsers do not follow its redirect."""
    asked = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}

    answer = (
        build(make_app, ALLOWED_ORIGINS="https://app.example.com").test_client().options("/json", headers=asked)
    )

    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.com"


def test_trap_62_redirects_cost_no_budget(make_app: MakeApp) -> None:
    """Four visits that each begin by HTTP fit into a limit of four."""
    client = build(make_app, RATE_LIMIT_PUBLIC=4).test_client()

    for _ in range(4):
        assert client.get("/").status_code == 308
        assert client.get("/", base_url=HTTPS).status_code == 200
    assert client.get("/", base_url=HTTPS).status_code == 429


def test_debug_is_not_redirected(make_app: MakeApp) -> None:
    """A developer's server has no certificate."""
    app = build(make_app)
    app.debug = True

    assert app.test_client().get("/").status_code == 200


def test_nonce_is_new_for_every_page(make_app: MakeApp) -> None:
    """A thousand pages have a thousand nonces of 128 bits, each the one in its header."""
    client = build(make_app, RATE_LIMIT_PUBLIC="").test_client()
    seen = set()

    for _ in range(1000):
        answer = client.get("/page", base_url=HTTPS)
        in_body = set(re.findall(r"nonce='([^']+)'", answer.text))
        in_header = set(re.findall(r"'nonce-([^']+)'", answer.headers["Content-Security-Policy"]))
        assert in_body == in_header
        seen |= in_body

    assert len(seen) == 1000
    assert all(len(nonce) == 22 for nonce in seen)


def test_decorator_of_the_library(make_app: MakeApp) -> None:
    """The documented decorator works on the handle, before any application exists, for several of them."""
    kit = ProdKit(only=ROOMS)
    handle = kit.talisman

    @handle(frame_options="SAMEORIGIN", content_security_policy={"default-src": "*"}, force_https=False)
    def embeddable() -> str:
        return "e"

    first, second = build(make_app, kit=kit), build(make_app, kit=kit, SECURITY_FRAME="SAMEORIGIN")
    for app in (first, second):
        app.add_url_rule("/embed", view_func=embeddable)

    over_http = first.test_client().get("/embed")

    assert isinstance(handle, TalismanHandle)
    assert over_http.status_code == 200
    assert over_http.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert over_http.headers["Content-Security-Policy"] == "default-src *; frame-ancestors 'self'"
    assert first.test_client().get("/", base_url=HTTPS).headers["X-Frame-Options"] == "DENY"
    assert second.test_client().get("/", base_url=HTTPS).headers["X-Frame-Options"] == "SAMEORIGIN"


def test_misspelt_option_is_refused() -> None:
    """The library would ignore it in silence."""
    with pytest.raises(TypeError, match="did you mean frame_options"):
        TalismanHandle()(frame_option="DENY")


def test_second_setup_is_refused(make_app: MakeApp) -> None:
    """Talisman's own init_app would register its hooks beside the pass."""
    with pytest.raises(SetupFinished, match="SECURITY_"):
        TalismanHandle().init_app(build(make_app))


def test_no_hook_of_the_library_is_registered(make_app: MakeApp) -> None:
    """Nothing of flask-talisman runs per request."""
    app = build(make_app)
    hooks = [*app.before_request_funcs.get(None, []), *app.after_request_funcs.get(None, [])]

    assert not [hook for hook in hooks if "talisman" in getattr(hook, "__module__", "")]


def test_session_cookie(make_app: MakeApp) -> None:
    """The session cookie is Secure, HttpOnly and SameSite by default."""
    cookie = build(make_app).test_client().get("/login", base_url=HTTPS).headers["Set-Cookie"]

    assert "Secure" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


def test_session_cookie_of_the_user(make_app: MakeApp) -> None:
    """SameSite of the application stays, and over plain HTTP the cookie is not Secure."""
    app = build(make_app, SESSION_COOKIE_SAMESITE="Strict", SECURITY_FORCE_HTTPS=False)
    cookie = app.test_client().get("/login").headers["Set-Cookie"]

    assert "SameSite=Strict" in cookie
    assert "Secure" not in cookie


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (
            b'{"csp-report":{"violated-directive":"script-src-elem","blocked-uri":"inline"}}',
            "application/csp-report",
        ),
        (
            b'[{"type":"csp-violation","body":{"effectiveDirective":"script-src-elem","blockedURL":"https://e.example/x?token=1"}}]',
            "application/reports+json",
        ),
    ],
)
def test_report_endpoint(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, body: bytes, content_type: str
) -> None:
    """Reports in both formats are counted by directive and logged once a minute, over HTTP and unlimited."""
    client = build(make_app, SECURITY_CSP_REPORT_ONLY=True, RATE_LIMIT_PUBLIC=1).test_client()

    answers = [client.post("/csp-reports", data=body, content_type=content_type) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [204] * 3
    assert 'flask_prod_csp_reports_total{directive="script-src-elem"} 3.0' in client.get("/metrics").text
    assert len([line for line in caplog.messages if line.startswith("CSP script-src-elem")]) == 1
    assert "token" not in caplog.text


@pytest.mark.parametrize(
    ("body", "status"), [(b"", 400), (b"[[]", 400), (b'{"a":1}', 400), (b"[1, {}]", 204), (b"x" * 70_000, 413)]
)
def test_report_endpoint_takes_no_junk(make_app: MakeApp, body: bytes, status: int) -> None:
    """Whatever strangers send is answered cheaply and grows nothing."""
    client = build(make_app, SECURITY_CSP_REPORT_ONLY=True).test_client()

    assert client.post("/csp-reports", data=body).status_code == status


def test_report_labels_are_bounded(make_app: MakeApp) -> None:
    """An invented directive is counted as other."""
    client = build(make_app, SECURITY_CSP_REPORT_ONLY=True).test_client()

    client.post("/csp-reports", data=b'{"csp-report":{"violated-directive":"made-up"}}')

    assert 'directive="other"' in client.get("/metrics").text
    assert "made-up" not in client.get("/metrics").text
