"""The error tracking room: Sentry behind the pass, without its middleware."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask_prod.core.component import Component, Contribution, Installed, Stage, Step
from flask_prod.core.kit import EXTENSION
from flask_prod.core.redaction import is_sensitive
from flask_prod.core.values import Secret, SecretUrl

from .client import build_client
from .engine import AppErrors, Expected
from .face import ErrorsFace
from .scrubber import Scrubber
from .settings import ErrorSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        if not settings.sentry_dsn:
            return Contribution(handle=AppErrors(None, expected, 0.0, counted))

        scrubber = cache(lambda: Scrubber(secrets_of(app)))
        rate = settings.sentry_traces_sample_rate
        errors = AppErrors(lambda: build_client(settings, kit.service, scrubber), expected, rate, counted)
        return Contribution(
            handle=errors,
            steps=(Step(Stage.HOST, errors.begin),) if rate else (),
            observe=errors.observe,
            on_event=errors.on_event,
            after_fork=errors.after_fork,
            close=errors.close,
        )


def secrets_of(app: Flask) -> Iterator[str]:
    """Yield every secret of the service itself: of its settings, and of app.config by name."""
    state = app.extensions.get(EXTENSION)
    values = [row.value for row in state.settings.rows] if state else []
    values += [value for key, value in app.config.items() if is_sensitive(key)]
    for value in (app.secret_key, *values):
        text = value.reveal() if isinstance(value, Secret) else value
        if not isinstance(text, str) or not text:
            continue
        yield text
        if isinstance(value, SecretUrl):
            yield from _credentials(text)


def _credentials(url: str) -> Iterator[str]:
    """Yield password, or the key in front of a web address; a database's user name is a word like any other."""
    parts = urlsplit(url)
    if parts.password:
        yield parts.password
    elif parts.username and parts.scheme.startswith("http"):
        yield parts.username
