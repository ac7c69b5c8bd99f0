"""Install the ratelimit room: one step before the cache, headers on every answer."""

from __future__ import annotations

from flask import Flask

from flask_prod.core.component import Component, Contribution, Installed, Stage, Step

from .cli import limits_command
from .face import ProdLimiter
from .limits import AppLimits
from .rules import Rules
from .settings import RateLimitSettings


class RateLimit(Component[RateLimitSettings, AppLimits]):
    """Answer 429 to clients who come too often."""

    name = "ratelimit"
    after = ("redis", "metrics", "logs")
    settings = RateLimitSettings

    def __init__(self) -> None:
        self._face = ProdLimiter()

    def face(self) -> ProdLimiter:
        """Return the object that users hold: Flask-Limiter's own, with named policies."""
        return self._face

    def install(self, app: Flask, settings: RateLimitSettings, kit: Installed) -> Contribution[AppLimits]:
        """Build one application's limits."""
        limits = AppLimits(app, Rules.of(settings), self._face, kit)
        return Contribution(
            handle=limits,
            steps=(Step(Stage.LIMIT, limits.admit, lean=limits.is_lean),) if settings.enabled else (),
            headers=limits.advertise,
            commands=(limits_command(limits),),
            start=limits.start,
            after_fork=limits.after_fork,
        )
