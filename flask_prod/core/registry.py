"""Which components exist, where each lives, and in which order they are installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib.metadata import entry_points
from typing import Any, TypeAlias

from .component import Component
from .errors import ConfigError

AnyComponent: TypeAlias = Component[Any, Any]
Load: TypeAlias = Callable[[str], AnyComponent]

ENTRY_POINT_GROUP = "flask_prod.components"
"""Where a third party's distribution names its components."""

BUILT_IN = {
    "metrics": "flask_prod.components.metrics:Metrics",
    "proxy": "flask_prod.components.proxy:Proxy",
    "tracing": "flask_prod.components.tracing:Tracing",
    "logs": "flask_prod.components.logs:Logs",
    "error_tracking": "flask_prod.components.error_tracking:ErrorTracking",
    "alerts": "flask_prod.components.alerts:Alerts",
    "problems": "flask_prod.components.problems:Problems",
    "headers": "flask_prod.components.headers:SecurityHeaders",
    "cors": "flask_prod.components.cors:Cors",
    "redis": "flask_prod.components.redis:Redis",
    "usage": "flask_prod.components.usage:Usage",
    "ratelimit": "flask_prod.components.ratelimit:RateLimit",
    "cache": "flask_prod.components.cache:ResponseCache",
    "database": "flask_prod.components.database:Database",
    "migrations": "flask_prod.components.migrations:MigrationsRoom",
    "backups": "flask_prod.components.backups:BackupsRoom",
    "jobs": "flask_prod.components.jobs:Jobs",
    "health": "flask_prod.components.health:Health",
}
"""Name -> where its class is; a room that is left out is never imported."""


def load_component(name: str) -> AnyComponent:
    """Import and build the component called *name*; ConfigError when there is none."""
    where = BUILT_IN.get(name)
    if where is not None:
        module, _, attribute = where.partition(":")
        loaded = getattr(importlib.import_module(module), attribute)
    else:
        found = tuple(entry_points(group=ENTRY_POINT_GROUP, name=name))
        if not found:
            raise ConfigError([f"There is no component called {name!r}; there are {', '.join(BUILT_IN)}."])
        loaded = found[0].load()

    if not (isinstance(loaded, type) and issubclass(loaded, Component)):
        raise ConfigError([f"Component {name!r} is {loaded!r}, which is not a flask_prod Component."])
    component: AnyComponent = loaded()
    return component


def choose(only: Collection[str] | None, without: Collection[str], extra: Iterable[str]) -> list[str]:
    """Return the names to install; ConfigError for a name in `without` that no component has."""
    names = [name for name in BUILT_IN if only is None or name in only]
    names += [name for name in (*(only or ()), *extra) if name not in names]
    unknown = [name for name in without if name not in names and name not in BUILT_IN]
    if unknown:
        raise ConfigError([f"without names {name!r}, which is not a component." for name in unknown])
    return [name for name in names if name not in without]


def ordered(names: Sequence[str], load: Load, without: Collection[str] = ()) -> list[AnyComponent]:
    """Return the components of *names* and all that they require, each after what it stands on.

    ConfigError for a requirement that was left out on purpose, and for components that wait for one another.
    """
    components: dict[str, AnyComponent] = {}
    queue = list(names)
    while queue:
        name = queue.pop(0)
        if name in components:
            continue
        component = load(name)
        missing = next((needed for needed in component.requires if needed in without), None)
        if missing is not None and component.leaves:
            continue
        if missing is not None:
            raise ConfigError([f"{name} requires {missing}, which is left out: leave out {name} too."])
        components[name] = component
        queue += component.requires
    return _sorted(components)


def _sorted(components: dict[str, AnyComponent]) -> list[AnyComponent]:
    """Sort stably: the order of the registry holds wherever no requirement says otherwise."""
    rank = {name: index for index, name in enumerate(BUILT_IN)}
    waiting = sorted(components.values(), key=lambda c: rank.get(c.name, len(rank)))
    placed: list[AnyComponent] = []
    names: set[str] = set()
    while waiting:
        ready = next((c for c in waiting if _first(c, components) <= names), None)
        if ready is None:
            circle = ", ".join(c.name for c in waiting)
            raise ConfigError([f"These components wait for one another: {circle}."])
        waiting.remove(ready)
        placed.append(ready)
        names.add(ready.name)
    return placed


def _first(component: AnyComponent, among: Collection[str]) -> set[str]:
    return {name for name in (*component.requires, *component.after) if name in among}
