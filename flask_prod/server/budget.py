"""The arithmetic of time limits and pools: what does not add up, each with its numbers and its remedy.

Each limit is right alone and may be wrong together with another one: a stop that takes longer than the
orchestrator waits is a kill, a pool smaller than the threads is a queue. `findings` is a pure function of the
settings; docs/shutdown.md explains each sum.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from flask_prod.core.component import Event
from flask_prod.core.kit import EXTENSION, KitState
from flask_prod.core.settings import Section, Source, key_names, read_settings
from flask_prod.core.sources import find_sources

from .sums import RULES, Budget, Excess, Serving, SurroundingsSettings

logger = logging.getLogger(__name__)

EXCEEDED = "prod.budget.exceeded"


class GunicornConfig(Protocol):
    """What is asked of gunicorn's settings."""

    worker_class_str: str
    workers: int
    threads: int
    timeout: int
    graceful_timeout: int
    keepalive: int


def findings(
    values: Mapping[str, Any], serving: Serving, max_connections: int | None = None
) -> tuple[Excess, ...]:
    """Return all that does not add up; *values* are settings by key, those of rooms left out are missing.

    *max_connections* is what the database server allows, where somebody has asked it.
    """
    budget = Budget(values, serving, max_connections)
    return tuple(excess for rule in RULES for excess in rule(budget))


def serving_of(cfg: GunicornConfig) -> Serving:
    """Return what a gunicorn of this configuration does; a file or an option wins over our settings."""
    return Serving(
        cfg.worker_class_str, cfg.workers, cfg.threads, cfg.timeout, cfg.graceful_timeout, cfg.keepalive
    )


def planned(values: Mapping[str, Any], workers: int, kind: str = "gthread") -> Serving:
    """Return what a gunicorn does that is configured by our settings alone."""
    numbers = (float(values[key]) for key in ("WEB_TIMEOUT", "SHUTDOWN_SECONDS", "WEB_KEEPALIVE"))
    return Serving(kind, workers, int(values["WEB_THREADS"]), *numbers)


def values_of(state: KitState, *others: type[Section]) -> dict[str, Any]:
    """Return the settings of an application by key, and those of the sections that it does not read itself."""
    rows = {row.key: row.value for row in state.settings.rows}
    kinds: tuple[type[Section], ...] = (SurroundingsSettings, *others)
    names = {name for kind in kinds for field in kind.__struct_fields__ for name in key_names(kind, field)}
    sources = [
        Source(source.name, {name: value for name, value in source.values.items() if name in names})
        for source in find_sources(state.app.config, Path(state.app.root_path), remote=None)
    ]
    return {row.key: row.value for row in read_settings(kinds, sources).rows} | rows


def tell(state: KitState, cfg: GunicornConfig) -> tuple[Excess, ...]:
    """Log each warning of an application under this gunicorn as an event, and return them."""
    found = findings(values_of(state), serving_of(cfg))
    warnings = tuple(one for one in found if one.severity == "warning")
    for one in warnings:
        event = Event(EXCEEDED, f"Time limits or pools do not add up: {one}", "warning", {"finding": one.id})
        hooks = [c.on_event for c in state.contributions.values() if c.on_event is not None]
        for hook in hooks:
            hook(event)
        if not hooks:
            logger.warning(event.message)
    return warnings


class FirstOrNot(Protocol):
    """What is asked of a gunicorn worker."""

    age: int
    cfg: GunicornConfig


def look(worker: FirstOrNot) -> None:
    """Tell what does not add up in the application that a worker has loaded: in the first one of all, once."""
    state = getattr(getattr(worker, "wsgi", None), "extensions", {}).get(EXTENSION)
    if worker.age == 1 and state is not None:
        tell(state, worker.cfg)
