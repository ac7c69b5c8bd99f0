"""Install the ratelimit room: one step before the cache, headers on every answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flask import Flask

from flask_prod.core.component import Component, Contribution, Installed, Stage, Step

from .cli import limits_command
from .declared import Declared
from .limits import AppLimits
from .rules import Rules
from .settings import RateLimitSettings

if TYPE_CHECKING:
    from .face import ProdLimiter


class RateLimit(Component[RateLimitSettings, AppLimits]):
    """Answer 429 to clients who come too often."""

    name = "ratelimit"
    after = ("redis", "metrics", "logs")
    settings = RateLimitSettings

    def __init__(self) -> None:
        self._declared = Declared()

    def face(self) -> ProdLimiter:
        """Return the object that users hold: Flask-Limiter's own, with named policies."""
        return self._declared.ask()

    def install(self, app: Flask, settings: RateLimitSettings, kit: Installed) -> Contribution[AppLimits]:
        """Build one application's limits; Flask-Limiter's own settings need Flask-Limiter."""
        if any(key.startswith("RATELIMIT_") for key in app.config):
            self._declared.ask()
        limits = AppLimits(app, Rules.of(settings), self._declared, kit)
        return Contribution(
            handle=limits,
            steps=(Step(Stage.LIMIT, limits.admit, lean=limits.is_lean),) if settings.enabled else (),
            headers=limits.advertise,
            commands=(limits_command(limits),),
            reload=lambda changed: partial(limits.adopt, Rules.of(changed)),
            start=limits.start,
            after_fork=limits.after_fork,
        )
