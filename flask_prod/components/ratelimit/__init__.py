"""The ratelimit room: named policies over the whole application, and Flask-Limiter's own decorators."""

from .chosen import Count
from .component import RateLimit
from .face import ProdLimiter
from .limits import AppLimits
from .policy import Policy
from .refusals import LimitExceeded
from .settings import RateLimitSettings
from .status import ClientStatus, Decision, PolicyStatus

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
