"""The ratelimit room: named policies over the whole application, and Flask-Limiter's own decorators."""

from .component import RateLimit
from .face import ProdLimiter
from .limits import AppLimits, LimitExceeded
from .policy import Policy
from .settings import RateLimitSettings
from .status import ClientStatus, PolicyStatus

__all__ = [
    "AppLimits",
    "ClientStatus",
    "LimitExceeded",
    "Policy",
    "PolicyStatus",
    "ProdLimiter",
    "RateLimit",
    "RateLimitSettings",
]
