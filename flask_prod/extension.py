"""The face of flask-prod: one extension, typed handles, and short cuts for every day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from flask_prod.core.kit import Kit
from flask_prod.core.record import current_record

if TYPE_CHECKING:
    from flask_prod.components.backups import Backups
    from flask_prod.components.cache import CacheFace
    from flask_prod.components.cors import CorsHandle
    from flask_prod.components.database import DatabaseFace
    from flask_prod.components.error_tracking import ErrorsFace
    from flask_prod.components.headers import TalismanHandle
    from flask_prod.components.health import HealthFace
    from flask_prod.components.jobs import JobsFace, Task
    from flask_prod.components.logs import ServiceLog
    from flask_prod.components.metrics import MetricsFace
    from flask_prod.components.migrations import Migrations
    from flask_prod.components.ratelimit import Count, ProdLimiter
    from flask_prod.components.tracing import TracingFace, UserSpan
    from flask_prod.components.usage import UsageFace

ParamsT = ParamSpec("ParamsT")
ReturnT = TypeVar("ReturnT")
TargetT = TypeVar("TargetT", bound=Callable[..., Any])


class ProdKit(Kit):
    """The production layer of a Flask application.

    Either `ProdKit(app)`, or a module-level `prod = ProdKit()` and `prod.init_app(app)` in the factory. Handles
    can be used before any application exists; what they do in a request belongs to the current one. Each is
    imported when it is first asked for.
    """

    @property
    def limiter(self) -> ProdLimiter:
        """Rate limits: Flask-Limiter's `Limiter`, with named policies."""
        return cast("ProdLimiter", self.get("ratelimit"))

    @property
    def cache(self) -> CacheFace:
        """The cache: Flask-Caching's `Cache`, which never stores what is personal."""
        return cast("CacheFace", self.get("cache"))

    @property
    def talisman(self) -> TalismanHandle:
        """Security headers: flask-talisman's `Talisman`, a decorator for single views."""
        return cast("TalismanHandle", self.get("headers"))

    @property
    def cors(self) -> CorsHandle:
        """Cross-origin access: Flask-CORS."""
        return cast("CorsHandle", self.get("cors"))

    @property
    def metrics(self) -> MetricsFace:
        """Metrics: prometheus-flask-exporter's `PrometheusMetrics`, one registry per application."""
        return cast("MetricsFace", self.get("metrics"))

    @property
    def sentry(self) -> ErrorsFace:
        """Error tracking: the Sentry SDK for the current application."""
        return cast("ErrorsFace", self.get("error_tracking"))

    @property
    def db(self) -> DatabaseFace:
        """The database: SQLAlchemy's engine, and a session per request, job or application context."""
        return cast("DatabaseFace", self.get("database"))

    @property
    def migrations(self) -> Migrations:
        """Migrations of the current application's database, by Alembic."""
        return cast("Migrations", self.get("migrations"))

    @property
    def backups(self) -> Backups:
        """Backups of the current application's database."""
        return cast("Backups", self.get("backups"))

    @property
    def jobs(self) -> JobsFace:
        """Background jobs: RQ's queues."""
        return cast("JobsFace", self.get("jobs"))

    @property
    def health(self) -> HealthFace:
        """Health checks of your own, and the state of the current application."""
        return cast("HealthFace", self.get("health"))

    @property
    def log(self) -> ServiceLog:
        """The service's logger; its lines carry the request's id and user, and any keyword as a field."""
        return cast("ServiceLog", self.get("logs"))

    @property
    def tracing(self) -> TracingFace:
        """The trace of the request or job that is being served."""
        return cast("TracingFace", self.get("tracing"))

    def span(self, name: str, **attributes: Any) -> UserSpan:
        """Measure a block or a function: `with prod.span("charge card", order=7):` or `@prod.span("charge card")`.

        Does nothing where requests are not traced, or this one is not sampled.
        """
        from flask_prod.components.tracing.face import UserSpan

        return UserSpan(name, attributes)

    @property
    def usage(self) -> UsageFace:
        """Usage by route and caller: names the callers of `flask prod usage`."""
        return cast("UsageFace", self.get("usage"))

    def limit(
        self,
        policy: str,
        rule: str | None = None,
        *,
        critical: bool = False,
        cost: int | Callable[[], int] | None = None,
        count: Count | None = None,
    ) -> Callable[[TargetT], TargetT]:
        """Limit a view, a blueprint or an application by a named policy: `@prod.limit("checkout")`.

        *rule* spells a policy that the settings need not know: `"5/15m block 1h"`. *critical* answers 503 while
        Redis is away rather than limit by this process alone; *cost* is what one request takes from the points, a
        number or a function of the request; *count* names the answers that count: `401`, `"4xx"`, or a function.
        """
        self.require("ratelimit")
        from flask_prod.components.ratelimit.plan import limit_by  # without Flask-Limiter, which this needs not

        limit = limit_by(policy, rule, critical=critical, cost=cost, count=count)
        return cast("Callable[[TargetT], TargetT]", limit)

    @overload
    def job(self, function: Callable[ParamsT, ReturnT], /) -> Task[ParamsT, ReturnT]: ...

    @overload
    def job(self, /, **options: Any) -> Callable[[Callable[ParamsT, ReturnT]], Task[ParamsT, ReturnT]]: ...

    def job(self, function: Any = None, /, **options: Any) -> Any:
        """Make a function a job: `@prod.job(queue="emails", retry=3, timeout="30s", backoff="exponential")`.

        It stays callable; `send_mail.dispatch(user_id=7)` runs it in a worker.
        """
        return self.jobs.job(**options) if function is None else self.jobs.job(function)

    def cron(
        self, expression: str, /, *, timezone: str = "UTC", **options: Any
    ) -> Callable[[Callable[ParamsT, ReturnT] | Task[ParamsT, ReturnT]], Task[ParamsT, ReturnT]]:
        """Run a job at the times of a cron expression: `@prod.cron("0 3 * * *", timezone="Europe/Berlin")`.

        Each time has one job over all workers. `missed="run_once"` makes up for times at which none lived.
        """
        return self.jobs.cron(expression, timezone=timezone, **options)

    def every(
        self, span: str | float | timedelta, /, **options: Any
    ) -> Callable[[Callable[ParamsT, ReturnT] | Task[ParamsT, ReturnT]], Task[ParamsT, ReturnT]]:
        """Run a job again and again: `@prod.every("10m")`; once for each time over all workers."""
        return self.jobs.every(span, **options)

    def capture_error(self, error: BaseException | None = None, **context: Any) -> None:
        """Report an exception, the one being handled by default, with *context*."""
        self.sentry.capture_error(error, **context)

    def capture_message(self, message: str, level: str = "info", **context: Any) -> None:
        """Report what is worth knowing and no error, with *context*."""
        self.sentry.capture_message(message, level, **context)

    def fallback(
        self, value: Any, on: type[BaseException] | tuple[type[BaseException], ...] = Exception, *, name: str = ""
    ) -> Callable[[TargetT], TargetT]:
        """Let a function or view answer *value*, or what *value* returns for its arguments, when it fails by *on*.

        Each failure is counted under *name* and reported once; `abort(404)` passes unless *on* names it.
        """
        from flask_prod.components.error_tracking import fallback

        return fallback(value, on, name=name)

    def set_user(self, user_id: object) -> None:
        """Say who makes this request: its log line and error report carry the id. Does nothing outside of one."""
        record = current_record()
        if record is not None:
            record.user_id = None if user_id is None else str(user_id)
