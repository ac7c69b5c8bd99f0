"""Three applications that are ready for production, each of another kind, and how they are reviewed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask, flash, session
from flask_jwt_extended import JWTManager
from flask_sqlalchemy import SQLAlchemy

from flask_prod import ProdKit
from flask_prod.core.kit import KitState, state_of
from flask_prod.review import Report, Subject, review
from flask_prod.review.rules import RULES, sums

SECRETS = {
    "SECRET_KEY": "v1Qk0HcS9pX3tLw8ZrN5yB7dJ2mF4gKaUeTqIoPzWxC",
    "JWT_SECRET_KEY": "m8RfT2wYbN6kXq4VzLc0Hs9DjGp7UaEo5iKtQyBxWrM",
    "BACKUP_KEY": "c5Zt8NqWv2XyHk7RbPm0JdLs4GfAeUo9iTrKyBxCzQw",
    "METRICS_TOKEN": "p0WxLkQ7dVbN3hT9ySrZ2mFc8GjKaUe4XoItPqBzRwE",
}
DATABASE = "postgresql+psycopg://shop:rT7kQ9xLm2Vb8ZpN@db.example.com/shop"
REDIS = "rediss://:hJ4wX8sNc6Qy1KfD@redis.example.com:6379/0"

COMMON: Mapping[str, Any] = {
    "ENVIRONMENT": "production",
    **SECRETS,
    "ALLOWED_HOSTS": ["shop.example.com"],
    "TRUSTED_PROXIES": 1,
    "SENTRY_DSN": "https://0a1b2c3d4e5f60718293a4b5c6d7e8f9@errors.example.com/1",
    "DATABASE_URL": DATABASE,
    "DATABASE_TLS": "verify-full",
    "REDIS_URL": REDIS,
    "BACKUP_URL": "s3://backups/shop",
}


def api(**config: Any) -> Flask:
    """Build a JSON API behind a proxy, with tokens."""
    app = Flask("api", static_folder=None)
    app.config.from_mapping(COMMON)
    app.config.update(SECRET_KEY=None, ALLOWED_ORIGINS=["https://shop.example.com"], **config)
    ProdKit(app)
    JWTManager(app)

    @app.get("/api/things")
    def things() -> list[str]:
        return []

    return app


def site(**config: Any) -> Flask:
    """Build a site of pages with sessions, a sign-in, a cached page and a job."""
    app = Flask("site")
    app.config.from_mapping(COMMON)
    app.config["TRACING_SAMPLING_RATE"] = 0.05
    app.config["OTLP_ENDPOINT"] = "http://collector:4318"
    app.config.update(config)
    prod = ProdKit(app)
    JWTManager(app)
    prod.job(queue="mail")(send)

    @app.get("/")
    @prod.cache.cached(ttl="1m")
    def home() -> str:
        return "welcome"

    @app.post("/login")
    @prod.limit("auth")
    def login() -> str:
        return "who are you?"

    @app.post("/basket")
    def basket() -> str:
        session["basket"] = 1
        flash("There you are.")
        return "ok"

    return app


def worker(**config: Any) -> Flask:
    """Build a service that only runs jobs, on Flask-SQLAlchemy's engine."""
    app = Flask("worker", static_folder=None)
    app.config.from_mapping(COMMON)
    for key in ("JWT_SECRET_KEY", "DATABASE_URL"):
        app.config.pop(key)
    app.config["SECRET_KEY"] = None
    app.config["SQLALCHEMY_DATABASE_URI"] = f"{DATABASE}?sslmode=verify-full"
    app.config.update(config)
    SQLAlchemy(app)
    ProdKit(app)
    return app


def send() -> None:
    """Send a mail."""


KINDS = (api, site, worker)


@contextmanager
def subject_of(app: Flask, folder: Path, environ: Mapping[str, str] | None = None) -> Iterator[Subject]:
    """Give what rules are asked about, and close the application afterwards."""
    state: KitState = state_of(app)
    try:
        with app.app_context():
            yield Subject(state, folder, environ or {})
    finally:
        state.lifecycle.close()


def reviewed(app: Flask, folder: Path, environ: Mapping[str, str] | None = None, **options: Any) -> Report:
    """Review an application as `flask prod check` does."""
    with subject_of(app, folder, environ) as subject:
        return review(subject, RULES, more=sums, **options)
