"""Security events: stable names, who and where, and few lines however many attempts."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from flask_prod import ProdKit
from flask_prod.components.logs import SECURITY_EVENTS
from flask_prod.components.logs.security import MOST_LINES, Sparing, security_event
from tests.apps import MakeApp

from .conftest import Lines


def test_face(make_app: MakeApp, log_file: Any, lines: Lines) -> None:
    """`prod.log.security` writes the name, the sentence, the fields, and where the request came from."""
    kit = ProdKit(only=("logs",))
    log: Any = kit.get("logs")
    app = make_app(kit=kit, LOG_OUTPUT=str(log_file))

    @app.post("/sign-in")
    def sign_in() -> str:
        log.security("sign_in_failed", user=7, password="hunter2")
        return ""

    answer = app.test_client().post("/sign-in")

    line = lines()[0]
    assert (line["event"], line["level"]) == ("security.sign_in_failed", "warning")
    assert line["message"] == SECURITY_EVENTS["security.sign_in_failed"]
    assert line["request_id"] == answer.headers["X-Request-ID"]
    assert line["fields"] == {
        "client": "127.0.0.1", "method": "POST", "path": "/sign-in", "user": 7, "password": "[redacted]",
    }  # fmt: skip


def test_outside_of_an_application(caplog: pytest.LogCaptureFixture) -> None:
    """Without an application the event is a plain warning rather than an error."""
    log: Any = ProdKit(only=("logs",)).get("logs")
    log.security("token_refused", "An old token.")

    assert caplog.messages == ["security.token_refused: An old token."]


@pytest.mark.parametrize("name", ["", "Sign in", "a\nb", "x" * 99, "a..b", "1a"])
def test_bad_names(name: str) -> None:
    """What is no stable name is an error where it is written, not in the log."""
    with pytest.raises(ValueError, match="is not a name for an event"):
        security_event(name)


def test_own_names() -> None:
    """An application has events of its own; the prefix may be written or left out."""
    assert security_event("admin.promoted").name == security_event("security.admin.promoted").name
    assert security_event("admin.promoted").name == "security.admin.promoted"


def test_scanner(make_app: MakeApp, log_file: Any, lines: Lines) -> None:
    """A scanner that tries a thousand host names gets thirty lines, and the rest is counted in one."""
    app = make_app(only=("logs", "proxy", "metrics"), LOG_OUTPUT=str(log_file), LOG_LEVEL="WARNING",
                   ALLOWED_HOSTS=["shop.example"])  # fmt: skip
    client = app.test_client()
    for number in range(1000):
        assert client.get("/", headers={"Host": f"{number}.example"}).status_code == 400
    log = app.extensions["prod"].contributions["logs"].handle
    log.sparing._until = 0.0
    app.extensions["prod"].contributions["logs"].periodic[0].call()

    refused = lines("security.host_refused")
    assert len(refused) == MOST_LINES
    assert refused[0]["fields"]["host"] == "0.example"
    (held_back,) = lines("prod.log.held_back")
    assert held_back["fields"] == {"event": "security.host_refused", "count": 1000 - MOST_LINES}
    scraped = client.get("/metrics", headers={"Host": "shop.example"}).text
    assert 'flask_prod_events_total{event="security.host_refused",severity="warning"} 1000.0' in scraped


def test_names_are_few() -> None:
    """Names made up on the fly cannot fill the memory: beyond a hundred they share one place."""
    sparing = Sparing(most=2)
    taken = [sparing.takes(f"security.{number}", 1.0)[0] for number in range(1000)]

    assert sum(taken) == 102
    assert sparing.ended(2.0) == {}
    assert sparing.ended(100.0) == {"security.other": 898}
    assert sparing.takes("security.1", 101.0) == (True, {})


def refusals(make_app: MakeApp, log_file: Any, **config: Any) -> Flask:
    return make_app(LOG_OUTPUT=str(log_file), LOG_LEVEL="WARNING", **config)


def test_origin_refused(make_app: MakeApp, log_file: Any, lines: Lines) -> None:
    """Another site's script and its preflight are told of; the site's own forms and listed origins are not."""
    app = refusals(make_app, log_file, only=("logs", "cors"), ALLOWED_ORIGINS=["https://app.example"])
    client = app.test_client()
    asked = {"Access-Control-Request-Method": "GET"}
    for origin in ("https://app.example", "http://localhost", "https://evil.example"):
        client.get("/", headers={"Origin": origin})
        client.options("/", headers={"Origin": origin, **asked})

    assert [line["fields"]["origin"] for line in lines("security.origin_refused")] == ["https://evil.example"] * 2


def test_tokens_refused(make_app: MakeApp, log_file: Any, lines: Lines) -> None:
    """A wrong token for metrics or health details is told of; no token is nothing."""
    app = refusals(make_app, log_file, only=("logs", "metrics", "health"), METRICS_TOKEN="a", HEALTH_TOKEN="b")
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        for path in ("/metrics", "/health"):
            app.test_client().get(path, headers=headers)

    found = lines("security.token_refused")
    assert [line["message"].split()[2] for line in found] == ["METRICS_TOKEN", "HEALTH_TOKEN"]
    assert "wrong" not in str([line["fields"] for line in found])


def test_plaintext_and_limits(make_app: MakeApp, log_file: Any, lines: Lines) -> None:
    """A program on plain HTTP and a client beyond its limit have their names too."""
    app = refusals(make_app, log_file, only=("logs", "headers", "ratelimit"), RATE_LIMIT_PUBLIC=1,
                   SECURITY_FORCE_HTTPS=True)  # fmt: skip
    app.add_url_rule("/", "home", lambda: "home")
    client = app.test_client()
    client.get("/", headers={"Authorization": "Bearer x"})
    client.get("/", base_url="https://localhost")
    client.get("/", base_url="https://localhost")

    assert len(lines("security.plaintext_refused")) == 1
    assert lines("security.limit_breached")[0]["fields"]["policy"] == "public"


def test_names_are_told(make_app: MakeApp) -> None:
    """Every security event that a room emits stands in the table."""
    import re
    from pathlib import Path

    import flask_prod

    sources = (path.read_text() for path in Path(flask_prod.__file__).parent.rglob("*.py"))
    emitted = {name for text in sources for name in re.findall(r'"(security\.[a-z_]+)"', text)}

    assert emitted == set(SECURITY_EVENTS)
