"""The three applications, with the same routes and everything on.

"Everything" is: proxy hops, request id, JSON access line, security headers with a nonce, CORS with an allowed
Origin, two limits with headers, HTTP metrics in multi-process mode, Sentry with a sink and traces at 1 %. Where
BENCH_OTLP names a collector, 10 % of the requests are traced by OpenTelemetry as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from flask import Flask

ORIGIN = "https://shop.example"
TRACED = 0.1
NO_LIMIT = 10**6
"""A limit that no benchmark reaches: what is measured is the counting, not the refusing."""


def bare() -> Flask:
    """Build the yardstick: Flask and two routes."""
    app = Flask("bare")
    routes(app, lambda view: view)
    return app


def by_hand() -> Flask:
    """Compose the libraries as the README of each one says, with its production settings."""
    from bench.by_hand import Choices
    from bench.by_hand import by_hand as compose

    parts = compose(
        Choices(
            hops=1,
            access_line=True,
            metrics="gunicorn",
            metrics_options={"group_by": "url_rule"},
            talisman={
                "content_security_policy": {"default-src": "'self'"},
                "content_security_policy_nonce_in": ["script-src"],
            },
            cors={
                "origins": [ORIGIN],
                "supports_credentials": True,
                "expose_headers": ["X-Request-ID"],
                "max_age": 600,
            },
            limiter={
                "application_limits": [f"{NO_LIMIT} per minute"],
                "headers_enabled": True,
                "storage_uri": os.environ.get("REDIS_URL", "memory://"),
            },
            cache=None,
            traces={"endpoint": os.environ["BENCH_OTLP"], "ratio": TRACED} if "BENCH_OTLP" in os.environ else None,
            sentry={"dsn": os.environ["BENCH_SENTRY_DSN"], "traces_sample_rate": 0.01, "release": "1.0.0"},
        )
    )
    routes(parts.app, parts.limiter.limit(f"{NO_LIMIT} per minute"))
    return parts.app


def kit(only: tuple[str, ...] | None = None, *, public: bool = False) -> Flask:
    """Compose the same by one ProdKit; *only* these rooms, to see what one costs alone; *public* caches."""
    from flask_prod import ProdKit

    app = Flask("kit")
    app.config.update(
        TRUSTED_PROXIES=1,
        LOG_FORMAT="json",
        LOG_OUTPUT=os.devnull,
        ALLOWED_ORIGINS=[ORIGIN],
        CORS_CREDENTIALS=True,
        RATE_LIMIT_PUBLIC=NO_LIMIT,
        RATE_LIMIT_POLICIES={"items": f"{NO_LIMIT}/1m"},
        SENTRY_DSN=os.environ["BENCH_SENTRY_DSN"],
        SENTRY_TRACES_SAMPLE_RATE=0.01,
        OTLP_ENDPOINT=os.environ.get("BENCH_OTLP", ""),
        TRACING_SAMPLING_RATE=TRACED,
    )
    if only is not None and "proxy" not in only:
        app.config["SECURITY_FORCE_HTTPS"] = False  # nobody says that the request came by https
    prod = ProdKit(app, only=only)
    limits = "ratelimit" in app.extensions["prod"].contributions

    def decorate(view: Any) -> Any:
        if public:
            view = prod.cache.cached(ttl="1h", public=True)(view)
        return prod.limit("items")(view) if limits else view

    routes(app, decorate)
    return app


def routes(app: Flask, limited: Callable[[Any], Any]) -> None:
    """Add the view that is measured."""

    @app.get("/api/items/<int:item>")
    @limited
    def item(item: int) -> dict[str, Any]:
        return {"id": item, "name": "Teapot", "price": 1999, "tags": ["kitchen", "tea"]}


def build(name: str) -> Flask:
    """Build `bare`, `by_hand`, `kit`, a kit without rooms (`kit.`) or with one (`kit.cors`), or a module's own."""
    if name.startswith("page."):
        from bench import pages

        return pages.build(name)
    if name.startswith("query."):
        from bench import queries

        return queries.build(name)
    if name.startswith("routing."):
        from bench import routing

        return routing.build(name)
    if name.startswith("health."):
        from bench import health

        return health.build(name)
    if name.startswith("kit."):
        return kit(tuple(room for room in [name[4:]] if room))
    return {"bare": bare, "by_hand": by_hand, "kit": kit}[name]()
