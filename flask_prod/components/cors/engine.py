"""The CORS answer per path and origin: computed by Flask-CORS once, replayed as tuples from then on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from flask_cors.core import (
    ACL_ORIGIN,
    ACL_REQUEST_HEADER_PRIVATE_NETWORK,
    ACL_REQUEST_HEADERS,
    ACL_REQUEST_METHOD,
    get_cors_headers,
)
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from flask_prod.core.component import Event, HeaderList
from flask_prod.core.ports import Meter, NoMeter
from flask_prod.core.record import RequestRecord

from .origins import Origins

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Pairs: TypeAlias = tuple[tuple[str, str], ...]
LibraryOptions: TypeAlias = Any
"""`flask_cors.core._ComputedCorsOptions`, which the library gives no public name."""

_MOST_ORIGINS = 1024
_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:[ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*", re.ASCII)
_LONGEST_REQUEST = 1024
_ACAO = ACL_ORIGIN.lower()
_VARY = ("Vary", "Origin")
_PREFLIGHTS = "CORS preflights, by result: allowed or refused."
_REFUSED = "Answers that the scripts of another origin may not read, because it is not allowed."
_PREFLIGHT_VARY = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a preflight asks for."""

    origin: str
    method: str
    headers: str
    private_network: str


class Rule:
    """One policy: which origins are allowed, and what they are told."""

    def __init__(self, origins: Origins, options: LibraryOptions) -> None:
        self._origins = origins
        self.asks = origins.check is not None
        """Whether a function of the user's decides, anew for each request."""
        self._options = options
        self.methods = frozenset(_split(options.methods))
        self._known: dict[str, Pairs] = {}
        self._anybody = self._ask(origin="https://any.invalid") if origins.any else None
        self.preflight = lru_cache(maxsize=512)(self._preflight)

    def answer(self, origin: str | None) -> Pairs | None:
        """Return the headers for an ordinary request, None when the origin is not allowed."""
        if self._anybody is not None:
            return self._anybody
        if not origin:
            return None
        return self._known.get(origin) or self._decide(origin)

    def _decide(self, origin: str) -> Pairs | None:
        if self._origins.lists(origin):
            if len(self._known) >= _MOST_ORIGINS:
                self._known.clear()
            answer = self._known[origin] = self._ask(origin)
            return answer
        if self._origins.check is not None and _plain(origin) and self._origins.check(origin):
            return self._ask(origin)
        return None

    def _ask(self, origin: str, preflight: Preflight | None = None, methods: str | None = None) -> Pairs:
        """Ask the library what it would say to this one origin."""
        options = replace(
            self._options,
            origins=[origin],
            allow_all_origins=self._origins.any,
            send_wildcard=self._origins.any,
            methods=methods or self._options.methods,
        )
        sent = Headers([("Origin", origin)])
        if preflight is not None:
            sent[ACL_REQUEST_METHOD] = preflight.method
            if preflight.headers:
                sent[ACL_REQUEST_HEADERS] = preflight.headers
            if preflight.private_network:
                sent[ACL_REQUEST_HEADER_PRIVATE_NETWORK] = preflight.private_network
        headers = get_cors_headers(options, sent, "GET" if preflight is None else "OPTIONS")
        return tuple((name, str(value)) for name, value in headers.items() if name != "Vary")

    def _preflight(self, asked: Preflight, route_methods: frozenset[str]) -> Pairs:
        """Return the headers that answer *asked*; the origin was allowed before."""
        methods = self.methods & route_methods if route_methods else self.methods
        pairs = self._ask(asked.origin, asked, ", ".join(sorted(methods)))
        return (*pairs, ("Vary", _PREFLIGHT_VARY))


class DecoratedRule(Rule):
    """The policy of a view under `@cross_origin`: the library itself decides which origins are allowed."""

    def __init__(self, options: LibraryOptions) -> None:
        super().__init__(Origins(check=lambda origin: bool(self._verdict(origin))), options)

    def _verdict(self, origin: str) -> bool:
        return ACL_ORIGIN in get_cors_headers(self._options, Headers([("Origin", origin)]), "GET")

    def _ask(self, origin: str, preflight: Preflight | None = None, methods: str | None = None) -> Pairs:
        if self._options.allow_all_origins and self._options.send_wildcard:
            return (*_without_origin(super()._ask(origin, preflight, methods)), (ACL_ORIGIN, "*"))
        return super()._ask(origin, preflight, methods)


@dataclass(frozen=True, slots=True)
class PathRule:
    """A rule and the path it holds for, by whole segments."""

    path: str
    rule: Rule

    def covers(self, path: str) -> bool:
        """Tell whether *path* is this one or lies below it."""
        return not self.path or path == self.path or path.startswith(self.path + "/")


class CorsPass:
    """CORS in the one pass: a step for preflights, and headers on every other answer.

    `route` tells which methods a path has and which endpoint answers one of them; `decorated` gives the rule of a
    view under `@cross_origin`.
    """

    def __init__(
        self,
        rules: Iterable[PathRule],
        route: Callable[[WSGIEnvironment, str], tuple[frozenset[str], str | None]],
        decorated: Callable[[str], Rule | None],
        meter: Meter | None = None,
        emit: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._emit = emit
        meter = meter or NoMeter()
        self._preflights = meter.counter("flask_prod_cors_preflights_total", _PREFLIGHTS, ("result",))
        self._refused = meter.counter("flask_prod_cors_origins_refused_total", _REFUSED)
        self._route = route
        self._find_decorated = decorated
        self.adopt(rules)

    def adopt(self, rules: Iterable[PathRule]) -> None:
        """Answer from now on by these rules."""
        self._rules = tuple(sorted(rules, key=lambda rule: -rule.path.count("/")))
        self._everywhere = self._rules[0].rule if len(self._rules) == 1 and not self._rules[0].path else None
        self._known: dict[str | None, Rule | None] = {}  # last: what is derived in between goes into the old one

    def ask(self, record: RequestRecord) -> Response | None:
        """Answer a valid preflight; one that is not goes on as any other request, and gets no CORS headers."""
        if record.method != "OPTIONS":
            return None
        asked = read_preflight(record)
        if asked is None:
            return None
        route_methods, endpoint = self._route(record.environ, asked.method)
        rule = self._rule(record.path, endpoint)
        if rule is None:
            return None
        possible = asked.method in rule.methods and (not route_methods or asked.method in route_methods)
        if not possible or rule.answer(asked.origin) is None:
            self._preflights.inc("refused")
            if possible:
                self._tell(record, asked.origin)
            return None
        self._preflights.inc("allowed")
        answer = Response(status=204, headers=list(rule.preflight(asked, route_methods)))
        del answer.headers["Content-Type"]
        return answer

    def add(self, record: RequestRecord, headers: HeaderList) -> None:
        """Add what the origin is allowed; a view that decided itself is left alone, and Vary is always there."""
        rule = self._known.get(record.endpoint) or self._rule(record.path, record.endpoint)
        if rule is None or record.operational:
            return
        answered = record.answered
        if _ACAO not in answered and not (record.method == "OPTIONS" and _REQUESTED in record.environ):
            origin = record.environ.get("HTTP_ORIGIN")
            allowed = rule.answer(origin)
            if allowed is not None:
                headers += allowed
                record.singular = rule.asks
            elif origin:
                record.singular = True
                if origin != f"{record.scheme}://{record.host}":
                    self._refused.inc()
                    self._tell(record, origin)
        if "vary" in answered:
            add_vary(headers)
        else:
            headers.append(_VARY)

    def _tell(self, record: RequestRecord, origin: str) -> None:
        """Tell of an origin that is not allowed, unless it is this site's own."""
        if origin.partition("://")[2] != record.host:
            message = "A script of another site asked; its browser will not show it the answer."
            self._emit(Event("security.origin_refused", message, "warning", {"origin": origin[:_LONGEST_ORIGIN]}))

    def _rule(self, path: str, endpoint: str | None) -> Rule | None:
        """Return the rule of a view under `@cross_origin`, else that of the path."""
        known = self._known
        if endpoint not in known:
            own = self._find_decorated(endpoint) if endpoint is not None else None
            known[endpoint] = own or self._everywhere
        return known[endpoint] or next((rule.rule for rule in self._rules if rule.covers(path)), None)


_LONGEST_ORIGIN = 300
_REQUESTED = "HTTP_ACCESS_CONTROL_REQUEST_METHOD"


def read_preflight(record: RequestRecord) -> Preflight | None:
    """Return what the preflight asks, None when it is none or no browser would send it so."""
    environ = record.environ
    origin, method = environ.get("HTTP_ORIGIN"), environ.get(_REQUESTED)
    headers = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "").strip()
    if not origin or not method:
        return None
    if headers and (len(headers) > _LONGEST_REQUEST or not _HEADER_NAMES.fullmatch(headers)):
        return None
    private = environ.get("HTTP_ACCESS_CONTROL_REQUEST_PRIVATE_NETWORK", "")
    return Preflight(origin, method, headers, "true" if private == "true" else "")


def add_vary(headers: HeaderList) -> None:
    """Say that the answer varies by origin, in the Vary that names it already, else in the first."""
    places = [index for index, (name, _) in enumerate(headers) if name.lower() == "vary"]
    place = next((index for index in places if "origin" in headers[index][1].lower()), places[0])
    headers[place] = (headers[place][0], vary_by_origin(headers[place][1]))


def vary_by_origin(value: str) -> str:
    """Return a Vary value that has Origin in it, once."""
    names = {name.strip().lower() for name in value.split(",")}
    if "origin" in names or "*" in names:
        return value
    return f"{value}, Origin" if value.strip() else "Origin"


def _split(value: str | None) -> list[str]:
    return [name.strip() for name in (value or "").split(",") if name.strip()]


def _plain(origin: str) -> bool:
    """Tell whether *origin* may be repeated in a header at all."""
    return (
        len(origin) <= _LONGEST_ORIGIN
        and origin.isascii()
        and origin.isprintable()
        and not set(origin) & {" ", ",", ";"}
    )


def _without_origin(pairs: Pairs) -> Pairs:
    return tuple(pair for pair in pairs if pair[0] != ACL_ORIGIN)
