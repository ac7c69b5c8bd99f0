"""The arithmetic of time limits and pools: nothing to say about the defaults, the numbers wherever they clash."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flask_prod.core.kit import state_of
from flask_prod.core.values import SecretUrl
from flask_prod.server import budget
from flask_prod.server.budget import findings, planned, serving_of, tell, values_of
from flask_prod.server.gunicorn import ServerSettings
from flask_prod.server.sums import Serving
from tests.apps import MakeApp

PAGE = Path(__file__).parents[2] / "docs" / "shutdown.md"
DEFAULTS: dict[str, Any] = {
    "ENVIRONMENT": "production",
    "DRAIN_SECONDS": 5.0,
    "DATABASE_URL": SecretUrl("postgresql+psycopg://shop:secret@db/shop"),
    "DATABASE_MAX_OPEN_CONNS": 10,
    "DATABASE_CONNECT_TIMEOUT": 3.0,
    "DATABASE_STATEMENT_TIMEOUT": 30.0,
    "REDIS_POOL_SIZE": 64,
    "REDIS_CONNECT_TIMEOUT": 0.1,
    "REDIS_READ_TIMEOUT": 0.1,
    "REDIS_MAX_RETRIES": 1,
    "JOBS_BACKEND": "auto",
    "JOBS_DEFAULT_TIMEOUT": 180.0,
    "JOBS_WORKERS": 1,
    "HEALTH_INTERVAL": 5.0,
    "HEALTH_TIMEOUT": 2.0,
    "HEALTH_STALE_AFTER": 30.0,
}
SERVING = Serving()
QUICK = {"DATABASE_STATEMENT_TIMEOUT": 10.0}
CLASHES: list[tuple[str, dict[str, Any], Serving, str]] = [
    ("B01", {}, replace(SERVING, grace=40), "DRAIN_SECONDS 5 s + SHUTDOWN_SECONDS 40 s + 5 s = 50 s"),
    ("B01", {"PRE_STOP": 10.0}, SERVING, "= 40 s, but TERMINATION_GRACE is 30 s"),
    ("B01", {"TERMINATION_GRACE": 10.0}, SERVING, "= 30 s, but TERMINATION_GRACE is 10 s"),
    ("B02", {"DRAIN_SECONDS": 0.0}, SERVING, "0 s between the signal and the first refused connection"),
    ("B03", {"REDIS_READ_TIMEOUT": 40.0}, SERVING, "x 2 tries = 80.2 s"),
    ("B03", {"REDIS_CONNECT_TIMEOUT": 20.0, **QUICK}, replace(SERVING, kind="sync"), "WEB_TIMEOUT is 30 s"),
    ("B04", {"DATABASE_STATEMENT_TIMEOUT": 60.0}, SERVING, "= 63 s, but BALANCER_TIMEOUT is 60 s"),
    ("B04", {"DATABASE_POOL_TIMEOUT": 30.0}, SERVING, "DATABASE_POOL_TIMEOUT 30 s + DATABASE_CONNECT_TIMEOUT 3 s"),
    ("B04", {}, replace(SERVING, kind="sync"), "= 33 s, but WEB_TIMEOUT is 30 s"),
    ("B05", {"JOBS_BACKEND": "memory"}, SERVING, "JOBS_DEFAULT_TIMEOUT 180 s is more than SHUTDOWN_SECONDS 20 s"),
    ("B06", {}, replace(SERVING, keepalive=5), "WEB_KEEPALIVE 5 s is not more than BALANCER_IDLE 60 s"),
    ("B07", {"HEALTH_STALE_AFTER": 5.0}, SERVING, "= 7 s, but HEALTH_STALE_AFTER is 5 s"),
    ("B08", {}, replace(SERVING, threads=16), "DATABASE_MAX_OPEN_CONNS 10 is less than the 16 threads"),
    ("B09", {"REDIS_POOL_SIZE": 2}, SERVING, "REDIS_POOL_SIZE 2 is less than the 4 threads"),
    ("B10", {}, replace(SERVING, workers=16), "16 web processes x 10 connections + 1 job workers x 2 ="),
]  # fmt: skip


def test_defaults_add_up() -> None:
    """Nothing is found where nothing was changed, and nothing about rooms that are left out."""
    assert findings(DEFAULTS, SERVING) == ()
    assert findings({}, SERVING) == ()


@pytest.mark.parametrize(("number", "changed", "serving", "arithmetic"), CLASHES)
def test_clash(number: str, changed: dict[str, Any], serving: Serving, arithmetic: str) -> None:
    """Whatever clashes is found alone, with its numbers and with what to do."""
    (found,) = findings({**DEFAULTS, **changed}, serving)

    assert found.id == number
    assert arithmetic in found.arithmetic
    assert found.remedy.endswith(".")
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    ("changed", "serving"),
    [
        ({"DRAIN_SECONDS": 0.0, "PRE_STOP": 5.0}, SERVING),
        ({"DRAIN_SECONDS": 0.0, "ENVIRONMENT": "development"}, SERVING),
        ({"TERMINATION_GRACE": 60.0}, replace(SERVING, grace=50)),
        (QUICK, replace(SERVING, kind="sync", threads=1, keepalive=2)),
        ({"BALANCER_IDLE": 3.0}, replace(SERVING, keepalive=5)),
        ({}, replace(SERVING, keepalive=0)),
        ({}, replace(SERVING, kind="gevent", threads=100)),
        ({"DATABASE_URL": SecretUrl("")}, replace(SERVING, workers=16)),
    ],
)
def test_no_clash(changed: dict[str, Any], serving: Serving) -> None:
    """What fits together in another way is left alone."""
    assert findings({**DEFAULTS, **changed}, serving) == ()


def test_limit_of_the_database_server() -> None:
    """Where the server was asked what it allows, its answer counts, and is worth a warning."""
    assert findings(DEFAULTS, replace(SERVING, workers=16), max_connections=300) == ()

    (guessed,) = findings(DEFAULTS, replace(SERVING, workers=16))
    (known,) = findings(DEFAULTS, SERVING, max_connections=20)

    assert (guessed.severity, known.severity) == ("notice", "warning")
    assert "but the server allows 17" in known.arithmetic


def test_every_finding_is_explained() -> None:
    """The page has each number."""
    page = PAGE.read_text()

    assert {number for number, *_ in CLASHES} == {f"B{n:02}" for n in range(1, 11)}
    assert all(f"| {number} |" in page for number, *_ in CLASHES)


def config(**values: Any) -> Any:
    """Return gunicorn's settings."""
    wanted = {
        "worker_class_str": "gthread", "workers": 2, "threads": 4, "timeout": 30, "graceful_timeout": 20,
        "keepalive": 75,
    }  # fmt: skip
    return SimpleNamespace(**{**wanted, **values})


def test_gunicorns_own_settings_count() -> None:
    """What gunicorn really does is looked at, wherever it was set."""
    assert serving_of(config()) == SERVING
    assert serving_of(config(worker_class_str="sync", workers=9)).kind == "sync"


def test_defaults_of_an_application(make_app: MakeApp) -> None:
    """A kit with all rooms and the server's own settings have nothing to say, in production too."""
    app = make_app(ENVIRONMENT="production", SECRET_KEY="k" * 32)
    values = values_of(state_of(app), ServerSettings)

    assert values["DRAIN_SECONDS"] == 5.0
    assert values["TERMINATION_GRACE"] == 30.0
    assert findings(values, planned(values, workers=2)) == ()


def test_told_at_start(make_app: MakeApp, tmp_path: Path) -> None:
    """Each clash is an event with one line; orchestrator's and balancer's numbers may come from app.config."""
    log = tmp_path / "log"
    app = make_app(
        ENVIRONMENT="production", SECRET_KEY="k" * 32, TERMINATION_GRACE="10s", LOG_OUTPUT=str(log)
    )  # fmt: skip
    (told,) = tell(state_of(app), config())
    state_of(app).lifecycle.close()

    (line,) = [json.loads(line) for line in log.read_text().splitlines() if "B01" in line]
    assert told.id == "B01"
    assert "TERMINATION_GRACE is 10 s" in line["message"]
    assert (line["event"], line["level"]) == ("prod.budget.exceeded", "warning")


def test_told_without_a_room_that_listens(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """A kit whose rooms hear no events logs the clash all the same."""
    app = make_app(only=("health",), ENVIRONMENT="production")
    with caplog.at_level(logging.WARNING, logger=budget.__name__):
        tell(state_of(app), config(graceful_timeout=120))

    assert [record.getMessage()[:34] for record in caplog.records] == ["Time limits or pools do not add up"]


def test_first_worker_tells(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Of many workers the first one tells; one whose application has no kit says nothing."""
    app = make_app(only=("health",), ENVIRONMENT="production", TERMINATION_GRACE="10s")
    with caplog.at_level(logging.WARNING):
        for age, wsgi in ((2, app), (3, app), (1, object())):
            budget.look(cast(Any, SimpleNamespace(age=age, wsgi=wsgi, cfg=config())))
        assert "B01" not in caplog.text
        budget.look(cast(Any, SimpleNamespace(age=1, wsgi=app, cfg=config())))

    assert caplog.text.count("B01") == 1
