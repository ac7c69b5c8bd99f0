"""What an application does by hand that the kit does now: told with file and line, never rewritten."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from .origin import names_of
from .project import Module, Project


class Advice(NamedTuple):
    """A class or function of another library, and what stands in its place."""

    library: str
    name: str
    instead: str


ADVICE = {
    "flask_limiter": Advice(
        "Flask-Limiter", "Limiter", "`prod.limiter`; its limits go to RATE_LIMIT_PUBLIC and its like"
    ),
    "flask_caching": Advice("Flask-Caching", "Cache", "`prod.cache`; CACHE_BACKEND and CACHE_TTL"),
    "flask_talisman": Advice("Flask-Talisman", "Talisman", "`prod.talisman`; SECURITY_CSP and its like"),
    "flask_cors": Advice("Flask-CORS", "CORS", "`prod.cors`; ALLOWED_ORIGINS"),
    "prometheus_flask_exporter": Advice("prometheus-flask-exporter", "PrometheusMetrics", "`prod.metrics`"),
    "sentry_sdk": Advice("the Sentry SDK", "init", "`prod.sentry`; SENTRY_DSN"),
    "werkzeug.middleware.proxy_fix": Advice(
        "werkzeug", "ProxyFix", "TRUSTED_PROXIES, the number of proxies in front"
    ),
}
KEY = "SECRET_KEY"
_OURS = ("/health", "/metrics")
_ROUTES = frozenset({"route", "get", "post", "add_url_rule"})


def advice(project: Project) -> Iterator[str]:
    """Yield a line for each place that does what the kit does now."""
    for module in project.everything():
        names = {source: names_of(module, {source: one.name}) for source, one in ADVICE.items()}
        elsewhere = set(_of_other_profiles(module))
        for node in ast.walk(module.tree):
            said = "" if node in elsewhere else _said(module, node, names)
            if said:
                yield f"{project.shown(module.path)}, line {getattr(node, 'lineno', 0)}: {said}"


def _of_other_profiles(module: Module) -> Iterator[ast.AST]:
    """Yield what is in the classes of settings for tests and development: production has others."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef) and re.search("test|dev", node.name, re.IGNORECASE):
            yield from ast.walk(node)


def _said(module: Module, node: ast.AST, names: dict[str, set[str]]) -> str:
    """Return what there is to say of one node; mostly nothing."""
    if _fixed_key(node):
        return "SECRET_KEY stands in the code, which wins over environment and secret files."
    if not isinstance(node, ast.Call):
        return ""
    name = ast.unparse(node.func)
    one = next((ADVICE[source] for source, known in names.items() if name in known), None)
    if one is not None:
        return f"{_bound(module, node)} of {one.library} does what the kit does now: use {one.instead}."
    path = _hidden_path(node)
    return f"{path} is answered by the kit now; {_key(path)} gives the kit's page another path." if path else ""


def _bound(module: Module, call: ast.Call) -> str:
    """Return the line as it stands, in short: `limiter = Limiter(...)`."""
    name = f"{ast.unparse(call.func)}(...)"
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is call:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            return f"`{ast.unparse(target)} = {name}`"
    return f"`{name}`"


def _hidden_path(call: ast.Call) -> str:
    """Return the path of a view of the user's own that the kit's page hides."""
    if not (isinstance(call.func, ast.Attribute) and call.func.attr in _ROUTES and call.args):
        return ""
    first = call.args[0]
    path = first.value if isinstance(first, ast.Constant) else None
    if not isinstance(path, str):
        return ""
    return path if path in _OURS or path.startswith("/health/") else ""


def _key(path: str) -> str:
    return "METRICS_PATH" if path == "/metrics" else "HEALTH_PATH"


def _fixed_key(node: ast.AST) -> bool:
    """Say whether a secret key is written out: `SECRET_KEY="..."`, `app.secret_key = "..."` and the like."""
    if isinstance(node, ast.keyword):
        return node.arg == KEY and isinstance(node.value, ast.Constant) and bool(node.value.value)
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Constant) or not node.value.value:
        return False
    target = node.targets[0]
    if isinstance(target, ast.Attribute):
        return target.attr == "secret_key"
    if isinstance(target, ast.Subscript):
        return isinstance(target.slice, ast.Constant) and target.slice.value == KEY
    return isinstance(target, ast.Name) and target.id == KEY
