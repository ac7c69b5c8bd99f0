"""Flask-Caching's own keys in app.config: honoured, except where they would bring back one of its traps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from .backend import LibraryOptions
from .settings import CacheSettings

NULL = "null"

_TYPES = {
    "NullCache": NULL,
    "SimpleCache": "memory",
    "FileSystemCache": "file",
    "RedisCache": "redis",
}
_SERVER_KEYS = ("CACHE_REDIS_URL", "CACHE_REDIS_HOST", "CACHE_REDIS_PASSWORD", "CACHE_REDIS_DB")


def choose_backend(config: Mapping[str, Any], settings: CacheSettings, has_redis: bool) -> str:
    """Return where entries live: what CACHE_BACKEND says, else CACHE_TYPE, else the best there is."""
    named = _TYPES.get(_short(config.get("CACHE_TYPE")))
    return settings.backend or named or ("redis" if has_redis else "memory")


def library_options(config: Mapping[str, Any]) -> LibraryOptions:
    """Return the options that the library would have kept on the shared object."""
    return LibraryOptions(
        hash_method=config.get("CACHE_HASH_METHOD") or hashlib.sha256,
        source_check=bool(config.get("CACHE_SOURCE_CHECK", False)),
        enable_signals=bool(config.get("CACHE_ENABLE_SIGNALS", False)),
    )


def problems(config: Mapping[str, Any], backend: str, has_redis: bool) -> Iterator[str]:
    """Yield one sentence for each key that cannot be honoured."""
    kind = config.get("CACHE_TYPE")
    if kind and _short(kind) not in _TYPES:
        yield (
            f"CACHE_TYPE is {kind!r}, whose entries are pickles or unknown: anybody who can write there could run "
            "code here. Set CACHE_BACKEND to redis, memory or file."
        )
    for key in _SERVER_KEYS:
        if config.get(key):
            yield f"{key} is not used: all rooms share one client with short time limits. Set REDIS_URL."
    if config.get("CACHE_SERIALIZER"):
        yield "CACHE_SERIALIZER is not used: entries are JSON in a checked envelope. Remove it."
    if not callable(config.get("CACHE_HASH_METHOD") or hashlib.sha256):
        yield "CACHE_HASH_METHOD must be a hash constructor such as hashlib.sha256."
    if backend in ("redis", "tiered") and not has_redis:
        yield f"CACHE_BACKEND is {backend}, but there is no REDIS_URL: set it, or choose memory or file."


def _short(kind: object) -> str:
    return str(kind or "").removeprefix("flask_caching.backends.").split(".")[-1]
