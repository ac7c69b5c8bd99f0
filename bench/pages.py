"""What a hit on a cached page costs: by Flask-Caching alone, and by the kit with everything on.

`page.by_hand` is bare Flask and the cache, and nothing else; the kit's hit also has its limits, headers, metrics,
access line and request id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flask import Flask

from bench import apps
from bench.measure import Figures, instructions, times

NAMES = {"bare": "bare", "by_hand": "page.by_hand", "kit": "page.kit"}


def build(name: str) -> Flask:
    """Build `page.by_hand` or `page.kit`."""
    if name.startswith("page.kit."):
        return apps.kit(("cache", *[room for room in [name[9:]] if room]), public=True)
    return by_hand() if name == "page.by_hand" else apps.kit(public=True)


def by_hand() -> Flask:
    """Cache the view as the README of Flask-Caching says."""
    from flask_caching import Cache

    app = Flask("by_hand")
    cache: Any = Cache(app, config={"CACHE_TYPE": "SimpleCache"})
    apps.routes(app, cache.cached(timeout=3600))
    return app


def page_instructions(environ: Callable[[], dict[str, str]], names: Sequence[str] = tuple(NAMES)) -> Figures | str:
    """Count the instructions of one hit, beside those of the bare view."""
    counted = instructions(environ, [NAMES[name] for name in names])
    return counted if isinstance(counted, str) else {name: counted[NAMES[name]] for name in names}


def page_times(environ: Callable[[], dict[str, str]]) -> Figures:
    """Return the median microseconds of one hit, beside those of the bare view."""
    taken = times(environ, tuple(NAMES.values()))
    return {name: taken[app] for name, app in NAMES.items()}
