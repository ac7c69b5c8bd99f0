"""The ratelimit room: named policies over the whole application, and Flask-Limiter's own decorators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .chosen import Count
from .component import RateLimit
from .limits import AppLimits
from .policy import Policy
from .refusals import LimitExceeded
from .settings import RateLimitSettings
from .status import ClientStatus, Decision, PolicyStatus

if TYPE_CHECKING:
    from .face import ProdLimiter

__all__ = [
    "AppLimits",
    "ClientStatus",
    "Count",
    "Decision",
    "LimitExceeded",
    "Policy",
    "PolicyStatus",
    "ProdLimiter",
    "RateLimit",
    "RateLimitSettings",
]


def __getattr__(name: str) -> Any:
    """Import what needs Flask-Limiter only when somebody asks for it."""
    if name == "ProdLimiter":
        from .face import ProdLimiter

        return ProdLimiter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
