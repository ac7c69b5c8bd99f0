"""The three applications, with the same routes and everything on.

"Everything" is: proxy hops, request id, JSON access line, security headers with a nonce, CORS with an allowed
Origin, two limits with headers, HTTP metrics in multi-process mode, Sentry with a sink and traces at 1 %.
"""

from __future__ import annotations

import os
import time
import uuid
from typing import Any

from flask import Flask, Response, g, request

ORIGIN = "https://shop.example"
NO_LIMIT = 10**6
"""A limit that no benchmark reaches: what is measured is the counting, not the refusing."""


def bare() -> Flask:
    """Build the yardstick: Flask and two routes."""
    app = Flask("bare")
    _routes(app, lambda view: view)
    return app


def by_hand() -> Flask:
    """Compose the libraries as the README of each one says, with its production settings."""
    import sentry_sdk
    import structlog
    from flask_cors import CORS
    from flask_limiter import Limiter
    from flask_limiter.util import get_remote_address
    from flask_talisman import Talisman
    from prometheus_flask_exporter.multiprocess import GunicornInternalPrometheusMetrics
    from werkzeug.middleware.proxy_fix import ProxyFix

    sentry_sdk.init(dsn=os.environ["BENCH_SENTRY_DSN"], traces_sample_rate=0.01, release="1.0.0")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=open(os.devnull, "w")),  # noqa: SIM115  # for the process
        cache_logger_on_first_use=True,
    )
    app = Flask("by_hand")
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]
    _request_id_and_access_line(app, structlog.get_logger())
    GunicornInternalPrometheusMetrics(app, group_by="url_rule")
    Talisman(
        app, content_security_policy={"default-src": "'self'"}, content_security_policy_nonce_in=["script-src"]
    )
    CORS(app, origins=[ORIGIN], supports_credentials=True, expose_headers=["X-Request-ID"], max_age=600)
    limiter = Limiter(
        get_remote_address,
        app=app,
        application_limits=[f"{NO_LIMIT} per minute"],
        headers_enabled=True,
        storage_uri=os.environ.get("REDIS_URL", "memory://"),
    )
    _routes(app, limiter.limit(f"{NO_LIMIT} per minute"))
    return app


def kit() -> Flask:
    """Compose the same by one ProdKit."""
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
    )
    prod = ProdKit(app)
    _routes(app, prod.limit("items"))
    return app


def _routes(app: Flask, limited: Any) -> None:
    @app.get("/api/items/<int:item>")
    @limited
    def item(item: int) -> dict[str, Any]:
        return {"id": item, "name": "Teapot", "price": 1999, "tags": ["kitchen", "tea"]}


def _request_id_and_access_line(app: Flask, logger: Any) -> None:
    @app.before_request
    def begin() -> None:
        g.request_id = uuid.uuid4().hex
        g.started = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        logger.info(
            "request",
            request_id=g.request_id,
            method=request.method,
            path=request.path,
            status=response.status_code,
            duration_ms=round((time.perf_counter() - g.started) * 1000, 3),
            bytes=response.content_length,
            client=request.remote_addr,
        )
        return response


APPS = {"bare": bare, "by_hand": by_hand, "kit": kit}
