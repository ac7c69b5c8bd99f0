"""What the settings of one application come to, and how many processes share its limits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from flask_prod.core.component import Event

from .clients import Network, header_names, read_networks
from .policy import Policy, read_policies
from .settings import RateLimitSettings


@dataclass(frozen=True)
class Rules:
    """What the settings of one application say, read once."""

    enabled: bool
    policies: Mapping[str, Policy | None]
    fail: str
    shadow: bool
    exempt: tuple[Network, ...]
    key_headers: tuple[str, ...]
    lease: int

    @classmethod
    def of(cls, settings: RateLimitSettings) -> Rules:
        """Read the settings."""
        return cls(
            settings.enabled,
            read_policies(
                settings.public,
                settings.authenticated,
                settings.window,
                settings.policies,
                shadow=settings.shadow,
            ),
            settings.fail,
            settings.shadow,
            read_networks(settings.exempt),
            header_names(settings.key_headers),
            settings.lease,
        )


def process_count() -> int:
    """Return how many processes share the limits, by WEB_CONCURRENCY; 1 when it does not say."""
    count = os.environ.get("WEB_CONCURRENCY", "")
    return max(1, int(count)) if count.isdigit() else 1


def unknown_process_count() -> bool:
    """Tell whether there may be several processes without anybody having said how many."""
    return "WEB_CONCURRENCY" not in os.environ and os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn")


def unshared(processes: int) -> Event:
    """Say that every process counts for itself."""
    message = (
        "Rate limits are counted in each process by itself, since there is no REDIS_URL: with several workers a "
        "client gets the limit several times over. Set REDIS_URL to count together."
    )
    return Event("prod.limit.unshared", message, "warning", {"processes": processes})
