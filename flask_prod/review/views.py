"""What can be told of an application's views without calling them: what their code names, what limits them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from flask import Flask, flash, session

_MOST = 64
"""Decorators around a view that are looked below."""


def views(app: Flask) -> Iterator[tuple[str, str, frozenset[str], Any]]:
    """Yield endpoint, rule, methods and function of every route."""
    for one in app.url_map.iter_rules():
        view = app.view_functions.get(one.endpoint)
        if view is not None:
            yield one.endpoint, one.rule, frozenset(one.methods or ()), view


def layers(view: Any) -> Iterator[Any]:
    """Yield a view, and what lies below its decorators."""
    for _ in range(_MOST):
        if view is None:
            return
        yield view
        view = getattr(view, "__wrapped__", None)


def asks_session(view: Any) -> str:
    """Return by which name a view's own code asks for the visitor, empty where it does not."""
    *_, inner = layers(view)
    names = getattr(getattr(inner, "__code__", None), "co_names", ())
    scope: Mapping[str, Any] = getattr(inner, "__globals__", {})
    for name in names:
        found = scope.get(name)
        if found is session or found is flash or (name == "current_user" and found is not None):
            return str(name)
    return ""


def cached(view: Any) -> Callable[..., Any] | None:
    """Return the layer of a view that Flask-Caching, or the kit in its place, answers for; None without one."""
    return next((one for one in layers(view) if hasattr(one, "make_cache_key")), None)


def varies_by_visitor(layer: Any) -> bool:
    """Tell whether a cached page is kept apart for each cookie."""
    shared = getattr(getattr(layer.make_cache_key, "__self__", None), "shared", None)
    return "cookie" in getattr(shared, "vary", ())


def limited(app: Flask, endpoint: str, view: Any, off: Collection[str]) -> bool:
    """Tell whether a view has a limit of its own, or of its blueprint; policies named in *off* are none."""
    from flask_prod.components.ratelimit.plan import marks_of

    names = endpoint.split(".")[:-1]
    blueprints = [".".join(names[:n]) for n in range(len(names), 0, -1)]
    if any(one.name not in off for one in marks_of(app, endpoint, "POST", blueprints)):
        return True
    return any(_by_library(limiter, blueprints, view) for limiter in app.extensions.get("limiter", ()))


def _by_library(limiter: Any, blueprints: Iterable[str], view: Any) -> bool:
    """Tell whether Flask-Limiter has a limit for a view."""
    from flask_limiter.util import get_qualified_name

    if any(name in limiter.limit_manager._blueprint_limits for name in blueprints):
        return True
    method = getattr(getattr(view, "view_class", None), "post", None)
    functions = (one for one in (*layers(view), *layers(method)) if hasattr(one, "__qualname__"))
    return any(get_qualified_name(one) in limiter._marked_for_limiting for one in functions)
