"""The error tracking room: Sentry behind the pass, without its middleware."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from flask_prod.core.component import Component, Contribution, Installed, Stage, Step
from flask_prod.core.run_dir import run_dir
from flask_prod.core.secrets import secrets_of

from .client import build_client, check_dsn
from .engine import AppErrors, Counters
from .expected import Expected
from .face import ErrorsFace
from .scrubber import Scrubber
from .settings import ErrorSettings
from .storm import OncePerHost

if TYPE_CHECKING:
    from flask import Flask


class ErrorTracking(Component[ErrorSettings, AppErrors]):
    """Report unexpected errors to Sentry."""

    name = "error_tracking"
    settings = ErrorSettings

    def face(self) -> ErrorsFace:
        """Build `prod.sentry`."""
        return ErrorsFace()

    def install(self, app: Flask, settings: ErrorSettings, kit: Installed) -> Contribution[AppErrors]:
        """Make the client; without SENTRY_DSN nothing of Sentry is imported, and nothing runs per request."""
        expected = Expected(settings.errors_expected)
        counted = kit.meter.counter(
            "flask_prod_error_reports_total",
            "Error reports: sent, withheld as equal to many, dropped",
            ("result",),
        )
        fallbacks = kit.meter.counter(
            "flask_prod_fallbacks_total", "Calls that were answered by their fallback", ("name",)
        )
        counters = Counters(counted, fallbacks)
        once = OncePerHost(cache(lambda: run_dir(kit.service, app.root_path)))
        if not settings.sentry_dsn:
            return Contribution(handle=AppErrors(None, expected, 0.0, counters, once))

        check_dsn(settings.sentry_dsn.reveal())
        scrubber = cache(lambda: Scrubber(secrets_of(app)))
        rate = settings.sentry_traces_sample_rate
        errors = AppErrors(lambda: build_client(settings, kit.service, scrubber), expected, rate, counters, once)
        return Contribution(
            handle=errors,
            steps=(Step(Stage.HOST, errors.begin),) if rate else (),
            headers=errors.look,
            steady=True,  # early answers are no failures
            observe=errors.observe,
            on_event=errors.on_event,
            # From nothing it cannot be changed: requests then have no step that draws.
            reload=(lambda changed: partial(errors.sample, changed.sentry_traces_sample_rate)) if rate else None,
            start=errors.start,
            after_fork=errors.after_fork,
            close=errors.close,
        )
