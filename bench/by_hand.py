"""The libraries composed by hand, as the README of each one says: what the kit is measured and tested against.

`by_hand(...)` is the only such composition here. The benchmark turns everything on that production needs; the
traps in tests/traps/ turn on what their row is about, and leave the rest as the README's first example has it.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, g, request

Options = Mapping[str, Any]

METRICS = {
    "plain": ("prometheus_flask_exporter", "PrometheusMetrics"),
    "gunicorn": ("prometheus_flask_exporter.multiprocess", "GunicornInternalPrometheusMetrics"),
}
"""The exporter's class of the first example in its README, and that of its chapter about gunicorn."""

ORDER = ("metrics", "talisman", "cors", "limiter", "cache")
"""In which order the extensions are made: this one loses the least."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What to turn on. Options are passed on to the library's constructor; None leaves that library out."""

    name: str = "by_hand"
    hops: int = 0
    """Proxies in front: ProxyFix where there are any."""

    limits: Sequence[str] = ()
    """Flask-Limiter's `default_limits`."""

    limiter: Options = field(default_factory=dict)
    by_forwarded: bool = False
    """Count by the first address of X-Forwarded-For, the answer most often given to "all clients look alike"."""

    cache: Options | None = field(default_factory=lambda: {"CACHE_TYPE": "SimpleCache"})
    """Flask-Caching's configuration."""

    talisman: Options | None = None
    cors: Options | None = None
    metrics: str = ""
    """One of METRICS, or empty."""

    metrics_options: Options = field(default_factory=dict)
    sentry: Options | None = None
    traces: Options | None = None
    """OpenTelemetry: `endpoint` of the collector, and the `ratio` of requests that are traced."""

    access_line: bool = False
    """A request id, and a JSON line per request by structlog."""

    order: Sequence[str] = ORDER


@dataclass(frozen=True, kw_only=True)
class Parts:
    """An application and the libraries' objects, whose decorators its views use."""

    app: Flask
    limiter: Any = None
    cache: Any = None
    metrics: Any = None
    talisman: Any = None


def by_hand(choices: Choices) -> Parts:
    """Compose the libraries."""
    if choices.sentry is not None:
        import sentry_sdk

        sentry_sdk.init(**choices.sentry)
    app = Flask(choices.name)
    if choices.hops:
        from werkzeug.middleware.proxy_fix import ProxyFix

        hops = choices.hops
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    if choices.access_line:
        _request_id_and_access_line(app)
    if choices.traces is not None:
        trace_requests(app, choices.traces)
    made = {name: _EXTENSIONS[name](app, choices) for name in choices.order}
    made.pop("cors", None)
    return Parts(app=app, **made)


def trace_requests(app: Flask, options: Options) -> None:
    """Trace as the README of opentelemetry-instrumentation-flask and the SDK's documentation say."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.flask import FlaskInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    sampler = ParentBasedTraceIdRatio(options["ratio"])
    provider = TracerProvider(sampler=sampler, resource=Resource.create({"service.name": "by-hand"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(options["endpoint"] + "/v1/traces")))
    trace.set_tracer_provider(provider)
    instrumentor: Any = FlaskInstrumentor()
    instrumentor.instrument_app(app)


def _metrics(app: Flask, choices: Choices) -> Any:
    if not choices.metrics:
        return None
    module, name = METRICS[choices.metrics]
    exporter = getattr(__import__(module, fromlist=[name]), name)
    return exporter(app, **choices.metrics_options)


def _talisman(app: Flask, choices: Choices) -> Any:
    if choices.talisman is None:
        return None
    from flask_talisman import Talisman

    return Talisman(app, **choices.talisman)


def _cors(app: Flask, choices: Choices) -> None:
    if choices.cors is None:
        return
    from flask_cors import CORS

    CORS(app, **choices.cors)


def _limiter(app: Flask, choices: Choices) -> Any:
    from flask_limiter import Limiter
    from flask_limiter.util import get_remote_address

    key = _first_forwarded if choices.by_forwarded else get_remote_address
    return Limiter(key, app=app, default_limits=list(choices.limits), **choices.limiter)


def _cache(app: Flask, choices: Choices) -> Any:
    if choices.cache is None:
        return None
    from flask_caching import Cache

    return Cache(app, config=dict(choices.cache))


_EXTENSIONS: Mapping[str, Callable[[Flask, Choices], Any]] = {
    "metrics": _metrics,
    "talisman": _talisman,
    "cors": _cors,
    "limiter": _limiter,
    "cache": _cache,
}


def _first_forwarded() -> str:
    return request.access_route[0] if request.access_route else ""


def _request_id_and_access_line(app: Flask) -> None:
    import structlog

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
    logger = structlog.get_logger()

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
