"""What each room does with settings that change while it serves."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask import Flask
from sqlalchemy import text

from flask_prod.core.convert import holds_secrets
from flask_prod.core.registry import BUILT_IN, load_component
from tests.apps import MakeApp


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the profile that the service reads."""
    monkeypatch.setenv("CONFIG_DIR", str(tmp_path / "config"))
    (tmp_path / "config").mkdir()
    return tmp_path / "config" / "test.toml"


def changed(app: Flask, profile: Path, text: str) -> None:
    """Change the profile, and let the service see it."""
    profile.write_text(text)
    reloader = app.extensions["prod"].lifecycle.handle("settings")
    reloader.look()
    reloader.look()


def handle(app: Flask, name: str) -> Any:
    """Return what a room gives to others."""
    return app.extensions["prod"].contributions[name].handle


def service(make_app: MakeApp, tmp_path: Path, *rooms: str, **config: Any) -> Flask:
    """Build an application with some rooms and a page."""
    app = make_app(only=rooms, RELOAD_SECONDS=1, RUN_DIR=str(tmp_path / "run"), **config)
    app.add_url_rule("/", view_func=lambda: "hello")
    return app


def test_no_live_setting_is_secret() -> None:
    """Settings that can change exist, and none of them is a secret: they are written to RUN_DIR."""
    for room in BUILT_IN:
        kind = load_component(room).settings
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        assert set(kind.live) <= set(fields)
        assert not [name for name in kind.live if holds_secrets(fields[name].type)]


def test_ratelimit(make_app: MakeApp, tmp_path: Path, profile: Path) -> None:
    """A changed limit holds from the next request on, and what was counted stays counted."""
    profile.write_text("RATE_LIMIT_PUBLIC = 2")
    client = (app := service(make_app, tmp_path, "ratelimit")).test_client()
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]
    changed(app, profile, "RATE_LIMIT_PUBLIC = 4")

    answers = [client.get("/") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "4" in answers[0].headers["RateLimit-Policy"]


def test_database(make_app: MakeApp, tmp_path: Path, profile: Path) -> None:
    """A changed limit of slow queries holds for the next query, on connections that are open already."""
    app = service(
        make_app, tmp_path, "database", "logs", DATABASE_URL="sqlite://", LOG_OUTPUT=str(tmp_path / "log")
    )

    def ask() -> int:
        with app.app_context(), handle(app, "database").engine.connect() as connection:
            connection.execute(text("select 1"))
        return (tmp_path / "log").read_text().count("prod.database.slow_query")

    assert ask() == 0
    changed(app, profile, 'LOG_SLOW_QUERY = "0.001ms"')
    assert ask() == 1


def test_cors(make_app: MakeApp, tmp_path: Path, profile: Path) -> None:
    """A changed list of origins answers from the next request on; an unsafe one changes nothing."""
    client = (app := service(make_app, tmp_path, "cors")).test_client()

    def allowed(origin: str) -> str | None:
        return client.get("/", headers={"Origin": origin}).headers.get("Access-Control-Allow-Origin")

    assert allowed("https://a.example") is None
    changed(app, profile, 'ALLOWED_ORIGINS = ["https://a.example"]')
    assert allowed("https://a.example") == "https://a.example"
    changed(app, profile, 'ALLOWED_ORIGINS = ["https://*"]')
    assert allowed("https://a.example") == "https://a.example"
    changed(app, profile, 'ALLOWED_ORIGINS = ["https://b.example"]')
    assert (allowed("https://a.example"), allowed("https://b.example")) == (None, "https://b.example")


def test_logs(make_app: MakeApp, tmp_path: Path, profile: Path) -> None:
    """A changed level holds for requests and for the application's own loggers."""
    log = tmp_path / "log"
    app = service(make_app, tmp_path, "logs", LOG_OUTPUT=str(log))
    changed(app, profile, 'LOG_LEVEL = "DEBUG"')
    logging.getLogger("shop").debug("a small thing")
    changed(app, profile, 'LOG_LEVEL = "ERROR"')
    logging.getLogger("shop").warning("a large thing")

    assert "a small thing" in log.read_text()
    assert "a large thing" not in log.read_text()


def test_tracing(make_app: MakeApp, tmp_path: Path, profile: Path) -> None:
    """A changed rate decides about the next requests."""
    app = service(make_app, tmp_path, "tracing", TRACING_ENABLED=True, TRACING_EXPORTER="console")
    before = handle(app, "tracing")._bound
    changed(app, profile, "TRACING_SAMPLING_RATE = 1")

    assert before != handle(app, "tracing")._bound
    assert handle(app, "tracing")._bound > "f" * 16


def test_error_tracking(make_app: MakeApp, tmp_path: Path, profile: Path) -> None:
    """A changed share of transactions is drawn from the next request on, unless there was none at the start."""
    dsn = "https://key@127.0.0.1:9/1"
    profile.write_text("SENTRY_TRACES_SAMPLE_RATE = 0.5")
    app = service(make_app, tmp_path, "error_tracking", SENTRY_DSN=dsn)
    changed(app, profile, "SENTRY_TRACES_SAMPLE_RATE = 0.25")
    assert handle(app, "error_tracking")._rate == 0.25

    profile.write_text("")
    app = service(make_app, tmp_path, "error_tracking", SENTRY_DSN=dsn)
    changed(app, profile, "SENTRY_TRACES_SAMPLE_RATE = 0.25")
    assert handle(app, "error_tracking")._rate == 0
