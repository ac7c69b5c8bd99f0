"""Install the cache room."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from flask import Flask

from flask_prod.core.component import Check, Component, Contribution, Event, Installed
from flask_prod.core.errors import ConfigError
from flask_prod.core.ports import RedisPort
from flask_prod.core.settings import Section

from . import library
from .backend import Counters, Limits, SafeBackend
from .cli import cache_command
from .files import FileStore
from .handle import CacheFace
from .rules import CookieFilter
from .settings import CacheSettings
from .stores import MemoryStore, NullStore, RedisStore, Store

_LOCAL_SIZE = 16 * 1024**2
"""Bytes that each process may keep for itself while Redis is away."""


class ResponseCache(Component[CacheSettings, SafeBackend]):
    """Keep pages and values, and give them to nobody who should not see them."""

    name: ClassVar[str] = "cache"
    after: ClassVar[tuple[str, ...]] = ("redis", "metrics", "logs")
    settings: ClassVar[type[Section]] = CacheSettings

    def __init__(self) -> None:
        self._face = CacheFace()

    def face(self) -> CacheFace:
        """Return `prod.cache`; one object for all applications of the kit, each with a back end of its own."""
        return self._face

    def install(self, app: Flask, settings: CacheSettings, kit: Installed) -> Contribution[SafeBackend]:
        """Choose the store and put the safe back end under the library's object."""
        store = _build_store(app, settings, kit)
        limits = Limits(
            ttl=settings.ttl,
            max_object=settings.max_object,
            wait=settings.wait,
            cookies=CookieFilter(settings.ignore_cookies),
            strict=not kit.service.production,
        )
        counters = Counters(
            kit.meter.counter("flask_prod_cache_lookups_total", _LOOKUPS, ("result",)),
            kit.meter.counter("flask_prod_cache_refused_total", _REFUSED, ("reason",)),
        )
        backend = SafeBackend(store, limits, library.library_options(app.config), counters)
        self._face.install(app, backend)
        return Contribution(
            handle=backend,
            checks=(Check("cache", store.probe, critical=False),),
            commands=(cache_command(backend),),
            start=warn_of_many(store, kit.emit),
            after_fork=backend.after_fork,
        )


_LOOKUPS = "Look-ups in the cache by result: hit, miss, coalesced (another caller computed it) or damaged."
_REFUSED = "Pages and values that were not cached, by reason; docs/cache.md explains each."


def _build_store(app: Flask, settings: CacheSettings, kit: Installed) -> Store:
    redis: RedisPort | None = kit.handle("redis")
    shared = redis if redis is not None and redis.configured else None
    backend = library.choose_backend(app.config, settings, shared is not None)
    problems = tuple(library.problems(app.config, backend, shared is not None))
    if problems:
        raise ConfigError(problems)

    prefix = str(app.config.get("CACHE_KEY_PREFIX") or "")
    if backend == "redis" and shared is not None:
        return RedisStore(shared, prefix, MemoryStore(_LOCAL_SIZE, settings.memory_entries))
    if backend == "file":
        folder = Path(settings.dir or Path(app.instance_path) / "cache") / _folder_name(
            kit.service.namespace, prefix
        )
        return FileStore(folder, settings.memory_size, settings.memory_entries, kit.emit)
    if backend == library.NULL:
        return NullStore()
    return MemoryStore(settings.memory_size, settings.memory_entries)


def _folder_name(namespace: str, prefix: str) -> str:
    """Return a folder for one service, environment and prefix: clearing it must not clear a neighbour's."""
    return quote(f"{namespace}:{prefix}".rstrip(":"), safe="")


def warn_of_many(store: Store, emit: Callable[[Event], None]) -> Callable[[], None] | None:
    """Return what warns, in a process that has siblings, of a memory that each keeps for itself."""
    if store.name != "memory":
        return None

    def warn() -> None:
        processes = os.environ.get("WEB_CONCURRENCY", "")
        several = processes not in ("", "1") or os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn")
        if several and processes != "1":
            message = (
                "The cache lives in the memory of each worker: an entry deleted in one worker stays in the others "
                "until its time is over. Set REDIS_URL, or CACHE_BACKEND=file."
            )
            fields: dict[str, Any] = {"processes": processes or "unknown"}
            emit(Event("prod.cache.unshared", message, "warning", fields))

    return warn
