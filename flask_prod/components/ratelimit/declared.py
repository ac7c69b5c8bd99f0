"""Flask-Limiter's part: imported, and asked, only where somebody uses it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Flask
from werkzeug.exceptions import HTTPException, ServiceUnavailable, TooManyRequests

from flask_prod.core.component import HeaderList
from flask_prod.core.ports import RedisPort
from flask_prod.core.record import RequestRecord

from .account import Account
from .headers import add_library_headers
from .rules import Rules

if TYPE_CHECKING:
    from flask_limiter import RateLimitExceeded

    from .face import ProdLimiter
    from .library import AppLimiter


class Declared:
    """The face of one kit, which all of its applications share; None as long as nobody has asked for it."""

    def __init__(self) -> None:
        self.face: ProdLimiter | None = None

    def ask(self) -> ProdLimiter:
        """Return the face: Flask-Limiter is imported for it."""
        if self.face is None:
            from .face import ProdLimiter

            self.face = ProdLimiter()
        return self.face


class Borrowed:
    """The library's limits of one application; there are none as long as `limiter` is None."""

    def __init__(
        self, app: Flask, rules: Rules, redis: RedisPort | None, on_shadow: Callable[[RateLimitExceeded], None]
    ) -> None:
        self._app = app
        self._rules = rules
        self._redis = redis
        self._on_shadow = on_shadow
        self.limiter: AppLimiter | None = None

    def build(self, face: ProdLimiter) -> AppLimiter:
        """Return the library's engine, built when it is first needed."""
        if self.limiter is None:
            from .library import AppLimiter

            limiter = AppLimiter(face, self._redis, self._app.config, self._rules.fail)
            if self._rules.shadow:
                limiter.on_shadow = self._on_shadow
            if self._rules.enabled:
                limiter.init_app(self._app)
            else:
                limiter.enabled = False
            self.limiter = limiter
        return self.limiter

    def exempts(self, endpoint: str | None, blueprint: str | None) -> bool:
        """Tell whether `@exempt` spares this endpoint from limits that hold for the whole application."""
        return self.limiter is not None and self.limiter.exempts(self._app, endpoint, blueprint)

    def wanted_for(self, blueprints: list[str]) -> bool:
        """Tell whether the library must be asked before the view."""
        return self.limiter is not None and self.limiter.wanted_for(blueprints)

    def ask(self) -> HTTPException | None:
        """Ask for the limits that the library's own configuration and blueprints declare."""
        if self.limiter is None:
            return None
        try:
            self.limiter._check_request_limit()
        except (TooManyRequests, ServiceUnavailable) as refusal:
            return refusal
        return None

    def advertise(self, record: RequestRecord, account: Account, headers: HeaderList) -> None:
        """Say what the library's limit has left."""
        shown = None if self.limiter is None else self.limiter.show(account)
        if shown is None or self.limiter is None:
            return
        if self.limiter._headers_enabled:
            add_library_headers(headers, shown, int(time.time()))
        if record.status == 429 and shown.left == 0:
            account.retry_after = max(account.retry_after, shown.reset)

    def reset(self) -> None:
        """Forget what the library counted in this process."""
        if self.limiter is not None:
            self.limiter.storage.reset()
