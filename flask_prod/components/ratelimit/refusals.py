"""What a refused request is answered, also as a problem document with a type of its own (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping

from flask_limiter import RateLimitExceeded
from flask_limiter._limits import RuntimeLimit
from limits import RateLimitItemPerSecond
from werkzeug.exceptions import ServiceUnavailable

from .policy import Policy, describe

CLOSED_SECONDS = 2
"""What Retry-After says while a limit that fails closed cannot be asked; Redis is asked again every second."""

_TYPES = "https://iana.org/assignments/http-problem-types#"
"""Where draft-ietf-httpapi-ratelimit-headers-10 registers its problem types."""


class LimitExceeded(RateLimitExceeded):
    """A policy was exceeded; handlers for 429 and for Flask-Limiter's RateLimitExceeded see it."""

    def __init__(self, policy: Policy, seconds: int) -> None:
        item = RateLimitItemPerSecond(policy.points, policy.window // 1000)
        message = f"Too many requests: {describe(policy)} at most. Try again in {seconds} s."
        super().__init__(RuntimeLimit(item, lambda: "", None, error_message=message))
        self.policy = policy
        self.retry_after = seconds
        self.problem = quota_exceeded(policy.name)


def quota_exceeded(name: str) -> Mapping[str, object]:
    """Return what a 429 says as a problem document beyond status and detail."""
    return {"type": f"{_TYPES}quota-exceeded", "violated-policies": [name]}


def closed() -> ServiceUnavailable:
    """Return the answer of a limit that fails closed while Redis is away."""
    refusal = ServiceUnavailable(retry_after=CLOSED_SECONDS)
    refusal.problem = {"type": f"{_TYPES}temporary-reduced-capacity"}  # type: ignore[attr-defined]
    return refusal
