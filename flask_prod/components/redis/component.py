"""Install the redis room: a handle for the other rooms, a health check, nothing per request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask

from flask_prod.core.component import Check, Component, Contribution, Finding, Installed, Periodic
from flask_prod.core.errors import ConfigError, Unavailable
from flask_prod.core.ports import RedisPort
from flask_prod.core.run_dir import Leader, run_dir

from .absent import NoRedis
from .outage import degraded_gauge
from .settings import RedisSettings

if TYPE_CHECKING:
    from .handle import RedisHandle


class Redis(Component[RedisSettings, RedisPort]):
    """One policy for Redis: short limits, one breaker, one namespace."""

    name = "redis"
    after = ("metrics", "logs", "error_tracking")
    settings = RedisSettings

    def install(self, app: Flask, settings: RedisSettings, kit: Installed) -> Contribution[RedisPort]:
        """Build the handle; nothing connects before a process serves, nor is imported without a REDIS_URL."""
        if not settings.url:
            gauge = degraded_gauge(kit.meter)
            return Contribution(handle=NoRedis(kit.service.namespace), start=lambda: gauge.set(0.0, Redis.name))
        from .clients import misfit
        from .handle import RedisHandle
        from .upkeep import EVERY

        if misfit(settings):
            raise ConfigError(
                ["REDIS_URL has an option that redis-py refuses: see what follows the question mark."]
            )
        handle = RedisHandle(settings, kit.service.namespace, kit.meter, kit.emit)
        handle.trace(kit.tracer, settings.db or 0)
        handle.upkeep.leader = Leader(run_dir(kit.service, app.root_path), "redis-review")
        return Contribution(
            handle=handle,
            checks=(_check(handle, kit.service.production),),
            start=handle.start,
            periodic=(Periodic("redis", EVERY, handle.keep),),
            after_fork=handle.after_fork,
            close=handle.close,
        )


def _check(handle: RedisHandle, production: bool) -> Check:
    """Ask for a write within 300 ms; an outage degrades the service, it does not end it."""

    def probe() -> Finding:
        try:
            handle.ping()
        except Unavailable:
            return Finding("fail", f"Redis does not answer: {handle.cause}.{_advice(handle.cause)}")
        if handle.degraded:
            return Finding("warn", f"A part of Redis does not answer: {handle.cause}.")
        review = handle.upkeep.review
        if review.warnings and production:
            return Finding("warn", " ".join(review.warnings), review.data)
        return Finding(data=review.data)

    return Check("redis", probe, critical=False, timeout=0.3)


def _advice(cause: str) -> str:
    if cause == "MovedError":
        return " REDIS_URL names one node of a cluster: write redis+cluster://."
    return ""
