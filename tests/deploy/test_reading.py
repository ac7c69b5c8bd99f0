"""What a plan takes from where: the code, the profile of production, nothing of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from flask_prod.core.kit import state_of
from flask_prod.deploy.plan import Plan
from flask_prod.deploy.reading import read_plan
from tests.apps import MakeApp


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a project of its own, with a folder of profiles."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    return tmp_path


def plan_of(app: Flask) -> Plan:
    """Return the plan of an application that anybody could have."""
    return read_plan(state_of(app), "shop:app", "shop")


def test_code(folder: Path, make_app: MakeApp) -> None:
    """What app.config says holds in production too: settings of the application and of what is around it."""
    plan = plan_of(make_app(BALANCER_TIMEOUT="90s", DRAIN_SECONDS=7, DEPLOY_HOST="bread.example.com"))

    assert plan.around.balancer_timeout == 90
    assert plan.drain == 7
    assert plan.host == "bread.example.com"


def test_environment(folder: Path, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment and the .env of this machine do not; ENVIRONMENT is that of the files."""
    monkeypatch.setenv("DRAIN_SECONDS", "1")
    (folder / ".env").write_text("WEB_THREADS=64\n")
    plan = plan_of(make_app())

    assert (plan.drain, plan.threads, plan.environment) == (5, 4, "production")


def test_profile(folder: Path, make_app: MakeApp) -> None:
    """The profile of production does, and what it says comes with the image."""
    (folder / "config" / "production.toml").write_text('LOG_LEVEL = "WARNING"\nWEB_THREADS = 8\n')
    plan = plan_of(make_app())

    assert plan.threads == 8
    assert plan.said == {"LOG_LEVEL": "WARNING", "WEB_THREADS": "8"}


def test_wrong(folder: Path, make_app: MakeApp) -> None:
    """A wrong setting is told, and takes nothing else of its section with it."""
    (folder / "config" / "production.toml").write_text(
        'TLS_ENABLED = true\nTLS_CERT_FILE = "/not/here.pem"\nTLS_KEY_FILE = "/nor/here.pem"\nWEB_THREADS = 8\n'
        'DEPLOY_REPLICAS = "many"\nDEPLOY_HOST = "bread.example.com"\n'
    )
    plan = plan_of(make_app())

    assert plan.server.tls_enabled
    assert (plan.threads, plan.host, plan.deploy.replicas) == (8, "bread.example.com", 2)
    assert any("TLS_CERT_FILE" in problem for problem in plan.problems)
    assert any(problem.startswith("DEPLOY_REPLICAS must be") for problem in plan.problems)


def test_rooms(folder: Path, make_app: MakeApp) -> None:
    """Secrets and jobs are those of the rooms that there are."""
    small = plan_of(make_app(only=("health", "metrics")))
    large = plan_of(make_app())

    assert small.secrets == ("SECRET_KEY", "HEALTH_TOKEN", "METRICS_TOKEN")
    assert (small.uses_jobs, large.uses_jobs) == (False, True)
    assert {"DATABASE_URL", "REDIS_URL"} <= {*large.secrets}


def test_migrations(folder: Path, make_app: MakeApp) -> None:
    """Only an application with migrations is told to run them: without, that would fail at each release."""
    assert plan_of(make_app()).prepare == ""

    (folder / "migrations" / "versions").mkdir(parents=True)

    assert plan_of(make_app()).prepare == "flask prod db upgrade --yes"
    assert plan_of(make_app(only=("health",))).prepare == ""


def test_name_in_rules(folder: Path, make_app: MakeApp) -> None:
    """A name with what would end a rule of an ACL, or be expanded by the shell, stands there without it."""
    rules = plan_of(make_app(SERVICE_NAME="Quote $Server")).redis_rules

    assert rules.startswith("~Quote??Server:production:* ~rq:*")


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"Makefile": "test: venv\n\tpytest\n"}, "make test"),
        ({"pyproject.toml": '[project]\nname = "bread"\n'}, "pip install . pytest && python -m pytest"),
        (
            {"requirements.txt": "flask-prod\n", "Makefile": "run:\n"},
            "pip install --requirement requirements.txt pytest && python -m pytest",
        ),
    ],
)
def test_tests(folder: Path, make_app: MakeApp, files: dict[str, str], command: str) -> None:
    """The project's own way to test is known from its files."""
    for name, text in files.items():
        (folder / name).write_text(text)

    assert plan_of(make_app()).test_command == command
