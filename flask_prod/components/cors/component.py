"""Install the CORS room: a step for preflights, a header hook, and safe defaults for `@cross_origin`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from flask import Flask
from flask_cors.core import CorsOptionsInput, get_cors_options
from werkzeug.exceptions import HTTPException

from flask_prod.core.component import Component, Contribution, Installed, Stage, Step
from flask_prod.core.errors import ConfigError
from flask_prod.core.settings import show

from .engine import CorsPass, DecoratedRule, PathRule, Rule
from .handle import CorsHandle, decorator_options
from .origins import Origins, origin_problems
from .settings import EXPOSED, CorsSettings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_OPTIONS = frozenset(CorsOptionsInput.__optional_keys__) - {"resources"}
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'+.^_`|~-]+", re.ASCII)
_TAIL = re.compile(r"/?(\.?\*)?$")


class Cors(Component[CorsSettings, CorsPass]):
    """Tell browsers which sites' scripts may read the answers."""

    name = "cors"
    after = ("metrics", "proxy")
    settings = CorsSettings

    def face(self) -> CorsHandle:
        """Build the object that users hold."""
        return CorsHandle()

    def install(self, app: Flask, settings: CorsSettings, kit: Installed) -> Contribution[CorsPass]:
        """Compute the policies of all paths; what is unsafe is refused."""
        rules = read_rules(app, settings)
        configure_decorator(app, settings)
        cors = CorsPass(rules, _Router(app), _Decorated(app), kit.meter, kit.emit)

        def prepare(changed: CorsSettings) -> Callable[[], None]:
            rules = read_rules(app, changed)

            def adopt() -> None:
                if not changed.origins:
                    app.config.pop("CORS_ORIGINS", None)
                configure_decorator(app, changed)
                cors.adopt(rules)

            return adopt

        return Contribution(
            handle=cors,
            steps=(Step(Stage.PREFLIGHT, cors.ask),),
            headers=cors.add,
            steady=True,
            reload=prepare,
        )


class _Router:
    """Tells which methods a path has, and which endpoint answers one of them."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, method: str) -> tuple[frozenset[str], str | None]:
        app = self._app
        adapter = app.url_map.bind_to_environ(
            environ,
            server_name=app.config["SERVER_NAME"],
            subdomain=None if app.subdomain_matching else app.url_map.default_subdomain or None,
        )
        methods = frozenset(adapter.allowed_methods())
        if method not in methods:
            return methods, None
        try:
            return methods, adapter.match(method=method)[0]
        except HTTPException:
            return methods, None


class _Decorated:
    """Finds the rule of a view under `@cross_origin`."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def __call__(self, endpoint: str) -> Rule | None:
        options = decorator_options(self._app.view_functions.get(endpoint))
        if options is None:
            return None
        try:
            return DecoratedRule(get_cors_options(self._app, options))
        except ValueError:
            return None  # a wildcard with credentials: the decorator itself raises this in the view


def read_rules(app: Flask, settings: CorsSettings) -> list[PathRule]:
    """Return the policies of all paths; ConfigError for what is unsafe."""
    resources = read_resources(settings)
    problems = [*_problems(settings), *_resource_problems(settings, resources)]
    if problems:
        raise ConfigError(problems)
    return [PathRule(path, rule) for path, options in resources.items() if (rule := _rule(app, options))]


def read_resources(settings: CorsSettings) -> dict[str, dict[str, Any]]:
    """Return path -> options under the library's names; a path has no slash at its end, the root none at all."""
    shared = {
        "origins": settings.origins,
        "check": settings.origin_check,
        "methods": settings.methods,
        "allow_headers": settings.allowed_headers,
        "expose_headers": sorted({*EXPOSED, *settings.exposed_headers}),
        "supports_credentials": settings.credentials,
        "max_age": int(settings.max_age),
        "allow_private_network": settings.allow_private_network,
    }
    own = settings.resources or "/"
    if not isinstance(own, Mapping):
        own = {path: {} for path in _listed(own)}
    found = {}
    for path, options in own.items():
        options = dict(options)
        for name in ("origins", "methods", "allow_headers", "expose_headers"):
            if name in options:
                options[name] = tuple(_listed(options[name]))
        found[_prefix(path)] = {**shared, **options}
    return found


def configure_decorator(app: Flask, settings: CorsSettings) -> None:
    """Give `@cross_origin` the kit's lists as its defaults, anchored; the library reads them from app.config.

    A decorator that allows credentials and names no origins then fails, where it would reflect any origin.
    """
    app.config.setdefault("CORS_SEND_WILDCARD", True)
    app.config["CORS_EXPOSE_HEADERS"] = sorted({*EXPOSED, *settings.exposed_headers})
    app.config["CORS_ALLOW_HEADERS"] = list(settings.allowed_headers)
    app.config["CORS_METHODS"] = list(settings.methods)
    app.config["CORS_MAX_AGE"] = int(settings.max_age)
    app.config["CORS_SUPPORTS_CREDENTIALS"] = settings.credentials
    if settings.origins:
        app.config["CORS_ORIGINS"] = Origins.parse(settings.origins).patterns()


def _rule(app: Flask, options: Mapping[str, Any]) -> Rule | None:
    origins = Origins.parse(options["origins"], options["check"])
    if not origins:
        return None
    library = {name: value for name, value in options.items() if name in _OPTIONS and name != "origins"}
    methods = [method.upper() for method in library.pop("methods")]
    return Rule(
        origins, get_cors_options(app, {**library, "methods": methods, "origins": [], "send_wildcard": False})
    )


def _problems(settings: CorsSettings) -> Iterator[str]:
    yield from origin_problems(settings.origins, "ALLOWED_ORIGINS")
    if settings.credentials and "*" in settings.origins:
        yield (
            "CORS_CREDENTIALS cannot be true while ALLOWED_ORIGINS has '*': any site could read the data of "
            "signed-in users. Name the origins, or https://*.example.com for subdomains."
        )
    for name in (*settings.allowed_headers, *settings.exposed_headers):
        if name != "*" and not _TOKEN.fullmatch(name):
            yield f"CORS_ALLOWED_HEADERS and CORS_EXPOSED_HEADERS take header names or '*', not {name!r}."


def _resource_problems(settings: CorsSettings, resources: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for path, options in resources.items():
        shown = path or "/"
        if not (path == "" or path.startswith("/")) or set(path) & set("*\\^$?[](){}|+"):
            yield (
                f"CORS_RESOURCES has {show(shown)!r}, which is no path: write /api/ for /api and all below it; "
                "regular expressions match more than they seem to."
            )
        for name in options.keys() - _OPTIONS - {"check"}:
            near = get_close_matches(name, _OPTIONS, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            yield f"CORS_RESOURCES: {shown} has {name}, which is not an option of Flask-CORS{hint}"
        if options["origins"] is settings.origins:
            wild = "*" in settings.origins and not settings.credentials
        else:
            yield from origin_problems(options["origins"], f"CORS_RESOURCES: {shown}")
            wild = "*" in options["origins"]
        if wild and options["supports_credentials"]:
            yield f"CORS_RESOURCES: {shown} allows credentials to any origin ('*'); name the origins."


def _listed(value: Any) -> Iterable[Any]:
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return value if isinstance(value, list | tuple | set | frozenset) else [value]


def _prefix(path: Any) -> str:
    text = str(getattr(path, "pattern", path))
    return _TAIL.sub("", text)
