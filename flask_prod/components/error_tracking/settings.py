"""What can be set about error reports."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from flask_prod.core.settings import Section
from flask_prod.core.values import SecretUrl

Rate = Annotated[float, Meta(ge=0, le=1)]


class ErrorSettings(Section, frozen=True, kw_only=True):
    """Where errors are reported, and which are none."""

    live: ClassVar[tuple[str, ...]] = ("sentry_traces_sample_rate",)
    library_keys: ClassVar[tuple[str, ...]] = ("SENTRY_RELEASE", "SENTRY_ENVIRONMENT", "SENTRY_DEBUG")

    sentry_dsn: SecretUrl = SecretUrl("")
    """The address that Sentry gives to a project; empty reports nowhere, and errors are only logged."""

    sentry_traces_sample_rate: Rate = 0.0
    """The share of requests that Sentry gets as transactions, from 0 to 1."""

    sentry_profiles_sample_rate: Rate = 0.0
    """The share of those transactions that are profiled, from 0 to 1."""

    errors_expected: tuple[str, ...] = ()
    """Exception classes that are no news, by name or `module.name`; their subclasses neither."""
