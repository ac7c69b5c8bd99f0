"""Install the redis room: a handle for the other rooms, a health check, nothing per request."""

from __future__ import annotations

from flask import Flask

from flask_prod.core.component import Check, Component, Contribution, Finding, Installed
from flask_prod.core.errors import ConfigError, Unavailable

from .clients import misfit
from .handle import RedisHandle
from .settings import RedisSettings


class Redis(Component[RedisSettings, RedisHandle]):
    """One policy for Redis: short limits, one breaker, one namespace."""

    name = "redis"
    after = ("metrics", "logs", "error_tracking")
    settings = RedisSettings

    def install(self, app: Flask, settings: RedisSettings, kit: Installed) -> Contribution[RedisHandle]:
        """Build the handle; nothing connects before a process serves."""
        if settings.url and misfit(settings):
            raise ConfigError(
                ["REDIS_URL has an option that redis-py refuses: see what follows the question mark."]
            )
        gauge = kit.meter.gauge(
            "flask_prod_degraded", "1 while a room goes on without what it depends on.", ("component",)
        )
        handle = RedisHandle(settings, kit.service.namespace, gauge, kit.emit)
        return Contribution(
            handle=handle,
            checks=(_check(handle),) if handle.configured else (),
            start=handle.start,
            after_fork=handle.after_fork,
            close=handle.close,
        )


def _check(handle: RedisHandle) -> Check:
    """Ask for a write within 300 ms; an outage degrades the service, it does not end it."""

    def probe() -> Finding:
        try:
            handle.ping()
        except Unavailable:
            return Finding("fail", f"Redis does not answer: {handle.cause}.")
        return Finding()

    return Check("redis", probe, critical=False, timeout=0.3)
