"""CORS over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, make_response, redirect
from flask_cors import CORS, cross_origin
from werkzeug.test import Client, TestResponse

from flask_prod import ConfigError, ProdKit, SetupFinished
from flask_prod.components.cors import CorsHandle
from tests.apps import MakeApp

ROOMS = ("proxy", "problems", "headers", "cors", "ratelimit", "health")
APP = "https://app.example.com"
EVIL = "https://evil.example"
ACAO = "Access-Control-Allow-Origin"


def build(make_app: MakeApp, **config: Any) -> Flask:
    """Build an application with answers of every kind."""
    app = make_app(only=ROOMS, **config)

    def varied() -> Response:
        answer = make_response("v")
        answer.headers["Vary"] = "Cookie"
        return answer

    views: dict[str, Callable[[], Any]] = {
        "/": lambda: "home",
        "/boom": lambda: 1 / 0,
        "/away": lambda: redirect("/"),
        "/varied": varied,
        "/api/orders": lambda: "orders",
        "/api": lambda: "api",
        "/apikeys": lambda: "keys",
        "/api-internal": lambda: "internal",
    }
    for path, view in views.items():
        app.add_url_rule(path, view_func=view, endpoint=path.replace(".", "-"), methods=["GET", "POST"])
    return app


def preflight(
    app: Flask, path: str = "/", origin: str = APP, method: str = "POST", **headers: str
) -> TestResponse:
    """Ask as a browser does."""
    sent = {"Origin": origin, "Access-Control-Request-Method": method, **headers}
    return Client(app).options(path, headers=sent)


def get(app: Flask, path: str = "/", origin: str | None = APP) -> TestResponse:
    """Send GET, as a script of *origin* does."""
    return Client(app).get(path, headers={"Origin": origin} if origin else {})


def test_trap_01_credentials_need_a_list(make_app: MakeApp) -> None:
    """Credentials with a wildcard do not start, under the library's names either."""
    with pytest.raises(ConfigError, match="CORS_CREDENTIALS cannot be true"):
        make_app(only=ROOMS, ALLOWED_ORIGINS="*", CORS_CREDENTIALS=True)
    with pytest.raises(ConfigError, match="CORS_CREDENTIALS cannot be true"):
        make_app(only=ROOMS, CORS_ORIGINS="*", CORS_SUPPORTS_CREDENTIALS=True)
    with pytest.raises(ConfigError, match="allows credentials to any origin"):
        make_app(only=ROOMS, CORS_RESOURCES={"/api/": {"origins": "*", "supports_credentials": True}})
    with pytest.raises(ConfigError, match="allows credentials to any origin"):
        make_app(only=ROOMS, ALLOWED_ORIGINS="*", CORS_RESOURCES={"/api/": {"supports_credentials": True}})


@pytest.mark.parametrize(
    "config", [{}, {"CORS_CREDENTIALS": True}, {"ALLOWED_ORIGINS": APP, "CORS_CREDENTIALS": True}]
)
def test_trap_01_unlisted_origins_get_nothing(make_app: MakeApp, config: dict[str, Any]) -> None:
    """An origin on no list learns nothing, also where credentials are allowed to others."""
    answer = get(build(make_app, **config), origin=EVIL)

    assert not [name for name in answer.headers.keys() if name.startswith("Access-Control")]  # noqa: SIM118  # repeated


def test_trap_01_in_a_decorator(make_app: MakeApp) -> None:
    """`@cross_origin(supports_credentials=True)` without origins takes the kit's list, or fails without one."""
    listed, unlisted = build(make_app, ALLOWED_ORIGINS=APP), build(make_app)
    for app in (listed, unlisted):
        app.add_url_rule("/me", view_func=cross_origin(supports_credentials=True)(lambda: "me"), endpoint="me")

    assert get(listed, "/me").headers[ACAO] == APP
    assert get(listed, "/me").headers["Access-Control-Allow-Credentials"] == "true"
    assert ACAO not in get(listed, "/me", EVIL).headers
    assert get(unlisted, "/me", EVIL).status_code == 500
    assert ACAO not in get(unlisted, "/me", EVIL).headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com.evil.net",
        "null",
        "http://app.example.com",
        "https://APP.example.com",
        "file://",
        f"{APP}, {EVIL}",
    ],
)
def test_trap_02_look_alikes(make_app: MakeApp, origin: str) -> None:
    """Look-alikes get no ACAO, and every answer varies by origin all the same."""
    app = build(make_app, ALLOWED_ORIGINS=[APP, "https://*.example.org"])

    assert ACAO not in get(app, origin=origin).headers
    assert get(app, origin=origin).headers["Vary"] == "Origin"
    assert ACAO not in preflight(app, origin=origin).headers


def test_trap_02_real_ones(make_app: MakeApp) -> None:
    """Listed origins and true subdomains are answered."""
    app = build(make_app, ALLOWED_ORIGINS=[APP, "https://*.example.org"])

    assert get(app).headers[ACAO] == APP
    assert get(app, origin="https://a.b.example.org").headers[ACAO] == "https://a.b.example.org"


def test_regular_expressions_are_refused(make_app: MakeApp) -> None:
    """Origins and paths that look like regular expressions do not start; all are named at once."""
    with pytest.raises(ConfigError) as caught:
        make_app(
            only=ROOMS,
            ALLOWED_ORIGINS=[r"https://.*\.example\.com"],
            CORS_RESOURCES={r"/api/v\d+/.*": {"orgins": APP}},
        )

    text = str(caught.value)
    assert "ALLOWED_ORIGINS has" in text
    assert "CORS_RESOURCES has" in text
    assert "did you mean origins?" in text


@pytest.mark.parametrize(
    "resources", [r"/api/*", "/api/", ["/api"], {r"/api/*": {}}, {"/api/.*": {"origins": APP}}]
)
def test_trap_42_paths_by_segment(make_app: MakeApp, resources: Any) -> None:
    """The documented form opens /api and what is below it, and nothing that merely begins so."""
    app = build(make_app, ALLOWED_ORIGINS=APP, CORS_RESOURCES=resources)

    assert get(app, "/api/orders").headers[ACAO] == APP
    assert get(app, "/api").headers[ACAO] == APP
    for path in ("/apikeys", "/api-internal", "/"):
        assert ACAO not in get(app, path).headers
        assert ACAO not in preflight(app, path).headers


def test_the_most_specific_path_counts(make_app: MakeApp) -> None:
    """Options of a path are its own; what it does not name is shared."""
    app = build(
        make_app,
        ALLOWED_ORIGINS=APP,
        CORS_RESOURCES={"/": {}, "/api/": {"origins": "https://partner.example", "max_age": 60}},
    )

    assert get(app, "/").headers[ACAO] == APP
    assert ACAO not in get(app, "/api/orders").headers
    answer = preflight(app, "/api/orders", origin="https://partner.example")
    assert answer.headers["Access-Control-Max-Age"] == "60"


@pytest.mark.parametrize(("path", "status"), [("/nope", 404), ("/boom", 500), ("/away", 302), ("/", 200)])
def test_trap_56_on_every_status(make_app: MakeApp, path: str, status: int) -> None:
    """A script can read errors too, and the headers that explain them."""
    answer = get(build(make_app, ALLOWED_ORIGINS=APP, CORS_CREDENTIALS=True), path)

    assert answer.status_code == status
    assert answer.headers.getlist(ACAO) == [APP]
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    exposed = answer.headers["Access-Control-Expose-Headers"]
    assert {"Retry-After", "RateLimit", "X-Request-ID"} <= set(exposed.split(", "))
    assert "Origin" in answer.headers["Vary"]


def test_trap_56_over_limit(make_app: MakeApp) -> None:
    """A 429 can be read by the script it is meant for."""
    app = build(make_app, ALLOWED_ORIGINS=APP, RATE_LIMIT_PUBLIC=1)

    get(app)
    limited = get(app)

    assert limited.status_code == 429
    assert limited.headers[ACAO] == APP
    assert limited.headers["Retry-After"]


def test_trap_56_decorated_view(make_app: MakeApp) -> None:
    """A view under @cross_origin alone has its headers on answers that never reached it."""
    app = build(make_app, RATE_LIMIT_PUBLIC=1)
    app.add_url_rule("/shared", view_func=cross_origin(origins=[APP])(lambda: "s"), endpoint="shared")

    first, limited = get(app, "/shared"), get(app, "/shared")

    assert first.headers.getlist(ACAO) == [APP]
    assert limited.status_code == 429
    assert limited.headers.getlist(ACAO) == [APP]
    assert ACAO not in get(app, "/shared", EVIL).headers
    assert ACAO not in get(app, "/").headers


def test_decorator_narrows(make_app: MakeApp) -> None:
    """A decorated view with a list of its own is not opened by the application's."""
    app = build(make_app, ALLOWED_ORIGINS=APP)
    app.add_url_rule(
        "/partner", view_func=cross_origin(origins=["https://partner.example"])(lambda: "p"), endpoint="p"
    )

    assert ACAO not in get(app, "/partner").headers
    assert ACAO not in preflight(app, "/partner", method="GET").headers
    assert get(app, "/partner", "https://partner.example").headers.getlist(ACAO) == ["https://partner.example"]
    assert preflight(app, "/partner", "https://partner.example", "GET").status_code == 204


def test_decorator_takes_the_kits_list(make_app: MakeApp) -> None:
    """`@cross_origin()` means the allowed origins, subdomains compared whole; headers appear once."""
    app = build(make_app, ALLOWED_ORIGINS="https://*.example.com")
    app.add_url_rule("/d", view_func=cross_origin()(lambda: "d"), endpoint="d")

    answer = get(app, "/d")

    assert answer.headers.getlist(ACAO) == [APP]
    assert len(answer.headers.getlist("Access-Control-Expose-Headers")) == 1
    assert ACAO not in get(app, "/d", "https://app.example.com.evil.net").headers


def test_public_decorated_view(make_app: MakeApp) -> None:
    """Without any list the decorator allows all, as documented, and says so with a star."""
    app = build(make_app)
    app.add_url_rule("/public", view_func=cross_origin()(lambda: "p"), endpoint="public")

    assert get(app, "/public", EVIL).headers.getlist(ACAO) == ["*"]
    assert preflight(app, "/public", EVIL, "GET").headers[ACAO] == "*"


def test_trap_24_preflights_cost_nothing(make_app: MakeApp) -> None:
    """Preflights never count against the caller and are never refused."""
    app = build(make_app, ALLOWED_ORIGINS=APP, RATE_LIMIT_PUBLIC=4)

    assert [preflight(app).status_code for _ in range(20)] == [204] * 20
    assert [get(app).status_code for _ in range(5)] == [200] * 4 + [429]
    assert preflight(app).status_code == 204


def test_invalid_preflights_count(make_app: MakeApp) -> None:
    """What is no valid preflight is limited as any other request: it is no way around the limit."""
    app = build(make_app, ALLOWED_ORIGINS=APP, RATE_LIMIT_PUBLIC=2)

    assert [preflight(app, origin=EVIL).status_code for _ in range(3)] == [200, 200, 429]


def test_preflight(make_app: MakeApp) -> None:
    """The answer names the route's own methods, the headers asked for, and how long it holds."""
    app = build(make_app, ALLOWED_ORIGINS=APP, CORS_CREDENTIALS=True, CORS_MAX_AGE="10m")

    answer = preflight(app, **{"Access-Control-Request-Headers": "content-type, x-token"})

    assert answer.status_code == 204
    assert answer.data == b""
    assert "Content-Type" not in answer.headers
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS, POST"
    assert answer.headers["Access-Control-Allow-Headers"] == "content-type, x-token"
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Access-Control-Max-Age"] == "600"
    assert answer.headers.getlist("Vary") == [
        "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    ]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_methods_of_the_settings(make_app: MakeApp) -> None:
    """CORS_METHODS limits what the route itself would allow."""
    app = build(make_app, ALLOWED_ORIGINS=APP, CORS_METHODS="GET")

    assert ACAO not in preflight(app, method="POST").headers
    assert preflight(app, method="GET").headers["Access-Control-Allow-Methods"] == "GET"


@pytest.mark.parametrize("method", ["DELETE", "ET", "GET, POST", "get", "CONNECT"])
def test_preflight_for_another_method(make_app: MakeApp, method: str) -> None:
    """A method that the route has not, or that is part of another's name, is not allowed."""
    assert ACAO not in preflight(build(make_app, ALLOWED_ORIGINS=APP), method=method).headers


def test_preflight_of_an_unknown_path(make_app: MakeApp) -> None:
    """A script that asks for what is not there reads a 404, not a network error."""
    assert preflight(build(make_app, ALLOWED_ORIGINS=APP), "/nope").status_code == 204


def test_listed_request_headers(make_app: MakeApp) -> None:
    """With a list of headers only those are allowed, whatever is asked for."""
    app = build(make_app, ALLOWED_ORIGINS=APP, CORS_ALLOWED_HEADERS="Content-Type")

    answer = preflight(app, **{"Access-Control-Request-Headers": "content-type, x-token"})

    assert answer.headers["Access-Control-Allow-Headers"] == "content-type"


def test_private_network(make_app: MakeApp) -> None:
    """Reaching into a private network is refused unless allowed."""
    asked = {"Access-Control-Request-Private-Network": "true"}
    name = "Access-Control-Allow-Private-Network"

    assert preflight(build(make_app, ALLOWED_ORIGINS=APP), **asked).headers[name] == "false"
    assert (
        preflight(build(make_app, ALLOWED_ORIGINS=APP, CORS_ALLOW_PRIVATE_NETWORK=True), **asked).headers[name]
        == "true"
    )


def test_any_origin(make_app: MakeApp) -> None:
    """A public service says so with a star, the same to everybody."""
    app = build(make_app, ALLOWED_ORIGINS="*")

    assert get(app, origin=EVIL).headers[ACAO] == "*"
    assert preflight(app, origin=EVIL).headers[ACAO] == "*"
    assert "Access-Control-Allow-Credentials" not in get(app, origin=EVIL).headers


def test_origin_check(make_app: MakeApp) -> None:
    """A function of the application decides about origins on no list, anew each time."""
    tenants = {"https://tenant.example"}
    app = build(make_app, ALLOWED_ORIGINS=APP, CORS_ORIGIN_CHECK=lambda origin: origin in tenants)

    assert get(app, origin="https://tenant.example").headers[ACAO] == "https://tenant.example"
    assert get(app).headers[ACAO] == APP
    tenants.clear()
    assert ACAO not in get(app, origin="https://tenant.example").headers


def test_vary_is_merged(make_app: MakeApp) -> None:
    """Vary names what the view said and Origin, also without an Origin header."""
    app = build(make_app, ALLOWED_ORIGINS=APP)

    assert get(app, "/varied").headers.getlist("Vary") == ["Cookie, Origin"]
    assert get(app, origin=None).headers.getlist("Vary") == ["Origin"]
    with pytest.raises(ConfigError, match="CORS_VARY_HEADER"):
        make_app(only=ROOMS, ALLOWED_ORIGINS=APP, CORS_VARY_HEADER=False)


def test_nothing_configured(make_app: MakeApp) -> None:
    """Without a list nothing is said, not even Vary."""
    answer = get(build(make_app))

    assert ACAO not in answer.headers
    assert "Vary" not in answer.headers


def test_probes_say_nothing(make_app: MakeApp) -> None:
    """Operational endpoints are not for scripts of other sites."""
    app = build(make_app, ALLOWED_ORIGINS="*")

    assert ACAO not in get(app, "/health/live").headers


def test_handle(make_app: MakeApp) -> None:
    """The handle is the library's object: blueprints as documented, an application refused with advice."""
    kit = ProdKit(only=ROOMS)
    handle = kit.cors
    blueprint = Blueprint("b", __name__)
    handle.init_app(blueprint, origins=[APP])

    @blueprint.get("/b")
    def view() -> str:
        return "b"

    @blueprint.get("/c")
    @handle.cross_origin(origins=[EVIL])
    def other() -> str:
        return "c"

    app = make_app(kit=kit)
    app.register_blueprint(blueprint)

    assert isinstance(handle, CORS)
    assert get(app, "/b").headers.getlist(ACAO) == [APP]
    assert get(app, "/c", EVIL).headers.getlist(ACAO) == [EVIL]
    with pytest.raises(SetupFinished, match="ALLOWED_ORIGINS"):
        CorsHandle().init_app(app)


def test_two_apps_have_lists_of_their_own(make_app: MakeApp) -> None:
    """One kit serves several applications with different origins."""
    kit = ProdKit(only=ROOMS)
    first, second = make_app(kit=kit, ALLOWED_ORIGINS=APP), make_app(kit=kit, ALLOWED_ORIGINS=EVIL)

    assert get(first, "/nope").headers[ACAO] == APP
    assert ACAO not in get(second, "/nope").headers
