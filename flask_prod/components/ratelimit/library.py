"""Flask-Limiter behind the kit: one object users hold, one engine per application, no hooks of its own."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flask import Flask, after_this_request, has_request_context, request
from flask.wrappers import Response
from flask_limiter import ExemptionScope, Limiter, RateLimitExceeded
from flask_limiter._limits import RuntimeLimit
from flask_limiter._manager import LimitManager
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import STRATEGIES, RateLimiter

from flask_prod.core.errors import Unavailable
from flask_prod.core.record import current_record

from . import refusals
from .account import SPARED, Account
from .clients import address_key
from .headers import Shown
from .policy import Policy
from .refusals import closed, quota_exceeded

if TYPE_CHECKING:
    from flask_limiter._extension import LimiterContext

    from flask_prod.core.ports import RedisPort
    from flask_prod.core.record import RequestRecord

logger = logging.getLogger(__name__)

_SHORT = {"socket_connect_timeout": 0.1, "socket_timeout": 0.1}


class AppLimiter(Limiter):
    """Flask-Limiter's engine for one application; what decorators declare, it shares with the face."""

    def __init__(
        self, declared: Limiter, redis_port: RedisPort | None, config: Mapping[str, Any], fail: str
    ) -> None:
        self.on_shadow: Callable[[RateLimitExceeded], None] | None = None
        own = config.get("RATELIMIT_STORAGE_URI")
        # The library's scripts need a client of one server: on a cluster, which cannot be watched either, its own
        # decorators count in the process. `@prod.limit` counts in the cluster.
        ours = redis_port is not None and redis_port.configured and redis_port.watchable
        self._redis = redis_port if ours and not own else None
        self._fail = fail
        super().__init__(
            key_func=current_address,
            strategy=config.get("RATELIMIT_STRATEGY") or "sliding-window-counter",
            storage_uri=None if own else "redis://" if self._redis else "memory://",
            storage_options=_storage_options(self._redis, own),
            headers_enabled=config.get("RATELIMIT_HEADERS_ENABLED", True),
            # The user's own storage falls back as the library does it; ours does it in `_check`.
            in_memory_fallback_enabled=bool(own),
        )
        manager = declared.limit_manager
        self.limit_manager = LimitManager(
            application_limits=[],
            default_limits=[],
            decorated_limits=manager._decorated_limits,
            blueprint_limits=manager._blueprint_limits,
            route_exemptions=manager._route_exemptions,
            blueprint_exemptions=manager._blueprint_exemptions,
        )
        self.limit_manager._endpoint_hints = manager._endpoint_hints
        self._marked_for_limiting = declared._marked_for_limiting
        self._request_filters = declared._request_filters

    def init_app(self, app: Flask) -> None:
        """Read the library's own keys; its hooks stay out, since the pass asks when it is time."""
        app.extensions.setdefault("limiter", set()).add(self)
        super().init_app(app)
        if self._redis is not None:
            self._in_memory_fallback_enabled = False
            self._fallback_limiter = STRATEGIES[self._strategy or "fixed-window"](MemoryStorage())

    def wanted_for(self, blueprints: list[str]) -> bool:
        """Tell whether the pass must ask before the view, for limits that no decorator of a view declares."""
        manager = self.limit_manager
        return bool(
            manager._application_limits
            or manager._default_limits
            or self._meta_limits
            or self._in_memory_fallback
            or any(part in manager._blueprint_limits for name in blueprints for part in name.split("."))
        )

    def exempts(self, app: Flask, endpoint: str | None, blueprint: str | None) -> bool:
        """Tell whether `@exempt` spares this endpoint from limits that hold for the whole application."""
        scope = self.limit_manager.exemption_scope(app, endpoint, blueprint)
        return bool(scope & ExemptionScope.APPLICATION)

    @property
    def limiter(self) -> RateLimiter:
        """The strategy that counts now: in Redis, or in this process while Redis is away."""
        if self._redis is None:
            return super().limiter
        local = has_request_context() and _is_local(self.context)
        chosen = self._fallback_limiter if local else self._limiter
        if chosen is None:
            raise RuntimeError("Rate limits are switched off: RATELIMIT_ENABLED or RATE_LIMIT_ENABLED is false.")
        return chosen

    def _check_request_limit(self, callable_name: str | None = None, in_middleware: bool = True) -> None:
        """Check as the library does, by Redis or without; raises RateLimitExceeded."""
        if not self.enabled or _is_spared(current_record()):
            return
        try:
            self._check(callable_name, in_middleware)
        except RateLimitExceeded as breach:
            if self.on_shadow is not None:
                self.on_shadow(breach)
                return
            breach.problem = quota_exceeded(str(breach.limit.limit))  # type: ignore[attr-defined]
            raise
        finally:
            if self.on_shadow is None:
                self._publish()
        if self.context.conditional_deductions:
            after_this_request(self._deduct)

    def _check(self, callable_name: str | None, in_middleware: bool) -> None:
        def check() -> None:
            super(AppLimiter, self)._check_request_limit(callable_name, in_middleware)

        context = self.context
        if self._redis is None or _is_local(context):
            check()
            return
        try:
            self._guarded(check)
        except Unavailable:
            if self._fail == "closed":
                raise closed() from None
            if self._fail == "open":
                return
            context.local = True  # type: ignore[attr-defined]
            context.seen_limits.clear()
            context.conditional_deductions.clear()
            self._check_locally(check)

    def _check_locally(self, check: Callable[[], None]) -> None:
        """Count in this process: the same limits, or those that RATELIMIT_IN_MEMORY_FALLBACK names instead.

        The library forgets exemptions in the second case; here they hold.
        """
        if not self._in_memory_fallback:
            check()
            return
        endpoint = self.identify_request()
        spared = endpoint and self.limit_manager.exemption_scope(_app(), endpoint, request.blueprint)
        if endpoint and not spared and not any(spare() for spare in self._request_filters):
            limits = list(itertools.chain(*self._in_memory_fallback))
            self._Limiter__evaluate_limits(endpoint, limits)  # type: ignore[attr-defined]

    def _guarded(self, call: Callable[[], None]) -> None:
        """Run *call* behind the breaker; what it raises on purpose is no failure of Redis."""

        def attempt(_: Any) -> Exception | None:
            try:
                call()
            except Exception as error:
                if _is_redis(error):
                    raise
                return error
            return None

        if self._redis is None:
            call()
            return
        raised = self._redis.attempt(attempt)
        if raised is not None:
            raise raised

    def _deduct(self, response: Response) -> Response:
        """Count what depends on the answer (`deduct_when`); it can no longer change or fail it."""
        context = self.context
        deduct = self._Limiter__check_conditional_deductions  # type: ignore[attr-defined]
        try:
            if _is_local(context):
                deduct(response)
            else:
                self._guarded(lambda: deduct(response))
        except Unavailable:
            context.local = True  # type: ignore[attr-defined]
            deduct(response)
        except Exception:
            logger.exception("a rate limit could not be deducted")
        context.conditional_deductions.clear()
        return response

    def _publish(self) -> None:
        """Leave the limit that counted in the request's record, where the headers are made."""
        record = current_record()
        limit = self.context.view_rate_limit
        if record is not None and limit is not None:
            if record.limits is None:
                record.limits = Account()
            record.limits.library, record.limits.simple = limit, False
            record.limits.local = _is_local(self.context)

    def show(self, account: Account) -> Shown | None:
        """Return the limit that counted as headers show it; None when nothing can be said."""
        limit = account.library
        limiter = self._fallback_limiter if account.local else self._limiter
        if limit is None or limiter is None or not (self._headers_enabled or limit.breached):
            return None
        found: list[Any] = []
        try:
            self._guarded(lambda: found.append(limiter.get_window_stats(limit.limit, *limit.request_args)))
        except Exception:
            if not limit.breached:
                return None
            found.append((time.time() + limit.limit.get_expiry(), 0))
        reset = max(1, int(found[0][0] - time.time()) + 1)
        left = 0 if limit.breached else max(0, found[0][1])
        return Shown(str(limit.limit), limit.limit.amount, left, reset, limit.limit.get_expiry())


class LimitExceeded(refusals.LimitExceeded, RateLimitExceeded):
    """A policy was exceeded; handlers for Flask-Limiter's RateLimitExceeded see it too."""

    def __init__(self, policy: Policy, seconds: int) -> None:
        item = RateLimitItemPerSecond(policy.points, policy.window // 1000)
        message = refusals.message_of(policy, seconds)
        RateLimitExceeded.__init__(self, RuntimeLimit(item, lambda: "", None, error_message=message))
        self.describe(policy, seconds)


def current_address() -> str:
    """Return whom the current request is counted for: the real address, IPv6 by its /64."""
    record = current_record()
    return address_key(record.client if record is not None else request.remote_addr or "")


def _is_spared(record: RequestRecord | None) -> bool:
    return record is not None and record.limits is SPARED


def _app() -> Flask:
    from flask import current_app

    return current_app._get_current_object()  # type: ignore[attr-defined, no-any-return]


def _is_local(context: LimiterContext) -> bool:
    return getattr(context, "local", False)


def _is_redis(error: Exception) -> bool:
    """Tell a failure of Redis from an exception of the user's key function or of a limit that cannot be read."""
    from redis import RedisError  # not imported by applications without Redis

    if isinstance(error, RedisError | OSError):
        return True
    if not isinstance(error, ValueError) or isinstance(error, RateLimitExceeded):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return str(where).startswith(("redis.", "limits.storage."))


def _storage_options(port: RedisPort | None, own: str | None) -> dict[str, Any]:
    if port is not None:
        return {"connection_pool": port.client().connection_pool, "key_prefix": port.key("limiter")}
    if own and own.startswith(("redis", "valkey")):
        return dict(_SHORT)
    return {}
