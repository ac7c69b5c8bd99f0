"""`prod.limiter`: Flask-Limiter's own object, usable before any application exists and with several."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flask import Flask
from flask.sansio.scaffold import Scaffold
from flask_limiter import Limiter
from limits.storage import Storage
from limits.strategies import RateLimiter

from flask_prod.core.errors import NotInstalled
from flask_prod.core.kit import EXTENSION, current_state

from .chosen import Count
from .library import AppLimiter, current_address
from .plan import limit_by

if TYPE_CHECKING:
    from flask_limiter._extension import LimiterContext

    from .limits import AppLimits
    from .status import ClientStatus, Decision

MarkedT = TypeVar("MarkedT", bound=Callable[..., Any] | Scaffold)
Identify = Callable[[], str | None]


class ProdLimiter(Limiter):
    """Flask-Limiter with named policies; what it does in a request belongs to the current application."""

    def __init__(self) -> None:
        super().__init__(key_func=current_address)
        self.initialized = True
        self.identifier: Identify | None = None
        self.key_finder: Identify | None = None

    def policy(
        self,
        name: str,
        rule: str | None = None,
        *,
        critical: bool = False,
        cost: int | Callable[[], int] | None = None,
        count: Count | None = None,
    ) -> Callable[[MarkedT], MarkedT]:
        """Limit a view, a blueprint or an application by a named policy: `@prod.limit("checkout")`.

        *rule* spells a policy that settings need not know (`"5/15m block 1h"`); RATE_LIMIT_POLICIES wins.
        *critical* answers 503 while Redis is away, rather than limit by this process alone. *cost* is what one
        request takes from the points, a number or a function of the request. *count* names the answers that count:
        `401`, `"4xx"`, or a function of the response. ValueError for what cannot be understood.
        """
        return limit_by(name, rule, critical=critical, cost=cost, count=count)

    def consume(self, policy: str, client: str, cost: int | None = None) -> Decision:
        """Count one request, or whatever else, of a client under a policy; in views, jobs and the shell.

        *client* is an address, `user:ID`, `key:SECRET`, or any name of yours: `email:ada@example.com`. While Redis
        is away the policy's own answer holds. ValueError for a policy that does not exist.
        """
        return self._limits.consume(policy, client, cost)

    def api_key(self, function: Identify) -> Identify:
        """Register what tells the *verified* API key of a request, or None; headers are not looked at then."""
        self.key_finder = function
        return function

    def identify(self, function: Identify) -> Identify:
        """Register what tells who is asking: a key of a *verified* user, or None for a client known by address."""
        self.identifier = function
        return function

    def status(self, client: str) -> ClientStatus:
        """Return what is left for a client under every policy: an address, `user:ID`, or `key:SECRET`."""
        return self._limits.status(client)

    def reset(  # type: ignore[override]  # says how many; callers of the library's own ignore it
        self, client: str | None = None, policy: str | None = None
    ) -> int:
        """Forget what was counted: all of this application's limits, or those of one client, or one policy of it.

        Returns how many counters there were.
        """
        limits = self._limits
        return limits.reset_all() if client is None else limits.reset(client, policy)

    def init_app(self, app: Flask) -> None:
        """Do nothing: `prod.init_app(app)` has done it; NotInstalled when it has not."""
        if EXTENSION not in app.extensions:
            raise NotInstalled("prod.limiter is installed by prod.init_app(app), not by its own init_app.")

    @property
    def _limits(self) -> AppLimits:
        return cast("AppLimits", current_state().contributions["ratelimit"].handle)

    @property
    def _current(self) -> AppLimiter:
        return self._limits.library_of(self)

    @property
    def context(self) -> LimiterContext:
        """What the current request has come to."""
        return self._current.context

    @property
    def limiter(self) -> RateLimiter:
        """The strategy that counts for the current application."""
        return self._current.limiter

    @property
    def storage(self) -> Storage:
        """Where Flask-Limiter counts for the current application."""
        return self._current.storage

    def identify_request(self) -> str:
        """Return the endpoint, or what RATELIMIT_REQUEST_IDENTIFIER makes of the request."""
        return self._current.identify_request()

    def _check_request_limit(self, callable_name: str | None = None, in_middleware: bool = True) -> None:
        if self.enabled:
            self._current._check_request_limit(callable_name, in_middleware)
