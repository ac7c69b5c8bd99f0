"""What a call to Redis may end with, and what each says about the server."""

from __future__ import annotations

import redis

AWAY = (redis.ConnectionError, redis.TimeoutError)
"""No answer."""

BROKEN = (redis.RedisError, redis.exceptions.RedisClusterException, OSError, ValueError)
"""Anything that is not the caller's own: ValueError is how redis-py shows bytes that are no answer at all."""

_REFUSALS = (
    redis.OutOfMemoryError,
    redis.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.NoPermissionError,
)
"""Answers about the state of the server, not about one key; reads may well go on working."""

_REFUSING = ("MISCONF", "NOREPLICAS", "BUSY ", "NOAUTH")
"""The same, where redis-py has no class of its own."""


class Starved(redis.TimeoutError):
    """No answer was seen in time, by a process that could not look in time."""


class NoneFree(redis.ConnectionError):
    """All connections of the pool were in use for as long as a caller may wait: nothing about the server."""


class NodeAway(redis.RedisError):
    """The node of a cluster that has the key is left alone: its breaker is open."""


def is_refusal(error: Exception) -> bool:
    """Tell whether a server refused to work, rather than one key to fit."""
    return isinstance(error, _REFUSALS) or str(error).startswith(_REFUSING)
