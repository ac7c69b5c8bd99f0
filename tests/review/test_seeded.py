"""Misconfigurations are found: each by the rule that is meant for it, and by no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_prod.review.rules import RULES
from tests.review.well import REDIS, SECRETS, reviewed, site

KEY = SECRETS["SECRET_KEY"]
PLAIN_DATABASE = "postgresql+psycopg://shop:rT7kQ9xLm2Vb8ZpN@db.example.com/shop"


@dataclass(frozen=True)
class Seed:
    """One thing made wrong: by app.config, environment or files; `id` is what must be found."""

    id: str
    config: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    lay: Callable[[Path], None] = lambda _folder: None
    name: str = ""


def gunicorn(line: str, hooks: str = "import flask_prod.server.gunicorn\n") -> Callable[[Path], None]:
    """Lay a gunicorn.conf.py with one line."""

    def lay(folder: Path) -> None:
        (folder / "gunicorn.conf.py").write_text(f"{hooks}{line}\n")

    return lay


def readable_env(folder: Path) -> None:
    """Lay a .env that everybody may read."""
    (folder / ".env").write_text("A=b\n")
    (folder / ".env").chmod(0o644)


def committed_env(folder: Path) -> None:
    """Lay an index of git that has .env in it, as git writes it."""
    (folder / ".git").mkdir()
    entry = bytes(60) + bytes([0, 4]) + b".env" + bytes(6)
    (folder / ".git" / "index").write_bytes(b"DIRC\0\0\0\2\0\0\0\1" + entry)


SEEDS = (
    Seed("P002", {"ENVIRONMENT": "development", "SECURITY_FORCE_HTTPS": True, "LOG_FORMAT": "json",
                  "DRAIN_SECONDS": 5, "SHUTDOWN_SECONDS": 20}),
    Seed("P005", {"CHECK_SILENCE": {"secrets": "they are fine"}}),
    Seed("P101", {"SECRET_KEY": None}),
    Seed("P102", {"SECRET_KEY": "dev"}, name="dev"),
    Seed("P102", {"SECRET_KEY": "change-me-in-production-please"}, name="changeme"),
    Seed("P102", {"JWT_SECRET_KEY": "super-secret"}, name="jwt"),
    Seed("P102", {"SECRET_KEY": "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf"}, name="docs"),
    Seed("P103", {"METRICS_TOKEN": "x7Qp2LkV"}, name="short"),
    Seed("P103", {"SECRET_KEY": "abababababababababababababababab"}, name="regular"),
    Seed("P104", {"DATABASE_URL": PLAIN_DATABASE.replace("rT7kQ9xLm2Vb8ZpN", "postgres")}, name="database"),
    Seed("P104", {"REDIS_URL": REDIS.replace("hJ4wX8sNc6Qy1KfD", "foobared")}, name="redis"),
    Seed("P105", {"JWT_SECRET_KEY": KEY}),
    Seed("P106", {"SECRET_KEY_FALLBACKS": [KEY]}, name="current"),
    Seed("P106", {"SECRET_KEY_FALLBACKS": [KEY[n:] + KEY[:n] for n in (3, 7, 11, 13)]}, name="many"),
    Seed("P108", lay=readable_env),
    Seed("P109", lay=committed_env),
    Seed("P110", {"JWT_ACCESS_TOKEN_EXPIRES": False}),
    Seed("P111", environ={"SECRETS_DIR": "/mnt/nowhere"}),
    Seed("P201", {"SECURITY_FORCE_HTTPS": False, "SECURITY_COOKIE_SECURE": True}),
    Seed("P202", {"TRUSTED_PROXIES": 0}),
    Seed("P204", {"DATABASE_TLS": "prefer"}),
    Seed("P205", {"DATABASE_TLS": "require"}),
    Seed("P206", {"REDIS_URL": REDIS.replace("rediss", "redis")}),
    Seed("P207", {"SENTRY_DSN": "http://0a1b2c3d4e5f60718293a4b5c6d7e8f9@errors.example.com/1"}),
    Seed("P301", {"SECURITY_CSP": ""}),
    Seed("P302", {"SECURITY_CSP": "default-src 'self'; script-src 'self' 'unsafe-inline'"}, name="inline"),
    Seed("P302", {"SECURITY_CSP": "default-src *"}, name="any"),
    Seed("P303", {"SECURITY_CSP_REPORT_ONLY": True}),
    Seed("P304", {"SECURITY_HSTS_MAX_AGE": 60}),
    Seed("P305", {"SECURITY_FRAME": ""}),
    Seed("P306", {"SESSION_COOKIE_SECURE": False, "SECURITY_COOKIE_SECURE": False}),
    Seed("P307", {"SESSION_COOKIE_HTTPONLY": False}),
    Seed("P308", {"SESSION_COOKIE_SAMESITE": "None"}),
    Seed("P309", {"ALLOWED_ORIGINS": ["http://shop.example.com"]}),
    Seed("P310", {"ALLOWED_ORIGINS": ["http://localhost:3000"]}),
    Seed("P311", {"ALLOWED_HOSTS": []}),
    Seed("P312", {"JWT_TOKEN_LOCATION": ["cookies"], "JWT_COOKIE_SECURE": False}),
    Seed("P313", {"WTF_CSRF_ENABLED": False}),
    Seed("P314", {"REMEMBER_COOKIE_SECURE": False}),
    Seed("P401", {"DATABASE_URL": "sqlite:////var/tmp/shop.db", "DATABASE_TLS": None}),
    Seed("P402", {"REDIS_URL": "", "JOBS_OUTBOX": "always"}),
    Seed("P403", {"REDIS_URL": "rediss://redis.example.com:6379/0"}),
    Seed("P404", {"DATABASE_STATEMENT_TIMEOUT": 0}),
    Seed("P405", {"DATABASE_URL": PLAIN_DATABASE.replace("//shop:", "//postgres:")}),
    Seed("P408", {"CACHE_BACKEND": "memory"}),
    Seed("P501", {"RATE_LIMIT_ENABLED": False}),
    Seed("P502", {"RATE_LIMIT_PUBLIC": ""}),
    Seed("P503", {"RATE_LIMIT_SHADOW": True}),
    Seed("P504", {"RATE_LIMIT_EXEMPT": ["0.0.0.0/1"]}),
    Seed("P505", {"RATE_LIMIT_FAIL": "open"}),
    Seed("P506", {"MAX_CONTENT_LENGTH": 64 * 1024**3}),
    Seed("P507", {"MAX_FORM_MEMORY_SIZE": None}),
    Seed("P601", {"DEBUG": True}),
    Seed("P602", {"TESTING": True}),
    Seed("P603", {"PROPAGATE_EXCEPTIONS": True}),
    Seed("P604", {"TEMPLATES_AUTO_RELOAD": True}),
    Seed("P605", {"WEB_CONCURRENCY": 1}),
    Seed("P606", {"WEB_WORKER_CLASS": "sync", "BALANCER_TIMEOUT": 90, "WEB_TIMEOUT": 60}),
    Seed("P608", lay=gunicorn("timeout = 0")),
    Seed("P609", lay=gunicorn("reload = True"), name="file"),
    Seed("P609", environ={"GUNICORN_CMD_ARGS": "--workers 4 --reload"}, name="arguments"),
    Seed("P610", lay=gunicorn("workers = 4", hooks="")),
    Seed("P611", environ={"FORWARDED_ALLOW_IPS": "*"}),
    Seed("P612", lay=gunicorn("limit_request_line = 0")),
    Seed("P701", {"LOG_LEVEL": "DEBUG"}),
    Seed("P702", {"LOG_FORMAT": "console"}),
    Seed("P703", {"SENTRY_DSN": ""}),
    Seed("P704", {"OTLP_ENDPOINT": "", "TRACING_ENABLED": True}),
    Seed("P705", {"TRACING_EXPORTER": "console"}),
    Seed("P706", {"TRACING_SAMPLING_RATE": 1.0}),
    Seed("P707", {"TRACING_TRUST_PARENT": "always"}),
    Seed("P708", {"METRICS_ENABLED": False}),
    Seed("P709", {"SQLALCHEMY_ECHO": True}),
    Seed("P710", {"SENTRY_DEBUG": True}, name="config"),
    Seed("P710", environ={"SENTRY_DEBUG": "1"}, name="variable"),
    Seed("P711", {"METRICS_TOKEN": None}),
    Seed("P801", {"BACKUP_URL": ""}),
    Seed("P803", {"BACKUP_KEY": ""}),
    Seed("P804", {"UPLOAD_FOLDER": f"{Flask('site').static_folder}/private"}),
    Seed("P805", {"ENVIRONMENT": "staging", "JOBS_BACKEND": "memory", "JOBS_DEFAULT_TIMEOUT": 10}),
    Seed("P806", {"MIGRATIONS_PENDING": "ignore"}),
    Seed("B01", {"SHUTDOWN_SECONDS": 60}),
    Seed("B02", {"DRAIN_SECONDS": 0}),
    Seed("B06", {"WEB_KEEPALIVE": 5}),
    Seed("B08", {"DATABASE_MAX_OPEN_CONNS": 2}),
)  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed.id}-{seed.name}".rstrip("-"))
def test_found(seed: Seed, tmp_path: Path) -> None:
    """What was made wrong is found under the right id, and nothing else is."""
    seed.lay(tmp_path)
    report = reviewed(site(**seed.config), tmp_path, seed.environ)

    assert sorted({one.id for one in report.findings}) == [seed.id], report.findings
    for one in report.findings:
        assert not any(secret in one.evidence for secret in SECRETS.values())


def test_enough() -> None:
    """At least 40 rules are seeded, and each of those that are asked without a server."""
    seeded = {seed.id for seed in SEEDS}
    elsewhere = {"P001", "P003", "P004", "P006", "P107", "P203", "P406", "P407", "P409", "P508", "P607", "P613",
                 "P802", "P807", "P901", "P902", "P903", "P904"}  # fmt: skip

    assert len(seeded) >= 40
    assert {rule.id for rule in RULES if not rule.online} - seeded == elsewhere
