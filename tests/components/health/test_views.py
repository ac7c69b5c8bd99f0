"""What is answered to whom: one word to strangers, details to those who send the token, 404 to the rest."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, abort

from flask_prod import ConfigError, ProdKit
from flask_prod.components.health import HealthFace
from flask_prod.core.component import Finding
from flask_prod.core.redaction import REDACTED
from tests.apps import MakeApp, StartGunicorn
from tests.servers import wait_for

TOKEN = "a-long-token-for-tests"
DRAFT = "application/health+json"
BEARER = {"Authorization": f"Bearer {TOKEN}"}

Build = Callable[..., tuple[Flask, HealthFace]]


@pytest.fixture
def build(make_app: MakeApp) -> Build:
    """Give a factory of applications with the health room alone, and the face to add checks to."""

    def make(**config: Any) -> tuple[Flask, HealthFace]:
        kit = ProdKit(only=("health",))
        face: HealthFace = kit.get("health")
        return make_app(kit=kit, **config), face

    return make


def down() -> None:
    """Fail with a password in the message."""
    raise ConnectionError("redis://:hunter22@cache refused")


def test_strangers(build: Build) -> None:
    """A stranger gets one word and a status, on exact paths only, never from a cache."""
    app, _ = build(HEALTH_TOKEN=TOKEN)
    client = app.test_client()
    words = {path: client.get(path) for path in ("/health", "/health/live", "/health/ready")}

    assert [(r.status_code, r.text) for r in words.values()] == [(200, "healthy"), (200, "alive"), (200, "ready")]
    assert {r.headers["Cache-Control"] for r in words.values()} == {"no-store"}
    assert {
        client.get(path).status_code for path in ("/health/", "/healthz", "/health/live/", "/health//live")
    } == {404}
    assert client.head("/health").status_code == 200
    assert client.post("/health").status_code == 405


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer \xe9\xff"},
        {"X-Token": TOKEN},
    ],
)
def test_wrong_token(build: Build, headers: dict[str, str]) -> None:
    """Without the right token there are neither details nor components, and no hint that there could be."""
    app, face = build(HEALTH_TOKEN=TOKEN)
    face.check("payments")(lambda: None)
    client = app.test_client()

    assert client.get("/health", headers=headers).text == "healthy"
    assert client.get("/health/payments", headers=headers).status_code == 404
    assert client.get(f"/health/payments?token={TOKEN}", headers=headers).status_code == 404


@pytest.mark.parametrize("authorization", ["Bearer ", "Bearer", "bearer  ", ""])
def test_no_token_configured(build: Build, authorization: str) -> None:
    """Where there is no token, details answer nobody, not even with an empty one."""
    app, face = build()
    face.check("payments")(lambda: None)
    client = app.test_client()

    assert client.get("/health", headers={"Authorization": authorization}).text == "healthy"
    assert client.get("/health/payments", headers={"Authorization": authorization}).status_code == 404


def test_details(build: Build) -> None:
    """With the token the whole story is told: every check, its latency, since when, version and uptime."""
    app, face = build(HEALTH_TOKEN=TOKEN, SERVICE_VERSION="1.2.3")
    face.check("payments", critical=False)(lambda: Finding("warn", "slow", {"queue": 7}))
    answer = app.test_client().get("/health", headers=BEARER)
    body: dict[str, Any] = answer.get_json()

    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert (body["status"], body["service"], body["version"]) == ("degraded", "shop", "1.2.3")
    assert body["uptime"] >= 0
    assert body["timestamp"].endswith("Z")
    assert set(body["checks"]["payments"]) == {
        "status", "critical", "latency_ms", "detail", "error", "failures", "since", "checked", "data",
    }  # fmt: skip
    assert body["checks"]["payments"]["data"] == {"queue": 7}


def test_component(build: Build) -> None:
    """With the token each check has a path of its own; its status code follows the check."""
    app, face = build(HEALTH_TOKEN=TOKEN)
    face.check("fine")(lambda: None)
    face.check("cache", critical=False)(down)
    client = app.test_client()
    fine, cache = client.get("/health/fine", headers=BEARER), client.get("/health/cache", headers=BEARER)

    assert (fine.status_code, fine.get_json()["status"]) == (200, "ok")
    assert (cache.status_code, cache.get_json()["status"]) == (503, "fail")
    assert client.get("/health/nothing", headers=BEARER).status_code == 404


def test_states(build: Build) -> None:
    """Degraded stays in service with 200; unhealthy is 503."""
    app, face = build()
    face.check("cache", critical=False, interval=0)(down)
    degraded = app.test_client().get("/health")
    face.check("database", interval=0)(down)
    unhealthy = app.test_client().get("/health")

    assert (degraded.status_code, degraded.text) == (200, "degraded")
    assert (unhealthy.status_code, unhealthy.text) == (503, "unhealthy")


def test_exception_text(build: Build) -> None:
    """Of a failing check's exception only its class and a cleaned line are shown."""
    app, face = build(HEALTH_TOKEN=TOKEN)
    face.check("cache")(down)
    body = app.test_client().get("/health/cache", headers=BEARER)

    assert body.get_json()["detail"] == f"ConnectionError: redis://:{REDACTED}@cache refused"


def test_ready(build: Build) -> None:
    """Readiness hears only the checks that have a say in it, and a draining process is not ready but alive."""
    app, face = build()
    face.check("database")(down)
    client = app.test_client()
    shared = client.get("/health/ready")
    face.check("warm", ready=True, critical=False)(down)
    local = client.get("/health/ready")

    assert (shared.status_code, shared.text) == (200, "ready")
    assert (local.status_code, local.text) == (503, "unready")


def test_draining(build: Build) -> None:
    """A draining process is not ready but alive, whether told by a call or by a flag that processes share."""
    (first, face), (second, _) = build(), build()
    flag: list[bool] = []
    second.extensions["prod"].contributions["health"].handle.drain_when(lambda: bool(flag))
    with first.app_context():
        face.drain()
    answers = [
        (r.status_code, r.text) for r in (first.test_client().get(f"/health/{p}") for p in ("ready", "live"))
    ]

    assert answers == [(503, "draining"), (200, "alive")]
    assert second.test_client().get("/health/ready").status_code == 200
    flag.append(True)
    assert second.test_client().get("/health/ready").text == "draining"


def test_starting(build: Build) -> None:
    """Before start-up is done the process is not ready."""
    app, _ = build()
    handle = app.extensions["prod"].contributions["health"].handle
    client = app.test_client()
    client.get("/health/live")
    handle.started = False

    assert (client.get("/health/ready").status_code, client.get("/health/ready").text) == (503, "starting")


def test_live_with_everything_hanging(build: Build) -> None:
    """Liveness asks nobody: it answers while every check hangs, with seconds to go until anybody gives up."""
    hold = threading.Event()
    app, face = build(HEALTH_TIMEOUT="30s")
    face.check("hangs", ready=True)(lambda: hold.wait(60) and None)
    client = app.test_client()
    asking = threading.Thread(target=client.get, args=("/health",))
    asking.start()
    began = time.monotonic()
    alive = client.get("/health/live")
    took = time.monotonic() - began
    waits = asking.is_alive()
    hold.set()
    asking.join()

    assert (alive.status_code, waits) == (200, True)
    assert took < 10


def test_sign_in_does_not_matter(build: Build) -> None:
    """An application that refuses everybody in before_request still answers its probes."""
    app, _ = build()
    app.before_request(lambda: abort(401))

    assert app.test_client().get("/health").status_code == 200
    assert app.test_client().get("/").status_code == 401


def test_path(build: Build) -> None:
    """HEALTH_PATH moves all of it; its routes are known to Flask."""
    app, _ = build(HEALTH_PATH="/internal/status")
    client = app.test_client()

    assert client.get("/internal/status/live").text == "alive"
    assert client.get("/health").status_code == 404
    assert {rule.rule for rule in app.url_map.iter_rules()} >= {"/internal/status", "/internal/status/<path:name>"}
    with app.test_request_context():
        assert app.url_for("prod_health.ready") == "/internal/status/ready"


def test_through_flask(build: Build) -> None:
    """The blueprint gives the same answers to whoever comes without the pass."""
    app, _ = build(HEALTH_TOKEN=TOKEN)
    with app.test_request_context("/health/live"):
        assert app.full_dispatch_request().get_data() == b"alive"
    with app.test_request_context("/health/x"):
        assert app.full_dispatch_request().status_code == 404


@pytest.mark.parametrize(
    ("key", "value"), [("HEALTH_PATH", "health"), ("HEALTH_PATH", "/"), ("HEALTH_TIMEOUT", 0)]
)
def test_bad_settings(build: Build, key: str, value: object) -> None:
    """A path or a time that cannot work is refused at start, by its key."""
    with pytest.raises(ConfigError, match=key):
        build(**{key: value})


def test_startup(build: Build) -> None:
    """The probe of a start-up says yes once, and then for ever."""
    app, _ = build()
    handle = app.extensions["prod"].contributions["health"].handle
    client = app.test_client()
    client.get("/")
    handle.started = False
    before = client.get("/health/startup")
    handle.started = True
    after = client.get("/health/startup")
    handle.drain()

    assert (before.status_code, before.text) == (503, "starting")
    assert (after.status_code, after.text) == (200, "started")
    assert client.get("/health/startup").text == "started"


def test_groups(build: Build) -> None:
    """A group has a path of its own, which hears its checks only: named by the checks or by the settings."""
    app, face = build(HEALTH_GROUPS="edge=fine; core=cache,fine", HEALTH_TOKEN=TOKEN)
    face.check("fine", groups=("outer",))(lambda: None)
    face.check("cache")(down)
    client = app.test_client()
    words = {name: client.get(f"/health/groups/{name}") for name in ("edge", "core", "outer", "none", "")}
    told = client.get("/health/groups/core", headers=BEARER).get_json()

    assert {name: (r.status_code, r.text) for name, r in words.items() if r.status_code != 404} == {
        "edge": (200, "healthy"), "core": (503, "unhealthy"), "outer": (200, "healthy"),
    }  # fmt: skip
    assert (told["group"], set(told["checks"])) == ("core", {"fine", "cache"})
    assert client.get("/health", headers=BEARER).get_json()["groups"] == ["core", "edge", "outer"]


def test_chosen_for_readiness(build: Build) -> None:
    """HEALTH_READY gives checks a say in readiness that were written without one."""
    app, face = build(HEALTH_READY="database")
    face.check("database")(down)

    assert app.test_client().get("/health/ready").text == "unready"


@pytest.mark.parametrize(
    ("asked", "kind", "stranger", "state"),
    [
        ({"query_string": "format=json"}, "application/json", b'{"status":"degraded"}', "degraded"),
        ({"query_string": "format=health%2Bjson"}, "application/health+json", b'{"status":"warn"}', "warn"),
        ({"query_string": "format=health+json"}, "application/health+json", b'{"status":"warn"}', "warn"),
        (
            {"headers": {"Accept": "application/health+json"}},
            "application/health+json",
            b'{"status":"warn"}',
            "warn",
        ),
        (
            {"headers": {"Accept": "application/vnd.spring-boot.actuator.v3+json, */*;q=0.1"}},
            "application/vnd.spring-boot.actuator.v3+json",
            b'{"status":"UP"}',
            "UP",
        ),
    ],
)
def test_formats(build: Build, asked: dict[str, Any], kind: str, stranger: bytes, state: str) -> None:
    """Each form has its own type and words, by `format=` and by `Accept`, for strangers and with the token."""
    app, face = build(HEALTH_TOKEN=TOKEN, SERVICE_VERSION="1.2.3")
    face.check("payments", critical=False)(down)
    client = app.test_client()
    word = client.get("/health", **asked)
    whole = client.get("/health", **{**asked, "headers": {**asked.get("headers", {}), **BEARER}})

    assert (word.content_type, word.data) == (kind, stranger)
    assert whole.content_type == kind
    assert json.loads(whole.data)["status"] == state
    assert "hunter22" not in whole.text


def test_draft(build: Build) -> None:
    """health+json has the fields of the IETF draft."""
    app, face = build(HEALTH_TOKEN=TOKEN, SERVICE_VERSION="1.2.3")
    face.check("payments", critical=False)(lambda: Finding("fail", "closed"))
    body = json.loads(app.test_client().get("/health?format=health%2Bjson", headers=BEARER).data)
    (found,) = body["checks"]["payments:responseTime"]

    assert (body["version"], body["releaseId"], body["serviceId"]) == ("1", "1.2.3", "shop")
    assert (found["status"], found["observedUnit"], found["output"]) == ("fail", "ms", "closed")


def test_actuator(build: Build) -> None:
    """Spring Boot's form has components with their details, and a draining instance is out of service."""
    app, face = build(HEALTH_TOKEN=TOKEN)
    face.check("payments", critical=False, groups="edge")(lambda: Finding("fail", "closed", {"queue": 7}))
    client = app.test_client()
    body = client.get("/health?format=actuator", headers=BEARER).get_json()
    with app.app_context():
        face.drain()

    assert (body["components"]["payments"]["status"], body["groups"]) == ("DOWN", ["edge"])
    assert body["components"]["payments"]["details"].items() >= {"queue": 7, "detail": "closed"}.items()
    assert client.get("/health/ready?format=actuator").get_json() == {"status": "OUT_OF_SERVICE"}


def test_text(build: Build) -> None:
    """Plain text has a line for the whole and one for each check."""
    app, face = build(HEALTH_TOKEN=TOKEN)
    face.check("payments")(lambda: Finding("warn", "is slow"))
    face.check("fine")(lambda: None)
    body = app.test_client().get("/health?format=text", headers=BEARER)

    assert body.text == "degraded\npayments warn is slow\nfine ok\n"


def test_odd_questions(build: Build) -> None:
    """A form that does not exist is as none, and a long header harms nothing."""
    app, _ = build()
    client = app.test_client()

    assert client.get("/health?format=xml").text == "healthy"
    assert client.get("/health", headers={"Accept": "a/b," * 2000}).text == "healthy"
    assert client.get("/health?" + "&" * 5000).text == "healthy"


def test_history(build: Build) -> None:
    """The last hundred changes, the newest first, for whoever sends the token."""
    app, face = build(HEALTH_TOKEN=TOKEN)
    answers = [False, *([True, False] * 60)]
    face.check("flaps", interval=0)(lambda: answers.pop())
    client = app.test_client()
    for _ in range(120):
        client.get("/health")
    changes = client.get("/health/history", headers=BEARER).get_json()["changes"]

    assert client.get("/health/history").status_code == 404
    assert len(changes) == 100
    assert {(change["check"], change["before"], change["after"]) for change in changes} == {
        ("flaps", "ok", "fail"), ("flaps", "fail", "ok"),
    }  # fmt: skip
    assert changes[0]["at"] >= changes[-1]["at"]


@pytest.mark.parametrize("key", ["HEALTH_TOKEN", "OPS_TOKEN"])
def test_tokens(build: Build, key: str) -> None:
    """HEALTH_TOKEN and OPS_TOKEN both open the details, and neither is refused for the other's sake."""
    events: list[str] = []
    app, _ = build(**{"HEALTH_TOKEN": "x" * 20, "OPS_TOKEN": "y" * 20, key: TOKEN})
    gate = app.extensions["prod"].contributions["health"].steps[0].ask.__self__._gate
    gate._emit = lambda event: events.append(event.name)

    assert app.test_client().get("/health", headers=BEARER).is_json
    assert events == []


def test_stuck(build: Build) -> None:
    """Liveness fails while a worker of the host serves nobody, since a restart helps."""
    app, _ = build(HEALTH_BACKGROUND=True, HEALTH_STUCK_AFTER="1m")
    client = app.test_client()
    assert client.get("/health/live").text == "alive"
    app.extensions["prod"].contributions["health"].handle._watchdog.stuck = (4711,)

    assert (client.get("/health/live").status_code, client.get("/health/live").text) == (503, "stuck")


@pytest.mark.alone
def test_memory_only(build: Build) -> None:
    """In the background a probe only reads memory: readiness answers at once while its check still hangs."""
    app, face = build(HEALTH_BACKGROUND=True, HEALTH_TIMEOUT="300ms", HEALTH_FAILURES=1)
    release = threading.Event()
    face.check("hangs", ready=True)(lambda: release.wait(5))
    client = app.test_client()
    began = time.monotonic()
    starting = [client.get(f"/health/{probe}").text for probe in ("ready", "startup", "live")]
    took = time.monotonic() - began
    word = wait_for(
        lambda: client.get("/health/ready").text != "starting" and client.get("/health/ready").text, 15
    )
    release.set()

    assert starting == ["starting", "starting", "alive"]
    assert took < 0.2
    assert word == "unready"


SHOP = """
import os, time
from flask import Flask
from flask_prod import ProdKit

prod = ProdKit(only=("health",))
broken = os.environ["BROKEN"]
asked = os.environ["ASKED"]

@prod.get("health").check("payments", interval="10s", timeout="500ms")
def payments():
    with open(asked, "a") as file:
        file.write("x")
    if os.path.exists(broken):
        time.sleep(30)

def create_app():
    app = Flask("shop")
    prod.init_app(app)
    return app
"""


def test_gunicorn(gunicorn: StartGunicorn, tmp_path: Any) -> None:
    """Two real workers ask a dependency once each, however many probes come; both tell when it hangs."""
    asked, broken = tmp_path / "asked", tmp_path / "broken"
    env = {"ENVIRONMENT": "test", "BROKEN": str(broken), "ASKED": str(asked)}
    server = gunicorn(
        source=SHOP, env=env, args=["-w", "2", "-k", "gthread", "--threads", "4"], ready="/health/live"
    )
    words = {server.get("/health").text for _ in range(100)}

    assert words == {"healthy"}
    assert 1 <= len(asked.read_text()) <= 2

    broken.touch()
    second = gunicorn(source=SHOP, env=env, ready="/health/live")
    began = time.monotonic()
    assert (second.get("/health").status, second.get("/health/live").text) == (503, "alive")
    assert time.monotonic() - began < 15
