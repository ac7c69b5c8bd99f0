"""The redis room: one client per purpose, one circuit breaker, one namespace."""

from .component import Redis
from .engine import Breaker
from .handle import RedisHandle
from .settings import RedisSettings

__all__ = ["Breaker", "Redis", "RedisHandle", "RedisSettings"]
