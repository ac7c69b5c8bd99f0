"""The redis room: one client per purpose, one circuit breaker, one namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .absent import NoRedis
from .component import Redis
from .engine import Breaker
from .settings import RedisSettings

if TYPE_CHECKING:
    from .handle import RedisHandle

__all__ = ["Breaker", "NoRedis", "Redis", "RedisHandle", "RedisSettings"]


def __getattr__(name: str) -> Any:
    """Import what needs redis-py only when somebody asks for it."""
    if name == "RedisHandle":
        from .handle import RedisHandle

        return RedisHandle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
