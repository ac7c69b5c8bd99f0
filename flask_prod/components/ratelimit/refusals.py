"""What a refused request is answered, also as a problem document with a type of its own (RFC 9457)."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from werkzeug.exceptions import ServiceUnavailable, TooManyRequests

from .policy import Policy, describe

CLOSED_SECONDS = 2
"""What Retry-After says while a limit that fails closed cannot be asked; Redis is asked again every second."""

_TYPES = "https://iana.org/assignments/http-problem-types#"
"""Where draft-ietf-httpapi-ratelimit-headers-10 registers its problem types."""


class LimitExceeded(TooManyRequests):
    """A policy was exceeded; handlers for 429 see it, and those for Flask-Limiter's RateLimitExceeded."""

    def __init__(self, policy: Policy, seconds: int) -> None:
        super().__init__(message_of(policy, seconds))
        self.describe(policy, seconds)

    def describe(self, policy: Policy, seconds: int) -> None:
        """Keep what handlers and error pages may want to know."""
        self.policy = policy
        self.retry_after = seconds
        self.problem = quota_exceeded(policy.name)


def exceeded(policy: Policy, seconds: int) -> LimitExceeded:
    """Return the answer to a client that came too often.

    It is Flask-Limiter's exception as well where somebody has imported that library; where nobody has, nobody
    can have a handler for it.
    """
    if "flask_limiter" not in sys.modules:
        return LimitExceeded(policy, seconds)
    from . import library

    return library.LimitExceeded(policy, seconds)


def message_of(policy: Policy, seconds: int) -> str:
    """Return what the client is told."""
    return f"Too many requests: {describe(policy)} at most. Try again in {seconds} s."


def quota_exceeded(name: str) -> Mapping[str, object]:
    """Return what a 429 says as a problem document beyond status and detail."""
    return {"type": f"{_TYPES}quota-exceeded", "violated-policies": [name]}


def closed() -> ServiceUnavailable:
    """Return the answer of a limit that fails closed while Redis is away."""
    refusal = ServiceUnavailable(retry_after=CLOSED_SECONDS)
    refusal.problem = {"type": f"{_TYPES}temporary-reduced-capacity"}  # type: ignore[attr-defined]
    return refusal
