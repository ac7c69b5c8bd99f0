"""Install the cache room."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from flask import Flask

from flask_prod.core.component import Check, Component, Contribution, Event, Finding, Installed, Periodic
from flask_prod.core.errors import ConfigError
from flask_prod.core.ports import Meter, RedisPort
from flask_prod.core.run_dir import run_dir
from flask_prod.core.settings import Section

from . import library
from .backend import Limits, SafeBackend
from .board import Board
from .cli import cache_command
from .counters import build_counters, ratio
from .files import FileStore
from .handle import CacheFace
from .loader import Order
from .locks import Handover, HostLocks
from .memory import MemoryStore
from .pending import Pending
from .rules import CookieFilter
from .settings import CacheSettings
from .shared import RedisStore
from .spans import measure
from .stores import Damaged, NullStore, Store
from .tiered import TieredStore
from .warming import Warming

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
        counters = build_counters(kit.meter)
        store = _Builder(app, settings, kit, counters.damaged).build()
        measure(store, kit.tracer)
        limits = Limits(
            order=Order(settings.ttl, settings.stale, settings.stale_on_error, settings.jitter, settings.early),
            max_object=settings.max_object,
            wait=settings.wait,
            cookies=CookieFilter(settings.ignore_cookies),
            strict=not kit.service.production,
        )
        backend = SafeBackend(store, limits, library.library_options(app.config), counters)
        backend.pages.set_up(app, settings)
        warming = Warming(app, store, self._face.warmth)
        self._face.install(app, backend)
        return Contribution(
            handle=backend,
            early=backend.pages.find,
            checks=(Check("cache", checker(store, kit.meter), critical=False),),
            commands=(cache_command(backend, warming, kit.meter),),
            start=starter(store, kit.emit),
            periodic=(Periodic("cache", 1.0, _both(backend.tick, warming.tick)),),
            after_fork=_both(backend.after_fork, warming.after_fork),
            close=_both(warming.close, store.close),
        )


class _Builder:
    """Makes the store that the settings ask for, with what all processes of the host share."""

    def __init__(self, app: Flask, settings: CacheSettings, kit: Installed, damaged: Damaged) -> None:
        self._app = app
        self._settings = settings
        self._kit = kit
        self._damaged = damaged
        self._prefix = str(app.config.get("CACHE_KEY_PREFIX") or "")
        self._run_dir = run_dir(kit.service, app.root_path)

    def build(self) -> Store:
        """Return the store; ConfigError names what cannot be honoured."""
        redis: RedisPort | None = self._kit.handle("redis")
        shared = redis if redis is not None and redis.configured else None
        backend = library.choose_backend(self._app.config, self._settings, shared is not None)
        problems = tuple(library.problems(self._app.config, backend, shared is not None))
        if problems:
            raise ConfigError(problems)
        if backend == "redis" and shared is not None:
            return RedisStore(shared, self._prefix, self._local(), self._pending(), self._damaged)
        if backend == "tiered" and shared is not None:
            return self._tiered(shared)
        if backend == "file":
            return self._files()
        return NullStore() if backend == library.NULL else self._memory(self._settings.memory_size)

    def _tiered(self, redis: RedisPort) -> TieredStore:
        local = self._local()
        memory = MemoryStore(self._settings.memory_size, self._settings.memory_entries, local.board)
        return TieredStore(redis, self._prefix, local, self._pending(), self._damaged, memory=memory)

    def _files(self) -> FileStore:
        settings = self._settings
        name = _folder_name(self._kit.service.namespace, self._prefix)
        folder = Path(settings.dir or Path(self._app.instance_path) / "cache") / name
        return FileStore(folder, settings.memory_size, settings.memory_entries, self._kit.emit, self._damaged)

    def _local(self) -> MemoryStore:
        return self._memory(_LOCAL_SIZE)

    def _memory(self, size: int) -> MemoryStore:
        return MemoryStore(
            size,
            self._settings.memory_entries,
            Board(self._place("cache.board")),
            HostLocks(self._place("cache.lock")),
            Handover(self._run_dir),
        )

    def _pending(self) -> Pending:
        return Pending(self._place("cache.pending"))

    def _place(self, name: str) -> Path | None:
        return None if self._run_dir is None else self._run_dir / name


def checker(store: Store, meter: Meter) -> Callable[[], Finding]:
    """Return a probe that also says which part of all look-ups the cache answers."""

    def probe() -> Finding:
        found = store.probe() or Finding()
        return Finding(found.status, found.detail, {**found.data, **ratio(meter)})

    return probe


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        first()
        second()

    return call


def starter(store: Store, emit: Callable[[Event], None]) -> Callable[[], None]:
    """Return what starts the store in a process that serves, and warns where its siblings cannot be told."""
    warn = warn_of_many(store, emit)
    return store.start if warn is None else _both(store.start, warn)


def _folder_name(namespace: str, prefix: str) -> str:
    """Return a folder for one service, environment and prefix: clearing it must not clear a neighbour's."""
    return quote(f"{namespace}:{prefix}".rstrip(":"), safe="")


def warn_of_many(store: Store, emit: Callable[[Event], None]) -> Callable[[], None] | None:
    """Return what warns, in a process that has siblings, of a memory that each keeps for itself."""
    if not isinstance(store, MemoryStore) or store.board.shared:
        return None

    def warn() -> None:
        processes = os.environ.get("WEB_CONCURRENCY", "")
        several = processes not in ("", "1") or os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn")
        if several and processes != "1":
            message = (
                "The cache lives in the memory of each worker: an entry deleted in one worker stays in the others "
                "until its time is over, since there is no directory where workers can leave word. Set RUN_DIR to "
                "one, or set REDIS_URL."
            )
            fields: dict[str, Any] = {"processes": processes or "unknown"}
            emit(Event("prod.cache.unshared", message, "warning", fields))

    return warn
