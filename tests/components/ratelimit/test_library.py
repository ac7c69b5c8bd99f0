"""The documented examples of Flask-Limiter, on `prod.limiter`."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, request
from flask.testing import FlaskClient
from flask.views import View
from flask_limiter import ExemptionScope, Limiter, RateLimitExceeded, RequestLimit

from flask_prod import ProdKit
from flask_prod.core.errors import NotInstalled
from tests.apps import MakeApp
from tests.servers import Valkey

ONLY = ("redis", "ratelimit")


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest, shared_valkey: Valkey) -> dict[str, Any]:
    """Run the test without Redis and with a real one."""
    quiet = {"RATE_LIMIT_PUBLIC": ""}
    return {"REDIS_URL": request.getfixturevalue("redis_url"), **quiet} if request.param == "redis" else quiet


@pytest.fixture
def prod() -> ProdKit:
    return ProdKit(only=ONLY)


def codes(client: FlaskClient, path: str, times: int, **options: Any) -> list[int]:
    return [client.get(path, **options).status_code for _ in range(times)]


def test_limits_on_routes(make_app: MakeApp, prod: ProdKit, store: dict[str, Any]) -> None:
    """Quick start: a limit, several in one string, stacked ones, and a view without."""
    app = make_app(kit=prod, **store)
    limiter = prod.limiter
    assert isinstance(limiter, Limiter)

    @app.route("/slow")
    @limiter.limit("1 per day")
    def slow() -> str:
        return ":("

    @app.route("/medium")
    @limiter.limit("4/minute;100/hour")
    @limiter.limit("2/second", override_defaults=False)
    def medium() -> str:
        return ":|"

    @app.route("/fast")
    def fast() -> str:
        return ":)"

    client = app.test_client()
    assert codes(client, "/slow", 2) == [200, 429]
    assert codes(client, "/medium", 3) == [200, 200, 429]
    assert codes(client, "/fast", 10) == [200] * 10


def test_headers_and_retry_after(make_app: MakeApp, prod: ProdKit, store: dict[str, Any]) -> None:
    """Its limits appear in the same headers as ours; Retry-After on the refusal alone."""
    app = make_app(kit=prod, **{**store, "RATE_LIMIT_PUBLIC": 100})
    app.add_url_rule("/", "index", prod.limiter.limit("2/minute")(lambda: "ok"))
    client = app.test_client()
    first, _, third = (client.get("/") for _ in range(3))

    assert first.headers["RateLimit-Policy"] == '"public";q=100;w=60, "2 per 1 minute";q=2;w=60'
    assert (first.headers["X-RateLimit-Limit"], first.headers["X-RateLimit-Remaining"]) == ("2", "1")
    assert "Retry-After" not in first.headers
    assert third.status_code == 429
    assert 1 <= int(third.headers["Retry-After"]) <= 120


def test_decorators_before_the_application(make_app: MakeApp, store: dict[str, Any]) -> None:
    """A module-level kit limits views of a blueprint before any application; each application has its budget."""
    prod = ProdKit(only=ONLY)
    pages = Blueprint("pages", __name__)

    @pages.route("/")
    @prod.limiter.limit("2/minute")
    def index() -> str:
        return "ok"

    for name in ("one", "two"):
        app = make_app(kit=prod, SERVICE_NAME=name, **store)
        app.register_blueprint(pages)
        assert codes(app.test_client(), "/", 3) == [200, 200, 429]


def test_default_and_application_limits(make_app: MakeApp, prod: ProdKit, store: dict[str, Any]) -> None:
    """RATELIMIT_DEFAULT holds per view without a limit of its own, RATELIMIT_APPLICATION for all together."""
    app = make_app(kit=prod, RATELIMIT_DEFAULT="2/minute", RATELIMIT_APPLICATION="9/minute", **store)
    app.add_url_rule("/a", "a", plain)
    app.add_url_rule("/b", "b", plain)
    app.add_url_rule("/own", "own", prod.limiter.limit("4/minute")(half))
    app.add_url_rule("/free", "free", prod.limiter.exempt(free))
    client = app.test_client()

    assert codes(client, "/a", 3) == [200, 200, 429]
    assert codes(client, "/own", 4) == [200] * 4
    assert codes(client, "/b", 3)[-1] == 429
    assert codes(client, "/free", 15) == [200] * 15


def plain() -> str:
    """A view without any mark."""
    return "ok"


def free() -> str:
    """A view of module level, as the library finds exemptions by qualified name."""
    return "ok"


def test_shared_limits(make_app: MakeApp, prod: ProdKit, store: dict[str, Any]) -> None:
    """A named shared limit, and one whose scope is a function of the request."""
    app = make_app(kit=prod, **store)
    mysql = prod.limiter.shared_limit("3/hour", scope="mysql")
    by_host = prod.limiter.shared_limit("1/hour", scope=lambda _: request.host)

    @app.route("/one")
    @mysql
    def one() -> str:
        return "ok"

    @app.route("/two")
    @mysql
    def two() -> str:
        return "ok"

    @app.route("/host")
    @by_host
    def host() -> str:
        return "ok"

    client = app.test_client()
    assert [*codes(client, "/one", 2), *codes(client, "/two", 2)] == [200, 200, 200, 429]
    assert codes(client, "/host", 2, headers={"Host": "a.example"}) == [200, 429]
    assert codes(client, "/host", 1, headers={"Host": "b.example"}) == [200]


def test_dynamic_limits_and_keys(make_app: MakeApp, prod: ProdKit, store: dict[str, Any]) -> None:
    """Limits, keys, methods, exemptions, costs and messages from functions of the request."""
    app = make_app(kit=prod, **store)
    limit = prod.limiter.limit

    @app.route("/plan")
    @limit(
        lambda: "1/minute" if request.args.get("plan") == "free" else "3/minute",
        key_func=lambda: request.args["u"],
    )
    def plan() -> str:
        return "ok"

    @app.route("/methods", methods=["GET", "POST"])
    @limit("1/minute", methods=["POST"])
    def methods() -> str:
        return "ok"

    @app.route("/staff")
    @limit("1/minute", exempt_when=lambda: "staff" in request.headers)
    def staff() -> str:
        return "ok"

    @app.route("/cost")
    @limit("10/minute", cost=4, error_message="slow down, please")
    def cost() -> str:
        return "ok"

    client = app.test_client()
    assert codes(client, "/plan?u=a&plan=free", 2) == [200, 429]
    assert codes(client, "/plan?u=b", 4) == [200, 200, 200, 429]
    assert codes(client, "/methods", 3) == [200] * 3
    assert [client.post("/methods").status_code for _ in range(2)] == [200, 429]
    assert codes(client, "/staff", 3, headers={"staff": "1"}) == [200] * 3
    assert codes(client, "/cost", 2) == [200, 200]
    assert "slow down, please" in client.get("/cost").text


def test_deduct_when(make_app: MakeApp, prod: ProdKit, store: dict[str, Any]) -> None:
    """Only failed answers count: the documented way to limit wrong passwords."""
    app = make_app(kit=prod, **store)

    @app.route("/login")
    @prod.limiter.limit("2/minute", deduct_when=lambda response: response.status_code == 401)
    def login() -> str:
        if request.args.get("password") != "right":
            abort(401)
        return "ok"

    client = app.test_client()
    assert codes(client, "/login?password=right", 5) == [200] * 5
    assert codes(client, "/login?password=wrong", 3) == [401, 401, 429]
    assert codes(client, "/login?password=right", 1) == [429]


def test_on_breach_and_current_limit(make_app: MakeApp, prod: ProdKit, store: dict[str, Any]) -> None:
    """A callback may answer a breach; the current limit can be read in the view."""
    app = make_app(kit=prod, **store)

    def sorry(limit: RequestLimit) -> Response:
        return Response(f"limit {limit.limit.amount}", 429)

    @app.route("/")
    @prod.limiter.limit("1/minute", on_breach=sorry)
    def index() -> str:
        current = prod.limiter.current_limit
        assert current is not None
        return f"{current.remaining} left of {len(prod.limiter.current_limits)}"

    client = app.test_client()
    assert client.get("/").text == "0 left of 1"
    assert client.get("/").text == "limit 1"


def test_blueprints(make_app: MakeApp, prod: ProdKit, store: dict[str, Any]) -> None:
    """Limits and exemptions of whole blueprints."""
    app = make_app(kit=prod, RATELIMIT_DEFAULT="1/minute", **store)
    login, docs, regular = (
        Blueprint(name, __name__, url_prefix=f"/{name}") for name in ("login", "docs", "regular")
    )
    for blueprint in (login, docs, regular):
        blueprint.add_url_rule("/", "index", lambda: "ok")
    prod.limiter.limit("3/hour")(login)
    prod.limiter.exempt(docs)
    for blueprint in (login, docs, regular):
        app.register_blueprint(blueprint)
    client = app.test_client()

    assert codes(client, "/login/", 4) == [200, 200, 200, 429]
    assert codes(client, "/docs/", 4) == [200] * 4
    assert codes(client, "/regular/", 2) == [200, 429]


def test_class_based_views(make_app: MakeApp, prod: ProdKit, store: dict[str, Any]) -> None:
    """`decorators` of a View work as documented."""

    class Index(View):
        decorators = [prod.limiter.limit("1/minute")]

        def dispatch_request(self) -> str:
            return "ok"

    app = make_app(kit=prod, **store)
    app.add_url_rule("/", view_func=Index.as_view("index"))

    assert codes(app.test_client(), "/", 2) == [200, 429]


def test_a_block_of_code(make_app: MakeApp, prod: ProdKit, store: dict[str, Any]) -> None:
    """A limit as a context manager inside a view."""
    app = make_app(kit=prod, **store)

    @app.route("/")
    def index() -> str:
        try:
            with prod.limiter.limit("2/minute"):
                return "fresh"
        except RateLimitExceeded:
            return "stale"

    client = app.test_client()
    assert [client.get("/").text for _ in range(3)] == ["fresh", "fresh", "stale"]


def test_request_filter(make_app: MakeApp, prod: ProdKit, store: dict[str, Any]) -> None:
    """A filter spares a request from every limit, ours included."""
    app = make_app(kit=prod, **{**store, "RATE_LIMIT_PUBLIC": 2})

    @prod.limiter.request_filter
    def internal() -> bool:
        return request.headers.get("X-Internal", "") == "true"

    app.add_url_rule("/", "index", prod.limiter.limit("1/minute")(lambda: "ok"))
    client = app.test_client()

    assert codes(client, "/", 5, headers={"X-Internal": "true"}) == [200] * 5
    assert codes(client, "/", 2) == [200, 429]


def test_meta_limits(make_app: MakeApp, prod: ProdKit, store: dict[str, Any]) -> None:
    """Who breaches limits too often is shut out altogether."""
    app = make_app(kit=prod, RATELIMIT_META="2/day", **store)
    app.add_url_rule("/", "index", prod.limiter.limit("1/minute")(lambda: "ok"))
    app.add_url_rule("/other", "other", lambda: "ok")
    client = app.test_client()

    assert codes(client, "/", 3) == [200, 429, 429]
    assert codes(client, "/other", 1) == [429]


def test_exempt_spares_from_the_client_wide_limit(make_app: MakeApp, prod: ProdKit) -> None:
    """What `exempt` spares from application limits, it spares from ours; explicit policies stay."""
    app = make_app(kit=prod, RATE_LIMIT_PUBLIC=1)
    partly: Any = prod.limiter.exempt(flags=ExemptionScope.DEFAULT)
    app.add_url_rule("/free", "free", prod.limiter.exempt(free))
    app.add_url_rule("/half", "half", partly(half))
    client = app.test_client()

    assert codes(client, "/free", 5) == [200] * 5
    assert codes(client, "/half", 2) == [200, 429]


def half() -> str:
    """A view that is partly exempt."""
    return "ok"


def test_it_registers_no_hooks(make_app: MakeApp) -> None:
    """The library costs nothing where it is not used: an application has the same hooks without the room."""

    def hooks(app: Flask) -> list[int]:
        kinds = (app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs)
        return [len(kind.get(None, ())) for kind in kinds]

    assert hooks(make_app(only=ONLY)) == hooks(make_app(only=("redis",)))


def test_init_app_is_the_kits(make_app: MakeApp, prod: ProdKit) -> None:
    """The documented `limiter.init_app(app)` does no harm after the kit's, and advises before it."""
    prod.limiter.init_app(make_app(kit=prod))

    with pytest.raises(NotInstalled, match=r"prod\.init_app"):
        prod.limiter.init_app(Flask("bare"))


def test_broken_limits_do_not_look_like_an_outage(make_app: MakeApp, prod: ProdKit, redis_url: str) -> None:
    """A key function that raises is the user's error, not Redis's."""
    app = make_app(kit=prod, REDIS_URL=redis_url, RATE_LIMIT_PUBLIC="", TESTING=True)

    def broken() -> str:
        raise ValueError("mine")

    app.add_url_rule("/", "index", prod.limiter.limit("9/minute", key_func=broken)(lambda: "ok"))
    for _ in range(5):
        with pytest.raises(ValueError, match="mine"):
            app.test_client().get("/")

    assert not app.extensions["prod"].contributions["redis"].handle.degraded
